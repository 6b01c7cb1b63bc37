"""A client of a node's HTTP API, for the command line, demonstrations and tests. Blocking, standard library only.

Source: docs/api.md.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from ledger.errors import ConfigError, LedgerError

DEFAULT_URL: Final = "http://127.0.0.1:8080"
TIMEOUT_S: Final = 30.0
RECORDS_PER_REQUEST: Final = 1_000
"""What a node takes at once."""
RESPONSE_BYTES_MAX: Final = 256 * 1024 * 1024
SETTLED_STATES: Final = frozenset({"final", "void", "expired"})
"""Promises that do not change any more."""
POLL_S: Final = 0.2


class ApiFault(LedgerError):
    """A node refused, or could not be asked; ``status`` is the HTTP status, 0 without an answer."""

    code = "api"

    def __init__(self, what: str, *, status: int, problem: dict[str, Any] | None = None, **facts: Any) -> None:
        self.status = status
        self.problem = problem or {}
        super().__init__(what, **facts)


@dataclass(frozen=True, slots=True)
class Handed:
    """What became of one record handed in.

    Attributes:
        outcome: ``stored``, ``already stored`` or ``refused``.
        tx_id: hex; empty where refused.
        index: within the transaction.
        problem: why it was refused, as an RFC 9457 document.
        warnings: what was left out of it.
    """

    outcome: str
    tx_id: str = ""
    index: int = 0
    problem: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()


class Client:
    """Asks one node.

    Attributes:
        url: base address, without a path.
    """

    def __init__(self, url: str = DEFAULT_URL, token: str = "", *, timeout_s: float = TIMEOUT_S) -> None:
        """Check the address. Raises ConfigError."""
        self.url = url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        try:
            parts = urlsplit(self.url)
            self._host, self._port = parts.hostname or "", parts.port
            is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.path
        except ValueError:
            is_good = False
        if not is_good:
            raise ConfigError("not the address of an API", where="--url", expected="http://HOST:PORT", actual=url)
        if not (token.isascii() and token.isprintable()):
            raise ConfigError("not a token", where="--token", expected="what ledgerctl token new printed")
        self._is_tls = parts.scheme == "https"

    def get(self, path: str) -> Any:
        """Return the JSON at ``path``. Raises ApiFault."""
        with self._request("GET", path) as response:
            return _decode(response, self.url + path)

    def get_bytes(self, path: str, *, bytes_max: int = RESPONSE_BYTES_MAX) -> bytes:
        """Return the body at ``path`` as it is, cut at ``bytes_max``. Raises ApiFault."""
        with self._request("GET", path) as response:
            body = response.read(bytes_max)
            if response.status != 200:
                raise fault_of(response.status, body, self.url + path)
            return body

    def look(self, path: str, *, bytes_max: int) -> tuple[int, bytes]:
        """Return status and body of whatever answers at ``path``, cut at ``bytes_max``. Raises ApiFault for silence."""
        with self._request("GET", path) as response:
            return response.status, response.read(bytes_max)

    def submit(self, documents: Sequence[Any], *, path: str = "/v1/records") -> list[Handed]:
        """Hand in records (or CDRs, at another ``path``) and return what became of each.

        documents: at most ``RECORDS_PER_REQUEST``. Raises ApiFault where the request as a whole was refused.
        """
        body = json.dumps(list(documents)).encode()
        with self._request("POST", path, body) as response:
            data = response.read(RESPONSE_BYTES_MAX)
            answer = _json_or_none(data)
            results = answer.get("results") if isinstance(answer, dict) else None
            if not isinstance(results, list) or len(results) != len(documents):
                raise fault_of(response.status, data, self.url + path)
            return [_handed(result) for result in results]

    def submit_transaction(self, raw: bytes) -> dict[str, Any]:
        """Hand in a signed transaction; return the node's answer. Raises ApiFault where it was refused."""
        path = "/v1/transactions"
        with self._request("POST", path, raw, content_type="application/msgpack") as response:
            data = response.read(RESPONSE_BYTES_MAX)
            answer = _json_or_none(data)
            if response.status not in {200, 201} or not isinstance(answer, dict):
                raise fault_of(response.status, data, self.url + path)
            return answer

    def post(self, path: str, body: bytes, *, content_type: str) -> Any:
        """Hand in something; return the JSON that answers it. Raises ApiFault."""
        with self._request("POST", path, body, content_type=content_type) as response:
            return _decode(response, self.url + path)

    def record(self, tx_id: str, index: int) -> Any:
        """Return a record with its promise. Raises ApiFault."""
        return self.get(f"/v1/records/{quote(tx_id)}/{index}")

    def wait_for(self, handed: Handed, state: str, *, timeout_s: float) -> str:
        """Return the promise of a record once it is ``state`` or settled; what it was at the end of the time."""
        order = ("stored", "accepted", "included", "final")
        wanted = order[order.index(state) :]
        deadline = time.monotonic() + timeout_s
        while True:
            found = str(self.record(handed.tx_id, handed.index)["promise"]["state"])
            if found in wanted or found in SETTLED_STATES or time.monotonic() >= deadline:
                return found
            time.sleep(POLL_S)

    def is_ready(self) -> bool:
        """Tell whether the node answers at all."""
        try:
            self.get("/v1/head")
        except ApiFault:
            return False
        return True

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield live events until the node ends the stream. Raises ApiFault."""
        with self._request("GET", "/v1/events") as response:
            if response.status != 200:
                raise fault_of(response.status, response.read(RESPONSE_BYTES_MAX), self.url + "/v1/events")
            yield from read_events(response)

    @contextmanager
    def _request(
        self, method: str, path: str, body: bytes | None = None, *, content_type: str = "application/json"
    ) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout_s)
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from None
            try:
                yield response
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from None
        finally:
            connection.close()

    def _unreachable(self, error: Exception) -> ApiFault:
        # The numbers of name resolution are not those of the system: their words come with the error.
        is_system = isinstance(error, OSError) and not isinstance(error, socket.gaierror) and bool(error.errno)
        reason = os.strerror(error.errno or 0) if is_system and isinstance(error, OSError) else ""
        reason = reason or (str(error.args[-1]) if error.args else "")
        return ApiFault(
            f"the node does not answer: {reason or type(error).__name__}",
            status=0,
            where=self.url,
            hint="Is it running, and is this the address that its log names as api?",
        )


def read_events(lines: Iterator[bytes] | http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Yield the JSON of each Server-Sent Event in ``lines``; comments and unknown fields are passed over."""
    data: list[str] = []
    for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text.startswith("data:"):
            data.append(text[5:].removeprefix(" "))
        elif not text and data:
            event = _json_or_none("\n".join(data).encode())
            data = []
            if isinstance(event, dict):
                yield event


