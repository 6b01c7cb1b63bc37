"""The Kamailio adapter, on documents that Kamailio wrote and on ones that nobody should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import Observer, ReleasedBy
from ledger.errors import EncodingError, FieldError, LedgerError
from telephony.adapters.base import DOCUMENTS_PER_BODY_MAX, decimal_seconds_to_ms
from telephony.adapters.kamailio import KamailioAdapter, parse_cdr
from telephony.source import SourceQuality, SourceReading

FIXTURES = Path(__file__).parents[1] / "fixtures"
SAMPLES = [json.loads(line) for line in (FIXTURES / "kamailio-5.6.3-acc_json-cdr.jsonl").read_text().splitlines()]
RUN = json.loads((FIXTURES / "sip-lab-run.json").read_text())
KINDS = {call["call_id"]: call for call in RUN["calls"]}


def recorded(kind: str, index: int = 0) -> dict[str, str]:
    """Return the index-th recorded CDR of a kind of call."""
    return [cdr for cdr in RUN["cdrs"] if KINDS[cdr["call_id"]]["kind"] == kind][index]


def minimal(**changes: str) -> dict[str, str]:
    """Return the smallest CDR of an answered call, with changes."""
    required = {"call_id": "c", "from_tag": "f", "start_time": "10.5", "end_time": "12.75", "sip_code": "200"}
    return {**required, **changes}


def test_older_sample_with_rtcp():
    """Every figure of the first sample lands where it belongs."""
    call = parse_cdr(SAMPLES[0])
    assert (call.call_id, call.from_tag, call.to_tag) == ("lab-93d9a7d382a0@127.0.0.1", "fe6f1a6b3", "")
    assert (call.caller, call.callee) == ("sip:+442071838750@lab.test", "sip:+12025550123@lab.test")
    assert (call.setup_ms, call.answer_ms, call.end_ms) == (1795231127000, 1795231128494, 1795231134521)
    assert (call.sip_code, call.released_by, call.source_address) == (200, ReleasedBy.CALLER, "127.0.0.1")
    assert (call.caller_packets, call.callee_octets, call.codec, call.invite_cseq) == (None, None, "", 0)
    both, caller, callee = call.qualities
    assert both == SourceQuality(
        Observer.BOTH,
        4,
        SourceReading(4300, 274, 8000, 0, None),
        SourceReading(4300, None, None, None, 3000),
        SourceReading(4400, None, None, None, None),
    )
    assert (caller.observer, caller.average) == (Observer.CALLER, SourceReading(4400, None, None, 0, None))
    assert (callee.observer, callee.average) == (
        Observer.CALLEE,
        SourceReading(4300, None, 12000, 10000, None),
    )


def test_round_trip_is_in_microseconds():
    """The CDR's average is that of the two round trips in rtpengine's own answer, which are microseconds."""
    query = json.loads((FIXTURES / "rtpengine-10.5.3-query.json").read_text())
    trips = [ssrc["average MOS"]["round-trip time"] for ssrc in query["SSRC"].values()]
    assert parse_cdr(SAMPLES[0]).qualities[0].average.rtt_us == sum(trips) // len(trips)


MORE = (
    "loss_min=0;jitter_min=1;rtt_min=1051;rtt_leg_min=529;loss_max=0;jitter_max=1;rtt_max=1051;rtt_leg_max=529;"
    "rtt_leg_min_a=529;rtt_leg_max_a=529;rtt_leg_min_b=522;rtt_leg_max_b=522"
)
"""As kamailio.cfg wrote it with Kamailio 5.6.3."""
LEGS = ("", "_a", "_b")
MEASURED = {
    **{
        f"{name}_{which}{leg}": value
        for leg in LEGS
        for which in ("min", "max", "avg")
        for name, value in (("mos", "4.1"), ("loss", "1"), ("jitter", "7"), ("rtt", "900"), ("rtt_leg", "400"))
    },
    **{f"mos_{which}_at{leg}": "0:07" for leg in LEGS for which in ("min", "max")},
    **{f"mos_samples{leg}": "5" for leg in LEGS},
}
"""All 54 that rtpengine's module sets, by the names of kamailio.cfg."""
OTHER = {"mos": "3.9", "loss": "2", "jitter": "8", "rtt": "901"}


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_every_figure_of_rtpengine_is_read(name):
    """Another value of any of them makes another call; the round trip of one leg alone is in the raw record only."""
    assert len(MEASURED) == 54
    value = "0:08" if "_at" in name else "6" if "samples" in name else OTHER[name.partition("_")[0]]
    before, after = (parse_cdr(minimal(**{**MEASURED, name: each})) for each in (MEASURED[name], value))
    assert before.raw != after.raw
    assert (before.qualities != after.qualities) == (not name.startswith("rtt_leg"))


