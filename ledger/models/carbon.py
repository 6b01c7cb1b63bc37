"""Carbon of a call, in micrograms of CO2 equivalent and integers.

The intensity of a grid counts either the whole life of its plants (``lifecycle``) or their stacks alone
(``direct``). A chain has one of the two as its basis and takes no table of the other: sums over mixed
bases mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ledger.models.energy import total_mj
from ledger.models.rounding import divide_half_up
from ledger.models.tables import INTENSITY_MG_PER_KWH, TABLES

MJ_MG_PER_UG: Final = 3_600_000
"""1 kWh is 3.6e9 mJ and 1 mg is 1000 ug: millijoules x mg/kWh over this are micrograms."""


class PointOfPresence(NamedTuple):
    """A place that could carry a call."""

    name: str
    grid_zone: str
    pue_milli: int


def co2_ug(energy_mj: int, intensity_mg_per_kwh: int) -> int:
    """Return micrograms of CO2 equivalent; 1,080,000 mJ at 384,400 mg/kWh are 115,320 ug."""
    return divide_half_up(energy_mj * intensity_mg_per_kwh, MJ_MG_PER_UG)


def intensity_mg_per_kwh(table_id: str, grid_zone: str) -> int | None:
    """Return the pinned intensity of a zone in mg/kWh, or None where the table has no such zone."""
    return INTENSITY_MG_PER_KWH.get((table_id, grid_zone))


def basis_of(table_id: str) -> str | None:
    """Return ``lifecycle`` or ``direct``; None for a table that is not here or not about carbon."""
    table = TABLES.get(table_id)
    return table.basis if table is not None and table.basis != "none" else None


def rank_by_carbon(
    places: Iterable[PointOfPresence], table_id: str, *, device_mj: int, network_mj: int, server_mj: int
) -> list[tuple[int, PointOfPresence]]:
    """Return ``(co2_ug, place)``, least carbon first, for one call carried by each of ``places``.

    The call's whole energy is taken at the place's intensity, its server part at the place's PUE. Places
    whose zone the table does not have are left out: unknown is not zero.
    """
    ranked = []
    for place in places:
        intensity = intensity_mg_per_kwh(table_id, place.grid_zone)
        if intensity is not None:
            energy_mj = total_mj(device_mj, network_mj, server_mj, place.pue_milli)
            ranked.append((co2_ug(energy_mj, intensity), place))
    return sorted(ranked)
