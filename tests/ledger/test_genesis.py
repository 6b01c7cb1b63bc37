"""Genesis: one readable form, one id, and every way in which its parts may not fit together."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.codec import encode
from ledger.crypto import hash_of
from ledger.errors import ConfigError
from ledger.genesis import (
    GENESIS_BYTES_MAX,
    Parameters,
    Role,
    RuleSetPin,
    chain_id_of,
    check_genesis,
    genesis_from_json,
    genesis_to_json,
    rule_set_id_of,
)
from ledger.rules.ruleset import default_rule_set_pin
from tests.ledger.ledger_samples import CHAIN_ID, GENESIS, NODE_KEYS, SUBMIT_KEY, make_genesis

Document = dict[str, Any]


def read(document: Any) -> None:
    genesis_from_json(json.dumps(document).encode())


def fresh() -> Document:
    document: Document = json.loads(genesis_to_json(make_genesis(rules=default_rule_set_pin("lifecycle"))))
    del document["chain_id"]
    return document


def test_there_and_back() -> None:
    text = genesis_to_json(GENESIS)
    assert genesis_from_json(text) == GENESIS
    assert json.loads(text)["chain_id"] == CHAIN_ID.hex()
    assert next(iter(json.loads(text))) == "chain_id"
    assert genesis_from_json(json.dumps(fresh()).encode()) == make_genesis(rules=default_rule_set_pin("lifecycle"))
    check_genesis(GENESIS)


def test_ids() -> None:
    assert chain_id_of(GENESIS) == hash_of("genesis", GENESIS)
    assert rule_set_id_of(RuleSetPin([], [])) == hash_of("rules", [[], []])


def test_layout_and_order_of_fields_do_not_matter_but_contents_do() -> None:
    document = fresh()
    swapped = json.dumps(dict(reversed(document.items())), indent=7).encode()
    assert genesis_from_json(swapped) == genesis_from_json(json.dumps(document).encode())
    document["genesis_time_ms"] += 1
    changed = genesis_from_json(json.dumps(document).encode())
    assert chain_id_of(changed) != chain_id_of(genesis_from_json(swapped))


@pytest.mark.parametrize("stated", [None, "", "00" * 32, 5, {}])
def test_the_chain_id_written_in_the_file_must_be_that_of_its_contents(stated: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        read({**fresh(), "chain_id": stated})
    assert caught.value.where == "genesis.json: chain_id"
    assert "was edited" in caught.value.hint


def members(document: Document) -> Any:
    return document["members"]


def swap(items: list[Any]) -> None:
    items[0], items[1] = items[1], items[0]


ANOTHER_KEY = "02" + "00" * 31 + "05"

FAULTS: list[tuple[str, Callable[[Document], Any], str, str]] = [
    ("members unordered", lambda d: swap(members(d)), "members", "members must be ascending and unique"),
    ("member twice", lambda d: members(d).insert(0, members(d)[0]), "members", "members must be ascending and unique"),
    (
        "key of two members",
        lambda d: members(d)[1]["keys"].append(members(d)[0]["keys"][0]),
        "members.bora.keys[1]",
        "a key may be listed once and belong to one member only",
    ),
    (
        "key twice in one member",
        lambda d: members(d)[0]["keys"].append({**members(d)[0]["keys"][0], "roles": 2}),
        "members.alba.keys[2]",
        "a key may be listed once and belong to one member only",
    ),
    (
        "no point",
        lambda d: members(d)[2]["keys"][0].update(public_key="02" + "ff" * 32),
        "members.cima.keys[0].public_key",
        "not a compressed point on P-256",
    ),
    (
        "candidate with a key that is not its own",
        lambda d: members(d)[1]["candidate"].update(key_id=NODE_KEYS["alba"].key_id.hex()),
        "members.bora.candidate.key_id",
        "the candidate's key must be a key of the member with the node role",
    ),
    (
        "candidate with a submit key",
        lambda d: members(d)[0]["candidate"].update(key_id=SUBMIT_KEY.key_id.hex()),
        "members.alba.candidate.key_id",
        "the candidate's key must be a key of the member with the node role",
    ),
    (
        "nobody stands",
        lambda d: [d.update(delegations=[]), *(m.update(candidate=None) for m in members(d))],
        "members",
        "nobody stands for a seat",
    ),
    ("delegations unordered", lambda d: swap(d["delegations"]), "delegations", "must be ascending and unique"),
    (
        "delegation twice",
        lambda d: d["delegations"].insert(0, {**d["delegations"][0], "weight": 1}),
        "delegations",
        "must be ascending and unique",
    ),
    (
        "delegation of nobody",
        lambda d: d["delegations"].append({"member_id": "zeta", "candidate_id": "alba", "weight": 1}),
        "delegations",
        "names a member or candidate that does not exist",
    ),
    (
        "delegation to nobody",
        lambda d: members(d)[3].update(candidate=None),
        "delegations",
        "names a member or candidate that does not exist",
    ),
    (
        "delegates too much",
        lambda d: d["delegations"][2].update(weight=101),
        "delegations.cima",
        "delegates more than its weight",
    ),
    (
        "delegates too much in two parts",
        lambda d: d["delegations"].insert(1, {"member_id": "alba", "candidate_id": "bora", "weight": 1}),
        "delegations.alba",
        "delegates more than its weight",
    ),
    ("delegates nothing", lambda d: d["delegations"][0].update(weight=0), "delegations[0].weight", "Expected"),
    ("modules unordered", lambda d: swap(d["rules"]["modules"]), "rules.modules", "rule modules must be ascending"),
    ("tables unordered", lambda d: swap(d["rules"]["tables"]), "rules.tables", "tables must be ascending and unique"),
    (
        "parameter twice",
        lambda d: d["rules"]["modules"][0].update(parameters=2 * [{"name": "packet_slack", "value": 2}]),
        "rules.modules.call-shape.parameters",
        "parameters must be ascending and unique",
    ),
    ("no members", lambda d: d.update(members=[]), "members", "Expected"),
    ("member without keys", lambda d: members(d)[0].update(keys=[]), "members[0].keys", "Expected"),
    ("name", lambda d: d.update(name="Not a name"), "name", "not of the form"),
    ("member name", lambda d: members(d)[0].update(member_id="Älba"), "members[0].member_id", "not of the form"),
    ("endpoint", lambda d: members(d)[0]["candidate"].update(endpoint="http://a"), "members[0].candidate.endpoint", ""),
    ("zone", lambda d: members(d)[0]["candidate"].update(grid_zone="de"), "members[0].candidate.grid_zone", ""),
    ("basis", lambda d: d["parameters"].update(carbon_basis="mixed"), "parameters.carbon_basis", "Invalid"),
    ("version", lambda d: d.update(version=2), "version", "Invalid"),
    ("unknown field", lambda d: d["parameters"].update(colour=1), "parameters.colour", "unknown field"),
    ("missing field", lambda d: d["parameters"].pop("slot_ms"), "parameters.slot_ms", "missing field"),
    ("float", lambda d: d["parameters"].update(slot_ms=1000.0), "parameters.slot_ms", "wrong type"),
]


@pytest.mark.parametrize(("change", "where", "what"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_every_fault_names_file_and_field(change: Callable[[Document], Any], where: str, what: str) -> None:
    document = fresh()
    change(document)
    with pytest.raises(ConfigError) as caught:
        read(document)
    assert caught.value.where == f"genesis.json: {where}"
    assert what in caught.value.what


BOUNDS = {
    "slot_ms": (100, 60_000),
    "epoch_slots": (1, 1_000_000),
    "producer_count": (1, 21),
    "max_unfinal": (2, 10_000),
    "heartbeat_slots": (1, 1_000_000),
    "record_window_ms": (60_000, 366 * 86_400_000),
    "block_records_max": (1, 1_000_000),
    "block_bytes_max": (1_024, 256 * 1024 * 1024),
    "member_share_milli": (1, 1_000),
}


@pytest.mark.parametrize("name", [name for name in Parameters.__struct_fields__ if name != "carbon_basis"])
def test_bounds_of_parameters(name: str) -> None:
    low, high = BOUNDS[name]
    for value in (low, high):
        document = fresh()
        document["parameters"][name] = value
        read(document)
    for value in (low - 1, high + 1):
        document = fresh()
        document["parameters"][name] = value
        with pytest.raises(ConfigError) as caught:
            read(document)
        assert caught.value.where == f"genesis.json: parameters.{name}"


@pytest.mark.parametrize("roles", [0, 8])
def test_roles_are_a_sum_of_three(roles: int) -> None:
    assert [role.value for role in Role] == [1, 2, 4]
    document = fresh()
    document["members"][0]["keys"][0]["roles"] = roles
    with pytest.raises(ConfigError) as caught:
        read(document)
    assert caught.value.where == "genesis.json: members[0].keys[0].roles"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff", b"[" * 10_000, b"NaN"])
def test_what_is_no_genesis(data: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        genesis_from_json(data, where="dir/g.json")
    assert caught.value.where.startswith("dir/g.json")


def test_a_file_too_large_is_not_read() -> None:
    with pytest.raises(ConfigError) as caught:
        genesis_from_json(b" " * (GENESIS_BYTES_MAX + 1))
    assert (caught.value.what, caught.value.where) == ("too large", "genesis.json")


def test_a_field_given_twice_is_refused() -> None:
    """Programs differ in which of the two they take: two nodes would read two chains out of one file."""
    text = genesis_to_json(GENESIS).replace(b'"slot_ms": 1000', b'"slot_ms": 500, "slot_ms": 1000')
    with pytest.raises(ConfigError) as caught:
        genesis_from_json(text)
    assert (caught.value.where, caught.value.what) == ("genesis.json: slot_ms", "given twice")


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_files_raise_only_config_errors_or_hold(data: st.DataObject) -> None:
    text = bytearray(genesis_to_json(GENESIS))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = genesis_from_json(bytes(text))
    except ConfigError as error:
        assert error.where.startswith("genesis.json")  # noqa: PT017
    else:
        assert encode(found) == encode(GENESIS)
