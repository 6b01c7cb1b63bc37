"""The proxies: keep-alive connections that post CDRs to an agent as fast as it answers, in a process of their own.

Each connection has one post under way. What is counted is answers with status 202, and how long each took.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

RECEIVE_BYTES: Final = 64 * 1024
STUCK_S: Final = 20.0
"""Nothing answered for so long: it hangs."""
CALLERS: Final = 250_000
"""Subscribers that call in the busiest hour."""
CALLER_STEP: Final = 7_919
CALLER_MIN: Final = 100_000_000_000
"""Behind +883 these are telephone numbers."""
ANSWER_START: Final = b"HTTP/1.1 202 "


class Load(msgspec.Struct, frozen=True):
    """What one run is to do.

    Attributes:
        cdr: one CDR as JSON; every record sent is this one with a number of its own.
        number: the text in it that is replaced by that number.
        caller: the text in it that is replaced by the caller's number, one of ``CALLERS``.
        first: number of the first record, of 12 digits; no number is used twice.
    """

    host: str
    port: int
    path: str
    token: str
    cdr: str
    number: str
    caller: str
    first: int
    connections: int
    cdrs_per_post: int
    seconds: float


class LoadResult(msgspec.Struct, frozen=True):
    """What one run saw; ``latencies_ms`` are those of every post, ascending."""

    records: int
    posts: int
    seconds: float
    latencies_ms: list[float]
    refusals: list[str]
    """Begins of answers that were no 202."""


@dataclass(slots=True)
class _Proxy:
    """One connection."""

    socket: socket.socket
    outgoing: memoryview = field(default_factory=lambda: memoryview(b""))
    incoming: bytes = b""
    posted_s: float = 0.0
    is_waiting_to_write: bool = False


def bodies(load: Load) -> Iterator[bytes]:
    """Return request after request, head and body, without end."""
    template = template_of(load.cdr, load.number, load.caller)
    number = load.first
    many = load.cdrs_per_post > 1
    size = load.cdrs_per_post * len(template % numbers_of(number)) + (load.cdrs_per_post + 1 if many else 0)
    head = (
        f"POST {load.path} HTTP/1.1\r\nHost: {load.host}:{load.port}\r\nAuthorization: Bearer {load.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    ).encode()
    while True:
        documents = [template % numbers_of(number + index) for index in range(load.cdrs_per_post)]
        number += load.cdrs_per_post
        yield head + (b"[" + b",".join(documents) + b"]" if many else documents[0])


def template_of(cdr: str, number: str, caller: str) -> bytes:
    """Return a CDR with places for what ``numbers_of`` returns."""
    return cdr.replace("%", "%%").replace(number, "%(number)012d").replace(caller, "%(caller)012d").encode()


def numbers_of(number: int) -> dict[bytes, int]:
    """Return what goes into the template for the call of this number: subscribers call in no order."""
    return {b"number": number, b"caller": CALLER_MIN + number * CALLER_STEP % CALLERS}


def run_load(load: Load) -> LoadResult:
    """Post for ``load.seconds``, then wait for the answers under way. Raises RuntimeError where they do not come."""
    requests = bodies(load)
    poll = select.epoll()
    proxies: dict[int, _Proxy] = {}
    latencies_ms: list[float] = []
    refusals: list[str] = []
    with contextlib.ExitStack() as stack:
        stack.callback(poll.close)
        for _ in range(load.connections):
            connection = stack.enter_context(socket.create_connection((load.host, load.port), timeout=5))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            proxies[connection.fileno()] = _Proxy(connection)
            poll.register(connection, select.EPOLLIN)
        started_s = time.perf_counter()
        for proxy in proxies.values():
            _post(poll, proxy, next(requests))
        under_way = len(proxies)
        while under_way:
            events = poll.poll(STUCK_S)
            if not events:
                raise RuntimeError(f"no answer in {STUCK_S:.0f} s to {under_way} posts")
            for fd, event in events:
                proxy = proxies[fd]
                if event & select.EPOLLOUT:
                    _write(poll, proxy)
                if not event & ~select.EPOLLOUT or not _is_answered(proxy, refusals):
                    continue
                now_s = time.perf_counter()
                latencies_ms.append((now_s - proxy.posted_s) * 1000)
                if now_s - started_s < load.seconds:
                    _post(poll, proxy, next(requests))
                else:
                    under_way -= 1
        seconds = time.perf_counter() - started_s
    posts = len(latencies_ms) - len(refusals)
    return LoadResult(posts * load.cdrs_per_post, posts, seconds, sorted(latencies_ms), refusals[:10])


def _post(poll: select.epoll, proxy: _Proxy, request: bytes) -> None:
    proxy.posted_s = time.perf_counter()
    proxy.outgoing = memoryview(request)
    _write(poll, proxy)


def _write(poll: select.epoll, proxy: _Proxy) -> None:
    """Send what the socket takes; the rest when it takes more."""
    with contextlib.suppress(BlockingIOError):
        proxy.outgoing = proxy.outgoing[proxy.socket.send(proxy.outgoing) :]
    if bool(proxy.outgoing) != proxy.is_waiting_to_write:
        proxy.is_waiting_to_write = bool(proxy.outgoing)
        poll.modify(proxy.socket, select.EPOLLIN | (select.EPOLLOUT if proxy.outgoing else 0))


def _is_answered(proxy: _Proxy, refusals: list[str]) -> bool:
    """Read what came; tell whether an answer is whole. Raises RuntimeError where the agent hangs up."""
    data = proxy.socket.recv(RECEIVE_BYTES)
    if not data:
        raise RuntimeError(f"the agent hung up: {proxy.incoming[:200]!r}")
    proxy.incoming += data
    head, separator, body = proxy.incoming.partition(b"\r\n\r\n")
    if not separator:
        return False
    _, _, length = head.lower().partition(b"content-length:")
    if len(body) < int(length.split(b"\r\n")[0]):
        return False
    if not proxy.incoming.startswith(ANSWER_START):
        refusals.append(proxy.incoming[:300].decode("utf-8", "replace"))
    proxy.incoming = b""
    return True


def main() -> None:
    """Run the load that standard input describes; print the result."""
    import sys

    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    sys.stdout.buffer.write(msgspec.json.encode(run_load(load)))


if __name__ == "__main__":
    main()
