"""One engine's answers: what it takes, ignores and refuses, when it seals and votes, and in which order it writes."""

from __future__ import annotations

import pytest

from consensus.engine import HEARD_SLOTS, RESEND_SLOTS
from consensus.ready import BlockFinal, HeadChanged, TransactionDropped
from consensus.rows import BEST_CERTIFICATE, guard_key
from consensus.verdict import Verdict
from consensus.votes import TARGET_AHEAD_MAX, Checkpoint, Link, VoteGuard
from ledger.block import Block, BodyItem, SealedHeader, Vote, block_id_of
from ledger.codec import decode
from ledger.errors import InvalidBlock, InvalidVote, LedgerError, UnknownParent, WrongProducer
from node.sim.world import HEARTBEAT_SLOTS, MAX_UNFINAL, producer_key
from tests.consensus.bench_kit import Bench, make_certificate, make_vote, point, resign, time_of


@pytest.fixture
def bench() -> Bench:
    return Bench()


def refusal(bench: Bench, block: Block, slot: int = 9) -> tuple[type[LedgerError], str]:
    """Return the error and the field for which the observer refuses a block."""
    with pytest.raises(LedgerError) as caught:
        bench.observer.receive_block(block, now_ms=time_of(slot))
    return type(caught.value), caught.value.where


# -- blocks ------------------------------------------------------------------------------------------------------------


def test_a_block_is_taken_once(bench: Bench) -> None:
    bench.submit([1])
    block = bench.seal(1)
    assert bench.observer.receive_block(block, now_ms=time_of(1)) is Verdict.ACCEPT
    assert bench.observer.receive_block(block, now_ms=time_of(1)) is Verdict.IGNORE
    assert bench.observer.head.block_id == block_id_of(block.sealed.header)
    assert bench.observer.block(bench.observer.head.block_id) == block


def test_ignores_what_is_not_above_the_final_block(bench: Bench) -> None:
    bench.submit([1])
    first = bench.run_slot(1)
    bench.submit([2])
    bench.run_slot(2)
    bench.submit([3])
    bench.run_slot(3)
    assert first is not None
    assert bench.observer.final.height == 2
    assert bench.observer.receive_block(resign(first, slot=2), now_ms=time_of(3)) is Verdict.IGNORE


def test_rejects_another_chain(bench: Bench) -> None:
    bench.submit([1])
    assert refusal(bench, resign(bench.seal(1), chain_id=bytes(32))) == (InvalidBlock, "chain_id")


def test_rejects_a_stranger(bench: Bench) -> None:
    bench.submit([1])
    block = resign(bench.seal(1), producer_key_id=producer_key(20).key_id)
    assert refusal(bench, block) == (WrongProducer, "producer_key_id")


def test_rejects_a_wrong_signature(bench: Bench) -> None:
    bench.submit([1])
    block = bench.seal(1)
    forged = Block(SealedHeader(block.sealed.header, bytes(64), None), block.body)
    assert refusal(bench, forged) == (InvalidBlock, "signature")


def test_rejects_a_certificate_that_is_not_the_headers(bench: Bench) -> None:
    bench.submit([1])
    block = bench.seal(1)
    link = Link(Checkpoint(0, bench.chain_id), point(1))
    certificate = make_certificate(bench.chain_id, bench.observer.head.voting[0], link, [0, 1, 2])
    other = Block(SealedHeader(block.sealed.header, block.sealed.signature, certificate), block.body)
    assert refusal(bench, other) == (InvalidBlock, "qc_hash")


def test_ignores_a_slot_that_has_not_begun_give_or_take_one(bench: Bench) -> None:
    bench.submit([1])
    block = bench.seal(5)
    assert bench.observer.receive_block(block, now_ms=time_of(3)) is Verdict.IGNORE
    assert bench.observer.receive_block(block, now_ms=time_of(4)) is Verdict.ACCEPT


def test_ignores_a_third_block_in_a_slot_unless_others_built_on_it(bench: Bench) -> None:
    """A liar's third block may be the one that a quorum certified: then its children bring it in."""
    bench.submit([1])
    block = bench.seal(1)
    empty = Block(block.sealed, [])
    bare = resign(empty, tx_count=0, tx_root=_empty_root(), totals=_empty_totals())
    variants = [block, bare]
    for variant in variants:
        assert bench.observer.receive_block(variant, now_ms=time_of(1)) is Verdict.ACCEPT
    third = resign(block, rule_set=bytes(32))
    assert bench.observer.receive_block(third, now_ms=time_of(1)) is Verdict.IGNORE
    child = resign(block, parent_id=block_id_of(third.sealed.header), height=2, slot=2)
    with pytest.raises(UnknownParent):
        bench.observer.receive_block(child, now_ms=time_of(2))
    assert refusal(bench, third) == (InvalidBlock, "rule_set")


