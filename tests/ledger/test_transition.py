"""What a block does to the chain: built the fast way and, beside it, by a plain twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import merkle, record_index, transition
from ledger.block import (
    EMPTY_TOTALS,
    Block,
    BodyItem,
    Certificate,
    CertificatePart,
    Header,
    MosTotal,
    SealedHeader,
    Totals,
    bitmap_indexes,
    block_id_of,
    void_bitmap,
)
from ledger.cdr import CallRecord, record_key_of
from ledger.codec import decode_each, encode
from ledger.errors import InvalidBlock, UnusableTransaction
from ledger.genesis import Genesis, GenesisMember, MemberKey, Role, chain_id_of
from ledger.record_index import Overlay, RecordIndex, SeenRecords
from ledger.state import genesis_state
from ledger.store import MemoryStore, WriteBatch
from ledger.transaction import make_transaction
from ledger.transition import (
    BodyBuilder,
    ChainState,
    apply_block,
    block_time_ms,
    chain_after,
    genesis_chain,
    make_header,
    void_records,
)
from ledger.validation import CheckedTransaction, check_transaction, totals_of
from tests.ledger.ledger_samples import (
    CHAIN_ID,
    GENESIS,
    GENESIS_MS,
    MINUTE_MS,
    NODE_KEYS,
    NOW_MS,
    PARAMETERS,
    STATE,
    SUBMIT_KEY,
    NoRules,
    make_genesis,
    make_record,
    sign_records,
)

replace = msgspec.structs.replace
SLOT = (NOW_MS - GENESIS_MS) // PARAMETERS.slot_ms
MINUTE = GENESIS_MS // MINUTE_MS


class Taken:
    """Transactions taken in: checked, and their records by id."""

    def __init__(self) -> None:
        self.records: dict[bytes, list[CallRecord]] = {}
        self.asked: list[bytes] = []
        self._created = 0

    def take(self, records: list[CallRecord], **changes: Any) -> CheckedTransaction:
        """Return a checked transaction of ``records``, unlike any before."""
        self._created += 1
        raw = encode(sign_records(records, created_ms=NOW_MS - 60_000 + self._created, **changes))
        tx = check_transaction(raw, chain_id=CHAIN_ID, key_of=STATE.keys.get, rules=NoRules())
        self.records[tx.tx_id] = records
        return tx

    def read(self, tx_id: bytes) -> list[CallRecord]:
        self.asked.append(tx_id)
        return self.records[tx_id]


def builder_on(taken: Taken, *overlays: Overlay, index: RecordIndex | None = None) -> BodyBuilder:
    return BodyBuilder(STATE, 1, NOW_MS, SeenRecords(index or RecordIndex(MemoryStore()), overlays), taken.read)


# -- void records -------------------------------------------------------------------------------------------------


def at(number: int, minute: int, offset_ms: int, **changes: Any) -> CallRecord:
    return make_record(number, setup_ms=(MINUTE + minute) * MINUTE_MS + offset_ms, **changes)


@pytest.mark.parametrize(
    ("first", "second", "is_void"),
    [
        ((1, 30_000), (1, 30_000), True),
        ((1, 0), (1, 59_999), True),
        ((1, 59_999), (2, 0), True),
        ((1, 59_999), (2, 4_999), True),
        ((1, 59_999), (2, 5_000), False),
        ((1, 0), (2, 4_999), True),  # the neighbour is asked as a whole
        ((2, 0), (1, 59_999), True),
        ((2, 0), (1, 55_000), True),
        ((2, 0), (1, 54_999), False),
        ((2, 59_999), (1, 55_000), True),
        ((1, 30_000), (3, 0), False),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_edges_of_minutes(first: tuple[int, int], second: tuple[int, int], is_void: bool, apart: bool) -> None:
    taken = Taken()
    builder = builder_on(taken)
    records = [at(1, *first), at(1, *second), at(2, 1, 30_000)]
    if apart:
        builder.add(taken.take(records[:1]))
        builder.add(taken.take(records[1:]))
        assert [item.void_bitmap for item in builder.body] == [b"", b"\x01" if is_void else b""]
    else:
        builder.add(taken.take(records))
        assert builder.body[0].void_bitmap == (b"\x02" if is_void else b"")
    assert (builder.totals().records, builder.totals().void) == (3 - is_void, int(is_void))


def test_the_first_minute_of_1970_has_none_before_it() -> None:
    """A call set up then and ended today is odd but must not stop a node."""
    taken = Taken()
    builder = builder_on(taken)
    odd = make_record(1, setup_ms=0, answer_ms=0, end_ms=NOW_MS)
    builder.add(taken.take([odd, replace(odd, setup_ms=1)]))
    builder.add(taken.take([odd, make_record(2)]))
    assert [item.void_bitmap for item in builder.body] == [b"\x02", b"\x01"]


def test_other_legs_and_members_are_other_records() -> None:
    from ledger.cdr import Leg

    record = make_record(1)
    voids, counted = void_records(
        "alba", [record, replace(record, leg=Leg.TERMINATING)], SeenRecords(RecordIndex(MemoryStore()), [])
    )
    assert voids == set()
    seen = SeenRecords(RecordIndex(MemoryStore()), [])
    for minute, keys in counted.items():
        seen.overlay.add(minute, keys)
    assert void_records("bora", [record], seen)[0] == set()
    assert void_records("alba", [record], seen)[0] == {0}


def test_records_are_read_only_where_one_may_be_void() -> None:
    taken = Taken()
    builder = builder_on(taken)
    builder.add(taken.take([at(1, 1, 0), at(2, 1, 0)]))
    assert taken.asked == []
    again = taken.take([at(2, 1, 0), at(3, 1, 0)])
    builder.add(again)
    assert taken.asked == [again.tx_id]


def test_a_transaction_without_a_record_that_counts_is_refused_and_changes_nothing() -> None:
    taken = Taken()
    builder = builder_on(taken)
    builder.add(taken.take([at(1, 1, 0)]))
    before = (list(builder.body), builder.totals(), {m: set(k) for m, k in builder.seen.overlay.minutes.items()})
    with pytest.raises(UnusableTransaction) as caught:
        builder.add(taken.take([at(1, 1, 0), at(1, 1, 7)]))
    assert (caught.value.what, caught.value.where) == ("all its records are void", "tx_id")
    assert (builder.body, builder.totals(), builder.seen.overlay.minutes) == before
    assert len(builder.seen.overlay.tx_ids) == 1


def test_a_transaction_is_in_a_chain_once() -> None:
    taken = Taken()
    tx = taken.take([at(1, 1, 0)])
    builder = builder_on(taken)
    builder.add(tx)
    with pytest.raises(UnusableTransaction) as caught:
        builder.add(tx)
    assert (caught.value.what, caught.value.where) == ("in the chain already", "tx_id")
    with pytest.raises(UnusableTransaction):
        builder_on(taken, builder.seen.overlay).add(tx)
    index = RecordIndex(MemoryStore())
    index.add(1, builder.seen.overlay)
    with pytest.raises(UnusableTransaction):
        builder_on(taken, index=index).add(tx)


def test_context_is_checked_when_a_transaction_is_added() -> None:
    taken = Taken()
    tx = taken.take([at(1, 1, 0)], expires_ms=NOW_MS)
    with pytest.raises(UnusableTransaction) as caught:
        builder_on(taken).add(tx)
    assert caught.value.where == "envelope.expires_ms"


def test_void_records_are_in_no_sum() -> None:
    taken = Taken()
    builder = builder_on(taken)
    records = [at(1, 1, 0, octets_sent=1), at(1, 1, 0, octets_sent=10), at(2, 1, 0, octets_sent=100)]
    builder.add(taken.take(records))
    assert builder.totals() == replace(totals_of([records[0], records[2]]), void=1)
    assert builder.body[0].void_bitmap == b"\x02"


@dataclass
class Twin:
    """The rule as the protocol says it: one record after the other, nothing remembered but (minute, key)."""

    seen: set[tuple[int, bytes]]

    def add(self, records: list[CallRecord]) -> tuple[bytes, Totals] | None:
        """Return bitmap and totals, None where no record counts; then nothing is counted."""
        fresh: set[tuple[int, bytes]] = set()
        voids = set()
        for index, record in enumerate(records):
            key = record_key_of("alba", record)
            minute, offset = divmod(record.setup_ms, MINUTE_MS)
            asked = {minute}
            if offset < 5_000:
                asked.add(minute - 1)
            if offset >= 55_000:
                asked.add(minute + 1)
            if any((m, key) in self.seen or (m, key) in fresh for m in asked):
                voids.add(index)
            else:
                fresh.add((minute, key))
        if len(voids) == len(records):
            return None
        self.seen |= fresh
        kept = [record for index, record in enumerate(records) if index not in voids]
        return void_bitmap(voids, len(records)), replace(totals_of(kept), void=len(voids))


CALLS = st.tuples(
    st.integers(0, 4), st.integers(0, 2), st.sampled_from([0, 4_999, 5_000, 30_000, 54_999, 55_000, 59_999])
)
STEPS = st.lists(
    st.tuples(
        st.lists(st.lists(CALLS, min_size=1, max_size=5), max_size=3),
        st.sampled_from(["extend", "extend", "final", "final and restart", "fork"]),
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_whole_sets_and_single_records_give_the_same(
    steps: list[tuple[list[list[tuple[int, int, int]]], str]],
) -> None:
    taken, store = Taken(), MemoryStore()
    index = RecordIndex(store)
    overlays: list[Overlay] = []
    twins = [Twin(set())]
    """The twin after the final chain and after each overlay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_index, "RESIDENT_KEYS_MAX", 2)
        patch.setattr(record_index, "RESIDENT_MINUTES_MIN", 1)
        for height, (transactions, then) in enumerate(steps, start=1):
            if then == "fork" and overlays:
                overlays, twins = overlays[:-1], twins[:-1]
            twin = Twin(set(twins[-1].seen))
            builder = builder_on(taken, *reversed(overlays), index=index)
            expected = []
            for calls in transactions:
                tx = taken.take([at(*call) for call in calls])
                right = twin.add(taken.records[tx.tx_id])
                try:
                    builder.add(tx)
                except UnusableTransaction:
                    assert right is None
                else:
                    assert right is not None
                    expected.append((BodyItem(tx.tx_id, right[0]), right[1]))
            assert builder.body == [item for item, _ in expected]
            sums = [sum(getattr(t, name) for _, t in expected) for name in Totals.__struct_fields__[:-1]]
            assert [getattr(builder.totals(), name) for name in Totals.__struct_fields__[:-1]] == sums
            overlays, twins = [*overlays, builder.seen.overlay], [*twins, twin]
            if then.startswith("final"):
                store.write(WriteBatch(index.add(height, overlays[0])))
                index.trim()
                overlays, twins = overlays[1:], twins[1:]
            if then.endswith("restart"):
                index = RecordIndex(store)


