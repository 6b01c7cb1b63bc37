"""From 4 producers to 7 to 21 and back to 7 and 4, by what members decide, while records flow and finality holds."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from consensus.params import quorum_of
from ledger.entries import Proposal, ProposalAction
from ledger.genesis import Candidate, MemberKey, Role
from ledger.payloads import Approval, CandidateChange, DelegationPart, Delegations
from ledger.transaction import Kind
from node.sim.world import EPOCH_SLOTS, govern_key, member_name, producer_key, submit_key
from tests.consensus.bench_kit import Bench, time_of

FOUNDERS = 4
NODES = 21
EPOCHS_MAX = 20
WEIGHT = 10
"""Of a new member; a founder has 100, so that the founders can still decide whom to admit."""
UNFINAL_MAX = 2
"""A block is final with the next: more than that is a slot without finality."""


class Growth:
    """A chain that grows and shrinks, slot by slot, with a record in each."""

    def __init__(self) -> None:
        self.bench = Bench(FOUNDERS, seats=7, nodes=NODES)
        self.slot = 0
        self.members = FOUNDERS
        self.sent: list[bytes] = []
        self.sizes: list[tuple[int, ...]] = []
        self.unfinal: list[int] = []

    def play(self, slots: int) -> None:
        """Play on; members take turns at handing in records."""
        for _ in range(slots):
            member = self.slot % self.members
            self.sent.append(self.bench.submit([self.slot + 1], member=member, now_ms=time_of(self.slot)))
            assert self.bench.run_slot(self.slot) is not None
            observer = self.bench.observer
            self.unfinal.append(observer.head.height - observer.final.height)
            sizes = tuple(len(voting_set.producers) for voting_set in observer.head.next_voting)
            if not self.sizes or self.sizes[-1] != sizes:
                self.sizes.append(sizes)
            self.slot += 1

    def play_until_voting(self, count: int) -> None:
        """Play on until ``count`` producers vote and no change is under way.

        Epochs of ten slots let ten of 21 prove themselves at most, so the last of them may have to wait for some.
        """
        for _ in range(EPOCHS_MAX * EPOCH_SLOTS):
            self.play(1)
            if self.sizes[-1] == (count,):
                return
        pytest.fail(f"{self.sizes[-1]} vote, not {count}")

    def decide(self, proposals: list[Proposal]) -> None:
        """Let everybody approve each of these; a block takes only so many that govern, hence the slots."""
        ids = [
            self.bench.govern(n % self.members, Kind.PROPOSE, proposal, slot=self.slot)
            for n, proposal in enumerate(proposals)
        ]
        self.play(1)
        for n, proposal_id in enumerate(ids):
            for other in range(1, self.members):
                approver = (n + other) % self.members
                self.bench.govern(approver, Kind.APPROVE, Approval(proposal_id), slot=self.slot)
        self.play(2)

    def grow(self, members: int) -> None:
        """Admit members up to this many; each stands and delegates to itself."""
        new = range(self.members, members)
        self.decide([self.admission(n) for n in new])
        self.members = members
        for n in new:
            stand = CandidateChange(Candidate(producer_key(n).key_id, "", ""))
            self.bench.govern(n, Kind.CANDIDATE, stand, slot=self.slot)
        self.play(1)
        for n in new:
            weight = Delegations([DelegationPart(member_name(n), WEIGHT)])
            self.bench.govern(n, Kind.DELEGATE, weight, slot=self.slot)

    def admission(self, number: int) -> Proposal:
        """Return the proposal to admit member ``number``, with a key for each purpose."""
        keys = [
            MemberKey(producer_key(number).public_key, Role.NODE),
            MemberKey(submit_key(number).public_key, Role.SUBMIT),
            MemberKey(govern_key(number).public_key, Role.GOVERN),
        ]
        return Proposal(ProposalAction.ADMIT, member_name(number), WEIGHT, keys, 0, self.expiry)

    def seats(self, count: int) -> Proposal:
        """Return the proposal to have so many seats."""
        return Proposal(ProposalAction.SEATS, None, 0, [], count, self.expiry)

    @property
    def expiry(self) -> int:
        """Return when a proposal made now ends."""
        return time_of(self.slot + EPOCH_SLOTS)


def test_from_4_to_7_to_21_and_back_while_records_flow_and_finality_holds() -> None:
    growth = Growth()
    growth.play(3)
    growth.grow(7)
    growth.play_until_voting(7)
    growth.decide([growth.seats(NODES)])
    growth.grow(NODES)
    growth.play_until_voting(NODES)
    growth.play(EPOCH_SLOTS)
    growth.decide([growth.seats(7)])
    growth.play_until_voting(7)
    growth.decide([growth.seats(4)])
    growth.play_until_voting(4)
    growth.play(EPOCH_SLOTS)
    # Every change by joint quorum: the old set alone, both, the new set alone.
    alone, joint = growth.sizes[::2], growth.sizes[1::2]
    assert joint == [(old, new) for (old,), (new,) in pairwise(alone)]
    up = [size for (size,) in alone[: alone.index((NODES,)) + 1]]
    assert up[:2] == [4, 7]
    assert up == sorted(up)
    assert alone[len(up) :] == [(7,), (4,)]
    assert [quorum_of(n) for n in (4, 7, 21)] == [3, 5, 15]
    assert max(growth.unfinal) <= UNFINAL_MAX
    # Every record handed in is final exactly once, on every node.
    bench = growth.bench
    settled = growth.sent[:-UNFINAL_MAX]
    for engine in bench.engines:
        assert engine.final.height >= growth.slot - UNFINAL_MAX
        assert [tx_id for tx_id in settled if engine.final_height(tx_id) is None] == []
        ids = [engine.block_id_at(height) or b"" for height in range(1, engine.final.height + 1)]
        blocks = [block for block in map(engine.block, ids) if block is not None]
        times = Counter(item.tx_id for block in blocks for item in block.body)
        assert {times[tx_id] for tx_id in settled} == {1}
        assert sum(block.sealed.header.totals.void for block in blocks) == 0
    assert len({engine.block_id_at(growth.slot - UNFINAL_MAX) for engine in bench.engines}) == 1
