"""Adapter for RTCP XR: the VoIP metrics block of RFC 3611, 4.7, as a JSON object, becomes a report of quality.

RTCP does not know calls, so whoever reads it says which one it was: ``call-id``, and whose report it is, by
``observer`` or by the ``tag`` of that side. The values stand in the object by the RFC's names and in its units, or the
whole block is in ``block``, 36 bytes in hex or base64. docs/voice-metrics.md lists the names.

Values that the RFC reserves, and 127 where it means "unavailable", are unknown, as the RFC has it; a delay of 0 too.

Pure: no I/O. Bad input raises EncodingError or FieldError, never anything else.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from typing import Any, Final

from ledger.cdr import Band, Levels, MosKind, Observer, QualityMethod
from ledger.errors import FieldError
from telephony.adapters.base import U32_MAX, Kind, split_json
from telephony.adapters.fields import Fields, check_options, decode_fields
from telephony.source import PartRole, SourcePart, SourceQuality, SourceReading, partial_call

NAME: Final = "rtcp-xr"

UNAVAILABLE: Final = 127
"""In levels, echo return loss, R factor and MOS."""

U8_MAX: Final = 255
U16_MAX: Final = 65_535

BLOCK: Final = struct.Struct(">BBHIBBBBHHHHbbBBBBBBBBHHH")
"""The whole block, big-endian; the reserved octets at places 1 and 21 mean nothing."""
BLOCK_TYPE: Final = 7
BLOCK_WORDS: Final = 8
"""Its length field: 32-bit words after the first."""

_RATES: Final = ("loss_rate", "discard_rate", "burst_density", "gap_density")
_SPANS: Final = ("burst_duration", "gap_duration", "round_trip_delay", "end_system_delay")
_LEVELS: Final = ("signal_level", "noise_level")
_SCORES: Final = ("rerl", "gmin", "r_factor", "ext_r_factor", "mos_lq", "mos_cq", "rx_config")
_BUFFERS: Final = ("jb_nominal", "jb_maximum", "jb_abs_max")

BOUNDS: Final[Mapping[str, tuple[int, int]]] = (
    dict.fromkeys(_RATES, (0, U8_MAX))
    | dict.fromkeys(_SPANS, (0, U16_MAX))
    | dict.fromkeys(_LEVELS, (-128, UNAVAILABLE))
    | dict.fromkeys(_SCORES, (0, U8_MAX))
    | dict.fromkeys(_BUFFERS, (0, U16_MAX))
)
"""The block's values, in its order, with what each can hold."""

_OBSERVERS: Final = {"caller": Observer.CALLER, "callee": Observer.CALLEE, "": Observer.UNKNOWN}
_CUMULATIVE_BITS: Final = 24


class RtcpXrAdapter:
    """Reads VoIP metrics blocks, one a report."""

    name: Final = NAME
    kind: Final = Kind.RTCP_XR
    media_types: Final = frozenset({"application/json"})

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the reports in a post: one object, or an array of them."""
        return split_json(body)

    def check(self, document: bytes) -> None:
        """Raise what ``parse`` raises."""
        self.parse(document)

    def parse(self, document: bytes) -> SourcePart:
        """Return the report that one object makes."""
        fields, raw = decode_fields(document)
        return parse_metrics(fields, raw)


def make_rtcp_xr(options: Mapping[str, Any]) -> RtcpXrAdapter:
    """Return the adapter, which has no options. Raises ConfigError for one."""
    check_options(NAME, options)
    return RtcpXrAdapter()


def parse_metrics(fields: Fields, raw: str) -> SourcePart:
    """Return what one report says. Required is ``call-id``. Raises FieldError naming the member."""
    call_id, tag, side = fields.required("call-id"), fields.text("tag"), fields.text("observer")
    if side not in _OBSERVERS:
        raise FieldError("no such side", where="observer", expected="caller or callee", actual=side)
    metrics = _metrics(fields)
    observer = _OBSERVERS[side]
    call = None
    if tag:
        # Without a side the reporter is the caller for the time being; joining turns it by its tag.
        observer = observer or Observer.CALLER
        side_of_tag = "from_tag" if observer is Observer.CALLER else "to_tag"
        call = partial_call(NAME, call_id, raw, **{side_of_tag: tag})
    quality = make_quality(
        observer,
        samples=fields.integer("samples", 1, U32_MAX) or 1,
        mos_cq_milli=mos_milli(metrics["mos_cq"]),
        mos_lq_milli=mos_milli(metrics["mos_lq"]),
        # The R factor of the block counts delay in, so it belongs to the conversational MOS.
        r_cq_milli=r_milli(metrics["r_factor"]),
        r_lq_milli=None,
        rtt_us=_delay_us(metrics["round_trip_delay"]),
        jitter_us=_jitter_us(fields),
        loss_ppm=_loss_ppm(fields, metrics["loss_rate"]),
    )
    levels = make_levels(
        signal_dbm0=available(metrics["signal_level"]),
        noise_dbm0=available(metrics["noise_level"]),
        rerl_db=available(metrics["rerl"]),
        burst_density=metrics["burst_density"],
        gap_density=metrics["gap_density"],
        burst_ms=metrics["burst_duration"],
        gap_ms=metrics["gap_duration"],
        jitter_buffer_ms=metrics["jb_nominal"],
        jitter_buffer_max_ms=metrics["jb_maximum"],
        end_system_delay_ms=metrics["end_system_delay"] or None,
    )
    if quality is None and levels is None:
        raise FieldError("nothing was measured", where="document", expected="a MOS or another known value")
    return SourcePart(NAME, ("call-id", call_id), PartRole.QUALITY, call, (quality,) if quality else (), levels, raw)


def make_quality(
    observer: Observer,
    *,
    samples: int | None,
    mos_cq_milli: int | None,
    mos_lq_milli: int | None,
    r_cq_milli: int | None,
    r_lq_milli: int | None,
    rtt_us: int | None,
    jitter_us: int | None,
    loss_ppm: int | None,
    one_way_us: int | None = None,
    band: Band = Band.NARROWBAND,
) -> SourceQuality | None:
    """Return an endpoint's own figures: conversational where it has them, else listening; None without a MOS."""
    conversational = mos_cq_milli is not None
    mean_milli = mos_cq_milli if mos_cq_milli is not None else mos_lq_milli
    if mean_milli is None:
        return None
    return SourceQuality(
        observer=observer,
        samples=samples,
        average=SourceReading(mean_milli, rtt_us, jitter_us, loss_ppm, None),
        lowest=None,
        highest=None,
        method=QualityMethod.RFC3611,
        band=band,
        kind=MosKind.CQ if conversational else MosKind.LQ,
        r_milli=r_cq_milli if conversational else r_lq_milli,
        one_way_us=one_way_us,
    )


