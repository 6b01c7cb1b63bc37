"""A cluster under faults, from one plan: chaos, then healing, then the question whether all is well again."""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from consensus.params import quorum_of
from ledger.codec import decode
from ledger.transaction import Transaction, tx_id_of
from node.sim.byzantine import ByzantineNode
from node.sim.clock import SimClock
from node.sim.events import (
    AnyEvent,
    Crash,
    Delay,
    Drift,
    Duplicate,
    GoverningEvent,
    Loss,
    OneWay,
    Partition,
    Propose,
    SlowLink,
    Submit,
)
from node.sim.governing import Parliament, signing_key
from node.sim.invariants import Invariants, Violation
from node.sim.network import SimNetwork, Weather
from node.sim.node import SimNode
from node.sim.peering import ByzantinePeer, PeeringNode
from node.sim.plan import ALL_FAULTS, Fault, Plan, draw_plan
from node.sim.transcript import Transcript
from node.sim.world import GENESIS_MS, SLOT_MS, World, next_producer_key

__all__ = ["ALL_FAULTS", "SLOTS", "Fault", "Report", "Simulation", "run_plan", "run_seed"]

SLOTS = 12
"""How long things go wrong in most schedules, unless somebody asks for more."""
SETTLE_SLOTS_PER_NODE = 8
"""After healing, finality is back within this many slots for each producer, beyond the heights voted for already."""
CHANGE_SLOTS = 12
"""A change of the voting set under way completes within this many slots of finality."""
LOOKS_PER_SLOT = 4
"""How often it is asked whether all is well."""
STEPS_PER_SLOT_NODE_MAX = 100
"""Things that happen in a slot between two nodes, many times over."""
FED = 1_000
"""Calls of plans have lower numbers than those of ``feed``."""
PEERING_SLOTS = 60
"""Real peers let those who failed them cool off, and tell their status only every few seconds."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to.

    Attributes:
        violation: the invariant that does not hold, None where all do.
        final_height: where the honest nodes ended.
        settle_slots: slots from healing to everything accepted being final everywhere.
        end_ms: when it ended, in true time since genesis.
        seen: how often what happened (``node.sim.coverage``).
        transcript: the story, where somebody may want to read it.
    """

    plan: Plan = field(repr=False)
    violation: str | None
    final_height: int
    settle_slots: int
    end_ms: int
    seen: Counter[str] = field(repr=False)
    transcript: Transcript = field(repr=False)

    @property
    def lines(self) -> list[str]:
        """Return the transcript."""
        return self.transcript.lines

    @property
    def digest(self) -> str:
        """Return the hash of the transcript."""
        return self.transcript.digest


def run_seed(
    seed: int, producers: int, faults: frozenset[Fault], *, slots: int = SLOTS, peering: bool = False, more: int = 0
) -> Report:
    """Draw the plan of ``seed`` and run it."""
    return run_plan(draw_plan(seed, producers, faults, slots=slots, peering=peering, more=more))


def run_plan(plan: Plan) -> Report:
    """Run ``plan``: the same one has the same transcript."""
    return Simulation(plan).run()


