"""The call record: what one carrier states about one leg of one call.

No personal data is in it. Numbers, URIs, Call-ID and addresses stay in the carrier's own party vault; the record
carries two commitments: one to the private part, one that identifies the call.

Quantities are integers with the unit last in the name; times are UTC milliseconds since 1970. Names follow
RFC 3261 (SIP), RFC 3611 (voice metrics), ITU-T Q.850 (causes), G.107 and P.800.1 (quality).

Source: docs/protocol.md, "Call record".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal

from msgspec import Meta

from ledger.codec import U16, U32, Bytes16, Bytes32, Count, TimeMs, Wire, encode
from ledger.crypto import hash_of, hmac_sha256
from ledger.errors import FieldError

RECORD_BYTES_MAX = 1024
"""Longest canonical encoding of a record; a typical one is about 200 bytes."""
OCTETS_MAX = 2**42 - 1
"""Most octets of one direction, 4.4 TB. This bound and the next three are such that the totals of a block, which has
at most 1,000,000 records, stay below 2^63."""
ENERGY_MJ_MAX = 2**40 - 1
"""Most energy of one part of a call: 305 kWh."""
PUE_MILLI_MAX = 8_000
CO2_UG_MAX = 2**42 - 1
"""Most CO2 of a call: 4.4 t."""


class Service(IntEnum):
    """What kind of call it was."""

    VOICE = 1
    VIDEO = 2
    CONFERENCE = 3
    WEBRTC = 4
    EMERGENCY = 5
    STREAMING = 6


class Leg(IntEnum):
    """Which side of the call the reporting carrier carried."""

    ORIGINATING = 1
    TERMINATING = 2
    TRANSIT = 3


class ReleasedBy(IntEnum):
    """Who ended the call."""

    UNKNOWN = 0
    CALLER = 1
    CALLEE = 2
    NETWORK = 3


class QualityMethod(IntEnum):
    """The formula behind a MOS; figures of different methods are never added up."""

    G107 = 1
    G107_1 = 2
    G107_2 = 3
    RTPENGINE_10 = 4
    RTPENGINE_13 = 5
    FREESWITCH = 6
    RFC3611 = 7
    MEASURED = 8


class Band(IntEnum):
    """Audio band of the MOS scale, ITU-T P.800.1."""

    NARROWBAND = 1
    WIDEBAND = 2
    SUPER_WIDEBAND = 3
    FULLBAND = 4


class MosKind(IntEnum):
    """What the MOS is about, ITU-T P.800.1: listening, conversational, talking, video, audiovisual."""

    LQ = 1
    CQ = 2
    TQ = 3
    VQ = 4
    AVQ = 5


class Observer(IntEnum):
    """Which leg heard what was measured."""

    UNKNOWN = 0
    CALLER = 1
    CALLEE = 2
    BOTH = 3


class EnergyMethod(IntEnum):
    """How the network's share of the energy was obtained; published figures differ by more than 1000x."""

    AVERAGE_KWH_GB = 1
    POWER_MARGINAL = 2
    POWER_ATTRIBUTED = 3
    METERED = 4


class Boundary(IntEnum):
    """Which part of the network the energy covers."""

    CORE = 1
    CORE_ACCESS = 2
    CORE_ACCESS_CPE = 3
    MOBILE = 4


class DeviceClass(IntEnum):
    """The end device; NONE on trunk legs, where another carrier has it."""

    NONE = 0
    PHONE = 1
    SMARTPHONE = 2
    LAPTOP = 3
    DESKTOP = 4
    CONFERENCE = 5


MosMilli = Annotated[int, Meta(ge=1_000, le=5_000)]
RMilli = Annotated[int, Meta(ge=0, le=148_000)]
Ppm = Annotated[int, Meta(ge=0, le=1_000_000)]
Dbm0 = Annotated[int, Meta(ge=-128, le=126)]
U8 = Annotated[int, Meta(ge=0, le=255)]
Octets = Annotated[int, Meta(ge=0, le=OCTETS_MAX)]
EnergyMj = Annotated[int, Meta(ge=0, le=ENERGY_MJ_MAX)]
SipCode = Annotated[int, Meta(ge=0, le=699)]
Q850Cause = Annotated[int, Meta(ge=0, le=127)]
GridZone = Annotated[
    str, Meta(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?\Z", max_length=6, description="a zone as GB or US-CA")
]
TableId = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,31}\Z", max_length=32, description="the name of a table, as ember-2026")
]


class Reading(Wire, frozen=True):
    """One moment, or the mean, of what was measured."""

    mos_milli: MosMilli
    """MOS x 1000."""
    rtt_us: U32
    """Round-trip time."""
    jitter_us: U32
    """Interarrival jitter, RFC 3550."""
    loss_ppm: Ppm
    """Packets lost, parts per million of those expected."""
    at_ms: U32
    """When, after setup; 0 in a mean."""


