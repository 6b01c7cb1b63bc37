"""Quality and levels of any method: taken over where they hold under the chain's rules, computed where they can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import Band, CallRecord, Leg, Levels, MosKind, Observer, Quality, QualityMethod, Reading, Service
from ledger.codec import decode, encode
from ledger.models import emodel, freeswitch, rtpengine13
from ledger.models.rounding import divide_half_up
from ledger.models.tables import CODECS
from ledger.rules.ruleset import RuleSet, default_rule_set_pin
from telephony.builder import Profile, build_record
from telephony.source import SourceCall, SourceQuality, SourceReading
from tests.telephony.test_builder import KEY, SALTS, recorded

RULES = RuleSet(default_rule_set_pin("lifecycle"), carbon_basis="lifecycle")
CALL = replace(
    recorded("answered"),
    codec="PCMA",
    caller_packets=300,
    caller_octets=48_000,
    callee_packets=290,
    callee_octets=46_400,
    qualities=(),
)
MEAN = SourceReading(4_200, None, None, None, None)
NONE_GIVEN = replace(MEAN, mos_milli=0)
LEVELS = Levels(-22, -60, 55, 64, 4, 400, 3_000, 40, 120, 75)


def heard(method: QualityMethod, **changes: Any) -> SourceQuality:
    """Return what the caller heard, a mean alone unless ``changes`` say more."""
    usual = {"observer": Observer.CALLER, "samples": 1, "average": MEAN, "lowest": None, "highest": None}
    return SourceQuality(**{**usual, "method": method, **changes})


def built(*qualities: SourceQuality, leg: Leg = Leg.ORIGINATING, **changes: Any) -> tuple[CallRecord, list[str]]:
    """Return record and warnings of a call with these qualities; the record holds under the rules."""
    record, _, warnings = build_record(replace(CALL, qualities=qualities, **changes), Profile(KEY, leg=leg), SALTS)
    assert RULES.check_record(decode(encode(record), CallRecord)) is None
    return record, warnings


@pytest.mark.parametrize(
    "found",
    [
        heard(QualityMethod.FREESWITCH, kind=MosKind.LQ, r_milli=86_000, average=replace(MEAN, mos_milli=4_238)),
        heard(QualityMethod.FREESWITCH, samples=None),
        heard(QualityMethod.RFC3611, r_milli=88_000, one_way_us=80_000, packets_discarded=3, packets_expected=300),
        heard(QualityMethod.RFC3611, band=Band.WIDEBAND, average=replace(MEAN, mos_milli=4_800)),
        heard(QualityMethod.MEASURED, observer=Observer.UNKNOWN),
        heard(QualityMethod.MEASURED, lowest=replace(MEAN, mos_milli=3_000), highest=replace(MEAN, mos_milli=4_500)),
        heard(QualityMethod.RTPENGINE_13),
    ],
    ids=lambda found: found.method.name.lower(),
)
def test_figures_are_taken_over_and_unknown_ones_are_zero(found):
    record, warnings = built(found)
    assert warnings == []
    quality = record.quality
    for name in (
        "method",
        "band",
        "kind",
        "observer",
        "r_milli",
        "one_way_us",
        "packets_expected",
        "packets_discarded",
    ):
        assert getattr(quality, name) == getattr(found, name)
    assert quality.samples == (found.samples or 0)
    assert quality.mean == Reading(found.average.mos_milli, 0, 0, 0, 0)
    assert (quality.worst and quality.worst.mos_milli) == (found.lowest and found.lowest.mos_milli)
    assert (quality.best and quality.best.mos_milli) == (found.highest and found.highest.mos_milli)


def test_extremes_of_rtpengine_13_need_their_inputs():
    """One that can be recomputed is kept, one that cannot is left out."""
    lowest = SourceReading(rtpengine13.mos_milli(90_000, 5_000, 20_000), 90_000, 5_000, 20_000, 2_000)
    highest = SourceReading(4_300, None, 1_000, 0, 3_000)
    average = replace(MEAN, mos_milli=4_200)
    record, warnings = built(heard(QualityMethod.RTPENGINE_13, average=average, lowest=lowest, highest=highest))
    assert warnings == []
    assert record.quality.worst == Reading(lowest.mos_milli, 90_000, 5_000, 20_000, 2_000)
    assert record.quality.best is None


@given(st.integers(1, 100))
def test_an_r_of_freeswitch_one_below_the_model_is_as_good(r):
    """It divides in floating point: where the quotient is a whole percent, R may be one lower, and MOS with it."""
    average = replace(MEAN, mos_milli=10 * divide_half_up(freeswitch.mos_milli_of(r - 1), 10))
    record, warnings = built(heard(QualityMethod.FREESWITCH, r_milli=1000 * (r - 1), average=average))
    assert (record.quality.r_milli, warnings) == (1000 * (r - 1), [])


def test_the_lowest_figures_of_freeswitch_are_on_the_scale():
    """Its cubic dips to 0.98; what else is below 1 is no MOS."""
    record, warnings = built(heard(QualityMethod.FREESWITCH, r_milli=3_000, average=replace(MEAN, mos_milli=990)))
    assert (record.quality.mean.mos_milli, warnings) == (1_000, [])
    record, warnings = built(heard(QualityMethod.FREESWITCH, average=replace(MEAN, mos_milli=979)))
    assert (record.quality, warnings) == (None, ["quality left out: mean.mos_milli: Expected int >= 1000"])


@pytest.mark.parametrize(
    ("found", "warning"),
    [
        (
            heard(QualityMethod.FREESWITCH, r_milli=50_000),
            "The mean MOS is 4.2, but R 50.0 beside it is MOS 2.575 (+- 0.01)",
        ),
        (heard(QualityMethod.FREESWITCH, r_milli=85_500), "R is 85.5, but FreeSWITCH counts it in whole ones"),
        (
            heard(QualityMethod.MEASURED, average=replace(MEAN, mos_milli=4_900)),
            "The mean MOS is 4.9, but the narrowband scale ends at 4.5",
        ),
        (heard(QualityMethod.RFC3611, r_milli=120_000), "R is 120.0, but the narrowband scale ends at 100.0"),
        (heard(QualityMethod.RFC3611, r_milli=200_000), "r_milli: Expected int <= 148000"),
        (heard(QualityMethod.RFC3611, one_way_us=2**32), "one_way_us: Expected int <= 4294967295"),
        (heard(QualityMethod.RFC3611, packets_lost=-1), "packets_lost: Expected int >= 0"),
        (heard(QualityMethod.RFC3611, packets_lost=2**70), "a figure is longer than 64 bits"),
        (heard(QualityMethod.RFC3611, packets_lost=5), "5 packets were lost, but only 0 were expected"),
        (
            heard(QualityMethod.G107, packets_expected=290, one_way_us=0, r_milli=93_206),
            "The MOS is 4.2, but G.107 gives 4.409 for this codec",
        ),
        (heard(QualityMethod.G107_2, band=Band.FULLBAND), "G.107.2 cannot rate this call, since codec"),
    ],
)
def test_contradictions_cost_the_quality_and_say_why(found, warning):
    record, warnings = built(found, heard(QualityMethod.MEASURED, observer=Observer.CALLEE))
    assert record.quality is None
    assert [text[: len(warning) + 18] for text in warnings] == [f"quality left out: {warning}"], warnings


def test_g107_is_computed_where_only_the_mos_is_missing():
    """From the receiver's counters and the one-way delay, exactly as every node recomputes it."""
    average = replace(NONE_GIVEN, rtt_us=160_000, jitter_us=2_000)
    counts = {"packets_expected": 300, "packets_lost": 10, "loss_events": 4, "packets_discarded": 2}
    found = heard(QualityMethod.MEASURED, average=average, one_way_us=120_000, **counts)
    record, warnings = built(found)
    codec = CODECS[record.codec]
    r_milli, mos_milli = emodel.rate(
        codec.ie_milli, codec.bpl_milli, lost=10, expected=300, loss_events=4, one_way_us=120_000
    )
    assert warnings == []
    assert record.quality == Quality(
        method=QualityMethod.G107,
        band=Band.NARROWBAND,
        kind=MosKind.CQ,
        observer=Observer.CALLER,
        samples=1,
        r_milli=r_milli,
        one_way_us=120_000,
        mean=Reading(mos_milli, 160_000, 2_000, 33_333, 0),
        worst=None,
        best=None,
        **counts,
    )


