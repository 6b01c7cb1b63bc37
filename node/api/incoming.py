"""From JSON to records that may be stored: decoding, the rules in force, and the chain's record window.

Pure but for fresh salts. Every fault is an error that names the field, what was expected and what was found.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import msgspec

from ledger.cdr import CallRecord, record_key_of
from ledger.codec import encode
from ledger.commitment import PRIVATE_FIELDS, PrivatePart, make_private_part, party_commitment
from ledger.errors import EncodingError, FieldError
from ledger.readable import from_readable
from ledger.transaction import ITEMS_MAX
from node.api.backend import Backend
from node.api.ingest import Incoming
from node.api.problems import TooEarly
from telephony.adapters import kamailio
from telephony.adapters.base import is_utf8
from telephony.adapters.discreet import without_values
from telephony.admission import NotYet, check_admissible
from telephony.builder import Profile, build_record, fresh_salts
from telephony.vault_bodies import PrivateView

RECORDS_MAX: Final = ITEMS_MAX
"""Records of one request."""


class ContentHash(Protocol):
    """The vault's keyed hash."""

    def __call__(self, data: bytes) -> bytes:
        """Return the hash of ``data``."""


def decode_documents(body: bytes) -> tuple[list[object], bool]:
    """Return the documents in a JSON body, and whether they came as an array.

    Raises EncodingError for a body that is no JSON, or has none or too many.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise EncodingError(f"not JSON: {error}", where="body", expected="an object, or an array of objects") from None
    if not isinstance(value, list):
        return [value], False
    if not 1 <= len(value) <= RECORDS_MAX:
        raise EncodingError("wrong number of records", where="body", expected=f"1 to {RECORDS_MAX}", actual=len(value))
    return value, True


def incoming_of_json(document: object, *, node: Backend, content_hash: ContentHash, now_ms: int) -> Incoming:
    """Return the record in ``{"record": {...}, "private": {...}}``; ``private`` may be absent or null.

    Raises FieldError, RuleViolation or UnusableTransaction.
    """
    try:
        record, private = _parts_of_json(document)
    except EncodingError as error:
        raise without_values(error) from None
    if private is not None and (commitment := party_commitment(private)) != record.party_commitment:
        raise FieldError(
            "not the commitment of the private part that came with it",
            where="record.party_commitment",
            expected=commitment,
            actual=record.party_commitment,
        )
    item = encode(record)
    return _checked(record, item, private, content_hash(b"record/" + item), (), node, now_ms)


def _parts_of_json(document: object) -> tuple[CallRecord, PrivatePart | None]:
    """Return the record and the private part in a document. Raises FieldError."""
    if not isinstance(document, dict):
        raise FieldError("wrong type", where="body", expected="an object", actual=type(document).__name__)
    for name in document:
        if name not in {"record", "private"}:
            raise FieldError("unknown field", where=str(name), expected="record, private")
    if "record" not in document:
        raise FieldError("missing field", where="record", expected="an object with the fields of a CallRecord")
    try:
        record = from_readable(document["record"], CallRecord)
    except FieldError as error:
        where = "record" if error.where == "CallRecord" else f"record.{error.where}"
        raise FieldError(
            error.what, where=where, expected=error.expected, actual=error.actual, hint=error.hint
        ) from None
    private = document.get("private")
    return record, private_of_json(private) if private is not None else None


def incoming_of_cdr(
    document: object, *, node: Backend, profile: Profile, content_hash: ContentHash, now_ms: int
) -> Incoming:
    """Return the record of one ``acc_json`` CDR, its private part with fresh salts.

    Raises FieldError, RuleViolation or UnusableTransaction.
    """
    try:
        call = kamailio.parse_cdr(document)
    except EncodingError as error:
        raise without_values(error) from None
    built = build_record(call, profile, fresh_salts())
    content = content_hash(b"kamailio/" + call.raw.encode())
    return _checked(built.record, encode(built.record), built.private, content, tuple(built.warnings), node, now_ms)


def private_of_json(document: object) -> PrivatePart:
    """Return the private part in ``{"caller": {"salt": HEX, "value": TEXT}, ...}``, all of PRIVATE_FIELDS.

    Raises FieldError.
    """
    if not isinstance(document, dict):
        raise FieldError("wrong type", where="private", expected="an object", actual=type(document).__name__)
    for name in document:
        if name not in PRIVATE_FIELDS:
            raise FieldError("unknown field", where=f"private.{name}", expected=", ".join(PRIVATE_FIELDS))
    values: dict[str, str] = {}
    salts: list[bytes] = []
    for name in PRIVATE_FIELDS:
        where = f"private.{name}"
        field = document.get(name)
        if not isinstance(field, dict) or set(field) != {"salt", "value"}:
            raise FieldError("missing, or not a private field", where=where, expected='{"salt": HEX, "value": TEXT}')
        salt, value = field["salt"], field["value"]
        if not isinstance(value, str) or (not value.isascii() and not is_utf8(value)):
            raise FieldError("not text", where=f"{where}.value", expected="a string")
        values[name] = value
        salts.append(_salt(salt, f"{where}.salt"))
    try:
        return make_private_part(values, salts)
    except FieldError as error:
        where = f"private.{error.where}"
        raise FieldError(error.what, where=where, expected=error.expected, actual=error.actual) from None


def private_to_json(view: PrivateView) -> dict[str, Any]:
    """Return what there is of a private part as ``private_of_json`` takes it, and why the rest is gone."""
    shown: dict[str, Any] = {}
    for index, name in enumerate(PRIVATE_FIELDS):
        field = view.fields.get(name)
        if field is not None:
            shown[name] = {"salt": field.salt.hex(), "value": field.value.decode("utf-8", "backslashreplace")}
            continue
        why = view.shredded[name]
        shown[name] = {
            "shredded_ms": why.time_ms if why else None,
            "reason": why.reason if why else "its key is gone; when and why is not known here",
            # What stands for it when the others are proven.
            "leaf": view.leaves[index].hex() if view.leaves else None,
        }
    return shown


def _salt(value: object, where: str) -> bytes:
    try:
        salt = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        salt = b""
    if len(salt) != 32 or salt.hex() != value:
        raise FieldError("not a salt", where=where, expected="32 bytes in lower-case hex")
    return salt


def _checked(
    record: CallRecord,
    item: bytes,
    private: PrivatePart | None,
    content: bytes,
    warnings: tuple[str, ...],
    node: Backend,
    now_ms: int,
) -> Incoming:
    """Return the record, having held it against the rules and the window, as every node will."""
    try:
        check_admissible(record, rules=node.rules, parameters=node.genesis.parameters, now_ms=now_ms)
    except NotYet as error:
        # A clock that is a little ahead must not cost a record: it is to be sent again when its time has come.
        raise TooEarly(
            error.what, where=error.where, expected=error.expected, actual=error.actual, hint=error.hint
        ) from None
    assert node.member_id is not None
    return Incoming(record, item, record_key_of(node.member_id, record), content, private, warnings)
