"""Votes one by one: any honest producer, for any block, in any order, with a crash after any step.

**What a state is.** Two chains X and Y that are one up to a fork, what each honest producer signed, and its guard.

**Why two chains are enough.** Two conflicting final blocks A and B are shown by the certificates on them and on one
child of each. What makes these blocks and certificates valid, and votes for them allowed, lies in the two chains that
end in these children: a block carries certificates of its own ancestors only, and the sets that sign are read off its
own chain. Take all other blocks, and all votes for them, out of a run: guards only get lower, and what is left is
still a run.

**Delivery** needs no steps of its own. Whoever assembles certificates knows every vote that was sent, may show it to
whom it likes, and an honest producer may vote for any block there is: nothing assumes which it has seen, whose turn it
was, or that the fork choice was followed. **Byzantine** producers have signed everything from the start.

**When blocks are sealed.** A block is sealed right before the first vote for it or for one of its descendants. Sealed
earlier it could only carry fewer certificates, as those never go away.

**A crash** leaves what is on disk. Where the guard is stored first: a vote that nobody saw, with its guard. Where the
vote is sent first: a vote that was seen, and the guard from before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from functools import cache, cached_property
from typing import NamedTuple

from consensus.finality import makes_final
from consensus.params import quorum_of
from tests.model.chains import (
    NONE,
    Block,
    Chain,
    Facts,
    Instance,
    after_vote,
    extensions,
    facts_of,
    link_between,
    may_vote,
)


class Fate(Enum):
    """What became of a vote."""

    CAST = "stored and sent"
    UNSENT = "stored; a crash before it was sent"
    UNSTORED = "sent; a crash before it was stored"


Voter = tuple[int, int, int, int]
"""An honest producer: votes on X, votes on Y, next target, highest source.

