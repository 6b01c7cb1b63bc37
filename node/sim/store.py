"""A disk that can be struck by a crash before, in the middle of and after a write.

A store promises that a batch is on disk whole or not at all, so a torn write shows after the restart as one that
never was.
"""

from __future__ import annotations

from enum import Enum

from ledger.store import MemoryStore, WriteBatch


class Crashed(Exception):
    """The node lost power at this point of its step."""


class Fate(Enum):
    """What a crash during a write leaves."""

    LOST = "lost"
    """Nothing of the batch is there, or a torn part that the store discards when it is opened."""
    KEPT = "kept"
    """The batch was durable, yet the node never learned it."""


class SimStore(MemoryStore):
    """A memory store that survives its node.

    Attributes:
        strike: the fate of the next write, during which the node crashes; None: it succeeds.
        writes: how many batches are on disk.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strike: Fate | None = None
        self.writes = 0

    def write(self, batch: WriteBatch) -> None:
        """See ``Store.write``. Raises Crashed where the node is struck in the middle of it."""
        strike, self.strike = self.strike, None
        if strike is not Fate.LOST:
            super().write(batch)
            self.writes += 1
        if strike is not None:
            raise Crashed
