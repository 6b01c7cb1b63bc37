"""The agent's spool: records on disk in the order they came, until the ledger has them.

A spool is a directory::

    FORMAT      the format's name and version
    LOCK        held by the process that has the spool open
    cursor      what was delivered: a position, replaced whole
    N.seg       frames; N, twenty digits, is the sequence number of the first one

A frame is a header and a document. Every number is big-endian::

    4  magic        FF 43 44 52: a byte that no UTF-8 text has, then "CDR"
    8  sequence     of this document, from 1, without gaps over all segments
    8  time_ms      when it was taken in, UTC
    4  length       of the document
    1  kind         which adapter reads it, see telephony.adapters.base.Kind
    4  body check   CRC-32 of the document
    4  head check   CRC-32 of the 29 bytes above, begun with the frame's offset: a frame is good at its own place only

Documents are appended in groups with one sync each. What a crash leaves is whole groups and, at the very end, part of
one that nobody was told of: it is cut off at the next start. A frame damaged later is stepped over, its bytes handed
to the reader, and what follows it is found again by its magic and head check.

Threads: one may append while another reads and advances.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from ledger.errors import EncodingError, StoreDamaged, StoreFull
from ledger.segments import from_os, sync_directory, write_all
from telephony.adapters.base import DOCUMENT_BYTES_MAX
from telephony.spool_files import Position, check_format, lock, read_cursor, write_cursor

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""A segment is closed when the next group would take it beyond this; what is delivered leaves the disk by segments, the
last one when the spool is at rest."""
GROUP_BYTES_MAX: Final = SEGMENT_BYTES // 2
"""Longest group of one append; also keeps a frame from being longer than a segment."""
RESERVE_BYTES: Final = 64 * 1024 * 1024
"""Room left on the disk: new records are refused before dead letters and the cursor have none."""

_MAGIC: Final = b"\xffCDR"
_FIELDS: Final = struct.Struct(">4sQQIBI")
_CHECK: Final = struct.Struct(">I")
HEADER_BYTES: Final = _FIELDS.size + _CHECK.size
FRAME_BYTES_MAX: Final = HEADER_BYTES + DOCUMENT_BYTES_MAX

FREE_ROOM: Final = "Free room on this disk; what was refused is still with whoever sent it"


class Frame(NamedTuple):
    """One document with what is known about it."""

    sequence: int
    time_ms: int
    kind: int
    document: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are not what was written."""

    error: StoreDamaged
    """Names file and offset."""
    data: bytes
    """What stands there now; empty where a file is missing."""
    records: int
    """How many documents stood there; at least this many at the end of the spool."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read found, in order, and where the next begins."""

    end: Position
    frames: list[Frame] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)


class _Header(NamedTuple):
    sequence: int
    time_ms: int
    length: int
    kind: int
    body_check: int


