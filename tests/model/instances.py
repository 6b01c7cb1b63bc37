"""What the tests explore: producers, heights and rules, the right ones and the broken ones, with what must be found.

``python -m tests.model.instances`` explores all of it and prints the tables of docs/model.md, and each counterexample.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.model.chains import Instance, Rules, Second, Signers, without_v1, without_v2
from tests.model.checker import Exploration, Model, explore
from tests.model.naive_model import NaiveModel
from tests.model.set_change_model import SetChangeModel
from tests.model.votes_model import VotesModel

Sets = tuple[tuple[int, ...], ...]

FOUR: Sets = ((0, 1, 2, 3),)
SEVEN: Sets = ((0, 1, 2, 3, 4, 5, 6),)
DISJOINT: Sets = ((0, 1, 2, 3), (4, 5, 6, 7))
THREE_DISJOINT: Sets = (*DISJOINT, (8, 9, 10, 11))
DISJOINT_SEVENS: Sets = (*SEVEN, (7, 8, 9, 10, 11, 12, 13))
ROTATION: Sets = ((0, 1, 2, 3), (0, 1, 2, 4))
REPLACEMENT: Sets = ((0, 1, 2, 3), (1, 2, 3, 4))
HALF: Sets = ((0, 1, 2, 3), (2, 3, 4, 5))
GROWTH: Sets = (*FOUR, *SEVEN)
SINGLES: Sets = ((0,), (1,), (2,))


def instance(sets: Sets, byzantine: set[int], height_max: int, rules: Rules | None = None) -> Instance:
    """Return an instance, with the right rules unless others are given."""
    return Instance(sets, frozenset(byzantine), height_max, rules or Rules())


@dataclass(frozen=True)
class Right:
    """A model in which nothing may be found.

    Attributes:
        name: in docs/model.md.
        states: that it has, so that it cannot become smaller unnoticed.
    """

    name: str
    model: Callable[[], Model[Any, Any]]
    states: int


@dataclass(frozen=True)
class Broken:
    """A model in which a violation must be found.

    Attributes:
        name: in docs/model.md.
        make: returns the model of an instance.
        steps: of the shortest counterexample.
        breaks: promises that votes in it break, as seen from outside.
    """

    name: str
    make: Callable[[Instance], Model[Any, Any]]
    instance: Instance
    steps: int
    breaks: frozenset[str] = frozenset()


AT_COMPLETION = Rules(second=Second.AT_COMPLETION)
DELAYS = Rules(second=Second.DELAYS)


def crashing(of: Instance) -> VotesModel:
    """Return the model of votes one by one, with crashes."""
    return VotesModel(of, crashes=True)


RIGHT = [
    Right("votes, crashes", lambda: VotesModel(instance(FOUR, {0}, 3), crashes=True, progress=True), 41_637),
    Right("votes", lambda: VotesModel(instance(FOUR, {0}, 4), surplus=False), 244_841),
    Right("votes, disjoint sets", lambda: VotesModel(instance(DISJOINT, {0, 4}, 2), progress=True), 2_988),
    Right("votes, one replaced", lambda: VotesModel(instance(REPLACEMENT, {0, 4}, 3), surplus=False), 54_003),
    Right("votes, sets of one", lambda: VotesModel(instance(SINGLES, set(), 3), progress=True), 5_321),
    Right("four", lambda: SetChangeModel(instance(FOUR, {0}, 8)), 13_476),
    Right("seven", lambda: SetChangeModel(instance(SEVEN, {0, 1}, 8)), 15_399),
    Right("three disjoint sets", lambda: SetChangeModel(instance(THREE_DISJOINT, {0, 4, 8}, 7)), 188_297),
    Right("disjoint sevens", lambda: SetChangeModel(instance(DISJOINT_SEVENS, {0, 1, 7, 8}, 6)), 11_857),
    Right("one replaced", lambda: SetChangeModel(instance(REPLACEMENT, {0, 4}, 6)), 10_497),
    Right("one rotated", lambda: SetChangeModel(instance(ROTATION, {0}, 6)), 12_842),
    Right("half replaced", lambda: SetChangeModel(instance(HALF, {0, 4}, 6)), 12_842),
    Right("four to seven", lambda: SetChangeModel(instance(GROWTH, {0, 4}, 6)), 11_954),
    Right("next at completion", lambda: SetChangeModel(instance(THREE_DISJOINT, {0, 4, 8}, 7, AT_COMPLETION)), 194_413),
    Right("height moves", lambda: SetChangeModel(instance(THREE_DISJOINT, {0, 4, 8}, 5, DELAYS)), 5_263),
]

BROKEN = [
    Broken("V1 dropped", VotesModel, instance(FOUR, {0}, 2, Rules(may_vote=without_v1)), 8, frozenset({"V1"})),
    Broken("V2 dropped", VotesModel, instance(FOUR, {0}, 4, Rules(may_vote=without_v2)), 8, frozenset({"V2"})),
    Broken("vote sent first", crashing, instance(FOUR, {0}, 2, Rules(stores_first=False)), 8, frozenset({"V1"})),
    Broken("new set at once", SetChangeModel, instance(DISJOINT, {0, 4}, 7, Rules(signers=Signers.NEW)), 3),
    Broken("new set at once, one rotated", SetChangeModel, instance(ROTATION, {0}, 7, Rules(signers=Signers.NEW)), 3),
    Broken("old set until complete", SetChangeModel, instance(DISJOINT, {0, 4}, 7, Rules(signers=Signers.OLD)), 5),
    Broken(
        "complete when justified",
        SetChangeModel,
        instance(DISJOINT, {0, 4}, 7, Rules(completes_when_justified=True)),
        4,
    ),
    Broken("second replaces", SetChangeModel, instance(THREE_DISJOINT, {0, 4, 8}, 5, Rules(second=Second.REPLACES)), 5),
    Broken("second shifts", SetChangeModel, instance(THREE_DISJOINT, {0, 4, 8}, 5, Rules(second=Second.SHIFTS)), 4),
]


def main() -> None:
    """Explore everything and print it."""
    for right in RIGHT:
        print(_row(right.name, right.model())[0])
    naive = [(f"naive finality, {count} Byzantine", NaiveModel(4, count, 4)) for count in (1, 0)]
    for name, model in [*naive, *((broken.name, broken.make(broken.instance)) for broken in BROKEN)]:
        row, found = _row(name, model)
        print(f"\n{row}")
        if found.violation is not None:
            print(found.violation.told())


def _row(name: str, model: Model[Any, Any]) -> tuple[str, Exploration[Any, Any]]:
    """Return a row of the table, and what was found."""
    begun = time.process_time()
    found = explore(model)
    return f"| `{name}` | {found.states:,} | {found.depth} | {time.process_time() - begun:.1f} |", found


if __name__ == "__main__":
    main()
