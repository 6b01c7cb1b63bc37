"""The chain as JSON: readable forms with what a reader wants beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import msgspec

from consensus.tree import BlockNode
from ledger.block import Block, bitmap_indexes, block_id_of, is_void
from ledger.cdr import CallRecord
from ledger.codec import decode, decode_each
from ledger.errors import EncodingError, StoreDamaged
from ledger.payloads import PAYLOADS
from ledger.readable import to_readable
from ledger.transaction import Kind, Transaction
from ledger.transition import block_time_ms
from node.api.backend import Backend, NodeStatus
from node.api.problems import NotFound


def plain(value: Any) -> Any:
    """Return dataclasses, bytes, enumerations and protocol values as JSON-compatible values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.name.lower() if isinstance(value, int) else plain(value.value)
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, bytes | msgspec.Struct):
        return to_readable(value)
    return value


def point_view(node: Backend, point: BlockNode) -> dict[str, Any]:
    """Return where a block is."""
    return {
        "height": point.height,
        "slot": point.slot,
        "time_ms": block_time_ms(node.genesis, max(point.slot, 0)),
        "block_id": point.block_id.hex(),
    }


def health_of(status: NodeStatus) -> tuple[str, str]:
    """Return ``ok`` and nothing, or what the node is instead and a sentence why."""
    if status.is_disk_full:
        return "disk-full", "the disk has no room: nothing can be stored"
    sync = status.sync
    reasons = {
        "in-step": "",
        "syncing": f"{sync.behind_blocks} blocks behind, at {status.head.height} of {sync.target_height}",
        "joining": "the node's key is no member's yet, as far as the chain is known here: it waits to be admitted",
        "alone": "too few producers are connected to make anything final",
        "stalled": f"records wait, and nothing has become final for {status.final_age_ms} ms",
    }
    reason = reasons.get(sync.state, f"the node is {sync.state}")
    return sync.state if reason else "ok", reason


def head_view(node: Backend) -> dict[str, Any]:
    """Return the ends of the chain: the tip, and what can no longer change."""
    engine = node.engine
    return {
        "chain_id": node.chain_id.hex(),
        "head": point_view(node, engine.head),
        "final": point_view(node, engine.final),
    }


def find_block(node: Backend, name: str) -> Block:
    """Return the block of a height, on the best chain, or an id. Raises NotFound."""
    engine = node.engine
    if name.isascii() and name.isdigit() and len(name) < 20:
        height = int(name)
        if height == 0:
            hint = "Height 0 is the genesis: it has no header, see /v1/genesis"
            raise NotFound("no block", where="height", actual=0, hint=hint)
        block_id = engine.block_id_at(height)
        if block_id is None:
            raise NotFound("no block yet", where="height", expected=f"1 to {engine.head.height}", actual=name)
    else:
        block_id = bytes_of(name, 32, "block")
    block = engine.block(block_id)
    if block is None:
        raise NotFound("no such block here", where="block_id", actual=block_id)
    return block


def block_view(node: Backend, block: Block) -> dict[str, Any]:
    """Return a block with its place in the chain."""
    header = block.sealed.header
    block_id = block_id_of(header)
    is_on_chain = node.engine.block_id_at(header.height) == block_id
    return {
        "block_id": block_id.hex(),
        "time_ms": block_time_ms(node.genesis, header.slot),
        "is_on_best_chain": is_on_chain,
        "is_final": is_on_chain and header.height <= node.engine.final.height,
        "header": to_readable(header),
        "signature": block.sealed.signature.hex(),
        "certificate": to_readable(block.sealed.certificate),
        "transactions": [{"tx_id": item.tx_id.hex(), "void": bitmap_indexes(item.void_bitmap)} for item in block.body],
    }


