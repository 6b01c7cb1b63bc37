"""What the agent answers over HTTP: CDRs in, health, metrics. The bodies and answers of a node's own ingest.

Source: docs/agent.md, "Answers".
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Protocol

import msgspec
import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from ledger.errors import EncodingError, LedgerError, StoreError, StoreFull
from telephony.adapters.base import BODY_BYTES_MAX, Adapter
from telephony.agent import Agent
from telephony.histogram import ANSWER_S, Histogram
from telephony.http_messages import Head, Reply, RequestError
from telephony.intake import Taken
from telephony.watching import Watch

URN: Final = "urn:ledgerd:problem:"
RETRY_AFTER_S: Final = 5
"""What a sender is told to wait where the disk refuses."""
TOKEN_BYTES_MAX: Final = 512
ROLE: Final = "submit"
INGEST_PATH: Final = "/v1/ingest/"
"""Before an adapter's name."""


PYTHON: Final = ".".join(map(str, sys.version_info[:3]))


def program_version() -> str:
    """Return the installed version."""
    try:
        return version("ledgerd")
    except PackageNotFoundError:
        return "0+unknown"


class KnownToken(Protocol):
    """A token that the agent takes CDRs for."""

    @property
    def sha256(self) -> str:
        """Return the hash of its text, in hex."""

    @property
    def roles(self) -> list[str]:
        """Return what it may do."""


class Unauthorized(RequestError):
    """No token, or none that is known here."""

    code = "unauthorized"
    status = 401


class Forbidden(RequestError):
    """A token without the role."""

    code = "forbidden"
    status = 403


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


class NotFound(RequestError):
    """No such path."""

    code = "request"
    status = 404


class WrongMethod(RequestError):
    """A path that is asked in another way."""

    code = "request"
    status = 405


class AgentApp:
    """The paths of an agent, behind an ``HttpServer``; CDRs need one of ``tokens`` with the role submit.

    Attributes:
        answer_s: how long posts took, from the last of their bytes to the answer, in seconds.
    """

    body_bytes_max: Final = BODY_BYTES_MAX

    def __init__(self, agent: Agent, tokens: Sequence[KnownToken], watches: Sequence[Watch] = ()) -> None:
        self._agent = agent
        self._adapters = {f"{INGEST_PATH}{name}".encode(): adapter for name, adapter in agent.adapters.by_name.items()}
        self._door = Door(tokens)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.answer_s = Histogram(ANSWER_S)
        self._registry.register(Metrics(agent, watches, self.answer_s))
        self._pages = {b"/healthz": self._health, b"/metrics": self._metrics}

    def check_head(self, head: Head) -> None:
        """Raise where a request is refused whatever its body: path, method, token or type do not fit."""
        adapter = self._adapters.get(head.path)
        if adapter is not None:
            if head.method != "POST":
                raise WrongMethod("another method is needed", where="method", expected="POST", actual=head.method)
            self._door.check(head.headers.get(b"authorization", b""))
            check_type(adapter, head.headers)
        elif head.path not in self._pages:
            paths = ", ".join(path.decode() for path in [*self._adapters, *self._pages])
            raise NotFound("nothing here", where="path", expected=paths)
        elif head.method not in {"GET", "HEAD"}:
            raise WrongMethod("another method is needed", where="method", expected="GET", actual=head.method)

    def handle(self, head: Head, body: bytes, answer: Callable[[Reply], None]) -> None:
        """Answer a request whose head was found good."""
        try:
            adapter = self._adapters.get(head.path)
            if adapter is None:
                answer(self._pages[head.path]())
                return
            media_type, _ = media_type_of(head.headers.get(b"content-type", b""))
            began_s = time.perf_counter()

            def tell(taken: Taken | Exception) -> None:
                answer(self._reply_to_taken(taken))
                self.answer_s.observe(time.perf_counter() - began_s)

            self._agent.intake.post(adapter, body, media_type, tell)
        except Exception as error:  # noqa: BLE001 - the last line of defence; logged under an id
            answer(reply_to_fault(error))

    def reply_to(self, error: LedgerError) -> Reply:
        """Return the problem document of an error."""
        return problem_reply(error)

    def _reply_to_taken(self, taken: Taken | Exception) -> Reply:
        if isinstance(taken, LedgerError):
            return problem_reply(taken)
        if isinstance(taken, Exception):
            return reply_to_fault(taken)
        return answer_to(taken)

    def _health(self) -> Reply:
        agent = self._agent
        is_well = agent.has_room and agent.failure is None
        health = {
            "status": "ok" if is_well else "full" if agent.failure is None else "failed",
            "backlog": agent.backlog,
            "oldest_age_ms": agent.oldest_age_ms,
            "dead_letters": agent.dead,
            "nodes_failing": sum(failures > 0 for failures in agent.failing.values()),
            "disk_free_bytes": agent.disk_free_bytes,
            "version": program_version(),
        }
        return Reply(200 if is_well else 503, msgspec.json.encode(health))

    def _metrics(self) -> Reply:
        return Reply(200, generate_latest(self._registry), b"text/plain; version=0.0.4; charset=utf-8")


