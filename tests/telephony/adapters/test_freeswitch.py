"""The FreeSWITCH adapters, on documents laid out as its modules do and on ones that nobody should write."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import Leg, MosKind, Observer, QualityMethod, ReleasedBy
from ledger.errors import ConfigError, EncodingError, FieldError
from telephony.adapters.freeswitch import make_freeswitch, make_freeswitch_xml
from telephony.adapters.freeswitch_forms import DEPTH_MAX, ELEMENTS_MAX, URL_UNSAFE
from telephony.adapters.registry import Adapters
from telephony.source import SourceCall, SourceQuality, SourceReading
from tests.telephony.adapters.fuzzing import ALMOST, ENDINGS, JSON_VALUES, damaged, outcome, outcomes

FIXTURES = Path(__file__).parents[1] / "fixtures" / "freeswitch"
JSON = make_freeswitch({})
XML = make_freeswitch_xml({})
A_LEG, B_LEG, BUSY, CANCELLED = (
    (FIXTURES / f"{name}.cdr.json").read_bytes() for name in ("a-leg", "b-leg", "busy", "cancelled")
)
A_LEG_PLAIN = (FIXTURES / "a-leg-plain-values.cdr.json").read_bytes()
A_LEG_XML, B_LEG_XML, BUSY_XML = ((FIXTURES / f"{name}.cdr.xml").read_bytes() for name in ("a-leg", "b-leg", "busy"))


def call_of(body: bytes) -> SourceCall:
    """Return the one call in a post or file of mod_json_cdr."""
    documents, is_array = JSON.split(body, "application/json")
    assert (len(documents), is_array) == (1, False)
    return JSON.parse(documents[0])


def call_of_xml(body: bytes) -> SourceCall:
    """Return the one call in a post or file of mod_xml_cdr."""
    (document,), is_array = XML.split(body, "text/xml")
    assert not is_array
    return XML.parse(document)


def changed(**variables: object) -> bytes:
    """Return the A leg's CDR with plain values and some variables changed; None takes one away."""
    cdr = json.loads(A_LEG_PLAIN)
    merged = {**cdr["variables"], **variables}
    cdr["variables"] = {name: value for name, value in merged.items() if value is not None}
    return json.dumps(cdr).encode()


def url_encoded(data: bytes, *, twice: bool) -> bytes:
    """Return what FreeSWITCH makes of ``data``; unless ``twice``, what looks encoded is left as it is."""
    parts = []
    for at, byte in enumerate(data):
        following = data[at + 1 : at + 3]
        is_escape = byte == 0x25 and len(following) == 2 and all(digit in b"0123456789ABCDEF" for digit in following)
        is_plain = 0x20 < byte < 0x7F and chr(byte) not in URL_UNSAFE and byte != 0x25
        parts.append(bytes([byte]) if is_plain or (is_escape and not twice) else b"%%%02X" % byte)
    return b"".join(parts)


def test_a_leg():
    """Every figure of the caller's leg lands where it belongs; what comes from the caller is what the callee hears."""
    call = call_of(A_LEG)
    assert (call.call_id, call.from_tag, call.to_tag) == ("a84b4c76e66710@192.0.2.17", "1928301774", "Kg9X1pZr5vQaF")
    assert (call.caller, call.callee) == (
        "sip:+442071838750@carrier-a.example",
        "sip:+4930901820@fs1.example.net",
    )
    assert (call.invite_cseq, call.source_address, call.codec) == (103, "192.0.2.17", "PCMA")
    assert (call.setup_ms, call.answer_ms, call.end_ms) == (1795264200031, 1795264206487, 1795264271902)
    assert (call.sip_code, call.q850_cause, call.released_by) == (200, 16, ReleasedBy.CALLER)
    assert (call.caller_packets, call.caller_octets) == (3512, 3512 * 160)
    assert (call.callee_packets, call.callee_octets) == (3270, 3270 * 160)
    assert (call.platform, call.leg, call.time_step_ms, call.notes) == ("freeswitch", Leg.ORIGINATING, 1, ())
    assert call.qualities == (
        SourceQuality(
            observer=Observer.CALLEE,
            samples=1,
            average=SourceReading(4480, None, None, 10_000, None),
            lowest=None,
            highest=None,
            method=QualityMethod.FREESWITCH,
            kind=MosKind.LQ,
            r_milli=98_000,
        ),
    )
    assert call.raw == A_LEG.decode().strip()


