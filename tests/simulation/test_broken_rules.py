"""The test of the test: a rule deliberately broken must be found out within its fixed seeds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from consensus import tree
from consensus.engine import Engine
from consensus.finality import BranchFinality
from consensus.tree import BlockNode
from consensus.votes import VoteGuard, VotingSet
from ledger import governance
from ledger.entries import StruckEntry
from ledger.payloads import Evidence
from ledger.state import State
from ledger.store import WriteBatch
from node.sim.cluster import ALL_FAULTS, Fault, run_seed
from node.sim.node import SimNode
from node.sim.store import SimStore

SEEDS = range(200)
"""A broken rule is found long before the last of them; whatever else changes, there is room."""
CRASHES = frozenset({Fault.DELAY, Fault.CRASH})


def first_violation(faults: frozenset[Fault], *, more: int = 0) -> str:
    """Return what the first of the fixed seeds that finds something finds."""
    for seed in SEEDS:
        violation = run_seed(seed, 4, faults, more=more).violation
        if violation:
            print(f"seed {seed}: {violation}")
            return violation
    return "nothing found"


def patch_vote_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep an engine without V1 from voting for one block for ever."""
    vote: Callable[[Engine], None] = Engine._vote

    def vote_once(self: Engine) -> None:
        if not any(self.votes.has(self.head.link, key_id) for key_id in self.key_ids):
            vote(self)

    monkeypatch.setattr(Engine, "_vote", vote_once)


def test_v1_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_vote_once(monkeypatch)
    monkeypatch.setattr(VoteGuard, "may_vote", lambda self, link: link.source.height >= self.max_source)
    assert first_violation(ALL_FAULTS)[:3] == "V1:"


def test_v2_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VoteGuard, "may_vote", lambda self, link: link.target.height >= self.next_target)
    assert first_violation(ALL_FAULTS)[:3] == "V2:"


def test_v3_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VoteGuard, "after_seal", lambda self, _slot: self)
    assert first_violation(CRASHES)[:3] == "V3:"


def test_vote_sent_before_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def speak_first(self: SimNode, engine: Engine) -> None:
        ready = engine.take_ready()
        for message in ready.messages:
            self.point("before a message")
            self.announce(message)
        if ready.puts:
            self.write(WriteBatch(list(ready.puts), []))
        engine.written()
        for event in ready.events:
            self._watch.on_event(self, event)

    monkeypatch.setattr(SimNode, "flush", speak_first)
    assert first_violation(CRASHES)[:3] in {"V1:", "V2:", "V3:"}


def test_guard_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "_set_guard", lambda self, guard: setattr(self, "guard", guard))
    assert first_violation(CRASHES)[:3] in {"V1:", "V2:", "V3:"}


def test_store_that_takes_a_torn_batch_for_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What LevelDB's checksums and the tail of the segments are for."""

    def replay_what_is_there(self: SimStore) -> None:
        torn, self.torn = self.torn, []
        self.write(WriteBatch(torn))

    monkeypatch.setattr(SimStore, "recover", replay_what_is_there)
    assert first_violation(CRASHES) != "nothing found"


def test_naive_finality(monkeypatch: pytest.MonkeyPatch) -> None:
    """Final once a quorum of producers has built on it, which is what plain delegated proof of stake does."""
    update: Callable[[Engine], None] = Engine._update_head

    def update_and_finalise(self: Engine) -> None:
        update(self)
        builders: set[bytes] = set()
        for node in self.head.branch():
            if node is self.tree.root or node.block is None:
                return
            builders.add(node.block.sealed.header.producer_key_id)
            if len(builders) >= self.quorum:
                self._finalise(node)
                return

    monkeypatch.setattr(Engine, "_update_head", update_and_finalise)
    assert first_violation(ALL_FAULTS)[:11] == "conflicting"


def test_single_quorum_at_a_set_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new set votes alone as soon as its election is in the chain."""

    def new_set_at_once(state: State) -> tuple[VotingSet, ...]:
        voting = state.voting
        if voting.pending is None:
            return (VotingSet(voting.set_id, tuple(voting.producers)),)
        return (VotingSet(voting.set_id + 1, tuple(voting.pending.producers)),)

    monkeypatch.setattr(tree, "voting_sets", new_set_at_once)
    assert "carries a certificate of 1 sets, not 2" in first_violation(ALL_FAULTS, more=1)


def test_set_change_completes_when_justified(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = tree.begin_block

    def begin_child(self: BlockNode, slot: int, finality: BranchFinality) -> State:
        schedule = self.schedule_at(slot)
        election = None if schedule is self.schedule else self._elected().election
        return begin(self.position, schedule, election, slot, finality.justified)

    monkeypatch.setattr(BlockNode, "begin_child", begin_child)
    assert "completes a change that is not final yet" in first_violation(ALL_FAULTS, more=1)


def test_evidence_against_whoever_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strike that hits another than who signed."""
    strike = governance._strike

    def strike_another(state: State, evidence: Evidence, height: int) -> State:
        struck = strike(state, evidence, height)
        victim = min(state.candidates.keys() - struck.struck.keys())
        return state.changed({("struck", victim): StruckEntry(height, 0)})

    monkeypatch.setattr(governance, "_strike", strike_another)
    assert "which is honest" in first_violation(ALL_FAULTS, more=1)
