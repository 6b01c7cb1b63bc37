"""The final block of a store with everything that can be proved under it, of one moment, also while a node writes.

A store keeps the state of its final block and no other. So whatever is proved of the state is proved under that
block's ``state_root``: who votes next, and the keys that ever were.

Source: docs/audit.md, "Receipts".
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import Final, TypeVar

from audit.history import HistoryTree
from consensus.engine import Engine
from consensus.rows import FINAL_CERTIFICATE, read_block, read_final_point, set_change_key
from consensus.setchange import VotingProof
from ledger.block import Certificate, Header, SealedHeader
from ledger.codec import decode
from ledger.crypto import tagged_hash
from ledger.entries import VotingEntry
from ledger.errors import EncodingError, StoreDamaged
from ledger.genesis import Genesis, chain_id_of
from ledger.state import state_path
from ledger.statetree import StateTree
from ledger.store import Space, Store, space_range

T = TypeVar("T")

READS_MAX: Final = 20
"""Looks at a store until one is of a single moment: blocks become final seconds apart, a look takes milliseconds."""


@dataclass(frozen=True, slots=True)
class FinalView:
    """A final block.

    Attributes:
        block_id: its id.
        header: its header.
        tree: the state after it.
        certificate: on the link from it to a child: it makes the block final.
    """

    block_id: bytes
    header: Header
    tree: StateTree
    certificate: Certificate

    def entry(self, kind: type[T], *key: str | bytes) -> T | None:
        """Return an entry of the state, None where there is none. Raises StoreDamaged."""
        value = self.tree.get(state_path(*key))
        try:
            return None if value is None else decode(value, kind)
        except EncodingError as error:
            raise StoreDamaged(f"an entry cannot be read: {error}", where="state") from None

    def siblings(self, *key: str | bytes) -> list[bytes]:
        """Return the way from the root of the state down to an entry that is there."""
        return list(self.tree.prove(state_path(*key)).siblings)

    def voting_proof(self) -> VotingProof:
        """Return the proof that the block is final, and of who votes on its children."""
        voting = self.entry(VotingEntry, "voting")
        if voting is None:
            raise StoreDamaged("the voting sets are missing", where="state")
        return VotingProof(self.header, voting, self.siblings("voting"), self.certificate)


class FinalReader:
    """Reads proofs from a store. May be used by several threads.

    Attributes:
        history: of the store's final chain.
    """

    def __init__(self, store: Store, genesis: Genesis) -> None:
        self._store = store
        self.history = HistoryTree(store, chain_id_of(genesis))
        self._lock = threading.Lock()
        self._rows: dict[bytes, bytes] = {}
        self._tree = StateTree.empty()
        self._view: FinalView | None = None

    def view(self) -> FinalView | None:
        """Return the final block, None while that is genesis. Raises StoreDamaged."""
        problem, height = "", 0
        with self._lock:
            for _ in range(READS_MAX):
                point = read_final_point(self._store)
                if point is None:
                    return None
                if self._view is not None and self._view.block_id == point.block_id:
                    return self._view
                height = point.height
                problem, view = self._look(point.block_id)
                if view is not None:
                    self._view = view
                    return view
                now = read_final_point(self._store)
                if now is not None and now.block_id == point.block_id:
                    break
        raise StoreDamaged(problem, where=f"height {height}", hint="Audit it with ledger-verify")

    def set_changes(self, after: int = 0, *, count: int | None = None) -> list[VotingProof]:
        """Return the proof of each change of the voting set from set ``after`` on, in order, at most ``count``."""
        changes: list[VotingProof] = []
        for set_id in itertools.count(after + 1):
            if len(changes) == count:
                break
            row = self._store.get_checked(set_change_key(set_id))
            if row is None:
                break
            try:
                changes.append(decode(row, VotingProof))
            except EncodingError as error:
                raise StoreDamaged(
                    f"the proof of a set change cannot be read: {error}", where=f"set {set_id}"
                ) from None
        return changes

    def _look(self, block_id: bytes) -> tuple[str, FinalView | None]:
        """Return the view of ``block_id``, or what hinders it: damage, or a node that went on meanwhile."""
        block = read_block(self._store, block_id)
        raw = self._store.get_checked(FINAL_CERTIFICATE)
        if block is None:
            return "the final block is missing", None
        try:
            certificate = None if raw is None else decode(raw, Certificate)
        except EncodingError as error:
            return f"the final certificate cannot be read: {error}", None
        if certificate is None or certificate.s_id != block_id:
            return "nothing proves the last block final", None
        header = block.sealed.header
        self._follow(dict(self._store.scan(*space_range(Space.STATE))))
        if self._tree.root != header.state_root:
            return "the state is not the one in the final block", None
        return "", FinalView(block_id, header, self._tree, certificate)

    def _follow(self, rows: dict[bytes, bytes]) -> None:
        """Make the tree that of these rows, by what changed since the last time."""
        tree = self._tree
        for key in self._rows.keys() - rows.keys():
            tree = tree.delete(_path_of(key))
        for key, value in rows.items():
            if self._rows.get(key) != value:
                tree = tree.set(_path_of(key), value)
        self._rows, self._tree = rows, tree


def _path_of(row_key: bytes) -> bytes:
    """Return the path of an entry whose encoded name follows the first byte of its row's key."""
    return tagged_hash("state", row_key[1:])


def sealed_headers(engine: Engine, store: Store, first: int, count: int) -> list[SealedHeader]:
    """Return the headers of the best chain from height ``first`` (1 and up) on, at most ``count``.

    store: the engine's. Costs a row each; bodies are not read. Raises StoreDamaged.
    """
    found = []
    for height in range(first, min(first + count, engine.head.height + 1)):
        block_id = engine.block_id_at(height)
        row = None if block_id is None else store.get(Space.HEADER.value + block_id)
        try:
            sealed = None if row is None else decode(row, SealedHeader)
        except EncodingError as error:
            raise StoreDamaged(f"a header cannot be read: {error}", where=f"height {height}") from None
        # What is not final may not be on disk yet; the next request finds it there.
        if sealed is None:
            break
        found.append(sealed)
    return found
