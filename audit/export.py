r"""A chain in one file, or one stream: what an auditor is given.

::

    "ledgerd export\n" | format version (2)
    frame, frame, ...    type (1) | length (4) | CRC-32 of type, length and payload (4) | payload

Numbers are big endian. The payloads are canonical MessagePack, as they lie on the producer's disk: nothing is decoded
on the way. Frames come in this order:

1. GENESIS: the genesis.
2. HEAD: ``[first_height, final_height, final_id]``, what the file holds.
3. For each block in order of height: SEALED (header, signature, certificate), BODY (its list of ``[tx_id, bitmap]``),
   and a TRANSACTION for each item of the body.
4. CHILD and CERTIFICATE: the sealed header of a child of the last block, and the certificate on the link between
   them, which makes the last block final. Both are absent in an export without blocks.
5. END, empty: without it the file was cut.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import BinaryIO, Final

from audit.raw import Head, RawBlock, RawFinality, read_end, read_raw_block
from ledger.codec import decode, encode
from ledger.errors import EncodingError, StoreDamaged, StoreVersion
from ledger.genesis import Genesis, chain_id_of
from ledger.store import Store

MAGIC: Final = b"ledgerd export\n"
EXPORT_VERSION: Final = 1
FRAME_BYTES_MAX: Final = 16 << 20
"""Longest payload: the body list of a block with the most transactions is about 11 MB."""
BODY_ITEMS_MAX: Final = 65_535

_VERSION: Final = struct.Struct(">H")
_FRAME: Final = struct.Struct(">BII")
_CHECKED: Final = struct.Struct(">BI")


class FrameType(IntEnum):
    """What a frame holds. Values are part of the format: add, never renumber."""

    GENESIS = 1
    HEAD = 2
    SEALED = 3
    BODY = 4
    TRANSACTION = 5
    CHILD = 6
    CERTIFICATE = 7
    END = 8


def make_preamble() -> bytes:
    """Return what an export begins with."""
    return MAGIC + _VERSION.pack(EXPORT_VERSION)


def make_frame(kind: FrameType, payload: bytes) -> bytes:
    """Return the frame of ``payload``."""
    crc = zlib.crc32(payload, zlib.crc32(_CHECKED.pack(kind, len(payload))))
    return _FRAME.pack(kind, len(payload), crc) + payload


def export_chain(store: Store, genesis: Genesis, *, first_height: int = 1) -> Iterator[bytes]:
    """Yield the export of a store's final chain, piece by piece, from ``first_height`` on.

    What is final when it begins is exported, whatever becomes final meanwhile. Holds one block at a time. Raises
    StoreDamaged where the store cannot be read; the stream then lacks its END.
    """
    found, finality = read_end(store, chain_id_of(genesis))
    head = Head(first_height, found.final_height, found.final_id)
    yield make_preamble()
    yield make_frame(FrameType.GENESIS, encode(genesis))
    yield make_frame(FrameType.HEAD, encode(head))
    for height in range(first_height, head.final_height + 1):
        block = read_raw_block(store, height)
        if block is None:
            raise StoreDamaged("a final block is missing", where=f"height {height}")
        yield from export_block(block)
    yield from export_finality(finality)


def export_block(block: RawBlock) -> Iterator[bytes]:
    """Yield the frames of one block. Raises StoreDamaged where one of its transactions is missing."""
    yield make_frame(FrameType.SEALED, block.sealed) + make_frame(FrameType.BODY, block.body)
    for index, raw in enumerate(block.transactions):
        if raw is None:
            raise StoreDamaged("a transaction is missing", where=f"height {block.height}: transactions[{index}]")
        yield make_frame(FrameType.TRANSACTION, raw)


def export_finality(finality: RawFinality) -> Iterator[bytes]:
    """Yield the frames that end an export."""
    if finality.child is not None:
        yield make_frame(FrameType.CHILD, finality.child)
    if finality.certificate is not None:
        yield make_frame(FrameType.CERTIFICATE, finality.certificate)
    yield make_frame(FrameType.END, b"")


def write_export(store: Store, genesis: Genesis, file: BinaryIO) -> int:
    """Write the export of a store's final chain and return its size in bytes."""
    return sum(file.write(piece) for piece in export_chain(store, genesis))


