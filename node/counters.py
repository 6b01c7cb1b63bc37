"""What a node counts for its metrics."""

from __future__ import annotations

from dataclasses import dataclass, field


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
    double_votes: int = 0
    double_blocks: int = 0
    dropped: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
