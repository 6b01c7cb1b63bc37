"""From the spool to the ledger: batches begun in order, to whichever node answers, each record until it has an answer.

What an answer means, by record: 2xx it is the ledger's now; 400, 409, 413, 422 nobody will ever take it as it is, a
dead letter; anything else, and no answer at all, it is kept and sent again. Other statuses of 4xx are faults of the
set-up (a wrong token, a wrong address), not of the record: a spool must not become dead letters because of them.

The cursor moves over batches whose every record has an answer, and only after its dead letters are on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import structlog

from ledger.errors import StoreError
from telephony.adapters.base import Kind
from telephony.spool import Batch, Damage, Frame
from telephony.spool_files import Position

BATCH_RECORDS: Final = 200
"""A node signs them once, and an answer that was lost costs no more than this many again."""
BATCHES_UNDER_WAY_MAX: Final = 4
"""A node answers after its sync; with several batches under way that wait is shared, and one may overtake another."""
BACKOFF_MS_MIN: Final = 200
BACKOFF_MS_MAX: Final = 15_000
IDLE_S: Final = 1.0
"""How long an empty spool is believed to be empty without having been told."""
REASON_CHARACTERS_MAX: Final = 2_000
"""Of a node's answer, what a dead letter keeps."""

PATHS: Final[dict[int, str]] = {Kind.KAMAILIO: "/v1/ingest/kamailio"}
"""Where a node takes documents of each kind."""

_OF_THE_RECORD: Final = frozenset({400, 409, 413, 422})
"""Statuses that speak about what was sent, not about who sent it or where to."""


class Fate(Enum):
    """What becomes of a record."""

    DONE = "done"
    DEAD = "dead"
    AGAIN = "again"


class Outcome(NamedTuple):
    """What an answer says of one record."""

    fate: Fate
    reason: str = ""


class Answer(NamedTuple):
    """A node's answer; status 0 where there was none, the reason then in ``body``."""

    status: int
    body: bytes


Send = Callable[[str, bytes], Awaitable[Answer]]
"""Posts a JSON body to a URL; returns an awaitable of Answer, which never raises."""


class _Source(Protocol):
    """What is read of a spool."""

    @property
    def cursor(self) -> Position:
        """Return where the first document stands that is not delivered."""

    def read(self, start: Position, *, count_max: int) -> Batch:
        """Return documents and damages from ``start`` on."""

    def advance(self, position: Position) -> None:
        """Note that everything before ``position`` is delivered."""


def outcomes_of(answer: Answer, count: int) -> list[Outcome] | None:
    """Return what ``answer`` says of each of ``count`` records.

    None: it refuses them together without saying which it means, so they are to be sent in smaller parts.
    """
    results = _results(answer.body) if answer.status else []
    if len(results) == count:
        return [_outcome(status, reason) for status, reason in results]
    if 200 <= answer.status < 300 and results:
        return [Outcome(Fate.AGAIN, f"{len(results)} results for {count} records")] * count
    if answer.status in _OF_THE_RECORD and count > 1:
        return None
    return [_outcome(answer.status, answer.body.decode("utf-8", "replace")[:REASON_CHARACTERS_MAX])] * count


def _outcome(status: int, reason: str) -> Outcome:
    if 200 <= status < 300:
        return Outcome(Fate.DONE)
    if status in _OF_THE_RECORD:
        return Outcome(Fate.DEAD, f"HTTP {status}: {reason}")
    return Outcome(Fate.AGAIN, f"HTTP {status}: {reason}" if status else reason)


def _results(body: bytes) -> list[tuple[int, str]]:
    """Return status and reason of each result in an answer; empty where it has none."""
    try:
        results = msgspec.json.decode(body).get("results")
        found = [(result["status"], _reason_in(result)) for result in results]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, AttributeError, TypeError, KeyError):
        return []
    return found if all(type(status) is int for status, _ in found) else []


