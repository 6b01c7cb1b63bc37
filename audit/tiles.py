"""Tiles of the history tree: its hashes in files of 256, as monitors of transparency logs fetch and keep them.

A tile at level 0 has the hashes of 256 leaves; each hash at a level above is the root over a full tile below. A tile
with fewer is partial, and there for as long as the tree is not larger. Entry bundles have the leaves themselves: the
ids of the blocks from genesis on, each behind its length.

Source: C2SP tlog-tiles; docs/audit.md, "Notes and tiles".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from audit.history import HistoryTree
from ledger.errors import EncodingError
from ledger.merkle import HASH_BYTES

TILE_HASHES: Final = 256
LEVEL_MAX: Final = 7
"""A tree of 2^63 leaves has no higher one."""

_INDEX = re.compile(r"(?:x[0-9]{3}/)*[0-9]{3}")
_INDEX_CHARACTERS_MAX = 40


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile, or at level 0 also the bundle of entries beside it.

    Attributes:
        level: 0 for hashes of leaves.
        index: from the left, within the level.
        width: hashes in it, 1 to 256.
        is_entries: the leaves themselves are meant.
    """

    level: int
    index: int
    width: int = TILE_HASHES
    is_entries: bool = False

    @property
    def path(self) -> str:
        """Return its address below ``/tile/``."""
        digits = str(self.index)
        digits = digits.zfill((len(digits) + 2) // 3 * 3)
        parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        index = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        partial = "" if self.width == TILE_HASHES else f".p/{self.width}"
        return f"{'entries' if self.is_entries else self.level}/{index}{partial}"

    @property
    def leaves(self) -> int:
        """Return how many leaves one of its hashes is over."""
        return 1 << 8 * self.level

    def is_in(self, size: int) -> bool:
        """Tell whether a tree of ``size`` leaves has it; it then never changes."""
        return (self.index * TILE_HASHES + self.width) * self.leaves <= size


def parse_tile(path: str) -> Tile:
    """Return the tile at an address below ``/tile/``. Raises EncodingError: each has one spelling."""
    level_text, _, rest = path.partition("/")
    index_text, _, width_text = rest.partition(".p/")
    is_entries = level_text == "entries"
    tile = None
    if len(index_text) <= _INDEX_CHARACTERS_MAX and _INDEX.fullmatch(index_text):
        level = _number("0" if is_entries else level_text, LEVEL_MAX)
        width = _number(width_text, TILE_HASHES - 1) if ".p/" in rest else TILE_HASHES
        if level is not None and width:
            tile = Tile(level, int(index_text.replace("x", "").replace("/", "")), width, is_entries)
    if tile is None or tile.path != path:
        raise EncodingError("not a tile", where="tile", expected="LEVEL/INDEX or LEVEL/INDEX.p/WIDTH", actual=path)
    return tile


def tiles_of(size: int) -> list[Tile]:
    """Return the tiles that a tree of ``size`` leaves is made of, full ones and partial ones."""
    found = []
    for level in range(LEVEL_MAX + 1):
        hashes = size // TILE_HASHES**level
        full, width = divmod(hashes, TILE_HASHES)
        found += [Tile(level, index) for index in range(full)]
        if width:
            found.append(Tile(level, full, width))
    return found


def tile_bytes(tile: Tile, history: HistoryTree, *, begin: bytes = b"") -> bytes:
    """Return what is in a tile that the tree has.

    begin: the first hashes of it, where they are known. Costs a pass over the blocks below the others; of levels above
    1, the first time only. Raises StoreDamaged where a block lacks.
    """
    first = tile.index * TILE_HASHES
    if tile.is_entries:
        return b"".join(len(one).to_bytes(2) + one for one in history.block_ids(first, first + tile.width))
    known = min(len(begin) // HASH_BYTES, tile.width)
    rest = history.subtree_roots(first + known, tile.width - known, tile.leaves) if known < tile.width else []
    return begin[: known * HASH_BYTES] + b"".join(rest)


def _number(text: str, high: int) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= 3 and str(int(text)) == text
    return int(text) if is_number and int(text) <= high else None