class Metrics:
    """The agent's figures, as Prometheus reads them."""

    def __init__(self, agent: Agent, watches: Sequence[Watch] = (), answer_s: Histogram | None = None) -> None:
        """``answer_s`` has how long answers to posts took, in seconds."""
        self._agent = agent
        self._watches = watches
        self._answer_s = answer_s or Histogram(ANSWER_S)

    def collect(self) -> Iterator[Metric]:
        """Return the figures of this moment."""
        agent, counters = self._agent, self._agent.counters
        yield InfoMetricFamily("ledger_agent_build", "The program", {"version": program_version(), "python": PYTHON})
        counts = (
            ("spooled", "Records taken in, on disk", agent.intake.counters.spooled),
            ("built", "Records signed", agent.built),
            ("warned", "Records signed without something their documents told", agent.warned),
            ("known", "Documents that came again: their records were there", agent.known),
            ("stored", "Records that a node has taken", agent.stored),
            ("final", "Records that became final, void ones included", agent.final),
            ("void", "Final records that do not count: the ledger had them already", agent.void),
            ("resigned", "Records signed once more", agent.resigned),
            ("refused", "Records answered 503 or 507: the sender has them", agent.intake.counters.refused),
            ("retried", "Dead letters put back into the spool", counters.retried),
        )
        for name, text, count in counts:
            yield CounterMetricFamily(f"ledger_agent_{name}_records", text, value=count)
        dead = CounterMetricFamily("ledger_agent_dead_records", "Records that became dead letters", labels=["stage"])
        for stage, count in counters.buried.items():
            dead.add_metric([stage], count)
        yield dead
        flagged = CounterMetricFamily(
            "ledger_agent_flagged_records", "Records signed in which something is suspicious", labels=["flag"]
        )
        for flag, count in agent.flagged.items():
            flagged.add_metric([flag], count)
        yield flagged
        gauges = (
            ("backlog_records", "Documents and records that are not final", agent.backlog),
            ("waiting_documents", "Of these, documents that wait for others of their call", agent.waiting),
            ("oldest_age_seconds", "Age of the oldest of them", agent.oldest_age_ms / 1000),
            ("dead_letters", "Dead letters that wait for a person", agent.dead),
            ("disk_free_bytes", "Room on the disk of the spool", agent.disk_free_bytes),
            ("has_room", "1 while the disk has room for more", int(agent.has_room)),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"ledger_agent_{name}", text, value=value)
        failing = GaugeMetricFamily("ledger_agent_node_failures", "Failures in a row of each node", labels=["node"])
        for node, failures in agent.failing.items():
            failing.add_metric([node], failures)
        yield failing
        yield HistogramMetricFamily(
            "ledger_agent_ingest_duration_seconds",
            "From a post that is whole to its answer",
            buckets=self._answer_s.buckets(),
            sum_value=self._answer_s.sum,
        )
        if self._watches:
            yield from self._of_watches()

    def _of_watches(self) -> Iterator[Metric]:
        files = CounterMetricFamily(
            "ledger_agent_watch_files", "Files that are finished, by how they ended", labels=["watch", "outcome"]
        )
        documents = CounterMetricFamily(
            "ledger_agent_watch_records", "Records read from files, by what became of them", labels=["watch", "outcome"]
        )
        waiting = {
            unit: GaugeMetricFamily(f"ledger_agent_watch_waiting_{unit}", text, labels=["watch"])
            for unit, text in (
                ("files", "Files of a folder that are to be read"),
                ("bytes", "Bytes of a followed file that are to be read"),
            )
        }
        failing = GaugeMetricFamily(
            "ledger_agent_watch_failing", "1 while nothing can be taken in from there", labels=["watch"]
        )
        for watch in self._watches:
            counters = watch.counters
            files.add_metric([watch.name, "done"], counters.done)
            files.add_metric([watch.name, "failed"], counters.failed)
            documents.add_metric([watch.name, "spooled"], counters.documents)
            documents.add_metric([watch.name, "dead"], counters.refused)
            waiting[counters.waiting_unit].add_metric([watch.name], counters.waiting)
            failing.add_metric([watch.name], int(counters.is_failing))
        yield from (files, documents, *waiting.values(), failing)


