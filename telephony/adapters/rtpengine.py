"""Adapter for rtpengine: its JSON answer to ``query`` or ``delete`` becomes a report of quality.

rtpengine computes a MOS from each RTCP receiver report. ``tags`` has each side's streams, ``SSRC`` the figures by the
sender of the reports: what stands under a side's SSRC is what that side heard. The answer does not name its call, so
whoever posts it adds a member ``call-id``; docs/voice-metrics.md shows how.

Which side called is told by the labels ``A`` and ``B``, or by the tags when the report is joined to its call: then a
report that has them the other way round is turned.

Units of rtpengine: MOS times 10 with 0 for none, round trips in microseconds, jitter in whole milliseconds, loss in
whole percent, times in seconds since 1970; packets with their 12 octets of RTP header.

Pure: no I/O. Bad input raises EncodingError or FieldError, never anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ledger.cdr import OCTETS_MAX, Observer, QualityMethod
from ledger.errors import ConfigError, FieldError
from telephony.adapters.base import COUNTER_MAX, TIME_MS_MAX, U32_MAX, Kind, split_json
from telephony.adapters.fields import Fields, check_options, decode_fields
from telephony.source import PartRole, SourcePart, SourceQuality, SourceReading, partial_call

NAME: Final = "rtpengine"

RTP_HEADER_OCTETS: Final = 12
"""rtpengine counts the fixed RTP header (RFC 3550, 5.1) as part of the packet."""

GENERATIONS: Final = {10: QualityMethod.RTPENGINE_10, 13: QualityMethod.RTPENGINE_13}
"""The formula by option ``generation``: 13 from release mr13.1 on, 10 before it, or with ``mos = legacy``."""

SIDES_MAX: Final = 64
"""Tags of a call; a conference of more is no call between two."""


class RtpengineAdapter:
    """Reads answers of rtpengine's control protocol, one a call."""

    name: Final = NAME
    kind: Final = Kind.RTPENGINE
    media_types: Final = frozenset({"application/json"})

    def __init__(self, method: QualityMethod = QualityMethod.RTPENGINE_10) -> None:
        self._method = method

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the answers in a post: one object, or an array of them."""
        return split_json(body)

    def check(self, document: bytes) -> None:
        """Raise what ``parse`` raises."""
        self.parse(document)

    def parse(self, document: bytes) -> SourcePart:
        """Return the report that one answer makes."""
        fields, raw = decode_fields(document)
        return parse_answer(fields, raw, self._method)


def make_rtpengine(options: Mapping[str, Any]) -> RtpengineAdapter:
    """Return the adapter. Option: ``generation``, 10 (default) or 13. Raises ConfigError for another one."""
    check_options(NAME, options, frozenset({"generation"}))
    generation = options.get("generation", 10)
    if not isinstance(generation, int) or isinstance(generation, bool) or generation not in GENERATIONS:
        where, expected = f"sources.{NAME}.generation", "10 or 13"
        raise ConfigError("no such generation", where=where, expected=expected, actual=generation)
    return RtpengineAdapter(GENERATIONS[generation])


class _Figures(NamedTuple):
    """One reading in rtpengine's own units."""

    mos: int
    """MOS x 10, 10 to 50."""
    rtt_us: int | None
    jitter_ms: int | None
    loss_percent: int | None
    at_s: int | None
    """Seconds after the media session's second of birth; None in a mean."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """What was heard: of one SSRC, or of several together."""

    samples: int
    average: _Figures
    lowest: _Figures | None
    highest: _Figures | None


@dataclass(frozen=True, slots=True)
class _Side:
    """One tag of an answer."""

    tag: str
    """Empty where rtpengine knows none."""
    label: str
    codec: str
    packets: int
    octets: int
    """Without RTP headers."""
    heard: _Heard | None


def parse_answer(fields: Fields, raw: str, method: QualityMethod) -> SourcePart:
    """Return what one answer says. Required are ``call-id`` and ``tags``. Raises FieldError naming the member."""
    call_id = fields.required("call-id")
    if fields.text("result") == "error":
        reason = fields.text("error-reason")
        raise FieldError("rtpengine did not answer the question", where="result", expected="ok", actual=reason)
    tags = fields.member("tags")
    if tags is None or len(tags.names()) > SIDES_MAX:
        found = "none" if tags is None else len(tags.names())
        raise FieldError("no sides of a call", where="tags", expected=f"at most {SIDES_MAX}", actual=found)
    created_s = fields.integer("created", 0, TIME_MS_MAX // 1000)
    by_ssrc = fields.member("SSRC") or Fields({})
    # By number: a tag is private, and where something is wrong is told to others.
    members = [(name, Fields(tags.value(name), f"tags[{index}]")) for index, name in enumerate(tags.names())]
    sides = [_side(name, fields, by_ssrc, created_s) for name, fields in members]
    caller, callee, known = _orient(sides)
    if not known:
        heard = _together([side.heard for side in sides])
        unknown = () if heard is None else (_quality(Observer.UNKNOWN, heard, method),)
        return SourcePart(NAME, ("call-id", call_id), PartRole.QUALITY, None, unknown, None, raw)
    call = partial_call(
        NAME,
        call_id,
        raw,
        from_tag=caller.tag if caller else "",
        to_tag=callee.tag if callee else "",
        codec=(caller and caller.codec) or (callee and callee.codec) or "",
        caller_packets=caller.packets if caller else None,
        caller_octets=caller.octets if caller else None,
        callee_packets=callee.packets if callee else None,
        callee_octets=callee.octets if callee else None,
    )
    qualities = _qualities(caller.heard if caller else None, callee.heard if callee else None, method)
    return SourcePart(NAME, ("call-id", call_id), PartRole.QUALITY, call, qualities, None, raw)


def _orient(sides: Sequence[_Side]) -> tuple[_Side | None, _Side | None, bool]:
    """Return caller and callee, and whether they can be told apart.

    By the labels; of forked sides with one label the one with most packets. Without labels two sides are told apart
    by their tags later, so here the first is the caller for the time being.
    """
    labelled = {
        label: max((side for side in sides if side.label.upper() == label), key=_by_packets, default=None)
        for label in ("A", "B")
    }
    if any(labelled.values()):
        return labelled["A"], labelled["B"], True
    if len(sides) <= 2 and any(side.tag for side in sides):
        return sides[0], sides[1] if len(sides) == 2 else None, True
    return None, None, False


def _by_packets(side: _Side) -> tuple[int, str]:
    return side.packets, side.tag


def _side(name: str, fields: Fields, by_ssrc: Fields, created_s: int | None) -> _Side:
    """Return one tag's streams of audio together."""
    ssrcs: dict[int, Fields | None] = {}
    codec, packets, octets = "", 0, 0
    for media in fields.members("medias"):
        if media.text("type") not in {"", "audio"}:
            continue
        codec = codec or media.text("codec").partition("/")[0]
        for entry in media.members("ingress SSRCs"):
            # From mr12.4 on; with ssrc-reporting = media its figures stand here and nowhere else.
            ssrc = entry.integer("SSRC", 0, U32_MAX)
            if ssrc is not None:
                ssrcs[ssrc] = entry
        for stream in media.members("streams"):
            if "RTP" not in _flags(stream):
                continue
            ssrc = stream.integer("SSRC", 0, U32_MAX)
            if ssrc is not None:
                ssrcs.setdefault(ssrc)
            stats = stream.member("stats")
            if stats is not None:
                more_packets, more_octets = _counters(stats)
                packets, octets = packets + more_packets, octets + more_octets
    found = [_heard(by_ssrc.member(str(ssrc)) or entry, created_s) for ssrc, entry in ssrcs.items()]
    if octets > OCTETS_MAX or packets > COUNTER_MAX:
        raise FieldError("too many octets", where=fields.where("medias"), expected=f"at most {OCTETS_MAX}")
    tag = "" if name.startswith("<untagged ") else fields.text("tag") or name
    return _Side(tag, fields.text("label"), codec, packets, octets, _together(found))


