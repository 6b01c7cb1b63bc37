"""Reading ahead: what needs no place in the chain is handed to workers, and blocks come back in order, vouched for.

Only as much is read ahead as keeps the workers busy, so memory does not grow with the chain.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Protocol

from audit.raw import RawBlock
from audit.vouch import NOTHING, Answer, News, Teller, Vouched
from ledger.errors import LedgerError
from ledger.state import State

BATCH_BYTES: Final = 128 << 10
"""A batch is handed over once it has so many bytes: some thousand records, 8 ms of work, so that the way there and
back, a tenth of a millisecond, does not count, and no worker waits for another at the end of a block."""
BATCH_PIECES: Final = 64
"""Or so many headers and transactions: each costs at least a signature, 0.1 ms."""
AHEAD_BYTES: Final = 2 << 20
"""Read ahead for each worker beyond the block at hand."""
ALONE_BYTES: Final = 8 << 20
"""Without being told how many, workers begin after so many bytes: half a second of work, as long as starting takes."""
JOBS_MAX: Final = 256


@dataclass(eq=False)
class Batch:
    """What goes to one worker at once, and its answer."""

    sealed: list[bytes] = field(default_factory=list)
    transactions: list[bytes] = field(default_factory=list)
    size: int = 0
    is_sent: bool = False
    answer: Future[Answer] = field(default_factory=Future)

    @property
    def is_full(self) -> bool:
        """Tell whether it is worth the way."""
        return self.size >= BATCH_BYTES or len(self.sealed) + len(self.transactions) >= BATCH_PIECES


class Pool(Protocol):
    """Whoever answers batches."""

    def start(self, count: int, news: list[News]) -> None:
        """Begin with ``count`` workers; ``news`` grows, and is to be known before a batch sent later.

        Raises Unfinished.
        """

    def send(self, batch: Batch) -> None:
        """Have a batch answered some time; batches are begun in the order in which they are sent."""

    def close(self) -> None:
        """End all workers; a second time does nothing."""


@dataclass(eq=False)
class _Waiting:
    """A block that was read ahead: where its header and its transactions are."""

    block: RawBlock
    size: int
    sealed: Batch
    transactions: list[tuple[Batch, int] | None]

    @property
    def is_sent(self) -> bool:
        return self.sealed.is_sent and all(place is None or place[0].is_sent for place in self.transactions)

    def vouched(self) -> Vouched:
        """Wait for the answers. Raises Unfinished."""
        signatures = {(s.public_key, s.digest, s.signature) for s in self.sealed.answer.result().signatures}
        return Vouched(
            signatures,
            tuple(place and place[0].answer.result().transactions[place[1]] for place in self.transactions),
        )


class LookAhead:
    """Keeps a pool busy with the blocks to come."""

    def __init__(self, jobs: int | None, pool: Pool, state: Callable[[], State]) -> None:
        """Start nothing yet.

        jobs: workers, JOBS_MAX at most; 1: none, the auditor does it all. None: as many as this process has cores, once
        the chain has shown to be worth the start.
        state: returns that after the last block verified.
        """
        self._count = min(JOBS_MAX, _cores() if jobs is None else jobs)
        self._alone_bytes = ALONE_BYTES if jobs is None else 0
        self._is_started = False
        self._pool = pool
        self._state = state
        self._teller = Teller()
        self._news: list[News] = []
        self._open = Batch()

    def begin(self) -> None:
        """Begin with as many workers as were asked for: they start while the source is opened. Raises Unfinished."""
        if not self._alone_bytes and self._count > 1:
            self._start()

    def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._pool.start(self._count, self._news)

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
            if not first.is_sent:
                self._send_open()
            yield first.block, first.vouched()
        if failure is not None:
            raise failure

    def _hand_out(self, block: RawBlock) -> _Waiting:
        """Put a block's pieces into batches, and send those that are full."""
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
        return _Waiting(block, _size_of(block), sealed, places)

    def _grow(self, size: int) -> None:
        self._open.size += size
        if self._open.is_full:
            self._send_open()

    def _send_open(self) -> None:
        self._open.is_sent = True
        self._pool.send(self._open)
        self._open = Batch()


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _size_of(block: RawBlock) -> int:
    return len(block.sealed) + len(block.body) + sum(len(raw) for raw in block.transactions if raw is not None)
