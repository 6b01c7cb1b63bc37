"""What a transaction that governs holds: one item, the payload of its kind; and what is right about it by itself.

What a payload does to the state is ``ledger.governance``.

Source: docs/protocol.md, "Governance".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Annotated, Any, Final

from msgspec import Meta

from ledger.block import Header, Vote, block_id_of, vote_digest
from ledger.codec import Bytes20, Bytes32, Bytes33, Bytes64, MemberId, Wire, decode, encode
from ledger.crypto import check_public_key, is_valid_signature, key_id_of
from ledger.entries import Proposal, ProposalAction
from ledger.errors import FieldError, InvalidTransaction
from ledger.genesis import Candidate, Role
from ledger.transaction import Kind

KEY_CHANGES_MAX = 16
DELEGATION_PARTS_MAX = 64


class KeyOperation(IntEnum):
    """What happens to a key."""

    ADD = 1
    """``public_key`` becomes a key of the member with ``roles``."""
    ROTATE = 2
    """``public_key`` takes the place of ``key_id``: its roles, and its candidacy."""
    REVOKE = 3
    """``key_id`` ends, and with it the candidacy it stands for."""


class KeyChange(Wire, frozen=True):
    """One change of a member's keys; fields that the operation does not use are null or zero."""

    operation: KeyOperation
    public_key: Bytes33 | None
    roles: Annotated[int, Meta(ge=0, le=7)]
    key_id: Bytes20 | None


class KeyChanges(Wire, frozen=True):
    """Payload of ``key``: changes that take effect together."""

    changes: Annotated[list[KeyChange], Meta(min_length=1, max_length=KEY_CHANGES_MAX)]


class CandidateChange(Wire, frozen=True):
    """Payload of ``candidate``: stand with these particulars, or withdraw."""

    candidate: Candidate | None


class DelegationPart(Wire, frozen=True):
    """A part of the sender's weight."""

    candidate_id: MemberId
    weight: Annotated[int, Meta(ge=1, le=1_000_000_000)]


class Delegations(Wire, frozen=True):
    """Payload of ``delegate``: takes the place of all that the member delegated before."""

    parts: Annotated[list[DelegationPart], Meta(max_length=DELEGATION_PARTS_MAX)]
    """Ascending by candidate_id."""


class Approval(Wire, frozen=True):
    """Payload of ``approve``."""

    proposal_id: Bytes32
    """Id of the transaction that made the proposal."""


class SignedHeader(Wire, frozen=True):
    """A header as its producer signed it."""

    header: Header
    signature: Bytes64


class Evidence(Wire, frozen=True):
    """Payload of ``evidence``: two messages that no honest producer signs both; either two votes or two headers."""

    public_key: Bytes33
    """The key that signed both."""
    votes: Annotated[list[Vote], Meta(max_length=2)]
    """Two votes for one target height (E1), or one around the other (E2); ascending by encoding."""
    headers: Annotated[list[SignedHeader], Meta(max_length=2)]
    """Two blocks in one slot; ascending by encoding."""

    @property
    def height(self) -> int:
        """Return the height at which the fault was committed: the higher of the two."""
        return max([vote.t_height for vote in self.votes] + [signed.header.height for signed in self.headers])

    @property
    def fault(self) -> str:
        """Return ``double-block``, ``double-vote`` (E1) or ``surrounding-vote`` (E2)."""
        if self.headers:
            return "double-block"
        return "double-vote" if self.votes[0].t_height == self.votes[1].t_height else "surrounding-vote"


FAULTS: Final = ("double-vote", "surrounding-vote", "double-block")
"""What ``Evidence.fault`` may say."""

Payload = KeyChanges | CandidateChange | Delegations | Proposal | Approval | Evidence

PAYLOADS: Final[dict[Kind, type[Any]]] = {
    Kind.KEY: KeyChanges,
    Kind.CANDIDATE: CandidateChange,
    Kind.DELEGATE: Delegations,
    Kind.PROPOSE: Proposal,
    Kind.APPROVE: Approval,
    Kind.EVIDENCE: Evidence,
}
"""The payload of each kind that has one; ``records`` has records, ``amend`` is reserved."""

ROLES: Final[dict[Kind, Role]] = {
    Kind.RECORDS: Role.SUBMIT,
    Kind.KEY: Role.GOVERN,
    Kind.CANDIDATE: Role.GOVERN,
    Kind.DELEGATE: Role.GOVERN,
    Kind.PROPOSE: Role.GOVERN,
    Kind.APPROVE: Role.GOVERN,
    Kind.EVIDENCE: Role.NODE,
}
"""The role that a key needs to sign a kind."""


def read_payload(
    kind: Kind,
    items: Sequence[bytes],
    chain_id: bytes,
    is_valid: Callable[[bytes, bytes, bytes], bool] = is_valid_signature,
) -> Payload:
    """Return the payload of a transaction that governs, right by itself.

    is_valid: tells whether a signature is by a public key over a digest.
    Raises InvalidTransaction or EncodingError naming the field.
    """
    # [REJECT] There is exactly one item
    if len(items) != 1:
        raise InvalidTransaction(
            "a transaction that governs has one item", where="items", expected=1, actual=len(items)
        )
    # [REJECT] It is canonical and within its bounds
    payload: Payload = decode(items[0], PAYLOADS[kind])
    match payload:
        case KeyChanges():
            for index, change in enumerate(payload.changes):
                _check_key_change(change, f"changes[{index}]")
        case Delegations():
            names = [part.candidate_id for part in payload.parts]
            # [REJECT] Delegations are ascending, one for each candidate
            if names != sorted(set(names)):
                raise InvalidTransaction("not ascending and unique", where="parts.candidate_id")
        case Proposal():
            _check_proposal(payload)
        case Evidence():
            _check_evidence(payload, chain_id, is_valid)
        case CandidateChange() | Approval():
            pass
    return payload


