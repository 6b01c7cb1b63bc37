"""Blocks that came before their parents."""

from __future__ import annotations

from ledger.block import Block

ORPHANS_MAX = 64
"""Blocks held while their parent is fetched."""
ORPHANS_BYTES_MAX = 16 * 1024 * 1024
"""What their bodies may add up to, as encoded: some of the largest blocks, or all that are of a usual size."""
BLOCK_BYTES = 1_024
"""A header with a certificate of one set, about."""
ITEM_BYTES = 36
"""An item of a body without its bitmap."""


class Orphans:
    """Held blocks by the parent they wait for; the longest waiting go first when there are too many."""

    def __init__(self) -> None:
        self._by_parent: dict[bytes, list[Block]] = {}
        self._bytes = 0

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
            self._bytes += _size(block)
        while len(self) > ORPHANS_MAX or self._bytes > ORPHANS_BYTES_MAX:
            self.release(next(iter(self._by_parent)))

    def release(self, parent_id: bytes) -> list[Block]:
        """Return the blocks that waited for ``parent_id``, held no longer."""
        blocks = self._by_parent.pop(parent_id, [])
        self._bytes -= sum(map(_size, blocks))
        return blocks


def _size(block: Block) -> int:
    return BLOCK_BYTES + sum(ITEM_BYTES + len(item.void_bitmap) for item in block.body)
