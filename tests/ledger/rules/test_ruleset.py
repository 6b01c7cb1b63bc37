"""A rule set is what genesis pins, and nothing that this machine would compute otherwise."""

import json
from hashlib import sha256

import msgspec
import pytest

from ledger.cdr import CallRecord
from ledger.errors import ConfigError
from ledger.genesis import RuleParameter, RuleSetPin, rule_set_id_of
from ledger.models.tables import TABLES
from ledger.readable import from_readable
from ledger.rules import ruleset
from ledger.rules.ruleset import MODULES, RuleSet, default_rule_set_pin, read_vectors, run_vectors

PIN = default_rule_set_pin("lifecycle")
FROZEN_VECTORS = {
    ("call-shape", 1): "31f8559217630b0ad928b4aec5137cc73d3617d81eef320f525ee6aab560c191",
    ("energy", 1): "50659323bafa32cc88131f8d31b38889e5302546c3d44cbf75bd1e18483135e8",
    ("levels", 1): "dd880933326af52279f0407e0c1bc54924d662d6966d6437e615420e7108439d",
    ("voice-quality", 1): "1c7e43c9d54c305b37b0a7f4239bf4879191d365c3cc250ce62beb6e77ab42f2",
}


def make(pin, basis="lifecycle"):
    return RuleSet(pin, carbon_basis=basis)


def changed(index, **fields):
    """Return the default pin with fields of one module changed."""
    modules = list(PIN.modules)
    modules[index] = msgspec.structs.replace(modules[index], **fields)
    return RuleSetPin(modules, PIN.tables)


def base_record(module="call-shape", **changes):
    document = json.loads(read_vectors(module, 1))
    return from_readable({**document["base"], **changes}, CallRecord)


def test_released_vectors_are_frozen():
    """A changed result is a new version of the module, not a changed file."""
    hashes = {key: sha256(read_vectors(*key)).hexdigest() for key in MODULES}
    assert hashes == FROZEN_VECTORS


@pytest.mark.parametrize("basis", ["lifecycle", "direct"])
def test_default_rules_conform(basis):
    rules = make(default_rule_set_pin(basis), basis)
    assert rules.run_conformance() == sum(run_vectors(module) for module in MODULES.values())
    assert rules.check_record(base_record()) is None


def test_default_pin_has_the_tables_of_its_basis_only():
    pinned = {
        basis: {table.table_id for table in default_rule_set_pin(basis).tables} for basis in ("lifecycle", "direct")
    }
    assert "ember-2026" in pinned["lifecycle"] - pinned["direct"]
    assert "egrid-2023" in pinned["direct"] - pinned["lifecycle"]
    assert {"codecs-1", "network-1", "g107-idd-2015"} == pinned["lifecycle"] & pinned["direct"]


def test_default_pin_is_ascending():
    names = [module.module for module in PIN.modules]
    assert names == sorted(names)


def test_id_is_that_of_the_pin_and_depends_on_every_parameter():
    assert make(PIN).rule_set_id == rule_set_id_of(PIN)
    other = changed(0, parameters=[RuleParameter("packet_slack", 3)])
    assert make(other).rule_set_id != make(PIN).rule_set_id


def test_a_parameter_changes_the_verdict():
    record = base_record(packets_sent=3_204)
    assert make(PIN).check_record(record).rule == "call-shape/too-many-packets"
    assert make(changed(0, parameters=[RuleParameter("packet_slack", 3)])).check_record(record) is None


def test_fewer_modules_check_less():
    record = base_record("energy", end_ms=1)
    assert make(PIN).check_record(record).rule == "call-shape/end-before-setup"
    only_energy = make(RuleSetPin(PIN.modules[1:2], PIN.tables))
    assert only_energy.check_record(record).rule.startswith("energy/")
    assert make(RuleSetPin([], [])).check_record(record) is None


