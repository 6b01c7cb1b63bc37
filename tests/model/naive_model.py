"""Finality of plain delegated proof of stake: a block is final once a quorum of producers has built on it.

There are no votes, only blocks. Two chains fork at genesis; in a step a producer seals the next block of one of them.
An honest producer builds on the longest chain it knows: it knows its own blocks and what they stand on, goes over to
the other chain only where that is strictly longer, and never leaves a block that is final by what it knows. Whose turn
it is does not matter, for slots may stay empty, and messages are late. This is generous to the rule, and it fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from consensus.params import quorum_of

Chain = tuple[int, ...]
"""Who sealed, from height 1 upwards."""


class State(NamedTuple):
    """Two chains."""

    x: Chain
    y: Chain


class Sealing(NamedTuple):
    """A producer seals the next block of a chain."""

    producer: int
    chain: str
    height: int

    def __str__(self) -> str:
        return f"P{self.producer} seals {self.chain}{self.height}"


def known_height(chain: Chain, producer: int) -> int:
    """Return up to where a producer surely knows a chain: its own last block there."""
    return max((height for height, sealer in enumerate(chain, 1) if sealer == producer), default=0)


def final_height(chain: Chain, quorum: int) -> int:
    """Return the highest block on which a quorum built, its own producer included; 0 for none."""
    return max((height for height in range(1, len(chain) + 1) if len(set(chain[height - 1 :])) >= quorum), default=0)


class NaiveModel:
    """The model; see above. Producers from 0, the Byzantine ones first; they seal whatever they like."""

    def __init__(self, producers: int, byzantine: int, height_max: int) -> None:
        self.producers = range(producers)
        self.byzantine = byzantine
        self.height_max = height_max
        self.quorum = quorum_of(producers)

    def initial(self) -> Iterator[State]:
        """Yield genesis."""
        yield State((), ())

    def canonical(self, state: State) -> State:
        """Return the state with honest producers named in the order they appear in, and chains in a fixed order."""
        return min(self._renamed(state.x, state.y), self._renamed(state.y, state.x))

    def _renamed(self, x: Chain, y: Chain) -> State:
        names = {producer: producer for producer in range(self.byzantine)}
        for producer in (*x, *y):
            names.setdefault(producer, len(names))
        return State(tuple(names[producer] for producer in x), tuple(names[producer] for producer in y))

    def successors(self, state: State) -> Iterator[tuple[Sealing, State]]:
        """Yield each block that may be sealed."""
        for name, here, other in (("X", state.x, state.y), ("Y", state.y, state.x)):
            if len(here) == self.height_max:
                continue
            for producer in self.producers:
                if producer < self.byzantine or self.may_seal(here, other, producer):
                    longer = (*here, producer)
                    after = State(longer, other) if name == "X" else State(other, longer)
                    yield Sealing(producer, name, len(longer)), after

    def may_seal(self, here: Chain, other: Chain, producer: int) -> bool:
        """Tell whether an honest producer may build on ``here``."""
        known = other[: known_height(other, producer)]
        if len(known) <= known_height(here, producer):
            return True
        return len(here) > len(known) and not final_height(known, self.quorum)

    def violation(self, state: State) -> str | None:
        """Return which two final blocks are in conflict, if any are."""
        x, y = (final_height(chain, self.quorum) for chain in state)
        return f"X{x} and Y{y} are both final" if x and y else None
