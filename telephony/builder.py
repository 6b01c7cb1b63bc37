"""From a SourceCall to what goes on the chain: a CallRecord, and the private part that stays with the carrier.

Quality is ``telephony.quality``'s. Energy is computed here with the integer models, so that every node recomputes the
same figure.

Pure but for ``fresh_salts``. Quantities are integers with the unit last in the name.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from ledger.cdr import (
    CO2_UG_MAX,
    ENERGY_MJ_MAX,
    OCTETS_MAX,
    Boundary,
    CallRecord,
    DeviceClass,
    Energy,
    EnergyMethod,
    Leg,
    Service,
    call_commitment,
)
from ledger.commitment import PRIVATE_FIELDS, PrivatePart, make_private_part, party_commitment
from ledger.errors import ConfigError
from ledger.models import carbon, energy
from ledger.models.tables import CODECS, NETWORK_FACTORS, Codec
from telephony.adapters.rows import form_of
from telephony.numbers import party_of
from telephony.quality import add_levels, add_quality
from telephony.source import SourceCall

PACKET_US_DEFAULT: Final = 20_000
"""The default packet time of audio codecs (RFC 3551, 4.2), taken where the counters do not tell."""

SPARE_PACKETS: Final = 2
SPARE_PPM: Final = 200
"""How far a sender's clock may run fast: more packets than that in the call's time contradict the packet time."""


def _by_name() -> Mapping[str, list[Codec]]:
    """Return the codecs of each name in lower case, the likeliest first: see ``choose_codec``."""
    found: dict[str, list[Codec]] = {}
    for codec in sorted(
        CODECS.values(),
        key=lambda codec: (codec.concealment == "plc", codec.packet_us != PACKET_US_DEFAULT, codec.row),
    ):
        found.setdefault(codec.name.lower(), []).append(codec)
    return found


_CODECS_OF: Final = _by_name()

_TERMINATING: Final = Leg.TERMINATING
"""Kept, for looking up a member of an enum takes longer than to compare with it."""

_CODEC_NAME: Final = re.compile(r"(?!.*[0-9]{5})[A-Za-z][A-Za-z0-9.+_-]{0,19}", re.ASCII)
"""What encoding names look like (RFC 4855), and no number or URI."""


@dataclass(frozen=True, slots=True)
class EnergyProfile:
    """How a carrier reckons the energy of its calls; checked when made, raises ConfigError."""

    device_class: DeviceClass
    """NONE on trunk legs."""
    device_mw: int
    """Power of the device during a call, within its class; 0 for NONE."""
    network_method: EnergyMethod
    boundary: Boundary
    server_mw: int
    """A call's share of the servers' power, before PUE."""
    pue_milli: int
    """1000 to 3000."""
    grid_zone: str
    intensity_table: str

    def __post_init__(self) -> None:
        least_mw, most_mw = energy.DEVICE_POWER_MW.get(self.device_class, (0, -1))
        if not least_mw <= self.device_mw <= most_mw:
            expected = f"{least_mw} to {most_mw} mW for {self.device_class.name}"
            raise ConfigError(
                "power outside the device class", where="device_mw", expected=expected, actual=self.device_mw
            )
        if (self.network_method, self.boundary) not in NETWORK_FACTORS:
            known = ", ".join(f"{method.name} {boundary.name}" for method, boundary in NETWORK_FACTORS)
            actual = f"{self.network_method.name} {self.boundary.name}"
            raise ConfigError("no factor for this method and boundary", where="boundary", expected=known, actual=actual)
        if self.server_mw < 0:
            raise ConfigError("negative power", where="server_mw", expected="at least 0 mW", actual=self.server_mw)
        if not energy.PUE_MILLI_MIN <= self.pue_milli <= energy.PUE_MILLI_MAX:
            expected = f"{energy.PUE_MILLI_MIN} to {energy.PUE_MILLI_MAX}"
            raise ConfigError("no such PUE", where="pue_milli", expected=expected, actual=self.pue_milli)
        if carbon.intensity_mg_per_kwh(self.intensity_table, self.grid_zone) is None:
            where = f"{self.intensity_table} {self.grid_zone}"
            raise ConfigError(
                "no intensity for this zone", where="grid_zone", expected="a zone of the table", actual=where
            )


@dataclass(frozen=True, slots=True)
class Profile:
    """What a carrier says about all calls of one proxy."""

    record_key: bytes
    """The member's 32-byte secret behind call commitments."""
    leg: Leg = Leg.ORIGINATING
    service: Service = Service.VOICE
    energy: EnergyProfile | None = None
    region: str = ""
    """The country whose national number formats the platform writes, ``GB``; empty: only international ones are read.
    Checked by ``telephony.numbers.check_region``."""


