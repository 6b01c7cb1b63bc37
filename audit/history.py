"""Paths into the history of a stored chain: proof that a block, or a whole history, is in the history of a later one.

The leaves of a header's ``history_root`` are the ids of all blocks before it, genesis first. A path needs the roots of
subtrees over millions of them; those of complete subtrees never change, so they are computed once and kept.

Source: docs/protocol.md, "Block".
"""

from __future__ import annotations

import itertools
import threading
from typing import Final

from consensus.rows import read_header
from ledger import merkle
from ledger.block import genesis_block_id
from ledger.errors import StoreDamaged
from ledger.store import Space, Store, height_key

CHUNK_LEAVES: Final = 1024
"""Smaller subtrees are computed anew each time; of a chain of a year of one-second blocks, 61,000 larger ones are kept,
about 10 MB."""
ROOTS_PREFIX: Final = Space.META.value + b"history/"
"""Number of a subtree of CHUNK_LEAVES leaves from the left (8) -> its root. Nothing but this module reads them, and it
takes none that do not lead to the ``history_root`` of a final block."""


def root_key(index: int) -> bytes:
    """Return the key of the row with the root of a subtree of CHUNK_LEAVES leaves, counted from 0."""
    return ROOTS_PREFIX + index.to_bytes(8)


class HistoryTree:
    """The history tree of a store's final chain. May be used by several threads.

    One of them computes at a time: what the first question costs, a pass over the chain, others need not pay again.
    """

    def __init__(self, store: Store, chain_id: bytes) -> None:
        self._store = store
        self._genesis_id = genesis_block_id(chain_id)
        self._roots: dict[tuple[int, int], bytes] = {}
        self._lock = threading.Lock()
        self._is_restored = False
        self._gathered = 0
        """Subtrees of CHUNK_LEAVES leaves, from the left, whose roots are in the store, or were handed out for it."""

    # -- what is kept ----------------------------------------------------------------------------------------------

    def missing(self, size: int) -> int:
        """Return how many subtrees of CHUNK_LEAVES leaves below ``size`` are not gathered: 3 ms each for a question."""
        with self._lock:
            self._restore()
            return max(0, size // CHUNK_LEAVES - self._gathered)

    def gather(self, size: int, count: int) -> list[tuple[bytes, bytes]]:
        """Compute the next ``count`` roots below ``size`` at most, and return their rows for the store; each once.

        size: at most the height of the final block on disk. Raises StoreDamaged where blocks lack.
        """
        with self._lock:
            self._restore()
            wanted = range(self._gathered, min(size // CHUNK_LEAVES, self._gathered + count))
            rows = [(root_key(at), self._root(at * CHUNK_LEAVES, (at + 1) * CHUNK_LEAVES)) for at in wanted]
            self._gathered += len(rows)
        return rows

    def _restore(self) -> None:
        """Take up the roots in the store, where they are true."""
        if self._is_restored:
            return
        self._is_restored = True
        for index in itertools.count():
            row = self._row(index)
            if len(row) != merkle.HASH_BYTES:
                break
            self._roots[index * CHUNK_LEAVES, (index + 1) * CHUNK_LEAVES] = row
            self._gathered = index + 1
        # [REJECT] They lead to what the header says that has just these leaves
        if self._gathered and self._root(0, self._gathered * CHUNK_LEAVES) != self._stated_root():
            self._roots.clear()
            self._gathered = 0

    def _row(self, index: int) -> bytes:
        try:
            return self._store.get_checked(root_key(index)) or b""
        except StoreDamaged:
            return b""

    def _stated_root(self) -> bytes | None:
        try:
            block_id = self._store.get_checked(height_key(self._gathered * CHUNK_LEAVES))
            sealed = None if block_id is None else read_header(self._store, block_id)
        except StoreDamaged:
            return None
        return None if sealed is None else sealed.header.history_root

    # -- what is asked ---------------------------------------------------------------------------------------------

    def path(self, height: int, size: int) -> list[bytes]:
        """Return the path of the block at ``height`` to the ``history_root`` of the one at height ``size``.

        Bounds: 0 <= height < size <= the final height. Raises IndexError outside, StoreDamaged where blocks lack.
        The first call costs a pass over the heights below ``size`` that are not gathered, later ones a thousand rows.
        """
        if not 0 <= height < size:
            raise IndexError(f"no block {height} in a history of {size}")
        with self._lock:
            self._restore()
            return self._path(height, size)

    def _path(self, height: int, size: int) -> list[bytes]:
        path: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _largest_power_below(end - start)
            if height < middle:
                path.append(self._root(middle, end))
                end = middle
            else:
                path.append(self._root(start, middle))
                start = middle
        path.reverse()
        return path

    def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """Return the proof that the history of the block at ``old_size`` is the beginning of that at ``new_size``.

        Empty where there is nothing to prove. Bounds: 0 <= old_size <= new_size <= the final height; raises as ``path``
        does, and costs as much.
        """
        if not 0 <= old_size <= new_size:
            raise IndexError(f"no history of {old_size} in one of {new_size}")
        if old_size in {0, new_size}:
            return []
        with self._lock:
            self._restore()
            return self._consistency(old_size, new_size)

    def _consistency(self, old_size: int, new_size: int) -> list[bytes]:
        path: list[bytes] = []
        start, end = 0, new_size
        while old_size < end:
            middle = start + _largest_power_below(end - start)
            if old_size <= middle:
                path.append(self._root(middle, end))
                end = middle
            else:
                path.append(self._root(start, middle))
                start = middle
        # A verifier who has the old root knows the subtree that is the old tree itself, and only that one.
        if start:
            path.append(self._root(start, end))
        path.reverse()
        return path

    def subtree_roots(self, first: int, count: int, size: int) -> list[bytes]:
        """Return the roots of ``count`` complete subtrees side by side, each over ``size`` leaves, from ``first`` on.

        first: how many such subtrees are before. size: a power of two; 1 gives leaf hashes. Raises StoreDamaged where
        a block of them is not there.
        """
        if size == 1:
            return self._leaves(first, first + count)
        with self._lock:
            self._restore()
            return [self._root(index * size, (index + 1) * size) for index in range(first, first + count)]

    def _root(self, start: int, end: int) -> bytes:
        """Return the root over the heights from ``start``, where a tree splits, up to before ``end``."""
        size = end - start
        if size < CHUNK_LEAVES:
            return merkle.root(self._leaves(start, end))
        is_complete = not size & (size - 1)
        found = self._roots.get((start, end)) if is_complete else None
        if found is not None:
            return found
        if size == CHUNK_LEAVES:
            root = merkle.root(self._leaves(start, end))
        else:
            middle = start + _largest_power_below(size)
            root = merkle.node_hash(self._root(start, middle), self._root(middle, end))
        if is_complete:
            self._roots[start, end] = root
        return root

    def block_ids(self, start: int, end: int) -> list[bytes]:
        """Return the ids of the blocks at heights from ``start`` up to before ``end``. Raises StoreDamaged."""
        ids: list[bytes] = [] if start else [self._genesis_id]
        ids += [row for _, row in self._store.scan(height_key(max(start, 1)), height_key(end))]
        if len(ids) != end - start:
            raise StoreDamaged("a final block is missing", where=f"heights {start} to {end - 1}")
        return ids

    def _leaves(self, start: int, end: int) -> list[bytes]:
        return [merkle.leaf_hash(block_id) for block_id in self.block_ids(start, end)]


def _largest_power_below(size: int) -> int:
    """Return the largest power of two below ``size`` (at least 2): where RFC 6962 splits a tree."""
    return 1 << ((size - 1).bit_length() - 1)
