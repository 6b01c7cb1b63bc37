"""What writes: records as JSON, CDRs of a Kamailio, signed transactions. All of it needs a token with role submit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from ledger.errors import EncodingError, LedgerError
from ledger.transaction import TRANSACTION_BYTES_MAX
from node.api.access import read_body
from node.api.backend import Submitted
from node.api.incoming import decode_documents, incoming_of_cdr, incoming_of_json
from node.api.ingest import Incoming, Ingest, Kept, Outcome, VaultWriter
from node.api.parts import CONTEXT, Context
from node.api.problems import (
    NotAllKept,
    NotConfigured,
    json_response,
    problem_of,
    problem_response,
    status_of,
)
from telephony.adapters.base import BODY_BYTES_MAX as CDR_BODY_BYTES_MAX

RECORDS_BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""A thousand records with their private parts, of which the raw document is the largest."""
TRANSACTIONS_MAX: Final = 32
TRANSACTIONS_BODY_BYTES_MAX: Final = TRANSACTIONS_MAX * TRANSACTION_BYTES_MAX + 1024
TURN_RECORDS: Final = 20
"""Records read in one go, a few milliseconds: then blocks and votes have their turn."""

Read = Callable[[object], Incoming]


async def post_records(request: web.Request) -> web.Response:
    """Take in one record, or an array of up to 1,000."""
    context = request.app[CONTEXT]
    context.tokens.require(request, "submit")
    body = await read_body(request, content_type="application/json", bytes_max=RECORDS_BODY_BYTES_MAX)
    ingest, writer = _configured(context)

    def read(document: object) -> Incoming:
        return incoming_of_json(
            document, node=context.node, content_hash=writer.vault.content_hash, now_ms=context.parts.now_ms()
        )

    return await _take(ingest, body, read)


async def post_kamailio(request: web.Request) -> web.Response:
    """Take in one CDR of acc_json, or an array of up to 1,000."""
    context = request.app[CONTEXT]
    context.tokens.require(request, "submit")
    body = await read_body(request, content_type="application/json", bytes_max=CDR_BODY_BYTES_MAX)
    ingest, writer = _configured(context)
    profile = context.parts.profile
    if profile is None:
        raise NotConfigured("this node has no member secret to commit to calls with", where="member_secret")

    def read(document: object) -> Incoming:
        return incoming_of_cdr(
            document,
            node=context.node,
            profile=profile,
            content_hash=writer.vault.content_hash,
            now_ms=context.parts.now_ms(),
        )

    return await _take(ingest, body, read)


async def post_transactions(request: web.Request) -> web.Response:
    """Take in one signed transaction, or a MessagePack array of up to 32 as byte strings."""
    context = request.app[CONTEXT]
    context.tokens.require(request, "submit")
    body = await read_body(request, content_type="application/msgpack", bytes_max=TRANSACTIONS_BODY_BYTES_MAX)
    raws, is_array = split_transactions(body)
    results = await context.node.submit_transactions(raws)
    errors = [result.error for result in results if result.error is not None]
    if not is_array:
        if errors:
            raise errors[0]
        return json_response(_submitted(results[0]), status=201 if results[0].status == "stored" else 200)
    documents = [_submitted(result) for result in results]
    return _batch_response(documents, errors, is_any_new=any(result.status == "stored" for result in results))


def split_transactions(body: bytes) -> tuple[list[bytes], bool]:
    """Return the raw transactions in a body, and whether they came as an array of byte strings.

    A transaction is an array itself; its first element is an array (the envelope), never a byte string.
    Raises EncodingError for an array with none or too many.
    """
    try:
        raws = msgspec.msgpack.decode(body, type=list[bytes])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError):
        return [body], False
    if not 1 <= len(raws) <= TRANSACTIONS_MAX:
        raise EncodingError(
            "wrong number of transactions", where="body", expected=f"1 to {TRANSACTIONS_MAX}", actual=len(raws)
        )
    return raws, True


def _configured(context: Context) -> tuple[Ingest, VaultWriter]:
    """Return what takes records in. Raises NotConfigured where the node has no vault or member."""
    if context.ingest is None or context.writer is None or context.node.member_id is None:
        raise NotConfigured(
            "this node signs no records",
            where="member_secret, submit_key",
            hint="Give the node both, or hand in signed transactions at /v1/transactions",
        )
    return context.ingest, context.writer


async def _take(ingest: Ingest, body: bytes, read: Read) -> web.Response:
    """Read, store and answer: each record by itself, the good ones kept whatever the others are."""
    documents, is_array = decode_documents(body)
    outcomes: list[Outcome | None] = [None] * len(documents)
    incoming: dict[int, Incoming] = {}
    for i, document in enumerate(documents):
        if i % TURN_RECORDS == TURN_RECORDS - 1:
            await asyncio.sleep(0)
        try:
            incoming[i] = read(document)
        except LedgerError as error:
            outcomes[i] = error
    if incoming:
        kept = await ingest.take(list(incoming.values()))
        for i, outcome in zip(incoming, kept, strict=True):
            outcomes[i] = outcome
    found = [outcome for outcome in outcomes if outcome is not None]
    errors = [outcome for outcome in found if isinstance(outcome, LedgerError)]
    is_any_new = any(isinstance(outcome, Kept) and outcome.is_new for outcome in found)
    if not is_array:
        return problem_response(errors[0]) if errors else _single_response(found[0], is_any_new=is_any_new)
    return _batch_response([_result(outcome) for outcome in found], errors, is_any_new=is_any_new)


def _single_response(outcome: Outcome, *, is_any_new: bool) -> web.Response:
    document = _result(outcome)
    return json_response(
        document, status=201 if is_any_new else 200, headers={"Location": document["url"]} if is_any_new else None
    )


def _batch_response(documents: list[dict[str, Any]], errors: list[LedgerError], *, is_any_new: bool) -> web.Response:
    """Return the response to an array: a success only when every item of it is on disk."""
    if not errors:
        return json_response({"results": documents}, status=201 if is_any_new else 200)
    error: LedgerError = errors[0]
    if len(documents) > 1:
        others = "the others are on disk" if len(errors) < len(documents) else "nothing was kept"
        error = NotAllKept(
            f"{len(errors)} of {len(documents)} were refused, {others}",
            hint="Mend those that have a problem in results; all may be handed in again, none counts twice",
        )
    return problem_response(error, results=documents)


def _result(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, LedgerError):
        return {"status": status_of(outcome), "outcome": "refused", "problem": problem_of(outcome)}
    return {
        "status": 201 if outcome.is_new else 200,
        "outcome": "stored" if outcome.is_new else "already stored",
        "record_key": outcome.record_key.hex(),
        "tx_id": outcome.tx_id.hex(),
        "index": outcome.index,
        "url": f"/v1/records/{outcome.tx_id.hex()}/{outcome.index}",
        "warnings": list(outcome.warnings),
    }


def _submitted(result: Submitted) -> dict[str, Any]:
    if result.error is not None:
        return {"status": status_of(result.error), "outcome": "refused", "problem": problem_of(result.error)}
    is_new = result.status == "stored"
    return {
        "status": 201 if is_new else 200,
        "outcome": "stored" if is_new else "already stored",
        "tx_id": result.tx_id.hex(),
        "url": f"/v1/transactions/{result.tx_id.hex()}",
    }
