"""The highest vote and the latest header of every key, from wherever they were seen."""

from __future__ import annotations

from consensus.votes import Link, VotingSet
from consensus.witness import Witness
from ledger.block import SealedHeader
from node.sim.world import producer_key
from tests.consensus.bench_kit import Bench, make_certificate, make_vote, point

CHAIN_ID = bytes(32)


def test_the_highest_vote_is_remembered_whole() -> None:
    witness = Witness()
    votes = [make_vote(CHAIN_ID, 0, Link(point(s), point(t))) for s, t in ((1, 3), (3, 5), (2, 4))]
    for vote in votes:
        link = Link(point(vote.s_height), point(vote.t_height))
        witness.note_vote(link, vote.key_id, vote.signature)
    assert witness.vote_of(producer_key(0).key_id) == votes[1]
    assert witness.vote_of(producer_key(1).key_id) is None


def test_a_certificate_is_made_of_votes() -> None:
    bench = Bench()
    sets = bench.observer.head.voting
    places = {p.key_id: i for i, p in enumerate(sets[0].producers)}
    link = Link(point(1), point(2))
    signers = [0, 2, 3]
    witness = Witness()
    witness.note_certificate(make_certificate(CHAIN_ID, VotingSet(0, sets[0].producers), link, signers), sets)
    found = {n: witness.vote_of(producer_key(n).key_id) for n in range(4)}
    expected = {n: make_vote(CHAIN_ID, n, link) for n in range(4) if places[producer_key(n).key_id] in signers}
    assert {n: vote for n, vote in found.items() if vote} == expected


def test_votes_of_a_set_that_is_not_known_any_more_are_passed_over() -> None:
    sets = Bench().observer.head.voting
    witness = Witness()
    certificate = make_certificate(CHAIN_ID, VotingSet(7, sets[0].producers), Link(point(1), point(2)), [0, 1, 2])
    witness.note_certificate(certificate, sets)
    assert [witness.vote_of(p.key_id) for p in sets[0].producers] == [None] * 4


def test_the_header_of_the_latest_slot_without_its_certificate() -> None:
    bench = Bench()
    bench.submit([1])
    sealed = [block.sealed for slot in range(12) if (block := bench.run_slot(slot))]
    by_key = {s.header.producer_key_id: s for s in sealed}
    assert any(s.certificate for s in by_key.values())
    witness = Witness()
    for one in reversed(sealed):
        witness.note_header(one)
    assert {key_id: witness.header_of(key_id) for key_id in by_key} == {
        key_id: SealedHeader(s.header, s.signature, None) for key_id, s in by_key.items()
    }
