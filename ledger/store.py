"""What storage must promise, the keys under which things lie, and a store in memory.

Two kinds of things are kept. Rows are small, ordered by key and rewritten at will. Bodies are the bytes of
transactions: large, written once, found by ``tx_id`` alone. One ``WriteBatch`` carries both, and is on disk
whole or not at all when ``Store.write`` returns or raises.

Keys begin with one byte that names their space (``Space``); numbers in keys are big endian, so that the order
of bytes is the order of numbers. What a row holds is up to whoever owns the space, but for TRANSACTION: its
rows are written by the store itself, one for each body.
"""

from __future__ import annotations

import bisect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from ledger.errors import StoreError

FORMAT_VERSION: Final = 2
"""Version of everything written to a data directory: keys, rows, segment files. Others are refused."""

TX_ID_BYTES: Final = 32
"""Length of the id under which a body is kept."""

BODIES_BYTES_MAX: Final = 1 << 30
"""Most bytes of bodies in one batch: a position in a segment file has 32 bits."""


class Space(bytes, Enum):
    """The first byte of every key. Values are part of the format: add, never renumber.

    Below 0x10 lie the store's own rows, which no caller reads or writes.
    """

    HEADER = b"\x10"
    """block id (32) -> header, certificate and producer's signature."""
    BODY_LIST = b"\x11"
    """block id (32) -> the block's body: ids and void bitmaps."""
    HEIGHT = b"\x12"
    """height (8) -> id of the final block there."""
    TRANSACTION = b"\x20"
    """tx id (32) -> where its body lies; written by the store."""
    LOCATION = b"\x21"
    """tx id (32) -> height of the block in which it is final."""
    PENDING = b"\x22"
    """tx id (32) -> stored, not yet final."""
    RECORD = b"\x30"
    """setup minute (4), then what tells rows of a minute apart -> a row of 16-byte record keys."""
    STATE = b"\x40"
    """state key -> entry of the state at the last final block."""
    VOTE = b"\x50"
    """name or slot -> the vote and seal guards."""
    PEER = b"\x60"
    """key id -> address and standing of a peer."""
    META = b"\x70"
    """name -> anything there is only one of."""


def key(space: Space, suffix: bytes) -> bytes:
    """Return the key of ``suffix`` (a block id, tx id, key id or name) in ``space``."""
    return space.value + suffix


def height_key(height: int) -> bytes:
    """Return the key of the final block at ``height``, counted from 0."""
    return Space.HEIGHT.value + height.to_bytes(8, "big")


def record_key_row(minute: int, suffix: bytes = b"") -> bytes:
    """Return the key of a row of record keys of calls set up in ``minute``, counted from 1970.

    Without ``suffix`` it is where the rows of that minute begin.
    """
    return Space.RECORD.value + minute.to_bytes(4, "big") + suffix


def transaction_key(tx_id: bytes) -> bytes:
    """Return the key under which the store itself notes where the body of ``tx_id`` lies."""
    return Space.TRANSACTION.value + tx_id


def space_range(space: Space) -> tuple[bytes, bytes]:
    """Return ``(start, stop)`` of all keys of ``space``."""
    return space.value, bytes([space.value[0] + 1])


@dataclass(slots=True)
class WriteBatch:
    """What one write carries; filled by the caller, not changed by the store."""

    puts: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    """(key, value), None deletes; applied in order, so the last one of a key counts."""
    bodies: list[tuple[bytes, bytes]] = field(default_factory=list)
    """(tx id of 32 bytes, body). One that is there already is written once more and the new place counts."""


