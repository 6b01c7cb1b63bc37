"""What the agent answers to whom: paths, tokens, types, and what became of each record."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ledger.errors import LedgerError, StoreError, StoreFull
from telephony.adapters.base import DOCUMENT_BYTES_MAX
from telephony.adapters.registry import Adapters
from telephony.agent_http import AgentApp, media_type_of
from telephony.http_messages import Head, Reply
from telephony.intake import TURN_RECORDS, Intake

CDR = b'{"call_id":"c","from_tag":"f","start_time":"10","end_time":"11"}'
BAD = b'{"call_id":"c","from_tag":"f","start_time":"10"}'


@dataclass
class Token:
    text: str
    roles: list[str]

    @property
    def sha256(self) -> str:
        return sha256(self.text.encode()).hexdigest()


@dataclass
class Writer:
    """A spool writer that fails as told, and answers at once."""

    failure: Exception | None = None
    is_full: bool = False
    written: list[tuple[int, bytes]] = field(default_factory=list)

    def put(self, documents: list[tuple[int, bytes]], done: Callable[[Exception | None], None]) -> None:
        if self.is_full:
            raise StoreError("too slow")
        if self.failure is None:
            self.written += documents
        done(self.failure)

    async def append(self, documents: list[tuple[int, bytes]]) -> None:
        if self.failure is not None:
            raise self.failure
        self.written += documents


class Desk:
    """An agent's application over a writer of its own."""

    def __init__(self) -> None:
        self.writer = Writer()
        self.dead: list[tuple[int, bytes]] = []
        self.has_room = True
        intake = Intake(cast("Any", self.writer), bury=self._bury, has_room=lambda: self.has_room, where=Path("spool"))
        agent = SimpleNamespace(adapters=Adapters(), intake=intake)
        self.intake = intake
        self.app = AgentApp(cast("Any", agent), [Token("good", ["submit"]), Token("reader", ["private"])])

    async def _bury(self, kind: int, dead: list[tuple[bytes, str]]) -> None:
        self.dead += [(kind, document) for document, _ in dead]

    async def ask(self, body: bytes, path: str = "/v1/ingest/kamailio", **changes: str) -> tuple[Reply, Any]:
        headers = {b"authorization": b"Bearer good", b"content-type": b"application/json"}
        method = changes.pop("method", "POST")
        headers.update({name.replace("_", "-").encode(): value.encode() for name, value in changes.items()})
        replies: list[Reply] = []
        head = Head(method, path.encode(), headers)
        try:
            self.app.check_head(head)
        except LedgerError as error:
            replies.append(self.app.reply_to(error))
        else:
            self.app.handle(head, body, replies.append)
            await self.intake.close()
        (reply,) = replies
        return reply, json.loads(reply.body)


async def test_what_is_on_disk_is_accepted() -> None:
    desk = Desk()
    for body, answer in (
        (CDR, {"status": 202, "outcome": "spooled"}),
        (b"[" + CDR + b"," + CDR + b"]", {"results": [{"status": 202, "outcome": "spooled"}] * 2}),
    ):
        reply, found = await desk.ask(body)
        assert (reply.status, found) == (202, answer)
    assert desk.writer.written == [(1, CDR)] * 3
    assert (desk.intake.counters.spooled, desk.intake.counters.refused) == (3, 0)


async def test_how_long_posts_take_is_counted_whatever_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    clock_s = iter((1.0, 1.003, 2.0, 3.5, 4.0, 10.0))
    monkeypatch.setattr("telephony.agent_http.time.perf_counter", lambda: next(clock_s))
    for body, status in ((CDR, 202), (BAD, 400)):
        assert (await desk.ask(body))[0].status == status
    desk.writer.failure = StoreFull("full")
    assert (await desk.ask(CDR))[0].status == 507
    # What is refused by its head, and pages, are none.
    assert (await desk.ask(CDR, authorization="Bearer wrong"))[0].status == 401
    counts = dict(desk.app.answer_s.buckets())
    assert (counts["0.002"], counts["0.005"], counts["1.0"], counts["2.0"], counts["5.0"]) == (0, 1, 1, 2, 2)
    assert (counts["+Inf"], desk.app.answer_s.sum) == (3, pytest.approx(7.503))


async def test_more_than_a_turn_takes_are_spooled_all_the_same() -> None:
    desk = Desk()
    count = TURN_RECORDS * 2 + 1
    reply, found = await desk.ask(b"[" + b",".join([CDR] * count) + b"]")
    assert (reply.status, len(found["results"]), len(desk.writer.written)) == (202, count, count)
    assert desk.intake.counters.spooled == count


async def test_a_bad_one_of_several_is_a_dead_letter_and_the_others_are_kept() -> None:
    desk = Desk()
    reply, found = await desk.ask(b"[" + CDR + b"," + BAD + b"]")
    assert (reply.status, [result["status"] for result in found["results"]]) == (422, [202, 400])
    assert found["results"][1]["problem"]["field"] == "end_time"
    assert (desk.writer.written, desk.dead) == ([(1, CDR)], [(1, BAD)])


