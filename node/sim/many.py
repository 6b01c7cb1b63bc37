"""Many schedules, on all cores: chunks of seeds go to worker processes, what they came to is handed on as it comes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import connection

from node.sim.coverage import Coverage
from node.sim.mix import Choice

CHUNK = 5
"""Seeds handed to a worker at a time: about a quarter of a second, which is how long an interrupt waits."""
WAITING_PER_JOB = 2
"""Chunks handed out for each worker, so that none waits and an interrupt need not wait long."""


@dataclass
class Outcome:
    """What some schedules came to.

    Attributes:
        failures: seeds that broke a promise, with the promise.
    """

    coverage: Coverage = field(default_factory=Coverage)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def merge(self, other: Outcome) -> None:
        """Take in what others came to."""
        self.coverage.merge(other.coverage)
        self.failures.extend(other.failures)


def run_seeds(choice: Choice, seeds: range) -> Outcome:
    """Run the schedules of ``seeds``, one after the other."""
    outcome = Outcome()
    for seed in seeds:
        report = choice.run(seed)
        outcome.coverage.add(choice.shape_of(seed).name, report.seen)
        if report.violation is not None:
            outcome.failures.append((seed, report.violation))
    return outcome


def run_many(choice: Choice, seeds: range, jobs: int) -> Generator[Outcome, None, None]:
    """Run the schedules of ``seeds`` in ``jobs`` processes; return what each chunk came to, as it is done.

    To close the iterator ends the workers, after the chunks they are at. Raises BrokenProcessPool where one died.
    """
    chunks = (seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK))
    if jobs == 1 or len(seeds) <= CHUNK:
        for chunk in chunks:
            yield run_seeds(choice, chunk)
        return
    # Spawned, not forked: the progress bar has a thread.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, -(-len(seeds) // CHUNK)), mp_context=context, initializer=_follow_parent)
    try:
        running: set[Future[Outcome]] = set()
        for chunk in chunks:
            running.add(pool.submit(run_seeds, choice, chunk))
            if len(running) >= WAITING_PER_JOB * jobs:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the first one; end when that is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)  # nothing here is worth finishing
