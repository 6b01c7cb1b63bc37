"""What each method of voice quality demands of a record: part of the rule module ``voice-quality``.

The E-models are recomputed exactly, from codec, delay and counters. rtpengine's formulas are recomputed where their
inputs are in the record, in the worst and the best reading: a mean of MOS is not the MOS of the means. FreeSWITCH
derives MOS from its R, and nothing else. Of an endpoint's own figure (``rfc3611``) and an outside tool's
(``measured``) only the ranges and the counters can be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from ledger.cdr import Band, CallRecord, Quality, QualityMethod, Reading
from ledger.models import emodel, emodel_wide, freeswitch, rtpengine, rtpengine13
from ledger.models.rounding import divide_half_up
from ledger.models.tables import CODECS
from ledger.rules import words
from ledger.rules.base import Violation

NAME: Final = "voice-quality"
"""Of the module that all these rules are in."""

WHOLE_R_MILLI: Final = 1_000
"""FreeSWITCH counts R in whole ones."""

MethodCheck = Callable[[CallRecord, Quality], Violation | None]
"""What one method demands, asked after everything that all methods have in common."""


def compile_methods(parameters: Mapping[str, int]) -> dict[QualityMethod, MethodCheck]:
    """Return the check of every method there is, for these parameters of the module."""
    loss_slack_ppm = parameters["loss_slack_ppm"]

    def check_loss(_record: CallRecord, quality: Quality) -> Violation | None:
        return _check_loss(quality, loss_slack_ppm)

    return {
        **{model.method: _compile_emodel(model) for model in EMODELS},
        QualityMethod.RTPENGINE_10: _compile_rtpengine(parameters, rtpengine.mos_milli, rtpengine.MOS_MILLI_MAX),
        QualityMethod.RTPENGINE_13: _compile_rtpengine_13(parameters),
        QualityMethod.FREESWITCH: _compile_freeswitch(parameters),
        QualityMethod.RFC3611: check_loss,
        QualityMethod.MEASURED: check_loss,
    }


class Emodel(NamedTuple):
    """One scale of the E-model, and the codecs that it can rate."""

    method: QualityMethod
    name: str
    """As the Recommendation is called."""
    band: Band
    rate: Callable[..., tuple[int, int] | None]
    """R and MOS in thousandths, see ``ledger.models.emodel.rate``."""
    impairments: Mapping[int, tuple[int, int]]
    """(Ie, Bpl) in thousandths by codec row."""
    ceilings_milli: Mapping[int, int]
    """The best MOS by codec row: no loss, no delay."""


def _emodel(
    method: QualityMethod, name: str, band: Band, codec_band: str, rate: Callable[..., tuple[int, int] | None]
) -> Emodel:
    impairments, ceilings_milli = {}, {}
    for row, codec in CODECS.items():
        if (
            codec.band == codec_band
            and codec.grade in {"A", "B"}
            and codec.ie_milli is not None
            and codec.bpl_milli is not None
        ):
            impairments[row] = codec.ie_milli, codec.bpl_milli
            best = rate(codec.ie_milli, codec.bpl_milli, lost=0, expected=1, loss_events=0, one_way_us=0)
            ceilings_milli[row] = best[1] if best else 0
    return Emodel(method, name, band, rate, impairments, ceilings_milli)


EMODELS: Final = (
    _emodel(QualityMethod.G107, "G.107", Band.NARROWBAND, "N", emodel.rate),
    _emodel(QualityMethod.G107_1, "G.107.1", Band.WIDEBAND, "W", partial(emodel_wide.rate, emodel_wide.WIDEBAND)),
    _emodel(QualityMethod.G107_2, "G.107.2", Band.FULLBAND, "F", partial(emodel_wide.rate, emodel_wide.FULLBAND)),
)
"""The E-models, by which a call is rated where its platform gave counters and delay but no MOS."""


def _compile_emodel(model: Emodel) -> MethodCheck:
    """Return the check of an E-model: R and MOS from codec, delay and counters are exactly what the record says."""
    impairment_of, rate, band, ceilings_milli = model.impairments.get, model.rate, model.band, model.ceilings_milli

    def check(record: CallRecord, quality: Quality) -> Violation | None:
        impairment = impairment_of(record.codec)
        one_way_us = quality.one_way_us
        expected = quality.packets_expected
        if impairment is None or quality.band != band or one_way_us is None or not expected:
            return _refuse_unratable(record, quality, model)
        lost = quality.packets_lost
        if expected != record.packets_received + lost and (lost or expected > record.packets_received):
            return _refuse_expected(quality, record.packets_received)
        rating = rate(
            impairment[0],
            impairment[1],
            lost=lost,
            expected=expected,
            loss_events=quality.loss_events,
            one_way_us=one_way_us,
        )
        if rating is None:
            return _refuse_unratable(record, quality, model)
        mean = quality.mean
        if quality.r_milli != rating[0] or mean.mos_milli != rating[1]:
            return _refuse_rating(quality, rating, model)
        if lost and mean.loss_ppm != divide_half_up(1_000_000 * lost, expected):
            return refuse_mean_loss(quality, 0)
        best = quality.best
        if best is not None and best.mos_milli > ceilings_milli[record.codec]:
            return refuse_mos(quality, best.mos_milli, ceilings_milli[record.codec], f"{model.name} for this codec")
        return None

    return check


_Formula = Callable[[int, int, int], int]
"""MOS in thousandths of round trip and jitter in microseconds, and loss in ppm."""


def _compile_rtpengine(parameters: Mapping[str, int], recompute: _Formula, ceiling_milli: int) -> MethodCheck:
    """Return the check of one formula of rtpengine: its extremes follow from the figures that come with them."""
    step_milli = parameters["rtpengine_step_milli"]
    r_slack_milli = parameters["mos_of_r_slack_milli"]

    def check(record: CallRecord, quality: Quality) -> Violation | None:
        mean, worst, best = quality.mean, quality.worst, quality.best
        top = mean if best is None else best
        if top.mos_milli > ceiling_milli:
            return refuse_mos(quality, top.mos_milli, ceiling_milli, f"the formula {_name_of(quality)}")
        if worst is not None:
            mos_milli = recompute(worst.rtt_us, worst.jitter_us, worst.loss_ppm)
            if not -step_milli <= worst.mos_milli - mos_milli <= step_milli:
                return _refuse_reading(quality, "worst", worst, mos_milli, step_milli)
        # One report is worst and best at once.
        if best is not None and best != worst:
            mos_milli = recompute(best.rtt_us, best.jitter_us, best.loss_ppm)
            if not -step_milli <= best.mos_milli - mos_milli <= step_milli:
                return _refuse_reading(quality, "best", best, mos_milli, step_milli)
        if quality.r_milli is not None and not _is_mos_of_r(quality, r_slack_milli):
            return _refuse_mos_of_r(quality, r_slack_milli)
        return _check_arrived(record, quality)

    return check


def _compile_rtpengine_13(parameters: Mapping[str, int]) -> MethodCheck:
    """Return the check of rtpengine 13, which rates codecs with a 48 kHz clock by a formula of their own."""
    check_other = _compile_rtpengine(parameters, rtpengine13.mos_milli, rtpengine13.MOS_MILLI_MAX)
    check_fullband = _compile_rtpengine(
        parameters, partial(rtpengine13.mos_milli, fullband=True), rtpengine13.FULLBAND_MOS_MILLI_MAX
    )

    def check(record: CallRecord, quality: Quality) -> Violation | None:
        return (check_fullband if quality.band is Band.FULLBAND else check_other)(record, quality)

    return check


def _compile_freeswitch(parameters: Mapping[str, int]) -> MethodCheck:
    """Return the check of FreeSWITCH: a whole R from its flaw counter, and the MOS of that R."""
    loss_slack_ppm = parameters["loss_slack_ppm"]
    r_slack_milli = parameters["freeswitch_slack_milli"]

    def check(record: CallRecord, quality: Quality) -> Violation | None:
        r_milli = quality.r_milli
        best = quality.mean if quality.best is None else quality.best
        if best.mos_milli > freeswitch.MOS_MILLI_MAX:
            return refuse_mos(quality, best.mos_milli, freeswitch.MOS_MILLI_MAX, "the formula freeswitch")
        if r_milli is not None:
            if r_milli > emodel.R_MILLI_MAX:
                return refuse_r(quality, emodel.R_MILLI_MAX, "the scale of FreeSWITCH")
            if r_milli % WHOLE_R_MILLI:
                return _refuse_r_step(r_milli)
            if not _is_mos_of_r(quality, r_slack_milli):
                return _refuse_mos_of_r(quality, r_slack_milli)
        return _check_loss(quality, loss_slack_ppm) or _check_arrived(record, quality)

    return check


def _is_mos_of_r(quality: Quality, slack_milli: int) -> bool:
    """Whether the mean MOS is that of the R beside it on the narrowband scale, as near as both were reported."""
    r_milli = quality.r_milli
    return r_milli is None or -slack_milli <= quality.mean.mos_milli - emodel.mos_milli(r_milli) <= slack_milli


def _check_arrived(record: CallRecord, quality: Quality) -> Violation | None:
    """Hold a relay's or switch's receiver counts against its own media counters, where it has any."""
    arrived = quality.packets_expected - quality.packets_lost
    if arrived > record.packets_sent and arrived > record.packets_received:
        most = max(record.packets_sent, record.packets_received)
        # Neither side counted: the platform has no media counters to contradict.
        if most:
            return Violation(
                f"{NAME}/expected",
                "quality.packets_expected",
                quality.packets_expected,
                f"<= {most + quality.packets_lost}",
                f"{quality.packets_expected} packets expected and {quality.packets_lost} lost mean that {arrived} "
                "arrived, "
                f"but this leg had {record.packets_sent} sent and {record.packets_received} received: look for "
                "counters of "
                "another call, or of several streams",
            )
    return None


def _check_loss(quality: Quality, slack_ppm: int) -> Violation | None:
    """Hold the mean loss against the counters, where the record has both; 0 in a reading may be unknown."""
    expected = quality.packets_expected
    loss_ppm = quality.mean.loss_ppm
    if expected and loss_ppm:
        actual_ppm = divide_half_up(1_000_000 * quality.packets_lost, expected)
        if not -slack_ppm <= loss_ppm - actual_ppm <= slack_ppm:
            return refuse_mean_loss(quality, slack_ppm)
    return None


def _name_of(quality: Quality) -> str:
    return QualityMethod(quality.method).name.lower()


def refuse_mos(quality: Quality, mos_milli: int, most: int, scale: str) -> Violation:
    """Return the violation of a best MOS above ``most``, the top of ``scale``."""
    name = "mean" if quality.best is None else "best"
    return Violation(
        f"{NAME}/mos-range",
        f"quality.{name}.mos_milli",
        mos_milli,
        f"<= {most}",
        f"The {name} MOS is {words.milli(mos_milli)}, but {scale} ends at {words.milli(most)}: look at which method "
        "and "
        "band the platform really used",
    )


def refuse_r(quality: Quality, most: int, scale: str) -> Violation:
    """Return the violation of an R above ``most``, the top of ``scale``."""
    return Violation(
        f"{NAME}/r-range",
        "quality.r_milli",
        quality.r_milli,
        f"0..{most}",
        f"R is {words.milli(quality.r_milli or 0)}, but {scale} ends at {words.milli(most)}: look at which band the "
        "codec has",
    )


def refuse_mean_loss(quality: Quality, slack_ppm: int) -> Violation:
    """Return the violation of a mean loss further than ``slack_ppm`` from that of the counters."""
    lost, expected = quality.packets_lost, quality.packets_expected
    actual_ppm = divide_half_up(1_000_000 * lost, expected)
    return Violation(
        f"{NAME}/loss",
        "quality.mean.loss_ppm",
        quality.mean.loss_ppm,
        f"{actual_ppm} +- {slack_ppm}" if slack_ppm else actual_ppm,
        f"The mean loss is {words.percent(quality.mean.loss_ppm)}, but {lost} packets lost of {expected} expected are "
        f"{words.percent(actual_ppm)}: look for counters of another stream, or of a part of the call",
    )


def _refuse_r_step(r_milli: int) -> Violation:
    return Violation(
        f"{NAME}/r-step",
        "quality.r_milli",
        r_milli,
        f"a multiple of {WHOLE_R_MILLI}",
        f"R is {words.milli(r_milli)}, but FreeSWITCH counts it in whole ones: look at which platform or method it "
        "is from",
    )


def _refuse_mos_of_r(quality: Quality, slack_milli: int) -> Violation:
    r_milli = quality.r_milli or 0
    mos_milli = emodel.mos_milli(r_milli)
    return Violation(
        f"{NAME}/mos-of-r",
        "quality.mean.mos_milli",
        quality.mean.mos_milli,
        f"{mos_milli} +- {slack_milli}",
        f"The mean MOS is {words.milli(quality.mean.mos_milli)}, but R {words.milli(r_milli)} beside it is MOS "
        f"{words.milli(mos_milli)} (+- {words.milli(slack_milli)}): look for figures of two streams, or of two methods",
    )


def _refuse_expected(quality: Quality, received: int) -> Violation:
    lost = quality.packets_lost
    return Violation(
        f"{NAME}/expected",
        "quality.packets_expected",
        quality.packets_expected,
        f"{received + lost}, or less with duplicates and nothing lost",
        f"{quality.packets_expected} packets were expected, but {received} received and {lost} lost are "
        f"{received + lost}: "
        "look for counters of the other direction, or of another call",
    )


def _refuse_rating(quality: Quality, rating: tuple[int, int], model: Emodel) -> Violation:
    inputs = (
        f"for this codec, {words.ms(quality.one_way_us or 0)} one way, and {quality.packets_lost} of "
        f"{quality.packets_expected} packets lost in {quality.loss_events} runs: look for an input changed since, or "
        "for "
        "another method"
    )
    if quality.r_milli != rating[0]:
        actual = "missing" if quality.r_milli is None else words.milli(quality.r_milli)
        return Violation(
            f"{NAME}/r-factor",
            "quality.r_milli",
            quality.r_milli,
            rating[0],
            f"R is {actual}, but {model.name} gives {words.milli(rating[0])} {inputs}",
        )
    return Violation(
        f"{NAME}/mos",
        "quality.mean.mos_milli",
        quality.mean.mos_milli,
        rating[1],
        f"The MOS is {words.milli(quality.mean.mos_milli)}, but {model.name} gives {words.milli(rating[1])} {inputs}",
    )


def _refuse_reading(quality: Quality, name: str, reading: Reading, expected_milli: int, step_milli: int) -> Violation:
    return Violation(
        f"{NAME}/reading",
        f"quality.{name}.mos_milli",
        reading.mos_milli,
        f"{expected_milli} +- {step_milli}",
        f"The {name} reading's MOS is {words.milli(reading.mos_milli)}, but the formula {_name_of(quality)} gives "
        f"{words.milli(expected_milli)} (+- {words.milli(step_milli)}) for its round trip of "
        f"{words.ms(reading.rtt_us)}, "
        f"jitter of {words.ms(reading.jitter_us)} and loss of {words.percent(reading.loss_ppm)}: look at which "
        "version of "
        "rtpengine it is from",
    )


def _refuse_unratable(record: CallRecord, quality: Quality, model: Emodel) -> Violation:
    """Return why the model cannot have rated this record."""
    field: str
    value: int | str | None
    bound: str
    band = model.band.name.lower()
    most_ms = words.ms(emodel.ONE_WAY_US_MAX)
    if quality.band != model.band:
        field, value, bound = "quality.band", quality.band.name.lower(), band
        why = f"the band is {value}, and {model.name} is for {band} calls"
    elif record.codec not in model.impairments:
        field, value, bound = "codec", record.codec, f"a ratable {band} row of table codecs-1"
        why = f"codec {record.codec} has no confirmed impairment on the {band} scale"
    elif not quality.packets_expected:
        field, value, bound = "quality.packets_expected", 0, "> 0"
        why = "0 packets were expected"
    elif quality.one_way_us is None or quality.one_way_us > emodel.ONE_WAY_US_MAX:
        field, value, bound = "quality.one_way_us", quality.one_way_us, f"0..{emodel.ONE_WAY_US_MAX}"
        delay = "unknown" if quality.one_way_us is None else words.ms(quality.one_way_us)
        why = f"the one-way delay is {delay}, and 0 to {most_ms} can be rated"
    elif not quality.loss_events:
        field, value, bound = "quality.loss_events", 0, f"1..{quality.packets_lost}"
        why = f"{quality.packets_lost} packets were lost, but in 0 runs"
    else:
        field, value, bound = "quality.loss_events", quality.loss_events, "as many runs as random losses have"
        why = f"{quality.packets_lost} packets were lost in {quality.loss_events} runs, and it rates no bursts"
    message = (
        f"{model.name} cannot rate this call, since {why}: leave the quality out, or name the method that was used"
    )
    return Violation(f"{NAME}/unratable", field, value, bound, message)
