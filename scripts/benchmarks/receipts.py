"""One receipt: made from a node's directory, and verified with the genesis alone."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from audit.final import FinalReader
from audit.receipt import make_receipt, verify_receipt
from benchmarks.report import Figure
from benchmarks.solo import fill_chain
from benchmarks.traffic import prepare_records
from consensus.rows import read_block, read_final_id
from ledger.block import Block
from ledger.leveldb import LevelStore
from ledger.store import Store

RECORDS = 20_000
LOAD_S = 20.0
ROUNDS = 60
INDEX = 500
"""In the middle of a transaction of 1,000."""


@dataclass(frozen=True, slots=True)
class ReceiptTimes:
    """Medians of one receipt, in milliseconds, and its size."""

    make_ms: float
    verify_ms: float
    size_bytes: int


def measure_receipt_ms() -> float:
    """Return milliseconds for one receipt, made and verified. Takes some ten seconds, for a chain to take it from."""
    times = measure_receipt()
    return times.make_ms + times.verify_ms


def measure_receipt() -> ReceiptTimes:
    """Make a chain of transactions of 1,000 records; time receipts of its first transaction.

    A node keeps its reader of the final block, so that is made before the clock starts.
    """
    paths = prepare_records(RECORDS)
    with tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory:
        data = Path(directory) / "data"
        genesis = fill_chain(data, paths, records_max=RECORDS, seconds=LOAD_S).genesis
        store = LevelStore(data)
        try:
            reader, tx_id = FinalReader(store, genesis), _first_block(store).body[0].tx_id
            receipt = make_receipt(store, genesis, tx_id, INDEX, reader=reader)
            make_s, verify_s = [], []
            for _ in range(ROUNDS):
                begun = time.perf_counter()
                receipt = make_receipt(store, genesis, tx_id, INDEX, reader=reader)
                made = time.perf_counter()
                verify_receipt(receipt, genesis)
                make_s.append(made - begun)
                verify_s.append(time.perf_counter() - made)
        finally:
            store.close()
    return ReceiptTimes(statistics.median(make_s) * 1000, statistics.median(verify_s) * 1000, len(receipt))


def _first_block(store: Store) -> Block:
    """Return the lowest final block with transactions. Raises RuntimeError where there is none."""
    height = 1
    while (block_id := read_final_id(store, height)) is not None:
        block = read_block(store, block_id)
        if block is not None and block.body:
            return block
        height += 1
    raise RuntimeError("no final block with transactions")


def run() -> list[Figure]:
    """Measure one receipt."""
    times = measure_receipt()
    note = f"made {times.make_ms:.1f}, verified {times.verify_ms:.1f}; {times.size_bytes:,} bytes"
    total_ms = times.make_ms + times.verify_ms
    return [Figure("receipt_ms", "one receipt", total_ms, "ms", target=20.0, at_most=True, note=note)]
