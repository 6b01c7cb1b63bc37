"""Catching up through admissions, elections and key rotations: what later blocks need is known only from earlier ones.

Two whole nodes, with the gossip, sync and driver they run with, over a link in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from ledger.entries import Proposal, ProposalAction
from ledger.genesis import Candidate, MemberKey, Role
from ledger.payloads import Approval, CandidateChange, DelegationPart, Delegations, KeyChange, KeyChanges, KeyOperation
from ledger.store import MemoryStore
from ledger.transaction import Kind
from node.node import Node
from node.sim.world import govern_key, member_name, producer_key, submit_key
from p2p.messages import Message
from tests.consensus.bench_kit import Bench, time_of

MEMBERS, SEATS = 6, 4
SOURCE, TARGET = 4, 5
"""Members without a seat: they keep the chain and sign nothing."""
NEWCOMERS = (7, 8)


@dataclass(frozen=True)
class Link:
    """One side's end of a connection; what it sends arrives at once, in order."""

    key_id: bytes
    other: Callable[[], Node]
    own: bytes

    @property
    def peers(self) -> list[Link]:
        return [self]

    def send(self, peer_id: bytes, message: Message) -> bool:
        assert peer_id == self.key_id
        self.other().driver.deliver(self.own, message)
        return True

    def ban(self, peer_id: bytes, reason: str) -> None:
        raise AssertionError(f"banned: {reason}")


class Chain:
    """A chain that grows by hand, a record in each slot."""

    def __init__(self) -> None:
        self.bench = Bench(MEMBERS, seats=SEATS)
        self.slots = count()
        self.calls = count(1)
        self.feeders: dict[int, int] = {0: 0}
        """Members that hand in records, with the number of the key they sign with."""

    def run(self, slots: int) -> None:
        """Let slots pass."""
        for _ in range(slots):
            slot = next(self.slots)
            for member in self.feeders:
                self.bench.submit([next(self.calls)], member=member, now_ms=time_of(slot))
            self.bench.run_slot(slot)

    @property
    def slot(self) -> int:
        """Return the slot of the head."""
        return self.bench.observer.head.slot

    def admit(self, number: int) -> None:
        """Admit a member, by everybody's approval; from then on it hands in records, stands and is elected."""
        keys = [
            MemberKey(producer_key(number).public_key, Role.NODE),
            MemberKey(submit_key(number).public_key, Role.SUBMIT),
            MemberKey(govern_key(number).public_key, Role.GOVERN),
        ]
        expires_ms = time_of(self.slot + 5_000)
        proposal = Proposal(ProposalAction.ADMIT, member_name(number), 300, keys, 0, expires_ms)
        proposal_id = self.bench.govern(0, Kind.PROPOSE, proposal, slot=self.slot)
        self.run(1)
        for other in range(1, MEMBERS):
            self.bench.govern(other, Kind.APPROVE, Approval(proposal_id), slot=self.slot)
        self.run(1)
        self.feeders[number] = number
        stand = CandidateChange(Candidate(producer_key(number).key_id, "", ""))
        self.bench.govern(number, Kind.CANDIDATE, stand, slot=self.slot)
        self.run(1)
        delegate = Delegations([DelegationPart(member_name(number), 300)])
        self.bench.govern(number, Kind.DELEGATE, delegate, slot=self.slot)
        self.run(1)

    def rotate(self, member: int, new: int) -> None:
        """Give a producer another key, that its node has at hand."""
        bench = self.bench
        bench.next_keys[member] = producer_key(new)
        bench.engines[member] = bench.make(member)
        change = KeyChange(KeyOperation.ROTATE, producer_key(new).public_key, 0, producer_key(member).key_id)
        bench.govern(member, Kind.KEY, KeyChanges([change]), slot=self.slot)

    def join(self, number: int) -> None:
        """Give an admitted member a node of its own."""
        bench = self.bench
        observer_store = bench.stores[-1]
        copy = MemoryStore()
        for key, value in observer_store.scan(b"\x10", b"\xff"):
            if key[:1] != b"\x20":
                pass
        del copy, value, number
