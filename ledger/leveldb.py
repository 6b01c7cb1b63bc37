"""The store on disk: rows in LevelDB, bodies in append-only segment files. The only importer of plyvel.

::

    DIR/FORMAT, DIR/LOCK     see ``ledger.data_directory``
    DIR/db/                  LevelDB
    DIR/segments/%08d.seg    bodies, in the order of their arrival, each in a frame

A write appends its bodies to the last segment and syncs it, and only then writes the LevelDB batch that
points at them. That batch also moves the tail, the end of what counts in the last segment. A crash in between
leaves bytes beyond the tail that nothing points at; opening cuts them off. A segment that ends before it is
damage.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

if sys.version_info >= (3, 12):
    import plyvel_next as plyvel
else:
    import plyvel

from ledger.data_directory import check_format, lock, write_format
from ledger.errors import StoreDamaged, StoreError, StoreFull
from ledger.segments import FREE_ROOM, FULL, REPAIR, Segments, from_os, sync_directory
from ledger.store import (
    Space,
    Store,
    WriteBatch,
    check_batch,
    clamp_range,
    transaction_key,
)

RESERVE_BYTES: Final = 64 << 20
"""Writes are refused when the disk has less room than this: LevelDB needs some to compact and to recover."""

WRITE_BUFFER_BYTES: Final = 8 << 20
"""LevelDB sorts this much in memory before it writes a table; a crash replays at most about twice as much."""

RECOVERY_BYTES: Final = 3 * WRITE_BUFFER_BYTES
"""Room that opening LevelDB may need, to turn its logs into tables."""

SCAN_ROWS: Final = 128
"""Rows a scan takes at a time: between two portions other threads get their turn."""

DROP_ROWS: Final = 10_000
"""Rows deleted in one batch by ``drop_range``."""

_TAIL: Final = struct.Struct(">II")
"""Segment, offset."""

# The store's own rows; all keys of callers are above.
_TAIL_KEY: Final = b"\x00tail"
_SEQUENCE_KEY: Final = b"\x00sequence"
_SIZE_KEY: Final = b"\x00size"

_NOT_DAMAGE: Final = (
    errno.EMFILE,
    errno.ENFILE,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOMEM,
    errno.EAGAIN,
)

Row = tuple[bytes, bytes | None]


class LevelStore(Store):
    """A data directory, held by this process alone. See ``Store`` for the promises.

    Safe for one writing and many reading threads.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        create: bool = True,
        reserve_bytes: int = RESERVE_BYTES,
        evidence: Path | None = None,
    ) -> None:
        """Open the store in ``path``, or make one there.

        create: where False, a directory without a store raises StoreError.
        reserve_bytes: writes leave at least this much room on the disk.
        evidence: the data directory that ``path`` is a copy of by ``copy_for_audit``. The bodies are read there,
            nothing there changes, and every write raises StoreError.

        Raises StoreLocked, StoreVersion, StoreDamaged or StoreFull, each saying what to do.
        """
        self._path = Path(path)
        self._reserve_bytes = reserve_bytes
        self._writing = threading.Lock()
        # Guards the database handle, not the data: held for single reads, and while the handle is replaced.
        self._handle_lock = threading.RLock()
        self._db: Any = None
        self._closed = False
        self._undo: list[Row] | None = None
        if not create and not (self._path / "FORMAT").exists():
            raise StoreError("there is no store here", where=str(self._path))
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._lock_fd = lock(self._path)
        except OSError as error:
            raise from_os(error, self._path) from error
        self._segments = Segments((evidence or self._path) / "segments", is_evidence=evidence is not None)
        try:
            self._open()
        except OSError as error:
            self.close()
            raise from_os(error, self._path) from error
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Check the version, open both halves, and cut off what a crash left."""
        fresh = not check_format(self._path)
        (self._path / "db").mkdir(exist_ok=True)
        self._segments.make_directory()
        self._db = _open_database(self._path / "db", create=fresh)
        rows = self._own_rows()
        if fresh:
            # A crash while the store was made leaves a database without rows; more was never acknowledged.
            if rows:
                raise StoreDamaged("the file FORMAT is missing", where=str(self._path), hint=REPAIR)
            sync_directory(self._path / "db")
            write_format(self._path)
        self._sequence = int.from_bytes(rows.get(_SEQUENCE_KEY, b""), "big")
        tail = rows.get(_TAIL_KEY)
        sizes = {
            int.from_bytes(row_key[len(_SIZE_KEY) :], "big"): int.from_bytes(size, "big")
            for row_key, size in rows.items()
            if row_key.startswith(_SIZE_KEY)
        }
        self._segments.recover(_TAIL.unpack(tail) if tail else (0, 0), sizes)

    def _own_rows(self) -> dict[bytes, bytes]:
        """Return the rows of the store itself."""
        return dict(self._portions(self._db.raw_iterator(verify_checksums=True), b"", Space.HEADER, reverse=False))

    def write(self, batch: WriteBatch) -> None:
        """See ``Store.write``."""
        check_batch(batch)
        with self._writing:
            self._make_ready(self._reserve_bytes + sum(len(body) for _, body in batch.bodies))
            rows: list[Row] = []
            tail = self._segments.tail
            if batch.bodies:
                # A crash from here to the commit leaves bytes beyond the tail, which opening cuts off.
                pointers, tail = self._segments.append(batch.bodies)
                rows = [(transaction_key(tx_id), pointers[tx_id]) for tx_id, _ in batch.bodies]
                rows.append((_TAIL_KEY, _TAIL.pack(*tail)))
                segment, size = self._segments.tail
                if tail[0] != segment:
                    rows.append((_SIZE_KEY + segment.to_bytes(4, "big"), size.to_bytes(4, "big")))
            rows += batch.puts
            self._sequence += 1
            rows.append((_SEQUENCE_KEY, self._sequence.to_bytes(8, "big")))
            try:
                self._commit(rows)
            except BaseException:
                self._sequence -= 1
                self._segments.abandon()
                raise
            self._segments.tail = tail

    def _commit(self, rows: Sequence[Row]) -> None:
        """Write ``rows`` to LevelDB, whole and synced; on failure leave the handle to be replaced."""
        try:
            # Without transaction=True plyvel would write the half-filled batch when its body raises.
            with self._db.write_batch(transaction=True, sync=True) as batch:
                for row_key, value in rows:
                    if value is None:
                        batch.delete(row_key)
                    else:
                        batch.put(row_key, value)
        except plyvel.Error as error:
            # LevelDB refuses all writes from now on, or would append to a torn log. The handle still reads
            # what was there before: remember that, since the batch may show up when the log is read back.
            if self._undo is None:
                self._undo = [(row_key, self.get(row_key)) for row_key, _ in rows]
            raise _from_leveldb(error, self._path / "db") from error

    def _make_ready(self, room_bytes: int) -> None:
        """Refuse a write without room or after ``close``; replace a database handle that failed to write."""
        if self._closed:
            raise StoreError("the store is closed", where=str(self._path))
        if self._segments.is_evidence:
            raise StoreError("the store is open for reading alone", where=str(self._path))
        failed = self._undo is not None
        _check_room(self._path, max(room_bytes, RECOVERY_BYTES if failed else 0))
        if failed or self._db is None:
            with self._handle_lock:
                if failed and self._db is not None:
                    self._db.close()
                    self._db = None
                self._database()

    def _database(self) -> Any:
        """Return the database handle, opening it again where it failed. Call with the handle lock held."""
        if self._db is None:
            if self._closed:
                raise StoreError("the store is closed", where=str(self._path))
            self._db = _open_database(self._path / "db", create=False)
            self._undo_failed_write()
        return self._db

    def _undo_failed_write(self) -> None:
        """Take back a batch whose write failed, where LevelDB had it in its log after all.

        A crash before this keeps the batch, whole: it was never acknowledged, so either is right.
        """
        if self._undo is None:
            return
        try:
            landed = self._db.get(_SEQUENCE_KEY) == (self._sequence + 1).to_bytes(8, "big")
        except plyvel.Error as error:
            raise _from_leveldb(error, self._path / "db") from error
        if landed:
            self._commit(self._undo)
        self._undo = None

    def get(self, row_key: bytes) -> bytes | None:
        """See ``Store.get``."""
        return self._get(row_key, verify=False)

    def get_checked(self, row_key: bytes) -> bytes | None:
        """See ``Store.get_checked``."""
        return self._get(row_key, verify=True)

    def _get(self, row_key: bytes, *, verify: bool) -> bytes | None:
        with self._handle_lock:
            try:
                value: bytes | None = self._database().get(row_key, verify_checksums=verify)
            except plyvel.Error as error:
                raise _from_leveldb(error, self._path / "db") from error
        return value

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """See ``Store.scan``; checksums are verified."""
        start, stop = clamp_range(start, stop)
        if start >= stop:
            return iter(())
        with self._handle_lock:
            # The iterator sees the database as it is now, whatever is written while it runs.
            rows = self._database().raw_iterator(verify_checksums=True)
        return self._portions(rows, start, stop, reverse=reverse)

    def _portions(self, rows: Any, start: bytes, stop: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows of a LevelDB iterator, taking some at a time under the handle lock."""
        portion: list[tuple[bytes, bytes]] = []
        begun = False
        try:
            while True:
                with self._handle_lock:
                    try:
                        if not begun:
                            _seek(rows, start, stop, reverse=reverse)
                        portion = list(islice(_take(rows, start, stop, reverse=reverse), SCAN_ROWS))
                    except plyvel.Error as error:
                        raise _from_leveldb(error, self._path / "db") from error
                    except RuntimeError as error:
                        raise StoreError("the store was closed during a scan", where=str(self._path)) from error
                begun = True
                yield from portion
                if len(portion) < SCAN_ROWS:
                    return
        finally:
            with self._handle_lock:
                rows.close()

    def body(self, tx_id: bytes) -> bytes | None:
        """See ``Store.body``."""
        pointer = self.get(transaction_key(tx_id))
        return None if pointer is None else self._segments.read(tx_id, pointer)

    def has_body(self, tx_id: bytes) -> bool:
        """See ``Store.has_body``."""
        return self.get(transaction_key(tx_id)) is not None

    def drop_range(self, start: bytes, stop: bytes) -> None:
        """See ``Store.drop_range``. Bodies dropped are no longer found; their segments stay.

        May use the reserved room: this is how room is made.
        """
        start, stop = clamp_range(start, stop)
        with self._writing:
            self._make_ready(0)
            begin = start
            while keys := [row_key for row_key, _ in islice(self.scan(begin, stop), DROP_ROWS)]:
                self._commit([(row_key, None) for row_key in keys])
                begin = keys[-1] + b"\x00"
            if begin != start:
                self._db.compact_range(start=start, stop=stop)

    def close(self) -> None:
        """See ``Store.close``."""
        with self._writing, self._handle_lock:
            if self._closed:
                return
            self._closed = True
            if self._db is not None:
                self._db.close()
                self._db = None
            self._segments.close()
            os.close(self._lock_fd)


