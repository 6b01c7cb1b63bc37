"""Blocks that came before their parents."""

from __future__ import annotations

from ledger.block import Block

ORPHANS_MAX = 64
"""Blocks held while their parent is fetched."""


class Orphans:
    """Held blocks by the parent they wait for; the longest waiting go first when there are too many."""

    def __init__(self) -> None:
        self._by_parent: dict[bytes, list[Block]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_parent.values()))

    def is_awaited(self, block_id: bytes) -> bool:
        """Tell whether a held block has ``block_id`` as its parent."""
        return block_id in self._by_parent

    def hold(self, block: Block) -> None:
        """Keep a block until its parent comes."""
        held = self._by_parent.setdefault(block.sealed.header.parent_id, [])
        if block not in held:
            held.append(block)
        while len(self) > ORPHANS_MAX:
            self._by_parent.pop(next(iter(self._by_parent)))

    def release(self, parent_id: bytes) -> list[Block]:
        """Return the blocks that waited for ``parent_id``, held no longer."""
        return self._by_parent.pop(parent_id, [])
