"""The two kinds of checks on a transaction.

Context-free checks are a pure function of its bytes and the rule set: once, on arrival, never again. Contextual
checks are O(1) from the summary, at sealing and at applying.

Source: docs/protocol.md, "Transaction".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ledger import merkle
from ledger.block import EMPTY_TOTALS, MosTotal, Totals, TxId, sum_totals
from ledger.cdr import RECORD_BYTES_MAX, CallRecord
from ledger.codec import decode, decode_each, encode
from ledger.crypto import is_valid_signature, key_id_of, started_hash
from ledger.entries import KeyEntry
from ledger.errors import (
    BadSignature,
    EncodingError,
    FieldError,
    InvalidTransaction,
    RuleViolation,
    UnusableTransaction,
)
from ledger.genesis import Parameters
from ledger.payloads import ROLES, Payload, read_payload
from ledger.rules.base import Violation
from ledger.state import State
from ledger.transaction import (
    LIFETIME_MS_MAX,
    TRANSACTION_BYTES_MAX,
    Envelope,
    Kind,
    Transaction,
    tx_id_of,
)
from ledger.usual import USUAL_RECORD

MINUTE_MS = 60_000
EDGE_MS = 5_000
"""A second report of a call may differ this much in its setup time and still be found in the next minute."""
AHEAD_SLOTS = 2
"""A record or transaction may be ahead of block time by this many slots: clocks are never exactly equal."""
CHUNK_RECORDS = 250
"""Records checked at once: what is decoded of them, some 500 KB, stays in a core's cache until the last check."""


KeyOf = Callable[[bytes], KeyEntry | None]
"""Returns a key that is known, revoked or not, by its id."""


class Rules(Protocol):
    """What validation asks of a rule set."""

    rule_set_id: bytes

    def check_record(self, record: CallRecord) -> Violation | None:
        """Return the first violation, or None."""


@dataclass(frozen=True, slots=True)
class MinuteKeys:
    """Record keys of one transaction whose calls were set up in one minute since 1970."""

    minute: int
    keys: frozenset[bytes]
    near_previous: frozenset[bytes]
    """Those set up within EDGE_MS of the minute's start: looked up in the minute before as well. None in minute 0."""
    near_next: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class CheckedTransaction:
    """The summary of a transaction that passed every context-free check under ``rule_set``.

    Attributes:
        size: bytes of the encoded transaction.
        totals: of its records, as if none were void.
        minutes: record keys by setup minute, ascending.
        has_repeats: two records of it share a key.
        first_end_ms: earliest and, ``last_end_ms``, latest end of a call.
        rule_set: id of the rule set that passed it.
        payload: what it does to the state; None where it has records.
    """

    tx_id: TxId
    envelope: Envelope
    size: int
    totals: Totals
    minutes: tuple[MinuteKeys, ...]
    has_repeats: bool
    first_end_ms: int
    last_end_ms: int
    rule_set: bytes
    payload: Payload | None = None

    @property
    def record_count(self) -> int:
        """Return how many records it holds."""
        return self.envelope.item_count if self.payload is None else 0