def test_inputs_of_the_extremes_of_the_whole_call():
    """They share a field; one that has a field of its own there is taken from that."""
    extremes = {"mos_avg": "4.4", "mos_min": "4.4", "mos_min_at": "0:02", "mos_max": "4.4", "mos_max_at": "0:03"}
    (quality,) = parse_cdr(minimal(**extremes, mos_more=MORE)).qualities
    assert quality.lowest == SourceReading(4400, 1051, 1000, 0, 2000)
    assert quality.highest == SourceReading(4400, 1051, 1000, 0, 3000)
    (other,) = parse_cdr(minimal(**extremes, mos_more=MORE, rtt_min="77")).qualities
    assert (other.lowest.rtt_us, other.highest.rtt_us) == (77, 1051)


@pytest.mark.parametrize("more", ["", "x", ";;", "=", "loss_min", "mos_min=9", "call_id=z", "loss_min=;rtt_min="])
def test_shared_field_says_nothing_else(more):
    """Only the figures that it is for are taken from it."""
    call = parse_cdr(minimal(mos_avg="4.4", mos_min="4.3", mos_more=more))
    assert (call.call_id, call.qualities[0].lowest) == ("c", SourceReading(4300, None, None, None, None))


def test_a_bad_figure_in_the_shared_field_is_named():
    with pytest.raises(FieldError) as caught:
        parse_cdr(minimal(mos_avg="4.4", mos_min="4.3", mos_more="loss_min=101"))
    assert caught.value.where == "loss_min"


def test_older_samples_without_quality():
    """No RTCP and no answer both mean no quality; the attempt's start is never after its end."""
    silent, busy = parse_cdr(SAMPLES[1]), parse_cdr(SAMPLES[2])
    assert (silent.qualities, silent.sip_code, silent.answer_ms) == ((), 200, 1795231137934)
    assert (busy.qualities, busy.sip_code, busy.answer_ms) == ((), 486, 0)
    assert (busy.setup_ms, busy.end_ms, busy.released_by) == (1795231142000, 1795231142365, ReleasedBy.CALLEE)


@pytest.mark.parametrize("index", [0, 1])
def test_recorded_call_with_rtcp(index):
    """Counters lose the RTP headers, the hang-up is told by tag, the setup time has milliseconds."""
    document, call = recorded("answered", index), parse_cdr(recorded("answered", index))
    facts = KINDS[call.call_id]
    assert (call.caller_packets, call.callee_packets) == (facts["caller_packets"], facts["callee_packets"])
    assert call.caller_octets == 160 * facts["caller_packets"]
    assert call.callee_octets == 160 * facts["callee_packets"]
    assert (call.codec, call.invite_cseq, call.q850_cause) == ("PCMA", 1, 16)
    assert (call.from_tag, call.to_tag) == (facts["from_tag"], facts["to_tag"])
    assert call.released_by.name.lower() == facts["ended_by"]
    assert call.setup_ms == int(document["setup_time"].replace(".", "")[:13])
    assert [quality.observer for quality in call.qualities] == [
        Observer.BOTH,
        Observer.CALLER,
        Observer.CALLEE,
    ]


def test_recorded_loss_is_the_callers():
    """In the call whose caller lost every twentieth packet, the caller's ear has the loss."""
    _, caller, callee = parse_cdr(recorded("answered", 1)).qualities
    assert caller.average.loss_ppm >= 30_000
    assert callee.average.loss_ppm == 0


@pytest.mark.parametrize(
    ("kind", "code", "released_by"),
    [("busy", 486, ReleasedBy.CALLEE), ("cancelled", 487, ReleasedBy.CALLER)],
)
def test_recorded_failures(kind, code, released_by):
    """A failed attempt has its code, no answer, and the moment of its final response as end."""
    document, call = recorded(kind), parse_cdr(recorded(kind))
    assert (call.sip_code, call.released_by, call.answer_ms) == (code, released_by, 0)
    assert call.end_ms == int(document["final_time"].replace(".", "")[:13])
    assert 0 < call.end_ms - call.setup_ms < 5000


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("0", 0),
        ("1795231128.494", 1795231128494),
        ("1795231128.4949", 1795231128494),
        ("7.5", 7500),
        ("7.05", 7050),
    ],
)
def test_decimal_seconds(text, time_ms):
    assert decimal_seconds_to_ms(text, "t") == time_ms


