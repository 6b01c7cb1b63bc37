"""Transactions that govern, in a block: their order, who may sign them, and how many there is room for."""

from __future__ import annotations

from typing import Any

import pytest

from consensus.election import founding_state
from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.entries import KeyEntry, KeyStanding, MemberEntry
from ledger.errors import UnusableTransaction
from ledger.genesis import Role
from ledger.governance import apply_payload
from ledger.payloads import (
    PAYLOADS,
    CandidateChange,
    DelegationPart,
    Delegations,
    KeyChange,
    KeyChanges,
    KeyOperation,
)
from ledger.record_index import RecordIndex, SeenRecords
from ledger.state import State
from ledger.store import MemoryStore
from ledger.transaction import make_transaction
from ledger.transition import (
    PAYLOADS_PER_BLOCK_MAX,
    PAYLOADS_PER_MEMBER_MAX,
    BodyBuilder,
    check_payload,
    genesis_chain,
)
from ledger.validation import CheckedTransaction, check_transaction
from tests.ledger.ledger_samples import CHAIN_ID, GENESIS, NODE_KEYS, NOW_MS, NoRules, make_genesis

STATE = founding_state(GENESIS)
NEW = PrivateKey.from_seed(b"new")
HEIGHT = 4


class Signer:
    """Signs payloads, each at another moment; knows keys that the chain is yet to know."""

    def __init__(self, state: State = STATE) -> None:
        self.keys = dict(state.keys)
        self._made = 0

    def sign(self, member: str, payload: Any, key: PrivateKey | None = None) -> CheckedTransaction:
        self._made += 1
        kind = next(kind for kind, made in PAYLOADS.items() if made is type(payload))
        created_ms = NOW_MS - 10_000 + self._made
        raw = encode(
            make_transaction(
                [encode(payload)],
                key=key or NODE_KEYS[member],
                member_id=member,
                chain_id=CHAIN_ID,
                created_ms=created_ms,
                expires_ms=created_ms + 60_000,
                kind=kind,
            )
        )
        return check_transaction(raw, chain_id=CHAIN_ID, key_of=self.keys.get, rules=NoRules())


def no_records(_tx_id: bytes) -> list[Any]:
    raise AssertionError("a transaction that governs has no records")


def builder_on(state: State = STATE) -> BodyBuilder:
    seen = SeenRecords(RecordIndex(MemoryStore()), [])
    return BodyBuilder(state, HEIGHT, NOW_MS, seen, no_records)


def test_the_state_after_a_block_is_that_of_its_transactions_in_order() -> None:
    signer, builder = Signer(), builder_on()
    gone = signer.sign("cima", CandidateChange(None))
    gives = signer.sign("alba", Delegations([DelegationPart("dora", 100)]))
    for tx in (gone, gives):
        builder.add(tx)
    expected = STATE
    for member, tx in (("cima", gone), ("alba", gives)):
        assert tx.payload is not None
        expected = apply_payload(expected, tx.payload, member_id=member, tx_id=tx.tx_id, height=HEIGHT, time_ms=NOW_MS)
    assert builder.state.tree.root == expected.tree.root
    assert [item.void_bitmap for item in builder.body] == [b"", b""]
    assert builder.totals().records == 0


def test_later_transactions_see_earlier_ones() -> None:
    signer, builder = Signer(), builder_on()
    builder.add(signer.sign("cima", CandidateChange(None)))
    with pytest.raises(UnusableTransaction, match="no candidate"):
        builder.add(signer.sign("alba", Delegations([DelegationPart("cima", 1)])))
    builder.add(signer.sign("cima", CandidateChange(STATE.candidates["cima"])))
    builder.add(signer.sign("alba", Delegations([DelegationPart("cima", 1)])))
    assert builder.state.delegations["alba", "cima"] == 1


def test_what_does_not_fit_leaves_no_trace() -> None:
    signer, builder = Signer(), builder_on()
    tx = signer.sign("alba", Delegations([DelegationPart("dora", 101)]))
    for _ in range(2):
        with pytest.raises(UnusableTransaction, match="more than the member's weight"):
            builder.add(tx)
    assert (builder.body, builder.state.tree.root) == ([], STATE.tree.root)
    assert not builder.seen.has_transaction(tx.tx_id)


def test_who_may_sign_is_judged_by_the_state_at_the_start() -> None:
    """A key that was added signs from the next block on; one that ended signs to the end of its block."""
    signer, builder = Signer(), builder_on()
    rotate = KeyChange(KeyOperation.ROTATE, NEW.public_key, 0, NODE_KEYS["bora"].key_id)
    builder.add(signer.sign("bora", KeyChanges([rotate])))
    signer.keys = dict(builder.state.keys)
    by_new = signer.sign("bora", CandidateChange(None), NEW)
    with pytest.raises(UnusableTransaction, match="may not govern"):
        builder.add(by_new)
    builder.add(signer.sign("bora", Delegations([])))
    following = builder_on(builder.state)
    following.add(by_new)
    with pytest.raises(UnusableTransaction, match="may not govern"):
        following.add(signer.sign("bora", Delegations([])))


@pytest.mark.parametrize("roles", [Role.NODE, Role.SUBMIT, Role.NODE | Role.SUBMIT])
def test_another_role_does_not_govern(roles: int) -> None:
    signer, builder = Signer(), builder_on()
    builder.add(signer.sign("bora", KeyChanges([KeyChange(KeyOperation.ADD, NEW.public_key, roles, None)])))
    signer.keys = dict(builder.state.keys)
    with pytest.raises(UnusableTransaction, match="may not govern"):
        builder_on(builder.state).add(signer.sign("bora", Delegations([]), NEW))


def test_the_room_of_one_member() -> None:
    signer, builder = Signer(), builder_on()
    for _ in range(PAYLOADS_PER_MEMBER_MAX):
        tx = signer.sign("alba", Delegations([]))
        assert builder.fits(tx)
        builder.add(tx)
    assert not builder.fits(signer.sign("alba", Delegations([])))
    assert builder.fits(signer.sign("bora", Delegations([])))


def test_the_room_of_a_block() -> None:
    """Of members enough that no one of them has too many."""
    names = [f"m{n:02d}" for n in range(PAYLOADS_PER_BLOCK_MAX)]
    keys = {name: PrivateKey.from_seed(name.encode()) for name in names}
    changes: dict[Any, Any] = {("member", name): MemberEntry(1) for name in names}
    changes |= {
        ("key", key.key_id): KeyEntry(name, key.public_key, 7, KeyStanding.ACTIVE) for name, key in keys.items()
    }
    state = STATE.changed(changes)
    signer, builder = Signer(state), builder_on(state)
    for name in names:
        tx = signer.sign(name, Delegations([]), keys[name])
        assert builder.fits(tx)
        builder.add(tx)
    assert not builder.fits(signer.sign("alba", Delegations([])))


def test_whoever_hands_in_is_told_at_once() -> None:
    chain, signer = genesis_chain(make_genesis(), STATE), Signer()
    check_payload(signer.sign("cima", CandidateChange(None)), chain, NOW_MS)
    with pytest.raises(UnusableTransaction, match="more than the member's weight"):
        check_payload(signer.sign("alba", Delegations([DelegationPart("dora", 101)])), chain, NOW_MS)
    assert chain.state is STATE
