"""The edge agent: takes CDRs beside a SIP proxy, answers when they are on its disk, and brings them to the ledger.

``Agent`` is everything but HTTP (see ``agent_http``), tied together: intake, spool, building, outbox, delivery and
dead letters. The same object serves as a process of its own and inside ``ledgerd``.

Source: docs/agent.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import structlog

from ledger.crypto import PrivateKey
from ledger.errors import LedgerError, StoreError, StoreFull
from ledger.genesis import Genesis, chain_id_of
from ledger.rules.ruleset import RuleSet
from ledger.segments import from_os
from telephony.adapters.registry import Adapters
from telephony.answers import Answer
from telephony.builder import Profile
from telephony.building import Builder, Chain, Dead, resume
from telephony.dead_erasure import Reader, forget_letters_over
from telephony.dead_letters import DeadLetters, Letter, Retry, dead_letter
from telephony.delivery import Delivery
from telephony.gathering import JoinTimes
from telephony.intake import Intake, fault_of
from telephony.ledger_clock import LedgerClock
from telephony.outbox import Outbox, Signer
from telephony.spool import FREE_ROOM, RESERVE_BYTES, Spool
from telephony.spool_files import spool_id
from telephony.spool_writer import SpoolWriter
from telephony.targets import BACKOFF_MS_MAX, Targets
from telephony.turns import Turns
from telephony.vault import Vault
from telephony.waiting import Waiting

PACK_S: Final = 0.05
"""Records that come within this time share a transaction, its signature and its syncs."""
PACK_DOCUMENTS: Final = 1_000
"""As many fill a transaction: they wait for no others."""
AWAY_S: Final = 5.0
"""The same while no node answers: what a backlog is in few transactions of, it is handed in fast of."""
REST_S: Final = 0.1
"""How long nothing is built where nothing may be."""
IDLE_S: Final = 1.0
"""How often it is looked whether a document that waits is due."""
RETRY_LOOK_S: Final = 1.0
"""How often the dead letters are looked at for some to be sent again."""
RETAIN_S: Final = 3_600.0
"""How often it is looked whether a month's time in the vault is over."""
ANSWER_S: Final = 30.0
"""A node that takes longer has not answered."""
CONNECT_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024

