"""The CUCM adapters, on files rebuilt from the examples in Cisco's guide, and on rows that nobody should send."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import Band, MosKind, Observer, QualityMethod, ReleasedBy, Service
from ledger.errors import ConfigError, EncodingError, FieldError, LedgerError
from telephony.adapters.causes import sip_of_cause
from telephony.adapters.cucm import CucmCdrAdapter, CucmCmrAdapter, make_cucm_cdr, make_cucm_cmr
from telephony.adapters.cucm_codes import address_of, q850_of, sip_of
from telephony.source import PartRole, SourceCall, SourcePart, SourceQuality, SourceReading, join_of, qualities_for

FIXTURES = Path(__file__).parents[1] / "fixtures" / "cucm"
CDR_FILE = (FIXTURES / "cdr_StandAloneCluster_01_202611211506_17").read_bytes()
CMR_FILE = (FIXTURES / "cmr_StandAloneCluster_01_202611211506_18").read_bytes()
CDR, CMR = CucmCdrAdapter(), CucmCmrAdapter()
CDR_ROWS = CDR.split(CDR_FILE, "text/csv")[0]
CMR_ROWS = CMR.split(CMR_FILE, "text/csv")[0]
CALLS = [CDR.parse(row) for row in CDR_ROWS]
PARTS = [CMR.parse(row) for row in CMR_ROWS]
BASE_MS = 1795248000_000


def cdr(**changes: str) -> bytes:
    """Return the row of the call between SIP phones, with changes."""
    return json.dumps({**json.loads(CDR_ROWS[1]), **changes}).encode()


def cmr(**changes: str) -> bytes:
    """Return the report of that call's caller, with changes."""
    return json.dumps({**json.loads(CMR_ROWS[2]), **changes}).encode()


def test_every_row_is_a_document_of_its_own():
    """The lines of names and types are none; an empty cell is left out."""
    assert (len(CDR_ROWS), len(CMR_ROWS)) == (11, 5)
    first = json.loads(CDR_ROWS[0])
    assert (first["globalCallID_callId"], first["callingPartyNumber"]) == ("96004", "1010")
    assert "comment" not in first


def test_normal_call():
    """The guide's call from 1010 to 1004: the callee hung up, the address is a signed number."""
    call = CALLS[0]
    assert (call.call_id, call.from_tag, call.to_tag) == (
        "StandAloneCluster/1/96004",
        "28141535-28141536-1202412048-1202412060",
        "28141536",
    )
    assert (call.caller, call.callee, call.source_address) == ("1010", "1004", "192.168.18.188")
    assert (call.setup_ms, call.answer_ms, call.end_ms) == (1202412048000, 1202412050000, 1202412060000)
    assert (call.sip_code, call.q850_cause, call.released_by) == (200, 16, ReleasedBy.CALLEE)
    assert (call.codec, call.time_step_ms, call.platform) == ("PCMU", 1000, "cucm-cdr")
    assert (call.qualities, call.notes, call.service) == ((), (), None)
    assert json.loads(call.raw) == json.loads(CDR_ROWS[0])


@pytest.mark.parametrize(
    ("index", "sip_code", "cause", "released_by"),
    [
        (1, 200, 16, ReleasedBy.CALLER),
        (2, 487, 16, ReleasedBy.CALLER),
        (3, 487, 16, ReleasedBy.CALLER),
        (4, 486, 17, ReleasedBy.CALLEE),
        (5, 200, 16, ReleasedBy.CALLEE),
        (6, 200, 0, ReleasedBy.NETWORK),
        (8, 200, 16, ReleasedBy.CALLER),
        (10, 503, 41, ReleasedBy.NETWORK),
    ],
)
def test_endings(index, sip_code, cause, released_by):
    call = CALLS[index]
    assert (call.sip_code, call.q850_cause, call.released_by) == (sip_code, cause, released_by)
    assert bool(call.answer_ms) == (sip_code == 200)


def test_forwarded_call_is_with_who_was_reached():
    assert (CALLS[5].caller, CALLS[5].callee) == ("2001", "2310")


