"""Blocks: a header that commits to everything, a body that names transactions, a certificate.

Source: docs/protocol.md, "Block".
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Literal, NewType

from msgspec import Meta

from ledger import merkle
from ledger.codec import U16, U32, ZERO32, Bytes20, Bytes32, Bytes64, Count, Wire, encode
from ledger.crypto import hash_of

Slot = NewType("Slot", int)
"""Counted from genesis, one each ``slot_ms``."""
Height = NewType("Height", int)
"""Blocks since genesis, which is height 0."""
BlockId = NewType("BlockId", bytes)
TxId = NewType("TxId", bytes)
KeyId = NewType("KeyId", bytes)

BLOCK_TRANSACTIONS_MAX = 65_535
VOTING_SET_MAX = 21
MOS_TOTALS_MAX = 40
"""Eight methods, each with five kinds of MOS."""

VoidBitmap = Annotated[bytes, Meta(max_length=125)]
"""One bit for each record of a transaction, first record in the lowest bit of the first byte; empty: none void."""


class MosTotal(Wire, frozen=True):
    """MOS of one method and kind, summed over a block: figures of different methods are never added up."""

    method: U16
    """ledger.cdr.QualityMethod."""
    kind: U16
    """ledger.cdr.MosKind."""
    count: Count
    sum_milli: Count
    minimum_milli: Count


class Totals(Wire, frozen=True):
    """What a block's records add up to; void records are counted in ``void`` and nowhere else."""

    records: Count
    void: Count
    talk_ms: Count
    octets: Count
    """RTP payload, both directions."""
    device_mj: Count
    network_mj: Count
    server_mj: Count
    """Server energy with PUE: round(server_mj * pue_milli / 1000) of each record."""
    co2_ug: Count
    mos: Annotated[list[MosTotal], Meta(max_length=MOS_TOTALS_MAX)]
    """Ascending by (method, kind), one each."""


EMPTY_TOTALS = Totals(0, 0, 0, 0, 0, 0, 0, 0, [])


class Header(Wire, frozen=True):
    """What a producer signs."""

    version: Literal[1]
    chain_id: Bytes32
    height: Count
    slot: Count
    parent_id: Bytes32
    producer_key_id: Bytes20
    rule_set: Bytes32
    """Id of the rule set in force."""
    tx_count: U32
    tx_root: Bytes32
    """Merkle root over the encoded body items."""
    totals: Totals
    state_root: Bytes32
    """Root of the state tree after this block."""
    history_root: Bytes32
    """Merkle root over the ids of all earlier blocks, genesis first."""
    qc_hash: Bytes32
    """SHA-256 of the encoded certificate carried, 32 zero bytes where there is none."""


class BodyItem(Wire, frozen=True):
    """One transaction of a block, and which of its records do not count."""

    tx_id: Bytes32
    void_bitmap: VoidBitmap


BodyItems = Annotated[list[BodyItem], Meta(max_length=BLOCK_TRANSACTIONS_MAX)]


class CertificatePart(Wire, frozen=True):
    """The signatures of one voting set on a link."""

    set_id: Count
    signers: Annotated[bytes, Meta(min_length=1, max_length=3)]
    """One bit for each member of the set in its order, first in the lowest bit of the first byte."""
    signatures: Annotated[list[Bytes64], Meta(min_length=1, max_length=VOTING_SET_MAX)]
    """In the order of the set bits."""


class Certificate(Wire, frozen=True):
    """A quorum's votes on the link from source to target."""

    s_height: Count
    s_id: Bytes32
    t_height: Count
    t_id: Bytes32
    parts: Annotated[list[CertificatePart], Meta(min_length=1, max_length=2)]


class Vote(Wire, frozen=True):
    """One producer's vote for a link. Signed is ``vote_id``."""

    s_height: Count
    s_id: Bytes32
    t_height: Count
    t_id: Bytes32
    key_id: Bytes20
    signature: Bytes64


class SealedHeader(Wire, frozen=True):
    """A header with its producer's signature over the block id and the certificate it carries."""

    header: Header
    signature: Bytes64
    certificate: Certificate | None


class Block(Wire, frozen=True):
    """What travels and is stored: transactions by id, their bodies apart."""

    sealed: SealedHeader
    body: BodyItems


def block_id_of(header: Header) -> BlockId:
    """Return ``H("header", header)``."""
    return BlockId(hash_of("header", header))


def genesis_block_id(chain_id: bytes) -> BlockId:
    """Return the id of height 0: the chain id itself, for genesis has no header."""
    return BlockId(chain_id)


def vote_digest(chain_id: bytes, s_height: int, s_id: bytes, t_height: int, t_id: bytes) -> bytes:
    """Return what a producer signs when it votes for a link."""
    return hash_of("vote", (chain_id, s_height, s_id, t_height, t_id))


def certificate_hash(certificate: Certificate | None) -> bytes:
    """Return the header's ``qc_hash`` for the certificate carried."""
    return ZERO32 if certificate is None else sha256(encode(certificate)).digest()


def body_root(body: list[BodyItem]) -> bytes:
    """Return the header's ``tx_root``: RFC 6962 over the encoded items."""
    return merkle.root_of([encode(item) for item in body])


def is_void(bitmap: bytes, index: int) -> bool:
    """Tell whether record ``index`` is void under a transaction's bitmap; what lies beyond its end is not."""
    return index >> 3 < len(bitmap) and bool(bitmap[index >> 3] >> (index & 7) & 1)


def void_bitmap(indexes: set[int] | list[int], count: int) -> bytes:
    """Return the bitmap of void records among ``count``; empty where none is void."""
    if not indexes:
        return b""
    bits = bytearray((count + 7) // 8)
    for index in indexes:
        bits[index >> 3] |= 1 << (index & 7)
    return bytes(bits)


def bitmap_indexes(bitmap: bytes) -> list[int]:
    """Return the set bits of a bitmap, ascending."""
    return [8 * i + b for i, byte in enumerate(bitmap) for b in range(8) if byte >> b & 1]


def add_totals(a: Totals, b: Totals) -> Totals:
    """Return the sum of two totals."""
    return sum_totals([a, b])


def sum_totals(many: list[Totals]) -> Totals:
    """Return the sum of many totals, MOS kept apart by method and kind."""
    mos: dict[tuple[int, int], MosTotal] = {}
    for totals in many:
        for m in totals.mos:
            key = (m.method, m.kind)
            old = mos.get(key)
            mos[key] = m if old is None else _add_mos(old, m)
    return Totals(
        sum(t.records for t in many),
        sum(t.void for t in many),
        sum(t.talk_ms for t in many),
        sum(t.octets for t in many),
        sum(t.device_mj for t in many),
        sum(t.network_mj for t in many),
        sum(t.server_mj for t in many),
        sum(t.co2_ug for t in many),
        [mos[key] for key in sorted(mos)],
    )


def _add_mos(a: MosTotal, b: MosTotal) -> MosTotal:
    return MosTotal(
        a.method, a.kind, a.count + b.count, a.sum_milli + b.sum_milli, min(a.minimum_milli, b.minimum_milli)
    )
