"""What making tiles costs a node, whoever asks for them."""

from __future__ import annotations

from audit.history import HistoryTree
from audit.tiles import Tile, tile_bytes
from ledger.store import MemoryStore, WriteBatch, height_key
from node.api.tiles import TileReader

CHAIN_ID = b"\x33" * 32
BLOCKS = 4_096


class CountingTree(HistoryTree):
    """Counts the hashes above level 0 that were computed: each is a pass over its blocks."""

    def __init__(self) -> None:
        store = MemoryStore()
        store.write(WriteBatch(puts=[(height_key(height), height.to_bytes(32)) for height in range(1, BLOCKS)]))
        super().__init__(store, CHAIN_ID)
        self.computed = 0

    def subtree_roots(self, first: int, count: int, size: int) -> list[bytes]:
        self.computed += count if size > 1 else 0
        return super().subtree_roots(first, count, size)


async def test_no_hash_above_the_leaves_is_computed_twice() -> None:
    """Any width may be asked for, again and again, by anybody: partial tiles are beginnings of wider ones."""
    tree = CountingTree()
    reader = TileReader(tree)
    for width in (3, 1, 16, 9, 16, 2):
        tile = Tile(1, 0, width)
        assert await reader.read(tile) == tile_bytes(tile, HistoryTree(tree._store, CHAIN_ID))
    assert tree.computed == 16


async def test_tiles_of_leaves_are_read_each_time() -> None:
    tree = CountingTree()
    reader = TileReader(tree)
    for tile in (Tile(0, 1), Tile(0, 1, 7), Tile(0, 1, 7, is_entries=True)):
        assert await reader.read(tile) == tile_bytes(tile, tree)
