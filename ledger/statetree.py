"""The tree behind ``state_root``: a sparse Merkle tree over 256-bit paths that shares what did not change.

Every path leads from the root by its bits, the most significant bit of the first byte first: 0 left, 1 right.

- An empty subtree has the hash of 32 zero bytes.
- A subtree that holds exactly one leaf has the hash of that leaf, ``SHA-256(00 || path || value)``, at
  whatever depth: the leaf names its whole path, so nothing is lost by leaving out the nodes on the way.
- Any other subtree has the hash ``SHA-256(01 || left || right)``.

So the root depends on the entries alone, not on the order in which they came. A changed entry costs one node
for each level above it, about log2 of the number of entries; hashes are computed when a root or proof is
asked for, once for each node, so many changes between two roots do not pay for the nodes in between.

Paths are hashes of keys, made by the caller: nobody can choose them to make the tree deep.
Source: docs/protocol.md, "State".
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Final

import msgspec

from ledger.errors import InvalidProof

PATH_BYTES: Final = 32
"""Length of a path."""

DEPTH_MAX: Final = 8 * PATH_BYTES
"""Most levels above a leaf."""

EMPTY_HASH: Final = bytes(32)
"""Hash of the subtree without entries."""

Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class StateProof(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What leads from one path to the root, whether there is an entry at the path or not."""

    siblings: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=DEPTH_MAX)]
    """Hashes beside the way, from the root downwards."""
    other_path: Annotated[bytes, msgspec.Meta(max_length=PATH_BYTES)] = b""
    """Where the way ends at the one entry of a subtree and that is not the one asked for: its path."""
    other_value: bytes = b""
    """The value of that entry; both are empty where the way ends at the entry itself or at nothing."""


class _Leaf:
    """A subtree with one entry."""

    __slots__ = ("_hash", "path", "value")

    def __init__(self, path: bytes, value: bytes) -> None:
        self.path = path
        self.value = value
        self._hash = b""

    def hash(self) -> bytes:
        if not self._hash:
            self._hash = leaf_hash(self.path, self.value)
        return self._hash


class _Inner:
    """A subtree with two entries or more; one side may be empty."""

    __slots__ = ("_hash", "left", "right")

    def __init__(self, left: _Node | None, right: _Node | None) -> None:
        self.left = left
        self.right = right
        self._hash = b""

    def hash(self) -> bytes:
        # As deep as the tree, at most DEPTH_MAX calls, and only into nodes made since the last root.
        if not self._hash:
            self._hash = inner_hash(_hash_of(self.left), _hash_of(self.right))
        return self._hash


_Node = _Leaf | _Inner


class StateTree:
    """A map from path to value with a Merkle root. Immutable: a change returns another tree.

    Trees share their unchanged nodes, so keeping one for every recent block costs only the changes.
    """

    __slots__ = ("_top",)

    def __init__(self, top: _Node | None = None) -> None:
        self._top = top

    @classmethod
    def empty(cls) -> StateTree:
        """Return the tree without entries."""
        return cls()

    @property
    def root(self) -> bytes:
        """The root, 32 bytes: zeros for the empty tree."""
        return _hash_of(self._top)

    def get(self, path: bytes) -> bytes | None:
        """Return the value at ``path``, None where there is none."""
        _, node = self._walk(path)
        return node.value if node is not None and node.path == path else None

    def set(self, path: bytes, value: bytes) -> StateTree:
        """Return the tree with ``value`` (may be empty) at ``path``; itself where that is so already."""
        way, found = self._walk(path)
        leaf: _Node = _Leaf(path, value)
        if found is not None:
            if found.path != path:
                leaf = _join(found, _Leaf(path, value), len(way))
            elif found.value == value:
                return self
        return StateTree(_rebuild(way, leaf))

    def delete(self, path: bytes) -> StateTree:
        """Return the tree without an entry at ``path``; itself where there is none."""
        way, found = self._walk(path)
        if found is None or found.path != path:
            return self
        node: _Node | None = None
        while way:
            parent, bit = way.pop()
            sibling = parent.left if bit else parent.right
            # What remains is one leaf: it moves up for as long as nothing stands beside it.
            if node is None and isinstance(sibling, _Leaf):
                node = sibling
            elif not (isinstance(node, _Leaf) and sibling is None):
                node = _Inner(sibling, node) if bit else _Inner(node, sibling)
                break
        return StateTree(_rebuild(way, node))

    def prove(self, path: bytes) -> StateProof:
        """Return the proof of the value at ``path``, or that there is none; see ``verify_state_proof``."""
        way, found = self._walk(path)
        siblings = tuple(_hash_of(parent.left if bit else parent.right) for parent, bit in way)
        if found is None or found.path == path:
            return StateProof(siblings)
        return StateProof(siblings, found.path, found.value)

    def _walk(self, path: bytes) -> tuple[list[tuple[_Inner, int]], _Leaf | None]:
        """Return the inner nodes on the way to ``path``, each with the bit taken, and the leaf it ends at."""
        if len(path) != PATH_BYTES:
            raise ValueError(f"a path has {PATH_BYTES} bytes, not {len(path)}")
        bits = int.from_bytes(path, "big")
        way: list[tuple[_Inner, int]] = []
        node = self._top
        shift = DEPTH_MAX - 1
        while isinstance(node, _Inner):
            bit = bits >> shift & 1
            way.append((node, bit))
            node = node.right if bit else node.left
            shift -= 1
        return way, node