def test_b_leg_is_the_other_way_round():
    """Its far end is the callee: what comes in is the callee's, and BYE was sent because the caller hung up."""
    call = call_of(B_LEG)
    assert (call.leg, call.released_by) == (Leg.TERMINATING, ReleasedBy.CALLER)
    assert (call.caller_packets, call.callee_packets) == (3511, 3268)
    assert [(quality.observer, quality.average.mos_milli) for quality in call.qualities] == [(Observer.CALLER, 4500)]
    assert call.call_id != call_of(A_LEG).call_id


def test_failures():
    busy, cancelled = call_of(BUSY), call_of(CANCELLED)
    assert (busy.sip_code, busy.q850_cause, busy.released_by) == (486, 17, ReleasedBy.CALLEE)
    assert (busy.answer_ms, busy.end_ms - busy.setup_ms, busy.qualities) == (0, 3550, ())
    assert (cancelled.sip_code, cancelled.released_by, cancelled.answer_ms) == (487, ReleasedBy.CALLER, 0)


def test_mos_without_packets_is_no_mos():
    """4.50 is what FreeSWITCH begins with: before it has seen some packets it says nothing of the call."""
    variables = json.loads(CANCELLED)["variables"]
    assert (variables["rtp_audio_in_mos"], variables["rtp_audio_in_packet_count"]) == ("4.50", "0")
    assert call_of(CANCELLED).qualities == ()
    for packets, is_measured in ((10, False), (11, True)):
        call = call_of(changed(rtp_audio_in_packet_count=str(packets)))
        assert bool(call.qualities) is is_measured


@pytest.mark.parametrize("name", ["a-leg", "b-leg", "busy"])
def test_xml_says_the_same_as_json(name):
    """Both modules write the same variables, so both adapters make the same call of them."""
    of_json = call_of((FIXTURES / f"{name}.cdr.json").read_bytes())
    of_xml = call_of_xml((FIXTURES / f"{name}.cdr.xml").read_bytes())
    assert dataclasses.replace(of_xml, platform="freeswitch", raw=of_json.raw) == of_json
    assert of_xml.platform == "freeswitch-xml"


