"""The edge agent: takes CDRs beside a SIP proxy, answers when they are on its disk, and hands them to the ledger.

``Agent`` is everything but HTTP (see ``agent_http``): intake, spool, dead letters and delivery, tied together. The same
object serves as a process of its own and inside another program.

Source: docs/agent.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import structlog

from ledger.errors import LedgerError
from telephony.adapters.base import Kind
from telephony.adapters.registry import Adapters
from telephony.dead_letters import DeadLetters, Letter, dead_letter
from telephony.forwarder import Answer, Forwarder, Targets
from telephony.intake import Intake, fault_of
from telephony.spool import RESERVE_BYTES, Spool
from telephony.spool_writer import SpoolWriter

RETRY_LOOK_S: Final = 1.0
"""How often the dead letters are looked at for some to be sent again."""
ANSWER_S: Final = 30.0
"""A node that takes longer has not answered."""
CONNECT_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
STOP_S: Final = 3.0
"""What is under way at a stop gets this long for its answers."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent is started with."""

    spool: Path
    """Its directory; nobody else may write there."""
    nodes: tuple[str, ...]
    """``http://HOST:PORT`` of each, in the order in which they are tried."""
    token: str = ""
    """The bearer token that the nodes gave out."""
    reserve_bytes: int = RESERVE_BYTES
    """Room left on the spool's disk."""


@dataclass(slots=True)
class Counters:
    """What has happened since the start; what came in is counted by ``Intake``."""

    retried: int = 0
    buried_intake: int = 0
    buried_delivery: int = 0
    buried_spool: int = 0


