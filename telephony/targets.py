"""The nodes that an agent hands its transactions to, and which of them is worth asking now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

BACKOFF_MS_MIN: Final = 200
BACKOFF_MS_MAX: Final = 15_000


@dataclass(slots=True)
class _Target:
    url: str
    failures: int = 0
    """In a row."""
    not_before_ms: int = 0


class Targets:
    """The nodes, and which of them is worth asking now. The one that answered last is asked again.

    Time is an argument, in milliseconds of a clock that only goes forward; ``chance`` returns 0 up to but not 1.
    """

    def __init__(self, urls: Sequence[str], chance: Callable[[], float]) -> None:
        self._targets = [_Target(url.rstrip("/")) for url in urls]
        self._chance = chance
        self._current = 0

    def choose(self, now_ms: int) -> tuple[str, int]:
        """Return the node to ask and how many milliseconds to wait before."""
        count = len(self._targets)
        in_turn = [(self._current + step) % count for step in range(count)]
        best = min(in_turn, key=lambda index: max(self._targets[index].not_before_ms - now_ms, 0))
        return self._targets[best].url, max(self._targets[best].not_before_ms - now_ms, 0)

    def succeeded(self, url: str) -> None:
        """Note that a node has answered."""
        for index, target in enumerate(self._targets):
            if target.url == url:
                self._current, target.failures, target.not_before_ms = index, 0, 0

    def failed(self, url: str, now_ms: int) -> bool:
        """Note that a node has not answered, or asked to wait; return whether that is news.

        Several requests that fail at once count as one.
        """
        for target in self._targets:
            if target.url == url and target.not_before_ms <= now_ms:
                most_ms = min(BACKOFF_MS_MIN << min(target.failures, 20), BACKOFF_MS_MAX)
                target.failures += 1
                # Half of it is chance: agents that lost the same node do not come back together.
                target.not_before_ms = now_ms + most_ms // 2 + int(self._chance() * (most_ms // 2))
                return True
        return False

    @property
    def failing(self) -> dict[str, int]:
        """Return the failures in a row of each node."""
        return {target.url: target.failures for target in self._targets}

    @property
    def is_away(self) -> bool:
        """Tell whether no node has answered since it was last asked: the ledger is out of reach."""
        return all(target.failures for target in self._targets)
