"""The rules of a chain: modules, versions, parameters and tables, as genesis pins them.

Two nodes must reach the same verdict on every record, so a node refuses a chain whose rules it would not compute
identically: a module or version it does not have, other conformance vectors, another table, an unknown parameter.

Source: docs/rules.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated, Any, Final

import msgspec

from ledger.cdr import CallRecord
from ledger.errors import ConfigError, EncodingError
from ledger.genesis import RulePin, RuleSetPin, TablePin, rule_set_id_of
from ledger.models.tables import BASES, NO_BASIS, TABLES, verify_tables
from ledger.readable import from_readable
from ledger.rules import call_shape, energy, levels, voice_quality
from ledger.rules.base import Check, RuleContext, RuleModule, Violation

_INSTALL_HINT: Final = "Install the release of ledgerd that this chain's rules ask for"

MODULES: Final[Mapping[tuple[str, int], RuleModule]] = MappingProxyType(
    {(m.name, m.version): m for m in (call_shape.MODULE, energy.MODULE, levels.MODULE, voice_quality.MODULE)}
)
"""Every released rule module by (name, version)."""


class _Case(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    set: dict[str, Any]
    """New values by path, put into the base record."""
    expected: str | None
    """The rule that refuses the record, or null where it holds."""


class _Vectors(msgspec.Struct, forbid_unknown_fields=True):
    module: str
    version: int
    carbon_tables: list[str]
    base: dict[str, Any]
    """A record in readable JSON that holds."""
    cases: Annotated[list[_Case], msgspec.Meta(min_length=1)]


@cache
def read_vectors(module: str, version: int) -> bytes:
    """Return the conformance vectors of a released module as they ship; raises ConfigError if they are missing."""
    name = f"{module}-{version}.json"
    try:
        return files("ledger.rules").joinpath("vectors", name).read_bytes()
    except OSError as error:
        where = f"ledger/rules/vectors/{name}"
        raise ConfigError("conformance vectors cannot be read", where=where, actual=error, hint=_INSTALL_HINT) from None


def default_rule_set_pin(carbon_basis: str) -> RuleSetPin:
    """Return the pin of every released module at its defaults, with all tables of ``carbon_basis``.

    carbon_basis: ``lifecycle`` or ``direct``. What ``ledgerctl genesis new`` writes.
    """
    newest = dict(sorted(MODULES))
    modules = [
        RulePin(name, version, sha256(read_vectors(name, version)).digest(), []) for name, version in newest.items()
    ]
    tables = [
        TablePin(table.table_id, table.table_hash)
        for table in sorted(TABLES.values(), key=lambda table: table.table_id)
        if table.basis in {NO_BASIS, carbon_basis}
    ]
    return RuleSetPin(modules, tables)


class RuleSet:
    """The compiled rules of one chain.

    Attributes:
        rule_set_id: 32 bytes, what every header names.
        check_record: returns the first violation of a record in the order of the modules, None where it holds.
    """

    def __init__(self, pin: RuleSetPin, *, carbon_basis: str) -> None:
        """Compile the rules that ``pin`` names.

        carbon_basis: ``lifecycle`` or ``direct``, from the chain's parameters.
        Raises ConfigError for whatever this release does not compute identically.
        """
        self.rule_set_id = rule_set_id_of(pin)
        carbon_tables = _check_tables(pin.tables, carbon_basis)
        context = RuleContext(carbon_tables)
        pinned = {table.table_id for table in pin.tables}
        self._modules: list[RuleModule] = []
        checks: list[Check] = []
        for rule_pin in pin.modules:
            module = _find_module(rule_pin)
            for table_id in module.tables:
                if table_id not in pinned:
                    raise ConfigError(
                        f"rule module {module.name} reads a table that is not pinned",
                        where="rules.tables",
                        expected=table_id,
                    )
            self._modules.append(module)
            checks.append(module.compile_check(_merge_parameters(module, rule_pin), context))
        self.check_record: Check = _in_turn(self._modules, checks)

    def run_conformance(self) -> int:
        """Run the vectors of every module in force and return how many cases held; takes milliseconds.

        Raises ConfigError naming the first case, or table, that this machine computes otherwise.
        """
        verify_tables()
        return sum(run_vectors(module) for module in self._modules)


def _in_turn(modules: list[RuleModule], checks: list[Check]) -> Check:
    """Return one check that asks ``checks``, those of ``modules``, in turn, each only where its part is there."""
    if [module.part for module in modules] == ["", "energy", "levels", "quality"]:
        return _all_four(*checks)
    asked = [(module.part, check) for module, check in zip(modules, checks, strict=True)]

    def check(record: CallRecord) -> Violation | None:
        for part, one in asked:
            violation = one(record) if not part or getattr(record, part) is not None else None
            if violation is not None:
                return violation
        return None

    return check


def _all_four(shape: Check, energy: Check, levels: Check, quality: Check) -> Check:
    """Return the same without a loop: half of all calls are never answered and have none of the parts."""

    def check(record: CallRecord) -> Violation | None:
        violation = shape(record)
        if violation is None and record.energy is not None:
            violation = energy(record)
        if violation is None and record.levels is not None:
            violation = levels(record)
        if violation is None and record.quality is not None:
            violation = quality(record)
        return violation

    return check


def run_vectors(module: RuleModule) -> int:
    """Run the conformance vectors of ``module`` at its defaults and return how many cases held.

    Raises ConfigError naming the first case that gives another verdict.
    """
    where = f"ledger/rules/vectors/{module.name}-{module.version}.json"
    try:
        vectors = msgspec.json.decode(read_vectors(module.name, module.version), type=_Vectors)
        records = [from_readable(_changed(vectors.base, case.set), CallRecord) for case in vectors.cases]
    except (msgspec.DecodeError, EncodingError, KeyError, TypeError) as error:
        raise ConfigError("conformance vectors are damaged", where=where, actual=error, hint=_INSTALL_HINT) from error
    check = module.compile_check(module.defaults, RuleContext(frozenset(vectors.carbon_tables)))
    for case, record in zip(vectors.cases, records, strict=True):
        violation = check(record)
        actual = None if violation is None else violation.rule
        if actual != case.expected:
            raise ConfigError(
                "a rule gives another verdict than its conformance vector",
                where=f"{where}: {case.name}",
                expected=case.expected or "no violation",
                actual=actual or "no violation",
                hint=_INSTALL_HINT,
            )
    return len(vectors.cases)


def _changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of ``base`` with the values of ``changes`` at their dotted paths."""
    made = dict(base)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = made
        for name in parents:
            place[name] = dict(place[name])
            place = place[name]
        place[last] = value
    return made


