"""A file that grows row by row for ever, as Asterisk's Master.csv: followed across rotations, from a durable offset.

How far it was read is kept in the spool, written after the rows are on disk: a crash in between reads some rows again,
which does no harm. A file is known again by its inode and by a checksum of its begin, so that it is found whether it
was renamed, or copied and cut to nothing, also while no agent ran; and what was written to it up to the rotation is
read before what came after.

Source: docs/agent.md, "Watched files".
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog

from ledger.errors import EncodingError, LedgerError
from telephony.adapters.base import DOCUMENT_BYTES_MAX, Adapter
from telephony.pieces import Found, Piece, growing_layout_of, pieces_of, rows_in, split_piece
from telephony.spool_files import replace
from telephony.watching import FollowSettings, Keep, WatchCounters

CHUNK_BYTES: Final = 128 * 1024
"""Read at a time, unless one row is longer."""
BEGIN_BYTES: Final = 1024
"""Of the file's begin, what it is known again by."""
PACKED: Final = (".gz", ".bz2", ".xz", ".zst", ".lz4")
"""Ends of the names of rotated files that cannot be read as they are."""


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a file was read."""

    inode: int
    """0: of no file yet. The first one that is written to after this was noted is read from its begin."""
    offset: int
    """Of the first byte that is not on disk here."""
    begin_bytes: int = 0
    begin_check: int = 0
    """CRC-32 of so many bytes from the file's begin, also beyond ``offset``: what is written there stays."""


class _Looked(NamedTuple):
    """What stands in the file behind what was read."""

    rows: list[bytes]
    head: bytes
    used: int
    """Bytes that the rows take."""
    left: int
    """Bytes behind the offset altogether."""