Bit h of the votes is set where it voted for the block at height h; those up to the fork are in the first number.
"""


class State(NamedTuple):
    """Two chains with one beginning, up to height ``fork``, and the honest producers, ascending."""

    fork: int
    x: Chain
    y: Chain
    voters: tuple[Voter, ...]


class Target(NamedTuple):
    """A block that may be voted for: its chain, the source of votes, who may vote, and what has to be sealed for it."""

    chain: Chain
    source: int
    voters: set[int]
    sealed: tuple[tuple[int, Block], ...]


class Vote(NamedTuple):
    """A producer signs a block, which is sealed for it, with its ancestors, where it was not sealed yet."""

    producer: int
    chain: str
    height: int
    source: int
    fate: Fate
    sealed: tuple[tuple[int, Block], ...]

    def __str__(self) -> str:
        new = [block_told(self.chain, height, block) for height, block in self.sealed]
        fate = "" if self.fate is Fate.CAST else f" ({self.fate.value})"
        return "; ".join([*new, f"P{self.producer} votes {self.source} -> {self.chain}{self.height}{fate}"])


def block_told(chain: str, height: int, block: Block) -> str:
    """Return a new block in words."""
    deeds = []
    if block.carries:
        deeds.append(f"carries the certificate on {block.carries}")
    if block.schedules != NONE:
        deeds.append(f"schedules set {block.schedules}")
    return f"{chain}{height} {' and '.join(deeds) or 'carries nothing'}"


class VotesModel:
    """The model; see above.

    Attributes:
        surplus: whether blocks that have their certificate are voted for. Such a vote only raises its producer's guard.
        progress: whether it is a violation that no higher block can become final.
    """

    def __init__(
        self, instance: Instance, *, crashes: bool = False, surplus: bool = True, progress: bool = False
    ) -> None:
        self.instance = instance
        self.surplus = surplus
        self.progress = progress
        self.rules = instance.rules
        self.honest = instance.honest
        needed = range(len(instance.sets))
        self.needed = [instance.honest_needed(number) for number in needed]
        self.members = [[i for i, p in enumerate(self.honest) if p in instance.sets[n]] for n in needed]
        self._targets = cache(self._find_targets)
        self._may_vote_at = cache(self._find_may_vote_at)
        self._final = cache(self._find_final)
        self._finalises = cache(self._find_finalises)
        self._certified = cache(self._find_certified)
        self.fates = [Fate.CAST]
        if crashes:
            self.fates.append(Fate.UNSENT if instance.rules.stores_first else Fate.UNSTORED)

    @cached_property
    def classes(self) -> list[list[int]]:
        """Return the honest producers that are in the same sets: they differ by name only."""
        found: dict[frozenset[int], list[int]] = {}
        for index, producer in enumerate(self.honest):
            found.setdefault(self.instance.memberships(producer), []).append(index)
        return list(found.values())

    def initial(self) -> Iterator[State]:
        """Yield a state for each height of the fork; two blocks must fit above it to make one final."""
        for fork in range(self.instance.height_max - 1):
            yield State(fork, (), (), ((0, 0, 0, 0),) * len(self.honest))

    def canonical(self, state: State) -> State:
        """Return the state with producers of a class, and the chains, in a fixed order."""
        fork, x, y, voters = state
        if x < y:
            return State(fork, x, y, self._sorted(voters))
        same = (1 << fork + 1) - 1
        swapped = self._sorted(
            tuple([(on_y | on_x & same, on_x & ~same, target, source) for on_x, on_y, target, source in voters])
        )
        if x > y:
            return State(fork, y, x, swapped)
        return State(fork, x, y, min(self._sorted(voters), swapped))

    def _sorted(self, voters: tuple[Voter, ...]) -> tuple[Voter, ...]:
        if len(self.classes) == 1:
            return tuple(sorted(voters))
        ordered = list(voters)
        for indexes in self.classes:
            for index, voter in zip(indexes, sorted(voters[i] for i in indexes), strict=True):
                ordered[index] = voter
        return tuple(ordered)

    def facts(self, chain: Chain) -> tuple[Facts, ...]:
        """Return what follows from a chain, genesis first."""
        facts = facts_of(self.rules, chain)
        assert facts is not None
        return facts

    def certified(self, state: State) -> tuple[int, int]:
        """Return which blocks of X and of Y have a certificate, as bits; the common ones are in both."""
        x = self._certified(state.x, tuple([voter[0] for voter in state.voters]), 1)
        y = self._certified(state.y, tuple([voter[1] for voter in state.voters]), state.fork + 1)
        return x, y | x & (1 << state.fork + 1) - 1

    def _find_certified(self, chain: Chain, votes: tuple[int, ...], lowest: int) -> int:
        """Return which blocks from ``lowest`` up have a certificate."""
        bits = 0
        facts = self.facts(chain)
        for height in range(lowest, len(chain) + 1):
            if all(
                sum(votes[index] >> height & 1 for index in self.members[number]) >= self.needed[number]
                for number in facts[height].signers
            ):
                bits |= 1 << height
        return bits

    def successors(self, state: State) -> Iterator[tuple[Vote, State]]:
        """Yield each vote that an honest producer may cast, with what may become of it."""
        certified = self.certified(state)
        for side, (chain, proved) in enumerate(zip((state.x, state.y), certified, strict=True)):
            for height in range(state.fork + 1 if side else 1, self.instance.height_max + 1):
                if not self.surplus and proved >> height & 1:
                    continue
                free = [
                    index
                    for index, voter in enumerate(state.voters)
                    if not voter[side] >> height & 1 and self._may_vote_at(voter[2], voter[3], height)
                ]
                if free:
                    for target in self._targets(chain, height, proved):
                        yield from self._votes(state, side, height, target, free)

    def _find_may_vote_at(self, next_target: int, max_source: int, height: int) -> bool:
        """Tell whether a producer may vote for a block at ``height``, whatever its source."""
        return any(may_vote(self.rules, next_target, max_source, source, height) for source in range(height))

    def _find_targets(self, chain: Chain, height: int, certified: int) -> list[Target]:
        """Return what the block at ``height`` may be: what it is, or what may be sealed."""
        found = []
        for longer in extensions(self.instance, chain, height, certified):
            facts = self.facts(longer)[height]
            sealed = tuple((at, longer[at - 1]) for at in range(len(chain) + 1, height + 1))
            voters = {index for number in facts.signers for index in self.members[number]}
            found.append(Target(longer, facts.source, voters, sealed))
        return found

    def _votes(
        self, state: State, side: int, height: int, target: Target, free: list[int]
    ) -> Iterator[tuple[Vote, State]]:
        """Yield the votes for a block at ``height`` of X (side 0) or Y (side 1), by those of ``free`` that may."""
        source = target.source
        for index in free:
            voter = state.voters[index]
            if index not in target.voters or not may_vote(self.rules, voter[2], voter[3], source, height):
                continue
            x, y = state.x, state.y
            if target.sealed:
                x, y = _grown(state, side, target.chain)
            for fate in self.fates:
                changed = _after(voter, side, source, height, fate)
                if changed != voter:
                    voters = (*state.voters[:index], changed, *state.voters[index + 1 :])
                    vote = Vote(self.honest[index], "XY"[side], height, source, fate, target.sealed)
                    yield vote, State(state.fork, x, y, voters)

    def final(self, state: State) -> tuple[list[int], list[int]]:
        """Return the heights of final blocks of X and of Y, by whatever certificates there are."""
        on_x, on_y = self.certified(state)
        return self._final(state.x, on_x), self._final(state.y, on_y)

    def _find_final(self, chain: Chain, certified: int) -> list[int]:
        """Return the heights that are final by the certificates on blocks of a chain."""
        found = []
        for height, facts in enumerate(self.facts(chain)):
            if certified >> height & 1 and makes_final(link_between(facts.source, height)):
                found.append(facts.source)
        return found

    def violation(self, state: State) -> str | None:
        """Return which two final blocks are in conflict, if any are, or that finality has stopped for good."""
        x, y = self.final(state)
        highest_x, highest_y = max(x, default=0), max(y, default=0)
        if min(highest_x, highest_y) > state.fork:
            return f"X{highest_x} and Y{highest_y} are both final"
        if self.progress and not self._goes_on(state, highest_x, highest_y):
            return "honest producers alone can make no higher block final"
        return None

    def _goes_on(self, state: State, final_on_x: int, final_on_y: int) -> bool:
        """Tell whether the honest producers alone, given enough heights, can make a higher block final.

        They build on one of the blocks there are, on top of everything final, without carrying any certificate that a
        Byzantine producer might withhold. Every block there is was sealed for the vote of one of them, so it is known.
        """
        promises = tuple([voter[2:] for voter in state.voters])
        for chain, final, other in ((state.x, final_on_x, final_on_y), (state.y, final_on_y, final_on_x)):
            if other <= max(final, state.fork):
                for height in range(max(final, other), len(chain) + 1):
                    if self._finalises(chain[:height], promises):
                        return True
        return False

    def _find_finalises(self, chain: Chain, promises: tuple[tuple[int, int], ...]) -> bool:
        """Tell whether honest producers can make the block final that is the next one high enough for all of them.

        promises: lowest target and lowest source of each.
        """
        target = max(len(chain) + 1, *(next_target for next_target, _ in promises))
        first = (*chain, *(Block(),) * (target - len(chain)))
        for longer in (first, (*first, Block(carries=target))):
            height, facts = len(longer), self.facts(longer)[-1]
            able = [may_vote(self.rules, *promise, facts.source, height) for promise in promises]
            for number in facts.signers:
                if sum(able[i] for i in self.members[number]) < quorum_of(len(self.instance.sets[number])):
                    return False
            promises = tuple(
                after_vote(*promise, facts.source, height) if can else promise
                for can, promise in zip(able, promises, strict=True)
            )
        return makes_final(link_between(target, target + 1))


def _grown(state: State, side: int, chain: Chain) -> tuple[Chain, Chain]:
    """Return X and Y once one of them is ``chain``; up to the fork the other grows with it."""
    other = (state.y, state.x)[side]
    if len(other) < state.fork:
        other = chain[: state.fork]
    return (other, chain) if side else (chain, other)


def _after(voter: Voter, side: int, source: int, height: int, fate: Fate) -> Voter:
    """Return a producer after a vote."""
    on_x, on_y, next_target, max_source = voter
    if fate is not Fate.UNSTORED:
        next_target, max_source = after_vote(next_target, max_source, source, height)
    if fate is not Fate.UNSENT:
        on_x |= (1 - side) << height
        on_y |= side << height
    return on_x, on_y, next_target, max_source
