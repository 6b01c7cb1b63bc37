"""The rules, written twice: both name the same rule and field for whatever record there is."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import reference_quality, reference_rules
from audit import reference_types as types
from audit.reference_rules import Tables, check_record, open_tables, run_vectors
from audit.reference_wire import Refused, Unusable
from audit.reference_wire import decode as reference_decode
from ledger.cdr import CallRecord
from ledger.codec import decode, encode
from ledger.errors import EncodingError
from ledger.genesis import RuleParameter, RulePin, RuleSetPin, TablePin
from ledger.models import emodel, emodel_wide, rtpengine, rtpengine13
from ledger.models.tables import TABLES
from ledger.rules.ruleset import MODULES, RuleSet, default_rule_set_pin
from tests.audit.records import Record, array_of, changed_record, vector_records
from tests.ledger.rules.test_rules import RATED, calls, energy_records

BASIS = {"lifecycle": default_rule_set_pin("lifecycle"), "direct": default_rule_set_pin("direct")}


def as_read(pin: RuleSetPin) -> Any:
    """Return a rule set as the reference reads it."""
    return reference_decode(encode(pin), types.RULE_SET_PIN)


def compare(record: Record, pin: RuleSetPin, rules: RuleSet, tables: Tables) -> str | None:
    """Hold both implementations against each other; return the rule they name, or ``bounds``."""
    expected = main_verdict(record, rules)
    assert reference_verdict(record, pin, tables)[1] == expected[1], record
    if expected[0] != "bounds":
        assert reference_verdict(record, pin, tables)[0] == expected[0], record
    return expected[0] or None


def main_verdict(record: Record, rules: RuleSet) -> tuple[str, str]:
    """Return the rule, or ``bounds``, and the field that the project's own rules name; nothing where all holds."""
    try:
        found = rules.check_record(decode(encode(record), CallRecord))
    except EncodingError as error:
        return "bounds", error.where.removesuffix("CallRecord")
    return ("", "") if found is None else (found.rule, found.field)


def reference_verdict(record: Record, pin: RuleSetPin, tables: Tables) -> tuple[str, str]:
    """Return the rule, or what else is wrong, and the field that the reference names; nothing where all holds."""
    try:
        check_record(reference_decode(encode(record), types.CALL_RECORD), as_read(pin), tables)
    except Refused as refused:
        return refused.what, refused.where
    return "", ""


def both(pin: RuleSetPin, basis: str) -> tuple[RuleSetPin, RuleSet, Tables]:
    return pin, RuleSet(pin, carbon_basis=basis), open_tables(as_read(pin), basis)


LIFECYCLE = both(BASIS["lifecycle"], "lifecycle")


@pytest.mark.parametrize("basis", BASIS)
def test_the_conformance_vectors_hold(basis: str) -> None:
    pin, rules, _ = both(BASIS[basis], basis)
    assert run_vectors(as_read(pin)) == rules.run_conformance()


def test_every_table_has_the_pinned_hash() -> None:
    for table in TABLES.values():
        carbon_basis = "direct" if table.basis == "direct" else "lifecycle"
        pin = RuleSetPin([], [TablePin(table.table_id, table.table_hash)])
        open_tables(as_read(pin), carbon_basis)


@pytest.mark.parametrize("seed", range(2))
def test_changed_records_get_one_verdict(seed: int) -> None:
    """Each of many changed records is refused by both for the same rule and field, or by neither."""
    rng = Random(seed)
    counts = Counter(compare(changed_record(rng, rng.choice(vector_records())), *LIFECYCLE) for _ in range(3_000))
    assert counts[None] > 100
    assert len(counts) > 25


def test_every_rule_is_reached() -> None:
    """The same, until each rule was named at least once, by either."""
    named = {f"{module.name}/{rule}" for module in MODULES.values() for rule in module.rules}
    found = {compare(record, *LIFECYCLE) for record in vector_records()}
    assert named - found == set()


def test_the_document_says_which_field_a_rule_names() -> None:
    text = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
    section = text.partition("| rule | field |")[2].partition("\n\n")[0]
    fields_of: dict[str, set[str]] = {}
    for row in section.splitlines()[2:]:
        names, fields = (re.findall("`([^`]+)`", cell) for cell in row.strip("|").split("|"))
        module = names[0].partition("/")[0]
        for name in names if "/" in names[0] else MODULES[module, 1].rules:
            fields_of[f"{module}/{name.removeprefix(f'{module}/')}"] = set(fields)
    assert set(fields_of) == {f"{module.name}/{rule}" for module in MODULES.values() for rule in module.rules}
    for record in vector_records():
        rule, field = main_verdict(record, LIFECYCLE[1])
        assert not rule or field in fields_of[rule], rule


@given(st.one_of(calls(), RATED, energy_records()))
def test_what_the_models_make_passes(record: CallRecord) -> None:
    assert compare(array_of(record), *LIFECYCLE) is None


@settings(max_examples=200)
@given(st.one_of(RATED, energy_records()), st.randoms(use_true_random=False))
def test_what_the_models_made_and_was_changed(record: CallRecord, rng: Random) -> None:
    compare(changed_record(rng, array_of(record)), *LIFECYCLE)


