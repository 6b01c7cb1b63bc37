"""After a stop of any kind an engine is what its store says it was."""

from __future__ import annotations

import pytest

from consensus.engine import Engine
from consensus.rows import FINAL_POINT, guard_key, read_final_id, read_final_point, read_guard, read_unfinal
from consensus.votes import VoteGuard
from ledger.block import Vote
from ledger.errors import StoreDamaged
from ledger.store import MemoryStore, Space, WriteBatch
from node.sim.world import World, is_stand_in_signature, producer_key
from tests.consensus.bench_kit import Bench, time_of


def portrait(engine: Engine) -> dict[str, object]:
    """Return everything that must survive."""
    head, final = engine.head, engine.final
    return {
        "head": (head.height, head.slot, head.block_id, head.justified_height, head.finality, head.schedule),
        "final": (final.height, final.slot, final.block_id, final.finality, final.schedule),
        "history": (head.chain.history, final.chain.history),
        "records": (head.last_records_height, final.last_records_height),
        "certificate": engine.best_certificate,
        "guard": engine.guard,
        "links": engine.tree.below,
        "pool": sorted(tx.tx_id for tx in engine.pool),
        "tree": sorted(engine.tree.nodes),
        "certified": sorted(n.block_id for n in engine.tree.nodes.values() if n.certified and n is not final),
    }


@pytest.mark.parametrize("slots", range(9))
def test_a_restart_changes_nothing(slots: int) -> None:
    bench = Bench()
    for slot in range(1, slots + 1):
        bench.submit([slot], member=slot % 4)
        bench.run_slot(slot, silent=[3] if slot % 3 == 0 else [])
    bench.submit([99])
    for number in range(5):
        assert portrait(bench.make(number)) == portrait(bench.engines[number])


def test_a_chain_goes_on_after_all_restart() -> None:
    bench = Bench()
    for slot in range(1, 5):
        bench.submit([slot])
        bench.run_slot(slot)
    bench.engines = [bench.make(n) for n in range(5)]
    bench.submit([50])
    for slot in range(5, 8):
        bench.run_slot(slot)
    assert {engine.final.height for engine in bench.engines} == {5}
    assert len({engine.final.chain.history.root() for engine in bench.engines}) == 1
    assert [read_final_id(bench.stores[0], h) for h in range(1, 6)] == [
        read_final_id(bench.stores[4], h) for h in range(1, 6)
    ]


def test_a_restarted_producer_keeps_its_promises() -> None:
    bench = Bench()
    bench.submit([1])
    number = bench.owner_of(1)
    bench.seal(1)
    again = bench.make(number)
    assert again.guard == VoteGuard(2, 0, 2)
    again.handle_timer(now_ms=time_of(1))
    assert [m for m in again.take_ready().messages if not isinstance(m, Vote)] == []
    assert read_guard(bench.stores[number]) == VoteGuard(2, 0, 2)


def test_a_crash_before_the_write_leaves_nothing() -> None:
    bench = Bench()
    bench.submit([1])
    number = bench.owner_of(1)
    bench.engines[number].handle_timer(now_ms=time_of(1))
    assert bench.engines[number].take_ready().messages != []
    assert portrait(bench.make(number))["guard"] == VoteGuard()
    assert bench.make(number).head.height == 0


def test_final_blocks_are_unfinal_no_more() -> None:
    bench = Bench()
    for slot in range(1, 5):
        bench.submit([slot])
        bench.run_slot(slot)
    assert len(read_unfinal(bench.stores[0])) == 1
    point = read_final_point(bench.stores[0])
    assert point is not None
    assert (point.height, point.slot_after) == (3, 4)
    pending = list(bench.stores[0].scan(Space.PENDING.value, bytes([Space.PENDING.value[0] + 1])))
    assert len(pending) == 1


def open_engine(store: MemoryStore, producers: int = 4) -> Engine:
    world = World(producers)
    return Engine(world.genesis, store, key=producer_key(0), check=world.check, is_valid=is_stand_in_signature)


def test_another_chains_store_is_refused() -> None:
    bench = Bench(7)
    for slot in (1, 2):
        bench.submit([slot])
        bench.run_slot(slot)
    with pytest.raises(StoreDamaged) as caught:
        open_engine(bench.stores[0])  # type: ignore[arg-type]
    assert caught.value.where == "height 1"
    assert "genesis" in caught.value.hint


@pytest.mark.parametrize(
    ("row_key", "what"), [(FINAL_POINT, "final point"), (guard_key(producer_key(0).key_id), "vote guard")]
)
def test_damaged_rows_are_named(row_key: bytes, what: str) -> None:
    store = MemoryStore()
    store.write(WriteBatch([(row_key, b"\xc1")], []))
    with pytest.raises(StoreDamaged) as caught:
        open_engine(store)
    assert what in caught.value.what


def test_a_missing_final_block_is_named() -> None:
    bench = Bench()
    for slot in (1, 2):
        bench.submit([slot])
        bench.run_slot(slot)
    lost = read_final_id(bench.stores[0], 1)
    assert lost is not None
    bench.stores[0].write(WriteBatch([(Space.HEADER.value + lost, None)], []))
    with pytest.raises(StoreDamaged) as caught:
        bench.make(0)
    assert caught.value.where == "height 1"
