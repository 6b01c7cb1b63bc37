"""What both models share: chains of blocks, the sets that must sign them, and the rules, one of which may be broken.

A block is what matters of it for finality: which certificate its header carries and whether it schedules a change of
the voting set. Quorums, the guard, what a certificate proves, which sets must sign and when a change is complete are
the code that nodes run. Restated is that a change waits while another is pending at the parent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from consensus import epochs
from consensus.finality import BranchFinality
from consensus.params import faults_tolerated, quorum_of
from consensus.votes import Checkpoint, Link, VoteGuard
from ledger.entries import PendingSet, Producer, VotingEntry


class Second(Enum):
    """What becomes of a change that comes up while another is pending."""

    WAITS = "waits until none is pending at the parent"
    AT_COMPLETION = "waits, but the block that completes one change may schedule the next"
    REPLACES = "takes the place of the pending one"
    SHIFTS = "makes the pending set the current one and is pending itself"
    DELAYS = "moves the height that must become final, the pending set stays"


class Signers(Enum):
    """Which sets must sign a block while a change is pending at its parent."""

    BOTH = "the current and the pending one"
    NEW = "the pending one"
    OLD = "the current one"


@dataclass(frozen=True, eq=False)
class Rules:
    """The rules of voting; as they stand they are the right ones. Equal only to itself, which is quick to tell.

    Attributes:
        may_vote: V1 and V2.
        stores_first: the guard is on disk before the vote leaves.
        signers: of a block whose parent has a change pending.
        completes_when_justified: and not only when final.
        second: change, while one is pending.
    """

    may_vote: Callable[[VoteGuard, Link], bool] = VoteGuard.may_vote
    stores_first: bool = True
    signers: Signers = Signers.BOTH
    completes_when_justified: bool = False
    second: Second = Second.WAITS


def without_v1(guard: VoteGuard, link: Link) -> bool:
    """Tell whether V2 alone allows a vote."""
    return link.source.height >= guard.max_source


def without_v2(guard: VoteGuard, link: Link) -> bool:
    """Tell whether V1 alone allows a vote."""
    return link.target.height >= guard.next_target


@dataclass(frozen=True, eq=False)
class Instance:
    """Who there is, and how far it goes.

    Attributes:
        sets: of producers, by number; the first one votes at genesis, the others may be elected.
        byzantine: producers that sign everything.
        height_max: of blocks.
        rules: of honest producers.
    """

    sets: tuple[tuple[int, ...], ...]
    byzantine: frozenset[int]
    height_max: int
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        for members in self.sets:
            if len(self.byzantine & set(members)) > faults_tolerated(len(members)):
                raise ValueError(f"more than f of {members} are Byzantine")

    @property
    def honest(self) -> tuple[int, ...]:
        """Return the producers that keep the rules."""
        return tuple(sorted(set().union(*self.sets) - self.byzantine))

    def honest_needed(self, number: int) -> int:
        """Return how many honest producers of a set make a quorum with its Byzantine ones."""
        members = self.sets[number]
        return quorum_of(len(members)) - len(self.byzantine & set(members))

    def memberships(self, producer: int) -> frozenset[int]:
        """Return the sets a producer is in."""
        return frozenset(number for number, members in enumerate(self.sets) if producer in members)


NONE = -1
"""No set; a number, so that states can be put in order."""


class Voting(NamedTuple):
    """The voting sets after a block: the current one, and the pending one with the height of the block N for it."""

    current: int = 0
    pending: int = NONE
    scheduled: int = 0


class Block(NamedTuple):
    """What a header adds to its parent's chain.

    Attributes:
        carries: height of the ancestor whose certificate it carries, 0 for none.
        schedules: number of the set that is to vote, NONE for no change.
    """

    carries: int = 0
    schedules: int = NONE


Chain = tuple[Block, ...]
"""From height 1 upwards."""


class Facts(NamedTuple):
    """What follows from a chain for its last block.

    Attributes:
        finality: what the certificates carried prove; the ids of blocks are void, as heights tell them apart.
        signers: sets of which a quorum each must sign the block.
        voting: sets after it.
    """

    finality: BranchFinality
    signers: tuple[int, ...]
    voting: Voting

    @property
    def source(self) -> int:
        """Return the height from which votes for the block are."""
        return self.finality.justified.height


GENESIS = Facts(BranchFinality(Checkpoint(0, b""), Checkpoint(0, b"")), (), Voting())


@cache
def link_between(source: int, target: int) -> Link:
    """Return the link between two heights of one chain."""
    return Link(Checkpoint(source, b""), Checkpoint(target, b""))


@cache
def may_vote(rules: Rules, next_target: int, max_source: int, source: int, target: int) -> bool:
    """Tell whether a producer that promised this much may vote for a link."""
    return rules.may_vote(VoteGuard(next_target, max_source), link_between(source, target))


@cache
def after_vote(next_target: int, max_source: int, source: int, target: int) -> tuple[int, int]:
    """Return the promises once the vote is cast: next target and highest source."""
    guard = VoteGuard(next_target, max_source).after_vote(link_between(source, target))
    return guard.next_target, guard.max_source


def stand_in(number: int) -> Producer:
    """Return a producer that stands for a whole set where the node's code only passes sets on."""
    return Producer(f"set {number}", bytes([number]) * 20, bytes([number]) * 33)


