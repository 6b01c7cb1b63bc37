"""What ``ledger-verify`` does with a whole chain: audits it, and shows how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from audit.report import AuditReport, Progress
    from audit.source import ChainSource
    from audit.verify import KnownHead
    from ledger.genesis import Genesis

LINE_EVERY_S = 5
"""How often progress is told where there is no terminal."""


def run_audit(source: ChainSource, genesis: Genesis, known: list[KnownHead]) -> AuditReport:
    """Audit a chain, telling how far it is."""
    from audit.report import AuditReport, Difference
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
    with showing_progress() as show:
        return verify_chain(source, genesis, known=known, on_progress=show)


@contextmanager
def showing_progress() -> Iterator[Callable[[Progress], None]]:
    """Show progress on the terminal, or in plain lines where there is none."""
    begun = time.monotonic()

    def rate(progress: Progress) -> str:
        return f"{progress.records / max(time.monotonic() - begun, 0.001):,.0f} records/s"

    if not sys.stderr.isatty():
        told = begun

        def tell(progress: Progress) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= LINE_EVERY_S:
                told = now
                left_s = (now - begun) * (progress.final_height - progress.height) / progress.height
                say(f"height {progress.height:,} of {progress.final_height:,}, {rate(progress)}, {left_s:,.0f} s left")

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
        task = bar.add_task("", total=None)

        def draw(progress: Progress) -> None:
            bar.update(task, completed=progress.height, total=progress.final_height, description=rate(progress))

        yield draw


def say(line: str) -> None:
    """Tell the person something that is not the verdict."""
    typer.echo(line, err=True)
