"""Rules on energy and carbon: every figure is the pinned factor times the record's own quantities."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ledger.cdr import CallRecord, DeviceClass, Energy, EnergyMethod
from ledger.models.carbon import MJ_MG_PER_UG
from ledger.models.energy import (
    DEVICE_POWER_MW,
    NETWORK_COEFFICIENTS,
    PUE_MILLI_MAX,
    PUE_MILLI_MIN,
    device_bounds_mj,
)
from ledger.models.tables import INTENSITY_MG_PER_KWH
from ledger.rules.base import Check, RuleContext, RuleModule, Violation

_NAME: Final = "energy"


def _compile(parameters: Mapping[str, int], context: RuleContext) -> Check:
    pue_max = parameters["pue_milli_max"]
    power_mw_of = dict(DEVICE_POWER_MW)
    coefficients_of = dict(NETWORK_COEFFICIENTS).get
    zones: dict[str, dict[str, int]] = {table: {} for table in context.carbon_tables}
    for (table, zone), mg_per_kwh in INTENSITY_MG_PER_KWH.items():
        if table in zones:
            zones[table][zone] = mg_per_kwh
    zones_of = zones.get
    no_device, metered, half, per_ug = (
        DeviceClass.NONE,
        EnergyMethod.METERED,
        MJ_MG_PER_UG // 2,
        MJ_MG_PER_UG,
    )

    def check(record: CallRecord) -> Violation | None:
        energy = record.energy
        if energy is None:
            return None
        end_ms = record.end_ms
        answer_ms = record.answer_ms
        talk_ms = end_ms - answer_ms if answer_ms else 0
        device_mj = energy.device_mj
        network_mj = energy.network_mj
        pue_milli = energy.pue_milli
        # Written out from ledger.models.energy and .carbon: this runs for every record.
        total_mj = device_mj + network_mj + (energy.server_mj * pue_milli + 500) // 1000
        if not total_mj and talk_ms and energy.device_class != no_device:
            return _refuse_none(talk_ms)
        # Floor and ceiling, as device_bounds_mj says, without dividing.
        least_mw, most_mw = power_mw_of[energy.device_class]
        device_uj = 1000 * device_mj
        if not least_mw * talk_ms - 1000 < device_uj < most_mw * (end_ms - record.setup_ms) + 1000:
            return _refuse_device(record, energy, talk_ms)
        method = energy.method
        if method != metered:
            coefficients = coefficients_of((method, energy.boundary))
            if coefficients is None:
                return _refuse_boundary(energy)
            per_octet, per_ms, divisor = coefficients
            expected_mj = per_octet * (record.octets_sent + record.octets_received)
            if per_ms:
                expected_mj += per_ms * talk_ms
            expected_mj = (expected_mj + (divisor >> 1)) // divisor
            if network_mj != expected_mj:
                return _refuse_network(energy, expected_mj)
        if not PUE_MILLI_MIN <= pue_milli <= pue_max:
            return _refuse_pue(energy, pue_max)
        intensities = zones_of(energy.intensity_table)
        if intensities is None:
            return _refuse_table(energy, sorted(zones))
        intensity = energy.intensity_mg_per_kwh
        if intensity != intensities.get(energy.grid_zone):
            return _refuse_intensity(energy, intensities)
        if energy.co2_ug != (total_mj * intensity + half) // per_ug:
            return _refuse_co2(energy, total_mj, (total_mj * intensity + half) // per_ug)
        return None

    return check


def _refuse_none(talk_ms: int) -> Violation:
    return Violation(
        f"{_NAME}/none",
        "energy.device_mj",
        0,
        "> 0 mJ in all",
        f"A call of {talk_ms} ms with an end device cannot have used no energy at all",
    )


def _refuse_device(record: CallRecord, energy: Energy, talk_ms: int) -> Violation:
    least_mj, _ = device_bounds_mj(energy.device_class, talk_ms)
    _, most_mj = device_bounds_mj(energy.device_class, record.end_ms - record.setup_ms)
    name = DeviceClass(energy.device_class).name.lower()
    return Violation(
        f"{_NAME}/device",
        "energy.device_mj",
        energy.device_mj,
        f"{least_mj}..{most_mj} mJ",
        f"A device of class {name} uses less, or more, in the time of this call",
    )


def _refuse_boundary(energy: Energy) -> Violation:
    return Violation(
        f"{_NAME}/boundary",
        "energy.boundary",
        energy.boundary.name.lower(),
        "a boundary for which table network-1 has the method",
        f"There is no factor for method {energy.method.name.lower()} with this boundary",
    )


def _refuse_network(energy: Energy, expected_mj: int) -> Violation:
    return Violation(
        f"{_NAME}/network",
        "energy.network_mj",
        energy.network_mj,
        expected_mj,
        "The network's energy is not the method's factor times the record's own octets and talk time",
    )


def _refuse_pue(energy: Energy, pue_max: int) -> Violation:
    return Violation(
        f"{_NAME}/pue",
        "energy.pue_milli",
        energy.pue_milli,
        f"{PUE_MILLI_MIN}..{pue_max}",
        "No data centre has this power usage effectiveness",
    )


def _refuse_table(energy: Energy, tables: list[str]) -> Violation:
    return Violation(
        f"{_NAME}/table",
        "energy.intensity_table",
        energy.intensity_table,
        " or ".join(tables) or "none is pinned",
        "The table of carbon intensities is not one that this chain has pinned for its carbon basis",
    )


def _refuse_intensity(energy: Energy, intensities: Mapping[str, int]) -> Violation:
    expected = intensities.get(energy.grid_zone)
    if expected is None:
        return Violation(
            f"{_NAME}/zone",
            "energy.grid_zone",
            energy.grid_zone,
            f"a zone of table {energy.intensity_table}",
            "The table of carbon intensities has no such grid zone",
        )
    return Violation(
        f"{_NAME}/intensity",
        "energy.intensity_mg_per_kwh",
        energy.intensity_mg_per_kwh,
        expected,
        f"The carbon intensity is not that of {energy.grid_zone} in table {energy.intensity_table}",
    )


def _refuse_co2(energy: Energy, total_mj: int, expected_ug: int) -> Violation:
    return Violation(
        f"{_NAME}/co2",
        "energy.co2_ug",
        energy.co2_ug,
        expected_ug,
        f"The CO2 is not {total_mj} mJ (device, network, and server with PUE) times the carbon intensity",
    )


MODULE: Final = RuleModule(
    name=_NAME,
    version=1,
    reads=("setup_ms", "answer_ms", "end_ms", "octets_sent", "octets_received", "energy"),
    tables=("network-1",),
    defaults=MappingProxyType({"pue_milli_max": PUE_MILLI_MAX}),
    rules=MappingProxyType(
        {
            "none": "A call with talk time and an end device (class other than none) has used energy.",
            "device": (
                "Device energy is at least the class's least power times the talk time (rounded down), and at most its "
                "greatest power times the time from setup to end (rounded up); 0 for class none."
            ),
            "boundary": "Table network-1 has a factor for the method and boundary; metered needs none.",
            "network": (
                "Network energy is exactly the method's factor times the octets of both directions and the "
                "talk time; metered is taken as it is."
            ),
            "pue": "PUE is from 1.000 to pue_milli_max thousandths.",
            "table": "The table of carbon intensities is pinned by the chain, hence of its carbon basis.",
            "zone": "The table has the grid zone.",
            "intensity": "The carbon intensity is exactly the table's for the zone.",
            "co2": (
                "CO2 is exactly (device + network + round(server x PUE)) x intensity / 3,600,000, rounded half up."
            ),
        }
    ),
    compile_check=_compile,
)
"""The released module."""
