"""Rules on voice quality: a MOS is what its method makes of the record's own measurements.

Methods in this version: ``g107`` (recomputed exactly), ``rtpengine-10`` (its worst and best reading recomputed, to
a tenth), ``measured`` (an outside tool's figure: only ranges and order). A mean of MOS is not the MOS of the means,
so a mean is only bounded by worst and best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from ledger.cdr import Band, CallRecord, Observer, Quality, QualityMethod, Reading
from ledger.models import emodel, rtpengine
from ledger.models.rounding import divide_half_up
from ledger.models.tables import CODECS
from ledger.rules.base import Check, RuleContext, RuleModule, Violation

_NAME: Final = "voice-quality"

_MOS_MILLI_MAX: Final = {
    Band.NARROWBAND: emodel.MOS_MILLI_MAX,
    Band.WIDEBAND: 5_000,
    Band.SUPER_WIDEBAND: 5_000,
    Band.FULLBAND: 5_000,
}
"""Top of the MOS scale in each band: 4.5 in narrowband (G.107), else the scale's own 5 (P.800)."""

_R_MILLI_MAX: Final = {
    Band.NARROWBAND: 100_000,
    Band.WIDEBAND: 129_000,
    Band.SUPER_WIDEBAND: 148_000,
    Band.FULLBAND: 148_000,
}
"""Top of the R scale in each band: G.107, G.107.1, G.107.2."""

_METHODS: Final = "g107, rtpengine_10 or measured"

_MethodCheck = Callable[[CallRecord, Quality], Violation | None]


def _compile(parameters: Mapping[str, int], _context: RuleContext) -> Check:
    mos_max_of, r_max_of = dict(_MOS_MILLI_MAX), dict(_R_MILLI_MAX)
    reading_slack_ms = parameters["reading_slack_ms"]
    methods: dict[QualityMethod, _MethodCheck] = {
        QualityMethod.G107: _check_g107,
        QualityMethod.RTPENGINE_10: _compile_rtpengine(parameters),
        QualityMethod.MEASURED: _check_measured,
    }
    method_check_of = methods.get
    one_observer = frozenset({Observer.CALLER, Observer.CALLEE})

    def check(record: CallRecord) -> Violation | None:
        quality = record.quality
        if quality is None:
            return None
        check_method = method_check_of(quality.method)
        if check_method is None:
            return _refuse_method(quality)
        mean, worst, best = quality.mean, quality.worst, quality.best
        mean_milli = mean.mos_milli
        best_milli = mean_milli if best is None else best.mos_milli
        if best_milli < mean_milli or (worst is not None and worst.mos_milli > mean_milli):
            return _refuse_order(quality)
        band = quality.band
        if best_milli > mos_max_of[band]:
            return _refuse_mos(quality, best_milli, mos_max_of[band], f"band {band.name.lower()}")
        r_milli = quality.r_milli
        if r_milli is not None and r_milli > r_max_of[band]:
            return _refuse_r(quality, r_max_of[band])
        duration_ms = record.end_ms - record.setup_ms
        most = duration_ms // 1000 + 1
        if quality.samples > most:
            if quality.observer not in one_observer:
                most *= 2
            if quality.samples > most:
                return _refuse_samples(quality, most)
        last_ms = duration_ms + reading_slack_ms
        if mean.at_ms or (worst is not None and worst.at_ms > last_ms) or (best is not None and best.at_ms > last_ms):
            return _refuse_reading_time(quality, last_ms)
        lost = quality.packets_lost
        expected = quality.packets_expected
        if lost or quality.loss_events or quality.packets_discarded or mean.loss_ppm:
            violation = _check_counters(quality, lost, expected)
            if violation is not None:
                return violation
        return check_method(record, quality)

    return check