class Agent:
    """An agent on its spool; ``start`` sets it going.

    Attributes:
        counters: what has happened since the start.
        intake: takes in what proxies hand over.
        failure: what ended the delivery although nobody stopped it, None while it goes on.
    """

    def __init__(self, settings: AgentSettings) -> None:
        """Open the spool. Raises StoreLocked or another StoreError."""
        self.counters = Counters()
        self.failure: BaseException | None = None
        self.ended = asyncio.Event()
        self.adapters = Adapters()
        self._log = structlog.get_logger().bind(part="agent")
        self._settings = settings
        self._spool = Spool(settings.spool, reserve_bytes=settings.reserve_bytes)
        try:
            self._dead = DeadLetters(settings.spool)
            if self._spool.has_room:
                self._dead.compact()
        except BaseException:
            self._spool.close()
            raise
        for notice in self._spool.notices:
            self._log.warning("spool mended", notice=notice)
        self._dead_thread = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")
        self._writer = SpoolWriter(self._spool, now_ms)
        self.intake = Intake(self._writer, bury=self._bury_new, has_room=lambda: self.has_room, where=settings.spool)
        # Chance spreads retries over time; no secret depends on it.
        self._targets = Targets(settings.nodes, random.random)
        self._forwarder = Forwarder(
            self._spool,
            self._targets,
            send=self._send,
            bury=self._bury,
            grown=self._writer.grown,
            monotonic_ms=lambda: time.monotonic_ns() // 1_000_000,
        )
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # -- running -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to deliver."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S),
            headers={"Authorization": f"Bearer {self._settings.token}"} if self._settings.token else None,
        )
        self._log.info("delivering", nodes=self._settings.nodes, backlog=self._spool.backlog, dead=len(self._dead))
        self._tasks = [
            asyncio.create_task(self._forwarder.run(), name="forwarder"),
            asyncio.create_task(self._send_again(), name="retries"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and self.failure is None:
            self.failure = task.exception()
        self.ended.set()

    async def stop(self) -> None:
        """End: what is under way gets some seconds, everything else is on disk and goes on at the next start."""
        self._forwarder.stop()
        if self._tasks:
            await asyncio.wait(self._tasks[:1], timeout=STOP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.intake.close()
        await self._writer.close()
        self._dead_thread.shutdown()
        if self._session is not None:
            await self._session.close()
        self._dead.close()
        self._spool.close()
        self._log.info("stopped", backlog=self._spool.backlog)

    # -- dead letters ------------------------------------------------------------------------------------------------

    async def _bury_new(self, _kind: int, dead: list[tuple[bytes, str]]) -> None:
        await self._bury([(document, "intake", reason) for document, reason in dead])

    async def _bury(self, dead: list[tuple[bytes, str, str]]) -> None:
        """Put ``(record, stage, reason)`` among the dead letters. Raises StoreError."""
        time_ms = now_ms()
        letters = [dead_letter(raw, stage=stage, reason=reason, time_ms=time_ms) for raw, stage, reason in dead]
        await self._with_dead(self._dead.add, letters)
        for stage in ("intake", "delivery", "spool"):
            count = sum(letter.stage == stage for letter in letters)
            if count:
                name = f"buried_{stage}"
                setattr(self.counters, name, getattr(self.counters, name) + count)
                self._log.warning("dead letters", stage=stage, count=count, see="ledger-agent dead list")

    async def _with_dead(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._dead_thread, work, *arguments)

    # -- dead letters that a person wants sent again -----------------------------------------------------------------

    async def _send_again(self) -> None:
        while True:
            await asyncio.sleep(RETRY_LOOK_S)
            try:
                await self._with_dead(self._dead.refresh)
                for id_, document in await self._with_dead(self._dead.retries):
                    await self._retry(id_, document)
            except LedgerError as error:
                self._log.error("dead letters cannot be sent again now", error=error.sentence())

    async def _retry(self, id_: str, document: bytes) -> None:
        fault = fault_of(self.adapters.by_name["kamailio"], document)
        letter = dead_letter(document, stage="intake", reason=fault.sentence() if fault else "", time_ms=now_ms())
        if fault is None:
            await self._writer.append([(int(Kind.KAMAILIO), document)])
            self.counters.retried += 1
        else:
            await self._with_dead(self._dead.add, [letter])
        if fault is None or letter.id != id_:
            # A crash before this sends it once more; the other way round it could be lost.
            await self._with_dead(self._dead.add, [Letter("retried", id_, now_ms())])

    # -- delivery ----------------------------------------------------------------------------------------------------

    async def _send(self, url: str, body: bytes) -> Answer:
        """Post to a node; status 0 where there is no answer."""
        assert self._session is not None
        headers = {"Content-Type": "application/json"}
        try:
            # A redirect would take the token to somebody else.
            async with self._session.post(
                url, data=io.BytesIO(body), headers=headers, allow_redirects=False
            ) as response:
                parts = bytearray()
                async for chunk in response.content.iter_any():
                    parts += chunk
                    if len(parts) > ANSWER_BYTES_MAX:
                        break
                return Answer(response.status, bytes(parts))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Answer(0, (str(error) or type(error).__name__).encode("utf-8", "replace"))

    # -- how it is ---------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Tell whether the disk has room for more records."""
        with contextlib.suppress(OSError):
            return self._spool.has_room
        return False

    @property
    def backlog(self) -> int:
        """Return how many records no node has yet."""
        return self._spool.backlog

    @property
    def delivered(self) -> int:
        """Return how many records nodes have taken since the start."""
        return self._forwarder.delivered

    @property
    def dead(self) -> int:
        """Return how many dead letters wait for a person."""
        return len(self._dead)

    @property
    def oldest_age_ms(self) -> int:
        """Return how long ago the oldest record was taken in that no node has; 0 where there is none."""
        oldest_ms = self._forwarder.oldest_ms
        return max(now_ms() - oldest_ms, 0) if oldest_ms is not None else 0

    @property
    def failing(self) -> dict[str, int]:
        """Return each node's failures in a row."""
        return self._targets.failing


def now_ms() -> int:
    """Return UTC milliseconds since 1970."""
    return time.time_ns() // 1_000_000
