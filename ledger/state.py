"""The state of a chain: members, keys, candidates, delegations, producers and rules, under one root.

The record index is derivable from the blocks and stays outside.

Source: docs/protocol.md, "State".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from ledger.codec import ZERO32, Count, decode, encode
from ledger.crypto import hash_of, key_id_of
from ledger.entries import (
    EpochEntry,
    KeyEntry,
    KeyStanding,
    MemberEntry,
    ProposalEntry,
    StruckEntry,
    TurnsEntry,
    VotingEntry,
)
from ledger.errors import EncodingError, StoreDamaged
from ledger.genesis import Candidate, Genesis, Parameters, RuleSetPin, rule_set_id_of
from ledger.statetree import StateTree
from ledger.store import Space

StateKey = tuple[str | bytes, ...]
"""The name of an entry: its kind, then what tells entries of the kind apart."""

_MAPS: Final[dict[str, tuple[str, Any]]] = {
    "member": ("members", MemberEntry),
    "key": ("keys", KeyEntry),
    "candidate": ("candidates", Candidate),
    "delegation": ("delegations", Count),
    "proposal": ("proposals", ProposalEntry),
    "struck": ("struck", StruckEntry),
}
"""Kinds with many entries: the attribute of State that holds them, and the type of one."""

_SINGLES: Final[dict[str, Any]] = {
    "parameters": Parameters,
    "rules": RuleSetPin,
    "epoch": EpochEntry,
    "turns": TurnsEntry,
    "voting": VotingEntry,
}
"""Kinds with one entry, each an attribute of State by its own name."""


@dataclass(frozen=True, slots=True)
class State:
    """What governs the chain after a block; immutable.

    Attributes:
        members: by member id.
        keys: by key id (20 bytes), revoked ones included.
        candidates: by member id.
        delegations: by (member id, candidate id), the weight given.
        proposals: open ones, by the id of the transaction that made them.
        struck: members proven faulty, by member id.
        parameters: the chain's numbers.
        rules: the rules in force.
        rule_set: their id.
        epoch: who may produce in the present epoch.
        turns: how they used it so far.
        voting: whose votes certify the next block.
        tree: the same as a sparse Merkle tree; its root is the header's ``state_root``.
    """

    members: Mapping[str, MemberEntry]
    keys: Mapping[bytes, KeyEntry]
    candidates: Mapping[str, Candidate]
    delegations: Mapping[tuple[str, str], int]
    proposals: Mapping[bytes, ProposalEntry]
    struck: Mapping[str, StruckEntry]
    parameters: Parameters
    rules: RuleSetPin
    rule_set: bytes
    epoch: EpochEntry
    turns: TurnsEntry
    voting: VotingEntry
    tree: StateTree

    def key_with_role(self, key_id: bytes, role: int) -> KeyEntry | None:
        """Return the active key of a present member that has ``role``, or None."""
        key = self.keys.get(key_id)
        if key is None or key.standing is not KeyStanding.ACTIVE or not key.roles & role:
            return None
        return key if key.member_id in self.members else None

    def changed(self, changes: Mapping[StateKey, Any]) -> State:
        """Return the state with ``changes``: an entry by its name, None where it goes."""
        held: dict[str, Any] = {}
        tree = self.tree
        for key, value in changes.items():
            kind = str(key[0])
            if kind in _MAPS:
                name = _MAPS[kind][0]
                if name not in held:
                    held[name] = dict(getattr(self, name))
                entries = held[name]
                if value is None:
                    entries.pop(_inner(key), None)
                else:
                    entries[_inner(key)] = value
            else:
                held[kind] = value
            path = state_path(*key)
            tree = tree.delete(path) if value is None else tree.set(path, encode(value))
        fields: dict[str, Any] = {name: MappingProxyType(v) if isinstance(v, dict) else v for name, v in held.items()}
        if "rules" in fields:
            fields["rule_set"] = rule_set_id_of(fields["rules"])
        return replace(self, tree=tree, **fields)


_UNSET: Any = None
EMPTY_STATE: Final = State(
    members=MappingProxyType({}),
    keys=MappingProxyType({}),
    candidates=MappingProxyType({}),
    delegations=MappingProxyType({}),
    proposals=MappingProxyType({}),
    struck=MappingProxyType({}),
    parameters=_UNSET,
    rules=_UNSET,
    rule_set=b"",
    epoch=EpochEntry(0, ZERO32, []),
    turns=TurnsEntry([]),
    voting=VotingEntry(0, [], None),
    tree=StateTree.empty(),
)
"""What a state is built from; parameters and rules are given before anybody reads them."""


def _inner(key: StateKey) -> Any:
    """Return what tells entries of a kind apart, as State's mappings have it."""
    return key[1] if len(key) == 2 else key[1:]


