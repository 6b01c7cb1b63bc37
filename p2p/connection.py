"""One WebSocket to a proven peer: its outbox, its frames, its end."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

import aiohttp
from aiohttp import ClientWebSocketResponse, WSMsgType, web

from ledger.errors import LedgerError, PeerError
from p2p import limits
from p2p.handshake import ProvenPeer, Side
from p2p.messages import CloseCode, close_message, encode_message

WebSocket: TypeAlias = ClientWebSocketResponse | web.WebSocketResponse


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a connection ends; ``tell`` is the code of the Close to send, None where the other side is gone."""

    reason: str
    tell: CloseCode | None = None


class Connection:
    """A connection to a proven peer, to which this node proved the key ``own_key_id``.

    Attributes:
        is_open_plaintext: it leaves this machine, and not by TLS.
    """

    __slots__ = ("end", "is_open_plaintext", "outbox", "outbox_bytes", "own_key_id", "peer", "side", "wake", "ws")

    def __init__(
        self, peer: ProvenPeer, ws: WebSocket, side: Side, own_key_id: bytes, *, is_open_plaintext: bool = False
    ) -> None:
        self.peer = peer
        self.own_key_id = own_key_id
        self.ws = ws
        self.side = side
        self.is_open_plaintext = is_open_plaintext
        self.outbox: deque[bytes] = deque()
        self.outbox_bytes = 0
        self.wake = asyncio.Event()
        self.end: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()


class LostError(LedgerError):
    """The connection is gone, by nobody's fault."""

    code = "peer"


async def frame_of(ws: WebSocket) -> bytes:
    """Return the next binary frame. Raises PeerError for another kind of frame, LostError at the end."""
    message = await ws.receive()
    if message.type is WSMsgType.BINARY:
        return bytes(message.data)
    if message.type is WSMsgType.TEXT:
        raise PeerError("a text frame", where="frame", expected="a binary frame")
    if message.type is WSMsgType.ERROR:
        # Too large, or no WebSocket frame at all; aiohttp has closed with the right code already.
        raise PeerError(f"a broken frame: {ws.exception()}", where="frame")
    said = f"{ws.close_code} {message.extra or ''}".strip() if ws.close_code not in (None, 1000, 1006) else ""
    raise LostError("the connection was closed" + (f" by the peer: {said}" if said else ""), where="connection")


def any_certificate() -> ssl.SSLContext:
    """Return a TLS context that takes any certificate: the handshake signs its fingerprint, which proves more."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def close(ws: WebSocket, ending: Ending) -> None:
    """Say why, and close; within a bounded time, for a slow peer may not take even this."""
    try:
        async with asyncio.timeout(limits.CLOSE_TIMEOUT_MS / 1000):
            if ending.tell is not None and not ws.closed:
                await ws.send_bytes(encode_message(close_message(ending.tell, ending.reason)))
    except (TimeoutError, OSError, aiohttp.ClientError):
        pass
    try:
        async with asyncio.timeout(2 * limits.CLOSE_TIMEOUT_MS / 1000):
            await ws.close()
    except (TimeoutError, OSError, aiohttp.ClientError):
        pass
