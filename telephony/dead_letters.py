"""Dead letters: records that cannot go on as they are, kept for a person to look at, mend and send again.

One file, ``dead/letters.jsonl`` in the spool's directory; each line is a JSON object with an ``event``:

    dead      a record and why; ``id`` is the begin of its SHA-256, so the same record again is the same letter
    retry     somebody wants it sent again, in other words where there is a ``document``
    retried   it is back in the spool
    dropped   somebody has decided that it is not wanted
    due       it is of somebody, or of a month, that was forgotten, and a dispute hold keeps it for now

Lines are only ever appended, each append synced and under the lock of ``dead/LOCK``: the agent and the commands of a
person work on the file at the same time. An agent that starts leaves out what is settled.

Source: docs/agent.md, "Dead letters".
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from ledger.errors import ConfigError
from ledger.segments import from_os, sync_directory, write_all
from telephony.adapters.base import Kind

ID_BYTES: Final = 8
"""Enough to tell a million letters apart: one chance in 36 million that any two share an id."""


class Letter(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A line of the file."""

    event: Literal["dead", "retry", "retried", "dropped", "due"]
    id: str
    time_ms: int
    """When it happened, UTC."""
    stage: str = ""
    """Of dead: ``intake`` or ``building`` (refused by this agent: at the door, or when the record was to be made),
    ``delivery`` (refused by a node), ``spool`` (damaged on disk)."""
    reason: str = ""
    """Of dead: which field, what was expected, what was found."""
    document: str | None = None
    """The record as it came."""
    document_base64: str | None = None
    """The same where it is no UTF-8 text."""
    kind: int = 1
    """Of dead: which adapter reads it, see ``telephony.adapters.base.Kind``; 0 where that is lost."""

    @property
    def data(self) -> bytes:
        """Return the record's bytes."""
        if self.document_base64 is not None:
            return base64.b64decode(self.document_base64)
        return (self.document or "").encode()


@dataclass(slots=True)
class _Place:
    """Where an open letter stands in the file."""

    offset: int
    length: int
    retry: Letter | None = None
    due: Letter | None = None


class Retry(NamedTuple):
    """A letter that somebody wants sent again."""

    id: str
    kind: int
    document: bytes
    """In the words it is to have."""


def letter_id(data: bytes) -> str:
    """Return the id of the letter that holds ``data``."""
    return sha256(data).digest()[:ID_BYTES].hex()


def dead_letter(data: bytes, *, stage: str, reason: str, time_ms: int, kind: int) -> Letter:
    """Return the letter for a record that cannot go on."""
    try:
        text, encoded = data.decode("utf-8"), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(data).decode("ascii")
    # Of records that are missing there is nothing but the reason.
    return Letter("dead", letter_id(data or reason.encode()), time_ms, stage, reason, text, encoded, kind)


