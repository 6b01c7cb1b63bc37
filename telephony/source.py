"""What an adapter makes of one platform's record: the same shape for every platform, before it becomes a CallRecord.

Quantities are integers with the unit last in the name; times are UTC milliseconds since 1970. None means that the
platform did not say. Personal data is still in it: it must not leave the carrier.

Nobody changes one that was made. They are not frozen all the same: a frozen dataclass takes four times as long to make,
which was a fifth of the time that a backlog took.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from ledger.cdr import Band, Leg, Levels, MosKind, Observer, QualityMethod, ReleasedBy, Service


@dataclass(slots=True)
class SourceReading:
    """One moment, or the mean, of the quality that a platform measured."""

    mos_milli: int
    """MOS x 1000, 0 to 5000; 0: the platform gave none."""
    rtt_us: int | None
    """Round-trip time of both legs together."""
    jitter_us: int | None
    loss_ppm: int | None
    """Packets lost, parts per million of those expected, at most 1,000,000."""
    at_ms: int | None
    """When, after the media session began; None in a mean."""


@dataclass(slots=True)
class SourceQuality:
    """What one observer heard during the call."""

    observer: Observer
    samples: int | None
    """Reports behind the average."""
    average: SourceReading
    lowest: SourceReading | None
    highest: SourceReading | None
    method: QualityMethod = QualityMethod.RTPENGINE_10
    """The formula that the platform computed its MOS with."""
    band: Band = Band.NARROWBAND
    kind: MosKind = MosKind.CQ
    r_milli: int | None = None
    one_way_us: int | None = None
    """Mouth-to-ear delay."""
    packets_expected: int = 0
    """0: the platform has no counts of the receiver; so for the next three."""
    packets_lost: int = 0
    packets_discarded: int = 0
    loss_events: int = 0


@dataclass(slots=True)
class SourceCall:
    """One call as a SIP platform recorded it."""

    call_id: str
    from_tag: str
    to_tag: str
    """Empty where nobody ever answered with one."""
    invite_cseq: int
    """Sequence number of the INVITE, 0 where the platform does not report it."""
    caller: str
    """SIP URI or number as the platform gave it; empty where unknown or not text."""
    callee: str
    source_address: str
    """IP address that the call came from, empty where unknown."""
    setup_ms: int
    answer_ms: int
    """0: never answered."""
    end_ms: int
    sip_code: int
    """Final response to the INVITE, 100 to 699; 0 where the platform has none."""
    q850_cause: int
    """0 to 127; 0 unknown."""
    released_by: ReleasedBy
    codec: str
    """RTP encoding name as in SDP, ``PCMA``; empty where unknown."""
    caller_packets: int | None
    """RTP packets that came from the caller."""
    caller_octets: int | None
    """Their payload, without RTP headers."""
    callee_packets: int | None
    callee_octets: int | None
    qualities: tuple[SourceQuality, ...]
    """None, or one for each observer that there are figures of."""
    raw: str
    """The platform's own document, as JSON text."""
    platform: str = "kamailio"
    """Name of the adapter that read it."""
    leg: Leg | None = None
    """None: the platform does not say, the carrier's profile does."""
    service: Service | None = None
    """None: as the profile has it."""
    levels: Levels | None = None
    time_step_ms: int = 1
    """How exact the platform's times are: 1000 for whole seconds, 60000 for minutes."""
    notes: tuple[str, ...] = ()
    """What of the document was left out and why, one sentence each; no private value in them."""
    legs: tuple[str, str] = ("", "")
    """The platform's own names of the caller's and of the callee's leg, which its quality reports refer to."""


class PartRole(IntEnum):
    """What a document tells of a call that it does not tell alone."""

    BEGIN = 1
    """The call was set up, and answered or not; its end comes apart."""
    END = 2
    QUALITY = 3


@dataclass(slots=True)
class SourcePart:
    """A document that is not a whole call: it waits for the others of its call."""

    platform: str
    join: tuple[str, ...]
    """What its call is known by: kind of key first, ``("call-id", "a84b4c76e66710")``; the same in every part."""
    role: PartRole
    call: SourceCall | None
    """What is known of the call so far; in a quality report None, or tags, codec and counters and nothing else."""
    qualities: tuple[SourceQuality, ...]
    levels: Levels | None
    raw: str
    """The platform's own document, as text."""
    of_leg: str = ""
    """Which leg of the call a report is of, by the platform's own name; empty where its qualities name the observer."""


Source = SourceCall | SourcePart
"""What an adapter makes of one document."""


def partial_call(platform: str, call_id: str, raw: str, **known: Any) -> SourceCall:
    """Return what a part tells of its call: the fields of SourceCall given in ``known``, all others unknown."""
    unknown: dict[str, Any] = {
        "from_tag": "",
        "to_tag": "",
        "invite_cseq": 0,
        "caller": "",
        "callee": "",
        "source_address": "",
        "setup_ms": 0,
        "answer_ms": 0,
        "end_ms": 0,
        "sip_code": 0,
        "q850_cause": 0,
        "released_by": ReleasedBy.UNKNOWN,
        "codec": "",
        "caller_packets": None,
        "caller_octets": None,
        "callee_packets": None,
        "callee_octets": None,
        "qualities": (),
    }
    return SourceCall(platform=platform, call_id=call_id, raw=raw, **(unknown | known))


def join_of(source: Source) -> tuple[str, ...]:
    """Return the key that parts of one call share; a whole call is known by its Call-ID."""
    return source.join if isinstance(source, SourcePart) else ("call-id", source.call_id)


def qualities_for(call: SourceCall, part: SourcePart) -> tuple[SourceQuality, ...]:
    """Return the qualities of a report with their observers, as the legs of ``call`` tell.

    None for a report of a leg that ``call`` does not have: a transfer makes several calls of one key, and the report
    is of another of them.
    """
    if not part.of_leg:
        return part.qualities
    if part.of_leg not in call.legs:
        return ()
    observer = Observer.CALLER if part.of_leg == call.legs[0] else Observer.CALLEE
    return tuple(replace(quality, observer=observer) for quality in part.qualities)
