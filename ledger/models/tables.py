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
from importlib.resources import files
from types import MappingProxyType
from typing import Final, NamedTuple

from ledger.cdr import Boundary, EnergyMethod
from ledger.crypto import hash_of
from ledger.errors import ConfigError

_INSTALL_AGAIN: Final = "Install the program again; a changed figure needs a new table id"

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
            self.grade in {"A", "B"} and self.band == "N" and self.ie_milli is not None and self.bpl_milli is not None
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


def _path(name: str) -> str:
    return f"ledger/models/tables/{name}"


def _read(name: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the rows of ``tables/<name>``; raises ConfigError if it is not the file that ships."""
    where = _path(name)
    try:
        text = files("ledger.models").joinpath("tables", name).read_text(encoding="utf-8")
        reader = csv.DictReader(text.splitlines())
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError("a table cannot be read", where=where, actual=error, hint=_INSTALL_AGAIN) from error
    found = tuple(reader.fieldnames or ())
    if found != columns:
        raise ConfigError("a table has other columns", where=where, expected=columns, actual=found)
    if not 0 < len(rows) <= TABLE_ROWS_MAX or any(None in row or None in row.values() for row in rows):
        raise ConfigError("a table has torn rows", where=where, expected=f"{len(columns)} values a row")
    return rows


def _integer(text: str, name: str) -> int:
    """Return ``text`` as a non-negative integer; raises ConfigError naming the table."""
    if not text.isascii() or not text.isdigit():
        raise ConfigError("a table holds something else than a count", where=_path(name), actual=repr(text))
    return int(text)


def hash_table(table_id: str, basis: str, columns: tuple[str, ...], rows: Iterable[_Row]) -> bytes:
    """Return the 32-byte hash of a table's canonical form, independent of the order of its rows.

    Rows are sorted by their first two values, which name them.
    Source: docs/protocol.md, "Hashes, keys, signatures", tag ``table``.
    """
    ordered = sorted(rows, key=lambda row: (row[0], row[1]))
    return hash_of("table", (table_id, basis, columns, ordered))


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


def _load_factors() -> dict[tuple[EnergyMethod, Boundary], NetworkFactor]:
    name = "network_factors.csv"
    factors = {}
    for row in _read(name, _FACTOR_COLUMNS):
        try:
            key = EnergyMethod[row["method"].upper()], Boundary[row["boundary"].upper()]
        except KeyError as error:
            raise ConfigError("a table names what is not there", where=_path(name), actual=error) from None
        factors[key] = NetworkFactor(*(_integer(row[column], name) for column in NetworkFactor._fields))
    return factors


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
        raise ConfigError("a table has other rows", where=_path(name), expected="0..2000 ms")
    return tuple(idd for _, idd in rows)


CODECS: Final[Mapping[int, Codec]] = MappingProxyType(_load_codecs())
"""The codec registry by row."""

NETWORK_FACTORS: Final[Mapping[tuple[EnergyMethod, Boundary], NetworkFactor]] = MappingProxyType(_load_factors())
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
            [(int(key[0]), int(key[1]), *factor) for key, factor in NETWORK_FACTORS.items()],
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
        "g107-idd-2015": "21857bd08b1ab52fbfe4f5336325c4c82689ccd6a90141fd86ca7b57c472fce0",
        "codecs-1": "87b606b3b4b4f8f7bcfbe8b328e85082ec43a75e04228b8839af5c8536aa538a",
        "network-1": "6736e11908b404277dc524bbca1a38c12de9cfe972c3bbc98287cfdf78801c89",
        "ember-2026": "0b919dbd9e0369af8e791f98220e8109df897a9ce3f609c2cae3ee6ad9e938ca",
        "egrid-2023": "a0a773101a3069dac258dab86d29f098a3841547d6852e49519802179a2610a6",
        "desnz-2014": "dc9883b2e46c72cfc2f2f8d8fd1480cd7eb25dac1c4af84de113753a5dde7d15",
        "desnz-2023": "b5f11218755bab72796f961870cee56e84e3a477cf0869e6d6fa4282189c85e6",
        "desnz-2024": "01bda3dfcdee719609577a782dd70c77d709e410f21fbdb1edb8f58579e97b34",
        "desnz-2025": "500b0f42521852548649f40202d2d01a61d7dbaeae05097321013b91184887d1",
    }
)
"""SHA-256 in hex that each table of this release must have."""


def verify_tables() -> None:
    """Raise ConfigError naming the first table that is not the one this release pins."""
    for table_id in sorted({*TABLES, *PINNED_HASHES}):
        actual = TABLES[table_id].table_hash.hex() if table_id in TABLES else "no such table"
        expected = PINNED_HASHES.get(table_id, "no such table")
        if actual != expected:
            raise ConfigError(
                "a table is not the one this release ships",
                where=f"table {table_id}",
                expected=expected,
                actual=actual,
                hint=_INSTALL_AGAIN,
            )
