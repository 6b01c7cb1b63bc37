"""The rules of records, as docs/rules.md words them: part of the second implementation.

Written from the document, with integers and the standard library only, and nothing of the project but the other
``audit.reference_*`` files. The tables and conformance vectors are data, not code: they are read from the files that
ship, and held against the hashes that the chain's genesis pins.

A rule set is known by ``open_tables``, proved by ``run_vectors``, applied by ``check_record``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from audit.reference_quality import Codec, QualityTables, check_quality, divide
from audit.reference_types import CALL_RECORD, ENERGY
from audit.reference_wire import Refused, Unusable, tagged_hash

DATA = Path(__file__).resolve().parent.parent / "ledger"
"""Where the tables and vectors are that ship: below ``models/tables`` and ``rules/vectors``."""


@dataclass(frozen=True)
class Tables:
    """The pinned tables, each as far as it is pinned.

    Attributes:
        quality: ``codecs-1`` and ``g107-idd-2015``.
        factors: ``network-1``: base_mw, mwh_per_gb and nj_per_bit by (method, boundary).
        intensities: mg/kWh by zone, by id of each pinned table of carbon intensity.
    """

    quality: QualityTables
    factors: Mapping[tuple[int, int], tuple[int, int, int]]
    intensities: Mapping[str, Mapping[str, int]]


def check_record(record: Any, pin: Any, tables: Tables) -> None:
    """Check a record against every rule of a chain.

    record: a decoded CallRecord. pin: the chain's decoded RuleSetPin. tables: of ``open_tables``, for this pin.
    Raises Refused for the first rule it violates, with the field's path inside the record and the rule's name.
    """
    for name, version, _vectors, changed in pin.modules:
        module = MODULES[name, version]
        module.check(record, {**module.defaults, **dict(changed)}, tables)


# -- call-shape --------------------------------------------------------------------------------------------------------


def _check_shape(call: Any, parameters: Mapping[str, int], tables: Tables) -> None:
    if call.end_ms < call.setup_ms:
        raise Refused("end_ms", "call-shape/end-before-setup")
    if call.answer_ms and call.answer_ms < call.setup_ms:
        raise Refused("answer_ms", "call-shape/answer-before-setup")
    if call.answer_ms and call.answer_ms > call.end_ms:
        raise Refused("answer_ms", "call-shape/answer-after-end")
    codec = tables.quality.codecs.get(call.codec)
    if codec is None:
        raise Refused("codec", "call-shape/unknown-codec")
    if codec.packet_us:
        packets = -(-1_000 * (call.end_ms - call.setup_ms) // codec.packet_us)
        drift = divide(packets * parameters["clock_drift_ppm"], 1_000_000)
        if call.packets_sent > packets + parameters["packet_slack"] + drift:
            raise Refused("packets_sent", "call-shape/too-many-packets")


# -- energy ------------------------------------------------------------------------------------------------------------

AVERAGE_KWH_GB, METERED = 1, 4
DEVICE_MW = {
    0: (0, 0),
    1: (500, 10_000),
    2: (500, 3_000),
    3: (50_000, 100_000),
    4: (100_000, 450_000),
    5: (500, 12_950),
}
"""Least and greatest power by device class."""


def _check_energy(call: Any, parameters: Mapping[str, int], tables: Tables) -> None:
    energy = call.energy
    if energy is None:
        return
    talk_ms = call.end_ms - call.answer_ms if call.answer_ms else 0
    total_mj = energy.device_mj + energy.network_mj + divide(energy.server_mj * energy.pue_milli, 1_000)
    if talk_ms and energy.device_class and not total_mj:
        raise Refused("energy.device_mj", "energy/none")
    least_mw, greatest_mw = DEVICE_MW[energy.device_class]
    least_mj, greatest_mj = least_mw * talk_ms // 1_000, -(-greatest_mw * (call.end_ms - call.setup_ms) // 1_000)
    if not least_mj <= energy.device_mj <= greatest_mj:
        raise Refused("energy.device_mj", "energy/device")
    if energy.method != METERED:
        factor = tables.factors.get((energy.method, energy.boundary))
        if factor is None:
            raise Refused("energy.boundary", "energy/boundary")
        if energy.network_mj != network_mj(energy.method, factor, call.octets_sent + call.octets_received, talk_ms):
            raise Refused("energy.network_mj", "energy/network")
    if not 1_000 <= energy.pue_milli <= parameters["pue_milli_max"]:
        raise Refused("energy.pue_milli", "energy/pue")
    zones = tables.intensities.get(energy.intensity_table)
    if zones is None:
        raise Refused("energy.intensity_table", "energy/table")
    if energy.grid_zone not in zones:
        raise Refused("energy.grid_zone", "energy/zone")
    if energy.intensity_mg_per_kwh != zones[energy.grid_zone]:
        raise Refused("energy.intensity_mg_per_kwh", "energy/intensity")
    if energy.co2_ug != divide(total_mj * energy.intensity_mg_per_kwh, 3_600_000):
        raise Refused("energy.co2_ug", "energy/co2")


def network_mj(method: int, factor: tuple[int, int, int], octets: int, talk_ms: int) -> int:
    """Return the energy of the network by one of its methods; ``factor``: base_mw, mwh_per_gb, nj_per_bit."""
    base_mw, mwh_per_gb, nj_per_bit = factor
    if method == AVERAGE_KWH_GB:
        return divide(octets * mwh_per_gb * 3_600, 10**9)
    return divide(8 * nj_per_bit * octets + 1_000 * base_mw * talk_ms, 10**6)


# -- levels ------------------------------------------------------------------------------------------------------------


def _check_levels(call: Any, parameters: Mapping[str, int], _tables: Tables) -> None:
    levels = call.levels
    if levels is None:
        return
    if levels.rerl_db == 127:
        raise Refused("levels.rerl_db", "levels/unavailable")
    for name, level in (("signal_dbm0", levels.signal_dbm0), ("noise_dbm0", levels.noise_dbm0)):
        if level is not None and level > parameters["level_max_dbm0"]:
            raise Refused(f"levels.{name}", "levels/level")
    longest_ms = call.end_ms - call.setup_ms + parameters["duration_slack_ms"]
    for name, period in (("burst_ms", levels.burst_ms), ("gap_ms", levels.gap_ms)):
        if period is not None and period > longest_ms:
            raise Refused(f"levels.{name}", "levels/period")
    burst_ms, burst, gap = levels.burst_ms, levels.burst_density, levels.gap_density
    if burst_ms is not None and burst is not None and bool(burst_ms) != bool(burst):
        raise Refused("levels.burst_density", "levels/burst")
    if burst and gap is not None and gap > burst:
        raise Refused("levels.gap_density", "levels/density")
    usual_ms, greatest_ms = levels.jitter_buffer_ms, levels.jitter_buffer_max_ms
    if usual_ms is not None and greatest_ms is not None and usual_ms > greatest_ms:
        raise Refused("levels.jitter_buffer_ms", "levels/buffer")


# -- voice-quality -----------------------------------------------------------------------------------------------------


def _check_voice(call: Any, parameters: Mapping[str, int], tables: Tables) -> None:
    check_quality(call, parameters, tables.quality)


# -- modules -----------------------------------------------------------------------------------------------------------


class Module(NamedTuple):
    """A version of a set of rules: the tables it reads, its parameters, and its check."""

    tables: tuple[str, ...]
    defaults: Mapping[str, int]
    check: Callable[[Any, Mapping[str, int], Tables], None]


VOICE_DEFAULTS = {
    "reading_slack_ms": 1_000,
    "rtpengine_step_milli": 100,
    "mos_of_r_slack_milli": 153,
    "freeswitch_slack_milli": 10,
    "loss_slack_ppm": 10_000,
}
MODULES = {
    ("call-shape", 1): Module(("codecs-1",), {"packet_slack": 2, "clock_drift_ppm": 200}, _check_shape),
    ("energy", 1): Module(("network-1",), {"pue_milli_max": 3_000}, _check_energy),
    ("levels", 1): Module((), {"level_max_dbm0": 6, "duration_slack_ms": 1_000}, _check_levels),
    ("voice-quality", 1): Module(("codecs-1", "g107-idd-2015"), VOICE_DEFAULTS, _check_voice),
}

# -- tables ------------------------------------------------------------------------------------------------------------

NONE, LIFECYCLE, DIRECT = "none", "lifecycle", "direct"
CARBON = {
    "ember-2026": (LIFECYCLE, "grid_ember.csv"),
    "egrid-2023": (DIRECT, "grid_egrid.csv"),
    "desnz-2014": (DIRECT, "grid_desnz.csv"),
    "desnz-2023": (DIRECT, "grid_desnz.csv"),
    "desnz-2024": (DIRECT, "grid_desnz.csv"),
    "desnz-2025": (DIRECT, "grid_desnz.csv"),
}
"""Basis and file of each table of carbon intensity."""
CODEC_COLUMNS = (
    *("row", "name", "concealment", "packet_us", "ie_milli", "bpl_milli", "payload_octets", "clock_hz", "band"),
    "grade",
)
CODEC_TEXTS = {"name", "concealment", "band", "grade"}

Row = tuple[Any, ...]


def open_tables(pin: Any, carbon_basis: str, *, data: Path = DATA) -> Tables:
    """Return the tables that a chain pins, read from ``data`` and held against the pinned hashes.

    pin: its RuleSetPin, decoded. carbon_basis: ``lifecycle`` or ``direct``, of its parameters.
    Raises Unusable for a module, parameter, set of vectors or table that is not the one in docs/rules.md.
    """
    pinned = {}
    for table_id, table_hash in pin.tables:
        basis, columns, rows = _read_table(table_id, data)
        if basis not in {NONE, carbon_basis}:
            raise Unusable(f"table {table_id} is of basis {basis}, the chain of {carbon_basis}")
        if tagged_hash("table", [table_id, basis, list(columns), [list(row) for row in rows]]) != table_hash:
            raise Unusable(f"another table {table_id} is pinned")
        pinned[table_id] = rows
    for name, version, vectors_sha256, changed in pin.modules:
        module = MODULES.get((name, version))
        if module is None or not {key for key, _value in changed} <= set(module.defaults):
            raise Unusable(f"rules {name} version {version}, or a parameter of theirs, are not known")
        if not set(module.tables) <= set(pinned):
            raise Unusable(f"a table that rules {name} read is not pinned")
        if sha256(_read_vectors(name, version, data)).digest() != vectors_sha256:
            raise Unusable(f"other conformance vectors of rules {name} are pinned")
    return _tables_of(pinned)


def _tables_of(rows_of: Mapping[str, list[Any]]) -> Tables:
    """Return tables by their rows."""
    codecs = {row[0]: Codec(row[3], row[4], row[5], row[8], row[9]) for row in rows_of.get("codecs-1", [])}
    factors = {(row[0], row[1]): (row[2], row[3], row[4]) for row in rows_of.get("network-1", [])}
    idd_milli = [row[1] for row in rows_of.get("g107-idd-2015", [])]
    intensities = {table_id: dict(rows) for table_id, rows in rows_of.items() if table_id in CARBON}
    return Tables(QualityTables(codecs, idd_milli), factors, intensities)


def _read_table(table_id: str, data: Path) -> tuple[str, tuple[str, ...], list[Any]]:
    """Return a table's basis, columns and rows, sorted by the first two columns."""
    folder = data / "models" / "tables"
    columns: tuple[str, ...]
    rows: list[Row]
    if table_id == "codecs-1":
        columns, basis = CODEC_COLUMNS, NONE
        rows = [
            tuple(row[key] if key in CODEC_TEXTS else int(row[key]) if row[key] else None for key in columns)
            for row in _read_csv(folder / "codecs.csv")
        ]
    elif table_id == "g107-idd-2015":
        columns, basis = ("ta_ms", "idd_milli"), NONE
        rows = [(int(row["ta_ms"]), int(row["idd_milli"])) for row in _read_csv(folder / "g107_idd.csv")]
    elif table_id == "network-1":
        columns, basis = ("method", "boundary", "base_mw", "mwh_per_gb", "nj_per_bit"), NONE
        rows = [
            (*(ENERGY.fields[key].plain(row[key]) for key in columns[:2]), *(int(row[key]) for key in columns[2:]))
            for row in _read_csv(folder / "network_factors.csv")
        ]
    elif table_id in CARBON:
        columns, (basis, name) = ("zone", "mg_per_kwh"), CARBON[table_id]
        rows = [(row["zone"], int(row["mg_per_kwh"])) for row in _read_csv(folder / name) if row["table"] == table_id]
    else:
        raise Unusable(f"table {table_id} is not known")
    return basis, columns, sorted(rows, key=lambda row: row[:2])


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# -- conformance vectors -----------------------------------------------------------------------------------------------


