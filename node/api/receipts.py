"""Receipts: open to all; with private fields for whoever holds a token with role private.

Source: docs/api.md and docs/protocol.md, "Receipt".
"""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web

from audit.receipt import make_receipt
from audit.revealed import RevealedField, parse_names
from ledger.cdr import CallRecord, record_key_of
from ledger.codec import decode
from ledger.commitment import check_field
from ledger.errors import FieldError, InvalidProof
from node.api import views
from node.api.gathering import check_gathered
from node.api.parts import CONTEXT
from node.api.problems import NotFound
from node.api.read import record_address


async def get_receipt(request: web.Request) -> web.Response:
    """Return the inclusion receipt of a final record; with ``?reveal=``, private fields shown in it."""
    context = request.app[CONTEXT]
    node = context.node
    tx_id, index = record_address(request)
    reveal = request.query.get("reveal")
    if reveal is not None:
        context.tokens.require(request, "private")
    _, transaction = views.find_transaction(node, tx_id)
    record = decode(views.record_item(transaction, index), CallRecord)
    promise = node.promise_of(tx_id)
    if promise is None or promise.state != "final":
        state = promise.state if promise else "unknown"
        raise NotFound("only a final record has a receipt", where="promise", expected="final", actual=state)
    await check_gathered(context, node.engine.final.height)
    revealed = await _reveal(request, transaction.envelope.member_id, record, reveal) if reveal is not None else []
    body = await asyncio.to_thread(
        make_receipt, node.store, node.genesis, tx_id, index, reader=context.reader, revealed=revealed
    )
    headers = {hdrs.CACHE_CONTROL: "no-store"} if revealed else {}
    return web.Response(body=body, content_type="application/json", headers=headers)


async def _reveal(request: web.Request, member_id: str, record: CallRecord, reveal: str) -> list[RevealedField]:
    """Return the private fields asked for, as this node's vault has them. Raises NotFound, FieldError."""
    context = request.app[CONTEXT]
    names = parse_names(reveal)
    is_own = member_id == context.node.member_id and context.writer is not None
    view = await context.writer.look(record_key_of(member_id, record)) if is_own and context.writer else None
    if view is None:
        hint = "Where a vault of the agent has it: ledger-agent vault disclose RECORD_KEY --receipt FILE"
        raise NotFound("this node has no private part of the record", where="reveal", hint=hint)
    if reveal == "all":
        names = tuple(name for name in names if name in view.fields)
    try:
        revealed = [RevealedField(*view.prove(name)) for name in names]
    except FieldError as error:
        raise NotFound(error.what, where=f"reveal.{error.where}", expected=error.expected, hint=error.hint) from None
    if not revealed:
        raise NotFound("all of the private part was shredded", where="reveal")
    for one in revealed:
        try:
            check_field(one.field, list(one.path), record.party_commitment)
        except InvalidProof:
            what = "the private part kept here is of another record of this call and leg"
            raise NotFound(what, where="reveal", hint="A record that came twice is void; ask for the first") from None
    return revealed
