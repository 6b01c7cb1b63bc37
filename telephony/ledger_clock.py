"""The time that the agent signs by: the nodes' where one has told it, and otherwise this machine's at the start.

It goes forward with the machine's steady clock, so a wall clock that somebody sets, or that jumps, changes nothing
in an agent that runs; one that was wrong at the start is put right by the first answer of a node.
"""

from __future__ import annotations

from collections.abc import Callable


class LedgerClock:
    """UTC in milliseconds, as the ledger has it.

    Attributes:
        is_confirmed: a node has told the time since the start.
    """

    def __init__(self, *, wall_ms: Callable[[], int], steady_ms: Callable[[], int]) -> None:
        """Begin with the wall clock; ``steady_ms`` only goes forward."""
        self.is_confirmed = False
        self._steady_ms = steady_ms
        self._offset_ms = wall_ms() - steady_ms()

    def now_ms(self) -> int:
        """Return the time."""
        return self._steady_ms() + self._offset_ms

    def told(self, node_ms: int) -> int:
        """Take over the time that a node told just now; return by how much this clock was wrong, in milliseconds."""
        wrong_ms = self.now_ms() - node_ms
        self._offset_ms -= wrong_ms
        self.is_confirmed = True
        return wrong_ms
