"""From a plan that breaks a promise to the least of it that still does.

Parts are left out, largest first, for as long as the same promise is broken. What is left to chance while a plan runs
falls differently when a part is missing, so each attempt is made with a few seeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

from msgspec.structs import replace

from node.sim.cluster import Report, run_plan
from node.sim.events import AnyEvent, OneWay, SlowLink, Submit
from node.sim.plan import Plan
from node.sim.world import SLOT_MS

T = TypeVar("T")

RUNS_MAX = 600
"""Attempts in all: about half a minute at four nodes."""
SEEDS_EACH = 3
"""Seeds tried with each attempt."""


def kind_of(violation: str) -> str:
    """Return what is broken, without who and where: the words before any detail, numbers and names left out."""
    rule = re.match(r"V[123]:|[a-z]+ rest", violation)
    return rule.group() if rule else re.sub(r"\S*\d\S*", "#", violation)


class Shrinker:
    """Cuts a plan down.

    Attributes:
        best: the report of the smallest plan so far; its transcript is the one to read.
        runs: attempts made.
    """

    def __init__(self, report: Report, *, runs_max: int | None = None) -> None:
        """``report`` is of a run that broke a promise."""
        assert report.violation is not None
        self.best = report
        self.runs = 0
        self._kind = kind_of(report.violation)
        self._runs_max = RUNS_MAX if runs_max is None else runs_max

    def run(self) -> Report:
        """Return the report of the smallest plan found that breaks the same promise."""
        before = None
        while before is not self.best and self.runs < self._runs_max:
            before = self.best
            self._cut_short()
            self._drop_liars()
            self._drop_events()
            self._simplify()
        return self.best

    def _attempt(self, plan: Plan) -> bool:
        """Keep ``plan`` if it breaks the same promise with one of a few seeds."""
        for turn in range(SEEDS_EACH):
            if self.runs >= self._runs_max:
                return False
            self.runs += 1
            report = run_plan(replace(plan, seed=plan.seed + turn))
            if report.violation is not None and kind_of(report.violation) == self._kind:
                self.best = report
                return True
        return False

    def _cut_short(self) -> None:
        """End the run where the promise was broken."""
        plan = self.best.plan
        end_ms = self.best.end_ms
        slots = min(plan.slots, end_ms // SLOT_MS + 1)
        events = [event for event in plan.events if event.at_ms <= end_ms]
        if slots < plan.slots or len(events) < len(plan.events):
            self._attempt(replace(plan, slots=slots, events=events))

    def _drop_liars(self) -> None:
        plan = self.best.plan
        if plan.liars and not self._attempt(replace(plan, liars=[], lies=[])):
            for lies in _without_each(plan.lies):
                self._attempt(replace(self.best.plan, lies=[lie for lie in self.best.plan.lies if lie in lies]))
        if any(plan.skews_ms):
            self._attempt(replace(self.best.plan, skews_ms=[0] * plan.nodes))

    def _drop_events(self) -> None:
        """Leave out events: half of them at once, then quarters, down to single ones."""
        size = max(1, len(self.best.plan.events) // 2)
        while True:
            place = 0
            while place < len(self.best.plan.events) and self.runs < self._runs_max:
                plan = self.best.plan
                events = plan.events[:place] + plan.events[place + size :]
                if not self._attempt(replace(plan, events=events)):
                    place += size
            if size == 1:
                return
            size = max(1, size // 2)

    def _simplify(self) -> None:
        """Make each event that is left smaller."""
        for place in range(len(self.best.plan.events)):
            for event in _smaller(self.best.plan.events[place]):
                plan = self.best.plan
                if self._attempt(replace(plan, events=[*plan.events[:place], event, *plan.events[place + 1 :]])):
                    break


def _without_each(items: Sequence[T]) -> Iterator[list[T]]:
    """Return the items without the first, without the second, and so on."""
    for place in range(len(items)):
        yield [*items[:place], *items[place + 1 :]]


def _smaller(event: AnyEvent) -> list[AnyEvent]:
    """Return simpler versions of an event, the simplest first."""
    match event:
        case Submit() if len(event.calls) > 1:
            return [replace(event, calls=event.calls[:1])]
        case OneWay() | SlowLink() if len(event.links) > 1:
            return [replace(event, links=links) for links in ([event.links[0]], event.links[1:], event.links[:-1])]
        case _:
            return []
