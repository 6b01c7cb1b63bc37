"""Reading of values that several adapters share: text, numbers, rows of CSV, times of a wall clock.

Pure: no I/O but for the time zone database, read when an adapter is made. Bad input raises FieldError or
EncodingError, never anything else.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import ROUND_HALF_UP, Decimal
from itertools import product
from typing import Any, Final
from zoneinfo import ZoneInfo

from ledger.cdr import ReleasedBy
from ledger.errors import ConfigError, EncodingError, FieldError
from telephony.adapters.base import (
    DOCUMENT_BYTES_MAX,
    TIME_MS_MAX,
    check_count,
    decimal_seconds_to_ms,
    decode_json,
    is_utf8,
    split_json,
)

NOT_TEXT: Final = "\ufffd"
"""What stands where a platform's bytes were no UTF-8."""

TEXT_BYTES_MAX: Final = 4096
"""Longest value that an adapter takes over; SIP limits none, but no Call-ID or URI that works is longer."""

ROW_LINES_MAX: Final = 16
"""Lines that quotes may hold together as one row; beyond that a quote was lost, and the next line begins afresh."""

ROW_VALUES_MIN: Final = 3
"""A line within quotes of another has no values in quotes of its own; so many, and it is a row."""

_INTEGER = re.compile(r"[0-9]{1,19}", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,19}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)
_EPOCH = re.compile(r"[0-9]{9,10}(?:\.[0-9]{1,9})?", re.ASCII)
_CALENDAR = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r" ?(Z|[+-][0-9]{2}:?[0-9]{2})?",
    re.ASCII,
)
_EPOCH_START: Final = datetime(1970, 1, 1, tzinfo=UTC)


def text_of(data: bytes) -> str:
    """Return UTF-8 text without a byte order mark; U+FFFD stands where it was none."""
    return data.decode("utf-8", "replace").removeprefix("\ufeff")


def split_json_lines(body: bytes) -> tuple[list[bytes], bool]:
    """Return the JSON documents in a body: one, an array of them, or one on each line.

    Text that is not UTF-8 is mended with U+FFFD first: one bad name must not cost a call. A line that is no JSON stays
    a document of its own, to be refused alone. Raises EncodingError for a body that is none of these.
    """
    mended = text_of(body).strip().encode()
    try:
        return split_json(mended)
    except EncodingError:
        lines = [line.strip() for line in mended.split(b"\n") if line.strip()]
        if mended.startswith(b"[") or not any(line[:1] == b"{" and line[-1:] == b"}" for line in lines[1:]):
            raise
    check_count(len(lines))
    return lines, True


def decode_object(document: bytes) -> dict[str, Any]:
    """Return one decoded JSON object. Raises EncodingError, or FieldError for JSON of another kind."""
    found = decode_json(document)
    if not isinstance(found, dict):
        raise FieldError("not a CDR", where="cdr", expected="a JSON object", actual=type(found).__name__)
    return found


def split_rows(body: bytes) -> list[bytes]:
    """Return the rows of a CSV file (RFC 4180), each as it came, without its line end; empty lines are left out.

    A row goes on over lines until its quotes are even. Where they do not become so within ROW_LINES_MAX lines, or a
    line comes that is a row itself, a quote is missing: the line stands alone, to be refused, and the next line begins
    a new row.
    """
    lines = body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").split(b"\n")
    rows: list[bytes] = []
    at = 0
    while at < len(lines):
        taken = _lines_of_row(lines[at : at + ROW_LINES_MAX])
        row = b"\n".join(lines[at : at + taken])
        if row.strip():
            rows.append(row)
        at += taken
    check_count(len(rows))
    return rows


def _lines_of_row(lines: list[bytes]) -> int:
    quotes = 0
    for count, line in enumerate(lines, 1):
        found = line.count(b'"')
        if quotes and found % 2 == 0 and line.count(b'",') >= ROW_VALUES_MIN:
            break
        quotes += found
        if quotes % 2 == 0:
            return count
    return 1


