"""Virtual time: what happens next is the earliest thing planned, ties in the order they were planned."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class SimClock:
    """A queue of things to do, and the moment reached.

    Attributes:
        now_ms: virtual UTC milliseconds; moves only when a planned thing is done.
    """

    def __init__(self, start_ms: int) -> None:
        self.now_ms = start_ms
        self._plans: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, time_ms: int, action: Callable[[], None]) -> None:
        """Plan ``action`` for ``time_ms``, or for this moment where that is past."""
        heapq.heappush(self._plans, (max(time_ms, self.now_ms), next(self._numbers), action))

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Plan ``action`` for ``delay_ms`` from now."""
        self.at(self.now_ms + delay_ms, action)

    def step(self, until_ms: int) -> bool:
        """Do the next thing planned before ``until_ms``; False where there is none, and then it is ``until_ms``."""
        if not self._plans or self._plans[0][0] >= until_ms:
            self.now_ms = until_ms
            return False
        self.now_ms, _, action = heapq.heappop(self._plans)
        action()
        return True
