"""Faults leave proof: found in any order, never in what an honest producer signs, kept until they are settled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from consensus.evidence import (
    HEADERS_REMEMBERED,
    KEYS_REMEMBERED,
    VOTES_REMEMBERED,
    FaultFinder,
    accuse_voter,
    is_settled,
)
from consensus.ready import FaultProven
from consensus.rows import read_evidence
from consensus.verdict import Verdict
from consensus.votes import VOTES_PER_PRODUCER_MAX, Checkpoint, Link, VoteGuard, digest_of, link_of
from ledger.block import Block, Vote, bitmap_indexes
from ledger.codec import decode, encode
from ledger.crypto import PrivateKey
from ledger.entries import KeyStanding, StruckEntry
from ledger.errors import InvalidBlock, InvalidVote, UnknownParent
from ledger.payloads import Evidence, SignedHeader, is_vote_fault, read_payload
from ledger.transaction import Kind
from node.sim.world import member_name, producer_key
from tests.consensus.bench_kit import Bench, make_vote, point, resign, time_of

CHAIN = bytes(32)
KEY = producer_key(0)


def vote(source: int, target: int, tag: int = 0) -> Vote:
    """Return a vote of producer 0."""
    return make_vote(CHAIN, 0, Link(point(source), point(target, tag)))


def found(finder: FaultFinder, votes: list[Vote]) -> list[Evidence]:
    """Return what the finder says to these votes."""
    said = [finder.saw_vote(one, KEY.public_key) for one in votes]
    return [evidence for evidence in said if evidence is not None]


def faults_of(bench: Bench, number: int = -1) -> list[FaultProven]:
    """Return what an engine tells of faults, having written it."""
    number %= len(bench.engines)
    return [event for event in bench.flush(number).events if isinstance(event, FaultProven)]


# -- the finder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "fault"),
    [
        (vote(2, 4), vote(2, 4, 1), "double-vote"),
        (vote(2, 4), vote(3, 4), "double-vote"),
        (vote(3, 4), vote(2, 5), "surrounding-vote"),
        (vote(0, 9), vote(3, 4), "surrounding-vote"),
    ],
)
def test_two_votes_that_no_honest_producer_casts_both(one: Vote, other: Vote, fault: str) -> None:
    for votes in ([one, other], [other, one]):
        (evidence,) = found(FaultFinder(), votes)
        assert evidence == accuse_voter(KEY.public_key, one, other)
        assert evidence.fault == fault
        assert [*map(encode, evidence.votes)] == sorted(map(encode, votes))


@pytest.mark.parametrize("other", [vote(2, 4), vote(2, 5), vote(4, 5), vote(2, 3), vote(0, 1)])
def test_votes_that_go_well_together(other: Vote) -> None:
    assert found(FaultFinder(), [vote(2, 4), other]) == []
    assert found(FaultFinder(), [other, vote(2, 4)]) == []


VOTES = st.lists(
    st.builds(vote, st.integers(0, 12), st.integers(1, 13), st.integers(0, 2)).filter(
        lambda v: v.s_height < v.t_height
    ),
    max_size=12,
)


@given(VOTES)
def test_any_two_conflicting_votes_are_found_in_any_order(votes: list[Vote]) -> None:
    """Against the dumb twin that compares each with each."""
    is_fault = any(is_vote_fault(a, b) for i, a in enumerate(votes) for b in votes[:i])
    evidence = found(FaultFinder(), votes)
    assert bool(evidence) == is_fault
    for one in evidence:
        assert is_vote_fault(*one.votes)
        assert set(one.votes) <= set(votes)


LINKS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(1, 40), st.integers(0, 3)).map(
        lambda n: Link(point(n[0], n[1]), point(n[2], n[3]))
    ),
    max_size=60,
)


@given(LINKS, st.randoms(use_true_random=False))
def test_an_honest_producer_is_never_accused(links: list[Link], random: object) -> None:
    """Whatever it is asked to vote for, however its votes arrive, with repetitions."""
    guard = VoteGuard()
    votes = []
    for link in links:
        if link.source.height < link.target.height and guard.may_vote(link):
            guard = guard.after_vote(link)
            votes.append(make_vote(CHAIN, 0, link))
    votes += votes[::3]
    random.shuffle(votes)  # type: ignore[attr-defined]
    assert found(FaultFinder(), votes) == []


@given(st.data())
def test_a_conflict_with_one_of_the_latest_votes_is_found_after_pruning(data: st.DataObject) -> None:
    """The memory is bounded: only votes for targets lower than all that are remembered are out of reach."""
    finder = FaultFinder()
    finder.final_height = 10**6
    count = VOTES_REMEMBERED + 50
    for height in range(1, count + 1):
        assert finder.saw_vote(far_vote(height - 1, height), KEY.public_key) is None
    height = data.draw(st.integers(count - VOTES_REMEMBERED + 1, count))
    rival = far_vote(height - 1, height, 1)
    assert finder.saw_vote(rival, KEY.public_key) is not None
    assert finder.saw_vote(far_vote(0, count + 1), KEY.public_key) is not None


def far_vote(source: int, target: int, tag: int = 0) -> Vote:
    """Return a vote of producer 0 at heights beyond a byte."""
    ends = [Checkpoint(height, height.to_bytes(31) + bytes([tag])) for height in (source, target)]
    return make_vote(CHAIN, 0, Link(*ends))


def test_votes_far_ahead_push_out_none_that_matter_now() -> None:
    finder = FaultFinder()
    finder.final_height = 100
    finder.saw_vote(far_vote(100, 101), KEY.public_key)
    for height in range(5_000, 5_000 + 2 * VOTES_REMEMBERED):
        assert finder.saw_vote(far_vote(100, height), KEY.public_key) is None
    assert finder.saw_vote(far_vote(100, 101, 1), KEY.public_key) is not None


def test_headers_are_remembered_of_the_latest_slots() -> None:
    bench = Bench(4)
    bench.submit([1])
    block = bench.seal(1)
    finder = FaultFinder()
    blocks = [resign(block, slot=slot) for slot in range(1, HEADERS_REMEMBERED + 2)]
    for one in blocks:
        assert finder.saw_header(signed(one), KEY.public_key) is None
    for one, is_found in ((blocks[0], False), (blocks[1], True), (blocks[-1], True)):
        twin = resign(one, tx_root=bytes(32))
        assert (finder.saw_header(signed(twin), KEY.public_key) is not None) is is_found


def test_who_signs_with_many_keys_pushes_out_no_producer() -> None:
    bench = Bench(4)
    bench.submit([1])
    block = bench.seal(1)
    finder = FaultFinder()
    for number in range(2 * KEYS_REMEMBERED):
        finder.saw_vote(far_vote(number, number + 1), KEY.public_key)
        header = replace(block.sealed.header, producer_key_id=number.to_bytes(20))
        assert finder.saw_header(SignedHeader(header, bytes(64)), bytes(33)) is None
    assert len(finder._keys) == KEYS_REMEMBERED
    assert finder.saw_vote(far_vote(0, 1, 1), KEY.public_key) is not None


def signed(block: Block) -> SignedHeader:
    """Return a block's header as it stands in evidence."""
    return SignedHeader(block.sealed.header, block.sealed.signature)


