"""Notices that this machine's clock is not that of the others, and says so while it lasts.

Slots follow the wall clock. What peers say of theirs (``Sync.clock_skew_ms``, their median) is all a node can know of
the right time by itself: it tells, and leaves the clock to NTP.

Source: docs/operations.md, "The clock".
"""

from __future__ import annotations

from typing import Any, Final

SLOT_PART: Final = 4
"""Off by more than this part of a slot, a block comes too late for some; the rest of the slot is the network's."""
LOOK_MS: Final = 1_000
LASTS_MS: Final = 10_000
"""Two statuses from each peer: one that waited in a queue is no clock that is off."""
WARN_MS: Final = 60_000
"""Said again this often, while it lasts."""


class ClockWatch:
    """Compares clocks at most every ``LOOK_MS``.

    slot_ms: the chain's slot. log: takes ``warning`` and ``info`` with an event and its fields.
    """

    def __init__(self, slot_ms: int, log: Any) -> None:
        self._allowed_ms = slot_ms // SLOT_PART
        self._log = log
        self._look_ms = 0
        self._since_ms: int | None = None
        self._warned_ms: int | None = None

    def is_due(self, *, now_ms: int) -> bool:
        """Tell whether it is time to look again; a clock set back is no reason to wait."""
        return not self._look_ms - LOOK_MS <= now_ms < self._look_ms

    def look(self, skew_ms: int | None, *, now_ms: int) -> None:
        """Take what peers say.

        skew_ms: how far their clocks are ahead of this one, in the median; None where no peer told.
        """
        self._look_ms = now_ms + LOOK_MS
        if skew_ms is None or abs(skew_ms) <= self._allowed_ms:
            if self._warned_ms is not None and skew_ms is not None:
                self._log.info("clock in step", skew_ms=skew_ms)
            self._since_ms = self._warned_ms = None
            return
        # The clock that is compared may itself have been set back.
        if self._since_ms is None or now_ms < self._since_ms:
            self._since_ms, self._warned_ms = now_ms, None
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
