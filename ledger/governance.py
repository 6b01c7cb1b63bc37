"""What a payload does to the state: the members' own affairs, and what they decide together.

A change holds from the next block on. Within a block, later transactions see the changes of earlier ones, but who
may sign is judged by the state at the block's start.

Source: docs/protocol.md, "Governance".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ledger.crypto import key_id_of
from ledger.entries import (
    KeyEntry,
    KeyStanding,
    MemberEntry,
    Proposal,
    ProposalAction,
    ProposalEntry,
    StruckEntry,
)
from ledger.errors import UnusableTransaction
from ledger.genesis import KEYS_MAX, MEMBERS_MAX, Role
from ledger.payloads import (
    Approval,
    CandidateChange,
    Delegations,
    Evidence,
    KeyChanges,
    KeyOperation,
    Payload,
)
from ledger.state import State, StateKey

PROPOSALS_PER_MEMBER_MAX = 8
"""Open proposals of one member. There is no bound for all: a few members could fill it and silence the others."""
PROPOSAL_LIFETIME_MS_MAX = 30 * 86_400_000
KEYS_EVER_MAX = 4_096
"""Keys of one member, ended ones included: the state keeps them for ever, so that no id is ever used twice."""


def apply_payload(state: State, payload: Payload, *, member_id: str, tx_id: bytes, height: int, time_ms: int) -> State:
    """Return the state after a transaction of ``member_id`` in the block at ``height`` and block time ``time_ms``.

    Raises UnusableTransaction naming the field where it does not fit this state.
    """
    # [IGNORE] Its member is still one
    if member_id not in state.members:
        raise _unusable("no member", "envelope.member_id", actual=member_id)
    match payload:
        case KeyChanges():
            return _change_keys(state, member_id, payload, time_ms)
        case CandidateChange():
            return _change_candidate(state, member_id, payload)
        case Delegations():
            return _delegate(state, member_id, payload)
        case Proposal():
            return _propose(state, member_id, payload, tx_id, time_ms, height)
        case Approval():
            return _approve(state, member_id, payload, time_ms, height)
        case Evidence():
            return _strike(state, payload, height)


# -- a member's own affairs ----------------------------------------------------------------------------------------


def _change_keys(state: State, member_id: str, payload: KeyChanges, time_ms: int) -> State:
    """Return the state with the changes of a member's keys: all of them, in order, or none."""
    office, reserved = keys_in_office(state), _reserved_keys(state, time_ms)
    own = {key_id: entry for key_id, entry in state.keys.items() if entry.member_id == member_id}
    before, candidate = dict(own), state.candidates.get(member_id)
    for index, change in enumerate(payload.changes):
        where, roles, new_id = f"changes[{index}]", change.roles, b""
        if change.key_id is not None:
            roles = _active(own, change.key_id, where).roles
            own[change.key_id] = _ended(own[change.key_id], change.key_id in office)
        if change.public_key is not None:
            new_id = key_id_of(change.public_key)
            # [IGNORE] The key is new to the chain, and nobody is about to be admitted with it
            if new_id in state.keys or new_id in own or change.public_key in reserved:
                hint = "An open proposal would admit a member with it" if change.public_key in reserved else ""
                raise _unusable("the chain knows this key already", f"{where}.public_key", actual=new_id, hint=hint)
            own[new_id] = KeyEntry(member_id, change.public_key, roles, KeyStanding.ACTIVE)
        if candidate is not None and candidate.key_id == change.key_id:
            candidate = replace(candidate, key_id=new_id) if change.operation is KeyOperation.ROTATE else None
    _check_own_keys(own)
    changes: dict[StateKey, Any] = {("key", k): entry for k, entry in own.items() if before.get(k) is not entry}
    if candidate != state.candidates.get(member_id):
        changes["candidate", member_id] = candidate
    return state.changed(changes)


def _active(own: Mapping[bytes, KeyEntry], key_id: bytes, where: str) -> KeyEntry:
    entry = own.get(key_id)
    # [IGNORE] The key is an active one of the member
    if entry is None or entry.standing is not KeyStanding.ACTIVE:
        raise _unusable("not an active key of this member", f"{where}.key_id", actual=key_id)
    return entry


def _check_own_keys(own: Mapping[bytes, KeyEntry]) -> None:
    active = [key for key in own.values() if key.standing is KeyStanding.ACTIVE]
    # [IGNORE] The member can still govern itself
    if not any(key.roles & Role.GOVERN for key in active):
        raise _unusable(
            "this would leave the member without a govern key", "changes", hint="Add another govern key with it"
        )
    # [IGNORE] It has not too many keys, now or with those it had: what was a key is remembered for ever
    if len(active) > KEYS_MAX:
        raise _unusable("too many active keys", "changes", expected=f"<= {KEYS_MAX}", actual=len(active))
    if len(own) > KEYS_EVER_MAX:
        raise _unusable("too many keys, ended ones included", "changes", expected=f"<= {KEYS_EVER_MAX}")


