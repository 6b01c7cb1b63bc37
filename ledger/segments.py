"""Append-only files of transaction bodies, each in a checksummed frame.

A frame is ``"LSEG" | length (4) | CRC-32 of length, tx id and body (4) | tx id (32) | body``, in big endian.
Files are named ``%08d.seg``, counted from 0. The tail, which the owner keeps, says where in the last one ends
what counts; what lies beyond was never acknowledged.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ledger.errors import StoreDamaged, StoreError, StoreFull

SEGMENT_BYTES: Final = 64 << 20
"""A segment that would grow past this is left and the next begun; one larger batch still goes in whole."""

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the operating system says where there is no room."""

REPAIR: Final = "Restore it from a backup, or delete it and let the node sync again from its peers"
FREE_ROOM: Final = "Nothing of this write was kept; free some room and try again"

POINTER: Final = struct.Struct(">III")
"""Where a body lies: segment, offset of its frame, length of the body."""

_MAGIC: Final = b"LSEG"
_FRAME: Final = struct.Struct(">4sII32s")
_CHECKED: Final = struct.Struct(">I32s")


class Segments:
    """The segment files: one writer, any number of readers."""

    def __init__(self, directory: Path, *, is_evidence: bool = False) -> None:
        """Open nothing yet. ``is_evidence``: the files belong to somebody else, and are read alone."""
        self._directory = directory
        self.is_evidence = is_evidence
        self.tail = (0, 0)
        """Last segment and where what counts in it ends; moved by the owner after the commit."""
        self._fd = -1
        self._fd_segment = -1

    def path(self, segment: int) -> Path:
        """Return the file of ``segment``, counted from 0."""
        return self._directory / f"{segment:08d}.seg"

    def make_directory(self) -> None:
        """Make the directory where it is not there. Raises OSError."""
        if not self.is_evidence:
            self._directory.mkdir(exist_ok=True)

    def recover(self, tail: tuple[int, int], sizes: dict[int, int]) -> None:
        """Check that every segment is as long as it was, and cut back to ``tail``; evidence is not cut.

        sizes: what counts in each earlier segment. Raises StoreDamaged naming the file.
        """
        self.tail = tail
        last, end = tail
        for segment, size in [*sorted(sizes.items()), *([tail] if end else [])]:
            path = self.path(segment)
            found = path.stat().st_size if path.is_file() else None
            if found is None or found < size:
                raise StoreDamaged(
                    "a segment is missing" if found is None else "a segment ends too early",
                    where=str(path),
                    expected=f"{size} bytes",
                    actual="" if found is None else f"{found} bytes",
                    hint=REPAIR,
                )
        if self.is_evidence:
            return
        for path in self._directory.glob("*.seg"):
            if path.stem.isdecimal() and int(path.stem) > last:
                path.unlink()
        if self.path(last).exists():
            self._open_for_writing(last, end)
        sync_directory(self._directory)

    def append(self, bodies: Sequence[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], tuple[int, int]]:
        """Write ``bodies`` beyond the tail and sync them; return their pointers and the tail to commit.

        Raises StoreFull or StoreError; what was written then is beyond the tail and counts for nothing.
        """
        segment, start = self.tail
        size = sum(len(body) + _FRAME.size for _, body in bodies)
        if start and start + size > SEGMENT_BYTES:
            segment, start = segment + 1, 0
        pieces = []
        pointers = {}
        offset = start
        for tx_id, body in bodies:
            crc = zlib.crc32(body, zlib.crc32(_CHECKED.pack(len(body), tx_id)))
            pieces += [_FRAME.pack(_MAGIC, len(body), crc, tx_id), body]
            pointers[tx_id] = POINTER.pack(segment, offset, len(body))
            offset += _FRAME.size + len(body)
        try:
            if self._fd_segment != segment:
                self._open_for_writing(segment, start)
            write_all(self._fd, b"".join(pieces), start)
            os.fdatasync(self._fd)
        except OSError as error:
            self.abandon()
            raise from_os(error, self.path(segment)) from error
        return pointers, (segment, offset)

    def _open_for_writing(self, segment: int, end: int) -> None:
        """Make ``segment`` the one written to, without what lies beyond ``end``."""
        self.close()
        path = self.path(segment)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, end)
        os.fsync(self._fd)
        # Without this a crash may forget the name of a new file, and with it all its bytes.
        sync_directory(self._directory)
        self._fd_segment = segment

    def abandon(self) -> None:
        """Forget a write that failed: cut its bytes off."""
        segment, end = self.tail
        if self._fd >= 0:
            # Where this fails too, opening the file for the next write cuts it, or says why not.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, end if self._fd_segment == segment else 0)
        self.close()

    def read(self, tx_id: bytes, pointer: bytes) -> bytes:
        """Return the body of ``tx_id`` at ``pointer``, or raise StoreDamaged naming file and offset."""
        if len(pointer) != POINTER.size:
            raise StoreDamaged("a pointer to a body has the wrong length", where=tx_id.hex(), hint=REPAIR)
        segment, offset, length = POINTER.unpack(pointer)
        path = self.path(segment)
        try:
            # A pipe by the name of a segment must not keep anyone waiting.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                # No more than there is: a forged pointer asks for gigabytes.
                frame = os.pread(fd, min(_FRAME.size + length, os.fstat(fd).st_size), offset)
            finally:
                os.close(fd)
        except FileNotFoundError as error:
            raise StoreDamaged("a segment is missing", where=str(path), hint=REPAIR) from error
        except OSError as error:
            raise from_os(error, path) from error
        body = frame[_FRAME.size :]
        crc = zlib.crc32(body, zlib.crc32(_CHECKED.pack(length, tx_id)))
        if len(body) != length or frame[: _FRAME.size] != _FRAME.pack(_MAGIC, length, crc, tx_id):
            raise StoreDamaged(
                f"the body of transaction {tx_id.hex()} is damaged", where=f"{path} at {offset}", hint=REPAIR
            )
        return body

    def close(self) -> None:
        """Close the file written to."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = self._fd_segment = -1


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write ``data`` at ``offset``; a disk that fills up writes some of it first."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def from_os(error: OSError, where: Path | str) -> StoreError:
    """Return the error to raise for one of the operating system."""
    if error.errno in FULL:
        return StoreFull("the disk is full", where=str(where), actual=error.strerror, hint=FREE_ROOM)
    return StoreError("the disk refuses", where=str(where), actual=error.strerror or error)
