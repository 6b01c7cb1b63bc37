"""Times what is handed in, for the metrics."""

from __future__ import annotations

import time

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from node.counters import Counters


def measured(counters: Counters) -> Middleware:
    """Return a middleware, to stand before all others, that counts the requests of the routes that take something in.

    Anything else has no route of its own to be counted under: labels stay as many as there are routes.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if request.method != hdrs.METH_POST or resource is None:
            return await handler(request)
        began = time.monotonic()
        response = await handler(request)
        counters.answered(resource.canonical, response.status, time.monotonic() - began)
        return response

    return middleware
