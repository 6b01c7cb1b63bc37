"""Places by the carbon of a call, for whoever routes calls. Open to all: of the chain only its basis is in it."""

from __future__ import annotations

from aiohttp import web

from ledger.errors import ConfigError, FieldError
from node.api.parts import CONTEXT
from node.api.problems import json_response
from telephony.carbon_routing import CALL_DURATION_S, CODEC_DEFAULT, TypicalCall, parse_pop, rank_pops


async def get_pops(request: web.Request) -> web.Response:
    """Rank the places of the query, ``pop=NAME=ZONE,PUE``, least carbon first."""
    query = request.query
    try:
        call = TypicalCall(
            server_mw=_number(query.get("server_mw", ""), "server_mw"),
            duration_s=_number(query.get("duration_s", str(CALL_DURATION_S)), "duration_s"),
            codec=query.get("codec", CODEC_DEFAULT),
        )
        basis = request.app[CONTEXT].node.genesis.parameters.carbon_basis
        ranked = rank_pops([parse_pop(text) for text in query.getall("pop", [])], call, basis)
    except ConfigError as error:
        # What is a setting at the command line is a field here.
        raise FieldError(
            error.what, where=error.where, expected=error.expected, actual=error.actual, hint=error.hint
        ) from None
    return json_response({"carbon_basis": basis, "pops": [pop._asdict() for pop in ranked]})


def _number(text: str, name: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise FieldError("not a number", where=name, expected="digits", actual=text or "nothing")
    return int(text)