# -- bounds of a block --------------------------------------------------------------------------------------------


def test_bounds_of_a_block_and_of_a_members_share() -> None:
    taken = Taken()
    tx = taken.take([at(n, 1, 30_000) for n in range(4)])
    size = tx.size
    for changes, fitting in (
        ({"block_records_max": 9}, 2),
        ({"block_records_max": 8}, 2),
        ({"block_records_max": 7}, 1),
        ({"block_bytes_max": 2 * size}, 2),
        ({"block_bytes_max": 2 * size - 1}, 1),
        ({"block_records_max": 16, "member_share_milli": 500}, 2),
        ({"block_records_max": 15, "member_share_milli": 500}, 1),
        ({"block_bytes_max": 4 * size, "member_share_milli": 500}, 2),
        ({"block_bytes_max": 4 * size - 1, "member_share_milli": 500}, 1),
    ):
        state = genesis_state(make_genesis(replace(PARAMETERS, **changes)))
        builder = BodyBuilder(state, 1, NOW_MS, SeenRecords(RecordIndex(MemoryStore()), []), taken.read)
        taken_in = 0
        for first in range(0, 40, 4):
            more = taken.take([at(first + n, 1, 30_000) for n in range(4)])
            if not builder.fits(more):
                break
            builder.add(more)
            taken_in += 1
        assert taken_in == fitting, changes


