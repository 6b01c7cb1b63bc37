"""Adapter for RFC 6035: the body of a SIP PUBLISH, ``application/vq-rtcpxr``, becomes a report of quality.

Phones write it each in its own way, so the order of lines and the spaces within them mean nothing, long lines may be
folded, letters of names may be large or small, and lines and values that are not known are left out. A report tells
what its sender heard (LocalMetrics) and often what the other side said it heard (RemoteMetrics). OrigID names the
caller.

Units: loss, discard and densities in percent; delays, jitter, bursts, gaps and buffers in milliseconds; levels in
dBm0. A MOS of 0, which clients write that compute none, is no MOS, and 127 means unavailable, as in RFC 3611.

Pure: no I/O. Bad input raises EncodingError or FieldError, never anything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ledger.cdr import Band, Levels, Observer
from ledger.commitment import PRIVATE_TEXT_MAX
from ledger.errors import EncodingError, FieldError
from telephony.adapters.base import Kind
from telephony.adapters.fields import check_options
from telephony.adapters.rtcp_xr import U8_MAX, U16_MAX, UNAVAILABLE, make_levels, make_quality
from telephony.source import PartRole, SourcePart, SourceQuality

NAME: Final = "vq-report"

WHOLE: Final = "vqsessionreport"
"""Its figures are those of the whole call; those of the others are of a stretch of it."""
REPORTS: Final = frozenset({WHOLE, "vqintervalreport", "vqalertreport"})

BURST_MS_MAX: Final = 3_600_000
"""RFC 6035 lets a burst or gap last an hour; a record holds what RFC 3611 does, 65,535 ms."""

_FOLD: Final = re.compile(r"(?:\r\n|\r|\n)[ \t]+")
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_PAIR: Final = re.compile(r'([A-Za-z][A-Za-z0-9-]{0,31})\s*=\s*("[^"]*"|[^\s"]*)', re.ASCII)
_NUMBER: Final = re.compile(r"([+-]?)([0-9]{1,9})(?:\.([0-9]{0,12}))?", re.ASCII)
_NOTHING: Final = frozenset({"", "-", "nan", "-nan", "inf", "-inf", "null", "n/a"})
"""What clients write that have no number."""
_ADDRESS: Final = re.compile(r"<([^<>]*)>")
_BANDS: Final = {8_000: Band.NARROWBAND, 16_000: Band.WIDEBAND, 32_000: Band.SUPER_WIDEBAND, 48_000: Band.FULLBAND}


class VqReportAdapter:
    """Reads voice quality reports, one a body."""

    name: Final = NAME
    kind: Final = Kind.VQ_REPORT
    media_types: Final = frozenset({"application/vq-rtcpxr", "text/plain"})

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the body, which is one report. Raises EncodingError where there is nothing in it."""
        if not body.strip():
            raise EncodingError("an empty body", where="body", expected="a VQSessionReport", actual="nothing")
        return [body], False

    def check(self, document: bytes) -> None:
        """Raise what ``parse`` raises."""
        self.parse(document)

    def parse(self, document: bytes) -> SourcePart:
        """Return what one report says."""
        if len(document) > PRIVATE_TEXT_MAX:
            expected = f"at most {PRIVATE_TEXT_MAX} bytes"
            raise FieldError("too long", where="document", expected=expected, actual=len(document))
        return parse_report(_text_of(document))


def make_vq_report(options: Mapping[str, Any]) -> VqReportAdapter:
    """Return the adapter, which has no options. Raises ConfigError for one."""
    check_options(NAME, options)
    return VqReportAdapter()


@dataclass(slots=True)
class _Report:
    """The lines of a report, sorted out."""

    kind: str = ""
    """Lower case, empty while no line said it."""
    names: dict[str, str] = field(default_factory=dict)
    """CallID, LocalID and the like, by their name in lower case."""
    local: dict[str, str] = field(default_factory=dict)
    """``packetloss.nlr`` and its value; what is said twice keeps its first value."""
    remote: dict[str, str] = field(default_factory=dict)


