"""Worker processes, each with a few batches at hand, so that none waits while the auditor is busy with a block.

They end with whoever started them: their input ends then, however that came.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Final, Self

from audit.ahead import Batch, Pool
from audit.vouch import Answer, News, Task
from audit.worker import READY, read_message, write_message
from ledger.codec import decode_loose, encode
from ledger.errors import Unfinished
from ledger.genesis import Genesis

HELD_MAX: Final = 24
"""Batches that a worker has at hand: a tenth of a second of work, in which the auditor gets through the part of a large
block that goes in order."""
PIPE_BYTES: Final = 1 << 20
"""Of each pipe to and from a worker."""
END_S: Final = 5.0
"""A worker whose input ended gets this long before it is killed."""


@dataclass(eq=False)
class _Worker:
    """A process, and what it was sent and has not answered, the oldest first.

    Attributes:
        is_ready: it has said so; what is sent before is not read.
        told: how much of the news it knows.
    """

    process: subprocess.Popen[bytes]
    tasks: IO[bytes]
    answers: IO[bytes]
    held: deque[Batch] = field(default_factory=deque)
    is_ready: bool = False
    told: int = 0


class Workers(Pool):
    """Worker processes. Use as a context manager: it ends them."""

    def __init__(self, genesis: Genesis) -> None:
        """Start nothing yet."""
        self._genesis = genesis
        self._news: list[News] = []
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, count: int, news: list[News]) -> None:
        """See ``Pool.start``."""
        self._news = news
        # A worker finds the same modules, whatever made them known here.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        for _ in range(count):
            try:
                process = subprocess.Popen(
                    # -P: nothing is taken from the folder that this was called in.
                    [sys.executable, "-P", "-m", "audit.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    # Whatever is left in a buffer, nobody is told of.
                    bufsize=0,
                    env=environment,
                    # Ctrl-C is for the audit, which ends its workers.
                    start_new_session=True,
                )
            except OSError as error:
                raise Unfinished("a worker process cannot be started", where="--jobs", actual=error.strerror) from None
            assert process.stdin is not None
            assert process.stdout is not None
            worker = _Worker(process, process.stdin, process.stdout)
            self._workers.append(worker)
            _widen(worker)
            self._selector.register(worker.answers, selectors.EVENT_READ, worker)
            self._write(worker, encode(self._genesis))

    @property
    def has_room(self) -> bool:
        """See ``Pool.has_room``."""
        return any(worker.is_ready and len(worker.held) < HELD_MAX for worker in self._workers)

    def send(self, batch: Batch) -> None:
        """See ``Pool.send``."""
        worker = min((worker for worker in self._workers if worker.is_ready), key=lambda worker: len(worker.held))
        news, worker.told = self._news[worker.told :], len(self._news)
        worker.held.append(batch)
        self._write(worker, encode(Task(news, batch.sealed, batch.transactions)))

    def collect(self, *, wait: bool) -> None:
        """See ``Pool.collect``."""
        # All answers that are there: one left behind would count as work that its worker still has at hand.
        while ready := self._selector.select(None if wait else 0):
            wait = False
            for key, _ in ready:
                self._take(key.data)

    def _take(self, worker: _Worker) -> None:
        """Read the next message of a worker."""
        message = read_message(worker.answers)
        if message is None:
            raise _lost(worker)
        if not worker.is_ready:
            worker.is_ready = message == READY
        else:
            worker.held.popleft().found = decode_loose(message, Answer).to_found()

    def _write(self, worker: _Worker, message: bytes) -> None:
        """Send a message; a worker reads whatever it is at, so this waits for no work of its."""
        try:
            write_message(worker.tasks, message)
        except OSError:
            raise _lost(worker) from None

    def close(self) -> None:
        """End the processes; a second time does nothing."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
            for pipe in (worker.tasks, worker.answers):
                with contextlib.suppress(OSError):
                    pipe.close()
        self._workers.clear()
        self._selector.close()


def _lost(worker: _Worker) -> Unfinished:
    """Return what to say of a worker that reads or answers no more."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.process.wait(END_S)
    status = worker.process.returncode
    how = f"by {signal.Signals(-status).name}" if status is not None and status < 0 else f"with status {status}"
    return Unfinished(
        f"a worker process ended {how} before its work was done",
        where="--jobs",
        hint="Where memory is short, audit with --jobs 1",
    )


def _widen(worker: _Worker) -> None:
    """Make a worker's pipes hold whole batches, where the system allows: fewer turns for both sides."""
    for pipe in (worker.tasks, worker.answers):
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
