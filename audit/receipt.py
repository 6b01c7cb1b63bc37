"""Receipts: one record proved offline, against the genesis file alone.

A receipt leads from the record to its transaction (item path to ``items_root``), from there to its block (body path to
``tx_root``), from the block to the final one of the moment the receipt was made (history path to ``history_root``), and
from that to a quorum of the producers who vote there. Who they are follows from genesis by the changes of the voting
set. The submitter's signature is held against the member's key in the final block's state, where keys stay for ever.
Every field of the JSON is needed or checked; changing any makes it fail.

The seal of the record's block is not in it: a quorum voted for a block above, and with it that the slot's owner sealed
this one; a forger who had that quorum would have a seal as well.

Source: docs/protocol.md, "Receipt".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from audit.final import FinalReader, FinalView
from audit.receipt_file import (
    VERSION,
    EnvelopePart,
    FinalProof,
    KeyPart,
    ReceiptFile,
    compact,
    envelope_of,
    expand,
    key_entry_of,
    pack,
    pack_bytes,
    pack_path,
    read_receipt,
    unpack,
    unpack_bytes,
    unpack_path,
    write_receipt,
)
from audit.revealed import RevealedField, check_revealed, revealed_to_json
from audit.voting import check_voting, founding_set
from consensus.rows import read_block, read_final_id
from consensus.votes import VotingSet
from ledger import merkle
from ledger.block import Block, BodyItem, Header, block_id_of, is_void
from ledger.cdr import CallRecord
from ledger.codec import decode, encode
from ledger.commitment import PrivateField
from ledger.crypto import is_valid_signature
from ledger.entries import KeyEntry
from ledger.errors import InvalidProof, StoreDamaged, StoreError
from ledger.genesis import Genesis, Role, chain_id_of
from ledger.readable import to_readable
from ledger.state import state_path
from ledger.statetree import DEPTH_MAX, StateProof, verify_state_proof
from ledger.store import Space, Store
from ledger.transaction import Kind, Transaction, tx_id_of
from ledger.transition import block_time_ms


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a good receipt proves.

    Attributes:
        void: the record does not count, another of the same call and leg came before.
        block_ms: time of the block that holds it.
        final_height: the block that the certificate makes final.
        set_id: the voting set that was current there, counted from 0 in genesis.
        revealed: the private fields shown, each the one that the record commits to.
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
    revealed: tuple[PrivateField, ...] = ()

    def sentence(self) -> str:
        """Return it as one line for a person."""
        counts = "void: the call and leg were recorded before" if self.void else "it counts"
        time = datetime.fromtimestamp(self.block_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (
            f"OK: record {self.index} of transaction {self.tx_id.hex()} by {self.member_id} is in block {self.height} "
            f"({self.block_id.hex()}) of {time}, final under height {self.final_height} by voting set {self.set_id}; "
            f"{counts}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return it for programs; values of private fields as hex, since they may be no text."""
        return {name: to_readable(getattr(self, name)) for name in self.__slots__}