def find_transaction(node: Backend, tx_id: bytes) -> tuple[bytes, Transaction]:
    """Return a transaction, raw and decoded. Raises NotFound; StoreDamaged for bytes that are none."""
    raw = node.store.body(tx_id)
    if raw is None:
        raise NotFound("no such transaction here", where="tx_id", actual=tx_id)
    try:
        return raw, decode(raw, Transaction)
    except EncodingError as error:
        raise StoreDamaged(str(error), where=f"transaction {tx_id.hex()}") from None


def promise_view(node: Backend, tx_id: bytes, index: int | None = None) -> dict[str, Any]:
    """Return what the node promises of a transaction, or of one record of it: void where it does not count."""
    promise = node.promise_of(tx_id)
    if promise is None:
        return {"state": "unknown", "height": None, "block_id": None}
    block_id = node.engine.block_id_at(promise.height) if promise.height is not None else None
    state = promise.state
    if index is not None and is_void(_void_bitmap(node, tx_id, block_id), index):
        state = "void"
    return {"state": state, "height": promise.height, "block_id": block_id.hex() if block_id else None}


def promises_view(node: Backend, tx_ids: Sequence[bytes], now_ms: int) -> dict[str, Any]:
    """Return what the node promises of several transactions, in order, and how far its chain has come."""
    promises = []
    bitmaps: dict[bytes, dict[bytes, bytes]] = {}
    for tx_id in tx_ids:
        promise = node.promise_of(tx_id)
        height = promise.height if promise else None
        block_id = node.engine.block_id_at(height) if height is not None else None
        void: list[int] = []
        if block_id is not None:
            if block_id not in bitmaps:
                # Those of one submitter are often in one block.
                block = node.engine.block(block_id)
                bitmaps[block_id] = {item.tx_id: item.void_bitmap for item in (block.body if block else ())}
            void = bitmap_indexes(bitmaps[block_id].get(tx_id, b""))
        state = promise.state if promise else "unknown"
        promises.append({"tx_id": tx_id.hex(), "state": state, "height": height, "void": void})
    return {**head_view(node), "now_ms": now_ms, "promises": promises}


def _void_bitmap(node: Backend, tx_id: bytes, block_id: bytes | None) -> bytes:
    """Return which records of a transaction do not count, as the block that holds it says; empty without one."""
    block = node.engine.block(block_id) if block_id is not None else None
    body = block.body if block is not None else []
    return next((item.void_bitmap for item in body if item.tx_id == tx_id), b"")


def transaction_view(node: Backend, tx_id: bytes, transaction: Transaction) -> dict[str, Any]:
    """Return a transaction with its records and which of them do not count, or with its payload where it governs."""
    promise = promise_view(node, tx_id)
    block_id = bytes.fromhex(promise["block_id"]) if promise["block_id"] else None
    view = {
        "tx_id": tx_id.hex(),
        "promise": promise,
        "void": bitmap_indexes(_void_bitmap(node, tx_id, block_id)),
        "envelope": to_readable(transaction.envelope),
        "signature": transaction.signature.hex(),
        "records": [],
        "payload": None,
    }
    kind = transaction.envelope.kind
    if kind is Kind.RECORDS:
        view["records"] = [to_readable(record) for record in decode_each(transaction.items, CallRecord)]
    else:
        view["payload"] = to_readable(decode(transaction.items[0], PAYLOADS[kind]))
    return view


def record_item(transaction: Transaction, index: int) -> bytes:
    """Return an encoded record of a transaction. Raises NotFound where it has none of this index."""
    count = len(transaction.items)
    if transaction.envelope.kind is not Kind.RECORDS:
        kind = transaction.envelope.kind.name.lower()
        raise NotFound("this transaction holds no records", where="tx_id", expected="records", actual=kind)
    if index >= count:
        raise NotFound("no such record in the transaction", where="index", expected=f"0 to {count - 1}", actual=index)
    return transaction.items[index]


def bytes_of(text: str, length: int, where: str) -> bytes:
    """Return ``length`` bytes from lower-case hex in an address. Raises NotFound."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != length or data.hex() != text:
        raise NotFound("not such an address", where=where, expected=f"{length} bytes in lower-case hex", actual=text)
    return data