def damaged_files(db: Path) -> list[str]:
    """Return the files of a LevelDB directory in which damage is found, by making LevelDB repair it.

    For copies only: what is damaged is lost from ``db``. LevelDB's errors rarely name a file; its log of a repair does.
    """
    with contextlib.suppress(plyvel.Error):
        plyvel.repair_db(str(db), paranoid_checks=True)
    logs = b"".join((db / name).read_bytes() for name in ("LOG.old", "LOG") if (db / name).exists())
    found = re.findall(r"(?:Table #(\d+)|([\w.-]+)): .*Corruption", logs.decode("utf-8", "replace"))
    return sorted({str(db / (name or f"{int(table):06d}.ldb")) for table, name in found})


def _open_database(path: Path, *, create: bool) -> Any:
    """Return a LevelDB handle, or raise the StoreError that fits."""
    try:
        return plyvel.DB(
            str(path),
            create_if_missing=create,
            # Without this LevelDB opens a log with a flipped byte and drops synced batches from its middle.
            paranoid_checks=True,
            write_buffer_size=WRITE_BUFFER_BYTES,
            # Ten bits a key: about one read in a hundred of a key that is not there touches the disk.
            bloom_filter_bits=10,
            # Most values are hashes, ids and signatures, which do not compress.
            compression=None,
        )
    except plyvel.Error as error:
        raise _from_leveldb(error, path) from error


