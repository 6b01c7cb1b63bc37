"""Adapter for Kamailio: one ``acc_json`` CDR, with rtpengine's quality figures, becomes a SourceCall.

Every value in such a document is a string, and ``""`` is null; text that was not UTF-8 arrives as ``NON-UTF8``. The
fields are named by docs/kamailio/kamailio.cfg; the meaning of each is in docs/kamailio.md. A field this adapter does
not know stays in ``raw`` and is otherwise ignored.

Units of rtpengine's figures: MOS with one decimal, round trips in microseconds, jitter in whole milliseconds, loss in
whole percent, moments as minutes:seconds. Suffix ``_a`` is what the caller heard, ``_b`` what the callee heard.

Pure: no I/O. Bad input raises FieldError or EncodingError, never anything else.

Speed counts twice here: ``check`` stands between a proxy and its answer, ``parse`` works off a backlog. Hence the
plain functions over a dictionary of text, and the figures of few distinct values that are remembered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from ledger.cdr import OCTETS_MAX, Observer, ReleasedBy
from ledger.commitment import PRIVATE_TEXT_MAX
from ledger.errors import ConfigError, FieldError
from telephony.adapters.base import (
    COUNTER_MAX,
    DOCUMENT_BYTES_MAX,
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
_NOT_TEXT_BYTES: Final = NOT_TEXT.encode()

MORE: Final = frozenset(f"{figure}_{which}" for figure in ("loss", "jitter", "rtt") for which in ("min", "max"))
"""What is read of field ``mos_more``; a field of its own comes first."""

REMEMBERED: Final = 4096
"""Distinct texts of a figure that are kept with what they mean: a day has some hundreds."""

_REASONS_REMEMBERED: Final = 256
"""Fewer, since a caller's telephone chooses the text."""

_SECONDS_CHARACTERS_MAX: Final = 20
"""Ten digits, a point, nine digits."""
_MOS = re.compile(r"([0-9])(?:\.([0-9]{1,3}))?", re.ASCII)
_MOMENT = re.compile(r"([0-9]{1,5}):([0-5][0-9])", re.ASCII)
_INTEGER_DIGITS_MAX: Final = 19
_LOSS_PERCENT_MAX: Final = 100
_JITTER_MS_MAX: Final = U32_MAX // 1000
_PPM_PER_PERCENT: Final = 10_000
_US_PER_MS: Final = 1_000


def _usual(most: int, factor: int) -> Mapping[str, int | None]:
    """Return the texts of 0 to ``most`` and of what is unset, with the number times ``factor`` that each means."""
    return {**{str(number): number * factor for number in range(most + 1)}, **dict.fromkeys(("", "-1"))}


_USUAL: Final = _usual(REMEMBERED, 1)
"""Most numbers of a CDR are small."""
_USUAL_LOSS_PPM: Final = _usual(_LOSS_PERCENT_MAX, _PPM_PER_PERCENT)
_USUAL_JITTER_US: Final = _usual(REMEMBERED, _US_PER_MS)
_Q850 = re.compile(r"Q\.850\b[^,]*?;\s*cause\s*=\s*([0-9]{1,3})(?![0-9])", re.ASCII | re.IGNORECASE)


class _Required(msgspec.Struct):
    """What no CDR is without; ``check`` reads nothing else."""

    call_id: str
    from_tag: str
    start_time: str
    end_time: str


_REQUIRED: Final = frozenset(_Required.__struct_fields__)
_decode_required: Final = msgspec.json.Decoder(_Required).decode
_decode_text: Final = msgspec.json.Decoder(dict[str, str]).decode
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode


# Looking up a member of an enum takes longer than all else that is asked of it.
_UNKNOWN, _CALLER, _CALLEE, _NETWORK = ReleasedBy.UNKNOWN, ReleasedBy.CALLER, ReleasedBy.CALLEE, ReleasedBy.NETWORK
_REFUSED_BY_CALLEE: Final = frozenset({480, 486, 600, 603})


