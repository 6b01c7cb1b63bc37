"""The agent's HTTP server: requests in any pieces, bounds on everything, answers in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import LedgerError
from telephony import http_server
from telephony.http_messages import HEAD_BYTES_MAX, HEADERS_MAX, Head, Reply, RequestError, path_of
from telephony.http_server import HttpServer, _Connection

BODY_BYTES_MAX = 100


class Echo:
    """Answers with what it got: at once, or when told to."""

    body_bytes_max = BODY_BYTES_MAX

    def __init__(self) -> None:
        self.is_slow = False
        self.heads: list[Head] = []
        self.later: list[tuple[bytes, Callable[[Reply], None]]] = []

    def check_head(self, head: Head) -> None:
        self.heads.append(head)
        if head.path == b"/forbidden":
            raise RequestError("not this one", where="path")

    def handle(self, head: Head, body: bytes, answer: Callable[[Reply], None]) -> None:
        if self.is_slow:
            self.later.append((body, answer))
        else:
            answer(Reply(200, head.path + b" " + body, b"text/plain"))

    def reply_to(self, error: LedgerError) -> Reply:
        return Reply(getattr(error, "status", 500), error.sentence().encode())


class Pipe:
    """The transport of one connection."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = self.is_ended = self.is_aborted = False
        self.is_reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_ended = True

    def pause_reading(self) -> None:
        assert self.is_reading
        self.is_reading = False

    def resume_reading(self) -> None:
        assert not self.is_reading
        self.is_reading = True

    @property
    def answers(self) -> list[tuple[int, str]]:
        """Return status and body of what was written."""
        found, rest = [], self.written
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]) if b"Content-Length" in head else 0
            found.append((int(head.split()[1]), rest[:length].decode()))
            rest = rest[length:]
        return found


class Peer:
    """A connection to a server over an echo."""

    def __init__(self) -> None:
        self.echo = Echo()
        self.server = HttpServer(self.echo)
        self.connection, self.pipe = self.connect()

    def connect(self) -> tuple[_Connection, Pipe]:
        connection, pipe = _Connection(self.server), Pipe()
        connection.connection_made(cast("Any", pipe))
        return connection, pipe

    def send(self, *parts: bytes) -> list[tuple[int, str]]:
        for part in parts:
            self.connection.data_received(part)
        return self.pipe.answers


def post(body: bytes, path: str = "/a", *headers: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers)
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(places)]


@given(st.lists(st.integers(0, 10_000), max_size=6))
def test_requests_in_any_pieces_are_the_same_requests(cuts: list[int]) -> None:
    peer = Peer()
    chunked = b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n"
    stream = post(b"one") + b"GET /two?uuid=1 HTTP/1.1\r\n\r\n" + chunked + post(b"")
    answers = peer.send(*pieces(stream, cuts))
    assert answers == [(200, "/a one"), (200, "/two "), (200, "/c abcde"), (200, "/a ")]
    assert (peer.server.body_bytes, peer.pipe.is_closed) == (0, False)


def test_byte_by_byte() -> None:
    peer = Peer()
    assert peer.send(*(bytes([byte]) for byte in post(b"xyz") * 2)) == [(200, "/a xyz")] * 2


async def test_answers_come_in_the_order_of_requests_and_reading_stops_meanwhile() -> None:
    peer = Peer()
    peer.echo.is_slow = True
    assert peer.send(post(b"1") + post(b"2") + b"POST", b" /") == []
    assert (len(peer.echo.later), peer.pipe.is_reading) == (1, False)
    for number in (b"1", b"2"):
        body, answer = peer.echo.later.pop()
        assert body == number
        answer(Reply(202, body))
        await settle()
    assert peer.pipe.answers == [(202, "1"), (202, "2")]
    assert peer.pipe.is_reading
    peer.echo.is_slow = False
    assert peer.send(post(b"3")[len(b"POST /") :])[2:] == [(200, "/a 3")]
    assert peer.server.body_bytes == 0


async def test_a_peer_that_does_not_read_gets_no_more_answers() -> None:
    peer = Peer()
    peer.connection.pause_writing()
    assert peer.send(post(b"1")) == []
    peer.connection.resume_writing()
    assert peer.pipe.answers == [(200, "/a 1")]


async def test_a_peer_that_stopped_sending_is_answered_all_the_same() -> None:
    peer = Peer()
    peer.echo.is_slow = True
    peer.send(post(b"1") + post(b"2"))
    assert peer.connection.eof_received()
    for _ in range(2):
        peer.echo.later.pop()[1](Reply(202, b""))
        await settle()
    assert [status for status, _ in peer.pipe.answers] == [202, 202]
    assert peer.pipe.is_closed


async def test_who_has_gone_is_not_answered() -> None:
    peer = Peer()
    peer.echo.is_slow = True
    peer.send(post(b"1"))
    peer.connection.connection_lost(None)
    peer.echo.later.pop()[1](Reply(202, b""))
    await settle()
    assert (peer.pipe.written, peer.server.body_bytes) == (b"", 0)