def _seek(rows: Any, start: bytes, stop: bytes, *, reverse: bool) -> None:
    """Place a raw iterator on the first row of a scan, or nowhere."""
    if not reverse:
        rows.seek(start)
        return
    rows.seek(stop)
    if rows.valid():
        rows.prev()
    else:
        rows.seek_to_last()


def _take(rows: Any, start: bytes, stop: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
    """Yield the rows within a range from where a raw iterator stands, leaving it behind each row yielded.

    plyvel's own iterator ends a scan in silence where LevelDB finds damage; the raw one asks at every step.
    """
    move = rows.prev if reverse else rows.next
    while rows.valid():
        row: tuple[bytes, bytes] = rows.item()
        if not start <= row[0] < stop:
            return
        move()
        yield row


def _check_room(path: Path, size: int) -> None:
    """Raise StoreFull unless the disk has room for ``size`` bytes."""
    disk = os.statvfs(path)
    free = disk.f_bavail * disk.f_frsize
    if free < size:
        raise StoreFull("the disk is full", where=str(path), expected=f"{size} bytes free", actual=free, hint=FREE_ROOM)


def _from_leveldb(error: plyvel.Error, where: Path) -> StoreError:
    """Return the error to raise for one of LevelDB, which knows errors of the disk by their text only."""
    cause = error.args[0] if error.args else ""
    text = cause.decode("utf-8", "replace") if isinstance(cause, bytes) else str(cause)
    if not isinstance(error, plyvel.CorruptionError):
        for codes, kind, hint in ((FULL, StoreFull, FREE_ROOM), (_NOT_DAMAGE, StoreError, "")):
            if any(os.strerror(code) in text for code in codes):
                return kind("LevelDB cannot go on", where=str(where), actual=text, hint=hint)
    return StoreDamaged("LevelDB finds damage", where=str(where), actual=text, hint=REPAIR)
