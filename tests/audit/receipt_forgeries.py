"""Forged receipts: what somebody might try who wants to be paid for a call that was not, with all keys but a quorum's.

One function makes one forgery from the good receipt of ``Kit.document``; its docstring says what is tried, and the
name that is given to ``forgery`` is the step that refuses it. Here are those of the record, its key and its block;
those of voting sets, finality, the file and private fields are in ``receipt_forgeries_final``. ``FORGERIES`` has all.
Whoever writes another verifier finds the results in ``tests/vectors/receipt_forgeries.json``.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

from msgspec import structs

from audit.receipt_file import pack, pack_path, unpack_path
from ledger import merkle
from ledger.codec import encode
from ledger.entries import KeyStanding
from ledger.genesis import Role
from ledger.readable import to_readable
from ledger.statetree import StateTree
from ledger.transaction import Envelope, Kind, tx_id_of
from tests.audit import receipt_forgeries_final
from tests.audit.receipt_forger import (
    FORGER,
    FORGERIES,
    THIRD,
    Kit,
    forgery,
    high_s,
    make_kit,
    make_world,
    resigned,
    set_of,
)
from tests.audit.receipt_world import SUBMIT_KEY, digest, path_of

__all__ = ["FORGERIES", "Kit", "make_kit", "receipt_forgeries_final"]

# -- the record and its transaction ------------------------------------------------------------------------------------


@forgery("item_path.root")
def call_made_longer(kit: Kit) -> dict[str, Any]:
    """The call ends a minute later than the record says."""
    document = kit.document
    document["record"]["end_ms"] += 60_000
    return document


@forgery("item_path.root")
def other_record_of_the_transaction(kit: Kit) -> dict[str, Any]:
    """Another record of the same transaction, under the path of this one."""
    return {**kit.document, "record": to_readable(kit.world.records[3])}


@forgery("item_path.root")
def index_off_by_one(kit: Kit) -> dict[str, Any]:
    """The record is said to be the next one of its transaction."""
    return {**kit.document, "index": kit.world.index + 1}


@forgery("item_path.index")
def index_beyond_the_transaction(kit: Kit) -> dict[str, Any]:
    """The record is said to be one more than the transaction has."""
    return {**kit.document, "index": kit.world.items}


@forgery("item_path.root")
def path_of_another_record(kit: Kit) -> dict[str, Any]:
    """The item path is that of another record."""
    return {**kit.document, "item_path": path_of([encode(one) for one in kit.world.records], 3)}


@forgery("item_path")
def item_path_too_long(kit: Kit) -> dict[str, Any]:
    """The item path goes on above the root."""
    return {**kit.document, "item_path": pack_path([*kit.path("item_path"), digest("above")])}


@forgery("item_path")
def item_path_cut(kit: Kit) -> dict[str, Any]:
    """The item path ends below the root."""
    return {**kit.document, "item_path": pack_path(kit.path("item_path")[:-1])}


@forgery("tx_id")
def fewer_items_claimed(kit: Kit) -> dict[str, Any]:
    """The transaction is said to hold this record alone."""
    document = kit.document
    leaf = merkle.leaf_hash(encode(kit.world.record)).hex()
    document["envelope"] |= {"item_count": 1, "items_root": leaf}
    return {**document, "index": 0, "item_path": ""}


@forgery("tx_id")
def record_added_to_the_transaction(kit: Kit) -> dict[str, Any]:
    """A root of the forger's own is put into the envelope, with a record that was never handed in."""
    document, record = kit.document, structs.replace(kit.world.record, sip_code=486)
    document["envelope"]["items_root"] = merkle.leaf_hash(encode(record)).hex()
    document["envelope"]["item_count"] = 1
    return {**document, "record": to_readable(record), "index": 0, "item_path": ""}


@forgery("tx_id")
def another_member_named(kit: Kit) -> dict[str, Any]:
    """The record is said to be by another carrier."""
    document = kit.document
    document["envelope"]["member_id"] = "bravo"
    return document


@forgery("tx_id")
def envelope_dated_back(kit: Kit) -> dict[str, Any]:
    """The transaction is said to be an hour older."""
    document = kit.document
    document["envelope"]["created_ms"] -= 3_600_000
    return document


@forgery("tx_id")
def id_of_another_transaction(kit: Kit) -> dict[str, Any]:
    """The transaction next to it in the block is named."""
    return {**kit.document, "tx_id": digest("tx 0").hex()}


