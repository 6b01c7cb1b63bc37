"""The audit: everything a chain says, derived again from its raw bytes and its genesis.

Nothing is believed. In the order of the blocks: every encoding is canonical; every transaction is signed, has the
items it signed and passes the rules; the records that count, the totals, the roots and every other field of the header
follow; the producer owned the slot and signed; every certificate is a quorum's on the one right link; and those
certificates make every block final. The first thing that differs ends the audit.

Source: docs/audit.md.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from audit.ahead import LookAhead
from audit.auditor import Applied, ChainAuditor
from audit.derived import DerivedRows
from audit.report import AuditReport, Difference, Progress, difference_of
from audit.resume import KnownRow, ResumeFile, SavedAudit, Sums
from audit.source import ChainSource
from audit.vouch import Voucher
from audit.workers import Workers
from ledger.block import (
    add_totals,
)
from ledger.errors import ConfigError, LedgerError, StoreDamaged, StoreError, Unfinished
from ledger.genesis import Genesis, chain_id_of
from ledger.rules.ruleset import RuleSet
from ledger.transition import ChainState
from ledger.validation import Rules


@dataclass(frozen=True, slots=True)
class KnownHead:
    """A block that is known from elsewhere to be in the chain.

    Attributes:
        block_id: None where only the history below it is known.
        history_root: over the ids of all blocks below it; None where that is not known.
    """

    height: int
    block_id: bytes | None
    history_root: bytes | None = None


def verify_chain(
    source: ChainSource,
    genesis: Genesis,
    *,
    rules: Rules | None = None,
    known: Sequence[KnownHead] = (),
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    jobs: int | None = 1,
    resume: ResumeFile | None = None,
) -> AuditReport:
    """Return the verdict on the chain of ``source``, held against ``genesis``.

    Raises StoreError where the source cannot be read to its end for a reason that is not damage: locked, of another
    version, out of reach.

    rules: compiled from the genesis where not given; raises ConfigError where this release does not have them.
    known: blocks known from elsewhere to be in the chain; a chain that ends below one of them was cut.
    on_progress: told after each block.
    jobs: processes that check, this one among them; None for as many as there are cores where the chain is long.
        The verdict and its place are the same with any number. Raises Unfinished where one ends before its time.
    resume: goes on after what it says was verified, and saves how far this came. Raises ConfigError where it does not
        fit the source or what is known.
    """
    if rules is None:
        compiled = RuleSet(genesis.rules, carbon_basis=genesis.parameters.carbon_basis)
        compiled.run_conformance()
        rules = compiled
    if resume is not None and resume.saved is not None:
        _check_fits(resume.saved, source, known)
    auditor = ChainAuditor(genesis, rules, resume.index() if resume is not None else None)
    run = _Run(source, auditor, AuditReport(source.name, chain_id_of(genesis)), known, on_progress, resume)
    run.report.head_id = auditor.chain.block_id
    # An audit makes no cycles, but millions of objects: looking for cycles among them takes a tenth of the time.
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        with Workers(genesis) as workers:
            ahead = LookAhead(jobs, workers, Voucher(genesis, rules), lambda: auditor.chain.state)
            ahead.begin()
            run.report.first_difference = run.audit(ahead)
    finally:
        auditor.close()
        if was_collecting:
            gc.enable()
    return run.report


@dataclass(slots=True)
class _Run:
    """One audit under way."""

    source: ChainSource
    auditor: ChainAuditor
    report: AuditReport
    known: Sequence[KnownHead]
    on_progress: Callable[[Progress], None]
    resume: ResumeFile | None

    def audit(self, ahead: LookAhead) -> Difference | None:
        """Go through the source, filling the report; return the first difference."""
        report, auditor, source = self.report, self.auditor, self.source
        try:
            source.open(report.chain_id)
            rows = DerivedRows(source.store) if source.store is not None else None
            found = _check_known(self.known, auditor.chain)
            if found is not None:
                return found
            if source.head.first_height != 1:
                what = "it does not begin with the first block"
                return Difference(1, "head", what, "1", str(source.head.first_height))
            found = self._go_on(rows) or self._check_blocks(ahead, rows) or self._check_end()
            if found is None and rows is not None:
                found = rows.check_end(auditor.final_point(), auditor.chain.state, auditor.founders)
                report.checked_rows = rows.checked
        except LedgerError as error:
            error = source.explain(error)
            # Not a verdict: the chain could not be read to its end.
            if isinstance(error, Unfinished) or (isinstance(error, StoreError) and not isinstance(error, StoreDamaged)):
                raise error from None
            return difference_of(error, report.height + 1)
        finally:
            report.final_height = max(report.final_height, auditor.finality.final.height)
        return found

    def _check_blocks(self, ahead: LookAhead, rows: DerivedRows | None) -> Difference | None:
        """Verify the blocks to come."""
        report, auditor, source = self.report, self.auditor, self.source
        blocks = source.blocks(report.height + 1) if report.height else source.blocks()
        for raw, vouched in ahead.blocks(blocks):
            applied = auditor.add(raw, vouched)
            found = rows.check_block(applied.height, applied.tx_ids, applied.overlay) if rows is not None else None
            if found is not None:
                return found
            found = _check_known(self.known, auditor.chain)
            if found is not None:
                return found
            _take_in(report, applied)
            if self.resume is not None and self.resume.is_due():
                self._save(rows)
            self.on_progress(Progress(applied.height, source.head.final_height, report.records))
        self._save(rows)
        return None

    def _go_on(self, rows: DerivedRows | None) -> Difference | None:
        """Go on after what was verified before, if anything was."""
        saved = self.resume.saved if self.resume is not None else None
        if self.resume is None or saved is None:
            return None
        ends_at = self.source.head.final_height
        if ends_at < saved.point.height:
            expected = f"block {saved.point.height}:{saved.point.block_id.hex()}, which was verified before"
            return Difference(ends_at + 1, "block", "the chain was cut", expected, f"nothing above height {ends_at}")
        self.resume.go_on(self.auditor)
        if rows is not None and saved.rows is not None:
            rows.go_on(saved.rows)
        report, sums = self.report, saved.sums
        report.height, report.head_id = saved.point.height, saved.point.block_id
        for name in Sums.__struct_fields__:
            setattr(report, name, getattr(sums, name))
        report.struck = list(sums.struck)
        return _check_known(self.known, self.auditor.chain)

    def _save(self, rows: DerivedRows | None) -> None:
        """Save how far this came, if it is to be saved and anything was verified."""
        report = self.report
        if self.resume is None or not report.height:
            return
        sums = Sums(*(getattr(report, name) for name in Sums.__struct_fields__))
        found = [_row_of(head) for head in self.known if head.height <= report.height]
        before = self.resume.saved.found if self.resume.saved is not None else []
        self.resume.save(
            self.auditor,
            sums,
            [*before, *(row for row in found if row not in before)],
            rows.counts() if rows is not None else None,
        )

    def _check_end(self) -> Difference | None:
        """Hold the end of the chain against what the source and others say, and against the certificates."""
        report, head, height = self.report, self.source.head, self.report.height
        if height != head.final_height:
            what = "the source says that its chain ends elsewhere"
            field = "block" if self.source.store is None else "height_row"
            return Difference(height + 1, field, what, f"blocks up to height {head.final_height}", f"up to {height}")
        if head.final_id != report.head_id:
            what = "the source says that another block is its last"
            return Difference(height, "head.final_id", what, report.head_id.hex(), head.final_id.hex())
        for beyond in sorted(self.known, key=lambda one: one.height):
            if beyond.height > height:
                expected = f"block {beyond.height}:{beyond.block_id.hex() if beyond.block_id else '?'}, which is known"
                return Difference(height + 1, "block", "the chain was cut", expected, f"nothing above height {height}")
        try:
            report.head_certificate = self.auditor.add_finality(self.source.finality())
            if report.head_certificate is not None:
                report.final = self.auditor.voting_proof(report.head_certificate)
        except StoreError:
            raise
        except LedgerError as error:
            return difference_of(error, height)
        report.final_height = height
        return None


def _check_fits(saved: SavedAudit, source: ChainSource, known: Sequence[KnownHead]) -> None:
    """Raise ConfigError where an audit cannot go on from ``saved``."""
    if (saved.rows is not None) != source.has_rows:
        raise ConfigError(
            "the state is of an audit of another kind of source",
            where="--resume",
            expected="a data directory" if saved.rows is not None else "an export or a node",
            hint="The rows of a directory's indexes are compared all or not at all",
        )
    height = saved.point.height
    for head in known:
        is_last = head.height == height and head.history_root is None
        if head.height <= height and not is_last and _row_of(head) not in saved.found:
            raise ConfigError(
                f"the saved audit is past height {head.height} and did not look for this block",
                where="--resume",
                hint="Audit without --resume, or give only blocks above the saved height",
            )


def _check_known(known: Sequence[KnownHead], chain: ChainState) -> Difference | None:
    """Hold the last block, and the history up to it, against what is known from elsewhere."""
    for head in known:
        if head.height == chain.height and head.block_id not in {None, chain.block_id}:
            what, field = "another block is known at this height", "block_id"
            if not chain.height:
                what, field = "not the known chain", "chain_id"
            return Difference(chain.height, field, what, (head.block_id or b"").hex(), chain.block_id.hex())
        # The history of a block ends below it.
        if head.height == chain.history.size and head.history_root not in {None, root := chain.history.root()}:
            what = "another history is known up to here"
            return Difference(head.height, "history_root", what, (head.history_root or b"").hex(), root.hex())
    return None


def _row_of(head: KnownHead) -> KnownRow:
    return KnownRow(head.height, head.block_id, head.history_root)


def _take_in(report: AuditReport, applied: Applied) -> None:
    report.height, report.head_id = applied.height, applied.block_id
    report.blocks += 1
    report.elections += applied.is_election
    report.set_changes = applied.set_id
    report.struck += applied.struck
    report.transactions += len(applied.tx_ids)
    report.records += applied.totals.records + applied.totals.void
    report.void += applied.totals.void
    report.totals = add_totals(report.totals, applied.totals)