def parse_report(text: str) -> SourcePart:
    """Return what one report says.

    Required are the line that says what it is, ``CallID``, and something measured. Raises FieldError naming the value.
    """
    report = _sort_out(text)
    if not report.kind:
        expected = "VQSessionReport, VQIntervalReport or VQAlertReport"
        raise FieldError("not a voice quality report", where="document", expected=expected)
    call_id = report.names.get("callid") or report.names.get("call-id")
    if not call_id:
        raise FieldError("missing", where="CallID", expected="the Call-ID of the call", actual="none")
    local, remote = _Metrics("LocalMetrics", report.local), _Metrics("RemoteMetrics", report.remote)
    here, there = _observers(report.names)
    # A report on a stretch of the call must not stand for the call where one on all of it is known: without a number
    # of reports its figures are the last choice, and its levels are left out.
    is_whole = report.kind == WHOLE
    samples = 1 if is_whole else None
    found = (_quality(local, here, samples), _quality(remote, there, samples))
    qualities = tuple(quality for quality in found if quality is not None)
    if here is Observer.UNKNOWN:
        # Two sides that cannot be told apart: what the reporter heard itself is the better founded.
        qualities = qualities[:1]
    levels = _levels(local) or _levels(remote)
    if not qualities and levels is None:
        raise FieldError("nothing was measured", where="document", expected="a MOS or another known value")
    return SourcePart(NAME, ("call-id", call_id), PartRole.QUALITY, None, qualities, levels if is_whole else None, text)


def _text_of(document: bytes) -> str:
    """Return a body as text; the names of people in it may be in Latin-1, which has a letter for every byte."""
    try:
        return document.decode()
    except UnicodeDecodeError:
        return document.decode("latin-1")


def _sort_out(text: str) -> _Report:
    report = _Report()
    section = report.local
    for line in _LINE_END.split(_FOLD.sub(" ", text)):
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        if name in REPORTS:
            report.kind = report.kind or name
        elif name in {"localmetrics", "metrics"}:
            section = report.local
        elif name == "remotemetrics":
            section = report.remote
        elif name.startswith("x-"):
            continue
        elif name.endswith("id"):
            report.names.setdefault(name, value)
        else:
            for key, said in _PAIR.findall(value):
                section.setdefault(f"{name}.{key.lower()}", said.strip('"'))
    return report


def _observers(names: Mapping[str, str]) -> tuple[Observer, Observer]:
    """Return whose ears the local and the remote metrics are of, by who the caller was."""
    caller = _uri_of(names.get("origid") or names.get("fromid") or "")
    local, remote = _uri_of(names.get("localid", "")), _uri_of(names.get("remoteid", ""))
    if caller and caller == local != remote:
        return Observer.CALLER, Observer.CALLEE
    if caller and caller == remote != local:
        return Observer.CALLEE, Observer.CALLER
    return Observer.UNKNOWN, Observer.UNKNOWN


def _uri_of(name: str) -> str:
    """Return the URI in ``Alice <sip:alice@example.org;user=phone>`` without parameters, in lower case."""
    found = _ADDRESS.search(name)
    return (found[1] if found else name).partition(";")[0].strip().lower()


