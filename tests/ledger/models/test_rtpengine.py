"""The rtpengine-10 formula against readings that rtpengine itself gave."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.models import rtpengine

# rtpengine 10.5.3, both parties of one loopback call: round trip (us), jitter (ms), loss (%), MOS x 10.
RECORDED = [
    (326, 4, 0, 44),
    (221, 4, 0, 44),
    (285, 4, 0, 44),
    (178, 4, 0, 44),
    (252, 4, 0, 44),
    (412, 12, 1, 43),
    (315, 12, 1, 43),
    (183, 12, 1, 43),
    (281, 12, 1, 43),
    (297, 12, 1, 43),
]
# Published with rtpengine's documentation.
PUBLISHED = [(13_430, 0, 0, 43), (24_184, 0, 0, 43), (8_218, 0, 0, 44)]
# The formula in floating point over the range of real networks: round trip in ms.
COMPUTED = [
    (20, 0, 0, 43),
    (40, 2, 0, 43),
    (100, 5, 0, 43),
    (100, 10, 1, 42),
    (150, 20, 1, 41),
    (200, 20, 2, 38),
    (300, 30, 3, 31),
    (400, 50, 5, 21),
    (600, 30, 1, 18),
    (150, 5, 10, 32),
]


@pytest.mark.parametrize(("rtt_us", "jitter_ms", "loss_percent", "mos_x10"), RECORDED + PUBLISHED)
def test_readings_are_reproduced(rtt_us, jitter_ms, loss_percent, mos_x10):
    assert mos_x10 == rtpengine.mos_x10(rtt_us, 1000 * jitter_ms, 10_000 * loss_percent)


@pytest.mark.parametrize(("rtt_ms", "jitter_ms", "loss_percent", "mos_x10"), COMPUTED)
def test_computed_rows_are_reproduced(rtt_ms, jitter_ms, loss_percent, mos_x10):
    assert mos_x10 == rtpengine.mos_x10(1000 * rtt_ms, 1000 * jitter_ms, 10_000 * loss_percent)


def float_mos_x10(rtt_us, jitter_ms, loss_percent):
    """As the C program computes it."""
    effective = rtt_us // 1000 + 2 * jitter_ms + 10
    r = 93.2 - effective / 40.0 if effective < 160 else 93.2 - (effective - 120) / 10.0
    r -= loss_percent * 2.5
    if r < 0:
        return 10
    return int((1.0 + 0.035 * r + 0.000007 * r * (r - 60) * (100 - r)) * 10.0)


@given(st.integers(0, 3_000_000), st.integers(0, 500), st.integers(0, 100))
def test_never_more_than_one_tenth_from_floating_point(rtt_us, jitter_ms, loss_percent):
    exact = rtpengine.mos_milli(rtt_us, 1000 * jitter_ms, 10_000 * loss_percent)
    assert abs(exact - 100 * float_mos_x10(rtt_us, jitter_ms, loss_percent)) <= rtpengine.STEP_MILLI


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 1_000_000))
def test_stays_on_its_scale(rtt_us, jitter_us, loss_ppm):
    mos = rtpengine.mos_milli(rtt_us, jitter_us, loss_ppm)
    assert rtpengine.MOS_MILLI_MIN <= mos <= rtpengine.MOS_MILLI_MAX


def test_reaches_both_ends_of_its_scale():
    assert rtpengine.mos_milli(0, 0, 0) == rtpengine.MOS_MILLI_MAX
    assert rtpengine.mos_milli(0, 0, 1_000_000) == rtpengine.MOS_MILLI_MIN
    # R = 3.2: the cubic gives 0.986, rtpengine "no reading".
    assert rtpengine.mos_milli(0, 0, 358_980) == rtpengine.MOS_MILLI_MIN


@given(st.integers(0, 3_000_000), st.integers(0, 500_000), st.integers(0, 1_000_000))
def test_is_exactly_the_formula(rtt_us, jitter_us, loss_ppm):
    e = rtt_us // 1000 + 2 * (jitter_us // 1000) + 10
    r = Fraction("93.2") - (Fraction(e, 40) if e < 160 else Fraction(e - 120, 10)) - Fraction(loss_ppm, 4000)
    cubic = 1 + Fraction("0.035") * r + Fraction("0.000007") * r * (r - 60) * (100 - r)
    expected = 10 if r <= 0 else max(10, int(10 * cubic))
    assert expected == rtpengine.mos_x10(rtt_us, jitter_us, loss_ppm)