class Follower:
    """Follows one file.

    Attributes:
        counters: what has happened since the start.
    """

    def __init__(
        self,
        settings: FollowSettings,
        adapter: Adapter,
        keep: Keep,
        *,
        steady_ms: Callable[[], int],
        directory: Path,
    ) -> None:
        """``directory`` is where it is kept how far the file was read. Raises EncodingError for a wrong adapter."""
        self.name = settings.name
        self.counters = WatchCounters(waiting_unit="bytes")
        self._settings = settings
        self._adapter = adapter
        self._keep = keep
        self._steady_ms = steady_ms
        self._layout = growing_layout_of(adapter)
        self._place = directory / f"{settings.name}.json"
        self._state: _State | None = None
        self._fd = -1
        self._still: tuple[int, int] = (-1, 0)
        """Size of a file that was rotated away, and since when it has had it."""
        self._log = structlog.get_logger().bind(part="watch", watch=settings.name)

    async def look(self) -> bool:
        """Take in the next rows; tell whether there may be more. Raises StoreError, OSError."""
        if self._state is None:
            self._state = await asyncio.to_thread(self._load)
        if self._fd < 0 and not await asyncio.to_thread(self._open):
            self.counters.waiting = 0
            return False
        if await asyncio.to_thread(self._is_cut):
            self._close_file()
            return True
        looked = await asyncio.to_thread(self._read, is_end=False)
        if not looked.rows and not await asyncio.to_thread(self._is_current):
            if not self._is_still(looked.left):
                return False
            # Rotated away, and nobody writes to it any more: what has no line end is a row too.
            looked = await asyncio.to_thread(self._read, is_end=True)
            await self._take(looked)
            return await asyncio.to_thread(self._go_on)
        await self._take(looked)
        self.counters.waiting = looked.left - looked.used
        return bool(looked.rows)

    def close(self) -> None:
        """Let go of the file."""
        self._close_file()

    # -- rows --------------------------------------------------------------------------------------------------------

    def _read(self, *, is_end: bool) -> _Looked:
        """Return the next rows."""
        state = self._known
        size = os.fstat(self._fd).st_size
        data = os.pread(self._fd, CHUNK_BYTES, state.offset)
        rows, used = rows_in(data, self._layout, is_end=is_end and state.offset + len(data) >= size)
        if not rows and len(data) == CHUNK_BYTES:
            data = os.pread(self._fd, 2 * DOCUMENT_BYTES_MAX, state.offset)
            rows, used = rows_in(data, self._layout, is_end=is_end and state.offset + len(data) >= size)
        head: list[bytes] = []
        if self._layout.head_rows:
            first, _ = rows_in(os.pread(self._fd, CHUNK_BYTES, 0), self._layout, is_end=False)
            head = first[: self._layout.head_rows]
            size_of_head = sum(map(len, head))
            if state.offset < size_of_head:
                rows = rows[len(head) :]
        return _Looked(rows, b"".join(head), used, max(size - state.offset, 0))

    async def _take(self, looked: _Looked) -> None:
        """Put rows into the spool, and note durably that they are there."""
        for piece in pieces_of(looked.rows, self._layout, looked.head):
            faults = await self._keep(self._adapter, self._split(piece))
            refused = sum(fault is not None for fault in faults)
            self.counters.refused += refused
            self.counters.documents += len(faults) - refused
        if looked.used or (looked.left and not self._known.begin_bytes):
            # A crash before this line reads them once more.
            await asyncio.to_thread(self._save, self._known.offset + looked.used)

    def _split(self, piece: Piece) -> list[Found]:
        try:
            return split_piece(self._adapter, piece)
        except EncodingError as error:
            fault: LedgerError = error
            return [Found(row.strip(), fault) for row in piece.rows]

    # -- which file --------------------------------------------------------------------------------------------------

    @property
    def _known(self) -> _State:
        assert self._state is not None
        return self._state

    def _load(self) -> _State:
        """Return how far it was read; at the very first look, where to begin. Raises OSError."""
        self._place.parent.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            return msgspec.json.decode(self._place.read_bytes(), type=_State)
        state = _State(0, 0)
        if self._settings.is_from_end:
            with contextlib.suppress(FileNotFoundError):
                state = self._end_of(self._settings.file)
        replace(self._place, msgspec.json.encode(state))
        return state

    def _end_of(self, path: Path) -> _State:
        """Return the state of having read all whole lines of a file."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            start = max(status.st_size - DOCUMENT_BYTES_MAX, 0)
            offset = start + os.pread(fd, DOCUMENT_BYTES_MAX, start).rfind(b"\n") + 1
            begin = os.pread(fd, BEGIN_BYTES, 0)
        finally:
            os.close(fd)
        return _State(status.st_ino, offset, len(begin), zlib.crc32(begin))

    def _save(self, offset: int) -> None:
        begin = os.pread(self._fd, BEGIN_BYTES, 0)
        state = _State(os.fstat(self._fd).st_ino, offset, len(begin), zlib.crc32(begin))
        replace(self._place, msgspec.json.encode(state) + b"\n")
        self._state = state

    def _open(self) -> bool:
        """Open the file that was being read, wherever it is by now; False where there is none to read yet."""
        state = self._known
        path = self._settings.file
        if state.inode:
            places = [path, *self._rotated()]
            places.sort(key=lambda place: _inode_of(place) != state.inode)
            for place in places:
                if self._try(place, state):
                    return True
            if not path.exists():
                return False
            self.counters.failed += 1
            self._log.warning(
                "the file was rotated away before its end was read: hand in what is missing with ledger-agent feed",
                file=str(path),
                offset=state.offset,
            )
        for place in (*([] if state.inode else self._rotated_since_noted()), path):
            if self._try(place, _State(0, 0)):
                self._save(0)
                return True
        return False

    def _rotated_since_noted(self) -> list[Path]:
        """Return the files that came and were rotated away since the very first look, the oldest first."""
        noted_ns = self._place.stat().st_mtime_ns
        return [path for path in self._rotated() if _written_ns(path) >= noted_ns]

    def _try(self, path: Path, state: _State) -> bool:
        """Keep ``path`` open where it is the file that ``state`` is of."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        status = os.fstat(fd)
        begin = os.pread(fd, state.begin_bytes, 0) if stat.S_ISREG(status.st_mode) else None
        is_it = (
            begin is not None
            and status.st_size >= state.offset
            and zlib.crc32(begin) == state.begin_check
            # Of an empty file nothing else tells it from another.
            and (state.begin_bytes > 0 or state.inode in {0, status.st_ino})
        )
        if not is_it:
            os.close(fd)
            return False
        self._fd, self._still = fd, (-1, 0)
        return True

    def _rotated(self) -> list[Path]:
        """Return the files beside ours that rotation may have made of it, the oldest first."""
        path = self._settings.file
        found = []
        with contextlib.suppress(FileNotFoundError):
            for other in path.parent.iterdir():
                if other.name.startswith(path.name) and other != path and other.suffix not in PACKED:
                    with contextlib.suppress(FileNotFoundError):
                        status = other.lstat()
                        if stat.S_ISREG(status.st_mode):
                            found.append((status.st_mtime_ns, other))
        return [other for _, other in sorted(found)]

    def _is_cut(self) -> bool:
        """Tell whether the file is another by now, under its old inode: cut to nothing, and written anew."""
        state = self._known
        if os.fstat(self._fd).st_size < state.offset:
            return True
        return zlib.crc32(os.pread(self._fd, state.begin_bytes, 0)) != state.begin_check

    def _is_current(self) -> bool:
        """Tell whether it is still this file that is written to."""
        status = os.fstat(self._fd)
        try:
            now = self._settings.file.stat()
        except FileNotFoundError:
            return False
        return (now.st_ino, now.st_dev) == (status.st_ino, status.st_dev)

    def _is_still(self, left: int) -> bool:
        """Tell whether a file has been as long as it is for the time of settling."""
        size, since_ms = self._still
        now_ms = self._steady_ms()
        if size != left:
            self._still = left, now_ms
            since_ms = now_ms
        return now_ms - since_ms >= self._settings.settle_s * 1000

    def _go_on(self) -> bool:
        """Go to the file that was written to after this one; False where there is none yet."""
        ours = os.fstat(self._fd)
        later = [path for path in self._rotated() if _is_after(path, ours)]
        for path in (*later, self._settings.file):
            before, self._fd = self._fd, -1
            if self._try(path, _State(0, 0)):
                os.close(before)
                self._save(0)
                self.counters.done += 1
                return True
            self._fd = before
        return False

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _inode_of(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _is_after(path: Path, other: os.stat_result) -> bool:
    """Tell whether a file was last written to after another one."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return status.st_mtime_ns > other.st_mtime_ns and status.st_ino != other.st_ino
