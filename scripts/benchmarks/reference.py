"""The second implementation on one core: an export of normal traffic, read and verified in plain Python."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from audit.export import write_export
from audit.reference import verify_export
from benchmarks.report import Figure
from benchmarks.solo import fill_chain
from benchmarks.traffic import prepare_records
from ledger.genesis import genesis_to_json
from ledger.leveldb import LevelStore

RECORDS = 20_000
LOAD_S = 20.0
TARGET = 1_000


@dataclass(frozen=True, slots=True)
class ReferenceTimes:
    """What one export took: its records and blocks, and seconds by the clock and of the processor."""

    records: int
    blocks: int
    took_s: float
    cpu_s: float

    @property
    def records_per_s(self) -> float:
        """Return records verified in a second of the processor's time: a busy machine does not change it."""
        return self.records / self.cpu_s


def measure_reference_records_per_s() -> float:
    """Return records a second of one core. Takes some 20 seconds, half of them for a chain to verify."""
    return measure_reference().records_per_s


def measure_reference() -> ReferenceTimes:
    """Make a chain of transactions of 1,000 records; time the whole verdict, the proof of its rules included.

    Raises RuntimeError where the verdict is not that all of it holds.
    """
    paths = prepare_records(RECORDS)
    with tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory:
        data, export = Path(directory) / "data", Path(directory) / "chain.export"
        filled = fill_chain(data, paths, records_max=RECORDS, seconds=LOAD_S)
        store = LevelStore(data)
        try:
            with export.open("wb") as file:
                write_export(store, filled.genesis, file)
        finally:
            store.close()
        started, cpu_started = time.perf_counter(), time.process_time()
        verdict = verify_export(export, genesis_to_json(filled.genesis))
        took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    if not verdict.ok or verdict.counts["records"] != filled.records:
        raise RuntimeError(f"{verdict.counts.get('records', 0):,} of {filled.records:,} records: {verdict.sentence}")
    return ReferenceTimes(filled.records, verdict.counts["blocks"], took_s, cpu_s)


def run() -> list[Figure]:
    """Measure the second implementation."""
    times = measure_reference()
    note = f"{times.records:,} records, {times.blocks} blocks in {times.took_s:.1f} s, {times.cpu_s:.1f} s of CPU"
    return [
        Figure(
            "reference_records_per_s", "ledger-verify --reference", times.records_per_s, "/s", target=TARGET, note=note
        )
    ]
