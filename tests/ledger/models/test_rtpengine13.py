"""The formulas of newer rtpengines against what they compute, their ends, and their known fault."""

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.models import rtpengine13

# Round trip (ms), jitter (ms), loss (%), MOS x 10 of a narrowband codec and of Opus.
COMPUTED = [
    (20, 0, 0, 43, 43),
    (40, 2, 0, 43, 43),
    (100, 5, 0, 42, 43),
    (100, 10, 1, 41, 39),
    (150, 20, 1, 40, 39),
    (200, 20, 2, 38, 34),
    (300, 30, 3, 35, 29),
    (400, 50, 5, 26, 20),
    (600, 30, 1, 30, 30),
    (150, 5, 10, 25, 18),
]


@pytest.mark.parametrize(("rtt_ms", "jitter_ms", "loss_percent", "narrow", "full"), COMPUTED)
def test_computed_rows_are_reproduced(rtt_ms, jitter_ms, loss_percent, narrow, full):
    network = 1000 * rtt_ms, 1000 * jitter_ms, 10_000 * loss_percent
    assert (rtpengine13.mos_x10(*network), rtpengine13.mos_x10_fullband(*network)) == (narrow, full)
    assert rtpengine13.mos_milli(*network) == 100 * narrow
    assert rtpengine13.mos_milli(*network, fullband=True) == 100 * full


def cubic_x10(r):
    return 10.0 if r < 0 else 45.0 if r > 100 else 10 * (1 + 0.035 * r + 7e-6 * r * (r - 60) * (100 - r))


def float_narrow(rtt_us, jitter_ms, loss_percent):
    """MOS x 10 in floating point, not truncated."""
    ta = rtt_us / 2000 + jitter_ms
    ry = 93.2 - loss_percent if loss_percent <= 93 else 0.0
    return cubic_x10(0.18 * ry**2 - 27.9 * ry + 1126.62 - 0.024 * ta - 0.11 * max(0.0, ta - 177.3))


def float_full(rtt_us, jitter_ms, loss_percent):
    """As ``float_narrow``, with a codec of 48 kHz."""
    ta = rtt_us / 2000 + jitter_ms
    ie_eff = 10.2 + (132 - 10.2) * loss_percent / (loss_percent + 4.3)
    x = log2(ta / 100) if ta > 100 else 0.0
    idd = 37 * ((1 + x**6) ** (1 / 6) - 3 * (1 + (x / 3) ** 6) ** (1 / 6) + 2)
    return cubic_x10((148 - idd - ie_eff) / 1.48)


@given(st.integers(0, 10_000_000), st.integers(0, 500), st.integers(0, 100))
def test_truncation_takes_at_most_a_tenth_and_a_bit(rtt_us, jitter_ms, loss_percent):
    network = rtt_us, 1000 * jitter_ms, 10_000 * loss_percent
    # Two terms of MOS are cut to hundredths (towards zero: a negative one grows) before their sum is cut to tenths.
    assert -0.11 <= max(10.0, float_narrow(rtt_us, jitter_ms, loss_percent)) - rtpengine13.mos_x10(*network) <= 1.21


@given(st.integers(0, 3_000_000), st.integers(0, 500), st.integers(0, 100))
def test_fullband_truncation_takes_at_most_a_tenth_and_a_bit(rtt_us, jitter_ms, loss_percent):
    network = rtt_us, 1000 * jitter_ms, 10_000 * loss_percent
    lost = max(10.0, float_full(rtt_us, jitter_ms, loss_percent)) - rtpengine13.mos_x10_fullband(*network)
    assert -0.11 <= lost <= 1.21


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 1_000_000), st.booleans())
def test_stays_on_its_scale(rtt_us, jitter_us, loss_ppm, fullband):
    mos = rtpengine13.mos_milli(rtt_us, jitter_us, loss_ppm, fullband=fullband)
    assert rtpengine13.MOS_MILLI_MIN <= mos <= (rtpengine13.FULLBAND_MOS_MILLI_MAX if fullband else 4_500)


def test_fullband_is_best_where_the_truncations_fall_well():
    """Some delay is a tenth better than none, and nothing is better than that."""
    found = [rtpengine13.mos_milli(2_000 * ms, 0, 0, fullband=True) for ms in range(2_001)]
    assert found[0] == 4_300
    assert max(found) == rtpengine13.FULLBAND_MOS_MILLI_MAX
    assert found.index(rtpengine13.FULLBAND_MOS_MILLI_MAX) == 144


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, rtpengine13.FALLING_LOSS_PPM_MAX))
def test_nothing_is_above_the_ceiling_while_more_loss_is_worse(rtt_us, jitter_us, loss_ppm):
    mos = rtpengine13.mos_milli(rtt_us, jitter_us, loss_ppm)
    assert mos <= rtpengine13.MOS_MILLI_MAX
    assert mos >= rtpengine13.mos_milli(rtt_us, jitter_us, rtpengine13.FALLING_LOSS_PPM_MAX)


def test_beyond_it_more_loss_reads_as_better():
    by_loss = [rtpengine13.mos_x10(0, 0, 10_000 * percent) for percent in (0, 10, 15, 16, 20, 30, 40, 94, 100)]
    assert by_loss == [43, 26, 23, 23, 25, 41, 45, 45, 45]


def test_jitter_counts_in_whole_milliseconds_and_loss_in_whole_percents():
    assert rtpengine13.mos_x10(300_000, 30_999, 39_999) == rtpengine13.mos_x10(300_000, 30_000, 30_000)
