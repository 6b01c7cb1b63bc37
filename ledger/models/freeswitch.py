"""Voice quality as FreeSWITCH reports it, in integers.

``R = int(100 (received - flaws) / received)``, and MOS by the cubic of G.107. A flaw is a packet that was missing or
came at the wrong moment; flaws that follow one another are counted again as a penalty. Neither delay nor codec has a
part in it, so a call over two satellites can have MOS 4.5.

FreeSWITCH divides in floating point: where the exact quotient is a whole percent, its R may be 1 lower.

Before the first packet, and as long as there is no flaw, FreeSWITCH shows MOS 4.50 and R 100: with no packets
received that is nobody's measurement (``is_measured``).
Source: FreeSWITCH 1.10, src/switch_rtp.c, ``do_mos``.
"""

from __future__ import annotations

from typing import Final

from ledger.models import emodel

MOS_MILLI_MAX: Final = emodel.MOS_MILLI_MAX
STEP_MILLI: Final = 10
"""FreeSWITCH writes MOS with two decimals."""


def is_measured(received: int) -> bool:
    """Return whether there is anything behind the figures: received is the packets that came in."""
    return received > 0


def r_percent(received: int, flaws: int) -> int | None:
    """Return R, 0 to 100, truncated; None where nothing was received.

    received: packets that came in, >= 0. flaws: >= 0; FreeSWITCH starts counting anew where they exceed ``received``,
    which gives 100.
    """
    if not is_measured(received):
        return None
    return 100 * (received - flaws) // received if 0 <= flaws <= received else 100


def mos_milli_of(r: int) -> int:
    """Return MOS in thousandths, 1000 to 4500, for a whole R of 0 to 100; FreeSWITCH itself goes to 0.98 below R 7."""
    return emodel.mos_milli(1000 * r)


def rate(received: int, flaws: int) -> tuple[int, int] | None:
    """Return ``(r_milli, mos_milli)`` as a record carries them; None where nothing was measured.

    Arguments: see ``r_percent``.
    """
    r = r_percent(received, flaws)
    return None if r is None else (1000 * r, mos_milli_of(r))
