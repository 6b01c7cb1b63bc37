"""Call records that look like a carrier's traffic, for demonstrations, benchmarks and tests; the same from one seed.

Every record holds under the default rules of a ``lifecycle`` chain. Records come in the order in which calls end, as
platforms write them. What is drawn follows what carriers see: half of the attempts are answered, holding times are
exponential with a mean of three minutes, a quarter of the answered calls has no MOS, and some networks lose packets.

No floating point: the exponential distribution is its own table of order statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from ledger.cdr import (
    Band,
    Boundary,
    CallRecord,
    DeviceClass,
    Energy,
    EnergyMethod,
    Leg,
    Levels,
    MosKind,
    Observer,
    Quality,
    QualityMethod,
    Reading,
    ReleasedBy,
    Service,
    call_commitment,
)
from ledger.errors import ConfigError
from ledger.models import carbon, emodel, energy, rtpengine
from ledger.models.rounding import divide_half_up
from ledger.models.tables import CODECS, NETWORK_FACTORS

HOURLY_WEIGHTS: Final = (
    15,
    9,
    6,
    5,
    6,
    12,
    30,
    58,
    88,
    108,
    114,
    110,
    100,
    104,
    108,
    106,
    104,
    108,
    102,
    84,
    66,
    50,
    36,
    23,
)
"""Calls in each hour of a UTC day, relative to one another: the busy hour is the one from 10:00."""
INTENSITY_TABLE: Final = "ember-2026"
UNRATABLE_BELOW_MS: Final = 5_000
"""Shorter calls have too few RTCP reports for a MOS."""

_STEPS: Final = 1 << 10
_CODEC_MIX: Final = ((3, 44), (1, 24), (20, 14), (41, 6), (71, 4), (80, 8))
"""Rows of the codec registry (PCMA, PCMU, G.729A, AMR, G.722, Opus) with their share in percent."""
_VARIABLE_OCTETS: Final = 61
"""Octets of a packet where the codec fixes none: about 24 kbit/s at 20 ms."""
_FAILURES: Final = (
    # sip_code, q850_cause (RFC 3398), released_by, seconds until then at most, share in percent
    (487, 16, ReleasedBy.CALLER, 40, 38),
    (486, 17, ReleasedBy.CALLEE, 6, 27),
    (480, 19, ReleasedBy.NETWORK, 60, 17),
    (404, 1, ReleasedBy.NETWORK, 2, 9),
    (603, 21, ReleasedBy.CALLEE, 20, 5),
    (503, 41, ReleasedBy.NETWORK, 4, 4),
)
_DEVICES: Final = (
    # device class, its power while it talks in milliwatts, share in percent
    (DeviceClass.PHONE, 3_200, 46),
    (DeviceClass.SMARTPHONE, 1_100, 38),
    (DeviceClass.LAPTOP, 62_000, 12),
    (DeviceClass.CONFERENCE, 5_400, 4),
)
_NETWORKS: Final = (
    (EnergyMethod.POWER_MARGINAL, Boundary.CORE_ACCESS_CPE),
    (EnergyMethod.AVERAGE_KWH_GB, Boundary.CORE_ACCESS),
    (EnergyMethod.POWER_ATTRIBUTED, Boundary.CORE),
)
_SERVER_MW: Final = 45
"""A call's share of its servers: 900 W at 20,000 calls."""
_PUE_MILLI: Final = (1_120, 1_300, 1_450)


def _exponential(mean: int) -> tuple[int, ...]:
    """Return ``_STEPS`` values whose mean is ``mean``: the expected order statistics of an exponential."""
    values, total = [], 0
    for rank in range(_STEPS):
        total += divide_half_up(mean << 10, _STEPS - rank)
        values.append(total >> 10)
    return tuple(values)