def read_row(document: bytes) -> tuple[list[str], str]:
    """Return the values of one row of CSV, and its text. Raises EncodingError for what is no such row."""
    if len(document) > DOCUMENT_BYTES_MAX:
        expected = f"at most {DOCUMENT_BYTES_MAX} bytes"
        raise EncodingError("too long", where="cdr", expected=expected, actual=len(document))
    text = text_of(document)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise EncodingError("not a row of CSV", where="cdr", expected="values between commas", actual=error) from None
    if len(rows) != 1:
        raise EncodingError("not one row of CSV", where="cdr", expected="one row", actual=len(rows))
    return rows[0], text


class Values:
    """The values of one document by name, as text; ``notes`` collects what of them was left out and why."""

    def __init__(self, values: Mapping[str, Any], notes: list[str], prefix: str = "") -> None:
        """Take over the texts and numbers of ``values``; lists and objects are not values."""
        self._values = {name: text for name, value in values.items() if (text := _as_text(value)) is not None}
        self._prefix = prefix
        self.notes = notes

    def where(self, name: str) -> str:
        """Return the path of a field, for errors."""
        return self._prefix + name

    def plain(self, name: str) -> str:
        """Return a field's text as it is, empty where it is missing or null. Raises FieldError where too long."""
        value = self._values.get(name, "")
        if len(value) > TEXT_BYTES_MAX // 4 and len(value.encode("utf-8", "replace")) > TEXT_BYTES_MAX:
            expected = f"at most {TEXT_BYTES_MAX} bytes"
            raise FieldError("too long", where=self.where(name), expected=expected, actual=f"{len(value)} characters")
        return value

    def text(self, *names: str) -> str:
        """Return the first of the fields that has a text; one that was not UTF-8 is left out with a note."""
        for name in names:
            value = self.plain(name)
            if NOT_TEXT in value or not is_utf8(value):
                self.notes.append(f"{self.where(name)} was not UTF-8 and is left out")
            elif value:
                return value
        return ""

    def required(self, *names: str) -> str:
        """Return the text of the first field that has one, mended where it was not UTF-8. Raises FieldError."""
        for name in names:
            value = self.plain(name)
            if value:
                return value if is_utf8(value) else value.encode("utf-8", "replace").decode()
        actual = "no such field" if names[0] not in self._values else "an empty string"
        raise FieldError("missing", where=self.where(names[0]), expected="text that is not empty", actual=actual)

    def integer(self, name: str, most: int, least: int = 0) -> int | None:
        """Return an integer, ``12`` or ``12.0``; None where it is unset. Raises FieldError."""
        value = self.plain(name).strip()
        if not value:
            return None
        whole = value.removesuffix(".0")
        if not _INTEGER.fullmatch(whole) or not least <= int(whole) <= most:
            expected = f"{least} to {most}"
            raise FieldError("not such a number", where=self.where(name), expected=expected, actual=value)
        return int(whole)

    def scaled(self, name: str, places: int, most: int) -> int | None:
        """Return a decimal number times ten to the power of ``places``, rounded half up; None where it is unset.

        Raises FieldError for no number, a negative one, or one over ``most`` when scaled.
        """
        value = self.plain(name).strip()
        if not value:
            return None
        found = scaled_of(value, places)
        if found is None or not 0 <= found <= most:
            expected = f"0 to {Decimal(most).scaleb(-places)}"
            raise FieldError("not such a number", where=self.where(name), expected=expected, actual=value)
        return found


def _as_text(value: object) -> str | None:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else None


def scaled_of(text: str, places: int) -> int | None:
    """Return a decimal number times ten to the power of ``places``, rounded half up; None for no number."""
    if not _DECIMAL.fullmatch(text):
        return None
    return int(Decimal(text).scaleb(places).to_integral_value(ROUND_HALF_UP))


def released_by_code(sip_code: int) -> ReleasedBy:
    """Return who ended an attempt that failed with ``sip_code``; 0 where the platform has none."""
    if sip_code == 487:
        return ReleasedBy.CALLER
    if sip_code in (480, 486, 600, 603):
        return ReleasedBy.CALLEE
    return ReleasedBy.NETWORK if sip_code else ReleasedBy.UNKNOWN