@pytest.mark.parametrize(
    ("body", "field_"),
    [
        (BAD, "end_time"),
        (b"[" + BAD + b"]", "end_time"),
        (b"no", "body"),
        (b'{"a":"%s"}' % (b"x" * DOCUMENT_BYTES_MAX), "cdr"),
    ],
)
async def test_a_bad_one_alone_names_its_field(body: bytes, field_: str) -> None:
    desk = Desk()
    reply, found = await desk.ask(body)
    assert (reply.status, found["field"], reply.content_type) == (400, field_, b"application/problem+json")
    assert (len(desk.dead), desk.writer.written) == (1, [])


@pytest.mark.parametrize(
    ("failure", "status"), [(StoreFull("full"), 507), (StoreError("slow"), 503), (RuntimeError("bug"), 500)]
)
@pytest.mark.parametrize("body", [CDR, b"[" + CDR + b"," + BAD + b"]"])
async def test_what_the_disk_refuses_stays_with_the_sender(failure: Exception, status: int, body: bytes) -> None:
    """Nothing of the post is kept, neither in the spool nor among the dead letters."""
    desk = Desk()
    desk.writer.failure = failure
    reply, found = await desk.ask(body)
    assert (reply.status, found["status"]) == (status, status)
    assert ((b"Retry-After", b"5") in reply.headers) == (status != 500)
    assert (desk.writer.written, desk.dead) == ([], [])


async def test_too_much_that_waits_for_the_disk_is_refused() -> None:
    desk = Desk()
    desk.writer.is_full = True
    reply, _ = await desk.ask(CDR)
    assert (reply.status, desk.intake.counters.refused, desk.intake.counters.spooled) == (503, 1, 0)


async def test_a_dead_letter_does_not_take_the_reserve() -> None:
    desk = Desk()
    desk.has_room = False
    reply, _ = await desk.ask(BAD)
    assert (reply.status, desk.dead) == (507, [])


def basic(credentials: str) -> str:
    return base64.b64encode(credentials.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("", 401),
        ("Basic good", 401),
        ("Basic " + basic("freeswitch:good"), 202),
        ("basic " + basic(":good"), 202),
        ("Basic " + basic("good:"), 401),
        ("Basic " + basic("good"), 401),
        ("Basic " + basic("freeswitch:bad"), 401),
        ("Basic " + basic("freeswitch:reader"), 403),
        ("Basic " + basic("x" * 2000 + ":good"), 401),
        ("Bearer ", 401),
        ("Bearer bad", 401),
        ("Bearer " + "x" * 600, 401),
        ("Bearer reader", 403),
        ("bearer  good ", 202),
    ],
)
async def test_who_is_let_in(authorization: str, status: int) -> None:
    """The second time is as the first, although it is remembered."""
    desk = Desk()
    for _ in range(2):
        reply, _ = await desk.ask(CDR, authorization=authorization)
        assert reply.status == status
        assert ((b"WWW-Authenticate", b'Bearer realm="ledger-agent"') in reply.headers) == (status == 401)


@pytest.mark.parametrize(
    ("changes", "status", "field_"),
    [
        ({"content_type": "text/plain"}, 415, "Content-Type"),
        ({"content_type": "application/json; charset=latin-1"}, 415, "Content-Type"),
        ({"content_encoding": "gzip"}, 415, "Content-Encoding"),
        ({"method": "PUT"}, 405, "method"),
        ({"path": "/v1/ingest/none"}, 404, "path"),
        ({"path": "/healthz"}, 405, "method"),
    ],
)
async def test_what_is_not_asked_rightly(changes: dict[str, str], status: int, field_: str) -> None:
    reply, found = await Desk().ask(CDR, **changes)
    assert (reply.status, found["field"]) == (status, field_)


async def test_a_fault_of_ours_is_an_id_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk()
    reply, found = await desk.ask(b"", "/healthz", method="GET")
    assert (reply.status, found["title"]) == (500, "Internal Server Error")
    assert "Traceback" not in reply.body.decode()
    assert found["fault_id"] in capsys.readouterr().out


async def test_every_adapter_has_its_path_and_its_types() -> None:
    desk = Desk()
    for name, adapter in Adapters().by_name.items():
        for media_type in adapter.media_types:
            reply, _ = await desk.ask(b"\x00", f"/v1/ingest/{name}", content_type=f"{media_type}; charset=UTF-8")
            assert reply.status == 400


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"application/json", ("application/json", "utf-8")),
        (b'Application/JSON; charset="UTF-8"', ("application/json", "utf-8")),
        (b"text/xml;a=b; charset=latin-1", ("text/xml", "latin-1")),
        (b"", ("", "utf-8")),
    ],
)
def test_media_types(header: bytes, found: tuple[str, str]) -> None:
    assert media_type_of(header) == found


async def test_posts_at_work_are_waited_for() -> None:
    desk = Desk()
    answers: list[Any] = []
    desk.intake.post(Adapters().by_name["kamailio"], BAD, "application/json", answers.append)
    assert answers == []
    await asyncio.wait_for(desk.intake.close(), 5)
    assert len(answers) == 1
