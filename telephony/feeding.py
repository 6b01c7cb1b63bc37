"""Records from a file or a pipe, handed to an agent: to its spool while none runs, or to one that runs over HTTP.

What counts is what is on disk: the outcome says how many records are, how many cannot be read, and how many are still
with whoever has the file.

Source: docs/agent.md, "Files by hand".
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from ledger.errors import ConfigError, EncodingError, LedgerError, StoreError
from telephony.adapters.base import Adapter
from telephony.dead_letters import DeadLetters, dead_letter
from telephony.intake import fault_of
from telephony.pieces import Found, Piece, cut, file_type_of, split_piece
from telephony.spool import Spool

PATIENCE_S: Final = 30.0
"""An agent whose disk is slow or full, or that is being started again, gets so long."""
PAUSE_S: Final = 1.0
ANSWER_S: Final = 60.0
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
FAULTS_NAMED_MAX: Final = 20
LATER: Final = frozenset({0, 408, 429, 500, 502, 503, 504, 507})
"""Answers after which the same post may go well; 0: there was none."""


@dataclass(slots=True)
class Outcome:
    """What became of the records of one file."""

    kept: int = 0
    """On the agent's disk."""
    dead: int = 0
    """Cannot be read: dead letters, or refused by an agent that makes them such."""
    left: int = 0
    """Not on disk: still with whoever has the file."""
    faults: list[str] = field(default_factory=list)
    """What is wrong with those that cannot be read, the first ones."""
    failure: str = ""
    """Why some are not on disk."""

    @property
    def is_all_kept(self) -> bool:
        """Tell whether every record is on disk and on its way."""
        return not (self.dead or self.left or self.failure)

    def note(self, line: int, fault: str) -> None:
        """Note a record that cannot be read."""
        self.dead += 1
        if len(self.faults) < FAULTS_NAMED_MAX:
            self.faults.append(f"from line {line}: {fault}")


class Sink(Protocol):
    """Where records go."""

    def put(self, piece: Piece, found: list[Found], outcome: Outcome) -> None:
        """Put what was found in a piece on disk, and note it. Raises StoreError where nothing more can be."""


def feed(adapter: Adapter, read: Callable[[int], bytes], sink: Sink) -> Outcome:
    """Hand over all records that ``read`` gives: up to so many bytes, none at the end.

    Where the sink fails, the rest is read all the same, to say how many are left. Raises EncodingError for what is none
    of the platform's files; then nothing of it was handed over.
    """
    outcome = Outcome()
    for piece, found in _found(adapter, read, outcome):
        if not outcome.failure:
            before = outcome.kept + outcome.dead
            try:
                sink.put(piece, found, outcome)
            except StoreError as error:
                outcome.failure = error.sentence()
                outcome.left += len(found) - (outcome.kept + outcome.dead - before)
            continue
        outcome.left += len(found)
    return outcome


def _found(adapter: Adapter, read: Callable[[int], bytes], outcome: Outcome) -> Iterator[tuple[Piece, list[Found]]]:
    for number, piece in enumerate(cut(adapter, read)):
        try:
            yield piece, split_piece(adapter, piece)
        except EncodingError as error:
            if number == 0 or not outcome.kept + outcome.dead + outcome.left:
                raise
            yield piece, [Found(row.strip(), error) for row in piece.rows]


class SpoolSink:
    """A spool that no agent has open."""

    def __init__(self, adapter: Adapter, spool: Spool, dead: DeadLetters, *, now_ms: Callable[[], int]) -> None:
        self._adapter = adapter
        self._spool = spool
        self._dead = dead
        self._now_ms = now_ms

    def put(self, piece: Piece, found: list[Found], outcome: Outcome) -> None:
        """Write the good ones with one sync, the others among the dead letters."""
        kind, now_ms = int(self._adapter.kind), self._now_ms()
        judged = [(one.document, one.fault or fault_of(self._adapter, one.document)) for one in found]
        good = [(kind, document) for document, fault in judged if fault is None]
        bad = [(document, fault.sentence()) for document, fault in judged if fault is not None]
        if good:
            self._spool.append(good, time_ms=now_ms)
            outcome.kept += len(good)
        if bad:
            self._dead.add(
                [
                    dead_letter(document, kind=kind, stage="intake", reason=reason, time_ms=now_ms)
                    for document, reason in bad
                ]
            )
            for _, reason in bad:
                outcome.note(piece.line, reason)


class Answered(NamedTuple):
    """What an agent answered."""

    status: int
    """0: nobody did."""
    body: bytes


