"""Goes through a trace with the code that nodes run, and says for itself what is certified, final and broken.

The models count votes and heights. Here blocks have ids, votes lie in a VotePool, and certificates are made and checked
as nodes do it. Only the rule for the voting sets comes from the models, as it may be the one that is broken.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from consensus.finality import BranchFinality, makes_final
from consensus.votes import Checkpoint, Link, VoteGuard, VotePool, VotingSet, check_certificate
from ledger.block import Vote
from ledger.entries import Producer
from tests.model.chains import NONE, Instance, Voting, completed, scheduled, signers_of
from tests.model.checker import Violation
from tests.model.set_change_model import State as ChangeState
from tests.model.set_change_model import Step
from tests.model.votes_model import Fate
from tests.model.votes_model import State as VotesState
from tests.model.votes_model import Vote as VoteStep

CHAIN_ID = sha256(b"model").digest()
SIGNATURE = bytes(64)


@dataclass(frozen=True, slots=True)
class Node:
    """A block as a node sees it."""

    point: Checkpoint
    parent: str | None
    finality: BranchFinality
    sets: tuple[VotingSet, ...]
    voting: Voting

    @property
    def link(self) -> Link:
        """Return the link on which votes for it count."""
        return Link(self.finality.justified, self.point)


class Judge:
    """Blocks and votes of one run.

    Attributes:
        broken: promises, V1 or V2, that votes which were seen break.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.rules = instance.rules
        self.pool = VotePool(CHAIN_ID, lambda _key, _digest, _signature: True)
        genesis = Checkpoint(0, CHAIN_ID)
        self.nodes = {"genesis": Node(genesis, None, BranchFinality(genesis, genesis), (), Voting())}
        self.stored = dict.fromkeys(instance.honest, VoteGuard())
        self.seen = dict.fromkeys(instance.honest, VoteGuard())
        self.broken: set[str] = set()

    def seal(self, name: str, parent: str, carries: str | None, schedules: int) -> None:
        """Add a block; its certificate must be there to be carried. The Byzantine producers vote for it at once."""
        before = self.nodes[parent]
        finality = before.finality
        if carries is not None:
            assert carries in self.ancestors(parent)
            target = self.nodes[carries]
            certificate = self.pool.certificate(target.link, target.sets)
            assert certificate is not None
            check_certificate(certificate, target.sets, CHAIN_ID, is_valid=lambda _key, _digest, _signature: True)
            finality = finality.after(target.link)
        height = before.point.height + 1
        voting: Voting | None = completed(self.rules, before.voting, finality)
        if schedules != NONE:
            assert voting is not None
            voting = scheduled(self.rules, before.voting, voting, height, schedules)
        assert voting is not None
        sets = tuple(self.voting_set(number) for number in signers_of(self.rules, before.voting))
        point = Checkpoint(height, sha256(name.encode()).digest())
        self.nodes[name] = Node(point, parent, finality, sets, voting)
        for producer in self.instance.byzantine:
            self.add(producer, self.nodes[name].link)

    def vote(self, producer: int, name: str, *, is_stored: bool = True, is_sent: bool = True) -> None:
        """Let an honest producer vote by the rules it has."""
        link = self.nodes[name].link
        assert self.rules.may_vote(self.stored[producer], link)
        if is_stored:
            self.stored[producer] = self.stored[producer].after_vote(link)
        if is_sent:
            seen = self.seen[producer]
            self.broken |= {"V1"} if link.target.height < seen.next_target else set()
            self.broken |= {"V2"} if link.source.height < seen.max_source else set()
            self.seen[producer] = VoteGuard(
                max(seen.next_target, link.target.height + 1), max(seen.max_source, link.source.height)
            )
            self.add(producer, link)

    def add(self, producer: int, link: Link) -> None:
        """Count a vote."""
        seat = seat_of(producer)
        self.pool.add(Vote(*link.source, *link.target, seat.key_id, SIGNATURE), seat.public_key)

    def voting_set(self, number: int) -> VotingSet:
        """Return a set as certificates need it."""
        return VotingSet(number, tuple(seat_of(producer) for producer in self.instance.sets[number]))

    def ancestors(self, name: str) -> list[str]:
        """Return a block and those below it, genesis left out."""
        found = []
        while (parent := self.nodes[name].parent) is not None:
            found.append(name)
            name = parent
        return found

    def final(self) -> list[str]:
        """Return the blocks that certificates make final."""
        names = {node.point: name for name, node in self.nodes.items()}
        return [
            names[node.link.source]
            for node in self.nodes.values()
            if node.sets and self.pool.certificate(node.link, node.sets) and makes_final(node.link)
        ]

    def conflicts(self) -> list[tuple[str, str]]:
        """Return the pairs of final blocks neither of which stands on the other."""
        final = sorted(set(self.final()) - {"genesis"})
        return [
            (one, other)
            for one in final
            for other in final
            if one < other and one not in self.ancestors(other) and other not in self.ancestors(one)
        ]


def seat_of(producer: int) -> Producer:
    """Return a producer's seat."""
    key = bytes([producer])
    return Producer(f"P{producer}", key * 20, key * 33)


def named(chain: str, height: int, fork: int) -> str:
    """Return a block's name: up to the fork all are of X."""
    return "genesis" if height == 0 else f"X{height}" if height <= fork else f"{chain}{height}"


def judge_votes(instance: Instance, violation: Violation[VotesState, VoteStep]) -> Judge:
    """Return the judge after a trace of VotesModel."""
    judge = Judge(instance)
    fork = violation.initial.fork
    for step, _ in violation.actions:
        for height, block in step.sealed:
            name, parent = (named(step.chain, at, fork) for at in (height, height - 1))
            judge.seal(name, parent, named(step.chain, block.carries, fork) if block.carries else None, block.schedules)
        judge.vote(
            step.producer,
            named(step.chain, step.height, fork),
            is_stored=step.fate is not Fate.UNSTORED,
            is_sent=step.fate is not Fate.UNSENT,
        )
    return judge


def judge_changes(instance: Instance, violation: Violation[ChangeState, Step]) -> Judge:
    """Return the judge after a trace of SetChangeModel."""
    judge = Judge(instance)
    for step, state in violation.actions:
        fork = instance.height_max if state.fork is None else state.fork
        for chain, height, block, _, _, _, voters in step.blocks:
            name, parent = (named(chain, at, fork) for at in (height, height - 1))
            judge.seal(name, parent, named(chain, block.carries, fork) if block.carries else None, block.schedules)
            for producer in voters:
                judge.vote(producer, name)
    return judge