def _reserved_keys(state: State, time_ms: int) -> set[bytes]:
    """Return the public keys that open proposals admit members with: taking one would be a veto against them."""
    proposals = (entry.proposal for entry in state.proposals.values())
    return {key.public_key for proposal in proposals if proposal.expires_ms > time_ms for key in proposal.keys}


def _ended(entry: KeyEntry, is_in_office: bool) -> KeyEntry:
    """Return the entry of a key that ends: at once, or when the producers are without it."""
    return replace(entry, standing=KeyStanding.RETIRING if is_in_office else KeyStanding.REVOKED)


def keys_in_office(state: State) -> set[bytes]:
    """Return the keys that may produce now, or whose votes count now or after the change under way."""
    pending = state.voting.pending
    office = [*state.epoch.seats, *state.voting.producers, *(pending.producers if pending else ())]
    return {producer.key_id for producer in office}


def _change_candidate(state: State, member_id: str, payload: CandidateChange) -> State:
    candidate = payload.candidate
    if candidate is None:
        # [IGNORE] Who withdraws stands
        if member_id not in state.candidates:
            raise _unusable("the member does not stand", "candidate")
        return state.changed({("candidate", member_id): None})
    # [IGNORE] Who stands has not been struck
    if member_id in state.struck:
        raise _unusable("the member was struck", "candidate", hint="It has to be readmitted by proposal first")
    key = state.key_with_role(candidate.key_id, Role.NODE)
    # [IGNORE] It stands with a node key of its own
    if key is None or key.member_id != member_id:
        raise _unusable(
            "not a node key of this member",
            "candidate.key_id",
            expected=f"an active node key of {member_id}",
            actual=candidate.key_id,
        )
    return state.changed({("candidate", member_id): candidate})


def _delegate(state: State, member_id: str, payload: Delegations) -> State:
    weight = state.members[member_id].weight
    total = sum(part.weight for part in payload.parts)
    # [IGNORE] A member delegates no more than its weight
    if total > weight:
        raise _unusable("more than the member's weight", "parts", expected=f"<= {weight}", actual=total)
    for part in payload.parts:
        # [IGNORE] Those delegated to stand
        if part.candidate_id not in state.candidates or part.candidate_id in state.struck:
            raise _unusable(
                "no candidate",
                "parts.candidate_id",
                expected="a member that stands for a seat",
                actual=part.candidate_id,
            )
    changes: dict[StateKey, Any] = {("delegation", *pair): None for pair in state.delegations if pair[0] == member_id}
    changes |= {("delegation", member_id, part.candidate_id): part.weight for part in payload.parts}
    return state.changed(changes)


# -- what concerns all ---------------------------------------------------------------------------------------------


def _propose(state: State, member_id: str, proposal: Proposal, tx_id: bytes, time_ms: int, height: int) -> State:
    # [IGNORE] It has not expired, and will within the bound
    if not time_ms < proposal.expires_ms <= time_ms + PROPOSAL_LIFETIME_MS_MAX:
        raise _unusable(
            "expired, or open for too long",
            "expires_ms",
            expected=f"{time_ms + 1} to {time_ms + PROPOSAL_LIFETIME_MS_MAX}",
            actual=proposal.expires_ms,
        )
    expired = [i for i, entry in state.proposals.items() if entry.proposal.expires_ms <= time_ms]
    state = state.changed({("proposal", i): None for i in expired})
    own = sum(entry.proposer == member_id for entry in state.proposals.values())
    # [IGNORE] The member has not too many open
    if own >= PROPOSALS_PER_MEMBER_MAX:
        raise _unusable(
            "too many proposals of this member are open",
            "proposals",
            expected=f"< {PROPOSALS_PER_MEMBER_MAX}",
            actual=own,
        )
    # [IGNORE] It can be carried out as things stand
    _carry_out(state, proposal, height)
    return _count_approvals(state, tx_id, ProposalEntry(member_id, proposal, [member_id]), height)


def _approve(state: State, member_id: str, payload: Approval, time_ms: int, height: int) -> State:
    entry = state.proposals.get(payload.proposal_id)
    # [IGNORE] The proposal is open
    if entry is None or entry.proposal.expires_ms <= time_ms:
        raise _unusable("no open proposal", "proposal_id", actual=payload.proposal_id)
    # [IGNORE] Nobody approves twice
    if member_id in entry.approvals:
        raise _unusable(
            "approved already", "proposal_id", expected="one approval of each member", actual=payload.proposal_id
        )
    entry = replace(entry, approvals=sorted([*entry.approvals, member_id]))
    return _count_approvals(state, payload.proposal_id, entry, height)


def _count_approvals(state: State, proposal_id: bytes, entry: ProposalEntry, height: int) -> State:
    """Return the state with the proposal carried out if two-thirds of the weight approve it, else open."""
    total = sum(member.weight for member in state.members.values())
    approved = sum(state.members[name].weight for name in entry.approvals if name in state.members)
    if 3 * approved < 2 * total:
        return state.changed({("proposal", proposal_id): entry})
    return _carry_out(state.changed({("proposal", proposal_id): None}), entry.proposal, height)


