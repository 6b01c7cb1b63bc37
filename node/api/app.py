"""The HTTP application: routes, middlewares, and what is started and stopped with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from audit.final import FinalReader
from node.api import energy, evidence, explore, gathering, govern, light, page, read, receipts, stream, submit, tiles
from node.api.access import Tokens, check_host
from node.api.backend import Backend
from node.api.ingest import Ingest, VaultWriter
from node.api.measuring import measured
from node.api.parts import CONTEXT, ApiParts, Context
from node.api.problems import problems
from node.logs import get_log
from node.metrics import Metrics

ROUTES: Final = (
    web.post("/v1/records", submit.post_records),
    web.post("/v1/transactions", submit.post_transactions),
    web.post("/v1/ingest/kamailio", submit.post_kamailio),
    web.get("/v1/head", read.get_head),
    web.get("/v1/blocks/{block}", read.get_block),
    web.get("/v1/transactions/{tx_id}", read.get_transaction),
    web.get("/v1/promises", read.get_promises),
    web.get("/v1/records/{tx_id}/{index}", read.get_record),
    web.get("/v1/records/{tx_id}/{index}/receipt", receipts.get_receipt),
    web.get("/v1/producers", govern.get_producers),
    web.get("/v1/members", govern.get_members),
    web.get("/v1/members/{member_id}", govern.get_member),
    web.get("/v1/keys", govern.get_keys),
    web.get("/v1/candidates", govern.get_candidates),
    web.get("/v1/proposals", govern.get_proposals),
    web.get("/v1/state", govern.get_state),
    web.get("/v1/evidence", evidence.get_evidence),
    web.get("/v1/energy/pops", energy.get_pops),
    web.get("/v1/peers", read.get_peers),
    web.get("/v1/status", read.get_status),
    web.get("/v1/genesis", read.get_genesis),
    web.get("/v1/light/final", light.get_final),
    web.get("/v1/light/set-changes", light.get_set_changes),
    web.get("/v1/light/headers", light.get_headers),
    web.get("/v1/light/history", light.get_history),
    web.get("/v1/light/consistency", light.get_consistency),
    web.post("/v1/light/cosignatures", tiles.post_cosignatures),
    web.get("/checkpoint", tiles.get_checkpoint),
    web.get("/tile/{level}/{tile:.+}", tiles.get_tile),
    web.get("/v1/events", stream.get_events, allow_head=False),
    web.get("/v1/export", stream.get_export, allow_head=False),
    web.get("/v1/search", explore.get_search),
    web.get("/v1/explore", explore.get_overview),
    web.get("/v1/explore/blocks", explore.get_blocks),
    web.get("/v1/explore/blocks/{block}", explore.get_block),
    web.get("/v1/explore/codecs", explore.get_codecs),
    web.get("/metrics", read.get_metrics),
    web.get("/healthz", read.get_health),
    web.get("/openapi.json", read.get_openapi),
    web.get("/", page.get_page),
    web.get("/explorer/{file}", page.get_file),
)


def make_app(node: Backend, parts: ApiParts) -> web.Application:
    """Return the API of ``node``. Run it with ``auto_decompress=False``: bodies come as they are."""
    writer = VaultWriter(parts.vault) if parts.vault is not None else None
    ingest = Ingest(node, writer) if writer is not None else None
    app = web.Application(middlewares=[measured(node.counters), problems, check_host(parts.hosts)])
    app[CONTEXT] = Context(
        node, FinalReader(node.store, node.genesis), parts, Tokens(parts.tokens), writer, ingest, Metrics(node)
    )
    tiles.add_log(app, app[CONTEXT])
    app[stream.EXPORTS] = asyncio.Semaphore(stream.EXPORTS_MAX)
    app.router.add_routes(ROUTES)
    app[stream.LIVE] = set()
    app.on_shutdown.append(stream.end_streams)
    app.cleanup_ctx.append(_vault_context)
    app.cleanup_ctx.append(gathering.keep_history)
    explore.set_up(app)
    return app


async def _vault_context(app: web.Application) -> AsyncIterator[None]:
    """Before the first request, find what a crash left; after the last, finish what is under way."""
    context = app[CONTEXT]
    if context.ingest is not None:
        found = await context.ingest.reconcile()
        if found:
            get_log("api").info("records found again after a crash", records=found)
    yield
    if context.writer is not None:
        await context.writer.close()
