"""Members that do whatever they like: what holds of the state after any sequence of payloads and elections."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from ledger_samples import CHAIN_ID, GENESIS, NODE_KEYS, NOW_MS, SUBMIT_KEY

from consensus.election import elect, founding_state
from ledger.block import Vote, vote_digest
from ledger.codec import encode
from ledger.crypto import PrivateKey, key_id_of
from ledger.entries import EpochEntry, KeyEntry, KeyStanding, Proposal, ProposalAction, Turn, TurnsEntry, VotingEntry
from ledger.errors import UnusableTransaction
from ledger.genesis import Candidate, MemberKey, Role
from ledger.governance import PROPOSALS_PER_MEMBER_MAX, apply_payload, keys_in_office
from ledger.payloads import (
    Approval,
    CandidateChange,
    DelegationPart,
    Delegations,
    Evidence,
    KeyChange,
    KeyChanges,
    KeyOperation,
    Payload,
    read_payload,
)
from ledger.state import EMPTY_STATE, State, state_changes, state_from_rows, state_puts
from ledger.transaction import Kind

NAMES = [*NODE_KEYS, "edda", "fura"]
KEYS = [*NODE_KEYS.values(), SUBMIT_KEY, *(PrivateKey.from_seed(b"key %d" % n) for n in range(8))]
"""Few, so that they meet again."""
KIND_OF: dict[type[Any], Kind] = {
    KeyChanges: Kind.KEY,
    CandidateChange: Kind.CANDIDATE,
    Delegations: Kind.DELEGATE,
    Proposal: Kind.PROPOSE,
    Approval: Kind.APPROVE,
    Evidence: Kind.EVIDENCE,
}

names = st.sampled_from(NAMES)
keys = st.sampled_from(KEYS)
roles = st.integers(1, 7)
key_changes = st.one_of(
    st.builds(lambda key, role: KeyChange(KeyOperation.ADD, key.public_key, role, None), keys, roles),
    st.builds(lambda old, key: KeyChange(KeyOperation.ROTATE, key.public_key, 0, old.key_id), keys, keys),
    st.builds(lambda old: KeyChange(KeyOperation.REVOKE, None, 0, old.key_id), keys),
)


def proposal_of(action: ProposalAction, name: str, weight: int, new: PrivateKey, days: int) -> Proposal:
    """Return a proposal with the fields of its action."""
    expires_ms = NOW_MS + days * 86_400_000
    match action:
        case ProposalAction.SEATS:
            return Proposal(action, None, 0, [], 1 + weight % 6, expires_ms)
        case ProposalAction.ADMIT:
            return Proposal(action, name, weight, [MemberKey(new.public_key, 7)], 0, expires_ms)
        case ProposalAction.REWEIGH:
            return Proposal(action, name, weight, [], 0, expires_ms)
    return Proposal(action, name, 0, [], 0, expires_ms)


def fault_of(key: PrivateKey, height: int) -> Evidence:
    votes = []
    for tag in (b"\x01", b"\x02"):
        link = (0, bytes(32), height, tag * 32)
        votes.append(Vote(*link, key.key_id, key.sign(vote_digest(CHAIN_ID, *link))))
    return Evidence(key.public_key, sorted(votes, key=encode), [])


class Members(RuleBasedStateMachine):
    """One payload a block, an election now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.state: State = founding_state(GENESIS)
        self.height = 0
        self.seen: dict[bytes, KeyEntry] = {}

    def submit(self, member: str, payload: Payload, days: int = 0) -> None:
        """Apply a payload, if it fits; a second time, and in another state, it may not matter."""
        self.height += 1
        assert read_payload(KIND_OF[type(payload)], [encode(payload)], CHAIN_ID) == payload
        place = {"member_id": member, "tx_id": self.height.to_bytes(32), "height": self.height}
        before = self.state
        try:
            self.state = apply_payload(before, payload, time_ms=NOW_MS + days * 86_400_000, **place)
        except UnusableTransaction:
            self.state = before

    @rule(member=names, made=st.lists(key_changes, min_size=1, max_size=3))
    def change_keys(self, member: str, made: list[KeyChange]) -> None:
        self.submit(member, KeyChanges(made))

    @rule(member=names, key=keys)
    def stand(self, member: str, key: PrivateKey) -> None:
        self.submit(member, CandidateChange(Candidate(key.key_id, "", "")))

    @rule(member=names)
    def withdraw(self, member: str) -> None:
        self.submit(member, CandidateChange(None))

    @rule(member=names, parts=st.dictionaries(names, st.integers(1, 120), max_size=3))
    def delegate(self, member: str, parts: dict[str, int]) -> None:
        self.submit(member, Delegations([DelegationPart(name, parts[name]) for name in sorted(parts)]))

    @rule(
        member=names,
        action=st.sampled_from(ProposalAction),
        name=names,
        weight=st.integers(1, 150),
        new=keys,
        days=st.integers(1, 30),
        approvals=st.integers(0, 6),
    )
    def propose(
        self, member: str, action: ProposalAction, name: str, weight: int, new: PrivateKey, days: int, approvals: int
    ) -> None:
        self.submit(member, proposal_of(action, name, weight, new, days))
        proposal_id = self.height.to_bytes(32)
        for other in NAMES[:approvals]:
            self.submit(other, Approval(proposal_id))

    @rule(member=names, choice=st.integers(0, 20), days=st.integers(0, 30))
    def approve(self, member: str, choice: int, days: int) -> None:
        ids = sorted(self.state.proposals)
        if ids:
            self.submit(member, Approval(ids[choice % len(ids)]), days)

    @rule(member=names, key=keys, height=st.integers(1, 60))
    def accuse(self, member: str, key: PrivateKey, height: int) -> None:
        self.submit(member, fault_of(key, height))

    @rule()
    def elect(self) -> None:
        """Seats and voting set at once: what governs does not ask how they came about."""
        seats = elect(self.state, out=list(self.state.struck)) or self.state.epoch.seats
        epoch = EpochEntry(self.state.epoch.epoch + 1, bytes(32), seats)
        voting = VotingEntry(self.state.voting.set_id + 1, seats, None)
        turns = TurnsEntry([Turn(0, 0)] * len(seats))
        self.state = self.state.changed({("epoch",): epoch, ("voting",): voting, ("turns",): turns})
        office = keys_in_office(self.state)
        ended = {
            ("key", key_id): KeyEntry(key.member_id, key.public_key, key.roles, KeyStanding.REVOKED)
            for key_id, key in self.state.keys.items()
            if key.standing is KeyStanding.RETIRING and key_id not in office
        }
        self.state = self.state.changed(ended)

    @invariant()
    def delegations_are_covered(self) -> None:
        given: dict[str, int] = {}
        for (member, candidate), weight in self.state.delegations.items():
            assert weight > 0
            assert {member, candidate} <= self.state.members.keys()
            given[member] = given.get(member, 0) + weight
        assert all(weight <= self.state.members[member].weight for member, weight in given.items())

    @invariant()
    def candidates_stand_with_a_key_of_their_own(self) -> None:
        for name, candidate in self.state.candidates.items():
            key = self.state.key_with_role(candidate.key_id, Role.NODE)
            assert key is not None
            assert key.member_id == name

    @invariant()
    def everybody_can_govern_itself(self) -> None:
        able = {
            key.member_id
            for key in self.state.keys.values()
            if key.standing is KeyStanding.ACTIVE and key.roles & Role.GOVERN
        }
        assert self.state.members.keys() <= able
        assert self.state.members
        assert self.state.struck.keys() <= self.state.members.keys()

    @invariant()
    def keys_are_for_ever_and_only_ever_end(self) -> None:
        office = keys_in_office(self.state)
        for key_id, key in self.seen.items():
            now = self.state.keys[key_id]
            assert (now.member_id, now.public_key, now.roles) == (key.member_id, key.public_key, key.roles)
            order = [KeyStanding.ACTIVE, KeyStanding.RETIRING, KeyStanding.REVOKED]
            assert order.index(key.standing) <= order.index(now.standing)
        for key_id, key in self.state.keys.items():
            assert key_id_of(key.public_key) == key_id
            assert (key.standing is not KeyStanding.RETIRING) or key_id in office
            assert not (key.standing is KeyStanding.REVOKED and key_id in office)
            assert key.member_id in self.state.members or key.standing is not KeyStanding.ACTIVE
        self.seen = dict(self.state.keys)

    @invariant()
    def proposals_are_of_members(self) -> None:
        total = sum(member.weight for member in self.state.members.values())
        for entry in self.state.proposals.values():
            assert entry.approvals == sorted(set(entry.approvals))
            assert set(entry.approvals) <= self.state.members.keys()
        proposers = [entry.proposer for entry in self.state.proposals.values()]
        assert all(proposers.count(name) <= PROPOSALS_PER_MEMBER_MAX for name in proposers)
        assert total > 0

    @invariant()
    def what_is_on_disk_is_the_same_state_in_whatever_order(self) -> None:
        rows = [(key, value) for key, value in state_puts(state_changes(EMPTY_STATE, self.state)) if value is not None]
        random.Random(self.height).shuffle(rows)
        again = state_from_rows(rows, self.state.tree.root)
        assert state_changes(again, self.state) == {}
        assert again.tree.root == self.state.tree.root


TestMembers = Members.TestCase
TestMembers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