class Built(NamedTuple):
    """A record ready to be signed, what stays private, and what was left out of it on the way."""

    record: CallRecord
    private: PrivatePart
    warnings: list[str]
    """One sentence each; empty when everything the platform reported was taken over."""


def fresh_salts() -> list[bytes]:
    """Return random salts for one private part, 32 bytes each."""
    return [secrets.token_bytes(32) for _ in PRIVATE_FIELDS]


def build_record(call: SourceCall, profile: Profile, salts: list[bytes]) -> Built:
    """Return the record and private part of ``call``.

    salts: one for each private field, from ``fresh_salts``; never used twice.
    Raises FieldError where a private field is too long.
    """
    warnings = list(call.notes)
    call = _in_bounds(_in_order(call, warnings), warnings)
    leg = profile.leg if call.leg is None else call.leg
    private = make_private_part(private_values(call, profile.region), salts)
    sent, received = _directions(call, leg)
    record = CallRecord(
        version=1,
        service=profile.service if call.service is None else call.service,
        leg=leg,
        party_commitment=party_commitment(private),
        call_commitment=call_commitment(profile.record_key, call.call_id, call.from_tag, call.invite_cseq),
        setup_ms=call.setup_ms,
        answer_ms=call.answer_ms,
        end_ms=call.end_ms,
        sip_code=call.sip_code,
        q850_cause=call.q850_cause,
        released_by=call.released_by,
        codec=choose_codec(call, warnings),
        packets_sent=sent[0],
        packets_received=received[0],
        octets_sent=sent[1],
        octets_received=received[1],
        quality=None,
        levels=None,
        energy=choose_energy(call, profile.energy, warnings),
    )
    record = add_levels(add_quality(record, call, warnings), call, warnings)
    return Built(record, private, warnings)


def _in_order(call: SourceCall, warnings: list[str]) -> SourceCall:
    """Return ``call`` with times that only the coarseness of the platform's clock put out of order in order.

    Some platforms have the setup in milliseconds and the answer in whole seconds, or minutes: an answer may then seem
    to come up to a step before the setup. What is further out of order is left to the rules, which refuse it.
    """
    step_ms, setup_ms, answer_ms, end_ms = call.time_step_ms, call.setup_ms, call.answer_ms, call.end_ms
    if answer_ms and setup_ms - step_ms < answer_ms < setup_ms:
        answer_ms = setup_ms
    begun_ms = answer_ms or setup_ms
    if begun_ms - step_ms < end_ms < begun_ms:
        end_ms = begun_ms
    if answer_ms == call.answer_ms and end_ms == call.end_ms:
        return call
    warnings.append(f"times in steps of {step_ms} ms were out of order: the later ones were moved to the earlier")
    return replace(call, answer_ms=answer_ms, end_ms=end_ms)


def _in_bounds(call: SourceCall, warnings: list[str]) -> SourceCall:
    """Return ``call`` without counters of octets that no record can hold: such counters cost no call."""
    most = max(call.caller_octets or 0, call.callee_octets or 0)
    if most <= OCTETS_MAX:
        return call
    warnings.append(f"octets left out: {most} are more than a call can have ({OCTETS_MAX})")
    return replace(call, caller_octets=None, callee_octets=None)


def private_values(call: SourceCall, region: str = "") -> dict[str, str]:
    """Return the private fields of ``call`` by the names of PRIVATE_FIELDS; numbers as those of ``region``."""
    return {
        "caller": party_of(call.caller, region),
        "callee": party_of(call.callee, region),
        "call_id": call.call_id,
        "from_tag": call.from_tag,
        "to_tag": call.to_tag,
        "addresses": call.source_address,
        "raw": call.raw,
    }


