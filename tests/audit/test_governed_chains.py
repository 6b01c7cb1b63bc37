"""Chains in which members come, go, rotate and are struck while votes and blocks are lost: all of it can be proved."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.follow import BecameFinal, Follower
from audit.light import LightClient
from audit.receipt import make_receipt, verify_receipt
from audit.verify import verify_chain
from ledger.block import Block, Vote
from ledger.errors import InvalidProof, StoreError, UnknownParent, UnusableTransaction
from ledger.genesis import Candidate
from ledger.payloads import (
    CandidateChange,
    DelegationPart,
    Delegations,
    KeyChange,
    KeyChanges,
    KeyOperation,
    Payload,
)
from ledger.transaction import Kind
from tests.audit.chains import (
    FIVE,
    NEXT_KEY,
    NODE_KEYS,
    SUBMIT_KEYS,
    Cluster,
    double_vote,
    govern,
    make_genesis,
    make_payload,
    make_raw,
    rules_of,
)
from tests.audit.light_kit import PeerSource
from tests.audit.test_live_chains import StoreSource
from tests.audit.test_receipt import check_every_field

GENESIS = make_genesis(name="governed", epoch_slots=4, members=FIVE, seats=4)
RULES = rules_of(GENESIS)


def _changes() -> list[tuple[str, Kind, Payload]]:
    """Return what members may do at any time, most of it more than once."""
    rotation = KeyChange(KeyOperation.ROTATE, NEXT_KEY.public_key, 0, NODE_KEYS["bravo"].key_id)
    return [
        ("delta", Kind.DELEGATE, Delegations([DelegationPart("echo", 100)])),
        ("delta", Kind.DELEGATE, Delegations([DelegationPart("delta", 100)])),
        ("alfa", Kind.DELEGATE, Delegations([DelegationPart("delta", 50), DelegationPart("echo", 50)])),
        ("charlie", Kind.CANDIDATE, CandidateChange(None)),
        ("charlie", Kind.CANDIDATE, CandidateChange(Candidate(NODE_KEYS["charlie"].key_id, "", "AT"))),
        ("bravo", Kind.KEY, KeyChanges([rotation])),
        ("alfa", Kind.EVIDENCE, double_vote(GENESIS, "charlie", height=1)),
    ]


CHANGES = _changes()
SLOT = st.tuples(st.sets(st.integers(0, 19), max_size=5), st.integers(0, 9), st.integers(0, 3 * len(CHANGES)))


@settings(max_examples=25, deadline=None)
@given(st.lists(SLOT, min_size=12, max_size=40))
def test_whatever_is_lost_every_store_passes_and_is_followed(losses: list[tuple[set[int], int, int]]) -> None:
    """losses: for each slot, which of its votes are lost, 9 where its block reaches nobody, and what a member does."""
    cluster = Cluster(GENESIS)
    live = Follower(LightClient(GENESIS), PeerSource(cluster.peers[0], GENESIS))
    shown: list[int] = []
    for slot, (lost, kind, number) in enumerate(losses):
        cluster.submit(make_raw(GENESIS, range(slot * 3, slot * 3 + 2), now_ms=cluster.now_ms))
        if number < len(CHANGES):
            member, what, payload = CHANGES[number]
            # A key that bravo has no more, for one: nothing for a block.
            with suppress(UnusableTransaction):
                cluster.submit(make_payload(GENESIS, what, payload, now_ms=cluster.now_ms, member=member))
        seen = [0]

        def deliver(message: Block | Vote, lost=lost, kind=kind, seen=seen) -> bool:
            if isinstance(message, Block):
                return kind != 9
            seen[0] += 1
            return seen[0] - 1 not in lost

        is_lost = False
        try:
            cluster.step(deliver=deliver)
        except UnknownParent:
            is_lost = True
        shown += [news.header.height for news in live.poll() if isinstance(news, BecameFinal)]
        if is_lost:
            break  # sync would fetch the parent, this cluster has none
    assert shown == list(range(1, cluster.peers[0].engine.final.height + 1))
    for peer in cluster.peers:
        report = verify_chain(StoreSource(peer.store, GENESIS), GENESIS, rules=RULES)
        assert report.first_difference is None
        assert (report.height, report.head_id) == (peer.engine.final.height, peer.engine.final.block_id)
        light = Follower(LightClient(GENESIS), PeerSource(peer, GENESIS))
        list(light.poll())
        assert light.client.point == (peer.engine.final.height, peer.engine.final.block_id)


# -- receipts ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    made = Cluster(make_genesis(name="governed", members=FIVE, seats=4))
    govern(made)
    return made


def tx_ids(cluster: Cluster, height: int, kind: Kind = Kind.RECORDS) -> list[bytes]:
    engine, store = cluster.peers[0].engine, cluster.peers[0].store
    block = engine.block(engine.block_id_at(height))
    found = [engine.check(store.body(item.tx_id)) for item in block.body]
    return [tx.tx_id for tx in found if tx.envelope.kind is kind]


def test_receipts_across_changes_of_the_voting_set(cluster: Cluster) -> None:
    for height in range(1, 60):
        for tx_id in tx_ids(cluster, height):
            verdict = verify_receipt(make_receipt(cluster.peers[0].store, cluster.genesis, tx_id, 1), cluster.genesis)
            assert (verdict.height, verdict.final_height, verdict.set_id) == (height, 59, 4)


@pytest.mark.parametrize("slots", range(16, 22))
def test_receipts_while_the_voting_set_changes(slots: int) -> None:
    growing = Cluster(make_genesis(name="governed", members=FIVE, seats=4))
    govern(growing, slots=slots)
    tx_id = tx_ids(growing, 7)[0]
    verdict = verify_receipt(make_receipt(growing.peers[0].store, growing.genesis, tx_id, 1), growing.genesis)
    assert (verdict.final_height, verdict.set_id) == (slots - 1, int(slots >= 20))


def test_any_field_changed_is_refused_with_set_changes(cluster: Cluster) -> None:
    receipt = make_receipt(cluster.peers[0].store, cluster.genesis, tx_ids(cluster, 30)[0], 0)
    document = json.loads(receipt)
    assert (len(document["set_changes"]), len(receipt) < 13_000) == (4, True)
    assert check_every_field(document, cluster.genesis) > 1_000


@pytest.mark.parametrize(
    ("order", "where"),
    [([1, 2, 3], "set_changes[0].siblings"), ([0, 1, 2], "final.siblings"), ([0, 2, 1, 3], "set_changes[1].siblings")],
)
def test_set_changes_missing_or_in_another_order(order: list[int], where: str, cluster: Cluster) -> None:
    document = json.loads(make_receipt(cluster.peers[0].store, cluster.genesis, tx_ids(cluster, 30)[0], 0))
    document["set_changes"] = [document["set_changes"][index] for index in order]
    with pytest.raises(InvalidProof) as caught:
        verify_receipt(json.dumps(document).encode(), cluster.genesis)
    assert caught.value.where == where


def test_a_record_whose_key_was_revoked_since() -> None:
    cluster = Cluster(make_genesis(name="revoked"))
    genesis = cluster.genesis
    cluster.submit(make_raw(genesis, range(3), now_ms=cluster.now_ms))
    revoke = KeyChanges([KeyChange(KeyOperation.REVOKE, None, 0, SUBMIT_KEYS["alfa"].key_id)])
    for slot in range(6):
        if slot == 2:
            cluster.submit(make_payload(genesis, Kind.KEY, revoke, now_ms=cluster.now_ms, member="alfa"))
        cluster.step()
    receipt = make_receipt(cluster.peers[0].store, genesis, tx_ids(cluster, 1)[0], 0)
    assert json.loads(receipt)["key"]["standing"] == "revoked"
    assert verify_receipt(receipt, genesis).height == 1


def test_what_governs_has_no_records(cluster: Cluster) -> None:
    with pytest.raises(StoreError, match="a transaction that governs has no records"):
        make_receipt(cluster.peers[0].store, cluster.genesis, tx_ids(cluster, 19, Kind.KEY)[0], 0)