class ExportReader:
    """Reads an export from a stream, once, front to back, holding one block at a time.

    Attributes:
        genesis: encoded, as found.
        head: what the export says it holds.
        finality: what ends it; there once ``blocks`` is through.

    Every method raises StoreDamaged, naming file and offset, where the bytes are not those that were written;
    StoreVersion for a format that this release does not read.
    """

    def __init__(self, file: BinaryIO, *, name: str) -> None:
        """Read the beginning of the export ``name``."""
        self._file = file
        self._name = name
        self.offset = 0
        self.finality = RawFinality(None, None)
        self._check_preamble()
        self.genesis = self._expect(FrameType.GENESIS)
        try:
            self.head = decode(self._expect(FrameType.HEAD), Head)
        except EncodingError as error:
            raise self._damaged(f"the HEAD frame cannot be read: {error}") from None
        self._next: tuple[FrameType, bytes] = self._frame()

    def blocks(self) -> Iterator[RawBlock]:
        """Yield the blocks in the order of the file, then read what ends it."""
        height = self.head.first_height
        while self._is_next(FrameType.SEALED):
            sealed = self._take()
            body = self._take_one(FrameType.BODY)
            transactions: list[bytes | None] = []
            while self._is_next(FrameType.TRANSACTION):
                transactions.append(self._take())
                if len(transactions) > BODY_ITEMS_MAX:
                    raise self._damaged("more transactions than a block may hold")
            yield RawBlock(height, None, sealed, body, transactions)
            height += 1
        child = self._take() if self._is_next(FrameType.CHILD) else None
        certificate = self._take() if self._is_next(FrameType.CERTIFICATE) else None
        if self._next[0] is not FrameType.END:
            raise self._damaged("frames out of order", expected="END", actual=self._next[0].name)
        if self._file.read(1):
            raise self._damaged("bytes after the END frame")
        self.finality = RawFinality(child, certificate)

    def _is_next(self, kind: FrameType) -> bool:
        return self._next[0] is kind

    def _take(self) -> bytes:
        """Return the payload at hand and read the next frame."""
        payload = self._next[1]
        self._next = self._frame()
        return payload

    def _take_one(self, kind: FrameType) -> bytes:
        if self._next[0] is not kind:
            raise self._damaged("frames out of order", expected=kind.name, actual=self._next[0].name)
        return self._take()

    def _expect(self, kind: FrameType) -> bytes:
        found, payload = self._frame()
        if found is not kind:
            raise self._damaged("frames out of order", expected=kind.name, actual=found.name)
        return payload

    def _check_preamble(self) -> None:
        preamble = self._read(len(MAGIC) + _VERSION.size)
        if not preamble.startswith(MAGIC):
            raise self._damaged("this is no export", expected=MAGIC.decode().strip())
        version = _VERSION.unpack(preamble[len(MAGIC) :])[0]
        if version != EXPORT_VERSION:
            raise StoreVersion(
                "the export is of another format version",
                where=self._name,
                expected=EXPORT_VERSION,
                actual=version,
                hint="Use the release of ledger-verify that reads it",
            )

    def _frame(self) -> tuple[FrameType, bytes]:
        begin = self.offset
        kind, length, crc = _FRAME.unpack(self._read(_FRAME.size))
        if length > FRAME_BYTES_MAX:
            raise self._damaged("a frame is too long", at=begin, expected=f"<= {FRAME_BYTES_MAX} bytes", actual=length)
        payload = self._read(length)
        if zlib.crc32(payload, zlib.crc32(_CHECKED.pack(kind, length))) != crc:
            raise self._damaged("a frame's checksum does not fit", at=begin)
        try:
            return FrameType(kind), payload
        except ValueError:
            raise self._damaged("a frame of an unknown type", at=begin, actual=kind) from None

    def _read(self, size: int) -> bytes:
        pieces = []
        wanted = size
        while wanted:
            piece = self._file.read(wanted)
            if not piece:
                raise self._damaged(
                    "the export ends too early",
                    expected=f"{size} bytes",
                    actual=f"{size - wanted} bytes",
                    hint="Copy or fetch it again: it was cut",
                )
            pieces.append(piece)
            wanted -= len(piece)
        self.offset += size
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _damaged(
        self, what: str, *, at: int | None = None, expected: object = "", actual: object = "", hint: str = ""
    ) -> StoreDamaged:
        where = f"{self._name} at {self.offset if at is None else at}"
        return StoreDamaged(what, where=where, expected=expected, actual=actual, hint=hint)
