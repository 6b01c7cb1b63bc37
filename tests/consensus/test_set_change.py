"""The voting set changes while records flow: joint quorum, elections, keys that rotate, members that are struck."""

from __future__ import annotations

import pytest

from consensus.epochs import voting_sets
from consensus.rows import read_set_changes
from consensus.setchange import check_voting_proof
from ledger.payloads import CandidateChange, DelegationPart, Delegations, KeyChange, KeyChanges, KeyOperation
from ledger.state import state_changes
from ledger.transaction import Kind
from node.sim.world import EPOCH_SLOTS, is_stand_in_signature, member_name, producer_key
from tests.consensus.bench_kit import Bench, time_of


def names(bench: Bench) -> list[list[int]]:
    """Return the numbers of those who vote on the next block: of each set that must sign."""
    numbers = {producer_key(n).key_id: n for n in range(21)}
    return [sorted(numbers[p.key_id] for p in s.producers) for s in bench.observer.head.next_voting]


def run(bench: Bench, first: int, end: int, *, silent: tuple[int, ...] = ()) -> list[list[list[int]]]:
    """Play slots with a record in each; return the voting sets after each."""
    seen = []
    for slot in range(first, end):
        bench.submit([slot + 1], now_ms=time_of(slot))
        bench.run_slot(slot, silent=silent)
        seen.append(names(bench))
    return seen


def test_a_new_producer_is_elected_proves_itself_and_votes() -> None:
    bench = Bench(5, seats=4)
    assert names(bench) == [[0, 1, 2, 3]]
    bench.govern(3, Kind.DELEGATE, Delegations([DelegationPart(member_name(4), 100)]))
    seen = run(bench, 0, 4 * EPOCH_SLOTS)
    # First it produces, in the epoch after; then it votes, together with the old set; then the new set alone.
    assert seen[EPOCH_SLOTS - 1] == [[0, 1, 2, 3]]
    assert sorted(p.member_id for p in bench.observer.producers) == [member_name(n) for n in (0, 1, 2, 4)]
    order = [sets for index, sets in enumerate(seen) if index == 0 or sets != seen[index - 1]]
    assert order == [[[0, 1, 2, 3]], [[0, 1, 2, 3], [0, 1, 2, 4]], [[0, 1, 2, 4]]]
    assert seen.index(order[1]) == 2 * EPOCH_SLOTS
    assert bench.observer.head.height - bench.observer.final.height <= 2
    assert bench.observer.head.next_voting[0].set_id == 1


def test_every_engine_sees_the_same_and_restarts_into_it() -> None:
    bench = Bench(5, seats=4)
    bench.govern(3, Kind.DELEGATE, Delegations([DelegationPart(member_name(4), 100)]))
    for slot in range(2 * EPOCH_SLOTS + 6):
        run(bench, slot, slot + 1)
        again = bench.make(len(bench.engines) - 1)
        restored, held = again.final.chain.state, bench.observer.final.chain.state
        assert state_changes(restored, held) == {}
        assert restored.tree.root == held.tree.root
        assert again.final.voting == bench.observer.final.voting
        assert again.final.schedule == bench.observer.final.schedule
        assert again.tree.below == bench.observer.tree.below
        assert again.head.block_id == bench.observer.head.block_id
    assert len({engine.head.chain.state.tree.root for engine in bench.engines}) == 1


def test_a_set_change_is_provable_from_genesis() -> None:
    bench = Bench(6, seats=4)
    genesis_set = voting_sets(bench.observer.head.chain.state)[0]
    bench.govern(3, Kind.DELEGATE, Delegations([DelegationPart(member_name(4), 100)]))
    run(bench, 0, 4 * EPOCH_SLOTS)
    bench.govern(2, Kind.DELEGATE, Delegations([DelegationPart(member_name(5), 100)]))
    run(bench, 4 * EPOCH_SLOTS, 8 * EPOCH_SLOTS)
    trusted = genesis_set
    proofs = read_set_changes(bench.stores[-1])
    assert len(proofs) == 2
    for proof in proofs:
        following = check_voting_proof(proof, trusted, bench.chain_id, is_valid=is_stand_in_signature)
        assert following is not None
        trusted = following
    assert trusted == bench.observer.final.next_voting[0]
    assert {p.member_id for p in trusted.producers} == {member_name(n) for n in (0, 1, 4, 5)}