class Simulation:
    """One run of a plan; or, piece by piece, what a test does with a cluster."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = SimClock(GENESIS_MS, steps_max=STEPS_PER_SLOT_NODE_MAX * (plan.slots + 100) * plan.nodes**2)
        self.transcript = Transcript()
        self.world = World(plan.founders, plan.seats, epoch_slots=plan.epoch_slots, stand_ins=True)
        self.parliament = Parliament()
        self.network = SimNetwork(self.clock, _random(plan, "network"), Weather())
        self.watch = Invariants(self.world, self.clock, self.transcript, plan.liars)
        self.crashes = 0
        self._away_ms: dict[int, int] = {}
        honest, liar = (PeeringNode, ByzantinePeer) if plan.peering else (SimNode, ByzantineNode)
        chance = _random(plan, "nodes")
        self.nodes = [
            (liar if n in plan.liars else honest)(self.world, n, self.clock, self.network, chance, self.watch)
            for n in range(plan.nodes)
        ]
        for node in self.nodes:
            node.on_down = self.on_crash
            node.meet(self.nodes)
            node.next_key = None if node.number in plan.unready else next_producer_key(node.number)
            if isinstance(node, ByzantineNode):
                node.lies = frozenset(plan.lies)
                node.parliament = self.parliament
        self.honest = [node for node in self.nodes if node.is_honest]

    @classmethod
    def quiet(cls, producers: int, *, seed: int = 1, peering: bool = False) -> Simulation:
        """Return a cluster to which nothing happens but what the caller does."""
        return cls(draw_plan(seed, producers, frozenset(), slots=0, peering=peering))

    def start(self) -> None:
        """Start every node, on its own clock."""
        for node, skew_ms in zip(self.nodes, self.plan.skews_ms, strict=True):
            node.clock.change(skew_ms, 0)
            node.start()

    def run_until(self, slot: int) -> None:
        """Let everything planned before the start of ``slot`` happen. Raises Violation."""
        self.clock.run_until(GENESIS_MS + slot * SLOT_MS)

    def feed(self, first_slot: int, slots: int) -> None:
        """Plan transactions of one new call: one in each slot, at nodes in turn."""
        for slot in range(first_slot, first_slot + slots):
            moment = GENESIS_MS + slot * SLOT_MS + SLOT_MS // 2
            self.clock.at(moment, self.apply, Submit(0, slot % self.plan.founders, [FED + slot]))

    # -- chaos -----------------------------------------------------------------------------------------------------

    def apply(self, event: AnyEvent) -> None:
        """Let an event of a plan happen."""
        network = self.network
        if not isinstance(event, Submit):
            self._say(str(event))
        match event:
            case Submit():
                self._submit(event)
            case Loss():
                network.weather.loss_milli = event.milli
            case Delay():
                network.weather.delay_max_ms = event.max_ms
            case Duplicate():
                network.weather.duplicate_milli = event.milli
            case Partition():
                network.groups = dict(enumerate(event.groups))
                self._note_partition(event.groups)
            case OneWay():
                network.cut = set(event.links)
            case SlowLink():
                network.slow = set(event.links)
            case Crash():
                self._strike(event)
            case Drift():
                self.nodes[event.node].set_clock(event.step_ms, event.rate)
                self.watch.seen["clock jumps" if event.step_ms else "clock drifts"] += 1
            case _:
                self._govern(event)

    def _submit(self, event: Submit) -> None:
        node = self.nodes[event.node]
        if node.engine is not None:
            self.watch.seen["transaction submitted"] += 1
            node.submit(self.world.make_transaction(node.number, event.calls, now_ms=self.clock.now_ms))

    def _govern(self, event: GoverningEvent) -> None:
        """Let a member hand in at its own node what it has to say."""
        node = self.nodes[event.node]
        if node.engine is None:
            return
        state = node.engine.head.chain.state
        act = self.parliament.act(event, state, self.clock.now_ms)
        if act is None:
            return
        kind, payload = act
        key = signing_key(event, state)
        raw = self.world.make_payload(node.number, kind, payload, now_ms=self.clock.now_ms, key=key)
        if isinstance(event, Propose):
            self.parliament.ballots[event.ballot] = tx_id_of(decode(raw, Transaction).envelope)
        self.watch.seen[f"governs: {kind.name.lower()}"] += 1
        node.submit(raw)

    def _strike(self, event: Crash) -> None:
        """Let the power of a node fail at some point soon, and come back later."""
        node = self.nodes[event.node]
        if node.engine is not None:
            node.crash_after, node.fate = event.points, event.fate
            self._away_ms[node.number] = event.away_ms

    def on_crash(self, node: SimNode) -> None:
        """Let a node that fell come back when it was planned to."""
        self.crashes += 1
        self.clock.after(self._away_ms.pop(node.number, SLOT_MS), self._revive, node)

    def _revive(self, node: SimNode) -> None:
        if node.engine is None:
            node.start()

    def _note_partition(self, groups: list[int]) -> None:
        if len(set(groups)) > 1:
            most = Counter(groups).most_common(1)[0][1]
            has_quorum = most >= quorum_of(len(groups))
            self.watch.seen["partition with a quorum" if has_quorum else "partition without a quorum"] += 1

    def heal(self) -> None:
        """End every fault but the liars."""
        self._say("healed")
        self.network.heal()
        for node, skew_ms in zip(self.nodes, self.plan.skews_ms, strict=True):
            node.crash_after = None
            if node.clock.offset_ms != skew_ms or node.clock.rate:
                node.set_clock(skew_ms - node.clock.offset_ms, 0)
            self._revive(node)

    # -- a whole run -----------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Let all that is planned happen, heal, and wait for all to be well. The report holds what went wrong."""
        violation, settle_slots = None, 0
        for event in self.plan.events:
            self.clock.at(GENESIS_MS + event.at_ms, self.apply, event)
        try:
            self.start()
            self.run_until(self.plan.slots)
            self.heal()
            settle_slots = self._settle(self.plan.slots)
        except Violation as error:
            violation = str(error)
        except Exception as error:  # noqa: BLE001 - whatever an engine raises, it promised not to
            violation = f"an engine failed: {type(error).__name__}: {error}"
            for line in traceback.format_exception(error)[-3:]:
                self._say("{}", line.rstrip())
        if violation is not None:
            self._say("VIOLATION {}", violation)
        self._note_sizes()
        end_ms = self.clock.now_ms - GENESIS_MS
        return Report(
            self.plan, violation, max(self.watch.final), settle_slots, end_ms, self.watch.seen, self.transcript
        )

    def _note_sizes(self) -> None:
        seen = self.watch.seen
        seen["step"] += self.clock.steps
        seen["message"] += self.network.sent
        seen["message lost"] += self.network.lost
        seen["block final"] += len(self.watch.final) - 1
        seen["transaction accepted"] += len(self.watch.accepted)

    def _settle(self, slot: int) -> int:
        """Run on until all is well. Return the slots it took. Raises Violation where it takes too long."""
        bound = self.settle_bound()
        for waited in range(bound + 1):
            if self.is_settled():
                return waited
            if self.is_changing():
                self.feed(slot + waited, 1)
            began_ms = self.clock.now_ms
            for look in range(1, LOOKS_PER_SLOT + 1):
                self.clock.run_until(began_ms + look * SLOT_MS // LOOKS_PER_SLOT)
                if self.is_settled():
                    return waited + 1
        raise Violation(f"no rest {bound} slots after healing: {self._trouble()}")

    def settle_bound(self) -> int:
        """Return within how many slots of good weather all must be well.

        Finality comes back once the chain is higher than the targets that a quorum has voted for, and producers whose
        clocks were ahead seal again once the slots they sealed in have come.
        """
        engines = [node.engine for node in self.honest if node.engine]
        ahead = max(e.guard.next_target for e in engines) - min(e.final.height for e in engines)
        early = max(e.guard.next_slot for e in engines) - (self.clock.now_ms - GENESIS_MS) // SLOT_MS
        patience = PEERING_SLOTS if self.plan.peering else 0
        change = CHANGE_SLOTS if self.plan.nodes > self.plan.seats else 0
        return 2 * ahead + max(early, 0) + change + SETTLE_SLOTS_PER_NODE * len(self.nodes) + patience

    def is_settled(self) -> bool:
        """Tell whether all honest nodes agree and nothing accepted is waiting."""
        engines = [node.engine for node in self.honest]
        if any(e is None or e.head.last_records_height > e.final.height for e in engines):
            return False
        heights = {e.final.height for e in engines if e}
        return len(heights) == 1 and not self.watch.lost(self.honest) and not self.is_changing()

    def is_changing(self) -> bool:
        """Tell whether a change of the voting set is under way: it needs blocks, and an idle chain seals none."""
        return any(node.engine is not None and node.engine.final.chain.state.voting.pending for node in self.honest)

    def _trouble(self) -> str:
        states = [
            f"n{node.number} final {e.final.height} head {e.head.height} pool {len(e.pool)}"
            for node in self.honest
            if (e := node.engine)
        ]
        return f"{len(self.watch.lost(self.honest))} accepted transactions waiting; " + ", ".join(states)

    def _say(self, text: str, *facts: object) -> None:
        self.transcript.say(self.clock.now_ms, "--", text, *facts)


def _random(plan: Plan, purpose: str) -> Random:
    """Return the source of chance for one purpose, so that a change of plan disturbs the others little."""
    return Random(f"{purpose} {plan.seed}")  # noqa: S311 - repeatable is the point
