"""Which record keys and transactions have counted: the audit's own memory of it, exact and bounded.

Nothing of a node's index is used. Keys are held by the minute of the call's setup; minutes not in use go to a file of
the audit's own and come back when asked for, since a call may be reported long after it was set up. Transaction ids
are remembered until they expire, after which no block may hold them anyway.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Set as AbstractSet
from typing import Final

from audit.spill import Spill, SpillType
from ledger.record_index import Overlay, RecordIndex, split_keys
from ledger.store import MemoryStore
from ledger.validation import MINUTE_MS

RESIDENT_KEYS_MAX: Final = 1_000_000
"""Keys held in memory beyond the minutes used last: about 100 MB."""
RESIDENT_MINUTES_MAX: Final = 50_000
"""Minutes held in memory, when somebody reports calls of scattered times."""
RESIDENT_MINUTES_MIN: Final = 3
"""Never sent to disk: a minute and its neighbours."""

_NONE: Final[frozenset[bytes]] = frozenset()
_MINUTE: Final = struct.Struct(">IQ")
_LATEST: Final = struct.Struct(">Q")
_ID: Final = struct.Struct(">32sQQ")


class AuditIndex(RecordIndex):
    """A RecordIndex that is filled by the audit alone.

    What is remembered of a minute on disk is one number, where its last frame begins; that names the one before.
    """

    def __init__(self, spill: Spill | None = None) -> None:
        """spill: an audit's file, to be gone on with; where not given a temporary one is made once it is needed."""
        super().__init__(MemoryStore())
        self._sets: OrderedDict[int, set[bytes]] = OrderedDict()
        self._held = 0
        self._unwritten_keys: dict[int, bytearray] = {}
        self._unwritten_ids: list[tuple[bytes, int, int]] | None = None if spill is None else []
        self._places: dict[int, int] = {}
        self._spill = spill
        self._heights: dict[bytes, int] = {}
        self._expiring: dict[int, list[bytes]] = {}

    def minute(self, minute: int) -> AbstractSet[bytes]:
        """Return the keys counted in ``minute``. Raises StoreError where they cannot be read back."""
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
            self._unwritten_keys.setdefault(minute, bytearray()).extend(b"".join(keys))
        for tx_id, expires_ms in expiries_ms.items():
            self._remember(tx_id, expires_ms, height)
            if self._unwritten_ids is not None:
                self._unwritten_ids.append((tx_id, expires_ms, height))
        for past in [minute for minute in self._expiring if _is_past(minute, time_ms)]:
            for tx_id in self._expiring.pop(past):
                del self._heights[tx_id]
        self._shrink()

    def save(self, spill: Spill) -> None:
        """Write what is not on disk yet; ``spill`` is the one that this was made with. Raises OSError."""
        for minute in sorted(self._unwritten_keys):
            self._write(minute)
        if self._unwritten_ids:
            latest_ms = max(expires_ms for _, expires_ms, _ in self._unwritten_ids)
            ids = b"".join(_ID.pack(*one) for one in self._unwritten_ids)
            spill.append(SpillType.IDS, _LATEST.pack(latest_ms) + ids)
            self._unwritten_ids.clear()

    def restore(self, spill: Spill, end: int, time_ms: int) -> None:
        """Find again what was saved in ``spill`` before ``end``, when the last block was of ``time_ms``."""
        for offset, kind, frame_end in spill.scan():
            if frame_end > end:
                return
            if kind is SpillType.STATE:
                continue
            # Read whole, for its checksum: keys under another minute than theirs would be missed by nobody.
            payload = spill.read(offset, kind)
            if kind is SpillType.KEYS:
                self._places[_MINUTE.unpack_from(payload)[0]] = offset
            elif not _is_past(_LATEST.unpack_from(payload)[0] // MINUTE_MS, time_ms):
                for tx_id, expires_ms, height in _ID.iter_unpack(payload[_LATEST.size :]):
                    if not _is_past(expires_ms // MINUTE_MS, time_ms):
                        self._remember(tx_id, expires_ms, height)

    def _remember(self, tx_id: bytes, expires_ms: int, height: int) -> None:
        self._heights[tx_id] = height
        self._expiring.setdefault(expires_ms // MINUTE_MS, []).append(tx_id)

    def _shrink(self) -> None:
        """Send the minutes used longest ago to disk while there are too many."""
        while len(self._sets) > RESIDENT_MINUTES_MIN and (
            self._held > RESIDENT_KEYS_MAX or len(self._sets) > RESIDENT_MINUTES_MAX
        ):
            minute, keys = self._sets.popitem(last=False)
            self._held -= len(keys)
            self._write(minute)

    def _write(self, minute: int) -> None:
        keys = self._unwritten_keys.pop(minute, None)
        if keys:
            if self._spill is None:
                self._spill = Spill()
            payload = _MINUTE.pack(minute, self._places.get(minute, 0)) + keys
            self._places[minute] = self._spill.append(SpillType.KEYS, payload)

    def _read(self, minute: int) -> set[bytes]:
        assert self._spill is not None
        keys = self._sets[minute] = set()
        place = self._places[minute]
        while place:
            payload = self._spill.read(place, SpillType.KEYS)
            place = _MINUTE.unpack_from(payload)[1]
            keys.update(split_keys(payload[_MINUTE.size :]))
        # A minute that is not held has nothing unwritten: it was written as it left memory.
        self._held += len(keys)
        return keys

    def close(self) -> None:
        """Remove the temporary file, or close the one given."""
        if self._spill is not None:
            self._spill.close()


def _is_past(minute: int, time_ms: int) -> bool:
    """Tell whether all of a minute is at or before ``time_ms``."""
    return (minute + 1) * MINUTE_MS <= time_ms
