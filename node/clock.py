"""The two clocks of a node: the wall's, which the chain's slots are on, and a steady one for everything that waits.

Somebody may set the wall clock, forward or back, while the node runs; what is due in three seconds must not wait an
hour for it.
"""

from __future__ import annotations

import time

_STEADY_OFFSET_MS = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000


def now_ms() -> int:
    """Return the wall clock in UTC milliseconds."""
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """Return milliseconds that only ever go forward; the wall clock's at the start of the process."""
    return time.monotonic_ns() // 1_000_000 + _STEADY_OFFSET_MS
