"""What a chain holds, read back from a node, and how that differs from what should be there."""

from __future__ import annotations

import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from audit.export import ExportReader
from ledger.block import BodyItem, is_void
from ledger.cdr import CallRecord, record_key_of
from ledger.codec import decode, decode_each
from ledger.transaction import Kind, Transaction

READ_S: Final = 120.0


@dataclass
class ChainRecords:
    """The records in the final blocks of a chain."""

    height: int = 0
    counted: Counter[bytes] = field(default_factory=Counter)
    """How often each record key counts."""
    void: int = 0
    """Records that a block holds and that do not count, because their key was there before."""
    measured: int = 0
    """Records that count and have a MOS."""


def read_chain(url: str) -> ChainRecords:
    """Return what the node at ``url`` exports."""
    found = ChainRecords()
    with export_of(url) as reader:
        for block in reader.blocks():
            found.height = block.height
            for item, raw in zip(decode(block.body, list[BodyItem]), block.transactions, strict=True):
                if raw is not None:
                    _add(found, item, decode(raw, Transaction))
    return found


@contextmanager
def export_of(url: str) -> Iterator[ExportReader]:
    """A node's export, as it comes."""
    with urllib.request.urlopen(f"{url}/v1/export", timeout=READ_S) as response:  # noqa: S310 - a node of ours
        yield ExportReader(response, name=url)


def _add(found: ChainRecords, item: BodyItem, transaction: Transaction) -> None:
    if transaction.envelope.kind != Kind.RECORDS:
        return
    for index, record in enumerate(decode_each(transaction.items, CallRecord)):
        if is_void(item.void_bitmap, index):
            found.void += 1
            continue
        found.counted[record_key_of(transaction.envelope.member_id, record)] += 1
        found.measured += record.quality is not None


def differences(expected: Iterable[bytes], found: ChainRecords) -> list[str]:
    """Return a sentence for each way in which a chain does not hold each expected key exactly once."""
    wanted = Counter(expected)
    cases = {
        "handed in under one key more than once": {key for key, times in wanted.items() if times > 1},
        "missing from the chain": wanted.keys() - found.counted.keys(),
        "on the chain, handed in by nobody": found.counted.keys() - wanted.keys(),
        "on the chain more than once": {key for key, times in found.counted.items() if times > 1},
    }
    return [f"{len(keys)} {what}, such as {min(keys).hex()}" for what, keys in cases.items() if keys]
