"""Virtual time: what happens next is the earliest thing planned, ties in the order they were planned.

There is one true time, and each node reads it off a clock of its own that may be wrong.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

RATE_UNIT = 1_000
"""A clock's rate error is counted in thousandths: real ones are a hundred times better."""


class Runaway(Exception):
    """There is no end to what happens: something answers itself."""


class SimClock:
    """A queue of things to do, and the moment reached.

    steps_max: more than this is no honest run.

    Attributes:
        now_ms: virtual UTC milliseconds; moves only when a planned thing is done.
        steps: how many things were done.
    """

    def __init__(self, start_ms: int, *, steps_max: int = 1_000_000) -> None:
        self.now_ms = start_ms
        self.steps = 0
        self._steps_max = steps_max
        self._plans: list[tuple[int, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._numbers = count()

    def at(self, time_ms: int, action: Callable[..., Any], *arguments: Any) -> None:
        """Plan ``action(*arguments)`` for ``time_ms``, or for this moment where that is past."""
        heapq.heappush(self._plans, (max(time_ms, self.now_ms), next(self._numbers), action, arguments))

    def after(self, delay_ms: int, action: Callable[..., Any], *arguments: Any) -> None:
        """Plan ``action(*arguments)`` for ``delay_ms`` (not negative) from now."""
        heapq.heappush(self._plans, (self.now_ms + delay_ms, next(self._numbers), action, arguments))

    def run_until(self, until_ms: int) -> None:
        """Do everything planned before ``until_ms``, in order, and what that plans in turn; then it is ``until_ms``.

        Raises Runaway where that does not end.
        """
        plans, pop = self._plans, heapq.heappop
        while plans and plans[0][0] < until_ms:
            self.now_ms, _, action, arguments = pop(plans)
            self.steps += 1
            if self.steps > self._steps_max:
                raise Runaway(f"more than {self._steps_max} steps")
            action(*arguments)
        self.now_ms = until_ms


class NodeClock:
    """What one node takes for the time: true time, off by so much and going wrong at a rate.

    Attributes:
        rate: thousandths by which it is too fast; negative: too slow.
    """

    def __init__(self, true: SimClock) -> None:
        self._true = true
        self._since_ms = true.now_ms
        self._offset_ms = 0
        self.rate = 0

    @property
    def offset_ms(self) -> int:
        """Return how far it is ahead of true time."""
        if not self.rate:
            return self._offset_ms
        return self._offset_ms + (self._true.now_ms - self._since_ms) * self.rate // RATE_UNIT

    @property
    def now_ms(self) -> int:
        """Return the time it shows."""
        return self._true.now_ms + self.offset_ms

    def change(self, step_ms: int, rate: int) -> None:
        """Jump by ``step_ms`` (either way), and be wrong by ``rate`` thousandths from now on."""
        self._offset_ms = self.offset_ms + step_ms
        self._since_ms = self._true.now_ms
        self.rate = rate

    def true_ms(self, shown_ms: int) -> int:
        """Return the true time at which it will have reached ``shown_ms``, if it goes on as it does."""
        ahead_ms = shown_ms - self.now_ms
        if self.rate:
            ahead_ms = -(-ahead_ms * RATE_UNIT // (RATE_UNIT + self.rate))
        return self._true.now_ms + ahead_ms
