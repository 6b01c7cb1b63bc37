"""The call record: bounds of every field, the keys that identify it."""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import cdr
from ledger.block import Totals
from ledger.cdr import CallRecord, Energy, Levels, Quality, Reading, call_commitment, record_key_of, talk_ms
from ledger.codec import INT_MAX, decode, encode
from ledger.crypto import hash_of, hmac_sha256
from ledger.errors import FieldError
from ledger.genesis import Parameters
from ledger.validation import totals_of
from tests.ledger.ledger_samples import GENESIS_MS, make_record, plain, values_of

READING = Reading(5_000, 2**32 - 1, 2**32 - 1, 1_000_000, 2**32 - 1)
QUALITY = Quality(
    cdr.QualityMethod.MEASURED,
    cdr.Band.FULLBAND,
    cdr.MosKind.AVQ,
    cdr.Observer.BOTH,
    2**32 - 1,
    148_000,
    2**32 - 1,
    INT_MAX,
    INT_MAX,
    INT_MAX,
    INT_MAX,
    READING,
    READING,
    READING,
)
LEVELS = Levels(-128, -128, 255, 255, 255, 65_535, 65_535, 65_535, 65_535, 65_535)
ENERGY = Energy(
    cdr.EnergyMethod.METERED,
    cdr.Boundary.MOBILE,
    cdr.DeviceClass.CONFERENCE,
    cdr.ENERGY_MJ_MAX,
    cdr.ENERGY_MJ_MAX,
    cdr.ENERGY_MJ_MAX,
    cdr.PUE_MILLI_MAX,
    "GB-ENG",
    2**32 - 1,
    "x" * 32,
    cdr.CO2_UG_MAX,
)
LARGEST = make_record(
    party_commitment=b"\xff" * 32,
    call_commitment=b"\xff" * 16,
    setup_ms=4_102_444_800_000,
    answer_ms=4_102_444_800_000,
    end_ms=4_102_444_800_000,
    sip_code=699,
    q850_cause=127,
    codec=65_535,
    packets_sent=INT_MAX,
    packets_received=INT_MAX,
    octets_sent=cdr.OCTETS_MAX,
    octets_received=cdr.OCTETS_MAX,
    quality=QUALITY,
    levels=LEVELS,
    energy=ENERGY,
)


def test_the_largest_record_decodes_and_is_within_the_bound() -> None:
    assert decode(encode(LARGEST), CallRecord) == LARGEST
    assert len(encode(LARGEST)) == 372
    assert len(encode(LARGEST)) <= cdr.RECORD_BYTES_MAX


BOUNDS: list[tuple[Any, str, int, int]] = [
    (make_record(), "sip_code", 0, 699),
    (make_record(), "q850_cause", 0, 127),
    (make_record(), "setup_ms", 0, 4_102_444_800_000),
    (make_record(), "answer_ms", 0, 4_102_444_800_000),
    (make_record(), "end_ms", 0, 4_102_444_800_000),
    (make_record(), "service", 1, 6),
    (make_record(), "leg", 1, 3),
    (make_record(), "released_by", 0, 3),
    (make_record(), "codec", 0, 65_535),
    (make_record(), "packets_sent", 0, INT_MAX),
    (make_record(), "packets_received", 0, INT_MAX),
    (make_record(), "octets_sent", 0, 2**42 - 1),
    (make_record(), "octets_received", 0, 2**42 - 1),
    (READING, "mos_milli", 1_000, 5_000),
    (READING, "rtt_us", 0, 2**32 - 1),
    (READING, "jitter_us", 0, 2**32 - 1),
    (READING, "loss_ppm", 0, 1_000_000),
    (READING, "at_ms", 0, 2**32 - 1),
    (QUALITY, "method", 1, 8),
    (QUALITY, "band", 1, 4),
    (QUALITY, "kind", 1, 5),
    (QUALITY, "observer", 0, 3),
    (QUALITY, "samples", 0, 2**32 - 1),
    (QUALITY, "r_milli", 0, 148_000),
    (QUALITY, "one_way_us", 0, 2**32 - 1),
    (QUALITY, "packets_expected", 0, INT_MAX),
    (LEVELS, "signal_dbm0", -128, 126),
    (LEVELS, "noise_dbm0", -128, 126),
    (LEVELS, "rerl_db", 0, 255),
    (LEVELS, "burst_ms", 0, 65_535),
    (ENERGY, "method", 1, 4),
    (ENERGY, "boundary", 1, 4),
    (ENERGY, "device_class", 0, 5),
    (ENERGY, "device_mj", 0, 2**40 - 1),
    (ENERGY, "network_mj", 0, 2**40 - 1),
    (ENERGY, "server_mj", 0, 2**40 - 1),
    (ENERGY, "pue_milli", 0, 8_000),
    (ENERGY, "intensity_mg_per_kwh", 0, 2**32 - 1),
    (ENERGY, "co2_ug", 0, 2**42 - 1),
]


def spelt(value: Any, name: str, new: Any) -> bytes:
    fields = plain(value)
    fields[type(value).__struct_fields__.index(name)] = new
    return msgpack.packb(fields)


