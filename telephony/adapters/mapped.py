"""Adapters made by mapping files: rows of CSV and lines of JSON that no adapter of ours knows.

Each mapping is an adapter under its own name, ``/v1/ingest/NAME``. Beside a document in the spool stands only that it
is a mapped one, so each is a JSON array of the mapping's name and the row: ``["our-pbx", {"callid": "17"}]``.
Keys of a mapping, and what happens to each value: docs/mapping.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from ledger.cdr import Leg, ReleasedBy, Service
from ledger.commitment import PRIVATE_TEXT_MAX
from ledger.errors import ConfigError, EncodingError, FieldError
from telephony.adapters.base import DOCUMENT_BYTES_MAX, TIME_MS_MAX, U32_MAX, Kind, check_count, is_utf8, split_json
from telephony.adapters.clocks import Times, choose_times, read_clock, readings_ms
from telephony.adapters.mapping import (
    CLOCKS,
    COUNTERS,
    INTEGERS,
    TEXTS,
    CdrMapping,
    Clock,
    Measure,
    Place,
    QualityMap,
    parse_mapping,
    preset_text,
)
from telephony.adapters.rows import check_fits, check_names, encode_row, form_of, named_row, read_rows, split_json_lines
from telephony.source import SourceCall, SourceQuality, SourceReading

CSV_TYPES: Final = frozenset({"text/csv", "text/plain"})
JSON_TYPES: Final = frozenset({"application/json", "application/x-ndjson", "application/jsonl", "text/plain"})
MAPPING_BYTES_MAX: Final = 256 * 1024
"""A mapping of every field is some 4 kB."""
NANO: Final = 10**9
SKIPPED: Final = "a local time of it was skipped by its clock: read with the offset before the change"

_DECIMAL: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9})[0-9]*)?", re.ASCII)
_CLOCK_SPAN: Final = re.compile(r"(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-5]?[0-9])(?:\.[0-9]{1,9})?", re.ASCII)
_DOCUMENT: Final = msgspec.json.Decoder(tuple[str, msgspec.Raw])


class MappedAdapter:
    """Reads the documents of one mapping.

    Attributes:
        mapping: what its files look like, and what their columns mean.
    """

    kind: Final = Kind.MAPPED

    def __init__(self, mapping: CdrMapping) -> None:
        self.mapping = mapping
        self.name = mapping.name
        self.media_types = JSON_TYPES if mapping.is_json else CSV_TYPES

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the rows of a file: each with the mapping's name, and with the names of its columns."""
        rows, many = self._rows(body)
        check_count(len(rows))
        return [self._document(row) for _, row in rows], many

    def numbered(self, body: bytes) -> list[tuple[str, bytes]]:
        """Return what ``split`` does, however many there are, each with where it stands: ``line 7``, ``entry 7``.

        Entries are those of a JSON array, which lines say nothing of. Raises EncodingError.
        """
        rows, _ = self._rows(body)
        return [(where, self._document(row)) for where, row in rows]

    def _rows(self, body: bytes) -> tuple[list[tuple[str, bytes]], bool]:
        if not self.mapping.is_json:
            return [(f"line {line}", row) for line, row in _split_csv(body, self.mapping)], True
        rows, many = split_json_lines(body)
        lines = [number for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
        is_by_line = many and len(lines) == len(rows)
        places = [f"line {line}" for line in lines] if is_by_line else [f"entry {n}" for n in range(1, len(rows) + 1)]
        return list(zip(places, rows, strict=True)), many

    def _document(self, row: bytes) -> bytes:
        return b"[%b,%b]" % (encode_row(self.name), row)

    def check(self, document: bytes) -> None:
        """Raise for a document that is no row of this mapping; its values are looked at when it is parsed."""
        self._row(document)

    def parse(self, document: bytes) -> SourceCall:
        """Return the call of one row."""
        return _call(self.mapping, *self._row(document))

    def _row(self, document: bytes) -> tuple[object, str]:
        """Return the decoded row, and its JSON text."""
        name, raw = decode_document(document)
        if name != self.name:
            raise FieldError("of another mapping", where="mapping", expected=self.name, actual=name)
        try:
            row = msgspec.json.decode(raw)
            text = raw.decode()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise EncodingError("not JSON", where="cdr", expected="a JSON object", actual=error) from None
        if not isinstance(row, dict):
            raise FieldError("not a row", where="cdr", expected="a JSON object", actual=type(row).__name__)
        check_fits(row)
        if len(raw) > PRIVATE_TEXT_MAX:
            expected = f"at most {PRIVATE_TEXT_MAX} bytes"
            raise FieldError("the row is too long", where="cdr", expected=expected, actual=len(raw))
        return row, text


class MappedSources:
    """All mappings of an agent: sends each document of theirs to its own."""

    name: Final = "mapped"
    kind: Final = Kind.MAPPED
    media_types: Final = frozenset({"application/json"})

    def __init__(self, mappings: Mapping[str, MappedAdapter] = MappingProxyType({})) -> None:
        self.mappings = mappings

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return documents that have their mapping's name already: one array of name and row, or an array of such."""
        documents, many = split_json(body)
        if many and documents[0].lstrip().startswith(b'"'):
            return [bytes(body.strip())], False
        return documents, many

    def check(self, document: bytes) -> None:
        """Raise what the mapping's adapter raises; FieldError for a name there is no mapping of."""
        self._adapter(document).check(document)

    def parse(self, document: bytes) -> SourceCall:
        """Return the call of a document."""
        return self._adapter(document).parse(document)

    def _adapter(self, document: bytes) -> MappedAdapter:
        name, _ = decode_document(document)
        if name not in self.mappings:
            known = ", ".join(sorted(self.mappings)) or "a [sources.mapped.NAME] in the configuration"
            raise FieldError("no such mapping", where="mapping", expected=known, actual=name)
        return self.mappings[name]


def make_mapped(options: Mapping[str, Any]) -> MappedSources:
    """Return the mappings of ``[sources.mapped.NAME]`` tables: ``file`` or ``preset``, and ``timezone``.

    Raises ConfigError naming the option, or the file and its key.
    """
    made = {}
    for name, table in options.items():
        where = f"sources.mapped.{name}"
        if not isinstance(table, Mapping):
            raise ConfigError("not a table", where=where, expected=f"[{where}] with file or preset", actual=table)
        for key, value in table.items():
            if key not in {"file", "preset", "timezone"}:
                raise ConfigError("unknown option", where=f"{where}.{key}", expected="file, preset, timezone")
            if not isinstance(value, str):
                raise ConfigError("not text", where=f"{where}.{key}", actual=value)
        if ("file" in table) == ("preset" in table):
            raise ConfigError("no mapping, or two", where=where, expected="either file or preset")
        made[name] = MappedAdapter(read_mapping(name, table.get("file"), table.get("preset"), table.get("timezone")))
    return MappedSources(MappingProxyType(made))


def read_mapping(name: str, file: str | None, preset: str | None, timezone: str | None = None) -> CdrMapping:
    """Return the mapping in a file, or one that ships. Raises ConfigError."""
    if file is None:
        return parse_mapping(name, preset_text(preset or ""), f"preset {preset}", timezone)
    try:
        with Path(file).expanduser().open("rb") as stream:
            data = stream.read(MAPPING_BYTES_MAX + 1)
        if len(data) > MAPPING_BYTES_MAX:
            raise ConfigError("too long for a mapping", where=file, expected=f"at most {MAPPING_BYTES_MAX} bytes")
        text = data.decode()
    except OSError as error:
        raise ConfigError("cannot be read", where=file, actual=error.strerror) from None
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8", where=file, expected="a TOML file") from None
    return parse_mapping(name, text, file, timezone)


def decode_document(document: bytes) -> tuple[str, bytes]:
    """Return the mapping's name and the row's JSON. Raises EncodingError."""
    if len(document) > DOCUMENT_BYTES_MAX:
        expected = f"at most {DOCUMENT_BYTES_MAX} bytes"
        raise EncodingError("too long", where="cdr", expected=expected, actual=len(document))
    try:
        name, raw = _DOCUMENT.decode(document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise EncodingError("not a mapped row", where="cdr", expected='["mapping", {row}]', actual=error) from None
    return name, bytes(raw)


def _split_csv(body: bytes, mapping: CdrMapping) -> list[tuple[int, bytes]]:
    """Return the rows of a file, each with its line."""
    rows = read_rows(body, delimiter=mapping.delimiter, encoding=mapping.encoding, quoting=mapping.quoting)
    names = mapping.columns
    if mapping.header:
        line, cells = next(rows, (1, []))
        header = [cell.strip() for cell in cells]
        check_names(header, line)
        names = names or tuple(header)
        _check_header(header, mapping, line)
    for _ in range(mapping.skip_lines):
        next(rows, None)
    found = []
    for line, cells in rows:
        columns = names or [str(number) for number in range(1, len(cells) + 1)]
        found.append((line, encode_row(named_row(columns, cells, ragged=mapping.ragged))))
    return found


def _check_header(header: list[str], mapping: CdrMapping, line: int) -> None:
    """Raise EncodingError for a file whose names are not the mapping's: it is some other file."""
    call_id = mapping.places["call_id"]
    if not mapping.columns and call_id.columns and not set(call_id.columns) & set(header):
        expected = f"a column {' or '.join(call_id.columns)}"
        raise EncodingError("not a file of this mapping", where=f"line {line}", expected=expected)


def _call(mapping: CdrMapping, row: object, raw: str) -> SourceCall:
    texts = _Values(row, mapping.decimal_comma)
    notes: list[str] = []
    times = _times(mapping, texts, notes)
    places = dict(mapping.places) if times.answer_ms else {**mapping.places, **mapping.unanswered}
    text = {name: texts.text(places[name]) if name in places else "" for name in TEXTS}
    number = {name: texts.integer(places[name], most) if name in places else None for name, most in INTEGERS.items()}
    if not text["call_id"]:
        raise FieldError("missing", where=places["call_id"].name, expected="text that is not empty")
    sip_code = number["sip_code"] or 0
    if 0 < sip_code < 100:
        raise FieldError("not a SIP status", where=places["sip_code"].name, expected="100 to 699", actual=sip_code)
    return SourceCall(
        call_id=text["call_id"],
        from_tag=text["from_tag"],
        to_tag=text["to_tag"],
        caller=text["caller"],
        callee=text["callee"],
        source_address=text["source_address"],
        codec=text["codec"],
        invite_cseq=number["invite_cseq"] or 0,
        setup_ms=times.setup_ms,
        answer_ms=times.answer_ms,
        end_ms=times.end_ms,
        sip_code=sip_code,
        q850_cause=number["q850_cause"] or 0,
        released_by=texts.choice(places.get("released_by"), ReleasedBy) or ReleasedBy.UNKNOWN,
        caller_packets=number["caller_packets"],
        caller_octets=number["caller_octets"],
        callee_packets=number["callee_packets"],
        callee_octets=number["callee_octets"],
        qualities=tuple(found for table in mapping.qualities if (found := _quality(table, texts)) is not None),
        raw=raw,
        platform=mapping.name,
        leg=texts.choice(places.get("leg"), Leg),
        service=texts.choice(places.get("service"), Service),
        time_step_ms=mapping.time_step_ms,
        notes=tuple(notes),
    )


class _Values:
    """The values of one row, by the places of a mapping."""

    def __init__(self, row: object, decimal_comma: bool) -> None:
        self._row = row
        self._comma = decimal_comma

    def text(self, place: Place) -> str:
        """Return the text at a place, empty for null. Raises FieldError for a word without a meaning."""
        if place.constant is not None:
            return place.constant
        found = [self._column(name, place) for name in place.columns]
        if place.join is None:
            value = next((text for text in found if text), "")
        else:
            value = place.join.join(found) if any(found) else ""
        if not value:
            return place.default or ""
        if place.words:
            meaning = place.words.get(value.lower())
            if meaning is not None:
                return meaning
            if not place.keep:
                if place.default is not None:
                    return place.default
                expected = ", ".join(place.words)
                raise FieldError("a word without a meaning", where=place.name, expected=expected, actual=form_of(value))
        return value

    def _column(self, name: str, place: Place) -> str:
        """Return a column's text without blanks around it, empty where it is null or not there."""
        value = _find(self._row, name)
        if value is None:
            return ""
        if isinstance(value, bool):
            value = "true" if value else "false"
        if isinstance(value, dict | list):
            raise FieldError(
                "not one value", where=place.name, expected="text or a number", actual=type(value).__name__
            )
        text = str(value).strip()
        if not is_utf8(text):
            raise FieldError("not text", where=place.name, expected="Unicode without lone surrogates")
        return "" if text in place.null else text

    def integer(self, place: Place, most: int) -> int | None:
        """Return a whole number of 0 to ``most``, None for null."""
        amount = self.amount(Measure(place, 1, 1), most)
        text = self.text(place)
        if amount is not None and not text.isdecimal():
            raise FieldError("not a whole number", where=place.name, expected=f"0 to {most}", actual=form_of(text))
        return amount

    def amount(self, measure: Measure, most: int) -> int | None:
        """Return a quantity in our unit, cut off, None for null."""
        text = self.text(measure.place)
        if not text:
            return None
        if measure.denominator == 0:
            found = _CLOCK_SPAN.fullmatch(text)
            seconds = int(found[1] or 0) * 3600 + int(found[2]) * 60 + int(found[3]) if found else -1
            amount = seconds * measure.numerator
        else:
            found = _DECIMAL.fullmatch(text.replace(",", ".", 1) if self._comma else text)
            nano = int(found[1]) * NANO + int((found[2] or "").ljust(9, "0")) if found else -1
            amount = nano * measure.numerator // (measure.denominator * NANO) if found else -1
        if not 0 <= amount <= most:
            expected = f"0 to {most} in our unit" if found else "a number, 4.25"
            if not found and measure.denominator == 0:
                expected = "hours:minutes:seconds, 0:05:36"
            raise FieldError("not such a number", where=measure.place.name, expected=expected, actual=form_of(text))
        return amount

    def moments(self, clock: Clock, notes: list[str]) -> list[int]:
        """Return every moment that a clock's column can mean, none for null."""
        text, field = self.text(clock.place), clock.place.name
        if not text:
            return []
        if clock.form in CLOCKS:
            time_ms = self.amount(Measure(clock.place, *CLOCKS[clock.form]), TIME_MS_MAX)
            return [time_ms] if time_ms else []
        time: datetime = read_clock(text, clock.form, field)
        moments, skipped = readings_ms(time, clock.zone, field, next_day=clock.next_day)
        if skipped and SKIPPED not in notes:
            notes.append(SKIPPED)
        return moments

    def choice(self, place: Place | None, choices: type[Any]) -> Any:
        """Return the member of an enumeration that a place names, None for null."""
        text = self.text(place) if place is not None else ""
        if not text:
            return None
        try:
            return choices[text.upper()]
        except KeyError:
            known = ", ".join(choice.name.lower() for choice in choices)
            where = place.name if place is not None else ""
            raise FieldError("no such value", where=where, expected=known, actual=form_of(text)) from None


def _find(row: object, name: str) -> object:
    """Return the value of a column, or at a path of members and positions, None where there is none."""
    if not isinstance(row, dict):
        return None
    if name in row:
        return row[name]
    value: object = row
    for step in name.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isascii() and step.isdecimal() and len(step) < 5:
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value


def _times(mapping: CdrMapping, values: _Values, notes: list[str]) -> Times:
    """Return when the call was, by the clocks and spans of the mapping, and by what says whether it was answered."""
    setup, answer, end = (
        values.moments(mapping.clocks[name], notes) if name in mapping.clocks else []
        for name in ("setup", "answer", "end")
    )
    duration, talk = (
        values.amount(mapping.spans[name], TIME_MS_MAX) if name in mapping.spans else None
        for name in ("duration", "talk")
    )
    place = mapping.places.get("answered")
    answered = values.text(place) if place is not None else ""
    if answered not in ("", "true", "false"):
        raise FieldError("neither yes nor no", where="answered", expected="true or false, by a map")
    if answered == "false":
        answer, talk = [], None
    if answered == "true" and not answer and talk is None:
        raise FieldError("missing", where="answer", expected="the time of the answer, or talk, for an answered call")
    times = choose_times(setup, answer, end, (duration, talk), mapping.time_step_ms)
    # Answered, and over within the clock's step: the answer was at the end.
    return times._replace(answer_ms=times.end_ms) if answered == "true" and not times.answer_ms else times


def _quality(table: QualityMap, values: _Values) -> SourceQuality | None:
    """Return what an observer heard, None where there is no MOS."""
    mean = _mos_milli(table, "mos", values)
    if mean is None:
        return None

    def amount(name: str, most: int) -> int | None:
        return values.amount(table.measures[name], most) if name in table.measures else None

    worst, best = _mos_milli(table, "mos_min", values), _mos_milli(table, "mos_max", values)
    counts = {name: amount(name, U32_MAX) for name in COUNTERS}
    return SourceQuality(
        observer=table.observer,
        samples=counts["samples"] if "samples" in table.measures else 1,
        average=SourceReading(mean, amount("rtt", U32_MAX), amount("jitter", U32_MAX), amount("loss", 1_000_000), None),
        lowest=None if worst is None else SourceReading(worst, None, None, None, None),
        highest=None if best is None else SourceReading(best, None, None, None, None),
        method=table.method,
        band=table.band,
        kind=table.kind,
        r_milli=amount("r", 148_000),
        one_way_us=amount("one_way", U32_MAX),
        packets_expected=counts["packets_expected"] or 0,
        packets_lost=counts["packets_lost"] or 0,
        packets_discarded=counts["packets_discarded"] or 0,
        loss_events=counts["loss_events"] or 0,
    )


def _mos_milli(table: QualityMap, name: str, values: _Values) -> int | None:
    measure = table.measures.get(name)
    if measure is None:
        return None
    mos_milli = values.amount(measure, 5000)
    if mos_milli is not None and mos_milli < 1000:
        expected = f"1 to 5 after division by {measure.denominator}, or a null word for none"
        raise FieldError(
            "not a MOS", where=measure.place.name, expected=expected, actual=form_of(values.text(measure.place))
        )
    return mos_milli