class _ReadingNames(NamedTuple):
    """The fields of one reading."""

    mos: str
    loss: str
    jitter: str
    rtt: str
    at: str
    """Empty for the mean, which has no moment."""


class _QualityNames(NamedTuple):
    """The fields of what one observer heard."""

    observer: Observer
    samples: str
    average: _ReadingNames
    lowest: _ReadingNames
    highest: _ReadingNames


def _reading_names(which: str, suffix: str) -> _ReadingNames:
    at = "" if which == "avg" else f"mos_{which}_at{suffix}"
    mos, loss, jitter, rtt = (f"{figure}_{which}{suffix}" for figure in ("mos", "loss", "jitter", "rtt"))
    return _ReadingNames(mos, loss, jitter, rtt, at)


_QUALITIES: Final = tuple(
    _QualityNames(observer, f"mos_samples{suffix}", *(_reading_names(which, suffix) for which in ("avg", "min", "max")))
    for suffix, observer in (("", Observer.BOTH), ("_a", Observer.CALLER), ("_b", Observer.CALLEE))
)


class KamailioAdapter:
    """Reads ``acc_json`` CDRs, one a call."""

    name: Final = "kamailio"
    kind: Final = Kind.KAMAILIO
    media_types: Final = frozenset({"application/json"})

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the CDRs in a post: one object, or an array of them."""
        return split_json(body)

    def check(self, document: bytes) -> None:
        """Raise what ``parse`` is sure to raise: for what is no JSON object, or lacks what every CDR has.

        Some microseconds, since the proxy waits for it. The other fields are read when the record is built.
        """
        try:
            found = _decode_required(document)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            is_good = False
        else:
            is_good = bool(found.call_id and found.from_tag) and _looks_like_times(found.start_time, found.end_time)
        if not is_good:
            # The whole reading knows best what is wrong, and what is not.
            self.parse(document)

    def parse(self, document: bytes) -> SourceCall:
        """Return the call of one CDR."""
        if len(document) <= DOCUMENT_BYTES_MAX:
            try:
                values = _decode_text(document)
                raw = _encode_sorted(values)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                # What exactly is wrong, the thorough way tells.
                pass
            else:
                return _call_of(values, raw)
        return parse_cdr(decode_json(document))


def _looks_like_times(*texts: str) -> bool:
    """Tell whether these may be seconds since 1970; digits and a point is all that is asked of them."""
    return all(
        len(text) <= _SECONDS_CHARACTERS_MAX and text.isascii() and text.replace(".", "", 1).isdecimal()
        for text in texts
    )


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
    if not isinstance(document, Mapping):
        raise FieldError("not a CDR", where="cdr", expected="a JSON object", actual=type(document).__name__)
    for name, value in document.items():
        if not isinstance(name, str) or not is_utf8(name):
            raise FieldError("not a field name", where="cdr", expected="UTF-8 text", actual=repr(name))
        if not isinstance(value, str) or not is_utf8(value):
            raise FieldError("not text", where=name, expected="a string, as acc_json writes", actual=repr(value))
    raw = json.dumps(dict(document), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return _call_of(document, raw.encode())


def _call_of(values: Mapping[str, str], raw: bytes) -> SourceCall:
    """Return the call of a CDR whose names and values are known to be text; ``raw`` is its JSON, sorted."""
    if len(raw) > PRIVATE_TEXT_MAX:
        expected = f"at most {PRIVATE_TEXT_MAX} bytes"
        raise FieldError("the CDR is too long", where="cdr", expected=expected, actual=len(raw))
    if values.get("mos_more"):
        values = _with_more(values)
    if _NOT_TEXT_BYTES in raw:
        values = {name: "" if _is_unreadable(name, value) else value for name, value in values.items()}
    text = values.get
    setup_ms, answer_ms, end_ms, sip_code = _times(values)
    from_tag, to_tag = _required(values, "from_tag"), text("to_tag", "")
    caller_packets, caller_octets = _counters(values, "packets_a", "octets_a")
    callee_packets, callee_octets = _counters(values, "packets_b", "octets_b")
    return SourceCall(
        call_id=_required(values, "call_id"),
        from_tag=from_tag,
        to_tag=to_tag,
        invite_cseq=_integer(values, "cseq", U32_MAX) or 0,
        caller=text("from", ""),
        callee=text("to", ""),
        source_address=text("src_ip", ""),
        setup_ms=setup_ms,
        answer_ms=answer_ms,
        end_ms=end_ms,
        sip_code=sip_code,
        q850_cause=_q850_cause(text("reason", "")),
        released_by=_released_by(text("bye_from", ""), from_tag, to_tag, sip_code),
        codec=(text("codec_a") or text("codec_b", "")).partition("/")[0],
        caller_packets=caller_packets,
        caller_octets=caller_octets,
        callee_packets=callee_packets,
        callee_octets=callee_octets,
        qualities=_qualities(values),
        raw=raw.decode(),
    )


def _with_more(values: Mapping[str, str]) -> Mapping[str, str]:
    """Return ``values`` with the figures in ``mos_more`` that have no field of their own.

    It is ``loss_min=0;jitter_min=4;...``: they share a field since acc has room for 64 only.
    """
    found = dict(values)
    for pair in values["mos_more"].split(";"):
        name, _, value = pair.partition("=")
        if name in MORE and name not in values:
            found[name] = value
    return found


def _is_unreadable(name: str, value: str) -> bool:
    """Tell whether a field stands for text that was not UTF-8, and may: what a CDR requires is taken as it is."""
    return value == NOT_TEXT and name not in _REQUIRED


def _required(values: Mapping[str, str], name: str) -> str:
    """Return a field's text; raises FieldError where there is none."""
    value = values.get(name, "")
    if not value:
        found = "an empty string" if name in values else "no such field"
        raise FieldError("missing", where=name, expected="text that is not empty", actual=found)
    return value


