"""The records that every part uses: a day of one carrier's traffic, made once and kept, signed anew for each chain.

Making a record costs far more than checking one, so the encoded records are kept in a directory for temporary files
and found there by the next run of the same day with the same generator.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from importlib import import_module
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import msgspec

from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.transaction import ITEMS_MAX, make_transaction
from telephony.synthetic import Traffic, generate_records

DAY_MS = 86_400_000
DAY_RECORDS = 2_000_000
"""Call attempts of the day: 23 a second on average."""
CHUNK_RECORDS = 50_000
"""Records of one file, 36 minutes of the day."""
BATCH_RECORDS = ITEMS_MAX
LIFETIME_MS = 4 * 3_600_000
KEEP_S = 86_400
"""Records of another day or version are deleted when they are this old."""
SOURCES = ("telephony.synthetic", "ledger.cdr", "ledger.codec", "ledger.models.tables")
"""Modules whose change makes other records."""


def yesterday_ms() -> int:
    """Return the start of yesterday, UTC: the whole day is over, and inside every chain's record window."""
    return (time.time_ns() // 1_000_000 // DAY_MS - 1) * DAY_MS


def prepare_records(count: int) -> list[Path]:
    """Return the files that hold the first ``count`` records of the day, having made those that were not there."""
    if not 0 < count <= DAY_RECORDS:
        raise ValueError(f"1 to {DAY_RECORDS} records, not {count}")
    directory = _cache_directory()
    day_ms = yesterday_ms()
    prefix = f"{_fingerprint()}-{day_ms // DAY_MS}-"
    for old in directory.iterdir():
        # Not at once: a benchmark of another version may be running.
        if not old.name.startswith(prefix) and time.time() - old.stat().st_mtime > KEEP_S:
            old.unlink(missing_ok=True)
    paths = [directory / f"{prefix}{index:03d}.msgpack" for index in range(-(-count // CHUNK_RECORDS))]
    missing = [(index, path) for index, path in enumerate(paths) if not path.exists()]
    if missing:
        print(f"  making {len(missing) * CHUNK_RECORDS:,} records (kept for the next run)", file=sys.stderr)
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            list(pool.map(_make_chunk, missing, [day_ms] * len(missing)))
    return paths


def read_batches(paths: list[Path], count: int) -> Iterator[list[bytes]]:
    """Yield the first ``count`` records, encoded, in the order in which the calls ended, by BATCH_RECORDS."""
    left = count
    for path in paths:
        items = msgspec.msgpack.decode(path.read_bytes(), type=list[bytes])
        for start in range(0, len(items), BATCH_RECORDS):
            if left <= 0:
                return
            batch = items[start : start + min(BATCH_RECORDS, left)]
            left -= len(batch)
            yield batch


def sign_batches(
    batches: Iterator[list[bytes]], *, key: PrivateKey, member_id: str, chain_id: bytes, now_ms: int
) -> Iterator[bytes]:
    """Yield each batch as a raw signed transaction."""
    for items in batches:
        transaction = make_transaction(
            items,
            key=key,
            member_id=member_id,
            chain_id=chain_id,
            created_ms=now_ms,
            expires_ms=now_ms + LIFETIME_MS,
        )
        yield encode(transaction)


def _make_chunk(job: tuple[int, Path], day_ms: int) -> None:
    """Write one file of records; under another name first, so that it is there whole or not at all."""
    index, path = job
    chunk_ms = DAY_MS * CHUNK_RECORDS // DAY_RECORDS
    # A seed of its own gives every chunk call ids of its own, so no record counts twice.
    traffic = Traffic(
        seed=index + 1, start_ms=day_ms + index * chunk_ms, calls_per_hour=DAY_RECORDS // 24, member_secret=bytes(32)
    )
    items = [encode(record) for record in islice(generate_records(traffic), CHUNK_RECORDS)]
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(encode(items))
    partial.replace(path)


def _cache_directory() -> Path:
    """Return a directory of this user's own in the place for temporary files."""
    directory = Path(tempfile.gettempdir()) / f"ledgerd-bench-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.getuid():
        raise SystemExit(f"{directory} belongs to somebody else; set TMPDIR to another place")
    return directory


def _fingerprint() -> str:
    """Return what tells records of one version of the generator from those of another."""
    digest = sha256(f"{DAY_RECORDS} {CHUNK_RECORDS}".encode())
    for name in SOURCES:
        digest.update(Path(import_module(name).__file__ or "").read_bytes())
    return digest.hexdigest()[:16]