@forgery("tx_path.root")
def transaction_of_the_forgers_own(kit: Kit) -> dict[str, Any]:
    """A transaction that holds in itself, signed by a key of the forger's, under the paths of a true one."""
    record = structs.replace(kit.world.record, octets_sent=1)
    root = merkle.leaf_hash(encode(record))
    part = kit.document["envelope"] | {"item_count": 1, "items_root": root.hex()}
    times_ms = (part["created_ms"], part["expires_ms"])
    envelope = Envelope(1, kit.world.chain_id, Kind.RECORDS, part["member_id"], FORGER.key_id, *times_ms, 1, root)
    return kit.document | {
        "tx_id": tx_id_of(envelope).hex(),
        "record": to_readable(record),
        "index": 0,
        "void": 0,
        "envelope": part,
        "signature": FORGER.sign(tx_id_of(envelope)).hex(),
        "key": {**kit.document["key"], "public_key": FORGER.public_key.hex()},
        "item_path": "",
    }


@forgery("signature")
def signature_of_another_transaction(kit: Kit) -> dict[str, Any]:
    """A true signature by the member's key, over another transaction."""
    return {**kit.document, "signature": SUBMIT_KEY.sign(digest("tx 0")).hex()}


@forgery("signature")
def signature_by_another_key(kit: Kit) -> dict[str, Any]:
    """A signature over this transaction by the forger's key."""
    return {**kit.document, "signature": FORGER.sign(bytes.fromhex(kit.document["tx_id"])).hex()}


@forgery("signature")
def signature_with_high_s(kit: Kit) -> dict[str, Any]:
    """The other signature that the same key has over the same digest: a second spelling."""
    return {**kit.document, "signature": high_s(bytes.fromhex(kit.document["signature"])).hex()}


@forgery("signature")
def signature_of_zeros(kit: Kit) -> dict[str, Any]:
    """The signature that some verifiers take for any message."""
    return {**kit.document, "signature": bytes(64).hex()}


# -- the submitter's key -----------------------------------------------------------------------------------------------


@forgery("tx_id")
def key_of_the_forger(kit: Kit) -> dict[str, Any]:
    """The forger's key in place of the member's, and the transaction signed by it."""
    document = kit.document
    document["key"]["public_key"] = FORGER.public_key.hex()
    return {**document, "signature": FORGER.sign(bytes.fromhex(document["tx_id"])).hex()}


@forgery("key.roles")
def key_without_the_submit_role(_kit: Kit) -> str:
    """A record signed by a key that may only meet peers, seal and vote."""
    return make_world(roles=Role.NODE).receipt().decode()


@forgery("key.path")
def key_given_the_submit_role(_kit: Kit) -> dict[str, Any]:
    """The same, with the role written in."""
    document: dict[str, Any] = json.loads(make_world(roles=Role.NODE).receipt())
    document["key"]["roles"] = int(Role.SUBMIT)
    return document


@forgery("key.path")
def revoked_key_called_active(_kit: Kit) -> dict[str, Any]:
    """A key that was revoked is said to be active still."""
    document: dict[str, Any] = json.loads(make_world(standing=KeyStanding.REVOKED).receipt())
    document["key"]["standing"] = "active"
    return document


@forgery("key.path")
def key_that_the_state_does_not_have(_kit: Kit) -> str:
    """A record signed by a key that was never admitted, in a block that a quorum nevertheless made final."""
    return make_world(has_key=False).receipt().decode()


@forgery("key.path")
def path_of_another_entry(kit: Kit) -> dict[str, Any]:
    """The way down the state to the voting sets, not to the key."""
    document = kit.document
    document["key"]["path"] = pack_path(kit.final.siblings)
    return document


@forgery("key.path")
def key_path_too_long(kit: Kit) -> dict[str, Any]:
    """The way down the state goes on below the key."""
    document = kit.document
    siblings = unpack_path(document["key"]["path"], where="", hashes_max=256)
    document["key"]["path"] = pack_path([*siblings, bytes(32)])
    return document


@forgery("key.path")
def key_in_a_state_of_the_forgers(kit: Kit) -> dict[str, Any]:
    """The way up from the key to the root of a state that the forger made."""
    document = kit.document
    document["key"]["path"] = kit.world.key_part(StateTree.empty().set(digest("other"), b"entry")).path
    return document


# -- the block ---------------------------------------------------------------------------------------------------------


@forgery("tx_path.root")
def transaction_index_off_by_one(kit: Kit) -> dict[str, Any]:
    """The transaction is said to be the next one of its block."""
    return {**kit.document, "tx_index": kit.world.position - 1}


@forgery("tx_path.root")
def path_of_another_transaction(kit: Kit) -> dict[str, Any]:
    """The path of the transaction before it in the block."""
    return {**kit.document, "tx_path": path_of(kit.world.body(), 0)}


@forgery("tx_path")
def tx_path_too_long(kit: Kit) -> dict[str, Any]:
    """The path goes on above the block's root."""
    return {**kit.document, "tx_path": pack_path([*kit.path("tx_path"), digest("above")])}


@forgery("void")
def counting_record_called_void(kit: Kit) -> dict[str, Any]:
    """A record that counts is said to be void."""
    return {**kit.document, "void": 1}