def _integer(values: Mapping[str, str], name: str, most: int) -> int | None:
    """Return a field as an integer of 0 to ``most``; None where it is unset, or ``-1``: rtpengine had none."""
    value = values.get(name, "")
    number = _USUAL.get(value, -1)
    if number is None or 0 <= number <= most:
        return number
    if value.isascii() and value.isdecimal() and len(value) <= _INTEGER_DIGITS_MAX:
        number = int(value)
        if number <= most:
            return number
    raise FieldError("not such a number", where=name, expected=f"0 to {most}", actual=value)


def _scaled(values: Mapping[str, str], name: str, most: int, factor: int) -> int | None:
    """Return a field as ``_integer`` does, times ``factor``."""
    number = _integer(values, name, most)
    return None if number is None else number * factor


@lru_cache(REMEMBERED)
def _mos_milli(value: str) -> int | None:
    """Return a MOS like ``4.3`` in thousandths, None for what is none."""
    found = _MOS.fullmatch(value)
    mos_milli = int(found[1]) * 1000 + int((found[2] or "").ljust(3, "0")) if found else 0
    return mos_milli if 1000 <= mos_milli <= 5000 else None


@lru_cache(REMEMBERED)
def _moment_ms(value: str) -> int | None:
    """Return a moment like ``0:03`` in milliseconds, None for what is none."""
    found = _MOMENT.fullmatch(value)
    if found:
        return (int(found[1]) * 60 + int(found[2])) * 1000
    # rtpengine counts from its own second; one that it reports before that comes out negative.
    return 0 if value.startswith("-") or ":-" in value else None


