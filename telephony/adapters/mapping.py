"""Mapping files: which column of somebody's CDRs is which fact of a call.

A mapping is TOML, written by the operator; everything in it is checked when it is read, and an error names the file,
the key, and what was expected. How to write one, and what each key means: docs/mapping.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from ledger.cdr import OCTETS_MAX, Band, Leg, MosKind, Observer, QualityMethod, ReleasedBy, Service
from ledger.errors import ConfigError
from ledger.models.explain import method_name
from telephony.adapters.base import COUNTER_MAX, U32_MAX
from telephony.adapters.clocks import zone_of

TEXTS: Final = ("call_id", "from_tag", "to_tag", "caller", "callee", "source_address", "codec")
INTEGERS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "invite_cseq": U32_MAX,
        "sip_code": 699,
        "q850_cause": 127,
        "caller_packets": COUNTER_MAX,
        "caller_octets": OCTETS_MAX,
        "callee_packets": COUNTER_MAX,
        "callee_octets": OCTETS_MAX,
    }
)
"""Whole numbers with the most that each may be."""
CHOICES: Final = MappingProxyType({"released_by": ReleasedBy, "leg": Leg, "service": Service})
METHODS: Final[Mapping[str, QualityMethod]] = MappingProxyType(
    {method_name(method): method for method in QualityMethod}
)
"""How people write them: ``g107.1``, ``rtpengine-13``."""
TIMES: Final = ("setup", "answer", "end")
SPANS: Final = ("duration", "talk")
"""From setup to end, and from answer to end."""
FIELDS: Final = (*TEXTS, *INTEGERS, *CHOICES, *TIMES, *SPANS, "answered")
UNANSWERED_FIELDS: Final = ("sip_code", "q850_cause", "released_by")
"""What may have another source for calls that nobody answered."""

CLOCKS: Final = MappingProxyType({"epoch": (1000, 1), "epoch-ms": (1, 1), "epoch-us": (1, 1000)})
"""Forms that count from 1970: to milliseconds, as a fraction."""
SPAN_UNITS: Final = MappingProxyType({"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "min": (60_000, 1)})
"""To milliseconds, as a fraction; ``h:m:s`` is read apart."""
DELAY_UNITS: Final = MappingProxyType({"ms": (1000, 1), "us": (1, 1), "s": (1_000_000, 1)})
"""To microseconds."""
LOSS_UNITS: Final = MappingProxyType(
    {
        "percent": (10_000, 1),
        "ratio": (1_000_000, 1),
        "ppm": (1, 1),
        "n/256": (1_000_000, 256),
    }
)
"""To parts per million."""
HOURS_MINUTES_SECONDS: Final = "h:m:s"
COUNTERS: Final = ("samples", "packets_expected", "packets_lost", "packets_discarded", "loss_events")
MEASURES: Final = ("mos", "mos_min", "mos_max", "rtt", "one_way", "jitter", "loss", "r", *COUNTERS)

_PLACE_KEYS: Final = ("column", "join", "constant", "map", "keep", "default", "null")
_TOP_KEYS: Final = (
    "format", "header", "columns", "skip_lines", "ragged", "delimiter", "quoting", "encoding", "null", "decimal_comma",
    "timezone", "time_step_ms", "call", "unanswered", "quality",
)  # fmt: skip
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value is from."""

    name: str
    """For messages: the field, with its columns."""
    columns: tuple[str, ...]
    """Names; in JSON also paths, ``a.b.0``. The first that is not null counts, or all of them where they are joined."""
    join: str | None
    constant: str | None
    words: Mapping[str, str]
    """What stands for what; keys in lower case."""
    keep: bool
    """Take a word that is not among ``words`` as it is."""
    default: str | None
    """For null, and for a word that is not among ``words``."""
    null: frozenset[str]


@dataclass(frozen=True, slots=True)
class Clock:
    """Where a time is from, and how to read it."""

    place: Place
    form: str
    """A key of CLOCKS, ``iso``, or a format as of strptime."""
    zone: tzinfo
    """For times that name none."""
    next_day: bool
    """Its date is the call's first: a time before the one it follows is on the next day."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Where a quantity is from, and what one of its units is in ours, as a fraction."""

    place: Place
    numerator: int
    denominator: int
    """0: hours, minutes and seconds with colons between them."""


@dataclass(frozen=True, slots=True)
class QualityMap:
    """Where the figures of one observer are from."""

    observer: Observer
    method: QualityMethod
    band: Band
    kind: MosKind
    measures: Mapping[str, Measure]


