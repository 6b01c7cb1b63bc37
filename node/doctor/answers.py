"""What nodes and agents answered, read strictly: what is not as the API has it is no answer.

Source: docs/api.md, "The chain out"; docs/agent.md, "Answers".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from ledger.block import SealedHeader, bitmap_indexes
from ledger.errors import EncodingError

T = TypeVar("T")

DIGITS_MAX: Final = 20
"""Of a number with its sign: what is longer fits no field, and what is computed of it no float."""


class Point(msgspec.Struct, frozen=True):
    """A block, by where it is."""

    height: int
    block_id: str
    slot: int


class SyncAnswer(msgspec.Struct, frozen=True):
    """Whether a node is in step, as it says."""

    state: str
    behind_blocks: int
    target_height: int


class SigningAnswer(msgspec.Struct, frozen=True):
    """Whether a node may vote and seal."""

    state: str
    reason: str
    waits_for: str
    until_ms: int | None


class DiskAnswer(msgspec.Struct, frozen=True):
    """The disk of a data directory."""

    free_bytes: int
    store_bytes: int
    growth_bytes_per_day: int | None
    grown_ms: int


class StatusAnswer(msgspec.Struct, frozen=True):
    """``/v1/status``."""

    version: str
    chain_id: str
    chain_name: str
    member_id: str | None
    is_producer: bool
    sync: SyncAnswer
    head: Point
    final: Point
    final_age_ms: int
    peers: int
    pool_records: int
    is_disk_full: bool
    clock_skew_ms: int
    signing: SigningAnswer
    now_ms: int
    rule_set: str
    disk: DiskAnswer | None


class PeerAnswer(msgspec.Struct, frozen=True):
    """A peer in ``/v1/peers``."""

    member_id: str
    agent: str
    is_open_plaintext: bool


class PeersAnswer(msgspec.Struct, frozen=True):
    """``/v1/peers``."""

    peers: list[PeerAnswer]


class VoterAnswer(msgspec.Struct, frozen=True):
    """A voter in ``/v1/producers``."""

    member_id: str
    key_id: str
    last_vote_height: int | None


class VotingAnswer(msgspec.Struct, frozen=True):
    """The voting set in ``/v1/producers``."""

    set_id: int
    producers: list[VoterAnswer]


class SeatAnswer(msgspec.Struct, frozen=True):
    """A seat in ``/v1/producers``."""

    member_id: str
    sealed: int
    missed: int


class PendingAnswer(msgspec.Struct, frozen=True):
    """A change of the voting set in ``/v1/producers``."""

    height: int


class StruckAnswer(msgspec.Struct, frozen=True):
    """A member proven faulty."""

    member_id: str


class ProducersAnswer(msgspec.Struct, frozen=True):
    """``/v1/producers``."""

    quorum: int
    faults_tolerated: int
    producers: list[SeatAnswer]
    voting: VotingAnswer
    pending: PendingAnswer | None
    struck: list[StruckAnswer]


class ProposalText(msgspec.Struct, frozen=True):
    """What is proposed."""

    expires_ms: int


class ProposalAnswer(msgspec.Struct, frozen=True):
    """A proposal in ``/v1/proposals``."""

    proposal_id: str
    proposer: str
    proposal: ProposalText
    weight: int
    weight_needed: int


class ProposalsAnswer(msgspec.Struct, frozen=True):
    """``/v1/proposals``."""

    proposals: list[ProposalAnswer]


class KeyAnswer(msgspec.Struct, frozen=True):
    """A key in ``/v1/keys``."""

    key_id: str
    member_id: str
    standing: str


class KeysAnswer(msgspec.Struct, frozen=True):
    """``/v1/keys``."""

    keys: list[KeyAnswer]


class BlockAnswer(msgspec.Struct, frozen=True):
    """``/v1/blocks/HEIGHT``, as far as it is looked at."""

    time_ms: int


class HealthAnswer(msgspec.Struct, frozen=True):
    """``/healthz`` of an agent."""

    status: str
    backlog: int
    oldest_age_ms: int
    dead_letters: int
    nodes_failing: int
    version: str
    disk_free_bytes: int


@dataclass(frozen=True, slots=True)
class Clock:
    """By how much a clock is ahead of this machine's, and by how much that may be wrong: half of the round trip."""

    ahead_ms: int
    error_ms: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What a light client made of a node, from the genesis file on.

    Attributes:
        height: of the final block that was proven; 0 for genesis.
        lie: what did not hold, empty where all did.
        silence: what was not answered, empty where all was.
    """

    height: int
    lie: str = ""
    silence: str = ""


@dataclass(frozen=True, slots=True)
class RecentBlocks:
    """The last blocks up to the final one, as a node gave their headers.

    Attributes:
        slots: from the first of them to the last.
        records: that they hold, the first one's left out.
        votes: the highest block that each voter is seen to vote for, by key id in hex, in the certificates carried.
    """

    slots: int = 0
    records: int = 0
    votes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeAnswers:
    """What one node answered.

    Attributes:
        url: its address.
        asked_ms: when, by this machine's clock.
        pending_since_ms: when the change of the voting set was scheduled; None where there is none.
        proof: None where no genesis file was given.
        unanswered: what it did not answer, and why not.
    """

    url: str
    asked_ms: int
    clock: Clock
    status: StatusAnswer
    producers: ProducersAnswer | None = None
    peers: PeersAnswer | None = None
    proposals: ProposalsAnswer | None = None
    keys: KeysAnswer | None = None
    recent: RecentBlocks | None = None
    pending_since_ms: int | None = None
    proof: Proof | None = None
    unanswered: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return what a person calls it: its member and address."""
        return f"{self.status.member_id or 'no member'} {self.url}"