def test_legs_of_a_transfer_stay_calls_of_their_own():
    """One global call id, one origin leg, two CDRs: the identities differ, the joining key is the same."""
    first, _, second = CALLS[6:9]
    assert join_of(first) == join_of(second) == ("call-id", "StandAloneCluster/1/96015")
    assert first.from_tag != second.from_tag
    assert len({(call.call_id, call.from_tag) for call in CALLS}) == len(CALLS)


def test_sip_trunk():
    """An IPv6 address, two codecs, and a reference to the SIP Call-ID that is cut off: it is not the Call-ID."""
    call = CALLS[9]
    assert (call.source_address, call.codec, call.caller) == ("2001:db8::17", "G729", "+442071838750")
    assert call.notes == ("the caller sent G729, the callee PCMU: the caller's is recorded",)
    assert call.call_id == "StandAloneCluster/1/48553"


def test_report_of_a_phone():
    """All figures of a CMR, by the leg that it names."""
    part = PARTS[2]
    assert (part.platform, part.role, part.call, part.levels) == ("cucm-cmr", PartRole.QUALITY, None, None)
    assert (part.join, part.of_leg) == (("call-id", "StandAloneCluster/1/96010"), "28141601")
    assert part.qualities == (
        SourceQuality(
            Observer.UNKNOWN,
            1,
            SourceReading(4350, 42_000, 12_000, 20_000, None),
            SourceReading(3200, None, None, None, None),
            SourceReading(4500, None, None, None, None),
            method=QualityMethod.MEASURED,
            band=Band.NARROWBAND,
            kind=MosKind.LQ,
            packets_expected=5000,
            packets_lost=100,
        ),
    )


def test_reports_find_their_call_and_their_ears():
    """Each CMR of the call is of one leg, whose end heard it; a report of a leg the call has not is not its own."""
    call = CALLS[1]
    assert [join_of(part) == join_of(call) for part in PARTS] == [False, False, True, True, False]
    heard = [qualities_for(call, part)[0].observer for part in PARTS[2:4]]
    assert heard == [Observer.CALLER, Observer.CALLEE]
    assert qualities_for(CALLS[6], PARTS[2]) == ()


def test_reports_without_a_mos():
    """0.0000 is no MOS, and so is an empty varVQMetrics, as from a gateway."""
    assert [part.qualities for part in (PARTS[0], PARTS[1], PARTS[4])] == [(), (), ()]


def test_loss_below_zero_and_nothing_received():
    """Duplicates make the loss negative; without packets there is no rate of loss."""
    assert CMR.parse(cmr(numberPacketsLost="-3")).qualities[0].average.loss_ppm == 0
    quality = CMR.parse(cmr(numberPacketsLost="0", numberPacketsReceived="0", latency="0")).qualities[0]
    assert (quality.average.loss_ppm, quality.average.rtt_us, quality.packets_expected) == (None, None, 0)


def test_extremes_that_contradict_the_mean_are_left_out():
    quality = CMR.parse(cmr(varVQMetrics="MLQKav=4.0;MLQKmn=4.1;MLQKmx=3.9")).qualities[0]
    assert (quality.average.mos_milli, quality.lowest, quality.highest) == (4000, None, None)


def test_last_score_stands_in_for_a_missing_average():
    assert CMR.parse(cmr(varVQMetrics="MLQK=3.25; junk")).qualities[0].average.mos_milli == 3250


