"""What a carrier says about the calls of its proxy: the ``[energy]`` table of the configuration.

Source: docs/operations.md, "Energy".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, TypeVar

from ledger.cdr import Boundary, DeviceClass, EnergyMethod
from ledger.errors import ConfigError
from telephony.builder import EnergyProfile
from telephony.energy_defaults import DEVICES, PUE_MILLI_DEFAULT, SERVER_MW_DEFAULT, table_of

FIELDS = (
    "device_class",
    "device_mw",
    "network_method",
    "boundary",
    "server_mw",
    "pue_milli",
    "grid_zone",
    "intensity_table",
)
"""Every field of the table; ``device_class`` and ``grid_zone`` are needed, the others have defaults."""

NEEDED = ("device_class", "grid_zone")

Choice = TypeVar("Choice", bound=IntEnum)


def energy_profile(table: Mapping[str, Any], *, carbon_basis: str) -> EnergyProfile | None:
    """Return the profile of the table, None for an empty one. Raises ConfigError naming the field.

    carbon_basis: of the chain; decides the table of intensities where none is named.
    """
    if not table:
        return None
    for name in table:
        if name not in FIELDS:
            raise ConfigError("unknown field", where=f"energy.{name}", expected=", ".join(FIELDS))
    for name in NEEDED:
        if name not in table:
            raise ConfigError("missing field", where=f"energy.{name}")
    device_class = _choice(table, "device_class", DeviceClass)
    default = DEVICES[device_class]
    filled = {
        "device_mw": default.power_mw,
        "network_method": default.network_method.name.lower(),
        "boundary": default.boundary.name.lower(),
        "server_mw": SERVER_MW_DEFAULT,
        "pue_milli": PUE_MILLI_DEFAULT,
        **table,
    }
    grid_zone = _text(filled, "grid_zone")
    return EnergyProfile(
        device_class=device_class,
        device_mw=_number(filled, "device_mw"),
        network_method=_choice(filled, "network_method", EnergyMethod),
        boundary=_choice(filled, "boundary", Boundary),
        server_mw=_number(filled, "server_mw"),
        pue_milli=_number(filled, "pue_milli"),
        grid_zone=grid_zone,
        intensity_table=(
            _text(filled, "intensity_table") if "intensity_table" in filled else table_of(grid_zone, carbon_basis)
        ),
    )


def _number(table: Mapping[str, Any], name: str) -> int:
    value = table[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError("not a quantity", where=f"energy.{name}", expected="an integer from 0", actual=value)
    return value


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table[name]
    if not isinstance(value, str):
        raise ConfigError("not text", where=f"energy.{name}", actual=value)
    return value


def _choice(table: Mapping[str, Any], name: str, kind: type[Choice]) -> Choice:
    names = {member.name.lower(): member for member in kind}
    value = table[name]
    if value not in names:
        raise ConfigError("not a known name", where=f"energy.{name}", expected=", ".join(names), actual=value)
    return names[value]
