"""Who may ask: known hosts, bearer tokens with roles, bounded bodies of the right type.

Source: docs/api.md, "Access".
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from node.api.problems import Forbidden, TooLarge, Unauthorized, UnknownHost, UnsupportedMediaType
from node.keyfile import Token

LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
TOKEN_CHARACTERS_MAX: Final = 512


class Tokens:
    """The tokens that this node knows, by the SHA-256 of each."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = [(token.sha256.lower().encode(), frozenset(token.roles)) for token in tokens]

    def roles_of(self, request: web.Request) -> frozenset[str] | None:
        """Return the roles of the request's bearer token, None where it brings none.

        Raises Unauthorized for a token that is not known. Takes the same time whichever it is.
        """
        header = request.headers.get(hdrs.AUTHORIZATION)
        if header is None:
            return None
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "bearer" or not text or len(text) > TOKEN_CHARACTERS_MAX:
            raise Unauthorized("not a bearer token", where="Authorization", expected="Bearer TOKEN")
        digest = sha256(text.strip().encode("utf-8", "surrogateescape")).hexdigest().encode()
        found: frozenset[str] | None = None
        for known, roles in self._tokens:
            if hmac.compare_digest(known, digest):
                found = roles
        if found is None:
            raise Unauthorized("the token is not known here", where="Authorization")
        return found

    def require(self, request: web.Request, role: str) -> None:
        """Raise Unauthorized without a token, Forbidden with one that lacks ``role``."""
        roles = self.roles_of(request)
        if roles is None:
            raise Unauthorized("this needs a token", where="Authorization", expected=f"Bearer TOKEN with role {role}")
        if role not in roles:
            raise Forbidden("the token lacks the role", where="Authorization", expected=f"role {role}")


def check_host(hosts: Collection[str]) -> Middleware:
    """Return a middleware that answers only to ``hosts`` (names without ports) and loopback.

    A browser that was led to a name which resolves to this machine sends that name: without this check a page from
    anywhere could read what is on loopback.
    """
    known = LOOPBACK_HOSTS | {host.lower() for host in hosts}

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if host_name(request.headers.get(hdrs.HOST, "")) not in known:
            raise UnknownHost(
                "this node does not answer to that name",
                where="Host",
                actual=request.headers.get(hdrs.HOST, ""),
                hint="Name it in the option hosts",
            )
        return await handler(request)

    return middleware


def host_name(header: str) -> str:
    """Return the name in a Host header, without its port; empty where it is none."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # raises for one that is no number
    except ValueError:
        return ""
    return "" if parts.username is not None or parts.path or parts.query else (parts.hostname or "")


async def read_body(request: web.Request, *, content_type: str, bytes_max: int) -> bytes:
    """Return the body of a request.

    Raises UnsupportedMediaType for another type or an encoded body, TooLarge beyond ``bytes_max``, before the rest
    of it was read.
    """
    if request.content_type != content_type:
        raise UnsupportedMediaType(
            "another type is needed", where="Content-Type", expected=content_type, actual=request.content_type
        )
    if (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise UnsupportedMediaType("JSON is UTF-8", where="Content-Type", expected="utf-8", actual=request.charset)
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType("bodies come as they are", where="Content-Encoding", actual=encoding)
    too_large = TooLarge("the body is too large", where="body", expected=f"at most {bytes_max} bytes")
    if (request.content_length or 0) > bytes_max:
        raise too_large
    parts = bytearray()
    async for chunk in request.content.iter_any():
        parts += chunk
        if len(parts) > bytes_max:
            raise too_large
    return bytes(parts)
