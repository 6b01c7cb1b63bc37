"""One node on one core: signed batches in, sealed, voted and final, on disk.

Checking, hashing, syncing and LevelDB's own threads all share the core that the process is bound to.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.processes import pin_to_one_core
from benchmarks.report import Figure
from benchmarks.solo import fill_chain
from benchmarks.traffic import DAY_RECORDS, prepare_records

LOAD_S = 20.0
"""Batches are handed in for this long; then the node finishes."""


def run() -> list[Figure]:
    """Measure records a second from the first submission to the finality of the last record."""
    paths = prepare_records(DAY_RECORDS)
    pin_to_one_core()
    with tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory:
        filled = fill_chain(Path(directory) / "data", paths, records_max=DAY_RECORDS, seconds=LOAD_S)
    return [
        Figure(
            "one_node_records_per_s",
            "one node, one core",
            filled.records / filled.took_s,
            "/s",
            target=50_000,
            note=f"{filled.records:,} records in {filled.took_s:.1f} s, {filled.cpu_s:.1f} s of CPU",
        )
    ]
