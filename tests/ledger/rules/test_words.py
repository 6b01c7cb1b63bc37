"""Figures in messages: read as people write them, and never rounded."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.rules import words


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (words.milli(4_178), "4.178"),
        (words.milli(4_000), "4.0"),
        (words.milli(0), "0.0"),
        (words.ms(120_500), "120.5 ms"),
        (words.ms(20_000), "20 ms"),
        (words.ms(1), "0.001 ms"),
        (words.percent(33_333), "3.3333 %"),
        (words.percent(1_000_000), "100 %"),
        (words.decimal(-1_500, 3), "-1.5"),
        (words.decimal(-1, 3), "-0.001"),
    ],
)
def test_figures_as_people_write_them(told, expected):
    assert told == expected


@given(st.integers(-(2**63), 2**63), st.integers(1, 6))
def test_nothing_is_rounded(value, places):
    assert Decimal(words.decimal(value, places)).scaleb(places) == value
