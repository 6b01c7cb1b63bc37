"""The state of a chain: members, keys, candidates, delegations and rules, under one root.

The record index is derivable from the blocks and stays outside.

Source: docs/protocol.md, "State".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

from msgspec import Meta

from ledger.codec import Bytes33, Count, MemberId, Wire, encode
from ledger.crypto import hash_of, key_id_of
from ledger.genesis import Candidate, Genesis, Parameters, RuleSetPin, rule_set_id_of
from ledger.statetree import StateTree


class MemberEntry(Wire, frozen=True):
    """A member under ``["member", member_id]``."""

    weight: Count


class KeyEntry(Wire, frozen=True):
    """A key under ``["key", key_id]``."""

    member_id: MemberId
    public_key: Bytes33
    roles: Annotated[int, Meta(ge=1, le=7)]
    """Sum of ledger.genesis.Role values."""
    active: Annotated[int, Meta(ge=0, le=1)]
    """1, or 0 once revoked."""


@dataclass(frozen=True, slots=True)
class State:
    """What governs the chain after a block; immutable.

    Attributes:
        members: by member id.
        keys: by key id (20 bytes).
        candidates: by member id.
        delegations: by (member id, candidate id), the weight given.
        parameters: the chain's numbers.
        rules: the rules in force.
        rule_set: their id.
        tree: the same as a sparse Merkle tree; its root is the header's ``state_root``.
    """

    members: Mapping[str, MemberEntry]
    keys: Mapping[bytes, KeyEntry]
    candidates: Mapping[str, Candidate]
    delegations: Mapping[tuple[str, str], int]
    parameters: Parameters
    rules: RuleSetPin
    rule_set: bytes
    tree: StateTree

    def key_with_role(self, key_id: bytes, role: int) -> KeyEntry | None:
        """Return the active key of a present member that has ``role``, or None."""
        key = self.keys.get(key_id)
        if key is None or not key.active or not key.roles & role or key.member_id not in self.members:
            return None
        return key


def state_path(*key: str | bytes) -> bytes:
    """Return the 32-byte path of a state entry: ``H("state", key)``."""
    return hash_of("state", key)


def genesis_state(genesis: Genesis) -> State:
    """Return the state before the first block."""
    members = {m.member_id: MemberEntry(m.weight) for m in genesis.members}
    keys = {
        key_id_of(key.public_key): KeyEntry(m.member_id, key.public_key, key.roles, 1)
        for m in genesis.members
        for key in m.keys
    }
    candidates = {m.member_id: m.candidate for m in genesis.members if m.candidate}
    delegations = {(d.member_id, d.candidate_id): d.weight for d in genesis.delegations}
    entries: list[tuple[tuple[str | bytes, ...], Any]] = [
        *((("member", name), entry) for name, entry in members.items()),
        *((("key", key_id), entry) for key_id, entry in keys.items()),
        *((("candidate", name), entry) for name, entry in candidates.items()),
        *((("delegation", *pair), weight) for pair, weight in delegations.items()),
        (("parameters",), genesis.parameters),
        (("rules",), genesis.rules),
    ]
    tree = StateTree.empty()
    for key, value in entries:
        tree = tree.set(state_path(*key), encode(value))
    return State(
        MappingProxyType(members),
        MappingProxyType(keys),
        MappingProxyType(candidates),
        MappingProxyType(delegations),
        genesis.parameters,
        genesis.rules,
        rule_set_id_of(genesis.rules),
        tree,
    )
