"""What reads: blocks, transactions, records, members and state. Open to all but for private fields."""

from __future__ import annotations

import importlib.resources
from typing import Final

from aiohttp import web

from ledger.cdr import CallRecord, record_key_of
from ledger.codec import decode
from ledger.errors import EncodingError
from ledger.genesis import genesis_to_json
from ledger.readable import to_readable
from ledger.rules.flags import DISTANCE_KM_MAX, flags_of
from node.api import views
from node.api.incoming import private_to_json
from node.api.parts import CONTEXT
from node.api.problems import NotFound, json_response

PROMISES_MAX: Final = 64
"""Transactions asked about at once: an address of 4 KiB."""


async def get_head(request: web.Request) -> web.Response:
    """Return the tip and the final block."""
    return json_response(views.head_view(request.app[CONTEXT].node))


async def get_block(request: web.Request) -> web.Response:
    """Return a block by height or id."""
    node = request.app[CONTEXT].node
    return json_response(views.block_view(node, views.find_block(node, request.match_info["block"])))


async def get_transaction(request: web.Request) -> web.Response:
    """Return a transaction: as JSON, or raw where MessagePack is accepted."""
    node = request.app[CONTEXT].node
    tx_id = views.bytes_of(request.match_info["tx_id"], 32, "tx_id")
    raw, transaction = views.find_transaction(node, tx_id)
    if "application/msgpack" in request.headers.get("Accept", ""):
        return web.Response(body=raw, content_type="application/msgpack")
    return json_response(views.transaction_view(node, tx_id, transaction))


async def get_promises(request: web.Request) -> web.Response:
    """Return how far up to 64 transactions have come; with none, what time it is here and how far the chain."""
    context = request.app[CONTEXT]
    ids = [part for part in request.query.get("tx_ids", "").split(",") if part]
    if len(ids) > PROMISES_MAX:
        raise EncodingError("too many", where="tx_ids", expected=f"at most {PROMISES_MAX}", actual=len(ids))
    tx_ids = [views.bytes_of(text, 32, "tx_ids") for text in ids]
    return json_response(views.promises_view(context.node, tx_ids, context.parts.now_ms()))


async def get_record(request: web.Request) -> web.Response:
    """Return a record with its promise and flags; its private part to whoever holds a token with role private."""
    context = request.app[CONTEXT]
    node = context.node
    roles = context.tokens.roles_of(request)
    tx_id, index = record_address(request)
    distance = distance_km(request)
    _, transaction = views.find_transaction(node, tx_id)
    record = decode(views.record_item(transaction, index), CallRecord)
    member_id = transaction.envelope.member_id
    record_key = record_key_of(member_id, record)
    document = {
        "tx_id": tx_id.hex(),
        "index": index,
        "member_id": member_id,
        "record_key": record_key.hex(),
        "promise": views.promise_view(node, tx_id, index),
        "record": to_readable(record),
        "flags": [flag._asdict() for flag in flags_of(record, distance_km=distance)],
    }
    if roles is not None and "private" in roles and member_id == node.member_id and context.writer is not None:
        private = await context.writer.look(record_key)
        document["private"] = None if private is None else private_to_json(private)
    return json_response(document)


async def get_peers(request: web.Request) -> web.Response:
    """Return who is connected."""
    return json_response({"peers": views.plain(list(request.app[CONTEXT].node.peers()))})


async def get_status(request: web.Request) -> web.Response:
    """Return how the node is."""
    return json_response(views.plain(request.app[CONTEXT].node.status()))


async def get_genesis(request: web.Request) -> web.Response:
    """Return the genesis file."""
    body = genesis_to_json(request.app[CONTEXT].node.genesis)
    return web.Response(body=body, content_type="application/json")


async def get_health(request: web.Request) -> web.Response:
    """Return 200 when the node is in step with its peers, 503 and why when it is not."""
    status = request.app[CONTEXT].node.status()
    state, reason = views.health_of(status)
    document = {"status": state, "head_height": status.head.height, "final_height": status.final.height}
    if reason:
        document["reason"] = reason
    return json_response(document, status=503 if reason else 200)


async def get_metrics(request: web.Request) -> web.Response:
    """Return the metrics as Prometheus reads them."""
    body, content_type = request.app[CONTEXT].metrics.render()
    return web.Response(body=body, headers={"Content-Type": content_type})


async def get_openapi(_request: web.Request) -> web.Response:
    """Return the description of this API."""
    return web.Response(body=openapi_document(), content_type="application/json")


def openapi_document() -> bytes:
    """Return the OpenAPI 3.1 document that ships with the program."""
    return importlib.resources.files("node.api").joinpath("openapi.json").read_bytes()


def record_address(request: web.Request) -> tuple[bytes, int]:
    """Return tx id and index from the address. Raises NotFound."""
    tx_id = views.bytes_of(request.match_info["tx_id"], 32, "tx_id")
    text = request.match_info["index"]
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and str(int(text)) == text):
        raise NotFound("not such an address", where="index", expected="0 to 999", actual=text)
    return tx_id, int(text)


def distance_km(request: web.Request) -> int | None:
    """Return the distance between the two ends in ``?distance_km=``, None where there is none. Raises EncodingError."""
    text = request.query.get("distance_km")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text) <= DISTANCE_KM_MAX):
        raise EncodingError("not a distance", where="distance_km", expected=f"0 to {DISTANCE_KM_MAX}", actual=text)
    return int(text)


def first_height(request: web.Request) -> int:
    """Return the height in ``?from=``, 1 where there is none. Raises EncodingError."""
    text = request.query.get("from", "1")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise EncodingError("not a height", where="from", expected="a number from 1", actual=text)
    return max(int(text), 1)