class Store(ABC):
    """What storage promises.

    ``write`` and ``drop_range`` come from one thread at a time, which need not be the one that reads. Reads
    never wait for a write to reach the disk. Every method raises StoreError or one of its kinds; ValueError
    where a caller breaks the rules of keys.
    """

    @abstractmethod
    def write(self, batch: WriteBatch) -> None:
        """Make ``batch`` durable and visible, whole, after all earlier ones.

        Raises StoreFull where there is no room; then nothing of it is kept and the store goes on working.
        """

    @abstractmethod
    def get(self, row_key: bytes) -> bytes | None:
        """Return the value at ``row_key``, None where there is none."""

    @abstractmethod
    def get_checked(self, row_key: bytes) -> bytes | None:
        """Return the value at ``row_key``, having verified the checksum of what was read from disk.

        For what must not be wrong even once, such as votes cast. Raises StoreDamaged.
        """

    @abstractmethod
    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Return the rows with ``start`` <= key < ``stop`` as they are at this moment, in order of keys."""

    @abstractmethod
    def body(self, tx_id: bytes) -> bytes | None:
        """Return the body of ``tx_id``, None where there is none. Raises StoreDamaged for wrong bytes."""

    @abstractmethod
    def has_body(self, tx_id: bytes) -> bool:
        """Return whether there is a body of ``tx_id``, without reading it."""

    @abstractmethod
    def drop_range(self, start: bytes, stop: bytes) -> None:
        """Delete the rows with ``start`` <= key < ``stop`` and give their room back.

        For what has grown old. Not atomic: a crash may leave some of the rows; dropping again finishes it.
        """

    @abstractmethod
    def close(self) -> None:
        """Release everything held; a second time does nothing. Any other use afterwards raises StoreError."""


def check_batch(batch: WriteBatch) -> None:
    """Raise ValueError where ``batch`` breaks the rules of keys, StoreError where it is too large."""
    own = Space.TRANSACTION.value[0]
    first = Space.HEADER.value[0]
    for row_key, value in batch.puts:
        if not row_key or row_key[0] < first or (row_key[0] == own and value is not None):
            raise ValueError(f"the store alone writes keys like {row_key[:8].hex() or 'the empty one'}")
    for tx_id, _ in batch.bodies:
        if len(tx_id) != TX_ID_BYTES:
            raise ValueError(f"a tx id has {TX_ID_BYTES} bytes, not {len(tx_id)}")
    size = sum(len(body) for _, body in batch.bodies)
    if size > BODIES_BYTES_MAX:
        raise StoreError("too many bytes in one write", expected=f"<= {BODIES_BYTES_MAX}", actual=size)


def clamp_range(start: bytes, stop: bytes) -> tuple[bytes, bytes]:
    """Return the range without the store's own rows."""
    return max(start, Space.HEADER.value), stop


class MemoryStore(Store):
    """A store that forgets: for tests, the simulator and throwaway chains. For use in one thread.

    It keeps every promise but durability.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        """The keys of the rows, sorted."""
        self._bodies: dict[bytes, bytes] = {}
        self._open = True

    def write(self, batch: WriteBatch) -> None:
        """See ``Store.write``."""
        self._check_open()
        check_batch(batch)
        for tx_id, body in batch.bodies:
            self._bodies[tx_id] = bytes(body)
            self._put(transaction_key(tx_id), b"")
        for row_key, value in batch.puts:
            if value is None:
                self._delete(row_key)
            else:
                self._put(row_key, bytes(value))

    def get(self, row_key: bytes) -> bytes | None:
        """See ``Store.get``."""
        self._check_open()
        return self._rows.get(row_key)

    def get_checked(self, row_key: bytes) -> bytes | None:
        """See ``Store.get_checked``; memory has no checksums."""
        return self.get(row_key)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """See ``Store.scan``."""
        self._check_open()
        keys = self._keys_between(start, stop)
        rows = [(row_key, self._rows[row_key]) for row_key in keys]
        return reversed(rows) if reverse else iter(rows)

    def body(self, tx_id: bytes) -> bytes | None:
        """See ``Store.body``."""
        self._check_open()
        return self._bodies.get(tx_id)

    def has_body(self, tx_id: bytes) -> bool:
        """See ``Store.has_body``."""
        self._check_open()
        return tx_id in self._bodies

    def drop_range(self, start: bytes, stop: bytes) -> None:
        """See ``Store.drop_range``."""
        self._check_open()
        for row_key in self._keys_between(start, stop):
            self._delete(row_key)

    def close(self) -> None:
        """See ``Store.close``."""
        self._open = False

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError("the store is closed")

    def _keys_between(self, start: bytes, stop: bytes) -> list[bytes]:
        start, stop = clamp_range(start, stop)
        return self._keys[bisect.bisect_left(self._keys, start) : bisect.bisect_left(self._keys, stop)]

    def _put(self, row_key: bytes, value: bytes) -> None:
        if row_key not in self._rows:
            bisect.insort(self._keys, row_key)
        self._rows[row_key] = value

    def _delete(self, row_key: bytes) -> None:
        if self._rows.pop(row_key, None) is None:
            return
        del self._keys[bisect.bisect_left(self._keys, row_key)]
        if row_key[:1] == Space.TRANSACTION.value:
            self._bodies.pop(row_key[1:], None)