def _times(values: Mapping[str, str]) -> tuple[int, int, int, int]:
    """Return setup, answer and end in milliseconds, and the SIP code.

    ``start_time`` is when the dialog was confirmed, or, for one that never was, when it was created.
    """
    start_ms = decimal_seconds_to_ms(_required(values, "start_time"), "start_time")
    end_ms = decimal_seconds_to_ms(_required(values, "end_time"), "end_time")
    sip_code = _integer(values, "sip_code", 699) or 0
    if 0 < sip_code < 100:
        raise FieldError("not a SIP status", where="sip_code", expected="100 to 699", actual=sip_code)
    answered = 200 <= sip_code <= 299 or (sip_code == 0 and end_ms > start_ms)
    final_time = "" if answered else values.get("final_time")
    if final_time:
        end_ms = max(end_ms, decimal_seconds_to_ms(final_time, "final_time"))
    if end_ms < start_ms:
        raise FieldError(
            "before start_time", where="end_time", expected=f"at least {start_ms} ms", actual=f"{end_ms} ms"
        )
    # setup_time has microseconds; setup_ts, of older configurations, whole seconds.
    setup_ms = start_ms
    for name in ("setup_time", "setup_ts"):
        text = values.get(name)
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
            return _CALLER
        return _CALLEE if not to_tag or bye_from == to_tag else _UNKNOWN
    if sip_code == 487:
        return _CALLER
    if sip_code in _REFUSED_BY_CALLEE:
        return _CALLEE
    # A dialog that ran out without BYE, a timeout, an error of some server: nobody hung up.
    return _NETWORK if sip_code else _UNKNOWN


@lru_cache(_REASONS_REMEMBERED)
def _q850_cause(reason: str) -> int:
    """Return the cause of a Reason header (RFC 3326), 0 where it has none for Q.850."""
    found = _Q850.search(reason)
    cause = int(found[1]) if found else 0
    return cause if cause <= 127 else 0


def _counters(values: Mapping[str, str], packets_name: str, octets_name: str) -> tuple[int | None, int | None]:
    """Return packets and payload octets that came from one side, None where unknown."""
    packets = _integer(values, packets_name, COUNTER_MAX)
    octets = _integer(values, octets_name, OCTETS_MAX)
    if packets is None or octets is None:
        return packets, None
    if octets < RTP_HEADER_OCTETS * packets:
        expected = f"at least {RTP_HEADER_OCTETS} for each of {packets} packets"
        raise FieldError("too few octets", where=octets_name, expected=expected, actual=octets)
    return packets, octets - RTP_HEADER_OCTETS * packets


def _qualities(values: Mapping[str, str]) -> tuple[SourceQuality, ...]:
    """Return the quality of both legs together, of the caller's and of the callee's ears: those there are."""
    found = []
    for names in _QUALITIES:
        average = _reading(values, names.average)
        if average is not None:
            samples = _integer(values, names.samples, U32_MAX)
            lowest, highest = _reading(values, names.lowest), _reading(values, names.highest)
            found.append(SourceQuality(names.observer, samples, average, lowest, highest))
    return tuple(found)


def _reading(values: Mapping[str, str], names: _ReadingNames) -> SourceReading | None:
    """Return one reading, None where its MOS is unset."""
    mos_name, loss_name, jitter_name, rtt_name, at_name = names
    text = values.get
    mos = text(mos_name)
    if not mos:
        return None
    mos_milli = _mos_milli(mos)
    if mos_milli is None:
        raise FieldError("not a MOS", where=mos_name, expected="1.0 to 5.0", actual=mos)
    # The usual figures without a call of a function: a document has nine readings.
    loss_ppm = _USUAL_LOSS_PPM.get(text(loss_name, ""), -1)
    if loss_ppm == -1:
        loss_ppm = _scaled(values, loss_name, _LOSS_PERCENT_MAX, _PPM_PER_PERCENT)
    jitter_us = _USUAL_JITTER_US.get(text(jitter_name, ""), -1)
    if jitter_us == -1:
        jitter_us = _scaled(values, jitter_name, _JITTER_MS_MAX, _US_PER_MS)
    at_ms = None
    if at_name and (moment := text(at_name)):
        at_ms = _moment_ms(moment)
        if at_ms is None:
            raise FieldError("not a moment", where=at_name, expected="minutes:seconds, 0:03", actual=moment)
    rtt_us = _USUAL.get(text(rtt_name, ""), -1)
    if rtt_us == -1:
        rtt_us = _integer(values, rtt_name, U32_MAX)
    return SourceReading(mos_milli, rtt_us, jitter_us, loss_ppm, at_ms)
