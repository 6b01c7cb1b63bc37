"""``ledger-verify`` over a data directory opened and derived again: one job, two, and the memory."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from audit.report import Progress
from audit.source import DirectorySource
from audit.verify import verify_chain
from benchmarks.processes import own_bytes
from benchmarks.report import Figure
from benchmarks.solo import fill_chain
from benchmarks.traffic import DAY_RECORDS, prepare_records
from ledger.genesis import genesis_from_json, genesis_to_json

RECORDS = DAY_RECORDS
FIRST_RECORDS = DAY_RECORDS * 3 // 5
"""From here on memory is to stay as it is: the index holds as many keys as it ever does."""
LOAD_S = 180.0
ROUNDS = 7
"""The best CPU time counts, since what else the machine does is no cost of an audit's, and the worst growth of memory.
A speedup compares audits of one round, for a machine's speed changes in minutes, and is the median."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Audited:
    """One audit in a process of its own, with all its workers.

    Attributes:
        cpu_s: of the process and its workers.
        first_rss: bytes of its own after FIRST_RECORDS; ``last_rss``: the most that were from there to the end.
    """

    records: int
    blocks: int
    took_s: float
    cpu_s: float
    first_rss: int
    last_rss: int


def run() -> list[Figure]:
    """Make a chain, then audit it by turns with one job on one core, and with two on two."""
    paths = prepare_records(RECORDS)
    with tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory:
        data = Path(directory) / "data"
        filled = fill_chain(data, paths, records_max=RECORDS, seconds=LOAD_S)
        genesis = genesis_to_json(filled.genesis)
        has_two_cores = len(os.sched_getaffinity(0)) > 1
        ones, twos, pairs = [], [], []
        for _ in range(ROUNDS):
            ones.append(_apart(data, genesis, 1))
            if has_two_cores:
                twos.append(_apart(data, genesis, 2))
                pairs.append(_side_by_side(data, genesis))
    one = min(ones, key=lambda audited: audited.cpu_s)
    if one.records != filled.records:
        raise RuntimeError(f"{one.records:,} of {filled.records:,} records were audited")
    return [
        Figure(
            "audit_records_per_s",
            "ledger-verify, one job, of CPU time",
            one.records / one.cpu_s,
            "/s",
            target=120_000,
            note=f"{one.records:,} records, {one.blocks} blocks, {one.cpu_s:.1f} s of CPU in {one.took_s:.1f} s",
        ),
        *(_speedups(ones, twos, pairs) if twos else []),
        Figure(
            "audit_rss_growth_mb",
            f"memory of an audit, {FIRST_RECORDS:,} to {one.records:,} records",
            max(audited.last_rss - audited.first_rss for audited in ones) / MIB,
            "MB",
            target=20,
            at_most=True,
            note=f"from {one.first_rss / MIB:.0f} to {one.last_rss / MIB:.0f} MB",
        ),
    ]


def _speedups(ones: list[Audited], twos: list[Audited], pairs_s: list[float]) -> list[Figure]:
    one_cpu_s, two_cpu_s = (min(audited.cpu_s for audited in many) for many in (ones, twos))
    speedups = [one.took_s / two.took_s for one, two in zip(ones, twos, strict=True)]
    speedup = median(speedups)
    ceilings = [2 * one.took_s / pair_s for one, pair_s in zip(ones, pairs_s, strict=True)]
    ceiling = median(ceilings)
    return [
        Figure(
            "ceiling_speedup_2_jobs",
            "two audits at once, each on its own",
            ceiling,
            "times",
            note=f"{min(ceilings):.2f} to {max(ceilings):.2f} in {ROUNDS} rounds",
        ),
        Figure(
            "audit_speedup_2_jobs",
            "ledger-verify, two jobs on two cores",
            speedup,
            "times",
            target=1.8,
            note=f"{speedup / ceiling:.2f} of that ceiling; {min(speedups):.2f} to {max(speedups):.2f} in {ROUNDS} "
            f"rounds; CPU time {one_cpu_s:.1f} s and {two_cpu_s:.1f} s",
        ),
    ]


def _apart(data: Path, genesis: bytes, jobs: int) -> Audited:
    """Audit in a fresh process: memory and CPU time are this audit's alone. As many cores as jobs."""
    cores = set(sorted(os.sched_getaffinity(0))[-jobs:])
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_audit, data, genesis, jobs, cores).result()


def _side_by_side(data: Path, genesis: bytes) -> float:
    """Return how long two audits with one job take at once, each on a core of its own, until both are done."""
    cores = sorted(os.sched_getaffinity(0))[-2:]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        both = [pool.submit(_audit, data, genesis, 1, {core}) for core in cores]
        return max(audit.result().took_s for audit in both)


def _audit(data: Path, genesis: bytes, jobs: int, cores: set[int]) -> Audited:
    # Workers get the same.
    os.sched_setaffinity(0, cores)
    rss: list[int] = []

    def sample(progress: Progress) -> None:
        if progress.records >= FIRST_RECORDS:
            rss.append(own_bytes(os.getpid()))

    started, cpu_started = time.perf_counter(), _cpu_s()
    with closing(DirectorySource(data)) as source:
        report = verify_chain(source, genesis_from_json(genesis, where="genesis"), on_progress=sample, jobs=jobs)
    took_s, cpu_s = time.perf_counter() - started, _cpu_s() - cpu_started
    if not report.ok:
        raise RuntimeError(f"the chain does not hold: {report.first_difference}")
    return Audited(report.records, report.blocks, took_s, cpu_s, rss[0] if rss else 0, max(rss, default=0))


def _cpu_s() -> float:
    """Return the CPU seconds of this process, and of its children that have ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
