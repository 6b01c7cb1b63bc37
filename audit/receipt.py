"""Receipts: one record proved offline, against the genesis file alone.

A receipt leads from the record to its transaction (item path to ``items_root``), from there to its block (body path to
``tx_root``), from the block to the final one of the moment the receipt was made (history path to ``history_root``), and
from that to a quorum of the producers who vote there. Who they are follows from genesis by the changes of the voting
set. The submitter's signature is held against the member's key in the final block's state, where keys stay for ever.
Every field of the JSON is needed or checked; changing any makes it fail.

The seal of the record's block is not in it: a quorum voted for a block above, and with it that the slot's owner sealed
this one; a forger who had that quorum would have a seal as well.

Source: docs/audit.md, "Receipts".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from audit.final import FinalReader
from audit.voting import check_set_changes, check_voting, founding_set
from consensus.rows import read_block, read_final_id
from consensus.setchange import VotingProof
from ledger import merkle
from ledger.block import Block, BodyItem, Header, VoidBitmap, block_id_of, is_void
from ledger.cdr import CallRecord
from ledger.codec import Bytes32, Bytes64, Count, Wire, decode, encode
from ledger.crypto import is_valid_signature, key_id_of
from ledger.entries import KeyEntry
from ledger.errors import InvalidProof, LedgerError, StoreDamaged, StoreError
from ledger.genesis import Genesis, Role, chain_id_of
from ledger.readable import from_readable, parse_json, to_readable
from ledger.state import state_path
from ledger.statetree import DEPTH_MAX, StateProof, verify_state_proof
from ledger.store import Space, Store
from ledger.transaction import Envelope, Kind, Transaction, tx_id_of
from ledger.transition import block_time_ms

RECEIPT_BYTES_MAX: Final = 16 << 20
"""A change of 21 voters is 16 KB of JSON: room for a thousand of them."""

Path = Annotated[list[Bytes32], Meta(max_length=merkle.PATH_HASHES_MAX)]


class KeyProof(Wire, frozen=True):
    """What leads from a key's entry to the root of the state."""

    entry: KeyEntry
    siblings: Annotated[list[Bytes32], Meta(max_length=DEPTH_MAX)]
    """From the root downwards."""


