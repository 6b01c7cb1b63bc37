"""What a run is made of: plans that can be kept and cut down, clocks that are wrong, disks that tear."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.params import faults_tolerated
from consensus.votes import VoteGuard
from ledger.store import Space, WriteBatch
from node.sim.clock import RATE_UNIT, NodeClock, Runaway, SimClock
from node.sim.cluster import ALL_FAULTS, SLOTS, Fault, Simulation, run_plan
from node.sim.coverage import CHANGES, SIZES, STATES, Coverage
from node.sim.events import Delay, Partition, Submit
from node.sim.mix import MIX, SHARES, Choice, Shape
from node.sim.plan import Plan, draw_plan
from node.sim.shrink import Shrinker, kind_of
from node.sim.store import Crashed, Fate, SimStore
from node.sim.world import GENESIS_MS, SLOT_MS

SEEDS = st.integers(0, 10**9)
ROW = Space.META.value + b"row"
OTHER = Space.META.value + b"other"


@given(SEEDS, st.sampled_from(MIX))
def test_a_seed_is_a_plan(seed: int, shape: Shape) -> None:
    choice = Choice(shape.producers, shape.more, shape.peering)
    plan = choice.plan_of(seed)
    assert plan == choice.plan_of(seed)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
    moments = [event.at_ms for event in plan.events]
    assert moments == sorted(moments)
    assert not moments or moments[0] >= 0
    assert plan.nodes == shape.producers + shape.more
    assert len(plan.liars) <= faults_tolerated(shape.producers)
    assert shape.more == 0 or len(plan.liars) <= 1


@given(SEEDS, st.sampled_from(sorted(Fault, key=lambda fault: fault.value)))
def test_only_what_is_asked_for_goes_wrong(seed: int, fault: Fault) -> None:
    plan = draw_plan(seed, 4, frozenset({fault}), slots=SLOTS)
    kinds = {type(event).__struct_config__.tag for event in plan.events} - {"submit"}
    assert kinds <= {fault.value}
    assert bool(plan.liars) == (fault is Fault.BYZANTINE)
    assert any(plan.skews_ms) <= (fault is Fault.SKEW)


def test_every_event_can_be_read() -> None:
    plan = draw_plan(3, 4, ALL_FAULTS, slots=200, more=2)
    texts = {type(event).__name__: str(event) for event in plan.events}
    assert len(texts) >= 12
    assert all(text and "object at" not in text for text in texts.values())


def test_the_mix_is_as_documented() -> None:
    assert sum(Choice().shares().values()) == SHARES
    assert Choice().shares() == {shape.name: shape.share for shape in MIX}
    assert Choice(producers=7, more=0, peering=False).shares() == {
        "7 nodes, simple peers": SHARES - 3,
        "7 nodes, simple peers, 40 slots": 3,
    }


# -- clocks --------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(-5_000, 5_000), st.integers(-RATE_UNIT // 2, RATE_UNIT)),
        max_size=6,
    ),
    st.integers(0, 10**6),
)
def test_a_wrong_clock_says_when_it_will_show_a_time(changes: list[tuple[int, int, int]], ahead_ms: int) -> None:
    true = SimClock(GENESIS_MS)
    clock = NodeClock(true)
    for wait_ms, step_ms, rate in changes:
        true.run_until(true.now_ms + wait_ms)
        before = clock.now_ms
        clock.change(step_ms, rate)
        assert clock.now_ms == before + step_ms
    shown = clock.now_ms + ahead_ms
    due_ms = clock.true_ms(shown)
    assert due_ms >= true.now_ms
    true.run_until(due_ms)
    assert clock.now_ms >= shown


def test_a_fast_clock() -> None:
    true = SimClock(0)
    clock = NodeClock(true)
    clock.change(100, 20)
    true.run_until(10_000)
    assert (clock.offset_ms, clock.now_ms) == (300, 10_300)


def test_plans_are_carried_out_in_order() -> None:
    clock = SimClock(0)
    told: list[object] = []
    clock.at(20, told.append, "second")
    clock.at(10, lambda: clock.after(10, told.append, "third"))
    clock.at(30, told.append, "not yet")
    clock.run_until(30)
    assert (told, clock.now_ms, clock.steps) == (["second", "third"], 30, 3)


# -- disks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fate", "kept"), [(Fate.LOST, (None, None)), (Fate.TORN, (None, None)), (Fate.KEPT, (b"1", b"2"))]
)
def test_a_batch_is_there_whole_or_not_at_all(fate: Fate, kept: tuple[bytes | None, bytes | None]) -> None:
    store = SimStore()
    store.strike = fate
    with pytest.raises(Crashed, match=fate.value):
        store.write(WriteBatch([(ROW, b"1"), (OTHER, b"2")]))
    assert bool(store.torn) == (fate is Fate.TORN)
    store.recover()
    assert (store.get(ROW), store.get(OTHER)) == kept
    assert store.torn == []
    store.write(WriteBatch([(ROW, b"3")]))
    assert store.get(ROW) == b"3"


# -- shrinking -----------------------------------------------------------------------------------------------------


def test_a_failing_plan_is_cut_down_to_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VoteGuard, "after_seal", lambda self, _slot: self)
    faults = frozenset({Fault.DELAY, Fault.CRASH})
    failed = next(
        report
        for seed in range(200)
        if (report := run_plan(draw_plan(seed, 4, faults, slots=SLOTS))).violation is not None
    )
    shrinker = Shrinker(failed, runs_max=150)
    best = shrinker.run()
    assert best.violation is not None
    assert kind_of(best.violation) == "V3:"
    assert len(best.plan.events) <= len(failed.plan.events) // 2
    assert shrinker.runs <= 150
    again = run_plan(msgspec.json.decode(msgspec.json.encode(best.plan), type=Plan))
    assert (again.violation, again.lines) == (best.violation, best.lines)


@pytest.mark.parametrize(
    ("violation", "kind"),
    [
        ("V1: n3 votes for height 8 after 8", "V1:"),
        ("no rest 40 slots after healing: 3 accepted transactions waiting; n0 final 3", "no rest"),
        (
            "conflicting final blocks at height 6: n1 has another one",
            "conflicting final blocks at height # # has another one",
        ),
    ],
)
def test_kinds_of_violations(violation: str, kind: str) -> None:
    assert kind_of(violation) == kind


def test_what_an_engine_raises_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: VoteGuard, _link: object) -> bool:
        raise KeyError("lost")

    monkeypatch.setattr(VoteGuard, "may_vote", fail)
    report = run_plan(draw_plan(1, 4, frozenset(), slots=4))
    assert report.violation == "an engine failed: KeyError: 'lost'"
    assert any("in fail" in line for line in report.lines)


def test_a_run_without_end_is_a_violation() -> None:
    clock = SimClock(0, steps_max=50)

    def again() -> None:
        clock.after(0, again)

    clock.at(0, again)
    with pytest.raises(Runaway, match="more than 50 steps"):
        clock.run_until(1)


def test_a_plan_too_hard_is_told() -> None:
    plan = draw_plan(1, 4, frozenset(), slots=2)
    with pytest.raises(AssertionError, match="the plan is too hard: 2 liars in a set of 4"):
        Simulation(msgspec.structs.replace(plan, liars=[0, 1]))


# -- what is reached -----------------------------------------------------------------------------------------------


def test_fixed_seeds_reach_every_state() -> None:
    """A simulator that never sees a set change proves nothing about them. Most are seen early; some need luck."""
    coverage, named = Coverage(), {*SIZES, *STATES, *CHANGES}
    for seed in range(5 * SHARES):
        report = Choice().run(seed)
        assert (seed, report.violation) == (seed, None)
        coverage.add(Choice().shape_of(seed).name, report.seen)
        if coverage.schedules.keys() == named:
            break
    assert coverage.schedules.keys() ^ named == set()
    assert coverage.figures()["schedules"] == {name: coverage.schedules[name] for name in [*SIZES, *STATES, *CHANGES]}
    assert coverage.total == seed + 1 >= 20


def test_an_edited_plan_runs() -> None:
    events = [Delay(0, 900), Submit(500, 0, [1]), Partition(3 * SLOT_MS, [0, 0, 1, 1]), Submit(5_000, 2, [2, 3])]
    plan = msgspec.structs.replace(draw_plan(1, 4, frozenset(), slots=9), events=events)
    report = run_plan(plan)
    assert report.violation is None
    assert (report.seen["transaction submitted"], report.seen["partition without a quorum"]) == (2, 1)
    assert any(line.endswith("partition [0, 0, 1, 1]") for line in report.lines)
