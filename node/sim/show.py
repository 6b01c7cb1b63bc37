"""What a person sees of simulations: one told line by line, progress of many, and what they came through."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from node.sim.cluster import Report
from node.sim.coverage import CHANGES, SIZES, STATES, Coverage

LINE_EVERY_S = 10.0
"""How often progress is told where there is no terminal to draw a bar on."""


class Ticker:
    """Progress of many schedules: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._began = self._told = time.monotonic()
        self._done = 0
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("simulating"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f}/s"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, rate=0.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    @property
    def seconds(self) -> float:
        """Return how long it has taken so far."""
        return time.monotonic() - self._began

    def add(self, schedules: int) -> None:
        """Count schedules as done."""
        self._done += schedules
        rate = self._done / max(self.seconds, 0.001)
        self._bar.update(self._task, completed=self._done, rate=rate)
        now = time.monotonic()
        if self._bar.disable and now >= self._told + LINE_EVERY_S and self._done < self._total:
            self._told = now
            left_s = (self._total - self._done) / rate
            self.say(f"{self._done} of {self._total} schedules, {rate:.0f}/s, about {left_s:.0f} s left")

    def say(self, text: str) -> None:
        """Write a line, above the bar where there is one."""
        self._console.print(text, markup=False, soft_wrap=True)


def tell(report: Report, name: str) -> None:
    """Write a run's transcript and what it came to; ``name``: of its plan."""
    out, plan, seen = sys.stdout, report.plan, report.seen
    out.write("slot.ms   who  what\n")
    if plan.liars:
        liars = ", ".join(f"n{number}" for number in plan.liars)
        out.write(f"   0.000   -- dishonest: {liars}: {', '.join(lie.value for lie in plan.lies) or 'in name only'}\n")
    out.writelines(f"{line}\n" for line in report.lines)
    crashes = sum(times for name, times in seen.items() if name.startswith("crash"))
    out.write(
        f"{name}: {plan.nodes} nodes, final height {report.final_height}, "
        f"{seen['transaction submitted']} transactions, {crashes} crashes, "
        f"all well {report.settle_slots} slots after healing\n"
        f"transcript {report.digest}\n"
    )
    out.write(f"VIOLATION: {report.violation}\n" if report.violation else "every invariant held\n")


def tell_coverage(coverage: Coverage) -> None:
    """Write what many schedules came through."""
    table = Table(box=None, pad_edge=False)
    table.add_column("what happened")
    table.add_column("schedules", justify="right")
    table.add_column("times", justify="right")
    for names in (SIZES, STATES, CHANGES):
        for name in names:
            table.add_row(name, f"{coverage.schedules[name]:,}", f"{coverage.times[name]:,}")
        table.add_section()
    Console(highlight=False, soft_wrap=True).print(table)
