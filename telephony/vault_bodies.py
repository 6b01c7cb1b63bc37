"""What of a private part is encrypted under which key, so that each subject can be forgotten without the other.

The caller's field is under the caller's key, the callee's under the callee's, and everything else (Call-ID, tags,
addresses, the raw document, which holds both numbers) under both, one inside the other: it goes with either. Each
body is bound to its record and its place. What is left of a private part is shown with the hashes of the leaves that
are gone, so that it still leads to the commitment on the chain.

Source: docs/privacy.md, "The vault".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger import merkle
from ledger.codec import decode, encode
from ledger.commitment import PRIVATE_FIELDS, PrivateField, PrivatePart, field_leaf
from ledger.errors import EncodingError, FieldError, LedgerError
from telephony.vault_keys import NONCE_BYTES

HASH_BYTES: Final = 32
REST: Final = PRIVATE_FIELDS[2:]
"""The fields under both keys: those after caller and callee."""


class Bodies(NamedTuple):
    """The encrypted bodies of one record; None where one was shredded, or never was there."""

    caller: bytes | None
    callee: bytes | None
    rest: bytes | None


class Keys(NamedTuple):
    """The keys of one record; None where one was shredded."""

    caller: AESGCM | None
    callee: AESGCM | None


class UnreadableBody(LedgerError):
    """A body that its key does not open."""

    code = "unreadable-body"


@dataclass(frozen=True, slots=True)
class Shredding:
    """Something that was forgotten on purpose."""

    number: int
    kind: str
    """``subject`` or ``period``."""
    what: str
    """The month; of a subject the keyed hash, in hex."""
    reason: str
    time_ms: int
    """When it was asked for, UTC."""
    is_done: bool
    """False: interrupted, and taken up again when the vault is opened."""
    records: int
    """Records that lost something."""
    held: int
    """Records that a hold has kept; they follow when it is released."""


@dataclass(frozen=True, slots=True)
class PrivateView:
    """What is left of a private part."""

    fields: dict[str, PrivateField]
    """Those that are still there, by name."""
    shredded: dict[str, Shredding | None]
    """The others, and why; None where the vault does not know, as after a restored backup."""
    leaves: list[bytes] | None
    """Hashes of all leaves; None where too little is left to be proven."""

    @property
    def part(self) -> PrivatePart | None:
        """Return the whole, None where a field is gone."""
        return None if self.shredded else PrivatePart([self.fields[name] for name in PRIVATE_FIELDS])

    def prove(self, name: str) -> tuple[PrivateField, list[bytes]]:
        """Return a field, and the path that proves it under the record's commitment without showing the others.

        Raises FieldError for a field that is not there any more.
        """
        if name not in PRIVATE_FIELDS:
            raise FieldError("not a private field", where=name, expected=", ".join(PRIVATE_FIELDS))
        if name not in self.fields:
            raise FieldError("this field was shredded", where=name, expected=", ".join(self.fields) or "nothing")
        if self.leaves is None:
            hint = "Was the database restored from a backup older than the shredding of the other fields?"
            raise FieldError("the hashes of the other fields are not there any more", where=name, hint=hint)
        return self.fields[name], merkle.inclusion_proof(self.leaves, PRIVATE_FIELDS.index(name))


def leaves_of(fields: list[PrivateField]) -> list[bytes]:
    """Return the hashes of the leaves of all fields."""
    return [merkle.leaf_hash(field_leaf(field)) for field in fields]


def seal(part: PrivatePart, record_key: bytes, caller: AESGCM, callee: AESGCM, nonces: bytes) -> Bodies:
    """Return ``part`` encrypted under the keys of caller and callee, with four fresh nonces.

    As ``seal_fields`` does for all groups; every record of a replay comes by here.
    """
    fields = part.fields
    first, second, inner, outer = nonces[:12], nonces[12:24], nonces[24:36], nonces[36:]
    bound = b"rest" + record_key
    rest = inner + callee.encrypt(inner, encode(fields[2:]), bound)
    return Bodies(
        first + caller.encrypt(first, encode(fields[:1]), b"caller" + record_key),
        second + callee.encrypt(second, encode(fields[1:2]), b"callee" + record_key),
        outer + caller.encrypt(outer, rest, bound),
    )


def seal_fields(groups: dict[str, list[PrivateField]], record_key: bytes, keys: Keys, nonces: bytes) -> Bodies:
    """Return what there is of ``caller``, ``callee`` and ``rest`` encrypted, with four fresh nonces."""
    caller = callee = rest = None
    if "caller" in groups:
        caller = _sealed(keys.caller, nonces[:12], encode(groups["caller"]), b"caller" + record_key)
    if "callee" in groups:
        callee = _sealed(keys.callee, nonces[12:24], encode(groups["callee"]), b"callee" + record_key)
    if "rest" in groups:
        bound = b"rest" + record_key
        inner = _sealed(keys.callee, nonces[24:36], encode(groups["rest"]), bound)
        rest = _sealed(keys.caller, nonces[36:], inner, bound)
    return Bodies(caller, callee, rest)


def _sealed(key: AESGCM | None, nonce: bytes, data: bytes, bound: bytes) -> bytes:
    assert key is not None
    return nonce + key.encrypt(nonce, data, bound)


def unseal(bodies: Bodies, record_key: bytes, keys: Keys) -> dict[str, list[PrivateField]]:
    """Return what of ``caller``, ``callee`` and ``rest`` can be read: the body is there and so are its keys.

    Raises UnreadableBody for a body that a key that is there does not open.
    """
    groups: dict[str, list[PrivateField]] = {}
    try:
        if bodies.caller is not None and keys.caller is not None:
            groups["caller"] = _fields(_opened(keys.caller, bodies.caller, b"caller" + record_key))
        if bodies.callee is not None and keys.callee is not None:
            groups["callee"] = _fields(_opened(keys.callee, bodies.callee, b"callee" + record_key))
        if bodies.rest is not None and keys.caller is not None and keys.callee is not None:
            inner = _opened(keys.caller, bodies.rest, b"rest" + record_key)
            groups["rest"] = _fields(_opened(keys.callee, inner, b"rest" + record_key))
    except (InvalidTag, ValueError, EncodingError):
        raise UnreadableBody("a body cannot be read", where=record_key.hex()) from None
    return groups


def _opened(key: AESGCM, body: bytes, bound: bytes) -> bytes:
    return key.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], bound)


def _fields(data: bytes) -> list[PrivateField]:
    return decode(data, list[PrivateField])