class Spool:
    """An open spool; nobody else can open it until ``close``.

    Attributes:
        notices: what was mended or found wrong at the start, one sentence each.
    """

    def __init__(self, directory: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        """Open or make the spool in ``directory``.

        reserve_bytes: room that appending leaves on the disk.
        Raises StoreLocked, StoreVersion, or StoreError where the disk refuses.
        """
        self.notices: list[str] = []
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._mutex = threading.Lock()
        self._fd = self._fd_segment = -1
        self._segments: list[int] = []
        self._cursor = self._end = Position(1, 0, 1)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = lock(directory)
        except OSError as error:
            raise from_os(error, directory) from error
        try:
            self._open()
        except OSError as error:
            self.close()
            raise from_os(error, directory) from error
        except BaseException:
            self.close()
            raise

    # -- what there is -----------------------------------------------------------------------------------------------

    @property
    def cursor(self) -> Position:
        """Return where the first document stands that is not delivered."""
        return self._cursor

    @property
    def end(self) -> Position:
        """Return where the next document will stand; all before it is on disk."""
        return self._end

    @property
    def backlog(self) -> int:
        """Return how many documents are not delivered."""
        return self._end.sequence - self._cursor.sequence

    @property
    def has_room(self) -> bool:
        """Tell whether the disk has more room than the reserve."""
        return self._free_bytes() > self._reserve_bytes

    # -- writing -----------------------------------------------------------------------------------------------------

    def append(self, documents: Sequence[tuple[int, bytes]], *, time_ms: int) -> None:
        """Write ``(kind, document)`` pairs; all are on disk on return.

        Raises EncodingError for one beyond DOCUMENT_BYTES_MAX or a group beyond GROUP_BYTES_MAX, StoreFull or
        StoreError where the disk refuses. Then nothing of the group is kept.
        """
        size = sum(len(document) + HEADER_BYTES for _, document in documents)
        if size > GROUP_BYTES_MAX or any(len(document) > DOCUMENT_BYTES_MAX for _, document in documents):
            expected = f"at most {DOCUMENT_BYTES_MAX} bytes each and {GROUP_BYTES_MAX} together"
            raise EncodingError("too long for the spool", where="documents", expected=expected, actual=size)
        self._check_room(size)
        end = self._roll(size)
        data, after = _frames(documents, end, time_ms)
        try:
            self._open_for_writing(end.segment, end.offset)
            write_all(self._fd, data, end.offset)
            os.fdatasync(self._fd)
        except OSError as error:
            # A failed sync tells nothing about what reached the disk: the bytes go, and come anew from the sender.
            self._abandon(end.offset)
            raise from_os(error, self._path(end.segment)) from error
        # A crash before this line leaves documents that nobody was told of; they are delivered all the same.
        self._end = after

    def _roll(self, size: int) -> Position:
        """Return where a group of ``size`` bytes goes, beginning a new segment where this one has no place for it."""
        end = self._end
        if end.offset and end.offset + size > SEGMENT_BYTES:
            # Decided before the file is made: whatever fails from here on, nothing more goes into the old segment.
            end = Position(end.sequence, 0, end.sequence)
            with self._mutex:
                self._segments.append(end.segment)
                self._end = end
        return end

    def _check_room(self, size: int) -> None:
        free = self._free_bytes()
        if free < self._reserve_bytes + size:
            raise StoreFull(
                "the disk is nearly full",
                where=str(self._directory),
                expected=f"{self._reserve_bytes + size} bytes free",
                actual=free,
                hint=FREE_ROOM,
            )

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize

    def _open_for_writing(self, segment: int, end: int) -> None:
        """Make ``segment`` the one written to, without what lies beyond ``end``."""
        if self._fd_segment == segment:
            return
        self._close_file()
        self._fd = os.open(self._path(segment), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, end)
        os.fsync(self._fd)
        # Without this a crash may forget the name of a new file, and with it all its bytes.
        sync_directory(self._directory)
        self._fd_segment = segment

    def _abandon(self, end: int) -> None:
        if self._fd >= 0:
            # Where this fails too, opening the file for the next group cuts it, or says why not.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, end)
        self._close_file()

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = self._fd_segment = -1

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self, start: Position, *, count_max: int, bytes_max: int = DOCUMENT_BYTES_MAX) -> Batch:
        """Return at least one document from ``start`` on, where there is one, and the damages on the way.

        Ends after ``count_max`` documents, or with the one that takes it to ``bytes_max``. Raises StoreError.
        """
        frames: list[Frame] = []
        damages: list[Damage] = []
        limit = self._end
        position, size = start, 0
        while len(frames) < count_max and size < bytes_max and position < limit:
            path = self._path(position.segment)
            try:
                stop = limit.offset if position.segment == limit.segment else path.stat().st_size
                if position.offset >= stop:
                    position = self._next_segment(position, limit, damages)
                    continue
                data = _read(path, position.offset, min(stop - position.offset, bytes_max + FRAME_BYTES_MAX))
            except FileNotFoundError:
                position = self._next_segment(position, limit, damages)
                continue
            except OSError as error:
                raise from_os(error, path) from error
            found, position, size = _take(data, position, count_max - len(frames), bytes_max, size)
            frames += found
            if not found:
                position = self._step_over(position, stop, limit, damages)
        return Batch(position, frames, damages)

    def _next_segment(self, position: Position, limit: Position, damages: list[Damage]) -> Position:
        """Return where the next segment begins; what should have stood before it is a damage."""
        after = self._segment_after(position, limit)
        if after.sequence != position.sequence:
            error = StoreDamaged(
                "records are missing",
                where=f"{self._path(position.segment)} at {position.offset}",
                expected=f"records {position.sequence} to {after.sequence - 1}",
            )
            damages.append(Damage(error, b"", after.sequence - position.sequence))
        return after

    def _segment_after(self, position: Position, limit: Position) -> Position:
        """Return the begin of the next segment; in the one that ``limit`` is in, ``limit``."""
        if position.segment == limit.segment:
            return limit
        with self._mutex:
            first = next(segment for segment in self._segments if segment > position.segment)
        return Position(first, 0, first)

    def _step_over(self, position: Position, stop: int, limit: Position, damages: list[Damage]) -> Position:
        """Return where good frames begin again, in this segment or the next, noting what was passed."""
        path = self._path(position.segment)
        try:
            data = _read(path, position.offset, stop - position.offset)
        except OSError as error:
            raise from_os(error, path) from error
        skipped, header = _find_frame(data, position.offset)
        after = (
            Position(position.segment, position.offset + skipped, header.sequence)
            if header is not None
            else self._segment_after(position, limit)
        )
        damage = StoreDamaged(f"{skipped} bytes are not what was written", where=f"{path} at {position.offset}")
        damages.append(Damage(damage, data[:skipped], after.sequence - position.sequence))
        return after

    # -- what is delivered -------------------------------------------------------------------------------------------

    def advance(self, position: Position) -> None:
        """Note durably that everything before ``position`` is delivered, and delete the segments that end before it.

        Raises StoreError: then it is delivered once more after a crash, and nothing is lost.
        """
        with self._mutex:
            for this, following in pairwise(self._segments):
                if position.segment == this and position.sequence == following:
                    position = Position(following, 0, following)
            passed = [segment for segment in self._segments if segment < position.segment]
        self._cursor = position
        try:
            write_cursor(self._directory, position)
            for segment in passed:
                # Only after the cursor is on disk: a crash here leaves a file that the next start deletes.
                self._path(segment).unlink(missing_ok=True)
        except OSError as error:
            raise from_os(error, self._directory / "cursor") from error
        with self._mutex:
            self._segments = [segment for segment in self._segments if segment >= position.segment]

    def retire(self) -> None:
        """Delete the last segment too where all of it is delivered; what comes then goes into a new one.

        For a spool at rest: nothing that was delivered is to stay on the disk until a segment is full. Not while
        another thread appends or advances. Raises StoreError: then the next ``advance`` does it.
        """
        end = self._end
        if self._cursor.sequence != end.sequence:
            return
        if end.sequence != end.segment:
            # An open file would stay on the disk although it is deleted.
            self._close_file()
            with self._mutex:
                self._segments.append(end.sequence)
                self._end = Position(end.sequence, 0, end.sequence)
        elif self._cursor == end:
            return
        # Also where a new segment was begun already by a group that the disk refused.
        self.advance(self._end)

    def close(self) -> None:
        """Close the files and let go of the lock; a second time does nothing."""
        self._close_file()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- start -------------------------------------------------------------------------------------------------------

    def _path(self, segment: int) -> Path:
        return self._directory / f"{segment:020}.seg"

    def _open(self) -> None:
        check_format(self._directory)
        segments = sorted(int(path.stem) for path in self._directory.glob("*.seg") if path.stem.isdecimal())
        cursor = read_cursor(self._directory)
        if cursor is None:
            first = segments[0] if segments else 1
            cursor = Position(first, 0, first)
            if segments:
                self.notices.append("no cursor that can be read: everything in the spool is delivered once more")
            write_cursor(self._directory, cursor)
        for segment in [segment for segment in segments if segment < cursor.segment]:
            self._path(segment).unlink()
            segments.remove(segment)
        end = Position(cursor.sequence, 0, cursor.sequence)
        if segments:
            end = self._recover_tail(segments[-1], cursor)
        if end.sequence < cursor.sequence:
            self.notices.append(f"records {end.sequence} to {cursor.sequence - 1} are gone, but were delivered")
            end = Position(cursor.sequence, 0, cursor.sequence)
        if end.segment not in segments:
            segments.append(end.segment)
        self._segments, self._cursor, self._end = segments, cursor, end
        self._open_for_writing(end.segment, end.offset)

    def _recover_tail(self, segment: int, cursor: Position) -> Position:
        """Return the end of the last segment, having cut off what a crash left half written.

        Damaged bytes are left for the reader; where they come last, a new segment begins behind them.
        """
        path = self._path(segment)
        position = cursor if cursor.segment == segment else Position(segment, 0, segment)
        size = path.stat().st_size
        if size < position.offset:
            self.notices.append(f"{path}: ends at {size}, but records up to {position.offset} were delivered")
            return Position(position.sequence, 0, position.sequence)
        data = _read(path, position.offset, size - position.offset)
        begin, index = position.offset, 0
        while index < len(data):
            header = _good_frame(data, index, begin + index)
            if header is None:
                skipped, header = _find_frame(data[index:], begin + index)
                if header is None:
                    break
                index += skipped
            index += HEADER_BYTES + header.length
            position = Position(segment, begin + index, header.sequence + 1)
        rest = data[position.offset - begin :]
        if rest and not _is_torn(rest, position.offset):
            self.notices.append(f"{path} at {position.offset}: {len(rest)} bytes are not what was written")
            return Position(position.sequence + 1, 0, position.sequence + 1)
        if rest:
            self.notices.append(f"{path} at {position.offset}: {len(rest)} bytes of an unfinished write cut off")
        return position


