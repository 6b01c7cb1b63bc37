"""Requests and answers of the agent's HTTP server, and what can be wrong with a request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple

import httptools

from ledger.errors import LedgerError

HEAD_BYTES_MAX: Final = 16 * 1024
"""Request line and headers together."""
HEADERS_MAX: Final = 64


class RequestError(LedgerError):
    """Something about the request itself, not about what it carries."""

    code = "request"
    status = 400


class TooLarge(RequestError):
    """A body beyond its bound."""

    code = "too-large"
    status = 413


class HeadTooLarge(RequestError):
    """A head beyond its bound."""

    code = "head-too-large"
    status = 431


class TooSlow(RequestError):
    """A request that does not get to its end."""

    code = "too-slow"
    status = 408


class Busy(RequestError):
    """More comes in at a time than memory is for."""

    code = "busy"
    status = 503


class Head(NamedTuple):
    """A request without its body."""

    method: str
    path: bytes
    """Without the query."""
    headers: dict[bytes, bytes]
    """By name in small letters; of several with one name, the first."""


class Reply(NamedTuple):
    """What a request is answered with."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: Sequence[tuple[bytes, bytes]] = ()


def head_too_large() -> HeadTooLarge:
    """Return the error for a head beyond its bounds."""
    expected = f"at most {HEAD_BYTES_MAX} bytes and {HEADERS_MAX} headers"
    return HeadTooLarge("the request's head is too large", where="request", expected=expected)


@lru_cache(256)
def path_of(url: bytes) -> bytes:
    """Return the path of a request's target, as it came; empty for what has none."""
    if not url.startswith(b"/"):
        # RFC 9112, 3.2.2: a server takes whole URLs too.
        try:
            return bytes(httptools.parse_url(url).path or b"/")
        except httptools.HttpParserError:
            return b""
    return url.partition(b"?")[0]


def encode_reply(reply: Reply, *, is_last: bool = False, is_head: bool = False) -> bytes:
    """Return the bytes of an answer; ``is_head`` leaves the body out, as HEAD wants it."""
    parts = [
        _status_line(reply.status, int(time.time())),
        reply.content_type,
        b"\r\nContent-Length: %d\r\n" % len(reply.body),
    ]
    parts += [b"%b: %b\r\n" % header for header in reply.headers]
    if is_last:
        parts.append(b"Connection: close\r\n")
    parts += [b"\r\n", b"" if is_head else reply.body]
    return b"".join(parts)


@lru_cache(64)
def _status_line(status: int, second: int) -> bytes:
    """Return what every answer with this status begins with in this second."""
    date = formatdate(second, usegmt=True)
    begin = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nDate: {date}\r\nCache-Control: no-store\r\nContent-Type: "
    )
    return begin.encode("ascii")
