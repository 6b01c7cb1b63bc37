"""Which record keys and transactions have counted: the audit's own memory of it, exact and bounded.

Nothing of a node's index is used. Keys are held by the minute of the call's setup; minutes not in use go to a
temporary file and come back when asked for, since a call may be reported long after it was set up. Transaction ids
are remembered until they expire, after which no block may hold them anyway.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Set as AbstractSet
from typing import BinaryIO, Final

from ledger.record_index import KEY_BYTES, Overlay, RecordIndex
from ledger.store import MemoryStore
from ledger.validation import MINUTE_MS

RESIDENT_KEYS_MAX: Final = 1_000_000
"""Keys held in memory beyond the minutes used last: about 100 MB."""
RESIDENT_MINUTES_MIN: Final = 3
"""Never sent to disk: a minute and its neighbours."""

_NONE: Final[frozenset[bytes]] = frozenset()


class AuditIndex(RecordIndex):
    """A RecordIndex that is filled by the audit alone."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self._sets: OrderedDict[int, set[bytes]] = OrderedDict()
        self._held = 0
        self._changed: set[int] = set()
        self._places: dict[int, tuple[int, int]] = {}
        self._file: BinaryIO | None = None
        self._heights: dict[bytes, int] = {}
        self._expiring: dict[int, list[bytes]] = {}

    def minute(self, minute: int) -> AbstractSet[bytes]:
        """Return the keys counted in ``minute``."""
        keys = self._sets.get(minute)
        if keys is not None:
            self._sets.move_to_end(minute)
            return keys
        return self._read(minute) if minute in self._places else _NONE

    def height_of(self, tx_id: bytes) -> int | None:
        """Return the height of the block that holds ``tx_id``, None where it is unknown or expired."""
        return self._heights.get(tx_id)

    def count(self, height: int, overlay: Overlay, expiries_ms: dict[bytes, int], time_ms: int) -> None:
        """Count a block that was verified.

        expiries_ms: of each transaction, by id; those at or before ``time_ms``, the block's, are let go.
        """
        for minute, keys in overlay.minutes.items():
            held = self._sets.get(minute)
            if held is None:
                held = self._read(minute) if minute in self._places else self._sets.setdefault(minute, set())
            before = len(held)
            held |= keys
            self._held += len(held) - before
            self._changed.add(minute)
        for tx_id, expires_ms in expiries_ms.items():
            self._heights[tx_id] = height
            self._expiring.setdefault(expires_ms // MINUTE_MS, []).append(tx_id)
        for past in [minute for minute in self._expiring if (minute + 1) * MINUTE_MS <= time_ms]:
            for tx_id in self._expiring.pop(past):
                del self._heights[tx_id]
        self._shrink()

    def _shrink(self) -> None:
        """Send the minutes used longest ago to disk while there are too many keys."""
        while self._held > RESIDENT_KEYS_MAX and len(self._sets) > RESIDENT_MINUTES_MIN:
            minute, keys = self._sets.popitem(last=False)
            self._held -= len(keys)
            if minute in self._changed:
                self._changed.remove(minute)
                self._write(minute, keys)

    def _write(self, minute: int, keys: set[bytes]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="ledger-verify-")  # noqa: SIM115 - lives as long as this
        self._places[minute] = (self._file.seek(0, 2), len(keys) * KEY_BYTES)
        self._file.write(b"".join(keys))

    def _read(self, minute: int) -> set[bytes]:
        assert self._file is not None
        offset, length = self._places[minute]
        self._file.seek(offset)
        data = self._file.read(length)
        keys = self._sets[minute] = {data[i : i + KEY_BYTES] for i in range(0, length, KEY_BYTES)}
        self._held += len(keys)
        return keys

    def close(self) -> None:
        """Remove the temporary file."""
        if self._file is not None:
            self._file.close()
