"""Adapters for Cisco CUCM: call detail records (CDR), and the management records (CMR) with the phones' own quality.

Both come as files of CSV whose first line has the names of the columns and whose second has their types; each row
becomes a JSON object by those names, which are compared without regard to case, as releases spell them differently.
An empty value is null. Field by field: docs/cucm.md.

A CDR and its CMRs share the global call id; so do all CDRs of a call that was transferred or became a conference.
What tells those apart is which legs they connected, so the legs are in ``from_tag``, and with them the times, for the
global call id begins anew after 2^24 calls. CUCM's reference to the SIP Call-ID is cut off after 32 characters and
missing from the CMR: it stays in ``raw``.

Source: Cisco, Call Reporting and Billing Administration Guide for Cisco Unified Communications Manager, release 15.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final

import msgspec

from ledger.cdr import Band, MosKind, Observer, QualityMethod, ReleasedBy, Service
from ledger.commitment import PRIVATE_TEXT_MAX
from ledger.errors import ConfigError, EncodingError, FieldError
from telephony.adapters.base import COUNTER_MAX, TIME_MS_MAX, U32_MAX, Kind, check_count, decode_json, is_utf8
from telephony.adapters.causes import PARTY_CAUSES, sip_of_cause
from telephony.adapters.cucm_codes import (
    ADDRESS_MAX,
    ADDRESS_MIN,
    CALL_SPLIT,
    CODEC_NAMES,
    address_of,
    q850_of,
    sip_of,
)
from telephony.adapters.rows import check_fits, check_names, encode_row, form_of, named_row, read_rows
from telephony.source import PartRole, SourceCall, SourcePart, SourceQuality, SourceReading

MEDIA_TYPES: Final = frozenset({"text/csv", "text/plain"})
HEAD_LINES: Final = 2
"""Lines before the first row: the names, and their types."""
CLOCKS_APART_MS: Final = 1000
"""Origination and connection are stamped by two processes, each in whole seconds."""

_CALL_ID: Final = ("globalCallID_callManagerId", "globalCallID_callId")
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_TYPE: Final = re.compile(r"(?:INTEGER|UNIQUEIDENTIFIER|(?:VAR)?CHAR\([0-9]+\))", re.ASCII)
_MOS: Final = re.compile(r"([0-9])(?:\.([0-9]{1,6}))?", re.ASCII)


class CucmCdrAdapter:
    """Reads CDRs: one call each."""

    name: Final = "cucm-cdr"
    kind: Final = Kind.CUCM_CDR
    media_types: Final = MEDIA_TYPES

    def __init__(self, cluster: str = "") -> None:
        self._cluster = cluster

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the rows of a CDR file, each as a JSON object."""
        return _split(body, (*_CALL_ID, "origLegCallIdentifier", "dateTimeOrigination", "dateTimeDisconnect")), True

    def check(self, document: bytes) -> None:
        """Raise for a row without its identity; its other values are looked at when it is parsed."""
        fields = _Fields(document)
        _call_id(fields, self._cluster)
        fields.required("origLegCallIdentifier")

    def parse(self, document: bytes) -> SourceCall:
        """Return the call of one row."""
        return _parse_cdr(_Fields(document), self._cluster)


class CucmCmrAdapter:
    """Reads CMRs: what one phone or gateway says of the quality of one leg."""

    name: Final = "cucm-cmr"
    kind: Final = Kind.CUCM_CMR
    media_types: Final = MEDIA_TYPES

    def __init__(self, cluster: str = "", latency_ways: int = 2) -> None:
        self._cluster = cluster
        self._latency_ways = latency_ways

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the rows of a CMR file, each as a JSON object."""
        return _split(body, (*_CALL_ID, "callIdentifier", "varVQMetrics")), True

    def check(self, document: bytes) -> None:
        """Raise for a row without its identity; its other values are looked at when it is parsed."""
        fields = _Fields(document)
        _call_id(fields, self._cluster)
        fields.required("callIdentifier")

    def parse(self, document: bytes) -> SourcePart:
        """Return the report of one row."""
        fields = _Fields(document)
        fields.check_type(2, "a CMR")
        quality = _quality(fields, self._latency_ways)
        return SourcePart(
            platform=self.name,
            join=("call-id", _call_id(fields, self._cluster)),
            role=PartRole.QUALITY,
            call=None,
            qualities=() if quality is None else (quality,),
            levels=None,
            raw=fields.raw,
            of_leg=fields.identifier("callIdentifier"),
        )


def make_cucm_cdr(options: Mapping[str, Any]) -> CucmCdrAdapter:
    """Return the adapter. Option ``cluster``: name that stands for the cluster's own. Raises ConfigError."""
    return CucmCdrAdapter(_options(options, "cucm-cdr", "cluster").get("cluster", ""))