def test_a_body_has_no_more_places_than_can_be_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small transactions fill the places of a body before its records or bytes: nobody could read such a block."""
    monkeypatch.setattr(transition, "BLOCK_TRANSACTIONS_MAX", 2)
    taken = Taken()
    builder = builder_on(taken)
    for number in range(2):
        builder.add(taken.take([at(number, 1, 0)]))
    assert not builder.fits(taken.take([at(2, 1, 0)]))


def test_members_have_a_share_each() -> None:
    other = NODE_KEYS["bora"]
    members = [replace(m, keys=[MemberKey(m.keys[0].public_key, 7), *m.keys[1:]]) for m in GENESIS.members]
    genesis: Genesis = replace(
        make_genesis(replace(PARAMETERS, block_records_max=4, member_share_milli=500)), members=members
    )
    assert isinstance(members[0], GenesisMember)
    state = genesis_state(genesis)
    builder = BodyBuilder(state, 1, NOW_MS, SeenRecords(RecordIndex(MemoryStore()), []), lambda _: [])

    def take(key: Any, member_id: str, number: int) -> CheckedTransaction:
        tx = make_transaction(
            [encode(make_record(number)), encode(make_record(number + 1))],
            key=key,
            member_id=member_id,
            chain_id=chain_id_of(genesis),
            created_ms=NOW_MS,
            expires_ms=NOW_MS + 1,
        )
        rules = NoRules()
        rules.rule_set_id = state.rule_set
        return check_transaction(encode(tx), chain_id=chain_id_of(genesis), key_of=state.keys.get, rules=rules)

    builder.add(take(SUBMIT_KEY, "alba", 0))
    assert not builder.fits(take(SUBMIT_KEY, "alba", 2))
    assert builder.fits(take(other, "bora", 0))
    builder.add(take(other, "bora", 0))
    assert not builder.fits(take(NODE_KEYS["cima"], "cima", 0))
    assert [item.void_bitmap for item in builder.body] == [b"", b""]
    assert state.keys[other.key_id].roles & Role.SUBMIT


# -- applying -----------------------------------------------------------------------------------------------------

CERTIFICATE = Certificate(0, CHAIN_ID, 1, bytes(32), [CertificatePart(0, b"\x07", [bytes(64)] * 3)])


def sealed(
    parent: ChainState, taken: Taken, transactions: Sequence[CheckedTransaction], certificate: Certificate | None = None
) -> Block:
    builder = builder_on(taken)
    for tx in transactions:
        builder.add(tx)
    header = make_header(parent, SLOT, NODE_KEYS["bora"].key_id, builder, certificate)
    return Block(SealedHeader(header, NODE_KEYS["bora"].sign(block_id_of(header)), certificate), builder.body)


def apply(parent: ChainState, block: Block, transactions: Sequence[CheckedTransaction], taken: Taken) -> ChainState:
    seen = SeenRecords(RecordIndex(MemoryStore()), [])
    return apply_block(parent, parent.state, block, transactions, NOW_MS, seen, taken.read)


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def transactions(taken: Taken) -> list[CheckedTransaction]:
    return [taken.take([at(1, 1, 0), at(2, 1, 0), at(1, 1, 0)]), taken.take([at(3, 2, 0)])]


def test_genesis() -> None:
    chain = genesis_chain(GENESIS, STATE)
    assert (chain.height, chain.slot, chain.block_id, chain.chain_id) == (0, -1, CHAIN_ID, CHAIN_ID)
    assert chain.history.root() == merkle.root_of([CHAIN_ID])
    assert block_time_ms(GENESIS, 0) == GENESIS_MS
    assert block_time_ms(GENESIS, SLOT) == NOW_MS


def test_what_is_sealed_applies(taken: Taken, transactions: list[CheckedTransaction]) -> None:
    parent = genesis_chain(GENESIS, STATE)
    block = sealed(parent, taken, transactions, CERTIFICATE)
    header = block.sealed.header
    assert block.body == [BodyItem(transactions[0].tx_id, b"\x04"), BodyItem(transactions[1].tx_id, b"")]
    assert bitmap_indexes(b"\x04") == [2]
    assert (header.height, header.slot, header.parent_id, header.tx_count) == (1, SLOT, CHAIN_ID, 2)
    assert (header.totals.records, header.totals.void) == (3, 1)
    assert (header.state_root, header.rule_set) == (STATE.tree.root, STATE.rule_set)
    assert header.history_root == merkle.root_of([CHAIN_ID])
    after = apply(parent, block, transactions, taken)
    assert (after.height, after.slot, after.block_id) == (1, SLOT, block_id_of(header))
    assert after.history.root() == merkle.root_of([CHAIN_ID, block_id_of(header)])
    assert after == chain_after(parent, header, parent.state)


def test_an_empty_block_applies(taken: Taken) -> None:
    parent = genesis_chain(GENESIS, STATE)
    block = sealed(parent, taken, [])
    assert block.sealed.header.totals == EMPTY_TOTALS
    assert apply(parent, block, [], taken).height == 1


WRONG: dict[str, Any] = {
    "chain_id": bytes(32),
    "height": 2,
    "parent_id": bytes(32),
    "rule_set": bytes(32),
    "tx_count": 3,
    "tx_root": bytes(32),
    "state_root": bytes(32),
    "history_root": bytes(32),
    "qc_hash": bytes(32),
}
"""Version has one value; slot and producer are what consensus judges."""


@pytest.mark.parametrize(
    "name", [n for n in Header.__struct_fields__ if n not in {"version", "slot", "producer_key_id"}]
)
def test_each_field_of_a_header_that_lies_is_named(
    name: str, taken: Taken, transactions: list[CheckedTransaction]
) -> None:
    parent = genesis_chain(GENESIS, STATE)
    block = sealed(parent, taken, transactions, CERTIFICATE)
    if name == "totals":
        for part in Totals.__struct_fields__:
            value: Any = [MosTotal(1, 1, 1, 1, 1)] if part == "mos" else 2**63 - 1
            totals = replace(block.sealed.header.totals, **{part: value})
            assert refusal(parent, with_header(block, totals=totals), transactions, taken) == f"totals.{part}"
    else:
        assert refusal(parent, with_header(block, **{name: WRONG[name]}), transactions, taken) == name


def with_header(block: Block, **changes: Any) -> Block:
    return replace(block, sealed=replace(block.sealed, header=replace(block.sealed.header, **changes)))


def refusal(parent: ChainState, block: Block, transactions: Sequence[CheckedTransaction], taken: Taken) -> str:
    with pytest.raises(InvalidBlock) as caught:
        apply(parent, block, transactions, taken)
    return caught.value.where


def test_the_first_of_several_lies_is_named(taken: Taken, transactions: list[CheckedTransaction]) -> None:
    parent = genesis_chain(GENESIS, STATE)
    block = sealed(parent, taken, transactions)
    assert refusal(parent, with_header(block, state_root=bytes(32), height=9), transactions, taken) == "height"


@pytest.mark.parametrize("bitmap", [b"", b"\x01", b"\x06", b"\x04\x00", b"\x0c", b"\x84", bytes(125)])
def test_only_one_bitmap_is_right(bitmap: bytes, taken: Taken, transactions: list[CheckedTransaction]) -> None:
    """Bits beyond the records and zero bytes at the end would be second spellings of one body."""
    parent = genesis_chain(GENESIS, STATE)
    block = sealed(parent, taken, transactions)
    changed = replace(block, body=[BodyItem(transactions[0].tx_id, bitmap), block.body[1]])
    assert refusal(parent, changed, transactions, taken) == "body[0].void_bitmap"


def test_zero_bytes_are_no_spelling_of_none(taken: Taken, transactions: list[CheckedTransaction]) -> None:
    parent = genesis_chain(GENESIS, STATE)
    block = sealed(parent, taken, transactions)
    changed = replace(block, body=[block.body[0], BodyItem(transactions[1].tx_id, b"\x00")])
    assert refusal(parent, changed, transactions, taken) == "body[1].void_bitmap"


def test_transactions_that_may_not_be_in_a_block(taken: Taken, transactions: list[CheckedTransaction]) -> None:
    parent = genesis_chain(GENESIS, STATE)
    block = sealed(parent, taken, transactions)
    twice = replace(block, body=[*block.body, block.body[0]])
    assert refusal(parent, twice, [*transactions, transactions[0]], taken) == "body[2].tx_id"
    void = taken.take([at(3, 2, 0)])
    assert refusal(
        parent, replace(block, body=[*block.body, BodyItem(void.tx_id, b"\x01")]), [*transactions, void], taken
    ) == ("body[2].tx_id")
    late = taken.take([at(9, 2, 0)], expires_ms=NOW_MS)
    assert refusal(parent, replace(block, body=[BodyItem(late.tx_id, b"")]), [late], taken) == (
        "body[0].envelope.expires_ms"
    )


def test_a_block_over_its_bounds_is_refused(taken: Taken, transactions: list[CheckedTransaction]) -> None:
    genesis = make_genesis(replace(PARAMETERS, block_records_max=3))
    parent = genesis_chain(genesis, genesis_state(genesis))
    block = sealed(genesis_chain(GENESIS, STATE), taken, transactions)
    assert refusal(parent, block, transactions, taken) == "body[1]"


def test_a_block_that_claims_the_order_of_other_transactions_is_refused(
    taken: Taken, transactions: list[CheckedTransaction]
) -> None:
    parent = genesis_chain(GENESIS, STATE)
    block = sealed(parent, taken, transactions)
    swapped = replace(block, body=block.body[::-1])
    assert refusal(parent, swapped, transactions[::-1], taken) == "tx_root"


def test_the_overlay_is_what_the_block_counted(taken: Taken, transactions: list[CheckedTransaction]) -> None:
    parent = genesis_chain(GENESIS, STATE)
    seen = SeenRecords(RecordIndex(MemoryStore()), [])
    apply_block(parent, parent.state, sealed(parent, taken, transactions), transactions, NOW_MS, seen, taken.read)
    assert seen.overlay.tx_ids == {tx.tx_id for tx in transactions}
    keys = {n: record_key_of("alba", at(n, 1, 0)) for n in (1, 2, 3)}
    assert seen.overlay.minutes == {MINUTE + 1: {keys[1], keys[2]}, MINUTE + 2: {keys[3]}}


def test_records_read_back_are_those_checked() -> None:
    tx = sign_records([make_record(1), make_record(2)])
    assert decode_each(tx.items, CallRecord) == [make_record(1), make_record(2)]
