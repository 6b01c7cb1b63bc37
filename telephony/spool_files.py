"""The small files of a spool: its lock, its format line and its cursor."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import zlib
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ledger.errors import StoreDamaged, StoreLocked, StoreVersion
from ledger.segments import sync_directory, write_all

ID_BYTES: Final = 16
FORMAT_LINE: Final = "ledger-agent spool 1\n"


class Position(NamedTuple):
    """A place in the spool."""

    segment: int
    """The sequence number in the segment's name."""
    offset: int
    """Bytes from the segment's begin."""
    sequence: int
    """Of the document that stands there, or will."""


class _Cursor(msgspec.Struct, forbid_unknown_fields=True):
    """The cursor file: JSON on one line."""

    segment: int
    offset: int
    sequence: int
    check: int
    """CRC-32 of the three numbers in decimal, separated by spaces."""


def lock(directory: Path) -> int:
    """Return a descriptor that holds the spool's lock, with our process id in the file.

    Raises StoreLocked naming the process that has it, OSError where the disk refuses.
    """
    fd = os.open(directory / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        write_all(fd, b"%d\n" % os.getpid(), 0)
    except BlockingIOError:
        pid = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise StoreLocked(
            f"process {pid or 'unknown'} has this spool open",
            where=str(directory),
            hint="Stop that agent first, or give this one a spool of its own",
        ) from None
    except OSError:
        os.close(fd)
        raise
    return fd


def check_format(directory: Path) -> None:
    """Write the format line of a new spool. Raises StoreVersion for another's, OSError where the disk refuses."""
    path = directory / "FORMAT"
    if not path.exists():
        if any(directory.glob("*.seg")):
            raise StoreDamaged("the format line is missing", where=str(path), hint=f"Write into it: {FORMAT_LINE}")
        replace(path, FORMAT_LINE.encode())
        sync_directory(directory.parent)
        return
    text = path.read_bytes()[:100].decode("ascii", "replace")
    if text != FORMAT_LINE:
        raise StoreVersion(
            "no spool that this program can read",
            where=str(path),
            expected=FORMAT_LINE.strip(),
            actual=text.strip(),
            hint="Run the program that wrote it until it is empty, then give this one a new directory",
        )


def read_cursor(directory: Path) -> Position | None:
    """Return the cursor, None where there is none or none that is whole. Raises OSError."""
    try:
        cursor = msgspec.json.decode((directory / "cursor").read_bytes(), type=_Cursor)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    position = Position(cursor.segment, cursor.offset, cursor.sequence)
    return position if cursor.check == _check(position) and min(position) >= 0 else None


def write_cursor(directory: Path, position: Position) -> None:
    """Make ``position`` the cursor, durably. Raises OSError."""
    replace(directory / "cursor", msgspec.json.encode(_Cursor(*position, _check(position))) + b"\n")


def replace(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it is there whole, or as it was before. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    sync_directory(path.parent)


def _check(position: Position) -> int:
    return zlib.crc32(b"%d %d %d" % position)


def spool_id(directory: Path) -> bytes:
    """Return the 16 bytes that tell this spool from every other, drawn where there are none. Raises OSError."""
    path = directory / "id"
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = bytes.fromhex(path.read_text("ascii"))
        if len(found) == ID_BYTES:
            return found
    made = secrets.token_bytes(ID_BYTES)
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="ascii") as file:
        file.write(made.hex())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(directory)
    return made