def check_transaction(
    raw: bytes,
    *,
    chain_id: bytes,
    key_of: KeyOf,
    rules: Rules,
    is_valid: Callable[[bytes, bytes, bytes], bool] = is_valid_signature,
) -> CheckedTransaction:
    """Return the summary of a raw transaction after every check that needs no place in the chain.

    is_valid: tells whether a signature is by a public key over a digest.
    Raises InvalidTransaction or EncodingError for what nobody may pass on, UnusableTransaction where the key is not
    known here: it may have been admitted in a block not seen yet.
    """
    # [REJECT] The size is within the bound
    if len(raw) > TRANSACTION_BYTES_MAX:
        raise FieldError(
            "too large", where="transaction", expected=f"<= {TRANSACTION_BYTES_MAX} bytes", actual=len(raw)
        )
    # [REJECT] The encoding is canonical and every field is in its bounds
    transaction = decode(raw, Transaction)
    envelope = transaction.envelope
    tx_id = tx_id_of(envelope)
    check_envelope(transaction, chain_id=chain_id)
    key = key_of(envelope.key_id)
    # [IGNORE] The key is known here and has the role. Whether it is active is up to the block with the transaction.
    if key is None or key.member_id != envelope.member_id or not key.roles & ROLES[envelope.kind]:
        raise _wrong_key(envelope)
    # [REJECT] The signature is by that key
    if key_id_of(key.public_key) != envelope.key_id or not is_valid(key.public_key, tx_id, transaction.signature):
        raise BadSignature("the signature does not verify", where="signature", actual=transaction.signature)
    if envelope.kind is not Kind.RECORDS:
        payload = read_payload(envelope.kind, transaction.items, chain_id, is_valid)
        created = envelope.created_ms
        return CheckedTransaction(
            tx_id, envelope, len(raw), EMPTY_TOTALS, (), False, created, created, rules.rule_set_id, payload
        )
    tally = _tally(envelope.member_id, transaction.items, rules)
    return CheckedTransaction(
        tx_id,
        envelope,
        len(raw),
        tally.totals,
        tally.minutes,
        tally.has_repeats,
        tally.first_end_ms,
        tally.last_end_ms,
        rules.rule_set_id,
    )


class _Tally(NamedTuple):
    """What the records of a transaction come to; the fields are those of CheckedTransaction."""

    totals: Totals
    minutes: tuple[MinuteKeys, ...]
    has_repeats: bool
    first_end_ms: int
    last_end_ms: int


def _tally(member_id: str, items: Sequence[bytes], rules: Rules) -> _Tally:
    """Return what records come to, having checked them. Raises as ``check_records`` does."""
    totals = []
    keys: list[bytes] = []
    groups: _Groups = {}
    ends_ms: list[int] = []
    for records in _good_records(items, rules):
        chunk_keys = record_keys(member_id, records)
        _group(groups, chunk_keys, records)
        keys += chunk_keys
        totals.append(totals_of(records))
        ends_ms += [record.end_ms for record in records]
    return _Tally(sum_totals(totals), _minutes_of(groups), len(set(keys)) != len(keys), min(ends_ms), max(ends_ms))


def _good_records(items: Sequence[bytes], rules: Rules) -> Iterator[list[CallRecord]]:
    """Yield the records of a transaction, some at a time, each checked. Raises as ``check_records`` does."""
    for first in range(0, len(items), CHUNK_RECORDS):
        records = _read_usual(items[first : first + CHUNK_RECORDS], rules)
        if records is None:
            # What is wrong first, in the order of the checks and not of the chunks, is said by the one who asks all.
            yield check_records(items, rules)[first:]
            return
        yield records


def _read_usual(items: Sequence[bytes], rules: Rules) -> list[CallRecord] | None:
    """Return decoded records that pass every check, None where one of them does not, or is not a usual one."""
    if max(map(len, items)) > RECORD_BYTES_MAX:
        return None
    try:
        records = decode_each(items, USUAL_RECORD)
    except EncodingError:
        return None
    check = rules.check_record
    for record in records:
        if check(record) is not None:
            return None
    return records


def check_envelope(transaction: Transaction, *, chain_id: bytes) -> None:
    """Check what the envelope says about itself and its items. Raises InvalidTransaction."""
    envelope, items = transaction.envelope, transaction.items
    # [REJECT] It is for this chain
    if envelope.chain_id != chain_id:
        raise InvalidTransaction(
            "for another chain", where="envelope.chain_id", expected=chain_id, actual=envelope.chain_id
        )
    # [REJECT] The kind is one this version handles
    if envelope.kind not in ROLES:
        raise InvalidTransaction(
            "this kind is not in use", where="envelope.kind", expected=", ".join(kind.name.lower() for kind in ROLES)
        )
    # [REJECT] The lifetime is within the bound
    if not 0 < envelope.expires_ms - envelope.created_ms <= LIFETIME_MS_MAX:
        raise InvalidTransaction(
            "lifetime out of bounds",
            where="envelope.expires_ms",
            expected=f"1 to {LIFETIME_MS_MAX} ms after created_ms",
            actual=envelope.expires_ms - envelope.created_ms,
        )
    # [REJECT] The items are those signed
    if envelope.item_count != len(items):
        raise InvalidTransaction(
            "wrong count", where="envelope.item_count", expected=len(items), actual=envelope.item_count
        )
    if envelope.items_root != merkle.root_of(items):
        raise InvalidTransaction("the items are not those signed", where="envelope.items_root")


