"""Where the one-way delay of a call comes from, part by part, in whole microseconds.

A budget answers what a call over these links, with this codec and that buffer, can have at best, before anybody has
measured: 300 km of fibre cannot take less than 1.5 ms. Figures are the planning values of ITU-T G.114 (05/2003),
Annex A, table A.1, one way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from ledger.errors import FieldError

US_PER_KM: Final[Mapping[str, int]] = MappingProxyType(
    {
        "cable": 4,
        "radio relay": 4,
        "fibre": 5,
        "submarine cable": 6,
    }
)
"""Propagation, with the repeaters and regenerators on the way."""

KM_MAX: Final = 100_000
"""Longest route over ground that is not a slip of the pen: two and a half times around the earth."""

SATELLITE_US: Final[Mapping[int, int]] = MappingProxyType({400: 12_000, 14_000: 110_000, 36_000: 260_000})
"""One hop by the satellite's height in kilometres: up and down, through space alone."""

SUBMARINE_FIBRE_TERMINALS_US: Final = 23_000
"""Of a submarine fibre system, beside 5 us/km: 13 ms where it begins and 10 ms where it ends."""

EQUIPMENT_US: Final[Mapping[str, int]] = MappingProxyType(
    {
        "channel modem": 750,
        "companded channel modem": 500,
        "transmultiplexer": 1_500,
        "digital transit exchange": 450,
        "digital local exchange, analogue to analogue": 1_500,
        "digital local exchange, analogue to digital": 975,
        "digital local exchange, digital to digital": 825,
        "echo canceller": 500,
        "DCME pair": 30_000,
        "ATM": 6_000,
    }
)
"""Each passage through a piece of equipment. ``channel modem``: an FDM channel modulator or demodulator; ``DCME``:
circuit multiplication, both ends; ``ATM``: constant rate over AAL 1, both ends."""


LOOK_AHEAD_US: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "PCMU": (125, 0),
        "PCMA": (125, 0),
        "G726-40": (125, 0),
        "G726-32": (125, 0),
        "G726-24": (125, 0),
        "G726-16": (125, 0),
        "G728": (625, 0),
        "G729": (10_000, 5_000),
        "G729A": (10_000, 5_000),
        "G723-6.3": (30_000, 7_500),
        "G723-5.3": (30_000, 7_500),
        "GSM": (20_000, 0),
        "GSM-EFR": (20_000, 0),
        "AMR": (20_000, 5_000),
        "AMR-12.2": (20_000, 5_000),
    }
)
"""Frame and look-ahead of a codec in microseconds, by its name in the registry (G.114, table A.2, and the codecs' own
recommendations). A codec that is not here has no confirmed figure."""


class Part(NamedTuple):
    """One line of a budget."""

    name: str
    us: int


def propagation(medium: str, km: int) -> Part:
    """Return the delay of ``km`` kilometres over a medium of ``US_PER_KM``.

    km: 0 to ``KM_MAX``. Raises FieldError for a medium that is not there, or a length out of bounds.
    """
    if medium not in US_PER_KM:
        raise FieldError("no such medium", where="medium", expected=", ".join(US_PER_KM), actual=medium)
    _check("km", km, KM_MAX)
    return Part(f"{km} km {medium}", US_PER_KM[medium] * km)


def satellite(height_km: int, hops: int = 1) -> Part:
    """Return the delay of ``hops`` hops over a satellite at a height of ``SATELLITE_US``; raises FieldError."""
    if height_km not in SATELLITE_US:
        expected = ", ".join(map(str, SATELLITE_US))
        raise FieldError("no figure for a satellite at this height", where="km", expected=expected, actual=height_km)
    _check("hops", hops, 4)
    return Part(f"{hops} x satellite at {height_km} km", SATELLITE_US[height_km] * hops)


def equipment(name: str, count: int = 1) -> Part:
    """Return the delay of ``count`` passages through a piece of ``EQUIPMENT_US``; raises FieldError."""
    if name not in EQUIPMENT_US:
        raise FieldError("no such equipment", where="equipment", expected=", ".join(EQUIPMENT_US), actual=name)
    _check("count", count, 100)
    return Part(f"{count} x {name}", EQUIPMENT_US[name] * count)


def coding(codec: str, packet_us: int) -> list[Part]:
    """Return packetisation, look-ahead and processing of a codec that sends packets of ``packet_us``.

    A packet can leave only when its last frame is full, and the coder looks ahead into the next; coder and decoder
    together are given one frame's time to compute, the least that G.114 plans with: (N + 1) frames + look-ahead.
    A codec without a figure has its packet time alone, so the sum is then a lower bound.
    """
    if packet_us < 0:
        raise FieldError("negative packet time", where="packet_us", expected="at least 0", actual=packet_us)
    parts = [Part("packetisation", packet_us)]
    if codec in LOOK_AHEAD_US:
        frame_us, look_ahead_us = LOOK_AHEAD_US[codec]
        parts += [Part("codec look-ahead", look_ahead_us), Part("codec processing", frame_us)]
    return parts


def jitter_buffer(nominal_us: int) -> Part:
    """Return what a jitter buffer adds to packets that arrive on time: its nominal delay, >= 0."""
    _check("nominal_us", nominal_us, 10_000_000)
    return Part("jitter buffer", nominal_us)


def total_us(parts: Iterable[Part]) -> int:
    """Return the one-way delay that parts add up to."""
    return sum(part.us for part in parts)


def _check(name: str, value: int, most: int) -> None:
    """Raise FieldError unless 0 <= value <= most."""
    if not 0 <= value <= most:
        raise FieldError("out of bounds", where=name, expected=f"0 to {most}", actual=value)