def fault_of(status: int, body: bytes, where: str) -> ApiFault:
    """Return the error that an answer other than a success stands for."""
    problem = _json_or_none(body)
    if not isinstance(problem, dict) or "title" not in problem:
        return ApiFault(
            "not the answer of a ledgerd",
            status=status,
            where=where,
            actual=f"status {status}, {len(body)} bytes",
            hint="Is this the address that its log names as api? Peers have another",
        )
    hint = str(problem.get("hint", ""))
    if status in {401, 403} and not hint:
        hint = "Give a token with --token, or in LEDGERCTL_TOKEN"
    return ApiFault(
        what_of(problem),
        status=status,
        problem=problem,
        where=str(problem.get("field", "")),
        expected=problem.get("expected", ""),
        actual=problem.get("actual", ""),
        hint=hint,
    )


def what_of(problem: dict[str, Any]) -> str:
    """Return what a problem document says happened, without the facts that stand beside it."""
    detail = str(problem.get("detail", problem.get("title", "refused")))
    field = str(problem.get("field", ""))
    detail = detail.removeprefix(f"{field}: ") if field else detail
    return detail.split(" (expected ")[0].split(" (found ")[0].removesuffix(". " + str(problem.get("hint", "")))


def _handed(result: Any) -> Handed:
    problem = result.get("problem")
    return Handed(
        outcome=str(result.get("outcome", "refused")),
        tx_id=str(result.get("tx_id", "")),
        index=int(result.get("index", 0)),
        problem=problem if isinstance(problem, dict) else None,
        warnings=tuple(map(str, result.get("warnings", ()))),
    )


def _decode(response: http.client.HTTPResponse, where: str) -> Any:
    body = response.read(RESPONSE_BYTES_MAX)
    if response.status != 200:
        raise fault_of(response.status, body, where)
    try:
        return json.loads(body)
    except ValueError:
        raise fault_of(response.status, body, where) from None


def _json_or_none(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
