"""Adapter for Kamailio: one ``acc_json`` CDR, with rtpengine's quality figures, becomes a SourceCall.

Every value in such a document is a string, and ``""`` is null; text that was not UTF-8 arrives as ``NON-UTF8``. The
fields are named by docs/kamailio/kamailio.cfg; the meaning of each is in docs/kamailio.md. A field this adapter does
not know stays in ``raw`` and is otherwise ignored.

Units of rtpengine's figures: MOS with one decimal, round trips in microseconds, jitter in whole milliseconds, loss in
whole percent, moments as minutes:seconds. Suffix ``_a`` is what the caller heard, ``_b`` what the callee heard.

Pure: no I/O. Bad input raises FieldError, never anything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from ledger.cdr import OCTETS_MAX, Observer, ReleasedBy
from ledger.commitment import PRIVATE_TEXT_MAX
from ledger.errors import ConfigError, FieldError
from telephony.adapters.base import (
    COUNTER_MAX,
    U32_MAX,
    Kind,
    decimal_seconds_to_ms,
    decode_json,
    is_utf8,
    split_json,
)
from telephony.source import SourceCall, SourceQuality, SourceReading

RTP_HEADER_OCTETS: Final = 12
"""rtpengine counts the fixed RTP header (RFC 3550, 5.1) as part of the packet."""

NOT_TEXT: Final = "NON-UTF8"
"""What acc_json writes in place of text that is not UTF-8."""

_MOS = re.compile(r"([0-9])(?:\.([0-9]{1,3}))?", re.ASCII)
_MOMENT = re.compile(r"([0-9]{1,5}):([0-5][0-9])", re.ASCII)
_INTEGER = re.compile(r"[0-9]{1,19}", re.ASCII)
_Q850 = re.compile(r"Q\.850\b[^,]*?;\s*cause\s*=\s*([0-9]{1,3})(?![0-9])", re.ASCII | re.IGNORECASE)


class KamailioAdapter:
    """Reads ``acc_json`` CDRs, one a call."""

    name: Final = "kamailio"
    kind: Final = Kind.KAMAILIO
    media_types: Final = frozenset({"application/json"})

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the CDRs in a post: one object, or an array of them."""
        return split_json(body)

    def check(self, document: bytes) -> None:
        """Raise what ``parse`` raises."""
        self.parse(document)

    def parse(self, document: bytes) -> SourceCall:
        """Return the call of one CDR."""
        return parse_cdr(decode_json(document))


def make_kamailio(options: Mapping[str, Any]) -> KamailioAdapter:
    """Return the adapter, which has no options. Raises ConfigError for one."""
    for name in options:
        raise ConfigError("unknown option", where=f"sources.kamailio.{name}", expected="none")
    return KamailioAdapter()


def parse_cdr(document: object) -> SourceCall:
    """Return the call that one CDR document describes.

    document: the decoded JSON object. Required are ``call_id``, ``from_tag``, ``start_time`` and ``end_time``.
    Raises FieldError naming the field, what was expected and what was found.
    """
    fields = _Fields(document)
    setup_ms, answer_ms, end_ms, sip_code = _times(fields)
    from_tag, to_tag = fields.required("from_tag"), fields.text("to_tag")
    caller_packets, caller_octets = _counters(fields, "a")
    callee_packets, callee_octets = _counters(fields, "b")
    return SourceCall(
        call_id=fields.required("call_id"),
        from_tag=from_tag,
        to_tag=to_tag,
        invite_cseq=fields.integer("cseq", U32_MAX) or 0,
        caller=fields.text("from"),
        callee=fields.text("to"),
        source_address=fields.text("src_ip"),
        setup_ms=setup_ms,
        answer_ms=answer_ms,
        end_ms=end_ms,
        sip_code=sip_code,
        q850_cause=_q850_cause(fields.text("reason")),
        released_by=_released_by(fields.text("bye_from"), from_tag, to_tag, sip_code),
        codec=(fields.text("codec_a") or fields.text("codec_b")).partition("/")[0],
        caller_packets=caller_packets,
        caller_octets=caller_octets,
        callee_packets=callee_packets,
        callee_octets=callee_octets,
        qualities=_qualities(fields),
        raw=fields.raw,
    )


