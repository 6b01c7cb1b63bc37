"""Everything that goes wrong in one run, as a list that can be read, cut down and run again.

A plan is drawn from a seed. What is left to chance while it runs (how long each message takes, which of them are lost,
what a liar says) is drawn from the seed as well, so a plan is the whole run.
"""

from __future__ import annotations

from enum import Enum
from random import Random

import msgspec

from consensus.params import faults_tolerated
from node.sim.events import (
    AnyEvent,
    Crash,
    Delay,
    Drift,
    Duplicate,
    Index,
    Loss,
    OneWay,
    Partition,
    SlowLink,
    Submit,
)
from node.sim.governing import CORE, Members, draw_governing
from node.sim.store import Fate
from node.sim.world import EPOCH_SLOTS, SLOT_MS

EPOCH_SHORT = 4
"""Slots of an epoch where members govern: some elections within a run."""
CRASH_POINTS_MAX = 40
"""A crash strikes within this many points of a node's steps."""
RATE_MAX = 20
"""Clocks go wrong by up to so many thousandths: a slot in fifty."""
STEP_MS_MAX = 2 * SLOT_MS
"""Clocks jump by up to this much, either way."""
FAULTS_PER_SLOT_MILLI = 1_500
SUBMISSIONS_MILLI = 600
"""Transactions of records in a thousand slots."""
GOVERNED_SUBMISSIONS_MILLI = 400
"""Where there are those of members that govern as well."""


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


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run.

    Attributes:
        seed: of what is left to chance.
        nodes: how many there are, one of each member.
        founders: how many of them are members, and candidates, from the start.
        seats: how many produce.
        epoch_slots: how long an epoch is.
        peering: with the gossip and sync of real nodes instead of simple ones.
        slots: how long things go wrong; then everything heals.
        liars: the dishonest nodes, and what they do.
        unready: nodes that do not have the key to which theirs may be rotated.
        skews_ms: how far each node's clock is ahead from the start.
        events: by time.
    """

    seed: int
    nodes: int
    founders: int
    seats: int
    epoch_slots: int
    peering: bool
    slots: int
    liars: list[Index]
    lies: list[Lie]
    unready: list[Index]
    skews_ms: list[int]
    events: list[AnyEvent]


def draw_plan(
    seed: int,
    producers: int,
    faults: frozenset[Fault],
    *,
    slots: int,
    peering: bool = False,
    more: int = 0,
) -> Plan:
    """Return the plan of a seed, in which what is in ``faults`` may go wrong, and often only some of that does.

    more: members beyond the seats; where there are any, members govern, and seats and voting set change.
    """
    random = Random(f"plan {seed}")  # noqa: S311 - repeatable is the point
    kinds = _draw_kinds(random, faults)
    nodes = producers + more
    founders = nodes - random.randrange(2) if more else nodes
    bears = faults_tolerated(CORE if more else producers)
    liars = random.sample(range(nodes), bears) if Fault.BYZANTINE in kinds else []
    lies = [lie for lie in Lie if random.randrange(3)] if liars else []
    unready = [n for n in range(nodes) if random.randrange(6) == 0] if more else []
    skews = [random.randint(-SLOT_MS // 4, SLOT_MS // 4) if Fault.SKEW in kinds else 0 for _ in range(nodes)]
    events = _draw_submissions(random, founders, slots, GOVERNED_SUBMISSIONS_MILLI if more else SUBMISSIONS_MILLI)
    if more:
        events += draw_governing(random, Members(nodes, founders, producers, liars), slots)
    timed = [kind for kind in Fault if kind in kinds and kind not in {Fault.SKEW, Fault.BYZANTINE}]
    for _ in range(slots * FAULTS_PER_SLOT_MILLI // 1000 if timed else 0):
        events.append(_draw_fault(random, random.choice(timed), nodes, random.randrange(slots * SLOT_MS)))
    events.sort(key=lambda event: event.at_ms)
    epoch_slots = EPOCH_SHORT if more else EPOCH_SLOTS
    return Plan(seed, nodes, founders, producers, epoch_slots, peering, slots, liars, lies, unready, skews, events)


def _draw_kinds(random: Random, faults: frozenset[Fault]) -> frozenset[Fault]:
    """Return some of the faults: with all at once every time, each would hide behind the others."""
    kinds = [kind for kind in Fault if kind in faults]
    if len(kinds) < 3:
        return frozenset(kinds)
    return frozenset(kind for kind in kinds if random.randrange(4))


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


def _draw_submissions(random: Random, producers: int, slots: int, per_mille: int) -> list[AnyEvent]:
    """Return transactions: mostly of new calls, now and then of one that was reported before by the same member."""
    submissions: list[AnyEvent] = []
    reported: list[list[int]] = [[] for _ in range(producers)]
    call = 0
    count = -(-slots * per_mille // 1000)
    for at_ms in sorted(random.randrange(slots * SLOT_MS) for _ in range(count)):
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