def state_path(*key: str | bytes) -> bytes:
    """Return the 32-byte path of a state entry: ``H("state", key)``."""
    return hash_of("state", key)


def entry_type(key: StateKey) -> Any:
    """Return the type of the entry under ``key``. Raises KeyError for a kind that there is not."""
    kind = str(key[0])
    return _MAPS[kind][1] if kind in _MAPS else _SINGLES[kind]


def genesis_state(genesis: Genesis) -> State:
    """Return what the founders wrote down; who produces and votes is up to the first election."""
    changes: dict[StateKey, Any] = {("parameters",): genesis.parameters, ("rules",): genesis.rules}
    for member in genesis.members:
        changes["member", member.member_id] = MemberEntry(member.weight)
        for key in member.keys:
            entry = KeyEntry(member.member_id, key.public_key, key.roles, KeyStanding.ACTIVE)
            changes["key", key_id_of(key.public_key)] = entry
        if member.candidate:
            changes["candidate", member.member_id] = member.candidate
    for part in genesis.delegations:
        changes["delegation", part.member_id, part.candidate_id] = part.weight
    return EMPTY_STATE.changed(changes)


# -- rows ----------------------------------------------------------------------------------------------------------


def state_changes(old: State, new: State) -> dict[StateKey, Any]:
    """Return what leads from ``old`` to ``new``: entries by name, None for those that went."""
    changes: dict[StateKey, Any] = {}
    for kind, (name, _) in _MAPS.items():
        before, after = getattr(old, name), getattr(new, name)
        if before is after:
            continue
        for inner in before.keys() - after.keys():
            changes[_named(kind, inner)] = None
        for inner, value in after.items():
            if before.get(inner) != value:
                changes[_named(kind, inner)] = value
    for kind in _SINGLES:
        if getattr(old, kind) != getattr(new, kind):
            changes[kind,] = getattr(new, kind)
    return changes


def state_puts(changes: Mapping[StateKey, Any]) -> list[tuple[bytes, bytes | None]]:
    """Return the store's rows of changed entries."""
    return [(Space.STATE.value + encode(k), None if v is None else encode(v)) for k, v in changes.items()]


def state_from_rows(rows: Iterable[tuple[bytes, bytes]], root: bytes) -> State:
    """Return the state that the store holds. Raises StoreDamaged where it is not the one with this root."""
    changes: dict[StateKey, Any] = {}
    try:
        for row, value in rows:
            key = decode(row[1:], list[Any])
            kind = _MAPS[key[0]][1] if key[0] in _MAPS else _SINGLES[key[0]]
            changes[tuple(key)] = decode(value, kind)
        state = EMPTY_STATE.changed(changes)
    except (EncodingError, KeyError, IndexError, TypeError) as error:
        raise _damaged(f"an entry cannot be read: {error}") from None
    if state.tree.root != root:
        raise _damaged("its root is not the one in the final block", expected=root, actual=state.tree.root)
    return state


def _named(kind: str, inner: Any) -> StateKey:
    return (kind, *inner) if isinstance(inner, tuple) else (kind, inner)


def _damaged(what: str, *, expected: object = "", actual: object = "") -> StoreDamaged:
    return StoreDamaged(
        what,
        where="state",
        expected=expected,
        actual=actual,
        hint="Restore the data directory from a backup, or move it away and let the node sync from its peers",
    )
