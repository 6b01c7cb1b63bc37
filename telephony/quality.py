"""From what a platform says of voice quality to the quality and levels of a record.

Figures are taken over only where they agree with themselves and with the method they claim; where they do not, the
record goes without, and a warning says why: a call must not be lost for a bad MOS. What agrees is decided by the
chain's own rules, at their defaults, so nothing is signed here that a node would refuse for its quality.

Pure. Quantities are integers with the unit last in the name.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from msgspec.structs import replace

from ledger.cdr import CallRecord, Leg, Levels, MosKind, Observer, Quality, QualityMethod, Reading, talk_ms
from ledger.codec import decode, encode
from ledger.errors import EncodingError
from ledger.models.rounding import divide_half_up
from ledger.models.tables import CODECS
from ledger.rules import levels, voice_quality
from ledger.rules.base import RuleContext, Violation
from ledger.rules.flags import RATABLE_MS, RATABLE_PACKETS
from ledger.rules.voice_methods import EMODELS, Emodel
from telephony.source import SourceCall, SourceQuality, SourceReading

_NO_CARBON: Final = RuleContext(frozenset())
_check_quality: Final = voice_quality.MODULE.compile_check(voice_quality.MODULE.defaults, _NO_CARBON)
_check_levels: Final = levels.MODULE.compile_check(levels.MODULE.defaults, _NO_CARBON)

_OBSERVERS: Final = {
    Leg.ORIGINATING: (Observer.CALLER, Observer.BOTH, Observer.CALLEE, Observer.UNKNOWN),
    Leg.TERMINATING: (Observer.CALLEE, Observer.BOTH, Observer.CALLER, Observer.UNKNOWN),
    Leg.TRANSIT: (Observer.BOTH, Observer.CALLER, Observer.CALLEE, Observer.UNKNOWN),
}
"""Whose ears count, best first: a carrier answers for what its own customer heard."""
_RANKS: Final = {leg: {observer: rank for rank, observer in enumerate(order)} for leg, order in _OBSERVERS.items()}

# Looking up a member of an enum takes longer than what is asked of it.
_RTPENGINE_10: Final = QualityMethod.RTPENGINE_10
_FREESWITCH: Final = QualityMethod.FREESWITCH
_RTPENGINE: Final = frozenset({_RTPENGINE_10, QualityMethod.RTPENGINE_13})
"""Methods whose extremes the rules recompute, so that an extreme needs all of its inputs."""

_MODEL_OF: Final[dict[int, Emodel]] = {row: model for model in EMODELS for row in model.impairments}
"""The E-model that can rate a codec, by its row."""

MOS_MILLI_MIN: Final = 1_000
FREESWITCH_MOS_MILLI_MIN: Final = 980
"""The cubic dips below the scale for R under 6.5, and FreeSWITCH shows what it gives."""


class _Refused(NamedTuple):
    """Why there is no quality from what one observer heard."""

    why: str
    is_contradiction: bool = False
    """The figures are wrong; otherwise they are merely too few, and another observer may have more."""


def add_quality(record: CallRecord, call: SourceCall, warnings: list[str]) -> CallRecord:
    """Return ``record`` with the quality of ``call``, or as it is, with a warning, where none can stand.

    record: complete but for quality and levels. Of the observers with enough figures the one nearest to this carrier's
    customer counts. A contradiction is a warning and no quality; there is no falling back to another observer, which
    would be choosing among figures of a relay that has just been caught out.
    """
    if not call.qualities:
        return record
    reasons = []
    rank = _RANKS[record.leg]
    for found in sorted(call.qualities, key=lambda quality: rank[quality.observer]):
        made = _quality_of(found, record)
        if isinstance(made, Quality):
            rated = replace(record, quality=made)
            refused = _refusal_of(made, rated)
            if refused is None:
                return rated
            # What was computed here accuses nobody: its inputs were not meant for it.
            made = _Refused(refused, is_contradiction=found.average.mos_milli > 0)
        if made.is_contradiction:
            warnings.append(f"quality left out: {made.why}")
            return record
        reasons.append(made.why)
    warnings.append(f"quality left out: {reasons[0]}")
    return record


def add_levels(record: CallRecord, call: SourceCall, warnings: list[str]) -> CallRecord:
    """Return ``record`` with the levels of ``call``, or as it is, with a warning, where they contradict themselves."""
    if call.levels is None:
        return record
    levelled = replace(record, levels=call.levels)
    refused = _out_of_bounds(call.levels)
    if refused is None:
        violation = _check_levels(levelled)
        if violation is None:
            return levelled
        refused = _told(violation)
    warnings.append(f"levels left out: {refused}")
    return record


def _refusal_of(quality: Quality, rated: CallRecord) -> str | None:
    """Return why a node would refuse this quality, None where it would not."""
    refused = _out_of_bounds(quality)
    if refused is not None:
        return refused
    violation = _check_quality(rated)
    return None if violation is None else _told(violation)


def _out_of_bounds(value: Quality | Levels) -> str | None:
    """Return which bound of its type ``value`` breaks, None where none: making one in Python asks for no bounds."""
    try:
        decode(encode(value), type(value))
    except EncodingError as error:
        return str(error)
    except OverflowError:
        return "a figure is longer than 64 bits"
    return None


def _told(violation: Violation) -> str:
    value = "null" if violation.value is None else violation.value
    return f"{violation.message} ({violation.field} is {value}, expected {violation.bound})"


def _quality_of(found: SourceQuality, record: CallRecord) -> Quality | _Refused:
    """Return what ``found`` says as a record has it, whether it holds or not."""
    if not found.average.mos_milli:
        return _computed(found, record)
    method = found.method
    needs_all = method in _RTPENGINE
    duration_ms = record.end_ms - record.setup_ms
    mean = _reading_of(found.average, method, 0, needs_all=method is _RTPENGINE_10)
    if mean is None or (found.samples is None and needs_all):
        return _Refused("a MOS without samples, round trip, jitter or loss cannot be checked")
    return Quality(
        method=method,
        band=found.band,
        kind=found.kind,
        observer=found.observer,
        samples=found.samples or 0,
        r_milli=found.r_milli,
        one_way_us=found.one_way_us,
        packets_expected=found.packets_expected,
        packets_lost=found.packets_lost,
        packets_discarded=found.packets_discarded,
        loss_events=found.loss_events,
        mean=mean,
        worst=_reading_of(found.lowest, method, duration_ms, needs_all=needs_all),
        best=_reading_of(found.highest, method, duration_ms, needs_all=needs_all),
    )


def _reading_of(
    reading: SourceReading | None, method: QualityMethod, latest_ms: int, *, needs_all: bool
) -> Reading | None:
    """Return ``reading`` as a record has it, None where it has no MOS, or lacks a figure and needs them all.

    Figures that the platform did not give are 0. Moments are in whole seconds from the media session's second of
    birth, so the last one may seem to lie after the call's end; it is put at ``latest_ms``.
    """
    if reading is None or not reading.mos_milli:
        return None
    mos_milli, rtt_us, jitter_us, loss_ppm = reading.mos_milli, reading.rtt_us, reading.jitter_us, reading.loss_ppm
    if needs_all and (rtt_us is None or jitter_us is None or loss_ppm is None):
        return None
    if method is _FREESWITCH and FREESWITCH_MOS_MILLI_MIN <= mos_milli < MOS_MILLI_MIN:
        mos_milli = MOS_MILLI_MIN
    return Reading(
        mos_milli=mos_milli,
        rtt_us=rtt_us or 0,
        jitter_us=jitter_us or 0,
        loss_ppm=loss_ppm or 0,
        at_ms=min(reading.at_ms or 0, latest_ms),
    )


def _computed(found: SourceQuality, record: CallRecord) -> Quality | _Refused:
    """Return quality by the E-model, from counters and delay of a receiver that gave no MOS itself."""
    model = _MODEL_OF.get(record.codec)
    if model is None:
        name = CODECS[record.codec].name if record.codec in CODECS else str(record.codec)
        return _Refused(f"no MOS was reported, and codec {name} has no confirmed values to compute one with")
    lost, expected, one_way_us = found.packets_lost, found.packets_expected, found.one_way_us
    talked_ms = talk_ms(record)
    if one_way_us is not None and (0 < expected < RATABLE_PACKETS or talked_ms < RATABLE_MS):
        return _Refused(
            f"no MOS was reported, and {expected} packets in {talked_ms} ms of talk are too few to compute one from "
            "(at "
            f"least {RATABLE_PACKETS} in {RATABLE_MS} ms)"
        )
    if one_way_us is None or not expected:
        return _Refused("no MOS was reported, and without packets expected and one-way delay none can be computed")
    ie_milli, bpl_milli = model.impairments[record.codec]
    rating = model.rate(
        ie_milli, bpl_milli, lost=lost, expected=expected, loss_events=found.loss_events, one_way_us=one_way_us
    )
    if rating is None:
        return _Refused(f"no MOS was reported, and {model.name} cannot rate this loss and delay")
    r_milli, mos_milli = rating
    return Quality(
        method=model.method,
        band=model.band,
        kind=MosKind.CQ,
        observer=found.observer,
        samples=found.samples or 0,
        r_milli=r_milli,
        one_way_us=one_way_us,
        packets_expected=expected,
        packets_lost=lost,
        packets_discarded=found.packets_discarded,
        loss_events=found.loss_events,
        mean=Reading(
            mos_milli=mos_milli,
            rtt_us=found.average.rtt_us or 0,
            jitter_us=found.average.jitter_us or 0,
            loss_ppm=divide_half_up(1_000_000 * lost, expected),
            at_ms=0,
        ),
        worst=None,
        best=None,
    )
