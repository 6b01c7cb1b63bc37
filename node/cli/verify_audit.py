"""What ``ledger-verify`` does with a whole chain: audits it, and shows how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import typer

from ledger.errors import Unfinished

if TYPE_CHECKING:
    from pathlib import Path

    from audit.report import AuditReport, Progress
    from audit.source import ChainSource
    from audit.verify import KnownHead
    from ledger.genesis import Genesis

LINE_EVERY_S = 5
"""How often progress is told where there is no terminal."""


def run_audit(
    source: ChainSource,
    genesis: Genesis,
    known: list[KnownHead],
    *,
    jobs: int | None = None,
    resume: Path | None = None,
) -> AuditReport:
    """Audit a chain, telling how far it is.

    jobs: see ``verify_chain``. resume: the file to go on from, made where it is not there.
    Raises Unfinished where somebody interrupts it.
    """
    from audit.report import AuditReport, Difference
    from audit.resume import ResumeFile
    from audit.verify import verify_chain
    from ledger.codec import encode
    from ledger.genesis import chain_id_of

    carried = source.genesis()
    if carried is not None and carried != encode(genesis):
        report = AuditReport(source.name, chain_id_of(genesis))
        report.head_id = report.chain_id
        what = "the genesis carried is not the one given"
        report.first_difference = Difference(0, "genesis", what, f"chain {report.chain_id.hex()}", "another")
        return report
    with ResumeFile(resume, genesis) if resume is not None else nullcontext() as file:
        pace = Pace()
        if file is not None and file.saved is not None:
            pace = Pace(file.saved.point.height, file.saved.sums.records)
            say(f"goes on after height {pace.first_height:,}, as {resume} says; what is below is not looked at again")
        try:
            with showing_progress(pace) as show:
                return verify_chain(source, genesis, known=known, on_progress=show, jobs=jobs, resume=file)
        except KeyboardInterrupt:
            hint = f"Go on with --resume {resume}" if resume is not None else "With --resume FILE an audit can go on"
            raise Unfinished(f"interrupted after height {pace.height:,}", hint=hint) from None


class Pace:
    """How fast an audit is, since it began or went on."""

    def __init__(self, first_height: int = 0, first_records: int = 0) -> None:
        """first_height, first_records: verified before."""
        self.first_height = self.height = first_height
        self._first_records = first_records
        self._begun = time.monotonic()

    def rate(self, progress: Progress) -> str:
        """Return the records a second so far."""
        seconds = max(time.monotonic() - self._begun, 0.001)
        return f"{(progress.records - self._first_records) / seconds:,.0f} records/s"

    def left_s(self, progress: Progress) -> float:
        """Return the seconds left if every block takes as long as those so far."""
        done = max(progress.height - self.first_height, 1)
        return (time.monotonic() - self._begun) * (progress.final_height - progress.height) / done


@contextmanager
def showing_progress(pace: Pace | None = None) -> Iterator[Callable[[Progress], None]]:
    """Show progress on the terminal, or in plain lines where there is none."""
    pace = pace or Pace()
    if not sys.stderr.isatty():
        told = time.monotonic()

        def tell(progress: Progress) -> None:
            nonlocal told
            pace.height = progress.height
            now = time.monotonic()
            if now - told >= LINE_EVERY_S:
                told = now
                place = f"height {progress.height:,} of {progress.final_height:,}"
                say(f"{place}, {pace.rate(progress)}, {pace.left_s(progress):,.0f} s left")

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("auditing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, completed=pace.first_height)

        def draw(progress: Progress) -> None:
            pace.height = progress.height
            bar.update(task, completed=progress.height, total=progress.final_height, description=pace.rate(progress))

        yield draw


def say(line: str) -> None:
    """Tell the person something that is not the verdict."""
    typer.echo(line, err=True)
