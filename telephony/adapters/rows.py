"""Rows as they come from PBXes, of CSV or JSON: order marks, quoted line breaks, bytes that are not as they should be.

``split_rows`` and ``split_json_lines`` cut a file into documents as they came, each to be read or refused alone.

``read_rows`` reads a file whose first line has the names of its columns: every row becomes one JSON object by those
names. An empty cell is left out: it says nothing. A row that has more or fewer cells than there are names is not lost
and not guessed at: under the name ``*`` it carries what is wrong with it, so that ``parse`` refuses this row alone, and
a person can mend it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from ledger.errors import EncodingError, FieldError
from telephony.adapters.base import DOCUMENT_BYTES_MAX, check_count, split_json
from telephony.adapters.fields import text_of

ROW_CELLS_MAX: Final = 1024
"""A CUCM CDR has some 130 columns; nothing that records calls has a thousand."""

MISFIT: Final = "*"
"""Name of the member that says why a row is no record; no platform has a column of this name."""

ROW_LINES_MAX: Final = 64
"""Lines that quotes may hold together as one row; beyond that a quote was lost, and the next line begins afresh."""

ROW_VALUES_MIN: Final = 3
"""A line that is a row by itself and has so many quoted words is one, though a quote before it never ended."""

_WHOLE_ROW: Final = re.compile(rb'(?:(?:"(?:[^"]|"")*+"|[^",]*+)(?:,|\Z))++')
_QUOTED_WORD: Final = re.compile(rb'(?:\A|,)"\w')
"""Within quotes it would be their end with a letter behind, which nobody writes."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def split_json_lines(body: bytes) -> tuple[list[bytes], bool]:
    """Return the JSON documents in a body: one, an array of them, or one on each line.

    Text that is not UTF-8 is mended with U+FFFD first: one bad name must not cost a call. A line that is no JSON stays
    a document of its own, to be refused alone. Raises EncodingError for a body that is none of these.
    """
    mended = text_of(body).strip().encode()
    try:
        return split_json(mended)
    except EncodingError:
        lines = [line.strip() for line in mended.split(b"\n") if line.strip()]
        if mended.startswith(b"[") or not any(line[:1] == b"{" and line[-1:] == b"}" for line in lines[1:]):
            raise
    check_count(len(lines))
    return lines, True


def split_rows(body: bytes) -> list[bytes]:
    """Return the rows of a CSV file (RFC 4180), each as it came, without its line end; empty lines are left out.

    A row goes on over lines until its quotes are even. Where they do not become so within ROW_LINES_MAX lines, or a
    line comes that is a row itself, a quote is missing: the line stands alone, to be refused, and the next line begins
    a new row.
    """
    lines = body.removeprefix(_BYTE_ORDER_MARK).replace(b"\r\n", b"\n").split(b"\n")
    rows: list[bytes] = []
    at = 0
    while at < len(lines):
        taken = lines_of_row(lines, at) or 1
        row = b"\n".join(lines[at : at + taken])
        if row.strip():
            rows.append(row)
        at += taken
    check_count(len(rows))
    return rows


def lines_of_row(lines: Sequence[bytes], at: int) -> int:
    """Return over how many of ``lines`` the row goes that begins at ``at``: until its quotes are even.

    1 where a line comes before that which is a row itself; 0 where the quotes do not become even.
    """
    quotes = 0
    for count, line in enumerate(lines[at : at + ROW_LINES_MAX], 1):
        found = line.count(b'"')
        if quotes and found % 2 == 0 and _is_row(line):
            return 1
        quotes += found
        if quotes % 2 == 0:
            return count
    return 0


def _is_row(line: bytes) -> bool:
    words = len(_QUOTED_WORD.findall(line))
    return words >= ROW_VALUES_MIN and _WHOLE_ROW.fullmatch(line.removesuffix(b"\r")) is not None


def read_row(document: bytes) -> tuple[list[str], str]:
    """Return the values of one row of CSV, and its text. Raises EncodingError for what is no such row."""
    if len(document) > DOCUMENT_BYTES_MAX:
        expected = f"at most {DOCUMENT_BYTES_MAX} bytes"
        raise EncodingError("too long", where="cdr", expected=expected, actual=len(document))
    text = text_of(document)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise EncodingError("not a row of CSV", where="cdr", expected="values between commas", actual=error) from None
    if len(rows) != 1:
        raise EncodingError("not one row of CSV", where="cdr", expected="one row", actual=len(rows))
    return rows[0], text


def read_rows(
    body: bytes, *, delimiter: str = ",", encoding: str = "utf-8", quoting: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV text with their line numbers from 1; empty lines are no rows.

    encoding: how cells are to be read. A cell that is not UTF-8 is read as Latin-1, where every byte is a character:
    one odd name must not cost a call, and the bytes can still be told from the text.
    quoting: False where a quote is a character like any other.
    Raises EncodingError naming the line, for quotes that do not end, or a cell of more than 128 KiB.
    """
    # Latin-1 maps every byte to a character and back, so the quoting can be undone before anything is decoded.
    text = body.removeprefix(_BYTE_ORDER_MARK).decode("latin-1")
    style: Literal[0, 3] = csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=style, strict=True)
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            where = f"line {line}"
            raise EncodingError("not CSV", where=where, expected="RFC 4180 quoting", actual=error) from None
        if len(cells) > ROW_CELLS_MAX:
            expected = f"at most {ROW_CELLS_MAX} columns"
            raise EncodingError("too many columns", where=f"line {line}", expected=expected, actual=len(cells))
        if cells and any(cell.strip() for cell in cells):
            yield line, [_decode(cell, encoding) for cell in cells]
        line = reader.line_num + 1


def _decode(cell: str, encoding: str) -> str:
    if cell.isascii():
        return cell
    try:
        return cell.encode("latin-1").decode(encoding)
    except UnicodeDecodeError:
        return cell


def named_row(names: Sequence[str], cells: Sequence[str], *, ragged: bool = False) -> dict[str, Any]:
    """Return a row as an object by the names of its columns, without its empty cells.

    ragged: rows may have fewer or more cells than there are names; the ones beyond the names are left out.
    """
    row: dict[str, Any] = {name: cell for name, cell in zip(names, cells, strict=False) if cell}
    if len(cells) != len(names) and not ragged:
        row[MISFIT] = [f"{len(cells)} columns for {len(names)} names", *cells[len(names) :]]
    return row


def check_names(names: Sequence[str], line: int) -> None:
    """Raise EncodingError for a line of names in which one stands twice, or is the reserved one."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen or name == MISFIT:
            raise EncodingError(
                "not a line of column names", where=f"line {line}", expected="each once", actual=form_of(name)
            )
        seen.add(name.lower())


def check_fits(row: object) -> None:
    """Raise FieldError for a row that had another number of columns than there are names."""
    if isinstance(row, dict) and MISFIT in row:
        misfit = row[MISFIT]
        actual = misfit[0] if isinstance(misfit, list) and misfit else misfit
        raise FieldError(
            "the row does not fit the names",
            where="cdr",
            expected="as many columns as names",
            actual=actual,
            hint=f"Mend the members and take {MISFIT} out",
        )


def form_of(text: str) -> str:
    """Return the form of a value that may be private, for messages: every digit a 0, every letter an x."""
    return re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "0", text))


def encode_row(row: object) -> bytes:
    """Return a row as compact JSON."""
    return msgspec.json.encode(row)