def test_options():
    """A name for the cluster keeps two of the same default name apart; CUBE's latency is a round trip."""
    call = make_cucm_cdr({"cluster": "wien"}).parse(CDR_ROWS[1])
    part = make_cucm_cmr({"cluster": "wien", "latency": "round-trip"}).parse(CMR_ROWS[2])
    assert call.call_id == "wien/1/96010"
    assert join_of(part) == join_of(call)
    assert part.qualities[0].average.rtt_us == 21_000


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"cluster": 7}, "sources.cucm-cmr.cluster"),
        ({"latency": "x"}, "sources.cucm-cmr.latency"),
        ({"a": "b"}, "sources.cucm-cmr.a"),
    ],
)
def test_wrong_options(options, where):
    with pytest.raises(ConfigError) as caught:
        make_cucm_cmr(options)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"cdrRecordType": "2"}, "cdrRecordType"),
        ({"globalCallID_callId": ""}, "globalCallID_callId"),
        ({"globalCallID_callId": "x"}, "globalCallID_callId"),
        ({"origLegCallIdentifier": ""}, "origLegCallIdentifier"),
        ({"dateTimeOrigination": ""}, "dateTimeOrigination"),
        ({"dateTimeOrigination": str(BASE_MS // 1000 + 8)}, "dateTimeOrigination"),
        ({"dateTimeDisconnect": "0"}, "dateTimeDisconnect"),
        ({"dateTimeDisconnect": str(BASE_MS // 1000 + 5)}, "dateTimeDisconnect"),
        ({"duration": "98"}, "duration"),
        ({"dateTimeConnect": "0"}, "duration"),
        ({"origIpv4v6Addr": "10.0.0"}, "origIpv4v6Addr"),
        ({"origCause_value": "4294967296"}, "origCause_value"),
        ({"origMediaCap_payloadCapability": "1.5"}, "origMediaCap_payloadCapability"),
        ({"GLOBALCALLID_CALLID": "1"}, "GLOBALCALLID_CALLID"),
    ],
)
def test_cdr_refused_by_field(changes, where):
    with pytest.raises(FieldError) as caught:
        CDR.parse(cdr(**changes))
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"cdrRecordType": "1"}, "cdrRecordType"),
        ({"callIdentifier": "-1"}, "callIdentifier"),
        ({"varVQMetrics": "MLQKav=good"}, "varVQMetrics MLQKav"),
        ({"varVQMetrics": "MLQKav=5.1"}, "varVQMetrics MLQKav"),
        ({"jitter": "4294968"}, "jitter"),
        ({"numberPacketsReceived": "-1"}, "numberPacketsReceived"),
    ],
)
def test_cmr_refused_by_field(changes, where):
    with pytest.raises(FieldError) as caught:
        CMR.parse(cmr(**changes))
    assert caught.value.where == where


def test_zero_duration_and_clocks_a_second_apart():
    """Connected for less than a second is answered; two processes' clocks may differ by one."""
    at_s = BASE_MS // 1000
    call = CDR.parse(cdr(dateTimeOrigination=str(at_s + 7), dateTimeDisconnect=str(at_s + 6), duration="0"))
    assert (call.setup_ms, call.answer_ms, call.end_ms, call.sip_code) == (*[BASE_MS + 6000] * 3, 200)


def test_unknown_codec_is_noted():
    call = CDR.parse(cdr(origMediaCap_payloadCapability="258", destMediaCap_payloadCapability="0"))
    assert (call.codec, call.notes) == ("", ("payload capability 258 has no RTP name: codec recorded as unknown",))


def test_conference_and_video():
    assert CDR.parse(cdr(destConversationId="2222")).service is Service.CONFERENCE
    assert CDR.parse(cdr(origVideoCap_Codec="103", destVideoCap_Codec="103")).service is Service.VIDEO
    assert CDR.parse(cdr(origVideoCap_Codec="103")).service is None


def test_no_cause_at_all_is_an_abandoned_call():
    call = CDR.parse(cdr(dateTimeConnect="0", duration="0", origCause_value="0"))
    assert (call.sip_code, call.released_by) == (487, ReleasedBy.CALLER)


@pytest.mark.parametrize(
    ("value", "cause", "sip_code"),
    [(16, 16, 0), (129, 0, 0), (393216, 0, 0), (1174405137, 17, 486), (2717909013, 21, 603), (0x46000012, 0, 0)],
)
def test_causes(value, cause, sip_code):
    assert (q850_of(value), sip_of(value)) == (cause, sip_code)


def test_responses_for_causes():
    assert [sip_of_cause(cause) for cause in (1, 17, 19, 102, 63)] == [404, 486, 480, 504, 500]