@forgery("void")
def void_record_called_counting(_kit: Kit) -> dict[str, Any]:
    """A void record is said to count."""
    return {**json.loads(make_world(index=0).receipt()), "void": 0}


@forgery("tx_path.root")
def void_bitmap_cleared(_kit: Kit) -> dict[str, Any]:
    """A void record is said to count, and the block's bitmap to have no bit."""
    return {**json.loads(make_world(index=0).receipt()), "void": 0, "void_bitmap": ""}


@forgery("tx_path.root")
def void_bitmap_made_longer(kit: Kit) -> dict[str, Any]:
    """The bitmap has a byte more."""
    bitmap = b64decode(kit.document["void_bitmap"]) + bytes(1)
    return {**kit.document, "void_bitmap": b64encode(bitmap).decode()}


@forgery("history_path.root")
def block_with_a_root_of_the_forgers(kit: Kit) -> dict[str, Any]:
    """The header holds whatever transactions the forger likes."""
    document = kit.document
    leaf = merkle.leaf_hash(encode([bytes.fromhex(document["tx_id"]), b""]))
    header = structs.replace(kit.header, tx_root=leaf, tx_count=1)
    return {**document, "header": pack(header), "tx_index": 0, "tx_path": "", "void_bitmap": ""}


@forgery("history_path.root")
def block_dated_back(kit: Kit) -> dict[str, Any]:
    """The block is said to be from an earlier slot."""
    document, header = kit.document, structs.replace(kit.header, slot=kit.header.slot - 1)
    return {**document, "header": pack(header), "block_ms": document["block_ms"] - 1_000}


@forgery("block_ms")
def block_time_misstated(kit: Kit) -> dict[str, Any]:
    """The time beside the header is another than its slot's."""
    return {**kit.document, "block_ms": kit.document["block_ms"] - 3_600_000}


@forgery("height")
def height_misstated(kit: Kit) -> dict[str, Any]:
    """The height beside the header is another."""
    return {**kit.document, "height": kit.document["height"] + 1}


@forgery("header.chain_id")
def header_of_another_chain(kit: Kit) -> dict[str, Any]:
    """The header is of another chain, with the same transactions."""
    return {**kit.document, "header": pack(structs.replace(kit.header, chain_id=digest("another chain")))}


@forgery("header")
def header_spelt_differently(kit: Kit) -> dict[str, Any]:
    """The header's height in nine bytes instead of one: the same value, another hash."""
    data = b64decode(kit.document["header"])
    height = kit.header.height
    at = 2 + 34
    assert data[at] == height
    longer = data[:at] + b"\xcf" + height.to_bytes(8) + data[at + 1 :]
    return {**kit.document, "header": b64encode(longer).decode()}


@forgery("header")
def bytes_behind_the_header(kit: Kit) -> dict[str, Any]:
    """Something comes behind the header."""
    return {**kit.document, "header": b64encode(b64decode(kit.document["header"]) + b"\0").decode()}


@forgery("tx_path.root")
def block_passed_off_as_the_final_one(kit: Kit) -> dict[str, Any]:
    """No header, as if the record were in the final block itself."""
    return {**kit.document, "header": None, "history_path": ""}


# -- the history -------------------------------------------------------------------------------------------------------


@forgery("history_path.root")
def history_path_changed(kit: Kit) -> dict[str, Any]:
    """The path leads past another block."""
    path = kit.path("history_path")
    return {**kit.document, "history_path": pack_path([digest("another block"), *path[1:]])}


@forgery("history_path")
def history_path_too_long(kit: Kit) -> dict[str, Any]:
    """The path goes on above the root."""
    return {**kit.document, "history_path": pack_path([*kit.path("history_path"), digest("above")])}


@forgery("history_path")
def history_path_empty(kit: Kit) -> dict[str, Any]:
    """The block is not shown to be in the history at all."""
    return {**kit.document, "history_path": ""}


@forgery("history_path")
def history_path_without_need(_kit: Kit) -> dict[str, Any]:
    """The record is in the final block, and a path comes with it."""
    document: dict[str, Any] = json.loads(make_world(in_final_block=True).receipt())
    return {**document, "history_path": pack_path([digest("a block")])}


@forgery("history_path.root")
def block_beside_the_chain(kit: Kit) -> dict[str, Any]:
    """A block of the same height and slot with the same transactions, rightly sealed, that never became final."""
    return {**kit.document, "header": pack(structs.replace(kit.header, parent_id=digest("another parent")))}


@forgery("history_path.index")
def final_block_below(kit: Kit) -> dict[str, Any]:
    """The final block, of the same state and by a quorum, is older than the record's block."""
    header = structs.replace(kit.final.header, height=kit.document["height"])
    third = set_of(2, THIRD)
    return kit.with_final(resigned(structs.replace(kit.final, header=header), kit.world.certify(header, [third])))
