"""Private fields in a receipt: whichever are shown are proven, and nothing else can be said in their place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from audit.receipt import verify_receipt
from audit.receipt_file import FinalProof, compact, expand, pack, pack_path, unpack, unpack_bytes, unpack_path
from audit.revealed import add_revealed, parse_names, shown_text
from ledger.codec import encode
from ledger.commitment import PRIVATE_FIELDS, PrivateField, PrivatePart, party_commitment
from ledger.errors import FieldError, InvalidProof
from ledger.readable import to_readable
from tests.audit.receipt_world import World, large_record, reveal

FIELDS = st.lists(st.binary(max_size=40) | st.text(max_size=12).map(str.encode), min_size=7, max_size=7)
NAMES = st.sets(st.sampled_from(PRIVATE_FIELDS), min_size=1)


def part_of(values: list[bytes]) -> PrivatePart:
    """Return a private part of any bytes: platforms report text that is none."""
    return PrivatePart(
        [
            PrivateField(name, bytes([number]) * 32, value)
            for number, (name, value) in enumerate(zip(PRIVATE_FIELDS, values, strict=True))
        ]
    )


def world_of(part: PrivatePart) -> World:
    record = structs.replace(large_record(), party_commitment=party_commitment(part))
    return World(entries=4, blocks=9, record=record)


def named(fields: tuple[PrivateField, ...]) -> dict[str, bytes]:
    return {field.name: field.value for field in fields}


@settings(max_examples=30)
@given(FIELDS, NAMES, NAMES)
def test_what_is_shown_is_proven_and_the_rest_stays_hidden(
    values: list[bytes], first: set[str], more: set[str]
) -> None:
    part, kept = part_of(values), dict(zip(PRIVATE_FIELDS, values, strict=True))
    world = world_of(part)
    receipt = world.receipt()
    for names in (first, more):
        receipt = add_revealed(receipt, [reveal(name, part) for name in names])
    verdict = verify_receipt(receipt, world.genesis)
    assert named(verdict.revealed) == {name: kept[name] for name in first | more}
    assert [field.name for field in verdict.revealed] == [name for name in PRIVATE_FIELDS if name in first | more]
    document = json.loads(receipt)
    assert document["personal_data"] == 1
    assert {one["name"] for one in document["revealed"]} == first | more
    assert add_revealed(receipt, []) == receipt
    hidden = [field.salt.hex() for field in part.fields if field.name not in first | more]
    assert [salt for salt in hidden if salt in receipt.decode()] == []


@settings(max_examples=30)
@given(FIELDS, st.sampled_from(PRIVATE_FIELDS), st.binary(max_size=40))
def test_no_other_value_can_be_shown(values: list[bytes], name: str, other: bytes) -> None:
    part = part_of(values)
    world, shown = world_of(part), reveal(name, part)
    if other == shown.field.value:
        return
    with pytest.raises(InvalidProof) as caught:
        add_revealed(world.receipt(), [type(shown)(structs.replace(shown.field, value=other), shown.path)])
    assert caught.value.where == "revealed[0]"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "value", "value_hex", "salt", "path"]), inner)
    ),
    max_leaves=8,
)
WORLD = World(entries=4, blocks=9)
RECEIPT = json.loads(WORLD.receipt(("callee",)))


@settings(max_examples=40)
@given(JSON_VALUES)
def test_anything_else_in_its_place_is_refused(value: Any) -> None:
    with pytest.raises(InvalidProof) as caught:
        verify_receipt(json.dumps({**RECEIPT, "revealed": value}).encode(), WORLD.genesis)
    assert caught.value.where.startswith("revealed")


@pytest.mark.parametrize("name", ["name", "value", "salt", "path"])
@settings(max_examples=40)
@given(value=JSON_VALUES)
def test_anything_else_in_a_field_is_refused(name: str, value: Any) -> None:
    [shown] = RECEIPT["revealed"]
    with pytest.raises(InvalidProof) as caught:
        verify_receipt(json.dumps({**RECEIPT, "revealed": [{**shown, name: value}]}).encode(), WORLD.genesis)
    assert caught.value.where.startswith("revealed[0]")


def test_names_on_a_command_line() -> None:
    assert parse_names("all") == PRIVATE_FIELDS
    assert parse_names("raw,caller,raw") == ("caller", "raw")
    for wrong in ("", "caller,", "all,caller", "Caller", "number"):
        with pytest.raises(FieldError):
            parse_names(wrong)


def test_a_value_cannot_move_a_terminals_cursor() -> None:
    assert shown_text(PrivateField("caller", bytes(32), b"\x1b[2Jme")) == "\\x1b[2Jme"
    assert shown_text(PrivateField("caller", bytes(32), "J\u00f6rg \u2603".encode())) == "J\u00f6rg \u2603"


# -- what is packed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pending", [None, ("echo",), ("alfa", "echo")])
def test_a_proof_without_what_its_reader_knows_is_the_same_proof(pending: tuple[str, ...] | None) -> None:
    world = World()
    proof = world.proof(7, world.founders, pending)
    assert expand(unpack(pack(compact(proof)), FinalProof, where=""), world.founders) == proof
    assert len(encode(compact(proof))) < len(encode(proof)) * 3 // 4
    assert to_readable(compact(proof))["header"] == to_readable(proof.header)


@given(st.text(max_size=8) | st.text("AB+/=", max_size=8))
def test_base64_has_one_spelling(text: str) -> None:
    try:
        data = unpack_bytes(text, where="here")
    except InvalidProof:
        return
    assert pack_path([data]) == text


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=9))
def test_paths_have_whole_hashes_and_a_bound(hashes: list[bytes]) -> None:
    assert unpack_path(pack_path(hashes), where="", hashes_max=9) == hashes
    for wrong in ([*hashes, b"x"], [*hashes, *[bytes(32)] * 9, bytes(32)]):
        with pytest.raises(InvalidProof, match="not a path"):
            unpack_path(pack_path(wrong), where="", hashes_max=9)
