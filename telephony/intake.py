"""The way in of the agent: what a proxy hands over is on disk, or a dead letter, or still with the proxy.

Source: docs/agent.md, "Answers".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from ledger.errors import EncodingError, LedgerError, StoreError, StoreFull
from telephony.adapters.base import DOCUMENT_BYTES_MAX, Adapter
from telephony.pieces import Found
from telephony.spool import FREE_ROOM
from telephony.spool_writer import SpoolWriter

TURN_RECORDS: Final = 50
"""Records checked in one go, some milliseconds: then other requests have their turn."""

Bury = Callable[[int, list[tuple[bytes, str]]], Awaitable[None]]
"""Puts documents of one kind among the dead letters, each with the reason; on disk on return. Raises StoreError."""


class Taken(NamedTuple):
    """What became of one post."""

    faults: list[LedgerError | None]
    """For each document, in order: what is wrong with it, None where it is in the spool."""
    is_array: bool
    """They came as an array of some kind, also if of one."""


@dataclass(slots=True)
class IntakeCounters:
    """What has come in since the start."""

    spooled: int = 0
    refused: int = 0
    """Records answered with 503 or 507."""


def fault_of(adapter: Adapter, document: bytes) -> LedgerError | None:
    """Return what is wrong with one document, None when its adapter can read it."""
    if len(document) > DOCUMENT_BYTES_MAX:
        return EncodingError("too long", where="cdr", expected=f"at most {DOCUMENT_BYTES_MAX}", actual=len(document))
    try:
        adapter.check(document)
    except LedgerError as error:
        return error
    return None


class Intake:
    """Takes in documents for one spool.

    Attributes:
        counters: what has come in since the start.
    """

    def __init__(self, writer: SpoolWriter, *, bury: Bury, has_room: Callable[[], bool], where: Path) -> None:
        """Take in through ``writer``, what cannot be read through ``bury``; ``where`` is the spool, for errors."""
        self.counters = IntakeCounters()
        self._writer = writer
        self._bury = bury
        self._has_room = has_room
        self._where = where
        self._tasks: set[asyncio.Task[None]] = set()

    def post(self, adapter: Adapter, body: bytes, media_type: str, answer: Callable[[Taken | Exception], None]) -> None:
        """Take in one post as ``take`` does, and call ``answer`` once with what it would return or raise.

        The common post, a few good documents, goes from here straight to the next sync, without a task of its own.
        """
        group = self._quick_look(adapter, body, media_type)
        if group is None:
            task = asyncio.create_task(self._take_and_answer(adapter, body, media_type, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        documents, is_array = group

        def tell(failure: Exception | None) -> None:
            if failure is not None:
                self.counters.refused += len(documents)
                answer(failure)
                return
            self.counters.spooled += len(documents)
            answer(Taken([None] * len(documents), is_array))

        try:
            self._writer.put(documents, tell)
        except StoreError as error:
            tell(error)

    def _quick_look(
        self, adapter: Adapter, body: bytes, media_type: str
    ) -> tuple[list[tuple[int, bytes]], bool] | None:
        """Return the documents of a post with nothing wrong and few documents; None for any other."""
        try:
            documents, is_array = adapter.split(body, media_type)
            if len(documents) > TURN_RECORDS:
                return None
            kind = int(adapter.kind)
            group = []
            for document in documents:
                if len(document) > DOCUMENT_BYTES_MAX:
                    return None
                adapter.check(document)
                group.append((kind, document))
        except LedgerError:
            return None
        return group, is_array

    async def _take_and_answer(
        self, adapter: Adapter, body: bytes, media_type: str, answer: Callable[[Taken | Exception], None]
    ) -> None:
        found: Taken | Exception
        try:
            found = await self.take(adapter, body, media_type)
        except Exception as error:  # noqa: BLE001 - whoever answers tells our faults from theirs
            found = error
        answer(found)

    async def close(self) -> None:
        """Wait for the posts that are at work."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def take(self, adapter: Adapter, body: bytes, media_type: str = "application/json") -> Taken:
        """Take in the CDRs of one post; return what became of each.

        Those with nothing wrong are in the spool on return, the others among the dead letters, all on disk.
        Raises EncodingError for a body that cannot be split (it is a dead letter too), StoreFull or StoreError where
        the disk refuses: then the sender has to keep them all.
        """
        kind = int(adapter.kind)
        try:
            documents, is_array = adapter.split(body, media_type)
        except EncodingError as error:
            await self._bury_new(kind, [(body, error.sentence())])
            raise
        return Taken(await self.keep(adapter, [Found(document, None) for document in documents]), is_array)

    async def keep(self, adapter: Adapter, found: Sequence[Found]) -> list[LedgerError | None]:
        """Take in documents of which some may be known to be bad; return what is wrong with each.

        Promises and raises what ``take`` does.
        """
        kind = int(adapter.kind)
        faults: list[LedgerError | None] = []
        for index, (document, fault) in enumerate(found):
            if index % TURN_RECORDS == TURN_RECORDS - 1:
                await asyncio.sleep(0)
            faults.append(fault or fault_of(adapter, document))
        judged = [(one.document, fault) for one, fault in zip(found, faults, strict=True)]
        good = [(kind, document) for document, fault in judged if fault is None]
        bad = [(document, fault.sentence()) for document, fault in judged if fault is not None]
        try:
            # Room for both is asked for before either is written: a post is not to be kept by halves.
            if bad:
                self._check_room()
            if good:
                await self._writer.append(good)
            if bad:
                await self._bury_new(kind, bad)
        except StoreError:
            self.counters.refused += len(found)
            raise
        self.counters.spooled += len(good)
        return faults

    async def _bury_new(self, kind: int, dead: list[tuple[bytes, str]]) -> None:
        """Keep records that never were in the spool: not at the cost of the reserve, they are still with the sender."""
        self._check_room()
        await self._bury(kind, dead)

    def _check_room(self) -> None:
        if not self._has_room():
            raise StoreFull("the disk is nearly full", where=str(self._where), hint=FREE_ROOM)