COMPLETE = {"average": NONE_GIVEN, "one_way_us": 120_000, "packets_expected": 290}


@pytest.mark.parametrize(
    ("figures", "codec", "warning"),
    [
        ({**COMPLETE, "one_way_us": None}, "PCMA", "without packets expected and one-way delay none can be computed"),
        ({**COMPLETE, "packets_expected": 0}, "PCMA", "without packets expected and one-way delay none can"),
        (COMPLETE, "opus", "codec opus has no confirmed values to compute one with"),
        (COMPLETE, "", "codec unknown has no confirmed values to compute one with"),
        ({**COMPLETE, "one_way_us": 2_000_001}, "PCMA", "G.107 cannot rate this loss and delay"),
        ({**COMPLETE, "packets_lost": 3}, "PCMA", "G.107 cannot rate this loss and delay"),
        ({**COMPLETE, "packets_expected": 249}, "PCMA", "249 packets in 6207 ms of talk are too few to compute one"),
    ],
)
def test_what_cannot_be_rated_says_why_and_leaves_it_to_another_observer(figures, codec, warning):
    found = heard(QualityMethod.MEASURED, **figures)
    record, warnings = built(found, codec=codec)
    assert record.quality is None
    assert len(warnings) == 1
    assert warnings[0].startswith("quality left out: no MOS was reported, and ")
    assert warning in warnings[0]
    other = heard(QualityMethod.MEASURED, observer=Observer.CALLEE)
    record, warnings = built(found, other, codec=codec)
    assert (record.quality.observer, record.quality.mean.mos_milli, warnings) == (Observer.CALLEE, 4_200, [])


