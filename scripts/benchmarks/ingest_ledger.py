"""A ledger that takes every transaction and says at once that it is final: what is measured is the agent before it."""

from __future__ import annotations

import socket
import sys
import time
from typing import Any

import msgspec
from aiohttp import web

BODY_BYTES_MAX = 64 * 1024 * 1024


async def take(request: web.Request) -> web.Response:
    """Take transactions."""
    count = len(msgspec.msgpack.decode(await request.read(), type=list[msgspec.Raw]))
    return _json({"results": [{"status": 201}] * count}, 201)


async def promise(request: web.Request) -> web.Response:
    """Say of each transaction asked about that it is final."""
    now_ms = time.time_ns() // 1_000_000
    tx_ids = [tx_id for tx_id in request.query.get("tx_ids", "").split(",") if tx_id]
    promises = [{"tx_id": tx_id, "state": "final", "height": 1, "void": []} for tx_id in tx_ids]
    point = {"height": 1, "time_ms": now_ms}
    return _json({"head": point, "final": point, "now_ms": now_ms, "promises": promises}, 200)


def _json(document: dict[str, Any], status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), status=status, content_type="application/json")


def main() -> None:
    """Serve on loopback until it is ended: on the port given, or on a free one. The address is printed."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_post("/v1/transactions", take)
    app.router.add_get("/v1/promises", promise)

    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    listening = socket.create_server(("127.0.0.1", port))

    async def tell(_: web.Application) -> None:
        sys.stdout.write(f"http://127.0.0.1:{listening.getsockname()[1]}\n")
        sys.stdout.flush()

    app.on_startup.append(tell)
    web.run_app(app, sock=listening, print=None, access_log=None)


if __name__ == "__main__":
    main()