class DeadLetters:
    """The letters of one spool. For one thread at a time; other processes may have the same file open.

    Attributes:
        unreadable: lines that are no letters, as a crash may leave one.
    """

    def __init__(self, spool: Path) -> None:
        """Read what there is, making the directory where there is none. Raises StoreError."""
        self.unreadable = 0
        self._directory = spool / "dead"
        self._path = self._directory / "letters.jsonl"
        self._places: dict[str, _Place] = {}
        self._end = 0
        self._fd = -1
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise from_os(error, self._directory) from error
        self.refresh()

    def __len__(self) -> int:
        """Return how many letters are open."""
        return len(self._places)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._places

    def __iter__(self) -> Iterator[Letter]:
        """Return the open letters, oldest first, each read from disk as it comes."""
        return (self.get(id_) for id_ in list(self._places))

    def get(self, id_: str) -> Letter:
        """Return an open letter. Raises ConfigError where there is none, StoreError."""
        place = self._places.get(id_)
        if place is None:
            raise ConfigError("no such dead letter", where=id_, hint="List them with: ledger-agent dead list")
        return msgspec.json.decode(self._line(place), type=Letter)

    def _line(self, place: _Place) -> bytes:
        try:
            return os.pread(self._fd, place.length, place.offset)
        except OSError as error:
            raise from_os(error, self._path) from error

    def add(self, letters: Sequence[Letter]) -> int:
        """Put letters on disk; return how many were new. One that is open already with the same record is left out.

        Raises StoreFull or StoreError: then none of them is there.
        """
        new = {letter.id: letter for letter in letters if letter.event != "dead" or not self._is_waiting(letter.id)}
        if new:
            self._append(list(new.values()))
        return len(new)

    def _is_waiting(self, id_: str) -> bool:
        """Tell whether a letter is open and nobody asked for it to be sent again."""
        place = self._places.get(id_)
        return place is not None and place.retry is None

    def is_retry_wanted(self, id_: str) -> bool:
        """Tell whether somebody asked for an open letter to be sent again."""
        return id_ in self._places and not self._is_waiting(id_)

    def is_due(self, id_: str) -> bool:
        """Tell whether an open letter is to go when no hold keeps it any more."""
        return id_ in self._places and self._places[id_].due is not None

    def documents_of(self, id_: str) -> list[bytes]:
        """Return the record of an open letter, as it came and as somebody mended it. Raises as ``get`` does."""
        documents = [self.get(id_).data]
        retry = self._places[id_].retry
        return documents if retry is None or retry.document is None else [*documents, retry.data]

    def erase(self, ids: Sequence[str], time_ms: int) -> None:
        """Drop open letters, and leave nothing of any settled one in the file. Raises StoreError.

        A crash on the way leaves letters dropped that are still in the file: the next agent that starts takes them out.
        """
        self.add([Letter("dropped", id_, time_ms) for id_ in ids])
        self.compact()

    def retries(self) -> list[Retry]:
        """Return the letters to be sent again."""
        found = []
        for id_, place in self._places.items():
            if place.retry is not None:
                letter = self.get(id_)
                mended = place.retry if place.retry.document is not None else letter
                found.append(Retry(id_, letter.kind, mended.data))
        return found

    def refresh(self) -> None:
        """Read what others have appended. Raises StoreError."""
        try:
            self._follow_file()
            if self._fd < 0:
                return
            size = os.fstat(self._fd).st_size - self._end
            data = os.pread(self._fd, size, self._end)
        except OSError as error:
            raise from_os(error, self._path) from error
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            self._apply(line, self._end)
            self._end += len(line)

    def _follow_file(self) -> None:
        """Open the file that has the name now: an agent that starts puts a new one in its place."""
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return
        if self._fd >= 0 and os.fstat(self._fd).st_ino == named.st_ino:
            return
        self.close()
        self._places, self._end, self.unreadable = {}, 0, 0
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _apply(self, line: bytes, offset: int) -> None:
        try:
            letter = msgspec.json.decode(line, type=Letter)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.unreadable += 1
            return
        if letter.event == "dead":
            before = self._places.get(letter.id)
            self._places[letter.id] = _Place(offset, len(line), due=before.due if before is not None else None)
        elif letter.event in {"retry", "due"}:
            if letter.id in self._places:
                setattr(self._places[letter.id], letter.event, letter)
        else:
            self._places.pop(letter.id, None)

    def compact(self) -> None:
        """Leave out what is settled. Raises StoreError: then the file is as it was."""
        temporary = self._path.with_suffix(".new")
        with self._locked():
            self.refresh()
            try:
                with temporary.open("wb") as file:
                    os.fchmod(file.fileno(), 0o600)
                    for place in self._places.values():
                        file.write(self._line(place))
                        for mark in (place.retry, place.due):
                            if mark is not None:
                                file.write(msgspec.json.encode(mark) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                # A crash up to here leaves the old file, one behind it the new one; no letter is in neither.
                temporary.rename(self._path)
                sync_directory(self._directory)
            except OSError as error:
                raise from_os(error, self._path) from error
            self.refresh()

    def _append(self, letters: Sequence[Letter]) -> None:
        data = b"".join(msgspec.json.encode(letter) + b"\n" for letter in letters)
        with self._locked():
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    _append_whole(fd, data)
                finally:
                    os.close(fd)
                sync_directory(self._directory)
            except OSError as error:
                raise from_os(error, self._path) from error
        self.refresh()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            fd = os.open(self._directory / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise from_os(error, self._directory / "LOCK") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _append_whole(fd: int, data: bytes) -> None:
    """Append lines and sync them; where that fails, cut them off again. Raises OSError."""
    end = os.fstat(fd).st_size
    if end and os.pread(fd, 1, end - 1) != b"\n":
        # A crash left part of a line: it becomes a line that is no letter.
        data = b"\n" + data
    try:
        write_all(fd, data, end)
        os.fsync(fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, end)
        raise


def kind_name(kind: int) -> str:
    """Return what a kind of document is called, ``kamailio``; a number where there is no name."""
    with contextlib.suppress(ValueError):
        return Kind(kind).name.lower().replace("_", "-")
    return str(kind)


def as_json(letter: Letter) -> dict[str, Any]:
    """Return a letter as a person is shown it, its record decoded where it is JSON."""
    shown: dict[str, Any] = {
        "id": letter.id,
        "time_ms": letter.time_ms,
        "stage": letter.stage,
        "reason": letter.reason,
        "kind": kind_name(letter.kind),
    }
    try:
        shown["document"] = msgspec.json.decode(letter.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        shown["document"] = letter.document if letter.document is not None else letter.document_base64
    return shown