# -- the engine ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bench() -> Bench:
    """Four producers, some final blocks, records in each."""
    bench = Bench(4)
    for slot in range(1, 5):
        bench.submit([slot])
        bench.run_slot(slot)
    for number in range(5):
        bench.flush(number)
    return bench


def other_vote(bench: Bench, number: int, link: Link) -> Vote:
    """Return another vote for the height of a link's target."""
    return make_vote(bench.chain_id, number, Link(link.source, point(link.target.height, 9)))


def test_a_double_vote_is_told_once_and_kept(bench: Bench) -> None:
    link = bench.observer.head.link
    for tag in (8, 9):
        rival = Link(link.source, point(link.target.height, tag))
        bench.observer.receive_vote(make_vote(bench.chain_id, 2, rival), now_ms=time_of(5))
    (event,) = faults_of(bench)
    assert (event.member_id, event.evidence.fault) == (member_name(2), "double-vote")
    assert read_evidence(bench.stores[-1]) == {producer_key(2).key_id: event.evidence}
    again = bench.make(len(bench.engines) - 1)
    assert again.faults.kept == {producer_key(2).key_id: event.evidence}


def test_evidence_found_passes_the_check_of_its_transaction() -> None:
    """With real signatures, as everybody else will check it."""
    finder = FaultFinder()
    key = PrivateKey.from_seed(b"one")
    links = [Link(point(2), point(4, tag)) for tag in (0, 1)]
    votes = [Vote(*k.source, *k.target, key.key_id, key.sign(digest_of(CHAIN, k))) for k in links]
    evidence = [finder.saw_vote(one, key.public_key) for one in votes][-1]
    assert evidence is not None
    assert read_payload(Kind.EVIDENCE, [encode(evidence)], CHAIN) == evidence
    assert decode(encode(evidence), Evidence) == evidence


