"""Energy of a call, in millijoules and integers.

``total = device + network + round(server x PUE)``. Published figures for the network differ by more than a
thousandfold for the same minute, because they answer different questions. So the method is part of every
record:

- ``average_kwh_gb``: the energy of whole networks shared out over their traffic. Good for sums over a year;
  far too much for a voice call, which sends little for a long time.
- ``power_marginal``: what more traffic costs a network that is running anyway.
- ``power_attributed``: the same, with the line's standing power while the call lasts.
- ``metered``: somebody measured; taken as it is.

What the figure counts is the boundary: the core, with access, with the customer's router, or a mobile network
(``ledger.cdr.Boundary``). Not every method has a figure for every boundary (``tables/network_factors.csv``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ledger.cdr import Boundary, DeviceClass, EnergyMethod
from ledger.models.rounding import divide_half_up
from ledger.models.tables import NETWORK_FACTORS, NetworkFactor

MJ_PER_KWH: Final = 3_600_000_000
MJ_PER_MWH: Final = 3_600
"""1 mWh (milliwatt-hour) is 3.6 J."""

OCTETS_PER_GB: Final = 1_000_000_000

PUE_MILLI_MIN: Final = 1_000
PUE_MILLI_MAX: Final = 3_000
"""Power usage effectiveness: what a data centre draws for each watt that its servers draw."""

PUE_CLASSES_MILLI: Final = {"standard": 2_000, "good": 1_400, "better": 1_100}
"""Usual classes of data centres (The Green Grid)."""

DEVICE_POWER_MW: Final[Mapping[DeviceClass, tuple[int, int]]] = MappingProxyType(
    {
        DeviceClass.NONE: (0, 0),
        DeviceClass.PHONE: (500, 10_000),
        DeviceClass.SMARTPHONE: (500, 3_000),
        DeviceClass.LAPTOP: (50_000, 100_000),
        DeviceClass.DESKTOP: (100_000, 450_000),
        DeviceClass.CONFERENCE: (500, 12_950),
    }
)
"""Least and most power in milliwatts of each class of end device; NONE on trunk legs.

Computers and smartphones: Boavizta's archetypes. Telephones: from idle up to what they draw with display and
ports in use; a conference telephone at most what IEEE 802.3af gives a powered device.
"""

ENERGY_STAR_MW: Final = {
    "voip_base": 2_000,
    "conference_base": 2_500,
    "extra_handset": 300,
    "gigabit_ethernet": 1_000,
    "gigabit_ethernet_802.3az": 200,
    "proxy_base": 300,
    "proxy_remote_wake": 500,
}
"""ENERGY STAR telephony v3.0: power allowances in partial-on state, in milliwatts."""


def power_mj(power_mw: int, duration_ms: int) -> int:
    """Return the energy in millijoules of ``power_mw`` milliwatts over ``duration_ms`` milliseconds."""
    return divide_half_up(power_mw * duration_ms, 1000)


def battery_mj(capacity_mah: int, voltage_mv: int) -> int:
    """Return the energy in millijoules of a battery of ``capacity_mah`` milliampere-hours."""
    return divide_half_up(capacity_mah * voltage_mv * 36, 10)


def device_bounds_mj(device_class: DeviceClass, duration_ms: int) -> tuple[int, int]:
    """Return least and most energy in millijoules of a device class over ``duration_ms``.

    Rounded outward (floor and ceiling), so that any rounding of a power within the class fits.
    Raises KeyError for a class that is not in ``DEVICE_POWER_MW``.
    """
    least_mw, most_mw = DEVICE_POWER_MW[device_class]
    return least_mw * duration_ms // 1000, -(-most_mw * duration_ms // 1000)


def network_coefficients(factor: NetworkFactor) -> tuple[int, int, int]:
    """Return ``(per_octet, per_ms, divisor)``: energy in mJ is (per_octet x octets + per_ms x ms) / divisor.

    The one form of all methods, so that a rule need not ask which it has before it.
    """
    if factor.mwh_per_gb:
        return factor.mwh_per_gb * MJ_PER_MWH, 0, OCTETS_PER_GB
    # nJ/bit x 8 x octets are nanojoules; milliwatts x milliseconds are microjoules.
    return 8 * factor.nj_per_bit, 1000 * factor.base_mw, 1_000_000


NETWORK_COEFFICIENTS: Final[Mapping[tuple[EnergyMethod, Boundary], tuple[int, int, int]]] = MappingProxyType(
    {key: network_coefficients(factor) for key, factor in NETWORK_FACTORS.items()}
)
"""What ``network_coefficients`` gives for each method and boundary that has a factor."""


def network_mj(method: EnergyMethod, boundary: Boundary, octets: int, duration_ms: int) -> int:
    """Return network energy in millijoules by the method and boundary a record names.

    octets: both directions together. duration_ms: talk time, 0 for a call that was not answered.
    Raises KeyError where the tables have no such method and boundary (``metered`` never has).
    """
    per_octet, per_ms, divisor = NETWORK_COEFFICIENTS[method, boundary]
    return (per_octet * octets + per_ms * duration_ms + (divisor >> 1)) // divisor


def total_mj(device_mj: int, network_mj: int, server_mj: int, pue_milli: int) -> int:
    """Return the energy of a call in millijoules: the server's part times PUE.

    device_mj, network_mj, server_mj: >= 0. pue_milli: 1000 x PUE, 1000 to 3000.
    """
    return device_mj + network_mj + (server_mj * pue_milli + 500) // 1000


def telephone_allowance_mw(
    *, conference: bool = False, handsets: int = 1, gigabit: bool = False, energy_efficient: bool = False
) -> int:
    """Return the ENERGY STAR v3.0 allowance of an IP telephone in milliwatts.

    conference: a conference telephone. handsets: 1 or more. gigabit: has a gigabit port;
    energy_efficient: that port speaks 802.3az, which leaves less to allow for.
    """
    allowance = ENERGY_STAR_MW["conference_base" if conference else "voip_base"]
    allowance += max(0, handsets - 1) * ENERGY_STAR_MW["extra_handset"]
    if gigabit:
        allowance += ENERGY_STAR_MW["gigabit_ethernet_802.3az" if energy_efficient else "gigabit_ethernet"]
    return allowance
