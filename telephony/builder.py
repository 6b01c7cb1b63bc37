"""From a SourceCall to what goes on the chain: a CallRecord, and the private part that stays with the carrier.

Quality is taken over only where the platform's figures agree with themselves and with the formula they claim; where
they do not, the record goes without, and a warning says why: a call must not be lost for a bad MOS. Energy is
computed here with the integer models, so that every node recomputes the same figure.

Pure but for ``fresh_salts``. Quantities are integers with the unit last in the name.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, NamedTuple

from ledger.cdr import (
    Band,
    Boundary,
    CallRecord,
    DeviceClass,
    Energy,
    EnergyMethod,
    Leg,
    MosKind,
    Observer,
    Quality,
    QualityMethod,
    Reading,
    Service,
    call_commitment,
)
from ledger.commitment import PRIVATE_FIELDS, PrivatePart, make_private_part, party_commitment
from ledger.errors import ConfigError
from ledger.models import carbon, energy, rtpengine
from ledger.models.tables import CODECS, NETWORK_FACTORS, Codec
from telephony.numbers import party_of
from telephony.source import SourceCall, SourceQuality, SourceReading

PACKET_US_DEFAULT: Final = 20_000
"""The default packet time of audio codecs (RFC 3551, 4.2), taken where the counters do not tell."""

SPARE_PACKETS: Final = 2
SPARE_PPM: Final = 200
"""How far a sender's clock may run fast: more packets than that in the call's time contradict the packet time."""

_OBSERVERS: Final = {
    Leg.ORIGINATING: (Observer.CALLER, Observer.BOTH, Observer.CALLEE),
    Leg.TERMINATING: (Observer.CALLEE, Observer.BOTH, Observer.CALLER),
    Leg.TRANSIT: (Observer.BOTH, Observer.CALLER, Observer.CALLEE),
}
"""Whose ears count, best first: a carrier answers for what its own customer heard."""


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
    warnings: list[str] = []
    private = make_private_part(private_values(call, profile.region), salts)
    sent, received = _directions(call, profile.leg)
    record = CallRecord(
        version=1,
        service=profile.service,
        leg=profile.leg,
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
        quality=choose_quality(call, profile.leg, warnings),
        levels=None,
        energy=compute_energy(call, profile.energy) if profile.energy else None,
    )
    return Built(record, private, warnings)


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
    return (from_callee, from_caller) if leg is Leg.TERMINATING else (from_caller, from_callee)


def choose_codec(call: SourceCall, warnings: list[str]) -> int:
    """Return the codec's row in the registry, 0 where the name is unknown or the packet counts contradict it.

    The packet time is the one whose packets have as many octets as those counted, else the usual 20 ms. Of rows that
    differ in loss concealment only, the one without is taken: a proxy does not see the receiver's.
    """
    if not call.codec:
        return 0
    rows = [codec for codec in CODECS.values() if codec.name.lower() == call.codec.lower()]
    if not rows:
        warnings.append(f"codec {call.codec} is not in the registry: recorded as unknown")
        return 0
    rows.sort(key=lambda codec: (codec.concealment == "plc", codec.packet_us != PACKET_US_DEFAULT, codec.row))
    octets = {
        (octets + packets // 2) // packets
        for packets, octets in (
            (call.caller_packets, call.caller_octets),
            (call.callee_packets, call.callee_octets),
        )
        if packets and octets
    }
    fitting = [codec for codec in rows if codec.payload_octets in octets]
    chosen = (fitting or rows)[0]
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


def choose_quality(call: SourceCall, leg: Leg, warnings: list[str]) -> Quality | None:
    """Return the quality as rtpengine 10 measured it, None where it has none that can stand.

    Of the observers with complete figures the one nearest to this carrier's customer counts. A contradiction within
    its figures is a warning and no quality; there is no falling back to another observer, which would be choosing
    among figures of a relay that has just been caught out.
    """
    by_observer = {quality.observer: quality for quality in call.qualities}
    for observer in _OBSERVERS[leg]:
        found = by_observer.get(observer)
        mean = _complete(found.average, call) if found else None
        if found is None or found.samples is None or mean is None:
            continue
        quality = _rtpengine_quality(found, found.samples, mean, call)
        contradiction = contradiction_of(quality, call)
        if contradiction is None:
            return quality
        warnings.append(f"quality left out: {contradiction}")
        return None
    if call.qualities:
        warnings.append("quality left out: a MOS without samples, round trip, jitter or loss cannot be checked")
    return None


def _rtpengine_quality(found: SourceQuality, samples: int, mean: Reading, call: SourceCall) -> Quality:
    return Quality(
        method=QualityMethod.RTPENGINE_10,
        band=Band.NARROWBAND,
        kind=MosKind.CQ,
        observer=found.observer,
        samples=samples,
        r_milli=None,
        one_way_us=None,
        # The CDR has percentages, no counts of the receiver.
        packets_expected=0,
        packets_lost=0,
        packets_discarded=0,
        loss_events=0,
        mean=mean,
        worst=_complete(found.lowest, call),
        best=_complete(found.highest, call),
    )


def _complete(reading: SourceReading | None, call: SourceCall) -> Reading | None:
    """Return ``reading`` as a record has it, None where one of its figures is missing.

    Moments are in whole seconds from the media session's second of birth, so the last one may seem to lie after the
    call's end; it is put there.
    """
    if reading is None or reading.rtt_us is None or reading.jitter_us is None or reading.loss_ppm is None:
        return None
    at_ms = min(reading.at_ms or 0, call.end_ms - call.setup_ms)
    return Reading(
        mos_milli=reading.mos_milli,
        rtt_us=reading.rtt_us,
        jitter_us=reading.jitter_us,
        loss_ppm=reading.loss_ppm,
        at_ms=at_ms,
    )


def contradiction_of(quality: Quality, call: SourceCall) -> str | None:
    """Return in what figures of rtpengine contradict themselves or its formula, None when in nothing."""
    for name, reading in (("mean", quality.mean), ("worst", quality.worst), ("best", quality.best)):
        if reading is None:
            continue
        if not rtpengine.MOS_MILLI_MIN <= reading.mos_milli <= rtpengine.MOS_MILLI_MAX:
            return f"{name} MOS {reading.mos_milli} milli is beyond what rtpengine-10 can give"
        # Inputs come with the extremes alone: the mean of MOS is not the MOS of the means.
        expected = rtpengine.mos_milli(reading.rtt_us, reading.jitter_us, reading.loss_ppm)
        if name != "mean" and abs(reading.mos_milli - expected) > rtpengine.STEP_MILLI:
            return f"{name} MOS {reading.mos_milli} milli, but its round trip, jitter and loss give {expected}"
    if quality.worst and quality.worst.mos_milli > quality.mean.mos_milli:
        return f"worst MOS {quality.worst.mos_milli} milli is above the mean of {quality.mean.mos_milli}"
    if quality.best and quality.best.mos_milli < quality.mean.mos_milli:
        return f"best MOS {quality.best.mos_milli} milli is below the mean of {quality.mean.mos_milli}"
    talk_s = (call.end_ms - call.answer_ms) // 1000 if call.answer_ms else 0
    if quality.samples > talk_s + 1:
        return f"{quality.samples} samples in {talk_s} s, but rtpengine takes one a second"
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
