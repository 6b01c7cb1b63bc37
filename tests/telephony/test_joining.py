"""Calls put together from parts: any order, late, twice, and parts that do not belong together."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import Levels, Observer, QualityMethod, ReleasedBy
from ledger.commitment import PRIVATE_TEXT_MAX
from ledger.errors import FieldError
from telephony.joining import RAW_LEFT_OUT, add_quality, best_levels, best_qualities, merge_call
from telephony.source import PartRole, SourceCall, SourcePart, SourceQuality, SourceReading

JOIN = ("call-id", "c")
NOTHING = SourceCall(
    call_id="c",
    from_tag="f",
    to_tag="t",
    invite_cseq=0,
    caller="",
    callee="",
    source_address="",
    setup_ms=0,
    answer_ms=0,
    end_ms=0,
    sip_code=0,
    q850_cause=0,
    released_by=ReleasedBy.UNKNOWN,
    codec="",
    caller_packets=None,
    caller_octets=None,
    callee_packets=None,
    callee_octets=None,
    qualities=(),
    raw="{}",
)
INVITE = replace(
    NOTHING,
    caller="sip:a@x",
    callee="sip:b@x",
    invite_cseq=1,
    setup_ms=1000,
    answer_ms=2000,
    sip_code=200,
    time_step_ms=1000,
)
BYE = replace(NOTHING, end_ms=9000, q850_cause=16, released_by=ReleasedBy.CALLER)
CALL = replace(INVITE, end_ms=9000, released_by=ReleasedBy.CALLEE)
EMPTY_LEVELS = Levels(*[None] * 10)


def part(role: PartRole, call: SourceCall | None, raw: str = "{}", **changes: object) -> SourcePart:
    """Return a part of the call ``c``."""
    return replace(SourcePart("p", JOIN, role, call, (), None, raw), **changes)


def reading(mos_milli: int = 4000, rtt_us: int | None = 1000, jitter_us: int | None = 0) -> SourceReading:
    return SourceReading(mos_milli, rtt_us, jitter_us, 0, None)


def quality(observer: Observer = Observer.CALLER, samples: int | None = 3, **changes: object) -> SourceQuality:
    return replace(SourceQuality(observer, samples, reading(), None, None), **changes)


def begin(**changes: object) -> SourcePart:
    return part(PartRole.BEGIN, replace(INVITE, **changes), '{"method":"INVITE"}')


def end(**changes: object) -> SourcePart:
    return part(PartRole.END, replace(BYE, **changes), '{"method":"BYE"}')


def report(*qualities: SourceQuality, raw: str = "{}", **changes: object) -> SourcePart:
    return part(PartRole.QUALITY, None, raw, qualities=qualities, **changes)


def test_beginning_and_end_make_a_call():
    """What either knows is in the call, and both documents are in its raw record."""
    call = merge_call(begin(), end())
    assert call == replace(
        INVITE,
        end_ms=9000,
        q850_cause=16,
        released_by=ReleasedBy.CALLER,
        raw='{"call":[{"method":"INVITE"},{"method":"BYE"}]}',
    )
    assert merge_call(end(), begin()) == call


def test_bye_from_the_callee_is_turned():
    """Its sender's tag is the callee's, so the callee released the call, and its figures change sides."""
    bye = end(from_tag="t", to_tag="f", caller="sip:b@x", callee="sip:a@x", caller_packets=7)
    bye = replace(bye, qualities=(quality(Observer.CALLER),))
    call = merge_call(begin(), bye)
    assert (call.released_by, call.caller, call.callee_packets) == (ReleasedBy.CALLEE, "sip:a@x", 7)
    assert [each.observer for each in call.qualities] == [Observer.CALLEE]
    assert (call.from_tag, call.to_tag) == ("f", "t")


def test_tag_that_only_the_end_knows():
    assert merge_call(begin(to_tag=""), end()).to_tag == "t"


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        (begin(), begin(), "role"),
        (begin(), report(), "role"),
        (end(), end(), "role"),
        (begin(), replace(end(), join=("call-id", "d")), "join"),
        (begin(), replace(end(), call=None), "call"),
        (begin(), end(from_tag="x"), "from_tag, to_tag"),
        (begin(), end(sip_code=486), "sip_code"),
        (begin(), end(end_ms=1999), "end_ms"),
        (begin(answer_ms=0), end(end_ms=999), "end_ms"),
        (begin(answer_ms=999), end(), "answer_ms"),
    ],
)
def test_parts_that_contradict_each_other(first, second, where):
    with pytest.raises(FieldError) as caught:
        merge_call(first, second)
    assert caught.value.where == where


def test_contradiction_shows_no_private_value():
    with pytest.raises(FieldError) as caught:
        merge_call(begin(), end(caller="sip:+442071838750@x", callee="sip:b@x"))
    assert "442071838750" not in str(caught.value)


def test_documents_too_long_for_one_raw_record():
    """The end's document is left out, and a note says so; its figures are not."""
    long_end = replace(end(), raw=json.dumps({"x": "x" * PRIVATE_TEXT_MAX}))
    call = merge_call(begin(), long_end)
    assert (call.raw, call.notes, call.end_ms) == ('{"method":"INVITE"}', (RAW_LEFT_OUT,), 9000)