def zone_of(options: Mapping[str, Any], where: str) -> tzinfo:
    """Return the time zone of the option ``timezone``, UTC without it. Raises ConfigError for one there is not."""
    name = options.get("timezone", "UTC")
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, TypeError, AttributeError, LookupError):
        raise ConfigError(
            "no such time zone", where=f"{where}.timezone", expected="a name as Europe/Vienna", actual=name
        ) from None


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as a platform wrote it."""

    times_ms: tuple[int, ...]
    """UTC; two, the earlier first, in the hour that a clock shows twice when summer time ends."""
    step_ms: int
    """How exact: 1, 1000 or 60000."""


def read_moment(text: str, zone: tzinfo, where: str) -> Moment:
    """Return the moment of ``2026-11-21 12:30:05``, in ``zone`` unless it says its own, or of seconds since 1970.

    Raises FieldError for another form, a time that the zone's clocks never show, or one outside 1970 to 2099.
    """
    if _EPOCH.fullmatch(text):
        return Moment((decimal_seconds_to_ms(text, where),), 1 if "." in text else 1000)
    found = _CALENDAR.fullmatch(text)
    if not found:
        expected = "2026-11-21 12:30:05 or seconds since 1970"
        raise FieldError("not a time", where=where, expected=expected, actual=text)
    year, month, day, hour, minute = (int(part) for part in found.groups()[:5])
    second, fraction, offset = found[6], found[7], found[8]
    microsecond = int((fraction or "").ljust(6, "0")[:6])
    try:
        if not 1970 <= year <= 2099:
            raise ValueError("outside 1970 to 2099")  # noqa: TRY301 - one way out for every date there is not
        local = datetime(year, month, day, hour, minute, int(second or 0), microsecond, tzinfo=_zone(offset, zone))
        times_ms = _times_ms(local)
    except (ValueError, OverflowError) as error:
        raise FieldError(f"no such date: {error}", where=where, expected="1970 to 2099", actual=text) from None
    if not times_ms:
        hint = "The option timezone is not the platform's"
        raise FieldError("a time that clocks skip", where=where, expected=f"a time of {zone}", actual=text, hint=hint)
    return Moment(times_ms, 60_000 if second is None else 1 if fraction else 1000)


def _zone(offset: str | None, zone: tzinfo) -> tzinfo:
    if offset is None:
        return zone
    if offset == "Z":
        return UTC
    minutes = int(offset[1:3]) * 60 + int(offset[-2:])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))


def _times_ms(local: datetime) -> tuple[int, ...]:
    """Return every UTC time at which clocks show ``local``: none in the hour they skip, two in the one repeated."""
    found = set()
    for fold in (0, 1):
        utc = local.replace(fold=fold).astimezone(UTC)
        if utc.astimezone(local.tzinfo).replace(tzinfo=None, fold=0) == local.replace(tzinfo=None, fold=0):
            found.add((utc - _EPOCH_START) // timedelta(milliseconds=1))
    return tuple(sorted(time_ms for time_ms in found if 0 <= time_ms <= TIME_MS_MAX))


def choose_times(
    start: Moment, answer: Moment | None, end: Moment, duration_ms: int | None, talk_ms: int | None
) -> tuple[int, int, int, bool]:
    """Return start, answer (0 without one) and end in UTC milliseconds, and whether that was a guess.

    Where a clock showed a time twice, the reading is taken whose differences are those that the platform gives:
    ``duration_ms`` from start to end, ``talk_ms`` from answer to end. Where two fit equally, the earlier one, and it
    is a guess. Raises FieldError where no reading has the three in their order.
    """
    answers: Iterable[int] = answer.times_ms if answer else (0,)
    readings = [
        (start_ms, answer_ms, end_ms)
        for start_ms, answer_ms, end_ms in product(start.times_ms, answers, end.times_ms)
        if start_ms <= end_ms and (not answer or start_ms <= answer_ms <= end_ms)
    ]
    if not readings:
        actual = f"start {start.times_ms[0]}, answer {answer.times_ms[0] if answer else 0}, end {end.times_ms[-1]} ms"
        raise FieldError("times out of order", where="end", expected="start, then answer, then end", actual=actual)

    def misfit(reading: tuple[int, int, int]) -> int:
        start_ms, answer_ms, end_ms = reading
        whole = 0 if duration_ms is None else abs(end_ms - start_ms - duration_ms)
        return whole + (0 if talk_ms is None or not answer else abs(end_ms - answer_ms - talk_ms))

    readings.sort(key=misfit)
    is_guess = len(readings) > 1 and misfit(readings[0]) == misfit(readings[1])
    return *readings[0], is_guess
