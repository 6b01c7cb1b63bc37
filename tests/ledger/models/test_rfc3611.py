"""Bytes of an RTCP XR report as quantities of a record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.models import rfc3611


@pytest.mark.parametrize(
    ("byte", "mos_milli"), [(10, 1_000), (41, 4_100), (50, 5_000), (127, None), (9, None), (51, None), (0, None)]
)
def test_mos(byte, mos_milli):
    assert rfc3611.mos_milli(byte) == mos_milli


@pytest.mark.parametrize(
    ("byte", "r_milli"), [(0, 0), (93, 93_000), (100, 100_000), (101, None), (127, None), (-1, None)]
)
def test_r_factor(byte, r_milli):
    assert rfc3611.r_milli(byte) == r_milli


@pytest.mark.parametrize(
    ("byte", "dbm0"), [(0, 0), (126, 126), (127, None), (128, -128), (236, -20), (255, -1), (256, None), (-20, None)]
)
def test_levels_are_signed(byte, dbm0):
    assert rfc3611.level_dbm0(byte) == dbm0


@pytest.mark.parametrize(("byte", "db"), [(0, 0), (55, 55), (127, None), (128, 128), (255, 255), (256, None)])
def test_echo_return_loss(byte, db):
    assert rfc3611.rerl_db(byte) == db


@pytest.mark.parametrize(("byte", "ppm"), [(0, 0), (1, 3_906), (128, 500_000), (255, 996_094), (256, None), (-1, None)])
def test_densities(byte, ppm):
    assert rfc3611.density_ppm(byte) == ppm


@given(st.integers(0, 255))
def test_a_density_comes_back(byte):
    # Truncated as the RFC has it, so a rounded-down ppm may come back as the n below.
    assert byte - rfc3611.density_of_ppm(rfc3611.density_ppm(byte)) in {0, 1}


def test_densities_at_the_ends():
    assert [rfc3611.density_of_ppm(ppm) for ppm in (0, 3_906, 3_907, 500_000, 1_000_000)] == [0, 0, 1, 128, 255]


@pytest.mark.parametrize(("word", "ms"), [(0, 0), (65_535, 65_535), (65_536, None), (-1, None)])
def test_durations(word, ms):
    assert rfc3611.duration_ms(word) == ms


def test_mean_loss_of_bursts_and_gaps():
    # A quarter of the time at 50 %, the rest without loss: 12.5 %.
    assert rfc3611.loss_ppm_of_bursts(128, 0, 1_000, 3_000) == 125_000
    assert rfc3611.loss_ppm_of_bursts(64, 64, 7, 11) == 250_000
    assert rfc3611.loss_ppm_of_bursts(10, 10, 0, 0) is None


def test_one_way_delay_is_half_the_round_trip_and_the_end_systems():
    assert rfc3611.one_way_us(121, 40) == 100_500
