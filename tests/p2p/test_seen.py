"""What peers tell of each other: at the start, at times, and their clocks without the way between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.verdict import Verdict
from ledger.errors import InvalidVote
from p2p import limits
from p2p.messages import Seen
from p2p.seen import SeenExchange

A, B, C = (bytes([n]) * 20 for n in (1, 2, 3))
NOON_MS = 1_800_000_000_000


def seen(now_ms: int, skew_ms: int | None = None) -> Seen:
    """Return a message without signatures."""
    return Seen(0, now_ms, skew_ms, [], [])


class Bench:
    """An exchange, and what it heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, Seen]] = []
        self.exchange = SeenExchange(lambda _peer, skew_ms: seen(0, skew_ms), lambda *told: self.heard.append(told))


def test_a_peer_is_told_at_once_and_again_at_times() -> None:
    bench = Bench()
    assert bench.exchange.next_timer_ms() is None
    bench.exchange.peer_up(A, now_ms=100)
    assert bench.exchange.take_sends() == [(A, seen(0))]
    due_ms = 100 + limits.SEEN_INTERVAL_MS
    assert bench.exchange.next_timer_ms() == due_ms
    bench.exchange.handle_timer(now_ms=due_ms - 1)
    assert bench.exchange.take_sends() == []
    bench.exchange.handle_timer(now_ms=due_ms)
    assert bench.exchange.take_sends() == [(A, seen(0))]
    assert bench.exchange.next_timer_ms() == due_ms + limits.SEEN_INTERVAL_MS


def test_the_first_word_of_a_peer_is_answered_with_how_its_clock_looks() -> None:
    bench = Bench()
    bench.exchange.peer_up(A, now_ms=0)
    bench.exchange.take_sends()
    told = seen(NOON_MS - 40)
    assert bench.exchange.receive(told, A, wall_ms=NOON_MS) is Verdict.ACCEPT
    assert bench.exchange.take_sends() == [(A, seen(0, -40))]
    bench.exchange.receive(seen(NOON_MS - 30, -20), A, wall_ms=NOON_MS)
    assert bench.exchange.take_sends() == []
    assert bench.heard[0] == (A, told)


def test_a_peer_that_is_gone_is_not_heard() -> None:
    bench = Bench()
    bench.exchange.peer_up(A, now_ms=0)
    bench.exchange.peer_down(A)
    assert bench.exchange.receive(seen(NOON_MS), A, wall_ms=NOON_MS) is Verdict.IGNORE
    assert (bench.heard, bench.exchange.clocks_ms, bench.exchange.next_timer_ms()) == ([], [], None)


def test_a_lie_is_raised() -> None:
    def refuse(_peer: bytes, _message: Seen) -> None:
        raise InvalidVote("not ours")

    exchange = SeenExchange(lambda _peer, skew_ms: seen(0, skew_ms), refuse)
    exchange.peer_up(A, now_ms=0)
    with pytest.raises(InvalidVote):
        exchange.receive(seen(NOON_MS), A, wall_ms=NOON_MS)


def test_clocks_are_in_order_and_those_that_did_not_tell_are_not_there() -> None:
    bench = Bench()
    for peer in (A, B, C):
        bench.exchange.peer_up(peer, now_ms=0)
    bench.exchange.receive(seen(NOON_MS + 70), A, wall_ms=NOON_MS)
    bench.exchange.receive(seen(NOON_MS - 500), C, wall_ms=NOON_MS)
    assert bench.exchange.clocks_ms == [-500, 70]


def test_the_message_least_under_way_counts() -> None:
    bench = Bench()
    bench.exchange.peer_up(A, now_ms=0)
    for delay_ms in (900, 20, 400, 3_000):
        bench.exchange.receive(seen(NOON_MS - delay_ms, -20), A, wall_ms=NOON_MS)
    assert bench.exchange.clocks_ms == [0]


def test_a_clock_that_was_set_back_shows_after_a_few_messages() -> None:
    bench = Bench()
    bench.exchange.peer_up(A, now_ms=0)
    for _ in range(limits.SKEW_SAMPLES):
        bench.exchange.receive(seen(NOON_MS), A, wall_ms=NOON_MS)
    for _ in range(limits.SKEW_SAMPLES):
        bench.exchange.receive(seen(NOON_MS - 600, 600), A, wall_ms=NOON_MS)
    assert bench.exchange.clocks_ms == [-600]


@given(ahead_ms=st.integers(-(10**6), 10**6), way_ms=st.integers(0, 1_000), back_ms=st.integers(0, 1_000))
def test_two_sides_agree_on_their_clocks_whatever_the_way_takes(ahead_ms: int, way_ms: int, back_ms: int) -> None:
    """Half of what the two ways differ by remains: nobody can tell that from a clock that is off."""
    now_ms = NOON_MS
    near = SeenExchange(lambda _peer, skew_ms: seen(now_ms, skew_ms), lambda *_: None)
    far = SeenExchange(lambda _peer, skew_ms: seen(now_ms + ahead_ms, skew_ms), lambda *_: None)
    near.peer_up(B, now_ms=0)
    far.peer_up(A, now_ms=0)
    for _ in range(3):
        near.handle_timer(now_ms=10**9)
        sends = near.take_sends()
        now_ms += way_ms
        for _, message in sends:
            far.receive(message, A, wall_ms=now_ms + ahead_ms)
        far.handle_timer(now_ms=10**9)
        sends = [(peer, seen(now_ms + ahead_ms, message.skew_ms)) for peer, message in far.take_sends()]
        now_ms += back_ms
        for _, message in sends:
            near.receive(message, B, wall_ms=now_ms)
    rest_ms = abs(way_ms - back_ms) // 2 + 1
    assert abs(near.clocks_ms[0] - ahead_ms) <= rest_ms
    assert abs(far.clocks_ms[0] + ahead_ms) <= rest_ms
