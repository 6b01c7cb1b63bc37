"""Producers that lose their store, or get an old one back, among peers that tell what they saw: no contradictions."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from random import Random

import pytest

from consensus.caution import Standing, Word
from consensus.engine import Engine
from consensus.ready import Ready
from consensus.rows import guard_key, read_wait
from consensus.votes import Checkpoint, Link, VoteGuard, digest_of
from ledger.block import Block, Header, SealedHeader, Vote, block_id_of
from ledger.errors import InvalidBlock, InvalidVote
from ledger.store import MemoryStore, Space, Store, WriteBatch
from node.sim.world import EPOCH_SLOTS, is_stand_in_signature, producer_key
from tests.consensus.bench_kit import Bench, make_vote, point, time_of

SEEDS = range(30)
SLOTS = 60


class TellingBench(Bench):
    """Cautious engines that tell each other what they saw; everything that leaves them is kept.

    Attributes:
        raws: every transaction handed in, for a store that begins anew.
        sent: votes and blocks, by producer number.
    """

    def __init__(self, producers: int = 4) -> None:
        self.raws: list[tuple[bytes, bytes]] = []
        self.sent: dict[int, list[Vote | Block]] = {n: [] for n in range(producers + 1)}
        super().__init__(producers)

    def make(self, number: int) -> Engine:
        """Return a new, cautious engine over the store of ``number``."""
        return Engine(
            self.world.genesis,
            self.stores[number],
            key=producer_key(number) if number < len(self.stores) - 1 else None,
            next_key=self.next_keys.get(number),
            check=self.world.check,
            is_valid=is_stand_in_signature,
            is_cautious=True,
        )

    def flush(self, number: int) -> Ready:
        """Take what an engine has ready, write it, and note what leaves."""
        ready = super().flush(number)
        self.sent[number] += ready.messages
        return ready

    def hand_in(self, raw: bytes) -> bytes:
        """Give a transaction to every engine; return its id."""
        tx_id = super().hand_in(raw)
        self.raws.append((tx_id, raw))
        return tx_id

    def tell(self, sender: int, to: int, slot: int) -> None:
        """Let ``sender`` tell what it saw of ``to``."""
        engine = self.engines[sender]
        votes, headers = engine.signing.told_to([producer_key(to).key_id])
        word = Word(engine.final.height, slot)
        self.engines[to].signing.hear(producer_key(sender).key_id, word, votes, headers, slot=slot)

    def tell_all(self, slot: int, *, to: Iterable[int] = range(4)) -> None:
        """Let everybody tell everybody, or those in ``to``."""
        for receiver in to:
            for sender in range(4):
                if sender != receiver:
                    self.tell(sender, receiver, slot)

    def restart(self, number: int, store: Store | None = None) -> None:
        """Start a node over its store, or another; bodies that it lacks are given to it, as sync would."""
        if store is not None:
            self.stores[number] = store
        here = self.stores[number]
        lacking = [(tx_id, raw) for tx_id, raw in self.raws if not here.has_body(tx_id)]
        here.write(WriteBatch([(Space.PENDING.value + tx_id, b"") for tx_id, _ in lacking], lacking))
        self.engines[number] = self.make(number)

    def standing(self, number: int) -> Standing:
        """Return how it is with the key of ``number``."""
        return self.engines[number].signing.caution.standing(producer_key(number).key_id)

    def run(self, first_slot: int, slots: int, *, silent: Iterable[int] = ()) -> None:
        """Play slots with a transaction in each."""
        for slot in range(first_slot, first_slot + slots):
            self.submit([slot], now_ms=time_of(slot))
            self.run_slot(slot, silent=silent)


def founded(slots: int = 12) -> TellingBench:
    """Return a chain that has run for more than an epoch; the next slot is ``slots + 1``."""
    bench = TellingBench()
    bench.tell_all(0)
    bench.run(1, slots)
    assert bench.observer.final.height >= EPOCH_SLOTS
    return bench


def contradictions(messages: Iterable[Vote | Block]) -> list[str]:
    """Return what an honest producer must not have sent: E1, E2, two blocks in a slot."""
    votes = {(v.s_height, v.s_id, v.t_height, v.t_id) for v in messages if isinstance(v, Vote)}
    found = [
        f"votes {a[0]}->{a[2]} and {b[0]}->{b[2]}"
        for a in votes
        for b in votes
        if a != b and (a[2] == b[2] or a[0] < b[0] < b[2] < a[2])
    ]
    blocks = {(m.sealed.header.slot, block_id_of(m.sealed.header)) for m in messages if isinstance(m, Block)}
    slots = [slot for slot, _ in blocks]
    return sorted(found) + [f"two blocks in slot {slot}" for slot in sorted({s for s in slots if slots.count(s) > 1})]


def test_founding_begins_once_a_quorum_has_told() -> None:
    bench = TellingBench()
    assert bench.run_slot(0) is None
    bench.tell(1, 0, 0)
    assert bench.standing(0) is Standing.NEW
    bench.tell(2, 0, 0)
    assert bench.standing(0) is Standing.CLEAR
    bench.tell_all(0)
    bench.run(1, 3)
    assert bench.observer.final.height >= 1


def test_a_record_is_there_before_the_first_word() -> None:
    bench = TellingBench()
    key_id = producer_key(0).key_id
    puts = dict(bench.flush(0).puts)
    assert puts[guard_key(key_id)] is not None
    assert [read_wait(bench.stores[0], key_id)] != [None]
    bench.tell_all(0, to=[0])
    bench.flush(0)
    assert read_wait(bench.stores[0], key_id) is None
    bench.restart(0)
    assert bench.standing(0) is Standing.ASKING


def test_a_restart_waits_for_words_and_signs_at_once_then() -> None:
    bench = founded()
    bench.restart(0)
    assert bench.standing(0) is Standing.ASKING
    bench.tell_all(13, to=[0])
    assert bench.standing(0) is Standing.CLEAR
    before = len(bench.sent[0])
    bench.run(13, 1)
    assert [type(m) for m in bench.sent[0][before:]].count(Vote) == 1


def test_a_whole_cluster_restarts() -> None:
    bench = founded()
    for n in range(4):
        bench.restart(n)
    bench.tell_all(13)
    final = bench.observer.final.height
    bench.run(13, 3)
    assert bench.observer.final.height > final + 1


def test_a_lost_disk_is_known_by_what_peers_saw() -> None:
    bench = founded()
    voted = max(m.t_height for m in bench.sent[0] if isinstance(m, Vote))
    sealed = max(m.sealed.header.slot for m in bench.sent[0] if isinstance(m, Block))
    bench.restart(0, MemoryStore())
    assert bench.standing(0) is Standing.NEW
    bench.tell_all(13, to=[0])
    assert bench.standing(0) is Standing.LOST
    guard = bench.engines[0].guard
    assert (guard.next_target, guard.next_slot) == (voted + 1, sealed + 1)
    before = len(bench.sent[0])
    for slot in range(13, 13 + EPOCH_SLOTS):
        assert bench.standing(0) is Standing.LOST, slot
        bench.run(slot, 1)
    assert bench.sent[0][before:] == []
    bench.run(13 + EPOCH_SLOTS, 2)
    assert bench.standing(0) is Standing.CLEAR
    assert {type(m) for m in bench.sent[0][before:]} >= {Vote}
    assert contradictions(bench.sent[0]) == []


def test_a_lost_disk_is_known_by_the_chain_where_peers_forgot() -> None:
    bench = founded()
    for n in (1, 2, 3):
        bench.restart(n)
    bench.restart(0, MemoryStore())
    for n in range(4):
        bench.tell_all(13, to=[n])
    assert bench.standing(0) is Standing.LOST


def test_a_restored_backup_is_known_by_what_peers_saw() -> None:
    bench = founded()
    backup = copy.deepcopy(bench.stores[0])
    bench.run(13, 4)
    bench.restart(0, backup)
    assert bench.standing(0) is Standing.ASKING
    before = len(bench.sent[0])
    bench.tell_all(17, to=[0])
    assert bench.standing(0) is Standing.OLD
    bench.run(17, EPOCH_SLOTS - 1)
    assert bench.sent[0][before:] == []
    bench.run(16 + EPOCH_SLOTS, 3)
    assert bench.standing(0) is Standing.CLEAR
    assert contradictions(bench.sent[0]) == []


def test_a_wait_goes_on_after_a_restart() -> None:
    bench = founded()
    bench.restart(0, MemoryStore())
    bench.tell_all(13, to=[0])
    bench.run(13, 3)
    bench.restart(0)
    assert bench.standing(0) is Standing.LOST
    bench.tell_all(16, to=[0])
    bench.run(16, EPOCH_SLOTS)
    assert bench.standing(0) is Standing.LOST
    bench.run(16 + EPOCH_SLOTS, 1)
    assert bench.standing(0) is Standing.CLEAR


def test_a_new_member_of_an_old_chain_signs_once_a_block_is_final_without_it() -> None:
    bench = TellingBench()
    bench.tell_all(0, to=[0, 1, 2])
    bench.run(1, 16, silent=[3])
    assert bench.observer.final.height > EPOCH_SLOTS
    bench.tell_all(17, to=[3])
    bench.run(17, 1)
    assert bench.standing(3) is Standing.NEW
    bench.run(18, 4)
    assert bench.standing(3) is Standing.CLEAR
    assert bench.engines[3].guard.max_source > EPOCH_SLOTS


def test_a_second_process_with_the_key_silences_both_or_one() -> None:
    bench = founded()
    elsewhere = copy.deepcopy(bench.stores[0])
    bench.run(13, 1)
    mine = bench.engines[0]
    twin = TellingBench()
    twin.stores[0] = elsewhere
    other = twin.make(0)
    vote = make_vote(bench.chain_id, 0, Link(point(40), point(50)))
    for engine in (mine, other):
        engine.receive_vote(vote, now_ms=time_of(14))
        assert engine.signing.caution.standing(producer_key(0).key_id) is Standing.OLD


@pytest.mark.parametrize("what", ["vote", "header", "chain"])
def test_what_was_not_signed_with_our_key_is_a_lie(what: str) -> None:
    bench = founded()
    engine, key_id = bench.engines[0], producer_key(0).key_id
    header = next(m for m in bench.sent[0] if isinstance(m, Block)).sealed
    vote = next(m for m in bench.sent[0] if isinstance(m, Vote))
    false_vote = Vote(vote.s_height, vote.s_id, vote.t_height + 90, vote.t_id, key_id, vote.signature)
    change = {"slot": 900, "chain_id": bytes(32) if what == "chain" else bench.chain_id}
    other = Header(**{name: getattr(header.header, name) for name in Header.__struct_fields__} | change)
    signature = producer_key(0).sign(block_id_of(other)) if what == "chain" else header.signature
    votes = [false_vote] if what == "vote" else []
    headers = [] if what == "vote" else [SealedHeader(other, signature, None)]
    guard = engine.guard
    with pytest.raises(InvalidVote if what == "vote" else InvalidBlock):
        engine.signing.hear(producer_key(1).key_id, Word(0, 0), votes, headers, slot=13)
    assert engine.guard == guard


def test_what_is_known_is_not_checked_again() -> None:
    """Or a peer could keep the node busy with old signatures."""
    bench = founded()
    checked = []
    bench.engines[0].signing._is_valid = lambda *signed: bool(checked.append(signed)) or True
    bench.tell_all(13, to=[0])
    assert checked == []


def test_a_key_that_is_rotated_in_waits_while_the_old_one_votes() -> None:
    bench = founded()
    bench.next_keys[0] = producer_key(9)
    bench.restart(0)
    bench.tell_all(13, to=[0])
    caution = bench.engines[0].signing.caution
    assert (bench.standing(0), caution.standing(producer_key(9).key_id)) == (Standing.CLEAR, Standing.NEW)
    bench.run(13, 1)
    assert {m.key_id for m in bench.sent[0][-3:] if isinstance(m, Vote)} == {producer_key(0).key_id}
    bench.run(14, 4)
    assert caution.standing(producer_key(9).key_id) is Standing.CLEAR


def test_signatures_of_others_are_passed_over() -> None:
    bench = founded()
    link = Link(Checkpoint(1, bytes(32)), Checkpoint(900, bytes(32)))
    forged = Vote(*link.source, *link.target, producer_key(3).key_id, bytes(64))
    bench.engines[0].signing.hear(producer_key(1).key_id, Word(0, 0), [forged], [], slot=13)
    assert bench.standing(0) is Standing.CLEAR
    assert digest_of(bench.chain_id, link)


def test_an_engine_that_is_not_cautious_signs_at_once_and_remembers_nothing() -> None:
    bench = Bench()
    bench.submit([1])
    bench.run_slot(1)
    assert bench.engines[0].guard != VoteGuard()
    assert bench.engines[1].signing.told_to([producer_key(0).key_id]) == ([], [])


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_lost_or_restored_nobody_contradicts_itself(seed: int) -> None:
    """One node at a time loses its store or gets an old one back, any may restart, one may be cut off at a time."""
    random = Random(seed)
    bench = TellingBench()
    backups = {n: [copy.deepcopy(bench.stores[n])] for n in range(4)}
    bench.tell_all(0)
    silent: list[int] = []
    for slot in range(1, SLOTS):
        if random.random() < 0.3:
            silent = random.choice([[], [], [random.randrange(4)]])
        bench.submit([slot], now_ms=time_of(slot))
        bench.run_slot(slot, silent=silent)
        for n in range(4):
            if random.random() < 0.1:
                backups[n].append(copy.deepcopy(bench.stores[n]))
            for sender in range(4):
                if sender != n and not {n, sender} & set(silent) and random.random() < 0.5:
                    bench.tell(sender, n, slot)
            bench.flush(n)
        if random.random() < 0.15:
            number = random.randrange(4)
            others_sign = all(bench.standing(n) is Standing.CLEAR for n in range(4) if n != number)
            store = random.choice([None, MemoryStore(), copy.deepcopy(random.choice(backups[number]))])
            bench.restart(number, store if others_sign else None)
    assert {n: contradictions(bench.sent[n]) for n in range(4)} == {n: [] for n in range(4)}
    ids = [[e.block_id_at(h) for h in range(1, min(x.final.height for x in bench.engines) + 1)] for e in bench.engines]
    assert all(one == ids[0] for one in ids)
    assert bench.observer.final.height > SLOTS // 5
