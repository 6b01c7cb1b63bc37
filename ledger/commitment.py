"""The private part of a call record, and the salted commitment that stands for it on the chain.

One leaf per field, each with its own 32-byte random salt: showing the caller does not show the callee, and
forgetting one subject leaves the other provable. A plain hash of a phone number would be no protection: all of a
numbering plan can be hashed in minutes.

Source: docs/protocol.md, "Private part".
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from msgspec import Meta

from ledger import merkle
from ledger.codec import Bytes32, Wire, encode
from ledger.crypto import hash_of, started_hash
from ledger.errors import FieldError, InvalidProof

PrivateName = Literal["caller", "callee", "call_id", "from_tag", "to_tag", "addresses", "raw"]
PRIVATE_FIELDS: tuple[str, ...] = get_args(PrivateName)
"""Every private field, in the order of the leaves. Absent ones are empty strings, with a leaf and a salt as well."""

_NAMES: tuple[PrivateName, ...] = get_args(PrivateName)
_KNOWN = frozenset(PRIVATE_FIELDS)
_ORDER = list(PRIVATE_FIELDS)
_LEAF_BEGUN = started_hash("private", b"")
_SALT_SIZES = [32] * len(PRIVATE_FIELDS)

PRIVATE_TEXT_MAX = 65_536

Text = Annotated[bytes, Meta(max_length=PRIVATE_TEXT_MAX)]


class PrivateField(Wire, frozen=True):
    """One private field with its salt; UTF-8 bytes."""

    name: PrivateName
    salt: Bytes32
    value: Text


class PrivatePart(Wire, frozen=True):
    """All private fields of one record, in the order of PRIVATE_FIELDS."""

    fields: Annotated[list[PrivateField], Meta(min_length=len(PRIVATE_FIELDS), max_length=len(PRIVATE_FIELDS))]

    def __post_init__(self) -> None:
        if [field.name for field in self.fields] != _ORDER:
            raise ValueError("the private fields are not in their order: " + ", ".join(PRIVATE_FIELDS))


def make_private_part(values: dict[str, str], salts: list[bytes]) -> PrivatePart:
    """Return the private part of ``values`` with one fresh 32-byte salt for each of PRIVATE_FIELDS.

    Raises FieldError for a name that is no private field, a value over PRIVATE_TEXT_MAX bytes, or one that is no text.
    """
    if not _KNOWN.issuperset(values):
        for name in values.keys() - _KNOWN:
            raise FieldError("not a private field", where=name, expected=", ".join(PRIVATE_FIELDS))
    if [len(salt) for salt in salts] != _SALT_SIZES:
        raise FieldError("wrong salts", where="salts", expected=f"{len(PRIVATE_FIELDS)} of 32 bytes")
    return PrivatePart(
        [
            PrivateField(name, salt, _bytes_of(name, values.get(name, "")))
            for name, salt in zip(_NAMES, salts, strict=True)
        ]
    )


def _bytes_of(name: str, text: str) -> bytes:
    """Return UTF-8; bytes that a platform reported and that were none come out as they were."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise FieldError("not text", where=name, expected="Unicode without lone surrogates") from None
    if len(data) > PRIVATE_TEXT_MAX:
        raise FieldError("too long", where=name, expected=f"at most {PRIVATE_TEXT_MAX} bytes", actual=len(data))
    return data


def field_leaf(field: PrivateField) -> bytes:
    """Return the leaf data of one field: ``H("private", [name, salt, value])``."""
    return hash_of("private", field)


def party_commitment(part: PrivatePart) -> bytes:
    """Return the 32-byte commitment that goes into the record."""
    begin = _LEAF_BEGUN.copy
    leaves = []
    # field_leaf of each, without a call for each: all records to be signed come by here.
    for field in part.fields:
        hasher = begin()
        hasher.update(encode(field))
        leaves.append(hasher.digest())
    return merkle.root_of(leaves)


def prove_field(part: PrivatePart, name: str) -> list[bytes]:
    """Return the path that proves one field under the commitment without showing the others.

    Raises FieldError for a name that is no private field.
    """
    if name not in PRIVATE_FIELDS:
        raise FieldError("not a private field", where=name, expected=", ".join(PRIVATE_FIELDS))
    leaves = [merkle.leaf_hash(field_leaf(field)) for field in part.fields]
    return merkle.inclusion_proof(leaves, PRIVATE_FIELDS.index(name))


def check_field(field: PrivateField, path: list[bytes], commitment: bytes) -> None:
    """Raise InvalidProof unless ``field`` is the one committed to under its name."""
    if field.name not in PRIVATE_FIELDS:
        raise InvalidProof("not a private field", where=field.name)
    index = PRIVATE_FIELDS.index(field.name)
    merkle.verify_inclusion(merkle.leaf_hash(field_leaf(field)), index, len(PRIVATE_FIELDS), path, commitment)
