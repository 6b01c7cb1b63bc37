"""A place for CDRs to go when no node is at hand: takes what Kamailio posts, prints it, keeps it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY_BYTES_MAX = 1 << 20


class Sink:
    """An HTTP server on a free loopback port that answers 200 once a posted CDR is kept.

    refuse: the first so many posts are answered 503, to see that they come again.
    """

    def __init__(self, token: str, on_cdr: Callable[[dict[str, str]], None], refuse: int = 0) -> None:
        self.cdrs: list[dict[str, str]] = []
        self.batches: list[int] = []
        self.refused = 0
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                status = sink.take(self, token, on_cdr, refuse)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                """Stay silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/ingest/kamailio"

    def take(
        self,
        request: BaseHTTPRequestHandler,
        token: str,
        on_cdr: Callable[[dict[str, str]], None],
        refuse: int,
    ) -> int:
        """Keep the CDRs of one post and return the HTTP status to answer."""
        length = int(request.headers.get("Content-Length", "0"))
        body = request.rfile.read(min(length, BODY_BYTES_MAX))
        if request.headers.get("Authorization") != f"Bearer {token}":
            return 401
        if request.headers.get("Content-Type") != "application/json":
            return 415
        if self.refused < refuse:
            self.refused += 1
            return 503
        try:
            documents = json.loads(body)
        except ValueError:
            return 400
        documents = documents if isinstance(documents, list) else [documents]
        self.batches.append(len(documents))
        for document in documents:
            self.cdrs.append(document)
            on_cdr(document)
        return 200

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    async def stop(self) -> None:
        """End the server."""
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()
        self._thread.join()
