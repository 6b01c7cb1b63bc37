"""The second implementation: transactions by themselves and in their place, void records, totals.

Source: docs/protocol.md, "Transaction", "Record identity", "Governance", "Block".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from audit.reference_state import GOVERN, NODE, SUBMIT, State, apply_payload
from audit.reference_types import CALL_RECORD, MOS_TOTAL, PAYLOADS, TOTALS, TRANSACTION
from audit.reference_wire import (
    Refused,
    decode,
    encode,
    is_signed,
    key_id_of,
    load_key,
    merkle_root,
    tagged_hash,
    vote_hash,
)

CheckRecord = Callable[[Any], None]
"""Raises Refused, ``where`` being the field, for a record that violates a rule of the chain."""
TRANSACTION_BYTES_MAX = 524_288
LIFETIME_MS_MAX = 86_400_000
MINUTE_MS, EDGE_MS = 60_000, 5_000


class Entry(NamedTuple):
    """What is kept of a record until its block is through."""

    key: bytes
    setup_ms: int
    end_ms: int
    amounts: tuple[int, ...]
    """Talk time, octets, device, network, server energy, CO2: as the totals have them."""
    mos: tuple[int, int, int] | None
    """Method, kind, MOS."""


class Checked(NamedTuple):
    """A transaction that is right by itself; entries of ``records``, or the payload of what governs."""

    tx_id: bytes
    envelope: Any
    size: int
    entries: list[Entry]
    payload: Any


def role_for(kind: int) -> int:
    """Return the role that signs a kind."""
    return {1: SUBMIT, 7: NODE}.get(kind, GOVERN)


def check_transaction(data: bytes, state: State, chain_id: bytes, check_record: CheckRecord) -> Checked:
    """Return a transaction after the context-free checks; ``state``: of the parent. Raises Refused."""
    if len(data) > TRANSACTION_BYTES_MAX:
        raise Refused("transaction", "too large")
    envelope, signature, items = decode(data, TRANSACTION)
    if envelope.chain_id != chain_id:
        raise Refused("envelope.chain_id", "for another chain")
    if envelope.kind == 8:
        raise Refused("envelope.kind", "this kind is not in use")
    if not 1 <= envelope.expires_ms - envelope.created_ms <= LIFETIME_MS_MAX:
        raise Refused("envelope.expires_ms", "a lifetime out of bounds")
    if envelope.item_count != len(items):
        raise Refused("envelope.item_count", "not the number of items")
    if envelope.items_root != merkle_root(items):
        raise Refused("envelope.items_root", "not the root of the items")
    key = state.get("key", envelope.key_id)
    if key is None or key.member_id != envelope.member_id or not key.roles & role_for(envelope.kind):
        raise Refused("envelope.key_id", "no key of the member with the role for this kind")
    tx_id = tagged_hash("tx", envelope)
    if not is_signed(key.public_key, tx_id, signature):
        raise Refused("signature", "does not verify")
    if envelope.kind != 1:
        return Checked(tx_id, envelope, len(data), [], read_payload(envelope.kind, items, chain_id))
    return Checked(tx_id, envelope, len(data), read_records(envelope.member_id, items, check_record), None)


# -- records -------------------------------------------------------------------------------------------------------


def read_records(member_id: str, items: list[bytes], check_record: CheckRecord) -> list[Entry]:
    """Return what counts of the records of a transaction. Raises Refused: first sizes, then spelling, then rules."""
    for index, item in enumerate(items):
        if len(item) > 1_024:
            raise Refused(f"items[{index}]", "a record that is too large")
    records = [decode(item, CALL_RECORD, f"items[{index}]") for index, item in enumerate(items)]
    for index, record in enumerate(records):
        try:
            check_record(record)
        except Refused as error:
            raise error.within(f"items[{index}]") from None
    return [entry_of(member_id, record) for record in records]


def entry_of(member_id: str, record: Any) -> Entry:
    """Return what counts of a record."""
    key = tagged_hash("record", [member_id, record.call_commitment, record.leg])[:16]
    energy, quality = record.energy, record.quality
    amounts = (
        max(0, record.end_ms - record.answer_ms) if record.answer_ms else 0,
        record.octets_sent + record.octets_received,
        energy.device_mj if energy else 0,
        energy.network_mj if energy else 0,
        (2 * energy.server_mj * energy.pue_milli + 1000) // 2000 if energy else 0,
        energy.co2_ug if energy else 0,
    )
    mos = (quality.method, quality.kind, quality.mean.mos_milli) if quality else None
    return Entry(key, record.setup_ms, record.end_ms, amounts, mos)


class Index:
    """Which records and transactions counted. In memory, and grows with the chain: some 100 bytes a record."""

    def __init__(self) -> None:
        self.minutes: dict[int, set[bytes]] = {}
        self.tx_ids: set[bytes] = set()

    def is_void(self, entry: Entry) -> bool:
        """Tell whether a record is void; one that is not counts from now on."""
        minute, offset = divmod(entry.setup_ms, MINUTE_MS)
        near = [minute]
        if offset < EDGE_MS and minute:
            near.append(minute - 1)
        elif offset >= MINUTE_MS - EDGE_MS:
            near.append(minute + 1)
        if any(entry.key in self.minutes.get(place, ()) for place in near):
            return True
        self.minutes.setdefault(minute, set()).add(entry.key)
        return False


def bitmap_of(flags: list[bool]) -> bytes:
    """Return the void bitmap of a transaction."""
    bits = sum(1 << index for index, flag in enumerate(flags) if flag)
    return bits.to_bytes((len(flags) + 7) // 8, "little") if bits else b""


class Sums:
    """The totals of a block, as they come together."""

    def __init__(self) -> None:
        self.records = self.void = 0
        self.amounts = [0] * 6
        self.mos: dict[tuple[int, int], list[int]] = {}

    def add(self, entry: Entry, is_void: bool) -> None:
        """Count a record."""
        if is_void:
            self.void += 1
            return
        self.records += 1
        self.amounts = [a + b for a, b in zip(self.amounts, entry.amounts, strict=True)]
        if entry.mos:
            self.mos.setdefault(entry.mos[:2], []).append(entry.mos[2])

    def totals(self) -> Any:
        """Return them as the header has them."""
        mos = [MOS_TOTAL(*pair, len(all_), sum(all_), min(all_)) for pair, all_ in sorted(self.mos.items())]
        return TOTALS(self.records, self.void, *self.amounts, mos)


# -- what governs --------------------------------------------------------------------------------------------------


def read_payload(kind: int, items: list[bytes], chain_id: bytes) -> Any:
    """Return the payload of a transaction that governs, right by itself. Raises Refused."""
    if len(items) != 1:
        raise Refused("items", "more than one")
    try:
        payload = decode(items[0], PAYLOADS[kind])
    except Refused as error:
        raise error if error.where else Refused(PAYLOADS[kind].name, error.what) from None
    if kind == 2:
        for index, change in enumerate(payload.changes):
            given = change.public_key is not None, change.roles > 0, change.key_id is not None
            if given != ((True, True, False), (True, False, True), (False, False, True))[change.operation - 1]:
                raise Refused(f"changes[{index}]", "not the fields of this operation")
            if change.public_key is not None and load_key(change.public_key) is None:
                raise Refused(f"changes[{index}].public_key", "no point on P-256")
    elif kind == 4:
        names = [part.candidate_id for part in payload.parts]
        if names != sorted(set(names)):
            raise Refused("parts.candidate_id", "not strictly ascending")
    elif kind == 5:
        _check_proposal(payload)
    elif kind == 7:
        _check_evidence(payload, chain_id)
    return payload


def _check_proposal(proposal: Any) -> None:
    given = proposal.member_id is not None, proposal.weight > 0, len(proposal.keys) > 0, proposal.seats > 0
    right = {1: (True, True, True, False), 2: (True, True, False, False), 5: (False, False, False, True)}
    if given != right.get(proposal.action, (True, False, False, False)):
        raise Refused("proposal", "not the fields of this action")
    for index, key in enumerate(proposal.keys):
        if load_key(key.public_key) is None:
            raise Refused(f"proposal.keys[{index}].public_key", "no point on P-256")
    if len({key.public_key for key in proposal.keys}) != len(proposal.keys):
        raise Refused("proposal.keys", "a key occurs twice")
    if proposal.keys and not any(key.roles & GOVERN for key in proposal.keys):
        raise Refused("proposal.keys", "none with the role to govern")


def _check_evidence(evidence: Any, chain_id: bytes) -> None:
    if load_key(evidence.public_key) is None:
        raise Refused("public_key", "no point on P-256")
    if {len(evidence.votes), len(evidence.headers)} != {0, 2}:
        raise Refused("evidence", "neither two votes nor two headers")
    first, second = evidence.votes or evidence.headers
    if encode(first) >= encode(second):
        raise Refused("votes" if evidence.votes else "headers", "not ascending by encoding")
    if evidence.votes:
        low, high = sorted((first, second), key=lambda vote: int(vote.t_height))
        is_fault = low[:4] != high[:4] and (low.t_height == high.t_height or high.s_height < low.s_height)
        signed = [(vote.key_id, vote_hash(chain_id, vote), vote.signature) for vote in (first, second)]
    else:
        is_fault = first.header.slot == second.header.slot and first.header != second.header
        signed = [(s.header.producer_key_id, tagged_hash("header", s.header), s.signature) for s in (first, second)]
    if not is_fault:
        raise Refused("evidence", "the two do not contradict each other")
    if any(header.header.chain_id != chain_id for header in evidence.headers):
        raise Refused("headers.header.chain_id", "about another chain")
    for key_id, digest, signature in signed:
        if key_id != key_id_of(evidence.public_key) or not is_signed(evidence.public_key, digest, signature):
            raise Refused("evidence", "not signed by the key accused")


# -- in a block ----------------------------------------------------------------------------------------------------


class Body:
    """The body of one block, transaction by transaction.

    begin: the state before its transactions, which they change; ``before``: the same, left as it is.
    """

    def __init__(self, begin: State, height: int, time_ms: int, index: Index) -> None:
        self.state, self.before = begin, begin.before()
        self.height, self.time_ms, self.index = height, time_ms, index
        self.sums = Sums()
        self.records = self.bytes = self.payloads = 0
        self.members: dict[tuple[str, bool], list[int]] = {}

    def add(self, tx: Checked, void_bitmap: bytes) -> None:
        """Take the next transaction in. Raises Refused."""
        self._check_room(tx)
        self._check_context(tx)
        if tx.tx_id in self.index.tx_ids:
            raise Refused("tx_id", "in the chain already")
        self.index.tx_ids.add(tx.tx_id)
        if tx.payload is not None:
            apply_payload(self.state, tx.envelope, tx.tx_id, tx.payload, self.height, self.time_ms)
        flags = [self.index.is_void(entry) for entry in tx.entries]
        if flags and all(flags):
            raise Refused("tx_id", "all its records are void")
        for entry, flag in zip(tx.entries, flags, strict=True):
            self.sums.add(entry, flag)
        if bitmap_of(flags) != void_bitmap:
            raise Refused("void_bitmap", "other records are void")

    def _check_room(self, tx: Checked) -> None:
        """Check the bounds of the block and of the member's share, with what is in it already."""
        limits = self.before.parameters
        is_payload = tx.payload is not None
        # Of one member: transactions that govern, or records and their bytes.
        own = self.members.setdefault((tx.envelope.member_id, is_payload), [0, 0, 0])
        own[0] += 1
        own[1] += len(tx.entries)
        own[2] += tx.size
        self.payloads += is_payload
        self.records += len(tx.entries)
        self.bytes += tx.size
        is_over = self.records > limits.block_records_max or self.bytes > limits.block_bytes_max
        if is_payload:
            is_over = is_over or self.payloads > 64 or own[0] > 8
        else:
            is_over = is_over or own[1] > limits.block_records_max * limits.member_share_milli // 1000
            is_over = is_over or own[2] > limits.block_bytes_max * limits.member_share_milli // 1000
        if is_over:
            raise Refused("", "over the bounds of a block or of a member's share")

    def _check_context(self, tx: Checked) -> None:
        envelope, limits, now = tx.envelope, self.before.parameters, self.time_ms
        latest = now + 2 * limits.slot_ms
        if not self.before.active(envelope.key_id, envelope.member_id, role_for(envelope.kind)):
            raise Refused("envelope.key_id", "not an active key of the member with the role for this kind")
        if tx.size > limits.block_bytes_max * limits.member_share_milli // 1000:
            raise Refused("items", "larger than a member's share of a block")
        if envelope.expires_ms <= now:
            raise Refused("envelope.expires_ms", "expired")
        if envelope.created_ms > latest:
            raise Refused("envelope.created_ms", "from the future")
        ends = [entry.end_ms for entry in tx.entries]
        if ends and min(ends) < now - limits.record_window_ms:
            raise Refused("end_ms", "a record that is too old")
        if ends and max(ends) > latest:
            raise Refused("end_ms", "a record from the future")
