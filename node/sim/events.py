"""Everything that a plan may have happen, as it is read and written."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec
from msgspec import Meta

from node.sim.store import Fate

Index = Annotated[int, Meta(ge=0)]
"""A node, and the member whose node it is."""


class Event(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Something that happens at a moment.

    Attributes:
        at_ms: true time since genesis.
    """

    at_ms: int


class Loss(Event, tag="loss", frozen=True):
    """From now on so many messages in a thousand are lost."""

    milli: int

    def __str__(self) -> str:
        return f"{self.milli / 10:g} % of messages are lost" if self.milli else "no loss"


class Delay(Event, tag="delay", frozen=True):
    """From now on messages take up to this long."""

    max_ms: int

    def __str__(self) -> str:
        return f"messages take up to {self.max_ms} ms"


class Duplicate(Event, tag="duplicate", frozen=True):
    """From now on so many messages in a thousand come twice."""

    milli: int

    def __str__(self) -> str:
        return f"{self.milli / 10:g} % of messages come twice" if self.milli else "no duplicates"


class Partition(Event, tag="partition", frozen=True):
    """The side on which each node is from now on."""

    groups: list[int]

    def __str__(self) -> str:
        return f"partition {self.groups}" if any(self.groups) else "no partition"


class OneWay(Event, tag="one-way", frozen=True):
    """Links, as (from, to), that carry nothing from now on; all others do."""

    links: list[tuple[int, int]]

    def __str__(self) -> str:
        return f"nothing passes {_arrows(self.links)}" if self.links else "every link carries"


class SlowLink(Event, tag="slow-link", frozen=True):
    """Links, as (from, to), that are slow from now on; all others are not."""

    links: list[tuple[int, int]]

    def __str__(self) -> str:
        return f"slow: {_arrows(self.links)}" if self.links else "no link is slow"


class Crash(Event, tag="crash", frozen=True):
    """A node loses power.

    Attributes:
        points: how many more points of its steps it lives through.
        fate: what becomes of a write that the power fails in.
        away_ms: how long it is down.
    """

    node: Index
    points: int
    fate: Fate
    away_ms: int

    def __str__(self) -> str:
        where = f"in {self.points} steps" if self.points else "at the next step"
        return f"n{self.node} is about to lose power {where}, for {self.away_ms} ms (a write: {self.fate.value})"


class Drift(Event, tag="drift", frozen=True):
    """A node's clock jumps, and goes at another rate from now on."""

    node: Index
    step_ms: int
    rate: int

    def __str__(self) -> str:
        return f"the clock of n{self.node} jumps by {self.step_ms} ms and is {self.rate / 10:g} % too fast"


class Submit(Event, tag="submit", frozen=True):
    """A node is given a transaction with the records of these calls."""

    node: Index
    calls: list[int]

    def __str__(self) -> str:
        return f"n{self.node} is given calls {self.calls}"


# -- governance ----------------------------------------------------------------------------------------------------


class Delegate(Event, tag="delegate", frozen=True):
    """A member delegates so much to each of these candidates."""

    node: Index
    parts: list[tuple[Index, int]]

    def __str__(self) -> str:
        shares = ", ".join(f"{weight} to m{candidate}" for candidate, weight in self.parts)
        return f"m{self.node} delegates {shares or 'nothing'}"


class Stand(Event, tag="stand", frozen=True):
    """A member stands as a candidate."""

    node: Index

    def __str__(self) -> str:
        return f"m{self.node} stands"


class Withdraw(Event, tag="withdraw", frozen=True):
    """A member stands no longer."""

    node: Index

    def __str__(self) -> str:
        return f"m{self.node} withdraws"


class Rotate(Event, tag="rotate", frozen=True):
    """A member's node key gives way to its next one."""

    node: Index

    def __str__(self) -> str:
        return f"m{self.node} rotates its node key"


class Revoke(Event, tag="revoke", frozen=True):
    """A member's node key ends."""

    node: Index

    def __str__(self) -> str:
        return f"m{self.node} revokes its node key"


class Deed(Enum):
    """What members may decide together."""

    ADMIT = "admit"
    REWEIGH = "reweigh"
    REMOVE = "remove"
    READMIT = "readmit"
    SEATS = "seats"


class Propose(Event, tag="propose", frozen=True):
    """A member proposes something.

    Attributes:
        ballot: a number by which approvals name it.
        subject: the member concerned.
        amount: its weight, or the number of seats.
    """

    node: Index
    ballot: int
    deed: Deed
    subject: Index
    amount: int

    def __str__(self) -> str:
        about = f"{self.amount} seats" if self.deed is Deed.SEATS else f"to {self.deed.value} m{self.subject}"
        return f"m{self.node} proposes {about} (ballot {self.ballot})"


class Approve(Event, tag="approve", frozen=True):
    """A member approves a proposal."""

    node: Index
    ballot: int

    def __str__(self) -> str:
        return f"m{self.node} approves ballot {self.ballot}"


class Accuse(Event, tag="accuse", frozen=True):
    """A member hands in what proves that another lied, if there is anything yet."""

    node: Index
    liar: Index

    def __str__(self) -> str:
        return f"m{self.node} accuses m{self.liar}"


GoverningEvent = Delegate | Stand | Withdraw | Rotate | Revoke | Propose | Approve | Accuse
AnyEvent = Loss | Delay | Duplicate | Partition | OneWay | SlowLink | Crash | Drift | Submit | GoverningEvent


def _arrows(links: list[tuple[int, int]]) -> str:
    return " ".join(f"n{source}>n{target}" for source, target in links)
