"""``ledgerctl energy``, the ``[energy]`` table, and what the guide shows of both."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ledger.cdr import DeviceClass
from ledger.errors import ConfigError
from node.cli.ledgerctl import app
from node.profile import energy_profile
from telephony.energy_defaults import DEVICES

GUIDE = (Path(__file__).parents[2] / "docs" / "energy.md").read_text()


def run(*arguments: str) -> str:
    """Run ``ledgerctl`` and return what it prints."""
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_commands_of_the_guide_print_what_it_says() -> None:
    blocks = [block.split("\n\n")[0] for block in GUIDE.split("    $ ledgerctl ")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        command, *expected = block.splitlines()
        printed = run(*shlex.split(command))
        assert [line.split() for line in printed.splitlines()] == [line.split() for line in expected]


def test_every_default_is_in_the_guide_with_year_and_source() -> None:
    for device_class, default in DEVICES.items():
        row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{device_class.name.lower()}` |"))
        assert f"| {default.power_mw:,} |" in row
        assert str(default.year) in row
        assert default.network_method.name.lower() in row
        assert default.boundary.name.lower() in row


def test_defaults_and_zones_as_json() -> None:
    assert {row["device_class"] for row in json.loads(run("energy", "defaults", "--json"))} == {
        device_class.name.lower() for device_class in DeviceClass
    }
    zones = json.loads(run("energy", "zones", "--basis", "direct", "--json"))
    assert {"US-CA", "GB"} <= {row["zone"] for row in zones}
    assert [row["mg_per_kwh"] for row in zones] == sorted(row["mg_per_kwh"] for row in zones)


def test_two_fields_make_a_profile() -> None:
    profile = energy_profile({"device_class": "smartphone", "grid_zone": "GB"}, carbon_basis="direct")
    assert profile is not None
    assert (profile.device_mw, profile.server_mw, profile.intensity_table) == (1_000, 0, "desnz-2025")
    table = {"device_class": "phone", "grid_zone": "GB", "device_mw": 3_200, "intensity_table": "ember-2026"}
    named = energy_profile(table, carbon_basis="lifecycle")
    assert named is not None
    assert (named.device_mw, named.intensity_table) == (3_200, "ember-2026")


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ({"device_class": "phone"}, "energy.grid_zone"),
        ({"grid_zone": "GB"}, "energy.device_class"),
        ({"device_class": "phone", "grid_zone": "XX"}, "grid_zone"),
        ({"device_class": "phone", "grid_zone": "GB", "colour": 1}, "energy.colour"),
        ({"device_class": "fax", "grid_zone": "GB"}, "energy.device_class"),
    ],
)
def test_what_is_wrong_with_the_table_is_named(table: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        energy_profile(table, carbon_basis="lifecycle")
    assert caught.value.where == where
