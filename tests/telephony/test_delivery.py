"""From the spool to final: each call once, whatever the nodes do and wherever the agent is killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger.cdr import CallRecord
from ledger.codec import decode
from ledger.transaction import Transaction
from telephony import building
from telephony.outbox import LIFETIME_MS
from tests.telephony.agent_kit import NODES, NOW_MS, World, cdr, opened, spooled, tx_ids_in

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


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503, 507])
async def test_a_node_that_is_not_able_to_take_them_costs_no_record(tmp_path: Path, status: int) -> None:
    """Nor one that answers them with a page of some proxy in between: they are handed in elsewhere, or later."""
    world = World(tmp_path, statuses=[status] * 3, down={NODES[1]})
    with opened(world) as parts:
        spooled(parts.spool, cdr(1))
        await parts.settle()
        assert (len(parts.dead), parts.delivery.counters.resigned) == (0, 0)
    assert sum(world.counted.values()) == 1


async def test_a_transaction_too_large_for_the_nodes_is_signed_anew_in_halves(tmp_path: Path) -> None:
    world = World(tmp_path, items_max=3)
    with opened(world) as parts:
        spooled(parts.spool, *map(cdr, range(10)))
        await parts.settle()
        assert len(parts.dead) == 0
    assert sorted(world.counted.values()) == [1] * 10
    assert max(len(decode(raw, Transaction).items) for raw in world.raws.values()) == 3


async def test_records_that_grew_too_old_on_the_way_are_dead_letters_and_the_others_go_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    with opened(world) as parts:
        hours_ms = 3_600_000
        spooled(parts.spool, cdr(1, end_ms=NOW_MS - 23 * hours_ms), cdr(2), cdr(3, end_ms=NOW_MS - 22 * hours_ms))
        parts.builder.turn()
        world.pass_time(5 * 3600)
        await parts.settle()
        assert [(letter.stage, json.loads(letter.data)["call_id"]) for letter in parts.dead] == [
            ("delivery", "call-1"),
            ("delivery", "call-3"),
        ]
        assert parts.delivery.counters.resigned == 1
    assert list(world.counted.values()) == [1]


async def test_what_is_too_early_for_a_node_is_handed_in_later_as_it_is(tmp_path: Path) -> None:
    """The node that told the time went ahead of this one."""
    world = World(tmp_path)
    with opened(world) as parts:
        spooled(parts.spool, cdr(1))
        parts.builder.turn()
        before = tx_ids_in(parts.outbox)
        world.ledger_ms -= 20_000
        await parts.settle()
        assert (list(world.final), parts.delivery.counters.resigned) == (before, 0)


async def test_many_transactions_are_handed_in_and_followed_with_few_requests(tmp_path: Path) -> None:
    world = World(tmp_path)
    with opened(world) as parts:
        for number in range(70):
            spooled(parts.spool, cdr(number))
            parts.builder.turn()
        world.requests.clear()
        await parts.step()
        assert (len(world.final), parts.backlog) == (70, 0)
    assert world.requests == {"POST": 3, "GET": 2}


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


async def test_a_backlog_beyond_what_may_be_signed_stays_in_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


async def test_an_outage_longer_than_signatures_hold_is_signed_anew_and_each_call_counts_once(tmp_path: Path) -> None:
    """What is built while the ledger is dead waits as whole transactions, some of them expired when it comes back."""
    world = World(tmp_path, down=set(NODES))
    with opened(world) as parts:
        spooled(parts.spool, *map(cdr, range(1_500)))
        while parts.builder.turn():
            pass
        world.pass_time(LIFETIME_MS // 1000 + 60)
        spooled(parts.spool, *(cdr(number, end_ms=world.wall_ms - 60_000) for number in range(1_500, 2_000)))
        await parts.step()
        assert (parts.outbox.records, parts.backlog) == (2_000, 2_000)
        world.down = set()
        await parts.settle()
        assert parts.delivery.counters.resigned == 1_500
    assert sorted(world.counted.values()) == [1] * 2_000


async def test_while_no_node_answers_no_transaction_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A post is megabytes, several are under way, and an outage lasts: they are read when somebody may take them."""
    world = World(tmp_path, down=set(NODES))
    with opened(world) as parts:
        spooled(parts.spool, cdr(1))
        await parts.step()
        order: list[str] = []
        read = parts.outbox.raws
        monkeypatch.setattr(parts.outbox, "raws", lambda numbers: order.append("read") or read(numbers))

        async def pause(seconds: float) -> None:
            order.append("wait")
            await world.pause(seconds)

        monkeypatch.setattr(parts.delivery, "_pause", pause)
        tries = []
        for _ in range(4):
            await parts.delivery.hand_in_some()
            tries.append(order[:])
            order.clear()
    assert [one[-1] for one in tries] == ["read"] * 4
    assert [one.count("read") for one in tries] == [1] * 4
    assert ["wait", "read"] in tries


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


async def test_what_contradicts_itself_is_left_out_and_counted(tmp_path: Path) -> None:
    """A MOS that no codec of this kind reaches: the call is a record all the same, and somebody can see it happen."""
    world = World(tmp_path)
    heard = {"mos_avg_a": "4.9", "loss_avg_a": "0", "jitter_avg_a": "8", "rtt_avg_a": "20", "mos_samples_a": "2"}
    with opened(world) as parts:
        spooled(parts.spool, cdr(1), cdr(2, **heard))
        await parts.settle()
        counters = parts.builder.counters
        assert (counters.built, counters.warned, parts.reasons()) == (2, 1, [])
