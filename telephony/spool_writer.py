"""Group commit: many requests, one sync. The event loop never waits for the disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from ledger.errors import StoreError
from telephony.spool import GROUP_BYTES_MAX, HEADER_BYTES, Spool

WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
"""Documents in memory that are not on disk yet: a slow disk must not fill the memory."""
GATHER_S: Final = 0.004
"""Whoever was answered last is likely to hand in more at once; for so long a sync waits for as many to come again. The
way to the disk and back costs the core more than a post does, so many small groups would leave less of it for posts."""

Done = Callable[[Exception | None], None]
"""Told once, in the event loop, that documents are on disk, or why none of them is. Must not raise."""


class _Waiting(NamedTuple):
    documents: Sequence[tuple[int, bytes]]
    size: int
    done: Done


class SpoolWriter:
    """Appends to a spool from an event loop.

    Attributes:
        grown: set whenever documents came to be on disk; whoever reads clears it first.
        groups: how many syncs there were.
    """

    def __init__(self, spool: Spool, now_ms: Callable[[], int]) -> None:
        self.grown = asyncio.Event()
        self.groups = 0
        self._spool = spool
        self._now_ms = now_ms
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="spool-writer")
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._expected = 0
        self._gathered: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def append(self, documents: Sequence[tuple[int, bytes]]) -> None:
        """Write ``(kind, document)`` pairs together with whoever else is waiting; all are on disk on return.

        Raises StoreFull, StoreError, or EncodingError as ``Spool.append`` does; then none of them counts as kept.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell(failure: Exception | None) -> None:
            if done.done():
                return
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)

        self.put(documents, tell)
        await done

    def put(self, documents: Sequence[tuple[int, bytes]], done: Done) -> None:
        """Write as ``append`` does, and tell ``done``: for a thousand requests a turn, which need no task of their own.

        Raises StoreError where too much waits already; then ``done`` is not told.
        """
        size = HEADER_BYTES * len(documents)
        for _, document in documents:
            size += len(document)
        if self._waiting_bytes + size > WAITING_BYTES_MAX:
            raise StoreError("the disk is too slow for what comes in", hint="Send it again in some seconds")
        self._waiting.append(_Waiting(documents, size, done))
        self._waiting_bytes += size
        if self._gathered is not None and self._is_gathered:
            self._end_gathering()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="spool-writer")

    async def retire(self) -> None:
        """Do as ``Spool.retire`` does, between two groups."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._spool.retire)

    async def close(self) -> None:
        """Finish what is under way."""
        if self._task is not None:
            await self._task
        self._executor.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            if not self._is_gathered:
                await self._gather()
            group = self._take_group()
            documents = [document for waiting in group for document in waiting.documents]
            failure: Exception | None = None
            try:
                await loop.run_in_executor(self._executor, self._append, documents)
            except Exception as error:  # noqa: BLE001 - handed to everybody who waits
                failure = error
            self.groups += 1
            if failure is None:
                self.grown.set()
            self._expected = len(group) + len(self._waiting)
            for waiting in group:
                self._waiting_bytes -= waiting.size
                waiting.done(failure)

    @property
    def _is_gathered(self) -> bool:
        """Tell whether as many wait as were at work a moment ago, or a group is full."""
        return len(self._waiting) >= self._expected or self._waiting_bytes >= GROUP_BYTES_MAX

    async def _gather(self) -> None:
        """Wait until it is gathered, or for as long as that may take."""
        loop = asyncio.get_running_loop()
        self._gathered = loop.create_future()
        late = loop.call_later(GATHER_S, self._end_gathering)
        try:
            await self._gathered
        finally:
            late.cancel()
            self._gathered = None

    def _end_gathering(self) -> None:
        if self._gathered is not None and not self._gathered.done():
            self._gathered.set_result(None)

    def _append(self, documents: list[tuple[int, bytes]]) -> None:
        self._spool.append(documents, time_ms=self._now_ms())

    def _take_group(self) -> list[_Waiting]:
        """Return what the next sync carries: at least one request's worth, and no more than a group may hold."""
        group = [self._waiting.popleft()]
        size = group[0].size
        while self._waiting and size + self._waiting[0].size <= GROUP_BYTES_MAX:
            group.append(self._waiting.popleft())
            size += group[-1].size
        return group
