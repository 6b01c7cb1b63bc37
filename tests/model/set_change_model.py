"""Changes of the voting set: height by height, each block with the certificate it gets or none.

The chains are those of ``votes_model``: two, one up to a fork, and for the same reason. They may schedule changes to any
of the sets, not the same ones. A step seals the next block of both and says who makes a certificate for it. That this
leaves nothing out:

**Height by height.** By V1 a producer's votes have ascending targets. What a vote needs of others are the certificates in
its target's own chain, which are on lower targets. So the votes of any run may be put in the order of their targets, and
it is a run still. (A rule without V1 has runs that are not of this form; a violation found among the others is real.)

**All for a certificate at once, exactly as many as it takes.** A vote that ends up in no certificate, or is one too many,
only raises its producer's guard. Taken out, all others may still be cast. So the honest producers that vote for a block
make a smallest quorum of each set that must sign it, together with the Byzantine ones, or there are none.

**Promises below all sources to come are alike.** Votes to come are from the last certified block in one of the chains, or
from a higher one, so a highest source below both is taken for the lower of the two.

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

Certified = tuple[tuple[int, int], ...]
"""Source and target heights of certificates."""


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
    """A block is sealed and the voters make a certificate on it, or nobody does."""

    chain: str
    height: int
    block: Block
    source: int
    signers: tuple[int, ...]
    voters: tuple[int, ...]

    def __str__(self) -> str:
        carries, schedules = self.block
        words = [f"{self.chain}{self.height}"]
        words.append(f"carries the certificate on {carries}" if carries else "carries none")
        if schedules != NONE:
            words.append(f"and schedules set {schedules}")
        if self.voters:
            sets = " and ".join(map(str, self.signers))
            voters = ", ".join(f"P{producer}" for producer in self.voters)
            words.append(f"; certified {self.source} -> {self.chain}{self.height} by set {sets} with {voters}")
        return " ".join(words).replace(" ;", ";")


Step = tuple[Certifying, ...]


class SetChangeModel:
    """The model; see above. ``keeps_links``: states remember all certificates, to be compared."""

    def __init__(self, instance: Instance, *, keeps_links: bool = False) -> None:
        self.instance = instance
        self.rules = instance.rules
        self.keeps_links = keeps_links
        self.honest = instance.honest
        self.needed = [instance.honest_needed(number) for number in range(len(instance.sets))]
        self.in_sets = [instance.memberships(producer) for producer in self.honest]
        self._voters = cache(self._find_voters)
        self._next = cache(self._find_next)

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
        lowest = min(state.x.justified, state.y.justified)
        promises = [max(promise, lowest) for promise in state.promises]
        for indexes in self.classes:
            ordered = sorted(promises[index] for index in indexes)
            for index, promise in zip(indexes, ordered, strict=True):
                promises[index] = promise
        x, y = sorted((state.x, state.y))
        return State(state.height, state.fork, x, y, tuple(promises))

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
            if height + 1 <= self.instance.height_max:
                yield from self._on_two(state._replace(fork=state.height), height)
        else:
            yield from self._on_two(state, height)

    def _on_one(self, state: State, height: int) -> Iterator[tuple[Step, State]]:
        promises = tuple((height, promise) for promise in state.promises)
        for certifying, tip, after in self._certify("X", state.x, height, None, promises):
            yield (certifying,), State(height, None, tip, tip, tuple(source for _, source in after))

    def _on_two(self, state: State, height: int) -> Iterator[tuple[Step, State]]:
        promises = tuple((height, promise) for promise in state.promises)
        for on_x, x, between in self._certify("X", state.x, height, state.fork, promises):
            for on_y, y, after in self._certify("Y", state.y, height, state.fork, between):
                yield (on_x, on_y), State(height, state.fork, x, y, tuple(source for _, source in after))

    def _certify(
        self, name: str, tip: Tip, height: int, fork: int | None, promises: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[Certifying, Tip, tuple[tuple[int, int], ...]]]:
        """Yield each next block of a chain without a certificate, and with one in each way there is.

        promises: of each honest producer, lowest target and lowest source it may vote for.
        """
        for block, facts, to_carry in self._next(tip, height):
            source = facts.source
            link = link_between(source, height)
            plain = Tip(source, facts.voting, to_carry, tip.final, tip.links)
            yield Certifying(name, height, block, source, facts.signers, ()), plain, promises
            final = tip.final or (makes_final(link) and fork is not None and source > fork)
            links = (*tip.links, (source, height)) if self.keeps_links else ()
            certified = Tip(source, facts.voting, (*to_carry, (source, height)), final, links)
            for voters in self._voters(promises, facts.signers, source, height):
                after = list(promises)
                for index in voters:
                    after[index] = after_vote(*promises[index], source, height)
                names = tuple(self.honest[index] for index in voters)
                yield Certifying(name, height, block, source, facts.signers, names), certified, tuple(after)

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
        self, promises: tuple[tuple[int, int], ...], signers: tuple[int, ...], source: int, height: int
    ) -> list[tuple[int, ...]]:
        """Return the smallest sets of honest producers that make a certificate, one of those that differ by name only."""
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