def test_report_is_added():
    call = add_quality(CALL, [report(quality(), raw="VQSessionReport", levels=EMPTY_LEVELS)])
    assert call == replace(
        CALL, qualities=(quality(),), levels=EMPTY_LEVELS, raw='{"call":[{}],"reports":["VQSessionReport"]}'
    )


def test_no_report_changes_nothing():
    assert add_quality(CALL, []) is CALL


def test_report_of_the_other_side_is_turned():
    """A report whose caller is the call's callee: observers and counters change sides."""
    side = replace(NOTHING, from_tag="t", to_tag="f", codec="PCMA", caller_packets=5, caller_octets=800)
    call = add_quality(CALL, [replace(report(quality(Observer.CALLER)), call=side)])
    assert [each.observer for each in call.qualities] == [Observer.CALLEE]
    assert (call.codec, call.caller_packets, call.callee_packets, call.callee_octets) == ("PCMA", None, 5, 800)


def test_one_tag_is_enough_to_turn_a_report():
    """The other side's tag is unknown in both, but the one that is known is the caller's."""
    side = replace(NOTHING, from_tag="", to_tag="f", caller_packets=5)
    call = add_quality(replace(CALL, to_tag=""), [replace(report(), call=side)])
    assert (call.caller_packets, call.callee_packets) == (None, 5)


def test_counters_only_grow():
    """Of two answers of a relay the one with more packets is the later one; a call's own are not taken back."""
    early = replace(report(raw="1"), call=replace(NOTHING, codec="PCMU", caller_packets=1, callee_packets=1))
    late = replace(report(raw="2"), call=replace(NOTHING, codec="PCMA", caller_packets=9, callee_packets=9))
    own = replace(CALL, codec="G722", caller_packets=10, callee_packets=10)
    assert add_quality(CALL, [late, early]).codec == "PCMA"
    assert add_quality(own, [late, early]).codec == "G722"


@pytest.mark.parametrize(
    ("bad", "where"),
    [
        (begin(), "role"),
        (replace(report(), join=("call-id", "d")), "join"),
        (replace(report(), call=replace(NOTHING, from_tag="x", to_tag="y")), "from_tag, to_tag"),
    ],
)
def test_report_of_another_call(bad, where):
    with pytest.raises(FieldError) as caught:
        add_quality(CALL, [bad])
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (quality(samples=1), quality(samples=9, average=reading(rtt_us=None))),
        (quality(samples=1), quality(samples=None, packets_expected=9)),
        (quality(samples=1, packets_expected=9), quality(samples=9)),
        (quality(samples=1, method=QualityMethod.RFC3611), quality(samples=9, method=QualityMethod.RTPENGINE_10)),
        (quality(samples=9, method=QualityMethod.RTPENGINE_10), quality(samples=1, method=QualityMethod.RTPENGINE_13)),
        (quality(samples=1, method=QualityMethod.G107), quality(samples=9, method=QualityMethod.RFC3611)),
        (quality(samples=1, average=reading(rtt_us=None)), quality(samples=None)),
        (quality(samples=4), quality(samples=3, lowest=reading())),
        (quality(lowest=reading(mos_milli=1000)), quality(average=reading(mos_milli=5000))),
    ],
)
def test_which_figures_are_better_founded(better, worse):
    assert best_qualities([better, worse]) == (better,)
    assert best_qualities([worse, better]) == (better,)


def test_each_observer_has_its_own():
    both, caller = quality(Observer.BOTH, 9), quality(Observer.CALLER, 1)
    assert best_qualities([both, caller]) == (caller, both)


def test_fullest_levels():
    some, more = Levels(-20, *[None] * 9), Levels(None, -60, 50, *[None] * 7)
    assert best_levels([None, more, some]) == more
    assert best_levels([None]) is None


def test_reports_that_do_not_fit_are_left_out_of_raw_only():
    """The shortest stay; the figures of all count."""
    small, big = json.dumps("s" * 100), json.dumps("b" * PRIVATE_TEXT_MAX)
    call = add_quality(CALL, [report(quality(Observer.CALLEE), raw=big), report(quality(), raw=small)])
    assert json.loads(call.raw) == {"call": [{}], "reports": ["s" * 100]}
    assert (len(call.qualities), call.notes) == (2, (RAW_LEFT_OUT,))


