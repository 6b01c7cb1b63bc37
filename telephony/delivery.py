"""From the outbox to the ledger: handed to whichever node answers, followed to final, signed anew where they expired.

A transaction leaves the outbox when a node says that it is final, and not before. What a node says of its records
decides what becomes of each by itself: one that is refused is a dead letter, the others are signed anew without it.
Records are signed anew for another reason only when the old transaction can be in no block any more: a node's final
block is beyond its end, and its chain does not hold it.

Nothing is lost by a crash anywhere in here: which node has what is asked again, and the ledger counts a record once.

Source: docs/agent.md, "What delivery promises".
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec
import structlog

from ledger.cdr import CallRecord
from ledger.codec import decode, decode_each
from ledger.errors import StoreError
from ledger.transaction import Transaction
from telephony.answers import Answer, Fate, Outcome, Promises, outcomes_of, promises_of, reason_of
from telephony.building import Bury, Dead
from telephony.ledger_clock import LedgerClock
from telephony.outbox import Item, Outbox, Sent, Signer
from telephony.targets import BACKOFF_MS_MAX, Targets
from telephony.waiting import Waiting

IN_HAND_MAX: Final = 2_000
"""Transactions that are handed in or followed at a time; those behind them stay on disk alone."""
POST_TRANSACTIONS: Final = 32
"""What a node takes at once."""
POST_BYTES: Final = 1024 * 1024
POSTS_UNDER_WAY: Final = 3
"""A node answers after its sync; with several posts under way that wait is shared."""
ASK_TRANSACTIONS: Final = 64
"""What a node is asked about at once."""
ASK_MS_MIN: Final = 500
"""A transaction is asked about this long after it was handed in, then at growing intervals."""
ASK_MS_MAX: Final = 5_000
LATER_MS: Final = 5_000
IDLE_S: Final = 0.25
TIME_MS: Final = 60_000
"""How often a node is asked for the time where there is nothing else to ask."""
WRONG_MS: Final = 60_000
"""A clock that was wrong by more than this is worth a line in the log."""

Ask = Callable[[str, str, bytes | None], Awaitable[Answer]]
"""Sends method, URL and MessagePack body to a node; returns an awaitable of Answer, which never raises."""

T = TypeVar("T")


@dataclass(slots=True)
class Counters:
    """What has happened since the start, in records."""

    stored: int = 0
    """A node had them on disk for the first time."""
    final: int = 0
    """Of these, ``void`` do not count: the ledger had them already."""
    void: int = 0
    resigned: int = 0
    """Signed once more, because they expired or shared a transaction with a refused one."""


@dataclass(slots=True)
class _InHand:
    """A transaction in hand."""

    sent: Sent
    node: str = ""
    """Which has it; empty: none is known to."""
    is_under_way: bool = False
    is_counted: bool = False
    not_before_ms: int = 0
    """Of the steady clock: when to hand it in, or to ask about it."""
    wait_ms: int = ASK_MS_MIN
    void_height: int | None = None
    """Height of the chain when a node first said that none of its records counts."""


class Delivery:
    """Empties an outbox into the ledger until it is cancelled.

    Attributes:
        counters: what has happened since the start.
    """

    def __init__(
        self,
        outbox: Outbox,
        waiting: Waiting,
        targets: Targets,
        *,
        signer: Signer,
        clock: LedgerClock,
        ask: Ask,
        bury: Bury,
        steady_ms: Callable[[], int],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Deliver from ``outbox``; ``pause`` waits for seconds."""
        self.counters = Counters()
        self._outbox = outbox
        self._waiting = waiting
        self._targets = targets
        self._signer = signer
        self._clock = clock
        self._ask = ask
        self._bury = bury
        self._steady_ms = steady_ms
        self._pause = pause
        self._in_hand: dict[int, _InHand] = {}
        self._last_number = 0
        self._grown = asyncio.Event()
        self._is_all_loaded = False
        self._time_due_ms = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._log = structlog.get_logger().bind(part="delivery")

    @property
    def oldest_ms(self) -> int | None:
        """Return when the oldest document came in that is signed and not final, None where there is none."""
        return next((in_hand.sent.taken_ms for in_hand in self._in_hand.values()), None)

    def notify(self) -> None:
        """Note that transactions came into the outbox. From the event loop's thread."""
        self._is_all_loaded = False
        self._grown.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(POSTS_UNDER_WAY):
                    group.create_task(self._repeat(self.hand_in_some))
                group.create_task(self._repeat(self.follow_some))
        finally:
            # What the thread has begun ends; what it wrote is asked about at the next start.
            await asyncio.to_thread(self._thread.shutdown)

    async def _repeat(self, work: Callable[[], Awaitable[bool]]) -> None:
        """Do ``work`` for ever, with a pause where there was nothing to do."""
        while True:
            try:
                if await work():
                    continue
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._grown.wait(), IDLE_S)
                self._grown.clear()
            except StoreError as error:
                self._log.error("the outbox cannot be used now", error=error.sentence())
                await self._pause(BACKOFF_MS_MAX / 1000)

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    # -- handing in --------------------------------------------------------------------------------------------------

    async def hand_in_some(self) -> bool:
        """Hand in what waits for it, as much as one post holds; return whether there was any."""
        if not self._is_all_loaded and len(self._in_hand) < IN_HAND_MAX:
            await self._load()
        batch = self._take_unsent()
        if not batch:
            return False
        try:
            # Read when there is somebody to hand it to: megabytes, and an outage may last.
            url = await self._choose()
            raws = await self._in_thread(self._outbox.raws, [in_hand.sent.number for in_hand in batch])
            answer = await self._ask("POST", f"{url}/v1/transactions", msgspec.msgpack.encode(raws))
            outcomes = outcomes_of(answer, len(batch))
            if any(outcome.fate is Fate.AGAIN for outcome in outcomes):
                self._failed(url, answer, outcomes)
            else:
                self._targets.succeeded(url)
            for in_hand, outcome in zip(batch, outcomes, strict=True):
                await self._apply(in_hand, outcome, url)
        finally:
            for in_hand in batch:
                in_hand.is_under_way = False
        return True

    async def _load(self) -> None:
        """Take more of the outbox in hand. Several may do so at once: what is in hand already stays as it is."""
        room = IN_HAND_MAX - len(self._in_hand)
        self._is_all_loaded = True
        found = await self._in_thread(self._outbox.load, self._last_number, room)
        if len(found) == room:
            self._is_all_loaded = False
        for sent in found:
            if sent.number > self._last_number:
                self._in_hand[sent.number] = _InHand(sent)
                self._last_number = sent.number

    def _take_unsent(self) -> list[_InHand]:
        """Return the oldest that no node is known to have, as many as one post holds."""
        now_ms, size = self._steady_ms(), 0
        batch: list[_InHand] = []
        for in_hand in self._in_hand.values():
            if in_hand.node or in_hand.is_under_way or in_hand.not_before_ms > now_ms:
                continue
            size += in_hand.sent.size
            if batch and (size > POST_BYTES or len(batch) == POST_TRANSACTIONS):
                break
            in_hand.is_under_way = True
            batch.append(in_hand)
        return batch

    async def _choose(self) -> str:
        """Return the best node, having waited for it where it has to be waited for."""
        url, wait_ms = self._targets.choose(self._steady_ms())
        while wait_ms:
            await self._pause(wait_ms / 1000)
            url, wait_ms = self._targets.choose(self._steady_ms())
        return url

    def _failed(self, url: str, answer: Answer, outcomes: Sequence[Outcome] = ()) -> None:
        if self._targets.failed(url, self._steady_ms()):
            # What a node says of a transaction quotes no private field: there is none in it.
            why = next((outcome.reason for outcome in outcomes if outcome.fate is Fate.AGAIN), reason_of(answer))
            self._log.warning("not delivered, kept", node=url, status=answer.status, why=why)

    async def _apply(self, in_hand: _InHand, outcome: Outcome, url: str) -> None:
        """Do what a node's answer says of a transaction."""
        sent = in_hand.sent
        if outcome.fate in {Fate.STORED, Fate.ENDED}:
            if outcome.fate is Fate.STORED and not in_hand.is_counted:
                in_hand.is_counted = True
                self.counters.stored += sent.records
            in_hand.node, in_hand.wait_ms = url, ASK_MS_MIN
            in_hand.not_before_ms = self._steady_ms() + ASK_MS_MIN
        elif outcome.fate is Fate.LATER:
            self._log.warning("too early, kept", node=url, why=outcome.reason)
            in_hand.not_before_ms = self._steady_ms() + LATER_MS
            self._time_due_ms = 0
        elif outcome.fate is not Fate.AGAIN:
            await self._sign_anew(in_hand, lambda items: _split(items, outcome), outcome.reason)

    # -- following ---------------------------------------------------------------------------------------------------

    async def follow_some(self) -> bool:
        """Ask about what was handed in, as much as one question holds; return whether there was any to ask about."""
        now_ms = self._steady_ms()
        due = [held for held in self._in_hand.values() if held.node and held.not_before_ms <= now_ms]
        if not due:
            if self._time_due_ms <= now_ms:
                await self._ask_about(await self._choose(), [])
            return False
        # The node that took it is asked, as long as it answers.
        failing = self._targets.failing
        url = due[0].node if not failing.get(due[0].node) else await self._choose()
        batch = list(islice((held for held in due if held.node in {due[0].node, url}), ASK_TRANSACTIONS))
        await self._ask_about(url, batch)
        return len(due) > len(batch)

    async def _ask_about(self, url: str, batch: list[_InHand]) -> None:
        ids = ",".join(in_hand.sent.tx_id.hex() for in_hand in batch)
        answer = await self._ask("GET", f"{url}/v1/promises?tx_ids={ids}", None)
        promises = promises_of(answer)
        now_ms = self._steady_ms()
        for in_hand in batch:
            in_hand.not_before_ms = now_ms + in_hand.wait_ms
            in_hand.wait_ms = min(in_hand.wait_ms * 3 // 2, ASK_MS_MAX)
        if promises is None:
            self._failed(url, answer)
            return
        self._targets.succeeded(url)
        wrong_ms = self._clock.told(promises.now_ms)
        self._time_due_ms = now_ms + TIME_MS
        if abs(wrong_ms) > WRONG_MS:
            self._log.warning("the clock was wrong: the node's is taken", node=url, wrong_ms=wrong_ms)
        await self._note(batch, promises)

    async def _note(self, batch: list[_InHand], promises: Promises) -> None:
        """Do what a node's promises say."""
        settled: list[_InHand] = []
        for in_hand in batch:
            sent = in_hand.sent
            promised = promises.of.get(sent.tx_id)
            if promised is None:
                continue
            if promised.state == "final":
                settled.append(in_hand)
                self.counters.void += promised.void
            elif promised.state == "void":
                if in_hand.void_height is None:
                    in_hand.void_height = promises.head_height
                # The blocks that hold its records are final now, too.
                if promises.final_height >= in_hand.void_height:
                    settled.append(in_hand)
                    self.counters.void += sent.records
            elif promised.state in {"expired", "unknown"}:
                if promises.final_time_ms >= sent.expires_ms:
                    await self._sign_anew(in_hand, lambda items: ([items], []), "")
                elif promised.state == "unknown":
                    # Its disk was lost, or another node is asked than the one that took it.
                    in_hand.node, in_hand.not_before_ms = "", 0
        if settled:
            await self._in_thread(self._outbox.settle, [in_hand.sent for in_hand in settled])
            for in_hand in settled:
                self._in_hand.pop(in_hand.sent.number, None)
                self.counters.final += in_hand.sent.records

    # -- signing anew ------------------------------------------------------------------------------------------------

    async def _sign_anew(
        self, in_hand: _InHand, split: Callable[[list[Item]], tuple[list[list[Item]], list[Item]]], reason: str
    ) -> None:
        """Sign the records of a transaction anew, in the groups that ``split`` returns, but for those it refuses."""
        count = await self._in_thread(self._replace, in_hand.sent, split, reason)
        self._in_hand.pop(in_hand.sent.number, None)
        self.counters.resigned += count
        self.notify()

    def _replace(
        self, sent: Sent, split: Callable[[list[Item]], tuple[list[list[Item]], list[Item]]], reason: str
    ) -> int:
        transaction = decode(self._outbox.raws([sent.number])[0], Transaction)
        groups, refused = split(self._outbox.items_in(sent.number, transaction.items))
        now_ms = max(self._clock.now_ms(), sent.created_ms + 1)
        outgoing = [signed for group in groups for signed in self._signer.pack(group, now_ms=now_ms)]
        dead = [self._dead(item, reason) for item in refused]
        if dead:
            self._bury(dead)

        def forget(db: sqlite3.Connection) -> None:
            for letter in dead:
                self._waiting.forget(db, letter.kind, letter.document)

        # A crash before this finds the record refused once more, and its dead letter there already.
        self._outbox.replace(sent, outgoing, [item.record_key for item in refused], forget)
        return sum(map(len, groups))

    def _dead(self, item: Item, reason: str) -> Dead:
        """Return the dead letter of a record: with the document it was made of, where that is still there."""
        private = self._outbox.vault.get(item.record_key)
        fields = private.fields if private is not None else ()
        raw = next((field.value for field in fields if field.name == "raw"), b"")
        return Dead(raw or item.data, item.kind, "delivery", reason)


def _split(items: list[Item], outcome: Outcome) -> tuple[list[list[Item]], list[Item]]:
    """Return how to sign ``items`` anew after a refusal, and those that go no further."""
    if outcome.fate is Fate.RECORD and outcome.index < len(items):
        # Those before it were found good, or are looked at again with less around them.
        return [items[: outcome.index], items[outcome.index + 1 :]], [items[outcome.index]]
    if outcome.fate is Fate.OLD:
        records = decode_each([item.data for item in items], CallRecord)
        old = [item for item, record in zip(items, records, strict=True) if record.end_ms < outcome.bound_ms]
        gone = {item.record_key for item in old}
        return [[item for item in items if item.record_key not in gone]], old
    if len(items) == 1:
        return [], items
    half = len(items) // 2
    return [items[:half], items[half:]], []
