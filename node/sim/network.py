"""A network that loses, delays, repeats, reorders and cuts, all drawn from one seeded source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from node.sim.clock import SimClock


@dataclass(slots=True)
class Weather:
    """What the network does to messages; the fields may change while it runs.

    Delays are drawn evenly between the bounds for each message, which reorders them.
    """

    delay_min_ms: int = 5
    delay_max_ms: int = 40
    loss_milli: int = 0
    """Messages lost in a thousand."""
    duplicate_milli: int = 0
    """Messages delivered twice in a thousand."""
    slow_ms: int = 2_500
    """What a slow link adds at most."""


class SimNetwork:
    """Carries messages between nodes that are known by number.

    Attributes:
        weather: what happens to messages.
        groups: the side each node is on; nodes on different sides do not hear each other.
        cut: links (from, to) that carry nothing, in that direction.
        slow: links (from, to) that may take very long.
        sent: messages handed to it.
        lost: those of them that it did not carry.
    """

    def __init__(self, clock: SimClock, random: Random, weather: Weather) -> None:
        self.weather = weather
        self.groups: dict[int, int] = {}
        self.cut: set[tuple[int, int]] = set()
        self.slow: set[tuple[int, int]] = set()
        self.sent = 0
        self.lost = 0
        self._clock = clock
        self._draw = random.random

    def heal(self) -> None:
        """Make every link good; what is on its way still takes its time."""
        self.weather = Weather()
        self.groups, self.cut, self.slow = {}, set(), set()

    def send(self, source: int, target: int, deliver: Callable[..., Any], *arguments: Any) -> None:
        """Carry a message: have ``deliver(*arguments)`` called later, perhaps twice, perhaps never."""
        self.sent += 1
        weather, draw = self.weather, self._draw
        if not self.reaches(source, target) or (weather.loss_milli and draw() * 1000 < weather.loss_milli):
            self.lost += 1
            return
        self._clock.after(self._travel_ms(source, target), deliver, *arguments)
        if weather.duplicate_milli and draw() * 1000 < weather.duplicate_milli:
            self._clock.after(self._travel_ms(source, target), deliver, *arguments)

    def reaches(self, source: int, target: int) -> bool:
        """Tell whether anything gets from ``source`` to ``target``."""
        groups = self.groups
        if groups and groups.get(source, 0) != groups.get(target, 0):
            return False
        return not self.cut or (source, target) not in self.cut

    def delay_ms(self, source: int, target: int, again_ms: int) -> int:
        """Return how long a message takes on a connection; what is lost is sent again ``again_ms`` later."""
        self.sent += 1
        delay_ms = self._travel_ms(source, target)
        while self._draw() * 1000 < self.weather.loss_milli:
            delay_ms += again_ms
        return delay_ms

    def _travel_ms(self, source: int, target: int) -> int:
        weather = self.weather
        low = weather.delay_min_ms
        delay_ms = low + int(self._draw() * (weather.delay_max_ms - low + 1))
        if self.slow and (source, target) in self.slow:
            delay_ms += int(self._draw() * weather.slow_ms)
        return delay_ms