def make_receipt(
    store: Store,
    genesis: Genesis,
    tx_id: bytes,
    index: int,
    *,
    reader: FinalReader | None = None,
    revealed: Sequence[RevealedField] = (),
) -> bytes:
    """Return the receipt, a JSON file, of record ``index`` of a final transaction.

    reader: of this store; one that is kept spares a pass over the heights of the chain.
    revealed: private fields of the record to be shown with it, in the order of PRIVATE_FIELDS.
    Raises StoreError where the transaction is not final here or has no such record.
    """
    reader = reader or FinalReader(store, genesis)
    block, position = _find(store, tx_id)
    view = reader.view()
    raw = store.body(tx_id)
    if raw is None or view is None:
        raise StoreDamaged("the transaction is missing", where=tx_id.hex())
    transaction = decode(raw, Transaction)
    _check_has(transaction, tx_id, index)
    header, item, envelope = block.sealed.header, block.body[position], transaction.envelope
    final = view.voting_proof()
    is_final_block = header == view.header
    file = ReceiptFile(
        VERSION,
        int(bool(revealed)),
        chain_id_of(genesis),
        tx_id,
        index,
        int(is_void(item.void_bitmap, index)),
        header.height,
        block_time_ms(genesis, header.slot),
        decode(transaction.items[index], CallRecord),
        EnvelopePart(
            envelope.member_id, envelope.created_ms, envelope.expires_ms, envelope.item_count, envelope.items_root
        ),
        transaction.signature,
        _key_part(view, envelope.key_id),
        _path(transaction.items, index),
        position,
        _path([encode(one) for one in block.body], position),
        pack_bytes(item.void_bitmap),
        None if is_final_block else pack(header),
        pack_path([] if is_final_block else reader.history.path(header.height, view.header.height)),
        [pack(compact(change)) for change in reader.set_changes(count=final.voting.set_id)],
        pack(compact(final)),
    )
    return write_receipt(file, [revealed_to_json(field) for field in revealed])


def _check_has(transaction: Transaction, tx_id: bytes, index: int) -> None:
    kind = transaction.envelope.kind
    if kind is not Kind.RECORDS:
        raise StoreError("a transaction that governs has no records", where=tx_id.hex(), actual=kind.name)
    if not 0 <= index < len(transaction.items):
        raise StoreError(
            "the transaction has no such record",
            where=tx_id.hex(),
            expected=f"0 to {len(transaction.items) - 1}",
            actual=index,
        )


def _key_part(view: FinalView, key_id: bytes) -> KeyPart:
    entry = view.entry(KeyEntry, "key", key_id)
    if entry is None:
        raise StoreDamaged("the submitter's key is missing", where=key_id.hex())
    return KeyPart(entry.public_key, entry.roles, entry.standing, pack_path(view.siblings("key", key_id)))


def _path(items: Sequence[bytes], index: int) -> str:
    return pack_path(merkle.inclusion_proof([merkle.leaf_hash(item) for item in items], index))


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
    file, revealed = read_receipt(data)
    chain_id = chain_id_of(genesis)
    # [REJECT] It is of this chain
    _check_equal("chain_id", chain_id, file.chain_id)
    _check_transaction(file, chain_id)
    final = unpack(file.final, FinalProof, where="final")
    header = final.header if file.header is None else unpack(file.header, Header, where="header")
    _check_block(file, header, genesis, chain_id)
    _check_key(file, final.header.state_root)
    trusted = _check_final(file, final, block_id_of(header), genesis, chain_id)
    # [REJECT] Each private field shown is the one that the record commits to
    fields = [] if revealed is None else check_revealed(revealed, file.record.party_commitment)
    return Verdict(
        chain_id,
        file.record,
        file.envelope.member_id,
        file.tx_id,
        file.index,
        bool(file.void),
        header.height,
        block_id_of(header),
        file.block_ms,
        final.header.height,
        trusted.set_id,
        tuple(fields),
    )


def _check_transaction(file: ReceiptFile, chain_id: bytes) -> None:
    # [REJECT] The record is the item at its index under the root signed
    leaf, part = merkle.leaf_hash(encode(file.record)), file.envelope
    _check_path("item_path", leaf, file.index, part.item_count, file.item_path, part.items_root)
    # [REJECT] The envelope of records on this chain gives the id
    _check_equal("tx_id", tx_id_of(envelope_of(file, chain_id)), file.tx_id)


