"""What a block does to the chain: the only place where records come to count.

Sealing and validating build the body with the same code; validating then compares what came out with what the
producer claimed, field by field, and names the first difference.

Source: docs/protocol.md, "Applying a block".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ledger import merkle
from ledger.block import (
    BLOCK_TRANSACTIONS_MAX,
    Block,
    BlockId,
    BodyItem,
    Certificate,
    Header,
    Height,
    Slot,
    Totals,
    block_id_of,
    body_root,
    certificate_hash,
    genesis_block_id,
    sum_totals,
    void_bitmap,
)
from ledger.cdr import CallRecord
from ledger.errors import InvalidBlock, UnusableTransaction
from ledger.genesis import Genesis, Parameters, chain_id_of
from ledger.governance import apply_payload
from ledger.record_index import SeenRecords
from ledger.state import State
from ledger.validation import (
    EDGE_MS,
    MINUTE_MS,
    CheckedTransaction,
    MinuteKeys,
    check_in_context,
    member_share_of,
    record_keys,
    totals_of,
)

PAYLOADS_PER_BLOCK_MAX = 64
"""Transactions that govern, in one block: each costs a copy of what it changes."""
PAYLOADS_PER_MEMBER_MAX = 8
"""Those of one member, in one block: nobody can keep the others from governing."""

ReadRecords = Callable[[bytes], list[CallRecord]]
"""Returns the records of a transaction by id; asked only where one of them may be void."""


@dataclass(frozen=True, slots=True)
class ChainState:
    """The chain after one block, without the record index.

    Attributes:
        history: the ids of all blocks up to and including this one.
    """

    chain_id: bytes
    height: Height
    slot: Slot
    block_id: BlockId
    state: State
    history: merkle.Frontier


def genesis_chain(genesis: Genesis, state: State) -> ChainState:
    """Return the chain at height 0; ``state``: of genesis, with its first producers elected."""
    chain_id = chain_id_of(genesis)
    block_id = genesis_block_id(chain_id)
    history = merkle.Frontier().append(merkle.leaf_hash(block_id))
    return ChainState(chain_id, Height(0), Slot(-1), block_id, state, history)


def block_time_ms(genesis: Genesis, slot: int) -> int:
    """Return the time of a slot: a chain has no other clock."""
    return genesis.genesis_time_ms + slot * genesis.parameters.slot_ms


def check_payload(tx: CheckedTransaction, chain: ChainState, time_ms: int) -> None:
    """Raise UnusableTransaction where a transaction that governs would not fit a block at ``time_ms`` on ``chain``.

    Whoever hands it in is told at once; what is pending may still make it fit or not.
    """
    if tx.payload is not None:
        _after_payload(chain.state, tx, chain.height + 1, time_ms)


def _after_payload(state: State, tx: CheckedTransaction, height: int, time_ms: int) -> State:
    assert tx.payload is not None
    return apply_payload(
        state, tx.payload, member_id=tx.envelope.member_id, tx_id=tx.tx_id, height=height, time_ms=time_ms
    )


class BodyBuilder:
    """The body of one block, built transaction by transaction on one branch.

    begin: the state that the block's place gives, before its transactions; ``state`` is the one after them.
    seen: that branch's, with a fresh overlay, which this fills.
    """

    def __init__(self, begin: State, height: int, time_ms: int, seen: SeenRecords, read_records: ReadRecords) -> None:
        self.state = begin
        self._begin = begin
        self._height = height
        self._time_ms = time_ms
        self._read_records = read_records
        self.seen = seen
        self.body: list[BodyItem] = []
        self._totals: list[Totals] = []
        self._room = _Room(begin.parameters)

    def fits(self, tx: CheckedTransaction) -> bool:
        """Tell whether the block, and its member's share of it, has room for ``tx``."""
        return self._room.fits(tx)

    def add(self, tx: CheckedTransaction) -> None:
        """Append ``tx``. Raises UnusableTransaction where it may not be in this block; nothing is changed then."""
        check_in_context(tx, self._begin, self._time_ms)
        # [IGNORE] The branch does not hold it yet
        if self.seen.has_transaction(tx.tx_id):
            raise UnusableTransaction("in the chain already", where="tx_id", actual=tx.tx_id)
        if tx.payload is not None:
            self.state = _after_payload(self.state, tx, self._height, self._time_ms)
        if _is_all_new(tx, self.seen):
            bitmap, totals = b"", tx.totals
            for group in tx.minutes:
                self.seen.overlay.add(group.minute, group.keys)
        else:
            bitmap, totals = self._count_one_by_one(tx)
        self.seen.overlay.tx_ids.add(tx.tx_id)
        self.body.append(BodyItem(tx.tx_id, bitmap))
        self._totals.append(totals)
        self._room.take(tx)

    def totals(self) -> Totals:
        """Return what the records of the body add up to."""
        return sum_totals(self._totals)

    def _count_one_by_one(self, tx: CheckedTransaction) -> tuple[bytes, Totals]:
        """Return bitmap and totals of a transaction that may repeat keys, and count its new ones."""
        records = self._read_records(tx.tx_id)
        voids, counted = void_records(tx.envelope.member_id, records, self.seen)
        # [IGNORE] At least one record counts
        if len(voids) == len(records):
            raise UnusableTransaction("all its records are void", where="tx_id", actual=tx.tx_id)
        for minute, keys in counted.items():
            self.seen.overlay.add(minute, keys)
        kept = totals_of([r for i, r in enumerate(records) if i not in voids])
        return void_bitmap(voids, len(records)), _with_void(kept, len(voids))


