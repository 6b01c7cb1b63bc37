"""Readable JSON: the same value there and back, and every fault named."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.cdr import CallRecord, Leg, Reading
from ledger.codec import Wire, encode
from ledger.errors import EncodingError, FieldError, LedgerError
from ledger.genesis import Genesis, MemberKey
from ledger.readable import from_readable, parse_json, to_readable
from tests.ledger.ledger_samples import GENESIS, WIRE_TYPES, make_record, values_of

RECORD = make_record()


@pytest.mark.parametrize("kind", WIRE_TYPES, ids=lambda kind: kind.__name__)
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_there_and_back_through_json(kind: type[Wire], data: st.DataObject) -> None:
    value = data.draw(values_of(kind))
    text = json.dumps(to_readable(value))
    again = from_readable(json.loads(text), kind)
    assert again == value
    assert encode(again) == encode(value)
    assert from_readable(msgspec.json.decode(text.encode()), kind) == value


def test_the_form() -> None:
    assert to_readable(make_record(leg=Leg.TRANSIT)) == {
        "version": 1,
        "service": "voice",
        "leg": "transit",
        "party_commitment": "00" * 32,
        "call_commitment": "00" * 16,
        "setup_ms": RECORD.setup_ms,
        "answer_ms": RECORD.answer_ms,
        "end_ms": RECORD.end_ms,
        "sip_code": 200,
        "q850_cause": 16,
        "released_by": "caller",
        "codec": 0,
        "packets_sent": 3000,
        "packets_received": 2970,
        "octets_sent": 480000,
        "octets_received": 475200,
        "quality": None,
        "levels": None,
        "energy": None,
    }


DEEP: Any = []
for _ in range(900):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"version": 2}, "version"),
        ({"version": True}, "version"),
        ({"version": 1.0}, "version"),
        ({"version": "1"}, "version"),
        ({"service": "telepathy"}, "service"),
        ({"service": 1}, "service"),
        ({"service": "VOICE"}, "service"),
        ({"service": None}, "service"),
        ({"service": DEEP}, "service"),
        ({"party_commitment": "00"}, "party_commitment"),
        ({"party_commitment": "AB" * 32}, "party_commitment"),
        ({"party_commitment": "0 " * 32}, "party_commitment"),
        ({"party_commitment": "zz" * 32}, "party_commitment"),
        ({"party_commitment": "é" * 64}, "party_commitment"),
        ({"party_commitment": None}, "party_commitment"),
        ({"party_commitment": 5}, "party_commitment"),
        ({"party_commitment": DEEP}, "party_commitment"),
        ({"setup_ms": 1.0}, "setup_ms"),
        ({"setup_ms": 1e300}, "setup_ms"),
        ({"setup_ms": True}, "setup_ms"),
        ({"setup_ms": -1}, "setup_ms"),
        ({"setup_ms": 10**400}, "setup_ms"),
        ({"setup_ms": "5"}, "setup_ms"),
        ({"setup_ms": None}, "setup_ms"),
        ({"setup_ms": {}}, "setup_ms"),
        ({"setup_ms": DEEP}, "setup_ms"),
        ({"quality": []}, "quality"),
        ({"quality": {}}, "quality.method"),
        ({"quality": DEEP}, "quality"),
        ({"colour": "red"}, "colour"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_every_fault_names_its_field(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(FieldError) as caught:
        from_readable({**to_readable(RECORD), **changes}, CallRecord)
    assert caught.value.where == where


@pytest.mark.parametrize("name", CallRecord.__struct_fields__)
def test_every_field_must_be_there(name: str) -> None:
    value = to_readable(RECORD)
    del value[name]
    with pytest.raises(FieldError) as caught:
        from_readable(value, CallRecord)
    assert (caught.value.what, caught.value.where) == ("missing field", name)


def test_paths_lead_into_lists_alike_in_both_decoders() -> None:
    value = to_readable(GENESIS)
    value["members"][1]["keys"][0]["roles"] = 99
    with pytest.raises(FieldError) as caught:
        from_readable(value, Genesis)
    assert caught.value.where == "members[1].keys[0].roles"
    value["members"][1]["keys"][0]["public_key"] = "00"
    value["members"][1]["keys"][0]["roles"] = 1
    with pytest.raises(FieldError) as caught:
        from_readable(value, Genesis)
    assert caught.value.where == "members[1].keys[0].public_key"
    value["members"][1]["keys"] = {}
    with pytest.raises(FieldError) as caught:
        from_readable(value, Genesis)
    assert caught.value.where == "members[1].keys"


@pytest.mark.parametrize("value", [None, 5, "x", [], [1], DEEP])
def test_what_is_no_object(value: Any) -> None:
    with pytest.raises(FieldError) as caught:
        from_readable(value, MemberKey)
    assert caught.value.where == "MemberKey"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(JSON, st.dictionaries(st.sampled_from(Reading.__struct_fields__), JSON), JSON)
def test_arbitrary_json_raises_only_encoding_errors(value: Any, changes: dict[str, Any], nested: Any) -> None:
    reading = {"mos_milli": 4000, "rtt_us": 1, "jitter_us": 1, "loss_ppm": 0, "at_ms": 0}
    attempts = [(value, CallRecord), ({**reading, **changes}, Reading)]
    attempts.append(({**to_readable(RECORD), "quality": nested}, CallRecord))
    for attempt, kind in attempts:
        try:
            found = from_readable(attempt, kind)
        except LedgerError as error:
            assert isinstance(error, EncodingError)  # noqa: PT017
        else:
            assert from_readable(to_readable(found), kind) == found


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"{} {}", b"NaN", b'{"a": Infinity}', b'"\xff"', b"[" * 100_000, b"1" * 5_000, b"\xff\xfe"],
)
def test_what_is_not_json(data: bytes) -> None:
    with pytest.raises(EncodingError, match="not valid JSON"):
        parse_json(data)


def test_a_field_given_twice_is_refused() -> None:
    assert parse_json(b'{"a": {"b": 1}, "c": {"b": 2}}') == {"a": {"b": 1}, "c": {"b": 2}}
    with pytest.raises(FieldError) as caught:
        parse_json(b'{"a": {"b": 1, "b": 1}}')
    assert (caught.value.what, caught.value.where) == ("given twice", "b")


@pytest.mark.parametrize("text", ["\ud800", "alfa\udfff"])
def test_half_of_a_pair_is_no_text(text: str) -> None:
    """JSON may spell it; it cannot be encoded."""
    document = to_readable(GENESIS)
    for place, where in ((document, "name"), (document["parameters"], "parameters.carbon_basis")):
        name = where.rpartition(".")[2]
        kept, place[name] = place[name], text
        with pytest.raises(FieldError) as caught:
            from_readable(json.loads(json.dumps(document)), Genesis)
        assert (caught.value.where, caught.value.what) == (where, "not text")
        place[name] = kept
