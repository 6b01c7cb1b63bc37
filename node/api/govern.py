"""Who governs the chain, produces its blocks and votes: the state at the tip, and proofs of what is final.

Source: docs/api.md, "Governance".
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web

from audit.final import FinalReader
from consensus.params import faults_tolerated, quorum_of
from ledger.codec import decode
from ledger.entries import KeyEntry, KeyStanding, Producer
from ledger.errors import EncodingError
from ledger.genesis import Role
from ledger.readable import to_readable
from ledger.state import State, StateKey, entry_type, state_path
from ledger.transition import block_time_ms
from node.api.backend import Backend
from node.api.parts import CONTEXT
from node.api.problems import NotFound, json_response
from node.api.views import point_view

PARTS: Final = {
    "member": 1,
    "key": 1,
    "candidate": 1,
    "delegation": 2,
    "proposal": 1,
    "struck": 1,
    "parameters": 0,
    "rules": 0,
    "epoch": 0,
    "turns": 0,
    "voting": 0,
}
"""Parts of an entry's key behind its kind."""
BYTES_PARTS: Final = {"key": 20, "proposal": 32}
"""Kinds that are named by byte strings, and their lengths."""


async def get_members(request: web.Request) -> web.Response:
    """Return every member."""
    node = request.app[CONTEXT].node
    state = _state(node)
    total = sum(member.weight for member in state.members.values())
    sums = _delegation_sums(state)
    members = [member_view(state, name, *sums) for name in sorted(state.members)]
    return json_response({"at": point_view(node, node.engine.head), "weight": total, "members": members})


async def get_member(request: web.Request) -> web.Response:
    """Return a member with its keys, its candidacy, and what it delegates and is delegated."""
    node = request.app[CONTEXT].node
    state, name = _state(node), request.match_info["member_id"]
    if name not in state.members:
        raise NotFound("no such member", where="member_id", actual=name)
    view = member_view(state, name, *_delegation_sums(state))
    view["keys"] = [key_view(state, key_id) for key_id, key in sorted(state.keys.items()) if key.member_id == name]
    view["delegates"] = {to: weight for (by, to), weight in sorted(state.delegations.items()) if by == name}
    view["delegated_by"] = {by: weight for (by, to), weight in sorted(state.delegations.items()) if to == name}
    return json_response({"at": point_view(node, node.engine.head), **view})


async def get_keys(request: web.Request) -> web.Response:
    """Return the keys of the chain, ended ones included; with ``?member_id=`` those of one member."""
    node = request.app[CONTEXT].node
    state, wanted = _state(node), request.query.get("member_id")
    found = [key_id for key_id, key in state.keys.items() if wanted is None or key.member_id == wanted]
    views = sorted((key_view(state, key_id) for key_id in found), key=lambda v: (v["member_id"], v["key_id"]))
    return json_response({"at": point_view(node, node.engine.head), "keys": views})


async def get_candidates(request: web.Request) -> web.Response:
    """Return who stands, most weight first, and who delegates to whom."""
    node = request.app[CONTEXT].node
    state = _state(node)
    delegated_by: dict[str, dict[str, int]] = {}
    for (by, to), weight in sorted(state.delegations.items()):
        delegated_by.setdefault(to, {})[by] = weight
    candidates = [
        {
            "member_id": name,
            **to_readable(candidate),
            "weight": sum(delegated_by.get(name, {}).values()),
            "is_struck": name in state.struck,
            "delegated_by": delegated_by.get(name, {}),
        }
        for name, candidate in state.candidates.items()
    ]
    candidates.sort(key=lambda view: (-view["weight"], view["member_id"]))
    return json_response({"at": point_view(node, node.engine.head), "candidates": candidates})


