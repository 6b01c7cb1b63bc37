"""What an adapter makes of one platform's record: the same shape for every platform, before it becomes a CallRecord.

Quantities are integers with the unit last in the name; times are UTC milliseconds since 1970. None means that the
platform did not say. Personal data is still in it: it must not leave the carrier.
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.cdr import Observer, ReleasedBy


@dataclass(frozen=True, slots=True)
class SourceReading:
    """One moment, or the mean, of the quality that a platform measured."""

    mos_milli: int
    """MOS x 1000, 0 to 5000."""
    rtt_us: int | None
    """Round-trip time of both legs together."""
    jitter_us: int | None
    loss_ppm: int | None
    """Packets lost, parts per million of those expected, at most 1,000,000."""
    at_ms: int | None
    """When, after the media session began; None in a mean."""


@dataclass(frozen=True, slots=True)
class SourceQuality:
    """What one observer heard during the call."""

    observer: Observer
    samples: int | None
    """Reports behind the average."""
    average: SourceReading
    lowest: SourceReading | None
    highest: SourceReading | None


@dataclass(frozen=True, slots=True)
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