ENCODINGS = {
    "application/json, encode-values": A_LEG,
    "application/json": A_LEG_PLAIN,
    "form, URL-encoded": b"cdr=" + url_encoded(A_LEG_PLAIN.strip(), twice=False),
    "form, both encoded": b"cdr=" + url_encoded(A_LEG.strip(), twice=False),
    "form, base64, encode-values": b"cdr=" + base64.b64encode(A_LEG.strip()),
    "form, base64": b"cdr=" + base64.b64encode(A_LEG_PLAIN.strip()),
    "form, base64, as browsers encode": b"cdr=" + url_encoded(base64.b64encode(A_LEG.strip()), twice=True),
    "form with another field": b"cdr=" + url_encoded(A_LEG_PLAIN.strip(), twice=False) + b"&uuid=1",
    "failed post, URL-encoded": url_encoded(A_LEG_PLAIN.strip(), twice=False) + b"\n",
    "failed post, both encoded": url_encoded(A_LEG.strip(), twice=False) + b"\n",
    "failed post, base64": base64.b64encode(A_LEG.strip()) + b"\n",
    "with a byte order mark": b"\xef\xbb\xbf" + A_LEG,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_of_json(encoding):
    """However mod_json_cdr was told to encode, the call is the same."""
    assert dataclasses.replace(call_of(ENCODINGS[encoding]), raw="") == dataclasses.replace(call_of(A_LEG), raw="")


@pytest.mark.parametrize("encoded", [A_LEG.strip(), *(body for body in ENCODINGS.values() if body[:4] == b"cdr=")])
def test_a_failed_posts_file_is_the_same_document_as_the_post(encoded):
    """It has no ``cdr=``, but a line's end. Handed in too, it is known, not another content of the same call."""
    assert JSON.split(encoded.removeprefix(b"cdr=") + b"\n", "") == JSON.split(encoded, "")


@pytest.mark.parametrize(
    "body",
    [
        b"cdr=" + A_LEG_XML,
        b"cdr=" + url_encoded(A_LEG_XML, twice=True),
        b"cdr=" + base64.b64encode(A_LEG_XML),
        url_encoded(A_LEG_XML, twice=True),
        base64.b64encode(A_LEG_XML),
    ],
    ids=["form, plain", "form, URL-encoded", "form, base64", "failed post, URL-encoded", "failed post, base64"],
)
def test_encodings_of_xml(body):
    assert call_of_xml(body) == call_of_xml(A_LEG_XML)


def test_encoded_and_plain_values_are_told_apart():
    """A percent sign that stands for itself stays one where the values are plain."""
    assert call_of(changed(sip_from_tag="100%41")).from_tag == "100%41"
    encoded = json.loads(A_LEG)
    encoded["variables"]["sip_from_tag"] = "a%2Bb%25"
    assert call_of(json.dumps(encoded).encode()).from_tag == "a+b%"


def test_text_that_is_not_utf8():
    """The call is kept; what was no text is unknown, and a note says so."""
    spoilt = A_LEG_PLAIN.replace(b"+442071838750@carrier-a.example", b"\xfcber@carrier-a.example")
    call = call_of(spoilt)
    assert call.caller == "+442071838750"
    assert call.notes == ("variables.sip_from_uri was not UTF-8 and is left out",)
    assert "\ufffd" in call.raw
    spoilt_xml = A_LEG_XML.replace(b"%2B442071838750%40carrier-a.example", b"\xfcber%40carrier-a.example")
    assert call_of_xml(spoilt_xml).caller == "+442071838750"


@pytest.mark.parametrize("value", [None, ""])
def test_null_in_both_spellings(value):
    call = call_of(changed(sip_to_tag=value, sip_cseq=value, read_codec=value, answer_uepoch=value))
    assert (call.to_tag, call.invite_cseq, call.codec, call.answer_ms) == ("", 0, "PCMA", 1795264206487)


def test_times_of_the_profile_where_variables_lack():
    """A channel torn down early may lack the variables; its last profile has the times too."""
    call = call_of(changed(start_uepoch=None, answer_uepoch=None, end_uepoch="0"))
    assert (call.setup_ms, call.answer_ms, call.end_ms) == (1795264200031, 1795264206487, 1795264271902)


def test_answer_from_the_talk_time():
    cdr = json.loads(changed(answer_uepoch="0"))
    del cdr["callflow"]
    assert call_of(json.dumps(cdr).encode()).answer_ms == 1795264206487


def test_midnight_is_no_matter():
    """Times are counted from 1970: a call over midnight is like any other."""
    midnight_us = 1795305600_000000
    call = call_of(
        changed(
            start_uepoch=str(midnight_us - 5_000_000),
            answer_uepoch=str(midnight_us - 1),
            end_uepoch=str(midnight_us + 1_999),
        )
    )
    assert (call.setup_ms, call.answer_ms, call.end_ms) == (1795305595000, 1795305599999, 1795305600001)


@pytest.mark.parametrize(
    ("variables", "released_by"),
    [
        ({"sip_hangup_disposition": "send_bye"}, ReleasedBy.CALLEE),
        ({"sip_hangup_disposition": "send_bye", "bridge_uepoch": "0"}, ReleasedBy.NETWORK),
        ({"sip_hangup_disposition": "send_bye", "hangup_cause": "ALLOTTED_TIMEOUT"}, ReleasedBy.NETWORK),
        ({"sip_hangup_disposition": None}, ReleasedBy.UNKNOWN),
    ],
)
def test_who_hung_up_an_answered_a_leg(variables, released_by):
    assert call_of(changed(**variables)).released_by == released_by


def failed(**variables: object) -> SourceCall:
    """Return the A leg as if it had never been answered."""
    cdr = json.loads(changed(answer_uepoch="0", billmsec="0", sip_term_status=None, **variables))
    cdr["callflow"][0]["times"]["answered_time"] = "0"
    return call_of(json.dumps(cdr).encode())


@pytest.mark.parametrize(
    ("cause", "code", "released_by"),
    [
        ("USER_BUSY", 486, ReleasedBy.CALLEE),
        ("NO_ROUTE_DESTINATION", 404, ReleasedBy.NETWORK),
        ("NO_ANSWER", 480, ReleasedBy.CALLEE),
        ("CALL_REJECTED", 603, ReleasedBy.CALLEE),
    ],
)
def test_refused_by_freeswitch_itself(cause, code, released_by):
    """Where no response was received, the one that FreeSWITCH sent follows from the cause."""
    call = failed(hangup_cause=cause, sip_hangup_disposition="send_refuse", proto_specific_hangup_cause=None)
    assert (call.sip_code, call.released_by, call.answer_ms) == (code, released_by, 0)


def test_code_of_a_failure_received():
    assert failed(proto_specific_hangup_cause="sip:503", sip_hangup_disposition="recv_refuse").sip_code == 503
    assert failed(proto_specific_hangup_cause="sip:200", sip_hangup_disposition=None).sip_code == 0
    call = failed(proto_specific_hangup_cause=None, sip_hangup_disposition="send_cancel", hangup_cause="LOSE_RACE")
    assert (call.sip_code, call.released_by) == (487, ReleasedBy.NETWORK)


def test_channel_that_is_not_sip():
    """A loopback or WebRTC channel has no Call-ID: its own identifier stands in."""
    call = call_of(changed(sip_call_id=None, sip_from_tag=None, sip_from_uri=None, sip_to_uri=None))
    assert (call.call_id, call.from_tag) == ("6b8e3c0a-52c5-4f6c-9a51-2a0f6a4b1c10", "")
    assert (call.caller, call.callee) == ("+442071838750", "+4930901820")


def test_call_begun_by_freeswitch_itself():
    """Neither A leg nor B leg: the profile says what the carrier calls it."""
    cdr = json.loads(B_LEG)
    del cdr["callflow"][0]["caller_profile"]["originator"], cdr["variables"]["originator"]
    assert call_of(json.dumps(cdr).encode()).leg is None


def test_leg_is_the_profiles_where_so_configured():
    adapter = make_freeswitch({"leg": "profile"})
    assert adapter.parse(A_LEG).leg is None
    assert make_freeswitch_xml({"leg": "profile"}).parse(B_LEG_XML).leg is None


@pytest.mark.parametrize(
    ("options", "where"),
    [({"legs": "x"}, "sources.freeswitch.legs"), ({"leg": "a"}, "sources.freeswitch.leg")],
)
def test_option_refused(options, where):
    with pytest.raises(ConfigError) as caught:
        Adapters({"freeswitch": options})
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("name", "value", "note"),
    [
        ("rtp_audio_in_mos", "-nan", "mos is no number in its bounds and is left out"),
        ("rtp_audio_in_mos", "5.01", "mos is no number in its bounds and is left out"),
        ("rtp_audio_in_quality_percentage", "101.00", "quality_percentage is no number in its bounds and is left out"),
    ],
)
def test_bad_judgement_costs_no_call(name, value, note):
    call = call_of(changed(**{name: value}))
    assert call.notes == (note,)
    assert [quality.r_milli for quality in call.qualities] == ([None] if "percentage" in name else [])


