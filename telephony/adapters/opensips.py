"""Adapter for OpenSIPS: an accounting event as JSON becomes a SourceCall.

``E_ACC_CDR`` is a whole call, raised when its BYE was answered; ``E_ACC_MISSED_EVENT`` an attempt that failed. Both
come as a JSON-RPC notification, as the event interface sends it, or as an object that the script has made of the
event's parameters. Texts are strings, the event's own times and durations numbers. What the script adds (``from``,
``to``, ``src_ip`` ...) is named by docs/opensips.md; a field this adapter does not know stays in ``raw``.

Pure: no I/O. Bad input raises EncodingError or FieldError, never anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ledger.cdr import OCTETS_MAX, Observer, QualityMethod, ReleasedBy
from ledger.commitment import PRIVATE_TEXT_MAX
from ledger.errors import ConfigError, FieldError
from telephony.adapters.base import COUNTER_MAX, TIME_MS_MAX, U32_MAX, Kind
from telephony.adapters.causes import q850_cause, released_by_code
from telephony.adapters.fields import Values, check_options, decode_object, text_of
from telephony.adapters.rows import split_json_lines
from telephony.source import SourceCall, SourceQuality, SourceReading

EVENT_CDR: Final = "E_ACC_CDR"
EVENT_MISSED: Final = "E_ACC_MISSED_EVENT"
EVENTS: Final = (EVENT_CDR, EVENT_MISSED)

SECONDS_MAX: Final = TIME_MS_MAX // 1000

_METHODS: Final[Mapping[str, QualityMethod]] = {
    "rtpengine-10": QualityMethod.RTPENGINE_10,
    "rtpengine-13": QualityMethod.RTPENGINE_13,
}


class OpenSips:
    """Reads accounting events."""

    name: Final = "opensips"
    kind: Final = Kind.OPENSIPS
    media_types: Final = frozenset({"application/json"})

    def __init__(self, method: QualityMethod = QualityMethod.RTPENGINE_10) -> None:
        """method: which generation of rtpengine the MOS figures in extra fields are from."""
        self._method = method

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the events in a post or a file: one, an array of them, or one on each line."""
        return split_json_lines(body)

    def check(self, document: bytes) -> None:
        """Raise what ``parse`` raises."""
        self.parse(document)

    def parse(self, document: bytes) -> SourceCall:
        """Return the call of one event."""
        return _call(decode_object(document), text_of(document), self._method)


def make_opensips(options: Mapping[str, Any]) -> OpenSips:
    """Return the adapter. Raises ConfigError naming the option."""
    check_options(OpenSips.name, options, frozenset({"mos_method"}))
    method = options.get("mos_method", "rtpengine-10")
    if not isinstance(method, str) or method not in _METHODS:
        expected = ", ".join(_METHODS)
        raise ConfigError("no such method", where="sources.opensips.mos_method", expected=expected, actual=method)
    return OpenSips(_METHODS[method])


def _call(document: dict[str, Any], raw: str, method: QualityMethod) -> SourceCall:
    size = len(raw.encode("utf-8", "replace"))
    if size > PRIVATE_TEXT_MAX:
        expected = f"at most {PRIVATE_TEXT_MAX} bytes"
        raise FieldError("the event is too long", where="cdr", expected=expected, actual=size)
    notes: list[str] = []
    values = _parameters(document, notes)
    sip_code = values.integer("sip_code", 699) or 0
    if 0 < sip_code < 100:
        raise FieldError("not a SIP status", where=values.where("sip_code"), expected="100 to 699", actual=sip_code)
    is_whole = bool(values.plain("ms_duration") or values.plain("duration"))
    setup_ms, answer_ms, end_ms = _answered(values) if is_whole else _missed(values, sip_code)
    from_tag, to_tag = values.required("from_tag"), values.text("to_tag")
    return SourceCall(
        call_id=values.required("callid", "call_id"),
        from_tag=from_tag,
        to_tag=to_tag,
        invite_cseq=values.integer("cseq", U32_MAX) or 0,
        caller=values.text("from", "caller"),
        callee=values.text("to", "callee"),
        source_address=values.text("src_ip"),
        setup_ms=setup_ms,
        answer_ms=answer_ms,
        end_ms=end_ms,
        sip_code=sip_code,
        q850_cause=q850_cause(values.text("reason")),
        released_by=_released_by(values.text("bye_from"), from_tag, to_tag, sip_code, is_whole),
        codec=values.text("codec").partition("/")[0],
        caller_packets=values.integer("packets_a", COUNTER_MAX),
        caller_octets=values.integer("octets_a", OCTETS_MAX),
        callee_packets=values.integer("packets_b", COUNTER_MAX),
        callee_octets=values.integer("octets_b", OCTETS_MAX),
        qualities=_qualities(values, method),
        raw=raw,
        platform=OpenSips.name,
        time_step_ms=1000,
        notes=tuple(notes),
    )


