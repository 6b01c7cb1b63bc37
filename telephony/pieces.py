"""Files and streams of call records, cut into pieces that an adapter splits and that fit into memory.

A piece is what could have been a post: some rows, with the line of names before them where the platform writes one.
Rows of CSV are cut where their quotes are even, JSON at its lines; an array or a lone document is read whole. One bad
row costs itself alone: where a piece cannot be split, each of its rows is tried by itself.

Pure, but for the ``read`` that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from ledger.errors import EncodingError, LedgerError
from telephony.adapters.base import DOCUMENT_BYTES_MAX, Adapter, Kind
from telephony.adapters.discreet import DiscreetAdapter
from telephony.adapters.mapped import MappedAdapter
from telephony.adapters.rows import ROW_LINES_MAX, lines_of_row

PIECE_ROWS: Final = 100
"""Some milliseconds of splitting and checking: then others have their turn."""
PIECE_BYTES: Final = 1024 * 1024
"""Of rows together, unless one alone is longer: as JSON with names they still fit a group of the spool."""
READ_BYTES: Final = 256 * 1024
WHOLE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest file that cannot be cut at its lines: a JSON array, or one document."""

JSON: Final = "application/json"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class Shape(Enum):
    """How a text is cut."""

    CSV = "csv"
    JSON_LINES = "json-lines"
    WHOLE = "whole"


class Layout(NamedTuple):
    """What a platform's files look like."""

    shape: Shape
    head_rows: int = 0
    """Rows at the begin that are repeated before every piece: names of columns, and what follows them."""
    has_quotes: bool = True
    """A line break between quotes ends no row."""


class Piece(NamedTuple):
    """Some rows, and what belongs around them."""

    rows: Sequence[bytes]
    line: int
    """Number of the first row's first line, from 1."""
    head: bytes = b""
    is_array: bool = False
    """The rows are the elements of a JSON array."""

    def body(self, rows: Sequence[bytes]) -> bytes:
        """Return what a post with some of the rows would be."""
        return b"[" + b",".join(rows) + b"]" if self.is_array else self.head + b"".join(rows)


class Found(NamedTuple):
    """One document of a piece, or a row that is none."""

    document: bytes
    fault: LedgerError | None


def layout_of(adapter: Adapter, begin: bytes) -> Layout:
    """Return how the platform's files are cut; ``begin`` is how this one begins, for JSON comes in several ways."""
    itself = adapter.itself if isinstance(adapter, DiscreetAdapter) else adapter
    if isinstance(itself, MappedAdapter) and not itself.mapping.is_json:
        mapping = itself.mapping
        return Layout(Shape.CSV, int(mapping.header) + mapping.skip_lines, mapping.quoting)
    if adapter.kind in {Kind.CUCM_CDR, Kind.CUCM_CMR}:
        return Layout(Shape.CSV, 1)
    if adapter.kind is Kind.ASTERISK_CSV:
        return Layout(Shape.CSV)
    line = begin.removeprefix(_BYTE_ORDER_MARK).lstrip().split(b"\n", 1)[0]
    if JSON in adapter.media_types and line.startswith(b"{") and _is_json(line):
        return Layout(Shape.JSON_LINES, has_quotes=False)
    return Layout(Shape.WHOLE)


def growing_layout_of(adapter: Adapter) -> Layout:
    """Return how a file is cut that grows for ever: by its rows. Raises EncodingError where the platform has none."""
    layout = layout_of(adapter, b"{}\n")
    if layout.shape is Shape.WHOLE:
        raise EncodingError("not a platform whose files grow", where="source", actual=adapter.name)
    return layout


def file_type_of(adapter: Adapter) -> str:
    """Return the type that a file of the platform has."""
    return JSON if JSON in adapter.media_types else min(adapter.media_types)


def rows_in(data: bytes, layout: Layout, *, is_end: bool) -> tuple[list[bytes], int]:
    """Return the whole rows that ``data`` begins with, each with its line end, and how many bytes they take.

    is_end: nothing follows, so what is left is a row too. Empty lines belong to the row before them, or are rows.
    """
    lines = data.split(b"\n")
    rest = lines.pop()
    rows: list[bytes] = []
    at = 0
    while at < len(lines):
        taken = lines_of_row(lines, at) if layout.has_quotes else 1
        if taken == 0 and not is_end and len(lines) - at < ROW_LINES_MAX and len(data) <= DOCUMENT_BYTES_MAX:
            return rows, sum(map(len, rows))
        taken = taken or 1
        rows.append(b"\n".join(lines[at : at + taken]) + b"\n")
        at += taken
    # A line without an end that is longer than any document will not become one by waiting.
    if rest and (is_end or len(rest) > DOCUMENT_BYTES_MAX):
        rows.append(rest)
    return rows, sum(map(len, rows))


