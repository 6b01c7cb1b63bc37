"""The makers of the vectors of receipts, good and forged; ``make-vectors`` runs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from audit.final import FinalReader
from audit.receipt import make_receipt, verify_receipt
from consensus.rows import read_block, read_final_id
from ledger.genesis import Genesis, genesis_to_json
from tests.audit.chains import FIVE, Cluster, fill, govern, make_genesis
from tests.audit.receipt_forgeries import FORGERIES, make_kit
from tests.audit.receipt_world import World

FIELDS_SET_MAX = 8
"""A forgery that changes more is written out."""
SEVEN = tuple(f"carrier-{number}" for number in range(7))
TWENTY_ONE = tuple(f"carrier-{number:02}" for number in range(21))
OTHERS = tuple(f"later-{number:02}" for number in range(21))


def _place(cluster: Cluster, height: int) -> bytes:
    """Return the id of the first transaction of a final block."""
    store = cluster.peers[0].store
    block_id = read_final_id(store, height)
    block = None if block_id is None else read_block(store, block_id)
    assert block is not None
    return block.body[0].tx_id


def _case(name: str, file: bytes, genesis: Genesis) -> dict[str, Any]:
    verdict = verify_receipt(file, genesis)
    expected = {
        "member_id": verdict.member_id,
        "tx_id": verdict.tx_id.hex(),
        "index": verdict.index,
        "void": int(verdict.void),
        "height": verdict.height,
        "block_id": verdict.block_id.hex(),
        "block_ms": verdict.block_ms,
        "final_height": verdict.final_height,
        "set_id": verdict.set_id,
        "revealed": [{"name": field.name, "value_hex": field.value.hex()} for field in verdict.revealed],
    }
    return {"name": name, "genesis": genesis.name, "file": file.decode(), "expected": expected}


def _of_chain(cluster: Cluster, places: Sequence[tuple[str, int, int]]) -> list[dict[str, Any]]:
    store, genesis = cluster.peers[0].store, cluster.genesis
    reader = FinalReader(store, genesis)
    return [
        _case(name, make_receipt(store, genesis, _place(cluster, height), index, reader=reader), genesis)
        for name, height, index in places
    ]


def make_receipts() -> dict[str, Any]:
    """Return good receipts: of two chains that producers made, and of some in which one thing is large."""
    quiet, governed = Cluster(make_genesis()), Cluster(make_genesis(name="governed", members=FIVE, seats=4))
    fill(quiet)
    govern(governed)
    worlds = {
        "caller and call id shown": (World(chain_name="shown"), ("caller", "call_id")),
        "all shown, one of them no text": (World(chain_name="shown"), "all"),
        "two changes of seven, a third under way": (
            World(SEVEN, 7, [SEVEN[3:], SEVEN[:4]], SEVEN[2:], chain_name="seven", voids=2, index=1),
            (),
        ),
        "a change of twenty-one": (World(TWENTY_ONE, 21, [OTHERS], chain_name="twenty-one"), ()),
    }
    cases = _of_chain(
        quiet, [("no change of the set", 9, 5), ("a void record", 9, 0), ("in the final block", 14, 2)]
    ) + _of_chain(governed, [("four changes of the set", 3, 1), ("four changes, in the final block", 59, 3)])
    genesis = {"audit-test": quiet.genesis, "governed": governed.genesis}
    for name, (world, revealed) in worlds.items():
        genesis[world.chain_name] = world.genesis
        cases.append(_case(name, world.receipt(revealed), world.genesis))
    return {
        "about": "Receipts that hold. `file` is the file, to be verified with the genesis file of its `genesis`; "
        "`expected` is what it proves.",
        "genesis": {name: genesis_to_json(one).decode() for name, one in genesis.items()},
        "receipts": cases,
    }


def make_receipt_forgeries() -> dict[str, Any]:
    """Return forged receipts, and where each is refused."""
    kit = make_kit()
    good = kit.document
    cases = []
    for name, one in FORGERIES.items():
        made, case = one.forge(kit), {"name": name, "about": one.about, "where": one.where}
        if isinstance(made, str) or sum(made.get(field) != value for field, value in good.items()) > FIELDS_SET_MAX:
            cases.append({**case, "file": one.text(kit)})
            continue
        changed = {field: value for field, value in made.items() if field not in good or good[field] != value}
        cases.append({**case, "set": changed, "remove": [field for field in good if field not in made]})
    return {
        "about": "Forged receipts, none of which holds under `genesis`, a genesis file; `good` is the true one. Each "
        "is `file` or, where that is absent, `good` with the fields in `set`, and without those in `remove`. `where` "
        "is the step that ledger-verify names.",
        "genesis": genesis_to_json(kit.world.genesis).decode(),
        "good": kit.text,
        "forgeries": cases,
    }


MAKERS = {"receipts.json": make_receipts, "receipt_forgeries.json": make_receipt_forgeries}