def _flags(stream: Fields) -> list[object]:
    flags = stream.value("flags")
    return flags if isinstance(flags, list) else []


def _counters(stats: Fields) -> tuple[int, int]:
    """Return packets, and octets without RTP headers."""
    packets = stats.integer("packets", 0, OCTETS_MAX) or 0
    octets = stats.integer("bytes", 0, OCTETS_MAX) or 0
    if octets < RTP_HEADER_OCTETS * packets:
        expected = f"at least {RTP_HEADER_OCTETS} for each of {packets} packets"
        raise FieldError("too few octets", where=stats.where("bytes"), expected=expected, actual=octets)
    return packets, octets - RTP_HEADER_OCTETS * packets


def _heard(fields: Fields | None, created_s: int | None) -> _Heard | None:
    """Return the figures of one SSRC, None where there are none."""
    mean = fields.member("average MOS") if fields else None
    average = _figures(mean, None)
    if fields is None or mean is None or average is None:
        return None
    samples = mean.integer("samples", 1, U32_MAX)
    if samples is None:
        raise FieldError("missing", where=mean.where("samples"), expected="the number of reports", actual="none")
    lowest = _figures(fields.member("lowest MOS"), created_s)
    return _Heard(samples, average, lowest, _figures(fields.member("highest MOS"), created_s))


