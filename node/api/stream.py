"""What streams: live events (Server-Sent Events) and exports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import msgspec
from aiohttp import web

from audit.export import export_chain
from node.api.backend import Subscription
from node.api.parts import CONTEXT
from node.api.problems import Overloaded
from node.api.read import first_height
from node.api.views import plain

EXPORTS_MAX: Final = 2
"""Exports at one time: each reads the disk as fast as it can."""
HEARTBEAT_S: Final = 15
"""A comment is sent this often, so that proxies keep a quiet stream open and a dead one is noticed."""

CHUNK_BYTES: Final = 256 * 1024
"""Of an export, written at once: some blocks of an idle chain, a part of one of a busy one."""

LIVE: web.AppKey[set[Subscription]] = web.AppKey("live", set[Subscription])
"""The streams that are open."""
EXPORTS: web.AppKey[asyncio.Semaphore] = web.AppKey("exports", asyncio.Semaphore)
"""Taken by each export that runs."""


async def get_events(request: web.Request) -> web.StreamResponse:
    """Stream what happens from now on, one event for each block, finality and loss."""
    subscription = request.app[CONTEXT].node.subscribe()
    live = request.app[LIVE]
    live.add(subscription)
    response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    response.content_type = "text/event-stream"
    try:
        await response.prepare(request)
        await response.write(b": ledgerd\n\n")
        await _relay(response, subscription.__aiter__())
    except ConnectionResetError:
        # The reader left, as every browser does in the end: nothing to tell anybody, in the log least of all.
        pass
    finally:
        live.discard(subscription)
        subscription.close()
    return response


async def end_streams(app: web.Application) -> None:
    """End every live stream: a node that stops waits for nobody who only listens."""
    live = app[LIVE]
    for subscription in list(live):
        subscription.close()


async def _relay(response: web.StreamResponse, events: AsyncIterator[dict[str, Any]]) -> None:
    """Write events until they end; a comment where there are none for a while."""
    number = 0
    pending = asyncio.ensure_future(events.__anext__())
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=HEARTBEAT_S)
            if not done:
                await response.write(b": still here\n\n")
                continue
            try:
                event = pending.result()
            except StopAsyncIteration:
                return
            pending = asyncio.ensure_future(events.__anext__())
            data = msgspec.json.encode(plain(event))
            await response.write(b"id: %d\nevent: %s\ndata: %s\n\n" % (number, _name_of(event), data))
            number += 1
    finally:
        pending.cancel()


async def get_export(request: web.Request) -> web.StreamResponse:
    """Stream the chain from a height up to the final block, with everything an audit needs."""
    node = request.app[CONTEXT].node
    height = first_height(request)
    running = request.app[EXPORTS]
    if running.locked():
        raise Overloaded("too many exports at once", expected=f"at most {EXPORTS_MAX}")
    async with running:
        pieces = export_chain(node.store, node.genesis, first_height=height)
        # The first chunk is made before the status is sent: what fails at once is still a problem document.
        chunk = await asyncio.to_thread(_take_chunk, pieces)
        response = web.StreamResponse(headers={"Cache-Control": "no-store"})
        response.content_type = "application/octet-stream"
        await response.prepare(request)
        # Later faults cut the stream short; an export has an end mark, so its reader knows.
        while chunk:
            await response.write(chunk)
            chunk = await asyncio.to_thread(_take_chunk, pieces)
    return response


def _take_chunk(pieces: Iterator[bytes]) -> bytes:
    """Return the next pieces together, empty at the end: the disk is read beside the event loop."""
    chunk = bytearray()
    for piece in pieces:
        chunk += piece
        if len(chunk) >= CHUNK_BYTES:
            break
    return bytes(chunk)


def _name_of(event: dict[str, Any]) -> bytes:
    """Return the event's name; anything but letters and hyphens would break the stream's lines."""
    name = str(event.get("event", "event"))
    return name.encode() if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else b"event"
