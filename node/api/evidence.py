"""Who was struck, and why: the two messages that no honest producer signs both, wherever this node has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from aiohttp import web

from ledger.block import Block
from ledger.codec import decode
from ledger.crypto import key_id_of
from ledger.errors import StoreDamaged
from ledger.payloads import Evidence
from ledger.readable import to_readable
from ledger.transaction import Kind, Transaction
from node.api.backend import Backend
from node.api.parts import CONTEXT
from node.api.problems import json_response
from node.evidence import accused_by

EVIDENCE_BYTES_MAX: Final = 16_384
"""A transaction of evidence is smaller: two headers, each with forty totals of MOS, are 5 kB. Larger ones are none."""


async def get_evidence(request: web.Request) -> web.Response:
    """Return the members that are struck, and the evidence that is kept or on its way; of one with ``?member=``."""
    wanted = request.query.get("member")
    node = request.app[CONTEXT].node
    found = [*_struck(node), *_pending(node), *_kept(node)]
    seen: set[str] = set()
    cases = []
    for case in found:
        if case["member_id"] not in seen and wanted in (None, case["member_id"]):
            seen.add(case["member_id"])
            cases.append(case)
    return json_response({"chain_id": node.chain_id.hex(), "evidence": cases})


def _struck(node: Backend) -> Iterator[dict[str, Any]]:
    """Yield the members that are struck on the best chain, with the evidence of their block."""
    engine = node.engine
    for member_id, entry in sorted(engine.head.chain.state.struck.items()):
        block_id = engine.block_id_at(entry.height)
        block = engine.block(block_id) if block_id is not None else None
        if block is None or block_id is None:
            continue
        for tx_id, transaction, evidence in _accusations(node, block):
            key = engine.head.chain.state.keys.get(key_id_of(evidence.public_key))
            if key is not None and key.member_id == member_id:
                state = "final" if entry.height <= engine.final.height else "included"
                yield _case(member_id, evidence, state) | {
                    "is_out": bool(entry.is_out),
                    "tx_id": tx_id.hex(),
                    "accuser": transaction.envelope.member_id,
                    "block_height": entry.height,
                    "block_id": block_id.hex(),
                }


def _accusations(node: Backend, block: Block) -> Iterator[tuple[bytes, Transaction, Evidence]]:
    for item in block.body:
        raw = node.store.body(item.tx_id)
        if raw is None:
            raise StoreDamaged("a transaction of a block is gone", where=f"transaction {item.tx_id.hex()}")
        if len(raw) <= EVIDENCE_BYTES_MAX:
            transaction = decode(raw, Transaction)
            if transaction.envelope.kind is Kind.EVIDENCE:
                yield item.tx_id, transaction, decode(transaction.items[0], Evidence)


def _pending(node: Backend) -> Iterator[dict[str, Any]]:
    """Yield the evidence in transactions that wait for a block."""
    engine = node.engine
    for tx in engine.pool:
        if isinstance(tx.payload, Evidence):
            member_id = accused_by(engine.head.chain.state, tx.payload)
            if member_id is not None:
                accuser = tx.envelope.member_id
                yield _case(member_id, tx.payload, "pending") | {"tx_id": tx.tx_id.hex(), "accuser": accuser}


def _kept(node: Backend) -> Iterator[dict[str, Any]]:
    """Yield the evidence that this node found and nobody has handed in yet."""
    engine = node.engine
    for evidence in engine.faults.kept.values():
        member_id = accused_by(engine.head.chain.state, evidence)
        if member_id is not None:
            yield _case(member_id, evidence, "kept")


def _case(member_id: str, evidence: Evidence, state: str) -> dict[str, Any]:
    return {
        "member_id": member_id,
        "key_id": key_id_of(evidence.public_key).hex(),
        "fault": evidence.fault,
        "height": evidence.height,
        "state": state,
        "is_out": False,
        "tx_id": None,
        "accuser": None,
        "block_height": None,
        "block_id": None,
        "evidence": to_readable(evidence),
    }
