"""From a second vote to an empty seat, and back: evidence in a block, the next election, governance."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from consensus.pending import PAYLOAD_FAILURES_MAX
from consensus.rows import read_evidence
from consensus.votes import Link
from ledger.entries import Proposal, ProposalAction
from ledger.genesis import Candidate
from ledger.payloads import Approval, CandidateChange, DelegationPart, Delegations
from ledger.transaction import Kind
from node.evidence import TURN_SLOTS, accusations_due, is_turn_of
from node.sim.world import EPOCH_SLOTS, member_name, producer_key
from tests.consensus.bench_kit import Bench, make_vote, point, time_of


def run(bench: Bench, slots: Iterable[int], *, accuse: bool = True) -> list[int]:
    """Play slots with a record in each, every node accusing whom it may; return who handed an accusation in."""
    accusers = []
    for slot in slots:
        bench.submit([slot + 1], now_ms=time_of(slot))
        for number, engine in enumerate(bench.engines[:-1] if accuse else []):
            for raw in accusations_due(engine, [producer_key(number)], now_ms=time_of(slot)):
                accusers.append(number)
                bench.hand_in(raw)
        bench.run_slot(slot)
    return accusers


def vote_twice(bench: Bench, liar: int, slot: int, *, witnesses: Iterable[int] | None = None) -> None:
    """Let a producer cast another vote beside the one for the head; ``witnesses`` hear it, by default everybody."""
    link = bench.observer.head.link
    rival = make_vote(bench.chain_id, liar, Link(link.source, point(link.target.height, 9)))
    for number in witnesses if witnesses is not None else range(len(bench.engines)):
        if number != liar:
            bench.engines[number].receive_vote(rival, now_ms=time_of(slot))


def voters(bench: Bench) -> list[str]:
    """Return who votes on the next block, of the present set."""
    return sorted(p.member_id for p in bench.observer.head.next_voting[0].producers)


def seats(bench: Bench) -> list[str]:
    """Return who may produce."""
    return sorted(p.member_id for p in bench.observer.producers)


def names(*numbers: int) -> list[str]:
    """Return members by number."""
    return [member_name(n) for n in numbers]


def test_a_liar_is_struck_and_comes_back() -> None:
    """The whole way: told, packed once, struck at the election, out of the voting set, readmitted, elected, votes."""
    bench = Bench(5)
    run(bench, range(5))
    vote_twice(bench, 2, 5)
    accusers = run(bench, range(5, EPOCH_SLOTS))
    # One accusation was enough, and the liar did not make it.
    assert len(accusers) == 1
    assert accusers != [2]
    state = bench.observer.head.chain.state
    assert {name: entry.is_out for name, entry in state.struck.items()} == {member_name(2): 0}
    assert seats(bench) == names(0, 1, 2, 3, 4)
    run(bench, range(EPOCH_SLOTS, EPOCH_SLOTS + 5))
    state = bench.observer.head.chain.state
    assert {name: entry.is_out for name, entry in state.struck.items()} == {member_name(2): 1}
    assert member_name(2) not in state.candidates
    assert not any(member_name(2) == pair[1] for pair in state.delegations)
    assert seats(bench) == names(0, 1, 3, 4)
    assert voters(bench) == names(0, 1, 3, 4)
    # What did its work is kept no longer.
    assert all(not engine.faults.kept for engine in bench.engines)
    assert all(read_evidence(store) == {} for store in bench.stores)
    first = EPOCH_SLOTS + 5
    proposal = Proposal(ProposalAction.READMIT, member_name(2), 0, [], 0, time_of(first + 1_000))
    proposal_id = bench.govern(0, Kind.PROPOSE, proposal, slot=first)
    run(bench, range(first, first + 1))
    for number in (1, 3, 4):
        bench.govern(number, Kind.APPROVE, Approval(proposal_id), slot=first)
    run(bench, range(first + 1, first + 2))
    assert not bench.observer.head.chain.state.struck
    bench.govern(2, Kind.CANDIDATE, CandidateChange(Candidate(producer_key(2).key_id, "", "")), slot=first + 1)
    run(bench, range(first + 2, first + 3))
    bench.govern(2, Kind.DELEGATE, Delegations([DelegationPart(member_name(2), 100)]), slot=first + 2)
    run(bench, range(first + 3, 4 * EPOCH_SLOTS + 6))
    assert seats(bench) == names(0, 1, 2, 3, 4)
    assert voters(bench) == names(0, 1, 2, 3, 4)
    # The old votes are settled; a new fault is one again.
    assert not bench.observer.faults.kept
    vote_twice(bench, 2, 4 * EPOCH_SLOTS + 6)
    assert list(bench.observer.faults.kept) == [producer_key(2).key_id]
    assert bench.observer.head.height - bench.observer.final.height <= 2


def test_at_most_f_are_struck_in_an_epoch() -> None:
    """Seven producers bear two: of three liars the third stays one epoch longer, and finality goes on."""
    bench = Bench(8, seats=7)
    run(bench, range(3))
    for liar in (1, 2, 3):
        vote_twice(bench, liar, 3)
    run(bench, range(3, EPOCH_SLOTS + 1))
    state = bench.observer.head.chain.state
    assert sorted(entry.is_out for entry in state.struck.values()) == [0, 1, 1]
    run(bench, range(EPOCH_SLOTS + 1, 2 * EPOCH_SLOTS + 1))
    state = bench.observer.head.chain.state
    assert sorted(entry.is_out for entry in state.struck.values()) == [1, 1, 1]
    assert bench.observer.head.height - bench.observer.final.height <= 2


def test_one_witness_is_enough_and_a_restart_forgets_nothing() -> None:
    bench = Bench(4)
    run(bench, range(4))
    vote_twice(bench, 0, 4, witnesses=[3])
    bench.flush(3)
    bench.engines[3] = bench.make(3)
    assert list(bench.engines[3].faults.kept) == [producer_key(0).key_id]
    assert run(bench, range(4, 4 + 5 * TURN_SLOTS)) == [3]
    assert list(bench.observer.head.chain.state.struck) == [member_name(0)]


def test_a_witness_without_a_seat_has_its_turn_too() -> None:
    bench = Bench(6, seats=4)
    run(bench, range(4))
    vote_twice(bench, 0, 4, witnesses=[5])
    assert run(bench, range(4, 4 + 5 * TURN_SLOTS)) == [5]
    assert list(bench.observer.head.chain.state.struck) == [member_name(0)]


def test_an_accusation_that_expired_is_made_anew() -> None:
    bench = Bench(4)
    run(bench, range(4))
    vote_twice(bench, 1, 4)
    slot = next(s for s in range(5, 60) if accusations_due(bench.engines[0], [producer_key(0)], now_ms=time_of(s)))
    (raw,) = accusations_due(bench.engines[0], [producer_key(0)], now_ms=time_of(slot))
    bench.hand_in(raw)
    assert accusations_due(bench.engines[0], [producer_key(0)], now_ms=time_of(slot)) == []
    # Nothing is sealed for an hour: it expired.
    later = slot + 3_600
    for engine in bench.engines:
        engine.pending.drop_expired(time_of(later), lambda _: False)
    assert run(bench, range(later, later + 5 * TURN_SLOTS)) != []
    assert list(bench.observer.head.chain.state.struck) == [member_name(1)]


def test_an_accusation_that_no_block_may_hold_keeps_nobody_from_accusing() -> None:
    """A friend of the liar's accuses it in a transaction that begins tomorrow."""
    bench = Bench(4)
    run(bench, range(4))
    vote_twice(bench, 1, 4)
    tomorrow = time_of(86_400)
    turn = next(
        s
        for s in range(86_400, 86_460)
        if is_turn_of(bench.observer.head.chain.state, member_name(3), member_name(1), s)
    )
    (raw,) = accusations_due(bench.engines[3], [producer_key(3)], now_ms=time_of(turn))
    assert time_of(turn) >= tomorrow
    bench.hand_in(raw)
    assert run(bench, range(5, 5 + 5 * TURN_SLOTS)) != []
    assert list(bench.observer.head.chain.state.struck) == [member_name(1)]


