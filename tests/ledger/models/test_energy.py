"""Energy and carbon: worked examples that anybody can redo on paper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import Boundary, DeviceClass, EnergyMethod
from ledger.models import carbon, energy
from ledger.models.rounding import divide_half_up

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
KWH_MJ = energy.MJ_PER_KWH
UK_MG_PER_KWH = 233_000


def kwh(text):
    """Return a decimal number of kilowatt-hours (or kilograms in micrograms' place) as an exact integer."""
    whole, _, part = text.partition(".")
    return int(whole + part) * KWH_MJ // 10 ** len(part)


def test_rounding_is_half_up():
    assert [divide_half_up(n, 2) for n in range(6)] == [0, 1, 1, 2, 2, 3]
    assert [divide_half_up(n, 3) for n in range(5)] == [0, 0, 1, 1, 1]


@given(st.integers(0, 10**30), st.integers(1, 10**15))
def test_rounding_is_never_more_than_a_half_off(numerator, denominator):
    error = 2 * (divide_half_up(numerator, denominator) * denominator - numerator)
    assert -denominator < error <= denominator


def test_smartphone_day_is_one_battery_of_14_8_wh():
    assert energy.battery_mj(4_000, 3_700) == kwh("0.0148")


@pytest.mark.parametrize(
    ("power_mw", "duration_ms", "expected"),
    [
        (60_000, 8 * HOUR_MS, "0.48"),
        (200_000, 8 * HOUR_MS, "1.6"),
        (850_000, DAY_MS, "20.4"),
        (7 * 850_000, DAY_MS, "142.8"),
        (100_000_000_000, DAY_MS, "2400000"),
    ],
    ids=["laptop", "desktop", "server", "seven-server site", "100 MW site"],
)
def test_energy_of_a_day(power_mw, duration_ms, expected):
    assert energy.power_mj(power_mw, duration_ms) == kwh(expected)


@pytest.mark.parametrize(
    ("energy_kwh", "co2_ug"),
    [("20.4", 4_753_200_000), ("142.8", 33_272_400_000), ("2400000", 559_200_000_000_000)],
)
def test_carbon_of_a_day_in_the_uk(energy_kwh, co2_ug):
    assert carbon.co2_ug(kwh(energy_kwh), UK_MG_PER_KWH) == co2_ug


def test_carbon_of_the_documented_call():
    assert carbon.co2_ug(1_080_000, 384_400) == 115_320


def test_pue_applies_to_the_server_alone_and_rounds_half_up():
    assert energy.total_mj(100, 20, 3, 1_500) == 125
    assert energy.total_mj(100, 20, 1, 1_499) == 121
    assert energy.total_mj(0, 0, 1_000, energy.PUE_CLASSES_MILLI["good"]) == 1_400


def test_network_methods_answer_different_questions():
    # One minute of G.711 both ways: 2 x 480,000 octets.
    minute = (960_000, 60_000)
    core_access_cpe = {
        method: energy.network_mj(method, Boundary.CORE_ACCESS_CPE, *minute)
        for method in (
            EnergyMethod.AVERAGE_KWH_GB,
            EnergyMethod.POWER_MARGINAL,
            EnergyMethod.POWER_ATTRIBUTED,
        )
    }
    # 0.0315 kWh/GB x 0.00096 GB; 50 nJ/bit x 7.68 Mbit; 18 W x 60 s and the same again.
    assert list(core_access_cpe.values()) == [108_864, 384, 1_080_384]
    assert energy.network_mj(EnergyMethod.AVERAGE_KWH_GB, Boundary.MOBILE, *minute) == 345_600


def test_metered_energy_has_no_formula():
    with pytest.raises(KeyError):
        energy.network_mj(EnergyMethod.METERED, Boundary.CORE, 1, 1)


def test_device_bounds_are_watts_times_time():
    assert energy.device_bounds_mj(DeviceClass.LAPTOP, 60_000) == (3_000_000, 6_000_000)
    assert energy.device_bounds_mj(DeviceClass.NONE, 60_000) == (0, 0)
    assert energy.device_bounds_mj(DeviceClass.SMARTPHONE, 1) == (0, 3)


def test_every_device_class_has_bounds():
    assert set(DeviceClass) == set(energy.DEVICE_POWER_MW)


def test_energy_star_allowances():
    assert energy.telephone_allowance_mw() == 2_000
    assert energy.telephone_allowance_mw(conference=True) == 2_500
    assert energy.telephone_allowance_mw(gigabit=True) == 3_000
    assert energy.telephone_allowance_mw(handsets=2, gigabit=True, energy_efficient=True) == 2_500


def test_places_are_ranked_by_carbon_with_their_pue():
    dirty_but_lean = carbon.PointOfPresence("warsaw", "PL", 1_100)
    clean_but_hot = carbon.PointOfPresence("oslo", "NO", 2_000)
    nowhere = carbon.PointOfPresence("atlantis", "XX", 1_000)
    ranked = carbon.rank_by_carbon(
        [dirty_but_lean, nowhere, clean_but_hot], ["ember-2026"], network_mj=0, server_mj=100_000
    )
    assert [place.name for _, place in ranked] == ["oslo", "warsaw"]
    assert ranked[0][0] == carbon.co2_ug(200_000, carbon.intensity_mg_per_kwh("ember-2026", "NO"))
