"""What is taken for the energy of a call where the operator says nothing but the device class and the grid's zone.

Every number has its year and source; docs/energy.md shows them all. A number that somebody measured is better: each
can be set. There is no default for the servers' share: no published figure holds for somebody else's servers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from ledger.cdr import Boundary, DeviceClass, EnergyMethod
from ledger.errors import ConfigError
from ledger.models import carbon

_BOAVIZTA: Final = "Boavizta API 2.5.0, archetype of user terminals: average"
_ENERGY_STAR: Final = "ENERGY STAR telephony 3.0: base allowance, partial-on"
_FIXED: Final = (EnergyMethod.POWER_MARGINAL, Boundary.CORE_ACCESS_CPE)
_MOBILE: Final = (EnergyMethod.POWER_MARGINAL, Boundary.MOBILE)

SERVER_MW_DEFAULT: Final = 0
"""Milliwatts of a call's share of the servers: not known, so not counted, until the operator measures it."""

PUE_MILLI_DEFAULT: Final = 2_000
"""A standard data centre (The Green Grid's usual classes); counts only what the servers draw."""


class DeviceDefault(NamedTuple):
    """What is taken for one class of end device."""

    power_mw: int
    """During a call."""
    network_method: EnergyMethod
    boundary: Boundary
    year: int
    source: str


DEVICES: Final[Mapping[DeviceClass, DeviceDefault]] = MappingProxyType(
    {
        DeviceClass.NONE: DeviceDefault(0, EnergyMethod.POWER_MARGINAL, Boundary.CORE, 2020, "a trunk has no device"),
        DeviceClass.PHONE: DeviceDefault(2_000, *_FIXED, 2014, f"{_ENERGY_STAR}, VoIP telephone"),
        DeviceClass.SMARTPHONE: DeviceDefault(1_000, *_MOBILE, 2025, f"{_BOAVIZTA}, smartphone"),
        DeviceClass.LAPTOP: DeviceDefault(75_000, *_FIXED, 2025, f"{_BOAVIZTA}, professional laptop"),
        DeviceClass.DESKTOP: DeviceDefault(175_000, *_FIXED, 2025, f"{_BOAVIZTA}, professional desktop"),
        DeviceClass.CONFERENCE: DeviceDefault(2_500, *_FIXED, 2014, f"{_ENERGY_STAR}, conference telephone"),
    }
)
"""By device class. The network's factors are those of table ``network-1`` (Malmodin 2020)."""

TABLES_BY_BASIS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"lifecycle": ("ember-2026",), "direct": ("egrid-2023", "desnz-2025")}
)
"""Tables of carbon intensity by a chain's carbon basis; the first that has a zone counts."""


def table_of(grid_zone: str, carbon_basis: str) -> str:
    """Return the table that has the intensity of ``grid_zone``, the newest of its kind.

    Raises ConfigError where none of that basis has the zone.
    """
    for table_id in TABLES_BY_BASIS.get(carbon_basis, ()):
        if carbon.intensity_mg_per_kwh(table_id, grid_zone) is not None:
            return table_id
    raise ConfigError(
        "no carbon intensity for this zone",
        where="grid_zone",
        expected=f"a zone of a {carbon_basis} table: {', '.join(TABLES_BY_BASIS.get(carbon_basis, ())) or 'none'}",
        actual=grid_zone,
        hint="See ledgerctl energy zones",
    )