class Receipt(Wire, frozen=True):
    """Everything that proves one record."""

    version: Literal[2]
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
    """The submitter's, under the ``state_root`` of ``final.header``."""
    tx_index: Count
    """Of the transaction in its block, from 0."""
    void_bitmap: VoidBitmap
    tx_path: Path
    """To the ``tx_root`` of the record's block."""
    header: Header | None
    """Of the block that holds the record; null where that is ``final.header``."""
    block_id: Bytes32
    """Of the block that holds the record."""
    history_path: Path
    """From ``block_id`` to the ``history_root`` of ``final.header``; empty where ``header`` is null."""
    set_changes: list[VotingProof]
    """Each change of the voting set from genesis to the one current in ``final``."""
    final: VotingProof
    """The final block, and who made it that."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a good receipt proves.

    Attributes:
        void: the record does not count, another of the same call and leg came before.
        block_ms: time of the block that holds it.
        final_height: the block that the certificate makes final.
        set_id: the voting set that was current there, counted from 0 in genesis.
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
    final_height: int
    set_id: int

    def sentence(self) -> str:
        """Return it as one line for a person."""
        counts = "void: the call and leg were recorded before" if self.void else "it counts"
        return (
            f"OK: record {self.index} of transaction {self.tx_id.hex()} by {self.member_id} is in block {self.height} "
            f"({self.block_id.hex()}), final under height {self.final_height}; {counts}"
        )


def make_receipt(
    store: Store, genesis: Genesis, tx_id: bytes, index: int, *, reader: FinalReader | None = None
) -> bytes:
    """Return the receipt of a record as a JSON file; see ``make_receipt_document``."""
    document = make_receipt_document(store, genesis, tx_id, index, reader=reader)
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def make_receipt_document(
    store: Store, genesis: Genesis, tx_id: bytes, index: int, *, reader: FinalReader | None = None
) -> dict[str, Any]:
    """Return the receipt, as JSON has it, of record ``index`` of a final transaction.

    reader: of this store; one that is kept spares a pass over the heights of the chain.
    Raises StoreError where the transaction is not final here or has no such record.
    """
    reader = reader or FinalReader(store, genesis)
    block, position = _find(store, tx_id)
    view = reader.view()
    raw = store.body(tx_id)
    if raw is None or view is None:
        raise StoreDamaged("the transaction is missing", where=tx_id.hex())
    transaction = decode(raw, Transaction)
    envelope = transaction.envelope
    if envelope.kind is not Kind.RECORDS:
        raise StoreError("a transaction that governs has no records", where=tx_id.hex(), actual=envelope.kind.name)
    if not 0 <= index < len(transaction.items):
        raise StoreError(
            "the transaction has no such record",
            where=tx_id.hex(),
            expected=f"0 to {len(transaction.items) - 1}",
            actual=index,
        )
    key = view.entry(KeyEntry, "key", envelope.key_id)
    if key is None:
        raise StoreDamaged("the submitter's key is missing", where=envelope.key_id.hex())
    header, item = block.sealed.header, block.body[position]
    final = view.voting_proof()
    is_final_block = header == view.header
    receipt = Receipt(
        2,
        chain_id_of(genesis),
        decode(transaction.items[index], CallRecord),
        int(is_void(item.void_bitmap, index)),
        index,
        _path(transaction.items, index),
        envelope,
        tx_id,
        transaction.signature,
        KeyProof(key, view.siblings("key", envelope.key_id)),
        position,
        item.void_bitmap,
        _path([encode(one) for one in block.body], position),
        None if is_final_block else header,
        block_id_of(header),
        [] if is_final_block else reader.history.path(header.height, view.header.height),
        reader.set_changes(count=final.voting.set_id),
        final,
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


def verify_receipt(data: bytes, genesis: Genesis) -> Verdict:
    """Return what a receipt proves. Raises InvalidProof, whose ``where`` names the step that failed."""
    receipt = _read(data)
    chain_id = chain_id_of(genesis)
    # [REJECT] It is of this chain
    _check_equal("chain_id", chain_id, receipt.chain_id)
    _check_transaction(receipt, chain_id)
    header = receipt.header or receipt.final.header
    _check_block(receipt, header, chain_id)
    _check_key(receipt)
    _check_final(receipt, genesis, chain_id)
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
        receipt.final.header.height,
        receipt.final.voting.set_id,
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
    # [REJECT] It is an envelope of records
    _check_equal("envelope.kind", Kind.RECORDS, envelope.kind)


def _check_block(receipt: Receipt, header: Header, chain_id: bytes) -> None:
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
    # [REJECT] The key is in the state of the final block, of the member, for records, and signed
    _check_equal("key.entry.public_key", envelope.key_id, key_id_of(entry.public_key))
    _check_equal("key.entry.member_id", envelope.member_id, entry.member_id)
    # Member, key and roles of an entry never change. That it was active when the block began, the quorum saw to; it
    # may have ended since.
    if not entry.roles & Role.SUBMIT:
        raise InvalidProof("the key may not submit", where="key.entry.roles", expected="a submit key")
    try:
        proof = StateProof(tuple(receipt.key.siblings))
        root = receipt.final.header.state_root
        verify_state_proof(root, state_path("key", envelope.key_id), encode(entry), proof)
    except InvalidProof as error:
        raise InvalidProof(error.what, where="key.siblings", expected=error.expected, actual=error.actual) from None
    if not is_valid_signature(entry.public_key, receipt.tx_id, receipt.signature):
        raise InvalidProof("the submitter's signature does not verify", where="signature", actual=receipt.signature)


def _check_final(receipt: Receipt, genesis: Genesis, chain_id: bytes) -> None:
    if receipt.header is None:
        _check_equal("history_path", [], receipt.history_path)
    else:
        # [REJECT] The block is in the history of the final one
        leaf, final = merkle.leaf_hash(receipt.block_id), receipt.final.header
        height = receipt.header.height
        _check_path("history_path", leaf, height, final.height, receipt.history_path, final.history_root)
    # [REJECT] From genesis on, each voting set is agreed on by the one before, and the last one made the block final
    trusted = check_set_changes(receipt.set_changes, founding_set(genesis), chain_id)
    check_voting(receipt.final, trusted, chain_id, where="final")


def _check_path(name: str, leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    try:
        merkle.verify_inclusion(leaf, index, size, path, root)
    except InvalidProof as error:
        where = f"{name}.{error.where}" if error.where not in {"", "path"} else name
        raise InvalidProof(error.what, where=where, expected=error.expected, actual=error.actual) from None


def _check_equal(name: str, expected: Any, actual: Any) -> None:
    if expected != actual:
        raise InvalidProof("does not follow from the rest", where=name, expected=expected, actual=actual)
