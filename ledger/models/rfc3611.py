"""What an endpoint itself reports: the VoIP metrics block of RTCP XR (RFC 3611, 4.7), and SIP reports (RFC 6035).

The endpoint does its own rating by its own model; nothing of it can be recomputed. These functions turn the bytes of
the block, which are unsigned integers 0 to 255, or to 65,535, into the units of a record. Each has a value that means
"unavailable", which becomes None: an unknown figure is never a bad one. So does what the RFC has no meaning for.
RFC 6035 carries the same quantities as text, in natural units; an adapter scales those itself.
"""

from __future__ import annotations

from typing import Final

from ledger.models.rounding import divide_half_up

UNAVAILABLE: Final = 127
"""Of levels, RERL, R and MOS."""

R_MAX: Final = 100
MOS_X10_MIN: Final = 10
MOS_X10_MAX: Final = 50
GMIN_DEFAULT: Final = 16
"""Packets received in a row between two losses that end a burst."""

DENSITY_UNITS: Final = 256
"""A rate or density of n is n/256."""


def mos_milli(byte: int) -> int | None:
    """Return MOS in thousandths, 1000 to 5000, of MOS-LQ or MOS-CQ (MOS x 10)."""
    return 100 * byte if MOS_X10_MIN <= byte <= MOS_X10_MAX else None


def r_milli(byte: int) -> int | None:
    """Return the R factor in thousandths, 0 to 100,000."""
    return 1000 * byte if 0 <= byte <= R_MAX else None


def level_dbm0(byte: int) -> int | None:
    """Return a signal or noise level in dBm0, -128 to 126, of a two's complement byte."""
    if byte == UNAVAILABLE or not 0 <= byte <= 255:
        return None
    return byte - 256 if byte >= 128 else byte


def rerl_db(byte: int) -> int | None:
    """Return the residual echo return loss in decibels."""
    return byte if 0 <= byte <= 255 and byte != UNAVAILABLE else None


def density_ppm(byte: int) -> int | None:
    """Return a loss rate, discard rate or density of n/256 in parts per million, 0 to 996,094."""
    return divide_half_up(1_000_000 * byte, DENSITY_UNITS) if 0 <= byte <= 255 else None


def density_of_ppm(ppm: int) -> int:
    """Return the n of n/256 for parts per million, truncated as the RFC says, at most 255.

    ppm: 0 to 1,000,000.
    """
    return min(255, DENSITY_UNITS * ppm // 1_000_000)


def duration_ms(word: int) -> int | None:
    """Return a duration or delay in milliseconds, 0 to 65,535: bursts, gaps, round trip, end system, jitter buffer."""
    return word if 0 <= word <= 65_535 else None


def loss_ppm_of_bursts(burst_density: int, gap_density: int, burst_ms: int, gap_ms: int) -> int | None:
    """Return the mean loss in parts per million that bursts and gaps together come to; None where both last 0 ms.

    burst_density, gap_density: n/256. burst_ms, gap_ms: mean durations. The mean over time of the two densities: the
    block's loss and discard rates together should be close to it.
    """
    total_ms = burst_ms + gap_ms
    if not total_ms:
        return None
    return divide_half_up(1_000_000 * (burst_density * burst_ms + gap_density * gap_ms), DENSITY_UNITS * total_ms)


def one_way_us(round_trip_ms: int, end_system_ms: int) -> int:
    """Return the mouth-to-ear delay in microseconds: half the network's round trip and the end system's own delay.

    RFC 3611, 4.7.3: the end system's delay is that of its encoder, decoder and jitter buffer together, so it counts
    once where both ends are alike.
    """
    return 500 * round_trip_ms + 1000 * end_system_ms
