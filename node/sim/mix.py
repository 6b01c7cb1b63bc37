"""What kind of schedule a seed stands for: most are of the smallest cluster that bears a liar, some of others."""

from __future__ import annotations

from dataclasses import dataclass

from node.sim.cluster import SLOTS, Report, run_plan
from node.sim.plan import ALL_FAULTS, Fault, Plan, draw_plan


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of schedule.

    Attributes:
        producers: how many nodes.
        peering: with the gossip and sync of real nodes.
        share: of twenty schedules, how many are of it.
    """

    producers: int
    peering: bool
    share: int

    @property
    def name(self) -> str:
        """Return what people call it."""
        return f"{self.producers} nodes, {'real gossip and sync' if self.peering else 'simple peers'}"


MIX = (Shape(4, False, 18), Shape(7, False, 1), Shape(4, True, 1))
"""Simple peers lose, repeat and reorder single messages, which is harder on consensus than what real peers do."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be run.

    Attributes:
        producers, peering: only schedules of that kind; None: as the mix has it.
        faults: what may go wrong.
        slots: how long.
    """

    producers: int | None = None
    peering: bool | None = None
    faults: frozenset[Fault] = ALL_FAULTS
    slots: int = SLOTS

    def shape_of(self, seed: int) -> Shape:
        """Return the kind of schedule that ``seed`` stands for."""
        shape = self._mixed(seed)
        producers = shape.producers if self.producers is None else self.producers
        return Shape(producers, shape.peering if self.peering is None else self.peering, 0)

    def plan_of(self, seed: int) -> Plan:
        """Return the plan of ``seed``."""
        shape = self.shape_of(seed)
        return draw_plan(seed, shape.producers, self.faults, slots=self.slots, peering=shape.peering)

    def run(self, seed: int) -> Report:
        """Run the schedule of ``seed``."""
        return run_plan(self.plan_of(seed))

    def shares(self) -> dict[str, int]:
        """Return how many of twenty schedules are of which kind."""
        shares: dict[str, int] = {}
        for seed in range(sum(shape.share for shape in MIX)):
            name = self.shape_of(seed).name
            shares[name] = shares.get(name, 0) + 1
        return shares

    @staticmethod
    def _mixed(seed: int) -> Shape:
        place = seed % sum(shape.share for shape in MIX)
        for shape in MIX:
            place -= shape.share
            if place < 0:
                return shape
        raise AssertionError("the shares add up")
