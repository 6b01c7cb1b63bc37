"""Whose turn it is, where intake and building share a core."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telephony.turns import SEEN_MS, TURN_S, Turns

LOOK_MS = 100
BUILT_PER_S = 3_000
"""What is built while it is building's turn."""


class Play:
    """Documents that come in at a rate, are built or not, and are looked at ten times a second."""

    def __init__(self) -> None:
        self.now_ms = self.taken = self.built = 0
        self.turns = Turns(0, 0, 0)

    def run(self, seconds: float, per_s: int) -> float:
        """Return what share of the time was intake's."""
        looks, intakes = round(seconds * 1000 / LOOK_MS), 0
        is_for_intake = False
        for _ in range(looks):
            self.now_ms += LOOK_MS
            self.taken += per_s * LOOK_MS // 1000
            if not is_for_intake:
                self.built = min(self.taken, self.built + BUILT_PER_S * LOOK_MS // 1000)
            is_for_intake = self.turns.is_for_intake(self.now_ms, self.taken, self.taken - self.built)
            intakes += is_for_intake
        return intakes / looks


def test_a_burst_is_taken_in_first_and_built_after_it() -> None:
    play = Play()
    assert play.run(20, 13_000) > 0.98
    assert play.run(1, 100) == 0
    assert play.run(100, 0) == 0
    assert play.built == play.taken


@pytest.mark.parametrize("per_s", [100, 1_900, 2_500, 3_000])
def test_what_can_be_built_as_it_comes_is_built(per_s: int) -> None:
    play = Play()
    assert play.run(600, per_s) == 0
    assert play.taken - play.built <= per_s


@pytest.mark.parametrize("per_s", [3_300, 13_000])
def test_a_flood_that_does_not_end_shares_the_core(per_s: int) -> None:
    play = Play()
    assert play.run(20 * TURN_S, per_s) == pytest.approx(0.5, abs=0.02)
    assert play.built == pytest.approx(10 * TURN_S * BUILT_PER_S, rel=0.05)


def test_after_a_flood_the_next_burst_goes_first_again() -> None:
    play = Play()
    play.run(TURN_S + 5, 13_000)
    play.run(10 * TURN_S, 0)
    assert play.run(10, 13_000) > 0.97


def test_a_look_that_comes_at_once_says_the_same_again() -> None:
    play = Play()
    play.run(1, 13_000)
    for ms in range(SEEN_MS):
        assert play.turns.is_for_intake(play.now_ms + ms, play.taken, play.taken - play.built)
    assert not Turns(0, 0, 0).is_for_intake(SEEN_MS - 1, 10_000, 10_000)


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=60))
def test_building_is_never_kept_for_longer_than_a_turn(steps: list[tuple[int, int, int]]) -> None:
    turns, now_ms, taken = Turns(0, 0, 0), 0, 0
    since_ms: int | None = None
    for after_ms, more, unbuilt in steps:
        now_ms, taken = now_ms + after_ms, taken + more
        if not turns.is_for_intake(now_ms, taken, unbuilt):
            since_ms = None
        elif since_ms is None:
            since_ms = now_ms
        # A look that comes at once says what the one before said.
        assert since_ms is None or now_ms - since_ms < TURN_S * 1000 + SEEN_MS