def _check_block(file: ReceiptFile, header: Header, genesis: Genesis, chain_id: bytes) -> None:
    # [REJECT] The transaction is the item at its index under the header's root, with the record's void bit
    bitmap = unpack_bytes(file.void_bitmap, where="void_bitmap")
    leaf = merkle.leaf_hash(encode(BodyItem(file.tx_id, bitmap)))
    _check_path("tx_path", leaf, file.tx_index, header.tx_count, file.tx_path, header.tx_root)
    bitmap_bytes = (file.envelope.item_count + 7) // 8
    if len(bitmap) not in (0, bitmap_bytes):
        raise InvalidProof("the bitmap does not fit the transaction", where="void_bitmap", expected=bitmap_bytes)
    _check_equal("void", int(is_void(bitmap, file.index)), file.void)
    # [REJECT] The header is of this chain, and its height and time are those stated
    _check_equal("header.chain_id", chain_id, header.chain_id)
    _check_equal("height", header.height, file.height)
    _check_equal("block_ms", block_time_ms(genesis, header.slot), file.block_ms)


def _check_key(file: ReceiptFile, state_root: bytes) -> None:
    # [REJECT] The key is in the state of the final block, of the member, for records, and signed
    entry = key_entry_of(file)
    # Member, key and roles of an entry never change. That it was active when the block began, the quorum saw to; it
    # may have ended since.
    if not entry.roles & Role.SUBMIT:
        raise InvalidProof("the key may not submit", where="key.roles", expected="a submit key", actual=entry.roles)
    siblings = unpack_path(file.key.path, where="key.path", hashes_max=DEPTH_MAX)
    path = state_path("key", envelope_of(file, file.chain_id).key_id)
    try:
        verify_state_proof(state_root, path, encode(entry), StateProof(tuple(siblings)))
    except InvalidProof as error:
        raise InvalidProof(error.what, where="key.path", expected=error.expected, actual=error.actual) from None
    if not is_valid_signature(entry.public_key, file.tx_id, file.signature):
        raise InvalidProof("the submitter's signature does not verify", where="signature", actual=file.signature)


def _check_final(file: ReceiptFile, final: FinalProof, block_id: bytes, genesis: Genesis, chain_id: bytes) -> VotingSet:
    """Return the voting set that made ``final`` final."""
    if file.header is None:
        _check_equal("history_path", "", file.history_path)
    else:
        # [REJECT] The block is in the history of the final one
        leaf, header = merkle.leaf_hash(block_id), final.header
        _check_path("history_path", leaf, file.height, header.height, file.history_path, header.history_root)
    # [REJECT] From genesis on, each voting set is agreed on by the one before, and the last one made the block final
    trusted = founding_set(genesis)
    for number, packed in enumerate(file.set_changes):
        where = f"set_changes[{number}]"
        change = unpack(packed, FinalProof, where=where)
        coming = _check_voting(change, trusted, chain_id, where)
        # [REJECT] There is a change under way in its state
        if coming is None:
            raise InvalidProof("no change of the voting set", where=f"{where}.pending", expected="the set to come")
        trusted = coming
    _check_voting(final, trusted, chain_id, "final")
    return trusted


def _check_voting(proof: FinalProof, trusted: VotingSet, chain_id: bytes, where: str) -> VotingSet | None:
    try:
        return check_voting(expand(proof, trusted), trusted, chain_id, where=where)
    except InvalidProof as error:
        if error.where != f"{where}.siblings":
            raise
        # Its entry is not in the file but put together from the set trusted so far.
        what = f"the state of this block does not have voting set {trusted.set_id}, to which the file leads, as current"
        raise InvalidProof(what, where=error.where, expected=error.expected, actual=error.actual) from None


def _check_path(name: str, leaf: bytes, index: int, size: int, path: str, root: bytes) -> None:
    hashes = unpack_path(path, where=name)
    try:
        merkle.verify_inclusion(leaf, index, size, hashes, root)
    except InvalidProof as error:
        where = f"{name}.{error.where}" if error.where not in {"", "path"} else name
        raise InvalidProof(error.what, where=where, expected=error.expected, actual=error.actual) from None


def _check_equal(name: str, expected: Any, actual: Any) -> None:
    if expected != actual:
        raise InvalidProof("does not follow from the rest", where=name, expected=expected, actual=actual)
