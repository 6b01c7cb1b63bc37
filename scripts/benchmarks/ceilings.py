"""What this machine can do at most of the four things that a node does most, one core each.

Every other figure is shown as a ratio to these, measured in the same run: machines differ, and so do hours.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from benchmarks.processes import pin_to_one_core
from benchmarks.report import Figure
from benchmarks.traffic import CHUNK_RECORDS, prepare_records, read_batches
from ledger.cdr import CallRecord
from ledger.leveldb import plyvel

MEASURE_S = 1.0
"""How long each ceiling is measured; the best of ROUNDS counts, since a ceiling is what is possible."""
ROUNDS = 3
MESSAGE_BYTES = 200
BATCH_ROWS = 20
BATCH_ROW_BYTES = 1_000
"""About what one transaction of 1,000 records adds to the index: a row for each setup minute."""


def run() -> list[Figure]:
    """Measure all four."""
    pin_to_one_core()
    verify = _rate(_make_verify())
    hashing = _rate(_make_hash())
    decode = _rate(_make_decode())
    with tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory:
        write = _rate(_make_write(Path(directory)))
    megabytes = hashing * MESSAGE_BYTES / 1e6
    return [
        Figure("ceiling_p256_verify_per_s", "P-256 verification", verify, "/s"),
        Figure(
            "ceiling_sha256_per_s", f"SHA-256 of {MESSAGE_BYTES} bytes", hashing, "/s", note=f"{megabytes:,.0f} MB/s"
        ),
        Figure("ceiling_msgspec_decode_per_s", "msgspec decode of a CallRecord", decode, "/s"),
        Figure(
            "ceiling_leveldb_batch_per_s",
            f"LevelDB synced batch of {BATCH_ROWS} x {BATCH_ROW_BYTES} bytes",
            write,
            "/s",
        ),
    ]


def _rate(step: Callable[[], int]) -> float:
    """Return how many operations a second ``step`` does, each call of which does as many as it returns."""
    best = 0.0
    for _ in range(ROUNDS):
        done, started = 0, time.perf_counter()
        while (took_s := time.perf_counter() - started) < MEASURE_S:
            done += step()
        best = max(best, done / took_s)
    return best


def _make_verify() -> Callable[[], int]:
    key = ec.generate_private_key(ec.SECP256R1())
    algorithm = ec.ECDSA(Prehashed(hashes.SHA256()))
    digest = os.urandom(32)
    signature, public_key = key.sign(digest, algorithm), key.public_key()

    def step() -> int:
        for _ in range(100):
            public_key.verify(signature, digest, algorithm)
        return 100

    return step


def _make_hash() -> Callable[[], int]:
    messages = [os.urandom(MESSAGE_BYTES) for _ in range(10_000)]

    def step() -> int:
        for message in messages:
            sha256(message).digest()
        return len(messages)

    return step


def _make_decode() -> Callable[[], int]:
    items = [item for batch in read_batches(prepare_records(CHUNK_RECORDS), 20_000) for item in batch]
    decode = msgspec.msgpack.Decoder(CallRecord).decode

    def step() -> int:
        for item in items:
            decode(item)
        return len(items)

    return step


def _make_write(directory: Path) -> Callable[[], int]:
    database = plyvel.DB(str(directory / "db"), create_if_missing=True)
    value = os.urandom(BATCH_ROW_BYTES)
    number = 0

    def step() -> int:
        nonlocal number
        with database.write_batch(transaction=True, sync=True) as batch:
            for _ in range(BATCH_ROWS):
                number += 1
                batch.put(number.to_bytes(8, "big"), value)
        return 1

    return step