def _directions(call: SourceCall, leg: Leg) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (packets, octets) sent and received, seen from the side this carrier serves; 0 where unknown."""
    from_caller = (call.caller_packets or 0, call.caller_octets or 0)
    from_callee = (call.callee_packets or 0, call.callee_octets or 0)
    return (from_callee, from_caller) if leg is _TERMINATING else (from_caller, from_callee)


def choose_codec(call: SourceCall, warnings: list[str]) -> int:
    """Return the codec's row in the registry, 0 where the name is unknown or the packet counts contradict it.

    The packet time is the one whose packets have as many octets as those counted, else the usual 20 ms. Of rows that
    differ in loss concealment only, the one without is taken: a proxy does not see the receiver's.
    """
    if not call.codec:
        return 0
    rows = _CODECS_OF.get(call.codec.lower())
    if rows is None:
        # In a column that slipped stands a number, and warnings go to others.
        name = call.codec if _CODEC_NAME.fullmatch(call.codec) else form_of(call.codec)
        warnings.append(f"codec {name} is not in the registry: recorded as unknown")
        return 0
    octets = {
        (octets + packets // 2) // packets
        for packets, octets in (
            (call.caller_packets, call.caller_octets),
            (call.callee_packets, call.callee_octets),
        )
        if packets and octets
    }
    chosen = next((codec for codec in rows if codec.payload_octets in octets), rows[0])
    most = max(call.caller_packets or 0, call.callee_packets or 0)
    if chosen.packet_us and most > packets_possible(chosen, call.end_ms - call.setup_ms):
        warnings.append(
            f"{most} packets are more than {chosen.name} sends in the call's time: codec recorded as unknown"
        )
        return 0
    return chosen.row


def packets_possible(codec: Codec, duration_ms: int) -> int:
    """Return the most packets a sender of ``codec`` can have sent in ``duration_ms``."""
    packets = -(-duration_ms * 1000 // codec.packet_us)
    return packets + SPARE_PACKETS + packets * SPARE_PPM // 1_000_000


def choose_energy(call: SourceCall, profile: EnergyProfile | None, warnings: list[str]) -> Energy | None:
    """Return energy and CO2 of ``call``; None without a profile, or with a warning where a record cannot hold them."""
    if profile is None:
        return None
    found = compute_energy(call, profile)
    most_mj = max(found.device_mj, found.network_mj, found.server_mj)
    if most_mj <= ENERGY_MJ_MAX and found.co2_ug <= CO2_UG_MAX:
        return found
    # Only a call of weeks, or years, gets here: its end was never noticed.
    warnings.append(f"energy left out: {most_mj} mJ and {found.co2_ug} ug of CO2 are more than a record can hold")
    return None


def compute_energy(call: SourceCall, profile: EnergyProfile) -> Energy:
    """Return energy and CO2 of ``call``: devices and servers by talk time, the network by its method.

    Octets of both directions count; where the platform does not know them they are 0, as in the record.
    """
    talk_ms = call.end_ms - call.answer_ms if call.answer_ms else 0
    octets = (call.caller_octets or 0) + (call.callee_octets or 0)
    device_mj = energy.power_mj(profile.device_mw, talk_ms)
    network_mj = energy.network_mj(profile.network_method, profile.boundary, octets, talk_ms)
    server_mj = energy.power_mj(profile.server_mw, talk_ms)
    intensity = carbon.intensity_mg_per_kwh(profile.intensity_table, profile.grid_zone) or 0
    total_mj = energy.total_mj(device_mj, network_mj, server_mj, profile.pue_milli)
    return Energy(
        method=profile.network_method,
        boundary=profile.boundary,
        device_class=profile.device_class,
        device_mj=device_mj,
        network_mj=network_mj,
        server_mj=server_mj,
        pue_milli=profile.pue_milli,
        grid_zone=profile.grid_zone,
        intensity_mg_per_kwh=intensity,
        intensity_table=profile.intensity_table,
        co2_ug=carbon.co2_ug(total_mj, intensity),
    )
