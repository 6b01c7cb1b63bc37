"""Genesis: the first members, the parameters and the rules, from which everything else follows.

``genesis.json`` is the readable form; ``chain_id = H("genesis", canonical MessagePack)``. One function maps each way.

Source: docs/protocol.md, "Genesis".
"""

from __future__ import annotations

from enum import IntFlag
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ledger.codec import U16, Bytes20, Bytes32, Bytes33, Count, MemberId, TimeMs, Wire, decode, encode
from ledger.crypto import check_public_key, hash_of, key_id_of
from ledger.errors import ConfigError, LedgerError
from ledger.readable import from_readable, parse_json, to_readable

GENESIS_BYTES_MAX = 1024 * 1024
MEMBERS_MAX = 1_000
KEYS_MAX = 64
PRODUCERS_MAX = 21

Name = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z", max_length=64, description="1 to 64 of a-z, 0-9, dot, _ and -")
]
Endpoint = Annotated[
    str,
    Meta(
        pattern=r"^(wss?://[A-Za-z0-9.:\[\]_-]{1,200})?\Z",
        max_length=208,
        description="ws://HOST:PORT or wss://HOST:PORT",
    ),
]
Zone = Annotated[
    str, Meta(pattern=r"^([A-Z]{2}(-[A-Z0-9]{1,3})?)?\Z", max_length=6, description="a zone as GB or US-CA")
]


class Role(IntFlag):
    """What a member's key may do."""

    NODE = 1
    """Peering, blocks, votes."""
    SUBMIT = 2
    """Transactions of records."""
    GOVERN = 4
    """Delegation, membership, rules."""


class Parameters(Wire, frozen=True):
    """Numbers every node of the chain shares."""

    slot_ms: Annotated[int, Meta(ge=100, le=60_000)]
    epoch_slots: Annotated[int, Meta(ge=1, le=1_000_000)]
    producer_count: Annotated[int, Meta(ge=1, le=PRODUCERS_MAX)]
    """Seats; at least 4 to tolerate one fault."""
    max_unfinal: Annotated[int, Meta(ge=2, le=10_000)]
    """Blocks without finality after which empty blocks wait for a quorum to be heard."""
    heartbeat_slots: Annotated[int, Meta(ge=1, le=1_000_000)]
    """An idle chain seals an empty block this often."""
    record_window_ms: Annotated[int, Meta(ge=60_000, le=366 * 86_400_000)]
    """Records that ended longer ago than this, in block time, are refused."""
    block_records_max: Annotated[int, Meta(ge=1, le=1_000_000)]
    block_bytes_max: Annotated[int, Meta(ge=1_024, le=256 * 1024 * 1024)]
    """Transaction bodies of one block."""
    member_share_milli: Annotated[int, Meta(ge=1, le=1_000)]
    """Thousandths of a block's records and bytes that one member may take."""
    carbon_basis: Literal["lifecycle", "direct"]
    """What CO2 figures include; tables of the other basis are not accepted."""


class MemberKey(Wire, frozen=True):
    """A key of a member, with its roles."""

    public_key: Bytes33
    roles: Annotated[int, Meta(ge=1, le=7)]
    """Sum of Role values."""


class Candidate(Wire, frozen=True):
    """A member that stands for a seat."""

    key_id: Bytes20
    """A key of the member with the node role: it seals and votes."""
    endpoint: Endpoint
    """Where peers reach it; may be empty."""
    grid_zone: Zone
    """Where its electricity comes from; may be empty."""


class GenesisMember(Wire, frozen=True):
    """A founding member."""

    member_id: MemberId
    weight: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    """Voting weight (stake)."""
    keys: Annotated[list[MemberKey], Meta(min_length=1, max_length=KEYS_MAX)]
    candidate: Candidate | None


class Delegation(Wire, frozen=True):
    """A part of a member's weight, given to a candidate."""

    member_id: MemberId
    candidate_id: MemberId
    weight: Annotated[int, Meta(ge=1, le=1_000_000_000)]


class TablePin(Wire, frozen=True):
    """A table of factors that the rules read."""

    table_id: Name
    sha256: Bytes32


class RuleParameter(Wire, frozen=True):
    """A parameter of a rule module that differs from its default."""

    name: Name
    value: Count


class RulePin(Wire, frozen=True):
    """A rule module in force, frozen by its version and its conformance vectors."""

    module: Name
    version: U16
    vectors_sha256: Bytes32
    parameters: Annotated[list[RuleParameter], Meta(max_length=64)]


class RuleSetPin(Wire, frozen=True):
    """The rules in force: modules and the tables they read."""

    modules: Annotated[list[RulePin], Meta(max_length=64)]
    tables: Annotated[list[TablePin], Meta(max_length=64)]


