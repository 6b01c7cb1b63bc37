"""Everything that goes wrong in one run, as a list that can be read, cut down and run again.

A plan is drawn from a seed. What is left to chance while it runs (how long each message takes, which of them are lost,
what a liar says) is drawn from the seed as well, so a plan is the whole run.
"""

from __future__ import annotations

from enum import Enum
from random import Random
from typing import Annotated

import msgspec
from msgspec import Meta

from consensus.params import faults_tolerated
from node.sim.store import Fate
from node.sim.world import SLOT_MS

CRASH_POINTS_MAX = 40
"""A crash strikes within this many points of a node's steps."""
RATE_MAX = 20
"""Clocks go wrong by up to so many thousandths: a slot in fifty."""
STEP_MS_MAX = 2 * SLOT_MS
"""Clocks jump by up to this much, either way."""
FAULTS_PER_SLOT = 1
SUBMISSIONS_PER_SLOT = 1

Index = Annotated[int, Meta(ge=0)]


class Fault(Enum):
    """What may go wrong in a run."""

    LOSS = "loss"
    DELAY = "delay"
    DUPLICATE = "duplicate"
    PARTITION = "partition"
    ONE_WAY = "one-way"
    SLOW_LINK = "slow-link"
    CRASH = "crash"
    SKEW = "skew"
    """Clocks that are off by up to a quarter of a slot, for good."""
    DRIFT = "drift"
    """Clocks that run too fast or too slow, and that jump."""
    BYZANTINE = "byzantine"


ALL_FAULTS = frozenset(Fault)


class Lie(Enum):
    """What a dishonest producer does."""

    TWO_BLOCKS = "two blocks in one slot"
    WITHHELD_BLOCK = "blocks withheld"
    BOGUS_CERTIFICATE = "certificates nobody gave"
    EVERY_BRANCH = "votes for every branch"
    STALE_SOURCE = "votes from stale sources"


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


AnyEvent = Loss | Delay | Duplicate | Partition | OneWay | SlowLink | Crash | Drift | Submit


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run.

    Attributes:
        seed: of what is left to chance.
        producers: how many nodes, all of which hold a seat.
        peering: with the gossip and sync of real nodes instead of simple ones.
        slots: how long things go wrong; then everything heals.
        liars: the dishonest nodes, and what they do.
        skews_ms: how far each node's clock is ahead from the start.
        events: by time.
    """

    seed: int
    producers: int
    peering: bool
    slots: int
    liars: list[Index]
    lies: list[Lie]
    skews_ms: list[int]
    events: list[AnyEvent]


def draw_plan(seed: int, producers: int, faults: frozenset[Fault], *, slots: int, peering: bool = False) -> Plan:
    """Return the plan of a seed, in which what is in ``faults`` may go wrong, and often only some of that does."""
    random = Random(f"plan {seed}")  # noqa: S311 - repeatable is the point
    kinds = _draw_kinds(random, faults)
    liars = random.sample(range(producers), faults_tolerated(producers)) if Fault.BYZANTINE in kinds else []
    lies = [lie for lie in Lie if random.randrange(3)] if liars else []
    skews = [random.randint(-SLOT_MS // 4, SLOT_MS // 4) if Fault.SKEW in kinds else 0 for _ in range(producers)]
    events = _draw_submissions(random, producers, slots)
    timed = [kind for kind in Fault if kind in kinds and kind not in {Fault.SKEW, Fault.BYZANTINE}]
    for slot in range(slots if timed else 0):
        for _ in range(FAULTS_PER_SLOT):
            events.append(_draw_fault(random, random.choice(timed), producers, _moment(random, slot)))
    events.sort(key=lambda event: event.at_ms)
    return Plan(seed, producers, peering, slots, liars, lies, skews, events)


def _draw_kinds(random: Random, faults: frozenset[Fault]) -> frozenset[Fault]:
    """Return some of the faults: with all at once every time, each would hide behind the others."""
    kinds = [kind for kind in Fault if kind in faults]
    if len(kinds) < 3:
        return frozenset(kinds)
    return frozenset(kind for kind in kinds if random.randrange(4))


def _moment(random: Random, slot: int) -> int:
    return slot * SLOT_MS + random.randrange(SLOT_MS)


def _draw_fault(random: Random, kind: Fault, producers: int, at_ms: int) -> AnyEvent:
    """Return one fault, or the end of one."""
    match kind:
        case Fault.LOSS:
            return Loss(at_ms, random.choice([0, 50, 200, 400]))
        case Fault.DELAY:
            return Delay(at_ms, random.choice([40, 900, 2_500, 5_000]))
        case Fault.DUPLICATE:
            return Duplicate(at_ms, random.choice([0, 300]))
        case Fault.PARTITION:
            sides = random.choice([1, 2, 2, 3])
            return Partition(at_ms, [random.randrange(sides) for _ in range(producers)])
        case Fault.ONE_WAY:
            return OneWay(at_ms, _draw_links(random, producers))
        case Fault.SLOW_LINK:
            return SlowLink(at_ms, _draw_links(random, producers))
        case Fault.CRASH:
            # Some are back at once, in the very slot in which they fell: that is when a forgotten seal would show.
            away_ms = random.choice([SLOT_MS // 20, SLOT_MS // 4, random.randint(SLOT_MS, 6 * SLOT_MS)])
            points = random.randrange(CRASH_POINTS_MAX)
            return Crash(at_ms, random.randrange(producers), points, random.choice(list(Fate)), away_ms)
        case _:
            step_ms = random.choice([0, 0, random.randint(-STEP_MS_MAX, STEP_MS_MAX)])
            return Drift(at_ms, random.randrange(producers), step_ms, random.randint(-RATE_MAX, RATE_MAX))


def _draw_links(random: Random, producers: int) -> list[tuple[int, int]]:
    links = [(a, b) for a in range(producers) for b in range(producers) if a != b]
    return sorted(random.sample(links, random.randint(0, len(links) // 3)))


def _draw_submissions(random: Random, producers: int, slots: int) -> list[AnyEvent]:
    """Return transactions: mostly of new calls, now and then of one that was reported before by the same member."""
    submissions: list[AnyEvent] = []
    reported: list[list[int]] = [[] for _ in range(producers)]
    call = 0
    for at_ms in sorted(_moment(random, slot) for slot in range(slots) for _ in range(SUBMISSIONS_PER_SLOT)):
        node = random.randrange(producers)
        calls = []
        for _ in range(random.randint(1, 3)):
            if reported[node] and random.randrange(6) == 0:
                calls.append(random.choice(reported[node]))
            else:
                call += 1
                calls.append(call)
                reported[node].append(call)
        submissions.append(Submit(at_ms, node, calls))
    return submissions


def _arrows(links: list[tuple[int, int]]) -> str:
    return " ".join(f"n{source}>n{target}" for source, target in links)