def _frames(documents: Sequence[tuple[int, bytes]], start: Position, time_ms: int) -> tuple[bytes, Position]:
    """Return the bytes of a group and the position behind it."""
    pieces = []
    offset, sequence = start.offset, start.sequence
    for kind, document in documents:
        head = _FIELDS.pack(_MAGIC, sequence, time_ms, len(document), kind, zlib.crc32(document))
        pieces += [head, _CHECK.pack(zlib.crc32(head, offset)), document]
        offset += HEADER_BYTES + len(document)
        sequence += 1
    return b"".join(pieces), Position(start.segment, offset, sequence)


def _header_at(data: bytes, index: int, offset: int) -> _Header | None:
    """Return the header at ``index``, which is ``offset`` in its file; None where there is no good one."""
    head = data[index : index + _FIELDS.size]
    if len(data) < index + HEADER_BYTES or _CHECK.unpack_from(data, index + _FIELDS.size)[0] != zlib.crc32(
        head, offset
    ):
        return None
    magic, sequence, time_ms, length, kind, body_check = _FIELDS.unpack(head)
    return _Header(sequence, time_ms, length, kind, body_check) if magic == _MAGIC else None


def _good_frame(data: bytes, index: int, offset: int) -> _Header | None:
    """Return the header at ``index`` where the whole frame is good, else None."""
    header = _header_at(data, index, offset)
    if header is None:
        return None
    begin = index + HEADER_BYTES
    document = data[begin : begin + header.length]
    return header if len(document) == header.length and zlib.crc32(document) == header.body_check else None


