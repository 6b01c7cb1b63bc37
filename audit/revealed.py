"""Private fields of a record in a receipt: the carrier shows the ones it chooses, and each leads to the commitment.

Source: docs/protocol.md, "Receipt".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from audit.receipt_file import pack_path, read_receipt, unpack_path, write_receipt
from ledger.commitment import PRIVATE_FIELDS, PrivateField, check_field
from ledger.errors import FieldError, InvalidProof, LedgerError
from ledger.readable import from_readable, shown_name

PATH_HASHES_MAX = 3
"""A field is one of seven leaves."""


@dataclass(frozen=True, slots=True)
class RevealedField:
    """A private field with what proves it.

    Attributes:
        path: from the field's leaf up to ``party_commitment``.
    """

    field: PrivateField
    path: Sequence[bytes]


def parse_names(text: str) -> tuple[str, ...]:
    """Return the fields that ``caller,call_id`` names, or all of them for ``all``, in the order of PRIVATE_FIELDS.

    Raises FieldError.
    """
    names = PRIVATE_FIELDS if text == "all" else text.split(",")
    for name in names:
        if name not in PRIVATE_FIELDS:
            expected = f"all, or some of {', '.join(PRIVATE_FIELDS)}"
            raise FieldError("not a private field", where="reveal", expected=expected, actual=name)
    return tuple(name for name in PRIVATE_FIELDS if name in names)


def revealed_to_json(revealed: RevealedField) -> dict[str, Any]:
    """Return the field as the receipt has it: ``value`` is text, or ``value_hex`` bytes that are none."""
    field = revealed.field
    document: dict[str, Any] = {"name": field.name}
    try:
        document["value"] = field.value.decode()
    except UnicodeDecodeError:
        document["value_hex"] = field.value.hex()
    return {**document, "salt": field.salt.hex(), "path": pack_path(revealed.path)}


def check_revealed(document: Any, commitment: bytes) -> list[PrivateField]:
    """Return the fields that the receipt reveals, each proven under the record's commitment. Raises InvalidProof."""
    if not isinstance(document, list) or not document:
        raise InvalidProof("wrong type", where="revealed", expected="an array of one field or more")
    fields: list[PrivateField] = []
    for index, one in enumerate(document):
        field = _check_one(one, commitment, f"revealed[{index}]")
        # [REJECT] Each field stands there once, in the order of the private part
        if fields and PRIVATE_FIELDS.index(field.name) <= PRIVATE_FIELDS.index(fields[-1].name):
            raise InvalidProof("not in their order, once each", where=f"revealed[{index}].name", actual=field.name)
        fields.append(field)
    return fields


def _check_one(document: Any, commitment: bytes, where: str) -> PrivateField:
    if not isinstance(document, dict):
        raise InvalidProof("wrong type", where=where, expected="an object")
    value_name = "value_hex" if "value_hex" in document else "value"
    for name in sorted(document.keys() ^ {"name", value_name, "salt", "path"}):
        what = "unknown field" if name in document else "missing field"
        raise InvalidProof(what, where=f"{where}.{shown_name(name)}")
    value = document[value_name]
    if value_name == "value":
        value = _utf8_hex(value, f"{where}.value")
    try:
        field = from_readable({"name": document["name"], "salt": document["salt"], "value": value}, PrivateField)
    except LedgerError as error:
        name = value_name if error.where == "value" else error.where
        raise InvalidProof(error.what, where=f"{where}.{name}", expected=error.expected, actual=error.actual) from None
    if value_name == "value_hex" and _is_utf8(field.value):
        raise InvalidProof("these bytes are text", where=f"{where}.value_hex", expected="value instead")
    if not isinstance(document["path"], str):
        raise InvalidProof("wrong type", where=f"{where}.path", expected="base64")
    path = unpack_path(document["path"], where=f"{where}.path", hashes_max=PATH_HASHES_MAX)
    # [REJECT] The field is the one committed to under its name
    try:
        check_field(field, path, commitment)
    except InvalidProof as error:
        what = "name, value, salt and path do not lead to the record's party_commitment"
        raise InvalidProof(what, where=where, expected=error.expected, actual=error.actual) from None
    return field


def _utf8_hex(value: Any, where: str) -> str:
    try:
        data: bytes = value.encode()
    except (AttributeError, UnicodeEncodeError):
        raise InvalidProof("not text", where=where, expected="Unicode without lone surrogates") from None
    return data.hex()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def add_revealed(receipt: bytes, fields: Iterable[RevealedField]) -> bytes:
    """Return the receipt with more fields shown; one that it shows already is shown once.

    Raises InvalidProof where the receipt cannot be read, or a field is not the one that its record commits to.
    """
    file, document = read_receipt(receipt)
    made = {one["name"]: one for one in map(revealed_to_json, fields)}
    shown = (
        {}
        if document is None
        else {
            field.name: one
            for field, one in zip(check_revealed(document, file.record.party_commitment), document, strict=True)
        }
    )
    merged = shown | made
    ordered = [merged[name] for name in PRIVATE_FIELDS if name in merged]
    if ordered:
        check_revealed(ordered, file.record.party_commitment)
    return write_receipt(file, ordered)


def shown_text(field: PrivateField) -> str:
    """Return a value for a terminal: somebody else wrote it, so no escape sequences."""
    text = field.value.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()
