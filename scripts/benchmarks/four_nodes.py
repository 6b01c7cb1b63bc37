"""Four nodes on this machine and one submitter, for a minute: records final everywhere, and how fast."""

from __future__ import annotations

import asyncio
import tempfile
from collections import deque
from pathlib import Path

from benchmarks.load import Load, percentile
from benchmarks.processes import cpu_s, pid_of, running_cluster
from benchmarks.report import Figure
from benchmarks.traffic import BATCH_RECORDS, DAY_RECORDS, prepare_records, read_batches, sign_batches
from ledger.crypto import PrivateKey
from ledger.genesis import chain_id_of
from node.clock import now_ms
from node.cluster import Cluster
from node.localnet import LocalNode

NODES = 4
LOAD_S = 60.0
UNFINAL_RECORDS_MAX = 60_000
"""The submitter pauses above this, as an agent would."""


def run() -> list[Figure]:
    """Measure records a second and finality under that load."""
    paths = prepare_records(DAY_RECORDS)
    with (
        tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory,
        running_cluster(Path(directory), NODES) as (cluster, nodes),
    ):
        return asyncio.run(_measure(cluster, nodes, paths))


def sign_for(cluster: Cluster, paths: list[Path], count: int) -> deque[tuple[bytes, int]]:
    """Return the first ``count`` records of the day as transactions of the first member."""
    node = cluster.nodes[0]
    key = PrivateKey.from_pem((node.home / "submit.pem").read_bytes(), where="submit.pem")
    raws = sign_batches(
        read_batches(paths, count),
        key=key,
        member_id=node.member_id,
        chain_id=chain_id_of(cluster.genesis),
        now_ms=now_ms(),
    )
    return deque((raw, BATCH_RECORDS) for raw in raws)


async def _measure(cluster: Cluster, nodes: list[LocalNode], paths: list[Path]) -> list[Figure]:
    raws = sign_for(cluster, paths, DAY_RECORDS)
    load = Load(cluster, unfinal_records_max=UNFINAL_RECORDS_MAX)
    before = [cpu_s(pid_of(node)) for node in nodes]
    took_s = await load.run(raws, seconds=LOAD_S)
    cpu = ", ".join(f"{cpu_s(pid_of(node)) - was_s:.0f}" for node, was_s in zip(nodes, before, strict=True))
    finality = load.finality_slots()
    if any(view.void for view in load.views):
        raise RuntimeError("records were void that should have counted")
    return [
        Figure(
            "four_node_records_per_s",
            "four nodes, one submitter",
            load.final_records / took_s,
            "/s",
            target=15_000,
            note=f"{load.final_records:,} records in {took_s:.1f} s; CPU of the nodes {cpu} s",
        ),
        Figure("", "finality, half of the blocks", percentile(finality, 50), "slots"),
        Figure(
            "finality_slots_p99",
            "finality, 99 of 100 blocks",
            percentile(finality, 99),
            "slots",
            target=3,
            at_most=True,
            note=f"{len(finality)} blocks with records, at most {finality[-1]:.2f} slots",
        ),
    ]
