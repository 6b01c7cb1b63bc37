"""The OpenSIPS adapter, on events laid out as the event interface does and on ones that nobody should write."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import MosKind, Observer, QualityMethod, ReleasedBy
from ledger.errors import ConfigError, EncodingError, FieldError
from telephony.adapters.opensips import make_opensips
from telephony.adapters.registry import Adapters
from telephony.source import SourceCall, SourceReading
from tests.telephony.adapters.fuzzing import ENDINGS, JSON_VALUES, damaged, outcome, outcomes

EVENTS = (Path(__file__).parents[1] / "fixtures" / "opensips" / "events.jsonl").read_bytes()
CDR, MISSED = EVENTS.splitlines()
ADAPTER = make_opensips({})


def call_of(document: object, adapter=ADAPTER) -> SourceCall:
    (found,), is_array = adapter.split(json.dumps(document).encode(), "application/json")
    assert not is_array
    return adapter.parse(found)


def plain(event: bytes = CDR, **changes: object) -> dict[str, object]:
    """Return the parameters alone, as a script makes an object of them, with changes; None takes one away."""
    merged = {**json.loads(event)["params"], **changes}
    return {name: value for name, value in merged.items() if value is not None}


def test_whole_call():
    """Every parameter lands where it belongs."""
    call = ADAPTER.parse(CDR)
    assert (call.call_id, call.from_tag, call.to_tag) == ("a84b4c76e66710@192.0.2.17", "1928301774", "as4f2b6c11")
    assert (call.caller, call.callee) == (
        "sip:+442071838750@carrier-a.example",
        "sip:+4930901820@carrier-b.example",
    )
    assert (call.invite_cseq, call.source_address, call.codec) == (103, "192.0.2.17", "PCMA")
    # The answer's second is all that the event says; the talk time has milliseconds.
    assert (call.setup_ms, call.answer_ms, call.end_ms) == (1795264200000, 1795264206000, 1795264271415)
    assert (call.sip_code, call.q850_cause, call.released_by) == (200, 16, ReleasedBy.CALLER)
    assert (call.platform, call.time_step_ms, call.leg, call.notes) == ("opensips", 1000, None, ())
    assert call.raw.encode() == CDR
    (quality,) = call.qualities
    assert (quality.observer, quality.samples, quality.kind) == (Observer.BOTH, 1, MosKind.CQ)
    assert quality.method == QualityMethod.RTPENGINE_10
    assert quality.average == SourceReading(4300, 24184, 2000, 10_000, None)
    assert quality.lowest == SourceReading(4100, None, None, None, 15_000)
    assert quality.highest == SourceReading(4400, None, None, None, 40_000)


def test_missed_call():
    call = ADAPTER.parse(MISSED)
    assert (call.sip_code, call.released_by, call.answer_ms) == (486, ReleasedBy.CALLEE, 0)
    assert (call.setup_ms, call.end_ms) == (1795264300000, 1795264304000)
    assert (call.qualities, call.caller_packets, call.q850_cause) == ((), None, 0)


@pytest.mark.parametrize("event", [CDR, MISSED])
def test_object_made_by_the_script_says_the_same(event):
    """Without the JSON-RPC around it, and with every number as a string, as a script's variables are."""
    texts = {name: "" if value is None else str(value) for name, value in json.loads(event)["params"].items()}
    for document in (plain(event), texts):
        assert dataclasses.replace(call_of(document), raw="") == dataclasses.replace(ADAPTER.parse(event), raw="")


def test_event_name_among_the_parameters():
    """As event_stream sends it when its event_param is set: the method is a command of the receiver's."""
    event = json.loads(CDR)
    event["method"] = "take_cdr"
    event["params"]["opensips_event"] = "E_ACC_CDR"
    event["id"] = 7
    assert dataclasses.replace(call_of(event), raw="") == dataclasses.replace(ADAPTER.parse(CDR), raw="")


def test_bodies_of_many():
    """One event, an array, or one on each line, as the script's file of what it could not deliver has them."""
    assert ADAPTER.split(CDR, "") == ([CDR], False)
    assert ADAPTER.split(EVENTS, "") == ([CDR, MISSED], True)
    assert ADAPTER.split(b"[" + CDR + b", " + MISSED + b"]", "") == ([CDR, MISSED], True)
    assert outcomes(ADAPTER, CDR + b"\n" + CDR[:50] + b"\n" + MISSED) == ["SourceCall", "EncodingError", "SourceCall"]


@pytest.mark.parametrize(
    ("bye_from", "released_by"),
    [("1928301774", ReleasedBy.CALLER), ("as4f2b6c11", ReleasedBy.CALLEE), (None, ReleasedBy.UNKNOWN),
     ("other", ReleasedBy.UNKNOWN)],
)  # fmt: skip
def test_who_sent_bye(bye_from, released_by):
    assert call_of(plain(bye_from=bye_from)).released_by == released_by


