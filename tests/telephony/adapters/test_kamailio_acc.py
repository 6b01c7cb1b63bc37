"""Kamailio's accounting by transaction: recorded lines, put together to calls, and lines nobody should write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import ReleasedBy
from ledger.errors import ConfigError, EncodingError, FieldError
from telephony.adapters.kamailio_acc import KamailioAccAdapter, make_kamailio_acc
from telephony.joining import merge_call
from telephony.source import PartRole, SourceCall, SourcePart, join_of

FIXTURES = Path(__file__).parents[1] / "fixtures"
LINES = (FIXTURES / "kamailio-5.6.3-acc_json-transactions.jsonl").read_bytes().splitlines()
ADAPTER = KamailioAccAdapter()


def parsed(line: bytes) -> Any:
    return ADAPTER.parse(line)


def recorded(method: str, **members: str) -> list[bytes]:
    """Return the recorded lines of a method that have these members."""
    documents = [(line, json.loads(line)) for line in LINES]
    return [
        line for line, document in documents if document["method"] == method and members.items() <= document.items()
    ]


def minimal(**changes: object) -> bytes:
    """Return the shortest line of an answered INVITE, with changes; None takes a member away."""
    document = {"time": 12, "method": "INVITE", "callid": "c", "from_tag": "f", "sip_code": "200", **changes}
    return json.dumps({name: value for name, value in document.items() if value is not None}).encode()


@pytest.mark.parametrize(
    ("call_id", "times", "released_by"),
    [
        ("lab-ddd5127819a4@127.0.0.1", (1795265079592, 1795265079899, 1795265083105), ReleasedBy.CALLER),
        ("lab-a7905e7954ff@127.0.0.1", (1795265079589, 1795265079896, 1795265086104), ReleasedBy.CALLER),
        ("lab-61b28f53c550@127.0.0.1", (1795265079591, 1795265079899, 1795265086105), ReleasedBy.CALLEE),
    ],
)
def test_recorded_call(call_id, times, released_by):
    """INVITE and BYE of one call: its times, its tags, and who hung up, in whatever order they come."""
    begin, end = parsed(recorded("INVITE", callid=call_id)[0]), parsed(recorded("BYE", callid=call_id)[0])
    assert (begin.role, end.role) == (PartRole.BEGIN, PartRole.END)
    call = merge_call(end, begin)
    assert (call.setup_ms, call.answer_ms, call.end_ms) == times
    assert (call.call_id, call.sip_code, call.q850_cause, call.released_by) == (call_id, 200, 16, released_by)
    assert (call.caller, call.callee) == ("sip:+442071838750@lab.test", "sip:+12025550123@lab.test")
    invite = json.loads(begin.raw)
    assert (call.from_tag, call.to_tag) == (invite["from_tag"], invite["to_tag"])
    assert (call.invite_cseq, call.source_address, call.platform) == (1, "127.0.0.1", "kamailio-acc")
    assert call.time_step_ms == 1
    assert json.loads(call.raw) == {"call": [invite, json.loads(end.raw)]}


@pytest.mark.parametrize(
    ("code", "released_by", "lasted_ms"), [("486", ReleasedBy.CALLEE, 308), ("487", ReleasedBy.CALLER, 608)]
)
def test_recorded_failures_are_whole_calls(code, released_by, lasted_ms):
    call = parsed(recorded("INVITE", sip_code=code)[0])
    assert isinstance(call, SourceCall)
    assert (call.sip_code, call.answer_ms, call.released_by) == (int(code), 0, released_by)
    assert call.end_ms - call.setup_ms == lasted_ms


def test_parts_of_a_call_share_their_key():
    begin, end = parsed(minimal()), parsed(minimal(method="BYE"))
    assert join_of(begin) == join_of(end) == join_of(merge_call(begin, end)) == ("call-id", "c")


def test_whole_seconds_are_marked():
    """acc_time_mode 0 writes whole seconds; without setup_time the answer is all there is."""
    call = parsed(minimal()).call
    assert (call.setup_ms, call.answer_ms, call.time_step_ms) == (12_000, 12_000, 1000)
    assert parsed(minimal(time=12.5)).call.time_step_ms == 1


def test_setup_is_never_after_the_answer():
    assert parsed(minimal(setup_time="12.5")).call.setup_ms == 12_000


def test_unset_and_not_text_are_null():
    call = parsed(minimal(**{"to_tag": "", "from": "NON-UTF8", "cseq": "", "reason": ""})).call
    assert (call.to_tag, call.caller, call.invite_cseq) == ("", "", 0)


def test_other_members_of_any_type_are_kept_in_raw_only():
    line = minimal(json_extra={"a": [1]})
    assert json.loads(parsed(line).raw) == json.loads(line)


@pytest.mark.parametrize(
    ("line", "where"),
    [
        (minimal(time=None), "time"),
        (minimal(time=""), "time"),
        (minimal(time=True), "time"),
        (minimal(time=-1), "time"),
        (minimal(time=1e300), "time"),
        (minimal(time="2026-11-21 12:00:00"), "time"),
        (minimal(method=None), "method"),
        (minimal(method="ACK"), "method"),
        (minimal(method="NON-UTF8"), "method"),
        (minimal(callid=""), "callid"),
        (minimal(callid=7), "callid"),
        (minimal(from_tag=None), "from_tag"),
        (minimal(sip_code=None), "sip_code"),
        (minimal(sip_code="183"), "sip_code"),
        (minimal(sip_code="700"), "sip_code"),
        (minimal(method="BYE", sip_code="407"), "sip_code"),
        (minimal(cseq="-1"), "cseq"),
        (minimal(cseq=1.5), "cseq"),
        (minimal(setup_time="yesterday"), "setup_time"),
        (minimal(extra="x" * 65_536), "document"),
        (b"[]", "document"),
        (b"7", "document"),
    ],
)
def test_line_refused(line, where):
    """The error names the member at fault."""
    with pytest.raises(FieldError) as caught:
        ADAPTER.check(line)
    assert caught.value.where == where


@pytest.mark.parametrize("document", [b"", b"{", b'{"a":"\xff"}', b"[" * 30_000])
def test_no_json(document):
    with pytest.raises(EncodingError):
        parsed(document)


def test_there_are_no_options():
    assert make_kamailio_acc({}).name == "kamailio-acc"
    with pytest.raises(ConfigError) as caught:
        make_kamailio_acc({"generation": 13})
    assert caught.value.where == "sources.kamailio-acc.generation"


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["NON-UTF8", "\ud800"])
)
NAMES = st.sampled_from(sorted(json.loads(LINES[0])))


def outcome(document: bytes) -> str:
    """Return how parsing ended; anything but what the adapter promises gets out."""
    try:
        return type(parsed(document)).__name__
    except EncodingError:
        return "refused"


@given(st.sampled_from(LINES), st.dictionaries(NAMES, VALUES, max_size=4))
def test_damaged_line_never_crashes(line, changes):
    damaged = json.dumps({**json.loads(line), **changes}).encode()
    assert outcome(damaged) in {SourceCall.__name__, SourcePart.__name__, "refused"}


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused(document):
    assert outcome(document) == "refused"
