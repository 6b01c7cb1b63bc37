"""Blocks that wait for their parents."""

from __future__ import annotations

from consensus.orphans import ORPHANS_BYTES_MAX, ORPHANS_MAX, Orphans
from ledger.block import BLOCK_TRANSACTIONS_MAX, Block, BodyItem
from tests.consensus.bench_kit import Bench, resign


def test_held_until_the_parent_comes() -> None:
    bench = Bench()
    bench.submit([1])
    block = bench.seal(1)
    orphans = Orphans()
    orphans.hold(block)
    orphans.hold(block)
    assert (len(orphans), orphans.is_awaited(bench.chain_id)) == (1, True)
    assert orphans.release(bench.chain_id) == [block]
    assert (len(orphans), orphans.is_awaited(bench.chain_id), orphans.release(bench.chain_id)) == (0, False, [])


def test_the_longest_waiting_go_first() -> None:
    bench = Bench()
    bench.submit([1])
    block = bench.seal(1)
    orphans = Orphans()
    for n in range(ORPHANS_MAX + 1):
        orphans.hold(resign(block, parent_id=bytes([n]) * 32))
    assert len(orphans) == ORPHANS_MAX
    assert not orphans.is_awaited(bytes(32))
    assert orphans.is_awaited(bytes([1]) * 32)


def test_large_ones_are_bounded_by_their_bytes() -> None:
    """Sixty-four of the largest would be hundreds of megabytes."""
    bench = Bench()
    bench.submit([1])
    block = bench.seal(1)
    body = [BodyItem(bytes(32), bytes(125))] * BLOCK_TRANSACTIONS_MAX
    size = BLOCK_TRANSACTIONS_MAX * (36 + 125)
    orphans = Orphans()
    for n in range(5):
        orphans.hold(Block(resign(block, parent_id=bytes([n]) * 32).sealed, body))
        assert len(orphans) * size <= ORPHANS_BYTES_MAX
    assert orphans.is_awaited(bytes([4]) * 32)
    # What was let go makes room again.
    for n in range(5):
        orphans.release(bytes([n]) * 32)
    orphans.hold(Block(resign(block, parent_id=bytes(32)).sealed, body))
    assert len(orphans) == 1
