"""The light client: follows a chain that elects, rotates and strikes, resumes, crosses gaps, and names who forked."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from audit import follow
from audit.accuse import accuse
from audit.follow import BecameFinal, Crossed, Follower, TwoHistories, VotersChanged
from audit.light import (
    LightCheckpoint,
    LightClient,
    OtherHistory,
    check_history,
    checkpoint_from_json,
    checkpoint_to_json,
    point_of,
)
from consensus.votes import VotingSet
from ledger.block import Block, SealedHeader, Vote
from ledger.errors import EncodingError, InvalidProof
from ledger.genesis import Genesis, chain_id_of
from ledger.payloads import is_vote_fault
from tests.audit.chains import FIVE, MEMBERS, NEXT_KEY, NODE_KEYS, Cluster, govern, make_genesis, make_raw
from tests.audit.light_kit import PeerSource
from tests.audit.receipt_world import World
from tests.audit.test_receipt import LONGEST_NAMES, changed, leaves, others

Deliver = Callable[[int, Block | Vote], bool]


def run(cluster: Cluster, *, slots: int, calls: int = 0, deliver: Deliver = lambda _slot, _message: True) -> Cluster:
    """Let slots pass with records numbered from ``calls`` on: other records make another chain."""
    while cluster.slot < slots:
        slot = cluster.slot
        cluster.submit(make_raw(cluster.genesis, range(calls + slot * 5, calls + slot * 5 + 3), now_ms=cluster.now_ms))
        cluster.step(deliver=lambda message, slot=slot: deliver(slot, message))
    return cluster


def governed_genesis() -> Genesis:
    return make_genesis(name="governed", members=FIVE, seats=4)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """A chain of 59 final blocks with four changes of the voting set."""
    made = Cluster(governed_genesis())
    govern(made)
    return made


@pytest.fixture
def source(cluster: Cluster) -> PeerSource:
    return PeerSource(cluster.peers[0], cluster.genesis)


def follower(source: PeerSource, genesis: Genesis, **options: bool) -> Follower:
    return Follower(LightClient(genesis), source, **options)


# -- a good chain ------------------------------------------------------------------------------------------------------


def test_each_final_block_comes_once_as_the_chain_grows() -> None:
    cluster = Cluster(governed_genesis())
    live = follower(PeerSource(cluster.peers[0], cluster.genesis), cluster.genesis)
    heights: list[int] = []
    changes: list[tuple[int, int]] = []
    for slots in range(1, 61):
        govern(cluster, slots=slots)
        for news in live.poll():
            if isinstance(news, BecameFinal):
                heights.append(news.header.height)
            elif isinstance(news, VotersChanged):
                changes.append((news.height, news.new.set_id))
        assert live.client.point == (cluster.peers[0].engine.final.height, cluster.peers[0].engine.final.block_id)
    assert heights == list(range(1, 60))
    assert changes == [(17, 1), (33, 2), (41, 3), (49, 4)]
    assert live.client.trusted == cluster.peers[0].engine.final.next_voting[0]


def test_all_of_it_at_once(source: PeerSource, cluster: Cluster) -> None:
    one = follower(source, cluster.genesis)
    news = list(one.poll())
    assert [type(each) for each in news] == [VotersChanged] * 4 + [BecameFinal] * 59
    assert list(one.poll()) == []
    assert [p.member_id for p in one.client.trusted.producers] == ["echo", "alfa", "bravo", "delta"]
    assert one.client.member_of(NEXT_KEY.key_id) == "bravo"
    assert one.client.member_of(NODE_KEYS["charlie"].key_id) == "charlie"
    assert one.client.member_of(bytes(20)) is None


def test_a_long_gap_is_crossed_by_one_path(
    source: PeerSource, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "HEADERS_SHOWN_MAX", 20)
    news = list(follower(source, cluster.genesis).poll())
    assert news[4:] == [Crossed(1, 58), BecameFinal(news[-1].header)]
    assert "headers" not in source.asked


def test_every_header_of_a_long_gap(source: PeerSource, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "HEADERS_MAX", 7)
    monkeypatch.setattr(follow, "HEADERS_SHOWN_MAX", 20)
    news = list(follower(source, cluster.genesis, all_headers=True).poll())
    assert [each.header.height for each in news[4:]] == list(range(1, 60))
    assert source.asked.count("headers") == 9


def test_genesis_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(governed_genesis())
    one = follower(PeerSource(cluster.peers[0], cluster.genesis), cluster.genesis)
    assert (list(one.poll()), one.is_behind) == ([], False)
    assert (one.client.point, one.client.checkpoint()) == ((0, chain_id_of(cluster.genesis)), None)


def test_a_node_that_answers_while_it_goes_on(cluster: Cluster) -> None:
    """Set changes may lead beyond the final block of a moment ago."""
    growing = Cluster(cluster.genesis)
    govern(growing, slots=19)
    source = PeerSource(growing.peers[0], growing.genesis)
    final = source.final()

    def forge(question: str, answer: Any) -> Any:
        return final if question == "final" else answer

    govern(growing, slots=20)
    one = follower(source, growing.genesis)
    source.forge = forge
    list(one.poll())
    assert one.client.point.height == 18
    source.forge = lambda _question, answer: answer
    list(one.poll())
    assert (one.client.point.height, one.client.trusted.set_id) == (19, 1)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_it_resumes_from_every_height() -> None:
    cluster = Cluster(governed_genesis())
    source = PeerSource(cluster.peers[0], cluster.genesis)
    live = follower(source, cluster.genesis)
    files: list[bytes] = []
    for slots in range(2, 61):
        govern(cluster, slots=slots)
        list(live.poll())
        files.append(checkpoint_to_json(live.client.checkpoint()))
    for height, data in enumerate(files, 1):
        resumed = LightClient(cluster.genesis, checkpoint_from_json(data))
        assert resumed.point.height == height
        one = Follower(resumed, source)
        shown = [each.header.height for each in one.poll() if isinstance(each, BecameFinal)]
        assert shown == list(range(height + 1, 60))
        assert (one.client.point, one.client.trusted) == (live.client.point, live.client.trusted)


def test_a_checkpoint_of_which_anything_was_changed_is_refused(source: PeerSource, cluster: Cluster) -> None:
    one = follower(source, cluster.genesis)
    list(one.poll())
    document = json.loads(checkpoint_to_json(one.client.checkpoint()))
    tried = 0
    for path in leaves(document):
        here: Any = document
        for step in path:
            here = here[step]
        for value in others(copy.deepcopy(here)):
            with pytest.raises((InvalidProof, EncodingError)) as caught:
                LightClient(cluster.genesis, checkpoint_from_json(changed(document, path, value)))
            assert caught.value.where != ""
            tried += 1
    assert tried > 150


@pytest.mark.parametrize(("voters", "bytes_max"), [(4, 4_096), (21, 9_216)])
def test_a_checkpoint_is_small(voters: int, bytes_max: int) -> None:
    world = World(names=LONGEST_NAMES[:voters], seats=voters, entries=5_000, mos_count=8)
    checkpoint = LightCheckpoint(1, world.chain_id, world.proof(1 << 24, world.founders, None))
    data = checkpoint_to_json(checkpoint)
    assert checkpoint_from_json(data) == checkpoint
    assert len(data) <= bytes_max


def test_a_checkpoint_of_another_chain(source: PeerSource, cluster: Cluster) -> None:
    one = follower(source, cluster.genesis)
    list(one.poll())
    with pytest.raises(InvalidProof, match="of another chain"):
        LightClient(make_genesis(name="another"), one.client.checkpoint())


# -- two histories -----------------------------------------------------------------------------------------------------


def twins(a_slots: int, b_slots: int, deliver: Deliver = lambda _slot, _message: True) -> tuple[Follower, Follower]:
    """Return followers of two chains that all producers made at once."""
    genesis = make_genesis(name="twins")
    a = run(Cluster(genesis), slots=a_slots)
    b = run(Cluster(genesis), slots=b_slots, calls=5_000, deliver=deliver)
    made = [follower(PeerSource(each.peers[0], genesis, name=name), genesis) for each, name in ((a, "a"), (b, "b"))]
    for one in made:
        list(one.poll())
    return made[0], made[1]


def check_conflict(error: TwoHistories, height: int, voters: set[str]) -> None:
    conflict = error.conflict
    assert (conflict.lower.header.height, conflict.other.height) == (height, height)
    assert conflict.lower.header != conflict.other
    accused = [each.producer.member_id for each in conflict.accused]
    assert len(accused) == len(set(accused)) > conflict.tolerated
    assert set(accused) <= voters
    for each in conflict.accused:
        assert is_vote_fault(*each.evidence.votes)
    document = conflict.to_json()
    assert document["proofs"][0]["header"]["height"] == height
    assert len(document["headers"]) == 2


def test_a_node_whose_history_contradicts_what_it_proved_before() -> None:
    a, b = twins(6, 12)
    a.source = b.source
    with pytest.raises(TwoHistories) as caught:
        list(a.poll())
    check_conflict(caught.value, 5, set(MEMBERS))


def test_two_final_blocks_at_one_height() -> None:
    a, b = twins(8, 8)
    assert a.client.point.height == b.client.point.height
    a.source = b.source
    with pytest.raises(TwoHistories) as caught:
        list(a.poll())
    check_conflict(caught.value, 7, set(MEMBERS))


@pytest.mark.parametrize(("a_slots", "b_slots"), [(6, 12), (8, 8), (6, 7)])
def test_two_nodes_are_compared(a_slots: int, b_slots: int) -> None:
    a, b = twins(a_slots, b_slots)
    with pytest.raises(TwoHistories) as caught:
        a.compare(b)
    check_conflict(caught.value, a_slots - 1, set(MEMBERS))


def test_votes_around_others_are_found() -> None:
    """The other history leaps over the final block: no vote there is for a height at which the first has one."""
    a, b = twins(6, 16, deliver=lambda slot, message: not (isinstance(message, Vote) and 3 <= slot < 9))
    certificates = [sealed.certificate for sealed in b.source.headers(1, 16) if sealed.certificate]
    assert all(c.t_height not in {5, 6} for c in certificates)
    with pytest.raises(TwoHistories) as caught:
        a.compare(b)
    check_conflict(caught.value, 5, set(MEMBERS))
    first, second = caught.value.conflict.accused[0].evidence.votes
    assert first.t_height != second.t_height


def test_a_fork_by_producers_of_old() -> None:
    """Those of genesis never gave way in it; who has come further believes them nothing, and finds them out."""
    old = run(Cluster(governed_genesis()), slots=70)
    new = Cluster(governed_genesis())
    govern(new)
    a = follower(PeerSource(new.peers[0], new.genesis), new.genesis)
    b = follower(PeerSource(old.peers[0], old.genesis), old.genesis)
    for one in (a, b):
        list(one.poll())
    with pytest.raises(TwoHistories) as caught:
        a.compare(b)
    # Where the histories part there is one voting set, though of its keys only two still vote at the end.
    check_conflict(caught.value, 59, set(MEMBERS))
    assert [each.producer.member_id for each in caught.value.conflict.accused] == sorted(MEMBERS)
    a.source = b.source
    with pytest.raises(InvalidProof, match="the current set is another"):
        list(a.poll())


def losing(begun: int, slots: int) -> Deliver:
    """Return what lets no vote arrive for some slots."""
    return lambda slot, message: not (isinstance(message, Vote) and begun <= slot < begun + slots)


@pytest.mark.parametrize("parted", [0, 7, 17, 18, 33, 41])
@pytest.mark.parametrize(("lost", "extra"), [(0, 2), (3, 9)])
def test_wherever_two_histories_part_more_are_named_than_are_borne(parted: int, lost: int, extra: int) -> None:
    """Around elections, rotations and changes of the voting set; on one side votes are lost for a while at first."""
    genesis = governed_genesis()
    sides = []
    for calls, silent in ((0, 0), (5_000, lost)):
        made = Cluster(genesis)
        govern(made, slots=parted)
        run(made, slots=parted + 1, calls=calls)
        run(made, slots=parted + extra + silent, calls=calls, deliver=losing(made.slot, silent))
        sides.append(follower(PeerSource(made.peers[0], genesis), genesis))
        sides[-1].catch_up()
    lower, higher = sorted(sides, key=lambda each: each.client.point.height)
    with pytest.raises(TwoHistories) as caught:
        lower.compare(higher)
    fork = caught.value.conflict.fork
    assert fork is not None
    assert fork.sides[0].header.parent_id == fork.sides[1].header.parent_id
    assert fork.sides[0].header != fork.sides[1].header
    assert [side.header.height for side in fork.sides] == [fork.height] * 2
    assert len({each.producer.member_id for each in fork.accused}) == len(fork.accused) > fork.tolerated
    assert all(is_vote_fault(*each.evidence.votes) for each in fork.accused)
    for side in fork.sides:
        if side.path is not None:
            check_history(point_of(side.header), side.final, side.path)


def test_a_path_that_proves_nothing_is_no_second_history() -> None:
    a, b = twins(6, 12)
    honest = follower(a.source, make_genesis(name="twins"))
    list(honest.poll())
    b.source.forge = lambda question, answer: answer[:-1] if question == "history" else answer
    a.source = b.source
    with pytest.raises(InvalidProof) as caught:
        list(a.poll())
    assert not isinstance(caught.value, TwoHistories)


def test_the_same_history_with_a_wrong_path_is_a_lie_and_no_more(cluster: Cluster) -> None:
    growing = Cluster(cluster.genesis)
    govern(growing, slots=6)
    source = PeerSource(growing.peers[0], growing.genesis)
    one = follower(source, growing.genesis)
    list(one.poll())
    govern(growing, slots=12)
    answers = iter([[bytes(32)] * 4])
    source.forge = lambda question, answer: next(answers, answer) if question == "history" else answer
    with pytest.raises(OtherHistory):
        list(one.poll())
    assert one.client.point.height == 5


def test_a_node_that_proves_another_block_below() -> None:
    a, b = twins(12, 6)
    assert a.client.point.height == 11
    a.source = b.source
    with pytest.raises(TwoHistories) as caught:
        list(a.poll())
    assert a.is_behind
    check_conflict(caught.value, 5, set(MEMBERS))


def test_a_node_that_only_says_that_another_block_is_final_below() -> None:
    a, b = twins(12, 6)
    a.source = b.source
    b.source.forge = lambda _question, answer: replace(answer, siblings=[])
    with pytest.raises(InvalidProof, match="another block is final than the one it proved before") as caught:
        list(a.poll())
    assert not isinstance(caught.value, TwoHistories)


def test_a_node_that_is_behind_is_waited_for(cluster: Cluster, source: PeerSource) -> None:
    one = follower(source, cluster.genesis)
    list(one.poll())
    young = Cluster(cluster.genesis)
    govern(young, slots=20)
    one.source = PeerSource(young.peers[0], young.genesis)
    assert (list(one.poll()), one.is_behind) == ([], True)


def test_nodes_of_one_history_agree(cluster: Cluster, source: PeerSource) -> None:
    young = Cluster(cluster.genesis)
    lower = follower(PeerSource(young.peers[0], young.genesis), young.genesis)
    higher = follower(source, cluster.genesis)
    lower.compare(higher)
    for slots in (4, 18, 19, 35, 59, 60):
        govern(young, slots=slots)
        for one in (lower, higher):
            list(one.poll())
        lower.compare(higher)


def test_nobody_is_accused_of_votes_that_others_made(source: PeerSource, cluster: Cluster) -> None:
    """Certificates from a stranger may hold anything: signatures of nobody, bits for nobody, sets of nobody."""
    one = follower(source, cluster.genesis)
    list(one.poll())
    certificates = [s.certificate for s in source.headers(1, 60) if s.certificate]
    forged = [replace(c, t_id=b"\x77" * 32) for c in certificates]
    swapped = [replace(c, parts=[replace(p, set_id=p.set_id + 1) for p in c.parts]) for c in certificates]
    chain_id = chain_id_of(cluster.genesis)
    assert accuse(certificates, [*forged, *swapped, *certificates], one.client.sets, chain_id) == []
    assert accuse(certificates, certificates, {0: VotingSet(0, ())}, chain_id) == []


def test_headers_that_are_not_on_disk_yet_are_left_out(cluster: Cluster, source: PeerSource) -> None:
    page = source.headers(58, 10)
    assert [type(page[0]), [sealed.header.height for sealed in page]] == [SealedHeader, [58, 59, 60]]
