"""What makes a directory a data directory: its format line, its lock, and how one is copied for whoever examines it.

::

    DIR/FORMAT    "ledgerd store 2": written last when a store is made; other versions are refused
    DIR/LOCK      locked (flock) by the process that has the store open, with its pid
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Final

from ledger.errors import StoreDamaged, StoreError, StoreLocked, StoreVersion
from ledger.segments import REPAIR, from_os, sync_directory, write_all
from ledger.store import FORMAT_VERSION

_FORMAT_LINE: Final = "ledgerd store "


def lock(path: Path) -> int:
    """Return a descriptor that holds the lock of the data directory, with our pid in it."""
    fd = _flock(path / "LOCK", os.O_RDWR | os.O_CREAT)
    try:
        os.ftruncate(fd, 0)
        write_all(fd, b"%d\n" % os.getpid(), 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def _flock(path: Path, flags: int, kind: int = fcntl.LOCK_EX) -> int:
    """Return a locked descriptor of ``path``, or raise StoreLocked naming the process that has it.

    kind: LOCK_EX, or LOCK_SH for those who only read.
    """
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise StoreLocked(
            f"process {pid or 'unknown'} has this data directory open",
            where=str(path.parent),
            hint="Stop that process first; a running node is audited over its API or from an export",
        ) from error
    except OSError:
        os.close(fd)
        raise
    return fd


def check_format(path: Path) -> bool:
    """Return whether a store of our version is here; raise StoreVersion for another."""
    try:
        text = (path / "FORMAT").read_bytes()[:100].decode("ascii", "replace")
    except FileNotFoundError:
        return False
    if text == f"{_FORMAT_LINE}{FORMAT_VERSION}\n":
        return True
    number = text.removeprefix(_FORMAT_LINE).removesuffix("\n")
    if text != f"{_FORMAT_LINE}{number}\n" or not number.isdecimal():
        raise StoreDamaged("this is no format line", where=str(path / "FORMAT"), actual=text, hint=REPAIR)
    newer = int(number) > FORMAT_VERSION
    raise StoreVersion(
        "the store is of another format version",
        where=str(path),
        expected=FORMAT_VERSION,
        actual=number,
        hint="Run the newer program that wrote it"
        if newer
        else "Delete it and let the node sync again from its peers, or run the older program that wrote it",
    )


def write_format(path: Path) -> None:
    """Write the format line so that it is there whole or not at all, and survives a crash."""
    temporary = path / "FORMAT.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, f"{_FORMAT_LINE}{FORMAT_VERSION}\n".encode("ascii"), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path / "FORMAT")
    sync_directory(path)
    sync_directory(path.parent)


def copy_for_audit(path: Path | str, to: Path | str) -> None:
    """Copy of the data directory ``path`` what opening would rewrite to the new directory ``to``: all but the bodies.

    Nothing in ``path`` changes. ``LevelStore(to, evidence=path)`` opens the copy; it reads the bodies in ``path``,
    also when a node has that open again, since of what was acknowledged nothing is ever rewritten in a segment.
    Raises StoreLocked where a node has ``path`` open, StoreError where it holds no store or ``to`` exists, StoreFull.
    """
    source, target = Path(path), Path(to)
    if not (source / "db").is_dir():
        raise StoreError("there is no store here", where=str(source))
    if target.exists():
        raise StoreError("the copy needs a new directory, and this exists", where=str(target))
    lock_fd = -1
    try:
        if (source / "LOCK").is_file():
            lock_fd = _flock(source / "LOCK", os.O_RDONLY, fcntl.LOCK_SH)
        target.mkdir(parents=True)
        for name in ("FORMAT", "db"):
            _copy(source / name, target / name)
    except OSError as error:
        raise from_os(error, error.filename or target) from error
    finally:
        if lock_fd >= 0:
            os.close(lock_fd)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, or a directory's files; follow nothing that leads elsewhere."""
    if source.is_symlink() or not source.exists():
        return
    if source.is_file():
        shutil.copyfile(source, target)
        return
    target.mkdir()
    for entry in sorted(source.iterdir()):
        if entry.is_file() and not entry.is_symlink():
            shutil.copyfile(entry, target / entry.name)
