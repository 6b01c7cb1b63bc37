"""What the doctor makes of final blocks: proven from genesis, a lie, silence, two histories; over sources in memory."""

from __future__ import annotations

from typing import Any

import pytest

from audit.follow import Follower
from audit.light import LightClient
from ledger.genesis import Genesis
from node.client import ApiFault
from node.doctor.answers import Proof
from node.doctor.gathering import _conflicts, _prove
from tests.audit.chains import FIVE, Cluster, govern, make_genesis, make_raw
from tests.audit.light_kit import PeerSource


@pytest.fixture(scope="module")
def genesis() -> Genesis:
    return make_genesis(name="governed", members=FIVE, seats=4)


@pytest.fixture(scope="module")
def cluster(genesis: Genesis) -> Cluster:
    """A chain of 59 final blocks whose voting set has changed four times."""
    made = Cluster(genesis)
    govern(made)
    return made


@pytest.fixture(scope="module")
def forked(genesis: Genesis) -> Cluster:
    """Another one from height 21 on."""
    made = Cluster(genesis)
    govern(made, slots=20)
    while made.slot < 45:
        made.submit(make_raw(genesis, range(9_000 + made.slot * 3, 9_003 + made.slot * 3), now_ms=made.now_ms))
        made.step()
    return made


def follower(cluster: Cluster, genesis: Genesis, name: str = "http://a") -> tuple[Follower, PeerSource]:
    source = PeerSource(cluster.peers[0], genesis, name=name)
    return Follower(LightClient(genesis), source), source


def test_a_final_block_is_proven_over_every_change_of_the_voting_set(cluster: Cluster, genesis: Genesis) -> None:
    one, source = follower(cluster, genesis)
    assert _prove(one) == Proof(59)
    # Not a header beyond what the proofs need: an examination is to be quick, however long the chain.
    assert "headers" not in source.asked


def test_what_does_not_hold_is_a_lie_and_what_is_not_answered_silence(cluster: Cluster, genesis: Genesis) -> None:
    one, source = follower(cluster, genesis)
    source.forge = lambda question, answer: answer[:-1] if question == "history" else answer
    proof = _prove(one)
    assert (bool(proof.lie), proof.silence) == (True, "")

    def no_answer(_question: str, _answer: Any) -> Any:
        raise ApiFault("the node does not answer: refused", status=0)

    other, source = follower(cluster, genesis)
    source.forge = no_answer
    assert _prove(other) == Proof(0, silence="the node does not answer: refused")


def test_nodes_of_one_history_do_not_conflict(cluster: Cluster, genesis: Genesis) -> None:
    followers = [follower(cluster, genesis, name)[0] for name in ("http://a", "http://b")]
    for each in followers:
        _prove(each)
    assert _conflicts(followers) == []
    assert _conflicts([]) == []


def test_nodes_of_two_histories_do(cluster: Cluster, forked: Cluster, genesis: Genesis) -> None:
    pairs = ((cluster, "http://a"), (forked, "http://c"), (cluster, "http://b"))
    followers = [follower(chain, genesis, name)[0] for chain, name in pairs]
    for each in followers:
        assert not _prove(each).lie
    (conflict,) = _conflicts(followers)
    assert conflict.urls == ("http://c", "http://a")
    assert "two blocks are final at one height" in conflict.what
