"""Changes of the voting set: height by height, each block with the certificate it gets or none.

The chains are those of ``votes_model``: two, one up to a fork, and for the same reason. They may schedule changes to
any of the sets, not the same ones. A step seals the next block of both and says who makes a certificate for it. That
this leaves nothing out:

**Height by height.** By V1 a producer's votes have ascending targets. What a vote needs of others are the certificates
in its target's own chain, which are on lower targets. So the votes of any run may be put in the order of their
targets, and it is a run still. (A rule without V1 has runs that are not of this form; a violation found among the
others is real.)

**All for a certificate at once, exactly as many as it takes.** A vote that ends up in no certificate, or is one too
many, only raises its producer's guard. Taken out, all others may still be cast. So the honest producers that vote for
a block make a smallest quorum of each set that must sign it, together with the Byzantine ones, or there are none.

**Promises below all sources to come are alike.** Votes to come are from the last certified block in one of the chains,
or from a higher one, so a highest source below both is taken for the lower of the two.

**What a tip keeps.** What is final by the certificates carried decides whether a pending change is complete, which was
asked at once, and would be below any change scheduled later: it need not be remembered.

``test_reductions.py`` holds all of this against ``votes_model``, which does without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, cached_property
from itertools import product
from typing import NamedTuple

from consensus.finality import BranchFinality, makes_final
from consensus.votes import Checkpoint
from tests.model.chains import (
    NONE,
    Block,
    Facts,
    Instance,
    Voting,
    after_vote,
    link_between,
    may_vote,
    next_facts,
)
from tests.model.votes_model import block_told

Certified = tuple[tuple[int, int], ...]
"""Source and target heights of certificates."""

Growth = tuple[tuple["Certifying", ...], "Tip", "Promises"]
"""A block or none, the chain after it, and what was promised by then."""

Promises = tuple[tuple[int, int], ...]
"""Lowest target and lowest source that each honest producer may vote for, ascending by its number."""


class Tip(NamedTuple):
    """The end of a chain.

    Attributes:
        justified: height of the last block whose certificate is carried.
        voting: the sets after it.
        to_carry: certificates above ``justified`` that are not carried yet.
        final: a block above the fork is final.
        links: every certificate there ever was on the chain, if the model keeps them.
    """

    justified: int = 0
    voting: Voting = Voting()
    to_carry: Certified = ()
    final: bool = False
    links: Certified = ()


class State(NamedTuple):
    """After all votes for targets up to ``height``. Attributes:

    fork: height of the last common block, None while there is only X.
    promises: highest source of each honest producer, ascending by its number.
    """

    height: int
    fork: int | None
    x: Tip
    y: Tip
    promises: tuple[int, ...]


class Certifying(NamedTuple):
    """A block is sealed and the voters make a certificate on it, or nobody does.

    Attributes:
        takes_over: the set that is current from this block on and was not before, NONE where there is no other.
    """

    chain: str
    height: int
    block: Block
    takes_over: int
    source: int
    signers: tuple[int, ...]
    voters: tuple[int, ...]

    def __str__(self) -> str:
        told = block_told(self.chain, self.height, self.block)
        if self.takes_over != NONE:
            told += f", set {self.takes_over} takes over"
        if not self.voters:
            return told
        voters = ", ".join(f"P{producer}" for producer in self.voters)
        sets = " and ".join(map(str, self.signers))
        return f"{told}; {voters} vote {self.source} -> {self.chain}{self.height}: certified by set {sets}"


class Step(NamedTuple):
    """What happens at a height, on one chain or on both."""

    blocks: tuple[Certifying, ...]

    def __str__(self) -> str:
        return "\n     ".join(map(str, self.blocks))


class SetChangeModel:
    """The model; see above.

    Attributes:
        keeps_all: states remember all certificates, and go on when they cannot or need not become worse.
    """

    def __init__(self, instance: Instance, *, keeps_all: bool = False) -> None:
        self.instance = instance
        self.rules = instance.rules
        self.keeps_all = keeps_all
        self.honest = instance.honest
        self.needed = [instance.honest_needed(number) for number in range(len(instance.sets))]
        self.in_sets = [instance.memberships(producer) for producer in self.honest]
        self._voters = cache(self._find_voters)
        self._next = cache(self._find_next)
        self._tip = cache(self._canonical_tip)
        self._promises = cache(self._canonical_promises)
        self._grow = cache(self._find_growth)

    @cached_property
    def classes(self) -> list[list[int]]:
        """Return the honest producers that are in the same sets: they differ by name only."""
        found: dict[frozenset[int], list[int]] = {}
        for index, sets in enumerate(self.in_sets):
            found.setdefault(sets, []).append(index)
        return list(found.values())

    def initial(self) -> Iterator[State]:
        """Yield genesis."""
        yield State(0, None, Tip(), Tip(), (0,) * len(self.honest))

    def canonical(self, state: State) -> State:
        """Return the state with producers of a class, and the chains, in a fixed order."""
        x, y = self._tip(state.x), self._tip(state.y)
        promises = self._promises(state.promises, min(x.justified, y.justified))
        return (
            State(state.height, state.fork, x, y, promises)
            if x <= y
            else State(state.height, state.fork, y, x, promises)
        )

    def _canonical_promises(self, promises: tuple[int, ...], lowest: int) -> tuple[int, ...]:
        """Return the promises in a fixed order, those below every source to come made equal."""
        found = [max(promise, lowest) for promise in promises]
        for indexes in self.classes:
            ordered = sorted(found[index] for index in indexes)
            for index, promise in zip(indexes, ordered, strict=True):
                found[index] = promise
        return tuple(found)

    def _canonical_tip(self, tip: Tip) -> Tip:
        """Return the tip that stands for all that go on alike: what becomes final later is not below ``justified``."""
        justified, voting, to_carry, final, links = tip
        if voting.pending != NONE and voting.scheduled < justified:
            voting = voting._replace(scheduled=justified)
        to_carry = tuple((source if source + 1 == target else 0, target) for source, target in to_carry)
        return Tip(justified, voting, to_carry, final, links)

    def violation(self, state: State) -> str | None:
        """Return which final blocks are in conflict, if any are."""
        if state.fork is not None and state.x.final and state.y.final:
            return f"blocks of X and of Y above their fork at {state.fork} are final"
        return None

    def successors(self, state: State) -> Iterator[tuple[Step, State]]:
        """Yield every way to go one height up."""
        height = state.height + 1
        if height > self.instance.height_max:
            return
        if state.fork is None:
            yield from self._on_one(state, height)
            if height < self.instance.height_max:
                yield from self._on_two(state, height, state.height)
        else:
            yield from self._on_two(state, height, state.fork)

    def _on_one(self, state: State, height: int) -> Iterator[tuple[Step, State]]:
        promises = tuple((height, promise) for promise in state.promises)
        for certifying, tip, after in self._certify("X", state.x, height, height, promises):
            yield Step((certifying,)), State(height, None, tip, tip, tuple(source for _, source in after))

    def _on_two(self, state: State, height: int, fork: int) -> Iterator[tuple[Step, State]]:
        promises = tuple((height, promise) for promise in state.promises)
        for on_x, x, between in self._grow("X", state.x, height, fork, promises):
            for on_y, y, after in self._grow("Y", state.y, height, fork, between):
                yield Step(on_x + on_y), State(height, fork, x, y, tuple(source for _, source in after))

    def _find_growth(self, name: str, tip: Tip, height: int, fork: int, promises: Promises) -> list[Growth]:
        """Return each next block of a chain above the fork, but for those after which nothing new can become final."""
        if self.keeps_all:
            return [
                ((step,), longer, after) for step, longer, after in self._certify(name, tip, height, fork, promises)
            ]
        if tip.final:
            return [((), tip, promises)]
        left = self.instance.height_max - height
        found: list[Growth] = []
        for certifying, longer, after in self._certify(name, tip, height, fork, promises):
            if longer.final:
                found.append(((certifying,), Tip(self.instance.height_max, final=True), after))
            elif left >= (1 if certifying.voters else 2):
                found.append(((certifying,), longer, after))
        return found

    def _certify(
        self, name: str, tip: Tip, height: int, fork: int, promises: Promises
    ) -> Iterator[tuple[Certifying, Tip, Promises]]:
        """Yield each next block of a chain without a certificate, and with one in each way there is."""
        for block, facts, to_carry in self._next(tip, height):
            source = facts.source
            link = link_between(source, height)
            plain = Tip(source, facts.voting, to_carry, tip.final, tip.links)
            current = facts.voting.current
            takes_over = NONE if current == tip.voting.current else current
            about = (name, height, block, takes_over, source, facts.signers)
            yield Certifying(*about, ()), plain, promises
            final = tip.final or (makes_final(link) and source > fork)
            links = (*tip.links, (source, height)) if self.keeps_all else ()
            certified = Tip(source, facts.voting, (*to_carry, (source, height)), final, links)
            for voters in self._voters(promises, facts.signers, source, height):
                after = list(promises)
                for index in voters:
                    after[index] = after_vote(*promises[index], source, height)
                names = tuple(self.honest[index] for index in voters)
                yield Certifying(*about, names), certified, tuple(after)

    def _find_next(self, tip: Tip, height: int) -> list[tuple[Block, Facts, Certified]]:
        """Return the blocks that may be sealed at ``height`` on ``tip``, and which certificates are left to carry."""
        finality = BranchFinality(Checkpoint(tip.justified, b""), Checkpoint(0, b""))
        parent = Facts(finality, (), tip.voting)
        wanted = range(NONE, len(self.needed)) if len(self.needed) > 1 else [NONE]
        found = []
        for carried, schedules in product([None, *tip.to_carry], wanted):
            link = link_between(*carried) if carried else None
            facts = next_facts(self.rules, height, parent, link, schedules)
            if facts is not None:
                left = tuple((source, target) for source, target in tip.to_carry if target > facts.source)
                found.append((Block(carried[1] if carried else 0, schedules), facts, left))
        return found

    def _find_voters(
        self, promises: Promises, signers: tuple[int, ...], source: int, height: int
    ) -> list[tuple[int, ...]]:
        """Return the smallest groups of honest producers that make a certificate, one of those alike but for names."""
        alike: dict[tuple[frozenset[int], tuple[int, int]], list[int]] = {}
        for index, promise in enumerate(promises):
            sets = self.in_sets[index].intersection(signers)
            if sets and may_vote(self.rules, *promise, source, height):
                alike.setdefault((self.in_sets[index], promise), []).append(index)
        found = []
        for counts in product(*(range(len(indexes) + 1) for indexes in alike.values())):
            if self._is_smallest([sets for sets, _ in alike], counts, signers):
                chosen = (indexes[:count] for indexes, count in zip(alike.values(), counts, strict=True))
                found.append(tuple(sorted(index for indexes in chosen for index in indexes)))
        return found

    def _is_smallest(self, kinds: list[frozenset[int]], counts: tuple[int, ...], signers: tuple[int, ...]) -> bool:
        """Tell whether so many of each kind are enough for each set, and none could be left out."""
        spare = {
            number: sum(count for sets, count in zip(kinds, counts, strict=True) if number in sets)
            - self.needed[number]
            for number in signers
        }
        return min(spare.values()) >= 0 and not any(
            count and all(spare[number] > 0 for number in sets.intersection(signers))
            for sets, count in zip(kinds, counts, strict=True)
        )
