"""FreeSWITCH's figures, and when they are none."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.models import freeswitch


@pytest.mark.parametrize(
    ("received", "flaws", "rated"),
    [
        (1_000, 0, (100_000, 4_500)),
        (1_000, 1, (99_000, 4_492)),
        (1_000, 100, (90_000, 4_339)),
        (1_000, 199, (80_000, 4_024)),
        (3, 1, (66_000, 3_404)),
        (10, 10, (0, 1_000)),
        (10, 11, (100_000, 4_500)),
        (100, 97, (3_000, 1_000)),
    ],
)
def test_r_and_mos(received, flaws, rated):
    assert freeswitch.rate(received, flaws) == rated


def test_no_packets_are_no_measurement_whatever_is_displayed():
    assert not freeswitch.is_measured(0)
    assert freeswitch.rate(0, 0) is None
    assert freeswitch.r_percent(0, 5) is None


@given(st.integers(1, 2**40), st.integers(0, 2**40))
def test_r_is_the_truncated_percentage(received, flaws):
    exact = int(100 * Fraction(received - flaws, received)) if flaws <= received else 100
    assert freeswitch.r_percent(received, flaws) == exact


@given(st.integers(0, 100))
def test_mos_is_the_cubic_to_two_decimals(r):
    exact = max(Fraction(1), 1 + Fraction(35, 1000) * r + Fraction(7, 10**6) * r * (r - 60) * (100 - r))
    assert abs(freeswitch.mos_milli_of(r) - 1000 * exact) <= Fraction(1, 2)