def _empty_root() -> bytes:
    from ledger.block import body_root

    return body_root([])


def _empty_totals() -> object:
    from ledger.block import EMPTY_TOTALS

    return EMPTY_TOTALS


def test_an_orphan_waits_for_its_parent(bench: Bench) -> None:
    blocks = []
    for slot in (1, 2, 3):
        bench.submit([slot])
        blocks.append(bench.run_slot(slot, silent=[4]))
    observer = bench.observer
    assert None not in blocks
    for block in (blocks[2], blocks[1]):
        with pytest.raises(UnknownParent) as caught:
            observer.receive_block(block, now_ms=time_of(3))
        assert caught.value.where == "parent_id"
    assert observer.receive_block(blocks[0], now_ms=time_of(3)) is Verdict.ACCEPT
    assert (observer.head.height, observer.final.height) == (3, 1)


def test_rejects_a_slot_not_after_the_parents(bench: Bench) -> None:
    bench.submit([1])
    bench.run_slot(2)
    bench.submit([2])
    block = bench.run_slot(3, silent=[4])
    assert block is not None
    assert refusal(bench, resign(block, slot=2)) == (InvalidBlock, "slot")


def test_rejects_another_producers_slot(bench: Bench) -> None:
    bench.submit([1])
    block = bench.seal(1)
    other = next(n for n in range(4) if n != bench.owner_of(1))
    assert refusal(bench, resign(block, producer_key_id=producer_key(other).key_id)) == (
        WrongProducer,
        "producer_key_id",
    )


@pytest.mark.parametrize("field", ["height", "rule_set", "tx_count", "tx_root", "state_root", "history_root"])
def test_rejects_a_header_that_does_not_follow_from_its_contents(bench: Bench, field: str) -> None:
    bench.submit([1])
    wrong = 7 if field in {"height", "tx_count"} else bytes([7]) * 32
    assert refusal(bench, resign(bench.seal(1), **{field: wrong})) == (InvalidBlock, field)


def test_rejects_a_transaction_twice(bench: Bench) -> None:
    bench.submit([1])
    block = bench.seal(1)
    twice = Block(block.sealed, [*block.body, *block.body])
    assert refusal(bench, twice) == (InvalidBlock, "body[1].tx_id")


def test_rejects_other_void_records(bench: Bench) -> None:
    bench.submit([1, 2])
    block = bench.seal(1)
    lie = Block(block.sealed, [BodyItem(block.body[0].tx_id, b"\x01")])
    assert refusal(bench, lie) == (InvalidBlock, "body[0].void_bitmap")


def test_a_block_without_its_transactions_is_the_drivers_fault(bench: Bench) -> None:
    bench.submit([1])
    block = bench.seal(1)
    unknown = Block(block.sealed, [BodyItem(bytes(32), b"")])
    assert refusal(bench, unknown) == (LedgerError, "body")


# -- certificates in blocks --------------------------------------------------------------------------------------------


def block_with_certificate(bench: Bench) -> Block:
    """Return a block that the observer has not seen and that carries a certificate on its parent."""
    bench.submit([1])
    bench.run_slot(1)
    bench.submit([2])
    block = bench.run_slot(2, silent=[4])
    assert block is not None
    assert block.sealed.certificate is not None
    return block


def claim(bench: Bench, block: Block, link: Link, signers: list[int]) -> Block:
    from ledger.block import certificate_hash

    certificate = make_certificate(bench.chain_id, bench.observer.head.voting[0], link, signers)
    return resign(block, certificate=certificate, keep=False, qc_hash=certificate_hash(certificate))


def test_a_certificate_on_the_parent_justifies_it(bench: Bench) -> None:
    block = block_with_certificate(bench)
    assert bench.observer.receive_block(block, now_ms=time_of(2)) is Verdict.ACCEPT
    assert bench.observer.head.finality.justified.height == 1


def test_rejects_a_certificate_on_no_ancestor(bench: Bench) -> None:
    block = block_with_certificate(bench)
    lie = claim(bench, block, Link(Checkpoint(0, bench.chain_id), point(1)), [0, 1, 2])
    assert refusal(bench, lie) == (InvalidBlock, "certificate.t_id")


