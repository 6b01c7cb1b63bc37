"""A chain taken apart, to be changed and put together again, as an export or as a data directory."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from audit.export import (
    FrameType,
    export_block,
    export_finality,
    make_frame,
    make_preamble,
)
from audit.raw import Head, RawBlock, RawFinality, read_finality, read_head, read_raw_block
from audit.source import ExportSource
from consensus.rows import BEST_CERTIFICATE, FINAL_CERTIFICATE, FINAL_POINT, read_final_point
from ledger.block import (
    Block,
    BodyItem,
    Certificate,
    CertificatePart,
    Header,
    SealedHeader,
    block_id_of,
    body_root,
    certificate_hash,
    void_bitmap,
    vote_digest,
)
from ledger.codec import decode, encode
from ledger.crypto import ORDER, PrivateKey
from ledger.genesis import Genesis, chain_id_of
from ledger.leveldb import LevelStore
from ledger.store import Space, Store, WriteBatch, height_key, transaction_key
from ledger.transaction import Transaction
from tests.audit.chains import NODE_KEYS

OWNER = {key.key_id: key for key in NODE_KEYS.values()}


@dataclass
class Parts:
    """Everything a chain is made of."""

    genesis: Genesis
    head: Head
    blocks: list[RawBlock]
    finality: RawFinality

    def copy(self) -> Parts:
        return replace(self, blocks=list(self.blocks))

    # -- reading and changing a block, by height -----------------------------------------------------------------

    def sealed(self, height: int) -> SealedHeader:
        return decode(self.blocks[height - 1].sealed, SealedHeader)

    def header(self, height: int) -> Header:
        return self.sealed(height).header

    def body(self, height: int) -> list[BodyItem]:
        return decode(self.blocks[height - 1].body, list[BodyItem])

    def transaction(self, height: int, index: int = 0) -> Transaction:
        return decode(self.blocks[height - 1].transactions[index], Transaction)

    def put(self, height: int, /, **changes: object) -> None:
        """Replace raw parts of a block."""
        self.blocks[height - 1] = replace(self.blocks[height - 1], **changes)

    def put_sealed(self, height: int, /, **changes: object) -> None:
        """Replace parts of a sealed header: header, signature or certificate."""
        self.put(height, sealed=encode(msgspec.structs.replace(self.sealed(height), **changes)))

    def put_header(self, height: int, /, **changes: object) -> None:
        """Change header fields without signing anew."""
        self.put_sealed(height, header=msgspec.structs.replace(self.header(height), **changes))

    def put_body(self, height: int, body: list[BodyItem]) -> None:
        self.put(height, body=encode(body))

    def put_transaction(self, height: int, transaction: Transaction | bytes | None, index: int = 0) -> None:
        raws = list(self.blocks[height - 1].transactions)
        raws[index] = encode(transaction) if isinstance(transaction, Transaction) else transaction
        self.put(height, transactions=raws)

    def reseal(self, height: int, /, *, key: PrivateKey | None = None, **changes: object) -> None:
        """Change header fields and sign, by the owner of the slot unless told otherwise; keep it under its new id."""
        header = msgspec.structs.replace(self.header(height), **changes)
        signer = key or OWNER[header.producer_key_id]
        self.put_sealed(height, header=header, signature=signer.sign(block_id_of(header)))
        self.put(height, stated_id=block_id_of(header))

    def reseal_body(self, height: int, items: list[tuple[BodyItem, bytes]]) -> None:
        """Give a block another body, its root and its count; totals stay."""
        body = [item for item, _ in items]
        self.put(height, body=encode(body), transactions=[raw for _, raw in items])
        self.reseal(height, tx_count=len(body), tx_root=body_root(body))

    def items(self, height: int) -> list[tuple[BodyItem, bytes]]:
        return list(zip(self.body(height), self.blocks[height - 1].transactions, strict=True))

    def put_certificate(self, height: int, certificate: Certificate | None, *, seal: bool = False) -> None:
        """Replace the certificate a block carries; with ``seal`` the header and its signature follow."""
        self.put_sealed(height, certificate=certificate)
        if seal:
            self.reseal(height, qc_hash=certificate_hash(certificate))

    def change_part(self, height: int, /, **changes: object) -> None:
        certificate = self.sealed(height).certificate
        part = msgspec.structs.replace(certificate.parts[0], **changes)
        self.put_certificate(height, msgspec.structs.replace(certificate, parts=[part]))

    # -- putting it together -------------------------------------------------------------------------------------

    def to_export(self) -> bytes:
        frames = [
            make_preamble(),
            make_frame(FrameType.GENESIS, encode(self.genesis)),
            make_frame(FrameType.HEAD, encode(self.head)),
        ]
        for block in self.blocks:
            frames += export_block(replace(block, transactions=[t for t in block.transactions if t is not None]))
        frames += export_finality(self.finality)
        return b"".join(frames)

    def to_source(self) -> ExportSource:
        return ExportSource(io.BytesIO(self.to_export()), name="chain.export")

    def to_directory(self, base: Path, original: Parts, path: Path) -> Path:
        """Copy the data directory ``base`` and write what differs from ``original`` into it."""
        shutil.copytree(base, path)
        store = LevelStore(path)
        batch = WriteBatch()
        gone: list[bytes] = []
        for index, block in enumerate(self.blocks):
            if index < len(original.blocks) and block == original.blocks[index]:
                continue
            batch.puts += [
                (height_key(index + 1), block.stated_id),
                (Space.HEADER.value + block.stated_id, block.sealed),
                (Space.BODY_LIST.value + block.stated_id, block.body),
            ]
            tx_ids = [item.tx_id for item in decode_or_none(block.body)]
            for tx_id, raw in zip(tx_ids, block.transactions, strict=False):
                if raw is None:
                    gone.append(transaction_key(tx_id))
                else:
                    batch.bodies.append((tx_id, raw))
        batch.puts += self._end_rows(store, original)
        store.write(batch)
        for key in gone:
            store.write(WriteBatch(puts=[(key, None)]))
        store.close()
        return path

    def _end_rows(self, store: Store, original: Parts) -> list[tuple[bytes, bytes | None]]:
        """Return the rows of another end of the chain, or of another proof of it."""
        rows: list[tuple[bytes, bytes | None]] = []
        if self.finality != original.finality:
            certificate = self.finality.certificate
            rows += [(FINAL_CERTIFICATE, certificate), (BEST_CERTIFICATE, certificate)]
        if self.head != original.head:
            point = read_final_point(store)
            height, block_id = self.head.final_height, self.head.final_id
            rows.append((FINAL_POINT, encode(msgspec.structs.replace(point, height=height, block_id=block_id))))
            rows += [(height_key(above), None) for above in range(height + 1, original.head.final_height + 1)]
        return rows


def decode_or_none(body: bytes) -> list[BodyItem]:
    """Return a body, however it is spelled."""
    return msgspec.msgpack.decode(body, type=list[BodyItem])


def take_apart(store: Store, genesis: Genesis) -> Parts:
    """Return the parts of a store's final chain."""
    head = read_head(store, chain_id_of(genesis))
    blocks = [read_raw_block(store, height) for height in range(1, head.final_height + 1)]
    return Parts(genesis, head, blocks, read_finality(store, head))


def high_s(signature: bytes) -> bytes:
    """Return the other signature of the same key over the same digest."""
    return signature[:32] + (ORDER - int.from_bytes(signature[32:])).to_bytes(32)


def longer_spelling(data: bytes) -> bytes:
    """Return other MessagePack of the same value: a byte string of 32 with its length in two bytes."""
    assert b"\xc4\x20" in data
    return data.replace(b"\xc4\x20", b"\xc5\x00\x20", 1)


def certify(genesis: Genesis, template: Certificate, names: list[str], order: list[str]) -> Certificate:
    """Return a certificate on the link of ``template`` that ``names`` sign; ``order`` is that of the voting set."""
    link = (template.s_height, template.s_id, template.t_height, template.t_id)
    digest = vote_digest(chain_id_of(genesis), *link)
    signers = sorted(order.index(name) for name in names)
    signatures = [NODE_KEYS[order[index]].sign(digest) for index in signers]
    return Certificate(*link, [CertificatePart(0, void_bitmap(signers, len(order)), signatures)])


__all__ = ["Block", "Parts", "certify", "high_s", "longer_spelling", "take_apart"]
