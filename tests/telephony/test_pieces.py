"""Files cut into pieces: however they are read, the documents are those of the whole file."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import EncodingError
from telephony import pieces
from telephony.adapters.base import Adapter
from telephony.adapters.registry import Adapters
from telephony.pieces import PIECE_ROWS, Found, Piece, Shape, cut, growing_layout_of, rows_in, split_piece

FIXTURES = Path(__file__).parent / "fixtures"
ADAPTERS = Adapters({"mapped": {f"my-{name}": {"preset": name} for name in ("3cx", "asterisk")}}).by_name
CDR = b'{"call_id":"c%d","from_tag":"f","start_time":"10","end_time":"11"}'


def trickle(data: bytes, size: int) -> Callable[[int], bytes]:
    """Return a read that never gives more than ``size`` bytes."""
    stream = io.BytesIO(data)
    return lambda wanted: stream.read(min(wanted, size))


def found_in(adapter: Adapter, data: bytes, size: int = 1 << 20) -> list[Found]:
    return [one for piece in cut(adapter, trickle(data, size)) for one in split_piece(adapter, piece)]


def documents_in(adapter: Adapter, data: bytes, size: int = 1 << 20) -> list[bytes]:
    found = found_in(adapter, data, size)
    assert [one.fault for one in found if one.fault] == []
    return [one.document for one in found]


@pytest.mark.parametrize("size", [7, 1 << 20])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("asterisk", "asterisk/Master.csv"),
        ("asterisk", "asterisk/cdr_custom.csv"),
        ("asterisk-json", "asterisk/cdr.jsonl"),
        ("freeswitch", "freeswitch/a-leg.cdr.json"),
        ("freeswitch-xml", "freeswitch/a-leg.cdr.xml"),
        ("cucm-cdr", "cucm/cdr_StandAloneCluster_01_202611211506_17"),
        ("cucm-cmr", "cucm/cmr_StandAloneCluster_01_202611211506_18"),
        ("my-3cx", "mapped/3cx-cdr.log"),
        ("my-asterisk", "mapped/Master.csv"),
        ("rtpengine", "rtpengine-13-query.json"),
    ],
)
def test_a_file_has_the_documents_of_a_post_with_all_of_it(name: str, file: str, size: int) -> None:
    adapter, data = ADAPTERS[name], (FIXTURES / file).read_bytes()
    expected = adapter.split(data, pieces.file_type_of(adapter))[0]
    assert documents_in(adapter, data, size) == expected


def test_json_in_lines_or_arrays_beyond_a_post() -> None:
    documents = [CDR % number for number in range(1200)]
    assert documents_in(ADAPTERS["kamailio"], b"\n".join(documents)) == documents
    assert documents_in(ADAPTERS["kamailio"], b"\xef\xbb\xbf [" + b" ,\n".join(documents) + b"]\n") == documents
    assert documents_in(ADAPTERS["kamailio"], b"{\n" + documents[0][1:]) == [b"{\n" + documents[0][1:]]
    assert documents_in(ADAPTERS["kamailio"], b" \n") == []


def test_a_document_of_a_mapping_is_no_array_of_documents() -> None:
    document = b'["my-asterisk",{"src":"1"}]'
    assert documents_in(ADAPTERS["mapped"], document) == [document]
    assert documents_in(ADAPTERS["mapped"], b"[" + document + b"," + document + b"]") == [document] * 2


@given(
    st.lists(
        st.lists(st.text(st.sampled_from('a,"\n é'), max_size=6), min_size=1, max_size=4), min_size=1, max_size=30
    ),
    st.integers(1, 50),
    st.sampled_from(["\n", "\r\n"]),
)
def test_rows_are_cut_where_their_quotes_are_even(rows: list[list[str]], size: int, end: str) -> None:
    lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) + end for row in rows]
    data = "".join(lines).encode()
    layout = growing_layout_of(ADAPTERS["asterisk"])
    found: list[bytes] = []
    rest = b""
    for start in range(0, len(data), size):
        rest += data[start : start + size]
        some, used = rows_in(rest, layout, is_end=False)
        found += some
        rest = rest[used:]
    assert (found, rest) == ([line.encode() for line in lines], b"")


def test_a_missing_quote_costs_its_line_alone() -> None:
    layout = growing_layout_of(ADAPTERS["asterisk"])
    lines = [b'"a\n', *[b"b,%d\n" % number for number in range(100)]]
    assert rows_in(b"".join(lines), layout, is_end=False) == (lines, sum(map(len, lines)))
    assert rows_in(b"".join(lines[:9]), layout, is_end=True)[0] == lines[:9]
    assert rows_in(b"".join(lines[:9]), layout, is_end=False) == ([], 0)


def test_a_missing_quote_does_not_hold_back_the_rows_behind_it() -> None:
    """A file that grows slowly would else stand still until so many rows are there that no quote can end."""
    layout = growing_layout_of(ADAPTERS["asterisk"])
    row = (FIXTURES / "asterisk/Master.csv").read_bytes().splitlines(True)[0]
    data = row[:40] + b"\n" + row
    assert row[:40].count(b'"') % 2 == 1
    assert rows_in(data, layout, is_end=False) == ([row[:40] + b"\n", row], len(data))


def test_a_line_longer_than_any_document_ends_there() -> None:
    layout = growing_layout_of(ADAPTERS["asterisk"])
    data = b"x" * (pieces.DOCUMENT_BYTES_MAX + 1)
    assert rows_in(data, layout, is_end=False) == ([data], len(data))
    assert rows_in(data[1:], layout, is_end=False) == ([], 0)


def test_every_piece_of_a_file_with_names_has_them() -> None:
    """The names, after an empty line and a byte order mark, stand before each piece; the line of types does not."""
    names, types, *rows = (FIXTURES / "cucm/cdr_StandAloneCluster_01_202611211506_17").read_bytes().splitlines(True)
    data = b"\xef\xbb\xbf\n" + names + types + rows[0] * (2 * PIECE_ROWS)
    found = list(cut(ADAPTERS["cucm-cdr"], trickle(data, 999)))
    assert [piece.head for piece in found] == [names] * len(found)
    assert found[0].line == 3
    assert len(documents_in(ADAPTERS["cucm-cdr"], data)) == 2 * PIECE_ROWS


@pytest.mark.parametrize(("name", "file"), [("my-asterisk", "mapped/Master.csv"), ("my-3cx", "mapped/3cx-cdr.log")])
def test_rows_of_a_mapping_are_cut_too(name: str, file: str) -> None:
    adapter, data = ADAPTERS[name], (FIXTURES / file).read_bytes()
    assert growing_layout_of(adapter).shape is Shape.CSV
    assert len(documents_in(adapter, data * 60, 999)) == 60 * len(documents_in(adapter, data))
    assert len(list(cut(adapter, trickle(data * 60, 999)))) > 1


def test_one_bad_row_costs_itself_alone() -> None:
    adapter = ADAPTERS["kamailio"]
    found = found_in(adapter, b"\n".join([CDR % 1, b"{not json", CDR % 2]))
    assert [(one.document, one.fault is None) for one in found] == [
        (CDR % 1, True),
        (b"{not json", False),
        (CDR % 2, True),
    ]


def test_another_kind_of_file_is_no_file_of_bad_rows() -> None:
    with pytest.raises(EncodingError, match="not such a file"):
        found_in(ADAPTERS["cucm-cdr"], b"a,b\n1,2\n3,4\n")
    with pytest.raises(EncodingError, match="not JSON"):
        found_in(ADAPTERS["kamailio"], b"[1,")


def test_what_must_be_read_whole_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "WHOLE_BYTES_MAX", 100)
    assert documents_in(ADAPTERS["kamailio"], b"[" + CDR % 1 + b"]") == [CDR % 1]
    with pytest.raises(EncodingError, match="at most 100 bytes"):
        list(cut(ADAPTERS["kamailio"], trickle(b"[" + CDR % 1 + b"]" + b" " * 50, 8)))


def test_pieces_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 150)
    found = list(cut(ADAPTERS["kamailio"], trickle(b"\n".join(CDR % number for number in range(5)), 1 << 20)))
    assert [(len(piece.rows), piece.line) for piece in found] == [(2, 1), (2, 3), (1, 5)]


@pytest.mark.parametrize("name", ["freeswitch-xml"])
def test_only_files_of_rows_grow(name: str) -> None:
    with pytest.raises(EncodingError, match="whose files grow"):
        growing_layout_of(ADAPTERS[name])
    assert Piece([b"a\n", b"b\n"], 1, b"h\n").body([b"b\n"]) == b"h\nb\n"
