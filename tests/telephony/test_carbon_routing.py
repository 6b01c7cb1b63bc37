"""Defaults for energy, places ranked by carbon, and the dispatcher list made from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import DeviceClass
from ledger.errors import ConfigError
from ledger.models import carbon, energy
from ledger.models.tables import INTENSITY_MG_PER_KWH, NETWORK_FACTORS
from telephony.builder import EnergyProfile
from telephony.carbon_routing import Pop, TypicalCall, dispatcher_list, parse_pop, rank_pops
from telephony.energy_defaults import DEVICES, PUE_MILLI_DEFAULT, SERVER_MW_DEFAULT, TABLES_BY_BASIS, table_of

CALL = TypicalCall(server_mw=850)
"""A server of 850 W with a thousand calls at once."""


@pytest.mark.parametrize("device_class", list(DeviceClass))
def test_every_device_class_has_a_default_that_a_profile_takes(device_class: DeviceClass) -> None:
    default = DEVICES[device_class]
    profile = EnergyProfile(
        device_class,
        default.power_mw,
        default.network_method,
        default.boundary,
        SERVER_MW_DEFAULT,
        PUE_MILLI_DEFAULT,
        "GB",
        "ember-2026",
    )
    assert (profile.network_method, profile.boundary) in NETWORK_FACTORS
    assert default.source
    assert 2010 <= default.year <= 2026


def test_every_zone_finds_a_table_of_its_basis() -> None:
    found = {(table_of(zone, carbon.basis_of(table) or ""), zone) for table, zone in INTENSITY_MG_PER_KWH}
    assert found <= set(INTENSITY_MG_PER_KWH)
    assert (table_of("GB", "lifecycle"), table_of("GB", "direct")) == ("ember-2026", "desnz-2025")
    assert table_of("US-CA", "direct") == "egrid-2023"
    with pytest.raises(ConfigError, match="no carbon intensity"):
        table_of("US-CA", "lifecycle")
    with pytest.raises(ConfigError, match="no carbon intensity"):
        table_of("GB", "none")


def test_tables_of_a_basis_are_of_that_basis() -> None:
    assert all(carbon.basis_of(table) == basis for basis, tables in TABLES_BY_BASIS.items() for table in tables)


def test_the_typical_call_on_paper() -> None:
    # 180 s of G.711: 9,000 packets of 160 octets each way.
    assert CALL.octets == 2 * 9_000 * 160
    (only,) = rank_pops([Pop("london", "GB", 1_300)], CALL, "lifecycle")
    network_mj = 8 * 30 * CALL.octets // 1_000_000  # 30 nJ/bit
    assert only.energy_mj == network_mj + 153_000 * 13 // 10
    assert only.co2_ug == carbon.co2_ug(only.energy_mj, INTENSITY_MG_PER_KWH["ember-2026", "GB"])


def test_a_clean_grid_beats_a_good_building_and_the_other_way_round() -> None:
    ranked = rank_pops(
        [parse_pop("warsaw=PL,1.1"), parse_pop("oslo=NO,2.0"), parse_pop("london=GB")], CALL, "lifecycle"
    )
    assert [(pop.rank, pop.name) for pop in ranked] == [(0, "oslo"), (1, "london"), (2, "warsaw")]
    same_zone = rank_pops([parse_pop("old=GB,2.0"), parse_pop("new=GB,1.1")], CALL, "direct")
    assert [pop.name for pop in same_zone] == ["new", "old"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "london",
        "=GB",
        "london=GB,9",
        "london=GB,0.9",
        "london=GB,1.2345",
        "london=GB,1.2,http://x",
        "a b=GB",
        "x=GB,1.2,sip:a b",
    ],
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ConfigError, match="not a point of presence"):
        parse_pop(text)


@pytest.mark.parametrize(
    ("pops", "where"),
    [
        ([], "pop"),
        ([Pop("a", "GB"), Pop("a", "FR")], "pop"),
        ([Pop("a", "XX")], "grid_zone"),
        ([Pop("a", "")], "grid_zone"),
    ],
)
def test_what_cannot_be_ranked(pops: list[Pop], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rank_pops(pops, CALL, "lifecycle")
    assert caught.value.where == where


@pytest.mark.parametrize("changes", [{"server_mw": 0}, {"duration_s": 0}, {"duration_s": 86_401}, {"codec": "opus"}])
def test_what_is_no_typical_call(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        TypicalCall(**{"server_mw": 1, **changes})


@given(st.text(max_size=40))
def test_any_text_is_a_place_or_refused(text: str) -> None:
    try:
        pop = parse_pop(text)
    except ConfigError:
        return
    assert pop.name
    assert energy.PUE_MILLI_MIN <= pop.pue_milli <= energy.PUE_MILLI_MAX


def test_dispatcher_list_has_the_best_first() -> None:
    ranked = rank_pops(
        [parse_pop("warsaw=PL,1.1,sip:192.0.2.1:5060"), parse_pop("oslo=NO,2.0,sip:192.0.2.2:5060;transport=tcp")],
        CALL,
        "lifecycle",
    )
    lines = [line.split() for line in dispatcher_list(ranked, 3).splitlines() if not line.startswith("#")]
    assert [line[:4] for line in lines] == [
        ["3", "sip:192.0.2.2:5060;transport=tcp", "0", "2"],
        ["3", "sip:192.0.2.1:5060", "0", "1"],
    ]
    assert lines[0][4] == f"pop=oslo;zone=NO;co2_ug={ranked[0].co2_ug}"
    with pytest.raises(ConfigError, match="no SIP URI"):
        dispatcher_list(rank_pops([Pop("a", "GB")], CALL, "lifecycle"), 1)
