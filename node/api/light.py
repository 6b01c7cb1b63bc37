"""What light clients ask for: proof of what is final, of who votes, and of what lies in whose history.

Nobody needs to believe any of it: ``audit.light`` checks every answer.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from audit.final import sealed_headers
from audit.light import HEADERS_MAX, SET_CHANGES_MAX
from ledger.errors import EncodingError
from ledger.readable import to_readable
from node.api.gathering import check_gathered
from node.api.parts import CONTEXT, Context
from node.api.problems import NotFound, json_response

NUMBER_MAX = 2**63 - 1


async def get_final(request: web.Request) -> web.Response:
    """Return the proof of the final block, null while that is genesis."""
    view = await asyncio.to_thread(request.app[CONTEXT].reader.view)
    return json_response({"final": None if view is None else to_readable(view.voting_proof())})


async def get_set_changes(request: web.Request) -> web.Response:
    """Return the proofs of the changes of the voting set, from ``?after=`` on."""
    after = _number(request, "after", default=0, low=0, high=NUMBER_MAX)
    reader = request.app[CONTEXT].reader
    changes = await asyncio.to_thread(reader.set_changes, after, count=SET_CHANGES_MAX)
    return json_response({"set_changes": to_readable(changes)})


async def get_headers(request: web.Request) -> web.Response:
    """Return sealed headers of the best chain from height ``?from=`` on."""
    first = _number(request, "from", default=1, low=1, high=NUMBER_MAX)
    count = _number(request, "count", default=HEADERS_MAX, low=1, high=HEADERS_MAX)
    node = request.app[CONTEXT].node
    return json_response({"headers": to_readable(sealed_headers(node.engine, node.store, first, count))})


async def get_history(request: web.Request) -> web.Response:
    """Return the path from the block at ``?height=`` to the history root of the final one at height ``?size=``."""
    context = request.app[CONTEXT]
    size = _number(request, "size", default=0, low=1, high=NUMBER_MAX)
    height = _number(request, "height", default=0, low=0, high=size - 1)
    await _check_final(context, "size", size)
    await check_gathered(context, size)
    path = await asyncio.to_thread(context.reader.history.path, height, size)
    return json_response({"path": to_readable(path)})


async def get_consistency(request: web.Request) -> web.Response:
    """Return the proof that the history of the block at ``?old=`` is the beginning of the final one's at ``?new=``."""
    context = request.app[CONTEXT]
    new = _number(request, "new", default=0, low=1, high=NUMBER_MAX)
    old = _number(request, "old", default=0, low=0, high=new)
    await _check_final(context, "new", new)
    await check_gathered(context, new)
    path = await asyncio.to_thread(context.reader.history.consistency, old, new)
    return json_response({"path": to_readable(path)})


async def _check_final(context: Context, name: str, height: int) -> None:
    """Raise NotFound unless the block at ``height`` is final here."""
    view = await asyncio.to_thread(context.reader.view)
    final = 0 if view is None else view.header.height
    if height > final:
        raise NotFound("not final here", where=name, expected=f"<= {final}", actual=height)


def _number(request: web.Request, name: str, *, default: int, low: int, high: int) -> int:
    """Return a number in the query. Raises EncodingError."""
    text = request.query.get(name, str(default))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not low <= number <= high:
        raise EncodingError("not such a number", where=name, expected=f"{low} to {high}", actual=text)
    return number