@pytest.mark.parametrize(
    ("number", "address"),
    [(-1139627840, "192.168.18.188"), (3155339456, "192.168.18.188"), (0, ""), (16777226, "10.0.0.1")],
)
def test_addresses(number, address):
    assert address_of(number) == address


def test_row_of_the_wrong_length_is_refused_alone():
    """A torn row becomes a document that says what is wrong with it; its neighbours are not touched."""
    lines = CDR_FILE.splitlines(keepends=True)
    rows = CDR.split(b"".join([*lines[:3], lines[3][:80] + b"\n", lines[4]]), "text/csv")[0]
    assert len(rows) == 3
    with pytest.raises(FieldError, match="columns for 129 names"):
        CDR.parse(rows[1])
    assert [CDR.parse(rows[0]), CDR.parse(rows[2])] == [CALLS[0], CALLS[2]]


def test_line_ends_order_marks_and_odd_bytes():
    """Windows' line ends and byte order mark change nothing; a byte that is not UTF-8 is read as Latin-1."""
    body = b"\xef\xbb\xbf" + CDR_FILE.replace(b"\n", b"\r\n").replace(b'"1010"', b'"M\xfcller"', 1)
    rows = CDR.split(body, "text/csv")[0]
    assert CDR.parse(rows[0]).caller == "Müller"
    assert rows[1:] == CDR_ROWS[1:]


def test_line_break_in_quotes():
    body = CDR_FILE.replace(b'"1010","",', b'"1010","a\nb, ""c""",', 1)
    assert json.loads(CDR.split(body, "text/csv")[0][0])["callingPartyUnicodeLoginUserID"] == 'a\nb, "c"'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n",
        b"a,b\n1,2\n",
        CMR_FILE,
        CDR_FILE.splitlines()[0],
        b"\n".join(CDR_FILE.splitlines()[:2]),
        CDR_FILE + b'"x',
    ],
)
def test_file_that_is_no_cdr_file(body):
    with pytest.raises(EncodingError):
        CDR.split(body, "text/csv")


def test_check_is_shallow():
    """It asks for the identity only; the rest is for parse to refuse."""
    CDR.check(cdr(duration="x"))
    with pytest.raises(FieldError):
        CDR.check(cdr(globalCallID_callId="0"))
    CMR.check(cmr(jitter="x"))
    with pytest.raises(FieldError):
        CMR.check(cmr(callIdentifier=""))


VALUES = st.text(alphabet="0123456789.:-=;e ", max_size=14) | st.text(max_size=5) | st.just("MLQKav=4.1")


@given(st.dictionaries(st.sampled_from(sorted(json.loads(CDR_ROWS[1]))), VALUES, max_size=6))
def test_damaged_cdr_never_crashes(changes):
    assert outcome(CDR.parse, cdr(**changes)) in {SourceCall, FieldError}


@given(st.dictionaries(st.sampled_from(sorted(json.loads(CMR_ROWS[2]))), VALUES, max_size=6))
def test_damaged_cmr_never_crashes(changes):
    assert outcome(CMR.parse, cmr(**changes)) in {SourcePart, FieldError}


@given(st.binary(max_size=200), st.integers(0, len(CDR_FILE)), st.sampled_from([(CDR, CDR_FILE), (CMR, CMR_FILE)]))
def test_files_with_bytes_struck_never_crash(noise, place, of):
    """Whatever is written into a file, each row is parsed or refused, or the file is."""
    adapter, body = of
    try:
        rows = adapter.split(body[:place] + noise + body[place + len(noise) :], "text/csv")[0]
    except EncodingError:
        rows = [noise]
    for row in rows:
        assert outcome(adapter.parse, row) in {SourceCall, SourcePart, FieldError, EncodingError}


def outcome(parse, document: bytes) -> type:
    """Return the type of what parsing gave or raised; anything but a LedgerError gets out."""
    try:
        return type(parse(document))
    except LedgerError as error:
        return type(error)