def make_cucm_cmr(options: Mapping[str, Any]) -> CucmCmrAdapter:
    """Return the adapter; options ``cluster`` and ``latency``: ``one-way`` or ``round-trip``. Raises ConfigError."""
    chosen = _options(options, "cucm-cmr", "cluster", "latency")
    latency = chosen.get("latency", "one-way")
    if latency not in {"one-way", "round-trip"}:
        where = "sources.cucm-cmr.latency"
        raise ConfigError("not a choice", where=where, expected="one-way or round-trip", actual=latency)
    return CucmCmrAdapter(chosen.get("cluster", ""), 2 if latency == "one-way" else 1)


def _options(options: Mapping[str, Any], adapter: str, *names: str) -> dict[str, str]:
    for name, value in options.items():
        where = f"sources.{adapter}.{name}"
        if name not in names:
            raise ConfigError("unknown option", where=where, expected=", ".join(names))
        if not isinstance(value, str) or not value:
            raise ConfigError("not text", where=where, expected="text that is not empty", actual=value)
    return dict(options)


def _split(body: bytes, needed: tuple[str, ...]) -> list[bytes]:
    """Return the rows after the names and the types. Raises EncodingError for a file that is no such one."""
    rows = read_rows(body)
    line, names = next(rows, (1, []))
    names = [name.strip() for name in names]
    known = {name.lower() for name in names}
    for name in needed:
        if name.lower() not in known:
            raise EncodingError("not such a file", where=f"line {line}", expected=f"a line of names with {name}")
    check_names(names, line)
    documents: list[bytes] = []
    for _, cells in rows:
        if not documents and all(_TYPE.fullmatch(cell.strip()) for cell in cells):
            continue
        documents.append(encode_row(named_row(names, cells)))
    check_count(len(documents))
    return documents


