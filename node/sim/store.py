"""A disk that can be struck by a crash before, in the middle of and after a write.

What the real store does (``ledger/leveldb.py``): bodies are appended to a segment file beyond its tail and synced, then
one LevelDB batch that points at them and moves the tail is written and synced. A crash leaves the end of a file torn: a
prefix of the bodies that nothing points at, or a prefix of the batch's log record, which has a length and a checksum
and is the last of its log. Opening cuts off both. So a batch whose write did not return is there whole or not at all;
and one whose write returned is there, for it was synced. A disk that acknowledges and forgets is not simulated here:
its node counts as faulty.
"""

from __future__ import annotations

from enum import StrEnum

from ledger.store import MemoryStore, WriteBatch, clamp_range


class Crashed(Exception):
    """The node lost power at this point of its step; the argument says where."""


class Fate(StrEnum):
    """What a crash during a write leaves."""

    LOST = "lost"
    """Nothing of the batch reached the disk."""
    TORN = "torn"
    """A prefix of it did; the store finds it when it is opened and cuts it off."""
    KEPT = "kept"
    """The batch was durable, yet the node never learned it."""


class SimStore(MemoryStore):
    """A memory store that survives its node.

    Attributes:
        strike: the fate of the next write, during which the node crashes; None: it succeeds.
        torn: rows at the end of the log that are part of a batch of which the rest is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strike: Fate | None = None
        self.torn: list[tuple[bytes, bytes | None]] = []

    def write(self, batch: WriteBatch) -> None:
        """See ``Store.write``. Raises Crashed where the node is struck in the middle of it."""
        strike, self.strike = self.strike, None
        if strike is Fate.TORN:
            self.torn = batch.puts[: len(batch.puts) // 2]
        elif strike is not Fate.LOST:
            super().write(batch)
        if strike is not None:
            raise Crashed(f"write {strike.value}")

    def recover(self) -> None:
        """Open the store after a crash: what is torn is no batch."""
        self.strike = None
        self.torn = []

    # Keys are sorted when somebody asks for their order, which is rare here.

    def _put(self, row_key: bytes, value: bytes) -> None:
        self._rows[row_key] = value

    def _delete(self, row_key: bytes) -> None:
        self._rows.pop(row_key, None)

    def _keys_between(self, start: bytes, stop: bytes) -> list[bytes]:
        start, stop = clamp_range(start, stop)
        return sorted(key for key in self._rows if start <= key < stop)
