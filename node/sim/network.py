"""A network that loses, delays, repeats, reorders and cuts, all drawn from one seeded source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

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
    """

    def __init__(self, clock: SimClock, random: Random, weather: Weather) -> None:
        self.weather = weather
        self.groups: dict[int, int] = {}
        self.cut: set[tuple[int, int]] = set()
        self.slow: set[tuple[int, int]] = set()
        self.sent = 0
        self.lost = 0
        self._clock = clock
        self._random = random

    def heal(self) -> None:
        """Make every link good; what is on its way still takes its time."""
        self.groups.clear()
        self.cut.clear()
        self.slow.clear()
        self.weather = Weather()

    def send(self, source: int, target: int, deliver: Callable[[], None]) -> None:
        """Carry one message, or lose it. A cut made while it is on its way does not stop it."""
        self.sent += 1
        weather, random = self.weather, self._random
        if (
            self.groups.get(source, 0) != self.groups.get(target, 0)
            or (source, target) in self.cut
            or random.randrange(1000) < weather.loss_milli
        ):
            self.lost += 1
            return
        for _ in range(2 if random.randrange(1000) < weather.duplicate_milli else 1):
            delay_ms = random.randint(weather.delay_min_ms, weather.delay_max_ms)
            if (source, target) in self.slow:
                delay_ms += random.randint(0, weather.slow_ms)
            self._clock.after(delay_ms, deliver)

    def reaches(self, source: int, target: int) -> bool:
        """Tell whether anything gets from ``source`` to ``target``."""
        return self.groups.get(source, 0) == self.groups.get(target, 0) and (source, target) not in self.cut

    def delay_ms(self, source: int, target: int, again_ms: int) -> int:
        """Return how long a message takes on a connection; what is lost is sent again ``again_ms`` later."""
        self.sent += 1
        delay_ms = self._random.randint(self.weather.delay_min_ms, self.weather.delay_max_ms)
        if (source, target) in self.slow:
            delay_ms += self._random.randint(0, self.weather.slow_ms)
        while self._random.randrange(1000) < self.weather.loss_milli:
            delay_ms += again_ms
        return delay_ms
