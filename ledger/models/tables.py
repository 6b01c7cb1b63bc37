"""The pinned tables: codecs, delay impairment, network energy, and the carbon intensity of grids.

They are data that ships with the program (``tables/*.csv``; sources and licences in ``tables/SOURCES.md``),
parsed once at import; a lookup is one dict hit. Two nodes must hold the same tables to reach the same
verdict, so each has an id and a hash over its canonical form, ``H("table", [id, basis, columns, rows])``
with the rows sorted; comments on sources are not part of it. Genesis names the hashes in force, and
``verify_tables`` compares what was loaded with what this release pins. A table never changes under its id:
newer figures get a new id.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from ledger.errors import ConfigError

TABLE_ROWS_MAX: Final = 10_000
"""No table has more rows; a longer file is damaged."""

BASES: Final = ("lifecycle", "direct")
"""What a carbon intensity counts: the whole life of the plant and its fuel, or the stack alone."""

NO_BASIS: Final = "none"
"""The basis of a table that says nothing about carbon."""


class Codec(NamedTuple):
    """One row of the codec registry: a codec, how it conceals losses, and its packet time."""

    row: int
    """What a record carries, 0 to 65535."""
    name: str
    """RTP encoding name, with the rate where the name alone leaves it open."""
    concealment: str
    """``plc``, ``none``, or empty where it does not apply."""
    packet_us: int
    """Packet time in microseconds; 0 where packets have no fixed time."""
    ie_milli: int | None
    """1000 x the equipment impairment Ie of G.113; None: not known well enough."""
    bpl_milli: int | None
    """1000 x the packet-loss robustness Bpl of G.113; None: not known well enough."""
    payload_octets: int
    """RTP payload octets in a packet at constant rate; 0 where they vary."""
    clock_hz: int
    """RTP clock rate; 0 where there is none."""
    band: str
    """N, W or F (P.800.1); empty where there is no voice."""
    grade: str
    """A (cross-checked) to D (conflicting or absent): how well Ie and Bpl are known."""

    @property
    def is_ratable(self) -> bool:
        """Whether the E-model can rate it: narrowband, both values known, grade A or B."""
        return (
            self.grade in {"A", "B"}
            and self.band == "N"
            and self.ie_milli is not None
            and self.bpl_milli is not None
        )


class NetworkFactor(NamedTuple):
    """What one method and boundary of network energy cost."""

    base_mw: int
    """Power of a line while the call lasts, in milliwatts."""
    mwh_per_gb: int
    """Average energy in milliwatt-hours for 10^9 octets."""
    nj_per_bit: int
    """Marginal energy in nanojoules for a bit (0.03 W per Mbit/s are 30 nJ)."""


@dataclass(frozen=True, slots=True)
class Table:
    """Name and hash of a table, as genesis pins it."""

    table_id: str
    basis: str
    """``lifecycle`` or ``direct`` for carbon intensity, ``none`` for anything else."""
    row_count: int
    table_hash: bytes
    """SHA-256, 32 bytes."""


_Row = tuple[int | str | None, ...]


def _read(name: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the rows of ``tables/<name>``; raises ConfigError if it is not the file that ships."""
    where = f"ledger/models/tables/{name}"
    try:
        with (files("ledger.models") / "tables" / name).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            found = tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        hint = "Install the program again."
        raise ConfigError("A table cannot be read", where=where, actual=error, hint=hint) from error
    if found != columns:
        raise ConfigError("A table has other columns", where=where, expected=columns, actual=found)
    if not 0 < len(rows) <= TABLE_ROWS_MAX or any(None in row or None in row.values() for row in rows):
        raise ConfigError("A table has torn rows", where=where, expected=f"{len(columns)} values a row")
    return rows


def _integer(text: str, name: str) -> int:
    """Return ``text`` as a non-negative integer; raises ConfigError naming the table."""
    if not text.isascii() or not text.isdigit():
        where = f"ledger/models/tables/{name}"
        raise ConfigError("A table holds something else than a count", where=where, actual=repr(text))
    return int(text)


def hash_table(table_id: str, basis: str, columns: tuple[str, ...], rows: Iterable[_Row]) -> bytes:
    """Return the 32-byte hash of a table's canonical form, independent of the order of its rows.

    Rows are sorted by their first two values, which name them.
    Source: docs/protocol.md, "Hashes, keys, signatures", tag ``table``.
    """
    ordered = sorted(rows, key=lambda row: (row[0], row[1]))
    return sha256(b"ledgerd/table/1\0" + msgspec.msgpack.encode([table_id, basis, columns, ordered])).digest()


_CODEC_COLUMNS: Final = (*Codec._fields, "source")
_FACTOR_COLUMNS: Final = ("method", "boundary", *NetworkFactor._fields, "year", "source")
_GRID_COLUMNS: Final = ("table", "zone", "year", "mg_per_kwh")
_IDD_COLUMNS: Final = ("ta_ms", "idd_milli")
_GRID_FILES: Final = (
    ("grid_ember.csv", "lifecycle"),
    ("grid_egrid.csv", "direct"),
    ("grid_desnz.csv", "direct"),
)


