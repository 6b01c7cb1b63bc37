"""The pinned tables are whole, hashed, and say what their sources say."""

import ast
from pathlib import Path

import pytest

from ledger.errors import ConfigError
from ledger.models import carbon, tables
from ledger.models.tables import CODECS, INTENSITY_MG_PER_KWH, PINNED_HASHES, TABLES

MODELS = Path(tables.__file__).parent


def test_tables_are_those_this_release_pins():
    tables.verify_tables()
    assert {name: table.table_hash.hex() for name, table in TABLES.items()} == dict(PINNED_HASHES)


def test_a_changed_table_is_named(monkeypatch):
    monkeypatch.setattr(tables, "PINNED_HASHES", {**PINNED_HASHES, "codecs-1": "00" * 32})
    with pytest.raises(ConfigError, match="table codecs-1"):
        tables.verify_tables()


def test_hash_depends_on_every_value_and_not_on_order():
    rows = [("NO", 1), ("SE", 2)]
    made = tables.hash_table("t", "direct", ("zone", "mg_per_kwh"), rows)
    assert made == tables.hash_table("t", "direct", ("zone", "mg_per_kwh"), rows[::-1])
    assert made != tables.hash_table("t", "direct", ("zone", "mg_per_kwh"), [("NO", 1), ("SE", 3)])
    assert made != tables.hash_table("t", "lifecycle", ("zone", "mg_per_kwh"), rows)


def test_intensities_are_those_of_their_sources():
    assert INTENSITY_MG_PER_KWH["ember-2026", "AE"] == 467_510
    assert INTENSITY_MG_PER_KWH["egrid-2023", "US-AL"] == 323_854
    assert INTENSITY_MG_PER_KWH["egrid-2023", "US"] == 349_667
    assert INTENSITY_MG_PER_KWH["desnz-2023", "GB"] == 207_074
    assert ("desnz-2020", "GB") not in INTENSITY_MG_PER_KWH
    assert carbon.intensity_mg_per_kwh("ember-2026", "ZZ") is None


def test_every_intensity_table_has_a_basis():
    assert {"ember-2026": "lifecycle", "egrid-2023": "direct"}.items() <= {
        name: carbon.basis_of(name) for name in TABLES
    }.items()
    assert carbon.basis_of("codecs-1") is None
    assert carbon.basis_of("nothing") is None


def test_only_well_known_narrowband_codecs_are_ratable():
    ratable = {codec.name for codec in CODECS.values() if codec.is_ratable}
    assert ratable == {"PCMU", "PCMA", "G729A", "G723-6.3", "GSM-EFR", "AMR-12.2"}
    assert not any(c.ie_milli is not None for c in CODECS.values() if c.grade in {"C", "D"})


def test_constant_rate_frames_fit_their_packet_time():
    bits_per_s = {"PCMU": 64_000, "PCMA": 64_000, "G729A": 8_000, "G722": 64_000, "G726-32": 32_000}
    for codec in CODECS.values():
        if codec.name in bits_per_s:
            assert codec.payload_octets * 8_000_000 == bits_per_s[codec.name] * codec.packet_us, codec


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "\u0661"])
def test_a_table_holds_counts_only(text):
    with pytest.raises(ConfigError, match=r"codecs\.csv"):
        tables._integer(text, "codecs.csv")


def test_a_missing_table_and_other_columns_are_config_errors():
    with pytest.raises(ConfigError, match="cannot be read"):
        tables._read("nothing.csv", ("a",))
    with pytest.raises(ConfigError, match="other columns"):
        tables._read("grid_ember.csv", ("a",))


def test_models_hold_no_floating_point():
    for path in sorted(MODELS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), path
            assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)), path
