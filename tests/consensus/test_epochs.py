"""What a block's place does to the state: turns, elections, strikes and the voting sets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.epochs import NextEpoch, Position, begin_block, genesis_position, schedule_of, voting_sets
from consensus.finality import BranchFinality
from consensus.schedule import Schedule, producer_at
from consensus.votes import Checkpoint
from ledger.block import Slot
from ledger.entries import KeyStanding, PendingSet, Producer, StruckEntry, Turn, TurnsEntry, VotingEntry
from ledger.state import State
from node.sim.world import EPOCH_SLOTS, make_genesis, member_name, producer_key


def producer(number: int) -> Producer:
    key = producer_key(number)
    return Producer(member_name(number), key.key_id, key.public_key)


def position(members: int = 5, seats: int = 4, *, slot: int = 0, owes: bool = True) -> Position:
    """Return a chain whose last block, of height 1, is in ``slot``; ``owes``: it has records that are not final."""
    at = genesis_position(make_genesis(members, seats))
    chain = replace(at.chain, height=1, slot=Slot(slot), block_id=b"b" * 32)
    return Position(chain, at.finality, 1 if owes else 0)


def with_state(at: Position, state: State) -> Position:
    return replace(at, chain=replace(at.chain, state=state))


def child(at: Position, slot: int, *, final: int = 0) -> State:
    """Return the state before the transactions of the next block."""
    schedule, election = schedule_of(at.chain.state), None
    if slot // EPOCH_SLOTS != schedule.epoch:
        following = NextEpoch(at, schedule)
        schedule, election = following.schedule(slot // EPOCH_SLOTS), following.election
    return begin_block(at, schedule, election, slot, Checkpoint(final, b"f" * 32))


def turns_by_hand(schedule: Schedule, seats: list[Producer], skipped: range, slot: int) -> list[Turn]:
    """Count slot by slot."""
    missed = [producer_at(schedule, s) for s in skipped]
    return [Turn(int(producer_at(schedule, slot) == seat), missed.count(seat)) for seat in seats]


@given(st.integers(0, EPOCH_SLOTS - 2), st.data())
def test_skipped_slots_count_while_votes_are_owed(slot: int, data: st.DataObject) -> None:
    at = position(slot=slot)
    to = data.draw(st.integers(slot + 1, EPOCH_SLOTS - 1))
    schedule, seats = schedule_of(at.chain.state), at.chain.state.epoch.seats
    assert child(at, to).turns.turns == turns_by_hand(schedule, seats, range(slot + 1, to), to)
    idle = replace(at, last_records_height=0)
    assert child(idle, to).turns.turns == turns_by_hand(schedule, seats, range(0), to)


@given(st.integers(0, EPOCH_SLOTS - 1), st.integers(EPOCH_SLOTS, 5 * EPOCH_SLOTS))
def test_a_new_epoch_begins_with_fresh_turns(slot: int, to: int) -> None:
    at = position(slot=slot)
    state = child(at, to)
    schedule = schedule_of(state)
    assert schedule.epoch == to // EPOCH_SLOTS
    assert state.epoch.seed == at.finality.final.block_id
    assert state.turns.turns == turns_by_hand(schedule, state.epoch.seats, range(schedule.first_slot, to), to)


def test_who_missed_more_than_half_ranks_last() -> None:
    at = position()
    turns = TurnsEntry([Turn(1, 1), Turn(1, 2), Turn(0, 0), Turn(3, 0)])
    at = with_state(replace(at, last_records_height=0), at.chain.state.changed({("turns",): turns}))
    seats = child(at, EPOCH_SLOTS).epoch.seats
    # The second seat's holder comes after the fifth member, who had no seat; one that missed half is not idle.
    assert [seat.member_id for seat in seats] == [member_name(n) for n in (0, 2, 3, 4)]


def test_the_rest_of_the_epoch_counts_for_the_election() -> None:
    at = position(slot=0)
    # Everybody but the one who sealed in slot 0 missed all its slots: nobody ranks before the other for it.
    state = at.chain.state
    sealer = producer_at(schedule_of(state), 0)
    place = state.epoch.seats.index(sealer)
    turns = [Turn(9, 0) if i == place else Turn(0, 0) for i in range(4)]
    at = with_state(at, state.changed({("turns",): TurnsEntry(turns)}))
    seats = child(at, EPOCH_SLOTS + 1).epoch.seats
    assert {seat.member_id for seat in seats[:2]} == {sealer.member_id, member_name(4)}


def pending_on(at: Position, height: int) -> Position:
    wanted = [producer(n) for n in (0, 1, 2, 4)]
    voting = VotingEntry(0, at.chain.state.voting.producers, PendingSet(height, wanted))
    return with_state(at, at.chain.state.changed({("voting",): voting}))


@pytest.mark.parametrize(("final", "set_id"), [(0, 0), (4, 0), (5, 1), (6, 1)])
def test_a_change_completes_when_the_block_that_scheduled_it_is_final(final: int, set_id: int) -> None:
    at = pending_on(position(), 5)
    state = child(at, 1, final=final)
    assert state.voting.set_id == set_id
    assert (state.voting.pending is None) == bool(set_id)
    # The block itself still needs both sets: they are read off its parent.
    assert [s.set_id for s in voting_sets(at.chain.state)] == [0, 1]


@pytest.mark.parametrize("final", [0, 5])
def test_no_change_is_scheduled_on_a_parent_with_one_pending(final: int) -> None:
    """Not even in the block that completes it."""
    at = pending_on(position(), 5)
    turns = TurnsEntry([Turn(1, 0)] * 4)
    at = with_state(at, at.chain.state.changed({("turns",): turns}))
    state = child(at, EPOCH_SLOTS, final=final)
    assert state.epoch.epoch == 1
    assert (state.voting.pending is None) == (final == 5)
    assert state.voting.set_id == (1 if final == 5 else 0)


def test_the_same_voters_in_another_order_are_no_change() -> None:
    at = position()
    state = at.chain.state
    shuffled = VotingEntry(0, state.voting.producers[::-1], None)
    assert child(with_state(at, state.changed({("voting",): shuffled})), EPOCH_SLOTS).voting == shuffled


def struck(at: Position, *numbers: int, height: int = 1) -> Position:
    changes = {("struck", member_name(n)): StruckEntry(height + i, 0) for i, n in enumerate(numbers)}
    return with_state(at, at.chain.state.changed(changes))


def test_a_struck_member_is_out_at_the_next_epoch() -> None:
    at = struck(position(), 2)
    assert child(at, 1).struck[member_name(2)].is_out == 0
    state = child(at, EPOCH_SLOTS)
    assert member_name(2) not in {seat.member_id for seat in state.epoch.seats}
    assert state.struck[member_name(2)].is_out == 1
    assert member_name(2) not in state.candidates
    assert all(to != member_name(2) for _, to in state.delegations)
    assert state.voting.pending is not None
    assert member_name(2) not in {p.member_id for p in state.voting.pending.producers}


def test_at_most_f_are_out_in_one_epoch_the_first_struck_first() -> None:
    at = struck(position(), 3, 1)
    state = child(at, EPOCH_SLOTS)
    assert {name for name, entry in state.struck.items() if entry.is_out} == {member_name(3)}
    assert member_name(1) in {seat.member_id for seat in state.epoch.seats}
    later = replace(at.chain, state=state, slot=Slot(EPOCH_SLOTS))
    state = child(replace(at, chain=later), 2 * EPOCH_SLOTS)
    assert {name for name, entry in state.struck.items() if entry.is_out} == {member_name(1), member_name(3)}


def test_who_is_not_in_office_takes_nobodys_place_in_the_queue() -> None:
    """Friends of a liar that get themselves struck first do not put off its turn."""
    at = struck(position(members=7), 5, 6, 3)
    state = child(at, EPOCH_SLOTS)
    assert {name for name, entry in state.struck.items() if entry.is_out} == {member_name(n) for n in (3, 5, 6)}


def test_with_nobody_standing_the_seats_stay() -> None:
    at = position()
    state = at.chain.state.changed({("candidate", member_name(n)): None for n in range(5)})
    after = child(with_state(at, state), EPOCH_SLOTS)
    assert after.epoch.seats == at.chain.state.epoch.seats
    assert after.voting == at.chain.state.voting


def test_a_retiring_key_ends_when_nobody_needs_it() -> None:
    at = pending_on(position(), 5)
    key_id = producer_key(3).key_id
    key = at.chain.state.keys[key_id]
    retiring = type(key)(key.member_id, key.public_key, key.roles, KeyStanding.RETIRING)
    at = with_state(at, at.chain.state.changed({("key", key_id): retiring, ("candidate", member_name(3)): None}))
    assert child(at, EPOCH_SLOTS).keys[key_id].standing is KeyStanding.RETIRING
    assert child(at, 1, final=5).keys[key_id].standing is KeyStanding.RETIRING
    assert child(at, EPOCH_SLOTS, final=5).keys[key_id].standing is KeyStanding.REVOKED


def test_certificates_of_the_branch_decide_whether_votes_are_owed() -> None:
    at = position()
    assert at.owes_votes
    here = Checkpoint(1, at.chain.block_id)
    assert not replace(at, finality=BranchFinality(here, at.finality.final)).owes_votes