@pytest.mark.parametrize(
    ("request_", "is_last"),
    [
        (post(b"x"), False),
        (post(b"x", "/a", "Connection: close"), True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
def test_a_connection_ends_when_the_request_says_so(request_: bytes, *, is_last: bool) -> None:
    peer = Peer()
    assert [status for status, _ in peer.send(request_)] == [200]
    assert (peer.pipe.is_closed, b"Connection: close" in peer.pipe.written) == (is_last, is_last)


def test_the_answer_to_head_has_no_body() -> None:
    peer = Peer()
    peer.send(b"HEAD /a HTTP/1.1\r\n\r\n")
    assert peer.pipe.written.endswith(b"Content-Length: 3\r\n\r\n")


def test_who_asks_first_hears_that_the_body_may_come() -> None:
    peer = Peer()
    head, body = post(b"x" * 9, "/a", "Expect: 100-continue")[:-9], b"x" * 9
    peer.send(head)
    assert peer.pipe.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert peer.send(body) == [(100, ""), (200, "/a " + "x" * 9)]


def test_who_asks_first_and_is_refused_need_not_send_the_body() -> None:
    peer = Peer()
    peer.send(post(b"x", "/forbidden", "Expect: 100-continue")[:-1])
    assert [status for status, _ in peer.pipe.answers] == [400]
    assert peer.pipe.is_ended


def test_a_refused_request_leaves_the_connection_in_order() -> None:
    peer = Peer()
    answers = peer.send(post(b"abc", "/forbidden") + post(b"1"))
    assert answers == [(400, "path: not this one"), (200, "/a 1")]
    assert peer.server.body_bytes == 0


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (post(b"x" * (BODY_BYTES_MAX + 1)), 413),
        (post(b"")[:-2].replace(b"Length: 0", b"Length: 99999999999") + b"\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 0x65, 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 60, 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: " + b"x" * 400, 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /" + b"a" * HEAD_BYTES_MAX + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (HEADERS_MAX + 1) + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"FOO / HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
@pytest.mark.parametrize("in_bytes", [False, True])
def test_what_is_beyond_the_bounds_is_refused(stream: bytes, status: int, *, in_bytes: bool) -> None:
    peer = Peer()
    answers = peer.send(*(bytes([byte]) for byte in stream)) if in_bytes else peer.send(stream)
    assert [status for status, _ in answers] == [status]
    assert peer.send(post(b"x"))[1:] in ([], [(200, "/a x")])
    assert peer.server.body_bytes == 0


def test_a_head_that_never_ends_is_not_kept() -> None:
    peer = Peer()
    sent = 0
    while not peer.pipe.written and sent < 10 * HEAD_BYTES_MAX:
        sent += 1000
        peer.send(b"GET /" + b"a" * 995 if sent == 1000 else b"a" * 1000)
    assert [status for status, _ in peer.pipe.answers] == [431]
    assert sent < 2 * HEAD_BYTES_MAX


def test_all_bodies_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "BODIES_BYTES_MAX", 150)
    peer = Peer()
    peer.send(post(b"x" * 90)[:-1])
    _, other = connection, pipe = peer.connect()
    connection.data_received(post(b"x" * 90))
    assert [status for status, _ in other.answers] == [503]
    assert peer.send(b"x") == [(200, "/a " + "x" * 90)]
    connection.data_received(post(b"x" * 90))
    assert [status for status, _ in pipe.answers] == [503, 200]
    assert peer.server.body_bytes == 0


def test_more_connections_than_places_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS_MAX", 2)
    peer = Peer()
    _, second = peer.connect()
    connection, third = peer.connect()
    assert (second.is_aborted, third.is_aborted) == (False, True)
    connection.connection_lost(None)
    peer.connection.connection_lost(None)
    assert not peer.connect()[1].is_aborted


@pytest.mark.parametrize(
    ("sent", "late_s", "status"),
    [
        (b"", http_server.KEEP_ALIVE_S, None),
        (post(b"x"), http_server.KEEP_ALIVE_S, 200),
        (b"POST / HT", http_server.REQUEST_S, 408),
        (post(b"x" * 9)[:-1], http_server.REQUEST_S, 408),
    ],
)
def test_who_is_late_is_told_and_ended(
    monkeypatch: pytest.MonkeyPatch, sent: bytes, late_s: float, status: int | None
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("telephony.http_server.time.monotonic", lambda: clock[0])
    peer = Peer()
    peer.send(sent)
    clock[0] += late_s - 1
    peer.connection.look(clock[0])
    assert (peer.pipe.is_closed, peer.pipe.is_ended) == (False, False)
    clock[0] += 2
    peer.connection.look(clock[0])
    assert [found for found, _ in peer.pipe.answers] == ([] if status is None else [status])
    clock[0] += http_server.LINGER_S + 1
    peer.connection.look(clock[0])
    assert peer.pipe.is_closed


def test_who_does_not_read_its_answers_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("telephony.http_server.time.monotonic", lambda: clock[0])
    peer = Peer()
    peer.connection.pause_writing()
    peer.connection.look(clock[0] + http_server.REQUEST_S)
    assert not peer.pipe.is_aborted
    peer.connection.look(clock[0] + http_server.REQUEST_S + 1)
    assert peer.pipe.is_aborted


@given(st.binary(max_size=80), st.sampled_from([b"", post(b"x"), b"POST / HTTP/1.1\r\n"]))
def test_no_bytes_break_it(noise: bytes, before: bytes) -> None:
    peer = Peer()
    peer.send(before + noise)
    peer.connection.connection_lost(None)
    assert peer.server.body_bytes == 0


@pytest.mark.parametrize(
    ("url", "path"),
    [(b"/a/b?c=d", b"/a/b"), (b"http://h:1/a?b", b"/a"), (b"http://h", b"/"), (b"*", b"*"), (b"/", b"/")],
)
def test_paths(url: bytes, path: bytes) -> None:
    assert path_of(url) == path
