"""The agent's own HTTP/1.1 server: keep-alive posts answered at the pace of the disk, and a bound on everything.

llhttp, by way of httptools, reads the bytes; what is here is what a server makes of them. A general server spends 80 us
of a core on a request before the first line of ours runs, which is the whole budget (docs/adr/0014).

A connection has one request at work; what comes behind it waits, in the order it came, and reading stops meanwhile.
Nobody makes the agent wait or its memory grow: head, body and all bodies together have bounds, a request must be whole
within ``REQUEST_S``, an idle connection ends after ``KEEP_ALIVE_S``, and who does not read answers is cut off.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol, cast

import httptools

from ledger.errors import LedgerError
from telephony.http_messages import (
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    Busy,
    Head,
    HeadTooLarge,
    Reply,
    RequestError,
    TooLarge,
    TooSlow,
    encode_reply,
    head_too_large,
    path_of,
)

WIRE_FACTOR: Final = 3
"""How many times the longest body a request may be on the wire: chunks of one byte have five around it."""
BODIES_BYTES_MAX: Final = 128 * 1024 * 1024
"""Bodies of all connections together, while they come in."""
CONNECTIONS_MAX: Final = 1024
REQUEST_S: Final = 30.0
"""From the first byte of a request to its last; also what a peer gets to read an answer."""
KEEP_ALIVE_S: Final = 75.0
LINGER_S: Final = 2.0
"""How long a connection that is to end is still read, unheard: ending at once could destroy the answer on its way."""
LOOK_S: Final = 1.0
"""How often connections are looked at for being late."""
BACKLOG: Final = 512

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_HTTP_FAULTS: Final = (httptools.HttpParserError, httptools.HttpParserUpgrade)


class Application(Protocol):
    """What stands behind a server."""

    @property
    def body_bytes_max(self) -> int:
        """Return how long a body may be."""

    def check_head(self, head: Head) -> None:
        """Raise LedgerError where a request is refused whatever its body; it is then not read into memory."""

    def handle(self, head: Head, body: bytes, answer: Callable[[Reply], None]) -> None:
        """Call ``answer`` once, now or later; raises nothing."""

    def reply_to(self, error: LedgerError) -> Reply:
        """Return how an error is told."""


class _Request:
    """A request as it comes in."""

    __slots__ = ("body", "error", "head", "is_last", "size", "url", "wire_headers")

    def __init__(self) -> None:
        self.url = b""
        self.wire_headers: list[tuple[bytes, bytes]] = []
        self.head: Head | None = None
        self.body: bytes | bytearray = b""
        self.size = 0
        self.error: LedgerError | None = None
        self.is_last = False


class HttpServer:
    """Serves an application on one address.

    Attributes:
        body_bytes: of bodies that are coming in or at work.
    """

    def __init__(self, application: Application) -> None:
        self.application = application
        self.body_bytes = 0
        self.is_closing = False
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._emptied = asyncio.Event()

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port, which is another where ``port`` is 0. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), host, port, backlog=BACKLOG)
        self._task = asyncio.create_task(self._look_after_late_ones(), name="http-late")
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self, timeout_s: float) -> None:
        """Take nothing more, give requests at work so long to be answered, and end."""
        self.is_closing = True
        if self._server is not None:
            self._server.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for connection in list(self._connections):
            connection.close_when_answered()
        if self._connections:
            self._emptied.clear()
            try:
                await asyncio.wait_for(self._emptied.wait(), timeout_s)
            except TimeoutError:
                for connection in list(self._connections):
                    connection.abort()

    def opened(self, connection: _Connection) -> bool:
        """Note a connection; tell whether there is a place for it."""
        self._connections.add(connection)
        return len(self._connections) <= CONNECTIONS_MAX and not self.is_closing

    def closed(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._emptied.set()

    async def _look_after_late_ones(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            now_s = time.monotonic()
            for connection in list(self._connections):
                connection.look(now_s)


class _Connection(asyncio.Protocol):
    """One connection: bytes in, requests to the application one after the other, answers out."""

    __slots__ = (
        "_at_work",
        "_chunk_bytes",
        "_coming",
        "_ending_since_s",
        "_head_bytes",
        "_is_half_closed",
        "_is_head_split",
        "_is_reading",
        "_is_writable",
        "_parser",
        "_server",
        "_since_s",
        "_transport",
        "_unread",
        "_waiting",
        "_wire_bytes",
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._coming: _Request | None = None
        self._waiting: deque[_Request] = deque()
        self._at_work: _Request | None = None
        self._chunk_bytes = self._head_bytes = self._wire_bytes = 0
        self._is_head_split = self._is_half_closed = False
        self._unread = b""
        self._since_s = time.monotonic()
        self._ending_since_s = 0.0
        self._is_writable = self._is_reading = True

    # -- the transport's calls ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or end at once where there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._server.opened(self):
            self._transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget everything; a request at work goes on and its answer falls to the ground."""
        self._transport = None
        self._server.closed(self)
        for request in (self._coming, *self._waiting):
            if request is not None:
                self._release(request)
        self._coming = None
        self._waiting.clear()

    def eof_received(self) -> bool:
        """Stay open for the answer to a request at work; there will be no other."""
        self._is_half_closed = True
        return self._at_work is not None or bool(self._waiting)

    def pause_writing(self) -> None:
        """Begin nothing more: the peer does not read its answers."""
        self._is_writable = False
        self._since_s = time.monotonic()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_writable = True
        self._begin_next()

    def data_received(self, data: bytes) -> None:
        """Read on, unless a request is at work: then the bytes wait and no more are fetched."""
        if self._ending_since_s:
            return
        if self._at_work is not None or self._waiting:
            self._unread += data
            self._set_reading(False)
            return
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        self._chunk_bytes = len(data)
        if self._coming is None:
            self._since_s = time.monotonic()
            self._is_head_split, self._head_bytes, self._wire_bytes = False, 0, 0
        elif self._coming.head is None:
            self._head_bytes += len(data)
        self._wire_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except _HTTP_FAULTS as error:
            if not self._ending_since_s:
                fault = RequestError("no request that can be read", where="request", expected="HTTP/1.1", actual=error)
                self._refuse_and_end(fault)
            return
        if self._coming is None:
            return
        if self._coming.head is None:
            self._is_head_split = True
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse_and_end(head_too_large())
        elif self._wire_bytes > WIRE_FACTOR * self._server.application.body_bytes_max:
            self._refuse_and_end(self._too_large())

    def _set_reading(self, is_reading: bool) -> None:
        if self._transport is not None and is_reading != self._is_reading:
            self._is_reading = is_reading
            if is_reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # -- the parser's calls; they must not raise ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._coming = _Request()

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        assert self._coming is not None
        self._coming.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are not wanted."""
        request = self._coming
        if request is not None and request.head is None and len(request.wire_headers) <= HEADERS_MAX:
            request.wire_headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide from the head alone whether the body is wanted."""
        request = self._coming
        assert request is not None
        headers: dict[bytes, bytes] = {}
        for name, value in request.wire_headers:
            headers.setdefault(name.lower(), value)
        request.head = Head(self._parser.get_method().decode("ascii"), path_of(request.url), headers)
        request.is_last = not self._parser.should_keep_alive()
        application = self._server.application
        try:
            # The common head came in one piece, shorter than the bound together with its body.
            if self._is_head_split or self._chunk_bytes > HEAD_BYTES_MAX or len(request.wire_headers) > HEADERS_MAX:
                self._check_size(request)
            length = int(headers.get(b"content-length", b"0"))
            self._check_length(length, length)
            if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
                raise RequestError("bodies come as they are", where="Transfer-Encoding", expected="chunked")
            application.check_head(request.head)
        except LedgerError as error:
            request.error = error
        waits_for_word = headers.get(b"expect", b"").lower() == b"100-continue"
        if request.error is not None:
            if waits_for_word or isinstance(request.error, TooLarge | HeadTooLarge):
                # The body may never come, or never end.
                self._refuse_and_end(request.error)
        elif waits_for_word and self._transport is not None and self._at_work is None and not self._waiting:
            self._transport.write(_CONTINUE)

    def _check_size(self, request: _Request) -> None:
        size = len(request.url) + sum(len(name) + len(value) + 4 for name, value in request.wire_headers)
        if size > HEAD_BYTES_MAX or len(request.wire_headers) > HEADERS_MAX:
            raise head_too_large()

    def _check_length(self, length: int, more: int) -> None:
        """Raise where a body of ``length`` is too long, or ``more`` bytes of it are too much together with others."""
        if length > self._server.application.body_bytes_max:
            raise self._too_large()
        if more + self._server.body_bytes > BODIES_BYTES_MAX:
            raise Busy("too much comes in at a time", where="body", hint="Send it again in some seconds")

    def _too_large(self) -> TooLarge:
        expected = f"at most {self._server.application.body_bytes_max} bytes"
        return TooLarge("the body is too large", where="body", expected=expected)

    def on_body(self, part: bytes) -> None:
        """Keep a part of the body, or let it fall where the request is refused anyway."""
        request = self._coming
        if request is None or self._ending_since_s:
            return
        if request.error is not None:
            request.size += len(part)
            if request.size > self._server.application.body_bytes_max:
                self._refuse_and_end(request.error)
            return
        try:
            self._check_length(request.size + len(part), len(part))
        except LedgerError as error:
            self._refuse_and_end(error)
            return
        request.size += len(part)
        self._server.body_bytes += len(part)
        if not request.body:
            request.body = part
        else:
            if isinstance(request.body, bytes):
                request.body = bytearray(request.body)
            request.body += part

    def on_message_complete(self) -> None:
        """Put the request behind those that wait."""
        request, self._coming = self._coming, None
        if request is None or self._ending_since_s:
            return
        self._waiting.append(request)
        self._begin_next()

    # -- requests and answers ----------------------------------------------------------------------------------------

    def _begin_next(self) -> None:
        """Give the next request that waits to the application, or fetch more bytes where none does."""
        while self._transport is not None and self._at_work is None and self._is_writable:
            if not self._waiting:
                unread, self._unread = self._unread, b""
                if not unread:
                    self._rest()
                    return
                self._feed(unread)
                continue
            request = self._waiting.popleft()
            self._at_work = request
            assert request.head is not None
            if request.error is not None:
                self._answer(request, self._server.application.reply_to(request.error))
            else:
                self._server.application.handle(request.head, bytes(request.body), partial(self._answer, request))

    def _rest(self) -> None:
        """Wait for more bytes; where none can come, end."""
        if self._is_half_closed and self._transport is not None:
            self._transport.close()
        else:
            self._set_reading(True)

    def _answer(self, request: _Request, reply: Reply) -> None:
        """Write an answer and go on; who is gone is answered no more."""
        self._release(request)
        if self._at_work is not request:
            return
        self._at_work = None
        if self._transport is None:
            return
        is_last = request.is_last or self._server.is_closing or bool(self._ending_since_s)
        is_head = request.head is not None and request.head.method == "HEAD"
        self._transport.write(encode_reply(reply, is_last=is_last, is_head=is_head))
        self._since_s = time.monotonic()
        if is_last:
            self._transport.close()
        elif self._waiting or self._unread or self._is_half_closed or not self._is_reading:
            # Not from here: a long row of requests that are answered at once would be as deep a stack.
            asyncio.get_running_loop().call_soon(self._begin_next)

    def _refuse_and_end(self, error: LedgerError) -> None:
        """Tell what is wrong with what comes in, and end; what comes meanwhile is read and dropped."""
        if self._ending_since_s:
            return
        self._ending_since_s = time.monotonic()
        if self._coming is not None:
            self._release(self._coming)
        if self._transport is None:
            return
        if self._at_work is None and not self._waiting:
            self._transport.write(encode_reply(self._server.application.reply_to(error), is_last=True))
            if self._transport.can_write_eof():
                self._transport.write_eof()

    def _release(self, request: _Request) -> None:
        if request.error is None and request.body:
            self._server.body_bytes -= len(request.body)
        request.body = b""

    # -- ends --------------------------------------------------------------------------------------------------------

    def look(self, now_s: float) -> None:
        """End the connection where its peer is late, or has been told to go."""
        if self._transport is None:
            return
        if self._ending_since_s:
            if self._at_work is None and now_s - self._ending_since_s > LINGER_S:
                self.abort()
        elif not self._is_writable:
            if now_s - self._since_s > REQUEST_S:
                self.abort()
        elif self._at_work is None and not self._waiting:
            is_idle = self._coming is None
            if now_s - self._since_s > (KEEP_ALIVE_S if is_idle else REQUEST_S):
                if is_idle:
                    self._transport.close()
                else:
                    expected = f"within {REQUEST_S:.0f} s"
                    self._refuse_and_end(TooSlow("the request does not get to its end", expected=expected))

    def close_when_answered(self) -> None:
        """End now, or after the answer to the request at work."""
        if self._transport is not None and self._at_work is None and not self._waiting:
            self._transport.close()

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()