def _take(data: bytes, start: Position, count_max: int, bytes_max: int, size: int) -> tuple[list[Frame], Position, int]:
    """Return the good frames that follow one another in ``data``, the position behind them, and ``size`` with theirs.

    Ends at the first that is not good or not whole.
    """
    frames: list[Frame] = []
    index, sequence = 0, start.sequence
    while len(frames) < count_max and size < bytes_max and index < len(data):
        header = _good_frame(data, index, start.offset + index)
        if header is None or header.sequence != sequence:
            break
        begin, index = index + HEADER_BYTES, index + HEADER_BYTES + header.length
        frames.append(Frame(sequence, header.time_ms, header.kind, data[begin:index]))
        size += header.length
        sequence += 1
    return frames, Position(start.segment, start.offset + index, sequence), size


def _find_frame(data: bytes, offset: int) -> tuple[int, _Header | None]:
    """Return how far into ``data``, beyond its first byte, the next good frame begins, and its header.

    Where there is none: the length of ``data``, and None.
    """
    index = data.find(_MAGIC, 1)
    while index >= 0:
        header = _good_frame(data, index, offset + index)
        if header is not None:
            return index, header
        index = data.find(_MAGIC, index + 1)
    return len(data), None


def _is_torn(rest: bytes, offset: int) -> bool:
    """Tell whether ``rest``, the end of the last segment, is part of a write that never ended.

    Such a write leaves a beginning, or zeros where the file grew and the bytes did not come. Anything else may have
    been a good frame once.
    """
    header = _header_at(rest, 0, offset)
    if header is not None:
        return len(rest) < HEADER_BYTES + header.length
    return len(rest) < HEADER_BYTES or not any(rest)


def _read(path: Path, offset: int, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, max(size, 0), offset)
    finally:
        os.close(fd)
