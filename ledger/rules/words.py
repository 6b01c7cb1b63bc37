"""Figures as a person writes them, for the sentences of rules and flags: MOS 4.178, 3.33 %, 120.5 ms.

Integers throughout: a message is the same on every node, to the last digit.
"""

from __future__ import annotations


def decimal(value: int, places: int) -> str:
    """Return ``value`` / 10^``places`` without zeros at its end: ``decimal(4_200, 3)`` is ``4.2``; places >= 1."""
    whole, fraction = divmod(abs(value), 10**places)
    digits = f"{fraction:0{places}}".rstrip("0")
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def milli(value: int) -> str:
    """Return thousandths of MOS, R or PUE as a figure with a point: 4178 is ``4.178``, and 4000 ``4.0``."""
    return f"{value // 1000}.0" if value % 1000 == 0 else decimal(value, 3)


def ms(us: int) -> str:
    """Return microseconds as milliseconds: 120500 is ``120.5 ms``."""
    return f"{decimal(us, 3)} ms"


def percent(ppm: int) -> str:
    """Return parts per million as percents: 33333 is ``3.3333 %``."""
    return f"{decimal(ppm, 4)} %"
