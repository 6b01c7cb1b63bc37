"""How long finality takes over a long way: the table in docs/consensus.md, "Slots and the way between producers"."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from consensus.ready import BlockFinal, Event
from node.sim.cluster import Simulation
from node.sim.network import Weather
from node.sim.node import SimNode
from node.sim.world import GENESIS_MS, SLOT_MS

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "consensus.md"
SLOTS = 24


def finality_ms(producers: int, way_ms: int) -> list[int]:
    """Return, of each block, how long after its slot began it was final at the last node; sorted."""
    simulation = Simulation.quiet(producers)
    simulation.network.weather = Weather(delay_min_ms=way_ms, delay_max_ms=way_ms)
    told: dict[int, list[int]] = {}
    on_event = simulation.watch.on_event

    def note(node: SimNode, event: Event) -> None:
        if isinstance(event, BlockFinal):
            began_ms = GENESIS_MS + event.node.slot * SLOT_MS
            told.setdefault(event.node.height, []).append(simulation.clock.now_ms - began_ms)
        on_event(node, event)

    simulation.watch.on_event = note  # type: ignore[method-assign]
    simulation.start()
    simulation.feed(0, SLOTS)
    simulation.run_until(SLOTS + 4)
    return sorted(max(times_ms) for times_ms in told.values() if len(times_ms) == producers)


@pytest.mark.parametrize(("producers", "way_ms"), [(4, 10), (4, 200), (4, 490), (7, 50), (7, 300), (21, 150)])
def test_a_block_is_final_a_slot_and_two_ways_after_it_began(producers: int, way_ms: int) -> None:
    times_ms = finality_ms(producers, way_ms)
    assert len(times_ms) >= SLOTS - 2
    assert (times_ms[0], times_ms[-1]) == (SLOT_MS + 2 * way_ms,) * 2


def test_two_ways_that_do_not_fit_into_a_slot_make_nothing_final() -> None:
    """Every slot has a block, and none carries the certificate of the one before."""
    assert finality_ms(4, SLOT_MS // 2) == []


def test_the_documents_table_is_reckoned_so() -> None:
    rows = re.findall(r"^\| (\d+) ms \| (.+) \|$", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert len(rows) == 6
    for way, cells in rows:
        for slot_ms, cell in zip((500, 1_000, 2_000), cells.split(" | "), strict=True):
            after_ms = slot_ms + 2 * int(way)
            fits = 2 * int(way) < slot_ms
            assert cell == (f"{after_ms / slot_ms:.2f} slots, {after_ms / 1000:.2f} s" if fits else "**never**")
