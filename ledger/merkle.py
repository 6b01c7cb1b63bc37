"""Merkle trees of RFC 6962: roots, inclusion proofs, consistency proofs, and a tree that only grows.

A leaf is hashed as ``SHA-256(00 || data)`` and a node as ``SHA-256(01 || left || right)``: the two prefixes
keep a node from being passed off as a leaf. A tree of n > 1 leaves splits at the largest power of two below
n, which is the same as pairing neighbours level by level and carrying an odd last node up unchanged.

Source: RFC 6962, section 2.1; the verifying algorithms follow RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Annotated

import msgspec

from ledger.errors import InvalidProof

HASH_BYTES = 32
"""Length of every hash here."""

PATH_HASHES_MAX = 63
"""Longest path of any proof: sizes stay below 2^63. A consistency path may have one hash more."""

EMPTY_ROOT = sha256(b"").digest()
"""Root of the tree without leaves."""

_LEAF = b"\x00"
_NODE = b"\x01"
# Copying a begun hash costs less than beginning another.
_LEAF_BEGUN = sha256(_LEAF)
_NODE_BEGUN = sha256(_NODE)

Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf that holds ``data`` (of any length)."""
    return sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node over two subtree hashes of 32 bytes."""
    return sha256(_NODE + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root of the tree over ``leaf_hashes``, in their order."""
    if not leaf_hashes:
        return EMPTY_ROOT
    level = leaf_hashes
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def root_of(items: Iterable[bytes]) -> bytes:
    """Return the root of the tree whose leaves hold ``items``."""
    begin = _LEAF_BEGUN.copy
    hashes = []
    for data in items:
        hasher = begin()
        hasher.update(data)
        hashes.append(hasher.digest())
    return root(hashes)


def _parents(level: Sequence[bytes]) -> list[bytes]:
    """Return the level above: neighbours paired, an odd last one carried up."""
    begin = _NODE_BEGUN.copy
    parents = []
    nodes = iter(level)
    # zip takes both halves of a pair from the one iterator and drops an odd last one, which is added below.
    for left, right in zip(nodes, nodes, strict=False):
        hasher = begin()
        hasher.update(left + right)
        parents.append(hasher.digest())
    if len(level) % 2:
        parents.append(level[-1])
    return parents


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Return the path of leaf ``index`` (from 0): sibling hashes from the leaf upwards.

    Costs one pass over the tree. Raises IndexError where there is no such leaf.
    """
    if not 0 <= index < len(leaf_hashes):
        raise IndexError(f"no leaf {index} in a tree of {len(leaf_hashes)}")
    path = []
    level = leaf_hashes
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        level = _parents(level)
        index >>= 1
    return path


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected_root: bytes) -> None:
    """Check that ``leaf`` (a leaf hash) is leaf ``index`` of the tree of ``size`` leaves with this root.

    Raises InvalidProof, saying which of index, path length, hash length or root does not fit.
    """
    if not 0 <= index < size:
        raise InvalidProof("there is no such leaf", where="index", expected=f"0 to {size - 1}", actual=index)
    _check_hashes([leaf, expected_root, *path])
    node, last, position = leaf, size - 1, index
    for sibling in path:
        if last == 0:
            raise InvalidProof("the path is too long", where="path", actual=f"{len(path)} hashes")
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            # The last node of a level without a sibling was carried up: skip the levels where that happened.
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        position >>= 1
        last >>= 1
    if last:
        raise InvalidProof("the path is too short", where="path", actual=f"{len(path)} hashes")
    _check_root(node, expected_root, "root")


def consistency_proof(leaf_hashes: Sequence[bytes], old_size: int) -> list[bytes]:
    """Return the proof that the first ``old_size`` leaves are the beginning of this tree.

    Empty where there is nothing to prove: ``old_size`` is 0 or the whole tree. Raises IndexError where
    ``old_size`` is larger than the tree.
    """
    if not 0 <= old_size <= len(leaf_hashes):
        raise IndexError(f"no tree of {old_size} leaves in a tree of {len(leaf_hashes)}")
    if old_size in {0, len(leaf_hashes)}:
        return []
    path = []
    start, stop, old_stop = 0, len(leaf_hashes), old_size
    while old_stop < stop:
        split = start + _split(stop - start)
        if old_stop <= split:
            path.append(root(leaf_hashes[split:stop]))
            stop = split
        else:
            path.append(root(leaf_hashes[start:split]))
            start = split
    # A verifier who has the old root knows the subtree that is the old tree itself, and only that one.
    if start:
        path.append(root(leaf_hashes[start:stop]))
    path.reverse()
    return path


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that the tree of ``old_size`` leaves is the beginning of the tree of ``new_size``.

    Raises InvalidProof, saying which of sizes, path length, hash length or roots does not fit.
    """
    if not 0 <= old_size <= new_size:
        raise InvalidProof("a tree cannot shrink", where="old_size", expected=f"0 to {new_size}", actual=old_size)
    _check_hashes([old_root, new_root, *path])
    if old_size in {0, new_size}:
        if path:
            raise InvalidProof("the path is too long", where="path", expected="no hashes", actual=len(path))
        _check_root(old_root, new_root if old_size else EMPTY_ROOT, "old_root")
        return
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    hashes = list(path) if position else [old_root, *path]
    if not hashes:
        raise InvalidProof("the path is too short", where="path", actual="0 hashes")
    old_node = new_node = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise InvalidProof("the path is too long", where="path", actual=f"{len(path)} hashes")
        if position & 1 or position == last:
            old_node = node_hash(sibling, old_node)
            new_node = node_hash(sibling, new_node)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new_node = node_hash(new_node, sibling)
        position >>= 1
        last >>= 1
    if last:
        raise InvalidProof("the path is too short", where="path", actual=f"{len(path)} hashes")
    _check_root(old_node, old_root, "old_root")
    _check_root(new_node, new_root, "new_root")


