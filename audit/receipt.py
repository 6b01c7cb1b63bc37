"""Receipts: one record proved offline, against the genesis file alone.

A receipt leads from the record to its transaction (item path to ``items_root``), from the submitter's signature to a
key in the state (state proof to ``state_root``), from the transaction to its block (body path to ``tx_root``), from the
block to a later one (history path to ``history_root``), and from that to a quorum of the producers that genesis names
(a certificate on the link from it to a child of it, which makes it and all before it final). Every field of the JSON
is needed or checked; changing any makes it fail.

Source: docs/audit.md, "Receipts".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from audit.raw import read_finality, read_head
from consensus.election import founding_state
from consensus.rows import read_block, read_final_id
from consensus.votes import VotingSet, check_certificate
from ledger import merkle
from ledger.block import (
    Block,
    BodyItem,
    Certificate,
    Header,
    VoidBitmap,
    block_id_of,
    genesis_block_id,
    is_void,
)
from ledger.cdr import CallRecord
from ledger.codec import Bytes32, Bytes64, Count, Wire, decode, encode
from ledger.crypto import is_valid_signature, key_id_of
from ledger.entries import KeyEntry, Producer
from ledger.errors import InvalidProof, LedgerError, StoreDamaged, StoreError
from ledger.genesis import Genesis, Role, chain_id_of
from ledger.readable import from_readable, parse_json, to_readable
from ledger.state import state_path
from ledger.statetree import PATH_BYTES, StateProof, verify_state_proof
from ledger.store import Space, Store
from ledger.transaction import Envelope, Transaction, tx_id_of
from ledger.transition import block_time_ms

RECEIPT_BYTES_MAX: Final = 1 << 20
FINALITY_AHEAD: Final = 64
"""Blocks searched for a certificate that makes the record's block final, before the newest one is taken."""

Path = Annotated[list[Bytes32], Meta(max_length=merkle.PATH_HASHES_MAX)]


class KeyProof(Wire, frozen=True):
    """What leads from a key's entry to the root of the state."""

    entry: KeyEntry
    siblings: Annotated[list[Bytes32], Meta(max_length=8 * PATH_BYTES)]
    """From the root downwards."""


class Receipt(Wire, frozen=True):
    """Everything that proves one record."""

    version: Literal[1]
    chain_id: Bytes32
    record: CallRecord
    void: Annotated[int, Meta(ge=0, le=1)]
    """1 where the record does not count: its call and leg were recorded before."""
    index: Count
    """Of the record in its transaction, from 0."""
    item_path: Path
    """To the envelope's ``items_root``."""
    envelope: Envelope
    tx_id: Bytes32
    signature: Bytes64
    """The submitter's, over ``tx_id``."""
    key: KeyProof
    """The submitter's, under the ``state_root`` of ``header``."""
    tx_index: Count
    """Of the transaction in its block, from 0."""
    void_bitmap: VoidBitmap
    tx_path: Path
    """To the header's ``tx_root``."""
    header: Header
    """Of the block that holds the record."""
    block_id: Bytes32
    block_signature: Bytes64
    """The producer's, over ``block_id``."""
    final_header: Header | None
    """The block at or after it that the certificate makes final; null where it is the same block."""
    history_path: Path
    """From ``block_id`` to the ``history_root`` of ``final_header``; empty where that is null."""
    certificate: Certificate
    """A quorum's votes on the link from the final block to its child."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a good receipt proves.

    Attributes:
        void: the record does not count, another of the same call and leg came before.
        block_ms: time of the block that holds it.
        producer: the member that sealed that block.
        final_height: the block that the certificate makes final.
    """

    chain_id: bytes
    record: CallRecord
    member_id: str
    tx_id: bytes
    index: int
    void: bool
    height: int
    block_id: bytes
    block_ms: int
    producer: str
    final_height: int

    def sentence(self) -> str:
        """Return it as one line for a person."""
        counts = "void: the call and leg were recorded before" if self.void else "it counts"
        return (
            f"OK: record {self.index} of transaction {self.tx_id.hex()} by {self.member_id} is in block {self.height} "
            f"({self.block_id.hex()}), final under height {self.final_height}; {counts}"
        )


