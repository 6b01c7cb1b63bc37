"""An audit's own file on disk: frames one after the other, appended and read back, never changed.

A frame is type (1) | length (4) | CRC-32 of type, length and payload (4) | payload, big endian.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import BinaryIO, Final, cast

from ledger.errors import StoreError

_FRAME: Final = struct.Struct(">BII")
_CHECKED: Final = struct.Struct(">BI")


class SpillType(IntEnum):
    """What a frame holds. Values are part of the format: add, never renumber."""

    KEYS = 1
    """Record keys of a minute: the minute (4), where its frame before this one begins (8; 0: none), keys (16 each)."""
    IDS = 2
    """Transactions: when the last of them expires (8), then id (32), expiry in ms (8) and height (8) of each."""
    STATE = 3
    """How far the audit came: a SavedAudit."""


class Spill:
    """The frames of a file, from where it is when it is handed over.

    Every method raises StoreError where the disk refuses or gives back other bytes than it was given.
    """

    def __init__(self, file: BinaryIO | None = None, *, name: str = "temporary file") -> None:
        """file: open for reading and writing; a temporary one where not given."""
        self._file = cast("BinaryIO", tempfile.TemporaryFile(prefix="ledger-verify-")) if file is None else file  # noqa: SIM115
        self._name = name
        # Offset 0 stands for no frame.
        self._begin = self._file.tell() or self._file.write(b"\0")

    def append(self, kind: SpillType, payload: bytes) -> int:
        """Append a frame and return where it begins; never 0."""
        offset = self._file.seek(0, 2)
        crc = zlib.crc32(payload, zlib.crc32(_CHECKED.pack(kind, len(payload))))
        self._file.write(_FRAME.pack(kind, len(payload), crc) + payload)
        return offset

    def read(self, offset: int, kind: SpillType) -> bytes:
        """Return the payload of the frame at ``offset``, which is of this kind."""
        self._file.seek(offset)
        head = self._file.read(_FRAME.size)
        if len(head) == _FRAME.size:
            found, length, crc = _FRAME.unpack(head)
            payload = self._file.read(length)
            if found == kind and zlib.crc32(payload, zlib.crc32(_CHECKED.pack(kind, length))) == crc:
                return payload
        raise StoreError(
            "bytes on disk are not those that were written",
            where=f"{self._name} at {offset}",
            hint="Delete the file and audit from the start",
        )

    def scan(self) -> Iterator[tuple[int, SpillType, int]]:
        """Yield each frame's offset, type and end; not held against its checksum yet.

        Ends at the first frame that is cut or is none.
        """
        size = self._file.seek(0, 2)
        offset = self._begin
        while offset + _FRAME.size <= size:
            self._file.seek(offset)
            kind, length, _ = _FRAME.unpack(self._file.read(_FRAME.size))
            end = offset + _FRAME.size + length
            if end > size or kind not in set(SpillType):
                return
            yield offset, SpillType(kind), end
            offset = end

    def cut(self, end: int) -> None:
        """Forget what lies beyond ``end``."""
        self._file.truncate(end)

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
