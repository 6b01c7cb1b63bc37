"""From the spool to final: each call once, whatever the nodes do and wherever the agent is killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger.cdr import CallRecord
from telephony import building
from telephony.outbox import LIFETIME_MS
from tests.telephony.agent_kit import NODES, NOW_MS, Crash, Faults, World, cdr, opened, spooled, tx_ids_in

DAY_S = 86_400


async def test_each_call_is_final_once_and_then_forgotten(tmp_path: Path) -> None:
    world = World(tmp_path)
    with opened(world) as parts:
        spooled(parts.spool, *map(cdr, range(2_500)))
        await parts.settle()
        assert len(world.counted) == 2_500
        assert set(world.counted.values()) == {1}
        assert [len(tx) for tx in world.stored.values()] == [3, 0]
        assert (parts.backlog, parts.outbox.load(0, 10), len(parts.dead)) == (0, [], 0)
        counters = parts.delivery.counters
        assert (parts.builder.counters.built, counters.stored, counters.final, counters.void) == (2_500,) * 3 + (0,)
        # What came again is known, also after a start.
        spooled(parts.spool, cdr(1), cdr(2_499))
        await parts.settle()
    with opened(world) as parts:
        spooled(parts.spool, cdr(2), cdr(2_500))
        await parts.settle()
        assert (parts.builder.counters.built, parts.builder.counters.known) == (1, 1)
    assert sum(world.counted.values()) == 2_501


async def test_no_document_of_a_final_call_is_in_the_spool_and_no_private_field_in_what_nodes_get(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    with opened(world) as parts:
        spooled(parts.spool, cdr(1))
        await parts.settle()
        (raw,) = world.raws.values()
    assert b"2071838750" not in raw
    assert b"call-1" not in raw


async def test_other_content_and_what_cannot_be_a_record_are_dead_letters(tmp_path: Path) -> None:
    world = World(tmp_path)
    with opened(world) as parts:
        spooled(
            parts.spool, cdr(1), cdr(1, sip_code="486"), cdr(2, end_time="x"), cdr(3, end_ms=NOW_MS - 2 * DAY_S * 1000)
        )
        spooled(parts.spool, b"{}", kind=99)
        await parts.settle()
        reasons = [f"{stage}: {reason.split(' (')[0]}" for stage, reason in parts.reasons()]
    assert sum(world.counted.values()) == 1
    assert reasons == [
        "building: end_time: not a time",
        "building: no adapter for kind 99",
        "building: record.end_ms: the call ended before the chain's record window",
        "building: HTTP 409: a record of this call and leg was handed in before with other content",
    ]


async def test_a_record_that_nodes_refuse_does_not_hold_back_the_others(tmp_path: Path) -> None:
    def refuse(record: CallRecord) -> bool:
        return record.sip_code in {603, 604}

    world = World(tmp_path, refuse=refuse)
    with opened(world) as parts:
        codes = {4: "603", 5: "604", 19: "603"}
        documents = [cdr(number, sip_code=codes.get(number, "486")) for number in range(20)]
        spooled(parts.spool, *documents)
        await parts.settle()
        assert sum(world.counted.values()) == 17
        assert [(letter.stage, letter.kind, json.loads(letter.data)) for letter in parts.dead] == [
            ("delivery", 1, json.loads(documents[number])) for number in (4, 5, 19)
        ]
        # The rules are mended: sent again they are new.
        world.refuse = lambda _: False
        spooled(parts.spool, documents[4])
        await parts.settle()
    assert sum(world.counted.values()) == 18


async def test_what_expired_is_signed_anew_and_never_before(tmp_path: Path) -> None:
    world = World(tmp_path)
    with opened(world) as parts:
        spooled(parts.spool, cdr(1))
        parts.builder.turn()
        (first,) = tx_ids_in(parts.outbox)
        world.down = set(NODES)
        world.pass_time(LIFETIME_MS // 1000 - 10)
        await parts.delivery.hand_in_some()
        assert tx_ids_in(parts.outbox) == [first]
        # A node that says the chain is beyond its end, though this machine's clock stands still.
        world.down = set()
        world.pass_time(20)
        await parts.settle()
        assert parts.delivery.counters.resigned == 1
    assert sum(world.counted.values()) == 1
    assert first not in world.final


async def test_a_node_that_lost_its_disk_gets_the_same_bytes_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    with opened(world) as parts:
        spooled(parts.spool, cdr(1))
        parts.builder.turn()
        assert await parts.delivery.hand_in_some()
        before = set(world.stored[NODES[0]])
        world.stored[NODES[0]].clear()
        await parts.settle()
        assert set(world.final) == before


async def test_another_node_is_asked_when_one_is_gone(tmp_path: Path) -> None:
    world = World(tmp_path, statuses=[503, 0])
    with opened(world) as parts:
        spooled(parts.spool, cdr(1))
        await parts.step()
        world.down = {NODES[0]}
        await parts.settle()
    assert sum(world.counted.values()) == 1


async def test_records_that_another_agent_was_first_with_are_counted_as_void(tmp_path: Path) -> None:
    world = World(tmp_path / "one")
    other = World(tmp_path / "two")
    with opened(world) as parts:
        spooled(parts.spool, cdr(1), cdr(2))
        await parts.settle()
    other.counted, other.final, other.stored = world.counted, world.final, world.stored
    with opened(other) as parts:
        spooled(parts.spool, cdr(2))
        await parts.settle()
        assert parts.delivery.counters.void == 1
        spooled(parts.spool, cdr(1), cdr(3))
        await parts.settle()
        assert (parts.delivery.counters.final, parts.delivery.counters.void) == (3, 2)
    assert sorted(world.counted.values()) == [1, 1, 1]


@pytest.mark.parametrize("jump_s", [-5 * 3600, 5 * 3600])
async def test_a_wall_clock_that_jumps_loses_and_duplicates_nothing(tmp_path: Path, jump_s: int) -> None:
    """While the agent runs, and over a start with the wrong clock."""
    world = World(tmp_path)
    with opened(world) as parts:
        spooled(parts.spool, cdr(1))
        await parts.step()
        world.wall_ms += jump_s * 1000
        spooled(parts.spool, cdr(2))
        await parts.settle()
    world.down = set(NODES)
    with opened(world, is_told=False) as parts:
        spooled(parts.spool, cdr(3, end_ms=world.ledger_ms - 1000))
        # Nothing is signed by this clock as long as nobody has told the time.
        await parts.step()
        assert (parts.builder.counters.built, parts.backlog) == (0, 1)
        world.down = set()
        await parts.settle()
        assert len(parts.dead) == 0
    assert sorted(world.counted.values()) == [1] * 3


async def test_while_the_ledger_is_dead_the_backlog_stays_in_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it needs no memory, and has no signatures that expire."""
    monkeypatch.setattr(building, "AHEAD_RECORDS_MAX", 50)
    monkeypatch.setattr(building, "BATCH_DOCUMENTS", 40)
    world = World(tmp_path, down=set(NODES))
    with opened(world) as parts:
        spooled(parts.spool, *map(cdr, range(500)))
        for _ in range(20):
            parts.builder.turn()
        assert (parts.outbox.records, parts.backlog) == (80, 500)
        world.pass_time(LIFETIME_MS // 1000 + 60)
        world.down = set()
        await parts.settle()
        assert parts.delivery.counters.resigned == 80
    assert sorted(world.counted.values()) == [1] * 500


async def test_a_call_that_ends_a_little_in_the_future_waits_for_its_time(tmp_path: Path) -> None:
    world = World(tmp_path)
    with opened(world) as parts:
        spooled(parts.spool, cdr(1, end_ms=NOW_MS + 30_000))
        await parts.step()
        assert (parts.waiting.count, parts.backlog) == (1, 1)
    with opened(world) as parts:
        await parts.settle()
        assert len(parts.dead) == 0
    assert sum(world.counted.values()) == 1


async def story(world: World) -> None:
    """Hand in, be refused, lose an answer, expire: with every step that a kill may come between."""
    with opened(world) as parts:
        if parts.spool.end.sequence == 1:
            spooled(parts.spool, *(cdr(n, sip_code="603" if n == 3 else "486") for n in range(6)), cdr(7, end_time="x"))
        world.faults.count = 0
        await parts.step()
        if world.height < 2:
            world.pass_time(LIFETIME_MS // 1000)
        await parts.settle()


async def killed_at(directory: Path, at: int) -> tuple[World, bool]:
    """Run the story with a kill at the n-th point, then without; return the world and whether it came to the kill."""
    world = World(directory, refuse=lambda record: record.sip_code == 603, statuses=[200, 0], faults=Faults(at))
    is_killed = False
    try:
        await story(world)
    except Crash:
        is_killed = True
    world.faults.at = 0
    await story(world)
    return world, is_killed


async def test_killed_at_any_step_each_call_is_on_the_ledger_once(tmp_path: Path) -> None:
    at = 0
    while True:
        at += 1
        world, is_killed = await killed_at(tmp_path / str(at), at)
        assert sorted(world.counted.values()) == [1] * 5, at
        with opened(world) as parts:
            assert sorted(stage for stage, _ in parts.reasons()) == ["building", "delivery"], at
            assert parts.backlog == 0
        if not is_killed:
            break
    assert at > 20
