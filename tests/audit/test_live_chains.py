"""Whatever votes and blocks are lost, what a producer has on disk passes the audit after every slot."""

from __future__ import annotations

import io
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from audit.export import export_chain
from audit.raw import RawBlock, RawFinality, read_finality, read_head, read_raw_block
from audit.source import ChainSource, ExportSource
from audit.verify import verify_chain
from consensus.rows import FINAL_POINT
from ledger.block import Block, Vote
from ledger.genesis import Genesis, chain_id_of
from ledger.store import MemoryStore, Store
from tests.audit.chains import Cluster, make_genesis, make_raw, rules_of

GENESIS = make_genesis(epoch_slots=3)
RULES = rules_of(GENESIS)


class StoreSource(ChainSource):
    """An open store, its derived rows included."""

    def __init__(self, store: Store, genesis: Genesis) -> None:
        self.name = "store"
        self.store = store
        self.head = read_head(store, chain_id_of(genesis))

    def genesis(self) -> bytes | None:
        return None

    def open(self, chain_id: bytes) -> None:
        pass

    def blocks(self) -> Iterator[RawBlock]:
        for height in range(1, self.head.final_height + 1):
            yield read_raw_block(self.store, height)

    def finality(self) -> RawFinality:
        return read_finality(self.store, self.head)

    def close(self) -> None:
        pass


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 11), max_size=6), st.integers(0, 3)), min_size=4, max_size=24))
def test_every_store_passes_after_every_slot(losses: list[tuple[set[int], int]]) -> None:
    """losses: for each slot, which of its votes are lost, and 3 where its block reaches nobody."""
    cluster = Cluster(GENESIS)
    for slot, (lost_votes, kind) in enumerate(losses):
        cluster.submit(make_raw(GENESIS, range(slot * 3, slot * 3 + 5), now_ms=cluster.now_ms))
        seen = [0]

        def deliver(message: Block | Vote, lost=lost_votes, kind=kind, seen=seen) -> bool:
            if isinstance(message, Block):
                return kind != 3
            seen[0] += 1
            return seen[0] - 1 not in lost

        try:
            cluster.step(deliver=deliver)
        except Exception as error:  # a block whose parent got lost: sync would fetch it, this cluster has none
            if type(error).__name__ != "UnknownParent":
                raise
            break
    for peer in cluster.peers:
        report = verify_chain(StoreSource(peer.store, GENESIS), GENESIS, rules=RULES)
        assert report.first_difference is None
        assert (report.height, report.head_id) == (peer.engine.final.height, peer.engine.final.block_id)


class BusyStore(MemoryStore):
    """A store that a node writes to whenever the final point has been read."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = lambda: None

    def get_checked(self, row_key: bytes) -> bytes | None:
        value = super().get_checked(row_key)
        if row_key == FINAL_POINT:
            self.go_on()
        return value


def test_an_export_of_a_running_node_has_a_head_with_its_own_proof() -> None:
    store = BusyStore()
    cluster = Cluster(GENESIS, [store, *(MemoryStore() for _ in range(3))])
    steps = iter(range(4))

    def go_on() -> None:
        if next(steps, None) is not None:
            cluster.submit(make_raw(GENESIS, range(cluster.slot * 3, cluster.slot * 3 + 3), now_ms=cluster.now_ms))
            cluster.step()

    cluster.submit(make_raw(GENESIS, range(100, 103), now_ms=cluster.now_ms))
    for _ in range(3):
        cluster.step()
    store.go_on = go_on
    data = b"".join(export_chain(store, GENESIS))
    report = verify_chain(ExportSource(io.BytesIO(data), name="export"), GENESIS, rules=RULES)
    assert (report.first_difference, report.height, next(steps, None)) == (
        None,
        cluster.peers[0].engine.final.height,
        None,
    )
