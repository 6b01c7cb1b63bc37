"""What the agent answers over HTTP: CDRs in, health, metrics. The bodies and answers of a node's own ingest.

Source: docs/agent.md, "Answers".
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import sha256
from http import HTTPStatus
from typing import Any, Final, Protocol

import msgspec
import structlog
from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ledger.errors import EncodingError, LedgerError, StoreError, StoreFull
from telephony.adapters.base import BODY_BYTES_MAX
from telephony.agent import Agent

URN: Final = "urn:ledgerd:problem:"
RETRY_AFTER_S: Final = 5
"""What a sender is told to wait where the disk refuses."""
TOKEN_CHARACTERS_MAX: Final = 512
ROLE: Final = "submit"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class KnownToken(Protocol):
    """A token that the agent takes CDRs for."""

    @property
    def sha256(self) -> str:
        """Return the hash of its text, in hex."""

    @property
    def roles(self) -> list[str]:
        """Return what it may do."""


class RequestError(LedgerError):
    """Something about the request itself, not about what it carries."""

    code = "request"
    status = 400


class Unauthorized(RequestError):
    """No token, or none that is known here."""

    code = "unauthorized"
    status = 401


class Forbidden(RequestError):
    """A token without the role."""

    code = "forbidden"
    status = 403


class TooLarge(RequestError):
    """A body beyond its bound."""

    code = "too-large"
    status = 413


class UnsupportedMediaType(RequestError):
    """A body of another type."""

    code = "unsupported-media-type"
    status = 415


class NotAllKept(RequestError):
    """Some records of several were refused; the others are on disk."""

    code = "not-all-kept"
    status = 422


class Internal(RequestError):
    """A fault of this program."""

    code = "internal"
    status = 500


def make_app(agent: Agent, tokens: Sequence[KnownToken]) -> web.Application:
    """Return the agent's web application; CDRs need one of ``tokens`` with the role submit."""
    app = web.Application(middlewares=[problems])
    known = [(token.sha256.lower().encode(), ROLE in token.roles) for token in tokens]

    async def post_kamailio(request: web.Request) -> web.Response:
        authorize(request, known)
        body = await read_body(request)
        faults, is_array = await agent.intake.take(agent.adapters.by_name["kamailio"], body)
        return answer_to(faults, is_array=is_array)

    async def get_health(_: web.Request) -> web.Response:
        is_well = agent.has_room and agent.failure is None
        health = {
            "status": "ok" if is_well else "full" if agent.failure is None else "failed",
            "backlog": agent.backlog,
            "oldest_age_ms": agent.oldest_age_ms,
            "dead_letters": agent.dead,
            "nodes_failing": sum(failures > 0 for failures in agent.failing.values()),
        }
        return json_response(health, status=200 if is_well else 503)

    registry = CollectorRegistry()
    registry.register(Metrics(agent))

    async def get_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4"})

    app.add_routes(
        [
            web.post("/v1/ingest/kamailio", post_kamailio),
            web.get("/healthz", get_health),
            web.get("/metrics", get_metrics),
        ]
    )
    return app


