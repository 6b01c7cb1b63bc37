"""What answers mean, which node is asked when, and that the cursor never passes a record without an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from telephony.forwarder import Answer, Fate, Forwarder, Outcome, Targets, outcomes_of

from ledger.errors import StoreDamaged, StoreFull
from telephony import forwarder as forwarder_module
from telephony.adapters.base import Kind
from telephony.spool import Batch, Damage, Frame
from telephony.spool_files import Position

A, B = "http://a:8080", "http://b:8080"


def answer(status: int, *results: object) -> Answer:
    return Answer(status, json.dumps({"results": list(results)}).encode() if results else b"")


def fates(found: Sequence[Outcome] | None) -> list[Fate] | None:
    return None if found is None else [outcome.fate for outcome in found]


def test_an_answer_counts_for_each_record_by_itself() -> None:
    results = [
        {"status": 200},
        {"status": 409, "problem": {"detail": "other content"}},
        {"status": 503},
        {"status": 401},
    ]
    found = outcomes_of(answer(422, *results), 4)
    assert fates(found) == [Fate.DONE, Fate.DEAD, Fate.AGAIN, Fate.AGAIN]
    assert found is not None
    assert found[1].reason == "HTTP 409: other content"


def test_an_answer_without_results_counts_for_all() -> None:
    for status in (200, 201, 202, 204):
        assert fates(outcomes_of(answer(status), 2)) == [Fate.DONE] * 2
    for status in (0, 302, 401, 403, 404, 405, 408, 415, 421, 425, 429, 500, 502, 503, 504, 507):
        assert fates(outcomes_of(answer(status), 2)) == [Fate.AGAIN] * 2
    for status in (400, 409, 413, 422):
        assert outcomes_of(answer(status), 2) is None
        assert fates(outcomes_of(answer(status), 1)) == [Fate.DEAD]


def test_a_success_for_another_number_of_records_is_none() -> None:
    assert fates(outcomes_of(answer(200, {"status": 200}), 2)) == [Fate.AGAIN] * 2


@given(st.integers(0, 599), st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.integers(1, 5))
def test_whatever_comes_back_is_survived(status: int, body: bytes, count: int) -> None:
    found = outcomes_of(Answer(status, body), count)
    assert found is None or len(found) == count


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["status", "problem", "detail"]), inner)
        ),
        max_leaves=8,
    )
)
def test_results_of_any_shape_are_survived(results: object) -> None:
    found = outcomes_of(Answer(200, json.dumps({"results": results}).encode()), 2)
    assert found is not None
    assert len(found) == 2


def test_the_node_that_answered_is_asked_again() -> None:
    targets = Targets([A + "/", B], lambda: 0.0)
    assert targets.choose(0) == (A, 0)
    assert targets.failed(A, 0)
    assert targets.choose(0) == (B, 0)
    targets.succeeded(B)
    assert targets.choose(10**9) == (B, 0)
    assert targets.failing == {A: 1, B: 0}


def test_waits_double_up_to_their_bound_and_half_is_chance() -> None:
    for chance, share in ((0.0, 1), (0.999999, 2)):
        targets = Targets([A], lambda chance=chance: chance)
        now_ms, waits = 0, []
        for _ in range(10):
            assert targets.failed(A, now_ms)
            assert not targets.failed(A, now_ms), "several at once are one"
            _, wait_ms = targets.choose(now_ms)
            waits.append(wait_ms)
            now_ms += wait_ms
        doubled = [min(200 * 2**step, 15_000) for step in range(10)]
        assert [abs(wait - most * share // 2) <= 1 for wait, most in zip(waits, doubled, strict=True)] == [True] * 10


def test_of_nodes_that_all_fail_the_one_with_the_shortest_wait_is_next() -> None:
    targets = Targets([A, B], lambda: 0.0)
    for _ in range(3):
        targets.failed(A, targets.choose(0)[1])
        targets._targets[0].not_before_ms = 0
    targets.failed(A, 0)
    targets.failed(B, 0)
    assert targets.choose(0) == (B, 100)


class FakeSpool:
    """Documents in memory; a read gives at most as many as asked for."""

    def __init__(self, count: int, damages: Sequence[Damage] = ()) -> None:
        self.frames = [Frame(number, 1, Kind.KAMAILIO, b"%d" % number) for number in range(1, count + 1)]
        self.cursor = Position(1, 0, 1)
        self.cursors: list[int] = []
        self.damages = list(damages)

    def read(self, start: Position, *, count_max: int) -> Batch:
        frames = self.frames[start.sequence - 1 : start.sequence - 1 + count_max]
        damages, self.damages = self.damages, []
        return Batch(Position(1, 0, start.sequence + len(frames)), frames, damages if frames else [])

    def advance(self, position: Position) -> None:
        self.cursors.append(position.sequence)


async def forward(
    spool: FakeSpool, answers: dict[int, list[int]], *, bury_fails: int = 0
) -> tuple[list[int], list[str]]:
    """Deliver to a node that gives each record its statuses in turn, then 200; return what it took, and what died."""
    taken: list[int] = []
    dead: list[str] = []
    open_: set[int] = {frame.sequence for frame in spool.frames}
    failures = [StoreFull("full")] * bury_fails

    async def send(url: str, body: bytes) -> Answer:
        assert url == A + "/v1/ingest/kamailio"
        results = []
        for number in json.loads(body):
            waiting = answers.get(number, [])
            status = waiting.pop(0) if waiting else 200
            if status < 300:
                taken.append(number)
                open_.discard(number)
            results.append({"status": status})
        assert not spool.cursors or min(open_, default=10**9) >= spool.cursors[-1]
        return Answer(200, json.dumps({"results": results}).encode())

    async def bury(letters: list[tuple[bytes, str, str]]) -> None:
        if failures:
            raise failures.pop()
        dead.extend(f"{raw.decode()} {stage}" for raw, stage, _ in letters)
        open_.difference_update(int(raw) for raw, _, _ in letters if raw.isdigit())

    now_ms = iter(range(0, 10**9, 10**5))
    forwarder = Forwarder(
        spool, Targets([A], lambda: 0.0), send=send, bury=bury, grown=asyncio.Event(), monotonic_ms=lambda: next(now_ms)
    )
    task = asyncio.create_task(forwarder.run())
    async with asyncio.timeout(20):
        while spool.cursors[-1:] != [len(spool.frames) + 1]:
            assert not task.done()
            await asyncio.sleep(0)
    forwarder.stop()
    await task
    return taken, dead


async def test_everything_is_delivered_and_the_cursor_follows() -> None:
    spool = FakeSpool(1001)
    taken, dead = await forward(spool, {})
    assert (sorted(taken), dead) == (list(range(1, 1002)), [])
    assert spool.cursors == sorted(spool.cursors)


async def test_the_cursor_waits_for_the_last_record_of_a_batch() -> None:
    spool = FakeSpool(450)
    taken, dead = await forward(spool, {7: [503, 500, 429], 300: [503], 9: [409], 450: [500, 400]})
    assert sorted(taken) == [number for number in range(1, 450) if number != 9]
    assert dead == ["9 delivery", "450 delivery"]


async def test_damage_and_dead_letters_are_on_disk_before_the_cursor_moves(monkeypatch) -> None:
    monkeypatch.setattr(forwarder_module, "BACKOFF_MS_MAX", 1)
    spool = FakeSpool(3, [Damage(StoreDamaged("bytes changed", where="1.seg at 5"), b"broken", 1)])
    taken, dead = await forward(spool, {2: [422]}, bury_fails=3)
    assert (taken, dead, spool.cursors) == ([1, 3], ["broken spool", "2 delivery"], [4])


async def test_a_kind_that_nobody_knows_is_a_dead_letter() -> None:
    spool = FakeSpool(2)
    spool.frames[0] = Frame(1, 1, 99, b"1")
    assert await forward(spool, {}) == ([2], ["1 spool"])
