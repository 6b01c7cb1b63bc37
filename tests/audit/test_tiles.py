"""Tiles of the history tree: their addresses, and that those of any size make up its root."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.history import HistoryTree
from audit.tiles import TILE_HASHES, Tile, parse_tile, tile_bytes, tiles_of
from ledger import merkle
from ledger.errors import EncodingError, StoreDamaged
from ledger.store import MemoryStore, WriteBatch, height_key

CHAIN_ID = b"\x22" * 32
BLOCKS = 70_000
LEAVES = [CHAIN_ID, *(height.to_bytes(32) for height in range(1, BLOCKS))]


@pytest.fixture(scope="module")
def tree() -> HistoryTree:
    store = MemoryStore()
    store.write(WriteBatch(puts=[(height_key(height), LEAVES[height]) for height in range(1, BLOCKS)]))
    return HistoryTree(store, CHAIN_ID)


def root_by_tiles(size: int, read: Callable[[Tile], bytes]) -> bytes:
    """Return the root of a tree as a reader of tiles has it: who knows nothing of leaves where a tile is over them."""
    tiles = {(tile.level, tile.index): tile for tile in tiles_of(size)}

    def hashes(level: int, first: int, count: int) -> list[bytes]:
        data = read(tiles[level, first // TILE_HASHES])
        own = [data[at : at + 32] for at in range(0, len(data), 32)]
        offset = first % TILE_HASHES
        return own[offset : offset + count]

    # Complete subtrees from the left, largest first, each within one tile; they join from the right.
    subtrees = []
    done = 0
    for bit in reversed(range(size.bit_length())):
        if size >> bit & 1:
            level, rest = divmod(bit, 8)
            subtrees.append(merkle.root(hashes(level, done >> 8 * level, 1 << rest)))
            done += 1 << bit
    node = subtrees.pop()
    while subtrees:
        node = merkle.node_hash(subtrees.pop(), node)
    return node


@settings(max_examples=25, deadline=None)
@given(st.integers(1, BLOCKS) | st.sampled_from([1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, BLOCKS]))
def test_tiles_of_any_size_make_up_the_root(tree: HistoryTree, size: int) -> None:
    root = merkle.root_of(LEAVES[:size])
    assert root_by_tiles(size, lambda tile: tile_bytes(tile, tree)) == root


def test_the_example_of_the_specification() -> None:
    tiles = tiles_of(70_000)
    assert [tile for tile in tiles if tile.level == 0][272:] == [Tile(0, 272), Tile(0, 273, 112)]
    assert [tile for tile in tiles if tile.level == 1] == [Tile(1, 0), Tile(1, 1, 17)]
    assert [tile for tile in tiles if tile.level == 2] == [Tile(2, 0, 1)]
    assert len(tiles) == 273 + 1 + 2 + 1
    assert tiles_of(256) == [Tile(0, 0), Tile(1, 0, 1)]
    assert tiles_of(0) == []


@given(st.integers(0, 2**40))
def test_a_tree_has_the_tiles_that_it_is_made_of(size: int) -> None:
    for level in range(6):
        hashes = size >> 8 * level
        full, width = divmod(hashes, TILE_HASHES)
        assert not full or Tile(level, full - 1).is_in(size)
        assert not Tile(level, full).is_in(size)
        assert not width or Tile(level, full, width).is_in(size)
        assert not Tile(level, full, width + 1).is_in(size)


def test_entries_are_the_ids_behind_their_lengths(tree: HistoryTree) -> None:
    data = tile_bytes(Tile(0, 0, 3, is_entries=True), tree)
    assert data == b"".join(b"\x00\x20" + one for one in LEAVES[:3])
    full = tile_bytes(Tile(0, 5, is_entries=True), tree)
    ids = [full[at + 2 : at + 34] for at in range(0, len(full), 34)]
    hashes = b"".join(merkle.leaf_hash(one) for one in ids)
    assert (ids, hashes) == (LEAVES[1280:1536], tile_bytes(Tile(0, 5), tree))


def test_what_is_known_of_a_tile_is_not_read_again(tree: HistoryTree, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {width: tile_bytes(Tile(1, 0, width), tree) for width in (3, 7, 256)}
    asked: list[tuple[int, int]] = []
    roots = tree.subtree_roots
    monkeypatch.setattr(
        tree, "subtree_roots", lambda first, count, size: asked.append((first, count)) or roots(first, count, size)
    )
    assert tile_bytes(Tile(1, 0, 7), tree, begin=whole[3]) == whole[7]
    assert tile_bytes(Tile(1, 0, 3), tree, begin=whole[256]) == whole[3]
    assert tile_bytes(Tile(1, 0), tree, begin=whole[256]) == whole[256]
    assert asked == [(3, 4)]


def test_a_tile_that_is_not_there(tree: HistoryTree) -> None:
    with pytest.raises(StoreDamaged):
        tile_bytes(Tile(0, BLOCKS // TILE_HASHES), tree)


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "0/000"),
        (Tile(1, 1_234_067), "1/x001/x234/067"),
        (Tile(0, 999, 1), "0/999.p/1"),
        (Tile(2, 1_000, 255), "2/x001/000.p/255"),
        (Tile(0, 273, 112, is_entries=True), "entries/273.p/112"),
    ],
)
def test_addresses(tile: Tile, path: str) -> None:
    assert (tile.path, parse_tile(path)) == (path, tile)


@given(
    st.builds(Tile, st.integers(0, 7), st.integers(0, 2**55), st.integers(1, 256))
    | st.builds(Tile, st.just(0), st.integers(0, 2**55), st.integers(1, 256), st.just(True))
)
def test_every_tile_has_one_address(tile: Tile) -> None:
    assert parse_tile(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "", "0", "0/0", "0/00", "0/0000", "00/000", "8/000", "64/000", "-1/000", "x/000", "0/x000/001",
        "0/001/000", "0/",
        "0/000.p/", "0/000.p/0", "0/000.p/01", "0/000.p/256", "0/000.p/x", "0/000.p", "0/000/", "0/000.p/1/", "/000",
        "0/\u0660\u0660\u0660", "0/" + "x999/" * 30 + "000", "entries", "entries/1", "entries/000.p/256", "0/000\n",
    ],
)  # fmt: skip
def test_what_is_no_address(path: str) -> None:
    with pytest.raises(EncodingError, match="not a tile"):
        parse_tile(path)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused(path: str) -> None:
    try:
        tile = parse_tile(path)
    except EncodingError:
        return
    assert tile.path == path