def _check_counters(quality: Quality, lost: int, expected: int) -> Violation | None:
    """Hold the packet counters against each other; only asked where something was lost or discarded."""
    events = quality.loss_events
    if lost > expected:
        return Violation(
            f"{_NAME}/lost", "quality.packets_lost", lost, f"<= {expected}", "More packets were lost than were expected"
        )
    if quality.packets_discarded > expected - lost:
        return Violation(
            f"{_NAME}/discarded",
            "quality.packets_discarded",
            quality.packets_discarded,
            f"<= {expected - lost}",
            "The jitter buffer discarded more packets than arrived",
        )
    if events > lost or events > expected - lost + 1:
        return Violation(
            f"{_NAME}/loss-events",
            "quality.loss_events",
            events,
            f"<= {min(lost, expected - lost + 1)}",
            "There are more runs of lost packets than lost packets, or than arrivals between them",
        )
    if expected and not lost and quality.mean.loss_ppm:
        return Violation(
            f"{_NAME}/loss",
            "quality.mean.loss_ppm",
            quality.mean.loss_ppm,
            0,
            "The mean shows loss although the counters say that nothing was lost",
        )
    return None


def _ratable_codecs() -> dict[int, tuple[int, int]]:
    """Return (Ie, Bpl) in thousandths by codec row, of the codecs that the E-model can rate."""
    return {
        row: (codec.ie_milli, codec.bpl_milli)
        for row, codec in CODECS.items()
        if codec.is_ratable and codec.ie_milli is not None and codec.bpl_milli is not None
    }


_IE_BPL_MILLI: Final = _ratable_codecs()
_CEILING_MILLI: Final = {row: emodel.mos_milli(emodel.R0_MILLI - ie) for row, (ie, _) in _IE_BPL_MILLI.items()}
"""The best MOS of a codec: no loss, no delay."""


def _check_g107(record: CallRecord, quality: Quality) -> Violation | None:
    """Recompute R and MOS from codec, delay and counters: exactly what the record says."""
    impairment = _IE_BPL_MILLI.get(record.codec)
    one_way_us = quality.one_way_us
    expected = quality.packets_expected
    if impairment is None or quality.band != Band.NARROWBAND or one_way_us is None or not expected:
        return _refuse_unratable(record, quality)
    lost = quality.packets_lost
    if expected != record.packets_received + lost and (lost or expected > record.packets_received):
        return Violation(
            f"{_NAME}/expected",
            "quality.packets_expected",
            expected,
            f"{record.packets_received + lost}, or less with duplicates and nothing lost",
            "Packets expected are not those received and those lost together",
        )
    mean = quality.mean
    ie_milli, bpl_milli = impairment
    rating = emodel.rate(
        ie_milli, bpl_milli, lost=lost, expected=expected, loss_events=quality.loss_events, one_way_us=one_way_us
    )
    if rating is None:
        return _refuse_unratable(record, quality)
    r_milli, mos_milli = rating
    if quality.r_milli != r_milli:
        return Violation(
            f"{_NAME}/r-factor",
            "quality.r_milli",
            quality.r_milli,
            r_milli,
            "The R factor is not what G.107 gives for this codec, delay and loss",
        )
    if mean.mos_milli != mos_milli:
        return Violation(
            f"{_NAME}/mos",
            "quality.mean.mos_milli",
            mean.mos_milli,
            mos_milli,
            "The MOS is not what G.107 gives for this codec, delay and loss",
        )
    if lost and mean.loss_ppm != divide_half_up(1_000_000 * lost, expected):
        return Violation(
            f"{_NAME}/loss",
            "quality.mean.loss_ppm",
            mean.loss_ppm,
            divide_half_up(1_000_000 * lost, expected),
            "The mean loss is not what the packet counters give",
        )
    best = quality.best
    if best is not None and best.mos_milli > _CEILING_MILLI[record.codec]:
        return _refuse_mos(quality, best.mos_milli, _CEILING_MILLI[record.codec], "this codec")
    return None


def _check_measured(_record: CallRecord, _quality: Quality) -> None:
    """Nothing can be recomputed of an outside tool's figure."""


