"""Who holds a seat: the candidates with the most delegated weight.

Source: docs/consensus.md, "Election".
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.state import State


@dataclass(frozen=True, slots=True)
class Producer:
    """A seat: a member and the node key that seals and votes for it."""

    member_id: str
    key_id: bytes
    public_key: bytes


def elect(state: State) -> tuple[Producer, ...]:
    """Return the producers by rank: most delegated weight first, ties by member id; one seat for each member."""
    weights = dict.fromkeys(state.candidates, 0)
    for (member_id, candidate_id), weight in state.delegations.items():
        if candidate_id in weights and member_id in state.members:
            weights[candidate_id] += weight
    ranked = sorted(weights, key=lambda member_id: (-weights[member_id], member_id))
    seats = []
    for member_id in ranked[: state.parameters.producer_count]:
        key_id = state.candidates[member_id].key_id
        seats.append(Producer(member_id, key_id, state.keys[key_id].public_key))
    return tuple(seats)