class Frontier(msgspec.Struct, frozen=True, array_like=True):
    """A tree that only grows, kept as the roots of its complete subtrees: all that is needed to go on.

    Immutable; appending and the root each cost at most 63 hashes, whatever the size.
    """

    size: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    """Number of leaves."""
    subtrees: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=PATH_HASHES_MAX)] = ()
    """Roots of the complete subtrees from the left, largest first: one for each 1 bit of ``size``."""

    def __post_init__(self) -> None:
        if len(self.subtrees) != self.size.bit_count():
            raise ValueError(f"a tree of {self.size} leaves has {self.size.bit_count()} complete subtrees")

    def append(self, leaf: bytes) -> Frontier:
        """Return the frontier with one more leaf, given as its leaf hash."""
        subtrees = self.subtrees
        node = leaf
        size = self.size
        # Each trailing 1 bit is a subtree as large as the one just finished: join them, like a carry.
        while size & 1:
            node = node_hash(subtrees[-1], node)
            subtrees = subtrees[:-1]
            size >>= 1
        return Frontier(self.size + 1, (*subtrees, node))

    def root(self) -> bytes:
        """Return the root of the tree so far."""
        if not self.subtrees:
            return EMPTY_ROOT
        *larger, node = self.subtrees
        for subtree in reversed(larger):
            node = node_hash(subtree, node)
        return node


def _split(size: int) -> int:
    """Return the largest power of two below ``size`` (at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def _check_hashes(hashes: Sequence[bytes]) -> None:
    """Raise InvalidProof unless each is 32 bytes long."""
    for value in hashes:
        if len(value) != HASH_BYTES:
            raise InvalidProof("a hash has the wrong length", expected=HASH_BYTES, actual=len(value))


def _check_root(actual: bytes, expected: bytes, where: str) -> None:
    """Raise InvalidProof unless the hash derived is the one claimed."""
    if actual != expected:
        raise InvalidProof("the proof leads to another root", where=where, expected=expected, actual=actual)