def test_who_never_produces_never_votes() -> None:
    bench = Bench(5, seats=4)
    bench.govern(3, Kind.DELEGATE, Delegations([DelegationPart(member_name(4), 100)]))
    seen = run(bench, 0, 5 * EPOCH_SLOTS, silent=(4,))
    assert all(4 not in voting_set for sets in seen for voting_set in sets)
    assert bench.observer.head.height - bench.observer.final.height <= 4


def test_a_withdrawal_shrinks_the_set() -> None:
    bench = Bench(5)
    bench.govern(2, Kind.CANDIDATE, CandidateChange(None))
    seen = run(bench, 0, 2 * EPOCH_SLOTS)
    assert seen[-1] == [[0, 1, 3, 4]]
    assert bench.observer.head.height - bench.observer.final.height <= 2


@pytest.mark.parametrize("is_ready", [True, False])
def test_a_key_rotates(is_ready: bool) -> None:
    """With both keys at hand no slot is lost; with the old one alone the seat is empty, and the old key votes on."""
    bench = Bench(4)
    change = KeyChange(KeyOperation.ROTATE, producer_key(9).public_key, 0, producer_key(3).key_id)
    if is_ready:
        bench.next_keys[3] = producer_key(9)
        bench.engines[3] = bench.make(3)
    bench.govern(3, Kind.KEY, KeyChanges([change]))
    seen = run(bench, 0, 4 * EPOCH_SLOTS)
    assert bench.observer.head.height - bench.observer.final.height <= 4
    state = bench.observer.head.chain.state
    assert state.candidates[member_name(3)].key_id == producer_key(9).key_id
    if is_ready:
        assert seen[-1] == [[0, 1, 2, 9]]
        assert bench.observer.final.height >= 4 * EPOCH_SLOTS - 3
        assert state.keys[producer_key(3).key_id].standing == 0
    else:
        assert seen[-1] == [[0, 1, 2, 3]]


def test_the_slots_of_a_chain_at_rest_are_nobodys_fault() -> None:
    """Three records, each made final and followed by a rest: nobody was away, so nobody missed a turn."""
    bench = Bench(4)
    for slot in range(EPOCH_SLOTS - 1):
        if slot % 4 == 0:
            bench.submit([slot + 1], now_ms=time_of(slot))
        bench.run_slot(slot)
    turns = bench.observer.head.chain.state.turns.turns
    assert bench.observer.final.height >= 3
    assert bench.observer.head.slot < EPOCH_SLOTS - 1
    assert [turn.missed for turn in turns] == [0, 0, 0, 0]


def test_who_rotates_is_heard_with_the_key_it_meets_others_with() -> None:
    """All three must be heard; the third has its new key in the set to come, and its peers know it by the old one."""
    bench = Bench(3)
    bench.next_keys[2] = producer_key(9)
    bench.engines[2] = bench.make(2)
    bench.govern(
        2, Kind.KEY, KeyChanges([KeyChange(KeyOperation.ROTATE, producer_key(9).public_key, 0, producer_key(2).key_id)])
    )
    for slot in range(4 * EPOCH_SLOTS):
        if any(9 in voting_set for voting_set in run(bench, slot, slot + 1)[-1]):
            break
    head, engine = bench.observer.head, bench.engines[0]
    met = {producer_key(n).key_id for n in range(3)}
    assert not engine.is_quorum(met)
    assert head.voters_met(met) - met == {producer_key(9).key_id}
    assert engine.is_quorum(met | head.voters_met(met))
    assert head.voters_met(set()) == set()
