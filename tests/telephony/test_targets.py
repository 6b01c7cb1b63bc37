"""Which node is asked when."""

from __future__ import annotations

from telephony.targets import Targets

A, B = "http://a:8080", "http://b:8080"


def test_the_node_that_answered_is_asked_again() -> None:
    targets = Targets([A + "/", B], lambda: 0.0)
    assert targets.choose(0) == (A, 0)
    assert targets.failed(A, 0)
    assert targets.choose(0) == (B, 0)
    targets.succeeded(B)
    assert targets.choose(10**9) == (B, 0)
    assert targets.failing == {A: 1, B: 0}


def test_waits_double_up_to_their_bound_and_half_is_chance() -> None:
    for chance, share in ((0.0, 1), (0.999999, 2)):
        targets = Targets([A], lambda chance=chance: chance)
        now_ms, waits = 0, []
        for _ in range(10):
            assert targets.failed(A, now_ms)
            assert not targets.failed(A, now_ms), "several at once are one"
            _, wait_ms = targets.choose(now_ms)
            waits.append(wait_ms)
            now_ms += wait_ms
        doubled = [min(200 * 2**step, 15_000) for step in range(10)]
        assert [abs(wait - most * share // 2) <= 1 for wait, most in zip(waits, doubled, strict=True)] == [True] * 10


def test_of_nodes_that_all_fail_the_one_with_the_shortest_wait_is_next() -> None:
    targets = Targets([A, B], lambda: 0.0)
    now_ms = 0
    for _ in range(3):
        assert targets.failed(A, now_ms)
        now_ms += 15_000
    assert targets.failed(A, now_ms)
    assert targets.failed(B, now_ms)
    assert targets.choose(now_ms) == (B, 100)
    assert targets.choose(now_ms + 15_000) == (A, 0)


def test_the_ledger_is_away_when_no_node_has_answered_last() -> None:
    targets = Targets([A, B], lambda: 0.0)
    assert not targets.is_away
    assert targets.failed(A, 0)
    assert not targets.is_away
    assert targets.failed(B, 0)
    assert targets.is_away
    targets.succeeded(B)
    assert not targets.is_away
