"""Exports: written and read back, and every way in which the bytes may be wrong."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.export import (
    FRAME_BYTES_MAX,
    MAGIC,
    ExportReader,
    FrameType,
    export_chain,
    make_frame,
    make_preamble,
    write_export,
)
from audit.raw import Head, read_finality
from audit.verify import verify_chain
from ledger.codec import encode
from ledger.errors import LedgerError, StoreDamaged, StoreVersion
from ledger.genesis import Genesis, chain_id_of
from ledger.leveldb import LevelStore
from ledger.store import MemoryStore, WriteBatch, transaction_key
from tests.audit.chains import make_genesis, rules_of
from tests.audit.tamper import Parts, take_apart


def read(data: bytes) -> ExportReader:
    """Read an export to its end."""
    reader = ExportReader(io.BytesIO(data), name="chain.export")
    for _ in reader.blocks():
        pass
    return reader


def refused(data: bytes) -> StoreDamaged:
    with pytest.raises(StoreDamaged) as caught:
        read(data)
    assert caught.value.where.startswith("chain.export at ")
    return caught.value


def test_what_is_written_is_read_back(data_dir: Path, original: Parts, genesis: Genesis, tmp_path: Path) -> None:
    store = LevelStore(data_dir)
    with (tmp_path / "export").open("wb") as file:
        size = write_export(store, genesis, file)
    store.close()
    data = (tmp_path / "export").read_bytes()
    assert (len(data), data) == (size, original.to_export())
    reader = ExportReader(io.BytesIO(data), name="chain.export")
    assert (reader.genesis, reader.head) == (encode(genesis), original.head)
    blocks = list(reader.blocks())
    assert [(b.height, b.sealed, b.body, b.transactions) for b in blocks] == [
        (b.height, b.sealed, b.body, b.transactions) for b in original.blocks
    ]
    assert reader.finality == original.finality


def test_it_may_begin_later(data_dir: Path, original: Parts, genesis: Genesis) -> None:
    store = LevelStore(data_dir)
    data = b"".join(export_chain(store, genesis, first_height=12))
    store.close()
    reader = ExportReader(io.BytesIO(data), name="chain.export")
    assert reader.head == Head(12, 14, original.head.final_id)
    assert [(b.height, b.sealed) for b in reader.blocks()] == [(h, original.blocks[h - 1].sealed) for h in (12, 13, 14)]


def test_it_may_begin_beyond_the_end(data_dir: Path, genesis: Genesis) -> None:
    store = LevelStore(data_dir)
    assert (
        list(ExportReader(io.BytesIO(b"".join(export_chain(store, genesis, first_height=15))), name="x").blocks()) == []
    )
    store.close()


def test_an_empty_chain(genesis: Genesis) -> None:
    reader = read(take_apart(MemoryStore(), genesis).to_export())
    assert (reader.head, reader.finality.child) == (Head(1, 0, chain_id_of(genesis)), None)
    assert read_finality(MemoryStore(), reader.head) == reader.finality


def test_a_missing_transaction_ends_the_export_without_its_end(
    data_dir: Path, original: Parts, genesis: Genesis, tmp_path: Path
) -> None:
    path = original.to_directory(data_dir, original, tmp_path / "data")
    store = LevelStore(path)
    store.write(WriteBatch(puts=[(transaction_key(original.body(9)[0].tx_id), None)]))
    pieces = []
    with pytest.raises(StoreDamaged, match="height 9"):
        for piece in export_chain(store, genesis):
            pieces.append(piece)  # noqa: PERF402 - what came before the error counts
    store.close()
    assert refused(b"".join(pieces)).what == "the export ends too early"


def test_cut_anywhere_it_is_refused(original: Parts) -> None:
    data = original.to_export()
    for length in [0, 5, len(MAGIC), len(MAGIC) + 3, 100, *range(1_000, len(data), 997), len(data) - 9, len(data) - 1]:
        assert refused(data[:length]).what == "the export ends too early"


def test_any_flipped_byte_is_found(original: Parts, genesis: Genesis) -> None:
    """The frame's checksum or its type, length or order tells; what does not is found by the audit."""
    data = original.to_export()
    rules = rules_of(genesis)
    for offset in range(0, len(data), 211):
        changed = bytearray(data)
        changed[offset] ^= 0x04
        with pytest.raises(LedgerError):
            read(bytes(changed))
    assert verify_chain(original.to_source(), genesis, rules=rules).ok


def test_bytes_after_the_end(original: Parts) -> None:
    assert refused(original.to_export() + b"\x00").what == "bytes after the END frame"


def test_another_version() -> None:
    with pytest.raises(StoreVersion):
        read(MAGIC + b"\x00\x02")


def test_no_export() -> None:
    assert refused(b"PK\x03\x04" + bytes(100)).what == "this is no export"


def beginning(genesis: Genesis) -> bytes:
    head = make_frame(FrameType.HEAD, encode(Head(1, 0, chain_id_of(genesis))))
    return make_preamble() + make_frame(FrameType.GENESIS, encode(genesis)) + head


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        ([(FrameType.BODY, b"")], "frames out of order"),
        ([(FrameType.SEALED, b""), (FrameType.SEALED, b"")], "frames out of order"),
        ([(FrameType.CERTIFICATE, b""), (FrameType.CHILD, b"")], "frames out of order"),
        ([(FrameType.GENESIS, b"")], "frames out of order"),
        ([(99, b"")], "a frame of an unknown type"),
    ],
)
def test_frames_out_of_order(frames: list[tuple[FrameType, bytes]], what: str, genesis: Genesis) -> None:
    end = make_frame(FrameType.END, b"")
    assert refused(beginning(genesis) + b"".join(make_frame(*frame) for frame in frames) + end).what == what


def test_a_frame_too_long_is_refused_unread(genesis: Genesis) -> None:
    frame = b"\x03" + (FRAME_BYTES_MAX + 1).to_bytes(4) + bytes(4)
    assert refused(beginning(genesis) + frame).what == "a frame is too long"


def test_a_head_that_is_none(genesis: Genesis) -> None:
    data = make_preamble() + make_frame(FrameType.GENESIS, b"") + make_frame(FrameType.HEAD, b"\x93\x01\x02\x03")
    assert "HEAD" in refused(data).what


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_crash(data: bytes) -> None:
    for begin in (b"", make_preamble(), beginning(make_genesis())):
        with pytest.raises(LedgerError):
            read(begin + data)
