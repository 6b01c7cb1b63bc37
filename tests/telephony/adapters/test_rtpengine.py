"""rtpengine's answers: recorded ones, joined to the calls of the same run, and damaged ones."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import Observer, QualityMethod
from ledger.errors import ConfigError, EncodingError, FieldError
from telephony.adapters.kamailio import parse_cdr
from telephony.adapters.rtpengine import RtpengineAdapter, make_rtpengine
from telephony.joining import add_quality
from telephony.source import SourcePart, SourceReading

FIXTURES = Path(__file__).parents[1] / "fixtures"
SAMPLE = json.loads((FIXTURES / "rtpengine-10.5.3-query.json").read_text())
NO_RTCP = json.loads((FIXTURES / "rtpengine-10.5.3-query-no-rtcp.json").read_text())
NEWER = json.loads((FIXTURES / "rtpengine-13-query.json").read_text())
RUN = json.loads((FIXTURES / "sip-lab-run.json").read_text())
ANSWERS = [(call["call_id"], call["rtpengine"]) for call in RUN["calls"] if call["rtpengine"]]
CDRS = {cdr["call_id"]: cdr for cdr in RUN["cdrs"]}
SSRC_A, SSRC_B = "1668827129", "962916728"


def document(answer: dict[str, Any], call_id: str = "c") -> bytes:
    """Return an answer as it is posted: with the Call-ID in it."""
    return json.dumps({**answer, "call-id": call_id}).encode()


def parsed(answer: dict[str, Any], adapter: RtpengineAdapter = RtpengineAdapter()) -> SourcePart:  # noqa: B008
    return adapter.parse(document(answer))


def changed(path: str, value: object) -> dict[str, Any]:
    """Return the sample with one member set, by its path; ``...`` takes it away."""
    answer = copy.deepcopy(SAMPLE)
    inner: Any = answer
    *way, last = [int(step) if step.isdigit() and len(step) < 3 else step for step in path.split("/")]
    for step in way:
        inner = inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return answer


def test_sample_of_a_call_with_rtcp():
    """Every figure of the answer lands where it belongs, in the units of the record."""
    part = parsed(SAMPLE)
    caller, callee, both = part.qualities
    assert (caller.observer, caller.samples, caller.method) == (Observer.CALLER, 4, QualityMethod.RTPENGINE_10)
    assert caller.average == SourceReading(4400, 252, 4000, 0, None)
    assert caller.lowest == caller.highest == SourceReading(4400, 326, 4000, 0, 3000)
    assert (callee.observer, callee.average) == (Observer.CALLEE, SourceReading(4300, 297, 12_000, 10_000, None))
    assert callee.lowest == SourceReading(4300, 412, 12_000, 10_000, 3000)
    assert (both.observer, both.samples, both.average) == (Observer.BOTH, 4, SourceReading(4300, 274, 8000, 0, None))
    assert (both.lowest, both.highest) == (callee.lowest, caller.highest)
    assert part.call is not None
    assert (part.join, part.call.from_tag, part.call.to_tag) == (("call-id", "c"), "fe6f1a6b3", "uastag")
    assert (part.call.codec, part.call.caller_packets, part.call.callee_packets) == ("PCMA", 299, 299)
    assert part.call.caller_octets == part.call.callee_octets == 51_428 - 12 * 299
    assert json.loads(part.raw) == {**SAMPLE, "call-id": "c"}


def test_sample_without_rtcp():
    """No reports, no quality; the counters are there all the same."""
    part = parsed(NO_RTCP)
    assert part.call is not None
    assert (part.qualities, part.call.caller_packets) == ((), 199)


def test_newer_generation():
    """The same call as mr13.5 tells it: by its own formula, also where only the media lists have the figures."""
    adapter = make_rtpengine({"generation": 13})
    part = parsed(NEWER, adapter)
    caller, callee, both = part.qualities
    assert {quality.method for quality in part.qualities} == {QualityMethod.RTPENGINE_13}
    assert (caller.average.mos_milli, callee.average.mos_milli, both.average.mos_milli) == (4300, 4100, 4200)
    assert (caller.samples, caller.average.rtt_us, callee.average.jitter_us) == (4, 252, 12_000)
    only_media = {name: value for name, value in NEWER.items() if name != "SSRC"}
    assert parsed(only_media, adapter).qualities == part.qualities


@pytest.mark.parametrize(
    ("call_id", "answer"), ANSWERS, ids=[call["kind"] for call in RUN["calls"] if call["rtpengine"]]
)
def test_recorded_answers_say_what_kamailio_said(call_id, answer):
    """rtpengine's figures by either way are the same, which is how we know whose ears a label means."""
    cdr = parse_cdr(CDRS[call_id])
    joined = add_quality(cdr, [RtpengineAdapter().parse(document(answer, call_id))])
    assert (joined.caller_packets, joined.caller_octets) == (cdr.caller_packets, cdr.caller_octets)
    assert (joined.callee_packets, joined.callee_octets) == (cdr.callee_packets, cdr.callee_octets)
    assert joined.codec == cdr.codec
    assert {quality.observer: (quality.samples, quality.average) for quality in joined.qualities} == {
        quality.observer: (quality.samples, quality.average) for quality in cdr.qualities
    }
    assert [quality.lowest for quality in joined.qualities if quality.observer is not Observer.BOTH] == [
        quality.lowest for quality in cdr.qualities if quality.observer is not Observer.BOTH
    ]