def make_receipt(store: Store, genesis: Genesis, tx_id: bytes, index: int) -> bytes:
    """Return the receipt of a record as a JSON file; see ``make_receipt_document``."""
    document = make_receipt_document(store, genesis, tx_id, index)
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def make_receipt_document(store: Store, genesis: Genesis, tx_id: bytes, index: int) -> dict[str, Any]:
    """Return the receipt, as JSON has it, of record ``index`` of a final transaction.

    Costs one pass over the height index where the block's own finality is not carried by a block soon after it.
    Raises StoreError where the transaction is not final here or has no such record.
    """
    block, position = _find(store, tx_id)
    raw = store.body(tx_id)
    if raw is None:
        raise StoreDamaged("the transaction is missing", where=tx_id.hex())
    transaction = decode(raw, Transaction)
    if not 0 <= index < len(transaction.items):
        raise StoreError(
            "the transaction has no such record",
            where=tx_id.hex(),
            expected=f"0 to {len(transaction.items) - 1}",
            actual=index,
        )
    header, item = block.sealed.header, block.body[position]
    state = founding_state(genesis)
    key_id = transaction.envelope.key_id
    certificate = _certificate_above(store, genesis, header.height)
    final_header = None if certificate.s_height == header.height else _header_at(store, certificate.s_height)
    history = [] if final_header is None else _leaf_hashes(store, genesis, final_header.height)
    receipt = Receipt(
        1,
        chain_id_of(genesis),
        decode(transaction.items[index], CallRecord),
        int(is_void(item.void_bitmap, index)),
        index,
        _path(transaction.items, index),
        transaction.envelope,
        tx_id,
        transaction.signature,
        KeyProof(state.keys[key_id], list(state.tree.prove(state_path("key", key_id)).siblings)),
        position,
        item.void_bitmap,
        _path([encode(one) for one in block.body], position),
        header,
        block_id_of(header),
        block.sealed.signature,
        final_header,
        merkle.inclusion_proof(history, header.height) if history else [],
        certificate,
    )
    document: dict[str, Any] = to_readable(receipt)
    return document


def _path(items: Sequence[bytes], index: int) -> list[bytes]:
    return merkle.inclusion_proof([merkle.leaf_hash(item) for item in items], index)


def _find(store: Store, tx_id: bytes) -> tuple[Block, int]:
    """Return the final block that holds a transaction, and where in it."""
    row = store.get(Space.LOCATION.value + tx_id)
    if row is None:
        raise StoreError(
            "the transaction is not final here", where=tx_id.hex(), hint="Ask again when it is; finality takes seconds"
        )
    block = _block_at(store, int.from_bytes(row))
    for position, item in enumerate(block.body):
        if item.tx_id == tx_id:
            return block, position
    raise StoreDamaged("the index of transactions names a block without it", where=tx_id.hex())


def _block_at(store: Store, height: int) -> Block:
    block_id = read_final_id(store, height)
    block = None if block_id is None else read_block(store, block_id)
    if block is None:
        raise StoreDamaged("a final block is missing", where=f"height {height}")
    return block


def _header_at(store: Store, height: int) -> Header:
    return _block_at(store, height).sealed.header


def _certificate_above(store: Store, genesis: Genesis, height: int) -> Certificate:
    """Return a certificate that makes a block at or above ``height`` final, the nearest carried one if there is."""
    head = read_head(store, chain_id_of(genesis))
    for above in range(height + 1, min(height + FINALITY_AHEAD, head.final_height) + 1):
        certificate = _block_at(store, above).sealed.certificate
        if certificate and certificate.s_height >= height and certificate.t_height == certificate.s_height + 1:
            return certificate
    raw = read_finality(store, head).certificate
    if raw is None:
        raise StoreDamaged("nothing proves the last block final", where=f"height {head.final_height}")
    return decode(raw, Certificate)


def _leaf_hashes(store: Store, genesis: Genesis, size: int) -> list[bytes]:
    """Return the leaf hashes of the history tree of ``size`` blocks, genesis included."""
    return [merkle.leaf_hash(block_id) for block_id in _block_ids(store, genesis, size)]


def _block_ids(store: Store, genesis: Genesis, size: int) -> Iterator[bytes]:
    yield genesis_block_id(chain_id_of(genesis))
    for height in range(1, size):
        block_id = read_final_id(store, height)
        if block_id is None:
            raise StoreDamaged("a final block is missing", where=f"height {height}")
        yield block_id


def verify_receipt(data: bytes, genesis: Genesis) -> Verdict:
    """Return what a receipt proves. Raises InvalidProof, whose ``where`` names the step that failed."""
    receipt = _read(data)
    chain_id = chain_id_of(genesis)
    # [REJECT] It is of this chain
    _check_equal("chain_id", chain_id, receipt.chain_id)
    _check_transaction(receipt, chain_id)
    _check_block(receipt, chain_id)
    state = founding_state(genesis)
    _check_key(receipt)
    producers = state.voting.producers
    producer = _check_producer(receipt, producers)
    _check_final(receipt, VotingSet(0, tuple(producers)), chain_id)
    header = receipt.header
    return Verdict(
        chain_id,
        receipt.record,
        receipt.envelope.member_id,
        receipt.tx_id,
        receipt.index,
        bool(receipt.void),
        header.height,
        receipt.block_id,
        block_time_ms(genesis, header.slot),
        producer.member_id,
        receipt.certificate.s_height,
    )


def _read(data: bytes) -> Receipt:
    """Return the receipt that JSON spells. Raises InvalidProof."""
    if len(data) > RECEIPT_BYTES_MAX:
        raise InvalidProof("too large for a receipt", where="receipt", expected=f"<= {RECEIPT_BYTES_MAX} bytes")
    try:
        return from_readable(parse_json(data), Receipt)
    except LedgerError as error:
        where = error.where or "receipt"
        raise InvalidProof(error.what, where=where, expected=error.expected, actual=error.actual) from None