@given(st.integers(0, 4_102_444_799_999))
def test_decimal_seconds_are_exact(time_ms):
    """Every millisecond to the end of 2099 survives, which a float of seconds would not promise."""
    assert decimal_seconds_to_ms(f"{time_ms // 1000}.{time_ms % 1000:03}", "t") == time_ms


@pytest.mark.parametrize(
    "text", ["", "-1", "1e9", "1.", ".5", " 1", "1,5", "\u0661", "99999999999", "9999999999", "nan"]
)
def test_no_time(text):
    with pytest.raises(FieldError) as caught:
        decimal_seconds_to_ms(text, "start_time")
    assert caught.value.where == "start_time"


@pytest.mark.parametrize("name", ["call_id", "from_tag", "start_time", "end_time"])
@pytest.mark.parametrize("value", [None, ""])
def test_required_field_missing(name, value):
    """The error names the field and says whether it was empty or not there."""
    document = minimal()
    if value is None:
        del document[name]
    else:
        document[name] = value
    with pytest.raises(FieldError) as caught:
        parse_cdr(document)
    assert caught.value.where == name
    assert caught.value.actual == ("no such field" if value is None else "an empty string")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mos_avg", "0.9"),
        ("mos_avg", "5.1"),
        ("mos_avg", "good"),
        ("mos_avg", "44"),
        ("sip_code", "99"),
        ("sip_code", "700"),
        ("sip_code", "OK"),
        ("cseq", "4294967296"),
        ("packets_a", "1.5"),
        ("end_time", "10.499"),
        ("setup_time", "12.0"),
        ("final_time", "x"),
    ],
)
def test_field_out_of_bounds(name, value):
    """Each bad value is refused by name."""
    document = minimal(**{name: value})
    if name == "final_time":
        document["sip_code"] = "486"
    with pytest.raises(FieldError) as caught:
        parse_cdr(document)
    assert caught.value.where == name


@pytest.mark.parametrize(
    ("name", "value"), [("loss_avg", "101"), ("jitter_avg", "-2"), ("rtt_avg", "x"), ("mos_samples", "1.0")]
)
def test_reading_out_of_bounds(name, value):
    with pytest.raises(FieldError) as caught:
        parse_cdr(minimal(mos_avg="4.3", **{name: value}))
    assert caught.value.where == name


def test_octets_that_cannot_hold_the_headers():
    with pytest.raises(FieldError, match="at least 12 for each of 10 packets"):
        parse_cdr(minimal(packets_a="10", octets_a="119"))


def test_text_that_was_not_utf8_is_unknown():
    """acc_json's stand-in is no number and no URI; the raw document keeps it."""
    call = parse_cdr(minimal(**{"from": "NON-UTF8", "mos_avg": "NON-UTF8"}))
    assert (call.caller, call.qualities) == ("", ())
    assert "NON-UTF8" in call.raw


def test_unknown_fields_are_kept_in_raw_only():
    call = parse_cdr(minimal(site="Wien"))
    assert json.loads(call.raw) == minimal(site="Wien")
    assert parse_cdr(minimal()).call_id == call.call_id


def test_dialog_that_ran_out():
    """Answered, no BYE: nobody hung up, and no quality was read."""
    call = parse_cdr(json.loads((FIXTURES / "kamailio-5.6.3-expired-dialog.json").read_text()))
    assert (call.sip_code, call.end_ms - call.answer_ms, call.released_by) == (200, 2236, ReleasedBy.NETWORK)
    assert (call.qualities, call.caller_packets) == ((), None)


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ('Q.850;cause=16;text="Normal"', 16),
        ("SIP;cause=200, q.850 ;cause=31", 31),
        ("SIP;cause=600", 0),
        ("Q.850;cause=999", 0),
        ("Q.850;cause=1600", 0),
        ("", 0),
    ],
)
def test_q850_cause(reason, cause):
    assert parse_cdr(minimal(reason=reason)).q850_cause == cause


def split(body: bytes) -> tuple[list[bytes], bool]:
    """Return the documents in a post of Kamailio."""
    return KamailioAdapter().split(body, "application/json")


def test_body_of_one_and_of_many():
    each = [json.dumps(sample).encode() for sample in SAMPLES]
    assert split(each[0]) == (each[:1], False)
    assert split(b" [" + b" , ".join(each) + b"]") == (each, True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b"[" + b"1," * DOCUMENTS_PER_BODY_MAX + b"1]",
    ],
)
def test_body_refused(body):
    with pytest.raises(EncodingError):
        split(body)


