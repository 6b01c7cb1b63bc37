"""Receipts: a good one is verified with the genesis alone; changing any field of it makes it fail."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.receipt import make_receipt, verify_receipt
from ledger.cdr import CallRecord
from ledger.codec import decode
from ledger.errors import InvalidProof, StoreDamaged, StoreError
from ledger.genesis import Genesis
from ledger.leveldb import LevelStore
from ledger.store import MemoryStore, Space, Store, WriteBatch
from tests.audit.chains import make_genesis
from tests.audit.tamper import Parts

H = 9


@pytest.fixture(scope="module")
def store(data_dir: Path) -> Iterator[Store]:
    opened = LevelStore(data_dir)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def receipt(store: Store, original: Parts, genesis: Genesis) -> bytes:
    """A record that counts, in a block some way below the final one."""
    return make_receipt(store, genesis, original.body(H)[0].tx_id, 5)


@pytest.fixture(scope="module")
def newest(store: Store, original: Parts, genesis: Genesis) -> bytes:
    """A record of the final block."""
    return make_receipt(store, genesis, original.body(14)[0].tx_id, 2)


def test_a_good_receipt(receipt: bytes, original: Parts, genesis: Genesis) -> None:
    verdict = verify_receipt(receipt, genesis)
    transaction = original.transaction(H)
    assert verdict.record == decode(transaction.items[5], CallRecord)
    assert (verdict.member_id, verdict.index, verdict.void) == ("alfa", 5, False)
    assert (verdict.tx_id, verdict.height) == (original.body(H)[0].tx_id, H)
    assert verdict.block_id == original.blocks[H - 1].stated_id
    assert verdict.block_ms == genesis.genesis_time_ms + original.header(H).slot * 1000
    assert (verdict.final_height, verdict.set_id) == (14, 0)
    assert verdict.sentence().endswith("final under height 14; it counts")
    document = json.loads(receipt)
    assert (document["final"]["header"]["height"], document["set_changes"]) == (14, [])
    assert len(document["history_path"]) == 4
    assert document["record"]["sip_code"] == verdict.record.sip_code


def test_every_record_of_the_chain_has_one(store: Store, original: Parts, genesis: Genesis) -> None:
    for height in range(1, 15):
        for position, item in enumerate(original.body(height)):
            for index, raw in enumerate(original.transaction(height, position).items):
                verdict = verify_receipt(make_receipt(store, genesis, item.tx_id, index), genesis)
                assert (verdict.record, verdict.height) == (decode(raw, CallRecord), height)
                is_void = bool(item.void_bitmap) and bool(item.void_bitmap[0] >> index & 1)
                assert (verdict.void, verdict.final_height) == (is_void, 14)


def test_a_receipt_of_the_final_block(newest: bytes, genesis: Genesis) -> None:
    verdict = verify_receipt(newest, genesis)
    assert (verdict.height, verdict.final_height) == (14, 14)
    document = json.loads(newest)
    assert (document["header"], document["history_path"]) == (None, [])


def test_another_genesis_refuses_it(receipt: bytes) -> None:
    with pytest.raises(InvalidProof) as caught:
        verify_receipt(receipt, make_genesis(name="another"))
    assert caught.value.where == "chain_id"


# -- every field -----------------------------------------------------------------------------------------------------


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every scalar, list and object in a document."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, child in value.items():
            yield from leaves(child, (*path, name))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from leaves(child, (*path, index))


def others(value: Any) -> list[Any]:
    """Return other values to put in place of one, of the same type where there is one."""
    if isinstance(value, bool | int):
        return [value + 1, -1, None, "1"]
    if isinstance(value, str):
        flipped = (
            f"{int(value[0], 16) ^ 1:x}{value[1:]}" if value[:1] and value[0] in "0123456789abcdef" else value + "x"
        )
        return [flipped, *([""] if value else []), None, 5]
    if value is None:
        return [0, "00", {}]
    if isinstance(value, list):
        return [value[:-1] if value else ["00" * 32], [*value, "00" * 32], None, {}]
    return [None, {}, []]


def changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> bytes:
    made = copy.deepcopy(document)
    here: Any = made
    for step in path[:-1]:
        here = here[step]
    here[path[-1]] = value
    return json.dumps(made).encode()


def refused(data: bytes, genesis: Genesis) -> str:
    with pytest.raises(InvalidProof) as caught:
        verify_receipt(data, genesis)
    assert caught.value.where != ""
    return caught.value.where


def check_every_field(document: dict[str, Any], genesis: Genesis) -> int:
    tried = 0
    for path in leaves(document):
        here: Any = document
        for step in path:
            here = here[step]
        for value in others(here):
            refused(changed(document, path, value), genesis)
            tried += 1
    return tried


def test_any_field_changed_is_refused(receipt: bytes, genesis: Genesis) -> None:
    assert check_every_field(json.loads(receipt), genesis) > 400


def test_any_field_changed_is_refused_of_the_final_block(newest: bytes, genesis: Genesis) -> None:
    assert check_every_field(json.loads(newest), genesis) > 300


def test_any_field_missing_or_added_is_refused(receipt: bytes, genesis: Genesis) -> None:
    document = json.loads(receipt)
    for name in document:
        assert refused(json.dumps({k: v for k, v in document.items() if k != name}).encode(), genesis) == name
    assert refused(json.dumps({**document, "note": 1}).encode(), genesis) == "note"
    assert refused(receipt.replace(b'"version": 2,', b'"version": 2, "version": 2,', 1), genesis) == "version"


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (("record", "end_ms"), "item_path.root"),
        (("envelope", "created_ms"), "tx_id"),
        (("signature",), "signature"),
        (("key", "entry", "roles"), "key.siblings"),
        (("void",), "void"),
        (("void_bitmap",), "tx_path.root"),
        (("tx_index",), "tx_path.root"),
        (("header", "slot"), "block_id"),
        (("final", "header", "slot"), "final.certificate"),
        (("final", "header", "state_root"), "key.siblings"),
        (("final", "voting", "set_id"), "final.siblings"),
        (("final", "certificate", "s_id"), "final.certificate"),
        (("final", "certificate", "t_id"), "final.certificate.parts.signatures"),
        (("final", "certificate", "t_height"), "final.certificate"),
        (("final", "certificate", "parts"), "final.certificate.parts"),
    ],
)
def test_the_step_that_fails_is_named(path: tuple[str, ...], where: str, receipt: bytes, genesis: Genesis) -> None:
    document = json.loads(receipt)
    here: Any = document
    for step in path:
        here = here[step]
    value = 1 - here if path == ("void",) else "01" if path == ("void_bitmap",) else others(here)[0]
    assert refused(changed(document, path, value), genesis) == where


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidProof):
        verify_receipt(data, make_genesis())


@given(st.recursive(st.none() | st.integers() | st.text(max_size=4), lambda c: st.lists(c, max_size=3)))
def test_arbitrary_json_is_refused(value: Any) -> None:
    with pytest.raises(InvalidProof):
        verify_receipt(json.dumps(value).encode(), make_genesis())


# -- making ----------------------------------------------------------------------------------------------------------


def test_no_receipt_of_what_is_not_there(store: Store, original: Parts, genesis: Genesis) -> None:
    with pytest.raises(StoreError, match="not final here"):
        make_receipt(store, genesis, bytes(32), 0)
    with pytest.raises(StoreError, match="no such record"):
        make_receipt(store, genesis, original.body(H)[0].tx_id, 7)
    with pytest.raises(StoreError, match="no such record"):
        make_receipt(store, genesis, original.body(H)[0].tx_id, -1)


def test_a_damaged_store_gives_none(genesis: Genesis) -> None:
    store = MemoryStore()
    store.write(WriteBatch(puts=[(Space.LOCATION.value + bytes(32), (4).to_bytes(8))]))
    with pytest.raises(StoreDamaged, match="height 4"):
        make_receipt(store, genesis, bytes(32), 0)
