"""What a node counts for its metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

from consensus.ready import BlockFinal, Event, FaultProven, HeadChanged, TransactionDropped
from ledger.payloads import FAULTS


@dataclass(slots=True)
class Counters:
    """What has happened since the start, for the metrics."""

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