STAGES: Final = ("intake", "building", "delivery", "spool")
"""Where a document may become a dead letter."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent is started with."""

    spool: Path
    """Its directory; nobody else may write there."""
    nodes: tuple[str, ...]
    """``http://HOST:PORT`` of each, in the order in which they are tried."""
    genesis: Genesis
    """Of the chain that it signs for."""
    member_id: str
    submit_key: PrivateKey
    profile: Profile
    """What the member says about the calls of its proxy; its ``record_key`` is the member's secret."""
    vault: Path
    """Directory of the private parts and of what is on its way."""
    token: str = ""
    """The bearer token that the nodes gave out."""
    reserve_bytes: int = RESERVE_BYTES
    """Room left on the spool's disk."""
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of adapters, by name."""
    times: JoinTimes = field(default_factory=JoinTimes)


@dataclass(slots=True)
class Counters:
    """What has happened since the start; others are counted by ``Intake``, ``Builder`` and ``Delivery``."""

    retried: int = 0
    buried: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    """Documents that became dead letters, by stage."""


class Agent:
    """An agent on its spool; ``start`` sets it going.

    Attributes:
        counters: what has happened since the start.
        adapters: what reads documents.
        intake: takes in what proxies hand over.
        failure: what ended the work although nobody stopped it, None while it goes on.
        ended: set when it has ended.
    """

    def __init__(self, settings: AgentSettings, vault: Vault | None = None) -> None:
        """Open spool and vault.

        vault: one that is open already and that others close; the agent opens its own where there is none.
        Raises StoreLocked or another StoreError, ConfigError for a wrong member secret or option.
        """
        self.counters = Counters()
        self.failure: BaseException | None = None
        self.ended = asyncio.Event()
        self.adapters = Adapters(settings.sources)
        self._log = structlog.get_logger().bind(part="agent")
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        with contextlib.ExitStack() as stack:
            self._spool = Spool(settings.spool, reserve_bytes=settings.reserve_bytes)
            stack.callback(self._spool.close)
            self._dead = DeadLetters(settings.spool)
            stack.callback(self._dead.close)
            if self._spool.has_room:
                self._dead.compact()
            if vault is None:
                vault = Vault(settings.vault, settings.profile.record_key)
                stack.callback(vault.close)
            self._vault = vault
            self._outbox, self._waiting = Outbox(vault), Waiting(vault)
            try:
                id_ = spool_id(settings.spool)
            except OSError as error:
                raise from_os(error, settings.spool) from error
            resume(self._spool, self._outbox, id_)
            self._close = stack.pop_all().close
        for notice in self._spool.notices:
            self._log.warning("spool mended", notice=notice)
        self._dead_thread = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")
        self._build_thread = ThreadPoolExecutor(1, thread_name_prefix="builder")
        self._writer = SpoolWriter(self._spool, now_ms)
        self.intake = Intake(self._writer, bury=self._bury_new, has_room=lambda: self.has_room, where=settings.spool)
        self._set_up(id_)

    def _set_up(self, id_: bytes) -> None:
        """Make what builds and what delivers."""
        settings, genesis = self._settings, self._settings.genesis
        self._clock = clock = LedgerClock(wall_ms=now_ms, steady_ms=steady_ms)
        signer = Signer(
            settings.submit_key,
            member_id=settings.member_id,
            chain_id=chain_id_of(genesis),
            parameters=genesis.parameters,
        )
        rules = RuleSet(genesis.rules, carbon_basis=genesis.parameters.carbon_basis)
        # Chance spreads retries over time; no secret depends on it.
        self._targets = Targets(settings.nodes, random.random)
        self._builder = Builder(
            self._spool,
            self._outbox,
            self._waiting,
            spool_id=id_,
            adapters=self.adapters.by_kind,
            profile=settings.profile,
            chain=Chain(rules, genesis.parameters),
            signer=signer,
            clock=clock,
            bury=self._bury_waiting_for_it,
            times=settings.times,
        )
        self._delivery = Delivery(
            self._outbox,
            self._waiting,
            self._targets,
            signer=signer,
            clock=clock,
            ask=self._ask,
            bury=self._bury_waiting_for_it,
            steady_ms=steady_ms,
        )
        self._turns = Turns(steady_ms(), self._spool.end.sequence, self._unbuilt)

    # -- running -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to build and to deliver."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S),
            headers={"Authorization": f"Bearer {self._settings.token}"} if self._settings.token else None,
        )
        self._log.info("delivering", nodes=self._settings.nodes, backlog=self.backlog, dead=len(self._dead))
        self._tasks = [
            asyncio.create_task(self._build(), name="builder"),
            asyncio.create_task(self._delivery.run(), name="delivery"),
            asyncio.create_task(self._send_again(), name="retries"),
            asyncio.create_task(self._retain(), name="retention"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and self.failure is None:
            self.failure = task.exception()
        self.ended.set()

    async def stop(self) -> None:
        """End: everything is on disk, and goes on at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.intake.close()
        await asyncio.to_thread(self._build_thread.shutdown)
        await self._retire()
        await self._writer.close()
        await asyncio.to_thread(self._dead_thread.shutdown)
        if self._session is not None:
            await self._session.close()
        self._log.info("stopped", backlog=self.backlog)
        self._close()

    async def _build(self) -> None:
        """Make transactions of what is in the spool, in the builder's own thread."""
        grown = self._writer.grown
        while True:
            grown.clear()
            if self._unbuilt == 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(grown.wait(), IDLE_S)
                if self._unbuilt == 0:
                    await self._retire()
            if 0 < self._unbuilt < PACK_DOCUMENTS:
                await asyncio.sleep(PACK_S)
            await self._gather_while_away()
            await self._let_intake_pass()
            try:
                if await asyncio.get_running_loop().run_in_executor(self._build_thread, self._build_once):
                    self._delivery.notify()
                elif self._unbuilt:
                    # No node has told the time yet, or enough is on its way.
                    await asyncio.sleep(REST_S)
            except StoreError as error:
                self._log.error("nothing can be built now", error=error.sentence())
                await asyncio.sleep(BACKOFF_MS_MAX / 1000)

    async def _gather_while_away(self) -> None:
        """While no node answers, wait for a transaction's worth of documents, or ``AWAY_S``.

        Nothing is late by that, and the backlog is whole transactions when the ledger comes back.
        """
        until_ms = steady_ms() + round(AWAY_S * 1000)
        # No single event says that any of the three is over.
        while self._targets.is_away and self._unbuilt < PACK_DOCUMENTS and steady_ms() < until_ms:  # noqa: ASYNC110
            await asyncio.sleep(REST_S)

    async def _let_intake_pass(self) -> None:
        """Wait while the core is for those who wait for an answer."""
        while self._turns.is_for_intake(steady_ms(), self._spool.end.sequence, self._unbuilt):  # noqa: ASYNC110 - a rate
            await asyncio.sleep(REST_S)

    async def _retire(self) -> None:
        """Let nothing that is in the vault stay in the spool, where it is in the clear."""
        try:
            await self._writer.retire()
        except StoreError as error:
            self._log.error("what is done with stays in the spool for now", error=error.sentence())

    def _build_once(self) -> bool:
        # The reserve is for dead letters and the cursor: half of it stays, whatever is in the spool.
        free, least = shutil.disk_usage(self._settings.spool).free, self._settings.reserve_bytes // 2
        if free < least:
            raise StoreFull("the disk is full", where=str(self._settings.spool), actual=free, hint=FREE_ROOM)
        is_anything = self._builder.turn()
        if self._builder.failed_to_advance is not None:
            self._log.error("the cursor cannot be written", error=self._builder.failed_to_advance.sentence())
        return is_anything

    # -- what is kept no longer --------------------------------------------------------------------------------------

    async def _retain(self) -> None:
        """Keep to the vault's retention policy."""
        while True:
            try:
                await asyncio.to_thread(self._forget_what_is_over)
            except StoreError as error:
                self._log.error("what is over cannot be forgotten now", error=error.sentence())
            await asyncio.sleep(RETAIN_S if self._clock.is_confirmed else IDLE_S)

    def _forget_what_is_over(self) -> None:
        # There is no way back: neither a wrong clock here nor a node with a wrong one decides it alone.
        if not self._clock.is_confirmed:
            return
        time_ms, erasure = min(self._clock.now_ms(), now_ms()), self._vault.erasure
        for month in erasure.apply_retention(time_ms):
            self._log.info("a month is forgotten", month=month.what, records=month.records, held=month.held)
        reader = Reader(self.adapters.by_kind, self._settings.profile.region)
        if count := forget_letters_over(self._settings.spool, reader, erasure, time_ms):
            self._log.info("dead letters are forgotten", count=count)

    # -- dead letters ------------------------------------------------------------------------------------------------

    async def _bury_new(self, kind: int, dead: list[tuple[bytes, str]]) -> None:
        await self._with_dead(self._bury, [Dead(document, kind, "intake", reason) for document, reason in dead])

    def _bury_waiting_for_it(self, dead: Sequence[Dead]) -> None:
        """Do as ``_bury`` does, from another thread."""
        self._dead_thread.submit(self._bury, dead).result()

    def _bury(self, dead: Sequence[Dead]) -> None:
        """Put documents among the dead letters. In the thread that has them; raises StoreError."""
        time_ms = now_ms()
        letters = [
            dead_letter(document, kind=kind, stage=stage, reason=reason, time_ms=time_ms)
            for document, kind, stage, reason in dead
        ]
        self._dead.add(letters)
        for stage in STAGES:
            count = sum(letter.stage == stage for letter in letters)
            if count:
                self.counters.buried[stage] += count
                self._log.warning("dead letters", stage=stage, count=count, see="ledger-agent dead list")

    async def _with_dead(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._dead_thread, work, *arguments)

    # -- dead letters that a person wants sent again -----------------------------------------------------------------

    async def _send_again(self) -> None:
        while True:
            await asyncio.sleep(RETRY_LOOK_S)
            try:
                await self._with_dead(self._dead.refresh)
                for retry in await self._with_dead(self._dead.retries):
                    await self._retry(retry)
            except LedgerError as error:
                self._log.error("dead letters cannot be sent again now", error=error.sentence())

    async def _retry(self, retry: Retry) -> None:
        adapter = self.adapters.by_kind.get(retry.kind)
        fault = fault_of(adapter, retry.document) if adapter is not None else None
        reason = fault.sentence() if fault is not None else f"no adapter for kind {retry.kind}"
        letter = dead_letter(retry.document, kind=retry.kind, stage="intake", reason=reason, time_ms=now_ms())
        is_good = adapter is not None and fault is None
        if is_good:
            await self._writer.append([(retry.kind, retry.document)])
            self.counters.retried += 1
        else:
            await self._with_dead(self._dead.add, [letter])
        if is_good or letter.id != retry.id:
            # A crash before this sends it once more; the other way round it could be lost.
            await self._with_dead(self._dead.add, [Letter("retried", retry.id, now_ms())])

    # -- nodes -------------------------------------------------------------------------------------------------------

    async def _ask(self, method: str, url: str, body: bytes | None) -> Answer:
        """Ask a node; status 0 where there is no answer."""
        assert self._session is not None
        headers = {"Content-Type": "application/msgpack"} if body is not None else {}
        try:
            # A redirect would take the token to somebody else.
            async with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                parts = bytearray()
                async for chunk in response.content.iter_any():
                    parts += chunk
                    if len(parts) > ANSWER_BYTES_MAX:
                        break
                return Answer(response.status, bytes(parts))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The connector keeps its last error beside the frame that raised it: a circle that holds the body of the
            # post until the collector comes by, which it seldom does here.
            traceback.clear_frames(error.__traceback__)
            return Answer(0, (str(error) or type(error).__name__).encode("utf-8", "replace"))

    # -- how it is ---------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Tell whether the disk has room for more records."""
        with contextlib.suppress(OSError):
            return self._spool.has_room
        return False

    @property
    def disk_free_bytes(self) -> int:
        """Return the room on the disk of the spool, 0 where it cannot be asked."""
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self._settings.spool).free
        return 0

    @property
    def _unbuilt(self) -> int:
        return int(self._spool.end.sequence - self._builder.position.sequence)

    @property
    def backlog(self) -> int:
        """Return how many documents and records are not final yet."""
        return self._unbuilt + self._waiting.count + self._outbox.records

    @property
    def waiting(self) -> int:
        """Return how many documents wait for others of their call."""
        return self._waiting.count

    @property
    def built(self) -> int:
        """Return how many records were signed since the start."""
        return self._builder.counters.built

    @property
    def warned(self) -> int:
        """Return how many of these lack something that their documents told, since it contradicted itself."""
        return self._builder.counters.warned

    @property
    def flagged(self) -> dict[str, int]:
        """Return how many of these are suspicious, by flag."""
        return self._builder.counters.flagged

    @property
    def known(self) -> int:
        """Return how many documents came again whose records were there, since the start."""
        return self._builder.counters.known

    @property
    def stored(self) -> int:
        """Return how many records a node has taken since the start."""
        return self._delivery.counters.stored

    @property
    def final(self) -> int:
        """Return how many records became final since the start, void ones included."""
        return self._delivery.counters.final

    @property
    def void(self) -> int:
        """Return how many of the final records do not count: the ledger had them already."""
        return self._delivery.counters.void

    @property
    def resigned(self) -> int:
        """Return how many records were signed once more since the start."""
        return self._delivery.counters.resigned

    @property
    def dead(self) -> int:
        """Return how many dead letters wait for a person."""
        return len(self._dead)

    @property
    def oldest_age_ms(self) -> int:
        """Return how long ago the oldest document came in that is not final; 0 where there is none."""
        times = [time_ms for time_ms in (self._delivery.oldest_ms, self._builder.oldest_ms) if time_ms is not None]
        return max(now_ms() - min(times), 0) if times else 0

    @property
    def failing(self) -> dict[str, int]:
        """Return each node's failures in a row."""
        return self._targets.failing


def now_ms() -> int:
    """Return UTC milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """Return milliseconds of a clock that only goes forward."""
    return time.monotonic_ns() // 1_000_000
