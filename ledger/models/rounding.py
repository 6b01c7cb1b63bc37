"""The one rounding of the ledger: half up, on non-negative integers.

Models and rules round nowhere else, so two nodes can never round one number differently.
"""

from __future__ import annotations


def divide_half_up(numerator: int, denominator: int) -> int:
    """Return ``numerator / denominator`` rounded to the nearest integer, halves up.

    numerator: >= 0; denominator: > 0. Neither is checked: this runs several times for each record, and
    every caller passes quantities whose bounds are checked when a record is decoded.
    """
    # An odd denominator has no halves to round up, so dropping half of its last unit changes nothing.
    return (numerator + (denominator >> 1)) // denominator
