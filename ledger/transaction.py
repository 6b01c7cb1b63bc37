"""Transactions: an envelope, a signature over its id, and items.

Uniform for all kinds, so one proof format serves all: items are byte strings, the envelope holds their Merkle root,
and the id never covers the signature.

Source: docs/protocol.md, "Transaction".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal

from msgspec import Meta

from ledger import merkle
from ledger.block import TxId
from ledger.cdr import RECORD_BYTES_MAX, CallRecord
from ledger.codec import Bytes20, Bytes32, Bytes64, MemberId, TimeMs, Wire, encode
from ledger.crypto import PrivateKey, hash_of

ITEMS_MAX = 1_000
"""Items of one transaction: a signature costs about sixty records' worth of other checks."""
TRANSACTION_BYTES_MAX = 512 * 1024
LIFETIME_MS_MAX = 24 * 3_600_000
"""Ids are remembered until they expire; this bounds the memory."""


class Kind(IntEnum):
    """What the items of a transaction are."""

    RECORDS = 1
    KEY = 2
    CANDIDATE = 3
    DELEGATE = 4
    PROPOSE = 5
    APPROVE = 6
    EVIDENCE = 7
    AMEND = 8


class Envelope(Wire, frozen=True):
    """What the submitter signs: all that a proof needs to carry."""

    version: Literal[1]
    chain_id: Bytes32
    kind: Kind
    member_id: MemberId
    key_id: Bytes20
    created_ms: TimeMs
    expires_ms: TimeMs
    item_count: Annotated[int, Meta(ge=1, le=ITEMS_MAX)]
    items_root: Bytes32
    """RFC 6962 root over the items."""


Item = Annotated[bytes, Meta(min_length=1, max_length=TRANSACTION_BYTES_MAX)]


class Transaction(Wire, frozen=True):
    """An envelope with its signature and items."""

    envelope: Envelope
    signature: Bytes64
    items: Annotated[list[Item], Meta(min_length=1, max_length=ITEMS_MAX)]


def tx_id_of(envelope: Envelope) -> TxId:
    """Return ``H("tx", envelope)``: what is signed, and what names the transaction."""
    return TxId(hash_of("tx", envelope))


def make_transaction(
    items: list[bytes],
    *,
    key: PrivateKey,
    member_id: str,
    chain_id: bytes,
    created_ms: int,
    expires_ms: int,
    kind: Kind = Kind.RECORDS,
) -> Transaction:
    """Return a signed transaction of encoded items."""
    envelope = Envelope(
        1, chain_id, kind, member_id, key.key_id, created_ms, expires_ms, len(items), merkle.root_of(items)
    )
    return Transaction(envelope, key.sign(tx_id_of(envelope)), items)


def pack_records(records: list[CallRecord]) -> list[list[bytes]]:
    """Return the encoded records in groups that each fit one transaction, in order."""
    groups: list[list[bytes]] = []
    room = 0
    for item in map(encode, records):
        if not groups or len(groups[-1]) == ITEMS_MAX or room < len(item) + 3:
            groups.append([])
            room = TRANSACTION_BYTES_MAX - RECORD_BYTES_MAX
        groups[-1].append(item)
        room -= len(item) + 3
    return groups