@dataclass(frozen=True, slots=True)
class AgentAnswers:
    """What one agent answered; ``failing_watches``: from where nothing can be taken in."""

    url: str
    health: HealthAnswer
    failing_watches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """An address at which neither a node nor an agent answers.

    Attributes:
        what: what is there instead, in a sentence.
        todo: what to do about it.
    """

    url: str
    what: str
    todo: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two nodes whose final blocks are not of one history."""

    urls: tuple[str, str]
    what: str


@dataclass(frozen=True, slots=True)
class Gathered:
    """All that was answered.

    Attributes:
        slot_ms, heartbeat_slots: of the chain.
        chain_id: of the genesis file, in hex; empty where none was given.
    """

    nodes: Sequence[NodeAnswers]
    agents: Sequence[AgentAnswers] = ()
    silent: Sequence[NoAnswer] = ()
    conflicts: Sequence[Conflict] = ()
    slot_ms: int = 1_000
    heartbeat_slots: int = 60
    chain_id: str = ""

    @property
    def best(self) -> NodeAnswers | None:
        """Return the node with the highest final block, None where none answered."""
        return max(self.nodes, key=lambda node: node.status.final.height, default=None)


def read_json(body: bytes) -> Any:
    """Return the JSON of an answer. Raises ValueError for what is none, or has numbers that no node could mean."""
    try:
        return json.loads(body, parse_int=_number)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _number(text: str) -> int:
    if len(text) > DIGITS_MAX:
        raise ValueError("a number is too large")
    return int(text)


def read_answer(document: Any, kind: type[T]) -> T:
    """Return an answer; what it has beyond is passed over.

    Raises EncodingError for one that is not as the API has it.
    """
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise EncodingError(str(error), where=kind.__name__) from None


def recent_of(headers: Sequence[SealedHeader], voting: VotingAnswer) -> RecentBlocks:
    """Return what the last headers tell; certificates of other voting sets than ``voting`` are passed over."""
    votes: dict[str, int] = {}
    for sealed in headers:
        certificate = sealed.certificate
        for part in certificate.parts if certificate is not None else ():
            if certificate is None or part.set_id != voting.set_id:
                continue
            for index in bitmap_indexes(part.signers):
                if index < len(voting.producers):
                    key_id = voting.producers[index].key_id
                    votes[key_id] = max(votes.get(key_id, 0), certificate.t_height)
    if len(headers) < 2:
        return RecentBlocks(votes=votes)
    slots = headers[-1].header.slot - headers[0].header.slot
    return RecentBlocks(slots, sum(sealed.header.totals.records for sealed in headers[1:]), votes)