class _Room:
    """How much of a block is taken, in all and by each member; and how many of the places of its body."""

    def __init__(self, parameters: Parameters) -> None:
        self._records_max = parameters.block_records_max
        self._bytes_max = parameters.block_bytes_max
        self._member_records_max, self._member_bytes_max = member_share_of(parameters)
        self._transactions = self._records = self._bytes = self._payloads = 0
        self._members: dict[str, tuple[int, int]] = {}
        self._member_payloads: dict[str, int] = {}

    def fits(self, tx: CheckedTransaction) -> bool:
        """Tell whether ``tx`` is within every bound; a member's share is of records, not of what governs."""
        if tx.payload is not None:
            return (
                self._payloads < PAYLOADS_PER_BLOCK_MAX
                and self._member_payloads.get(tx.envelope.member_id, 0) < PAYLOADS_PER_MEMBER_MAX
                and self._transactions < BLOCK_TRANSACTIONS_MAX
                and self._bytes + tx.size <= self._bytes_max
            )
        records, size = self._members.get(tx.envelope.member_id, (0, 0))
        return (
            self._transactions < BLOCK_TRANSACTIONS_MAX
            and self._records + tx.record_count <= self._records_max
            and self._bytes + tx.size <= self._bytes_max
            and records + tx.record_count <= self._member_records_max
            and size + tx.size <= self._member_bytes_max
        )

    def take(self, tx: CheckedTransaction) -> None:
        """Count ``tx`` in."""
        self._transactions += 1
        self._bytes += tx.size
        if tx.payload is not None:
            self._payloads += 1
            self._member_payloads[tx.envelope.member_id] = self._member_payloads.get(tx.envelope.member_id, 0) + 1
            return
        records, size = self._members.get(tx.envelope.member_id, (0, 0))
        self._members[tx.envelope.member_id] = (records + tx.record_count, size + tx.size)
        self._records += tx.record_count


def _is_all_new(tx: CheckedTransaction, seen: SeenRecords) -> bool:
    """Tell whether no record of ``tx`` can be void, looking at whole sets instead of single keys."""
    if tx.has_repeats:
        return False
    return all(_is_minute_new(group, seen) for group in tx.minutes)


def _is_minute_new(group: MinuteKeys, seen: SeenRecords) -> bool:
    return (
        all(group.keys.isdisjoint(layer) for layer in seen.layers(group.minute))
        and (not group.near_previous or _is_disjoint(group.near_previous, seen, group.minute - 1))
        and (not group.near_next or _is_disjoint(group.near_next, seen, group.minute + 1))
    )


def _is_disjoint(keys: frozenset[bytes], seen: SeenRecords, minute: int) -> bool:
    return all(keys.isdisjoint(layer) for layer in seen.layers(minute))


