"""Which record keys have counted: exact, by the minute in which the call was set up.

The final chain's keys lie in the store, one row for each block and minute; the minutes in use are held as sets,
loaded on demand and bounded. Blocks that are not final yet each bring an overlay of their own, so that a branch
sees exactly what its own ancestors counted. Python hashes byte strings with a key of the process's own, so nobody
can choose record keys that collide.

Source: docs/protocol.md, "Record identity".
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from ledger.errors import StoreDamaged
from ledger.store import Space, Store, record_key_row

RESIDENT_KEYS_MAX = 200_000
"""Keys held in memory beyond the minutes in use: about 20 MB."""
IN_USE_BLOCKS = 2
"""A minute asked for since this many blocks became final is in use. Live traffic asks for the same quarter of an hour
in every block: reading it back each time would cost a node more than all its checks."""
IN_USE_KEYS_MAX = 2_000_000
"""Keys held in memory, in use or not: about 200 MB, a quarter of an hour at 2,000 calls a second."""
RESIDENT_MINUTES_MAX = 50_000
"""Sets held in memory, most of them empty when somebody reports calls of scattered times."""
RESIDENT_MINUTES_MIN = 3
"""Never evicted: a minute and its neighbours, however many calls they hold."""
KEY_BYTES = 16


def row_of(keys: AbstractSet[bytes]) -> bytes:
    """Return the row of record keys: one after the other, in ascending order."""
    return b"".join(sorted(keys))


def split_keys(row: bytes) -> tuple[bytes, ...]:
    """Return the record keys that lie in ``row`` one after the other; its length is a multiple of KEY_BYTES."""
    return struct.unpack(f"{KEY_BYTES}s" * (len(row) // KEY_BYTES), row)


def is_row_of(row: bytes, keys: AbstractSet[bytes]) -> bool:
    """Tell whether ``row`` is ``row_of(keys)``: to see that they are in order takes a fraction of sorting them."""
    if len(row) != KEY_BYTES * len(keys):
        return False
    found = split_keys(row)
    return keys == frozenset(found) and list(found) == sorted(found)


class Overlay:
    """What one block counted: record keys by minute, and the ids of its transactions."""

    __slots__ = ("minutes", "tx_ids")

    def __init__(self) -> None:
        self.minutes: dict[int, set[bytes]] = {}
        self.tx_ids: set[bytes] = set()

    def add(self, minute: int, keys: AbstractSet[bytes]) -> None:
        """Count ``keys`` in ``minute``."""
        if keys:
            self.minutes.setdefault(minute, set()).update(keys)


class RecordIndex:
    """The record keys and transaction ids of the final chain."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._minutes: OrderedDict[int, set[bytes]] = OrderedDict()
        self._resident = 0
        self._final_blocks = 0
        self._asked_at: dict[int, int] = {}
        self._unwritten: dict[bytes, int] = {}

    def minute(self, minute: int) -> AbstractSet[bytes]:
        """Return the keys counted in ``minute``; the set lives until ``trim``."""
        keys = self._minutes.get(minute)
        if keys is None:
            keys = self._load(minute)
        else:
            self._minutes.move_to_end(minute)
        self._asked_at[minute] = self._final_blocks
        return keys

    def height_of(self, tx_id: bytes) -> int | None:
        """Return the height of the final block that holds ``tx_id``, or None."""
        height = self._unwritten.get(tx_id)
        if height is not None:
            return height
        row = self._store.get(Space.LOCATION.value + tx_id)
        return None if row is None else int.from_bytes(row)

    def add(self, height: int, overlay: Overlay) -> list[tuple[bytes, bytes | None]]:
        """Count a block that became final; return the rows to write.

        Until ``trim`` is called after that write, the keys are held in memory, whatever the bound.
        """
        suffix = height.to_bytes(8)
        rows: list[tuple[bytes, bytes | None]] = []
        for minute, keys in overlay.minutes.items():
            held = self._minutes.get(minute)
            if held is None:
                held = self._load(minute)
                self._asked_at[minute] = self._final_blocks
            before = len(held)
            held |= keys
            self._resident += len(held) - before
            rows.append((record_key_row(minute, suffix), row_of(keys)))
        for tx_id in overlay.tx_ids:
            self._unwritten[tx_id] = height
            rows.append((Space.LOCATION.value + tx_id, suffix))
        self._final_blocks += 1
        return rows

    def trim(self) -> None:
        """Let go of what is over the bound; every row returned by ``add`` is durable now."""
        self._unwritten.clear()
        while len(self._minutes) > RESIDENT_MINUTES_MIN and self._is_over_bound():
            minute, keys = self._minutes.popitem(last=False)
            del self._asked_at[minute]
            self._resident -= len(keys)

    def _is_over_bound(self) -> bool:
        """Tell whether the minute asked for longest ago has to go."""
        if self._resident > IN_USE_KEYS_MAX or len(self._minutes) > RESIDENT_MINUTES_MAX:
            return True
        oldest = next(iter(self._minutes))
        return self._resident > RESIDENT_KEYS_MAX and self._final_blocks - self._asked_at[oldest] > IN_USE_BLOCKS

    def _load(self, minute: int) -> set[bytes]:
        keys: set[bytes] = set()
        for _, row in self._store.scan(record_key_row(minute), record_key_row(minute + 1)):
            if len(row) % KEY_BYTES:
                raise StoreDamaged(
                    "a row of record keys is cut",
                    where=f"minute {minute}",
                    expected=f"a multiple of {KEY_BYTES} bytes",
                    actual=len(row),
                    hint="Move the data directory away and let the node sync from its peers",
                )
            keys.update(split_keys(row))
        self._minutes[minute] = keys
        self._resident += len(keys)
        return keys


class SeenRecords:
    """What one branch has counted: the final chain, the overlays of its unfinal blocks, and the block at hand."""

    def __init__(self, index: RecordIndex, overlays: Sequence[Overlay]) -> None:
        self._index = index
        self._overlays = [*overlays, Overlay()]

    @property
    def overlay(self) -> Overlay:
        """Return what the block at hand has counted so far."""
        return self._overlays[-1]

    def layers(self, minute: int) -> list[AbstractSet[bytes]]:
        """Return the sets that together hold every key counted in ``minute``."""
        layers: list[AbstractSet[bytes]] = [o.minutes[minute] for o in self._overlays if minute in o.minutes]
        layers.append(self._index.minute(minute))
        return layers

    def has_transaction(self, tx_id: bytes) -> bool:
        """Tell whether the branch holds ``tx_id`` already."""
        return any(tx_id in o.tx_ids for o in self._overlays) or self._index.height_of(tx_id) is not None