def _compile_rtpengine(parameters: Mapping[str, int]) -> _MethodCheck:
    step_milli = parameters["rtpengine_step_milli"]
    r_slack_milli = parameters["mos_of_r_slack_milli"]
    ceiling_milli = rtpengine.MOS_MILLI_MAX
    recompute = rtpengine.mos_milli

    def check(record: CallRecord, quality: Quality) -> Violation | None:
        mean, worst, best = quality.mean, quality.worst, quality.best
        top = mean if best is None else best
        if top.mos_milli > ceiling_milli:
            return _refuse_mos(quality, top.mos_milli, ceiling_milli, "method rtpengine_10")
        if worst is not None:
            mos_milli = recompute(worst.rtt_us, worst.jitter_us, worst.loss_ppm)
            if not -step_milli <= worst.mos_milli - mos_milli <= step_milli:
                return _refuse_reading("worst", worst, mos_milli, step_milli)
        # One report is worst and best at once.
        if best is not None and best != worst:
            mos_milli = recompute(best.rtt_us, best.jitter_us, best.loss_ppm)
            if not -step_milli <= best.mos_milli - mos_milli <= step_milli:
                return _refuse_reading("best", best, mos_milli, step_milli)
        if quality.r_milli is not None:
            mos_milli = emodel.mos_milli(quality.r_milli)
            if not -r_slack_milli <= mean.mos_milli - mos_milli <= r_slack_milli:
                return Violation(
                    f"{_NAME}/mos-of-r",
                    "quality.mean.mos_milli",
                    mean.mos_milli,
                    f"{mos_milli} +- {r_slack_milli}",
                    "The MOS is not that of the R factor beside it",
                )
        arrived = quality.packets_expected - quality.packets_lost
        if arrived > record.packets_sent and arrived > record.packets_received:
            return Violation(
                f"{_NAME}/expected",
                "quality.packets_expected",
                quality.packets_expected,
                f"<= {max(record.packets_sent, record.packets_received) + quality.packets_lost}",
                "More packets would have reached the listener than were on either side of this leg",
            )
        return None

    return check


def _refuse_method(quality: Quality) -> Violation:
    return Violation(
        f"{_NAME}/method",
        "quality.method",
        QualityMethod(quality.method).name.lower(),
        _METHODS,
        "The method is not in this rule set, so its MOS cannot be checked",
    )


def _refuse_order(quality: Quality) -> Violation:
    worst = "unknown" if quality.worst is None else quality.worst.mos_milli
    best = "unknown" if quality.best is None else quality.best.mos_milli
    return Violation(
        f"{_NAME}/order",
        "quality.mean.mos_milli",
        quality.mean.mos_milli,
        f"worst {worst} <= mean <= best {best}",
        "The mean MOS is not between the worst and the best reading",
    )


def _refuse_mos(quality: Quality, mos_milli: int, most: int, why: str) -> Violation:
    field = "quality.mean.mos_milli" if quality.best is None else "quality.best.mos_milli"
    return Violation(f"{_NAME}/mos-range", field, mos_milli, f"<= {most}", f"The MOS is above what {why} can reach")


def _refuse_r(quality: Quality, most: int) -> Violation:
    return Violation(
        f"{_NAME}/r-range",
        "quality.r_milli",
        quality.r_milli,
        f"0..{most}",
        f"The R factor is above the scale of band {quality.band.name.lower()}",
    )


def _refuse_samples(quality: Quality, most: int) -> Violation:
    return Violation(
        f"{_NAME}/samples",
        "quality.samples",
        quality.samples,
        f"<= {most}",
        "There are more reports than the call has seconds",
    )


def _refuse_reading_time(quality: Quality, last_ms: int) -> Violation:
    if quality.mean.at_ms:
        return Violation(
            f"{_NAME}/reading-time", "quality.mean.at_ms", quality.mean.at_ms, 0, "A mean has no moment of its own"
        )
    name, reading = "worst", quality.worst
    if reading is None or reading.at_ms <= last_ms:
        name, reading = "best", quality.best
    return Violation(
        f"{_NAME}/reading-time",
        f"quality.{name}.at_ms",
        reading.at_ms if reading else None,
        f"<= {last_ms}",
        f"The {name} reading was taken after the call had ended",
    )


