"""Data directories: rows that follow from the blocks, files that were damaged, stores that cannot be opened."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from audit.report import AuditReport
from audit.source import DirectorySource, find_store
from audit.verify import KnownHead, verify_chain
from consensus.rows import BEST_CERTIFICATE, FINAL_CERTIFICATE, FINAL_POINT, FinalPoint, SetRow, VotableRow
from ledger.block import Certificate
from ledger.codec import decode, encode
from ledger.errors import StoreDamaged, StoreError, StoreLocked, StoreVersion
from ledger.genesis import Genesis
from ledger.leveldb import LevelStore
from ledger.rules.ruleset import RuleSet
from ledger.store import Space, WriteBatch, height_key, record_key_row, space_range, transaction_key
from node.api.notes import NOTES_ROW
from tests.audit.chains import rules_of
from tests.audit.tamper import Parts

H = 9


@pytest.fixture(scope="session")
def rules(genesis: Genesis) -> RuleSet:
    return rules_of(genesis)


@pytest.fixture
def copy(data_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data_dir, tmp_path / "data"))


def audit(path: Path, genesis: Genesis, rules: RuleSet, **options: object) -> AuditReport:
    source = DirectorySource(path)
    try:
        return verify_chain(source, genesis, rules=rules, **options)
    finally:
        source.close()


def first_row(store: LevelStore, space: Space, *, height: int) -> tuple[bytes, bytes]:
    """Return the first row that block ``height`` put into an index."""
    suffix = height.to_bytes(8)
    return next(row for row in store.scan(*space_range(space)) if row[1] == suffix or row[0].endswith(suffix))


def minute_of(key: bytes) -> int:
    return int.from_bytes(key[1:5])


def point_of(store: LevelStore) -> FinalPoint:
    return decode(store.get(FINAL_POINT), FinalPoint)


Row = tuple[bytes, bytes | None]
Edit = Callable[[LevelStore, Parts], tuple[list[Row], int, str]]
ROWS: dict[str, Edit] = {}


def edit(make: Edit) -> Edit:
    """Note rows to write, with the height and field at which that must be found."""
    ROWS[make.__name__] = make
    return make


@edit
def height_rows_swapped(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    a, b = store.get(height_key(H)), store.get(height_key(H + 1))
    return [(height_key(H), b), (height_key(H + 1), a)], H, "height_row"


@edit
def height_row_missing(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    return [(height_key(H), None)], H, "height_row"


@edit
def height_row_beyond_the_end(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    return [(height_key(15), bytes(32))], 15, "height_row"


@edit
def height_row_of_genesis(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    return [(height_key(0), bytes(32))], 0, "height_row"


@edit
def header_under_another_id(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    other = b"\x77" * 32
    sealed, body = parts.blocks[H - 1].sealed, parts.blocks[H - 1].body
    rows = [(Space.HEADER.value + other, sealed), (Space.BODY_LIST.value + other, body), (height_key(H), other)]
    return rows, H, "block_id"


@edit
def header_missing(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    return [(Space.HEADER.value + parts.blocks[H - 1].stated_id, None)], H, "damaged"


@edit
def transaction_row_missing(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    return [(transaction_key(parts.body(H)[1].tx_id), None)], H, "transactions[1]"


@edit
def location_altered(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    tx_id = parts.body(H)[0].tx_id
    return [(Space.LOCATION.value + tx_id, (3).to_bytes(8))], H, f"location_row[{tx_id.hex()}]"


@edit
def location_missing(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    tx_id = parts.body(H)[0].tx_id
    return [(Space.LOCATION.value + tx_id, None)], H, f"location_row[{tx_id.hex()}]"


@edit
def location_of_nothing(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    return [(Space.LOCATION.value + b"\x88" * 32, (3).to_bytes(8))], 3, f"location_row[{'88' * 32}]"


@edit
def record_row_altered(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    key, row = first_row(store, Space.RECORD, height=H)
    return [(key, bytes([row[0] ^ 1]) + row[1:])], H, f"record_row[minute {minute_of(key)}]"


@edit
def record_row_shortened(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    key, row = first_row(store, Space.RECORD, height=H)
    return [(key, row[16:])], H, f"record_row[minute {minute_of(key)}]"


@edit
def record_row_missing(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    key, _ = first_row(store, Space.RECORD, height=H)
    return [(key, None)], H, f"record_row[minute {minute_of(key)}]"


@edit
def record_row_of_nothing(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    return [(record_key_row(1000, (5).to_bytes(8)), bytes(16))], 5, "record_row[minute 1000]"


@edit
def final_point_missing(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    return [(FINAL_POINT, None)], 1, "height_row"


@edit
def final_certificates_missing(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    return [(FINAL_CERTIFICATE, None), (BEST_CERTIFICATE, None)], 14, "finality"


@edit
def final_certificate_altered(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
    certificate = decode(store.get(FINAL_CERTIFICATE), Certificate)
    part = msgspec.structs.replace(certificate.parts[0], signatures=[bytes(64)] * 3)
    row = encode(msgspec.structs.replace(certificate, parts=[part]))
    return [(FINAL_CERTIFICATE, row)], 14, "final_certificate.parts.signatures"


def point_edit(name: str, value: object, *, height: int = 14, field: str = "") -> Edit:
    def make(store: LevelStore, parts: Parts) -> tuple[list[Row], int, str]:
        row = encode(msgspec.structs.replace(point_of(store), **{name: value}))
        return [(FINAL_POINT, row)], height, field or f"final_point.{name}"

    return make


for _name, _value in {
    "slot_after": 99,
    "justified_height": 1,
    "justified_id": b"\x99" * 32,
    "branch_final_height": 1,
    "branch_final_id": b"\x99" * 32,
    "last_records_height": 2,
    "set_ids": [1],
    "below": [VotableRow(1, bytes(32), 2, bytes(32), [0])],
    "sets": [SetRow(0, [])],
    "history": [b"\x99" * 32] * 4,
    "history_size": 14,
}.items():
    ROWS[f"final_point_{_name}"] = point_edit(_name, _value)
ROWS["final_point_block_id"] = point_edit("block_id", b"\x99" * 32, field="head.final_id")
ROWS["final_point_height_lowered"] = point_edit("height", 13, height=13, field="head.final_id")
ROWS["final_point_height_raised"] = point_edit("height", 15, height=15, field="height_row")


@pytest.mark.parametrize("name", ROWS)
def test_an_altered_row_is_found(name: str, copy: Path, original: Parts, genesis: Genesis, rules: RuleSet) -> None:
    store = LevelStore(copy)
    rows, height, field = ROWS[name](store, original)
    store.write(WriteBatch(puts=rows))
    store.close()
    difference = audit(copy, genesis, rules).first_difference
    assert difference is not None
    assert (difference.height, "damaged" if difference.is_damage else difference.field) == (height, field)


def test_best_certificate_stands_in(copy: Path, genesis: Genesis, rules: RuleSet) -> None:
    """Directories of earlier versions lack the row of the final certificate."""
    store = LevelStore(copy)
    store.write(WriteBatch(puts=[(FINAL_CERTIFICATE, None)]))
    store.close()
    assert audit(copy, genesis, rules).ok


def test_what_a_node_keeps_of_its_notes_is_no_matter_of_an_audit(copy: Path, genesis: Genesis, rules: RuleSet) -> None:
    before = audit(copy, genesis, rules)
    store = LevelStore(copy)
    store.write(WriteBatch(puts=[(NOTES_ROW, b"anything")]))
    store.close()
    assert audit(copy, genesis, rules) == before
    assert before.ok


def test_a_directory_rolled_back_is_found_by_a_known_head(
    copy: Path, original: Parts, genesis: Genesis, rules: RuleSet
) -> None:
    report = audit(copy, genesis, rules, known=[KnownHead(15, b"\xaa" * 32)])
    assert (report.height, report.first_difference.height, report.first_difference.what) == (
        14,
        15,
        "the chain was cut",
    )


# -- files -----------------------------------------------------------------------------------------------------------


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def compact(path: Path) -> None:
    """Make LevelDB write its rows into tables."""
    store = LevelStore(path)
    store._db.compact_range()
    store.close()


def damage(path: Path, genesis: Genesis, rules: RuleSet) -> tuple[int, str]:
    """Audit and return the height and file of the damage found."""
    difference = audit(path, genesis, rules).first_difference
    assert difference is not None
    assert difference.is_damage
    assert "damaged store" in difference.sentence()
    assert "ledger-verify-" not in difference.sentence()
    return difference.height, difference.where


def test_a_flipped_byte_in_a_segment(copy: Path, original: Parts, genesis: Genesis, rules: RuleSet) -> None:
    segment = copy / "segments" / "00000000.seg"
    flip(segment, segment.read_bytes().index(original.blocks[H - 1].transactions[0]) + 200)
    height, where = damage(copy, genesis, rules)
    assert (height, where.startswith(f"{segment} at ")) == (H, True)


def test_a_segment_cut_short(copy: Path, genesis: Genesis, rules: RuleSet) -> None:
    segment = copy / "segments" / "00000000.seg"
    segment.write_bytes(segment.read_bytes()[:-10])
    assert damage(copy, genesis, rules) == (1, str(segment))


def test_a_segment_missing(copy: Path, genesis: Genesis, rules: RuleSet) -> None:
    (copy / "segments" / "00000000.seg").unlink()
    assert damage(copy, genesis, rules) == (1, str(copy / "segments" / "00000000.seg"))


@pytest.mark.parametrize("place", [100, 2_000, 9_000])
def test_a_flipped_byte_in_a_table(place: int, copy: Path, genesis: Genesis, rules: RuleSet) -> None:
    compact(copy)
    table = max((copy / "db").glob("*.ldb"), key=lambda path: path.stat().st_size)
    flip(table, place)
    assert damage(copy, genesis, rules) == (1, str(table))


def test_a_flipped_byte_in_the_log(copy: Path, genesis: Genesis, rules: RuleSet) -> None:
    store = LevelStore(copy)
    for number in range(50):
        store.write(WriteBatch(puts=[(Space.PEER.value + bytes([number]), bytes(100))]))
    store.close()
    log = max((copy / "db").glob("*.log"), key=lambda path: path.stat().st_size)
    flip(log, 3_000)
    assert damage(copy, genesis, rules) == (1, str(log))


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST"])
def test_a_file_of_the_database_missing(name: str, copy: Path, genesis: Genesis, rules: RuleSet) -> None:
    next((copy / "db").glob(f"{name}*")).unlink()
    height, where = damage(copy, genesis, rules)
    assert (height, where.startswith(str(copy / "db"))) == (1, True)


def test_the_format_file_missing(copy: Path, genesis: Genesis, rules: RuleSet) -> None:
    (copy / "FORMAT").unlink()
    assert damage(copy, genesis, rules) == (1, str(copy / "FORMAT"))


def test_the_format_file_garbled(copy: Path, genesis: Genesis, rules: RuleSet) -> None:
    (copy / "FORMAT").write_text("ledgerd stone 1\n")
    assert damage(copy, genesis, rules) == (1, str(copy / "FORMAT"))


def test_another_format_version_is_no_verdict(copy: Path, genesis: Genesis, rules: RuleSet) -> None:
    (copy / "FORMAT").write_text("ledgerd store 99\n")
    with pytest.raises(StoreVersion) as caught:
        audit(copy, genesis, rules)
    assert caught.value.where == str(copy)


def test_a_running_nodes_directory_is_refused(copy: Path) -> None:
    store = LevelStore(copy)
    with pytest.raises(StoreLocked) as caught:
        DirectorySource(copy)
    store.close()
    assert "ledger-verify http://HOST:PORT" in caught.value.hint


def test_a_directory_without_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        DirectorySource(tmp_path)
    assert (caught.value.what, isinstance(caught.value, StoreDamaged)) == ("there is no store here", False)


def test_the_store_is_found_one_folder_down(copy: Path) -> None:
    assert find_store(copy.parent) == copy
    shutil.copytree(copy, copy.parent / "second")
    with pytest.raises(StoreError, match="several stores"):
        find_store(copy.parent)


def test_copies_are_removed(copy: Path, genesis: Genesis, rules: RuleSet, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    assert audit(copy, genesis, rules).ok
    assert list((tmp_path / "scratch").iterdir()) == []
