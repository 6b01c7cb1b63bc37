"""Times as PBXes write them: local, without a zone, with the date apart, in minutes; and how a call's are put together.

``read_moment`` reads the forms that tell themselves what they are, ``read_clock`` one that a mapping names.

A local time has two readings in the hour that a clock goes back, and a time of day without its date has one for each
day. All readings are tried, and one rule chooses: the reading that agrees with the durations the platform gives; if
that does not decide, the shortest call; if that does not, the earlier one. A local time that the clock skipped is read
with the offset before the change, and noted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import product
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from ledger.errors import ConfigError, FieldError
from telephony.adapters.base import TIME_MS_MAX, decimal_seconds_to_ms
from telephony.adapters.rows import form_of

_SECONDS: Final = re.compile(r"[0-9]{9,10}(?:\.[0-9]{1,9})?", re.ASCII)
_CALENDAR: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r" ?(Z|[+-][0-9]{2}:?[0-9]{2})?",
    re.ASCII,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_DAY: Final = timedelta(days=1)


class Times(NamedTuple):
    """When a call began, was answered (0: never) and ended, in milliseconds since 1970."""

    setup_ms: int
    answer_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as a platform wrote it."""

    times_ms: tuple[int, ...]
    """UTC; two, the earlier first, in the hour that a clock shows twice when summer time ends."""
    step_ms: int
    """How exact: 1, 1000 or 60000."""


