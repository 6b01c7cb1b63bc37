"""Transactions that wait: what is void on a branch that loses is not forgotten."""

from __future__ import annotations

import pytest

from consensus import pending as pending_module
from consensus.pending import PAYLOAD_FAILURES_MAX, Pending
from consensus.ready import Outbox, TransactionDropped
from ledger.crypto import PrivateKey
from ledger.entries import KeyEntry, KeyStanding
from ledger.payloads import Approval, CandidateChange, Payload
from ledger.record_index import Overlay, RecordIndex, SeenRecords
from ledger.state import genesis_state
from ledger.store import MemoryStore, Space, WriteBatch
from ledger.transaction import Kind
from ledger.transition import BodyBuilder
from ledger.validation import CheckedTransaction
from node.sim.world import World, govern_key
from tests.consensus.bench_kit import time_of


class Desk:
    """Pending transactions over an empty chain."""

    def __init__(self) -> None:
        self.world = World(4)
        self.store = MemoryStore()
        self.outbox = Outbox()
        self.index = RecordIndex(self.store)
        self.pending = Pending(self.store, self.index, self.world.check, self.outbox)

    def add(self, calls: list[int], member: int = 0, lifetime_ms: int = 60_000, made_ms: int = 0) -> CheckedTransaction:
        now_ms = time_of(0) + made_ms
        raw = self.world.make_transaction(member, calls, now_ms=now_ms, lifetime_ms=lifetime_ms)
        tx = self.world.check(raw)
        self.store.write(WriteBatch([(Space.PENDING.value + tx.tx_id, b"")], [(tx.tx_id, raw)]))
        self.pending.add(tx)
        return tx

    def govern(self, member: int, kind: Kind, payload: Payload) -> CheckedTransaction:
        raw = self.world.make_payload(member, kind, payload, now_ms=time_of(0))
        tx = self.world.check(raw)
        self.store.write(WriteBatch([(Space.PENDING.value + tx.tx_id, b"")], [(tx.tx_id, raw)]))
        self.pending.add(tx)
        return tx

    def builder(self, *overlays: Overlay) -> BodyBuilder:
        seen = SeenRecords(self.index, list(overlays))
        return BodyBuilder(genesis_state(self.world.genesis), 1, time_of(1), seen, self.pending.read_records)

    def dropped(self) -> list[tuple[bytes, str]]:
        return [(e.tx_id, e.reason) for e in self.outbox.take().events if isinstance(e, TransactionDropped)]


def test_oldest_first() -> None:
    desk = Desk()
    txs = [desk.add([n], member=n % 4) for n in range(6)]
    builder = desk.builder()
    desk.pending.fill(builder, 0)
    assert [item.tx_id for item in builder.body] == [tx.tx_id for tx in txs]


def test_void_within_the_block_itself_waits_for_that_block() -> None:
    desk = Desk()
    desk.add([1])
    second = desk.add([1], made_ms=1)
    builder = desk.builder()
    desk.pending.fill(builder, 7)
    assert len(builder.body) == 1
    desk.pending.drop_void(7)
    assert desk.dropped() == []
    desk.pending.drop_void(8)
    assert desk.dropped() == [(second.tx_id, "void")]


def test_a_reorg_gives_a_void_transaction_another_chance() -> None:
    desk = Desk()
    first, second = desk.add([1]), desk.add([1], made_ms=1)
    desk.pending.fill(desk.builder(), 7)
    desk.pending.on_reorg()
    desk.pending.drop_void(9)
    assert desk.dropped() == []
    desk.pending.pool.remove(first.tx_id)
    builder = desk.builder()
    desk.pending.fill(builder, 7)
    assert [item.tx_id for item in builder.body] == [second.tx_id]


def test_one_in_the_chain_is_passed_over_and_not_called_void() -> None:
    desk = Desk()
    tx = desk.add([1])
    held = Overlay()
    held.tx_ids.add(tx.tx_id)
    builder = desk.builder(held)
    desk.pending.fill(builder, 3)
    assert builder.body == []
    desk.pending.drop_void(3)
    assert desk.dropped() == []


