"""What the state tree holds, but for what genesis brings along as it is.

Source: docs/protocol.md, "State".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from msgspec import Meta

from ledger.codec import Bytes20, Bytes32, Bytes33, Count, MemberId, TimeMs, Wire
from ledger.genesis import KEYS_MAX, MEMBERS_MAX, PRODUCERS_MAX, MemberKey


class Producer(Wire, frozen=True):
    """A seat: a member and the node key that seals and votes for it."""

    member_id: MemberId
    key_id: Bytes20
    public_key: Bytes33


Producers = Annotated[list[Producer], Meta(max_length=PRODUCERS_MAX)]


class MemberEntry(Wire, frozen=True):
    """A member under ``["member", member_id]``."""

    weight: Count
    cleared_height: Count = 0
    """Faults proven at or below this height are settled: set when the member is readmitted."""


class KeyStanding(IntEnum):
    """What a key may still do."""

    REVOKED = 0
    """Nothing; its id is never free again."""
    ACTIVE = 1
    """All that its roles say."""
    RETIRING = 2
    """Nothing but vote, seal and meet peers, until the voting set is without it."""


class KeyEntry(Wire, frozen=True):
    """A key under ``["key", key_id]``."""

    member_id: MemberId
    public_key: Bytes33
    roles: Annotated[int, Meta(ge=1, le=7)]
    """Sum of ledger.genesis.Role values."""
    standing: KeyStanding


class StruckEntry(Wire, frozen=True):
    """A member proven faulty, under ``["struck", member_id]``; gone once it is readmitted."""

    height: Count
    """Height of the block with the evidence."""
    is_out: Annotated[int, Meta(ge=0, le=1)]
    """1 once an election has passed it over: at most f of the voting set in one epoch."""


class ProposalAction(IntEnum):
    """What members may decide together."""

    ADMIT = 1
    """A new member: ``member_id``, ``weight``, ``keys``."""
    REWEIGH = 2
    """Another ``weight`` for a member."""
    REMOVE = 3
    """A member leaves, with its candidacy, its delegations and those to it."""
    READMIT = 4
    """A member that was struck may stand again."""
    SEATS = 5
    """Another number of ``seats``."""


class Proposal(Wire, frozen=True):
    """What is proposed; fields that the action does not use are null, zero or empty."""

    action: ProposalAction
    member_id: MemberId | None
    weight: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    keys: Annotated[list[MemberKey], Meta(max_length=KEYS_MAX)]
    seats: Annotated[int, Meta(ge=0, le=PRODUCERS_MAX)]
    expires_ms: TimeMs
    """No approval counts at or after this block time."""


class ProposalEntry(Wire, frozen=True):
    """An open proposal under ``["proposal", id of the transaction that made it]``."""

    proposer: MemberId
    proposal: Proposal
    approvals: Annotated[list[MemberId], Meta(max_length=MEMBERS_MAX)]
    """Members that approved, ascending; the proposer is one of them."""


class EpochEntry(Wire, frozen=True):
    """Who may produce in the present epoch, under ``["epoch"]``."""

    epoch: Count
    seed: Bytes32
    """Id of the last block that was final, by the branch's own certificates, when the epoch began."""
    seats: Producers
    """By rank."""


class Turn(Wire, frozen=True):
    """How one seat used its slots of the present epoch."""

    sealed: Count
    missed: Count
    """Skipped while the chain still owed votes; an idle chain's empty slots are nobody's fault."""


class TurnsEntry(Wire, frozen=True):
    """The slots of the present epoch so far, under ``["turns"]``: one for each seat, in order."""

    turns: Annotated[list[Turn], Meta(max_length=PRODUCERS_MAX)]


class PendingSet(Wire, frozen=True):
    """The voting set to come."""

    height: Count
    """Height of the block that scheduled it: once that is final, the change completes."""
    producers: Producers


class VotingEntry(Wire, frozen=True):
    """Whose votes certify the next block, under ``["voting"]``."""

    set_id: Count
    """Counted from 0 in genesis, one more for each change."""
    producers: Producers
    """By rank; bitmaps of signers follow this order."""
    pending: PendingSet | None
    """While there is one, a certificate needs a quorum of both sets."""