class _Fields:
    """A CDR document whose values are known to be strings; ``raw`` is its JSON text."""

    def __init__(self, document: object) -> None:
        if not isinstance(document, Mapping):
            raise FieldError("not a CDR", where="cdr", expected="a JSON object", actual=type(document).__name__)
        for name, value in document.items():
            if not isinstance(name, str) or not is_utf8(name):
                raise FieldError("not a field name", where="cdr", expected="UTF-8 text", actual=repr(name))
            if not isinstance(value, str) or not is_utf8(value):
                raise FieldError("not text", where=name, expected="a string, as acc_json writes", actual=repr(value))
        self._values: Mapping[str, str] = document
        self.raw = json.dumps(dict(document), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        size = len(self.raw.encode())
        if size > PRIVATE_TEXT_MAX:
            raise FieldError(
                "the CDR is too long", where="cdr", expected=f"at most {PRIVATE_TEXT_MAX} bytes", actual=size
            )

    def text(self, name: str) -> str:
        """Return a field's text, empty where it is missing, unset, or was not UTF-8."""
        value = self._values.get(name, "")
        return "" if value == NOT_TEXT else value

    def required(self, name: str) -> str:
        """Return a field's text; raises FieldError where there is none."""
        value = self._values.get(name, "")
        if not value:
            found = "an empty string" if name in self._values else "no such field"
            raise FieldError("missing", where=name, expected="text that is not empty", actual=found)
        return value

    def integer(self, name: str, most: int) -> int | None:
        """Return a field as an integer of 0 to ``most``; None where it is unset, or ``-1``: rtpengine had none."""
        value = self.text(name)
        if value in ("", "-1"):
            return None
        if not _INTEGER.fullmatch(value) or int(value) > most:
            raise FieldError("not such a number", where=name, expected=f"0 to {most}", actual=value)
        return int(value)

    def mos_milli(self, name: str) -> int | None:
        """Return a MOS like ``4.3`` in thousandths, None where it is unset."""
        value = self.text(name)
        if not value:
            return None
        found = _MOS.fullmatch(value)
        mos_milli = int(found[1]) * 1000 + int((found[2] or "").ljust(3, "0")) if found else 0
        if not 1000 <= mos_milli <= 5000:
            raise FieldError("not a MOS", where=name, expected="1.0 to 5.0", actual=value)
        return mos_milli

    def moment_ms(self, name: str) -> int | None:
        """Return a moment like ``0:03`` in milliseconds, None where it is unset."""
        value = self.text(name)
        if not value:
            return None
        found = _MOMENT.fullmatch(value)
        if not found:
            # rtpengine counts from its own second; one that it reports before that comes out negative.
            if value.startswith("-") or ":-" in value:
                return 0
            raise FieldError("not a moment", where=name, expected="minutes:seconds, 0:03", actual=value)
        return (int(found[1]) * 60 + int(found[2])) * 1000


def _times(fields: _Fields) -> tuple[int, int, int, int]:
    """Return setup, answer and end in milliseconds, and the SIP code.

    ``start_time`` is when the dialog was confirmed, or, for one that never was, when it was created.
    """
    start_ms = decimal_seconds_to_ms(fields.required("start_time"), "start_time")
    end_ms = decimal_seconds_to_ms(fields.required("end_time"), "end_time")
    sip_code = fields.integer("sip_code", 699) or 0
    if 0 < sip_code < 100:
        raise FieldError("not a SIP status", where="sip_code", expected="100 to 699", actual=sip_code)
    answered = 200 <= sip_code <= 299 or (sip_code == 0 and end_ms > start_ms)
    final_time = fields.text("final_time")
    if not answered and final_time:
        end_ms = max(end_ms, decimal_seconds_to_ms(final_time, "final_time"))
    if end_ms < start_ms:
        raise FieldError(
            "before start_time", where="end_time", expected=f"at least {start_ms} ms", actual=f"{end_ms} ms"
        )
    # setup_time has microseconds; setup_ts, of older configurations, whole seconds.
    setup_ms = start_ms
    for name in ("setup_time", "setup_ts"):
        text = fields.text(name)
        if text:
            setup_ms = decimal_seconds_to_ms(text, name)
            break
    # A failed dialog's start is its creation, which may fall a millisecond before our own stamp.
    limit_ms = start_ms if answered else end_ms
    if setup_ms > limit_ms + 1000:
        raise FieldError(
            "after the call", where="setup_time", expected=f"at most {limit_ms} ms", actual=f"{setup_ms} ms"
        )
    return min(setup_ms, limit_ms), start_ms if answered else 0, end_ms, sip_code


def _released_by(bye_from: str, from_tag: str, to_tag: str, sip_code: int) -> ReleasedBy:
    """Return who ended the call: by the tag on BYE, or by how the attempt failed."""
    if bye_from:
        if bye_from == from_tag:
            return ReleasedBy.CALLER
        return ReleasedBy.CALLEE if not to_tag or bye_from == to_tag else ReleasedBy.UNKNOWN
    if sip_code == 487:
        return ReleasedBy.CALLER
    if sip_code in (480, 486, 600, 603):
        return ReleasedBy.CALLEE
    # A dialog that ran out without BYE, a timeout, an error of some server: nobody hung up.
    return ReleasedBy.NETWORK if sip_code else ReleasedBy.UNKNOWN


def _q850_cause(reason: str) -> int:
    """Return the cause of a Reason header (RFC 3326), 0 where it has none for Q.850."""
    found = _Q850.search(reason)
    cause = int(found[1]) if found else 0
    return cause if cause <= 127 else 0


def _counters(fields: _Fields, side: str) -> tuple[int | None, int | None]:
    """Return packets and payload octets that came from one side, None where unknown."""
    packets = fields.integer(f"packets_{side}", COUNTER_MAX)
    octets = fields.integer(f"octets_{side}", OCTETS_MAX)
    if packets is None or octets is None:
        return packets, None
    if octets < RTP_HEADER_OCTETS * packets:
        expected = f"at least {RTP_HEADER_OCTETS} for each of {packets} packets"
        raise FieldError("too few octets", where=f"octets_{side}", expected=expected, actual=octets)
    return packets, octets - RTP_HEADER_OCTETS * packets


def _qualities(fields: _Fields) -> tuple[SourceQuality, ...]:
    """Return the quality of both legs together, of the caller's and of the callee's ears: those there are."""
    sides = (("", Observer.BOTH), ("_a", Observer.CALLER), ("_b", Observer.CALLEE))
    found = (_quality(fields, suffix, observer) for suffix, observer in sides)
    return tuple(quality for quality in found if quality is not None)


def _quality(fields: _Fields, suffix: str, observer: Observer) -> SourceQuality | None:
    average = _reading(fields, "avg", suffix)
    if average is None:
        return None
    return SourceQuality(
        observer=observer,
        samples=fields.integer(f"mos_samples{suffix}", U32_MAX),
        average=average,
        lowest=_reading(fields, "min", suffix),
        highest=_reading(fields, "max", suffix),
    )


def _reading(fields: _Fields, which: str, suffix: str) -> SourceReading | None:
    """Return the reading called ``avg``, ``min`` or ``max``, None where its MOS is unset."""
    mos_milli = fields.mos_milli(f"mos_{which}{suffix}")
    if mos_milli is None:
        return None
    loss_percent = fields.integer(f"loss_{which}{suffix}", 100)
    jitter_ms = fields.integer(f"jitter_{which}{suffix}", U32_MAX // 1000)
    return SourceReading(
        mos_milli=mos_milli,
        rtt_us=fields.integer(f"rtt_{which}{suffix}", U32_MAX),
        jitter_us=None if jitter_ms is None else jitter_ms * 1000,
        loss_ppm=None if loss_percent is None else loss_percent * 10_000,
        at_ms=None if which == "avg" else fields.moment_ms(f"mos_{which}_at{suffix}"),
    )