def entry_of(voting: Voting) -> VotingEntry:
    """Return the voting sets as they are in a block's state."""
    pending = None if voting.pending == NONE else PendingSet(voting.scheduled, [stand_in(voting.pending)])
    return VotingEntry(0, [stand_in(voting.current)], pending)


def voting_of(entry: VotingEntry) -> Voting:
    """Return the voting sets of a state."""
    current = entry.producers[0].key_id[0]
    if entry.pending is None:
        return Voting(current)
    return Voting(current, entry.pending.producers[0].key_id[0], entry.pending.height)


@cache
def signers_of(rules: Rules, voting: Voting) -> tuple[int, ...]:
    """Return the sets that must sign a block whose parent's chain has the sets ``voting``."""
    state: Any = SimpleNamespace(voting=entry_of(voting))
    both = tuple(voting_set.producers[0].key_id[0] for voting_set in epochs.voting_sets(state))
    return {Signers.BOTH: both, Signers.OLD: both[:1], Signers.NEW: both[-1:]}[rules.signers]


@cache
def completed(rules: Rules, voting: Voting, finality: BranchFinality) -> Voting:
    """Return the sets once a block shows ``finality``: the pending change may be complete."""
    proved = finality.justified if rules.completes_when_justified else finality.final
    return voting_of(epochs._completed(entry_of(voting), proved))


@cache
def scheduled(rules: Rules, parent: Voting, now: Voting, height: int, wanted: int) -> Voting | None:
    """Return the sets after a block at ``height`` whose election wants another set, None where that has to wait.

    parent: the sets after its parent. now: the same once a change that the block completes is complete.
    """
    if now.current == wanted:
        return None
    if parent.pending == NONE or (now.pending == NONE and rules.second is Second.AT_COMPLETION):
        election: Any = SimpleNamespace(voting=[stand_in(wanted)])
        return voting_of(epochs._scheduled(entry_of(now), election, height))
    if now.pending in {NONE, wanted}:
        return None
    if rules.second is Second.REPLACES:
        return now._replace(pending=wanted, scheduled=height)
    if rules.second is Second.SHIFTS:
        return Voting(now.pending, wanted, height)
    if rules.second is Second.DELAYS:
        return now._replace(scheduled=height)
    return None


def next_facts(rules: Rules, height: int, parent: Facts, carried: Link | None, schedules: int) -> Facts | None:
    """Return what follows for a block at ``height``, None where it may not schedule the change."""
    finality = parent.finality if carried is None else parent.finality.after(carried)
    voting = completed(rules, parent.voting, finality)
    if schedules != NONE:
        changed = scheduled(rules, parent.voting, voting, height, schedules)
        if changed is None:
            return None
        voting = changed
    return Facts(finality, signers_of(rules, parent.voting), voting)


@cache
def facts_of(rules: Rules, chain: Chain) -> tuple[Facts, ...] | None:
    """Return the facts of each block of ``chain``, genesis first; None where one may not schedule its change."""
    if not chain:
        return (GENESIS,)
    before = facts_of(rules, chain[:-1])
    if before is None:
        return None
    carries, schedules = chain[-1]
    carried = link_between(before[carries].source, carries) if carries else None
    last = next_facts(rules, len(chain), before[-1], carried, schedules)
    return None if last is None else (*before, last)


@cache
def blocks_on(instance: Instance, chain: Chain, certified: int) -> tuple[Block, ...]:
    """Return the blocks that may be sealed on ``chain``.

    certified: bit h is set where the block at height h has a certificate.
    """
    facts = facts_of(instance.rules, chain)
    assert facts is not None
    source = facts[-1].source
    carried = [0, *(height for height in range(source + 1, len(chain) + 1) if certified >> height & 1)]
    wanted = range(NONE, len(instance.sets)) if len(instance.sets) > 1 else [NONE]
    blocks = (Block(carries, schedules) for carries in carried for schedules in wanted)
    return tuple(block for block in blocks if facts_of(instance.rules, (*chain, block)) is not None)


def extensions(instance: Instance, chain: Chain, height: int, certified: int) -> Iterator[Chain]:
    """Yield ``chain`` with blocks sealed up to ``height``, in every way that the certificates there are allow."""
    if len(chain) >= height:
        yield chain
        return
    for block in blocks_on(instance, chain, certified):
        yield from extensions(instance, (*chain, block), height, certified)
