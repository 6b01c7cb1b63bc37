"""Members that govern while everything goes wrong: what they are drawn to do, and the transactions that say it.

Whatever of it is late, lost or comes in another order, no voting set may ever hold more liars than it bears. So where
anybody may leave, there is one liar at most, and enough honest members never do: every set has at least CORE seats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from ledger.block import Block, Vote
from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.entries import Proposal, ProposalAction
from ledger.genesis import Candidate, MemberKey, Role
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
    SignedHeader,
    is_vote_fault,
)
from ledger.state import State
from ledger.transaction import Kind
from node.sim.events import (
    Accuse,
    Approve,
    Deed,
    Delegate,
    GoverningEvent,
    Propose,
    Revoke,
    Rotate,
    Stand,
    Withdraw,
)
from node.sim.world import (
    LIFETIME_MS,
    MEMBER_WEIGHT,
    SLOT_MS,
    govern_key,
    member_name,
    next_producer_key,
    producer_key,
    submit_key,
)

CORE = 4
"""So many honest members never leave: a set of four bears one liar."""
ACTS_PER_SLOT_MILLI = 300
BALLOT_MS = 3 * SLOT_MS
"""Approvals come within this time of the proposal."""


# -- what they are drawn to do -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Members:
    """Who is there.

    Attributes:
        nodes: how many nodes, one of each member.
        founders: how many of them are members from the start.
        seats: producers at the start.
        liars: the dishonest ones.
    """

    nodes: int
    founders: int
    seats: int
    liars: Sequence[int]

    @property
    def leavers(self) -> list[int]:
        """Return those who may leave: all but the first honest founders."""
        core = [n for n in range(self.founders) if n not in self.liars][:CORE]
        return [n for n in range(self.nodes) if n not in core]


def draw_governing(random: Random, members: Members, slots: int) -> list[GoverningEvent]:
    """Return what members do in ``slots``, in no order of time."""
    events: list[GoverningEvent] = []
    for slot in range(slots):
        if random.randrange(1000) < ACTS_PER_SLOT_MILLI:
            events += _draw_act(random, members, slot * SLOT_MS + random.randrange(SLOT_MS))
    for _ in range(random.randrange(3)):
        events += _draw_swing(random, members, random.randrange(max(1, slots * SLOT_MS * 2 // 3)))
    for liar in members.liars:
        accuser, at_ms = random.randrange(members.founders), random.randrange(slots * SLOT_MS + 1)
        events.append(Accuse(at_ms, accuser, liar))
    if members.founders < members.nodes:
        events += _draw_arrival(random, members, slots)
    return events


def _draw_act(random: Random, members: Members, at_ms: int) -> list[GoverningEvent]:
    node = random.randrange(members.nodes)
    leavers = members.leavers
    draw = random.randrange(12)
    if draw < 6 or not leavers:
        return [_draw_delegation(random, members, node, at_ms)]
    leaver = random.choice(leavers)
    match draw:
        case 6:
            return [Withdraw(at_ms, leaver)]
        case 7:
            return [Stand(at_ms, leaver)]
        case 8 | 9:
            return [Rotate(at_ms, node)]
        case 10 if members.liars:
            return [Accuse(at_ms, node, random.choice(members.liars))]
        case 10:
            return [Revoke(at_ms, leaver)]
        case _:
            return _draw_ballot(random, members, leaver, at_ms)


def _draw_delegation(random: Random, members: Members, node: int, at_ms: int) -> Delegate:
    """Return a delegation to one or two candidates; now and then more than the member has."""
    parts = [(candidate, random.choice([50, 100])) for candidate in random.sample(range(members.nodes), 2)]
    return Delegate(at_ms, node, sorted(parts[: random.randint(1, 2)]))


def _draw_swing(random: Random, members: Members, at_ms: int) -> list[GoverningEvent]:
    """Return a landslide: members delegate all they have to others, and the voting set may become quite another."""
    winners = random.sample(range(members.nodes), members.seats)
    moments = [at_ms + random.randrange(2 * SLOT_MS) for _ in range(members.nodes)]
    return [Delegate(moments[n], n, [(random.choice(winners), MEMBER_WEIGHT)]) for n in range(members.nodes)]


def _draw_ballot(random: Random, members: Members, leaver: int, at_ms: int) -> list[GoverningEvent]:
    deed = random.choice([Deed.REWEIGH, Deed.REMOVE, Deed.READMIT, Deed.SEATS])
    subject = leaver if deed in {Deed.REMOVE, Deed.READMIT} else random.randrange(members.nodes)
    amount = random.randint(CORE, members.nodes) if deed is Deed.SEATS else random.choice([50, 100, 150])
    return _with_approvals(random, members, deed, subject, amount, at_ms)


def _draw_arrival(random: Random, members: Members, slots: int) -> list[GoverningEvent]:
    """Return the arrival of a member that was not there at the start: admitted, standing, delegated to."""
    at_ms = random.randrange(max(1, slots * SLOT_MS // 3))
    newcomer = random.randrange(members.founders, members.nodes)
    later = [at_ms + BALLOT_MS + random.randrange(BALLOT_MS) for _ in range(2)]
    supporter = random.randrange(members.founders)
    return [
        *_with_approvals(random, members, Deed.ADMIT, newcomer, MEMBER_WEIGHT, at_ms),
        Stand(later[0], newcomer),
        Delegate(later[1], supporter, [(newcomer, MEMBER_WEIGHT)]),
    ]


def _with_approvals(
    random: Random, members: Members, deed: Deed, subject: int, amount: int, at_ms: int
) -> list[GoverningEvent]:
    ballot = random.randrange(1_000_000)
    proposer = random.randrange(members.founders)
    others = [n for n in range(members.nodes) if n != proposer and random.randrange(8)]
    approvals = [Approve(at_ms + 100 + random.randrange(BALLOT_MS), n, ballot) for n in others]
    return [Propose(at_ms, proposer, ballot, deed, subject, amount), *approvals]


# -- the transactions that say it ----------------------------------------------------------------------------------


@dataclass
class Parliament:
    """What was proposed and what liars were heard to say: what later acts refer to.

    Attributes:
        ballots: the id of each proposal.
        votes: what each liar voted, by the key that signed.
        blocks: the headers each liar sealed, by slot.
    """

    ballots: dict[int, bytes] = field(default_factory=dict)
    votes: dict[int, list[Vote]] = field(default_factory=dict)
    blocks: dict[int, list[SignedHeader]] = field(default_factory=dict)

    def hear(self, liar: int, message: Block | Vote) -> None:
        """Remember what a liar signed."""
        if isinstance(message, Vote):
            self.votes.setdefault(liar, []).append(message)
        else:
            signed = SignedHeader(message.sealed.header, message.sealed.signature)
            self.blocks.setdefault(liar, []).append(signed)

    def act(self, event: GoverningEvent, state: State, now_ms: int) -> tuple[Kind, Payload] | None:
        """Return what an event puts on the chain; None where there is nothing to say (yet).

        state: as the member's own node has it.
        """
        own = producer_key(event.node)
        if not state.key_with_role(own.key_id, Role.NODE):
            own = next_producer_key(event.node)
        match event:
            case Delegate():
                parts = [DelegationPart(member_name(candidate), weight) for candidate, weight in event.parts]
                return Kind.DELEGATE, Delegations(parts)
            case Stand():
                return Kind.CANDIDATE, CandidateChange(Candidate(own.key_id, "", ""))
            case Withdraw():
                return Kind.CANDIDATE, CandidateChange(None)
            case Rotate():
                new = next_producer_key(event.node)
                return Kind.KEY, KeyChanges([KeyChange(KeyOperation.ROTATE, new.public_key, 0, own.key_id)])
            case Revoke():
                return Kind.KEY, KeyChanges([KeyChange(KeyOperation.REVOKE, None, 0, own.key_id)])
            case Propose():
                return Kind.PROPOSE, _proposal(event, now_ms)
            case Approve():
                proposal_id = self.ballots.get(event.ballot)
                return None if proposal_id is None else (Kind.APPROVE, Approval(proposal_id))
            case Accuse():
                evidence = self._evidence(event.liar)
                return None if evidence is None else (Kind.EVIDENCE, evidence)

    def _evidence(self, liar: int) -> Evidence | None:
        """Return the first two things a liar said that contradict each other."""
        votes = self.votes.get(liar, [])
        for place, vote in enumerate(votes):
            for other in votes[:place]:
                if other.key_id == vote.key_id and is_vote_fault(other, vote):
                    return Evidence(_public_key(liar, vote.key_id), sorted([other, vote], key=encode), [])
        blocks = self.blocks.get(liar, [])
        for place, block in enumerate(blocks):
            for second in blocks[:place]:
                header = second.header
                if header.slot == block.header.slot and header != block.header:
                    key = _public_key(liar, header.producer_key_id)
                    return Evidence(key, [], sorted([second, block], key=encode))
        return None


def _public_key(node: int, key_id: bytes) -> bytes:
    return next(k.public_key for k in (producer_key(node), next_producer_key(node)) if k.key_id == key_id)


def _proposal(event: Propose, now_ms: int) -> Proposal:
    action = ProposalAction[event.deed.name]
    name = None if event.deed is Deed.SEATS else member_name(event.subject)
    weight = event.amount if event.deed in {Deed.ADMIT, Deed.REWEIGH} else 0
    keys = []
    if event.deed is Deed.ADMIT:
        keys = [
            MemberKey(producer_key(event.subject).public_key, Role.NODE),
            MemberKey(submit_key(event.subject, stand_in=True).public_key, Role.SUBMIT),
            MemberKey(govern_key(event.subject).public_key, Role.GOVERN),
        ]
    seats = event.amount if event.deed is Deed.SEATS else 0
    return Proposal(action, name, weight, keys, seats, now_ms + LIFETIME_MS)


def signing_key(event: GoverningEvent, state: State) -> PrivateKey:
    """Return the key that an event's transaction is signed with: the member's govern key, or a node key of its own."""
    if not isinstance(event, Accuse):
        return govern_key(event.node, stand_in=True)
    keys = (producer_key(event.node), next_producer_key(event.node))
    return next((key for key in keys if state.key_with_role(key.key_id, Role.NODE)), keys[0])