class Genesis(Wire, frozen=True):
    """The first state of a chain."""

    version: Literal[1]
    name: Name
    genesis_time_ms: TimeMs
    """Start of slot 0."""
    parameters: Parameters
    members: Annotated[list[GenesisMember], Meta(min_length=1, max_length=MEMBERS_MAX)]
    """Ascending by member_id."""
    delegations: Annotated[list[Delegation], Meta(max_length=MEMBERS_MAX * 4)]
    """Ascending by (member_id, candidate_id); a member's parts add up to at most its weight."""
    rules: RuleSetPin


def chain_id_of(genesis: Genesis) -> bytes:
    """Return the 32-byte id of the chain that ``genesis`` begins."""
    return hash_of("genesis", genesis)


def rule_set_id_of(pin: RuleSetPin) -> bytes:
    """Return the 32-byte id of a rule set."""
    return hash_of("rules", pin)


def genesis_to_json(genesis: Genesis) -> bytes:
    """Return the readable form, with the chain id beside it for people."""
    readable = {"chain_id": chain_id_of(genesis).hex(), **to_readable(genesis)}
    return msgspec.json.format(msgspec.json.encode(readable), indent=2) + b"\n"


def genesis_from_json(data: bytes, *, where: str = "genesis.json") -> Genesis:
    """Read the readable form and check it whole. Raises ConfigError naming file and field."""
    if len(data) > GENESIS_BYTES_MAX:
        raise ConfigError("too large", where=where, expected=f"at most {GENESIS_BYTES_MAX} bytes", actual=len(data))
    try:
        document = parse_json(data)
        is_stated = isinstance(document, dict) and "chain_id" in document
        stated = document.pop("chain_id") if is_stated else None
        genesis = from_readable(document, Genesis)
        check_genesis(genesis)
        genesis = decode(encode(genesis), Genesis)
    except LedgerError as error:
        place = f"{where}: {error.where}" if error.where else where
        raise ConfigError(
            error.what, where=place, expected=error.expected, actual=error.actual, hint=error.hint
        ) from None
    if is_stated and stated != chain_id_of(genesis).hex():
        raise ConfigError(
            "the chain_id written in the file is not that of its contents",
            where=f"{where}: chain_id",
            expected=chain_id_of(genesis).hex(),
            actual=stated,
            hint="The file was edited after it was made; ask the chain's founders for the original",
        )
    return genesis


def check_genesis(genesis: Genesis) -> None:
    """Raise ConfigError where the parts of a genesis do not fit together."""
    ids = [member.member_id for member in genesis.members]
    if ids != sorted(set(ids)):
        raise ConfigError("members must be ascending and unique", where="members")
    seen: set[bytes] = set()
    for member in genesis.members:
        _check_member(member, seen)
    _check_delegations(genesis)
    if not any(member.candidate for member in genesis.members):
        raise ConfigError("nobody stands for a seat", where="members", expected="at least one candidate")
    modules = [rule.module for rule in genesis.rules.modules]
    if modules != sorted(set(modules)):
        raise ConfigError("rule modules must be ascending and unique", where="rules.modules")
    for rule in genesis.rules.modules:
        names = [parameter.name for parameter in rule.parameters]
        if names != sorted(set(names)):
            raise ConfigError(
                "parameters must be ascending and unique", where=f"rules.modules.{rule.module}.parameters"
            )
    tables = [table.table_id for table in genesis.rules.tables]
    if tables != sorted(set(tables)):
        raise ConfigError("tables must be ascending and unique", where="rules.tables")


def _check_member(member: GenesisMember, seen: set[bytes]) -> None:
    where = f"members.{member.member_id}"
    roles: dict[bytes, int] = {}
    for index, key in enumerate(member.keys):
        check_public_key(key.public_key, where=f"{where}.keys[{index}].public_key")
        key_id = key_id_of(key.public_key)
        if key_id in seen:
            raise ConfigError(
                "a key may be listed once and belong to one member only", where=f"{where}.keys[{index}]", actual=key_id
            )
        seen.add(key_id)
        roles[key_id] = key.roles
    candidate = member.candidate
    if candidate and not roles.get(candidate.key_id, 0) & Role.NODE:
        raise ConfigError(
            "the candidate's key must be a key of the member with the node role",
            where=f"{where}.candidate.key_id",
            actual=candidate.key_id,
        )


def _check_delegations(genesis: Genesis) -> None:
    order = [(d.member_id, d.candidate_id) for d in genesis.delegations]
    if order != sorted(set(order)):
        raise ConfigError("delegations must be ascending and unique", where="delegations")
    left = {member.member_id: member.weight for member in genesis.members}
    candidates = {member.member_id for member in genesis.members if member.candidate}
    for delegation in genesis.delegations:
        if delegation.member_id not in left or delegation.candidate_id not in candidates:
            raise ConfigError(
                "names a member or candidate that does not exist",
                where="delegations",
                actual=f"{delegation.member_id} -> {delegation.candidate_id}",
            )
        left[delegation.member_id] -= delegation.weight
        if left[delegation.member_id] < 0:
            raise ConfigError("delegates more than its weight", where=f"delegations.{delegation.member_id}")