def _parameters(document: dict[str, Any], notes: list[str]) -> Values:
    """Return an event's parameters: those of a notification, or the object itself."""
    if "jsonrpc" not in document and "params" not in document:
        return Values(document, notes)
    parameters = document.get("params")
    if not isinstance(parameters, dict):
        expected = "an object: the event's parameters by name"
        raise FieldError("no parameters", where="params", expected=expected, actual=type(parameters).__name__)
    # With event_stream's event_param, the event's name is among the parameters and ``method`` is a command's.
    names = (document.get("method"), *parameters.values())
    if not any(name in EVENTS for name in names if isinstance(name, str)):
        expected = " or ".join(EVENTS)
        raise FieldError("another event", where="method", expected=expected, actual=repr(document.get("method")))
    return Values(parameters, notes, "params.")


def _seconds(values: Values, name: str) -> int | None:
    return values.integer(name, SECONDS_MAX)


def _waited_s(values: Values, most: int) -> int:
    """Return the seconds from INVITE to answer or failure; 0 where the clock went back and the difference wrapped."""
    text = values.plain("setuptime").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= most else 0


def _answered(values: Values) -> tuple[int, int, int]:
    """Return setup, answer and end in milliseconds of a whole call.

    ``time`` is the second in which it was established; its milliseconds are cut off, those of ``ms_duration`` are not.
    """
    answer_s = _seconds(values, "time")
    if not answer_s:
        expected = "seconds since 1970"
        raise FieldError(
            "missing", where=values.where("time"), expected=expected, actual=values.plain("time") or "none"
        )
    duration_ms = values.integer("ms_duration", U32_MAX * 1000)
    if duration_ms is None:
        duration_ms = (values.integer("duration", U32_MAX) or 0) * 1000
    end_ms = answer_s * 1000 + duration_ms
    if end_ms > TIME_MS_MAX:
        expected = "an end before the year 2100"
        raise FieldError("too long", where=values.where("ms_duration"), expected=expected, actual=duration_ms)
    created_s = _seconds(values, "created") or answer_s - _waited_s(values, answer_s)
    return min(created_s, answer_s) * 1000, answer_s * 1000, end_ms


def _missed(values: Values, sip_code: int) -> tuple[int, int, int]:
    """Return setup, 0 and end in milliseconds of an attempt that failed."""
    if sip_code < 300:
        expected = "ms_duration, in E_ACC_CDR, or a sip_code of 300 or more"
        hint = "Turn on the flag cdr of do_accounting: E_ACC_EVENT is not a whole call"
        raise FieldError("missing", where=values.where("ms_duration"), expected=expected, actual="none", hint=hint)
    setup_s = _seconds(values, "created") or _seconds(values, "time")
    if not setup_s:
        expected = "seconds since 1970"
        raise FieldError("missing", where=values.where("created"), expected=expected, actual="none")
    return setup_s * 1000, 0, (setup_s + _waited_s(values, SECONDS_MAX - setup_s)) * 1000


def _released_by(bye_from: str, from_tag: str, to_tag: str, sip_code: int, is_whole: bool) -> ReleasedBy:
    """Return who sent BYE, by the tag that the script has kept; of a failed attempt, by its code."""
    if not is_whole:
        return released_by_code(sip_code)
    if not bye_from:
        return ReleasedBy.UNKNOWN
    if bye_from == from_tag:
        return ReleasedBy.CALLER
    return ReleasedBy.CALLEE if bye_from == to_tag else ReleasedBy.UNKNOWN


def _qualities(values: Values, method: QualityMethod) -> tuple[SourceQuality, ...]:
    """Return rtpengine's figures of both legs together, as ``$rtpstat`` gives them.

    Of the extremes only MOS and moment: ``$rtpstat(jitter-min)`` is the least jitter, not that at the least MOS.
    """
    mean_milli = _mos_milli(values, "mos_avg")
    if mean_milli is None:
        return ()
    jitter_ms = values.integer("jitter_avg", U32_MAX // 1000)
    loss_percent = values.integer("loss_avg", 100)
    average = SourceReading(
        mos_milli=mean_milli,
        rtt_us=values.integer("rtt_avg", U32_MAX),
        jitter_us=None if jitter_ms is None else jitter_ms * 1000,
        loss_ppm=None if loss_percent is None else loss_percent * 10_000,
        at_ms=None,
    )
    quality = SourceQuality(
        observer=Observer.BOTH,
        # The event has no number of reports: the mean is one figure.
        samples=values.integer("mos_samples", U32_MAX) or 1,
        average=average,
        lowest=_extreme(values, "mos_min"),
        highest=_extreme(values, "mos_max"),
        method=method,
    )
    return (quality,)


def _mos_milli(values: Values, name: str) -> int | None:
    """Return a MOS, which comes times ten; None where it is unset or 0: rtpengine had none."""
    mos_deci = values.integer(name, 50)
    return mos_deci * 100 if mos_deci else None


def _extreme(values: Values, name: str) -> SourceReading | None:
    mos_milli = _mos_milli(values, name)
    if mos_milli is None:
        return None
    at_s = values.integer(f"{name}_at", U32_MAX // 1000)
    return SourceReading(mos_milli, None, None, None, None if at_s is None else at_s * 1000)
