"""Whether a node's memory grows with its chain: one process, a day's records, in the order of their calls."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import deque
from pathlib import Path

from benchmarks.four_nodes import sign_for
from benchmarks.load import Load
from benchmarks.processes import pid_of, rss_bytes, running_cluster
from benchmarks.report import Figure
from benchmarks.traffic import BATCH_RECORDS, DAY_RECORDS, prepare_records
from node.cluster import Cluster

FIRST_RECORDS = 100_000
LAST_RECORDS = DAY_RECORDS
UNFINAL_RECORDS_MAX = 50_000
LOAD_S = 400.0
SETTLE_S = 3.0
"""After the load: what is only on its way is gone then."""
MIB = 1 << 20


def run() -> list[Figure]:
    """Measure resident memory after the first records and after all."""
    paths = prepare_records(LAST_RECORDS)
    with (
        tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory,
        running_cluster(Path(directory), 1) as (cluster, nodes),
    ):
        return asyncio.run(_measure(cluster, pid_of(nodes[0]), paths))


async def _measure(cluster: Cluster, pid: int, paths: list[Path]) -> list[Figure]:
    raws = list(sign_for(cluster, paths, LAST_RECORDS))
    split = FIRST_RECORDS // BATCH_RECORDS
    started = time.monotonic()
    first = await _rss_after(cluster, pid, deque(raws[:split]))
    last = await _rss_after(cluster, pid, deque(raws[split:]))
    took_s = time.monotonic() - started
    return [
        Figure(
            "rss_growth_mb",
            f"memory of a node, {FIRST_RECORDS:,} to {LAST_RECORDS:,} records",
            (last - first) / MIB,
            "MB",
            target=50,
            at_most=True,
            note=f"from {first / MIB:.0f} to {last / MIB:.0f} MB, in {took_s:.0f} s",
        )
    ]


async def _rss_after(cluster: Cluster, pid: int, raws: deque[tuple[bytes, int]]) -> int:
    """Return the resident memory once all of ``raws`` is final."""
    load = Load(cluster, unfinal_records_max=UNFINAL_RECORDS_MAX)
    await load.run(raws, seconds=LOAD_S)
    if raws:
        raise RuntimeError(f"{len(raws)} transactions were left after {LOAD_S:.0f} s")
    await asyncio.sleep(SETTLE_S)
    return rss_bytes(pid)