@pytest.mark.parametrize(
    ("pin", "fact"),
    [
        (changed(0, module="call-shapes"), "does not have the rule module"),
        (changed(0, version=2), "call-shape version 2"),
        (changed(0, vectors_sha256=bytes(32)), "other conformance vectors"),
        (changed(0, parameters=[RuleParameter("slack", 1)]), "no such parameter"),
        (changed(0, parameters=[RuleParameter("packet_slack", 1)] * 2), "ascending and unique"),
        (RuleSetPin(PIN.modules, PIN.tables[1:]), "table that is not pinned"),
        (
            RuleSetPin(PIN.modules, [*PIN.tables, msgspec.structs.replace(PIN.tables[0], table_id="tides-1")]),
            "does not have the table",
        ),
        (
            RuleSetPin(PIN.modules, [msgspec.structs.replace(PIN.tables[0], sha256=bytes(32)), *PIN.tables[1:]]),
            "another table of this id",
        ),
    ],
)
def test_what_this_release_would_not_compute_identically_is_refused(pin, fact):
    with pytest.raises(ConfigError, match=fact):
        make(pin)


def test_tables_of_another_basis_are_refused():
    with pytest.raises(ConfigError, match="another carbon basis"):
        make(PIN, "direct")
    with pytest.raises(ConfigError, match="unknown carbon basis"):
        make(PIN, "none")


def test_a_direct_chain_takes_direct_tables_and_no_other():
    document = json.loads(read_vectors("energy", 1))
    record = from_readable(document["base"], CallRecord)
    violation = make(default_rule_set_pin("direct"), "direct").check_record(record)
    assert (violation.rule, violation.value) == ("energy/table", "ember-2026")
    assert violation.bound == " or ".join(sorted(t for t, table in TABLES.items() if table.basis == "direct"))


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"", "damaged"),
        (b"{}", "damaged"),
        (
            read_vectors("call-shape", 1).replace(b'"expected": null', b'"expected": "call-shape/x"', 1),
            "other verdict|another",
        ),
        (read_vectors("call-shape", 1).replace(b'"answer_ms": 0', b'"answer_mz": 0', 1), "damaged"),
        (read_vectors("call-shape", 1).replace(b'"answer_ms": 0', b'"setup_ms.x": 0', 1), "damaged"),
    ],
    ids=["empty", "no fields", "another verdict", "unknown field", "path through a number"],
)
def test_vectors_that_do_not_hold_stop_the_node(monkeypatch, data, fact):
    monkeypatch.setattr(ruleset, "read_vectors", lambda *_: data)
    with pytest.raises(ConfigError, match=fact):
        run_vectors(MODULES["call-shape", 1])


def test_missing_vectors_are_a_config_error():
    with pytest.raises(ConfigError, match="cannot be read"):
        read_vectors("nothing", 1)


@pytest.mark.parametrize(
    "names", [[m.module for m in PIN.modules], ["call-shape", "levels", "voice-quality"], ["energy"]]
)
def test_each_module_is_asked_about_what_it_is_about(names):
    """Skipping a module where its part of the record is missing changes no verdict: without it, all of them hold."""
    pins = [pin for pin in PIN.modules if pin.module in names]
    rules = make(RuleSetPin(pins, PIN.tables))
    context = ruleset.RuleContext(frozenset(t.table_id for t in PIN.tables if TABLES[t.table_id].basis == "lifecycle"))
    checks = [MODULES[pin.module, pin.version] for pin in pins]
    checks = [module.compile_check(module.defaults, context) for module in checks]
    verdicts = set()
    for module, version in MODULES:
        document = json.loads(read_vectors(module, version))
        for case in document["cases"]:
            record = from_readable(ruleset._changed(document["base"], case["set"]), CallRecord)
            expected = next((found for check in checks if (found := check(record)) is not None), None)
            assert rules.check_record(record) == expected
            verdicts.add(expected and expected.rule)
    assert len(verdicts) > 2
