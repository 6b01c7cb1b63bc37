"""Files that platforms leave: folders whose files are taken in whole, and what runs every watch of an agent.

A file is complete when neither its size nor its time has changed for a while; who renames finished files into place
may set that to nothing. It is split by its platform's adapter, spooled durably, and only then moved to ``done/`` or
deleted. A crash in between means that it is read once more, which does no harm: the ledger counts a call once.

Source: docs/agent.md, "Watched files".
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import structlog

from ledger.errors import ConfigError, EncodingError, LedgerError, StoreError
from ledger.segments import from_os, sync_directory
from telephony.adapters.base import Adapter
from telephony.pieces import Found, Piece, cut, growing_layout_of, split_piece
from telephony.spool_files import replace

LOOK_S: Final = 1.0
"""How often folders and files are looked at while there is nothing to do."""
RETRY_S: Final = 5.0
"""The same after the disk or the folder has refused."""
SETTLE_S: Final = 5
SETTLE_S_MAX: Final = 86_400
FAULTS_NAMED_MAX: Final = 20
"""Of a bad file, so many of its faults are written beside it; all are dead letters."""
DONE: Final = "done"
FAILED: Final = "failed"

_FOLDER_OPTIONS: Final = frozenset({"source", "directory", "pattern", "settle_s", "then"})
_FOLLOW_OPTIONS: Final = frozenset({"source", "follow", "settle_s", "begin"})


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """A folder whose files are taken in, each when it is complete."""

    name: str
    source: str
    """Name of the adapter that reads the files."""
    directory: Path
    pattern: str = "*"
    """Of the shell; hidden files never match."""
    settle_s: int = SETTLE_S
    """A file that has not changed for so long is complete; 0 where files are renamed into place."""
    is_deleted: bool = False
    """Deleted when it is on disk here, instead of moved to ``done/``."""


@dataclass(frozen=True, slots=True)
class FollowSettings:
    """A file that grows for ever, row by row."""

    name: str
    source: str
    file: Path
    settle_s: int = SETTLE_S
    """A file that was rotated away and has not changed for so long is at its end."""
    is_from_end: bool = False
    """What stands in it at the very first look is left out."""


@dataclass(slots=True)
class WatchCounters:
    """What one watch has done since the start, and how it is."""

    documents: int = 0
    """On disk here."""
    refused: int = 0
    """Could not be read: dead letters."""
    done: int = 0
    """Files that are finished."""
    failed: int = 0
    """Of a folder, files with something wrong: moved to ``failed/``. Of a followed file, rows lost to rotation count as
    one each time."""
    waiting: int = 0
    """Files that are there and not taken in yet, or bytes not read yet of a followed one."""
    waiting_unit: Literal["files", "bytes"] = "files"
    is_failing: bool = False
    """The last look ended with an error."""


class Keep(Protocol):
    """Takes documents in; see ``Intake.keep``."""

    async def __call__(self, adapter: Adapter, found: Sequence[Found], /) -> list[LedgerError | None]:
        """Return what is wrong with each. Raises StoreError where the disk refuses; then none counts as kept."""


class Watch(Protocol):
    """Something that is looked at now and then."""

    @property
    def name(self) -> str:
        """Return its name in the configuration."""

    @property
    def counters(self) -> WatchCounters:
        """Return what it has done."""

    async def look(self) -> bool:
        """Take in some of what is there; tell whether there is more. Raises LedgerError, OSError."""

    def close(self) -> None:
        """Let go of what is open."""


def parse_watch(name: str, table: Mapping[str, Any]) -> FolderSettings | FollowSettings:
    """Return what a table ``[watch.NAME]`` asks for. Raises ConfigError naming the option."""
    where = f"watch.{name}"
    if not isinstance(table, Mapping):
        raise ConfigError("not a table", where=where, expected="a table with source and directory or follow")
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise ConfigError("not a name", where=where, expected="letters, digits, - and _")
    is_follow = "follow" in table
    if is_follow == ("directory" in table):
        raise ConfigError("which files?", where=where, expected="either directory or follow")
    known = _FOLLOW_OPTIONS if is_follow else _FOLDER_OPTIONS
    for option, value in table.items():
        if option not in known:
            raise ConfigError("unknown option", where=f"{where}.{option}", expected=", ".join(sorted(known)))
        if option != "settle_s" and (not isinstance(value, str) or not value):
            raise ConfigError("not text", where=f"{where}.{option}", actual=value)
    if "source" not in table:
        raise ConfigError("whose records are these?", where=f"{where}.source", expected="the name of a platform")
    settle_s = table.get("settle_s", SETTLE_S)
    if isinstance(settle_s, bool) or not isinstance(settle_s, int) or not 0 <= settle_s <= SETTLE_S_MAX:
        expected = f"seconds, 0 to {SETTLE_S_MAX}"
        raise ConfigError("not a time", where=f"{where}.settle_s", expected=expected, actual=settle_s)
    if is_follow:
        is_from_end = _choice(table, where, "begin", "start", "end") == "end"
        return FollowSettings(name, table["source"], Path(table["follow"]), settle_s, is_from_end)
    is_deleted = _choice(table, where, "then", "move", "delete") == "delete"
    directory, pattern = Path(table["directory"]), table.get("pattern", "*")
    return FolderSettings(name, table["source"], directory, pattern, settle_s, is_deleted)


def _choice(table: Mapping[str, Any], where: str, option: str, *choices: str) -> str:
    """Return a choice; the first one where there is none."""
    value = table.get(option, choices[0])
    if value not in choices:
        expected = " | ".join(choices)
        raise ConfigError("not a choice", where=f"{where}.{option}", expected=expected, actual=value)
    return str(value)


class _Stamp(NamedTuple):
    """What tells one state of a file from another."""

    mtime_ns: int
    size: int
    inode: int


def _stamp_of(status: os.stat_result) -> _Stamp:
    return _Stamp(status.st_mtime_ns, status.st_size, status.st_ino)


class _Seen(NamedTuple):
    stamp: _Stamp
    since_ms: int
    """When it was first seen like this, of the steady clock."""
    faults: list[str] | None = None
    """It was taken in already, with these; only moving it did not succeed."""


class Folder:
    """Takes in the files of one folder.

    Attributes:
        counters: what has happened since the start.
    """

    def __init__(self, settings: FolderSettings, adapter: Adapter, keep: Keep, *, steady_ms: Callable[[], int]) -> None:
        self.name = settings.name
        self.counters = WatchCounters()
        self._settings = settings
        self._adapter = adapter
        self._keep = keep
        self._steady_ms = steady_ms
        self._seen: dict[str, _Seen] = {}
        self._log = structlog.get_logger().bind(part="watch", watch=settings.name)

    async def look(self) -> bool:
        """Take in every file that is complete, the oldest first. Raises StoreError, OSError."""
        found = await asyncio.to_thread(self._list)
        now_ms = self._steady_ms()
        # What is gone is forgotten: another file of its name is another file.
        self._seen = {name: self._seen_again(name, stamp, now_ms) for name, stamp in found.items()}
        self.counters.waiting = len(found)
        for name, seen in sorted(self._seen.items(), key=lambda item: (item[1].stamp.mtime_ns, item[0])):
            if now_ms - seen.since_ms >= self._settings.settle_s * 1000:
                await self._take_in(name, seen)
        return False

    def close(self) -> None:
        """Hold nothing open."""

    def _seen_again(self, name: str, stamp: _Stamp, now_ms: int) -> _Seen:
        before = self._seen.get(name)
        return before if before is not None and before.stamp == stamp else _Seen(stamp, now_ms)

    def _list(self) -> dict[str, _Stamp]:
        """Return the regular files that match."""
        directory = self._settings.directory
        # Before anything is read: a file that could not be moved would be read again and again.
        for name in (FAILED,) if self._settings.is_deleted else (DONE, FAILED):
            (directory / name).mkdir(mode=0o700, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise StoreError("files cannot be moved from here", where=str(directory), expected="the right to write")
        found = {}
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not fnmatchcase(entry.name, self._settings.pattern):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        found[entry.name] = _stamp_of(status)
        return found

    async def _take_in(self, name: str, seen: _Seen) -> None:
        path = self._settings.directory / name
        faults = seen.faults
        if faults is None:
            faults = await self._read(path, seen.stamp)
            if faults is None:
                # It changed meanwhile, so it was not complete: all of it comes again.
                return
            self._seen[name] = seen._replace(faults=faults)
        # Everything is on disk. A crash before it is moved means reading it again, and nothing counts twice.
        await asyncio.to_thread(self._put_away, path, faults)
        del self._seen[name]
        self.counters.waiting -= 1
        if faults:
            self.counters.failed += 1
            # Not which: platforms name files after calls.
            self._log.warning("a file is not as it should be", moved_to=FAILED)
        else:
            self.counters.done += 1

    async def _read(self, path: Path, stamp: _Stamp) -> list[str] | None:
        """Take in one file; return what is wrong with it, None where it is not what it was when it was listed."""
        try:
            # Neither a link to elsewhere nor a pipe that never ends, whatever stands there by now.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if _stamp_of(os.fstat(fd)) != stamp:
                return None
            faults = await self._take_pieces(cut(self._adapter, lambda size: os.read(fd, size)))
            return faults if _stamp_of(os.fstat(fd)) == stamp else None
        finally:
            os.close(fd)

    async def _take_pieces(self, pieces: Iterator[Piece]) -> list[str]:
        """Take in piece after piece; return what is wrong, in sentences."""
        faults: list[str] = []
        refused = documents = 0
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                try:
                    found = split_piece(self._adapter, piece)
                except EncodingError as error:
                    if not documents:
                        raise
                    found = [Found(row.strip(), error) for row in piece.rows]
                bad = [fault for fault in await self._keep(self._adapter, found) if fault is not None]
                documents += len(found)
                refused += len(bad)
                self.counters.documents += len(found) - len(bad)
                self.counters.refused += len(bad)
                faults += [f"from line {piece.line}: {fault.sentence()}" for fault in bad[:FAULTS_NAMED_MAX]]
                del faults[FAULTS_NAMED_MAX:]
        except EncodingError as error:
            return [error.sentence()]
        if refused:
            rest = f", {documents - refused} are on their way to the ledger" if documents > refused else ""
            faults.insert(0, f"{refused} of {documents} records cannot be read and are dead letters{rest}:")
        return faults

    def _put_away(self, path: Path, faults: list[str]) -> None:
        """Move a file that was taken in, or delete it. Raises OSError."""
        directory = self._settings.directory
        if not faults and self._settings.is_deleted:
            path.unlink(missing_ok=True)
        else:
            place = _free_name(directory / (FAILED if faults else DONE), path.name)
            if faults:
                replace(place.with_name(place.name + ".reason"), "\n".join([*faults, ""]).encode())
            with contextlib.suppress(FileNotFoundError):
                path.rename(place)
            sync_directory(place.parent)
        sync_directory(directory)


def _free_name(directory: Path, name: str) -> Path:
    """Return a path there that nothing has: platforms use a name again."""
    path, number = directory / name, 1
    while path.exists():
        path, number = directory / f"{name}.{number}", number + 1
    return path


class Watches:
    """All watches of an agent, each with a task of its own."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        self.watches = watches
        self._log = structlog.get_logger().bind(part="watch")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look."""
        self._tasks = [asyncio.create_task(self._run(watch), name=f"watch-{watch.name}") for watch in self.watches]

    async def stop(self) -> None:
        """End; what is half read is read again at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for watch in self.watches:
            watch.close()

    async def _run(self, watch: Watch) -> None:
        told = ""
        while True:
            try:
                has_more = await watch.look()
            except Exception as error:  # noqa: BLE001 - one watch that fails must not end the others, nor the agent
                fault = from_os(error, watch.name) if isinstance(error, OSError) else error
                sentence = fault.sentence() if isinstance(fault, LedgerError) else type(fault).__name__
                watch.counters.is_failing = True
                if sentence != told:
                    told = sentence
                    is_ours = not isinstance(fault, LedgerError)
                    self._log.error("nothing can be taken in", watch=watch.name, error=sentence, exc_info=is_ours)
                await asyncio.sleep(RETRY_S)
                continue
            if told:
                told = ""
                self._log.info("files are taken in again", watch=watch.name)
            watch.counters.is_failing = False
            await asyncio.sleep(0 if has_more else LOOK_S)


def adapter_for(settings: FolderSettings | FollowSettings, by_name: Mapping[str, Adapter]) -> Adapter:
    """Return what reads a watch's files. Raises ConfigError where there is no such platform, or none that grows."""
    where = f"watch.{settings.name}"
    adapter = by_name.get(settings.source)
    if adapter is None:
        expected = ", ".join(sorted(by_name))
        raise ConfigError("no such platform", where=f"{where}.source", expected=expected, actual=settings.source)
    if isinstance(settings, FollowSettings):
        try:
            growing_layout_of(adapter)
        except EncodingError as error:
            raise ConfigError(
                error.what, where=f"{where}.follow", expected="a directory", actual=adapter.name
            ) from None
    return adapter
