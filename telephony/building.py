"""From documents in the spool to signed transactions in the outbox.

A turn reads a batch of documents, makes records of them, packs and signs these, and puts all that came of the batch
on disk in one commit, with the position up to which the spool is read. Only then the spool's own cursor moves: it
follows, and a start puts it where the commit says. Dead letters are on disk before the commit: one written twice is
one letter.

Calls block; one thread at a time.

Source: docs/agent.md, "What delivery promises".
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Protocol

import structlog

from ledger.cdr import Leg, Service, record_key_of
from ledger.codec import encode
from ledger.commitment import PRIVATE_FIELDS
from ledger.errors import LedgerError, StoreError
from ledger.genesis import Parameters
from ledger.rules.flags import FLAGS, flags_of
from ledger.validation import Rules
from telephony.adapters.base import Adapter
from telephony.admission import NotYet, check_admissible
from telephony.builder import Profile, build_record
from telephony.gathering import JoinTimes, gather, role_of
from telephony.ledger_clock import LedgerClock
from telephony.outbox import Item, Outbox, Signer
from telephony.source import SourceCall, SourcePart, join_of
from telephony.spool import Batch, Frame, Spool
from telephony.spool_files import Position
from telephony.vault import VaultEntry
from telephony.waiting import NewDocument, Role, Waiter, Waiting

BATCH_DOCUMENTS: Final = 1_000
"""Documents of one turn, hence of one commit: a full transaction."""
BATCH_BYTES: Final = 8 * 1024 * 1024
"""A turn ends with the document that takes it here: this bounds the memory."""
AHEAD_RECORDS_MAX: Final = 2_000_000
"""Records signed that are not final: almost three hours of a large wholesale carrier, twelve days of a small one. So
much is handed in and no more when the ledger comes back, see docs/adr/0016. What is behind them waits in the spool."""
CALLS_DUE: Final = 1_000
"""Calls that wait for others of their documents, of one turn."""
WARNINGS_SHOWN_MAX: Final = 3
SALT_BYTES: Final = 32
SALTS_BYTES: Final = SALT_BYTES * len(PRIVATE_FIELDS)
"""Of one record."""

OTHER_CONTENT: Final = "HTTP 409: a record of this call and leg was handed in before with other content"


class Dead(NamedTuple):
    """A document that cannot go on, and why."""

    document: bytes
    kind: int
    stage: str
    reason: str


Bury = Callable[[Sequence[Dead]], None]
"""Puts documents among the dead letters, on disk on return. Raises StoreError."""


class _Spool(Protocol):
    """What is read of a spool."""

    @property
    def cursor(self) -> Position:
        """Return where the first document stands that is not done with."""

    def read(self, start: Position, *, count_max: int, bytes_max: int) -> Batch:
        """Return documents and damages from ``start`` on."""

    def advance(self, position: Position) -> None:
        """Note that everything before ``position`` is done with."""


@dataclass(frozen=True, slots=True)
class Chain:
    """What an agent must know of the chain that it signs for."""

    rules: Rules
    parameters: Parameters


@dataclass(slots=True)
class Counters:
    """What was built since the start.

    Attributes:
        built: records signed.
        known: documents whose record was there already, with the same content.
        warned: of those signed, records without something that their documents told, since it contradicted itself.
        flagged: of those signed, records in which something is suspicious, by flag.
    """

    built: int = 0
    known: int = 0
    warned: int = 0
    flagged: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FLAGS, 0))


class _Candidate(NamedTuple):
    """A call that is to become a record, and the documents that tell of it."""

    call: SourceCall
    frames: Sequence[Frame | Waiter]
    content: bytes
    """Keyed hash of the documents."""


class _Built(NamedTuple):
    """A record of a candidate, ready to be signed, and what was left out of it."""

    candidate: _Candidate
    item: Item
    entry: VaultEntry
    warnings: list[str]
    flags: list[str]


@dataclass(slots=True)
class _Turn:
    """What comes of one turn."""

    now_ms: int
    dead: list[Dead] = field(default_factory=list)
    entries: list[VaultEntry] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    new: list[NewDocument] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    postponed: list[tuple[int, int]] = field(default_factory=list)
    known: int = 0
    warnings: list[str] = field(default_factory=list)
    """The first of each record that has any."""
    flags: list[str] = field(default_factory=list)
    """Of all records."""

    @property
    def is_waiting_changed(self) -> bool:
        """Tell whether anything changes among the documents that wait."""
        return bool(self.new or self.finished or self.removed or self.postponed)

    @property
    def is_anything(self) -> bool:
        """Tell whether anything has come of it so far."""
        return bool(self.dead or self.is_waiting_changed)

    def bury(self, documents: Sequence[Frame | Waiter], reason: str) -> None:
        """Make dead letters of documents."""
        for document in documents:
            self.dead.append(Dead(document.document, document.kind, "building", reason))
            if isinstance(document, Waiter):
                self.removed.append(document.number)


class Builder:
    """Builds records of what is in a spool.

    Attributes:
        counters: what was built since the start.
        oldest_ms: when the oldest document came in that is being worked on, None where there is none.
        failed_to_advance: why the spool's cursor could not be written the last time, None where it could.
    """

    def __init__(
        self,
        spool: _Spool,
        outbox: Outbox,
        waiting: Waiting,
        *,
        spool_id: bytes,
        adapters: Mapping[int, Adapter],
        profile: Profile,
        chain: Chain,
        signer: Signer,
        clock: LedgerClock,
        bury: Bury,
        times: JoinTimes,
    ) -> None:
        """Begin at the spool's cursor. ``adapters`` are by kind."""
        self.counters = Counters()
        self.failed_to_advance: StoreError | None = None
        self.oldest_ms: int | None = None
        self._spool = spool
        self._outbox = outbox
        self._vault = outbox.vault
        self._waiting = waiting
        self._spool_id = spool_id
        self._adapters = adapters
        self._profiles: dict[tuple[Leg | None, Service | None], Profile] = {(None, None): profile}
        self._profile = profile
        self._chain = chain
        self._signer = signer
        self._clock = clock
        self._bury = bury
        self._times = times
        self._position = spool.cursor
        self._log = structlog.get_logger().bind(part="builder")

    @property
    def position(self) -> Position:
        """Return where the first document stands that nothing was made of yet."""
        return self._position

    def turn(self) -> bool:
        """Do one turn; return whether there was anything to do.

        Nothing is done before a node has told the time, nor while as much is on its way as may be.

        Raises StoreFull or another StoreError: then nothing has happened, and it may be tried again.
        """
        if not self._clock.is_confirmed:
            # By a clock that is wrong, good records are too old, and what is signed begins in the future.
            return False
        if self._outbox.records >= AHEAD_RECORDS_MAX:
            return False
        turn = _Turn(self._clock.now_ms())
        batch = self._spool.read(self._position, count_max=BATCH_DOCUMENTS, bytes_max=BATCH_BYTES)
        # A report that came in time may stand behind a backlog: what is due is what was when this batch began to come.
        due_ms = min(turn.now_ms, batch.frames[0].time_ms) if batch.frames else turn.now_ms
        candidates = self._take_due(turn, due_ms)
        if batch.end == self._position and not (candidates or turn.is_anything):
            return False
        self.oldest_ms = batch.frames[0].time_ms if batch.frames else None
        candidates += self._take_new(batch, turn)
        self._build(candidates, turn)
        outgoing = self._signer.pack(turn.items, now_ms=turn.now_ms)
        if turn.dead:
            self._bury(turn.dead)
        # A crash before this commit: the batch is read again, and its dead letters are there already.
        self._outbox.put(
            turn.entries, outgoing, spool=self._spool_id, position=batch.end, also=lambda db: self._note(db, turn)
        )
        # A crash behind it: the next start finds the position in the commit.
        self._position, self.oldest_ms = batch.end, None
        self.counters.built += len(turn.items)
        self.counters.known += turn.known
        self.counters.warned += len(turn.warnings)
        for flag in turn.flags:
            self.counters.flagged[flag] += 1
        if turn.warnings:
            # For whoever sets a platform up; in operation the count says it.
            shown = list(dict.fromkeys(turn.warnings))[:WARNINGS_SHOWN_MAX]
            self._log.debug("built without all that was told", records=len(turn.warnings), why=shown)
        if turn.is_waiting_changed:
            self._waiting.recount()
        self._advance()
        return True

    def _advance(self) -> None:
        """Let the spool forget what is in the outbox; where that fails, it does with the next turn."""
        try:
            self._spool.advance(self._position)
        except StoreError as error:
            self.failed_to_advance = error
        else:
            self.failed_to_advance = None

    def _note(self, db: sqlite3.Connection, turn: _Turn) -> None:
        """Note what waits, inside the commit."""
        if turn.is_waiting_changed:
            self._waiting.add(db, turn.new)
            self._waiting.finish(db, turn.finished, turn.now_ms + self._times.keep_ms)
            self._waiting.remove(db, turn.removed)
            self._waiting.postpone(db, turn.postponed)
            self._waiting.purge(db, turn.now_ms)

    # -- reading -----------------------------------------------------------------------------------------------------

    def _take_new(self, batch: Batch, turn: _Turn) -> list[_Candidate]:
        """Return the calls in a batch that need not wait."""
        for damage in batch.damages:
            reason = f"{damage.error.sentence()}: {damage.records} records"
            turn.dead.append(Dead(damage.data, 0, "spool", reason))
        found = []
        for frame in batch.frames:
            source = self._parse(frame, turn)
            if source is None:
                continue
            if isinstance(source, SourceCall) and not self._times.wait_of(source.platform):
                found.append(_Candidate(source, (frame,), self._content_of(source)))
            else:
                turn.new.append(self._new_document(frame, source, self._due_ms(source, frame.time_ms)))
        return found

    def _due_ms(self, source: SourceCall | SourcePart, taken_ms: int) -> int:
        """Return when to look whether the call of a new document is whole."""
        if role_of(source) is Role.QUALITY:
            return taken_ms + self._times.keep_ms
        call = source if isinstance(source, SourceCall) else source.call
        return taken_ms + self._times.wait_of(call.platform if call is not None else source.platform)

    def _take_due(self, turn: _Turn, due_ms: int) -> list[_Candidate]:
        """Return the calls that have waited long enough at ``due_ms``."""
        found = []
        for waiters in self._waiting.due(due_ms, CALLS_DUE):
            sources = [(waiter, self._parse(waiter, turn)) for waiter in waiters]
            gathered = gather(
                [(waiter, source) for waiter, source in sources if source is not None],
                times=self._times,
                now_ms=due_ms,
            )
            for waiter, reason in gathered.dead:
                turn.bury([waiter], reason)
            turn.postponed += gathered.postponed
            found += [_Candidate(call, parts, self._content_of(bare)) for call, bare, parts in gathered.calls]
        return found

    def _parse(self, document: Frame | Waiter, turn: _Turn) -> SourceCall | SourcePart | None:
        """Return what a document says; None where it is a dead letter now."""
        adapter = self._adapters.get(document.kind)
        if adapter is None:
            turn.bury([document], f"no adapter for kind {document.kind}")
            return None
        try:
            return adapter.parse(document.document)
        except LedgerError as error:
            turn.bury([document], error.sentence())
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            # One document that an adapter trips over must not hold back all behind it.
            turn.bury([document], f"a fault of this program: {type(error).__name__} in adapter {adapter.name}")
        return None

    def _content_of(self, call: SourceCall) -> bytes:
        return self._vault.content_hash(f"{call.platform}/{call.raw}".encode("utf-8", "surrogatepass"))

    def _new_document(self, frame: Frame, source: SourceCall | SourcePart, due_ms: int) -> NewDocument:
        call = encode(list(join_of(source)))
        return NewDocument(call, role_of(source), frame.kind, frame.time_ms, due_ms, frame.document)

    # -- building ----------------------------------------------------------------------------------------------------

    def _build(self, candidates: Sequence[_Candidate], turn: _Turn) -> None:
        """Make records of calls, each once."""
        # Drawn at once: asking the system for the chance of each record costs as much as its encryption.
        chance = secrets.token_bytes(SALTS_BYTES * len(candidates))
        salts = (_cut(chance[start : start + SALTS_BYTES]) for start in range(0, len(chance), SALTS_BYTES))
        found = (self._build_one(candidate, own, turn) for candidate, own in zip(candidates, salts, strict=True))
        built = [made for made in found if made is not None]
        rows = self._vault.find([made.item.record_key for made in built])
        contents = {key: row.content for key, row in rows.items() if row.tx_id is not None}
        for candidate, item, entry, warnings, flags in built:
            known = contents.get(item.record_key)
            if known is None:
                contents[item.record_key] = candidate.content
                turn.items.append(item)
                turn.entries.append(entry)
                turn.warnings += warnings[:1]
                turn.flags += flags
            elif known == candidate.content:
                turn.known += 1
            else:
                turn.bury(candidate.frames, OTHER_CONTENT)
                continue
            turn.finished += [part.number for part in candidate.frames if isinstance(part, Waiter)]

    def _build_one(self, candidate: _Candidate, salts: list[bytes], turn: _Turn) -> _Built | None:
        """Return the record of a call, ready to be signed; None where it is a dead letter, or waits."""
        call = candidate.call
        try:
            record, private, warnings = build_record(call, self._profile_of(call), salts)
            data = encode(record)
            chain = self._chain
            check_admissible(record, rules=chain.rules, parameters=chain.parameters, now_ms=turn.now_ms)
        except NotYet as error:
            self._wait(candidate, error.due_ms, turn)
            return None
        except LedgerError as error:
            turn.bury(candidate.frames, error.sentence())
            return None
        last = candidate.frames[0]
        item = Item(data, record_key_of(self._signer.member_id, record), last.kind, _taken_ms(last))
        entry = VaultEntry(item.record_key, record.setup_ms, candidate.content, private)
        return _Built(candidate, item, entry, warnings, [flag.name for flag in flags_of(record)])

    def _wait(self, candidate: _Candidate, due_ms: int, turn: _Turn) -> None:
        for part in candidate.frames:
            if isinstance(part, Waiter):
                turn.postponed.append((part.number, due_ms))
            else:
                turn.new.append(self._new_document(part, candidate.call, due_ms))

    def _profile_of(self, call: SourceCall) -> Profile:
        """Return what holds of a call: what its platform says, and the carrier's profile where it does not."""
        name = call.leg, call.service
        profile = self._profiles.get(name)
        if profile is None:
            leg, service = call.leg, call.service
            profile = replace(
                self._profile,
                leg=self._profile.leg if leg is None else leg,
                service=self._profile.service if service is None else service,
            )
            self._profiles[name] = profile
        return profile


def _cut(salts: bytes) -> list[bytes]:
    return [salts[start : start + SALT_BYTES] for start in range(0, SALTS_BYTES, SALT_BYTES)]


def _taken_ms(document: Frame | Waiter) -> int:
    return document.taken_ms if isinstance(document, Waiter) else document.time_ms


def resume(spool: Spool, outbox: Outbox, spool_id: bytes) -> None:
    """Put the cursor of a spool that was just opened where the last commit says. Raises StoreError."""
    position = outbox.position(spool_id)
    if position is None:
        return
    if position.sequence > spool.end.sequence:
        # The end of the spool was lost; its numbers are given anew, and must not be taken for those done with.
        outbox.put([], [], spool=spool_id, position=spool.cursor)
    elif position.sequence > spool.cursor.sequence:
        spool.advance(position)
