"""Rules on energy and carbon: every figure is the pinned factor times the record's own quantities."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ledger.cdr import Boundary, CallRecord, DeviceClass, Energy, EnergyMethod
from ledger.models.carbon import MJ_MG_PER_UG
from ledger.models.energy import (
    DEVICE_POWER_MW,
    NETWORK_COEFFICIENTS,
    PUE_MILLI_MAX,
    PUE_MILLI_MIN,
    device_bounds_mj,
)
from ledger.models.tables import INTENSITY_MG_PER_KWH
from ledger.rules import words
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
            return _refuse_none(energy, talk_ms)
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
                return _refuse_network(record, energy, talk_ms, expected_mj)
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


def _refuse_none(energy: Energy, talk_ms: int) -> Violation:
    least_mw, _ = DEVICE_POWER_MW[energy.device_class]
    name = _device_name(energy)
    return Violation(
        f"{_NAME}/none",
        "energy.device_mj",
        0,
        "> 0 mJ in all",
        f"The call has {talk_ms} ms of talk on a device of class {name}, but 0 mJ in all: give the device's energy (at "
        f"least {least_mw} mW for {name}), or class none where another carrier has the device",
    )


def _refuse_device(record: CallRecord, energy: Energy, talk_ms: int) -> Violation:
    duration_ms = record.end_ms - record.setup_ms
    least_mj, _ = device_bounds_mj(energy.device_class, talk_ms)
    _, most_mj = device_bounds_mj(energy.device_class, duration_ms)
    return Violation(
        f"{_NAME}/device",
        "energy.device_mj",
        energy.device_mj,
        f"{least_mj}..{most_mj} mJ",
        f"The device used {energy.device_mj} mJ, but class {_device_name(energy)} uses {least_mj} to {most_mj} mJ in "
        f"{talk_ms} ms of talk and {duration_ms} ms from setup to end: look at the device class, the power it was "
        "reckoned with, and the times",
    )


def _refuse_boundary(energy: Energy) -> Violation:
    method = EnergyMethod(energy.method).name.lower()
    known = " or ".join(Boundary(boundary).name.lower() for of, boundary in NETWORK_COEFFICIENTS if of == energy.method)
    actual = energy.boundary.name.lower()
    return Violation(
        f"{_NAME}/boundary",
        "energy.boundary",
        actual,
        known,
        f"Table network-1 has no factor for method {method} with boundary {actual}, only with {known}: look at which "
        "factor the energy was reckoned with",
    )


def _refuse_network(record: CallRecord, energy: Energy, talk_ms: int, expected_mj: int) -> Violation:
    octets = record.octets_sent + record.octets_received
    return Violation(
        f"{_NAME}/network",
        "energy.network_mj",
        energy.network_mj,
        expected_mj,
        f"The network used {energy.network_mj} mJ, but method {energy.method.name.lower()} with boundary "
        f"{energy.boundary.name.lower()} gives {expected_mj} mJ for the record's own {octets} octets and {talk_ms} "
        "ms of "
        "talk: look for octets or times changed since, or for another method",
    )


def _refuse_pue(energy: Energy, pue_max: int) -> Violation:
    return Violation(
        f"{_NAME}/pue",
        "energy.pue_milli",
        energy.pue_milli,
        f"{PUE_MILLI_MIN}..{pue_max}",
        f"PUE is {words.milli(energy.pue_milli)}, but data centres have {words.milli(PUE_MILLI_MIN)} to "
        f"{words.milli(pue_max)}: look whether it is 1000 times the building's power over that of its servers",
    )


def _refuse_table(energy: Energy, tables: list[str]) -> Violation:
    known = " or ".join(tables)
    return Violation(
        f"{_NAME}/table",
        "energy.intensity_table",
        energy.intensity_table,
        known or "none is pinned",
        f"This chain takes no carbon intensities from table {energy.intensity_table}, "
        + (f"only from {known}" if known else "since none is pinned")
        + ": look at the agent's energy profile",
    )


def _refuse_intensity(energy: Energy, intensities: Mapping[str, int]) -> Violation:
    expected = intensities.get(energy.grid_zone)
    if expected is None:
        return Violation(
            f"{_NAME}/zone",
            "energy.grid_zone",
            energy.grid_zone,
            f"a zone of table {energy.intensity_table}",
            f"Table {energy.intensity_table} has no grid zone {energy.grid_zone}: zones are ISO 3166 codes, as GB or "
            "US-CA",
        )
    return Violation(
        f"{_NAME}/intensity",
        "energy.intensity_mg_per_kwh",
        energy.intensity_mg_per_kwh,
        expected,
        f"The carbon intensity is {energy.intensity_mg_per_kwh} mg/kWh, but table {energy.intensity_table} has "
        f"{expected} mg/kWh for {energy.grid_zone}: look at the zone, and at the year of the table",
    )


def _refuse_co2(energy: Energy, total_mj: int, expected_ug: int) -> Violation:
    return Violation(
        f"{_NAME}/co2",
        "energy.co2_ug",
        energy.co2_ug,
        expected_ug,
        f"The CO2 is {energy.co2_ug} ug, but {total_mj} mJ (device, network, and server times PUE) at "
        f"{energy.intensity_mg_per_kwh} mg/kWh are {expected_ug} ug: look for a part changed since, or for rounding "
        "other than half up",
    )


def _device_name(energy: Energy) -> str:
    return DeviceClass(energy.device_class).name.lower()


MODULE: Final = RuleModule(
    name=_NAME,
    version=1,
    reads=("setup_ms", "answer_ms", "end_ms", "octets_sent", "octets_received", "energy"),
    part="energy",
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