def test_a_vote_against_one_in_a_certificate_carried_is_found(bench: Bench) -> None:
    """A node that has only the blocks knows who voted for them."""
    newcomer = Bench(4)
    engine = newcomer.observer
    certificates = []
    for height in range(1, bench.observer.head.height + 1):
        newcomer.submit([height])
        block = bench.observer.block(bench.observer.block_id_at(height) or b"")
        assert block is not None
        engine.receive_block(block, now_ms=time_of(5))
        certificates += [block.sealed.certificate] if block.sealed.certificate else []
    certificate = certificates[0]
    assert engine.final.height >= certificate.t_height
    signer = engine.head.voting[0].producers[bitmap_indexes(certificate.parts[0].signers)[0]]
    number = next(n for n in range(4) if producer_key(n).key_id == signer.key_id)
    engine.receive_vote(other_vote(bench, number, link_of(certificate)), now_ms=time_of(5))
    (event,) = faults_of(newcomer)
    assert (event.member_id, event.evidence.fault) == (signer.member_id, "double-vote")


def test_a_vote_at_a_final_height_is_looked_at_only_if_it_proves_something(bench: Bench) -> None:
    engine = bench.observer
    final = engine.final
    assert final.height > 1
    late = other_vote(bench, 1, final.link)
    forged = Vote(late.s_height, late.s_id, late.t_height, late.t_id, late.key_id, bytes(64))
    with pytest.raises(InvalidVote) as caught:
        engine.receive_vote(forged, now_ms=time_of(5))
    assert caught.value.where == "signature"
    engine.receive_vote(late, now_ms=time_of(5))
    assert [event.member_id for event in faults_of(bench)] == [member_name(1)]
    # Nothing more is to be learnt, so nothing is checked.
    engine.receive_vote(forged, now_ms=time_of(5))
    stranger = make_vote(bench.chain_id, 17, final.link)
    engine.receive_vote(stranger, now_ms=time_of(5))
    assert faults_of(bench) == []


def test_a_flood_of_votes_for_blocks_that_nobody_has_is_not_passed_on(bench: Bench) -> None:
    """Each would cost every node a signature check. What counts is counted all the same, and a contradiction found."""
    engine = bench.observer
    source = engine.head.link.source
    assert source.height > 0
    verdicts = []
    for height in range(100, 100 + VOTES_PER_PRODUCER_MAX):
        flood = make_vote(bench.chain_id, 2, Link(source, Checkpoint(height, height.to_bytes(32))))
        verdicts.append(engine.receive_vote(flood, now_ms=time_of(5)))
    # One of its votes was held already.
    assert verdicts == [Verdict.ACCEPT] * (VOTES_PER_PRODUCER_MAX - 1) + [Verdict.IGNORE]
    more = make_vote(bench.chain_id, 2, Link(source, Checkpoint(90, bytes(32))))
    forged = Vote(more.s_height, more.s_id, more.t_height, more.t_id, more.key_id, bytes(64))
    assert engine.receive_vote(forged, now_ms=time_of(5)) is Verdict.IGNORE
    assert engine.receive_vote(more, now_ms=time_of(5)) is Verdict.IGNORE
    assert faults_of(bench) == []
    bench.submit([9], now_ms=time_of(5))
    block = bench.seal(5)
    engine.receive_block(block, now_ms=time_of(5))
    good = make_vote(bench.chain_id, 2, engine.head.link)
    # It is for a block that is here, so it counts; and the flood from below its source is around it.
    assert engine.head.link.source.height > source.height
    assert engine.receive_vote(good, now_ms=time_of(5)) is Verdict.ACCEPT
    assert [event.evidence.fault for event in faults_of(bench)] == ["surrounding-vote"]


