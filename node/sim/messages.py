"""What simulated nodes say to each other besides blocks and votes."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.block import Block, Vote


@dataclass(frozen=True, slots=True)
class Push:
    """Raw transactions."""

    raws: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """The sender has these transactions on disk."""

    tx_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class WantTransactions:
    """The sender lacks these transactions."""

    tx_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class WantBlock:
    """The sender lacks this block."""

    block_id: bytes


@dataclass(frozen=True, slots=True)
class WantRange:
    """The sender lacks the best chain from this height up."""

    height: int


@dataclass(frozen=True, slots=True)
class Status:
    """How far the sender is."""

    head_id: bytes
    head_height: int


Message = Block | Vote | Push | Stored | WantTransactions | WantBlock | WantRange | Status
