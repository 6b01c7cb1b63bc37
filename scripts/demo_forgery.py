"""What a forger with full access to one node would do: change a record on disk, and mend every checksum."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec

from ledger.cdr import CallRecord
from ledger.codec import decode, encode
from ledger.transaction import Transaction

# As in ledger/segments.py; written out here, since a forger would not ask for it.
_FRAME = struct.Struct(">4sII32s")
_CHECKED = struct.Struct(">I32s")


def forge_record(data: Path) -> str:
    """Make an answered call in a copied data directory a minute longer; return what was done."""
    for segment in sorted((data / "segments").glob("*.seg")):
        content = bytearray(segment.read_bytes())
        offset = 0
        while offset + _FRAME.size <= len(content):
            magic, length, _, tx_id = _FRAME.unpack_from(content, offset)
            if magic != b"LSEG":
                break
            start = offset + _FRAME.size
            forged = _forged(bytes(content[start : start + length]))
            if forged is not None:
                body, index = forged
                crc = zlib.crc32(body, zlib.crc32(_CHECKED.pack(length, tx_id)))
                content[offset:start] = _FRAME.pack(b"LSEG", length, crc, tx_id)
                content[start : start + length] = body
                segment.write_bytes(content)
                return f"record {tx_id.hex()[:16]}.../{index} on a copied disk: a minute of talk more to bill"
            offset = start + length
    raise ValueError("no record to forge")


def _forged(body: bytes) -> tuple[bytes, int] | None:
    """Return the transaction with one call made longer, and which; the same length, so that all else fits."""
    transaction = decode(body, Transaction)
    for index, item in enumerate(transaction.items):
        record = decode(item, CallRecord)
        if record.answer_ms:
            longer = encode(msgspec.structs.replace(record, answer_ms=record.answer_ms - 60_000))
            items = [*transaction.items]
            items[index] = longer
            forged = encode(msgspec.structs.replace(transaction, items=items))
            if len(forged) == len(body):
                return forged, index
    return None


def forge_receipt(receipt: Path, forged: Path) -> str:
    """Write a receipt whose record costs the other side more; return what was done."""
    document: dict[str, Any] = json.loads(receipt.read_bytes())
    record = document["record"]
    record["end_ms"] += 60_000
    forged.write_text(json.dumps(document))
    return "the record in a copied receipt: ends a minute later"
