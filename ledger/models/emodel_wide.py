"""Voice quality by the wideband and the fullband E-model, ITU-T G.107.1 and G.107.2, in integers.

Both keep the shape of G.107 and stretch its scale: R reaches 129 for wideband and 148 for fullband speech, and MOS
is the narrowband's of R divided by 1.29 or 1.48. A MOS of one band therefore says nothing beside that of another::

    R = R0 - Idd(one-way delay) - Ie,eff(codec, loss)

Loss enters as random loss (BurstR 1), which is what both are published for: a call whose losses came in bursts is
unratable here. So is every codec without a confirmed value on the band's own scale; a narrowband Ie does not carry
over. The shipped table has none as yet, so for now a caller brings Ie and Bpl along.

Against the floating-point models R is within 0.004 and MOS within 0.0002 (``tests/ledger/models``).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ledger.models import emodel
from ledger.models.rounding import divide_half_up


class Scale(NamedTuple):
    """What sets a band's model apart from the narrowband's."""

    r0_milli: int
    """R without any impairment, the top of the scale."""
    ie_milli_max: int
    """The impairment at which nothing is heard any more."""
    idd_percent: int
    """100 x what the narrowband's delay impairment is multiplied by."""
    r_percent: int
    """100 x what R is divided by before the narrowband's cubic turns it into MOS."""


WIDEBAND: Final = Scale(r0_milli=129_000, ie_milli_max=95_000, idd_percent=100, r_percent=129)
"""G.107.1: 50 to 7000 Hz."""

FULLBAND: Final = Scale(r0_milli=148_000, ie_milli_max=132_000, idd_percent=148, r_percent=148)
"""G.107.2: 20 to 20,000 Hz."""


def idd_milli(scale: Scale, one_way_us: int) -> int:
    """Return the delay impairment Idd in thousandths of R.

    one_way_us: mouth-to-ear delay, 0 to ``emodel.ONE_WAY_US_MAX``; raises IndexError outside.
    """
    return divide_half_up(emodel.idd_milli(one_way_us) * scale.idd_percent, 100)


def ie_eff_milli(scale: Scale, ie_milli: int, bpl_milli: int, lost: int, expected: int) -> int:
    """Return the effective equipment impairment Ie,eff under random loss, in thousandths of R.

    ie_milli, bpl_milli: of the codec, on this band's scale; Ie at most ``scale.ie_milli_max``. lost, expected: packets,
    0 <= lost <= expected and expected > 0.
    """
    if not lost:
        return ie_milli
    return ie_milli + divide_half_up(
        (scale.ie_milli_max - ie_milli) * 100_000 * lost, 100_000 * lost + bpl_milli * expected
    )


def r_milli_unclamped(scale: Scale, ie_milli: int, bpl_milli: int, lost: int, expected: int, *, one_way_us: int) -> int:
    """Return R in thousandths as the formula gives it; below 0 on a very bad network."""
    return scale.r0_milli - idd_milli(scale, one_way_us) - ie_eff_milli(scale, ie_milli, bpl_milli, lost, expected)


def mos_micro(scale: Scale, r_milli: int) -> int:
    """Return MOS in millionths for an R of this scale in thousandths; any integer."""
    if r_milli <= 0:
        return emodel.MOS_MICRO_MIN
    return emodel.mos_micro(divide_half_up(100 * r_milli, scale.r_percent))


def mos_milli(scale: Scale, r_milli: int) -> int:
    """Return MOS in thousandths, 1000 to 4500: what a record carries."""
    return (mos_micro(scale, r_milli) + 500) // 1000


def r_milli_of(scale: Scale, mos: int) -> int:
    """Return the R of this scale, in thousandths, of a MOS in millionths.

    Raises FieldError for a MOS outside 1 to 4.5; see ``emodel.r_milli_of``.
    """
    return divide_half_up(emodel.r_milli_of(mos) * scale.r_percent, 100)


def rate(
    scale: Scale, ie_milli: int, bpl_milli: int, *, lost: int, expected: int, loss_events: int, one_way_us: int
) -> tuple[int, int] | None:
    """Return ``(r_milli, mos_milli)`` of a call as a record carries them, or None if it cannot be rated.

    Arguments and reasons for None: as ``emodel.rate``, and losses in bursts (a burst ratio above 1). R is clamped to
    the scale, 0 to ``scale.r0_milli``.
    """
    if not 0 <= lost <= expected or not expected or not 0 <= one_way_us <= emodel.ONE_WAY_US_MAX:
        return None
    if lost:
        if not 0 < loss_events <= lost or emodel.burst_ratio_milli(lost, expected, loss_events) > emodel.RANDOM_MILLI:
            return None
    elif loss_events:
        return None
    r_milli = r_milli_unclamped(scale, ie_milli, bpl_milli, lost, expected, one_way_us=one_way_us)
    return max(0, r_milli), mos_milli(scale, r_milli)