def test_counters_of_another_stream_are_no_reason_to_distrust_the_rest():
    """A MOS computed here may not fit this carrier's counters; the next observer's figures then count."""
    found = heard(QualityMethod.MEASURED, **{**COMPLETE, "packets_expected": 500})
    record, warnings = built(found)
    assert record.quality is None
    assert warnings == [
        (
            "quality left out: 500 packets were expected, but 290 received and 0 lost are 290: look for counters of "
            "the "
            "other direction, or of another call (quality.packets_expected is 500, expected 290, or less with "
            "duplicates "
            "and nothing lost)"
        )
    ]
    record, _ = built(found, heard(QualityMethod.MEASURED, observer=Observer.UNKNOWN))
    assert record.quality.observer is Observer.UNKNOWN


def test_levels_are_taken_over():
    record, warnings = built(levels=LEVELS)
    assert (record.levels, warnings) == (LEVELS, [])


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        (
            {"jitter_buffer_ms": 121},
            "levels left out: The jitter buffer's usual delay is 121 ms, above its greatest of 120 ms: ",
        ),
        ({"gap_ms": 70_000}, "levels left out: gap_ms: Expected int <= 65535"),
        ({"signal_dbm0": 2**70}, "levels left out: a figure is longer than 64 bits"),
    ],
)
def test_levels_that_contradict_themselves_are_left_out(changes, warning):
    fields = {name: getattr(LEVELS, name) for name in LEVELS.__struct_fields__}
    record, warnings = built(levels=Levels(**{**fields, **changes}))
    assert record.levels is None
    assert len(warnings) == 1
    assert warnings[0].startswith(warning)


