"""Roots of subtrees that a node keeps: they save the pass over the chain, and a wrong one is never used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import history
from audit.history import HistoryTree, root_key
from ledger import merkle
from ledger.store import MemoryStore, Space, WriteBatch, height_key, space_range
from tests.audit.chains import FIVE, Cluster, govern, make_genesis

CHUNK = 8
CLUSTER = Cluster(make_genesis(name="governed", members=FIVE, seats=4))
govern(CLUSTER)
CHAIN_ID = CLUSTER.peers[0].engine.chain_id
SIZE = CLUSTER.peers[0].engine.final.height
IDS = [CHAIN_ID, *(CLUSTER.peers[0].engine.block_id_at(height) or b"" for height in range(1, SIZE))]
LEAVES = [merkle.leaf_hash(block_id) for block_id in IDS]


class CountingStore(MemoryStore):
    """A copy of the chain's rows; counts the block ids that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0
        store = CLUSTER.peers[0].store
        puts = [row for space in (Space.HEADER, Space.HEIGHT, Space.META) for row in store.scan(*space_range(space))]
        self.write(WriteBatch(puts=[*puts]))

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        for row in super().scan(start, stop, reverse=reverse):
            self.read += row[0][:1] == Space.HEIGHT.value
            yield row


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "CHUNK_LEAVES", CHUNK)
        yield


def kept() -> CountingStore:
    """Return a store with everything gathered."""
    store = CountingStore()
    store.write(WriteBatch(puts=[*HistoryTree(store, CHAIN_ID).gather(SIZE, SIZE)]))
    store.read = 0
    return store


def check_proofs(store: MemoryStore) -> None:
    tree = HistoryTree(store, CHAIN_ID)
    assert tree.consistency(21, SIZE) == merkle.consistency_proof(LEAVES, 21)
    assert tree.path(3, SIZE) == merkle.inclusion_proof(LEAVES, 3)
    assert tree.subtree_roots(1, 2, 16) == [merkle.root(LEAVES[16:32]), merkle.root(LEAVES[32:48])]


def test_roots_are_gathered_in_steps_and_each_once() -> None:
    tree = HistoryTree(CountingStore(), CHAIN_ID)
    assert (tree.missing(SIZE), tree.missing(CHUNK - 1), tree.missing(0)) == (SIZE // CHUNK, 0, 0)
    steps = [tree.gather(SIZE, 3) for _ in range(4)]
    assert [len(rows) for rows in steps] == [3, 3, SIZE // CHUNK - 6, 0]
    roots = [merkle.root(LEAVES[at : at + CHUNK]) for at in range(0, SIZE - CHUNK + 1, CHUNK)]
    assert [row for rows in steps for row in rows] == [(root_key(at), root) for at, root in enumerate(roots)]
    assert tree.missing(SIZE) == 0
    assert tree.gather(SIZE, 3) == []


def test_who_starts_again_reads_no_more_than_the_last_blocks() -> None:
    store = kept()
    tree = HistoryTree(store, CHAIN_ID)
    assert tree.missing(SIZE) == 0
    assert tree.consistency(CHUNK, SIZE) == merkle.consistency_proof(LEAVES, CHUNK)
    assert store.read == SIZE % CHUNK
    check_proofs(store)


def test_rows_that_lack_are_gathered_again() -> None:
    store = kept()
    store.write(WriteBatch(puts=[(root_key(2), None)]))
    tree = HistoryTree(store, CHAIN_ID)
    assert tree.missing(SIZE) == SIZE // CHUNK - 2
    assert [key for key, _ in tree.gather(SIZE, 2)] == [root_key(2), root_key(3)]
    check_proofs(store)


def test_without_the_header_that_says_the_root_none_is_believed() -> None:
    store = kept()
    store.write(WriteBatch(puts=[(height_key(SIZE // CHUNK * CHUNK), bytes(32))]))
    assert HistoryTree(store, CHAIN_ID).missing(SIZE) == SIZE // CHUNK


@given(
    index=st.integers(0, SIZE // CHUNK + 1),
    value=st.one_of(
        st.binary(max_size=40), st.sampled_from([merkle.EMPTY_ROOT, LEAVES[0], merkle.root(LEAVES[:CHUNK])])
    ),
)
def test_a_wrong_row_is_never_used(index: int, value: bytes) -> None:
    store = kept()
    store.write(WriteBatch(puts=[(root_key(index), value)]))
    check_proofs(store)
    # What is gathered then makes it good again.
    store.write(WriteBatch(puts=[*HistoryTree(store, CHAIN_ID).gather(SIZE, SIZE)]))
    store.write(WriteBatch(puts=[(root_key(SIZE // CHUNK), None), (root_key(SIZE // CHUNK + 1), None)]))
    assert HistoryTree(store, CHAIN_ID).missing(SIZE) == 0