def test_older_versions_without_milliseconds():
    """Before ms_duration the duration is in whole seconds."""
    call = call_of(plain(ms_duration=None))
    assert call.end_ms - call.answer_ms == 66_000


def test_times_that_contradict():
    """A clock set back between INVITE and answer: never a setup after the answer, and no wrapped difference."""
    wrapped = 2**64 - 3
    assert call_of(plain(created=1795264209, setuptime=wrapped)).setup_ms == 1795264206000
    assert call_of(plain(created=0, setuptime=wrapped)).setup_ms == 1795264206000
    assert call_of(plain(created=None, setuptime=6)).setup_ms == 1795264200000
    assert call_of(plain(MISSED, setuptime=wrapped)).end_ms == 1795264300000


def test_call_of_no_length():
    """Answered and ended at once is a call all the same."""
    call = call_of(plain(duration=0, ms_duration=0))
    assert call.answer_ms == call.end_ms == 1795264206000


def test_midnight():
    call = call_of(plain(created=1795305598, time=1795305599, ms_duration=2_000))
    assert (call.setup_ms, call.end_ms) == (1795305598000, 1795305601000)


def test_no_mos_is_not_a_bad_one():
    for mos in (None, "", "0"):
        assert call_of(plain(mos_avg=mos)).qualities == ()


def test_generation_of_rtpengine():
    adapter = make_opensips({"mos_method": "rtpengine-13"})
    assert adapter.parse(CDR).qualities[0].method == QualityMethod.RTPENGINE_13
    assert call_of(plain(mos_samples="14")).qualities[0].samples == 14


def test_text_that_is_not_utf8():
    spoilt = CDR.replace(b"sip:+442071838750@", b"sip:\xfcber@")
    ((document,), _) = ADAPTER.split(spoilt, "")
    call = ADAPTER.parse(document)
    assert (call.caller, call.notes) == ("", ("params.from was not UTF-8 and is left out",))
    assert "\ufffdber" in call.raw


@pytest.mark.parametrize(
    ("document", "where"),
    [
        (plain(callid=None), "callid"),
        (plain(from_tag=""), "from_tag"),
        (plain(time=None), "time"),
        (plain(time="now"), "time"),
        (plain(sip_code="99"), "sip_code"),
        (plain(sip_code="700"), "sip_code"),
        (plain(ms_duration=-1), "ms_duration"),
        (plain(time=4102444799), "ms_duration"),
        (plain(mos_avg="51"), "mos_avg"),
        (plain(cseq="x"), "cseq"),
        (plain(MISSED, created=None, time=0), "created"),
        (plain(MISSED, sip_code="200"), "ms_duration"),
        ({"jsonrpc": "2.0", "method": "E_ACC_CDR"}, "params"),
        ({"jsonrpc": "2.0", "method": "E_ACC_CDR", "params": [1]}, "params"),
        ({"jsonrpc": "2.0", "method": "E_PIKE_BLOCKED", "params": {"ip": "192.0.2.1"}}, "method"),
        ({"params": {"method": "E_ACC_EVENT", "x": []}, "method": 7}, "method"),
        (plain(more="x" * 65_536), "cdr"),
    ],
)
def test_field_refused(document, where):
    with pytest.raises(FieldError) as caught:
        call_of(document)
    assert caught.value.where == where


def test_event_of_a_single_transaction():
    """E_ACC_EVENT has no duration; the error says what to switch on."""
    event = json.loads(CDR)["params"]
    with pytest.raises(FieldError, match="flag cdr of do_accounting"):
        call_of({name: value for name, value in event.items() if "duration" not in name})


@pytest.mark.parametrize(
    ("options", "where"),
    [({"x": 1}, "x"), ({"mos_method": "guess"}, "mos_method"), ({"mos_method": ["a"]}, "mos_method")],
)
def test_option_refused(options, where):
    with pytest.raises(ConfigError) as caught:
        Adapters({"opensips": options})
    assert caught.value.where == f"sources.opensips.{where}"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff\xff", b"[" * 100_000])
def test_body_refused(body):
    with pytest.raises(EncodingError):
        ADAPTER.split(body, "")


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_crash(body):
    assert {outcome(ADAPTER, body), *outcomes(ADAPTER, body)} <= {"EncodingError", "FieldError"}


@given(damaged([CDR, MISSED, EVENTS]))
def test_damaged_events_never_crash(body):
    assert set(outcomes(ADAPTER, body)) <= ENDINGS


@given(st.dictionaries(st.sampled_from(sorted(json.loads(CDR)["params"])), JSON_VALUES, max_size=5), st.booleans())
def test_changed_parameters_never_crash(changes, is_missed):
    document = {**json.loads(MISSED if is_missed else CDR)["params"], **changes}
    assert outcome(ADAPTER, json.dumps(document).encode()) in ENDINGS
