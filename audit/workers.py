"""Worker processes, each attended by a thread that hands it the next batch while the one before is worked on.

They end with whoever started them: their input ends then, however that came.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Final, Self

from audit.ahead import Batch, Pool
from audit.vouch import Answer, News, Task
from audit.worker import read_message, write_message
from ledger.codec import decode_loose, encode
from ledger.errors import Unfinished
from ledger.genesis import Genesis

UNANSWERED_MAX: Final = 2
"""Batches that a worker holds: one at work, one waiting."""
PIPE_BYTES: Final = 512 << 10
"""Of each pipe to and from a worker."""
END_S: Final = 5.0
"""A worker whose input ended gets this long before it is killed."""


class Workers(Pool):
    """Worker processes, and a thread for each that hands it batch after batch.

    Use as a context manager: it ends them.
    """

    def __init__(self, genesis: Genesis) -> None:
        """Start nothing yet."""
        self._genesis = genesis
        self._news: list[News] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._waiting: SimpleQueue[Batch | None] = SimpleQueue()
        self._is_closing = False
        self._lost: Unfinished | None = None

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
                    env=environment,
                    # Ctrl-C is for the audit, which ends its workers.
                    start_new_session=True,
                )
            except OSError as error:
                raise Unfinished("a worker process cannot be started", where="--jobs", actual=error.strerror) from None
            self._processes.append(process)
            _widen(process)
            thread = threading.Thread(target=self._attend, args=(process,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def send(self, batch: Batch) -> None:
        """See ``Pool.send``."""
        self._waiting.put(batch)
        # Whoever noticed may have emptied the queue just before.
        if self._lost is not None:
            self._give_up(self._lost)

    def _attend(self, process: subprocess.Popen[bytes]) -> None:
        """Hand one worker batch after batch, two at a time; in a thread of its own."""
        assert process.stdin is not None
        assert process.stdout is not None
        held: deque[Batch] = deque()
        told = 0
        try:
            write_message(process.stdin, encode(self._genesis))
            while True:
                while len(held) < UNANSWERED_MAX:
                    try:
                        # With a batch at work, its answer is what is waited for.
                        batch = self._waiting.get(block=not held)
                    except Empty:
                        break
                    if batch is None:
                        return
                    held.append(batch)
                    news = self._news[told:]
                    told += len(news)
                    write_message(process.stdin, encode(Task(news, batch.sealed, batch.transactions)))
                message = read_message(process.stdout)
                if message is None:
                    break
                held.popleft().answer.set_result(decode_loose(message, Answer))
        except Exception:  # noqa: BLE001, S110 - whatever it is, whoever waits for an answer is told below
            # As a rule nobody reads its input any more, or it was closed here.
            pass
        if not self._is_closing:
            self._lose(process, held)

    def _lose(self, process: subprocess.Popen[bytes], held: deque[Batch]) -> None:
        """Say what became of a worker to whoever waits for one of its answers; the audit ends then."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        status = process.returncode
        how = f"by {signal.Signals(-status).name}" if status is not None and status < 0 else f"with status {status}"
        error = Unfinished(
            f"a worker process ended {how} before its work was done",
            where="--jobs",
            hint="Where memory is short, audit with --jobs 1",
        )
        self._lost = error
        for batch in held:
            batch.answer.set_exception(error)
        self._give_up(error)

    def _give_up(self, error: Unfinished) -> None:
        """Leave nobody waiting for an answer that will not come: the audit ends with the first worker that is lost."""
        with contextlib.suppress(Empty):
            while (batch := self._waiting.get(block=False)) is not None:
                batch.answer.set_exception(error)
            # What tells another thread to end stays.
            self._waiting.put(None)

    def close(self) -> None:
        """End the processes; a second time does nothing."""
        self._is_closing = True
        for _ in self._threads:
            self._waiting.put(None)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self._processes.clear()
        self._threads.clear()


def _widen(process: subprocess.Popen[bytes]) -> None:
    """Make a worker's pipes hold whole batches, where the system allows: fewer turns for both sides."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