def test_rejects_a_certificate_not_above_the_last_one(bench: Bench) -> None:
    block_with_certificate(bench)
    bench.submit([3])
    again = bench.run_slot(3, silent=[4])
    assert again is not None
    observer = bench.make(4)
    for height in (1, 2):
        earlier = bench.engines[0].block(bench.engines[0].block_id_at(height) or b"")
        assert earlier is not None
        observer.receive_block(earlier, now_ms=time_of(3))
    first = observer.block_id_at(1)
    assert first is not None
    lie = claim(bench, again, Link(Checkpoint(0, bench.chain_id), Checkpoint(1, first)), [0, 1, 2])
    bench.engines[-1] = observer
    assert refusal(bench, lie) == (InvalidBlock, "certificate.t_id")


def test_rejects_a_certificate_from_another_source(bench: Bench) -> None:
    block = block_with_certificate(bench)
    target = Checkpoint(1, block.sealed.header.parent_id)
    lie = claim(bench, block, Link(Checkpoint(0, bytes(32)), target), [0, 1, 2])
    assert refusal(bench, lie) == (InvalidBlock, "certificate.s_id")


def test_rejects_a_certificate_without_a_quorum(bench: Bench) -> None:
    block = block_with_certificate(bench)
    link = Link(Checkpoint(0, bench.chain_id), Checkpoint(1, block.sealed.header.parent_id))
    assert refusal(bench, claim(bench, block, link, [0, 1])) == (InvalidBlock, "certificate.parts.signers")


# -- votes -------------------------------------------------------------------------------------------------------------


def sealed_link(bench: Bench) -> Link:
    """Let the first block reach the observer, and return the link for which it may be voted."""
    bench.submit([1])
    bench.observer.receive_block(bench.seal(1), now_ms=time_of(1))
    return bench.observer.head.link


def test_a_vote_counts_once(bench: Bench) -> None:
    vote = make_vote(bench.chain_id, 0, sealed_link(bench))
    assert bench.observer.receive_vote(vote, now_ms=time_of(1)) is Verdict.ACCEPT
    assert bench.observer.receive_vote(vote, now_ms=time_of(1)) is Verdict.IGNORE


def test_a_quorum_of_votes_justifies(bench: Bench) -> None:
    link = sealed_link(bench)
    for number in (0, 1):
        bench.observer.receive_vote(make_vote(bench.chain_id, number, link), now_ms=time_of(1))
    assert bench.observer.best_certificate is None
    bench.observer.receive_vote(make_vote(bench.chain_id, 2, link), now_ms=time_of(1))
    assert bench.observer.best_certificate == make_certificate(
        bench.chain_id, bench.observer.head.voting[0], link, _places(bench, [0, 1, 2])
    )
    assert bench.observer.head.certified
    assert BEST_CERTIFICATE in dict(bench.observer.take_ready().puts)


def _places(bench: Bench, numbers: list[int]) -> list[int]:
    keys = {producer_key(n).key_id for n in numbers}
    return [i for i, p in enumerate(bench.observer.producers) if p.key_id in keys]


def test_votes_may_come_before_their_block(bench: Bench) -> None:
    bench.submit([1])
    block = bench.seal(1)
    target = Checkpoint(1, block_id_of(block.sealed.header))
    for number in (0, 1, 2):
        vote = make_vote(bench.chain_id, number, Link(Checkpoint(0, bench.chain_id), target))
        assert bench.observer.receive_vote(vote, now_ms=time_of(1)) is Verdict.ACCEPT
    bench.observer.receive_block(block, now_ms=time_of(1))
    assert bench.observer.head.certified


def test_votes_from_another_source_do_not_justify(bench: Bench) -> None:
    link = sealed_link(bench)
    for number in (0, 1, 2):
        wrong = Link(Checkpoint(0, bytes(32)), link.target)
        bench.observer.receive_vote(make_vote(bench.chain_id, number, wrong), now_ms=time_of(1))
    assert not bench.observer.head.certified


def test_ignores_a_strangers_vote(bench: Bench) -> None:
    vote = make_vote(bench.chain_id, 20, sealed_link(bench))
    assert bench.observer.receive_vote(vote, now_ms=time_of(1)) is Verdict.IGNORE


@pytest.mark.parametrize("height", [0, TARGET_AHEAD_MAX + 1])
def test_ignores_targets_too_low_or_too_far(bench: Bench, height: int) -> None:
    link = Link(Checkpoint(0, bench.chain_id), Checkpoint(height, bytes(32)))
    assert bench.observer.receive_vote(make_vote(bench.chain_id, 0, link), now_ms=time_of(1)) is Verdict.IGNORE


def test_rejects_a_link_that_leads_downwards(bench: Bench) -> None:
    with pytest.raises(InvalidVote) as caught:
        bench.observer.receive_vote(make_vote(bench.chain_id, 0, Link(point(5), point(5, 1))), now_ms=time_of(1))
    assert caught.value.where == "t_height"