def test_report_of_a_leg_says_whose_ears():
    """A platform that names legs does not say who called; the call does. A leg it has not is of another call."""
    call = replace(CALL, legs=("7", "8"))
    heard = quality(Observer.UNKNOWN)
    assert [add_quality(call, [replace(report(heard), of_leg=leg)]).qualities[0].observer for leg in ("7", "8")] == [
        Observer.CALLER,
        Observer.CALLEE,
    ]
    with pytest.raises(FieldError) as caught:
        add_quality(call, [replace(report(heard), of_leg="9")])
    assert caught.value.where == "of_leg"


def test_call_without_room_for_any_report():
    full = replace(CALL, raw=json.dumps("x" * (PRIVATE_TEXT_MAX - 2)))
    call = add_quality(full, [report(quality())])
    assert (call.raw, call.qualities, call.notes) == (full.raw, (quality(),), (RAW_LEFT_OUT,))


figure = st.none() | st.integers(0, 3)
readings = st.builds(SourceReading, st.integers(1000, 1003), figure, figure, figure, figure)
qualities = st.builds(
    SourceQuality,
    st.sampled_from(Observer),
    figure,
    readings,
    st.none() | readings,
    st.none() | readings,
    st.sampled_from(QualityMethod),
    packets_expected=st.integers(0, 2),
)
all_levels = st.none() | st.builds(Levels, *[figure] * 10)
lengths = st.integers(0, 12) | st.integers(PRIVATE_TEXT_MAX // 3, PRIVATE_TEXT_MAX // 2)
raws = (
    st.builds(lambda length: json.dumps("x" * length), lengths)
    | st.just("VQSessionReport:\r\n")
    | st.sampled_from(["{}", "[1, 2]", '{"call":[]}', "[[", '{"a": 1}'])
)
sides = st.none() | st.builds(
    lambda turned, codec, counts: replace(
        NOTHING,
        from_tag="t" if turned else "f",
        to_tag="f" if turned else "t",
        codec=codec,
        caller_packets=counts[0],
        caller_octets=counts[1],
        callee_packets=counts[2],
        callee_octets=counts[3],
    ),
    st.booleans(),
    st.sampled_from(["", "PCMA", "PCMU"]),
    st.tuples(figure, figure, figure, figure),
)
reports = st.builds(
    SourcePart,
    st.just("p"),
    st.just(JOIN),
    st.just(PartRole.QUALITY),
    sides,
    st.lists(qualities, max_size=3).map(tuple),
    all_levels,
    raws,
)


@given(st.lists(reports, max_size=5), st.randoms(use_true_random=False), st.integers(0, 5))
def test_order_and_rounds_do_not_matter(parts, random, cut):
    """All at once, shuffled, in two rounds, some of them twice: the same call."""
    expected = add_quality(CALL, parts)
    shuffled = random.sample(parts, len(parts))
    assert add_quality(add_quality(CALL, shuffled[:cut]), shuffled[cut:]) == expected
    assert add_quality(expected, parts) == expected
    assert add_quality(expected, shuffled[:cut]) == expected


@given(st.lists(reports, max_size=5))
def test_raw_record_stays_json_within_its_bound(parts):
    call = add_quality(CALL, parts)
    assert len(call.raw.encode()) <= PRIVATE_TEXT_MAX
    assert isinstance(json.loads(call.raw), dict)


known = st.fixed_dictionaries(
    {},
    optional={
        "caller": st.sampled_from(["", "sip:a@x"]),
        "invite_cseq": st.integers(0, 2),
        "codec": st.sampled_from(["", "PCMA"]),
        "sip_code": st.sampled_from([0, 200]),
        "answer_ms": st.sampled_from([0, 2000, 3000]),
        "to_tag": st.sampled_from(["", "t", "u"]),
        "qualities": st.lists(qualities, max_size=2).map(tuple),
        "levels": all_levels,
    },
)


def outcome(first: SourcePart, second: SourcePart) -> SourceCall | str:
    """Return the merged call, or the field that the parts contradict each other in."""
    try:
        return merge_call(first, second)
    except FieldError as error:
        return error.where


@given(known, known)
def test_order_of_beginning_and_end_does_not_matter(first, last):
    """The same call or the same error; and reports lead to the same call, before the merge or after it."""
    merged = outcome(begin(**first), end(**last))
    assert outcome(end(**last), begin(**first)) == merged


@given(known, st.lists(qualities, max_size=3), all_levels)
def test_figures_in_a_part_count_as_those_of_a_report(first, some, levels):
    """Figures that came with the end are chosen as if they had come in a report of their own."""
    last = end(to_tag=first.get("to_tag", "t"))
    carried = merge_call(begin(**first), replace(last, qualities=tuple(some), levels=levels))
    added = add_quality(merge_call(begin(**first), last), [report(*some, levels=levels)])
    assert (carried.qualities, carried.levels) == (added.qualities, added.levels)