@pytest.mark.parametrize("first_is_caller", [True, False])
def test_sides_without_labels_are_told_apart_by_tags(first_is_caller):
    call_id, answer = ANSWERS[1]
    cdr = parse_cdr(CDRS[call_id])
    bare = copy.deepcopy(answer)
    for tag in bare["tags"].values():
        del tag["label"]
    names = sorted(bare["tags"], key=lambda name: (name != cdr.from_tag) == first_is_caller)
    bare["tags"] = {name: bare["tags"][name] for name in names}
    expected = add_quality(cdr, [RtpengineAdapter().parse(document(answer, call_id))])
    actual = add_quality(cdr, [RtpengineAdapter().parse(document(bare, call_id))])
    assert (actual.qualities, actual.caller_packets) == (expected.qualities, expected.caller_packets)


def test_figures_of_an_unknown_side():
    """Three sides without labels: what was heard is kept, by nobody in particular."""
    answer = copy.deepcopy(SAMPLE)
    for tag in answer["tags"].values():
        del tag["label"]
    answer["tags"]["third"] = {"tag": "third", "medias": []}
    part = parsed(answer)
    assert part.call is None
    assert [(quality.observer, quality.samples) for quality in part.qualities] == [(Observer.UNKNOWN, 8)]


def test_forked_call():
    """Of two sides with one label the one that talked is the call's."""
    answer = copy.deepcopy(SAMPLE)
    answer["tags"]["other"] = {"tag": "other", "label": "B", "medias": []}
    call = parsed(answer).call
    assert call is not None
    assert call.to_tag == "uastag"


def test_several_ssrcs_of_one_side():
    """A side that changed its SSRC: means weighed by reports, worst and best of both."""
    answer = copy.deepcopy(NEWER)
    entry = answer["tags"]["fe6f1a6b3"]["medias"][0]["ingress SSRCs"]
    second = copy.deepcopy(entry[0])
    second["SSRC"] = 7
    second["average MOS"].update({"MOS": 23, "samples": 12, "round-trip time": 652})
    second["lowest MOS"]["MOS"] = 10
    entry.append(second)
    caller = parsed(answer).qualities[0]
    assert caller.lowest is not None
    assert caller.highest is not None
    assert (caller.samples, caller.average.mos_milli, caller.average.rtt_us) == (16, 2800, 552)
    assert (caller.lowest.mos_milli, caller.highest.mos_milli) == (1000, 4300)


def test_side_without_mos_yet():
    """MOS 0 is none: the first report came before the round trip was known."""
    assert [q.observer for q in parsed(changed(f"SSRC/{SSRC_A}/average MOS/MOS", 0)).qualities] == [Observer.CALLEE]
    assert parsed(changed(f"SSRC/{SSRC_A}/lowest MOS/MOS", 0)).qualities[0].lowest is None


