"""What an audit comes to: how far the chain held, and the first thing that did not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from consensus.setchange import VotingProof
from ledger.block import EMPTY_TOTALS, Certificate, Totals
from ledger.errors import LedgerError, StoreError
from ledger.readable import to_readable


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing that is not as it must be.

    Attributes:
        height: of the block concerned; 0 is genesis.
        field: what differs: a field of the header, ``body[3].void_bitmap``, ``transactions[0].items[7].end_ms``, or
            a row of the data directory. Empty where a file is damaged.
        what: one sentence, no full stop.
        expected: what follows from everything before; may be empty.
        actual: what was found; may be empty.
        where: the damaged file; empty for a difference in contents.
    """

    height: int
    field: str
    what: str
    expected: str = ""
    actual: str = ""
    where: str = ""

    @property
    def is_damage(self) -> bool:
        """Tell whether bytes cannot be read at all, rather than say something wrong."""
        return bool(self.where)

    def sentence(self) -> str:
        """Return it as one line for a person."""
        text = f"damaged store at height {self.height}, {self.where}" if self.is_damage else f"height {self.height}"
        if self.field:
            text += f", field {self.field}"
        text += f": {self.what}"
        facts = [f"{name} {value}" for name, value in (("expected", self.expected), ("found", self.actual)) if value]
        return f"{text}: {', '.join(facts)}" if facts else text


def difference_of(error: LedgerError, height: int, *, prefix: str = "") -> Difference:
    """Return what an error found at ``height`` amounts to."""
    if isinstance(error, StoreError):
        return Difference(height, "", error.what, error.expected, error.actual, where=error.where or "data directory")
    where = f"{prefix}{error.where}" if error.where else prefix.rstrip(".")
    return Difference(height, where or "block", error.what, error.expected, error.actual)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an audit has come."""

    height: int
    final_height: int
    """Where it ends."""
    records: int


@dataclass(slots=True)
class AuditReport:
    """The verdict on a chain.

    Attributes:
        source: what was audited.
        chain_id: of the genesis it was held against.
        height: of the last block that held, 0 for genesis.
        head_id: its id.
        blocks: how many held.
        transactions: in them.
        records: in them, void ones included.
        void: of those, how many do not count.
        totals: of all blocks that held.
        elections: held in them.
        set_changes: of the voting set, completed in them.
        struck: members that an election passed over for a proven fault, in order.
        final_height: the highest block proved final by certificates.
        head_certificate: what proves it, where no block carries it yet.
        final: what proves it to those who follow no block: a checkpoint.
        checked_rows: rows of the data directory's indexes that were held against the blocks.
        first_difference: None where everything held.
    """

    source: str
    chain_id: bytes
    height: int = 0
    head_id: bytes = b""
    blocks: int = 0
    transactions: int = 0
    records: int = 0
    void: int = 0
    totals: Totals = field(default_factory=lambda: EMPTY_TOTALS)
    elections: int = 0
    set_changes: int = 0
    struck: list[str] = field(default_factory=list)
    final_height: int = 0
    head_certificate: Certificate | None = None
    final: VotingProof | None = None
    checked_rows: int = 0
    first_difference: Difference | None = None

    @property
    def ok(self) -> bool:
        """Tell whether everything held."""
        return self.first_difference is None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document; also a checkpoint for a later audit."""
        found = self.first_difference
        return {
            "ok": self.ok,
            "source": self.source,
            "chain_id": self.chain_id.hex(),
            "height": self.height,
            "head_id": self.head_id.hex(),
            "blocks": self.blocks,
            "transactions": self.transactions,
            "records": self.records,
            "void": self.void,
            "totals": to_readable(self.totals),
            "elections": self.elections,
            "set_changes": self.set_changes,
            "struck": self.struck,
            "final_height": self.final_height,
            "head_certificate": to_readable(self.head_certificate),
            "checked_rows": self.checked_rows,
            "first_difference": None
            if found is None
            else {
                "height": found.height,
                "field": found.field,
                "what": found.what,
                "expected": found.expected,
                "actual": found.actual,
                "file": found.where,
            },
        }

    def sentence(self) -> str:
        """Return the verdict as one line for a person."""
        if self.first_difference is not None:
            return f"NOT OK: {self.first_difference.sentence()}"
        parts = [
            f"{self.blocks:,} blocks, {self.records:,} records ({self.void:,} void)",
            _counted(self.elections, "election", "elections"),
            _counted(self.set_changes, "change of the voting set", "changes of the voting set"),
            f"struck: {' '.join(self.struck)}" if self.struck else "",
            f"final at height {self.height} id {self.head_id.hex()}",
        ]
        return "OK: " + ", ".join(filter(None, parts))


def _counted(count: int, one: str, many: str) -> str:
    """Return a count in words; nothing for none."""
    return f"{count:,} {one if count == 1 else many}" if count else ""