Post = Callable[[bytes, str], Answered]
"""Posts a body of a type. Raises nothing."""


class UrlSink:
    """An agent that runs, over HTTP."""

    def __init__(
        self,
        adapter: Adapter,
        post: Post,
        *,
        steady_s: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._media_type = file_type_of(adapter)
        self._post = post
        self._steady_s = steady_s
        self._pause = pause

    def put(self, piece: Piece, found: list[Found], outcome: Outcome) -> None:
        """Post a piece; where some of its rows are none, each row by itself: then those cost nobody else."""
        if all(one.fault is None for one in found):
            self._put_body(piece, piece.body(piece.rows), len(found), outcome)
            return
        for row in piece.rows:
            self._put_body(piece, piece.body([row]), 1, outcome)

    def _put_body(self, piece: Piece, body: bytes, count: int, outcome: Outcome) -> None:
        """Post until the agent has decided. Raises StoreError where it cannot, or never will."""
        patient_until_s = self._steady_s() + PATIENCE_S
        while True:
            answered = self._post(body, self._media_type)
            if answered.status not in LATER:
                break
            if self._steady_s() >= patient_until_s:
                raise StoreError(f"the agent cannot take them now: {_words(answered)}")
            self._pause(PAUSE_S)
        problems = _problems(answered, count)
        if problems is None:
            raise StoreError(f"the agent does not take them: {_words(answered)}")
        outcome.kept += count - len(problems)
        for problem in problems:
            outcome.note(piece.line, problem)


def _problems(answered: Answered, count: int) -> list[str] | None:
    """Return what is wrong with those of ``count`` records that cannot be read; None where none was looked at."""
    if answered.status == 202:
        return []
    if answered.status not in {400, 413, 422}:
        return None
    results = _document(answered).get("results")
    if not isinstance(results, list):
        return [_words(answered)] * count
    return [
        str((result.get("problem") or {}).get("detail", "refused"))
        for result in results
        if isinstance(result, dict) and result.get("status") != 202
    ]


def _document(answered: Answered) -> dict[str, Any]:
    try:
        return msgspec.json.decode(answered.body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def _words(answered: Answered) -> str:
    """Return an answer in words."""
    if answered.status == 0:
        return answered.body.decode("utf-8", "replace")
    return f"HTTP {answered.status}: {_document(answered).get('detail', 'no reason given')}"


class AgentConnection:
    """A connection to one agent's way in; call it to post."""

    def __init__(self, url: str, source: str, token: str) -> None:
        """``url`` is ``http://HOST:PORT``. Raises ConfigError."""
        parts = urlsplit(url)
        try:
            is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.path in {"", "/"}
            self._port = parts.port
        except ValueError:
            is_good = False
        if not is_good or parts.query or parts.fragment or parts.username is not None:
            raise ConfigError("not an agent's address", where="--url", expected="http://HOST:PORT", actual=url)
        self._host = parts.hostname or ""
        self._is_tls = parts.scheme == "https"
        self._path = f"/v1/ingest/{source}"
        self._token = token
        self._connection: http.client.HTTPConnection | None = None

    def __call__(self, body: bytes, media_type: str) -> Answered:
        """Post a body."""
        headers = {"Content-Type": media_type, "Authorization": f"Bearer {self._token}"}
        try:
            if self._connection is None:
                make = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
                self._connection = make(self._host, self._port, timeout=ANSWER_S)
            self._connection.request("POST", self._path, body, headers)
            response = self._connection.getresponse()
            answered = Answered(response.status, response.read(ANSWER_BYTES_MAX))
            if response.will_close:
                self.close()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Answered(0, (str(error) or type(error).__name__).encode("utf-8", "replace"))
        return answered

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class NotAllFed(LedgerError):
    """Some records of a file are not on disk, or cannot be read."""

    code = "not-all-kept"


def error_of(outcome: Outcome) -> NotAllFed | None:
    """Return the error that tells of records that are not on disk; None where all are."""
    if outcome.is_all_kept:
        return None
    count = outcome.kept + outcome.dead + outcome.left
    parts = []
    if outcome.dead:
        parts.append(f"{outcome.dead:,} cannot be read and are dead letters")
    if outcome.left or outcome.failure:
        parts.append(f"{outcome.left:,} are still with you, for {outcome.failure}")
    hint = "Feed the whole file again: nothing counts twice" if outcome.left else "See ledger-agent dead list"
    return NotAllFed(
        f"of {count:,} records {outcome.kept:,} are on disk; {'; '.join(parts)}", where="standard input", hint=hint
    )
