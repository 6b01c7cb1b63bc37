"""The rules on voice quality, as docs/rules.md words them: part of the second implementation.

Written from the document, with integers and the standard library only, and nothing of the project but the other
``audit.reference_*`` files. Slow and plain on purpose: each function is one sentence or formula of the document.
MOS, R, Ie and Bpl are in thousandths, delays in microseconds, loss in parts per million.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from audit.reference_wire import Refused

G107, G107_1, G107_2, RTPENGINE_10, RTPENGINE_13, FREESWITCH = 1, 2, 3, 4, 5, 6
NARROWBAND, WIDEBAND, SUPER_WIDEBAND, FULLBAND = 1, 2, 3, 4
ONE_WAY_US_MAX = 2_000_000


class Codec(NamedTuple):
    """What the rules read of a row of table ``codecs-1``; Ie and Bpl are None where unknown."""

    packet_us: int
    ie_milli: int | None
    bpl_milli: int | None
    band: str
    grade: str


class QualityTables(NamedTuple):
    """Tables ``codecs-1`` by row, and ``g107-idd-2015``: Idd in thousandths at each millisecond."""

    codecs: Mapping[int, Codec]
    idd_milli: Sequence[int]


class Scale(NamedTuple):
    """One of the three E-models."""

    band: int
    codec_band: str
    r0: int
    a: int
    percent: int
    """R as a percentage of that on the narrowband scale."""


SCALES = {
    G107: Scale(NARROWBAND, "N", 93_206, 95_000, 100),
    G107_1: Scale(WIDEBAND, "W", 129_000, 95_000, 129),
    G107_2: Scale(FULLBAND, "F", 148_000, 132_000, 148),
}
MOS_MAX = {NARROWBAND: 4_500, WIDEBAND: 5_000, SUPER_WIDEBAND: 5_000, FULLBAND: 5_000}
R_MAX = {NARROWBAND: 100_000, WIDEBAND: 129_000, SUPER_WIDEBAND: 148_000, FULLBAND: 148_000}


def divide(a: int, b: int) -> int:
    """Return round(a / b), half up, for b > 0."""
    return (2 * a + b) // (2 * b)


# -- the formulas of "Models" ------------------------------------------------------------------------------------------


def mos_of(r: int) -> int:
    """Return G.107's MOS of R."""
    if r <= 0:
        return 1_000
    mos = divide(divide(10**15 + 35 * 10**9 * r + 7 * r * (r - 60_000) * (100_000 - r), 10**9), 1_000)
    return min(max(mos, 1_000), 4_500)


def idd_of(idd: Sequence[int], one_way_us: int) -> int:
    """Return the delay impairment of G.107, interpolated between the milliseconds below and above."""
    ms, f = divmod(one_way_us, 1_000)
    return idd[ms] + divide((idd[ms + 1] - idd[ms]) * f, 1_000) if f else idd[ms]


def burst_ratio(lost: int, expected: int, events: int) -> int:
    """Return BurstR in thousandths; at least one loss event where packets were lost."""
    return max(1_000, divide(1_000 * lost * (expected - lost), events * expected)) if lost else 1_000


def wide_r(scale: Scale, ie: int, bpl: int, lost: int, expected: int, idd: int) -> int:
    """Return R of G.107.1 or G.107.2, not yet at least 0; ``idd`` is G.107's."""
    if scale.percent == 148:
        idd = divide(148 * idd, 100)
    if lost:
        ie += divide((scale.a - ie) * 10**5 * lost, 10**5 * lost + bpl * expected)
    return scale.r0 - idd - ie


def rate(method: int, codec: Codec, quality: Any, idd: Sequence[int]) -> tuple[int, int] | None:
    """Return (R, MOS) of a ratable call by its E-model; None where its losses come in bursts that it does not rate."""
    ie, bpl, one_way_us = codec.ie_milli, codec.bpl_milli, quality.one_way_us
    assert ie is not None
    assert bpl is not None
    assert one_way_us is not None
    lost, expected = quality.packets_lost, quality.packets_expected
    b = burst_ratio(lost, expected, quality.loss_events)
    delay = idd_of(idd, one_way_us)
    scale = SCALES[method]
    if method == G107:
        if lost:
            ie += divide(1_000 * (scale.a - ie) * 100 * lost * b, 10**8 * lost + bpl * expected * b)
        r = min(max(scale.r0 - delay - ie, 0), 100_000)
        return r, mos_of(r)
    if b > 1_000:
        return None
    r = max(wide_r(scale, ie, bpl, lost, expected, delay), 0)
    return r, mos_of(divide(100 * r, scale.percent))