class Door:
    """Tells whose requests are let in, by their bearer tokens."""

    def __init__(self, tokens: Sequence[KnownToken]) -> None:
        self._known = [(token.sha256.lower().encode(), ROLE in token.roles) for token in tokens]
        self._seen: dict[bytes, bool] = {}

    def check(self, authorization: bytes) -> None:
        """Raise Unauthorized without a known token, Forbidden for one that may not hand in records.

        Some platforms know names and passwords only (FreeSWITCH's ``cred``): then the token is the password.
        """
        scheme, _, text = authorization.partition(b" ")
        if scheme.lower() == b"basic" and len(text) <= 2 * TOKEN_BYTES_MAX:
            scheme, text = b"bearer", password_of(text)
        if scheme.lower() != b"bearer" or not text or len(text) > TOKEN_BYTES_MAX:
            raise Unauthorized("this needs a token", where="Authorization", expected=f"Bearer TOKEN with role {ROLE}")
        digest = sha256(text.strip()).digest()
        # By its digest, which nobody can steer: how long the search takes tells nothing. At most one entry a token.
        may_submit = self._seen.get(digest)
        if may_submit is None:
            may_submit = self._seen[digest] = self._look_up(digest.hex().encode())
        if not may_submit:
            raise Forbidden("the token lacks the role", where="Authorization", expected=f"role {ROLE}")

    def _look_up(self, digest: bytes) -> bool:
        # All are compared, each in the same time: how long it takes tells nothing.
        found = [may_submit for token, may_submit in self._known if hmac.compare_digest(token, digest)]
        if not found:
            raise Unauthorized("the token is not known here", where="Authorization")
        return any(found)


def password_of(credentials: bytes) -> bytes:
    """Return the password in the credentials of Basic authentication (RFC 7617), empty for what are none."""
    try:
        return base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def check_type(adapter: Adapter, headers: Mapping[bytes, bytes]) -> None:
    """Raise UnsupportedMediaType for a body that the adapter does not read."""
    media_type, charset = media_type_of(headers.get(b"content-type", b""))
    if media_type not in adapter.media_types or charset not in {"utf-8", "utf8"}:
        raise UnsupportedMediaType(
            "another type is needed",
            where="Content-Type",
            expected=" | ".join(sorted(adapter.media_types)),
            actual=headers.get(b"content-type", b"none").decode("latin-1"),
        )
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("bodies come as they are", where="Content-Encoding", expected="identity")


@lru_cache(256)
def media_type_of(content_type: bytes) -> tuple[str, str]:
    """Return media type and charset of a Content-Type header, in small letters; ``utf-8`` where it names none."""
    media_type, *parameters = content_type.decode("latin-1").lower().split(";")
    charset = "utf-8"
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset":
            charset = value.strip().strip('"')
    return media_type.strip(), charset


def answer_to(taken: Taken) -> Reply:
    """Return the answer to a post whose good records are spooled and whose bad ones are dead letters."""
    faults, is_array = taken
    errors = [fault for fault in faults if fault is not None]
    if not errors:
        return Reply(202, spooled_body(len(faults) if is_array else 0))
    if not is_array:
        return problem_reply(errors[0])
    error = errors[0]
    if len(faults) > 1:
        error = NotAllKept(
            f"{len(errors)} of {len(faults)} were refused and are dead letters, the others are on disk",
            hint="See ledger-agent dead list; all may be handed in again, none counts twice",
        )
    return problem_reply(error, results=[_result(fault) for fault in faults])


@lru_cache(64)
def spooled_body(count: int) -> bytes:
    """Return the body of the answer to an array of which all was kept; 0: to a single document."""
    return msgspec.json.encode({"results": [_result(None)] * count} if count else _result(None))


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


def problem_reply(error: LedgerError, **more: Any) -> Reply:
    """Return the answer that reports an error; ``more`` are further members of the document."""
    document = {**problem_of(error), **more}
    headers = []
    if document["status"] in {503, 507}:
        headers.append((b"Retry-After", b"%d" % RETRY_AFTER_S))
    if document["status"] == 401:
        headers.append((b"WWW-Authenticate", b'Bearer realm="ledger-agent"'))
    if isinstance(error, WrongMethod):
        headers.append((b"Allow", error.expected.encode()))
    return Reply(document["status"], msgspec.json.encode(document), b"application/problem+json", headers)


def reply_to_fault(error: Exception) -> Reply:
    """Return the answer where this program failed; the log has the details."""
    fault_id = secrets.token_hex(8)
    structlog.get_logger().error("request failed", part="agent", fault_id=fault_id, exc_info=error)
    hint = f"The agent's log has the details under fault_id {fault_id}"
    return problem_reply(Internal("this program failed", hint=hint), fault_id=fault_id)
