"""The second implementation: the state tree, the genesis, and what members decide.

Source: docs/protocol.md, "State", "Genesis", "Governance".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, NoReturn

from audit.reference_types import GENESIS, KEY_ENTRY, MEMBER_ENTRY, PRODUCER, PROPOSAL_ENTRY, STRUCK_ENTRY
from audit.reference_wire import ZERO32, Refused, Unusable, decode, encode, key_id_of, load_key, node_hash, tagged_hash

NODE, SUBMIT, GOVERN = 1, 2, 4
"""Roles of a key."""
REVOKED, ACTIVE, RETIRING = 0, 1, 2
"""Standings of a key."""
GENESIS_BYTES_MAX = 1 << 20
PROPOSAL_LIFETIME_MS_MAX = 2_592_000_000

# -- the sparse Merkle tree ----------------------------------------------------------------------------------------
# A subtree is None, an entry (hash, path), or (hash, left, right).


def _branch(left: Any, right: Any) -> Any:
    """Return the subtree over two; one of a single entry is that entry, at whatever depth."""
    if left is None and right is None:
        return None
    if left is None and len(right) == 2:
        return right
    if right is None and len(left) == 2:
        return left
    return node_hash(left[0] if left else ZERO32, right[0] if right else ZERO32), left, right


def _bit(path: bytes, depth: int) -> int:
    return path[depth // 8] >> 7 - depth % 8 & 1


def with_entry(node: Any, path: bytes, entry: Any, depth: int = 0) -> Any:
    """Return the subtree ``node`` with ``entry``, an entry or None, at ``path``."""
    if node is None or (len(node) == 2 and node[1] == path):
        return entry
    if len(node) == 2:
        if entry is None:
            return node
        node = (b"", None, node) if _bit(node[1], depth) else (b"", node, None)
    if _bit(path, depth):
        return _branch(node[1], with_entry(node[2], path, entry, depth + 1))
    return _branch(with_entry(node[1], path, entry, depth + 1), node[2])


def entry_hash(path: bytes, value: bytes) -> bytes:
    """Return the hash of a subtree with one entry, whose encoded value is ``value``."""
    return sha256(b"\0" + path + value).digest()


def root_by_siblings(key: tuple[Any, ...], value: Any, siblings: list[bytes]) -> bytes | None:
    """Return the root to which a proof of presence leads; ``siblings`` from the root downwards, at most 256."""
    if len(siblings) > 256:
        return None
    path = tagged_hash("state", key)
    root = entry_hash(path, encode(value))
    for depth in range(len(siblings) - 1, -1, -1):
        beside = siblings[depth]
        root = node_hash(beside, root) if _bit(path, depth) else node_hash(root, beside)
    return root


class State:
    """The entries of the state by their keys, and their tree.

    ``get("member", name)`` is an entry or None; ``put(("member", name), None)`` takes it away.
    """

    def __init__(self) -> None:
        self.entries: dict[tuple[Any, ...], Any] = {}
        self._tree: Any = None

    def get(self, *key: Any) -> Any:
        """Return the entry under ``key``, None where there is none."""
        return self.entries.get(key)

    def put(self, key: tuple[Any, ...], value: Any) -> None:
        """Put an entry in, or take it away."""
        path = tagged_hash("state", key)
        self._tree = with_entry(self._tree, path, None if value is None else (entry_hash(path, encode(value)), path))
        if value is None:
            self.entries.pop(key, None)
        else:
            self.entries[key] = value

    def of(self, kind: str) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """Yield keys and entries of one kind, in no order, as they are now."""
        yield from [(key, value) for key, value in self.entries.items() if key[0] == kind]

    def before(self) -> State:
        """Return what a later change of this one leaves as it is; for reading only."""
        copy = State()
        copy.entries, copy._tree = dict(self.entries), self._tree
        return copy

    @property
    def root(self) -> bytes:
        """Return the root of the tree."""
        root: bytes = self._tree[0] if self._tree else ZERO32
        return root

    @property
    def parameters(self) -> Any:
        """Return the chain's parameters."""
        return self.entries["parameters",]

    def active(self, key_id: bytes, member_id: str, role: int) -> bool:
        """Tell whether a key is the member's, active, with ``role``, and the member is there."""
        key = self.get("key", key_id)
        return (
            bool(key and key.member_id == member_id and key.standing == ACTIVE and key.roles & role)
            and ("member", member_id) in self.entries
        )

    def in_office(self) -> set[bytes]:
        """Return the keys of seats, of the voting set and of the set to come."""
        voting = self.entries["voting",]
        producers = [*self.entries["epoch",].seats, *voting.producers]
        producers += voting.pending.producers if voting.pending else []
        return {producer.key_id for producer in producers}

    def producer(self, member_id: str) -> Any:
        """Return a candidate as the producer that it would be."""
        key_id = self.entries["candidate", member_id].key_id
        return PRODUCER(member_id, key_id, self.entries["key", key_id].public_key)