def _refuse_reading(name: str, reading: Reading, expected_milli: int, step_milli: int) -> Violation:
    return Violation(
        f"{_NAME}/reading",
        f"quality.{name}.mos_milli",
        reading.mos_milli,
        f"{expected_milli} +- {step_milli}",
        f"The MOS of the {name} reading is not what rtpengine computes from its round trip, jitter and loss",
    )


def _refuse_unratable(record: CallRecord, quality: Quality) -> Violation:
    """Return why G.107 cannot have rated this record."""
    message = "G.107 cannot rate this call, so the record must have no quality or name another method"
    field: str
    value: int | str | None
    bound: str
    if record.codec not in _IE_BPL_MILLI:
        field, value, bound = "codec", record.codec, "a ratable row of table codecs-1"
    elif quality.band != Band.NARROWBAND:
        field, value, bound = "quality.band", quality.band.name.lower(), "narrowband"
    elif not quality.packets_expected:
        field, value, bound = "quality.packets_expected", 0, "> 0"
    elif quality.one_way_us is None or quality.one_way_us > emodel.ONE_WAY_US_MAX:
        field, value, bound = "quality.one_way_us", quality.one_way_us, f"0..{emodel.ONE_WAY_US_MAX}"
    else:
        field, value, bound = "quality.loss_events", quality.loss_events, f"1..{quality.packets_lost}"
    return Violation(f"{_NAME}/unratable", field, value, bound, message)


MODULE: Final = RuleModule(
    name=_NAME,
    version=1,
    reads=("setup_ms", "end_ms", "codec", "packets_sent", "packets_received", "quality"),
    tables=("codecs-1", "g107-idd-2015"),
    defaults=MappingProxyType(
        {
            "reading_slack_ms": 1_000,
            "rtpengine_step_milli": rtpengine.STEP_MILLI,
            # A truncated tenth of MOS, and one R at the cubic's steepest slope, 0.0528 MOS.
            "mos_of_r_slack_milli": 153,
        }
    ),
    rules=MappingProxyType(
        {
            "method": f"The method is one this version can check: {_METHODS}. A missing quality is never refused.",
            "order": "Worst MOS <= mean MOS <= best MOS, as far as they are known.",
            "mos-range": (
                "The best MOS known is at most 4.5 in narrowband and 5.0 in wider bands, at most 4.4 for rtpengine_10, "
                "and for g107 at most what the codec reaches without loss and delay."
            ),
            "r-range": "R is at most 100 in narrowband, 129 in wideband, 148 in super-wideband and fullband.",
            "samples": (
                "Samples are at most one for each whole second from setup to end, plus one; twice that where both "
                "sides (or nobody in particular) observed."
            ),
            "reading-time": (
                "Worst and best readings are at most reading_slack_ms after the end (platforms report whole seconds); "
                "a mean has at_ms 0."
            ),
            "lost": "Packets lost are at most those expected.",
            "discarded": "Packets discarded are at most those that arrived: expected - lost.",
            "loss-events": "Loss events are at most the packets lost, and at most one more than those that arrived.",
            "loss": (
                "Where packets were expected and none was lost, the mean loss is 0; for g107 it is exactly "
                "round(1,000,000 x lost / expected)."
            ),
            "expected": (
                "g107: expected = packets_received + lost (less, where duplicates arrived and nothing was lost). "
                "rtpengine_10: expected - lost is at most the greater of packets_sent and packets_received."
            ),
            "unratable": (
                "g107 needs a ratable narrowband codec, a one-way delay of at most 2 s, packets expected, and loss "
                "events where packets were lost."
            ),
            "r-factor": "g107: R is exactly the model's.",
            "mos": "g107: the mean MOS is exactly the model's.",
            "reading": (
                "rtpengine_10: the MOS of the worst and the best reading is within rtpengine_step_milli of the "
                "formula on its round trip, jitter and loss."
            ),
            "mos-of-r": "rtpengine_10: where an R is given, the mean MOS is within mos_of_r_slack_milli of its MOS.",
        }
    ),
    compile_check=_compile,
)
"""The released module."""
