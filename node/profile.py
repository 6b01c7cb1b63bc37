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
"""Every field of the table; all are needed where the table is given."""

Choice = TypeVar("Choice", bound=IntEnum)


def energy_profile(table: Mapping[str, Any]) -> EnergyProfile | None:
    """Return the profile of the table, None for an empty one. Raises ConfigError naming the field."""
    if not table:
        return None
    for name in table:
        if name not in FIELDS:
            raise ConfigError("unknown field", where=f"energy.{name}", expected=", ".join(FIELDS))
    for name in FIELDS:
        if name not in table:
            raise ConfigError("missing field", where=f"energy.{name}")
    return EnergyProfile(
        device_class=_choice(table, "device_class", DeviceClass),
        device_mw=_number(table, "device_mw"),
        network_method=_choice(table, "network_method", EnergyMethod),
        boundary=_choice(table, "boundary", Boundary),
        server_mw=_number(table, "server_mw"),
        pue_milli=_number(table, "pue_milli"),
        grid_zone=_text(table, "grid_zone"),
        intensity_table=_text(table, "intensity_table"),
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
