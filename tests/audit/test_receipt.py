"""Receipts: a good one is verified with the genesis alone; changing any field of it makes it fail."""

from __future__ import annotations

import copy
import json
from base64 import b64decode, b64encode
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
from ledger.genesis import Genesis, genesis_from_json
from ledger.leveldb import LevelStore
from ledger.store import MemoryStore, Space, Store, WriteBatch
from tests.audit.chains import make_genesis
from tests.audit.receipt_world import World
from tests.audit.tamper import Parts

H = 9
PACKED = {"item_path", "tx_path", "void_bitmap", "header", "history_path", "set_changes", "final", "path"}
"""Fields in base64."""


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
    assert (verdict.final_height, verdict.set_id, verdict.revealed) == (14, 0, ())
    assert verdict.sentence().endswith("of 2026-09-21T14:14:08Z, final under height 14 by voting set 0; it counts")
    document = json.loads(receipt)
    assert (document["height"], document["block_ms"]) == (H, verdict.block_ms)
    assert (document["personal_data"], document["set_changes"], "revealed" in document) == (0, [], False)
    assert len(b64decode(document["history_path"])) == 4 * 32
    assert document["record"]["sip_code"] == verdict.record.sip_code
    assert [line.split(":")[0] for line in receipt.decode().splitlines()][:2] == ['{"version"', '"personal_data"']


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
    assert (document["header"], document["history_path"]) == (None, "")


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


def others(value: Any, name: str = "") -> list[Any]:
    """Return other values to put in place of one, of the same type where there is one."""
    if isinstance(value, bool | int):
        return [value + 1, -1, None, "1"]
    if isinstance(value, str) and name in PACKED:
        data = b64decode(value)
        flipped = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(0, len(data), 7)]
        lengths = [data[:-32], data[:-1], data + bytes(32), data + bytes(1)]
        made = [b64encode(one).decode() for one in (*flipped, *lengths)]
        return [one for one in {*made, value + "=", value + "\n"} if one != value] + [5]
    if isinstance(value, str):
        flipped_text = (
            f"{int(value[0], 16) ^ 1:x}{value[1:]}" if value[:1] and value[0] in "0123456789abcdef" else value + "x"
        )
        return [flipped_text, *([""] if value else []), None, 5]
    if value is None:
        return [0, "00", {}]
    if isinstance(value, list):
        return [value[:-1] if value else ["AA=="], [*value, "AA=="], None, {}]
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
        name = next(step for step in reversed(path) if isinstance(step, str))
        for value in others(here, name):
            refused(changed(document, path, value), genesis)
            tried += 1
    return tried


def test_any_field_changed_is_refused(receipt: bytes, genesis: Genesis) -> None:
    assert check_every_field(json.loads(receipt), genesis) > 500


def test_any_field_changed_is_refused_of_the_final_block(newest: bytes, genesis: Genesis) -> None:
    assert check_every_field(json.loads(newest), genesis) > 350


def test_any_field_changed_is_refused_after_changes_of_the_set() -> None:
    world = World(changes=[("bravo", "echo"), ("alfa", "bravo", "charlie")], pending=("alfa",), blocks=300, entries=8)
    assert verify_receipt(world.receipt(), world.genesis).set_id == 2
    assert check_every_field(json.loads(world.receipt()), world.genesis) > 900


def test_any_field_missing_or_added_is_refused(receipt: bytes, genesis: Genesis) -> None:
    document = json.loads(receipt)
    for name in document:
        assert refused(json.dumps({k: v for k, v in document.items() if k != name}).encode(), genesis) == name
    assert refused(json.dumps({**document, "note": 1}).encode(), genesis) == "note"
    assert refused(receipt.replace(b'"version":3,', b'"version":3,"version":3,', 1), genesis) == "version"


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (("record", "end_ms"), "item_path.root"),
        (("envelope", "created_ms"), "tx_id"),
        (("signature",), "signature"),
        (("key", "roles"), "key.path"),
        (("key", "standing"), "key.path"),
        (("void",), "void"),
        (("void_bitmap",), "tx_path.root"),
        (("tx_index",), "tx_path.root"),
        (("height",), "height"),
        (("block_ms",), "block_ms"),
    ],
)
def test_the_step_that_fails_is_named(path: tuple[str, ...], where: str, receipt: bytes, genesis: Genesis) -> None:
    document = json.loads(receipt)
    here: Any = document
    for step in path:
        here = here[step]
    values = {
        ("void",): 1 - here if path == ("void",) else None,
        ("void_bitmap",): "AQ==",
        ("key", "standing"): "revoked",
    }
    assert refused(changed(document, path, values.get(path, others(here)[0])), genesis) == where


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidProof):
        verify_receipt(data, SMALL.genesis)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=4), lambda c: st.lists(c, max_size=3)))
def test_arbitrary_json_is_refused(value: Any) -> None:
    with pytest.raises(InvalidProof):
        verify_receipt(json.dumps(value).encode(), SMALL.genesis)


@given(st.sampled_from(sorted(PACKED - {"path", "set_changes"})), st.binary(max_size=200))
def test_arbitrary_packed_bytes_are_refused(name: str, data: bytes) -> None:
    document = json.loads(SMALL_RECEIPT)
    if data != b64decode(document[name]):
        # A bitmap is part of a leaf: whether it fits is seen once the leaf is known to be the block's.
        where = "tx_path" if name == "void_bitmap" else name
        data = json.dumps({**document, name: b64encode(data).decode()}).encode()
        assert refused(data, SMALL.genesis).startswith(where)


SMALL = World(entries=4, blocks=30)
SMALL_RECEIPT = SMALL.receipt()


# -- size ------------------------------------------------------------------------------------------------------------

LONGEST_NAMES = [f"carrier-{number:02}-{'x' * 21}" for number in range(42)]
LARGE = {
    "entries": 5_000,
    "blocks": 1 << 24,
    "items": 1_000,
    "index": 999,
    "voids": 700,
    "transactions": 1_000,
    "position": 777,
    "mos_count": 8,
}


@pytest.mark.parametrize(("producers", "change_bytes_max"), [(4, 4 << 10), (7, 4 << 10), (21, 10 << 10)])
def test_the_size_has_its_bound(producers: int, change_bytes_max: int) -> None:
    """Each change replaces every producer; the last one is under way in the final block."""
    sets = [LONGEST_NAMES[:producers], LONGEST_NAMES[21 : 21 + producers]]
    for changes in range(3):
        world = World(
            names=sets[0], seats=producers, changes=[sets[1 - number % 2] for number in range(changes)], **LARGE
        )
        data = world.receipt()
        assert verify_receipt(data, world.genesis).set_id == changes
        assert len(data) <= (8 << 10) + changes * change_bytes_max
        world.pending = sets[1 - changes % 2]
        assert len(world.receipt()) <= (8 << 10) + (changes + 1) * change_bytes_max


# -- vectors ---------------------------------------------------------------------------------------------------------

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "receipts.json").read_text())


@pytest.mark.parametrize("case", VECTORS["receipts"], ids=lambda case: case["name"])
def test_the_published_receipts_hold(case: dict[str, Any]) -> None:
    genesis = genesis_from_json(VECTORS["genesis"][case["genesis"]].encode(), where="genesis")
    found = verify_receipt(case["file"].encode(), genesis).to_json()
    expected = case["expected"]
    revealed = [{"name": one["name"], "value_hex": one["value"]} for one in found["revealed"]]
    assert {**{name: found[name] for name in expected}, "revealed": revealed} == expected


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
