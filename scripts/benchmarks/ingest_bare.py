"""The agent's HTTP server with nothing behind it: each post is answered as if it had been kept."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import uvloop

from ledger.errors import LedgerError
from telephony.agent_http import problem_reply, spooled_body
from telephony.http_messages import Head, Reply
from telephony.http_server import HttpServer

BODY_BYTES_MAX = 4 * 1024 * 1024


class Bare:
    """An application that does nothing."""

    body_bytes_max = BODY_BYTES_MAX

    def check_head(self, head: Head) -> None:
        """Let everything in."""

    def handle(self, _head: Head, _body: bytes, answer: Callable[[Reply], None]) -> None:
        """Answer at once."""
        answer(Reply(202, spooled_body(0)))

    def reply_to(self, error: LedgerError) -> Reply:
        """Tell what the server itself refuses."""
        return problem_reply(error)


async def serve() -> None:
    """Serve on a free port of loopback, which is printed, until it is ended."""
    port = await HttpServer(Bare()).start("127.0.0.1", 0)
    sys.stdout.write(f"http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
