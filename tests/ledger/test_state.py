"""The state of a chain and its root."""

from __future__ import annotations

import msgpack
import pytest

from ledger.codec import decode, encode
from ledger.crypto import hash_of
from ledger.entries import KeyEntry, MemberEntry
from ledger.errors import FieldError
from ledger.genesis import Role, rule_set_id_of
from ledger.state import genesis_state, state_path
from ledger.statetree import StateTree, verify_state_proof
from tests.ledger.ledger_samples import GENESIS, NODE_KEYS, STATE, SUBMIT_KEY, plain


def test_the_root_is_over_every_entry() -> None:
    """Built again from the document, entry by entry, in another order."""
    entries: dict[tuple[object, ...], object] = {
        ("rules",): plain(GENESIS.rules),
        ("parameters",): plain(GENESIS.parameters),
    }
    for member in GENESIS.members:
        entries["member", member.member_id] = [member.weight, 0]
        for key in member.keys:
            key_id = hash_of("key", key.public_key)[:20]
            entries["key", key_id] = [member.member_id, key.public_key, key.roles, 1]
        assert member.candidate is not None
        entries["candidate", member.member_id] = plain(member.candidate)
    for delegation in GENESIS.delegations:
        entries["delegation", delegation.member_id, delegation.candidate_id] = delegation.weight
    tree = StateTree.empty()
    for key, value in reversed(entries.items()):
        tree = tree.set(hash_of("state", list(key)), msgpack.packb(value))
    assert STATE.tree.root == tree.root
    assert len(entries) == 2 + 4 + 5 + 4 + 4


def test_what_it_holds() -> None:
    assert dict(STATE.members) == dict.fromkeys(NODE_KEYS, MemberEntry(100))
    assert STATE.keys[SUBMIT_KEY.key_id] == KeyEntry("alba", SUBMIT_KEY.public_key, Role.SUBMIT, 1)
    assert dict(STATE.delegations) == {(name, name): 100 for name in NODE_KEYS}
    assert STATE.candidates["bora"].key_id == NODE_KEYS["bora"].key_id
    assert STATE.rule_set == rule_set_id_of(GENESIS.rules)
    assert genesis_state(GENESIS).tree.root == STATE.tree.root


def test_nothing_in_it_can_be_changed() -> None:
    with pytest.raises(TypeError):
        STATE.members["eve"] = MemberEntry(1)  # type: ignore[index]


def test_keys_with_roles() -> None:
    assert STATE.key_with_role(SUBMIT_KEY.key_id, Role.SUBMIT) == STATE.keys[SUBMIT_KEY.key_id]
    assert STATE.key_with_role(SUBMIT_KEY.key_id, Role.NODE) is None
    assert STATE.key_with_role(NODE_KEYS["alba"].key_id, Role.GOVERN) is not None
    assert STATE.key_with_role(bytes(20), Role.NODE) is None


def test_presence_and_absence_are_provable() -> None:
    path = state_path("member", "alba")
    verify_state_proof(STATE.tree.root, path, encode(MemberEntry(100)), STATE.tree.prove(path))
    absent = state_path("member", "zeta")
    verify_state_proof(STATE.tree.root, absent, None, STATE.tree.prove(absent))


def test_paths_of_different_kinds_differ() -> None:
    assert state_path("member", "a") == hash_of("state", ["member", "a"])
    assert (
        len({state_path("member", "a"), state_path("member", b"a"), state_path("membera"), state_path("key", "a")}) == 4
    )


@pytest.mark.parametrize(
    ("index", "value", "where"), [(2, 0, "roles"), (2, 8, "roles"), (3, 3, "standing"), (1, b"", "public_key")]
)
def test_bounds_of_a_key_entry(index: int, value: object, where: str) -> None:
    fields = plain(STATE.keys[SUBMIT_KEY.key_id])
    fields[index] = value
    with pytest.raises(FieldError) as caught:
        decode(msgpack.packb(fields), KeyEntry)
    assert caught.value.where == where