def run_vectors(pin: Any, *, data: Path = DATA) -> int:
    """Run the conformance vectors of every pinned module and return how many cases held.

    Raises Unusable for the first one that does not.
    """
    cases = 0
    for name, version, _vectors, _parameters in pin.modules:
        module, vectors = MODULES[name, version], json.loads(_read_vectors(name, version, data))
        table_ids = [*module.tables, *vectors["carbon_tables"]]
        tables = _tables_of({table_id: _read_table(table_id, data)[2] for table_id in table_ids})
        for case in vectors["cases"]:
            found = _verdict(module, CALL_RECORD.plain(_changed(vectors["base"], case["set"])), tables)
            if found != case["expected"]:
                raise Unusable(f"{name}, {case['name']}: {found or 'holds'}, not {case['expected'] or 'holds'}")
            cases += 1
    return cases


def _verdict(module: Module, call: Any, tables: Tables) -> str | None:
    try:
        module.check(call, module.defaults, tables)
    except Refused as refused:
        return refused.what
    return None


def _changed(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``base`` with other values at dotted paths."""
    made: dict[str, Any] = json.loads(json.dumps(base))
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = made
        for name in parents:
            place = place[name]
        place[last] = value
    return made


def _read_vectors(module: str, version: int, data: Path) -> bytes:
    return (data / "rules" / "vectors" / f"{module}-{version}.json").read_bytes()
