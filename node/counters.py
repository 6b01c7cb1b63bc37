"""What a node counts for its metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from consensus.ready import BlockFinal, Event, FaultProven, HeadChanged, TransactionDropped
from ledger.block import VOTING_SET_MAX, Vote
from ledger.cdr import CallRecord
from ledger.payloads import FAULTS
from ledger.rules.flags import FLAGS, flags_of
from node.histogram import BLOCK_BYTES, BLOCK_RECORDS, FINALITY_S, INGEST_S, LAG_S
from telephony.histogram import Histogram

VOTERS_MAX: Final = 4 * VOTING_SET_MAX
"""Keys whose votes are counted: those of the voting sets, present and past, and the oldest goes first."""


def _histogram_of(bounds: tuple[float, ...]) -> Callable[[], Histogram]:
    return lambda: Histogram(bounds)


@dataclass(slots=True)
class VotesSeen:
    """Votes of one key: how many, and the height of the highest block that one was for."""

    count: int = 0
    height: int = 0


@dataclass(slots=True)
class Counters:
    """What has happened since the start, for the metrics.

    Attributes:
        finality_s: from the beginning of a block's slot until it was final here; of blocks with transactions.
        block_records, block_bytes: what the blocks that became the tip hold; bytes are those of their transactions.
        loop_lag_s: how much later than it should the event loop did what was due.
        ingest_s: from a request's head until the answer that all of it is on disk, by route.
        ingest_requests: requests that hand something in, by route and HTTP status.
        flagged: records handed in here, and new, in which something is suspicious, by flag.
        votes: by key id, at most VOTERS_MAX.
    """

    transactions_stored: int = 0
    records_stored: int = 0
    records_final: int = 0
    records_void: int = 0
    blocks_sealed: int = 0
    blocks_final: int = 0
    votes_cast: int = 0
    reorganisations: int = 0
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    """Producers proven faulty, by what they did."""
    dropped: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    finality_s: Histogram = field(default_factory=_histogram_of(FINALITY_S))
    block_records: Histogram = field(default_factory=_histogram_of(BLOCK_RECORDS))
    block_bytes: Histogram = field(default_factory=_histogram_of(BLOCK_BYTES))
    loop_lag_s: Histogram = field(default_factory=_histogram_of(LAG_S))
    ingest_s: dict[str, Histogram] = field(default_factory=dict)
    ingest_requests: dict[tuple[str, int], int] = field(default_factory=dict)
    flagged: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FLAGS, 0))
    votes: dict[bytes, VotesSeen] = field(default_factory=dict)

    def saw_vote(self, vote: Vote) -> None:
        """Count a vote that was verified, or is this node's own and on its way."""
        seen = self.votes.setdefault(vote.key_id, VotesSeen())
        seen.count += 1
        seen.height = max(seen.height, vote.t_height)
        if len(self.votes) > VOTERS_MAX:
            del self.votes[next(iter(self.votes))]

    def took_in(self, record: CallRecord) -> None:
        """Count what is suspicious in a record that was handed in here and is new."""
        for flag in flags_of(record):
            self.flagged[flag.name] += 1

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request that hands something in; its time only where all of it was kept."""
        key = route, status
        self.ingest_requests[key] = self.ingest_requests.get(key, 0) + 1
        if status < 300:
            self.ingest_s.setdefault(route, Histogram(INGEST_S)).observe(seconds)

    def count(self, event: Event) -> None:
        """Count an event of the engine."""
        match event:
            case BlockFinal(block=block):
                self.blocks_final += 1
                self.records_final += block.sealed.header.totals.records
                self.records_void += block.sealed.header.totals.void
            case TransactionDropped():
                self.dropped += 1
            case HeadChanged(is_reorg=is_reorg):
                self.reorganisations += is_reorg
            case FaultProven(evidence=evidence):
                self.faults[evidence.fault] += 1