def check_records(items: Sequence[bytes], rules: Rules) -> list[CallRecord]:
    """Return the decoded records of a transaction. Raises EncodingError or RuleViolation naming item and field."""
    # [REJECT] No record is longer than any record can be
    if max(map(len, items)) > RECORD_BYTES_MAX:
        index = next(i for i, item in enumerate(items) if len(item) > RECORD_BYTES_MAX)
        raise FieldError(
            "record too large",
            where=f"items[{index}]",
            expected=f"at most {RECORD_BYTES_MAX} bytes",
            actual=len(items[index]),
        )
    # [REJECT] Every record is canonical and within its bounds
    records = decode_each(items, CallRecord, where="items")
    check = rules.check_record
    for index, record in enumerate(records):
        violation = check(record)
        # [REJECT] No record contradicts itself
        if violation is not None:
            raise RuleViolation(
                violation.message,
                rule=violation.rule,
                where=f"items[{index}].{violation.field}",
                expected=violation.bound,
                actual=violation.value,
            )
    return records


_LEG_BYTES = [bytes([leg]) for leg in range(128)]


def record_keys(member_id: str, records: Sequence[CallRecord]) -> list[bytes]:
    """Return ``record_key_of`` of each record of one member, without building an array for each."""
    begun = started_hash("record", b"\x93" + encode(member_id) + b"\xc4\x10")
    legs = _LEG_BYTES
    keys = []
    for record in records:
        digest = begun.copy()
        digest.update(record.call_commitment + legs[record.leg])
        keys.append(digest.digest()[:16])
    return keys


_Groups = dict[int, tuple[list[bytes], list[bytes], list[bytes]]]
"""By setup minute: its keys, those near the minute before, and those near the minute after."""


def keys_by_minute(member_id: str, records: Sequence[CallRecord]) -> tuple[tuple[MinuteKeys, ...], int]:
    """Return the record keys grouped by setup minute, ascending, and how many are distinct."""
    groups: _Groups = {}
    keys = record_keys(member_id, records)
    _group(groups, keys, records)
    return _minutes_of(groups), len(set(keys))


def _group(groups: _Groups, keys: Sequence[bytes], records: Sequence[CallRecord]) -> None:
    """Add the keys of records to the groups."""
    for key, record in zip(keys, records, strict=True):
        setup_ms = record.setup_ms
        minute = setup_ms // MINUTE_MS
        group = groups.get(minute)
        if group is None:
            group = groups[minute] = ([], [], [])
        group[0].append(key)
        offset_ms = setup_ms - minute * MINUTE_MS
        if offset_ms < EDGE_MS and minute:
            group[1].append(key)
        elif offset_ms >= MINUTE_MS - EDGE_MS:
            group[2].append(key)


def _minutes_of(groups: _Groups) -> tuple[MinuteKeys, ...]:
    return tuple(
        MinuteKeys(minute, frozenset(group[0]), frozenset(group[1]), frozenset(group[2]))
        for minute, group in sorted(groups.items())
    )