def make_levels(**known: int | None) -> Levels | None:
    """Return the levels by the names of Levels, None where all are unknown."""
    return Levels(**known) if any(value is not None for value in known.values()) else None


def available(value: int | None) -> int | None:
    """Return a level or return loss, None where it is 127."""
    return None if value == UNAVAILABLE else value


def mos_milli(value: int | None) -> int | None:
    """Return a MOS x 10 in thousandths; None for 127, and for reserved values, which receivers must ignore."""
    return value * 100 if value is not None and 10 <= value <= 50 else None


def r_milli(value: int | None) -> int | None:
    """Return an R factor in thousandths; None for 127 and reserved values."""
    return value * 1000 if value is not None and value <= 100 else None


def fraction_ppm(value: int) -> int:
    """Return a fraction of n/256 in parts per million, rounded half up."""
    return (value * 1_000_000 + 128) // 256


def signed_24(value: int) -> int:
    """Return a cumulative number of packets lost (RFC 3550, 6.4.1), which duplicates can make negative.

    value: the field as it stands, 0 to 2^24 - 1, or a number that somebody has given its sign already.
    """
    return value - (1 << _CUMULATIVE_BITS) if value >= 1 << (_CUMULATIVE_BITS - 1) else value


def jitter_us_of(timestamp_units: int, clock_hz: int) -> int:
    """Return an interarrival jitter in microseconds; RFC 3550 has it in units of the RTP clock."""
    return (timestamp_units * 1_000_000 + clock_hz // 2) // clock_hz


def decode_block(text: str) -> dict[str, int | None]:
    """Return the values of a whole block, in hex or base64. Raises FieldError where it is none."""
    data = _bytes_of(text)
    if data is None or len(data) != BLOCK.size:
        found = "no hex or base64" if data is None else f"{len(data)} bytes"
        raise FieldError("not a VoIP metrics block", where="block", expected=f"{BLOCK.size} bytes", actual=found)
    block_type, _, words, _ssrc, *values = BLOCK.unpack(data)
    if (block_type, words) != (BLOCK_TYPE, BLOCK_WORDS):
        expected, actual = f"type {BLOCK_TYPE}, length {BLOCK_WORDS}", f"type {block_type}, length {words}"
        raise FieldError("not a VoIP metrics block", where="block", expected=expected, actual=actual)
    del values[-4]  # the reserved octet after rx_config
    return dict(zip(BOUNDS, values, strict=True))


def _bytes_of(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text) if len(text) == 2 * BLOCK.size else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None


def _metrics(fields: Fields) -> dict[str, int | None]:
    """Return every value of the block by name, None where it is not said."""
    block = fields.text("block")
    if not block:
        return {name: fields.integer(name, least, most) for name, (least, most) in BOUNDS.items()}
    for name in fields.names():
        if name in BOUNDS:
            raise FieldError("said twice", where=name, expected="either block or its values")
    return decode_block(block)


def _delay_us(delay_ms: int | None) -> int | None:
    return delay_ms * 1000 if delay_ms else None


def _jitter_us(fields: Fields) -> int | None:
    """Return the jitter of a receiver report that came along; the block itself has none."""
    jitter = fields.integer("interarrival_jitter", 0, U32_MAX)
    clock_hz = fields.integer("clock_rate", 1000, 192_000) or 8000
    if jitter is None:
        return None
    jitter_us = jitter_us_of(jitter, clock_hz)
    return jitter_us if jitter_us <= U32_MAX else None


def _loss_ppm(fields: Fields, loss_rate: int | None) -> int | None:
    """Return the loss by the counts of a receiver report where they came along, else by the block's rate."""
    lost = fields.integer("packets_lost", -(1 << (_CUMULATIVE_BITS - 1)), (1 << _CUMULATIVE_BITS) - 1)
    expected = fields.integer("packets_expected", 1, U32_MAX)
    if lost is None or expected is None:
        return None if loss_rate is None else fraction_ppm(loss_rate)
    lost = max(0, signed_24(lost))
    if lost > expected:
        raise FieldError("more than were expected", where="packets_lost", expected=f"at most {expected}", actual=lost)
    return (lost * 1_000_000 + expected // 2) // expected