def cut(adapter: Adapter, read: Callable[[int], bytes]) -> Iterator[Piece]:
    """Yield the pieces of what ``read`` gives: up to so many bytes, none at the end.

    Raises EncodingError for a text that has to be read whole and is too long for it, and what ``read`` raises.
    """
    data = _read_up_to(read, READ_BYTES)
    layout = layout_of(adapter, data)
    if layout.shape is Shape.WHOLE:
        yield from _whole(adapter, data, read)
        return
    data = data.removeprefix(_BYTE_ORDER_MARK)
    head: list[bytes] = []
    line = 1
    is_end = False
    while not is_end:
        more = read(READ_BYTES)
        is_end = not more
        data += more
        rows, used = rows_in(data, layout, is_end=is_end)
        data = data[used:]
        while rows and len(head) < layout.head_rows:
            # Empty lines are no rows to an adapter, wherever they stand.
            head += [rows[0]] if rows[0].strip() else []
            line += _lines_of(rows[:1])
            rows = rows[1:]
        yield from pieces_of(rows, layout, b"".join(head), line)
        line += _lines_of(rows)


def pieces_of(rows: Sequence[bytes], layout: Layout, head: bytes = b"", line: int = 1) -> Iterator[Piece]:
    """Yield rows in pieces; those that are empty are left out. ``head`` goes before each piece."""
    is_array = layout.shape is Shape.JSON_LINES
    for some in _some_at_a_time(rows):
        full = [row.strip() if is_array else row for row in some if row.strip()]
        if full:
            yield Piece(full, line, head, is_array)
        line += _lines_of(some)


def _some_at_a_time(rows: Sequence[bytes]) -> Iterator[list[bytes]]:
    some: list[bytes] = []
    size = 0
    for row in rows:
        if some and (len(some) == PIECE_ROWS or size + len(row) > PIECE_BYTES):
            yield some
            some, size = [], 0
        some.append(row)
        size += len(row)
    if some:
        yield some


def _whole(adapter: Adapter, data: bytes, read: Callable[[int], bytes]) -> Iterator[Piece]:
    """Yield a text that is one document, or an array of some."""
    data += _read_up_to(read, WHOLE_BYTES_MAX + 1 - len(data))
    if len(data) > WHOLE_BYTES_MAX:
        expected = f"at most {WHOLE_BYTES_MAX} bytes, or one record in each line"
        raise EncodingError("too long to be read whole", where="file", expected=expected)
    text = data.removeprefix(_BYTE_ORDER_MARK)
    if not text.strip():
        return
    if JSON in adapter.media_types and text.lstrip().startswith(b"["):
        try:
            elements = [bytes(raw) for raw in msgspec.json.decode(text, type=list[msgspec.Raw])]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise EncodingError("not JSON", where="file", expected="records or an array", actual=error) from None
        # An array whose first element is text is one document of some mapping, not many.
        if elements and not elements[0].startswith(b'"'):
            yield from (Piece(some, 1, is_array=True) for some in _some_at_a_time(elements))
            return
    yield Piece([text], 1)


def split_piece(adapter: Adapter, piece: Piece) -> list[Found]:
    """Return the documents in a piece; where it cannot be split, those of each row by itself.

    Raises EncodingError where no row can be: this is something else than the platform's records.
    """
    media_type = file_type_of(adapter)
    try:
        return [Found(document, None) for document in adapter.split(piece.body(piece.rows), media_type)[0]]
    except EncodingError as error:
        if len(piece.rows) == 1:
            raise
        whole_fault = error
    found: list[Found] = []
    for row in piece.rows:
        try:
            found += [Found(document, None) for document in adapter.split(piece.body([row]), media_type)[0]]
        except EncodingError as error:
            found.append(Found(row.strip(), error))
    if all(one.fault is not None for one in found):
        raise whole_fault
    return found


def _lines_of(rows: Sequence[bytes]) -> int:
    return sum(row.count(b"\n") for row in rows)


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _read_up_to(read: Callable[[int], bytes], size: int) -> bytes:
    """Return ``size`` bytes, or what there is: a pipe gives less than it is asked for."""
    parts = bytearray()
    while len(parts) < size:
        data = read(size - len(parts))
        if not data:
            break
        parts += data
    return bytes(parts)
