"""Whose node it is, which of its keys it meets peers with, and whom it lets in, as the chain goes on."""

from __future__ import annotations

import pytest

from ledger.crypto import PrivateKey
from ledger.entries import KeyStanding
from ledger.errors import ConfigError
from ledger.payloads import CandidateChange, KeyChange, KeyChanges, KeyOperation
from ledger.transaction import Kind
from node.identity import Identity
from node.sim.world import EPOCH_SLOTS, HEARTBEAT_SLOTS, govern_key, member_name, producer_key, submit_key
from tests.consensus.bench_kit import Bench, time_of

NEW = producer_key(9)
STRANGER = producer_key(12)


def rotation(bench: Bench) -> KeyChanges:
    """Prepare the rotation of member 3's node key, both keys at hand."""
    bench.next_keys[3] = NEW
    bench.engines[3] = bench.make(3)
    return KeyChanges([KeyChange(KeyOperation.ROTATE, NEW.public_key, 0, producer_key(3).key_id)])


def play(bench: Bench, first: int, end: int) -> None:
    for slot in range(first, end):
        bench.submit([slot + 1], now_ms=time_of(slot))
        bench.run_slot(slot)


def test_a_members_node() -> None:
    bench = Bench(4)
    identity = Identity(bench.engines[1], (producer_key(1),))
    assert (identity.member_id, identity.is_known, identity.key) == (member_name(1), True, producer_key(1))
    assert identity.node_key(producer_key(2).key_id) is not None
    for key in (submit_key(2), govern_key(2), STRANGER):
        assert identity.node_key(key.key_id) is None
    assert identity.is_candidate(producer_key(2).key_id)
    assert not identity.is_candidate(submit_key(2).key_id)
    assert identity.voting_keys([submit_key(2).key_id, STRANGER.key_id]) == {producer_key(2).key_id}


def test_a_key_that_may_have_come_up_since() -> None:
    """Only while the head is so old that there must be blocks which are not here."""
    bench = Bench(4)
    play(bench, 0, 5)
    for slot, may_be in ((5, False), (4 + 2 * HEARTBEAT_SLOTS, False), (5 + 2 * HEARTBEAT_SLOTS, True)):
        identity = Identity(bench.engines[1], (producer_key(1),), clock_ms=lambda slot=slot: time_of(slot))  # type: ignore[misc]
        assert [identity.is_unknown(key.key_id) for key in (submit_key(2), STRANGER)] == [False, may_be]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ((STRANGER,), "belongs to no member"),
        ((submit_key(1),), "has ended"),
        ((producer_key(1), producer_key(2)), "different members"),
    ],
)
def test_keys_that_will_not_do(keys: tuple[PrivateKey, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Identity(Bench(4).observer, keys)


def test_a_key_that_is_yet_to_be_admitted() -> None:
    identity = Identity(Bench(4).observer, (STRANGER,), is_joining=True)
    assert (identity.member_id, identity.is_known, identity.key) == (None, False, STRANGER)
    with pytest.raises(ConfigError, match="different members"):
        Identity(Bench(4).observer, (producer_key(1), producer_key(2)), is_joining=True)


def test_a_key_that_is_the_next_one_but_not_known_yet() -> None:
    identity = Identity(Bench(4).observer, (producer_key(1), STRANGER))
    assert (identity.member_id, identity.key) == (member_name(1), producer_key(1))


def test_a_key_rotates() -> None:
    """The old key is met with until it has ended, then the new one; both vote for their member meanwhile."""
    bench = Bench(4)
    change = rotation(bench)
    identity = Identity(bench.engines[3], (producer_key(3), NEW))
    bench.govern(3, Kind.KEY, change)
    play(bench, 0, 2)
    state = bench.observer.head.chain.state
    assert state.keys[producer_key(3).key_id].standing is KeyStanding.RETIRING
    assert identity.key is producer_key(3)
    assert identity.node_key(producer_key(3).key_id) is not None
    assert identity.node_key(NEW.key_id) is not None
    assert identity.is_candidate(producer_key(3).key_id)
    play(bench, 2, 4 * EPOCH_SLOTS)
    assert identity.key is NEW
    assert identity.node_key(producer_key(3).key_id) is None
    assert identity.voting_keys([producer_key(3).key_id]) == {NEW.key_id}
    with pytest.raises(ConfigError, match="has ended"):
        Identity(bench.engines[3], (producer_key(3),))
    assert Identity(bench.engines[3], (NEW,)).key is NEW


def test_a_key_that_is_revoked_meets_nobody_once_it_is_out_of_office(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(5)
    identity = Identity(bench.engines[2], (producer_key(2),))
    assert identity.key is producer_key(2)
    change = KeyChange(KeyOperation.REVOKE, None, 0, producer_key(2).key_id)
    bench.govern(2, Kind.KEY, KeyChanges([change]))
    play(bench, 0, 3 * EPOCH_SLOTS)
    assert bench.observer.head.chain.state.keys[producer_key(2).key_id].standing is KeyStanding.REVOKED
    for _ in range(2):
        assert (identity.key, identity.is_known, identity.member_id) == (producer_key(2), False, member_name(2))
    assert capsys.readouterr().out.count("node key has ended") == 1


def test_who_withdraws_meets_peers_still() -> None:
    bench = Bench(5)
    bench.govern(2, Kind.CANDIDATE, CandidateChange(None))
    play(bench, 0, 3 * EPOCH_SLOTS)
    identity = Identity(bench.engines[2], (producer_key(2),))
    assert identity.is_known
    assert not identity.is_candidate(producer_key(2).key_id)
    assert identity.voting_keys([producer_key(2).key_id]) == set()