@dataclass(frozen=True, slots=True)
class CdrMapping:
    """A checked mapping file."""

    name: str
    is_json: bool
    header: bool
    columns: tuple[str, ...]
    skip_lines: int
    ragged: bool
    delimiter: str
    quoting: bool
    encoding: str
    decimal_comma: bool
    time_step_ms: int
    places: Mapping[str, Place]
    """Of texts, integers, choices, and ``answered``."""
    clocks: Mapping[str, Clock]
    spans: Mapping[str, Measure]
    unanswered: Mapping[str, Place]
    qualities: tuple[QualityMap, ...]


def preset_names() -> list[str]:
    """Return the mappings that ship."""
    folder = files("telephony.adapters") / "mappings"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def preset_text(name: str) -> str:
    """Return a mapping that ships. Raises ConfigError."""
    if name not in preset_names():
        raise ConfigError("no such preset", where=name, expected=", ".join(preset_names()))
    return (files("telephony.adapters") / "mappings" / f"{name}.toml").read_text("utf-8")


def parse_mapping(name: str, text: str, where: str, timezone: str | None = None) -> CdrMapping:
    """Return the mapping that ``text`` is.

    name: the last part of the path that takes its documents. where: the file, for messages.
    timezone: stands before the file's own.
    Raises ConfigError naming file, key, and what was expected.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError("not a name", where=where, expected="lower-case letters, digits, hyphens", actual=name)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("not TOML", where=where, actual=error) from None
    return _Reader(where, table, timezone).mapping(name)


class _Reader:
    """Reads one mapping; knows the file's defaults."""

    def __init__(self, where: str, table: dict[str, Any], timezone: str | None) -> None:
        self._where = where
        self._table = table
        self._check_keys(table, _TOP_KEYS, "")
        self._null = frozenset(self._words(table.get("null", [""]), "null")) | {""}
        self._zone = self._zone_of(timezone or table.get("timezone", "UTC"), "timezone")

    def mapping(self, name: str) -> CdrMapping:
        table, call = self._table, self._subtable("call", FIELDS)
        is_json = self._choice(table, "format", ("csv", "json"), "csv", "format") == "json"
        columns = tuple(self._words(table.get("columns", []), "columns"))
        header = self._flag(table, "header", default=not columns)
        if len({column.lower() for column in columns}) != len(columns):
            raise self._error("columns", "a name stands twice", expected="each once")
        places = {field: self._place(field, call[field], f"call.{field}") for field in call if self._is_plain(field)}
        unanswered = self._subtable("unanswered", UNANSWERED_FIELDS)
        mapping = CdrMapping(
            name=name,
            is_json=is_json,
            header=header,
            columns=columns,
            skip_lines=self._number("skip_lines", 0, 0, 100),
            ragged=self._flag(table, "ragged", default=not header and not columns),
            delimiter=self._delimiter(),
            quoting=self._flag(table, "quoting", default=True),
            encoding=self._choice(table, "encoding", ("utf-8", "latin-1", "cp1252"), "utf-8", "encoding"),
            decimal_comma=self._flag(table, "decimal_comma", default=False),
            time_step_ms=self._number("time_step_ms", 1000, 1, 3_600_000),
            places=places,
            clocks={field: self._clock(field, call[field]) for field in TIMES if field in call},
            spans={field: self._span(field, call[field]) for field in SPANS if field in call},
            unanswered={field: self._place(field, unanswered[field], f"unanswered.{field}") for field in unanswered},
            qualities=self._qualities(),
        )
        self._check_whole(mapping)
        return mapping

    @staticmethod
    def _is_plain(field: str) -> bool:
        return field not in TIMES and field not in SPANS

    def _check_whole(self, mapping: CdrMapping) -> None:
        """Raise ConfigError for a mapping that can never give a call, or names a column there is not."""
        if "call_id" not in mapping.places:
            raise self._error("call.call_id", "missing", expected="the column that identifies the call")
        times, spans = set(mapping.clocks), set(mapping.spans)
        has_end = "end" in times or {"setup", "duration"} <= times | spans or {"answer", "talk"} <= times | spans
        has_setup = "setup" in times or "answer" in times or {"end", "duration"} <= times | spans
        if not has_end or not has_setup:
            expected = "setup and end; one of them may be left to duration, or talk beside answer"
            raise self._error("call", "the call's times are not known", expected=expected)
        if mapping.header or mapping.is_json or not mapping.columns:
            return
        for place in _places_of(mapping):
            for column in place.columns:
                if column not in mapping.columns:
                    expected = ", ".join(mapping.columns)
                    raise self._error(place.name, "no such column", expected=expected, actual=column)

    def _place(self, field: str, value: Any, key: str, more: tuple[str, ...] = ()) -> Place:
        """Return where a field is from: a column's name or number, or a table."""
        table = {"column": value} if isinstance(value, str | int) and not isinstance(value, bool) else value
        if not isinstance(table, dict):
            raise self._error(
                key, "not a source", expected="a column, or a table with column or constant", actual=value
            )
        self._check_keys(table, (*_PLACE_KEYS, *more), key)
        if ("column" in table) == ("constant" in table):
            raise self._error(key, "no source, or two", expected="either column or constant")
        raw_columns = table.get("column", [])
        raw_columns = raw_columns if isinstance(raw_columns, list) else [raw_columns]
        columns = tuple(str(column) for column in self._words(raw_columns, f"{key}.column"))
        if "column" in table and not all(columns):
            raise self._error(f"{key}.column", "no name", expected="a column's name or number")
        if "join" in table and not isinstance(table["join"], str):
            raise self._error(f"{key}.join", "not text", actual=table["join"])
        words = table.get("map", {})
        if not isinstance(words, dict) or ("map" in table and not words):
            raise self._error(f"{key}.map", "not a table", expected="{ word = value }", actual=words)
        place = Place(
            name=f"{field} ({', '.join(columns)})" if columns else field,
            columns=columns,
            join=table.get("join"),
            constant=self._scalar(table, "constant", key),
            words={str(word).lower(): self._text(meaning, f"{key}.map.{word}") for word, meaning in words.items()},
            keep=self._flag(table, "keep", default=not words, key=key),
            default=self._scalar(table, "default", key),
            null=self._null | frozenset(self._words(table.get("null", []), f"{key}.null")),
        )
        self._check_values(field, place, key)
        return place

    def _check_values(self, field: str, place: Place, key: str) -> None:
        """Raise ConfigError for a constant, a default, or a meaning that the field cannot have."""
        for value in (place.constant, place.default, *place.words.values()):
            if value is None:
                continue
            if field in CHOICES or field == "answered":
                known = ("true", "false") if field == "answered" else [choice.name.lower() for choice in CHOICES[field]]
                if value not in known:
                    raise self._error(key, "no such value", expected=", ".join(known), actual=value)
            elif field in INTEGERS and not (value.isascii() and value.isdecimal() and int(value) <= INTEGERS[field]):
                raise self._error(key, "not such a number", expected=f"0 to {INTEGERS[field]}", actual=value)

    def _clock(self, field: str, value: Any) -> Clock:
        key = f"call.{field}"
        if not isinstance(value, dict) or not isinstance(value.get("time"), str):
            expected = 'a table with column and time: "epoch", "epoch-ms", "epoch-us", "iso", or "%Y-%m-%d %H:%M:%S"'
            raise self._error(key, "no form of the time", expected=expected, actual=value)
        place = self._place(field, value, key, ("time", "timezone", "next_day"))
        form = value["time"]
        if form not in CLOCKS and form != "iso" and "%" not in form:
            expected = "epoch, epoch-ms, epoch-us, iso, or a format with %"
            raise self._error(f"{key}.time", "no such form", expected=expected, actual=form)
        next_day = self._flag(value, "next_day", default=False, key=key)
        if next_day and field == "setup":
            raise self._error(f"{key}.next_day", "the setup follows nothing", expected="on answer or end")
        zone = self._zone_of(value["timezone"], f"{key}.timezone") if "timezone" in value else self._zone
        return Clock(place, form, zone, next_day)

    def _span(self, field: str, value: Any) -> Measure:
        return self._measure(field, value, f"call.{field}", {**SPAN_UNITS, HOURS_MINUTES_SECONDS: (1000, 0)}, "s")

    def _measure(self, field: str, value: Any, key: str, units: Mapping[str, tuple[int, int]], default: str) -> Measure:
        place = self._place(field, value, key, ("unit",))
        table = value if isinstance(value, dict) else {}
        unit = self._choice(table, "unit", tuple(units), default, f"{key}.unit")
        return Measure(place, *units[unit])

    def _qualities(self) -> tuple[QualityMap, ...]:
        tables = self._table.get("quality", [])
        if not isinstance(tables, list):
            raise self._error("quality", "not a list", expected="[[quality]] with two brackets", actual=tables)
        found = tuple(self._quality(table, f"quality.{index}") for index, table in enumerate(tables, 1))
        observers = [quality.observer for quality in found]
        if len(set(observers)) != len(observers):
            raise self._error("quality", "an observer has two tables", expected="one each")
        return found

    def _quality(self, table: dict[str, Any], key: str) -> QualityMap:
        self._check_keys(table, ("observer", "method", "band", "kind", *MEASURES), key)
        if "mos" not in table:
            raise self._error(f"{key}.mos", "missing", expected="the column with the MOS")
        measures: dict[str, Measure] = {}
        for name in MEASURES:
            if name not in table:
                continue
            value, where = table[name], f"{key}.{name}"
            if name in ("rtt", "one_way", "jitter"):
                measures[name] = self._measure(name, value, where, DELAY_UNITS, "ms")
            elif name == "loss":
                measures[name] = self._measure(name, value, where, LOSS_UNITS, "percent")
            elif name in COUNTERS:
                measures[name] = Measure(self._place(name, value, where), 1, 1)
            else:
                measures[name] = self._score(name, value, where)
        return QualityMap(
            observer=Observer[self._enum(table, "observer", Observer, "both", key)],
            method=METHODS[self._choice(table, "method", tuple(METHODS), "measured", f"{key}.method")],
            band=Band[self._enum(table, "band", Band, "narrowband", key)],
            kind=MosKind[self._enum(table, "kind", MosKind, "cq", key)],
            measures=measures,
        )

    def _score(self, name: str, value: Any, key: str) -> Measure:
        """Return a MOS or R in thousandths; ``scale`` says how many of the column's points are one of ours."""
        place = self._place(name, value, key, ("scale",))
        scale = value.get("scale", 1) if isinstance(value, dict) else 1
        if not isinstance(scale, int) or isinstance(scale, bool) or not 1 <= scale <= 1000:
            raise self._error(f"{key}.scale", "no such scale", expected="1 to 1000: 20 for 0 to 100", actual=scale)
        return Measure(place, 1000, scale)

    def _enum(self, table: dict[str, Any], name: str, choices: Any, default: str, key: str) -> str:
        known = tuple(choice.name.lower() for choice in choices)
        return self._choice(table, name, known, default, f"{key}.{name}").upper()

    def _subtable(self, name: str, fields: tuple[str, ...]) -> dict[str, Any]:
        table = self._table.get(name, {})
        if not isinstance(table, dict):
            raise self._error(name, "not a table", expected=f"[{name}]", actual=table)
        self._check_keys(table, fields, name)
        return table

    def _check_keys(self, table: Any, known: tuple[str, ...], key: str) -> None:
        if not isinstance(table, dict):
            raise self._error(key, "not a table", actual=table)
        for name in table:
            if name not in known:
                raise self._error(f"{key}.{name}".lstrip("."), "unknown key", expected=", ".join(known))

    def _choice(self, table: dict[str, Any], name: str, known: tuple[str, ...], default: str, key: str) -> str:
        value = table.get(name, default)
        if value not in known:
            raise self._error(key, "not a choice", expected=", ".join(known), actual=value)
        return str(value)

    def _flag(self, table: dict[str, Any], name: str, *, default: bool, key: str = "") -> bool:
        value = table.get(name, default)
        if not isinstance(value, bool):
            raise self._error(f"{key}.{name}".lstrip("."), "not a switch", expected="true or false", actual=value)
        return value

    def _number(self, name: str, default: int, least: int, most: int) -> int:
        value = self._table.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._error(name, "not such a number", expected=f"{least} to {most}", actual=value)
        return value

    def _delimiter(self) -> str:
        value = self._table.get("delimiter", ",")
        if not isinstance(value, str) or len(value) != 1 or not value.isascii() or value in '"\r\n':
            raise self._error("delimiter", "no such delimiter", expected="one ASCII character", actual=value)
        return value

    def _words(self, value: Any, key: str) -> list[str]:
        if not isinstance(value, list):
            raise self._error(key, "not a list", actual=value)
        return [self._text(word, key) for word in value]

    def _scalar(self, table: dict[str, Any], name: str, key: str) -> str | None:
        return self._text(table[name], f"{key}.{name}") if name in table else None

    def _text(self, value: Any, key: str) -> str:
        """Return text, a number or a truth value as the text that a column would have."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if not isinstance(value, str | int):
            raise self._error(key, "not a value", expected="text, a whole number, true or false", actual=value)
        return str(value)

    def _zone_of(self, value: Any, key: str) -> tzinfo:
        return zone_of(value, f"{self._where}: {key}")

    def _error(self, key: str, what: str, *, expected: str = "", actual: object = "") -> ConfigError:
        return ConfigError(what, where=f"{self._where}: {key}", expected=expected, actual=actual)


def _places_of(mapping: CdrMapping) -> list[Place]:
    return [
        *mapping.places.values(),
        *mapping.unanswered.values(),
        *(clock.place for clock in mapping.clocks.values()),
        *(span.place for span in mapping.spans.values()),
        *(measure.place for quality in mapping.qualities for measure in quality.measures.values()),
    ]
