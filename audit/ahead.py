"""Reading ahead: what needs no place in the chain is checked here and by workers, and blocks come back in order.

Only as much is read ahead as keeps everybody busy, so memory does not grow with the chain.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from audit.raw import RawBlock
from audit.vouch import NOTHING, Found, News, Task, Teller, Vouched, Voucher
from ledger.errors import LedgerError
from ledger.state import State

BATCH_BYTES: Final = 128 << 10
"""A batch is handed over once it has so many bytes: some thousand records, 5 ms of work, so that the way there and
back, a tenth of a millisecond, does not count, and nobody waits long for another at the end of a block."""
BATCH_PIECES: Final = 64
"""Or so many headers and transactions: each costs at least a signature, 0.1 ms."""
AHEAD_BYTES: Final = 4 << 20
"""Read ahead for each job beyond the block at hand: what a worker holds, and as much again for the others."""
ALONE_BYTES: Final = 8 << 20
"""Without being told how many, workers begin after so many bytes: half a second of work, as long as starting takes."""
JOBS_MAX: Final = 256


@dataclass(eq=False)
class Batch:
    """What is checked at once, and what was found of it; None until then."""

    sealed: list[bytes] = field(default_factory=list)
    transactions: list[bytes] = field(default_factory=list)
    size: int = 0
    found: Found | None = None

    @property
    def is_full(self) -> bool:
        """Tell whether it is worth the way."""
        return self.size >= BATCH_BYTES or len(self.sealed) + len(self.transactions) >= BATCH_PIECES


class Pool(Protocol):
    """Other processes that check batches."""

    def start(self, count: int, news: list[News]) -> None:
        """Begin with ``count`` workers; ``news`` grows, and is to be known before a batch sent later.

        Raises Unfinished.
        """

    @property
    def has_room(self) -> bool:
        """Tell whether somebody takes a batch now."""

    def send(self, batch: Batch) -> None:
        """Have a batch checked by whoever has room. Raises Unfinished where a worker is lost."""

    def collect(self, *, wait: bool) -> None:
        """Put what was found into batches: what is there, or, with ``wait``, the next. Raises Unfinished as above."""

    def close(self) -> None:
        """End all workers; a second time does nothing."""


@dataclass(eq=False)
class _Waiting:
    """A block that was read ahead: where its header and its transactions are."""

    block: RawBlock
    size: int
    sealed: Batch
    transactions: list[tuple[Batch, int] | None]

    def batches(self) -> list[Batch]:
        """Return the batches that hold a piece of it, in their order."""
        return list(dict.fromkeys([self.sealed, *(place[0] for place in self.transactions if place is not None)]))

    def vouched(self) -> Vouched:
        """Return what holds of it, once all its batches are checked."""
        signatures = {(s.public_key, s.digest, s.signature) for s in _found(self.sealed).signatures}
        return Vouched(
            signatures, tuple(place and _found(place[0]).transactions[place[1]] for place in self.transactions)
        )


def _found(batch: Batch) -> Found:
    assert batch.found is not None
    return batch.found


class LookAhead:
    """Has the blocks to come checked by whoever is free: a pool's workers, and this process while it would wait."""

    def __init__(self, jobs: int | None, pool: Pool, voucher: Voucher, state: Callable[[], State]) -> None:
        """Start nothing yet.

        jobs: processes that check, this one among them, JOBS_MAX at most; 1: no workers, and the auditor does it all at
        its turn. None: as many as this process has cores, once the chain has shown to be worth the start.
        voucher: checks in this process what no worker has taken.
        state: returns that after the last block verified.
        """
        self._count = min(JOBS_MAX, _cores() if jobs is None else jobs)
        self._alone_bytes = ALONE_BYTES if jobs is None else 0
        self._is_started = False
        self._pool = pool
        self._voucher = voucher
        self._state = state
        self._teller = Teller()
        self._news: list[News] = []
        self._told = 0
        self._open = Batch()
        self._untaken: deque[Batch] = deque()

    def begin(self) -> None:
        """Begin with as many workers as were asked for: they start while the source is opened. Raises Unfinished."""
        if not self._alone_bytes and self._count > 1:
            self._start()

    def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._pool.start(self._count - 1, self._news)

    def blocks(self, blocks: Iterator[RawBlock]) -> Iterator[tuple[RawBlock, Vouched]]:
        """Yield ``blocks`` in order with what is vouched for; each is to be verified before the next is asked for.

        An error of ``blocks`` comes once all before it were yielded. Raises Unfinished where a worker ended.
        """
        alone_bytes = self._alone_bytes
        while self._count == 1 or alone_bytes > 0:
            block = next(blocks, None)
            if block is None:
                return
            alone_bytes -= _size_of(block)
            yield block, NOTHING
        self._start()
        yield from self._ahead(blocks)

    def _ahead(self, blocks: Iterator[RawBlock]) -> Iterator[tuple[RawBlock, Vouched]]:
        queue: deque[_Waiting] = deque()
        ahead_bytes = 0
        failure: LedgerError | None = None
        is_through = False
        while True:
            while not is_through and (len(queue) < 2 or ahead_bytes < AHEAD_BYTES * self._count):
                try:
                    block = next(blocks, None)
                except LedgerError as error:
                    block, failure = None, error
                if block is None:
                    is_through = True
                else:
                    queue.append(self._hand_out(block))
                    ahead_bytes += queue[-1].size
            if not queue:
                break
            first = queue.popleft()
            ahead_bytes -= first.size
            yield first.block, self._see_to(first)
        if failure is not None:
            raise failure

    def _hand_out(self, block: RawBlock) -> _Waiting:
        """Put a block's pieces into batches, for others to take those that are full."""
        news = self._teller.news(self._state())
        if news is not None:
            self._news.append(news)
        sealed = self._open
        sealed.sealed.append(block.sealed)
        self._grow(len(block.sealed))
        places: list[tuple[Batch, int] | None] = []
        for raw in block.transactions:
            if raw is None:
                places.append(None)
                continue
            places.append((self._open, len(self._open.transactions)))
            self._open.transactions.append(raw)
            self._grow(len(raw))
        self._share()
        return _Waiting(block, _size_of(block), sealed, places)

    def _grow(self, size: int) -> None:
        self._open.size += size
        if self._open.is_full:
            self._close_batch()

    def _close_batch(self) -> None:
        self._untaken.append(self._open)
        self._open = Batch()

    def _see_to(self, first: _Waiting) -> Vouched:
        """Return what holds of a block, having checked here what no worker took."""
        batches = first.batches()
        if batches[-1] is self._open:
            self._close_batch()
        self._share()
        while any(batch.found is None for batch in batches):
            if self._untaken:
                batch = self._untaken.popleft()
                news, self._told = self._news[self._told :], len(self._news)
                batch.found = self._voucher.check(Task(news, batch.sealed, batch.transactions))
                self._share()
            else:
                self._pool.collect(wait=True)
        return first.vouched()

    def _share(self) -> None:
        """Take what workers have found, and hand them more."""
        self._pool.collect(wait=False)
        while self._untaken and self._pool.has_room:
            self._pool.send(self._untaken.popleft())


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _size_of(block: RawBlock) -> int:
    return len(block.sealed) + len(block.body) + sum(len(raw) for raw in block.transactions if raw is not None)
