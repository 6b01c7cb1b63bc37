"""Rows of CSV as they come from PBXes: a byte order mark, quoted line breaks, bytes that are not what they should be.

Every row becomes one JSON object by the names of its columns. An empty cell is left out: it says nothing. A row that
has more or fewer cells than there are names is not lost and not guessed at: under the name ``*`` it carries what is
wrong with it, so that ``parse`` refuses this row alone, and a person can mend it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from ledger.errors import EncodingError, FieldError

ROW_CELLS_MAX: Final = 1024
"""A CUCM CDR has some 130 columns; nothing that records calls has a thousand."""

MISFIT: Final = "*"
"""Name of the member that says why a row is no record; no platform has a column of this name."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


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
