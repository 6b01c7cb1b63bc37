"""Files handed over by hand: all on disk, or how many are not and why."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from ledger.errors import ConfigError, EncodingError, StoreFull
from telephony import pieces
from telephony.adapters.registry import Adapters
from telephony.dead_letters import DeadLetters
from telephony.feeding import PATIENCE_S, AgentConnection, Answered, Outcome, SpoolSink, UrlSink, error_of, feed
from telephony.spool import Spool

KAMAILIO = Adapters().by_name["kamailio"]
CDR = b'{"call_id":"c%d","from_tag":"f","start_time":"10","end_time":"11"}'
BAD = b'{"call_id":"c","from_tag":"f","start_time":"10"}'


class Disk:
    """A spool and its dead letters."""

    def __init__(self, directory: Path) -> None:
        self.spool = Spool(directory, reserve_bytes=0)
        self.dead = DeadLetters(directory)
        self.sink = SpoolSink(KAMAILIO, self.spool, self.dead, now_ms=lambda: 7)

    def documents(self) -> list[bytes]:
        return [frame.document for frame in self.spool.read(self.spool.cursor, count_max=1000).frames]


def feed_lines(sink: SpoolSink | UrlSink, *lines: bytes) -> Outcome:
    return feed(KAMAILIO, io.BytesIO(b"\n".join(lines)).read, sink)


def test_all_are_in_the_spool(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    outcome = feed_lines(disk.sink, *(CDR % number for number in range(250)))
    assert (outcome, error_of(outcome)) == (Outcome(kept=250), None)
    assert disk.documents() == [CDR % number for number in range(250)]


def test_what_cannot_be_read_is_a_dead_letter(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    outcome = feed_lines(disk.sink, CDR % 1, BAD, b"{x", CDR % 2)
    assert (outcome.kept, outcome.dead, outcome.left, len(outcome.faults)) == (2, 2, 0, 2)
    assert disk.documents() == [CDR % 1, CDR % 2]
    assert sorted(letter.data for letter in disk.dead) == sorted([BAD, b"{x"])
    error = error_of(outcome)
    assert error is not None
    assert error.what == "of 4 records 2 are on disk; 2 cannot be read and are dead letters"


def test_a_disk_that_fills_up_leaves_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_ROWS", 2)
    disk = Disk(tmp_path)
    real_append, calls = disk.spool.append, []

    def append(*arguments: object, **more: int) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise StoreFull("the disk is full")
        real_append(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(disk.spool, "append", append)
    outcome = feed_lines(disk.sink, *(CDR % number for number in range(7)))
    assert (outcome.kept, outcome.left, outcome.failure, len(calls)) == (2, 5, "the disk is full", 2)
    error = error_of(outcome)
    assert error is not None
    assert error.what == "of 7 records 2 are on disk; 5 are still with you, for the disk is full"


def test_another_kind_of_file_leaves_nothing(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    with pytest.raises(EncodingError, match="not JSON"):
        feed_lines(disk.sink, b"id,begin,end", b"1,2,3")
    assert (disk.documents(), list(disk.dead)) == ([], [])


class Agent:
    """An agent that answers as told, then 202."""

    def __init__(self, *answers: Answered) -> None:
        self.answers = list(answers)
        self.bodies: list[bytes] = []
        self.now_s = 0.0

    def post(self, body: bytes, media_type: str) -> Answered:
        assert media_type == "application/json"
        self.bodies.append(body)
        return self.answers.pop(0) if self.answers else Answered(202, b"{}")

    def pause(self, seconds: float) -> None:
        self.now_s += seconds

    def sink(self) -> UrlSink:
        return UrlSink(KAMAILIO, self.post, steady_s=lambda: self.now_s, pause=self.pause)


def problem(status: int, *results: int) -> Answered:
    document = {"status": status, "detail": "why not", "results": [_result(one) for one in results]}
    if not results:
        del document["results"]
    return Answered(status, json.dumps(document).encode())


def _result(status: int) -> object:
    return {"status": status} if status == 202 else {"status": status, "problem": {"detail": f"told {status}"}}


def test_an_agent_gets_arrays() -> None:
    agent = Agent()
    assert feed_lines(agent.sink(), CDR % 1, CDR % 2) == Outcome(kept=2)
    assert agent.bodies == [b"[" + CDR % 1 + b"," + CDR % 2 + b"]"]


def test_an_agent_names_the_bad_ones() -> None:
    agent = Agent(problem(422, 202, 400, 202))
    outcome = feed_lines(agent.sink(), CDR % 1, CDR % 2, CDR % 3)
    assert (outcome.kept, outcome.dead, outcome.faults) == (2, 1, ["from line 1: told 400"])


def test_a_row_that_is_none_costs_the_others_nothing() -> None:
    agent = Agent(Answered(202, b""), problem(400), Answered(202, b""))
    outcome = feed_lines(agent.sink(), CDR % 1, b"{x", CDR % 2)
    assert agent.bodies == [b"[" + CDR % 1 + b"]", b"[{x]", b"[" + CDR % 2 + b"]"]
    assert (outcome.kept, outcome.dead, outcome.left) == (2, 1, 0)


@pytest.mark.parametrize("status", [0, 429, 503, 507])
def test_an_agent_that_is_busy_is_asked_again(status: int) -> None:
    agent = Agent(*[Answered(status, b"x")] * 3)
    assert feed_lines(agent.sink(), CDR % 1).kept == 1
    agent = Agent(*[Answered(status, b"x")] * 100)
    outcome = feed_lines(agent.sink(), CDR % 1, CDR % 2)
    assert (outcome.kept, outcome.left) == (0, 2)
    assert agent.now_s == PATIENCE_S
    assert "the agent cannot take them now" in outcome.failure


@pytest.mark.parametrize("status", [301, 401, 403, 404, 415])
def test_an_agent_that_will_never_take_them_is_asked_once(status: int) -> None:
    agent = Agent(problem(status))
    outcome = feed_lines(agent.sink(), CDR % 1)
    assert (outcome.left, len(agent.bodies)) == (1, 1)
    assert outcome.failure == f"the agent does not take them: HTTP {status}: why not"


@pytest.mark.parametrize("url", ["", "host:80", "ftp://host", "http://h/path", "http://u:p@h", "http://h:99999999"])
def test_a_wrong_address_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match="http://HOST:PORT"):
        AgentConnection(url, "kamailio", "")