def test_what_the_document_says_goes_before_the_profile():
    record, _ = built(leg=Leg.ORIGINATING)
    assert (record.leg, record.service) == (Leg.ORIGINATING, Service.VOICE)
    call = replace(CALL, leg=Leg.TERMINATING, service=Service.VIDEO, notes=("a field was left out",), codec="QCELP")
    record, _, warnings = build_record(call, Profile(KEY), SALTS)
    assert (record.leg, record.service) == (Leg.TERMINATING, Service.VIDEO)
    assert (record.packets_sent, record.packets_received) == (290, 300)
    assert warnings == ["a field was left out", "codec QCELP is not in the registry: recorded as unknown"]


@pytest.mark.parametrize(
    ("step_ms", "answer_after_ms", "end_after_ms", "expected"),
    [
        (1_000, -999, 5_000, (0, 5_000)),
        (60_000, -59_999, -59_999, (0, 0)),
        (60_000, 20_000, 0, (20_000, 20_000)),
        (1_000, 500, 400, (500, 500)),
    ],
)
def test_coarse_clocks_do_not_put_times_out_of_order(step_ms, answer_after_ms, end_after_ms, expected):
    setup_ms = CALL.setup_ms
    call = replace(
        CALL,
        answer_ms=setup_ms + answer_after_ms,
        end_ms=setup_ms + end_after_ms,
        time_step_ms=step_ms,
        caller_packets=None,
        callee_packets=None,
    )
    record, _, warnings = build_record(call, Profile(KEY), SALTS)
    assert (record.answer_ms - setup_ms, record.end_ms - setup_ms) == expected
    assert warnings == [f"times in steps of {step_ms} ms were out of order: the later ones were moved to the earlier"]
    assert RULES.check_record(record) is None


@pytest.mark.parametrize(("step_ms", "answer_after_ms"), [(1, -1), (1_000, -1_000), (60_000, -60_000)])
def test_times_further_out_of_order_are_left_to_the_rules(step_ms, answer_after_ms):
    call = replace(CALL, answer_ms=CALL.setup_ms + answer_after_ms, time_step_ms=step_ms)
    record, _, warnings = build_record(call, Profile(KEY), SALTS)
    assert warnings == []
    assert RULES.check_record(record).rule == "call-shape/answer-before-setup"


COUNTS = st.sampled_from([-1, 0, 1, 10, 290, 300, 2**32, 2**63, 2**70])
READINGS = st.builds(
    SourceReading,
    mos_milli=st.integers(0, 5_000),
    rtt_us=st.none() | COUNTS,
    jitter_us=st.none() | COUNTS,
    loss_ppm=st.none() | COUNTS,
    at_ms=st.none() | COUNTS,
)
QUALITIES = st.builds(
    SourceQuality,
    observer=st.sampled_from(Observer),
    samples=st.none() | COUNTS,
    average=READINGS,
    lowest=st.none() | READINGS,
    highest=st.none() | READINGS,
    method=st.sampled_from(QualityMethod),
    band=st.sampled_from(Band),
    kind=st.sampled_from(MosKind),
    r_milli=st.none() | COUNTS,
    one_way_us=st.none() | COUNTS,
    packets_expected=COUNTS,
    packets_lost=COUNTS,
    packets_discarded=COUNTS,
    loss_events=COUNTS,
)


@given(st.lists(QUALITIES, max_size=3), st.sampled_from(Leg), st.sampled_from(["PCMA", "opus", "G729A", ""]))
def test_whatever_a_platform_says_the_record_holds_under_the_rules(qualities, leg, codec):
    """The call is never lost for its quality, and what is left out is said."""
    record, warnings = built(*qualities, leg=leg, codec=codec)
    left_out = [text for text in warnings if text.startswith("quality left out: ")]
    assert len(left_out) == (1 if qualities and record.quality is None else 0)


def test_a_source_call_needs_no_quality():
    assert isinstance(CALL, SourceCall)
    assert built()[0].quality is None
