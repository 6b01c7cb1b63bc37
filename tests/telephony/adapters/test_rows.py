"""Where a row of CSV ends: at the line on which its quotes are even, unless one of them was lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telephony.adapters.rows import ROW_LINES_MAX, lines_of_row, read_row, split_rows

CELLS = st.text(st.sampled_from('ab7,"\n +'), max_size=12)
ROW = b'"","1001","1002","internal","""Desk, first floor"" <1001>","PJSIP/1001-0000001c",71,"ANSWERED"'


def quoted(row: list[str]) -> bytes:
    return ",".join('"' + cell.replace('"', '""') + '"' for cell in row).encode()


@given(st.lists(st.lists(CELLS, min_size=1, max_size=8), min_size=1, max_size=12))
def test_rows_that_are_quoted_rightly_are_never_taken_apart(rows):
    """Whatever is in their cells: lines that look like rows, quotes, line breaks."""
    found = split_rows(b"\n".join(quoted(row) for row in rows))
    assert found == [quoted(row) for row in rows]
    assert [read_row(row)[0] for row in found] == rows


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ([b'"a","b"', ROW], 1),
        ([b'"a', b'b"', ROW], 2),
        ([b'"a', b"b", b'c"'], 3),
        ([b'"cut off', ROW], 1),
        ([b'"cut off', b"", ROW, b'"'], 1),
        ([b'"cut off', ROW + b"\r"], 1),
        ([b'"cut off', b"b"], 0),
        ([b'"cut off', *[b"b"] * ROW_LINES_MAX], 0),
        ([b'"a', *[b"b"] * (ROW_LINES_MAX - 2), b'c"'], ROW_LINES_MAX),
        # The first and the last cell of this row have a line break each: its middle only looks like a row.
        ([b'"a', b'b","c","d","e","f', b'g"'], 3),
    ],
)
def test_lines_of_a_row(lines, count):
    assert lines_of_row(lines, 0) == count
    assert lines_of_row([b"x", *lines], 1) == count
