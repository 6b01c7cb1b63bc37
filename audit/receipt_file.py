"""The file of a receipt: readable JSON for what a person wants to see, base64 for what only a program follows.

What follows from the rest is left out, so that nothing has to be compared and the file stays small: of an envelope its
version, chain, kind and key id, of a proof of finality the voting set that the reader trusts at that point, key ids,
and the ends of the certificate's link.

Source: docs/protocol.md, "Receipt".
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from consensus.setchange import VotingProof
from consensus.votes import VotingSet
from ledger.block import VOTING_SET_MAX, Certificate, CertificatePart, Header, block_id_of
from ledger.cdr import CallRecord
from ledger.codec import Bytes32, Bytes33, Bytes64, Count, MemberId, TimeMs, Wire, decode, encode, type_name
from ledger.crypto import key_id_of
from ledger.entries import KeyEntry, KeyStanding, PendingSet, Producer, VotingEntry
from ledger.errors import EncodingError, FieldError, InvalidProof, LedgerError
from ledger.merkle import HASH_BYTES, PATH_HASHES_MAX
from ledger.readable import from_readable, parse_json, to_readable
from ledger.statetree import DEPTH_MAX
from ledger.transaction import ITEMS_MAX, Envelope, Kind

T = TypeVar("T")

VERSION: Final = 3
RECEIPT_BYTES_MAX: Final = 16 << 20
"""A change of 21 voters is at most 10 KiB: room for more than a thousand of them."""

Packed = Annotated[str, Meta(max_length=1 << 16)]
"""Base64 (RFC 4648, section 4, padded) of canonical MessagePack, of hashes one after another, or of a bitmap."""


class SignedPart(Wire, frozen=True):
    """A CertificatePart without the number of its set."""

    signers: Annotated[bytes, Meta(min_length=1, max_length=3)]
    signatures: Annotated[list[Bytes64], Meta(min_length=1, max_length=VOTING_SET_MAX)]


class NamedKey(Wire, frozen=True):
    """A Producer without its key id."""

    member_id: MemberId
    public_key: Bytes33


class PendingPart(Wire, frozen=True):
    """The voting set to come."""

    height: Count
    producers: Annotated[list[NamedKey], Meta(max_length=VOTING_SET_MAX)]


class FinalProof(Wire, frozen=True):
    """What a VotingProof says to whoever knows the current voting set."""

    header: Header
    """Of the final block."""
    pending: PendingPart | None
    siblings: Annotated[list[Bytes32], Meta(max_length=DEPTH_MAX)]
    """From ``state_root`` down to the entry ``["voting"]``."""
    t_id: Bytes32
    """Id of the child that the certificate's link leads to."""
    parts: Annotated[list[SignedPart], Meta(min_length=1, max_length=2)]


class EnvelopePart(Wire, frozen=True):
    """What an Envelope says that is not said elsewhere."""

    member_id: MemberId
    created_ms: TimeMs
    expires_ms: TimeMs
    item_count: Annotated[int, Meta(ge=1, le=ITEMS_MAX)]
    items_root: Bytes32


class KeyPart(Wire, frozen=True):
    """The submitter's KeyEntry but for its member, and what leads to it in the final block's state."""

    public_key: Bytes33
    roles: Annotated[int, Meta(ge=1, le=7)]
    standing: KeyStanding
    path: Packed
    """Hashes beside the way, from the root downwards."""


class ReceiptFile(Wire, frozen=True):
    """The file as it is written but for ``revealed``; see docs/protocol.md for each field."""

    version: Literal[3]
    personal_data: Annotated[int, Meta(ge=0, le=1)]
    chain_id: Bytes32
    tx_id: Bytes32
    index: Count
    void: Annotated[int, Meta(ge=0, le=1)]
    height: Count
    block_ms: TimeMs
    record: CallRecord
    envelope: EnvelopePart
    signature: Bytes64
    key: KeyPart
    item_path: Packed
    tx_index: Count
    tx_path: Packed
    void_bitmap: Packed
    header: Packed | None
    history_path: Packed
    set_changes: list[Packed]
    final: Packed


def compact(proof: VotingProof) -> FinalProof:
    """Return the proof without what its reader knows."""
    pending = proof.voting.pending
    if pending is not None:
        named = [NamedKey(producer.member_id, producer.public_key) for producer in pending.producers]
    parts = [SignedPart(part.signers, part.signatures) for part in proof.certificate.parts]
    return FinalProof(
        proof.header,
        None if pending is None else PendingPart(pending.height, named),
        proof.siblings,
        proof.certificate.t_id,
        parts,
    )


