"""The explorer's page: files as they are in ``node/explorer``, read once, under a strict Content-Security-Policy.

Source: docs/explorer.md, "What the page may do".
"""

from __future__ import annotations

import importlib.resources
from functools import cache
from hashlib import sha256
from typing import Final, NamedTuple

from aiohttp import web

from node.api.problems import NotFound

PAGE: Final = "index.html"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
"""By ending; nothing else is served."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The last two: text becomes markup nowhere, browsers refuse innerHTML and its like altogether."""
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
"""Of every file. Browsers ask each time whether it is still the same, and are answered 304: a node that was updated
never shows half of its old page."""


class File(NamedTuple):
    """A file of the page."""

    body: bytes
    content_type: str
    etag: str


@cache
def files() -> dict[str, File]:
    """Return the files of the page by name."""
    found = {}
    for entry in importlib.resources.files("node").joinpath("explorer").iterdir():
        content_type = TYPES.get("." + entry.name.rpartition(".")[2])
        if content_type is not None and entry.is_file():
            body = entry.read_bytes()
            found[entry.name] = File(body, content_type, sha256(body).hexdigest()[:32])
    return found


async def get_page(request: web.Request) -> web.Response:
    """Return the page."""
    return _answer(request, PAGE)


async def get_file(request: web.Request) -> web.Response:
    """Return a file of the page. Raises NotFound."""
    return _answer(request, request.match_info["file"])


def _answer(request: web.Request, name: str) -> web.Response:
    file = files().get(name)
    if file is None:
        raise NotFound("no such file of the explorer", where="path", actual=name)
    headers = {**HEADERS, "ETag": f'"{file.etag}"'}
    known = request.if_none_match or ()
    if any(tag.value in {file.etag, "*"} for tag in known):
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.body, headers={**headers, "Content-Type": file.content_type})
