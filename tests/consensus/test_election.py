"""Who holds a seat."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import msgspec

from consensus.election import elect
from ledger.state import State, genesis_state
from node.sim.world import make_genesis, producer_key


def state(delegations: dict[tuple[str, str], int], seats: int = 2) -> State:
    base = genesis_state(make_genesis(4))
    parameters = msgspec.structs.replace(base.parameters, producer_count=seats)
    return replace(base, delegations=MappingProxyType(delegations), parameters=parameters)


def seats(delegations: dict[tuple[str, str], int], count: int = 2) -> list[str]:
    return [p.member_id[-1] for p in elect(state(delegations, count))]


def names(*pairs: tuple[int, int, int]) -> dict[tuple[str, str], int]:
    return {(f"carrier-{a:02d}", f"carrier-{b:02d}"): weight for a, b, weight in pairs}


def test_most_weight_first() -> None:
    assert seats(names((0, 3, 5), (1, 3, 5), (2, 1, 9))) == ["3", "1"]


def test_ties_by_member_id() -> None:
    assert seats(names((0, 3, 5), (1, 2, 5))) == ["2", "3"]


def test_candidates_without_weight_fill_seats_left() -> None:
    assert seats(names((0, 3, 5)), 3) == ["3", "0", "1"]


def test_delegations_by_or_to_strangers_do_not_count() -> None:
    assert seats({("stranger", "carrier-03"): 99, ("carrier-00", "stranger"): 99, ("carrier-00", "carrier-02"): 1}) == [
        "2",
        "0",
    ]


def test_a_seat_has_the_candidates_node_key() -> None:
    first = elect(state(names((0, 3, 5))))[0]
    assert (first.key_id, first.public_key) == (producer_key(3).key_id, producer_key(3).public_key)
