"""Explicit-state model checking: visits every reachable state, breadth first, and tells the shortest way to a bad
one.

Nothing is cut off: an exploration ends because there is no new state, because a bad one is found, or with
``TooLarge``, which is a failure and not a result.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

STATES_MAX = 2_000_000
"""A model that has more was not made small enough; a state takes about half a kilobyte."""

S = TypeVar("S", bound=Hashable)
A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)


class Model(Protocol[S, A_co]):
    """What is explored: a graph of states S with actions as edges."""

    def initial(self) -> Iterable[S]:
        """Return where it begins."""
        ...

    def successors(self, state: S) -> Iterable[tuple[A_co, S]]:
        """Return every action that may happen in ``state``, with the state after it."""
        ...

    def canonical(self, state: S) -> S:
        """Return the one state that stands for all those which are ``state`` but for names."""
        ...

    def violation(self, state: S) -> str | None:
        """Return what is wrong with ``state``, or None."""
        ...


class TooLarge(Exception):
    """More states than the bound: nothing was shown."""


class NotASymmetry(Exception):
    """Two states that ``canonical`` takes for one do not behave alike: the model is wrong."""


@dataclass(frozen=True, slots=True)
class Violation(Generic[S, A]):
    """A bad state and a shortest way to it.

    Attributes:
        what: is wrong.
        actions: from the initial state on, each with the state it led to.
        initial: where it began.
    """

    what: str
    initial: S
    actions: tuple[tuple[A, S], ...]

    def told(self) -> str:
        """Return it line by line."""
        lines = [f"{number:3}. {action}" for number, (action, _) in enumerate(self.actions, 1)]
        return "\n".join([*lines, f"     {self.what}"])


@dataclass(frozen=True, slots=True)
class Exploration(Generic[S, A]):
    """What an exploration found.

    Attributes:
        states: that differ by more than names.
        transitions: looked at, those to known states included.
        depth: of the deepest state: actions on the shortest way to it.
        violation: the first bad state, or None after all states were visited.
    """

    states: int
    transitions: int
    depth: int
    violation: Violation[S, A] | None


def explore(model: Model[S, A], states_max: int = STATES_MAX) -> Exploration[S, A]:
    """Visit every state of ``model``, or stop at the first bad one. Raises TooLarge."""
    came_from: dict[S, S | None] = {}
    level: list[S] = []
    for state in map(model.canonical, model.initial()):
        if state not in came_from:
            came_from[state] = None
            level.append(state)
    transitions = depth = 0
    for state in level:
        what = model.violation(state)
        if what is not None:
            return Exploration(len(came_from), 0, 0, Violation(what, state, ()))
    while level:
        following: list[S] = []
        for state in level:
            for _, reached in model.successors(state):
                transitions += 1
                new = model.canonical(reached)
                if new in came_from:
                    continue
                came_from[new] = state
                following.append(new)
                what = model.violation(new)
                if what is not None:
                    found = _way_to(model, new, came_from, what)
                    return Exploration(len(came_from), transitions, depth + 1, found)
            if len(came_from) > states_max:
                raise TooLarge(f"more than {states_max:,} states")
        depth += bool(following)
        level = following
    return Exploration(len(came_from), transitions, depth, None)


def _way_to(model: Model[S, A], state: S, came_from: dict[S, S | None], what: str) -> Violation[S, A]:
    """Return a way to ``state`` in which every producer keeps its name. Raises NotASymmetry."""
    path = [state]
    while (before := came_from[path[-1]]) is not None:
        path.append(before)
    path.reverse()
    here = next(start for start in model.initial() if model.canonical(start) == path[0])
    initial = here
    actions: list[tuple[A, S]] = []
    for wanted in path[1:]:
        for action, reached in model.successors(here):
            if model.canonical(reached) == wanted:
                actions.append((action, reached))
                here = reached
                break
        else:
            raise NotASymmetry(f"no way from {here} to {wanted}")
    return Violation(model.violation(here) or what, initial, tuple(actions))
