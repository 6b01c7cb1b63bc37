"""Carbon of a call, in micrograms of CO2 equivalent and integers.

The intensity of a grid counts either the whole life of its plants (``lifecycle``) or their stacks alone
(``direct``). A chain has one of the two as its basis and takes no table of the other: sums over mixed
bases mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    places: Iterable[PointOfPresence], table_ids: Sequence[str], *, network_mj: int, server_mj: int
) -> list[tuple[int, PointOfPresence]]:
    """Return ``(co2_ug, place)``, least carbon first, for one call carried by each of ``places``.

    table_ids: of one carbon basis; the first that has a place's zone gives its intensity.
    network_mj, server_mj: of the call, >= 0; the server's part is taken times the place's PUE. The devices are the
    same wherever the call is carried, so they are not in it. Places whose zone no table has are left out: unknown is
    not zero. Of equal places the one named first in the alphabet comes first.
    """
    ranked = []
    for place in places:
        known = (intensity_mg_per_kwh(table_id, place.grid_zone) for table_id in table_ids)
        intensity = next((found for found in known if found is not None), None)
        if intensity is not None:
            energy_mj = total_mj(0, network_mj, server_mj, place.pue_milli)
            ranked.append((co2_ug(energy_mj, intensity), place))
    return sorted(ranked)
