"""Errors as RFC 9457 problem documents: what happened, where, what was expected, what to do. Never a traceback.

``type`` is ``urn:ledgerd:problem:`` and the error's code, listed in docs/api.md, "Errors".
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from ledger.errors import (
    BadSignature,
    ConfigError,
    EncodingError,
    FieldError,
    InvalidTransaction,
    LedgerError,
    NonCanonicalEncoding,
    RuleViolation,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreVersion,
    UnusableTransaction,
)
from node.logs import get_log, trace_of

PROBLEM_TYPE: Final = "application/problem+json"
URN: Final = "urn:ledgerd:problem:"
RETRY_AFTER_S: Final = 5
"""What a client is told to wait where the fault is ours and may pass."""


class ApiError(LedgerError):
    """Something about the request itself, not about what it carries."""

    code = "request"
    status = 400


class Unauthorized(ApiError):
    """No token, or none that is known here."""

    code = "unauthorized"
    status = 401


class Forbidden(ApiError):
    """A token without the role."""

    code = "forbidden"
    status = 403


class NotFound(ApiError):
    """Nothing under this address."""

    code = "not-found"
    status = 404


class MethodNotAllowed(ApiError):
    """The address is right, the method is not."""

    code = "method-not-allowed"
    status = 405


class OtherContent(ApiError):
    """A record was handed in before with other content."""

    code = "other-content"
    status = 409


class TooLarge(ApiError):
    """A body beyond its bound."""

    code = "too-large"
    status = 413


class UnsupportedMediaType(ApiError):
    """A body of another type than this address takes."""

    code = "unsupported-media-type"
    status = 415


class UnknownHost(ApiError):
    """A Host header that this node does not answer to: a page elsewhere may be behind it."""

    code = "unknown-host"
    status = 421


class NotAllKept(ApiError):
    """Some records of several were refused; the others are on disk."""

    code = "not-all-kept"
    status = 422


class Overloaded(ApiError):
    """More than the node can take at this moment."""

    code = "overloaded"
    status = 503


class TooEarly(ApiError):
    """A call that ends shortly after now: the platform's clock is ahead, and the record will do when time is up."""

    code = "too-early"
    status = 503


class NotSigned(ApiError):
    """The node's own transaction was refused, though every record in it is good: its key, most likely."""

    code = "not-signed"
    status = 503


class NotConfigured(ApiError):
    """The node lacks a key, secret or profile that this needs."""

    code = "not-configured"
    status = 503


class Internal(ApiError):
    """A fault of this program."""

    code = "internal"
    status = 500


_STATUS: Final[dict[type[LedgerError], int]] = {
    EncodingError: 400,
    InvalidTransaction: 422,
    UnusableTransaction: 422,
    StoreFull: 507,
    StoreError: 503,
    ConfigError: 503,
}
"""By the nearest class in the tree; everything else that the ledger raises is a fault of this program."""

TITLES: Final[dict[type[LedgerError], str]] = {
    EncodingError: "Not what this should be",
    NonCanonicalEncoding: "Not the canonical encoding",
    FieldError: "A field is wrong",
    InvalidTransaction: "The transaction is invalid",
    BadSignature: "The signature is not good",
    RuleViolation: "The record contradicts itself",
    UnusableTransaction: "The record or transaction does not fit the chain now",
    StoreError: "The disk does not do what was asked",
    StoreFull: "The disk is full",
    StoreDamaged: "The store is damaged",
    StoreLocked: "The store is in use",
    StoreVersion: "The store is of another version",
    ConfigError: "The node is not set up for this",
    ApiError: "The request cannot be served",
    Unauthorized: "A token is needed",
    Forbidden: "The token lacks the role",
    NotFound: "Not found",
    MethodNotAllowed: "Method not allowed",
    OtherContent: "Handed in before with other content",
    TooLarge: "The body is too large",
    UnsupportedMediaType: "Unsupported media type",
    UnknownHost: "Unknown host",
    NotAllKept: "Some records were refused",
    Overloaded: "Overloaded",
    TooEarly: "The call ends in the future",
    NotSigned: "The node's own transaction was refused",
    NotConfigured: "The node is not set up for this",
    Internal: "A fault of this program",
}
"""For a person, one for each code; a test holds them against docs/api.md."""


def status_of(error: LedgerError) -> int:
    """Return the HTTP status that fits an error."""
    if isinstance(error, ApiError):
        return error.status
    if error.code == Overloaded.code:
        return Overloaded.status
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def problem_of(error: LedgerError) -> dict[str, Any]:
    """Return the problem document of an error."""
    title = next((TITLES[kind] for kind in type(error).__mro__ if kind in TITLES), "A fault of this program")
    document: dict[str, Any] = {
        "type": URN + error.code,
        "title": title,
        "status": status_of(error),
        "detail": error.sentence(),
    }
    if isinstance(error, RuleViolation):
        document["rule"] = error.rule
    facts = {"field": error.where, "expected": error.expected, "actual": error.actual, "hint": error.hint}
    document.update({name: value for name, value in facts.items() if value})
    return document


def problem_response(error: LedgerError, **more: Any) -> web.Response:
    """Return the response that reports an error; ``more`` are further members of the document."""
    document = {**problem_of(error), **more}
    status = document["status"]
    headers = {}
    if status in {503, 507}:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="ledgerd"'
    return json_response(document, status=status, content_type=PROBLEM_TYPE, headers=headers)


def json_response(
    value: Any, *, status: int = 200, content_type: str = "application/json", headers: dict[str, str] | None = None
) -> web.Response:
    """Return a JSON response."""
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=content_type, headers=headers)


@web.middleware
async def problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn every error into a problem document."""
    try:
        return await handler(request)
    except LedgerError as error:
        if status_of(error) != 500:
            return problem_response(error)
        return _internal(request, error)
    except web.HTTPException as error:
        return _from_http(error)
    except ConnectionError:
        # The client went away; there is nobody to tell.
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence; logged with an id
        return _internal(request, error)


def _from_http(error: web.HTTPException) -> web.StreamResponse:
    """Return aiohttp's own errors in our form."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        response = problem_response(
            MethodNotAllowed("this address takes another method", where="method", expected=allowed, actual=error.method)
        )
        response.headers["Allow"] = allowed
        return response
    if error.status == 404:
        hint = "The addresses are listed in /openapi.json"
        return problem_response(NotFound("there is nothing under this address", where="path", hint=hint))
    if error.status == 413:
        return problem_response(TooLarge("the body is too large"))
    if error.status < 400:
        raise error
    failure = ApiError(error.reason)
    return problem_response(failure, status=error.status)


def _internal(request: web.Request, error: Exception) -> web.Response:
    """Log a fault under an id and answer with the id alone."""
    fault_id = secrets.token_hex(8)
    route = request.match_info.route.resource
    get_log("api").error(
        "request failed",
        fault_id=fault_id,
        method=request.method,
        route=str(route and route.canonical),
        # Without the error's words, which may be a private field.
        traceback=trace_of(error),
    )
    return problem_response(
        Internal("this program failed", hint=f"The log of the node has the details under fault_id {fault_id}"),
        fault_id=fault_id,
    )
