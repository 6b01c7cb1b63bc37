"""Voice quality as newer rtpengines report it (mr13), in integers.

Two formulas, chosen by the codec. Narrowband and wideband codecs are rated by a published approximation of G.107
(H. Assem, D. Malone, J. Dunne, P. O'Sullivan: Monitoring VoIP call quality using improved simplified E-model, 2013)
with delay in milliseconds::

    Ta = rtt / 2 + jitter            Ry = 93.2 - loss percent
    R = 0.18 Ry^2 - 27.9 Ry + 1126.62 - 0.024 Ta - 0.11 (Ta - 177.3 where above)

Its parabola turns at Ry 77.5: beyond 15.7 % of loss *more loss gives a better MOS*, 4.5 from 93 % on. That is what
rtpengine reports, so this returns it; ``MOS_MILLI_MAX`` is the best a call without such loss can get, and what is
above is no rating. Codecs with a 48 kHz clock (Opus) are rated as by G.107.2, with Ie 10.2 and Bpl 4.3 for whichever
codec it is: values that stand in no recommendation.

rtpengine truncates at each step, and so does this: on the same inputs the first formula is exact to the digit. The
second is floating point there and may differ by ``STEP_MILLI``.
Source of both: rtpengine mr13, daemon/ssrc.c.
"""

from __future__ import annotations

from typing import Final

from ledger.models import emodel, emodel_wide
from ledger.models.rounding import divide_half_up

STEP_MILLI: Final = 100
"""rtpengine counts MOS in tenths."""

MOS_MILLI_MIN: Final = 1_000

MOS_MILLI_MAX: Final = 4_300
"""The best of a narrowband or wideband codec: without delay, jitter or loss R 89.86, truncated to 4.3."""

FULLBAND_MOS_MILLI_MAX: Final = 4_400
"""The best of a codec with a 48 kHz clock. Without delay R 93.1 is truncated to 4.3; from 144 ms one way on
R 93.0 is 4.4, since the fixed point's truncations then fall otherwise."""

FALLING_LOSS_PPM_MAX: Final = 150_000
"""Whole percents of loss up to which more of it makes the narrowband MOS worse."""

FULLBAND_CLOCK_HZ: Final = 48_000
"""RTP clock of the codecs that the second formula rates."""

OPUS_IE_MILLI: Final = 10_200
OPUS_BPL_MILLI: Final = 4_300

_PPM_PER_PERCENT: Final = 10_000
_UNHEARD_PERCENT: Final = 93
"""More loss than this counts as Ry 0."""
_STEEP_US: Final = 177_300


def _toward_zero(numerator: int, denominator: int) -> int:
    """Return the quotient without its fraction, as C divides: -7 / 2 is -3."""
    return numerator // denominator if numerator >= 0 else -(-numerator // denominator)


def _mos_x10_of(r_e5: int) -> int:
    """Return MOS x 10 for R in units of 0.00001, in rtpengine's own fixed point."""
    if r_e5 < 0:
        return 10
    if r_e5 > 100 * 100_000:
        return 45
    r = r_e5 // 100
    bend = _toward_zero((r - 60_000) * (100_000 - r), 1_000)
    bend = _toward_zero(7 * _toward_zero(r * bend, 1_000), 10_000_000)
    return max(10, _toward_zero(100 + 35 * r // 10_000 + bend, 10))


def _r_e5(rtt_us: int, jitter_us: int, loss_ppm: int) -> int:
    """Return R of a narrowband or wideband codec in units of 0.00001."""
    one_way_us = rtt_us // 2 + jitter_us // 1000 * 1000
    delay_milli = 24 * one_way_us // 1000
    if one_way_us > _STEEP_US:
        delay_milli += 11 * (one_way_us - _STEEP_US) // 100
    loss_percent = loss_ppm // _PPM_PER_PERCENT
    ry = 9_320 - 100 * loss_percent if loss_percent <= _UNHEARD_PERCENT else 0
    return 18 * ry * ry // 10 - 27_900 * ry + 112_662_000 - 100 * delay_milli


def r_milli(rtt_us: int, jitter_us: int, loss_ppm: int) -> int:
    """Return R of a narrowband or wideband codec in thousandths, unclamped; arguments as ``mos_x10``."""
    return _r_e5(rtt_us, jitter_us, loss_ppm) // 100


def mos_x10(rtt_us: int, jitter_us: int, loss_ppm: int) -> int:
    """Return MOS x 10 of a narrowband or wideband codec: 10 to 45.

    rtt_us: round trip of both legs together, >= 0. jitter_us: >= 0, counted in whole milliseconds. loss_ppm: 0 to
    1,000,000, counted in whole percents; both as rtpengine does.
    """
    return _mos_x10_of(_r_e5(rtt_us, jitter_us, loss_ppm))


def r_milli_fullband(rtt_us: int, jitter_us: int, loss_ppm: int) -> int:
    """Return R of a codec with a 48 kHz clock in thousandths on the scale to 148, unclamped; arguments as ``mos_x10``.

    One-way delay beyond 2 s counts as 2 s: the impairment has all but ceased to grow.
    """
    one_way_us = min(rtt_us // 2 + jitter_us // 1000 * 1000, emodel.ONE_WAY_US_MAX)
    return emodel_wide.r_milli_unclamped(
        emodel_wide.FULLBAND, OPUS_IE_MILLI, OPUS_BPL_MILLI, loss_ppm // _PPM_PER_PERCENT, 100, one_way_us=one_way_us
    )


def mos_x10_fullband(rtt_us: int, jitter_us: int, loss_ppm: int) -> int:
    """Return MOS x 10 of a codec with a 48 kHz clock: 10 to 44; arguments as ``mos_x10``."""
    r = r_milli_fullband(rtt_us, jitter_us, loss_ppm)
    return 10 if r < 0 else _mos_x10_of(divide_half_up(100 * 100 * r, emodel_wide.FULLBAND.r_percent))


def mos_milli(rtt_us: int, jitter_us: int, loss_ppm: int, *, fullband: bool = False) -> int:
    """Return MOS in thousandths as a record carries it: a multiple of 100 from 1000 to 4500.

    fullband: the codec's clock runs at 48 kHz. Other arguments: see ``mos_x10``.
    """
    return 100 * (mos_x10_fullband if fullband else mos_x10)(rtt_us, jitter_us, loss_ppm)
