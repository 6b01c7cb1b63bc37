"""What an id, or its beginning, is the id of: blocks, transactions, records, members, keys.

Blocks and transactions are found by the order of the store's keys, so a beginning of four digits is enough and costs a
few reads. A record's key is looked for in the rows of the last minutes: nothing finds it at once, and nothing may take
longer than a moment.

Source: docs/api.md, "Explorer".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from consensus.rows import read_block, read_final_id
from ledger.cdr import CallRecord
from ledger.codec import decode_each
from ledger.crypto import key_id_of
from ledger.entries import KeyEntry
from ledger.errors import LedgerError
from ledger.readable import to_readable
from ledger.record_index import KEY_BYTES
from ledger.store import Space, Store, record_key_row
from ledger.transaction import Kind
from ledger.validation import record_keys
from node.api.backend import Backend
from node.api.views import find_transaction

RESULTS_MAX: Final = 20
PREFIX_DIGITS_MIN: Final = 4
ROWS_MAX: Final = 20_000
ROWS_BYTES_MAX: Final = 64 << 20
"""Rows of record keys looked through, the latest minutes first: four million records, a fraction of a second."""
HEX: Final = frozenset("0123456789abcdef")
_HIGHEST_MINUTE: Final = (1 << 32) - 1


def search(node: Backend, text: str) -> list[dict[str, Any]]:
    """Return what ``text`` may mean, the likeliest first, at most RESULTS_MAX. Raises StoreError.

    May run beside the event loop: of the engine it looks only at what is replaced, never changed.
    """
    word = text.strip().lower().removeprefix("0x")
    finders: tuple[Callable[[Backend, str], Iterator[dict[str, Any]]], ...] = (
        _heights, _places, _members, _blocks, _transactions, _keys, _record_key,
    )  # fmt: skip
    found: list[dict[str, Any]] = []
    for finder in finders:
        for result in finder(node, word):
            if result not in found:
                found.append(result)
            if len(found) == RESULTS_MAX:
                return found
    return found


def _heights(node: Backend, word: str) -> Iterator[dict[str, Any]]:
    digits = word.removeprefix("#").replace(",", "").replace("_", "")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        return
    block_id = node.engine.block_id_at(int(digits)) if int(digits) else None
    if block_id is not None:
        yield {"kind": "block", "id": block_id.hex(), "height": int(digits)}


def _places(node: Backend, word: str) -> Iterator[dict[str, Any]]:
    """Find a record by its place, ``TX/INDEX``."""
    tx, slash, index = word.partition("/")
    if not (slash and index.isascii() and index.isdigit() and len(index) <= 4) or len(tx) != 64 or set(tx) - HEX:
        return
    with suppress(LedgerError):
        _, transaction = find_transaction(node, bytes.fromhex(tx))
        if transaction.envelope.kind is Kind.RECORDS and int(index) < len(transaction.items):
            yield _record_result(tx, int(index), transaction.envelope.member_id)


def _members(node: Backend, word: str) -> Iterator[dict[str, Any]]:
    """Find members by their names: the name itself, then those that begin with it, then those that have it inside."""
    names = [name for name in node.engine.head.chain.state.members if word in name]
    for name in sorted(names, key=lambda name: (name != word, not name.startswith(word), name)):
        yield {"kind": "member", "id": name, "member_id": name}


def _blocks(node: Backend, word: str) -> Iterator[dict[str, Any]]:
    for block_id in _ids(node.store, Space.HEADER, word, 64):
        block = read_block(node.store, block_id)
        if block is not None:
            yield {"kind": "block", "id": block_id.hex(), "height": block.sealed.header.height}


def _transactions(node: Backend, word: str) -> Iterator[dict[str, Any]]:
    for tx_id in _ids(node.store, Space.TRANSACTION, word, 64):
        with suppress(LedgerError):
            envelope = find_transaction(node, tx_id)[1].envelope
            yield {
                "kind": "transaction",
                "id": tx_id.hex(),
                "member_id": envelope.member_id,
                "holds": to_readable(envelope.kind),
            }


def _keys(node: Backend, word: str) -> Iterator[dict[str, Any]]:
    """Find keys by id, its beginning, or the public key itself."""
    if not PREFIX_DIGITS_MIN <= len(word) <= 66 or set(word) - HEX:
        return
    keys: Mapping[bytes, KeyEntry] = node.engine.head.chain.state.keys
    wanted = key_id_of(bytes.fromhex(word)).hex() if len(word) == 66 else word
    for key_id in sorted(keys):
        if key_id.hex().startswith(wanted):
            yield {"kind": "key", "id": key_id.hex(), "member_id": keys[key_id].member_id}


def _record_key(node: Backend, word: str) -> Iterator[dict[str, Any]]:
    """Find the record that counted under a record key, in the latest minutes."""
    if len(word) != 2 * KEY_BYTES or set(word) - HEX:
        return
    key = bytes.fromhex(word)
    start, stop = record_key_row(0), record_key_row(_HIGHEST_MINUTE)
    size = 0
    for number, (row_key, row) in enumerate(node.store.scan(start, stop, reverse=True)):
        size += len(row)
        if number >= ROWS_MAX or size > ROWS_BYTES_MAX:
            return
        if _holds(row, key):
            yield from _records_at(node, int.from_bytes(row_key[-8:]), key)
            return


def _holds(row: bytes, key: bytes) -> bool:
    place = row.find(key)
    while place >= 0 and place % KEY_BYTES:
        place = row.find(key, place + 1)
    return place >= 0


def _records_at(node: Backend, height: int, key: bytes) -> Iterator[dict[str, Any]]:
    """Return the record of a key in the block that counted it, and void ones beside it."""
    block_id = read_final_id(node.store, height)
    block = None if block_id is None else read_block(node.store, block_id)
    for item in block.body if block is not None else ():
        _, transaction = find_transaction(node, item.tx_id)
        if transaction.envelope.kind is not Kind.RECORDS:
            continue
        member_id = transaction.envelope.member_id
        keys = record_keys(member_id, decode_each(transaction.items, CallRecord))
        for index, found in enumerate(keys):
            if found == key:
                yield _record_result(item.tx_id.hex(), index, member_id)


def _record_result(tx: str, index: int, member_id: str) -> dict[str, Any]:
    return {"kind": "record", "id": f"{tx}/{index}", "tx_id": tx, "index": index, "member_id": member_id}


def _ids(store: Store, space: Space, word: str, digits: int) -> Iterator[bytes]:
    """Return the ids in a space that begin with the hexadecimal digits of ``word``, at most RESULTS_MAX."""
    if not PREFIX_DIGITS_MIN <= len(word) <= digits or set(word) - HEX:
        return
    least, most = bytes.fromhex(word.ljust(digits, "0")), bytes.fromhex(word.ljust(digits, "f"))
    rows = store.scan(space.value + least, space.value + most + b"\0")
    for number, (row_key, _) in enumerate(rows):
        if number >= RESULTS_MAX:
            return
        yield row_key[1:]