def test_video_and_rtcp_do_not_count():
    answer = copy.deepcopy(SAMPLE)
    medias = answer["tags"]["fe6f1a6b3"]["medias"]
    medias.append({**copy.deepcopy(medias[0]), "type": "video", "codec": "VP8/90000"})
    call, expected = parsed(answer).call, parsed(SAMPLE).call
    assert call is not None
    assert expected is not None
    assert (call.caller_packets, call.codec) == (expected.caller_packets, expected.codec)


def test_untagged_side_has_no_tag():
    answer = copy.deepcopy(SAMPLE)
    answer["tags"] = {"<untagged 3>": {**answer["tags"]["uastag"], "tag": ""}, "f": answer["tags"]["fe6f1a6b3"]}
    call = parsed(answer).call
    assert call is not None
    assert (call.from_tag, call.to_tag) == ("fe6f1a6b3", "")


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("tags", ..., "tags"),
        ("tags", [], "tags"),
        ("tags", {str(number): {} for number in range(65)}, "tags"),
        ("tags/fe6f1a6b3", None, "tags[0]"),
        ("tags/fe6f1a6b3/label", 1, "tags[0].label"),
        ("tags/fe6f1a6b3/medias", {}, "tags[0].medias"),
        ("tags/fe6f1a6b3/medias/0/streams/0/stats/bytes", 11, "tags[0].medias[0].streams[0].stats.bytes"),
        ("tags/fe6f1a6b3/medias/0/streams/0/stats/packets", -1, "tags[0].medias[0].streams[0].stats.packets"),
        ("SSRC", 7, "SSRC"),
        (f"SSRC/{SSRC_A}/average MOS/MOS", 51, "average MOS.MOS"),
        (f"SSRC/{SSRC_A}/average MOS/MOS", 4.4, "average MOS.MOS"),
        (f"SSRC/{SSRC_A}/average MOS/MOS", 9, "average MOS.MOS"),
        (f"SSRC/{SSRC_A}/average MOS/samples", ..., "average MOS.samples"),
        (f"SSRC/{SSRC_A}/average MOS/samples", 0, "average MOS.samples"),
        (f"SSRC/{SSRC_A}/average MOS/packet loss", 101, "average MOS.packet loss"),
        (f"SSRC/{SSRC_A}/lowest MOS/jitter", "x", "lowest MOS.jitter"),
        ("created", "now", "created"),
    ],
)
def test_answer_refused(path, value, where):
    """The error names the member at fault."""
    with pytest.raises(FieldError) as caught:
        parsed(changed(path, value))
    assert caught.value.where.endswith(where)


def test_answer_without_its_call():
    with pytest.raises(FieldError) as caught:
        RtpengineAdapter().parse(json.dumps(SAMPLE).encode())
    assert caught.value.where == "call-id"


def test_error_is_no_report():
    with pytest.raises(FieldError, match="Unknown call-id"):
        parsed({"result": "error", "error-reason": "Unknown call-id"})


@pytest.mark.parametrize(
    ("options", "where"), [({"generation": 12}, "generation"), ({"generation": True}, "generation"), ({"x": 1}, "x")]
)
def test_options(options, where):
    with pytest.raises(ConfigError) as caught:
        make_rtpengine(options)
    assert caught.value.where == f"sources.rtpengine.{where}"


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just([]) | st.just({})


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """Return a real answer with some members, anywhere in it, replaced."""
    answer = copy.deepcopy(draw(st.sampled_from([SAMPLE, NO_RTCP, NEWER])))
    for _ in range(draw(st.integers(1, 3))):
        inner: Any = answer
        while True:
            keys = sorted(inner) if isinstance(inner, dict) else list(range(len(inner)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(inner[key], dict | list) and draw(st.integers(0, 4)):
                inner = inner[key]
                continue
            inner[key] = draw(VALUES)
            break
    return answer


@given(damaged(), st.sampled_from([10, 13]))
def test_damaged_answer_never_crashes(answer, generation):
    """A real answer with a few members spoilt is read or refused; what is read is within bounds."""
    try:
        part = parsed(answer, make_rtpengine({"generation": generation}))
    except EncodingError:
        return
    assert all(1000 <= quality.average.mos_milli <= 5000 for quality in part.qualities)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused(body):
    with pytest.raises(EncodingError):
        RtpengineAdapter().parse(body)