# -- genesis -------------------------------------------------------------------------------------------------------


def parse_json(data: bytes) -> Any:
    """Return a JSON value. Raises ValueError; Refused for a field that an object has twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, value in pairs:
            if name in fields:
                raise Refused(ascii(name)[1:-1][:100] or "''", "given twice")
            fields[name] = value
        return fields

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number")

    try:
        return json.loads(data, object_pairs_hook=unique, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_genesis(data: bytes) -> Any:
    """Return the genesis in a file. Raises Unusable."""
    try:
        document = parse_json(data) if len(data) <= GENESIS_BYTES_MAX else None
        if not isinstance(document, dict):
            raise Unusable("genesis: not a JSON object, or too large")
        is_stated = "chain_id" in document
        stated = document.pop("chain_id", None)
        genesis = decode(encode(GENESIS.plain(document)), GENESIS)
        _check_genesis(genesis)
    except (ValueError, Refused) as error:
        raise Unusable(f"genesis: {error}") from None
    if is_stated and stated != tagged_hash("genesis", genesis).hex():
        raise Unusable("genesis: chain_id: not that of its contents")
    return genesis


def _ascending(names: list[Any], place: str) -> None:
    if names != sorted(set(names)):
        raise Refused(place, "not strictly ascending")


def _check_genesis(genesis: Any) -> None:
    members = {member.member_id: member for member in genesis.members}
    _ascending([member.member_id for member in genesis.members], "members")
    known: set[bytes] = set()
    for member in genesis.members:
        roles = {key_id_of(key.public_key): key.roles for key in member.keys}
        if len(roles) != len(member.keys) or known & roles.keys():
            raise Refused("members", "a key occurs twice")
        if any(load_key(key.public_key) is None for key in member.keys):
            raise Refused("members", "a key that is no point on P-256")
        if member.candidate and not roles.get(member.candidate.key_id, 0) & NODE:
            raise Refused("members", "a candidate without a node key of its own")
        known |= roles.keys()
    if not any(member.candidate for member in genesis.members):
        raise Refused("members", "nobody stands for a seat")
    _ascending([(part.member_id, part.candidate_id) for part in genesis.delegations], "delegations")
    left = {name: member.weight for name, member in members.items()}
    for part in genesis.delegations:
        if (
            part.member_id not in members
            or part.candidate_id not in members
            or not members[part.candidate_id].candidate
        ):
            raise Refused("delegations", "by or to nobody")
        left[part.member_id] -= part.weight
        if left[part.member_id] < 0:
            raise Refused("delegations", "more than the member's weight")
    _ascending([pin.module for pin in genesis.rules.modules], "rules.modules")
    _ascending([pin.table_id for pin in genesis.rules.tables], "rules.tables")
    for pin in genesis.rules.modules:
        _ascending([parameter.name for parameter in pin.parameters], "rules.modules.parameters")


def founders_state(genesis: Any) -> State:
    """Return the entries that genesis itself gives; seats, turns and voting set follow by the first ranking."""
    state = State()
    for member in genesis.members:
        state.put(("member", member.member_id), MEMBER_ENTRY(member.weight, 0))
        for key in member.keys:
            entry = KEY_ENTRY(member.member_id, key.public_key, key.roles, ACTIVE)
            state.put(("key", key_id_of(key.public_key)), entry)
        if member.candidate:
            state.put(("candidate", member.member_id), member.candidate)
    for part in genesis.delegations:
        state.put(("delegation", part.member_id, part.candidate_id), part.weight)
    state.put(("parameters",), genesis.parameters)
    state.put(("rules",), genesis.rules)
    return state


# -- governance ----------------------------------------------------------------------------------------------------


def apply_payload(state: State, envelope: Any, tx_id: bytes, payload: Any, height: int, time_ms: int) -> None:
    """Do what a transaction that governs says, for a block at ``height`` and time T. Raises Refused: it does not fit.

    What fails half done leaves the state half done: the audit ends there.
    """
    member_id = envelope.member_id
    if not state.get("member", member_id):
        raise Refused("envelope.member_id", "the sender is no member")
    if envelope.kind == 2:
        _change_keys(state, member_id, payload.changes, time_ms)
    elif envelope.kind == 3:
        _stand(state, member_id, payload.candidate)
    elif envelope.kind == 4:
        _delegate(state, member_id, payload.parts)
    elif envelope.kind == 5:
        _propose(state, member_id, payload, tx_id, height, time_ms)
    elif envelope.kind == 6:
        _approve(state, member_id, payload.proposal_id, height, time_ms)
    else:
        _strike(state, payload, height)


def _end_key(state: State, key_id: bytes) -> None:
    standing = RETIRING if key_id in state.in_office() else REVOKED
    state.put(("key", key_id), state.entries["key", key_id]._replace(standing=standing))


def _change_keys(state: State, member_id: str, changes: list[Any], time_ms: int) -> None:
    open_proposals = [entry.proposal for _, entry in state.of("proposal") if entry.proposal.expires_ms > time_ms]
    promised = {key.public_key for proposal in open_proposals for key in proposal.keys}
    for index, change in enumerate(changes):
        place, roles, new_id = f"changes[{index}]", change.roles, None
        if change.key_id is not None:
            ended = state.get("key", change.key_id)
            if ended is None or ended.member_id != member_id or ended.standing != ACTIVE:
                raise Refused(f"{place}.key_id", "not an active key of the member")
            roles = ended.roles
            _end_key(state, change.key_id)
        if change.public_key is not None:
            new_id = key_id_of(change.public_key)
            if state.get("key", new_id) or change.public_key in promised:
                raise Refused(f"{place}.public_key", "the chain knows this key, or will by an open proposal")
            state.put(("key", new_id), KEY_ENTRY(member_id, change.public_key, roles, ACTIVE))
        candidate = state.get("candidate", member_id)
        if candidate and candidate.key_id == change.key_id:
            state.put(("candidate", member_id), candidate._replace(key_id=new_id) if new_id else None)
    own = [key for _, key in state.of("key") if key.member_id == member_id]
    active = [key for key in own if key.standing == ACTIVE]
    if not any(key.roles & GOVERN for key in active):
        raise Refused("changes", "no key left to govern with")
    if len(active) > 64 or len(own) > 4_096:
        raise Refused("changes", "too many keys")


def _stand(state: State, member_id: str, candidate: Any) -> None:
    if candidate is None:
        if not state.get("candidate", member_id):
            raise Refused("candidate", "who does not stand cannot withdraw")
    elif state.get("struck", member_id):
        raise Refused("candidate", "the member was struck")
    elif not state.active(candidate.key_id, member_id, NODE):
        raise Refused("candidate.key_id", "not an active node key of the member")
    state.put(("candidate", member_id), candidate)


def _delegate(state: State, member_id: str, parts: list[Any]) -> None:
    if sum(part.weight for part in parts) > state.entries["member", member_id].weight:
        raise Refused("parts", "more than the member's weight")
    if any(not state.get("candidate", p.candidate_id) or state.get("struck", p.candidate_id) for p in parts):
        raise Refused("parts.candidate_id", "not a candidate")
    for key, _ in state.of("delegation"):
        if key[1] == member_id:
            state.put(key, None)
    for part in parts:
        state.put(("delegation", member_id, part.candidate_id), part.weight)


def _propose(state: State, member_id: str, proposal: Any, tx_id: bytes, height: int, time_ms: int) -> None:
    if not time_ms < proposal.expires_ms <= time_ms + PROPOSAL_LIFETIME_MS_MAX:
        raise Refused("expires_ms", "expired, or open for more than 30 days")
    for key, entry in state.of("proposal"):
        if entry.proposal.expires_ms <= time_ms:
            state.put(key, None)
    if sum(entry.proposer == member_id for _, entry in state.of("proposal")) >= 8:
        raise Refused("proposals", "too many proposals of this member are open")
    _check_proposal(state, proposal)
    _count(state, tx_id, PROPOSAL_ENTRY(member_id, proposal, [member_id]), height)


def _approve(state: State, member_id: str, proposal_id: bytes, height: int, time_ms: int) -> None:
    entry = state.get("proposal", proposal_id)
    if entry is None or entry.proposal.expires_ms <= time_ms:
        raise Refused("proposal_id", "no open proposal")
    if member_id in entry.approvals:
        raise Refused("proposal_id", "approved already")
    _count(state, proposal_id, entry._replace(approvals=sorted([*entry.approvals, member_id])), height)


def _count(state: State, proposal_id: bytes, entry: Any, height: int) -> None:
    weights = {key[1]: member.weight for key, member in state.of("member")}
    if 3 * sum(weights.get(name, 0) for name in entry.approvals) < 2 * sum(weights.values()):
        state.put(("proposal", proposal_id), entry)
        return
    state.put(("proposal", proposal_id), None)
    _check_proposal(state, entry.proposal)
    _carry_out(state, entry.proposal, height)


def _check_proposal(state: State, proposal: Any) -> None:
    """Check that a proposal can be carried out on the present state."""
    action, name = proposal.action, proposal.member_id
    is_member = state.get("member", name) is not None
    members = sum(1 for _ in state.of("member"))
    if action == 5:
        return
    if action == 1:
        if is_member or members >= 1_000:
            raise Refused("proposal.member_id", "a member already, or too many")
        for index, key in enumerate(proposal.keys):
            if state.get("key", key_id_of(key.public_key)):
                raise Refused(f"proposal.keys[{index}].public_key", "the chain knows this key")
    elif not is_member:
        raise Refused("proposal.member_id", "no member")
    elif action == 3 and members == 1:
        raise Refused("proposal.member_id", "the last member")
    elif action == 4 and not state.get("struck", name):
        raise Refused("proposal.member_id", "the member was not struck")


def _carry_out(state: State, proposal: Any, height: int) -> None:
    action, name = proposal.action, proposal.member_id
    if action == 1:
        state.put(("member", name), MEMBER_ENTRY(proposal.weight, height))
        for key in proposal.keys:
            entry = KEY_ENTRY(name, key.public_key, key.roles, ACTIVE)
            state.put(("key", key_id_of(key.public_key)), entry)
    elif action == 2:
        state.put(("member", name), state.entries["member", name]._replace(weight=proposal.weight))
        left = proposal.weight
        for key, weight in sorted(state.of("delegation")):
            if key[1] == name:
                state.put(key, min(weight, left) or None)
                left -= min(weight, left)
    elif action == 3:
        _remove(state, name)
    elif action == 4:
        state.put(("struck", name), None)
        state.put(("member", name), state.entries["member", name]._replace(cleared_height=height))
    else:
        state.put(("parameters",), state.parameters._replace(producer_count=proposal.seats))


def _remove(state: State, name: str) -> None:
    for kind in ("member", "candidate", "struck"):
        state.put((kind, name), None)
    for key, _ in state.of("delegation"):
        if name in key[1:]:
            state.put(key, None)
    for key, entry in state.of("key"):
        if entry.member_id == name and entry.standing != REVOKED:
            _end_key(state, key[1])
    for key, entry in state.of("proposal"):
        if name in entry.approvals:
            state.put(key, entry._replace(approvals=[other for other in entry.approvals if other != name]))


def _strike(state: State, evidence: Any, height: int) -> None:
    key = state.get("key", key_id_of(evidence.public_key))
    member = state.get("member", key.member_id) if key else None
    if member is None or key.standing == REVOKED or state.get("struck", key.member_id):
        raise Refused("public_key", "no key of a member that can be struck")
    heights = [vote.t_height for vote in evidence.votes] + [signed.header.height for signed in evidence.headers]
    if max(heights) <= member.cleared_height:
        raise Refused("evidence", "settled")
    state.put(("struck", key.member_id), STRUCK_ENTRY(height, 0))