def leaf_hash(path: bytes, value: bytes) -> bytes:
    """Return the hash of a subtree whose one entry is ``value`` at ``path`` (32 bytes)."""
    return sha256(b"\x00" + path + value).digest()


def inner_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a subtree with more than one entry, from the hashes of its halves."""
    return sha256(b"\x01" + left + right).digest()


def verify_state_proof(root: bytes, path: bytes, value: bytes | None, proof: StateProof) -> None:
    """Check that the tree with this root has ``value`` at ``path``, or no entry there where it is None.

    Raises InvalidProof where the proof is not about this path, is malformed, or leads to another root.
    """
    if len(path) != PATH_BYTES:
        raise InvalidProof("a path has the wrong length", where="path", expected=PATH_BYTES, actual=len(path))
    depth = len(proof.siblings)
    if depth > DEPTH_MAX:
        raise InvalidProof("the way is too long", where="siblings", expected=f"<= {DEPTH_MAX}", actual=depth)
    for sibling in proof.siblings:
        if len(sibling) != len(EMPTY_HASH):
            raise InvalidProof("a hash has the wrong length", where="siblings", expected=32, actual=len(sibling))
    node = _hash_at_end(path, value, proof)
    bits = int.from_bytes(path, "big") >> (DEPTH_MAX - depth)
    for sibling in reversed(proof.siblings):
        node = inner_hash(sibling, node) if bits & 1 else inner_hash(node, sibling)
        bits >>= 1
    if node != root:
        raise InvalidProof("the proof leads to another root", where="root", expected=root, actual=node)


def _hash_at_end(path: bytes, value: bytes | None, proof: StateProof) -> bytes:
    """Return the hash of the subtree where the way of ``proof`` ends, or raise InvalidProof."""
    if value is not None:
        if proof.other_path or proof.other_value:
            raise InvalidProof("a proof of presence names another entry", where="other_path")
        return leaf_hash(path, value)
    if not proof.other_path:
        if proof.other_value:
            raise InvalidProof("a value without a path", where="other_value")
        return EMPTY_HASH
    if len(proof.other_path) != PATH_BYTES:
        raise InvalidProof(
            "a path has the wrong length",
            where="other_path",
            expected=PATH_BYTES,
            actual=len(proof.other_path),
        )
    if proof.other_path == path:
        raise InvalidProof("a proof of absence shows the entry itself", where="other_path")
    if _common_bits(proof.other_path, path) < len(proof.siblings):
        raise InvalidProof("the other entry does not lie on the way", where="other_path")
    return leaf_hash(proof.other_path, proof.other_value)


def _hash_of(node: _Node | None) -> bytes:
    """Return the hash of a subtree."""
    return EMPTY_HASH if node is None else node.hash()


def _common_bits(a: bytes, b: bytes) -> int:
    """Return how many leading bits two paths share."""
    return DEPTH_MAX - (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_length()


def _bit(path: bytes, depth: int) -> int:
    """Return the bit of ``path`` that decides below ``depth`` levels."""
    return path[depth >> 3] >> (7 - (depth & 7)) & 1


def _join(a: _Leaf, b: _Leaf, depth: int) -> _Node:
    """Return the subtree at ``depth`` that holds two leaves with different paths."""
    split = _common_bits(a.path, b.path)
    node: _Node = _Inner(b, a) if _bit(a.path, split) else _Inner(a, b)
    for level in range(split - 1, depth - 1, -1):
        node = _Inner(None, node) if _bit(a.path, level) else _Inner(node, None)
    return node


def _rebuild(way: list[tuple[_Inner, int]], node: _Node | None) -> _Node | None:
    """Return the top of the tree in which ``node`` stands at the end of ``way``."""
    for parent, bit in reversed(way):
        node = _Inner(parent.left, node) if bit else _Inner(node, parent.right)
    return node