@pytest.mark.parametrize(("value", "name", "low", "high"), BOUNDS, ids=lambda x: x if isinstance(x, str) else "")
def test_bounds(value: Any, name: str, low: int, high: int) -> None:
    kind = type(value)
    for inside in (low, high):
        assert getattr(decode(spelt(value, name, inside), kind), name) == inside
    for outside in (low - 1, high + 1):
        with pytest.raises(FieldError) as caught:
            decode(spelt(value, name, outside), kind)
        assert caught.value.where == name


@pytest.mark.parametrize(
    ("value", "name", "good", "bad"),
    [
        (
            ENERGY,
            "grid_zone",
            ["DE", "US-CA", "GB-ENG", "JP-1"],
            ["", "D", "de", "DE-", "DE-ABCD", "DEU", "DE\n", "DÉ"],
        ),
        (ENERGY, "intensity_table", ["a", "ember-2026", "0.a-b"], ["", "-a", "A", "a b", "x" * 33, "a\n", "é"]),
        (make_record(), "party_commitment", [bytes(32)], [bytes(31), bytes(33), b"", None]),
        (make_record(), "call_commitment", [bytes(16)], [bytes(15), bytes(17), b"", None]),
        (make_record(), "version", [1], [0, 2, None]),
        (make_record(), "quality", [None], [[], 0]),
    ],
)
def test_other_bounds(value: Any, name: str, good: list[Any], bad: list[Any]) -> None:
    for inside in good:
        assert getattr(decode(spelt(value, name, inside), type(value)), name) == inside
    for outside in bad:
        with pytest.raises(FieldError) as caught:
            decode(spelt(value, name, outside), type(value))
        assert caught.value.where.startswith(name)


def test_nested_fields_are_named() -> None:
    record = plain(LARGEST)
    record[16][12][0] = 999
    with pytest.raises(FieldError) as caught:
        decode(msgpack.packb(record), CallRecord)
    assert caught.value.where == "quality.worst.mos_milli"


def test_no_block_can_make_its_totals_overflow() -> None:
    """The bounds of a record times the most records of a block stay below 2^63."""
    bounds = msgspec.inspect.type_info(Parameters).fields
    most = next(field.type.le for field in bounds if field.name == "block_records_max")  # type: ignore[union-attr]
    assert most == 1_000_000
    longest = msgspec.structs.replace(LARGEST, setup_ms=0, answer_ms=1)
    totals = totals_of([longest])
    sums = [getattr(totals, name) for name in Totals.__struct_fields__[:-1]]
    assert max(sums) * most <= INT_MAX
    assert totals.mos[0].sum_milli * most <= INT_MAX
    assert totals.server_mj == 8 * cdr.ENERGY_MJ_MAX


def test_talk_time() -> None:
    assert talk_ms(make_record()) == 60_000
    assert talk_ms(make_record(answer_ms=0)) == 0


def test_talk_time_is_never_negative_whatever_the_rules() -> None:
    """Totals with a negative sum could not be decoded: on a chain without rules one record would have stopped it."""
    record = make_record()
    late = msgspec.structs.replace(record, answer_ms=record.end_ms + 1)
    assert talk_ms(late) == 0
    assert totals_of([late, record]).talk_ms == 60_000


@settings(max_examples=30, deadline=None)
@given(values_of(CallRecord))
def test_the_record_key_is_of_member_call_and_leg(record: CallRecord) -> None:
    expected = hash_of("record", ["alba", record.call_commitment, int(record.leg)])[:16]
    assert record_key_of("alba", record) == expected
    same = make_record(setup_ms=GENESIS_MS, call_commitment=record.call_commitment, leg=record.leg)
    assert record_key_of("alba", same) == expected
    assert record_key_of("bora", record) != expected
    other = cdr.Leg(record.leg % 3 + 1)
    assert record_key_of("alba", msgspec.structs.replace(record, leg=other)) != expected


def test_call_commitment() -> None:
    key = bytes(range(32))
    expected = hmac_sha256(key, msgpack.packb(["a@b", "tag", 1]))[:16]
    assert call_commitment(key, "a@b", "tag", 1) == expected
    others = [
        call_commitment(key[::-1], "a@b", "tag", 1),
        call_commitment(key, "a@bt", "ag", 1),
        call_commitment(key, "a@b", "tag", 0),
        call_commitment(key, "a@b", "", 1),
    ]
    assert len({expected, *others}) == 5


@pytest.mark.parametrize(("call_id", "cseq"), [("\udc80", 1), ("a", 2**64), ("a", -(2**64))])
def test_a_call_that_cannot_be_encoded_is_a_field_error(call_id: str, cseq: int) -> None:
    with pytest.raises(FieldError) as caught:
        call_commitment(bytes(32), call_id, "tag", cseq)
    assert caught.value.where == "call_id, from_tag, invite_cseq"


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_the_parts_of_a_call_cannot_run_into_each_other(a: str, b: str) -> None:
    if b:
        assert call_commitment(bytes(32), a, b, 0) != call_commitment(bytes(32), a + b, "", 0)