def totals_of(records: Sequence[CallRecord]) -> Totals:
    """Return what records add up to, none of them void."""
    if not records:
        return EMPTY_TOTALS
    talk = octets = device = network = server = co2 = 0
    mos: dict[tuple[int, int], list[int]] = {}
    for r in records:
        answer_ms = r.answer_ms
        # The second is a matter of rules, which a chain may not have; a sum is never negative all the same.
        if answer_ms and answer_ms < r.end_ms:
            talk += r.end_ms - answer_ms
        octets += r.octets_sent + r.octets_received
        energy = r.energy
        if energy is not None:
            device += energy.device_mj
            network += energy.network_mj
            # divide_half_up, written out: this runs for every record.
            server += (energy.server_mj * energy.pue_milli + 500) // 1000
            co2 += energy.co2_ug
        quality = r.quality
        if quality is not None:
            kind = (quality.method, quality.kind)
            found = mos.get(kind)
            if found is None:
                mos[kind] = [quality.mean.mos_milli]
            else:
                found.append(quality.mean.mos_milli)
    return Totals(
        len(records),
        0,
        talk,
        octets,
        device,
        network,
        server,
        co2,
        [MosTotal(int(m), int(k), len(v), sum(v), min(v)) for (m, k), v in sorted(mos.items())],
    )


def member_share_of(parameters: Parameters) -> tuple[int, int]:
    """Return how many records and how many bytes of transactions one member may have in a block."""
    share = parameters.member_share_milli
    return parameters.block_records_max * share // 1000, parameters.block_bytes_max * share // 1000


def _wrong_key(envelope: Envelope) -> UnusableTransaction:
    role = (ROLES[envelope.kind].name or "").lower()
    return UnusableTransaction(
        f"the key may not {_VERBS.get(role, role)} for this member",
        where="envelope.key_id",
        expected=f"an active {role} key of {envelope.member_id}",
        actual=envelope.key_id,
    )


_VERBS = {"node": "accuse"}


def check_in_context(tx: CheckedTransaction, state: State, block_time_ms: int) -> None:
    """Raise UnusableTransaction where a checked transaction does not fit a block at ``block_time_ms`` on ``state``."""
    envelope = tx.envelope
    slack_ms = AHEAD_SLOTS * state.parameters.slot_ms
    # [IGNORE] The key is still the member's and may sign this kind
    key = state.key_with_role(envelope.key_id, ROLES[envelope.kind])
    if key is None or key.member_id != envelope.member_id:
        raise _wrong_key(envelope)
    # [IGNORE] It was checked under the rules in force
    if tx.rule_set != state.rule_set:
        raise UnusableTransaction(
            "the rules have changed", where="rule_set", expected=state.rule_set, actual=tx.rule_set
        )
    # [IGNORE] It fits into a block, alone
    records_max, bytes_max = member_share_of(state.parameters)
    if tx.record_count > records_max or tx.size > bytes_max:
        raise UnusableTransaction(
            "larger than a member's share of a block",
            where="items",
            expected=f"<= {records_max} records and <= {bytes_max} bytes",
            actual=f"{tx.record_count} records in {tx.size} bytes",
            hint="Sign smaller transactions",
        )
    # [IGNORE] It has begun and has not expired
    if envelope.expires_ms <= block_time_ms:
        raise UnusableTransaction(
            "expired", where="envelope.expires_ms", expected=f"> {block_time_ms}", actual=envelope.expires_ms
        )
    if envelope.created_ms > block_time_ms + slack_ms:
        raise UnusableTransaction(
            "from the future",
            where="envelope.created_ms",
            expected=f"<= {block_time_ms + slack_ms}",
            actual=envelope.created_ms,
        )
    if tx.payload is not None:
        return
    # [IGNORE] Its records are inside the chain's window
    if tx.first_end_ms < block_time_ms - state.parameters.record_window_ms:
        raise UnusableTransaction(
            "a record is older than the chain's record window",
            where="end_ms",
            expected=f">= {block_time_ms - state.parameters.record_window_ms}",
            actual=tx.first_end_ms,
        )
    if tx.last_end_ms > block_time_ms + slack_ms:
        raise UnusableTransaction(
            "a record ends in the future",
            where="end_ms",
            expected=f"<= {block_time_ms + slack_ms}",
            actual=tx.last_end_ms,
        )