class Metrics:
    """The agent's figures, as Prometheus reads them."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        """Return the figures of this moment."""
        agent, counters = self._agent, self._agent.counters
        counts = (
            ("spooled", "Records taken in, on disk", agent.intake.counters.spooled),
            ("delivered", "Records that a node has taken", agent.delivered),
            ("refused", "Records answered 503 or 507: the sender has them", agent.intake.counters.refused),
            ("retried", "Dead letters put back into the spool", counters.retried),
        )
        for name, text, count in counts:
            yield CounterMetricFamily(f"ledger_agent_{name}_records", text, value=count)
        dead = CounterMetricFamily("ledger_agent_dead_records", "Records that became dead letters", labels=["stage"])
        dead.add_metric(["intake"], counters.buried_intake)
        dead.add_metric(["delivery"], counters.buried_delivery)
        dead.add_metric(["spool"], counters.buried_spool)
        yield dead
        gauges = (
            ("backlog_records", "Records that no node has taken yet", agent.backlog),
            ("oldest_age_seconds", "Age of the oldest of them", agent.oldest_age_ms / 1000),
            ("dead_letters", "Dead letters that wait for a person", agent.dead),
            ("has_room", "1 while the disk has room for more", int(agent.has_room)),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"ledger_agent_{name}", text, value=value)
        failing = GaugeMetricFamily("ledger_agent_node_failures", "Failures in a row of each node", labels=["node"])
        for node, failures in agent.failing.items():
            failing.add_metric([node], failures)
        yield failing


def authorize(request: web.Request, known: Sequence[tuple[bytes, bool]]) -> None:
    """Raise Unauthorized without a known bearer token, Forbidden for one that may not hand in records."""
    scheme, _, text = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "bearer" or not text or len(text) > TOKEN_CHARACTERS_MAX:
        raise Unauthorized("this needs a token", where="Authorization", expected=f"Bearer TOKEN with role {ROLE}")
    digest = sha256(text.strip().encode("utf-8", "surrogateescape")).hexdigest().encode()
    # All are compared, each in the same time: how long it takes tells nothing.
    found = [may_submit for token, may_submit in known if hmac.compare_digest(token, digest)]
    if not found:
        raise Unauthorized("the token is not known here", where="Authorization")
    if not any(found):
        raise Forbidden("the token lacks the role", where="Authorization", expected=f"role {ROLE}")


async def read_body(request: web.Request) -> bytes:
    """Return the body of a post. Raises UnsupportedMediaType, or TooLarge before all of it was read."""
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise UnsupportedMediaType(
            "another type is needed",
            where="Content-Type",
            expected="application/json",
            actual=request.headers.get(hdrs.CONTENT_TYPE, "none"),
        )
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise UnsupportedMediaType("bodies come as they are", where="Content-Encoding", expected="identity")
    parts = bytearray()
    too_large = (request.content_length or 0) > BODY_BYTES_MAX
    while not too_large:
        chunk = await request.content.readany()
        if not chunk:
            return bytes(parts)
        parts += chunk
        too_large = len(parts) > BODY_BYTES_MAX
    raise TooLarge("the body is too large", where="body", expected=f"at most {BODY_BYTES_MAX} bytes")


def answer_to(faults: Sequence[LedgerError | None], *, is_array: bool) -> web.Response:
    """Return the answer to a post whose good records are spooled and whose bad ones are dead letters."""
    results = [_result(fault) for fault in faults]
    errors = [fault for fault in faults if fault is not None]
    if not errors:
        return json_response({"results": results} if is_array else results[0], status=202)
    if not is_array:
        return problem_response(errors[0])
    error = errors[0]
    if len(faults) > 1:
        error = NotAllKept(
            f"{len(errors)} of {len(faults)} were refused and are dead letters, the others are on disk",
            hint="See ledger-agent dead list; all may be handed in again, none counts twice",
        )
    return problem_response(error, results=results)


def _result(fault: LedgerError | None) -> dict[str, Any]:
    if fault is None:
        return {"status": 202, "outcome": "spooled"}
    return {"status": status_of(fault), "outcome": "refused", "problem": problem_of(fault)}


def status_of(error: LedgerError) -> int:
    """Return the HTTP status that fits an error."""
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, EncodingError):
        return 400
    if isinstance(error, StoreFull):
        return 507
    return 503 if isinstance(error, StoreError) else 500


def problem_of(error: LedgerError) -> dict[str, Any]:
    """Return the RFC 9457 problem document of an error."""
    status = status_of(error)
    facts = {"field": error.where, "expected": error.expected, "actual": error.actual, "hint": error.hint}
    return {
        "type": URN + error.code,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.sentence(),
        **{name: value for name, value in facts.items() if value},
    }


def problem_response(error: LedgerError, **more: Any) -> web.Response:
    """Return the response that reports an error; ``more`` are further members of the document."""
    document = {**problem_of(error), **more}
    headers = {"Retry-After": str(RETRY_AFTER_S)} if document["status"] in {503, 507} else {}
    if document["status"] == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="ledger-agent"'
    return json_response(document, status=document["status"], type_="application/problem+json", headers=headers)


def json_response(
    value: Any, *, status: int, type_: str = "application/json", headers: dict[str, str] | None = None
) -> web.Response:
    """Return a JSON response."""
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=type_, headers=headers)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem document."""
    try:
        return await handler(request)
    except LedgerError as error:
        return problem_response(error)
    except web.HTTPException as error:
        failure = RequestError(error.reason, where="path" if error.status in {404, 405} else "")
        failure.status = error.status
        response = problem_response(failure)
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return response
    except ConnectionError:
        # The sender went away; there is nobody to tell.
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence; logged under an id
        fault_id = secrets.token_hex(8)
        structlog.get_logger().error("request failed", part="agent", fault_id=fault_id, exc_info=error)
        hint = f"The agent's log has the details under fault_id {fault_id}"
        return problem_response(Internal("this program failed", hint=hint), fault_id=fault_id)