def _reason_in(result: Any) -> str:
    problem = result.get("problem")
    detail = problem.get("detail") if isinstance(problem, dict) else None
    return str(detail)[:REASON_CHARACTERS_MAX]


@dataclass(slots=True)
class _Target:
    url: str
    failures: int = 0
    """In a row."""
    not_before_ms: int = 0


class Targets:
    """The nodes, and which of them is worth asking now. The one that answered last is asked again.

    Time is an argument, in milliseconds of a clock that only goes forward; ``chance`` returns 0 up to but not 1.
    """

    def __init__(self, urls: Sequence[str], chance: Callable[[], float]) -> None:
        self._targets = [_Target(url.rstrip("/")) for url in urls]
        self._chance = chance
        self._current = 0

    def choose(self, now_ms: int) -> tuple[str, int]:
        """Return the node to ask and how many milliseconds to wait before."""
        count = len(self._targets)
        in_turn = [(self._current + step) % count for step in range(count)]
        best = min(in_turn, key=lambda index: max(self._targets[index].not_before_ms - now_ms, 0))
        return self._targets[best].url, max(self._targets[best].not_before_ms - now_ms, 0)

    def succeeded(self, url: str) -> None:
        """Note that a node has taken records."""
        for index, target in enumerate(self._targets):
            if target.url == url:
                self._current, target.failures, target.not_before_ms = index, 0, 0

    def failed(self, url: str, now_ms: int) -> bool:
        """Note that a node has not answered, or asked to wait; return whether that is news.

        Several batches that fail at once count as one.
        """
        for target in self._targets:
            if target.url == url and target.not_before_ms <= now_ms:
                most_ms = min(BACKOFF_MS_MIN << min(target.failures, 20), BACKOFF_MS_MAX)
                target.failures += 1
                # Half of it is chance: agents that lost the same node do not come back together.
                target.not_before_ms = now_ms + most_ms // 2 + int(self._chance() * (most_ms // 2))
                return True
        return False

    @property
    def failing(self) -> dict[str, int]:
        """Return the failures in a row of each node."""
        return {target.url: target.failures for target in self._targets}


Bury = Callable[[list[tuple[bytes, str, str]]], Awaitable[None]]
"""Puts ``(record, stage, reason)`` among the dead letters; returns an awaitable, done when they are on disk."""