def _check_tables(pins: list[TablePin], carbon_basis: str) -> frozenset[str]:
    """Hold the pinned tables against those loaded; return the ids of the carbon tables among them."""
    if carbon_basis not in BASES:
        raise ConfigError("unknown carbon basis", where="parameters.carbon_basis", actual=carbon_basis)
    carbon = set()
    for pin in pins:
        where = f"rules.tables.{pin.table_id}"
        table = TABLES.get(pin.table_id)
        if table is None:
            raise ConfigError("this release does not have the table", where=where, hint=_INSTALL_HINT)
        if table.table_hash != pin.sha256:
            raise ConfigError(
                "this release has another table of this id",
                where=where,
                expected=pin.sha256,
                actual=table.table_hash,
                hint=_INSTALL_HINT,
            )
        if table.basis not in {NO_BASIS, carbon_basis}:
            raise ConfigError(
                "the table is of another carbon basis than the chain",
                where=where,
                expected=carbon_basis,
                actual=table.basis,
            )
        if table.basis != NO_BASIS:
            carbon.add(pin.table_id)
    return frozenset(carbon)


def _find_module(pin: RulePin) -> RuleModule:
    """Return the module that ``pin`` names, with the vectors it names; raises ConfigError."""
    where = f"rules.modules.{pin.module}"
    module = MODULES.get((pin.module, pin.version))
    if module is None:
        known = ", ".join(f"{name} version {version}" for name, version in sorted(MODULES))
        raise ConfigError(
            "this release does not have the rule module",
            where=where,
            expected=known,
            actual=f"{pin.module} version {pin.version}",
            hint=_INSTALL_HINT,
        )
    actual = sha256(read_vectors(module.name, module.version)).digest()
    if actual != pin.vectors_sha256:
        raise ConfigError(
            "this release has other conformance vectors",
            where=where,
            expected=pin.vectors_sha256,
            actual=actual,
            hint=_INSTALL_HINT,
        )
    return module


def _merge_parameters(module: RuleModule, pin: RulePin) -> dict[str, int]:
    """Return the module's defaults with the values that ``pin`` gives; raises ConfigError."""
    where = f"rules.modules.{module.name}.parameters"
    names = [parameter.name for parameter in pin.parameters]
    if names != sorted(set(names)):
        raise ConfigError("parameters must be ascending and unique", where=where)
    parameters = dict(module.defaults)
    for parameter in pin.parameters:
        if parameter.name not in module.defaults:
            raise ConfigError(
                "the rule module has no such parameter",
                where=where,
                expected=", ".join(module.defaults),
                actual=parameter.name,
            )
        parameters[parameter.name] = parameter.value
    return parameters