async def get_proposals(request: web.Request) -> web.Response:
    """Return the proposals that are open."""
    node = request.app[CONTEXT].node
    state = _state(node)
    total = sum(member.weight for member in state.members.values())
    now_ms = block_time_ms(node.genesis, max(node.engine.head.slot, 0))
    proposals = [
        {
            "proposal_id": proposal_id.hex(),
            "proposer": entry.proposer,
            "proposal": to_readable(entry.proposal),
            "approvals": entry.approvals,
            "weight": sum(state.members[name].weight for name in entry.approvals if name in state.members),
            "weight_needed": -(-2 * total // 3),
        }
        for proposal_id, entry in state.proposals.items()
        if entry.proposal.expires_ms > now_ms
    ]
    proposals.sort(key=lambda view: (view["proposal"]["expires_ms"], view["proposal_id"]))
    return json_response({"at": point_view(node, node.engine.head), "proposals": proposals})


async def get_producers(request: web.Request) -> web.Response:
    """Return who seals and votes, and what of that is changing."""
    return json_response(producers_view(request.app[CONTEXT].node))


async def get_state(request: web.Request) -> web.Response:
    """Return an entry of the final state, or its absence, with all that proves it to whoever has the genesis file."""
    key = parse_state_key(request.query.get("key", ""))
    return json_response(await asyncio.to_thread(state_proof, request.app[CONTEXT].reader, key))


def state_proof(reader: FinalReader, key: StateKey) -> dict[str, Any]:
    """Return an entry of the final state with its proof. Raises NotFound before anything is final."""
    view = reader.view()
    if view is None:
        raise NotFound(
            "nothing is final yet",
            where="height",
            actual=0,
            hint="Ask again once a block is final; until then the genesis file says all",
        )
    path = state_path(*key)
    value, proof = view.tree.get(path), view.tree.prove(path)
    final = view.voting_proof()
    # Those that lead to its current set: one that is still pending there proves nothing about it.
    changes = reader.set_changes()[: final.voting.set_id]
    return {
        "key": [part.hex() if isinstance(part, bytes) else part for part in key],
        "value": None if value is None else to_readable(decode(value, entry_type(key))),
        "value_encoded": None if value is None else value.hex(),
        "siblings": [sibling.hex() for sibling in proof.siblings],
        "other_path": proof.other_path.hex(),
        "other_value": proof.other_value.hex(),
        "final": to_readable(final),
        "set_changes": [to_readable(change) for change in changes],
    }


def parse_state_key(text: str) -> StateKey:
    """Return the key that ``KIND/PART/...`` names, byte strings in hex. Raises EncodingError."""
    kind, *parts = text.split("/")
    length = BYTES_PARTS.get(kind, 0)
    is_good = PARTS.get(kind) == len(parts) and all(part.isascii() and len(part) <= 64 for part in parts)
    if is_good and length:
        is_good = len(parts[0]) == 2 * length and not set(parts[0]) - set("0123456789abcdef")
    if not is_good:
        kinds = [f"{name}/NAME/NAME" if n == 2 else f"{name}/NAME" if n else name for name, n in PARTS.items()]
        raise EncodingError("not an entry of the state", where="key", expected=" | ".join(kinds), actual=text)
    return (kind, *(bytes.fromhex(part) if length else part for part in parts))


def member_view(state: State, name: str, given: dict[str, int], received: dict[str, int]) -> dict[str, Any]:
    """Return a member in a few facts; ``given`` and ``received``: the weight that members delegate, are delegated."""
    member, candidate, struck = state.members[name], state.candidates.get(name), state.struck.get(name)
    voting = state.voting
    return {
        "member_id": name,
        "weight": member.weight,
        "delegated": given.get(name, 0),
        "candidate": to_readable(candidate),
        "candidate_weight": received.get(name, 0) if candidate else 0,
        "seat": _rank(state.epoch.seats, name),
        "votes": _rank(voting.producers, name) is not None,
        "struck": to_readable(struck),
        "cleared_height": member.cleared_height,
    }


def key_view(state: State, key_id: bytes) -> dict[str, Any]:
    """Return a key with its roles in words."""
    key: KeyEntry = state.keys[key_id]
    return {
        "key_id": key_id.hex(),
        "member_id": key.member_id,
        "public_key": key.public_key.hex(),
        "roles": role_names(key.roles),
        "standing": KeyStanding(key.standing).name.lower(),
    }


def role_names(roles: int) -> list[str]:
    """Return the names of roles, ``node``, ``submit``, ``govern``."""
    return [str(role.name).lower() for role in Role if roles & role]


def _delegation_sums(state: State) -> tuple[dict[str, int], dict[str, int]]:
    """Return by member the weight it delegates, and the weight it is delegated."""
    given: dict[str, int] = {}
    received: dict[str, int] = {}
    for (by, to), weight in state.delegations.items():
        given[by] = given.get(by, 0) + weight
        received[to] = received.get(to, 0) + weight
    return given, received


def producers_view(node: Backend) -> dict[str, Any]:
    """Return the seats with their turns, the voting set, what of it changes, who was struck, and the next election."""
    head = node.engine.head
    state, schedule = head.chain.state, head.schedule
    voting, parameters = state.voting, state.parameters
    next_slot = (schedule.epoch + 1) * schedule.epoch_slots
    pending = voting.pending
    return {
        "at": point_view(node, head),
        "quorum": quorum_of(len(voting.producers)),
        "faults_tolerated": faults_tolerated(len(voting.producers)),
        "producer_count": parameters.producer_count,
        "epoch": schedule.epoch,
        "next_epoch_slot": next_slot,
        "next_epoch_ms": block_time_ms(node.genesis, next_slot),
        "producers": [
            {
                **_producer_view(state, rank, producer),
                "sealed": turn.sealed,
                "missed": turn.missed,
                "votes": producer in voting.producers,
            }
            for rank, (producer, turn) in enumerate(zip(state.epoch.seats, state.turns.turns, strict=True))
        ],
        "voting": {
            "set_id": voting.set_id,
            "producers": [
                {**_producer_view(state, rank, p), "last_vote_height": node.last_vote_height(p.key_id)}
                for rank, p in enumerate(voting.producers)
            ],
        },
        "pending": None
        if pending is None
        else {
            "set_id": voting.set_id + 1,
            "height": pending.height,
            "quorum": quorum_of(len(pending.producers)),
            "producers": [_producer_view(state, rank, p) for rank, p in enumerate(pending.producers)],
        },
        "struck": [{"member_id": name, **to_readable(entry)} for name, entry in sorted(state.struck.items())],
    }


def _producer_view(state: State, rank: int, producer: Producer) -> dict[str, Any]:
    candidate = state.candidates.get(producer.member_id)
    return {
        "rank": rank,
        "member_id": producer.member_id,
        "key_id": producer.key_id.hex(),
        "public_key": producer.public_key.hex(),
        "endpoint": candidate.endpoint if candidate else "",
        "grid_zone": candidate.grid_zone if candidate else "",
    }


def _rank(producers: list[Producer], name: str) -> int | None:
    return next((rank for rank, producer in enumerate(producers) if producer.member_id == name), None)


def _state(node: Backend) -> State:
    return node.engine.head.chain.state