def test_octets_that_cannot_hold_the_headers():
    call = call_of(changed(rtp_audio_in_media_bytes="100"))
    assert (call.caller_packets, call.caller_octets) == (3512, None)
    assert call.notes == ("100 octets cannot hold the headers of 3512 packets (in): octets left out",)


@pytest.mark.parametrize(
    ("variables", "where"),
    [
        ({"sip_call_id": None, "uuid": ""}, "variables.sip_call_id"),
        ({"start_uepoch": "yesterday"}, "variables.start_uepoch"),
        ({"answer_uepoch": "1795264271903000"}, "variables.end_uepoch"),
        ({"end_uepoch": "1795264100000000"}, "variables.end_uepoch"),
        ({"sip_cseq": "4294967296"}, "variables.sip_cseq"),
        ({"rtp_audio_in_media_packet_count": "-5"}, "variables.rtp_audio_in_media_packet_count"),
        ({"sip_call_id": "x" * 4097}, "variables.sip_call_id"),
    ],
)
def test_field_refused(variables, where):
    """What must not be guessed is refused by name."""
    with pytest.raises(FieldError) as caught:
        call_of(changed(**variables))
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("cdr", "where"),
    [
        (b"[[]]", "cdr"),
        (b"{}", "variables"),
        (b'{"variables":{}}', "direction"),
        (b'{"variables":{},"channel_data":{"direction":"sideways"}}', "direction"),
        (
            b'{"variables":{},"channel_data":{"direction":"inbound"},"callflow":7,"callStats":[]}',
            "variables.start_uepoch",
        ),
    ],
)
def test_no_cdr(cdr, where):
    (document,), _ = JSON.split(cdr, "application/json")
    with pytest.raises(FieldError) as caught:
        JSON.check(document)
    assert caught.value.where == where