def void_records(
    member_id: str, records: Sequence[CallRecord], seen: SeenRecords
) -> tuple[set[int], dict[int, set[bytes]]]:
    """Return the indexes of void records, and the keys of the others by minute, judged one by one in order.

    A record is void when its key counted before in the minute of its setup or, within EDGE_MS of the minute's edge,
    in the neighbour. Minute 0 has none before it.
    """
    voids: set[int] = set()
    counted: dict[int, set[bytes]] = {}
    layers: dict[int, list[AbstractSet[bytes]]] = {}
    for index, (key, record) in enumerate(zip(record_keys(member_id, records), records, strict=True)):
        minute, offset = divmod(record.setup_ms, MINUTE_MS)
        minutes = [minute]
        if offset < EDGE_MS and minute:
            minutes.append(minute - 1)
        elif offset >= MINUTE_MS - EDGE_MS:
            minutes.append(minute + 1)
        if any(_has_counted(key, m, counted, layers, seen) for m in minutes):
            voids.add(index)
        else:
            counted.setdefault(minute, set()).add(key)
    return voids, counted


def _has_counted(
    key: bytes,
    minute: int,
    counted: dict[int, set[bytes]],
    layers: dict[int, list[AbstractSet[bytes]]],
    seen: SeenRecords,
) -> bool:
    if minute not in layers:
        layers[minute] = seen.layers(minute)
    return key in counted.get(minute, ()) or any(key in layer for layer in layers[minute])


def _with_void(totals: Totals, void: int) -> Totals:
    return sum_totals([totals, Totals(0, void, 0, 0, 0, 0, 0, 0, [])])


def make_header(
    parent: ChainState,
    slot: int,
    producer_key_id: bytes,
    builder: BodyBuilder,
    certificate: Certificate | None,
) -> Header:
    """Return the one header that is right for these contents on ``parent``."""
    return Header(
        1,
        parent.chain_id,
        parent.height + 1,
        slot,
        parent.block_id,
        producer_key_id,
        builder.state.rule_set,
        len(builder.body),
        body_root(builder.body),
        builder.totals(),
        builder.state.tree.root,
        parent.history.root(),
        certificate_hash(certificate),
    )


def chain_after(parent: ChainState, header: Header, state: State) -> ChainState:
    """Return the chain with a block of ``header`` on ``parent``, after which ``state`` holds."""
    block_id = block_id_of(header)
    return ChainState(
        parent.chain_id,
        Height(header.height),
        Slot(header.slot),
        block_id,
        state,
        parent.history.append(merkle.leaf_hash(block_id)),
    )


def apply_block(
    parent: ChainState,
    begin: State,
    block: Block,
    transactions: Sequence[CheckedTransaction],
    time_ms: int,
    seen: SeenRecords,
    read_records: ReadRecords,
) -> ChainState:
    """Return the chain after ``block``, having derived everything its header claims about its contents.

    begin: the state that the block's place gives, before its transactions: who produces and votes may have changed.
    transactions: those the body names, in its order. ``seen`` gets the block's overlay.
    Raises InvalidBlock naming the first field that differs. Who may produce, signature and certificate are
    consensus' to judge.
    """
    builder = BodyBuilder(begin, parent.height + 1, time_ms, seen, read_records)
    for index, (item, tx) in enumerate(zip(block.body, transactions, strict=True)):
        # [REJECT] The block is within the chain's bounds
        if not builder.fits(tx):
            raise InvalidBlock("over the bounds of a block or a member's share", where=f"body[{index}]")
        # [REJECT] Every transaction may be in it
        try:
            builder.add(tx)
        except UnusableTransaction as error:
            raise InvalidBlock(
                error.what, where=f"body[{index}].{error.where}", expected=error.expected, actual=error.actual
            ) from None
        # [REJECT] The void records are those
        if builder.body[index] != item:
            raise InvalidBlock(
                "other records are void",
                where=f"body[{index}].void_bitmap",
                expected=builder.body[index].void_bitmap.hex() or "none",
                actual=item.void_bitmap.hex() or "none",
            )
    header = block.sealed.header
    check_header_fields(
        header, make_header(parent, header.slot, header.producer_key_id, builder, block.sealed.certificate)
    )
    return chain_after(parent, header, builder.state)


def check_header_fields(actual: Header, expected: Header) -> None:
    """Raise InvalidBlock naming the first field of a header that is not what the contents give."""
    for name in Header.__struct_fields__:
        found, right = getattr(actual, name), getattr(expected, name)
        if found != right and name == "totals":
            for part in Totals.__struct_fields__:
                _check_equal(f"totals.{part}", getattr(found, part), getattr(right, part))
        _check_equal(name, found, right)


def _check_equal(name: str, actual: object, expected: object) -> None:
    # [REJECT] The header says what the contents give
    if actual != expected:
        raise InvalidBlock("not what the contents give", where=name, expected=expected, actual=actual)
