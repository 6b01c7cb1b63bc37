"""What a block's place in the chain does to the state, before its transactions: turns, elections, voting sets.

Which sets must sign a block is read off the state of its parent, never from local knowledge: the current set and, while
a change is pending there, the new one as well.

Source: docs/consensus.md, "Elections" and "Changing the voting set".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from consensus.election import Election, founding_state, fresh_turns, hold_election
from consensus.finality import BranchFinality
from consensus.schedule import Schedule, compute_schedule, producer_at
from consensus.votes import Checkpoint, VotingSet
from ledger.codec import decode, encode
from ledger.entries import EpochEntry, KeyStanding, PendingSet, Producer, StruckEntry, Turn, TurnsEntry, VotingEntry
from ledger.genesis import Genesis
from ledger.governance import keys_in_office
from ledger.state import State, StateKey
from ledger.transition import ChainState, genesis_chain


@dataclass(frozen=True, slots=True)
class Position:
    """A chain up to one block, as far as it says who comes next.

    Attributes:
        chain: after the block.
        finality: what the certificates carried up to its header prove.
        last_records_height: height of the last block with transactions up to here, 0 for none.
    """

    chain: ChainState
    finality: BranchFinality
    last_records_height: int

    @property
    def owes_votes(self) -> bool:
        """Tell whether records up to here wait for votes, by what the chain itself carries.

        The certificate that makes the last of them final is carried by no block while the chain rests, so that the one
        below it, which justifies their block, has to do.
        """
        return self.last_records_height > self.finality.justified.height


def genesis_position(genesis: Genesis) -> Position:
    """Return the chain at height 0, which is final. Remembered: many engines of one chain may start in one process."""
    return _genesis_position(encode(genesis))


@lru_cache(maxsize=16)
def _genesis_position(encoded: bytes) -> Position:
    genesis = decode(encoded, Genesis)
    chain = genesis_chain(genesis, founding_state(genesis))
    here = Checkpoint(0, chain.block_id)
    return Position(chain, BranchFinality(here, here), 0)


def voting_sets(state: State) -> tuple[VotingSet, ...]:
    """Return the sets that must sign a child of the block after which ``state`` holds."""
    voting = state.voting
    current = VotingSet(voting.set_id, tuple(voting.producers))
    if voting.pending is None:
        return (current,)
    return current, VotingSet(voting.set_id + 1, tuple(voting.pending.producers))


def schedule_of(state: State) -> Schedule:
    """Return the schedule of the epoch that ``state`` is in."""
    epoch = state.epoch
    return compute_schedule(tuple(epoch.seats), epoch.epoch, state.parameters.epoch_slots, epoch.seed)


class NextEpoch:
    """An election on a branch, for whatever later epoch its next block is in: empty epochs pass in O(1)."""

    def __init__(self, parent: Position, schedule: Schedule) -> None:
        """``schedule``: of the parent's epoch."""
        self._parent = parent
        state = parent.chain.state
        end = schedule.first_slot + schedule.epoch_slots
        turns = state.turns.turns
        if parent.owes_votes:
            turns = _skip(turns, state.epoch.seats, schedule, parent.chain.slot + 1, end)
        self.election: Election = hold_election(state, turns)

    def schedule(self, epoch: int) -> Schedule:
        """Return the schedule of ``epoch``, which is later than the parent's."""
        state = self._parent.chain.state
        seed = self._parent.finality.final.block_id
        return compute_schedule(tuple(self.election.seats), epoch, state.parameters.epoch_slots, seed)


def begin_block(
    parent: Position, schedule: Schedule, next_epoch: Election | None, slot: int, final: Checkpoint
) -> State:
    """Return the state before the transactions of a child of ``parent`` in ``slot``.

    schedule: of ``slot``. next_epoch: the election, where ``slot`` is in another epoch than the parent.
    final: what the certificates carried up to the child's own header make final.
    """
    state = parent.chain.state
    changes: dict[StateKey, Any] = {}
    voting = _completed(state.voting, final)
    turns, seats = state.turns.turns, state.epoch.seats
    first = parent.chain.slot + 1
    if next_epoch is not None:
        changes["epoch",] = EpochEntry(schedule.epoch, schedule.seed, next_epoch.seats)
        seats = next_epoch.seats
        turns = fresh_turns(seats).turns
        first = schedule.first_slot
        changes |= _strike(state, next_epoch.struck)
        if state.voting.pending is None:
            voting = _scheduled(voting, next_epoch, parent.chain.height + 1)
    if parent.owes_votes:
        turns = _skip(turns, seats, schedule, first, slot)
    place = seats.index(producer_at(schedule, slot))
    turns = [Turn(t.sealed + 1, t.missed) if i == place else t for i, t in enumerate(turns)]
    changes["turns",] = TurnsEntry(turns)
    if voting is not state.voting:
        changes["voting",] = voting
    begun = state.changed(changes)
    if len(changes) > 1:
        begun = begun.changed(_retired(begun))
    return begun


def _completed(voting: VotingEntry, final: Checkpoint) -> VotingEntry:
    """Return the sets once ``final`` is final on their branch: a change completes when the block that began it is."""
    pending = voting.pending
    if pending is None or final.height < pending.height:
        return voting
    return VotingEntry(voting.set_id + 1, pending.producers, None)


def _scheduled(voting: VotingEntry, election: Election, height: int) -> VotingEntry:
    """Return the sets with a change to those elected, where they are others."""
    wanted = election.voting
    if not wanted or {p.key_id for p in wanted} == {p.key_id for p in voting.producers}:
        return voting
    return VotingEntry(voting.set_id, voting.producers, PendingSet(height, wanted))


def _strike(state: State, names: list[str]) -> dict[StateKey, Any]:
    """Return what becomes of members passed over: they stand no longer, and delegations to them are void."""
    changes: dict[StateKey, Any] = {}
    for name in names:
        changes["struck", name] = StruckEntry(state.struck[name].height, 1)
        if name in state.candidates:
            changes["candidate", name] = None
        changes |= {("delegation", *pair): None for pair in state.delegations if pair[1] == name}
    return changes


def _retired(state: State) -> dict[StateKey, Any]:
    """Return the end of keys that retire and are no longer in office."""
    retiring = {key_id: key for key_id, key in state.keys.items() if key.standing is KeyStanding.RETIRING}
    office = keys_in_office(state) if retiring else set()
    return {
        ("key", key_id): type(key)(key.member_id, key.public_key, key.roles, KeyStanding.REVOKED)
        for key_id, key in retiring.items()
        if key_id not in office
    }


def _skip(turns: list[Turn], seats: list[Producer], schedule: Schedule, first: int, end: int) -> list[Turn]:
    """Return the turns of ``seats`` with every slot from ``first`` up to before ``end`` missed by its owner."""
    if end <= first:
        return turns
    size = len(schedule.order)
    missed: dict[bytes, int] = {}
    for offset, producer in enumerate(schedule.order):
        own = schedule.first_slot + offset
        missed[producer.key_id] = _rounds(end - own, size) - _rounds(first - own, size)
    return [Turn(t.sealed, t.missed + missed[seat.key_id]) for t, seat in zip(turns, seats, strict=True)]


def _rounds(slots: int, size: int) -> int:
    """Return how many of the slots 0, size, 2 size, ... lie below ``slots``."""
    return max(0, -(-slots // size))
