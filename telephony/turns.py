"""Whose turn it is, where intake and building share a core: a proxy waits for its answer, what is on disk can wait.

While more comes in than is built, intake goes first, for half a minute at a time: what a proxy sends that was cut off
for a while is taken in at full speed. A flood that lasts longer shares the core, half a minute each, so that what came
in does not wait for its end.
"""

from __future__ import annotations

from typing import Final

BUSY_PER_S: Final = 2_000
"""Documents a second below which both get along: they take a seventh of a core."""
TURN_S: Final = 30
"""The longest turn of intake, and of building after it."""
SEEN_MS: Final = 50
"""The shortest time from which a rate is told."""


class Turns:
    """Whose turn it is, by how much came in and how much of it was built since the last look. Times are steady."""

    def __init__(self, now_ms: int, taken: int, unbuilt: int) -> None:
        """taken: documents that ever came in. unbuilt: those of them that wait to be built."""
        self._seen = now_ms, taken, unbuilt
        self._intake_until_ms: int | None = None
        self._building_until_ms = now_ms

    def is_for_intake(self, now_ms: int, taken: int, unbuilt: int) -> bool:
        """Tell whether nothing is to be built now. Arguments as at first; ask again in a while where it is so."""
        then_ms, taken_then, unbuilt_then = self._seen
        took_ms = now_ms - then_ms
        if took_ms < SEEN_MS:
            return self._intake_until_ms is not None
        self._seen = now_ms, taken, unbuilt
        is_busy = (taken - taken_then) * 1000 >= BUSY_PER_S * took_ms
        if not is_busy or unbuilt <= unbuilt_then or now_ms < self._building_until_ms:
            self._intake_until_ms = None
        elif self._intake_until_ms is None:
            self._intake_until_ms = now_ms + TURN_S * 1000
        elif now_ms >= self._intake_until_ms:
            self._intake_until_ms = None
            self._building_until_ms = now_ms + TURN_S * 1000
        return self._intake_until_ms is not None
