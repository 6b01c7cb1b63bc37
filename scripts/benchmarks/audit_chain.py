"""``ledger-verify`` on one core: a data directory copied, opened and re-derived from its bytes."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from pathlib import Path

from audit.source import DirectorySource
from audit.verify import verify_chain
from benchmarks.processes import pin_to_one_core
from benchmarks.report import Figure
from benchmarks.solo import fill_chain
from benchmarks.traffic import prepare_records

RECORDS = 1_000_000
LOAD_S = 60.0


def run() -> list[Figure]:
    """Make a chain, then measure records audited a second, the copy of the directory included."""
    paths = prepare_records(RECORDS)
    with tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory:
        data = Path(directory) / "data"
        filled = fill_chain(data, paths, records_max=RECORDS, seconds=LOAD_S)
        pin_to_one_core()
        started, cpu_started = time.perf_counter(), time.process_time()
        with closing(DirectorySource(data)) as source:
            report = verify_chain(source, filled.genesis)
        took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    if not report.ok or report.records != filled.records:
        raise RuntimeError(f"{report.records:,} of {filled.records:,} records: {report.first_difference}")
    return [
        Figure(
            "audit_records_per_s",
            "ledger-verify, one core",
            report.records / took_s,
            "/s",
            target=80_000,
            note=f"{report.records:,} records, {report.blocks} blocks in {took_s:.1f} s, {cpu_s:.1f} s of CPU",
        )
    ]
