"""Which of several tips to follow.

Never leave the final block; then the highest justified height; then the longest chain; then the earliest slot; then
the lowest id.

Source: docs/consensus.md, "Fork choice".
"""

from __future__ import annotations

from collections.abc import Iterable

from consensus.tree import BlockNode


def preference(tip: BlockNode) -> tuple[int, int, int, bytes]:
    """Return a key by which the best tip is the smallest."""
    return (-tip.justified_height, -tip.height, tip.slot, tip.block_id)


def choose_head(tips: Iterable[BlockNode]) -> BlockNode:
    """Return the best of the tips, all of which descend from the final block."""
    return min(tips, key=preference)