def _figures(fields: Fields | None, created_s: int | None) -> _Figures | None:
    """Return one reading, None where it has no MOS: 0 is rtpengine's word for that."""
    mos = fields.integer("MOS", 0, 50) if fields else None
    if fields is None or not mos:
        return None
    if mos < 10:
        raise FieldError("not a MOS", where=fields.where("MOS"), expected="0, or 10 to 50", actual=mos)
    reported_s = fields.integer("reported at", 0, TIME_MS_MAX // 1000)
    return _Figures(
        mos=mos,
        rtt_us=fields.integer("round-trip time", 0, U32_MAX),
        jitter_ms=fields.integer("jitter", 0, U32_MAX // 1000),
        loss_percent=fields.integer("packet loss", 0, 100),
        # Both are whole seconds of rtpengine's clock, so a report may seem to come before the session.
        at_s=None if created_s is None or reported_s is None else max(0, reported_s - created_s),
    )


def _together(found: Sequence[_Heard | None]) -> _Heard | None:
    """Return the figures of several SSRCs as one: means weighed by their reports, the worst and the best of all."""
    heard = [each for each in found if each is not None]
    if len(heard) <= 1:
        return heard[0] if heard else None
    return _Heard(
        sum(each.samples for each in heard),
        _mean([each.average for each in heard], [each.samples for each in heard]),
        _extreme([each.lowest for each in heard], 1),
        _extreme([each.highest for each in heard], -1),
    )


def _mean(readings: Sequence[_Figures], weights: Sequence[int]) -> _Figures:
    """Return the weighted mean of each figure, cut off as rtpengine does; None where one of the readings has none."""
    total = sum(weights)
    means = [
        None
        if None in figures
        else sum(figure * weight for figure, weight in zip(figures, weights, strict=True)) // total
        for figures in zip(*(reading[:4] for reading in readings), strict=True)
    ]
    return _Figures(means[0] or 0, means[1], means[2], means[3], None)


def _extreme(readings: Sequence[_Figures | None], sign: int) -> _Figures | None:
    """Return the reading with the lowest MOS, with a sign of -1 the highest; of equal ones the earliest."""
    known = [reading for reading in readings if reading is not None]
    return min(
        known, key=lambda reading: (sign * reading.mos, *(figure or 0 for figure in reversed(reading))), default=None
    )


def _qualities(caller: _Heard | None, callee: _Heard | None, method: QualityMethod) -> tuple[SourceQuality, ...]:
    """Return what the caller heard, what the callee heard, and, where both are known, both together.

    Together they are the mean of the two means, and of their numbers of reports, as Kamailio reckons them.
    """
    found = []
    if caller is not None:
        found.append(_quality(Observer.CALLER, caller, method))
    if callee is not None:
        found.append(_quality(Observer.CALLEE, callee, method))
    if caller is not None and callee is not None:
        both = _Heard(
            (caller.samples + callee.samples) // 2,
            _mean([caller.average, callee.average], [1, 1]),
            _extreme([caller.lowest, callee.lowest], 1),
            _extreme([caller.highest, callee.highest], -1),
        )
        found.append(_quality(Observer.BOTH, both, method))
    return tuple(found)


def _quality(observer: Observer, heard: _Heard, method: QualityMethod) -> SourceQuality:
    return SourceQuality(
        observer=observer,
        samples=min(heard.samples, U32_MAX),
        average=_reading(heard.average),
        lowest=heard.lowest and _reading(heard.lowest),
        highest=heard.highest and _reading(heard.highest),
        method=method,
    )


def _reading(figures: _Figures) -> SourceReading:
    return SourceReading(
        mos_milli=figures.mos * 100,
        rtt_us=figures.rtt_us,
        jitter_us=None if figures.jitter_ms is None else figures.jitter_ms * 1000,
        loss_ppm=None if figures.loss_percent is None else figures.loss_percent * 10_000,
        at_ms=None if figures.at_s is None else figures.at_s * 1000,
    )