def _check_key_change(change: KeyChange, where: str) -> None:
    operation = change.operation
    given = (change.public_key is not None, change.roles > 0, change.key_id is not None)
    right = {
        KeyOperation.ADD: (True, True, False),
        KeyOperation.ROTATE: (True, False, True),
        KeyOperation.REVOKE: (False, False, True),
    }[operation]
    # [REJECT] A key change has the fields of its operation and no others
    if given != right:
        raise InvalidTransaction(
            "not the fields of this operation",
            where=where,
            expected={
                KeyOperation.ADD: "public_key and roles",
                KeyOperation.ROTATE: "public_key and key_id",
                KeyOperation.REVOKE: "key_id",
            }[operation],
        )
    if change.public_key is not None:
        # [REJECT] A new key is a point on P-256
        check_public_key(change.public_key, where=f"{where}.public_key")


def _check_proposal(proposal: Proposal) -> None:
    action = proposal.action
    given = (proposal.member_id is not None, proposal.weight > 0, bool(proposal.keys), proposal.seats > 0)
    right, fields = {
        ProposalAction.ADMIT: ((True, True, True, False), "member_id, weight and keys"),
        ProposalAction.REWEIGH: ((True, True, False, False), "member_id and weight"),
        ProposalAction.REMOVE: ((True, False, False, False), "member_id"),
        ProposalAction.READMIT: ((True, False, False, False), "member_id"),
        ProposalAction.SEATS: ((False, False, False, True), "seats"),
    }[action]
    # [REJECT] A proposal has the fields of its action and no others
    if given != right:
        raise InvalidTransaction("not the fields of this action", where="proposal", expected=fields)
    ids = set()
    for index, key in enumerate(proposal.keys):
        # [REJECT] The keys of a new member are points on P-256, each once
        check_public_key(key.public_key, where=f"proposal.keys[{index}].public_key")
        ids.add(key_id_of(key.public_key))
    if len(ids) != len(proposal.keys):
        raise InvalidTransaction("a key is listed twice", where="proposal.keys")
    # [REJECT] A new member can govern itself
    if proposal.keys and not any(key.roles & Role.GOVERN for key in proposal.keys):
        raise InvalidTransaction("no key with the govern role", where="proposal.keys")


def _check_evidence(evidence: Evidence, chain_id: bytes, is_valid: Callable[[bytes, bytes, bytes], bool]) -> None:
    check_public_key(evidence.public_key, where="public_key")
    # [REJECT] There are two votes or two headers, in order
    if {len(evidence.votes), len(evidence.headers)} != {0, 2}:
        raise InvalidTransaction("neither two votes nor two headers", where="evidence")
    pair: Sequence[Vote | SignedHeader] = evidence.votes or evidence.headers
    if encode(pair[0]) >= encode(pair[1]):
        raise FieldError("not ascending by encoding", where="votes" if evidence.votes else "headers")
    # [REJECT] The two contradict each other
    if not (is_vote_fault(*evidence.votes) if evidence.votes else _is_double_block(*evidence.headers)):
        raise InvalidTransaction("these two do not contradict each other", where="evidence")
    signed = [
        (v.key_id, vote_digest(chain_id, v.s_height, v.s_id, v.t_height, v.t_id), v.signature) for v in evidence.votes
    ]
    for by, digest, signature in signed + [_signed_header(header, chain_id) for header in evidence.headers]:
        # [REJECT] Both are signed by the key accused
        if by != key_id_of(evidence.public_key) or not is_valid(evidence.public_key, digest, signature):
            raise InvalidTransaction(
                "not signed by the key accused", where="evidence", expected=key_id_of(evidence.public_key), actual=by
            )


def _signed_header(signed: SignedHeader, chain_id: bytes) -> tuple[bytes, bytes, bytes]:
    """Return who signed what, and how."""
    # [REJECT] It is about this chain
    if signed.header.chain_id != chain_id:
        raise InvalidTransaction("about another chain", where="headers.header.chain_id", expected=chain_id)
    return signed.header.producer_key_id, block_id_of(signed.header), signed.signature


def is_vote_fault(a: Vote, b: Vote) -> bool:
    """Tell whether two votes of one producer prove a fault: E1, one target height; or E2, one surrounds the other."""
    if (a.s_height, a.s_id, a.t_height, a.t_id) == (b.s_height, b.s_id, b.t_height, b.t_id):
        return False
    if a.t_height == b.t_height:
        return True
    low, high = sorted((a, b), key=lambda vote: vote.t_height)
    return high.s_height < low.s_height


def _is_double_block(a: SignedHeader, b: SignedHeader) -> bool:
    return a.header.slot == b.header.slot and a.header != b.header