@pytest.mark.parametrize("document", [None, [], "x", 7, {"a": 1}, {"a": None}, {"a": "\ud800"}, {"\ud800": "a"}])
def test_no_document(document):
    with pytest.raises(FieldError):
        parse_cdr(document)


def test_document_too_long():
    with pytest.raises(FieldError, match="too long"):
        parse_cdr(minimal(ruri="x" * 65_536))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from(sorted({*SAMPLES[0], *RUN["cdrs"][0]}))
ALMOST = st.text(alphabet="0123456789.:-e ", max_size=14) | st.text(max_size=5) | st.just("NON-UTF8")


def outcome(document: object) -> str:
    """Return how parsing ended; anything but a LedgerError gets out."""
    try:
        return type(parse_cdr(document)).__name__
    except LedgerError as error:
        return type(error).__name__


@given(JSON)
def test_arbitrary_json_is_refused_in_order(document):
    """No JSON value is a CDR by chance, and none raises anything but a FieldError."""
    assert outcome(document) == "FieldError"


@given(st.dictionaries(NAMES, ALMOST, max_size=6))
def test_damaged_cdr_never_crashes(changes):
    """A real CDR with a few fields spoilt is parsed or refused."""
    assert outcome({**recorded("answered"), **changes}) in {"SourceCall", "FieldError"}


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_crash(body):
    """Any body is a list of documents, or refused as an encoding."""
    try:
        found = len(split(body)[0])
    except EncodingError:
        found = 1
    assert 1 <= found <= DOCUMENTS_PER_BODY_MAX


def test_octets_no_record_can_hold_are_refused_here():
    """Later the record could not be encoded, and nobody would know which field of the CDR was to blame."""
    document = minimal(packets_a="10", octets_a=str(2**42))
    with pytest.raises(FieldError) as caught:
        parse_cdr(document)
    assert (caught.value.where, caught.value.expected) == ("octets_a", f"0 to {2**42 - 1}")


def outcome_of(step, document: bytes):
    """Return what a step of the adapter gives, or the error it raises, comparable."""
    try:
        return step(document)
    except LedgerError as error:
        return type(error), error.sentence()


DOCUMENTS = st.one_of(
    st.binary(max_size=60),
    JSON.map(json.dumps).map(str.encode),
    st.dictionaries(NAMES, ALMOST | st.none(), max_size=6).map(
        lambda changes: json.dumps({**recorded("answered"), **changes}).encode()
    ),
    st.dictionaries(st.text(), st.text(), max_size=3).map(
        lambda more: json.dumps({**minimal(), **more}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
)


@given(DOCUMENTS)
def test_the_quick_check_refuses_what_the_whole_reading_refuses_and_in_its_words(document):
    """What is refused at the door would never have become a record; what is let in may still be refused later."""
    adapter = KamailioAdapter()
    checked, parsed = outcome_of(adapter.check, document), outcome_of(adapter.parse, document)
    assert checked is None or checked == parsed


@given(DOCUMENTS)
def test_bytes_and_the_decoded_object_give_the_same_call(document):
    """The quick way from bytes and the thorough one over Python's own JSON agree, also in what they refuse."""
    parsed = outcome_of(KamailioAdapter().parse, document)
    try:
        decoded = json.loads(document)
    except ValueError:
        assert parsed[0] is EncodingError
        return
    thorough = outcome_of(parse_cdr, decoded)
    assert parsed == thorough or parsed[0] is EncodingError


@pytest.mark.parametrize("name", ["call_id", "from_tag", "start_time", "end_time"])
@pytest.mark.parametrize("value", ["", None, 7])
def test_the_check_at_the_door_names_the_field(name, value):
    document = {**minimal(), name: value}
    with pytest.raises(FieldError) as caught:
        KamailioAdapter().check(json.dumps(document).encode())
    assert caught.value.where == name


@pytest.mark.parametrize("text", ["\\ud800", "\\ud800x", "\\udc00", "\\ud800\\ud800"])
def test_half_a_surrogate_pair_is_no_text(text):
    document = json.dumps(minimal()).replace('"c"', f'"{text}"').encode()
    with pytest.raises((FieldError, EncodingError)):
        KamailioAdapter().parse(document)


def test_raw_is_the_document_sorted():
    """The same CDR in another order of its fields is the same record."""
    forth, back = recorded("answered"), dict(reversed(recorded("answered").items()))
    expected = json.dumps(forth, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert [KamailioAdapter().parse(json.dumps(one).encode()).raw for one in (forth, back)] == [expected, expected]