def test_rejects_a_forged_vote(bench: Bench) -> None:
    good = make_vote(bench.chain_id, 0, sealed_link(bench))
    forged = Vote(good.s_height, good.s_id, good.t_height, good.t_id, good.key_id, bytes(64))
    with pytest.raises(InvalidVote) as caught:
        bench.observer.receive_vote(forged, now_ms=time_of(1))
    assert caught.value.where == "signature"


# -- voting and sealing ------------------------------------------------------------------------------------------------


def test_the_guard_is_written_with_the_block_and_the_vote_that_it_guards(bench: Bench) -> None:
    bench.submit([1])
    number = bench.owner_of(1)
    bench.engines[number].handle_timer(now_ms=time_of(1))
    ready = bench.engines[number].take_ready()
    assert [type(message) for message in ready.messages] == [Block, Vote]
    stored = decode(dict(ready.puts)[guard_key(producer_key(number).key_id)] or b"", VoteGuard)
    assert stored == VoteGuard(next_target=2, max_source=0, next_slot=2)


def test_votes_once_for_a_head(bench: Bench) -> None:
    bench.submit([1])
    block = bench.seal(1)
    other = next(n for n in range(4) if n != bench.owner_of(1))
    bench.engines[other].receive_block(block, now_ms=time_of(1))
    votes = [m for m in bench.flush(other).messages if isinstance(m, Vote)]
    assert [(v.s_height, v.t_height, v.t_id) for v in votes] == [(0, 1, block_id_of(block.sealed.header))]
    assert bench.flush(other).messages == []


def test_v1_no_second_vote_at_one_height(bench: Bench) -> None:
    """A better block of the same height becomes the head, and is not voted for."""
    bench.submit([1])
    late, early = bench.seal(4), None
    voter = next(n for n in range(4) if n not in {bench.owner_of(4), bench.owner_of(3)})
    bench.engines[voter].receive_block(late, now_ms=time_of(4))
    assert len(bench.flush(voter).messages) == 1
    early = bench.seal(3)
    bench.engines[voter].receive_block(early, now_ms=time_of(4))
    assert bench.engines[voter].head.slot == 3
    assert bench.flush(voter).messages == []


def test_v3_a_slot_is_sealed_once(bench: Bench) -> None:
    bench.submit([1])
    number = bench.owner_of(1)
    bench.seal(1)
    engine = bench.engines[number]
    engine.head = engine.tree.root
    engine.handle_timer(now_ms=time_of(1))
    assert engine.take_ready().messages == []


def test_an_observer_neither_seals_nor_votes(bench: Bench) -> None:
    bench.submit([1])
    for slot in range(1, 9):
        bench.observer.handle_timer(now_ms=time_of(slot))
    assert bench.observer.take_ready().messages == []


def test_an_unanswered_vote_is_sent_again(bench: Bench) -> None:
    bench.submit([1])
    number = bench.owner_of(1)
    vote = bench.engines[number].handle_timer(now_ms=time_of(1)) or bench.flush(number).messages[-1]
    engine = bench.engines[number]
    engine.handle_timer(now_ms=time_of(1 + RESEND_SLOTS))
    assert engine.take_ready().messages[:1] == [vote]


def test_final_in_the_slot_after_the_next_block_is_sealed(bench: Bench) -> None:
    tx_id = bench.submit([1])
    bench.run_slot(1)
    assert [e.included_height(tx_id) for e in bench.engines] == [1] * 5
    assert [e.final.height for e in bench.engines] == [0] * 5
    bench.run_slot(2)
    assert [e.final.height for e in bench.engines] == [1] * 5
    assert [e.final_height(tx_id) for e in bench.engines] == [1] * 5
    assert len({e.final.chain.history.root() for e in bench.engines}) == 1
    assert tx_id not in bench.observer.pool
    assert bench.observer.has_transaction(tx_id)


def test_events_are_told_in_order_of_height(bench: Bench) -> None:
    blocks = []
    for slot in (1, 2, 3, 4):
        bench.submit([slot])
        blocks.append(bench.run_slot(slot, silent=[4]))
    for block in blocks:
        bench.observer.receive_block(block, now_ms=time_of(4))
    events = bench.observer.take_ready().events
    assert [e.node.height for e in events if isinstance(e, BlockFinal)] == [1, 2]
    assert [e.head.height for e in events if isinstance(e, HeadChanged)] == [1, 2, 3, 4]