@settings(max_examples=15)
@given(st.data())
def test_other_rule_sets(data: st.DataObject) -> None:
    """Modules left out, other parameters, another basis."""
    basis = data.draw(st.sampled_from(sorted(BASIS)))
    modules = []
    for one in data.draw(st.lists(st.sampled_from(BASIS[basis].modules), unique_by=lambda m: m.module)):
        defaults = MODULES[one.module, one.version].defaults
        chosen = data.draw(st.dictionaries(st.sampled_from(sorted(defaults)), st.integers(0, 20_000)))
        parameters = [RuleParameter(name, value) for name, value in sorted(chosen.items())]
        modules.append(RulePin(one.module, one.version, one.vectors_sha256, parameters))
    chain = both(RuleSetPin(sorted(modules, key=lambda m: m.module), BASIS[basis].tables), basis)
    rng = data.draw(st.randoms(use_true_random=False))
    for _ in range(40):
        compare(changed_record(rng, rng.choice(vector_records())), *chain)


# -- formulas, where records seldom get to -----------------------------------------------------------------------------

WIDE = {reference_quality.G107_1: emodel_wide.WIDEBAND, reference_quality.G107_2: emodel_wide.FULLBAND}
U32 = st.integers(0, 2**32 - 1)
READING = st.builds(
    types.READING.row,
    mos_milli=st.just(1_000),
    rtt_us=U32,
    jitter_us=U32,
    loss_ppm=st.integers(0, 10**6),
    at_ms=st.just(0),
)


@given(st.data())
def test_the_e_models(data: st.DataObject) -> None:
    """Of wider bands as well, of which no codec has values yet."""
    ie, bpl = data.draw(st.integers(0, 80_000)), data.draw(st.integers(1, 60_000))
    expected = data.draw(st.integers(1, 10**6))
    lost = data.draw(st.integers(0, expected))
    events = data.draw(st.integers(1, lost)) if lost else 0
    one_way_us = data.draw(st.integers(0, 2_000_000))
    codec = reference_quality.Codec(20_000, ie, bpl, "N", "A")
    rest = dict.fromkeys(types.QUALITY.fields)
    counts = {"packets_expected": expected, "packets_lost": lost, "loss_events": events, "one_way_us": one_way_us}
    quality = types.QUALITY.row(**{**rest, **counts})
    given_ = {"lost": lost, "expected": expected, "loss_events": events, "one_way_us": one_way_us}
    idd = LIFECYCLE[2].quality.idd_milli
    assert reference_quality.rate(reference_quality.G107, codec, quality, idd) == emodel.rate(ie, bpl, **given_)
    for method, scale in WIDE.items():
        assert reference_quality.rate(method, codec, quality, idd) == emodel_wide.rate(scale, ie, bpl, **given_)


def test_delay_alone_takes_r_to_nothing_and_not_below() -> None:
    """A poor codec and half a second of delay, without a packet lost, once gave an R of -0.001."""
    assert emodel.rate(65_537, 1_000, lost=0, expected=1, loss_events=0, one_way_us=450_408) == (0, 1_000)


@given(READING)
def test_the_formulas_of_rtpengine(reading: Any) -> None:
    given_ = reading.rtt_us, reading.jitter_us, reading.loss_ppm
    idd = LIFECYCLE[2].quality.idd_milli
    assert reference_quality.rtpengine_10(reading) == rtpengine.mos_milli(*given_)
    assert reference_quality.rtpengine_13(reading, 1, idd) == rtpengine13.mos_milli(*given_)
    assert reference_quality.rtpengine_13(reading, 4, idd) == rtpengine13.mos_milli(*given_, fullband=True)


# -- rules that are not those of the document --------------------------------------------------------------------------


def pin_with(**changes: Any) -> Any:
    """Return the pin with the first module changed."""
    pin = BASIS["lifecycle"]
    module = msgspec.structs.replace(pin.modules[0], **changes)
    return as_read(RuleSetPin([module, *pin.modules[1:]], pin.tables))


@pytest.mark.parametrize(
    "pin",
    [
        pin_with(module="call-shop"),
        pin_with(version=2),
        pin_with(vectors_sha256=bytes(32)),
        pin_with(parameters=[RuleParameter("packet_slick", 1)]),
        as_read(RuleSetPin(BASIS["lifecycle"].modules, BASIS["lifecycle"].tables[1:])),
        as_read(RuleSetPin([], [TablePin("ember-2026", bytes(32))])),
        as_read(RuleSetPin([], [TablePin("ember-2027", bytes(32))])),
        as_read(RuleSetPin([], [TablePin("egrid-2023", TABLES["egrid-2023"].table_hash)])),
    ],
)
def test_rules_that_are_not_known(pin: Any) -> None:
    with pytest.raises(Unusable):
        open_tables(pin, "lifecycle")


def test_a_table_or_vector_that_was_changed(tmp_path: Path) -> None:
    pin = as_read(BASIS["lifecycle"])
    data = Path(shutil.copytree(reference_rules.DATA, tmp_path / "data", ignore=shutil.ignore_patterns("*.py", "__*")))
    open_tables(pin, "lifecycle", data=data)
    table = data / "models" / "tables" / "grid_ember.csv"
    table.write_text(table.read_text().replace("ember-2026,AT,2025,116910", "ember-2026,AT,2025,116911"))
    with pytest.raises(Unusable, match="ember-2026"):
        open_tables(pin, "lifecycle", data=data)
    vectors = data / "rules" / "vectors" / "levels-1.json"
    vectors.write_text(vectors.read_text().replace('"expected": "levels/level"', '"expected": "levels/period"'))
    with pytest.raises(Unusable, match="levels"):
        run_vectors(pin, data=data)
