"""Whose slot it is."""

from __future__ import annotations

from collections import Counter

import pytest

from consensus.election import elect
from consensus.schedule import compute_schedule, producer_at
from ledger.errors import LedgerError
from ledger.state import genesis_state
from node.sim.world import make_genesis

PRODUCERS = tuple(elect(genesis_state(make_genesis(7))))


def test_everybody_has_the_same_number_of_turns() -> None:
    schedule = compute_schedule(PRODUCERS, 3, 70, bytes(32))
    turns = Counter(producer_at(schedule, slot).member_id for slot in range(210, 280))
    assert turns == {p.member_id: 10 for p in PRODUCERS}


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first = compute_schedule(PRODUCERS, 3, 70, bytes(32))
    assert first == compute_schedule(PRODUCERS, 3, 70, bytes(32))
    assert len({compute_schedule(PRODUCERS, 3, 70, bytes([n]) * 32).order for n in range(20)}) > 15
    assert len({compute_schedule(PRODUCERS, n, 70, bytes(32)).order for n in range(20)}) > 15


def test_pinned_order() -> None:
    """Another implementation must come to the same."""
    order = compute_schedule(PRODUCERS, 0, 10, bytes(32)).order
    assert "".join(p.member_id[-1] for p in order) == "0341526"


@pytest.mark.parametrize("slot", [209, 280, 0])
def test_a_slot_outside_the_epoch_is_refused(slot: int) -> None:
    with pytest.raises(LedgerError) as caught:
        producer_at(compute_schedule(PRODUCERS, 3, 70, bytes(32)), slot)
    assert caught.value.where == "slot"