def test_the_chain_rests_when_the_last_record_is_final(bench: Bench) -> None:
    bench.submit([1])
    sealed = [bench.run_slot(slot) is not None for slot in range(1, 12)]
    assert sealed == [True, True] + [False] * 9


def test_heartbeat(bench: Bench) -> None:
    sealed = [slot for slot in range(2 * HEARTBEAT_SLOTS + 2) if bench.run_slot(slot)]
    assert sealed == [HEARTBEAT_SLOTS - 1, 2 * HEARTBEAT_SLOTS - 1]


def test_without_finality_empty_blocks_stop_unless_a_quorum_is_heard(bench: Bench) -> None:
    bench.submit([1])
    for slot in range(1, 8 * MAX_UNFINAL):
        bench.run_slot(slot, silent=[2, 3])
    assert [bench.engines[n].head.height for n in (0, 1)] == [MAX_UNFINAL] * 2
    slot = next(s for s in range(8 * MAX_UNFINAL, 9 * MAX_UNFINAL) if bench.owner_of_on(0, s) == 0)
    for n in (1, 2):
        bench.engines[0].heard(producer_key(n).key_id, now_ms=time_of(slot - 1))
    bench.run_slot(slot, silent=[2, 3])
    assert bench.engines[0].head.height == MAX_UNFINAL + 1


def test_hearing_a_quorum_ends(bench: Bench) -> None:
    engine = bench.engines[0]
    for n in (1, 2):
        engine.heard(producer_key(n).key_id, now_ms=time_of(10))
    assert engine.is_hearing_quorum(time_of(10 + HEARD_SLOTS))
    assert not engine.is_hearing_quorum(time_of(11 + HEARD_SLOTS))


def test_old_blocks_say_nothing_of_who_is_heard_now(bench: Bench) -> None:
    for slot in (1, 2, 3):
        bench.submit([slot])
        block = bench.run_slot(slot, silent=[4])
        bench.observer.receive_block(block, now_ms=time_of(100)) if block else None
    assert bench.observer._heard == {}


def test_timer_wants_the_start_of_the_next_slot(bench: Bench) -> None:
    assert bench.observer.next_timer_ms() == time_of(0)
    bench.observer.handle_timer(now_ms=time_of(5) + 300)
    assert bench.observer.next_timer_ms() == time_of(6)


# -- pending transactions ----------------------------------------------------------------------------------------------


def test_a_repeated_record_is_void(bench: Bench) -> None:
    bench.submit([1])
    bench.run_slot(1)
    bench.submit([1, 2])
    block = bench.run_slot(2)
    assert block is not None
    assert [item.void_bitmap for item in block.body] == [b"\x01"]
    assert (block.sealed.header.totals.records, block.sealed.header.totals.void) == (1, 1)


def dropped(bench: Bench, number: int) -> list[TransactionDropped]:
    return [e for e in bench.engines[number].take_ready().events if isinstance(e, TransactionDropped)]


def test_a_transaction_all_void_is_dropped_once_that_is_final(bench: Bench) -> None:
    bench.submit([1])
    bench.run_slot(1)
    again = bench.submit([1], now_ms=time_of(1))
    for slot in range(2, 8):
        bench.run_slot(slot)
        bench.submit([slot + 10])
    gone = [again not in engine.pool for engine in bench.engines[:4]]
    assert gone == [True] * 4
    assert all(engine.final_height(again) is None for engine in bench.engines)


def test_an_expired_transaction_is_dropped(bench: Bench) -> None:
    tx_id = bench.submit([1], lifetime_ms=2_500)
    bench.observer.handle_timer(now_ms=time_of(2))
    assert dropped(bench, 4) == []
    bench.observer.handle_timer(now_ms=time_of(3))
    assert dropped(bench, 4) == [TransactionDropped(tx_id, "expired")]
    assert tx_id not in bench.observer.pool


def test_one_that_expires_inside_an_unfinal_block_stays(bench: Bench) -> None:
    tx_id = bench.submit([1], lifetime_ms=2_500)
    bench.observer.receive_block(bench.seal(1), now_ms=time_of(1))
    bench.observer.handle_timer(now_ms=time_of(9))
    assert dropped(bench, 4) == []
    assert tx_id in bench.observer.pool


def test_what_an_abandoned_branch_held_is_sealed_again(bench: Bench) -> None:
    """Two blocks in a row go to nobody; their transactions come back on the branch that wins."""
    tx_ids = {bench.submit([1])}
    bench.seal(1)
    tx_ids.add(bench.submit([2]))
    block = bench.run_slot(2, silent=[bench.owner_of(1)])
    assert block is not None
    assert {item.tx_id for item in block.body} == tx_ids