def test_an_accusation_behind_a_heap_of_changes_keeps_nobody_from_accusing() -> None:
    """A friend of the liar's hands in more that does not fit than a producer tries, and the accusation after that."""
    bench = Bench(4)
    run(bench, range(4))
    vote_twice(bench, 1, 4)
    for number in range(PAYLOAD_FAILURES_MAX):
        bench.govern(3, Kind.APPROVE, Approval(number.to_bytes(32)), slot=4)
    turn = next(s for s in range(5, 60) if accusations_due(bench.engines[3], [producer_key(3)], now_ms=time_of(s)))
    (raw,) = accusations_due(bench.engines[3], [producer_key(3)], now_ms=time_of(turn))
    bench.hand_in(raw)
    accusers = run(bench, range(turn, turn + 5 * TURN_SLOTS))
    assert set(accusers) - {3}
    assert list(bench.observer.head.chain.state.struck) == [member_name(1)]


def test_nobody_accuses_itself() -> None:
    bench = Bench(4)
    run(bench, range(4))
    vote_twice(bench, 2, 4)
    liar = bench.engines[2]
    link = bench.observer.head.link
    liar.receive_vote(make_vote(bench.chain_id, 2, Link(link.source, point(link.target.height, 9))), now_ms=time_of(4))
    assert list(liar.faults.kept) == [producer_key(2).key_id]
    due = [accusations_due(liar, [producer_key(2)], now_ms=time_of(slot)) for slot in range(4, 60)]
    assert not any(due)


@pytest.mark.parametrize("accused", [0, 3, 6])
def test_every_slot_is_somebodys_turn(accused: int) -> None:
    bench = Bench(7, seats=5)
    state = bench.observer.head.chain.state
    for slot in range(60):
        turns = [n for n in range(7) if n != accused and is_turn_of(state, member_name(n), member_name(accused), slot)]
        # Those without a seat share one.
        assert len(turns) == 1 or {5, 6} >= set(turns)
        assert turns
