"""Members that do whatever they like: what holds of the state after any sequence of payloads and elections."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

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
from tests.ledger.ledger_samples import CHAIN_ID, GENESIS, NODE_KEYS, NOW_MS, SUBMIT_KEY

NAMES = [*NODE_KEYS, "edda", "fura"]
KEYS = [*NODE_KEYS.values(), SUBMIT_KEY, *(PrivateKey.from_seed(b"key %d" % n) for n in range(12))]
"""Few, so that they meet again."""
KIND_OF: dict[type[Any], Kind] = {
    KeyChanges: Kind.KEY,
    CandidateChange: Kind.CANDIDATE,
    Delegations: Kind.DELEGATE,
    Proposal: Kind.PROPOSE,
    Approval: Kind.APPROVE,
    Evidence: Kind.EVIDENCE,
}

keys = st.sampled_from(KEYS)
places = st.integers(0, 99)
key_changes = st.tuples(st.sampled_from(KeyOperation), places, keys, st.sampled_from([1, 2, 4, 5, 7]))


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

    def member(self, place: int) -> str:
        """Return a member, now and then a stranger."""
        present = sorted(self.state.members)
        return present[place % len(present)] if place < 90 else NAMES[place % len(NAMES)]

    def key_change(self, member: str, operation: KeyOperation, place: int, new: PrivateKey, role: int) -> KeyChange:
        """Return a change of a key, mostly of the member's own."""
        own = [k for k, key in self.state.keys.items() if key.member_id == member or place > 90]
        old = own[place % len(own)] if own else new.key_id
        match operation:
            case KeyOperation.ADD:
                return KeyChange(operation, new.public_key, role, None)
            case KeyOperation.ROTATE:
                return KeyChange(operation, new.public_key, 0, old)
        return KeyChange(operation, None, 0, old)

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

    @rule(by=places, made=st.lists(key_changes, min_size=1, max_size=3))
    def change_keys(self, by: int, made: list[tuple[KeyOperation, int, PrivateKey, int]]) -> None:
        member = self.member(by)
        self.submit(member, KeyChanges([self.key_change(member, *one) for one in made]))

    @rule(by=places, place=places)
    def stand(self, by: int, place: int) -> None:
        member = self.member(by)
        own = [k for k, key in self.state.keys.items() if key.member_id == member or place > 90]
        if own:
            self.submit(member, CandidateChange(Candidate(own[place % len(own)], "", "")))

    @rule(by=places)
    def withdraw(self, by: int) -> None:
        self.submit(self.member(by), CandidateChange(None))

    @rule(by=places, parts=st.dictionaries(places, st.integers(1, 80), max_size=3))
    def delegate(self, by: int, parts: dict[int, int]) -> None:
        weights = {self.member(to): weight for to, weight in parts.items()}
        self.submit(self.member(by), Delegations([DelegationPart(name, weights[name]) for name in sorted(weights)]))

    @rule(
        by=places,
        action=st.sampled_from(ProposalAction),
        about=places,
        weight=st.integers(1, 150),
        new=keys,
        days=st.integers(1, 30),
    )
    def propose(self, by: int, action: ProposalAction, about: int, weight: int, new: PrivateKey, days: int) -> None:
        name = NAMES[about % len(NAMES)]
        if action is ProposalAction.READMIT and self.state.struck:
            name = min(self.state.struck)
        unused = [key for key in KEYS if key.key_id not in self.state.keys]
        if action is ProposalAction.ADMIT and about < 80 and unused:
            name = next((one for one in NAMES if one not in self.state.members), name)
            new = unused[0]
        self.submit(self.member(by), proposal_of(action, name, weight, new, days))

    @rule(by=places, choice=places, days=st.integers(0, 30))
    def approve(self, by: int, choice: int, days: int) -> None:
        ids = sorted(self.state.proposals)
        if ids:
            self.submit(self.member(by), Approval(ids[choice % len(ids)]), days)

    @rule(choice=places)
    def decide(self, choice: int) -> None:
        """Everybody approves of one proposal."""
        ids = sorted(self.state.proposals)
        for name in NAMES if ids else ():
            self.submit(name, Approval(ids[choice % len(ids)]))

    @rule(by=places, place=places, height=st.integers(1, 60))
    def accuse(self, by: int, place: int, height: int) -> None:
        owned = [key for key in KEYS if key.key_id in self.state.keys] or KEYS
        self.submit(self.member(by), fault_of(owned[place % len(owned)], height))

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
TestMembers.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
