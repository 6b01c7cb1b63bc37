"""Both kinds of checks on a transaction, and the summary that the first makes for the second."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.block import EMPTY_TOTALS, MosTotal, Totals
from ledger.cdr import (
    RECORD_BYTES_MAX,
    Boundary,
    CallRecord,
    DeviceClass,
    Energy,
    EnergyMethod,
    MosKind,
    QualityMethod,
    Reading,
    record_key_of,
    talk_ms,
)
from ledger.codec import decode, encode
from ledger.crypto import PrivateKey
from ledger.entries import KeyEntry, KeyStanding
from ledger.errors import (
    BadSignature,
    EncodingError,
    FieldError,
    InvalidTransaction,
    LedgerError,
    RuleViolation,
    UnusableTransaction,
)
from ledger.genesis import Role
from ledger.record_index import RecordIndex, SeenRecords
from ledger.rules.base import Violation
from ledger.rules.ruleset import RuleSet, default_rule_set_pin
from ledger.state import State, genesis_state
from ledger.store import MemoryStore
from ledger.transaction import LIFETIME_MS_MAX, TRANSACTION_BYTES_MAX, Kind, Transaction, tx_id_of
from ledger.transition import block_time_ms, void_records
from ledger.usual import USUAL_RECORD
from ledger.validation import (
    CheckedTransaction,
    MinuteKeys,
    _tally,
    check_in_context,
    check_records,
    check_transaction,
    keys_by_minute,
    member_share_of,
    record_keys,
    totals_of,
)
from tests.ledger.ledger_samples import (
    CHAIN_ID,
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
    plain,
    respelled,
    sign_records,
    values_of,
)

replace = msgspec.structs.replace


def check(tx: Transaction | bytes, rules: Any = NoRules, keys: Any = None) -> CheckedTransaction:
    raw = tx if isinstance(tx, bytes) else encode(tx)
    return check_transaction(raw, chain_id=CHAIN_ID, key_of=(STATE.keys if keys is None else keys).get, rules=rules())


def resign(tx: Transaction, key: PrivateKey = SUBMIT_KEY, **changes: Any) -> Transaction:
    """Return ``tx`` with another envelope, signed again."""
    envelope = replace(tx.envelope, **changes)
    return Transaction(envelope, key.sign(tx_id_of(envelope)), tx.items)


GOOD = sign_records([make_record(1), make_record(2, setup_ms=GENESIS_MS + 90_000)])


def test_the_summary() -> None:
    raw = encode(GOOD)
    checked = check(GOOD)
    keys = record_keys("alba", [make_record(1), make_record(2)])
    minute = GENESIS_MS // MINUTE_MS
    assert checked == CheckedTransaction(
        tx_id=tx_id_of(GOOD.envelope),
        envelope=GOOD.envelope,
        size=len(raw),
        totals=Totals(2, 0, 120_000, 2 * 955_200, 0, 0, 0, 0, []),
        minutes=(
            MinuteKeys(minute, frozenset([keys[0]]), frozenset(), frozenset()),
            MinuteKeys(minute + 1, frozenset([keys[1]]), frozenset(), frozenset()),
        ),
        has_repeats=False,
        first_end_ms=GENESIS_MS + 94_000,
        last_end_ms=GENESIS_MS + 154_000,
        rule_set=STATE.rule_set,
    )
    assert checked.record_count == 2


def test_repeats_within_a_transaction_are_noted() -> None:
    twice = [make_record(1), make_record(1, setup_ms=GENESIS_MS + 3_000_000 - 64_000)]
    assert check(sign_records(twice)).has_repeats


def test_a_transaction_too_large_is_not_parsed() -> None:
    with pytest.raises(FieldError) as caught:
        check(bytes(TRANSACTION_BYTES_MAX + 1))
    assert (caught.value.where, caught.value.actual) == ("transaction", str(TRANSACTION_BYTES_MAX + 1))


def envelope_faults() -> list[tuple[Transaction, type[LedgerError], str]]:
    created = GOOD.envelope.created_ms
    return [
        (resign(GOOD, chain_id=bytes(32)), InvalidTransaction, "envelope.chain_id"),
        (resign(GOOD, kind=Kind.AMEND), InvalidTransaction, "envelope.kind"),
        (resign(GOOD, expires_ms=created), InvalidTransaction, "envelope.expires_ms"),
        (resign(GOOD, expires_ms=created - 1), InvalidTransaction, "envelope.expires_ms"),
        (resign(GOOD, expires_ms=created + LIFETIME_MS_MAX + 1), InvalidTransaction, "envelope.expires_ms"),
        (resign(GOOD, item_count=1), InvalidTransaction, "envelope.item_count"),
        (resign(GOOD, items_root=bytes(32)), InvalidTransaction, "envelope.items_root"),
        (replace(GOOD, items=GOOD.items[::-1]), InvalidTransaction, "envelope.items_root"),
        (resign(GOOD, key_id=bytes(20)), UnusableTransaction, "envelope.key_id"),
        (resign(GOOD, member_id="bora"), UnusableTransaction, "envelope.key_id"),
        (resign(GOOD, key=NODE_KEYS["alba"], key_id=NODE_KEYS["alba"].key_id), UnusableTransaction, "envelope.key_id"),
        (replace(GOOD, signature=bytes(64)), BadSignature, "signature"),
        (resign(GOOD, key=NODE_KEYS["bora"]), BadSignature, "signature"),
    ]


@pytest.mark.parametrize(("tx", "error", "where"), envelope_faults())
def test_every_fault_of_an_envelope(tx: Transaction, error: type[LedgerError], where: str) -> None:
    with pytest.raises(LedgerError) as caught:
        check(tx)
    assert (type(caught.value), caught.value.where) == (error, where)


def test_the_longest_and_the_shortest_lifetime_hold() -> None:
    for lifetime in (1, LIFETIME_MS_MAX):
        check(resign(GOOD, expires_ms=GOOD.envelope.created_ms + lifetime))


def test_a_key_that_is_revoked_or_kept_under_another_id_is_not_used() -> None:
    entry = STATE.keys[SUBMIT_KEY.key_id]
    revoked = check(GOOD, keys={SUBMIT_KEY.key_id: replace(entry, standing=KeyStanding.REVOKED)})
    with pytest.raises(UnusableTransaction):
        check_in_context(revoked, STATE.changed({("key", SUBMIT_KEY.key_id): None}), NOW_MS)
    other = KeyEntry("alba", NODE_KEYS["bora"].public_key, Role.SUBMIT, KeyStanding.ACTIVE)
    with pytest.raises(BadSignature):
        check(GOOD, keys={SUBMIT_KEY.key_id: other})


def test_faults_of_records_name_item_and_field() -> None:
    bad = msgpack.packb([*plain(make_record())[:8], 700, *plain(make_record())[9:]])
    good = encode(make_record(5))
    longer = b"\xdd\x00\x00\x00\x13" + good[3:]
    for items, where in (
        ([good, bad], "items[1].sip_code"),
        ([longer], "items[0].CallRecord"),
        ([good, b"\x00" * 1_025], "items[1]"),
        ([good, b"\xc1"], "items[1].CallRecord"),
    ):
        tx = sign_items(items)
        with pytest.raises(EncodingError) as caught:
            check(tx)
        assert caught.value.where == where


def sign_items(items: list[bytes]) -> Transaction:
    from ledger.transaction import make_transaction

    return make_transaction(
        items, key=SUBMIT_KEY, member_id="alba", chain_id=CHAIN_ID, created_ms=NOW_MS, expires_ms=NOW_MS + 1_000
    )


def test_a_violation_names_rule_item_field_value_and_bound() -> None:
    class Strict(NoRules):
        def check_record(self, record: CallRecord) -> Violation | None:
            if record.sip_code == 200:
                return None
            return Violation("sample/code", "sip_code", record.sip_code, "200", "Only answered calls here")

    with pytest.raises(RuleViolation) as caught:
        check(sign_records([make_record(1), make_record(2, sip_code=486)]), rules=Strict)
    error = caught.value
    assert (error.rule, error.where, error.actual, error.expected) == ("sample/code", "items[1].sip_code", "486", "200")
    assert error.what == "Only answered calls here"


def test_the_released_rules_are_asked() -> None:
    pin = default_rule_set_pin("lifecycle")

    def rules() -> RuleSet:
        return RuleSet(pin, carbon_basis="lifecycle")

    assert check(GOOD, rules=rules).rule_set == rules().rule_set_id
    with pytest.raises(RuleViolation) as caught:
        check(sign_records([make_record(answer_ms=1)]), rules=rules)
    assert (caught.value.rule, caught.value.where) == ("call-shape/answer-before-setup", "items[0].answer_ms")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_arbitrary_transactions_raise_only_our_errors(data: st.DataObject) -> None:
    raw = bytearray(encode(GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    for attempt in (bytes(raw), data.draw(st.binary(max_size=100))):
        try:
            checked = check(attempt)
        except LedgerError as error:
            assert isinstance(error, EncodingError | InvalidTransaction | UnusableTransaction)  # noqa: PT017
        else:
            assert checked.tx_id == tx_id_of(GOOD.envelope)


def test_every_other_spelling_of_a_transaction_is_refused() -> None:
    for other in respelled(plain(GOOD)):
        with pytest.raises(EncodingError):
            check(other)


@settings(max_examples=30, deadline=None)
@given(st.lists(values_of(CallRecord), max_size=8), st.sampled_from(["a", "alba", "x" * 32]))
def test_keys_are_those_of_the_record(records: list[CallRecord], member_id: str) -> None:
    assert record_keys(member_id, records) == [record_key_of(member_id, record) for record in records]


OFFSETS = st.sampled_from([0, 1, 4_999, 5_000, 5_001, 30_000, 54_999, 55_000, 59_999])
MINUTES = st.sampled_from([0, 1, 2, GENESIS_MS // MINUTE_MS])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), MINUTES, OFFSETS), max_size=8))
def test_keys_are_grouped_by_minute_and_edge(calls: list[tuple[int, int, int]]) -> None:
    records = [make_record(n, setup_ms=minute * MINUTE_MS + offset) for n, minute, offset in calls]
    groups, distinct = keys_by_minute("alba", records)
    keys = [record_key_of("alba", record) for record in records]
    assert distinct == len(set(keys))
    assert [group.minute for group in groups] == sorted({minute for _, minute, _ in calls})
    for group in groups:
        here = [(k, offset) for k, (_, minute, offset) in zip(keys, calls, strict=True) if minute == group.minute]
        assert group.keys == {k for k, _ in here}
        assert group.near_previous == {k for k, offset in here if offset < 5_000 and group.minute > 0}
        assert group.near_next == {k for k, offset in here if offset >= 55_000}


@settings(max_examples=40, deadline=None)
@given(st.lists(values_of(CallRecord), max_size=6))
def test_totals_against_a_plain_sum(records: list[CallRecord]) -> None:
    measured = [r.quality for r in records if r.quality]
    energies = [r.energy for r in records if r.energy]
    kinds = sorted({(int(q.method), int(q.kind)) for q in measured})
    mos = []
    for kind in kinds:
        values = [q.mean.mos_milli for q in measured if (q.method, q.kind) == kind]
        mos.append(MosTotal(*kind, len(values), sum(values), min(values)))
    assert totals_of(records) == Totals(
        len(records),
        0,
        sum(talk_ms(r) for r in records),
        sum(r.octets_sent + r.octets_received for r in records),
        sum(e.device_mj for e in energies),
        sum(e.network_mj for e in energies),
        sum((2 * e.server_mj * e.pue_milli + 1000) // 2000 for e in energies),
        sum(e.co2_ug for e in energies),
        mos,
    )


def test_totals_by_example() -> None:
    from ledger.cdr import Band, Boundary, DeviceClass, EnergyMethod, Observer, Quality

    reading = Reading(4_100, 0, 0, 0, 0)
    quality = Quality(
        QualityMethod.MEASURED,
        Band.NARROWBAND,
        MosKind.LQ,
        Observer.BOTH,
        1,
        None,
        None,
        0,
        0,
        0,
        0,
        reading,
        None,
        None,
    )
    energy = Energy(EnergyMethod.METERED, Boundary.CORE, DeviceClass.PHONE, 3, 5, 7, 1_500, "DE", 1, "t", 9)
    records = [make_record(1, quality=quality, energy=energy), make_record(2, answer_ms=0)]
    assert totals_of(records) == Totals(2, 0, 60_000, 1_910_400, 3, 5, 11, 9, [MosTotal(8, 1, 1, 4_100, 4_100)])
    assert totals_of([]) == EMPTY_TOTALS


# -- in context ---------------------------------------------------------------------------------------------------

SLACK_MS = 2 * PARAMETERS.slot_ms


def fits(tx: Transaction, at_ms: int, state: State = STATE) -> str:
    """Return where a checked transaction does not fit, empty where it does."""
    try:
        check_in_context(check(tx), state, at_ms)
    except UnusableTransaction as error:
        assert error.expected  # noqa: PT017
        return error.where
    return ""


def test_the_time_in_which_a_transaction_may_be_sealed() -> None:
    created, expires = GOOD.envelope.created_ms, GOOD.envelope.expires_ms
    assert fits(GOOD, created) == ""
    assert fits(GOOD, created - SLACK_MS) == ""
    assert fits(GOOD, created - SLACK_MS - 1) == "envelope.created_ms"
    assert fits(GOOD, expires - 1) == ""
    assert fits(GOOD, expires) == "envelope.expires_ms"


def test_the_window_of_records() -> None:
    window = PARAMETERS.record_window_ms
    for end_ms, where in (
        (NOW_MS - window, ""),
        (NOW_MS - window - 1, "end_ms"),
        (NOW_MS + SLACK_MS, ""),
        (NOW_MS + SLACK_MS + 1, "end_ms"),
    ):
        record = make_record(1, setup_ms=end_ms - 64_000)
        assert fits(sign_records([make_record(2), record]), NOW_MS) == where


def test_a_key_revoked_or_a_rule_changed_since_the_check() -> None:
    tx = check(GOOD)
    revoked = dict(STATE.keys)
    revoked[SUBMIT_KEY.key_id] = replace(revoked[SUBMIT_KEY.key_id], standing=KeyStanding.REVOKED)
    for field, value, where in (
        ("keys", revoked, "envelope.key_id"),
        ("members", {}, "envelope.key_id"),
        ("rule_set", bytes(32), "rule_set"),
    ):
        fields = {name: getattr(STATE, name) for name in State.__slots__}
        with pytest.raises(UnusableTransaction) as caught:
            check_in_context(tx, State(**{**fields, field: value}), NOW_MS)
        assert caught.value.where == where


def test_what_is_larger_than_a_members_share_of_a_block_is_refused_at_once() -> None:
    """It would wait until it expires: no block could ever hold it."""
    for changes in (
        {"block_records_max": 2, "member_share_milli": 999},
        {"block_bytes_max": 1_024, "member_share_milli": 300},
    ):
        parameters = replace(PARAMETERS, **changes)
        genesis = make_genesis(parameters)
        state = genesis_state(genesis)
        tx = check(GOOD)
        with pytest.raises(UnusableTransaction) as caught:
            check_in_context(tx, state, NOW_MS)
        assert (caught.value.where, caught.value.hint) == ("items", "Sign smaller transactions")


def test_shares_are_rounded_down() -> None:
    parameters = replace(PARAMETERS, block_records_max=1_999, block_bytes_max=2_001, member_share_milli=500)
    assert member_share_of(parameters) == (999, 1_000)
    assert block_time_ms(make_genesis(), 7) == GENESIS_MS + 7_000


@settings(max_examples=80, deadline=None)
@given(st.lists(values_of(CallRecord), min_size=1, max_size=3))
def test_any_record_of_the_right_types_is_judged_without_a_crash(records: list[CallRecord]) -> None:
    released = RuleSet(default_rule_set_pin("lifecycle"), carbon_basis="lifecycle")
    raw = encode(sign_records(records))
    with contextlib.suppress(RuleViolation):
        check_transaction(raw, chain_id=CHAIN_ID, key_of=STATE.keys.get, rules=released)
    checked = check(raw)
    seen = SeenRecords(RecordIndex(MemoryStore()), [])
    voids, _ = void_records("alba", records, seen)
    assert checked.has_repeats or not voids
    assert decode(encode(checked.totals), Totals) == checked.totals


# -- chunks ----------------------------------------------------------------------------------------------------------


def with_energy(number: int, zone: str = "AT", table: str = "ember-2026") -> CallRecord:
    energy = Energy(
        EnergyMethod.METERED, Boundary.CORE, DeviceClass.NONE, 0, number, 7, 1_500, zone, 100, table, 2 * number
    )
    return make_record(number, energy=energy)


ITEMS = [encode(with_energy(i)) for i in range(700)]


def spoiled(kind: str, number: int) -> bytes:
    """Return an item that fails the one or the other check; ``rule`` only under OneCodeRefused, ``unusual`` none."""
    good = encode(with_energy(number))
    return {
        "long": good.ljust(RECORD_BYTES_MAX + 1, b"\0"),
        "garbage": b"\xc1",
        "spelling": respelled(plain(with_energy(number)))[0],
        "zone": encode(with_energy(number, zone="at")),
        "table": encode(with_energy(number, table="Ember")),
        "unusual": encode(with_energy(number, zone="ZZ", table="own-2030")),
        "rule": encode(replace(with_energy(number), sip_code=699)),
    }[kind]


class OneCodeRefused(NoRules):
    """Rules that refuse one SIP code."""

    def check_record(self, record: CallRecord) -> Violation | None:
        return (
            Violation("some/rule", "sip_code", record.sip_code, "below 699", "no") if record.sip_code == 699 else None
        )


@given(
    st.dictionaries(
        st.integers(0, 299),
        st.sampled_from(["long", "garbage", "spelling", "zone", "table", "rule", "unusual"]),
        max_size=3,
    )
)
@settings(max_examples=50, deadline=None)
def test_what_is_found_first_does_not_depend_on_chunks(spoils: dict[int, str]) -> None:
    items = [spoiled(spoils[i], i) if i in spoils else ITEMS[i] for i in range(300)]
    told = []
    for way in (_tally, lambda _member, items, rules: check_records(items, rules)):
        try:
            way("alba", items, OneCodeRefused())
        except LedgerError as error:
            told.append((type(error), error.where, error.sentence()))
    assert len(told) == (2 if set(spoils.values()) - {"unusual"} else 0)
    assert told[:1] == told[1:]


def test_chunks_add_up() -> None:
    records = [with_energy(i) for i in range(700)]
    minutes, distinct = keys_by_minute("alba", records)
    assert _tally("alba", ITEMS, NoRules()) == (
        totals_of(records),
        minutes,
        False,
        records[0].end_ms,
        records[0].end_ms,
    )
    assert distinct == 700
    # The two of a pair are in different chunks.
    assert _tally("alba", [*ITEMS, ITEMS[0]], NoRules()).has_repeats


@pytest.mark.parametrize("at", [0, 300, 699])
def test_a_zone_that_does_not_ship_changes_nothing_but_the_time(at: int) -> None:
    items = [*ITEMS[:at], spoiled("unusual", at), *ITEMS[at + 1 :]]
    assert _tally("alba", items, NoRules()) == _tally("alba", ITEMS, NoRules())


@given(values_of(CallRecord), st.booleans())
@settings(deadline=None)
def test_a_usual_record_is_read_as_the_record_it_is(record: CallRecord, is_usual: bool) -> None:
    if is_usual and record.energy is not None:
        record = replace(record, energy=replace(record.energy, grid_zone="US-CA", intensity_table="egrid-2023"))
    try:
        read = decode(encode(record), USUAL_RECORD)
    except EncodingError:
        assert record.energy is not None
        assert not is_usual
    else:
        assert msgspec.structs.astuple(replace(read, energy=None)) == msgspec.structs.astuple(
            replace(record, energy=None)
        )
        assert encode(read) == encode(record)
