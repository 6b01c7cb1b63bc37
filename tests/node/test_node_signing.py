"""Whether a node may sign, as it is told to people; and what it tells its peers."""

from __future__ import annotations

from typing import Any

import pytest

from consensus.caution import Standing, Wait
from consensus.engine import Engine
from ledger.block import Block, SealedHeader, Vote
from ledger.errors import InvalidVote
from ledger.store import MemoryStore, WriteBatch
from node.signing import SAY_MS, STATES, NodeSigning, SeenByUs, SigningWatch, describe
from node.sim.world import GENESIS_MS, SLOT_MS, World, is_stand_in_signature, producer_key
from p2p.messages import Seen

PEER = producer_key(1).key_id


class Lines:
    """A log that keeps (level, event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))


def make_engine(number: int = 0) -> Engine:
    """Return the engine of a producer of four that has just been founded."""
    world = World(4)
    return Engine(
        world.genesis,
        MemoryStore(),
        key=producer_key(number),
        check=world.check,
        is_valid=is_stand_in_signature,
        is_cautious=True,
    )


@pytest.mark.parametrize(
    ("wait", "waits_for"),
    [
        (Wait(Standing.ASKING, words=2), "2 more producers to tell what they have seen it sign"),
        (Wait(Standing.ASKING, words=1), "1 more producer to tell what they have seen it sign"),
        (Wait(Standing.ASKING, height=70), "block 70, which is final at its peers"),
        (Wait(Standing.NEW, words=1, until_slot=90), "1 more producer to tell what they have seen it sign"),
        (Wait(Standing.NEW, final_slot=81, until_slot=90), "a block sealed after slot 81 to be final, or slot 90"),
        (Wait(Standing.LOST, until_slot=90), "slot 90"),
        (
            Wait(Standing.OLD, words=1, height=70, until_slot=90),
            (
                "1 more producer to tell what they have seen it sign, and block 70, which is final at its peers, "
                "and slot 90"
            ),
        ),
    ],
    ids=str,
)
def test_what_is_waited_for(wait: Wait, waits_for: str) -> None:
    said = describe(make_engine(), wait, is_clock_off=False)
    until_ms = None if wait.until_slot is None else GENESIS_MS + 90 * SLOT_MS
    assert (said.state, said.waits_for, said.until_ms) == (wait.standing.value, waits_for, until_ms)
    assert said.reason != ""


def test_a_clock_that_is_off_is_told_where_nothing_else_is_waited_for() -> None:
    engine = make_engine()
    off = describe(engine, Wait(Standing.CLEAR), is_clock_off=True)
    assert (off.state, off.waits_for) == ("clock-off", f"its clock to be within {SLOT_MS // 4} ms of its peers'")
    assert describe(engine, Wait(Standing.LOST), is_clock_off=True).state == "lost"
    assert describe(engine, Wait(Standing.CLEAR), is_clock_off=False) == NodeSigning("clear")
    assert {"clear", "asking", "new", "lost", "old", "clock-off"} == set(STATES)


def test_the_log_says_it_at_every_change_and_each_minute_while_it_lasts() -> None:
    engine, log = make_engine(), Lines()
    engine.signing.caution.begin(producer_key(0).key_id, Standing.LOST)
    watch = SigningWatch(engine, list, log)
    for second in range(131):
        watch.look(now_ms=GENESIS_MS + 1_000 * second)
    assert [(level, event) for level, event, _ in log.lines] == [("warning", "neither votes nor seals")] * 3
    assert log.lines[0][2]["state"] == "lost"
    engine.signing.caution.begin(producer_key(0).key_id, Standing.CLEAR)
    for second in range(131, 131 + 2 * SAY_MS // 1_000):
        watch.look(now_ms=GENESIS_MS + 1_000 * second)
    assert [event for _, event, _ in log.lines[3:]] == ["may vote and seal"]


def test_a_start_or_a_founding_is_no_reason_to_warn() -> None:
    log = Lines()
    watch = SigningWatch(make_engine(), list, log)
    watch.look(now_ms=GENESIS_MS)
    assert [(level, event) for level, event, _ in log.lines] == [("info", "does not vote yet")]


def test_a_clock_that_is_off_keeps_the_engine_from_sealing() -> None:
    engine, log, clocks_ms = make_engine(), Lines(), [SLOT_MS] * 3
    engine.signing.caution.begin(producer_key(0).key_id, Standing.CLEAR)
    watch = SigningWatch(engine, lambda: clocks_ms, log)
    for second in range(12):
        watch.look(now_ms=GENESIS_MS + 1_000 * second)
    assert (engine.signing.caution.is_clock_off, watch.signing(now_ms=GENESIS_MS).state) == (True, "clock-off")
    assert ("warning", "seals no blocks") in [(level, event) for level, event, _ in log.lines]
    clocks_ms[:] = [0] * 3
    watch.look(now_ms=GENESIS_MS + 12_000)
    assert (engine.signing.caution.is_clock_off, watch.signing(now_ms=GENESIS_MS).state) == (False, "clear")


def run_two(engine: Engine, peer: Engine, slots: int) -> list[Vote | Block]:
    """Let two of four run, without finality; return what ``peer`` signed."""
    signed: list[Vote | Block] = []
    for slot in range(slots):
        for one, other in ((engine, peer), (peer, engine)):
            one.signing.caution.begin(next(iter(one.key_ids)), Standing.CLEAR)
            one.handle_timer(now_ms=GENESIS_MS + slot * SLOT_MS)
            for message in one.take_ready().messages:
                signed += [message] if one is peer else []
                if isinstance(message, Block):
                    other.receive_block(message, now_ms=GENESIS_MS + slot * SLOT_MS)
                else:
                    other.receive_vote(message, now_ms=GENESIS_MS + slot * SLOT_MS)
    return signed


def test_a_peer_is_told_what_it_signed_and_takes_it() -> None:
    engine, peer = make_engine(0), make_engine(1)
    # A heartbeat gives them something to sign.
    signed = run_two(engine, peer, 70)
    vote = max((m for m in signed if isinstance(m, Vote)), key=lambda vote: vote.t_height)
    sealed = max((m.sealed for m in signed if isinstance(m, Block)), key=lambda sealed: sealed.header.slot)
    seen = SeenByUs(engine).tell(PEER, -7)
    assert (seen.final_height, seen.skew_ms, seen.votes) == (0, -7, [vote])
    assert seen.headers == [SealedHeader(sealed.header, sealed.signature, None)]
    again = make_engine(1)
    SeenByUs(again).hear(producer_key(0).key_id, seen)
    assert again.signing.caution.standing(PEER) is Standing.LOST
    assert (again.guard.next_target, again.guard.next_slot) == (vote.t_height + 1, sealed.header.slot + 1)


def test_a_stranger_is_told_nothing() -> None:
    assert SeenByUs(make_engine()).tell(bytes(20), None).votes == []


def test_a_false_vote_of_ours_is_a_lie() -> None:
    vote = Vote(0, bytes(32), 9, bytes(32), producer_key(0).key_id, bytes(64))
    with pytest.raises(InvalidVote):
        SeenByUs(make_engine()).hear(PEER, Seen(0, GENESIS_MS, None, [vote], []))


def test_nothing_is_written_for_a_store_that_has_its_record() -> None:
    world, store = World(4), MemoryStore()
    first = Engine(world.genesis, store, key=producer_key(0), check=world.check, is_cautious=True)
    store.write(WriteBatch(list(first.take_ready().puts), []))
    again = Engine(world.genesis, store, key=producer_key(0), check=world.check, is_cautious=True)
    for number in (1, 2):
        SeenByUs(again).hear(producer_key(number).key_id, Seen(0, GENESIS_MS, None, [], []))
    store.write(WriteBatch(list(again.take_ready().puts), []))
    third = Engine(world.genesis, store, key=producer_key(0), check=world.check, is_cautious=True)
    assert third.take_ready().puts == []
