"""Paths into a stored history, and what is read of a final block while a node writes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from audit import history
from audit.final import FinalReader
from audit.history import HistoryTree
from consensus.rows import FINAL_CERTIFICATE, FINAL_POINT
from ledger import merkle
from ledger.codec import encode
from ledger.entries import KeyEntry
from ledger.errors import StoreDamaged
from ledger.genesis import Genesis
from ledger.state import state_path
from ledger.statetree import StateProof, verify_state_proof
from ledger.store import MemoryStore, Space, WriteBatch, height_key, space_range
from tests.audit.chains import SUBMIT_KEYS, Cluster, make_genesis, make_raw

CHAIN_ID = b"\x11" * 32
BLOCKS = 150


def block_id(height: int) -> bytes:
    return height.to_bytes(32)


@pytest.fixture(scope="module")
def ids_store() -> MemoryStore:
    store = MemoryStore()
    store.write(WriteBatch(puts=[(height_key(height), block_id(height)) for height in range(1, BLOCKS)]))
    return store


@pytest.mark.parametrize("chunk", [2, 8, 64])
def test_paths_are_those_of_the_whole_tree(chunk: int, ids_store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "CHUNK_LEAVES", chunk)
    tree = HistoryTree(ids_store, CHAIN_ID)
    leaves = [merkle.leaf_hash(CHAIN_ID), *(merkle.leaf_hash(block_id(height)) for height in range(1, BLOCKS))]
    for size in (150, 1, 2, 3, 7, 8, 9, 16, 17, 63, 64, 65, 100, 149):
        for height in range(size):
            assert tree.path(height, size) == merkle.inclusion_proof(leaves[:size], height)


class MeetingStore(MemoryStore):
    """Holds up the first reads until ``expected`` threads read at once, or a moment is over; counts the rows read."""

    def __init__(self, expected: int) -> None:
        super().__init__()
        self.rows = 0
        self._meeting = threading.Barrier(expected)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        with contextlib.suppress(threading.BrokenBarrierError):
            self._meeting.wait(0.2)
        for row in super().scan(start, stop, reverse=reverse):
            self.rows += 1
            yield row


def test_what_the_first_question_costs_is_paid_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass over a year's blocks takes a minute and more: whoever asks meanwhile must not begin another."""
    monkeypatch.setattr(history, "CHUNK_LEAVES", 8)
    store = MeetingStore(4)
    store.write(WriteBatch(puts=[(height_key(height), block_id(height)) for height in range(1, BLOCKS)]))
    tree = HistoryTree(store, CHAIN_ID)
    threads = [threading.Thread(target=tree.path, args=(0, 129)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Once all of them, and each time what is too small to be kept: the leaves beside the one asked for.
    assert store.rows <= 129 + 4 * 8


@pytest.mark.parametrize("chunk", [2, 64])
def test_consistency_is_that_of_the_whole_tree(
    chunk: int, ids_store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "CHUNK_LEAVES", chunk)
    tree = HistoryTree(ids_store, CHAIN_ID)
    leaves = [merkle.leaf_hash(CHAIN_ID), *(merkle.leaf_hash(block_id(height)) for height in range(1, BLOCKS))]
    for size in (150, 1, 2, 7, 8, 9, 64, 65, 149):
        for old in range(size + 1):
            assert tree.consistency(old, size) == merkle.consistency_proof(leaves[:size], old)
    for old, size in [(6, 5), (-1, 4)]:
        with pytest.raises(IndexError):
            tree.consistency(old, size)


@pytest.mark.parametrize("size", [1, 4, 16])
def test_subtrees_side_by_side(size: int, ids_store: MemoryStore) -> None:
    tree = HistoryTree(ids_store, CHAIN_ID)
    leaves = [merkle.leaf_hash(CHAIN_ID), *(merkle.leaf_hash(block_id(height)) for height in range(1, BLOCKS))]
    expected = [merkle.root(leaves[first : first + size]) for first in range(2 * size, 9 * size, size)]
    assert tree.subtree_roots(2, 7, size) == expected
    with pytest.raises(StoreDamaged, match="a final block is missing"):
        tree.subtree_roots(BLOCKS // size, 1, size)


def test_what_was_computed_once_is_not_read_again(ids_store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "CHUNK_LEAVES", 16)
    tree = HistoryTree(ids_store, CHAIN_ID)
    tree.path(3, 140)
    read: list[tuple[bytes, bytes]] = []
    scan = ids_store.scan
    monkeypatch.setattr(ids_store, "scan", lambda start, stop: read.append((start, stop)) or scan(start, stop))
    tree.path(3, 141)
    assert sum(int.from_bytes(stop[1:]) - int.from_bytes(start[1:]) for start, stop in read) <= 16 + 13


def test_no_path_beyond_the_chain(ids_store: MemoryStore) -> None:
    tree = HistoryTree(ids_store, CHAIN_ID)
    for height, size in [(5, 5), (-1, 4), (0, 0)]:
        with pytest.raises(IndexError):
            tree.path(height, size)
    with pytest.raises(StoreDamaged, match="a final block is missing"):
        tree.path(3, BLOCKS + 1)


# -- the final block ---------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster(make_genesis(name="final"))
    for slot in range(4):
        cluster.submit(make_raw(cluster.genesis, range(slot * 3, slot * 3 + 3), now_ms=cluster.now_ms))
        cluster.step()
    return cluster


def test_the_view_follows_the_final_block(cluster: Cluster) -> None:
    peer = cluster.peers[0]
    reader = FinalReader(peer.store, cluster.genesis)
    for _ in range(6):
        view = reader.view()
        assert view == reader.view()
        assert (view.block_id, view.tree.root) == (peer.engine.final.block_id, view.header.state_root)
        assert view.certificate.s_id == view.block_id
        key_id = SUBMIT_KEYS["bravo"].key_id
        entry = view.entry(KeyEntry, "key", key_id)
        proof = StateProof(tuple(view.siblings("key", key_id)))
        verify_state_proof(view.header.state_root, state_path("key", key_id), encode(entry), proof)
        cluster.submit(make_raw(cluster.genesis, [100 + cluster.slot], now_ms=cluster.now_ms))
        cluster.step()
    assert reader.view().entry(KeyEntry, "key", bytes(20)) is None


def test_genesis_alone_has_no_view(genesis: Genesis) -> None:
    assert FinalReader(MemoryStore(), genesis).view() is None


def test_a_node_that_writes_meanwhile_is_looked_at_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = cluster.peers[0]
    steps = iter(range(2))
    get_checked = peer.store.get_checked

    def busy(row_key: bytes) -> bytes | None:
        value = get_checked(row_key)
        if row_key == FINAL_POINT and next(steps, None) is not None:
            cluster.submit(make_raw(cluster.genesis, [200 + cluster.slot], now_ms=cluster.now_ms))
            cluster.step()
        return value

    monkeypatch.setattr(peer.store, "get_checked", busy)
    assert FinalReader(peer.store, cluster.genesis).view().block_id == peer.engine.final.block_id


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        ((FINAL_CERTIFICATE, None), "nothing proves the last block final"),
        ((FINAL_CERTIFICATE, b"\x00"), "the final certificate cannot be read"),
        (("state", None), "the state is not the one in the final block"),
        (("header", None), "the final block is missing"),
    ],
)
def test_damage_is_told(spoil: tuple[bytes | str, bytes | None], what: str, cluster: Cluster) -> None:
    store = cluster.peers[0].store
    name, value = spoil
    if name == "state":
        name = next(key for key, _ in store.scan(*space_range(Space.STATE)))
    elif name == "header":
        name = Space.HEADER.value + cluster.peers[0].engine.final.block_id
    store.write(WriteBatch(puts=[(name, value)]))
    with pytest.raises(StoreDamaged, match=what):
        FinalReader(store, cluster.genesis).view()
