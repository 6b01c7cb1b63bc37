"""The auditor's side of its worker processes, with one real worker."""

from __future__ import annotations

import fcntl
import struct
import termios
import time
from typing import IO

from audit.ahead import Batch
from audit.vouch import Answer
from audit.worker import LENGTH
from audit.workers import Workers
from ledger.codec import encode
from tests.audit.tamper import Parts

NOTHING_FOUND = len(encode(Answer([], []))) + LENGTH.size
"""Bytes of the answer to a batch without anything in it."""


def waiting_in(pipe: IO[bytes]) -> int:
    """Return how many bytes can be read from a pipe."""
    [count] = struct.unpack("i", fcntl.ioctl(pipe.fileno(), termios.FIONREAD, bytes(4)))
    return int(count)


def test_all_answers_that_are_there_are_taken_at_once(parts: Parts) -> None:
    """Else those left behind count as work that the worker has at hand, and it is given no more."""
    batches = [Batch() for _ in range(5)]
    with Workers(parts.genesis) as workers:
        workers.start(1, [])
        workers.collect(wait=True)
        for batch in batches:
            workers.send(batch)
        [worker] = workers._workers
        until = time.monotonic() + 30
        while waiting_in(worker.answers) < len(batches) * NOTHING_FOUND and time.monotonic() < until:
            time.sleep(0.01)
        workers.collect(wait=False)
        assert [batch.found for batch in batches] == [([], [])] * len(batches)
        assert not worker.held