def _load_codecs() -> dict[int, Codec]:
    name = "codecs.csv"
    codecs = {}
    for row in _read(name, _CODEC_COLUMNS):
        codec = Codec(
            row=_integer(row["row"], name),
            name=row["name"],
            concealment=row["concealment"],
            packet_us=_integer(row["packet_us"], name),
            ie_milli=_integer(row["ie_milli"], name) if row["ie_milli"] else None,
            bpl_milli=_integer(row["bpl_milli"], name) if row["bpl_milli"] else None,
            payload_octets=_integer(row["payload_octets"], name),
            clock_hz=_integer(row["clock_hz"], name),
            band=row["band"],
            grade=row["grade"],
        )
        codecs[codec.row] = codec
    return codecs


def _load_factors() -> dict[tuple[str, str], NetworkFactor]:
    name = "network_factors.csv"
    return {
        (row["method"], row["boundary"]): NetworkFactor(
            *(_integer(row[column], name) for column in NetworkFactor._fields)
        )
        for row in _read(name, _FACTOR_COLUMNS)
    }


def _load_grids() -> tuple[dict[tuple[str, str], int], dict[str, str]]:
    """Return intensity by (table, zone) and basis by table."""
    intensity: dict[tuple[str, str], int] = {}
    bases: dict[str, str] = {}
    for name, basis in _GRID_FILES:
        for row in _read(name, _GRID_COLUMNS):
            bases[row["table"]] = basis
            intensity[row["table"], row["zone"]] = _integer(row["mg_per_kwh"], name)
    return intensity, bases


def load_idd_milli() -> tuple[int, ...]:
    """Return G.107's delay impairment Idd in thousandths of R at 0, 1, 2 ... 2000 ms one way."""
    name = "g107_idd.csv"
    rows = [(_integer(r["ta_ms"], name), _integer(r["idd_milli"], name)) for r in _read(name, _IDD_COLUMNS)]
    if [ms for ms, _ in rows] != list(range(2001)):
        raise ConfigError("A table has other rows", where=f"ledger/models/tables/{name}", expected="0..2000 ms")
    return tuple(idd for _, idd in rows)


CODECS: Final[Mapping[int, Codec]] = MappingProxyType(_load_codecs())
"""The codec registry by row."""

NETWORK_FACTORS: Final[Mapping[tuple[str, str], NetworkFactor]] = MappingProxyType(_load_factors())
"""Network energy by (method, boundary); ``metered`` has none, its figure is what the meter said."""

_intensity, _bases = _load_grids()

INTENSITY_MG_PER_KWH: Final[Mapping[tuple[str, str], int]] = MappingProxyType(_intensity)
"""Milligrams of CO2 equivalent for a kilowatt-hour, by (table, grid zone).

Zones are ISO 3166 codes: a country (``NO``) or its subdivision (``US-CA``).
"""


def _table(table_id: str, basis: str, columns: tuple[str, ...], rows: list[_Row]) -> Table:
    return Table(table_id, basis, len(rows), hash_table(table_id, basis, columns, rows))


def _tables() -> dict[str, Table]:
    tables = [
        _table("g107-idd-2015", NO_BASIS, _IDD_COLUMNS, list(enumerate(load_idd_milli()))),
        _table("codecs-1", NO_BASIS, Codec._fields, [tuple(codec) for codec in CODECS.values()]),
        _table(
            "network-1",
            NO_BASIS,
            ("method", "boundary", *NetworkFactor._fields),
            [(*key, *factor) for key, factor in NETWORK_FACTORS.items()],
        ),
    ]
    for table_id, basis in _bases.items():
        rows: list[_Row] = [(zone, mg) for (table, zone), mg in _intensity.items() if table == table_id]
        tables.append(_table(table_id, basis, ("zone", "mg_per_kwh"), rows))
    return {table.table_id: table for table in tables}


TABLES: Final[Mapping[str, Table]] = MappingProxyType(_tables())
"""Every table that was loaded, by id."""

PINNED_HASHES: Final[Mapping[str, str]] = MappingProxyType(
    {
    }
)
"""SHA-256 in hex that each table of this release must have."""


def verify_tables() -> None:
    """Compare the tables loaded with those this release pins; raises ConfigError naming the first that differs."""
    for table_id in sorted({*TABLES, *PINNED_HASHES}):
        actual = TABLES[table_id].table_hash.hex() if table_id in TABLES else "no such table"
        expected = PINNED_HASHES.get(table_id, "no such table")
        if actual != expected:
            raise ConfigError(
                "A table is not the one this release ships",
                where=f"table {table_id}",
                expected=expected,
                actual=actual,
                hint="Install the program again; a changed figure needs a new table id.",
            )