def expand(proof: FinalProof, trusted: VotingSet) -> VotingProof:
    """Return the whole proof for whoever trusts ``trusted`` as the current voting set."""
    header, pending = proof.header, None
    if proof.pending is not None:
        producers = [
            Producer(named.member_id, key_id_of(named.public_key), named.public_key)
            for named in proof.pending.producers
        ]
        pending = PendingSet(proof.pending.height, producers)
    parts = [
        CertificatePart(trusted.set_id + number, part.signers, part.signatures)
        for number, part in enumerate(proof.parts)
    ]
    return VotingProof(
        header,
        VotingEntry(trusted.set_id, list(trusted.producers), pending),
        proof.siblings,
        Certificate(header.height, block_id_of(header), header.height + 1, proof.t_id, parts),
    )


def envelope_of(file: ReceiptFile, chain_id: bytes) -> Envelope:
    """Return the envelope of records that the member of ``file`` signed on this chain."""
    part, key_id = file.envelope, key_id_of(file.key.public_key)
    return Envelope(
        1,
        chain_id,
        Kind.RECORDS,
        part.member_id,
        key_id,
        part.created_ms,
        part.expires_ms,
        part.item_count,
        part.items_root,
    )


def key_entry_of(file: ReceiptFile) -> KeyEntry:
    """Return the entry of the submitter's key."""
    return KeyEntry(file.envelope.member_id, file.key.public_key, file.key.roles, file.key.standing)


def pack(value: Wire) -> str:
    """Return the base64 of a struct's canonical MessagePack."""
    return pack_bytes(encode(value))


def unpack(text: str, kind: type[T], *, where: str) -> T:
    """Return the struct that ``pack`` wrote. Raises InvalidProof."""
    try:
        return decode(unpack_bytes(text, where=where), kind)
    except EncodingError as error:
        # What is wrong as a whole is named by its type.
        place = where if error.where in {"", type_name(kind)} else f"{where}.{error.where}"
        raise InvalidProof(error.what, where=place, expected=error.expected, actual=error.actual) from None


def pack_path(hashes: Sequence[bytes]) -> str:
    """Return the base64 of hashes one after another."""
    return pack_bytes(b"".join(hashes))


def unpack_path(text: str, *, where: str, hashes_max: int = PATH_HASHES_MAX) -> list[bytes]:
    """Return the hashes that ``pack_path`` wrote. Raises InvalidProof."""
    data = unpack_bytes(text, where=where)
    if len(data) % HASH_BYTES or len(data) > hashes_max * HASH_BYTES:
        expected = f"at most {hashes_max} hashes of {HASH_BYTES} bytes"
        raise InvalidProof("not a path", where=where, expected=expected, actual=f"{len(data)} bytes")
    return [data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES)]


def pack_bytes(data: bytes) -> str:
    """Return base64."""
    return b64encode(data).decode()


def unpack_bytes(text: str, *, where: str) -> bytes:
    """Return the bytes that ``pack_bytes`` wrote. Raises InvalidProof."""
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        data = None
    # Bits that the padding hides, and other spellings of one value.
    if data is None or pack_bytes(data) != text:
        raise InvalidProof("not bytes", where=where, expected="base64 with its padding")
    return data


def write_receipt(file: ReceiptFile, revealed: Sequence[dict[str, Any]] = ()) -> bytes:
    """Return the file: JSON, one field a line. ``revealed`` as ``audit.revealed`` writes fields."""
    document: dict[str, Any] = to_readable(file)
    document["personal_data"] = int(bool(revealed))
    if revealed:
        document["revealed"] = list(revealed)
    lines = [
        f"{msgspec.json.encode(name).decode()}:{msgspec.json.encode(value).decode()}"
        for name, value in document.items()
    ]
    return ("{" + ",\n".join(lines) + "}\n").encode()


def read_receipt(data: bytes) -> tuple[ReceiptFile, Any]:
    """Return the receipt that JSON spells, and the value of ``revealed``, None where there is none.

    Raises InvalidProof naming the field that is missing, unknown, of the wrong type or out of bounds.
    """
    if len(data) > RECEIPT_BYTES_MAX:
        raise InvalidProof("too large for a receipt", where="receipt", expected=f"<= {RECEIPT_BYTES_MAX} bytes")
    try:
        document = parse_json(data)
        revealed = None
        if isinstance(document, dict) and "revealed" in document:
            revealed = document.pop("revealed")
            if revealed is None:
                raise FieldError("wrong type", where="revealed", expected="an array")
        file = from_readable(document, ReceiptFile)
    except LedgerError as error:
        where = "receipt" if error.where in {"", "ReceiptFile"} else error.where
        raise InvalidProof(error.what, where=where, expected=error.expected, actual=error.actual) from None
    if file.personal_data != (revealed is not None):
        expected = int(revealed is not None)
        raise InvalidProof("1 where there are revealed fields, else 0", where="personal_data", expected=expected)
    return file, revealed