class _Fields:
    """One row, its names in lower case; ``raw`` is its JSON text."""

    def __init__(self, document: bytes) -> None:
        row = decode_json(document)
        if not isinstance(row, dict):
            raise FieldError("not a row", where="cdr", expected="a JSON object", actual=type(row).__name__)
        check_fits(row)
        self._values: dict[str, str] = {}
        for name, value in row.items():
            if not isinstance(value, str) or not is_utf8(name) or not is_utf8(value):
                raise FieldError("not text", where=name, expected="a string, as in the file", actual=repr(value))
            if name.lower() in self._values:
                raise FieldError("stands twice", where=name, expected="each name once")
            self._values[name.lower()] = value.strip()
        self.raw = msgspec.json.encode(row).decode()
        size = len(self.raw.encode())
        if size > PRIVATE_TEXT_MAX:
            expected = f"at most {PRIVATE_TEXT_MAX} bytes"
            raise FieldError("the row is too long", where="cdr", expected=expected, actual=size)

    def text(self, *names: str) -> str:
        """Return the first of the fields that is not empty."""
        return next((value for name in names if (value := self._values.get(name.lower(), ""))), "")

    def required(self, name: str) -> str:
        """Return a field's text; raises FieldError where there is none."""
        value = self.text(name)
        if not value:
            raise FieldError("missing", where=name, expected="text that is not empty")
        return value

    def integer(self, name: str, least: int = 0, most: int = U32_MAX) -> int:
        """Return a field as an integer, 0 where it is empty."""
        value = self.text(name) or "0"
        if not _INTEGER.fullmatch(value) or not least <= int(value) <= most:
            raise FieldError("not such a number", where=name, expected=f"{least} to {most}", actual=value)
        return int(value)

    def identifier(self, name: str) -> str:
        """Return a number that names something, empty for 0, which is none."""
        number = self.integer(name)
        return str(number) if number else ""

    def time_ms(self, name: str) -> int:
        """Return seconds since 1970 in milliseconds, 0 for none."""
        return self.integer(name, most=TIME_MS_MAX // 1000) * 1000

    def check_type(self, wanted: int, kind: str) -> None:
        """Raise FieldError for a record of the other kind."""
        value = self.text("cdrRecordType")
        if value not in ("", str(wanted)):
            raise FieldError(
                "another kind of record", where="cdrRecordType", expected=f"{wanted}, {kind}", actual=value
            )


def _call_id(fields: _Fields, cluster: str) -> str:
    """Return the global call id, which CDRs and CMRs share: ``StandAloneCluster/2/48553``."""
    manager, call = (fields.integer(name) for name in _CALL_ID)
    if not call:
        raise FieldError("missing", where=_CALL_ID[1], expected="a number above 0")
    return f"{cluster or fields.text('globalCallId_ClusterID')}/{manager}/{call}"


def _parse_cdr(fields: _Fields, cluster: str) -> SourceCall:
    fields.check_type(1, "a CDR")
    setup_ms, answer_ms, end_ms = _times(fields)
    sip_code, q850_cause, released_by = _ending(fields, answered=bool(answer_ms))
    notes: list[str] = []
    caller_leg, callee_leg = fields.required("origLegCallIdentifier"), fields.identifier("destLegIdentifier")
    return SourceCall(
        call_id=_call_id(fields, cluster),
        from_tag=f"{caller_leg}-{callee_leg}-{setup_ms // 1000}-{end_ms // 1000}",
        to_tag=callee_leg,
        invite_cseq=0,
        caller=fields.text("callingPartyNumber", "callingPartyNumber_uri"),
        callee=fields.text(
            "finalCalledPartyNumber",
            "finalCalledPartyNumber_uri",
            "originalCalledPartyNumber",
            "originalCalledPartyNumber_uri",
        ),
        source_address=_address(fields),
        setup_ms=setup_ms,
        answer_ms=answer_ms,
        end_ms=end_ms,
        sip_code=sip_code,
        q850_cause=q850_cause,
        released_by=released_by,
        codec=_codec(fields, notes),
        caller_packets=None,
        caller_octets=None,
        callee_packets=None,
        callee_octets=None,
        qualities=(),
        raw=fields.raw,
        platform=CucmCdrAdapter.name,
        service=_service(fields),
        time_step_ms=1000,
        notes=tuple(notes),
        legs=(fields.identifier("origLegCallIdentifier"), callee_leg),
    )


def _times(fields: _Fields) -> tuple[int, int, int]:
    """Return setup, answer and end. Raises FieldError where they contradict each other or the duration."""
    setup_ms, answer_ms, end_ms = (
        fields.time_ms(name) for name in ("dateTimeOrigination", "dateTimeConnect", "dateTimeDisconnect")
    )
    for name, time_ms in (("dateTimeOrigination", setup_ms), ("dateTimeDisconnect", end_ms)):
        if not time_ms:
            raise FieldError("missing", where=name, expected="seconds since 1970")
    first_ms = answer_ms or end_ms
    if setup_ms > first_ms + CLOCKS_APART_MS:
        expected = f"at most {first_ms // 1000} s"
        raise FieldError("after the call", where="dateTimeOrigination", expected=expected, actual=setup_ms // 1000)
    if end_ms < answer_ms:
        expected = f"at least {answer_ms // 1000} s"
        raise FieldError("before the answer", where="dateTimeDisconnect", expected=expected, actual=end_ms // 1000)
    duration_s = fields.integer("duration")
    if duration_s and abs(end_ms - answer_ms - duration_s * 1000) > CLOCKS_APART_MS:
        expected = f"{(end_ms - answer_ms) // 1000} s from connection to end" if answer_ms else "0: never connected"
        raise FieldError("contradicts the times", where="duration", expected=expected, actual=duration_s)
    return min(setup_ms, first_ms), answer_ms, end_ms


def _ending(fields: _Fields, *, answered: bool) -> tuple[int, int, ReleasedBy]:
    """Return SIP code, Q.850 cause, and who ended the call: CUCM fills in the cause of the side that cleared."""
    caller_cause, callee_cause = fields.integer("origCause_value"), fields.integer("destCause_value")
    value = callee_cause or caller_cause
    cause = q850_of(value)
    if CALL_SPLIT in (caller_cause, callee_cause) or (value and cause not in PARTY_CAUSES):
        released_by = ReleasedBy.NETWORK
    elif caller_cause and not callee_cause:
        released_by = ReleasedBy.CALLER
    elif callee_cause and not caller_cause:
        released_by = ReleasedBy.CALLEE
    else:
        released_by = ReleasedBy.UNKNOWN
    if answered:
        return 200, cause, released_by
    # The caller gave up: cause 16, or none at all where the phone only went off the hook and on again.
    if not callee_cause and cause in (0, 16) and caller_cause != CALL_SPLIT:
        return 487, cause, ReleasedBy.CALLER
    return sip_of(value) or (sip_of_cause(cause) if cause else 0), cause, released_by


def _address(fields: _Fields) -> str:
    """Return the caller's address: the newer field as text, or the older one as a number."""
    text = fields.text("origIpv4v6Addr")
    if not text:
        return address_of(fields.integer("origIpAddr", ADDRESS_MIN, ADDRESS_MAX))
    try:
        return str(ip_address(text))
    except ValueError:
        expected = "an IPv4 or IPv6 address"
        raise FieldError("not an address", where="origIpv4v6Addr", expected=expected, actual=form_of(text)) from None


def _codec(fields: _Fields, notes: list[str]) -> str:
    """Return the codec the caller sent, or else the callee; noted where they differ or the number has no name."""
    numbers = [fields.integer(f"{side}MediaCap_payloadCapability") for side in ("orig", "dest")]
    names = [CODEC_NAMES.get(number, "") for number in numbers]
    for number, name in zip(numbers, names, strict=True):
        if number and not name:
            notes.append(f"payload capability {number} has no RTP name: codec recorded as unknown")
    if all(names) and names[0] != names[1]:
        notes.append(f"the caller sent {names[0]}, the callee {names[1]}: the caller's is recorded")
    return names[0] or names[1]


def _service(fields: _Fields) -> Service | None:
    """Return what kind of call it was where CUCM tells: a conference, or video in both directions."""
    if fields.integer("origConversationID") or fields.integer("destConversationID"):
        return Service.CONFERENCE
    video = fields.integer("origVideoCap_Codec") and fields.integer("destVideoCap_Codec")
    return Service.VIDEO if video else None


def _quality(fields: _Fields, latency_ways: int) -> SourceQuality | None:
    """Return what the leg's device measured, None where it has no MOS: 0.0000 is none."""
    metrics = _metrics(fields.text("varVQMetrics"))
    mean = _mos_milli(metrics, "MLQKav") or _mos_milli(metrics, "MLQK")
    if mean is None:
        return None
    received, lost = fields.integer("numberPacketsReceived"), fields.integer("numberPacketsLost", -U32_MAX)
    # RFC 3550: duplicates make the loss negative.
    lost = max(0, lost)
    expected = received + lost
    latency_ms = fields.integer("latency", most=U32_MAX // 2000)
    worst, best = _mos_milli(metrics, "MLQKmn"), _mos_milli(metrics, "MLQKmx")
    return SourceQuality(
        observer=Observer.UNKNOWN,
        samples=1,
        average=SourceReading(
            mos_milli=mean,
            # Many phones send 0 for want of a measurement.
            rtt_us=latency_ms * latency_ways * 1000 or None,
            jitter_us=fields.integer("jitter", most=U32_MAX // 1000) * 1000,
            loss_ppm=lost * 1_000_000 // expected if expected else None,
            at_ms=None,
        ),
        lowest=SourceReading(worst, None, None, None, None) if worst and worst <= mean else None,
        highest=SourceReading(best, None, None, None, None) if best and best >= mean else None,
        method=QualityMethod.MEASURED,
        band=Band.NARROWBAND,
        kind=MosKind.LQ,
        packets_expected=min(expected, COUNTER_MAX),
        packets_lost=lost,
    )


def _metrics(text: str) -> dict[str, str]:
    """Return ``MLQK=4.5000;MLQKav=4.4; CCR=0.0`` by name; what is not of that form is left out."""
    pairs = (item.partition("=") for item in text.split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _mos_milli(metrics: Mapping[str, str], name: str) -> int | None:
    """Return a MOS like ``4.5000`` in thousandths, None where it is missing or zero."""
    value = metrics.get(name, "")
    if not value.strip("0."):
        return None
    found = _MOS.fullmatch(value)
    mos_milli = int(found[1]) * 1000 + int((found[2] or "").ljust(3, "0")[:3]) if found else 0
    if not 1000 <= mos_milli <= 5000:
        raise FieldError("not a MOS", where=f"varVQMetrics {name}", expected="1.0 to 5.0, or 0 for none", actual=value)
    return mos_milli