def test_expiry_in_order_and_not_while_included() -> None:
    desk = Desk()
    late, early = desk.add([1], lifetime_ms=5_000), desk.add([2], lifetime_ms=2_000)
    desk.pending.drop_expired(time_of(0) + 1_999, lambda _: False)
    assert desk.dropped() == []
    desk.pending.drop_expired(time_of(9), lambda tx_id: tx_id == early.tx_id)
    assert desk.dropped() == [(late.tx_id, "expired")]
    desk.pending.drop_expired(time_of(9), lambda _: False)
    assert desk.dropped() == [(early.tx_id, "expired")]


def test_restore_takes_in_what_is_not_final() -> None:
    desk = Desk()
    kept, final = desk.add([1]), desk.add([2])
    held = Overlay()
    held.tx_ids.add(final.tx_id)
    desk.store.write(WriteBatch(desk.index.add(1, held), []))
    again = Pending(desk.store, RecordIndex(desk.store), desk.world.check, Outbox())
    again.restore()
    assert [tx.tx_id for tx in again.pool] == [kept.tx_id]
    assert again.pool.records == 1


def test_expiry_times_of_what_became_final_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lifetimes are hours, finality takes seconds: what is final must not cost memory until it expires."""
    monkeypatch.setattr(pending_module, "EXPIRIES_SLACK", 8)
    desk = Desk()
    waiting = desk.add([1000], lifetime_ms=5_000)
    for number in range(100):
        tx = desk.add([number], lifetime_ms=60_000)
        desk.pending.on_final([tx.tx_id])
    assert len(desk.pending._expiries) <= 2 * len(desk.pending.pool) + 8 + 1
    desk.pending.drop_expired(time_of(0) + 5_000, lambda _tx_id: False)
    assert desk.dropped() == [(waiting.tx_id, "expired")]


def test_a_member_whose_changes_do_not_fit_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try costs a copy of what it would change: after so many that fail, the others' turn."""
    desk = Desk()
    for n in range(PAYLOAD_FAILURES_MAX + 8):
        desk.govern(1, Kind.APPROVE, Approval(bytes([n]) * 32))
    records = desk.add([1], member=1)
    other = desk.govern(2, Kind.CANDIDATE, CandidateChange(None))
    builder = desk.builder()
    tried: list[bytes] = []
    add = builder.add
    monkeypatch.setattr(builder, "add", lambda tx: (tried.append(tx.tx_id), add(tx))[1])
    desk.pending.fill(builder, 0)
    assert [item.tx_id for item in builder.body] == [records.tx_id, other.tx_id]
    assert len(tried) == PAYLOAD_FAILURES_MAX + 2


def test_who_stole_a_key_that_has_ended_keeps_its_member_from_nothing() -> None:
    desk = Desk()
    stolen, fresh = govern_key(1), PrivateKey.from_seed(b"govern anew")
    begin = genesis_state(desk.world.genesis)
    entry = begin.keys[stolen.key_id]
    new = KeyEntry(entry.member_id, fresh.public_key, entry.roles, KeyStanding.ACTIVE)
    ended = KeyEntry(entry.member_id, entry.public_key, entry.roles, KeyStanding.REVOKED)
    state = begin.changed({("key", stolen.key_id): ended, ("key", fresh.key_id): new})
    for n in range(PAYLOAD_FAILURES_MAX):
        desk.govern(1, Kind.APPROVE, Approval(bytes([n]) * 32))
    raw = desk.world.make_payload(1, Kind.CANDIDATE, CandidateChange(None), now_ms=time_of(0), key=fresh)
    own = desk.world.check(raw, state.keys.get)
    desk.pending.add(own)
    builder = BodyBuilder(state, 1, time_of(1), SeenRecords(desk.index, []), desk.pending.read_records)
    desk.pending.fill(builder, 0)
    assert [item.tx_id for item in builder.body] == [own.tx_id]
