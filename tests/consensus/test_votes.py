"""V1 and V2, counting votes, and what a certificate must be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.params import faults_tolerated, quorum_of
from consensus.votes import (
    VOTES_PER_PRODUCER_MAX,
    Checkpoint,
    Link,
    VoteGuard,
    VotePool,
    VotingSet,
    check_certificate,
    link_of,
)
from ledger.block import Certificate, CertificatePart, void_bitmap
from ledger.codec import INT_MAX, decode, encode
from ledger.entries import Producer
from ledger.errors import InvalidVote
from node.sim.world import is_stand_in_signature, member_name, producer_key
from tests.consensus.bench_kit import make_certificate, make_vote, point

CHAIN = bytes(range(32))
LINK = Link(point(3), point(4))


def voting_set(size: int = 4, set_id: int = 0) -> VotingSet:
    producers = [Producer(member_name(n), producer_key(n).key_id, producer_key(n).public_key) for n in range(size)]
    return VotingSet(set_id, tuple(producers))


def pool_with(voters: list[int], link: Link = LINK) -> VotePool:
    pool = VotePool(CHAIN, is_stand_in_signature)
    for number in voters:
        pool.add(make_vote(CHAIN, number, link), producer_key(number).public_key)
    return pool


@pytest.mark.parametrize(
    ("producers", "quorum", "faults"), [(1, 1, 0), (2, 2, 0), (3, 3, 0), (4, 3, 1), (6, 5, 1), (7, 5, 2), (21, 15, 6)]
)
def test_quorum(producers: int, quorum: int, faults: int) -> None:
    assert (quorum_of(producers), faults_tolerated(producers)) == (quorum, faults)


@given(st.integers(1, 1000))
def test_two_quorums_share_an_honest_producer_and_honest_ones_make_a_quorum(n: int) -> None:
    f, q = faults_tolerated(n), quorum_of(n)
    assert 2 * q - n >= f + 1
    assert n - f >= q


def test_v1_only_higher_targets() -> None:
    guard = VoteGuard().after_vote(LINK)
    assert guard == VoteGuard(5, 3, 0)
    assert not guard.may_vote(LINK)
    assert not guard.may_vote(Link(point(3), point(4, 1)))
    assert guard.may_vote(Link(point(3), point(5)))


def test_v2_only_sources_not_lower() -> None:
    guard = VoteGuard().after_vote(LINK)
    assert not guard.may_vote(Link(point(2), point(9)))
    assert guard.may_vote(Link(point(3), point(9)))
    assert guard.may_vote(Link(point(8), point(9)))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=40))
def test_no_guarded_history_holds_a_double_or_a_surrounding_vote(wishes: list[tuple[int, int]]) -> None:
    guard, cast = VoteGuard(), []
    for source, distance in wishes:
        link = Link(point(source), point(source + distance))
        if guard.may_vote(link):
            guard = decode(encode(guard.after_vote(link)), VoteGuard)
            cast.append((link.source.height, link.target.height))
    assert len({target for _, target in cast}) == len(cast)
    assert [(a, b) for a in cast for b in cast if a[0] < b[0] and b[1] < a[1]] == []


def test_v3_only_later_slots() -> None:
    assert VoteGuard(5, 3, 2).after_seal(7) == VoteGuard(5, 3, 8)


def test_a_quorum_of_votes_makes_a_certificate() -> None:
    assert pool_with([0, 2]).certificate(LINK, [voting_set()]) is None
    certificate = pool_with([3, 0, 2]).certificate(LINK, [voting_set()])
    assert certificate == make_certificate(CHAIN, voting_set(), LINK, [0, 2, 3])
    assert link_of(certificate) == LINK


def test_a_certificate_has_exactly_a_quorum() -> None:
    assert pool_with([0, 1, 2, 3]).certificate(LINK, [voting_set()]) == make_certificate(
        CHAIN, voting_set(), LINK, [0, 1, 2]
    )


def test_every_set_must_have_its_quorum() -> None:
    both = [voting_set(4), voting_set(7, set_id=1)]
    assert pool_with([0, 1, 2, 3]).certificate(LINK, both) is None
    certificate = pool_with([0, 1, 2, 3, 6]).certificate(LINK, both)
    assert certificate is not None
    assert [part.set_id for part in certificate.parts] == [0, 1]
    check_certificate(certificate, both, CHAIN, is_valid=is_stand_in_signature)


def test_votes_for_other_links_do_not_count() -> None:
    pool = pool_with([0, 1])
    pool.add(make_vote(CHAIN, 2, Link(point(2), point(4))), producer_key(2).public_key)
    assert pool.certificate(LINK, [voting_set()]) is None


def test_a_vote_is_held_once() -> None:
    pool = pool_with([0])
    assert pool.add(make_vote(CHAIN, 0, LINK), producer_key(0).public_key) is False
    assert pool.has(LINK, producer_key(0).key_id)
    assert not pool.has(LINK, producer_key(1).key_id)


def test_rejects_a_vote_signed_by_another_key() -> None:
    pool = VotePool(CHAIN, is_stand_in_signature)
    with pytest.raises(InvalidVote) as caught:
        pool.add(make_vote(CHAIN, 0, LINK), producer_key(1).public_key)
    assert caught.value.where == "signature"
    assert not pool.has(LINK, producer_key(0).key_id)


def test_real_signatures_by_default() -> None:
    with pytest.raises(InvalidVote):
        VotePool(CHAIN).add(make_vote(CHAIN, 0, LINK), producer_key(0).public_key)


def test_a_liar_fills_only_its_own_share() -> None:
    pool = pool_with([1])
    for height in range(10, 11 + VOTES_PER_PRODUCER_MAX):
        pool.add(make_vote(CHAIN, 0, Link(point(3), point(height % 250, height // 250))), producer_key(0).public_key)
    assert pool.has(LINK, producer_key(1).key_id)
    assert not pool.has(Link(point(3), point(10)), producer_key(0).key_id)
    assert pool.has(Link(point(3), point(11)), producer_key(0).key_id)


def test_prune_lets_go_of_what_is_final() -> None:
    pool = pool_with([0])
    higher = Link(point(4), point(5))
    pool.add(make_vote(CHAIN, 0, higher), producer_key(0).public_key)
    pool.prune(4)
    assert not pool.has(LINK, producer_key(0).key_id)
    assert pool.signature(higher, producer_key(0).key_id) is not None


def refused(certificate: Certificate, sets: list[VotingSet] | None = None) -> str:
    """Return the field that a certificate is refused for."""
    with pytest.raises(InvalidVote) as caught:
        check_certificate(certificate, sets or [voting_set()], CHAIN, is_valid=is_stand_in_signature)
    return caught.value.where


def with_part(**changes: object) -> Certificate:
    good = make_certificate(CHAIN, voting_set(), LINK, [0, 1, 2])
    part = good.parts[0]
    fields = {"set_id": part.set_id, "signers": part.signers, "signatures": part.signatures, **changes}
    return Certificate(*LINK.source, *LINK.target, [CertificatePart(**fields)])  # type: ignore[arg-type]


def test_a_good_certificate_passes() -> None:
    check_certificate(with_part(), [voting_set()], CHAIN, is_valid=is_stand_in_signature)


def test_rejects_a_link_that_leads_downwards() -> None:
    down = Link(point(4), point(4, 1))
    assert refused(make_certificate(CHAIN, voting_set(), down, [0, 1, 2])) == "t_height"


def test_rejects_another_set() -> None:
    assert refused(with_part(set_id=1)) == "parts"
    assert refused(with_part(), [voting_set(), voting_set(set_id=1)]) == "parts"


def test_rejects_a_bitmap_of_another_size() -> None:
    assert refused(with_part(signers=b"\x07\x00")) == "parts.signers"
    assert refused(with_part(signers=b"\x13")) == "parts.signers"


def test_rejects_less_or_more_than_a_quorum() -> None:
    assert refused(make_certificate(CHAIN, voting_set(), LINK, [0, 1])) == "parts.signers"
    assert refused(make_certificate(CHAIN, voting_set(), LINK, [0, 1, 2, 3])) == "parts.signers"


def test_rejects_a_signature_too_few() -> None:
    good = with_part().parts[0]
    assert refused(with_part(signatures=good.signatures[:2])) == "parts.signers"


def test_rejects_one_wrong_signature() -> None:
    good = with_part().parts[0]
    assert refused(with_part(signatures=[*good.signatures[:2], bytes(64)])) == "parts.signatures"
    assert refused(with_part(signers=void_bitmap([0, 1, 3], 4))) == "parts.signatures"


def test_a_known_signature_is_not_verified_again() -> None:
    pool = pool_with([0, 1, 2])
    check_certificate(with_part(), [voting_set()], CHAIN, pool.signature, is_valid=lambda *_: False)


def test_a_guard_raised_as_far_as_a_stolen_key_can_sign_is_read_back() -> None:
    link = Link(Checkpoint(INT_MAX - 1, bytes(32)), Checkpoint(INT_MAX, bytes(32)))
    guard = VoteGuard().after_vote(link).after_seal(INT_MAX)
    assert decode(encode(guard), VoteGuard) == VoteGuard(INT_MAX, INT_MAX - 1, INT_MAX)
