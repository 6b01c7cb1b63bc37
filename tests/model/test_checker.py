"""The checker itself, on graphs whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.model.checker import NotASymmetry, TooLarge, explore


@dataclass(frozen=True)
class Jugs:
    """Two jugs of 3 and 5 litres, and the old question how to measure some number of litres."""

    wanted: int

    def initial(self) -> Iterator[tuple[int, int]]:
        yield 0, 0

    def successors(self, state: tuple[int, int]) -> Iterator[tuple[str, tuple[int, int]]]:
        a, b = state
        yield "fill 3", (3, b)
        yield "fill 5", (a, 5)
        yield "empty 3", (0, b)
        yield "empty 5", (a, 0)
        poured = min(a, 5 - b)
        yield "3 into 5", (a - poured, b + poured)
        poured = min(b, 3 - a)
        yield "5 into 3", (a + poured, b - poured)

    def canonical(self, state: tuple[int, int]) -> tuple[int, int]:
        return state

    def violation(self, state: tuple[int, int]) -> str | None:
        return f"{self.wanted} litres" if self.wanted in state else None


@dataclass(frozen=True)
class Lamps:
    """Lamps that are switched on one by one, or on and off; all alike, so what counts is how many are on."""

    count: int
    is_symmetry: bool = True

    def initial(self) -> Iterator[tuple[int, ...]]:
        yield (0,) * self.count

    def successors(self, state: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, ...]]]:
        for lamp in range(self.count):
            if self.is_symmetry or lamp == 0:
                yield lamp, (*state[:lamp], 1 - state[lamp], *state[lamp + 1 :])

    def canonical(self, state: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(state))

    def violation(self, state: tuple[int, ...]) -> str | None:
        return "all on" if all(state) and self.count > 3 else None


def test_every_state_is_visited() -> None:
    found = explore(Jugs(9))
    assert (found.states, found.depth, found.violation) == (16, 7, None)


def test_the_shortest_way_is_told() -> None:
    found = explore(Jugs(4))
    assert found.violation is not None
    assert found.violation.told().split("\n") == [
        "  1. fill 5",
        "  2. 5 into 3",
        "  3. empty 3",
        "  4. 5 into 3",
        "  5. fill 5",
        "  6. 5 into 3",
        "     4 litres",
    ]


def test_a_bad_beginning_is_told() -> None:
    found = explore(Jugs(0))
    assert found.violation is not None
    assert (found.states, found.depth, found.violation.actions) == (1, 0, ())


def test_states_that_differ_by_names_count_once_and_names_stay_on_the_way() -> None:
    assert explore(Lamps(3)).states == 4
    found = explore(Lamps(4))
    assert found.violation is not None
    assert [action for action, _ in found.violation.actions] == [0, 1, 2, 3]
    assert found.violation.actions[-1][1] == (1, 1, 1, 1)


def test_what_is_no_symmetry_is_refused() -> None:
    with pytest.raises(NotASymmetry):
        explore(Lamps(4, is_symmetry=False))


def test_too_many_states_are_a_failure() -> None:
    with pytest.raises(TooLarge):
        explore(Jugs(9), states_max=10)
