"""Blocks that wait for their parents."""

from __future__ import annotations

from consensus.orphans import ORPHANS_MAX, Orphans
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