def test_a_surrounding_vote_is_told(bench: Bench) -> None:
    engine = bench.observer
    head = engine.head
    assert head.link.source.height > 0
    around = Link(Checkpoint(0, bench.chain_id), point(head.height + 1, 9))
    engine.receive_vote(make_vote(bench.chain_id, 3, around), now_ms=time_of(5))
    assert [(e.member_id, e.evidence.fault) for e in faults_of(bench)] == [(member_name(3), "surrounding-vote")]


@pytest.mark.parametrize("where", ["head", "unknown parent", "incomplete", "final", "final and forgotten"])
def test_a_second_block_of_a_slot_is_told_wherever_it_stands(bench: Bench, where: str) -> None:
    engine = bench.observer
    height = engine.head.height if where == "head" else engine.final.height
    block = engine.block(engine.block_id_at(height) or b"")
    assert block is not None
    twin = resign(block, tx_root=bytes(32))
    if where == "unknown parent":
        twin = resign(block, parent_id=b"\x07" * 32, height=block.sealed.header.height + 50)
        with pytest.raises(UnknownParent):
            engine.receive_block(twin, now_ms=time_of(5))
    elif where == "incomplete":
        # Gossip asks this before it waits for transactions, which may never come.
        assert engine.check_header(twin.sealed)
    elif where == "head":
        with pytest.raises(InvalidBlock):
            engine.receive_block(twin, now_ms=time_of(5))
    else:
        if where == "final and forgotten":
            engine.faults._finder = FaultFinder()
        engine.receive_block(twin, now_ms=time_of(5))
    (event,) = faults_of(bench)
    assert event.evidence.fault == "double-block"
    assert {h.header.slot for h in event.evidence.headers} == {block.sealed.header.slot}
    assert event.evidence.headers[0].header != event.evidence.headers[1].header


def test_a_forged_second_block_at_a_final_height_is_a_lie(bench: Bench) -> None:
    engine = bench.observer
    block = engine.block(engine.final.block_id)
    assert block is not None
    header = resign(block, tx_root=bytes(32)).sealed.header
    forged = Block(type(block.sealed)(header, bytes(64), block.sealed.certificate), block.body)
    with pytest.raises(InvalidBlock) as caught:
        engine.receive_block(forged, now_ms=time_of(5))
    assert caught.value.where == "signature"
    assert faults_of(bench) == []


def test_evidence_is_settled_when_the_key_has_ended_or_the_member_is_gone_or_struck(bench: Bench) -> None:
    """What would strike nobody is not kept."""
    state = bench.observer.final.chain.state
    link = bench.observer.head.link
    votes = [make_vote(bench.chain_id, 1, link), other_vote(bench, 1, link)]
    evidence = accuse_voter(producer_key(1).public_key, *votes)
    name, key_id = member_name(1), producer_key(1).key_id
    member, key = state.members[name], state.keys[key_id]
    assert not is_settled(state, evidence)
    assert not is_settled(state, accuse_voter(producer_key(15).public_key, *votes))
    assert is_settled(state.changed({("struck", name): StruckEntry(3, 0)}), evidence)
    assert is_settled(state.changed({("member", name): replace(member, cleared_height=evidence.height)}), evidence)
    below = {("member", name): replace(member, cleared_height=evidence.height - 1)}
    assert not is_settled(state.changed(below), evidence)
    assert is_settled(state.changed({("key", key_id): replace(key, standing=KeyStanding.REVOKED)}), evidence)
    assert not is_settled(state.changed({("key", key_id): replace(key, standing=KeyStanding.RETIRING)}), evidence)
    assert is_settled(state.changed({("member", name): None}), evidence)