def _carry_out(state: State, proposal: Proposal, height: int) -> State:
    match proposal.action:
        case ProposalAction.ADMIT:
            return _admit(state, proposal, height)
        case ProposalAction.SEATS:
            return state.changed({("parameters",): replace(state.parameters, producer_count=proposal.seats)})
    member_id = proposal.member_id or ""
    member = state.members.get(member_id)
    # [IGNORE] The member concerned is one
    if member is None:
        raise _unusable("no member", "proposal.member_id", expected="a member of this chain", actual=member_id)
    match proposal.action:
        case ProposalAction.REWEIGH:
            return state.changed(_reweigh(state, member_id, member, proposal.weight))
        case ProposalAction.REMOVE:
            return _remove(state, member_id)
        case ProposalAction.READMIT:
            # [IGNORE] Who is readmitted was struck
            if member_id not in state.struck:
                raise _unusable("the member was not struck", "proposal.member_id", actual=member_id)
            cleared = replace(member, cleared_height=height)
            return state.changed({("struck", member_id): None, ("member", member_id): cleared})
    raise AssertionError(proposal.action)


def _admit(state: State, proposal: Proposal, height: int) -> State:
    member_id = proposal.member_id or ""
    # [IGNORE] Who is admitted is new, and there is room
    if member_id in state.members:
        raise _unusable("a member already", "proposal.member_id", expected="a new name", actual=member_id)
    if len(state.members) >= MEMBERS_MAX:
        raise _unusable("too many members", "proposal.member_id", expected=f"< {MEMBERS_MAX}")
    changes: dict[StateKey, Any] = {("member", member_id): MemberEntry(proposal.weight, height)}
    for index, key in enumerate(proposal.keys):
        key_id = key_id_of(key.public_key)
        # [IGNORE] Its keys are new to the chain
        if key_id in state.keys:
            raise _unusable("the chain knows this key already", f"proposal.keys[{index}].public_key", actual=key_id)
        changes["key", key_id] = KeyEntry(member_id, key.public_key, key.roles, KeyStanding.ACTIVE)
    return state.changed(changes)


def _reweigh(state: State, member_id: str, member: MemberEntry, weight: int) -> Mapping[StateKey, Any]:
    """Return another weight, with as much of the delegations as it covers, in the candidates' order."""
    changes: dict[StateKey, Any] = {("member", member_id): replace(member, weight=weight)}
    left = weight
    for pair, part in sorted(state.delegations.items()):
        if pair[0] == member_id:
            kept = min(part, left)
            left -= kept
            if kept != part:
                changes["delegation", *pair] = kept or None
    return changes


def _remove(state: State, member_id: str) -> State:
    # [IGNORE] Somebody remains
    if len(state.members) == 1:
        raise _unusable("the last member cannot be removed", "proposal.member_id", actual=member_id)
    changes: dict[StateKey, Any] = {("member", member_id): None}
    if member_id in state.candidates:
        changes["candidate", member_id] = None
    if member_id in state.struck:
        changes["struck", member_id] = None
    changes |= {("delegation", *pair): None for pair in state.delegations if member_id in pair}
    office = keys_in_office(state)
    for key_id, key in state.keys.items():
        if key.member_id == member_id and key.standing is not KeyStanding.REVOKED:
            changes["key", key_id] = _ended(key, key_id in office)
    # Whoever is admitted under this name later has approved of nothing yet.
    for proposal_id, entry in state.proposals.items():
        if member_id in entry.approvals:
            left = [name for name in entry.approvals if name != member_id]
            changes["proposal", proposal_id] = replace(entry, approvals=left)
    return state.changed(changes)


def check_accusation(state: State, evidence: Evidence) -> str:
    """Return the member that ``evidence`` would strike. Raises UnusableTransaction where it strikes nobody."""
    key = state.keys.get(key_id_of(evidence.public_key))
    member = state.members.get(key.member_id) if key else None
    # [IGNORE] The key accused is a member's
    if key is None or member is None:
        raise _unusable("the key accused is no member's", "public_key", actual=evidence.public_key)
    # [IGNORE] The key has not ended: one that was given up because somebody stole it harms its member no more
    if key.standing is KeyStanding.REVOKED:
        raise _unusable("the key accused has ended", "public_key", actual=evidence.public_key)
    # [IGNORE] The member is not struck already, and the fault is not settled
    if key.member_id in state.struck:
        raise _unusable("struck already", "public_key", actual=key.member_id)
    if evidence.height <= member.cleared_height:
        raise _unusable(
            "settled: the member was readmitted since",
            "evidence",
            expected=f"a fault above height {member.cleared_height}",
            actual=evidence.height,
        )
    return key.member_id


def _strike(state: State, evidence: Evidence, height: int) -> State:
    return state.changed({("struck", check_accusation(state, evidence)): StruckEntry(height, 0)})


def _unusable(
    what: str, where: str, *, expected: object = "", actual: object = "", hint: str = ""
) -> UnusableTransaction:
    return UnusableTransaction(what, where=where, expected=expected, actual=actual, hint=hint)