class _Metrics:
    """One side's metrics."""

    def __init__(self, section: str, values: Mapping[str, str]) -> None:
        self._section = section
        self._values = values

    def milli(self, name: str, least: int, most: int) -> int | None:
        """Return a number in thousandths, finer digits cut off; None where there is none, or it is 127.

        least, most: bounds in whole units. Raises FieldError for no number, or one out of bounds.
        """
        text = self._values.get(name.lower(), "")
        if text.lower() in _NOTHING:
            return None
        found = _NUMBER.fullmatch(text)
        if not found:
            raise FieldError("not a number", where=self._where(name), expected=f"{least} to {most}", actual=text)
        value = int(found[2]) * 1000 + int((found[3] or "").ljust(3, "0")[:3])
        if value == UNAVAILABLE * 1000 and most <= U8_MAX:
            return None
        value = -value if found[1] == "-" else value
        if not least * 1000 <= value <= most * 1000:
            raise FieldError("out of bounds", where=self._where(name), expected=f"{least} to {most}", actual=text)
        return value

    def whole(self, name: str, least: int, most: int) -> int | None:
        """Return a number, fractions cut off; as ``milli``."""
        value = self.milli(name, least, most)
        return None if value is None else value // 1000 if value >= 0 else -(-value // 1000)

    def mos_milli(self, name: str) -> int | None:
        """Return a MOS; None for what is none: 0, or anything else outside 1 to 5."""
        value = self.milli(name, 0, U8_MAX)
        return value if value is not None and 1000 <= value <= 5000 else None

    def density(self, name: str) -> int | None:
        """Return percent as n/256, rounded half up."""
        value = self.milli(name, 0, 100)
        return None if value is None else min(U8_MAX, (value * 256 + 50_000) // 100_000)

    def text(self, name: str) -> str:
        """Return a value as it is, empty where there is none."""
        return self._values.get(name.lower(), "")

    def _where(self, name: str) -> str:
        return f"{self._section}.{name}"


def _quality(metrics: _Metrics, observer: Observer, samples: int | None) -> SourceQuality | None:
    rtt_ms = metrics.milli("Delay.RTD", 0, U16_MAX)
    loss_milli = metrics.milli("PacketLoss.NLR", 0, 100)
    one_way_ms = metrics.milli("Delay.OWD", 0, U16_MAX) or metrics.milli("Delay.SOWD", 0, U16_MAX)
    return make_quality(
        observer,
        samples=samples,
        mos_cq_milli=metrics.mos_milli("QualityEst.MOSCQ"),
        mos_lq_milli=metrics.mos_milli("QualityEst.MOSLQ"),
        r_cq_milli=metrics.milli("QualityEst.RCQ", 0, 148),
        r_lq_milli=metrics.milli("QualityEst.RLQ", 0, 148),
        # Thousandths of a millisecond are microseconds. No way takes no time: 0 is not measured.
        rtt_us=rtt_ms or None,
        jitter_us=metrics.milli("Delay.IAJ", 0, U16_MAX),
        loss_ppm=None if loss_milli is None else loss_milli * 10,
        one_way_us=one_way_ms or None,
        band=_band(metrics),
    )


def _band(metrics: _Metrics) -> Band:
    """Return the audio band by codec and sample rate; G.722 samples at twice its RTP clock (RFC 3551, 4.5.2)."""
    if metrics.text("SessionDesc.PD").lower() == "g722":
        return Band.WIDEBAND
    return _BANDS.get(metrics.whole("SessionDesc.SR", 0, 192_000) or 0, Band.NARROWBAND)


def _levels(metrics: _Metrics) -> Levels | None:
    burst_ms = metrics.whole("BurstGapLoss.BD", 0, BURST_MS_MAX)
    gap_ms = metrics.whole("BurstGapLoss.GD", 0, BURST_MS_MAX)
    return make_levels(
        signal_dbm0=metrics.whole("Signal.SL", -128, 126),
        noise_dbm0=metrics.whole("Signal.NL", -128, 126),
        rerl_db=metrics.whole("Signal.RERL", 0, U8_MAX),
        burst_density=metrics.density("BurstGapLoss.BLD"),
        gap_density=metrics.density("BurstGapLoss.GLD"),
        burst_ms=None if burst_ms is None else min(burst_ms, U16_MAX),
        gap_ms=None if gap_ms is None else min(gap_ms, U16_MAX),
        jitter_buffer_ms=metrics.whole("JitterBuffer.JBN", 0, U16_MAX),
        jitter_buffer_max_ms=metrics.whole("JitterBuffer.JBM", 0, U16_MAX),
        end_system_delay_ms=metrics.whole("Delay.ESD", 0, U16_MAX) or None,
    )
