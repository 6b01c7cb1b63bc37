"""Voice quality by the E-model, ITU-T G.107 (06/2015), narrowband, in integers.

Two carriers must compute the same number from the same record, so nothing here is a floating-point number:
quantities are integers in thousandths (``_milli``) or millionths (``_micro``), and the one function that
needs logarithms and roots, the delay impairment Idd, is a pinned table (``tables/g107_idd.csv``, made by
``scripts/make-tables``).

Everything that does not change from call to call (loudness, noise, sidetone, echo) has G.107's default
value; together they give ``R0_MILLI``. What is left is what a network can measure::

    R = R0 - Idd(one-way delay) - Ie,eff(codec, loss, burstiness)

Against the floating-point model R is within 0.002 and MOS within 0.00011 everywhere (0.0017 and 0.00009 over the 490
vectors); ``tests/ledger/models`` holds both to it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

from ledger.errors import FieldError
from ledger.models.rounding import divide_half_up
from ledger.models.tables import load_idd_milli

R0_MILLI: Final = 93_206
"""R with every parameter of G.107 at its default: Ro 94.768822 - Is 1.413568 - Idle 0.149046."""

R_MILLI_MAX: Final = 100_000
"""Top of the narrowband R scale."""

R_MILLI_OF_MOS_1: Final = 6_515
"""The greatest R whose MOS is 1: from here to 100 each R has its own MOS, in millionths."""

MOS_MICRO_MIN: Final = 1_000_000
MOS_MICRO_MAX: Final = 4_500_000
"""MOS is a scale from 1.0 to 4.5; the cubic of G.107 Annex B leaves it at both ends."""

MOS_MILLI_MIN: Final = 1_000
MOS_MILLI_MAX: Final = 4_500

IE_MILLI_MAX: Final = 95_000
"""The impairment at which nothing is heard any more (G.107, equation 7-29)."""

ONE_WAY_US_MAX: Final = 2_000_000
"""Longest one-way delay that is rated: 2 s. Beyond it there is no conversation to rate."""

RANDOM_MILLI: Final = 1_000
"""1000 x the burst ratio of random loss, the least there is."""

_FREE_US: Final = 100_000
"""One-way delay that costs nothing: Idd is 0 up to 100 ms."""

_IDD_MILLI: Final = load_idd_milli()
_IDD_STEPS_MILLI: Final = tuple(
    after - before for before, after in zip(_IDD_MILLI, _IDD_MILLI[1:] + _IDD_MILLI[-1:], strict=True)
)


def idd_milli(one_way_us: int) -> int:
    """Return the delay impairment Idd in thousandths of R.

    one_way_us: mouth-to-ear delay, 0 to ``ONE_WAY_US_MAX``. Between two table rows (1 ms apart) the value
    is interpolated linearly. Raises IndexError outside the bounds; ``rate`` asks before it calls.
    Source: G.107 (06/2015), equations 7-27 and 7-28, sT = 1, mT = 100 ms.
    """
    ms, us = divmod(one_way_us, 1000)
    return _IDD_MILLI[ms] + (_IDD_STEPS_MILLI[ms] * us + 500) // 1000


def burst_ratio_milli(lost: int, expected: int, loss_events: int) -> int:
    """Return 1000 x BurstR: mean loss-burst length over what random loss would give, at least 1000.

    lost: packets that did not arrive, 0 to ``expected``. expected: packets sent to the listener.
    loss_events: runs of consecutive lost packets, > 0 whenever ``lost`` > 0 (the caller checks).
    Source: G.107 (06/2015), clause 7.2, "Burst Ratio".
    """
    if not lost:
        return 1000
    return max(1000, divide_half_up(1000 * lost * (expected - lost), loss_events * expected))


def ie_eff_milli(ie_milli: int, bpl_milli: int, lost: int, expected: int, burst_milli: int) -> int:
    """Return the effective equipment impairment Ie,eff in thousandths of R.

    ie_milli, bpl_milli: the codec's Ie and Bpl (``ledger.models.tables.CODECS``). lost, expected: packets.
    burst_milli: 1000 x BurstR, >= 1000.
    Source: G.107 (06/2015), equation 7-29.
    """
    if not lost:
        return ie_milli
    return ie_milli + divide_half_up(
        1000 * (IE_MILLI_MAX - ie_milli) * 100 * lost * burst_milli,
        100_000_000 * lost + bpl_milli * expected * burst_milli,
    )


def r_milli_unclamped(
    ie_milli: int, bpl_milli: int, lost: int, expected: int, burst_milli: int, *, one_way_us: int
) -> int:
    """Return R in thousandths as the formula gives it; below 0 on a very bad network."""
    return R0_MILLI - idd_milli(one_way_us) - ie_eff_milli(ie_milli, bpl_milli, lost, expected, burst_milli)


def mos_micro(r_milli: int) -> int:
    """Return MOS in millionths for an R in thousandths (any integer; R beyond 100 counts as 100).

    The cubic dips below 1 for R under 6.5; there, and for R <= 0, MOS is 1.
    Source: G.107 (06/2015), Annex B, equation B-4.
    """
    if r_milli <= 0:
        return MOS_MICRO_MIN
    r = min(r_milli, R_MILLI_MAX)
    cubic = divide_half_up(10**15 + 35 * 10**9 * r + 7 * r * (r - 60_000) * (100_000 - r), 10**9)
    return min(MOS_MICRO_MAX, max(MOS_MICRO_MIN, cubic))


def mos_milli(r_milli: int) -> int:
    """Return MOS in thousandths, 1000 to 4500, for an R in thousandths: what a record carries."""
    return (mos_micro(r_milli) + 500) // 1000


def r_milli_of(mos: int) -> int:
    """Return the R, in thousandths, of a MOS in millionths: the least with at least this MOS.

    mos: ``MOS_MICRO_MIN`` to ``MOS_MICRO_MAX``; the answer lies between 6.5 and 100, where the cubic has an inverse
    (below R 6.5 MOS is 1 throughout). ``r_milli_of(mos_micro(r))`` is ``r`` for every R from ``R_MILLI_OF_MOS_1`` on.
    Raises FieldError for anything outside the scale.
    Source: G.107 (06/2015), Appendix I; found by bisection, since its closed form needs arc functions.
    """
    if not MOS_MICRO_MIN <= mos <= MOS_MICRO_MAX:
        expected = f"{MOS_MICRO_MIN} to {MOS_MICRO_MAX} millionths"
        raise FieldError("no R has this MOS", where="mos", expected=expected, actual=mos)
    return bisect_left(range(R_MILLI_MAX), mos, lo=R_MILLI_OF_MOS_1, key=mos_micro)


def _mos_steps() -> list[int]:
    """Return the least R, in thousandths, at which MOS reaches 1.001, 1.002 ... its greatest."""
    steps: list[int] = []
    start = 0
    for target in range(MOS_MILLI_MIN + 1, mos_milli(R0_MILLI) + 1):
        # From R 6.5 on MOS never rises by less than a thousandth in 512 thousandths of R.
        end = min(start + 512, R0_MILLI + 1) if steps else R0_MILLI + 1
        start = bisect_left(range(end), target, lo=start, key=mos_milli)
        steps.append(start)
    return steps


_MOS_STEPS_R_MILLI: Final = _mos_steps()
"""Where MOS takes its next thousandth: looking there is several times faster than the cubic."""


def rate(
    ie_milli: int, bpl_milli: int, *, lost: int, expected: int, loss_events: int, one_way_us: int
) -> tuple[int, int] | None:
    """Return ``(r_milli, mos_milli)`` of a call as a record carries them, or None if it cannot be rated.

    ie_milli, bpl_milli: of a codec row that is ratable. lost, expected: packets, 0 <= lost <= expected.
    loss_events: runs of lost packets. one_way_us: mouth-to-ear delay.
    R is clamped to 0..100 after MOS was taken from it (it makes no difference to MOS).

    None: one-way delay beyond 2 s, nothing expected, or counters that contradict each other (losses without
    a loss event, more events than losses, more lost than expected, anything negative). Unratable is not
    bad: the record then has no quality.
    """
    if not 0 <= lost <= expected or not expected:
        return None
    # What follows is mos_milli(r_milli_unclamped(...)) written out: every rated record passes through here twice.
    r_milli = R0_MILLI - ie_milli
    if one_way_us > _FREE_US:
        if one_way_us > ONE_WAY_US_MAX:
            return None
        ms = one_way_us // 1000
        r_milli -= _IDD_MILLI[ms] + (_IDD_STEPS_MILLI[ms] * (one_way_us - 1000 * ms) + 500) // 1000
    elif one_way_us < 0:
        return None
    if lost:
        if not 0 < loss_events <= lost:
            return None
        spread = loss_events * expected
        burst_milli = (1000 * lost * (expected - lost) + (spread >> 1)) // spread
        if burst_milli < 1000:  # noqa: PLR1730 - max() costs four times as much
            burst_milli = 1000
        divisor = 100_000_000 * lost + bpl_milli * expected * burst_milli
        r_milli -= (100_000 * (IE_MILLI_MAX - ie_milli) * lost * burst_milli + (divisor >> 1)) // divisor
    elif loss_events:
        return None
    if r_milli < 0:  # noqa: PLR1730 - as above
        r_milli = 0
    return r_milli, MOS_MILLI_MIN + bisect_right(_MOS_STEPS_R_MILLI, r_milli)
