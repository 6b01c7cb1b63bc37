"""The wideband and fullband models against floating-point ones, and their bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.models import emodel, emodel_wide
from ledger.models.emodel_wide import FULLBAND, WIDEBAND
from ledger.models.tables import CODECS
from tests.ledger.models import float_emodel

ORACLES = [(WIDEBAND, float_emodel.wideband_r), (FULLBAND, float_emodel.fullband_r)]
NAMES = ["wideband", "fullband"]
NOTHING_LOST = {"lost": 0, "expected": 15_000, "loss_events": 0}


@pytest.mark.parametrize(("scale", "oracle"), ORACLES, ids=NAMES)
@given(
    ie_milli=st.integers(0, 95_000),
    bpl_milli=st.integers(1_000, 90_000),
    expected=st.integers(1, 10**7),
    lost_ppm=st.integers(0, 10**6),
    one_way_us=st.integers(0, emodel.ONE_WAY_US_MAX),
)
def test_integer_models_follow_the_floating_ones(scale, oracle, ie_milli, bpl_milli, expected, lost_ppm, one_way_us):
    lost = expected * lost_ppm // 10**6
    r = emodel_wide.r_milli_unclamped(scale, ie_milli, bpl_milli, lost, expected, one_way_us=one_way_us)
    exact = oracle(ie_milli / 1000, bpl_milli / 1000, 100 * lost / expected, one_way_us / 1000)
    assert abs(r / 1000 - exact) <= 0.004
    mos = float_emodel.mos(100 * exact / scale.r_percent)
    assert abs(emodel_wide.mos_micro(scale, r) / 1e6 - mos) <= 0.0002


@pytest.mark.parametrize(("scale", "r0_milli"), [(WIDEBAND, 129_000), (FULLBAND, 148_000)], ids=NAMES)
def test_a_call_without_impairment_is_at_the_top_of_its_scale(scale, r0_milli):
    assert emodel_wide.rate(scale, 0, 4_300, **NOTHING_LOST, one_way_us=100_000) == (r0_milli, 4_500)


def test_one_codec_on_both_scales():
    # Ie 13 of 129 is R 116, 89.922 narrowband; of 148 it is 135, 91.216.
    assert emodel_wide.rate(WIDEBAND, 13_000, 4_300, **NOTHING_LOST, one_way_us=50_000) == (116_000, 4_337)
    assert emodel_wide.rate(FULLBAND, 13_000, 4_300, **NOTHING_LOST, one_way_us=50_000) == (135_000, 4_368)


def test_delay_costs_fullband_more():
    assert emodel_wide.idd_milli(WIDEBAND, 2_000_000) == 48_076
    assert emodel_wide.idd_milli(FULLBAND, 2_000_000) == 71_152


@pytest.mark.parametrize("scale", [WIDEBAND, FULLBAND], ids=NAMES)
def test_r_is_clamped_at_zero(scale):
    rated = emodel_wide.rate(scale, 90_000, 1_000, lost=100, expected=100, loss_events=1, one_way_us=2_000_000)
    assert rated == (0, 1_000)
    assert emodel_wide.mos_milli(scale, -1) == 1_000


@pytest.mark.parametrize(
    ("lost", "expected", "loss_events", "one_way_us"),
    [
        (0, 100, 0, 2_000_001),
        (0, 100, 0, -1),
        (0, 0, 0, 0),
        (1, 100, 0, 0),
        (1, 100, 2, 0),
        (0, 100, 1, 0),
        (101, 100, 1, 0),
        (-1, 100, 0, 0),
        (10, 100, 2, 0),
    ],
)
def test_what_contradicts_itself_or_came_in_bursts_is_unratable(lost, expected, loss_events, one_way_us):
    rated = emodel_wide.rate(
        WIDEBAND, 0, 4_300, lost=lost, expected=expected, loss_events=loss_events, one_way_us=one_way_us
    )
    assert rated is None


@pytest.mark.parametrize("scale", [WIDEBAND, FULLBAND], ids=NAMES)
@given(st.integers(emodel.MOS_MICRO_MIN, emodel.MOS_MICRO_MAX))
def test_r_of_mos_is_inverted_on_both_scales(scale, mos):
    # One R of the narrowband's 100,000 steps; at its steepest 52.8 millionths of MOS.
    assert abs(emodel_wide.mos_micro(scale, emodel_wide.r_milli_of(scale, mos)) - mos) <= 53


def test_no_codec_of_a_wider_band_is_ratable_as_long_as_its_values_are_not_confirmed():
    assert [codec.name for codec in CODECS.values() if codec.band not in {"N", ""} and codec.ie_milli is not None] == []
