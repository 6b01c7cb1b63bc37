"""A cluster under faults, from one seed: chaos, then healing, then the question whether all is well again."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from random import Random

from consensus.params import faults_tolerated
from node.sim.byzantine import ByzantineNode
from node.sim.clock import SimClock
from node.sim.invariants import Invariants, Violation
from node.sim.network import SimNetwork, Weather
from node.sim.node import SimNode
from node.sim.peering import ByzantinePeer, PeeringNode
from node.sim.transcript import Transcript
from node.sim.world import GENESIS_MS, SLOT_MS, Traffic, World

SETTLE_SLOTS_PER_NODE = 8
"""After healing, finality is back within this many slots for each producer, beyond the heights voted for already."""
PEERING_SLOTS = 60
"""Real peers let those who failed them cool off, and tell their status only every few seconds."""
CRASH_POINTS_MAX = 40
"""A crash strikes within this many points of a node's steps."""


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
    BYZANTINE = "byzantine"


ALL_FAULTS = frozenset(Fault)


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to.

    Attributes:
        violation: the invariant that does not hold, None where all do.
        final_height: where the honest nodes ended.
        settle_slots: slots from healing to everything accepted being final everywhere.
        digest: hash of the transcript.
    """

    seed: int
    violation: str | None
    final_height: int
    transactions: int
    crashes: int
    settle_slots: int
    digest: str
    lines: list[str] = field(repr=False)


class Simulation:
    """One run.

    seed: everything random comes from it.
    producers: how many nodes, all of which hold a seat.
    peering: with the gossip and sync of real nodes instead of simple ones.
    faults: what may go wrong; Byzantine producers are as many as the rules bear.
    """

    def __init__(
        self, seed: int, producers: int, faults: frozenset[Fault] = frozenset(), *, peering: bool = False
    ) -> None:
        self.seed = seed
        self.faults = faults
        self.peering = peering
        self.random = Random(seed)  # noqa: S311 - repeatable is the point
        self.clock = SimClock(GENESIS_MS)
        self.transcript = Transcript()
        self.world = World(producers)
        self.network = SimNetwork(self.clock, self.random, Weather())
        self.watch = Invariants(self.world, self.clock, self.transcript)
        self.traffic = Traffic(self.world, self.random)
        self.crashes = 0
        self._revive_after: dict[int, int] = {}
        self.transactions = 0
        liars = faults_tolerated(producers) if Fault.BYZANTINE in faults else 0
        honest, liar = (PeeringNode, ByzantinePeer) if peering else (SimNode, ByzantineNode)
        kinds = [liar] * liars + [honest] * (producers - liars)
        self.nodes = [
            kind(self.world, n, self.clock, self.network, self.random, self.watch) for n, kind in enumerate(kinds)
        ]
        for node in self.nodes:
            node.on_down = self.on_crash
            node.peers = [peer for peer in self.nodes if peer is not node]

    @property
    def honest(self) -> list[SimNode]:
        """Return the nodes that the invariants bind."""
        return [node for node in self.nodes if node.is_honest]

    def start(self) -> None:
        """Start every node, on its own clock."""
        for node in self.nodes:
            if Fault.SKEW in self.faults:
                node.skew_ms = self.random.randint(-SLOT_MS // 4, SLOT_MS // 4)
            node.start()

    def run_until(self, slot: int) -> None:
        """Let everything planned before the start of ``slot`` happen. Raises Violation."""
        until_ms = GENESIS_MS + slot * SLOT_MS
        while self.clock.step(until_ms):
            pass

    def feed(self, first_slot: int, slots: int, per_slot: int = 1) -> None:
        """Plan transactions: about ``per_slot`` in each slot, at any node and moment."""
        for slot in range(first_slot, first_slot + slots):
            for _ in range(per_slot):
                time_ms = GENESIS_MS + slot * SLOT_MS + self.random.randrange(SLOT_MS)
                self.clock.at(time_ms, self._submit)

    def _submit(self) -> None:
        node = self.random.choice(self.nodes)
        if node.engine is not None:
            self.transactions += 1
            node.submit(self.traffic.draw(node.number, self.clock.now_ms))

    # -- chaos -----------------------------------------------------------------------------------------------------

    def break_something(self) -> None:
        """Draw one fault of the kinds allowed, or an end of one."""
        kinds = sorted(self.faults - {Fault.BYZANTINE, Fault.SKEW}, key=lambda kind: kind.value)
        if not kinds:
            return
        random, network = self.random, self.network
        match random.choice(kinds):
            case Fault.LOSS:
                network.weather.loss_milli = random.choice([0, 50, 200, 400])
            case Fault.DELAY:
                network.weather.delay_max_ms = random.choice([40, 900, 2_500, 5_000])
            case Fault.DUPLICATE:
                network.weather.duplicate_milli = random.choice([0, 300])
            case Fault.PARTITION:
                groups = random.choice([1, 2, 2, 3])
                network.groups = {n: random.randrange(groups) for n in range(len(self.nodes))}
                self._say(f"partition {[network.groups[n] for n in range(len(self.nodes))]}")
            case Fault.ONE_WAY:
                network.cut = self._some_links()
            case Fault.SLOW_LINK:
                network.slow = self._some_links()
            case Fault.CRASH:
                self._strike(random.choice(self.nodes))
            case _:
                pass

    def _some_links(self) -> set[tuple[int, int]]:
        links = [(a, b) for a in range(len(self.nodes)) for b in range(len(self.nodes)) if a != b]
        return set(self.random.sample(links, self.random.randint(0, len(links) // 3)))

    def _strike(self, node: SimNode) -> None:
        """Let the power of a node fail at some point soon, and come back some slots later."""
        if node.engine is None:
            return
        node.crash_after = self.random.randrange(CRASH_POINTS_MAX)
        # Some are back at once, in the very slot in which they fell: that is when a forgotten seal would show.
        delay_ms = self.random.choice([SLOT_MS // 20, SLOT_MS // 4, self.random.randint(SLOT_MS, 6 * SLOT_MS)])
        self._revive_after[node.number] = delay_ms

    def on_crash(self, node: SimNode) -> None:
        """Let a node that fell come back when it was drawn to."""
        self.crashes += 1
        self.clock.after(self._revive_after.pop(node.number, SLOT_MS), lambda: self._revive(node))

    def _revive(self, node: SimNode) -> None:
        if node.engine is None:
            node.start()

    def heal(self) -> None:
        """End every fault but the liars."""
        self._say("healed")
        self.network.heal()
        for node in self.nodes:
            node.crash_after = None
            self._revive(node)

    # -- a whole run -----------------------------------------------------------------------------------------------

    def run(self, slots: int) -> Report:
        """Run ``slots`` of chaos under traffic, heal, and wait for all to be well. The report holds what went wrong."""
        violation, settle_slots = None, 0
        try:
            self.start()
            self.feed(0, slots)
            for slot in range(0, slots, 2):
                self.run_until(slot)
                self.break_something()
            self.run_until(slots)
            self.heal()
            settle_slots = self._settle(slots)
        except Violation as error:
            violation = str(error)
            self._say(f"VIOLATION {violation}")
        final = max(self.watch.final)
        return Report(
            self.seed,
            violation,
            final,
            self.transactions,
            self.crashes,
            settle_slots,
            self.transcript.digest,
            self.transcript.lines,
        )

    def _settle(self, slot: int) -> int:
        """Run on until all is well. Return the slots it took. Raises Violation where it takes too long."""
        bound = self.settle_bound()
        for waited in range(bound + 1):
            if self.is_settled():
                return waited
            self.run_until(slot + waited + 1)
        raise Violation(f"no rest {bound} slots after healing: {self._trouble()}")

    def settle_bound(self) -> int:
        """Return within how many slots of good weather all must be well.

        Finality comes back once the chain is higher than the targets that a quorum has voted for.
        """
        engines = [node.engine for node in self.honest if node.engine]
        ahead = max(e.guard.next_target for e in engines) - min(e.final.height for e in engines)
        patience = PEERING_SLOTS if self.peering else 0
        return 2 * ahead + SETTLE_SLOTS_PER_NODE * len(self.nodes) + patience

    def is_settled(self) -> bool:
        """Tell whether all honest nodes agree and nothing accepted is waiting."""
        engines = [node.engine for node in self.honest]
        if any(e is None or e.head.last_records_height > e.final.height for e in engines):
            return False
        heights = {e.final.height for e in engines if e}
        return len(heights) == 1 and not self.watch.lost(self.honest)

    def _trouble(self) -> str:
        states = [
            f"n{node.number} final {e.final.height} head {e.head.height} pool {len(e.pool)}"
            for node in self.honest
            if (e := node.engine)
        ]
        return f"{len(self.watch.lost(self.honest))} accepted transactions waiting; " + ", ".join(states)

    def _say(self, text: str) -> None:
        self.transcript.say(self.clock.now_ms, "--", text)