class Forwarder:
    """Empties a spool into the ledger until it is cancelled.

    Attributes:
        delivered: records that a node has, since the start.
        oldest_ms: when the oldest record was taken in that is being delivered; None when there is none.
    """

    def __init__(
        self,
        spool: _Source,
        targets: Targets,
        *,
        send: Send,
        bury: Bury,
        grown: asyncio.Event,
        monotonic_ms: Callable[[], int],
    ) -> None:
        self.delivered = 0
        self.oldest_ms: int | None = None
        self._spool = spool
        self._targets = targets
        self._send = send
        self._bury = bury
        self._grown = grown
        self._monotonic_ms = monotonic_ms
        self._log = structlog.get_logger().bind(part="forwarder")
        self._is_stopping = False
        self._under_way: deque[tuple[Batch, asyncio.Task[None]]] = deque()

    def stop(self) -> None:
        """Begin nothing more; ``run`` ends when what is under way has its answers."""
        self._is_stopping = True
        self._grown.set()

    async def run(self) -> None:
        """Deliver until ``stop``, or until cancelled."""
        position = self._spool.cursor
        try:
            while True:
                self._grown.clear()
                position = await self._begin_batches(position)
                self.oldest_ms = next((frame.time_ms for batch, _ in self._under_way for frame in batch.frames), None)
                if self._under_way:
                    # Meanwhile more comes in, and goes together with the next batch.
                    await self._settle()
                elif self._is_stopping:
                    return
                else:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._grown.wait(), IDLE_S)
        finally:
            for _, task in self._under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in self._under_way), return_exceptions=True)

    async def _begin_batches(self, position: Position) -> Position:
        """Begin to deliver what there is from ``position`` on, as far as may be under way; return where it ends."""
        while len(self._under_way) < BATCHES_UNDER_WAY_MAX and not self._is_stopping:
            try:
                batch = await asyncio.to_thread(self._spool.read, position, count_max=BATCH_RECORDS)
            except StoreError as error:
                self._log.error("the spool cannot be read", error=error.sentence())
                await asyncio.sleep(IDLE_S)
                break
            if batch.end == position:
                break
            position = batch.end
            self._under_way.append((batch, asyncio.create_task(self._deliver(batch))))
        return position

    async def _settle(self) -> None:
        """Wait for the oldest batch and move the cursor over it and all that are done behind it."""
        await self._under_way[0][1]
        while self._under_way and self._under_way[0][1].done():
            batch, task = self._under_way.popleft()
            task.result()
            end = batch.end
        try:
            # A crash before this is on disk delivers the batches once more; the ledger counts a record once.
            await asyncio.to_thread(self._spool.advance, end)
        except StoreError as error:
            self._log.error("the cursor cannot be written", error=error.sentence())

    async def _deliver(self, batch: Batch) -> None:
        """Return when every record of ``batch`` is the ledger's or a dead letter."""
        dead = [self._damaged(damage) for damage in batch.damages]
        known = [frame for frame in batch.frames if frame.kind in PATHS]
        dead += [
            (frame.document, "spool", f"no adapter for kind {frame.kind}")
            for frame in batch.frames
            if frame.kind not in PATHS
        ]
        pending = deque([list(group) for _, group in groupby(known, key=lambda frame: frame.kind)])
        while pending:
            frames = pending.popleft()
            outcomes = await self._post(frames)
            if outcomes is None:
                half = len(frames) // 2
                pending.extendleft([frames[half:], frames[:half]])
                continue
            self.delivered += sum(outcome.fate is Fate.DONE for outcome in outcomes)
            answered = list(zip(frames, outcomes, strict=True))
            dead += [(frame.document, "delivery", to.reason) for frame, to in answered if to.fate is Fate.DEAD]
            again = [frame for frame, to in answered if to.fate is Fate.AGAIN]
            if again:
                pending.appendleft(again)
        if dead:
            await self._bury_all(dead)

    async def _post(self, frames: list[Frame]) -> list[Outcome] | None:
        """Ask the best node once, waiting for it where it has to be waited for."""
        url, wait_ms = self._targets.choose(self._monotonic_ms())
        while wait_ms:
            await asyncio.sleep(wait_ms / 1000)
            url, wait_ms = self._targets.choose(self._monotonic_ms())
        body = b"[" + b",".join(frame.document for frame in frames) + b"]"
        answer = await self._send(url + PATHS[frames[0].kind], body)
        outcomes = outcomes_of(answer, len(frames))
        if outcomes is None or all(outcome.fate is not Fate.AGAIN for outcome in outcomes):
            self._targets.succeeded(url)
        elif self._targets.failed(url, self._monotonic_ms()):
            # The reason in an answer may quote a record: it does not go into the log.
            why = "" if answer.status else answer.body.decode("utf-8", "replace")
            self._log.warning("not delivered, kept", node=url, status=answer.status, why=why)
        return outcomes

    def _damaged(self, damage: Damage) -> tuple[bytes, str, str]:
        self._log.error("the spool is damaged", error=damage.error.sentence(), records=damage.records)
        return damage.data, "spool", f"{damage.error.sentence()}: {damage.records} records"

    async def _bury_all(self, dead: list[tuple[bytes, str, str]]) -> None:
        """Return when the dead letters are on disk: the cursor must not pass them before."""
        while True:
            try:
                await self._bury(dead)
            except StoreError as error:
                self._log.error("dead letters cannot be written", error=error.sentence())
                await asyncio.sleep(BACKOFF_MS_MAX / 1000)
            else:
                return