class Quality(Wire, frozen=True):
    """Voice quality, with the method that gave it and the inputs it came from."""

    method: QualityMethod
    band: Band
    kind: MosKind
    observer: Observer
    samples: U32
    """Reports behind the readings."""
    r_milli: RMilli | None
    """R factor x 1000, null where the method reports none."""
    one_way_us: U32 | None
    """Mouth-to-ear delay that the R factor was computed from."""
    packets_expected: Count
    packets_lost: Count
    packets_discarded: Count
    """Arrived too late or too early for the jitter buffer."""
    loss_events: Count
    """Runs of consecutive losses; 0 only when nothing was lost."""
    mean: Reading
    worst: Reading | None
    best: Reading | None


class Levels(Wire, frozen=True):
    """What an RFC 3611 voice metrics report adds."""

    signal_dbm0: Dbm0 | None
    noise_dbm0: Dbm0 | None
    rerl_db: U8 | None
    """Residual echo return loss."""
    burst_density: U8 | None
    """Lost or discarded in bursts, n/256."""
    gap_density: U8 | None
    burst_ms: U16 | None
    gap_ms: U16 | None
    jitter_buffer_ms: U16 | None
    jitter_buffer_max_ms: U16 | None
    end_system_delay_ms: U16 | None


class Energy(Wire, frozen=True):
    """Energy and CO2 of the call, with method, boundary and the pinned tables used."""

    method: EnergyMethod
    boundary: Boundary
    device_class: DeviceClass
    device_mj: EnergyMj
    network_mj: EnergyMj
    server_mj: EnergyMj
    """At the server, before PUE."""
    pue_milli: Annotated[int, Meta(ge=0, le=PUE_MILLI_MAX)]
    """Power usage effectiveness x 1000."""
    grid_zone: GridZone
    """ISO 3166-1 country, or ISO 3166-2 subdivision."""
    intensity_mg_per_kwh: U32
    """Milligrams of CO2e for each kilowatt-hour."""
    intensity_table: TableId
    """Id of the pinned table that the intensity is from."""
    co2_ug: Annotated[int, Meta(ge=0, le=CO2_UG_MAX)]


class CallRecord(Wire, frozen=True):
    """One leg of one call."""

    version: Literal[1]
    service: Service
    leg: Leg
    party_commitment: Bytes32
    """RFC 6962 root over the salted private fields, see ledger.commitment."""
    call_commitment: Bytes16
    """Keyed hash of what identifies the call at this carrier, see call_commitment()."""
    setup_ms: TimeMs
    """When the call attempt began."""
    answer_ms: TimeMs
    """When it was answered; 0: never."""
    end_ms: TimeMs
    """When it ended, or the attempt did."""
    sip_code: SipCode
    """Final SIP response; 0 where the platform has none."""
    q850_cause: Q850Cause
    """ITU-T Q.850 release cause; 0 unknown."""
    released_by: ReleasedBy
    codec: U16
    """Row of the codec registry; 0 unknown."""
    packets_sent: Count
    """RTP packets sent by the reporting side's media relay or device."""
    packets_received: Count
    octets_sent: Octets
    """RTP payload octets, headers excluded."""
    octets_received: Octets
    quality: Quality | None
    """Null where nothing was measured: a missing MOS is not a bad one."""
    levels: Levels | None
    energy: Energy | None


def call_commitment(record_key: bytes, call_id: str, from_tag: str, invite_cseq: int) -> bytes:
    """Return the 16 bytes that identify a call to its carrier and say nothing to others.

    record_key: the member's 32-byte secret; without it not even a guess can be tested.
    invite_cseq: sequence number of the INVITE, 0 where the platform does not report it.
    Raises FieldError for text that is not Unicode or a number over 64 bits.
    """
    try:
        data = encode([call_id, from_tag, invite_cseq])
    except (UnicodeEncodeError, OverflowError) as error:
        raise FieldError(f"cannot be encoded: {error}", where="call_id, from_tag, invite_cseq") from None
    return hmac_sha256(record_key, data)[:16]


def record_key_of(member_id: str, record: CallRecord) -> bytes:
    """Return the 16-byte key under which a record counts once: member, call and leg."""
    return hash_of("record", (member_id, record.call_commitment, record.leg))[:16]


def talk_ms(record: CallRecord) -> int:
    """Return the answered duration; 0 for a call never answered, or answered after its end, which rules refuse."""
    return max(0, record.end_ms - record.answer_ms) if record.answer_ms else 0
