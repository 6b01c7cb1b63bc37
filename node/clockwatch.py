"""Notices that this machine's clock is not that of the others, says so while it lasts, and when to seal no more.

Slots follow the wall clock. What peers say of theirs (``SeenExchange.clocks_ms``) is all a node can know of the right
time by itself: it tells, keeps out of slots that may be others', and leaves the clock to NTP.

Source: docs/operations.md, "The clock".
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low
from typing import Any, Final

WARN_PART: Final = 4
"""Off by more than this part of a slot, a block comes too late for some; the rest of the slot is the network's."""
REFUSE_PART: Final = 2
"""Off by more than this part of a slot, it would be sealed nearer to another's slot than to its own."""
LOOK_MS: Final = 1_000
LASTS_MS: Final = 10_000
"""Two words from each peer: one that waited in a queue is no clock that is off."""
WARN_MS: Final = 60_000
"""Said again this often, while it lasts."""


class ClockWatch:
    """Compares clocks at most every ``LOOK_MS``.

    slot_ms: the chain's slot. log: takes ``warning`` and ``info`` with an event and its fields.
    is_off: blocks are not to be sealed now; once off, it must be back within the part that is warned at.
    """

    def __init__(self, slot_ms: int, log: Any) -> None:
        self.is_off = False
        self._allowed_ms = slot_ms // WARN_PART
        self._refused_ms = slot_ms // REFUSE_PART
        self._log = log
        self._look_ms = 0
        self._since_ms: int | None = None
        self._far_since_ms: int | None = None
        self._warned_ms: int | None = None

    def is_due(self, *, now_ms: int) -> bool:
        """Tell whether it is time to look again; a clock set back is no reason to wait."""
        return not self._look_ms - LOOK_MS <= now_ms < self._look_ms

    def look(self, clocks_ms: Sequence[int], *, now_ms: int) -> None:
        """Take by how much the clocks of peers are ahead of this one, in ascending order; none where nobody told."""
        self._look_ms = now_ms + LOOK_MS
        skew_ms = skew_of(clocks_ms)
        self._judge(clocks_ms, now_ms)
        if skew_ms is None or abs(skew_ms) <= self._allowed_ms:
            if self._warned_ms is not None and skew_ms is not None:
                self._log.info("clock in step", skew_ms=skew_ms)
            self._since_ms = self._warned_ms = None
            return
        self._since_ms = _since(self._since_ms, now_ms)
        if self._since_ms == now_ms:
            self._warned_ms = None
        lasts = now_ms - self._since_ms >= LASTS_MS
        if lasts and (self._warned_ms is None or now_ms - self._warned_ms >= WARN_MS):
            self._warned_ms = now_ms
            self._log.warning(
                "clock is off",
                skew_ms=skew_ms,
                allowed_ms=self._allowed_ms,
                this_clock="behind its peers" if skew_ms > 0 else "ahead of its peers",
                hint="Run an NTP client here (chrony, ntpd, systemd-timesyncd) and see that it is in step",
            )

    def _judge(self, clocks_ms: Sequence[int], now_ms: int) -> None:
        """Decide whether to seal: where nobody tells, as before."""
        if not clocks_ms:
            return
        # With its own clock among them: of two that differ nobody knows which is off, and one must go on.
        off_ms = min(map(abs, _middle([*clocks_ms, 0])))
        if off_ms <= self._allowed_ms:
            self.is_off, self._far_since_ms = False, None
        elif off_ms > self._refused_ms:
            self._far_since_ms = _since(self._far_since_ms, now_ms)
            self.is_off = self.is_off or now_ms - self._far_since_ms >= LASTS_MS
        else:
            self._far_since_ms = None


def skew_of(clocks_ms: Sequence[int]) -> int | None:
    """Return how far peers' clocks are ahead of this one, in the middle of them; None where nobody told."""
    return median_low(clocks_ms) if clocks_ms else None


def _middle(numbers: Sequence[int]) -> list[int]:
    """Return the one or two numbers in the middle."""
    ordered = sorted(numbers)
    return ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]


def _since(since_ms: int | None, now_ms: int) -> int:
    """Return when it began; anew where the clock that is compared was itself set back."""
    return now_ms if since_ms is None or now_ms < since_ms else since_ms
