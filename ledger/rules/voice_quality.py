"""Rules on voice quality: a MOS is what its method makes of the record's own measurements.

What all methods have in common is here; what each demands beyond it in ``ledger.rules.voice_methods``. A mean of MOS
is not the MOS of the means, so a mean is only bounded by worst and best.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ledger.cdr import CallRecord, Observer, Quality
from ledger.models import freeswitch, rtpengine, scales
from ledger.rules import words
from ledger.rules.base import Check, RuleContext, RuleModule, Violation
from ledger.rules.voice_methods import NAME, compile_methods, refuse_mean_loss, refuse_mos, refuse_r


def _compile(parameters: Mapping[str, int], _context: RuleContext) -> Check:
    mos_max_of, r_max_of = dict(scales.MOS_MILLI_MAX), dict(scales.R_MILLI_MAX)
    reading_slack_ms = parameters["reading_slack_ms"]
    method_check_of = compile_methods(parameters)
    one_observer = frozenset({Observer.CALLER, Observer.CALLEE})

    def check(record: CallRecord) -> Violation | None:
        quality = record.quality
        if quality is None:
            return None
        mean, worst, best = quality.mean, quality.worst, quality.best
        mean_milli = mean.mos_milli
        best_milli = mean_milli if best is None else best.mos_milli
        if best_milli < mean_milli or (worst is not None and worst.mos_milli > mean_milli):
            return _refuse_order(quality)
        band = quality.band
        if best_milli > mos_max_of[band]:
            return refuse_mos(quality, best_milli, mos_max_of[band], f"the {band.name.lower()} scale")
        r_milli = quality.r_milli
        if r_milli is not None and r_milli > r_max_of[band]:
            return refuse_r(quality, r_max_of[band], f"the {band.name.lower()} scale")
        duration_ms = record.end_ms - record.setup_ms
        most = duration_ms // 1000 + 1
        if quality.samples > most:
            if quality.observer not in one_observer:
                most *= 2
            if quality.samples > most:
                return _refuse_samples(quality, most, duration_ms)
        last_ms = duration_ms + reading_slack_ms
        if mean.at_ms or (worst is not None and worst.at_ms > last_ms) or (best is not None and best.at_ms > last_ms):
            return _refuse_reading_time(quality, last_ms)
        lost = quality.packets_lost
        expected = quality.packets_expected
        if lost or quality.loss_events or quality.packets_discarded or mean.loss_ppm:
            violation = _check_counters(quality, lost, expected)
            if violation is not None:
                return violation
        return method_check_of[quality.method](record, quality)

    return check


def _check_counters(quality: Quality, lost: int, expected: int) -> Violation | None:
    """Hold the packet counters against each other; only asked where something was lost or discarded."""
    events = quality.loss_events
    if lost > expected:
        return Violation(
            f"{NAME}/lost",
            "quality.packets_lost",
            lost,
            f"<= {expected}",
            f"{lost} packets were lost, but only {expected} were expected: look for counters of two streams, or of a "
            "call "
            "and of an interval of it",
        )
    if quality.packets_discarded > expected - lost:
        return Violation(
            f"{NAME}/discarded",
            "quality.packets_discarded",
            quality.packets_discarded,
            f"<= {expected - lost}",
            f"The jitter buffer discarded {quality.packets_discarded} packets, but only {expected - lost} arrived "
            f"({expected} expected, {lost} lost): look whether lost packets were counted as discarded",
        )
    if events > lost or events > expected - lost + 1:
        return Violation(
            f"{NAME}/loss-events",
            "quality.loss_events",
            events,
            f"<= {min(lost, expected - lost + 1)}",
            f"{lost} packets lost and {expected - lost} arrived cannot make {events} runs of losses, since each run "
            "holds a "
            "lost packet, and between two runs one arrived: look for counters of two streams",
        )
    if expected and not lost and quality.mean.loss_ppm:
        return refuse_mean_loss(quality, 0)
    return None


def _refuse_order(quality: Quality) -> Violation:
    worst = "unknown" if quality.worst is None else quality.worst.mos_milli
    best = "unknown" if quality.best is None else quality.best.mos_milli
    mean_milli, which, other = quality.mean.mos_milli, "below the worst", quality.worst
    if quality.best is not None and quality.best.mos_milli < mean_milli:
        which, other = "above the best", quality.best
    return Violation(
        f"{NAME}/order",
        "quality.mean.mos_milli",
        mean_milli,
        f"worst {worst} <= mean <= best {best}",
        f"The mean MOS is {words.milli(mean_milli)}, {which} reading's "
        f"{words.milli(other.mos_milli if other else 0)}: look "
        "for readings of another call, or of the other side",
    )


def _refuse_samples(quality: Quality, most: int, duration_ms: int) -> Violation:
    return Violation(
        f"{NAME}/samples",
        "quality.samples",
        quality.samples,
        f"<= {most}",
        f"{quality.samples} reports are more than the {most} that one a second from each observer gives in "
        f"{duration_ms} ms: look for reports "
        "of several streams or calls added up",
    )


def _refuse_reading_time(quality: Quality, last_ms: int) -> Violation:
    if quality.mean.at_ms:
        return Violation(
            f"{NAME}/reading-time",
            "quality.mean.at_ms",
            quality.mean.at_ms,
            0,
            f"The mean is said to be of {quality.mean.at_ms} ms after setup, but a mean has no moment: send 0, or look "
            "whether one reading was taken for the mean",
        )
    name, reading = "worst", quality.worst
    if reading is None or reading.at_ms <= last_ms:
        name, reading = "best", quality.best
    at_ms = reading.at_ms if reading else 0
    return Violation(
        f"{NAME}/reading-time",
        f"quality.{name}.at_ms",
        at_ms,
        f"<= {last_ms}",
        f"The {name} reading was taken {at_ms} ms after setup, but {last_ms} ms after it the call was over: look for "
        "seconds since 1970 in its place, or for a reading of another call",
    )


MODULE: Final = RuleModule(
    name=NAME,
    version=1,
    reads=("setup_ms", "end_ms", "codec", "packets_sent", "packets_received", "quality"),
    part="quality",
    tables=("codecs-1", "g107-idd-2015"),
    defaults=MappingProxyType(
        {
            "reading_slack_ms": 1_000,
            "rtpengine_step_milli": rtpengine.STEP_MILLI,
            # A truncated tenth of MOS, and one R at the cubic's steepest slope, 0.0528 MOS.
            "mos_of_r_slack_milli": 153,
            # A hundredth of MOS, however it was rounded.
            "freeswitch_slack_milli": freeswitch.STEP_MILLI,
            # One percent, the coarsest step in which loss is reported.
            "loss_slack_ppm": 10_000,
        }
    ),
    rules=MappingProxyType(
        {
            "order": "Worst MOS <= mean MOS <= best MOS, as far as they are known.",
            "mos-range": (
                "The best MOS known is at most 4.5 in narrowband and 5.0 in wider bands; at most 4.4 for rtpengine_10, "
                "4.3 (in fullband 4.4) for rtpengine_13, 4.5 for freeswitch, and for g107, g107_1 and g107_2 what "
                "the codec reaches "
                "without loss and delay."
            ),
            "r-range": (
                "R is at most 100 in narrowband and for freeswitch, 129 in wideband, 148 in super-wideband and "
                "fullband."
            ),
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
                "Where packets were expected and none was lost, the mean loss is 0. Where the mean shows loss it is "
                "round(1,000,000 x lost / expected): exactly for g107, g107_1 and g107_2 (there also where it shows "
                "none), within loss_slack_ppm for freeswitch, rfc3611 and measured."
            ),
            "expected": (
                "g107, g107_1, g107_2: expected = packets_received + lost (less, where duplicates arrived and nothing "
                "was lost). rtpengine_10, rtpengine_13, freeswitch: expected - lost is at most the greater of "
                "packets_sent and packets_received, where either was counted."
            ),
            "unratable": (
                "g107, g107_1, g107_2 need a ratable codec of their band (narrowband, wideband, fullband), a one-way "
                "delay of at most 2 s, packets expected, and loss events where packets were lost."
            ),
            "r-factor": "g107, g107_1, g107_2: R is exactly the model's.",
            "mos": "g107, g107_1, g107_2: the mean MOS is exactly the model's.",
            "reading": (
                "rtpengine_10, rtpengine_13: the MOS of the worst and the best reading is within rtpengine_step_milli "
                "of the formula on its round trip, jitter and loss (rtpengine_13 in fullband: its formula for 48 kHz)."
            ),
            "r-step": "freeswitch: R is a whole number.",
            "mos-of-r": (
                "Where an R is given, the mean MOS is that of R by G.107's cubic: within mos_of_r_slack_milli for "
                "rtpengine_10 and rtpengine_13, within freeswitch_slack_milli for freeswitch."
            ),
        }
    ),
    compile_check=_compile,
)
"""The released module."""
