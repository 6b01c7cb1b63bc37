"""What the schedules came through, counted: a simulator that never sees a set change proves nothing about them.

Every name that is counted is here with its meaning; ``tests/simulation`` demands that fixed seeds reach each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

_DEPTHS = ("1", "2 to 3", "4 and more")
_BANDS = ("1", "2 to 3", "4 to 7", "8 to 15", "16 and more")

SIZES: Mapping[str, str] = {
    "step": "things that happened to nodes: messages, timers, submissions, starts",
    "message": "messages sent",
    "message lost": "messages that the network did not carry",
    "block sealed": "blocks sealed with transactions",
    "empty block sealed": "blocks sealed for votes owed, or as heartbeat",
    "block final": "heights made final",
    "transaction submitted": "transactions given to nodes",
    "transaction accepted": "transactions that a quorum had on disk",
}
"""How much happened."""

STATES: Mapping[str, str] = {
    **{f"reorganisation of {band}": "blocks that an honest node left for a better branch" for band in _DEPTHS},
    **{f"nothing final for {band} slots": "on an honest node, until something was" for band in _BANDS[1:]},
    "partition with a quorum": "one side can go on",
    "partition without a quorum": "no side can",
    "crash: write lost": "nothing of the batch was on disk",
    "crash: write torn": "part of it was, and was cut off at the restart",
    "crash: write kept": "all of it was, and the node never knew",
    "crash: before a message": "what was written was not said, or to nobody yet",
    "crash: after a transaction is stored": "nobody was told",
    "restart with unfinal blocks": "validated again from disk",
    "restart with nothing unfinal": "only the final point was needed",
    "clock drifts": "a clock began to run at another rate",
    "clock jumps": "a clock was set forward or back",
    "double-vote proven": "proof of two votes at one height",
    "surrounding-vote proven": "proof of a vote around another",
    "double-block proven": "proof of two blocks in one slot",
    "lie refused": "a message that no honest node sends",
    "transaction dropped: void": "all its records had counted in others",
}
"""What faults led to."""

_KINDS = ("delegate", "candidate", "key", "propose", "approve", "evidence")
CHANGES: Mapping[str, str] = {
    **{f"governs: {kind}": "handed in by a member, whether it fits or not" for kind in _KINDS},
    **{f"in the chain: {kind}": "in a final block" for kind in _KINDS},
    "election": "epochs that began on the final chain",
    "election with other winners": "other members hold the seats",
    "set change scheduled": "the voting set is to become another one",
    "set change completed": "it has",
    "certificate of one set": "in the header of a final block",
    "certificate of two sets": "the same, while a change is under way",
    "voting set grows": "more voters than before",
    "voting set shrinks": "fewer",
    "key rotated in the voting set": "a member votes with another key",
    "liar leaves the voting set": "withdrawn, struck, removed or not elected",
    "liar joins the voting set": "elected, and proven alive",
}
"""What members and elections did on the final chain."""


@dataclass
class Coverage:
    """What many schedules came through.

    Attributes:
        times: how often each thing happened in all.
        schedules: in how many schedules it did.
        shapes: how many schedules there were of each shape.
    """

    times: Counter[str] = field(default_factory=Counter)
    schedules: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)

    def add(self, shape: str, seen: Counter[str]) -> None:
        """Count one schedule in."""
        self.times.update(seen)
        self.schedules.update(name for name, times in seen.items() if times)
        self.shapes[shape] += 1

    def merge(self, other: Coverage) -> None:
        """Count the schedules of ``other`` in."""
        self.times.update(other.times)
        self.schedules.update(other.schedules)
        self.shapes.update(other.shapes)

    @property
    def total(self) -> int:
        """Return how many schedules there were."""
        return self.shapes.total()

    def figures(self) -> dict[str, dict[str, int]]:
        """Return everything as plain numbers, in the order of the lists above."""
        names = [*SIZES, *STATES, *CHANGES]
        return {
            "shapes": dict(sorted(self.shapes.items())),
            "times": {name: self.times[name] for name in names},
            "schedules": {name: self.schedules[name] for name in names},
        }