def rtpengine_10(reading: Any) -> int:
    """Return the MOS of rtpengine 10, in thousandths."""
    e = reading.rtt_us // 1_000 + 2 * (reading.jitter_us // 1_000) + 10
    # In quarters of a thousandth, in which loss is whole: r = q / 4000.
    q: int = 4 * 93_200 - 4 * (25 * e if e < 160 else 100 * (e - 120)) - reading.loss_ppm
    if q <= 0:
        return 1_000
    cubic = 64 * 10**15 + 56 * 10**10 * q + 7 * q * (q - 240_000) * (400_000 - q)
    return 100 * max(10, cubic // (64 * 10**14))


def to_zero(a: int, b: int) -> int:
    """Return a / b without its fraction (``div``), for b > 0."""
    return a // b if a >= 0 else -(-a // b)


def rtpengine_cubic(r: int) -> int:
    """Return the MOS in tenths of ``r``, R in thousandths, in the fixed point of rtpengine 11 and later."""
    bend = to_zero((r - 60_000) * (100_000 - r), 1_000)
    bend = to_zero(7 * to_zero(r * bend, 1_000), 10**7)
    return max(10, to_zero(100 + 35 * r // 10**4 + bend, 10))


def rtpengine_13(reading: Any, band: int, idd: Sequence[int]) -> int:
    """Return the MOS of rtpengine 11 and later, in thousandths."""
    p = reading.loss_ppm // 10**4
    d = reading.rtt_us // 2 + 1_000 * (reading.jitter_us // 1_000)
    if band == FULLBAND:
        r = wide_r(SCALES[G107_2], 10_200, 4_300, p, 100, idd_of(idd, min(d, ONE_WAY_US_MAX)))
        return 1_000 if r < 0 else 100 * rtpengine_cubic(divide(10**4 * r, 148) // 100)
    t = 24 * d // 1_000 + (11 * (d - 177_300) // 100 if d > 177_300 else 0)
    y = 9_320 - 100 * p if p <= 93 else 0
    r = 18 * y**2 // 10 - 27_900 * y + 112_662_000 - 100 * t
    if r < 0 or r > 10**7:
        return 1_000 if r < 0 else 4_500
    return 100 * rtpengine_cubic(r // 100)


# -- the rules of "voice-quality", in the order in which they are asked ------------------------------------------------


def _refuse(rule: str, field: str) -> Refused:
    return Refused(f"quality.{field}" if field != "codec" else field, f"voice-quality/{rule}")


def check_quality(call: Any, parameters: Mapping[str, int], tables: QualityTables) -> None:
    """Check the rules that all methods share, then those of the record's method. Raises Refused."""
    if call.quality is None:
        return
    _check_readings(call, parameters)
    _check_counters(call.quality)
    if call.quality.method in SCALES:
        _check_emodel(call, tables)
    elif call.quality.method in {RTPENGINE_10, RTPENGINE_13}:
        _check_rtpengine(call, parameters, tables)
    elif call.quality.method == FREESWITCH:
        _check_freeswitch(call, parameters)
    else:
        _check_loss(call.quality, parameters)


def _check_readings(call: Any, parameters: Mapping[str, int]) -> None:
    quality, duration_ms = call.quality, call.end_ms - call.setup_ms
    mean, worst, best = quality.mean, quality.worst, quality.best
    if (worst and worst.mos_milli > mean.mos_milli) or (best and best.mos_milli < mean.mos_milli):
        raise _refuse("order", "mean.mos_milli")
    _check_mos_range(quality, MOS_MAX[quality.band])
    if quality.r_milli is not None and quality.r_milli > R_MAX[quality.band]:
        raise _refuse("r-range", "r_milli")
    sides = 1 if quality.observer in {1, 2} else 2
    if quality.samples > sides * (duration_ms // 1_000 + 1):
        raise _refuse("samples", "samples")
    if mean.at_ms:
        raise _refuse("reading-time", "mean.at_ms")
    for name, reading in (("worst", worst), ("best", best)):
        if reading and reading.at_ms > duration_ms + parameters["reading_slack_ms"]:
            raise _refuse("reading-time", f"{name}.at_ms")


def _check_mos_range(quality: Any, most: int) -> None:
    name, reading = ("best", quality.best) if quality.best else ("mean", quality.mean)
    if reading.mos_milli > most:
        raise _refuse("mos-range", f"{name}.mos_milli")


def _check_counters(quality: Any) -> None:
    lost, arrived = quality.packets_lost, quality.packets_expected - quality.packets_lost
    if arrived < 0:
        raise _refuse("lost", "packets_lost")
    if quality.packets_discarded > arrived:
        raise _refuse("discarded", "packets_discarded")
    if quality.loss_events > min(lost, arrived + 1):
        raise _refuse("loss-events", "loss_events")
    if quality.packets_expected and not lost and quality.mean.loss_ppm:
        raise _refuse("loss", "mean.loss_ppm")


def _check_emodel(call: Any, tables: QualityTables) -> None:
    quality = call.quality
    codec, scale = tables.codecs.get(call.codec), SCALES[quality.method]
    lost, expected, one_way_us = quality.packets_lost, quality.packets_expected, quality.one_way_us
    if quality.band != scale.band:
        raise _refuse("unratable", "band")
    if codec is None or not _is_ratable(codec, scale):
        raise _refuse("unratable", "codec")
    if not expected:
        raise _refuse("unratable", "packets_expected")
    if one_way_us is None:
        raise _refuse("unratable", "one_way_us")
    if expected > call.packets_received + lost or (lost and expected != call.packets_received + lost):
        raise _refuse("expected", "packets_expected")
    if one_way_us > ONE_WAY_US_MAX:
        raise _refuse("unratable", "one_way_us")
    rating = rate(quality.method, codec, quality, tables.idd_milli) if quality.loss_events or not lost else None
    if rating is None:
        raise _refuse("unratable", "loss_events")
    if quality.r_milli != rating[0]:
        raise _refuse("r-factor", "r_milli")
    if quality.mean.mos_milli != rating[1]:
        raise _refuse("mos", "mean.mos_milli")
    if quality.mean.loss_ppm != divide(1_000_000 * lost, expected):
        raise _refuse("loss", "mean.loss_ppm")
    clean = quality._replace(one_way_us=0, packets_expected=1, packets_lost=0, loss_events=0)
    ceiling = rate(quality.method, codec, clean, tables.idd_milli)
    if quality.best and ceiling:
        _check_mos_range(quality, ceiling[1])


def _is_ratable(codec: Codec, scale: Scale) -> bool:
    known = codec.ie_milli is not None and codec.bpl_milli is not None
    return known and codec.band == scale.codec_band and codec.grade in {"A", "B"}


def _check_rtpengine(call: Any, parameters: Mapping[str, int], tables: QualityTables) -> None:
    quality = call.quality
    is_10, band = quality.method == RTPENGINE_10, quality.band
    _check_mos_range(quality, 4_300 if not is_10 and band != FULLBAND else 4_400)
    for name, reading in (("worst", quality.worst), ("best", quality.best)):
        if reading:
            mos = rtpengine_10(reading) if is_10 else rtpengine_13(reading, band, tables.idd_milli)
            if abs(reading.mos_milli - mos) > parameters["rtpengine_step_milli"]:
                raise _refuse("reading", f"{name}.mos_milli")
    _check_mos_of_r(quality, parameters["mos_of_r_slack_milli"])
    _check_arrived(call)


def _check_freeswitch(call: Any, parameters: Mapping[str, int]) -> None:
    quality = call.quality
    _check_mos_range(quality, 4_500)
    if quality.r_milli is not None:
        if quality.r_milli > 100_000:
            raise _refuse("r-range", "r_milli")
        if quality.r_milli % 1_000:
            raise _refuse("r-step", "r_milli")
    _check_mos_of_r(quality, parameters["freeswitch_slack_milli"])
    _check_loss(quality, parameters)
    _check_arrived(call)


def _check_mos_of_r(quality: Any, slack: int) -> None:
    if quality.r_milli is not None and abs(quality.mean.mos_milli - mos_of(quality.r_milli)) > slack:
        raise _refuse("mos-of-r", "mean.mos_milli")


def _check_loss(quality: Any, parameters: Mapping[str, int]) -> None:
    expected, loss_ppm = quality.packets_expected, quality.mean.loss_ppm
    if expected and loss_ppm:
        counted = divide(1_000_000 * quality.packets_lost, expected)
        if abs(loss_ppm - counted) > parameters["loss_slack_ppm"]:
            raise _refuse("loss", "mean.loss_ppm")


def _check_arrived(call: Any) -> None:
    quality = call.quality
    most = max(call.packets_sent, call.packets_received)
    if most and quality.packets_expected - quality.packets_lost > most:
        raise _refuse("expected", "packets_expected")
