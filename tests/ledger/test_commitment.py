"""The private part: seven salted leaves, each provable alone."""

from __future__ import annotations

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import merkle
from ledger.codec import decode, encode
from ledger.commitment import (
    PRIVATE_FIELDS,
    PRIVATE_TEXT_MAX,
    PrivateField,
    PrivatePart,
    check_field,
    field_leaf,
    make_private_part,
    party_commitment,
    prove_field,
)
from ledger.crypto import hash_of
from ledger.errors import FieldError, InvalidProof
from tests.ledger.ledger_samples import plain, values_of

SALTS = [bytes([i]) * 32 for i in range(7)]
VALUES = {"caller": "+442071838750", "callee": "sip:bob@example.net", "call_id": "x@y", "raw": "{}"}
PART = make_private_part(VALUES, SALTS)


def test_fields_are_in_their_order_and_absent_ones_are_empty() -> None:
    assert [field.name for field in PART.fields] == list(PRIVATE_FIELDS)
    assert [field.value for field in PART.fields] == [
        b"+442071838750",
        b"sip:bob@example.net",
        b"x@y",
        b"",
        b"",
        b"",
        b"{}",
    ]
    assert [field.salt for field in PART.fields] == SALTS


def test_the_commitment_is_a_tree_of_tagged_leaves() -> None:
    leaves = [hash_of("private", [f.name, f.salt, f.value]) for f in PART.fields]
    assert [field_leaf(f) for f in PART.fields] == leaves
    assert party_commitment(PART) == merkle.root_of(leaves)


@pytest.mark.parametrize("name", PRIVATE_FIELDS)
def test_each_field_is_provable_and_no_other_passes_for_it(name: str) -> None:
    root, path = party_commitment(PART), prove_field(PART, name)
    field = PART.fields[PRIVATE_FIELDS.index(name)]
    check_field(field, path, root)
    other = PRIVATE_FIELDS[PRIVATE_FIELDS.index(name) - 1]
    for changed in (
        msgspec.structs.replace(field, value=b"other"),
        msgspec.structs.replace(field, salt=bytes(31) + b"\x01"),
        msgspec.structs.replace(field, name=other),
    ):
        with pytest.raises(InvalidProof):
            check_field(changed, path, root)
    with pytest.raises(InvalidProof):
        check_field(field, path[:-1], root)
    with pytest.raises(InvalidProof):
        check_field(field, path, bytes(32))


def test_names_that_are_no_private_fields() -> None:
    with pytest.raises(FieldError) as caught:
        make_private_part({"colour": "red"}, SALTS)
    assert caught.value.where == "colour"
    with pytest.raises(FieldError) as caught:
        prove_field(PART, "colour")
    assert caught.value.where == "colour"
    with pytest.raises(InvalidProof) as proof:
        check_field(PrivateField("colour", SALTS[0], b""), [], bytes(32))  # type: ignore[arg-type]
    assert proof.value.where == "colour"


@pytest.mark.parametrize("salts", [[], SALTS[:6], [*SALTS, SALTS[0]], [*SALTS[:6], b"short"]])
def test_salts_are_seven_of_32_bytes(salts: list[bytes]) -> None:
    with pytest.raises(FieldError) as caught:
        make_private_part(VALUES, salts)
    assert (caught.value.where, caught.value.expected) == ("salts", "7 of 32 bytes")


def test_text_bounds() -> None:
    longest = "é" * (PRIVATE_TEXT_MAX // 2)
    assert make_private_part({"raw": longest}, SALTS).fields[6].value == longest.encode()
    with pytest.raises(FieldError) as caught:
        make_private_part({"raw": longest + "x"}, SALTS)
    assert (caught.value.where, caught.value.actual) == ("raw", str(PRIVATE_TEXT_MAX + 1))


def test_text_that_was_no_utf8_comes_out_as_it_was() -> None:
    text = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert make_private_part({"raw": text}, SALTS).fields[6].value == b"caf\xe9"


def test_a_lone_surrogate_is_a_field_error() -> None:
    with pytest.raises(FieldError) as caught:
        make_private_part({"caller": "\ud800"}, SALTS)
    assert caught.value.where == "caller"


def test_a_part_with_other_fields_or_another_order_does_not_decode() -> None:
    fields = plain(PART)[0]
    assert decode(encode(PART), PrivatePart) == PART
    for wrong in (fields[:6], [*fields, fields[0]], fields[::-1], [*fields[:6], fields[5]]):
        with pytest.raises(FieldError):
            decode(msgpack.packb([wrong]), PrivatePart)
    renamed = [["colour", *fields[0][1:]], *fields[1:]]
    with pytest.raises(FieldError) as caught:
        decode(msgpack.packb([renamed]), PrivatePart)
    assert caught.value.where == "fields[0].name"


@settings(max_examples=25, deadline=None)
@given(values_of(PrivatePart), st.integers(0, 6))
def test_any_change_changes_the_commitment(part: PrivatePart, index: int) -> None:
    fields = list(part.fields)
    fields[index] = msgspec.structs.replace(fields[index], value=fields[index].value + b"x")
    assert party_commitment(PrivatePart(fields)) != party_commitment(part)
