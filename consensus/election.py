"""Who holds a seat, and whose votes are to count: both follow from the branch itself.

Source: docs/consensus.md, "Election".
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from consensus.params import faults_tolerated
from ledger.entries import EpochEntry, Producer, Turn, TurnsEntry, VotingEntry
from ledger.genesis import Genesis, Role, chain_id_of
from ledger.state import State, genesis_state


@dataclass(frozen=True, slots=True)
class Election:
    """What an election gives.

    Attributes:
        seats: the producers by rank.
        voting: those who should vote, by rank.
        struck: members passed over from now on because a fault of theirs is proven.
    """

    seats: list[Producer]
    voting: list[Producer]
    struck: list[str]


def founding_state(genesis: Genesis) -> State:
    """Return the state before the first block: what the founders wrote down, with the first producers elected."""
    state = genesis_state(genesis)
    seats = elect(state)
    return state.changed(
        {
            ("epoch",): EpochEntry(0, chain_id_of(genesis), seats),
            ("turns",): fresh_turns(seats),
            ("voting",): VotingEntry(0, seats, None),
        }
    )


def fresh_turns(seats: list[Producer]) -> TurnsEntry:
    """Return the turns of an epoch that begins."""
    return TurnsEntry([Turn(0, 0)] * len(seats))


def hold_election(state: State, turns: list[Turn]) -> Election:
    """Return the outcome of an election on ``state``.

    turns: of the epoch that ended, one for each of its seats.
    """
    newly = _to_strike(state)
    out = {name for name, entry in state.struck.items() if entry.is_out} | set(newly)
    record = {seat.key_id: turn for seat, turn in zip(state.epoch.seats, turns, strict=True)}
    idle = {key_id for key_id, turn in record.items() if turn.missed > turn.sealed}
    # Nobody stands: those who hold the seats keep them, or the chain would end here.
    seats = elect(state, idle=idle, out=out) or state.epoch.seats
    proven = {key_id for key_id, turn in record.items() if turn.sealed}
    return Election(seats, _wanted_voters(state, seats, proven, out), newly)


def elect(state: State, *, idle: Collection[bytes] = (), out: Collection[str] = ()) -> list[Producer]:
    """Return the producers by rank: most delegated weight first, ties by member id; one seat for each member.

    idle: keys that missed more than half of their slots in the epoch that ended: they rank last.
    out: members that are passed over.
    """
    weights = {
        name: 0
        for name, candidate in state.candidates.items()
        if name not in out and state.key_with_role(candidate.key_id, Role.NODE)
    }
    for (member_id, candidate_id), weight in state.delegations.items():
        if candidate_id in weights and member_id in state.members:
            weights[candidate_id] += weight

    def rank(name: str) -> tuple[bool, int, str]:
        return state.candidates[name].key_id in idle, -weights[name], name

    seats = []
    for name in sorted(weights, key=rank)[: state.parameters.producer_count]:
        key_id = state.candidates[name].key_id
        seats.append(Producer(name, key_id, state.keys[key_id].public_key))
    return seats


def _to_strike(state: State) -> list[str]:
    """Return the members to be passed over from this election on.

    Of those in office at most as many as the voting set may have faulty; others take nobody's place in that queue.
    """
    pending = state.voting.pending
    office = [*state.epoch.seats, *state.voting.producers, *(pending.producers if pending else ())]
    in_office = {producer.member_id for producer in office}
    waiting = sorted((entry.height, name) for name, entry in state.struck.items() if not entry.is_out)
    queue = [name for _, name in waiting if name in in_office][: faults_tolerated(len(state.voting.producers))]
    return [name for _, name in waiting if name not in in_office or name in queue]


def _wanted_voters(state: State, seats: list[Producer], proven: set[bytes], out: set[str]) -> list[Producer]:
    """Return who should vote, by rank: those who hold the seats, as far as they have shown that they are there.

    A seat that does not vote yet joins once it has sealed a block: electing who is not there must not stop finality.
    Until then the member's old key stays in its place or, where it had none, somebody who lost the seat.
    """
    voting = {producer.member_id: producer for producer in state.voting.producers}
    elected = {seat.member_id for seat in seats}
    leaving = [p for p in state.voting.producers if p.member_id not in elected and p.member_id not in out]
    wanted, absent = [], 0
    for seat in seats:
        if seat in state.voting.producers or seat.key_id in proven:
            wanted.append(seat)
        elif seat.member_id in voting:
            wanted.append(voting[seat.member_id])
        else:
            absent += 1
    return wanted + leaving[:absent]