def zone_of(name: object, where: str) -> tzinfo:
    """Return a time zone by its name. Raises ConfigError for one there is not."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError, AttributeError, LookupError):
        expected = "an IANA name, Europe/Vienna"
        raise ConfigError("no such time zone", where=where, expected=expected, actual=name) from None


def read_moment(text: str, zone: tzinfo, field: str) -> Moment:
    """Return the moment of ``2026-11-21 12:30:05``, in ``zone`` unless it says its own, or of seconds since 1970.

    Raises FieldError for another form, a time that the zone's clocks never show, or one outside 1970 to 2099.
    """
    if _SECONDS.fullmatch(text):
        return Moment((decimal_seconds_to_ms(text, field),), 1 if "." in text else 1000)
    found = _CALENDAR.fullmatch(text)
    if not found:
        expected = "2026-11-21 12:30:05 or seconds since 1970"
        raise FieldError("not a time", where=field, expected=expected, actual=text)
    year, month, day, hour, minute = (int(part) for part in found.groups()[:5])
    second, fraction, offset = found[6], found[7], found[8]
    microsecond = int((fraction or "").ljust(6, "0")[:6])
    try:
        if not 1970 <= year <= 2099:
            raise ValueError("outside 1970 to 2099")  # noqa: TRY301 - one way out for every date there is not
        time = datetime(year, month, day, hour, minute, int(second or 0), microsecond, tzinfo=_offset_of(offset))
    except (ValueError, OverflowError) as error:
        raise FieldError(f"no such date: {error}", where=field, expected="1970 to 2099", actual=text) from None
    times_ms, is_skipped = readings_ms(time, zone, field)
    if is_skipped:
        hint = "The option timezone is not the platform's"
        raise FieldError("a time that clocks skip", where=field, expected=f"a time of {zone}", actual=text, hint=hint)
    return Moment(tuple(times_ms), 60_000 if second is None else 1 if fraction else 1000)


def _offset_of(text: str | None) -> tzinfo | None:
    """Return the zone of ``Z`` or ``+01:00``, None for none. Raises ValueError for one beyond a day."""
    if text is None or text == "Z":
        return None if text is None else UTC
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def read_clock(text: str, form: str, field: str) -> datetime:
    """Return what ``text`` says: with a zone where it names one.

    form: ``iso``, or a format as of strptime.
    Raises FieldError for text that is not of that form.
    """
    try:
        return datetime.fromisoformat(text) if form == "iso" else datetime.strptime(text, form)  # noqa: DTZ007 - the zone comes from the mapping
    except (ValueError, OverflowError):
        expected = "ISO 8601" if form == "iso" else form
        raise FieldError("not a time of that form", where=field, expected=expected, actual=form_of(text)) from None


def readings_ms(time: datetime, zone: tzinfo, field: str, *, next_day: bool = False) -> tuple[list[int], bool]:
    """Return every moment that a clock's time can mean, and whether the clock skipped it.

    zone: for a time that names none. next_day: its date may be the day before its own.
    Raises FieldError for one before 1970 or after 2099.
    """
    try:
        if time.tzinfo is not None:
            return [_since_epoch(time, field)], False
        found: set[int] = set()
        skipped = False
        for local in (time, time + _DAY) if next_day else (time,):
            first, second = (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
            found.add(_since_epoch(first, field))
            if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
                skipped = skipped or local is time
            else:
                found.add(_since_epoch(second, field))
    except OverflowError:
        raise FieldError("no such time", where=field, expected="1970 to 2099", actual=time) from None
    return sorted(found), skipped


def _since_epoch(time: datetime, field: str) -> int:
    time_ms = (time - _EPOCH) // _MILLISECOND
    if not 0 <= time_ms <= TIME_MS_MAX:
        raise FieldError("no such time", where=field, expected="1970 to 2099", actual=time)
    return time_ms


def choose_times(
    setup: Sequence[int], answer: Sequence[int], end: Sequence[int], spans: tuple[int | None, int | None], step_ms: int
) -> Times:
    """Return the times of a call from all readings of each; an empty sequence where the platform has none.

    spans: milliseconds from setup to end, and from answer to end. What is missing follows from them.
    step_ms: how exact the times are; what is out of order by less than that is put at the same moment.
    Raises FieldError where no reading gives a call.
    """
    return choose_reading(setup, answer, end, spans, step_ms)[0]


def choose_reading(
    setup: Sequence[int],
    answer: Sequence[int],
    end: Sequence[int],
    spans: tuple[int | None, int | None],
    step_ms: int,
    where: str = "setup, answer, end",
) -> tuple[Times, bool]:
    """Return what ``choose_times`` does, and whether that is a guess: the spans fit another reading as well.

    where: the field that is named where no reading gives a call.
    """
    found: dict[Times, tuple[int, ...]] = {}
    for moments in product(setup or (None,), answer or (None,), end or (None,)):
        times = _complete(*moments, *spans, step_ms)
        if times is not None:
            found[times] = _rank(times, *spans)
    if not found:
        if (not setup and not answer) or (not end and spans == (None, None)):
            raise FieldError("missing", where="setup, end", expected="two of setup, end and duration")
        named = (("setup", setup), ("answer", answer), ("end", end))
        shown = (f"{name} {times_ms[0]}" for name, times_ms in named if times_ms)
        actual = f"{', '.join(shown)} ms"
        raise FieldError("out of order", where=where, expected="setup, then answer, then end", actual=actual)
    best, *others = sorted(found, key=lambda times: found[times])
    return best, any(found[other][0] == found[best][0] for other in others)


def _complete(
    setup: int | None, answer: int | None, end: int | None, duration: int | None, talk: int | None, step_ms: int
) -> Times | None:
    """Return the times with what was missing, None where they cannot be known or are out of order."""
    if end is None:
        if setup is not None and duration is not None:
            end = setup + duration
        elif answer is not None and talk is not None:
            end = answer + talk
        else:
            return None
    if setup is None:
        setup = end - duration if duration is not None else answer
    if setup is None:
        return None
    if answer is None and talk:
        answer = end - talk
    if end < setup <= end + step_ms - 1:
        end = setup
    if answer is None:
        return Times(setup, 0, end) if setup <= end else None
    if answer < setup <= answer + step_ms - 1:
        answer = setup
    if end < answer <= end + step_ms - 1:
        end = answer
    return Times(setup, answer, end) if 0 < setup <= answer <= end else None


def _rank(times: Times, duration: int | None, talk: int | None) -> tuple[int, ...]:
    """Return how unlikely a reading is, as the module says."""
    length = times.end_ms - times.setup_ms
    off = abs(length - duration) if duration is not None else 0
    if talk is not None and times.answer_ms:
        off += abs(times.end_ms - times.answer_ms - talk)
    return off, length, times.setup_ms