def _spread(shares: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Return 100 values, each as often as its share in percent says."""
    return tuple(value for value, percent in shares for _ in range(percent))


@dataclass(frozen=True, slots=True)
class Traffic:
    """What kind of traffic to make; checked when made, raises ConfigError."""

    seed: int
    start_ms: int
    """The first call ends shortly after this; UTC."""
    calls_per_hour: int = 60_000
    """Over the day; see ``is_daily``."""
    member_secret: bytes = bytes(32)
    """The member's record key behind call commitments."""
    answered_percent: int = 52
    unmeasured_percent: int = 22
    """Answered calls whose media server had no RTCP; calls too short to be rated come on top."""
    holding_mean_ms: int = 180_000
    grid_zones: tuple[str, ...] = ("GB", "DE", "FR", "NO", "PL", "US")
    is_daily: bool = False
    """Follow ``HOURLY_WEIGHTS`` instead of an even rate."""

    def __post_init__(self) -> None:
        bounds = {
            "calls_per_hour": (1, 3_600_000_000),
            "answered_percent": (0, 100),
            "unmeasured_percent": (0, 100),
            "holding_mean_ms": (1_000, 86_400_000),
            "start_ms": (7 * 86_400_000, 1 << 50),
        }
        for name, (least, most) in bounds.items():
            if not least <= (value := getattr(self, name)) <= most:
                raise ConfigError("out of bounds", where=name, expected=f"{least} to {most}", actual=value)
        for zone in self.grid_zones:
            if carbon.intensity_mg_per_kwh(INTENSITY_TABLE, zone) is None:
                raise ConfigError(
                    "no such grid zone", where="grid_zones", expected=f"zones of {INTENSITY_TABLE}", actual=zone
                )
        if not self.grid_zones:
            raise ConfigError("no grid zone", where="grid_zones", expected="at least one")


def generate_records(traffic: Traffic) -> Iterator[CallRecord]:
    """Yield records without end, in the order of ``end_ms``; the caller takes as many as it needs."""
    return _Generator(traffic).records()


class _Generator:
    """Draws one record after the other; tables that do not change are made once."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.random = Random(traffic.seed)  # noqa: S311 - made-up traffic, no secret
        self.bits = self.random.getrandbits
        self.holding_ms = _exponential(traffic.holding_mean_ms)
        self.ringing_ms = _exponential(9_000)
        self.gap_us = _exponential(divide_half_up(3_600_000_000, traffic.calls_per_hour))
        self.codecs = [CODECS[row] for row in _spread(_CODEC_MIX)]
        self.failures = [failure for failure in _FAILURES for _ in range(failure[4])]
        self.devices = [device for device in _DEVICES for _ in range(device[2])]
        self.coefficients = {key: energy.network_coefficients(NETWORK_FACTORS[key]) for key in _NETWORKS}
        self.intensities = [
            (zone, carbon.intensity_mg_per_kwh(INTENSITY_TABLE, zone) or 0) for zone in traffic.grid_zones
        ]
        self.legs = (Leg.ORIGINATING,) * 5 + (Leg.TERMINATING,) * 2 + (Leg.TRANSIT,)

    def below(self, bound: int) -> int:
        """Return an integer from 0 to ``bound - 1``; the bias of 2^-40 or less is of no matter here."""
        return self.bits(56) * bound >> 56

    def records(self) -> Iterator[CallRecord]:
        """Yield records in the order of ``end_ms``."""
        traffic = self.traffic
        secret, prefix = traffic.member_secret, f"{traffic.seed:x}"
        mean_weight = divide_half_up(sum(HOURLY_WEIGHTS), len(HOURLY_WEIGHTS))
        end_us = traffic.start_ms * 1000
        number = 0
        while True:
            gap_us = self.gap_us[self.bits(10)]
            if traffic.is_daily:
                gap_us = gap_us * mean_weight // HOURLY_WEIGHTS[end_us // 3_600_000_000 % 24]
            end_us += gap_us
            number += 1
            # Call-ID and from-tag as a platform would have them; only the keyed hash leaves this function.
            commitment = call_commitment(secret, f"{prefix}-{number}@sbc.example", f"t{number}", 1)
            if self.below(100) < traffic.answered_percent:
                yield self.answered(end_us // 1000, commitment)
            else:
                yield self.failed(end_us // 1000, commitment)

    def failed(self, end_ms: int, commitment: bytes) -> CallRecord:
        """Return a call that nobody answered."""
        sip_code, cause, released_by, most_s, _ = self.failures[self.below(100)]
        setup_ms = end_ms - 150 - self.below(most_s * 1000)
        return CallRecord(
            version=1,
            service=Service.VOICE,
            leg=self.legs[self.bits(3)],
            party_commitment=self.random.randbytes(32),
            call_commitment=commitment,
            setup_ms=setup_ms,
            answer_ms=0,
            end_ms=end_ms,
            sip_code=sip_code,
            q850_cause=cause,
            released_by=released_by,
            codec=0,
            packets_sent=0,
            packets_received=0,
            octets_sent=0,
            octets_received=0,
            quality=None,
            levels=None,
            energy=None,
        )

    def answered(self, end_ms: int, commitment: bytes) -> CallRecord:
        """Return a call that was answered, with its media, quality and energy."""
        talk_ms = 400 + self.holding_ms[self.bits(10)]
        answer_ms = end_ms - talk_ms
        setup_ms = answer_ms - 1_200 - self.ringing_ms[self.bits(10)]
        leg = self.legs[self.bits(3)]
        codec = self.codecs[self.below(100)]
        sent = expected = talk_ms * 1000 // codec.packet_us
        loss_class = self.bits(5)
        lost = 0
        if loss_class < 8:
            # A quarter of the calls crosses a network that loses up to 1 percent, a thirty-second up to 6.
            lost = expected * self.below(60_000 if not loss_class else 10_000) // 1_000_000
        received = expected - lost
        quality = levels = None
        if talk_ms >= UNRATABLE_BELOW_MS and self.below(100) >= self.traffic.unmeasured_percent:
            if codec.ie_milli is not None and codec.bpl_milli is not None and self.bits(1):
                quality = self.rated(codec.ie_milli, codec.bpl_milli, expected, lost, talk_ms)
                levels = self.levels(talk_ms) if not self.bits(3) else None
            else:
                quality = self.relayed(end_ms - setup_ms, talk_ms, loss_class)
        payload_octets = codec.payload_octets or _VARIABLE_OCTETS
        released = self.bits(6)
        return CallRecord(
            version=1,
            service=Service.VOICE,
            leg=leg,
            party_commitment=self.random.randbytes(32),
            call_commitment=commitment,
            setup_ms=setup_ms,
            answer_ms=answer_ms,
            end_ms=end_ms,
            sip_code=200,
            q850_cause=16,
            released_by=(
                ReleasedBy.CALLER if released < 38 else ReleasedBy.CALLEE if released < 63 else ReleasedBy.NETWORK
            ),
            codec=codec.row,
            packets_sent=sent,
            packets_received=received,
            octets_sent=sent * payload_octets,
            octets_received=received * payload_octets,
            quality=quality,
            levels=levels,
            energy=self.energy(talk_ms, (sent + received) * payload_octets, leg),
        )

    def rated(self, ie_milli: int, bpl_milli: int, expected: int, lost: int, talk_ms: int) -> Quality | None:
        """Return quality by the E-model, as an endpoint rates what it received itself."""
        one_way_us = 18_000 + self.below(120_000) + (0 if self.bits(4) else self.below(400_000))
        events = lost - lost * self.below(70) // 100
        rating = emodel.rate(
            ie_milli, bpl_milli, lost=lost, expected=expected, loss_events=events, one_way_us=one_way_us
        )
        best = emodel.rate(ie_milli, bpl_milli, lost=0, expected=expected, loss_events=0, one_way_us=one_way_us)
        if rating is None or best is None:
            return None
        r_milli, mos_milli = rating
        jitter_us = 400 + self.below(6_000)
        loss_ppm = divide_half_up(1_000_000 * lost, expected)
        worst_milli = 1000 + (mos_milli - 1000) * (1000 - self.below(1 + loss_ppm // 200) % 400) // 1000
        return Quality(
            method=QualityMethod.G107,
            band=Band.NARROWBAND,
            kind=MosKind.CQ,
            observer=Observer.CALLER if self.bits(1) else Observer.CALLEE,
            samples=talk_ms // 5_000,
            r_milli=r_milli,
            one_way_us=one_way_us,
            packets_expected=expected,
            packets_lost=lost,
            packets_discarded=0,
            loss_events=events,
            mean=Reading(mos_milli, 2 * one_way_us, jitter_us, loss_ppm, 0),
            worst=Reading(
                worst_milli, 2 * one_way_us, 2 * jitter_us, min(1_000_000, 3 * loss_ppm), self.below(talk_ms)
            ),
            best=Reading(best[1], 2 * one_way_us, jitter_us // 2, 0, self.below(talk_ms)),
        )

    def relayed(self, duration_ms: int, talk_ms: int, loss_class: int) -> Quality:
        """Return quality as rtpengine 10 reckons it from the receiver reports of both sides."""
        rtt_us = 9_000 + self.below(90_000)
        jitter_us = 1_000 * self.below(8)
        # rtpengine counts whole percents of the packets between two reports.
        loss_ppm = 10_000 * self.below(12 if not loss_class else 4) if loss_class < 8 else 0
        worst_rtt_us = rtt_us + self.below(120_000)
        worst_jitter_us = jitter_us + 1_000 * self.below(14)
        worst_milli = rtpengine.mos_milli(worst_rtt_us, worst_jitter_us, loss_ppm)
        best_milli = rtpengine.mos_milli(rtt_us, jitter_us, 0)
        # Most intervals are like the best one; the mean over them is rtpengine's, to a tenth.
        mean_milli = (3 * best_milli + worst_milli) // 400 * 100
        ringing_ms = duration_ms - talk_ms
        return Quality(
            method=QualityMethod.RTPENGINE_10,
            band=Band.NARROWBAND,
            kind=MosKind.CQ,
            observer=Observer.BOTH,
            samples=2 * (talk_ms // 5_000),
            r_milli=None,
            one_way_us=None,
            packets_expected=0,
            packets_lost=0,
            packets_discarded=0,
            loss_events=0,
            mean=Reading(mean_milli, rtt_us + (worst_rtt_us - rtt_us) // 4, jitter_us, loss_ppm // 4, 0),
            worst=Reading(
                worst_milli, worst_rtt_us, worst_jitter_us, loss_ppm, ringing_ms + self.below(talk_ms) // 1000 * 1000
            ),
            best=Reading(best_milli, rtt_us, jitter_us, 0, ringing_ms + self.below(talk_ms) // 1000 * 1000),
        )

    def levels(self, talk_ms: int) -> Levels:
        """Return what an RFC 3611 report adds; a telephone's ordinary levels, and bursts in every other call."""
        has_bursts = self.bits(1)
        return Levels(
            signal_dbm0=-30 + self.below(14),
            noise_dbm0=-70 + self.below(12),
            rerl_db=40 + self.below(30),
            burst_density=has_bursts * (16 + self.below(60)),
            gap_density=self.below(4),
            burst_ms=has_bursts * (40 + self.below(900)),
            gap_ms=min(talk_ms, 2_000 + self.below(40_000)),
            jitter_buffer_ms=40,
            jitter_buffer_max_ms=120,
            end_system_delay_ms=60 + self.below(60),
        )

    def energy(self, talk_ms: int, octets: int, leg: Leg) -> Energy:
        """Return energy and CO2; a transit carrier has no end device in its call."""
        device_class, device_mw, _ = (DeviceClass.NONE, 0, 0) if leg is Leg.TRANSIT else self.devices[self.below(100)]
        network = _NETWORKS[self.below(3)]
        per_octet, per_ms, divisor = self.coefficients[network]
        device_mj = energy.power_mj(device_mw, talk_ms)
        network_mj = divide_half_up(per_octet * octets + per_ms * talk_ms, divisor)
        server_mj = energy.power_mj(_SERVER_MW, talk_ms)
        pue_milli = _PUE_MILLI[self.below(3)]
        zone, intensity = self.intensities[self.below(len(self.intensities))]
        return Energy(
            method=network[0],
            boundary=network[1],
            device_class=device_class,
            device_mj=device_mj,
            network_mj=network_mj,
            server_mj=server_mj,
            pue_milli=pue_milli,
            grid_zone=zone,
            intensity_mg_per_kwh=intensity,
            intensity_table=INTENSITY_TABLE,
            co2_ug=carbon.co2_ug(energy.total_mj(device_mj, network_mj, server_mj, pue_milli), intensity),
        )
