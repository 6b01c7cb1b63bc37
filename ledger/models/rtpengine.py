"""Voice quality as rtpengine 10 reports it, in integers.

The formula is the widespread ``effective latency = latency + 2 x jitter + 10``: a rule of thumb that knows
no codec, rated here only so that a record naming it can be recomputed. rtpengine itself uses floating
point; where the exact value lies on a tenth, its result may be one tenth lower. Rules therefore allow
``STEP_MILLI`` either way.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

STEP_MILLI: Final = 100
"""rtpengine counts MOS in tenths."""

MOS_MILLI_MAX: Final = 4_400
"""The best the formula can give: no delay, jitter or loss is R 92.95, MOS 4.404, truncated to 4.4."""

MOS_MILLI_MIN: Final = 1_000

_R_QUARTERS_0: Final = 372_800
"""93.2 in quarters of a thousandth: one ppm of loss costs exactly one quarter of a thousandth of R."""


def _tenths_of(q: int) -> int:
    """Return MOS x 10, truncated and at least 10, for R = q / 4000."""
    if q <= 0:
        return 10
    # 10 x (1 + 0.035 R + 0.000007 R (R - 60) (100 - R)) with R = q / 4000.
    tenths = (64 * 10**15 + 56 * 10**10 * q + 7 * q * (q - 240_000) * (400_000 - q)) // (64 * 10**14)
    return max(tenths, 10)


_STEPS_Q: Final = tuple(
    bisect_left(range(_R_QUARTERS_0 + 1), tenths, key=_tenths_of) for tenths in range(11, _tenths_of(_R_QUARTERS_0) + 1)
)
"""The least q at which MOS reaches 1.1, 1.2 ... 4.4: where to look is four times faster than the cubic."""


def mos_x10(rtt_us: int, jitter_us: int, loss_ppm: int) -> int:
    """Return MOS x 10, truncated: 10 to 44.

    rtt_us: round trip of both legs together, >= 0. jitter_us: >= 0, counted in whole milliseconds as rtpengine does.
    loss_ppm: 0 to 1,000,000 (rtpengine measures whole percents: multiples of 10,000).

    rtpengine reports 0, "no reading", for the few R (under 6.5) where the cubic dips below MOS 1; this returns 10
    there, which is within a tenth of the exact value.
    Source: rtpengine mr10.5, daemon/ssrc.c, ``mos_calc``.
    """
    effective_ms = rtt_us // 1000 + 2 * (jitter_us // 1000) + 10
    if effective_ms < 160:
        return 10 + bisect_right(_STEPS_Q, _R_QUARTERS_0 - 100 * effective_ms - loss_ppm)
    return 10 + bisect_right(_STEPS_Q, _R_QUARTERS_0 - 400 * (effective_ms - 120) - loss_ppm)


def mos_milli(rtt_us: int, jitter_us: int, loss_ppm: int) -> int:
    """Return MOS in thousandths as a record carries it: a multiple of 100 from 1000 to 4400.

    Arguments and source: see ``mos_x10``.
    """
    return 100 * mos_x10(rtt_us, jitter_us, loss_ppm)
