"""What kind of schedule a seed stands for: most are of the smallest cluster that bears a liar, some of others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from node.sim.cluster import SLOTS, Report, run_plan
from node.sim.plan import ALL_FAULTS, Fault, Plan, draw_plan


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of schedule.

    Attributes:
        producers: how many seats there are.
        more: members beyond the seats; where there are any, members govern, and the voting set changes.
        peering: with the gossip and sync of real nodes.
        share: of SHARES schedules, how many are of it.
        slots: how long things go wrong.
    """

    producers: int
    more: int
    peering: bool
    share: int = 0
    slots: int = SLOTS

    @property
    def name(self) -> str:
        """Return what people call it."""
        peers = "real gossip and sync" if self.peering else "simple peers"
        nodes = f"{self.producers} nodes"
        if self.more:
            nodes = f"{self.producers + self.more} members for {self.producers} seats"
        return f"{nodes}, {peers}" + (f", {self.slots} slots" if self.slots != SLOTS else "")


LONG_SLOTS = 40
"""For what takes long to come about: many blocks that are not final, changes of the voting set one after the other."""
MIX = (
    Shape(4, 0, peering=False, share=58),
    Shape(4, 1, peering=False, share=15),
    Shape(4, 0, peering=False, share=2, slots=LONG_SLOTS),
    Shape(4, 1, peering=False, share=1, slots=LONG_SLOTS),
    Shape(4, 3, peering=False, share=1),
    Shape(7, 0, peering=False, share=1),
    Shape(4, 0, peering=True, share=1),
    Shape(4, 1, peering=True, share=1),
)
"""Simple peers lose, repeat and reorder single messages, which is harder on consensus than what real peers do."""
SHARES = sum(shape.share for shape in MIX)


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be run.

    Attributes:
        producers, more, peering: only schedules of that kind; None: as the mix has it.
        faults: what may go wrong.
        slots: how long; None: as the mix has it.
    """

    producers: int | None = None
    more: int | None = None
    peering: bool | None = None
    faults: frozenset[Fault] = ALL_FAULTS
    slots: int | None = None

    def shape_of(self, seed: int) -> Shape:
        """Return the kind of schedule that ``seed`` stands for."""
        mixed = _mixed(seed)
        return Shape(
            mixed.producers if self.producers is None else self.producers,
            mixed.more if self.more is None else self.more,
            peering=mixed.peering if self.peering is None else self.peering,
            slots=mixed.slots if self.slots is None else self.slots,
        )

    def plan_of(self, seed: int) -> Plan:
        """Return the plan of ``seed``."""
        shape = self.shape_of(seed)
        return draw_plan(seed, shape.producers, self.faults, slots=shape.slots, peering=shape.peering, more=shape.more)

    def run(self, seed: int) -> Report:
        """Run the schedule of ``seed``."""
        return run_plan(self.plan_of(seed))

    def shares(self) -> dict[str, int]:
        """Return how many of SHARES schedules are of which kind."""
        return dict(Counter(self.shape_of(seed).name for seed in range(SHARES)))


def _mixed(seed: int) -> Shape:
    place = seed % SHARES
    for shape in MIX:
        place -= shape.share
        if place < 0:
            return shape
    raise AssertionError("the shares add up")
