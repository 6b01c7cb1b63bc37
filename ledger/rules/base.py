"""What a rule module is, and what it says about a record that contradicts itself.

A rule module has a name, a version, the fields and tables it reads, and parameters with defaults. It is
compiled once for a chain into a plain function of a record, which runs for every record there is: no
allocation and no loop on its good path. The behaviour of a released version is frozen by its conformance
vectors; changing a result means a new version.

Source: docs/rules.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ledger.cdr import CallRecord
from ledger.errors import RuleViolation


class Violation(NamedTuple):
    """Why a record is refused: facts for a program, and one sentence for a billing analyst."""

    rule: str
    """Module and rule, as ``docs/rules.md`` lists it: ``call-shape/answer-before-setup``."""
    field: str
    """Path of the field that is wrong, or of the derived one where several disagree."""
    value: int | str | None
    """What the record says."""
    bound: int | str
    """What it may or must say at this place."""
    message: str
    """One sentence, no trailing full stop."""

    def to_error(self, *, where: str = "") -> RuleViolation:
        """Return the error to raise; ``where`` says which record, in front of the field's path."""
        path = f"{where}.{self.field}" if where else self.field
        actual = "null" if self.value is None else self.value
        return RuleViolation(self.message, rule=self.rule, where=path, expected=self.bound, actual=actual)


Check = Callable[[CallRecord], Violation | None]
"""A compiled rule module: None where the record holds, else its first violation."""


@dataclass(frozen=True, slots=True)
class RuleContext:
    """What a chain gives its rules beside their parameters."""

    carbon_tables: frozenset[str]
    """Ids of the pinned tables of carbon intensity, all of the chain's one basis."""


@dataclass(frozen=True, slots=True)
class RuleModule:
    """One released version of a set of rules."""

    name: str
    version: int
    reads: tuple[str, ...]
    """Paths of the fields its verdict depends on."""
    part: str
    """The optional part of a record that it is about, without which a record holds; empty where it is about all."""
    tables: tuple[str, ...]
    """Ids of the tables its verdict depends on; a chain that uses the module pins them."""
    defaults: Mapping[str, int]
    """Parameters by name, with the values in force where genesis says nothing."""
    rules: Mapping[str, str]
    """What each rule demands, by its name without the module's."""
    compile_check: Callable[[Mapping[str, int], RuleContext], Check]
    """Make the check for these parameters (all of ``defaults``' names) and context."""