def _check_transaction(receipt: Receipt, chain_id: bytes) -> None:
    envelope = receipt.envelope
    # [REJECT] The record is the item at its index under the root signed
    leaf = merkle.leaf_hash(encode(receipt.record))
    _check_path("item_path", leaf, receipt.index, envelope.item_count, receipt.item_path, envelope.items_root)
    # [REJECT] The envelope is for this chain and gives the id
    _check_equal("envelope.chain_id", chain_id, envelope.chain_id)
    _check_equal("tx_id", tx_id_of(envelope), receipt.tx_id)


def _check_block(receipt: Receipt, chain_id: bytes) -> None:
    header = receipt.header
    # [REJECT] The transaction is the item at its index under the header's root, with the record's void bit
    leaf = merkle.leaf_hash(encode(BodyItem(receipt.tx_id, receipt.void_bitmap)))
    _check_path("tx_path", leaf, receipt.tx_index, header.tx_count, receipt.tx_path, header.tx_root)
    bitmap_sizes = (0, (receipt.envelope.item_count + 7) // 8)
    if len(receipt.void_bitmap) not in bitmap_sizes:
        raise InvalidProof("the bitmap does not fit the transaction", where="void_bitmap", expected=bitmap_sizes[1])
    _check_equal("void", int(is_void(receipt.void_bitmap, receipt.index)), receipt.void)
    # [REJECT] The header is of this chain and gives the id
    _check_equal("header.chain_id", chain_id, header.chain_id)
    _check_equal("block_id", block_id_of(header), receipt.block_id)


def _check_key(receipt: Receipt) -> None:
    entry, envelope = receipt.key.entry, receipt.envelope
    # [REJECT] The key is in the state of the block, may submit for the member, and signed
    _check_equal("key.entry.public_key", envelope.key_id, key_id_of(entry.public_key))
    _check_equal("key.entry.member_id", envelope.member_id, entry.member_id)
    # It was active when the block began: the quorum saw to that; it may have ended in the same block.
    if not entry.roles & Role.SUBMIT:
        raise InvalidProof("the key may not submit", where="key.entry.roles", expected="an active submit key")
    try:
        proof = StateProof(tuple(receipt.key.siblings))
        verify_state_proof(receipt.header.state_root, state_path("key", envelope.key_id), encode(entry), proof)
    except InvalidProof as error:
        raise InvalidProof(error.what, where="key.siblings", expected=error.expected, actual=error.actual) from None
    if not is_valid_signature(entry.public_key, receipt.tx_id, receipt.signature):
        raise InvalidProof("the submitter's signature does not verify", where="signature", actual=receipt.signature)


def _check_producer(receipt: Receipt, producers: Sequence[Producer]) -> Producer:
    # [REJECT] A producer that genesis names sealed the block
    for producer in producers:
        if producer.key_id == receipt.header.producer_key_id:
            if is_valid_signature(producer.public_key, receipt.block_id, receipt.block_signature):
                return producer
            break
    else:
        raise InvalidProof(
            "not a producer's key", where="header.producer_key_id", actual=receipt.header.producer_key_id
        )
    raise InvalidProof(
        "the producer's signature does not verify", where="block_signature", actual=receipt.block_signature
    )


def _check_final(receipt: Receipt, voting_set: VotingSet, chain_id: bytes) -> None:
    final = receipt.header if receipt.final_header is None else receipt.final_header
    if receipt.final_header is None:
        _check_equal("history_path", [], receipt.history_path)
    else:
        # [REJECT] The block is in the history of the final one
        _check_equal("final_header.chain_id", chain_id, final.chain_id)
        leaf = merkle.leaf_hash(receipt.block_id)
        height = receipt.header.height
        _check_path("history_path", leaf, height, final.height, receipt.history_path, final.history_root)
    certificate = receipt.certificate
    # [REJECT] The certificate makes that block final: its link leads to the next height
    _check_equal("certificate.s_height", final.height, certificate.s_height)
    _check_equal("certificate.s_id", block_id_of(final), certificate.s_id)
    _check_equal("certificate.t_height", final.height + 1, certificate.t_height)
    try:
        check_certificate(certificate, [voting_set], chain_id)
    except LedgerError as error:
        raise InvalidProof(
            error.what, where=f"certificate.{error.where}", expected=error.expected, actual=error.actual
        ) from None


def _check_path(name: str, leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    try:
        merkle.verify_inclusion(leaf, index, size, path, root)
    except InvalidProof as error:
        where = f"{name}.{error.where}" if error.where not in {"", "path"} else name
        raise InvalidProof(error.what, where=where, expected=error.expected, actual=error.actual) from None


def _check_equal(name: str, expected: Any, actual: Any) -> None:
    if expected != actual:
        raise InvalidProof("does not follow from the rest", where=name, expected=expected, actual=actual)