@pytest.mark.parametrize(
    "body",
    [b"", b"cdr=", b"hello", b"cdr=%7B", b"<cdr/>", b"cdr=eyJh", b'{"a":"b', base64.b64encode(b"hello"), b"[" * 90_000],
)
def test_body_refused(body):
    with pytest.raises(EncodingError):
        JSON.split(body, "application/json")


BILLION_LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE cdr [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><cdr>&b;</cdr>"""


@pytest.mark.parametrize(
    ("document", "what"),
    [
        (BILLION_LAUGHS, "has a document type"),
        (b'<!DOCTYPE cdr SYSTEM "file:///etc/passwd"><cdr/>', "has a document type"),
        (b"<cdr>&undeclared;</cdr>", "not XML"),
        (b"<cdr><variables>", "not XML"),
        (b"<cdr/><cdr/>", "not XML"),
        (b"", "not XML"),
        (b"<a>" * (DEPTH_MAX + 1), "beyond the bounds of a CDR"),
        (b"<cdr>" + b"<a/>" * ELEMENTS_MAX + b"</cdr>", "beyond the bounds of a CDR"),
        (b"<" + b"n" * 257 + b"/>", "beyond the bounds of a CDR"),
        (b"<cdr>" + b" " * 2**20 + b"</cdr>", "too long"),
        (b"<cdr/>", "missing"),
        (b'<?xml version="1.0" encoding="utf-16"?><cdr/>', "missing"),
    ],
)
def test_xml_refused(document, what):
    with pytest.raises(EncodingError) as caught:
        XML.parse(document)
    assert caught.value.what == what


def test_only_the_latest_call_flow_counts():
    """After a transfer there are several; the first is the one the channel ended with."""
    profile, times = b"<caller_profile><originator/></caller_profile>", b"<times><hangup_time>1</hangup_time></times>"
    document = A_LEG_XML.replace(b"</cdr>", b"<callflow>" + profile + times + b"</callflow></cdr>")
    assert dataclasses.replace(call_of_xml(document), raw="") == dataclasses.replace(call_of_xml(A_LEG_XML), raw="")


def test_document_too_long_to_keep():
    """The call is taken over all the same; of the raw record the short variables stay."""
    call = call_of(changed(sip_long="y" * 70_000))
    assert call.notes == ("the document is too long to keep: only its short variables are in the raw record",)
    kept = json.loads(call.raw)["variables"]
    assert kept["sip_call_id"] == "a84b4c76e66710@192.0.2.17"
    assert "sip_long" not in kept


def test_document_too_long_altogether():
    variables = {f"v{number}": "y" * 200 for number in range(400)}
    with pytest.raises(EncodingError, match="too long"):
        call_of(changed(**variables))


DOCUMENTS = [A_LEG.strip(), A_LEG_PLAIN.strip(), B_LEG.strip(), BUSY.strip(), CANCELLED.strip()]
BODIES = [*DOCUMENTS, *ENCODINGS.values(), A_LEG_XML, BUSY_XML, b"cdr=" + url_encoded(A_LEG_XML, twice=True)]
VARIABLES = st.sampled_from(sorted(json.loads(A_LEG)["variables"]))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_crash(body):
    """No bytes are a CDR by chance, whichever way they come in, and none raise anything but an EncodingError."""
    found = {outcome(JSON, body), outcome(XML, body), *outcomes(JSON, body), *outcomes(XML, body)}
    assert found <= {"EncodingError", "FieldError"}


@given(damaged(BODIES))
def test_damaged_bodies_never_crash(body):
    assert {*outcomes(JSON, body), *outcomes(XML, body)} <= ENDINGS


@given(damaged([*DOCUMENTS, A_LEG_XML, B_LEG_XML, BUSY_XML]))
def test_damaged_documents_never_crash(document):
    assert {outcome(JSON, document), outcome(XML, document)} <= ENDINGS


@given(st.dictionaries(VARIABLES, JSON_VALUES, max_size=5))
def test_changed_variables_never_crash(variables):
    assert outcome(JSON, changed(**variables)) in ENDINGS


@given(st.dictionaries(st.text(max_size=8), ALMOST, max_size=4))
def test_unknown_variables_change_nothing(variables):
    """A variable that the adapter does not know is kept in the raw record and otherwise ignored."""
    known = json.loads(A_LEG_PLAIN)["variables"]
    added = {name: value for name, value in variables.items() if name not in known and name != "originator"}
    assert dataclasses.replace(call_of(changed(**added)), raw="") == dataclasses.replace(call_of(changed()), raw="")
