"""The driver and its node over a store in memory: what is promised, and what no fault may cost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from consensus import pool as pool_module
from ledger.block import Vote
from ledger.crypto import PrivateKey
from ledger.errors import StoreDamaged
from ledger.governance import apply_payload
from ledger.payloads import CandidateChange, DelegationPart, Delegations, KeyChange, KeyChanges, KeyOperation
from ledger.store import MemoryStore, Space, WriteBatch
from ledger.transaction import Kind
from node import checking
from node import driver as driver_module
from node.clock import now_ms
from node.intake import Overloaded
from node.node import Node, Promise
from node.sim.world import World, producer_key, submit_key
from p2p.messages import GetTransactions, Message, Stored, Transactions, Votes


class DamagedStore(MemoryStore):
    """A store whose bodies are wrong once told so."""

    is_damaged = False

    def body(self, tx_id: bytes) -> bytes | None:
        """See ``Store.body``."""
        if self.is_damaged:
            raise StoreDamaged("wrong bytes", where=tx_id.hex())
        return super().body(tx_id)


class SlowStore(MemoryStore):
    """A store whose writes of bodies are visible at once and return only when they may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_return = threading.Event()
        self.is_visible = threading.Event()

    def write(self, batch: WriteBatch) -> None:
        """See ``Store.write``."""
        super().write(batch)
        if batch.bodies:
            self.is_visible.set()
            self.may_return.wait(20)


class Place:
    """Member 0's store on a chain of four, and its key."""

    def __init__(self, producers: int = 4, store: MemoryStore | None = None) -> None:
        self.world = World(producers)
        self.store = store or MemoryStore()
        self.key = PrivateKey.from_seed(b"node 0")

    def node(self) -> Node:
        """Return a node that begins with what the store holds."""
        return Node(self.world.genesis, self.store, key=self.key)

    def transaction(self, call: int = 1, *, member: int = 0, made_ms: int | None = None) -> tuple[bytes, bytes]:
        """Return id and bytes of a transaction, made just now unless told otherwise."""
        raw = self.world.make_transaction(member, [call], now_ms=now_ms() if made_ms is None else made_ms)
        return self.world.check(raw).tx_id, raw

    def keep(self, tx_id: bytes, raw: bytes) -> None:
        """Put a pending transaction on disk."""
        self.store.write(WriteBatch([(Space.PENDING.value + tx_id, b"")], [(tx_id, raw)]))


@pytest.fixture
def place() -> Place:
    return Place()


def test_pending_transactions_found_at_the_start_are_offered_to_peers(place: Place) -> None:
    """Only the node that crashed may have them; a node that seals no blocks could not bring them in otherwise."""
    tx_id, raw = place.transaction()
    place.keep(tx_id, raw)
    node = place.node()
    peer = producer_key(1).key_id
    node.driver.peer_up(peer)
    assert (peer, Stored([tx_id])) in node.gossip.take_ready().sends


def test_what_was_accepted_before_a_restart_is_accepted_again(place: Place) -> None:
    tx_id, raw = place.transaction()
    place.keep(tx_id, raw)
    node = place.node()
    for number in (1, 2):
        peer = producer_key(number).key_id
        node.driver.peer_up(peer)
        node.gossip.receive(Stored([tx_id]), peer, now_ms=now_ms())
    assert node.gossip.take_ready().accepted == [tx_id]


@pytest.mark.parametrize("kind", ["body asked for", "vote that makes a block final"])
async def test_a_damaged_store_stops_the_node_and_costs_no_peer(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going on would leave a half-finished step in memory, and ban honest peers for what they asked."""
    store = DamagedStore()
    place = Place(store=store)
    node = place.node()
    peer = producer_key(1).key_id
    node.driver.peer_up(peer)
    message: Message = GetTransactions([bytes(32)])
    if kind != "body asked for":
        message = Votes([Vote(0, bytes(32), 1, bytes(32), peer, bytes(64))])

        def damaged(vote: Vote, *, now_ms: int) -> None:
            raise StoreDamaged("a row of record keys is cut", where="minute 1")

        monkeypatch.setattr(node.engine, "receive_vote", damaged)
    store.is_damaged = True
    node.driver.deliver(peer, message)
    await asyncio.wait_for(node.start(), 10)
    assert isinstance(node.driver.failure, StoreDamaged)
    assert node.counters.rejected == {}


async def test_a_transaction_whose_write_is_under_way_is_not_called_expired() -> None:
    """Whoever reads that signs the records anew."""
    store = SlowStore()
    place = Place(store=store)
    node = place.node()
    tx_id, raw = place.transaction()
    node.start()
    done = node.driver.submit(raw)
    await asyncio.to_thread(store.is_visible.wait, 10)
    assert store.has_body(tx_id)
    during = node.promise_of(tx_id)
    store.may_return.set()
    assert await asyncio.wait_for(done, 10) is True
    await node.stop()
    assert during == Promise("stored")


async def test_nothing_is_called_final_before_that_is_on_disk() -> None:
    """A node's own vote may be what makes a block final: until it is written and sent, a crash could undo that."""
    place = Place(producers=1)
    tx_id, raw = place.transaction(made_ms=place.world.time_of(0))
    place.keep(tx_id, raw)
    node = place.node()
    engine = node.engine
    ready = engine.take_ready()
    for slot in range(1, 4):
        if engine.final_height(tx_id) is not None:
            break
        engine.handle_timer(now_ms=place.world.time_of(slot))
        ready = engine.take_ready()
    before = node.promise_of(tx_id)
    place.store.write(WriteBatch(ready.puts, []))
    node.driver._after_write(ready, [])
    assert (before, node.promise_of(tx_id)) == (Promise("included", 1), Promise("final", 1))


async def test_a_full_pool_takes_in_only_what_blocks_name(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that pushes without end must not fill the memory of others, and must not stop the chain either."""
    monkeypatch.setattr(pool_module, "POOL_TRANSACTIONS_MAX", 1)
    node, peer = place.node(), producer_key(1).key_id
    (first, _), (pushed, _), (named, _) = pairs = [place.transaction(call) for call in range(3)]
    node.driver.peer_up(peer)
    node.start()
    node.driver.deliver(peer, Transactions([pairs[0][1]]))
    await _until(lambda: first in node.engine.pool)
    node.gossip.want_transactions([named], [peer], now_ms=now_ms())
    node.driver.deliver(peer, Transactions([pairs[1][1], pairs[2][1]]))
    await _until(lambda: named in node.engine.pool)
    await node.stop()
    assert [tx.tx_id for tx in node.engine.pool] == [first, named]
    assert not place.store.has_body(pushed)


async def test_one_member_takes_no_more_than_its_share_of_the_pool(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "POOL_TRANSACTIONS_MAX", 4)
    node, peer = place.node(), producer_key(1).key_id
    flood = [place.transaction(call) for call in range(4)]
    other = place.transaction(9, member=2)
    node.driver.peer_up(peer)
    node.start()
    for tx_id, raw in flood[:2]:
        node.driver.deliver(peer, Transactions([raw]))
        await _until(lambda tx_id=tx_id: tx_id in node.engine.pool)  # type: ignore[misc]
    node.driver.deliver(peer, Transactions([flood[2][1], flood[3][1], other[1]]))
    await _until(lambda: other[0] in node.engine.pool)
    with pytest.raises(Overloaded):
        await node.driver.submit(place.transaction(5)[1])
    await node.stop()
    assert [tx.tx_id for tx in node.engine.pool] == [flood[0][0], flood[1][0], other[0]]


async def test_what_a_key_signed_that_has_ended_does_not_wait_in_the_pool(place: Place) -> None:
    node, peer = place.node(), producer_key(1).key_id
    chain = node.engine.head.chain
    ended = KeyChanges([KeyChange(KeyOperation.REVOKE, None, 0, submit_key(0).key_id)])
    state = apply_payload(chain.state, ended, member_id="carrier-00", tx_id=bytes(32), height=1, time_ms=now_ms())
    node.engine.head.chain = replace(chain, state=state)
    node.driver.peer_up(peer)
    node.start()
    other = place.transaction(9, member=2)
    node.driver.deliver(peer, Transactions([place.transaction()[1], other[1]]))
    await _until(lambda: other[0] in node.engine.pool)
    await node.stop()
    assert [tx.tx_id for tx in node.engine.pool] == [other[0]]


async def test_what_is_handed_in_while_the_disk_is_stuck_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SlowStore()
    place = Place(store=store)
    node = place.node()
    raws = [place.transaction(call)[1] for call in range(4)]
    monkeypatch.setattr(checking, "SUBMISSIONS_BYTES_MAX", 2 * len(raws[0]) + 9)
    waiting = [node.driver.submit(raw) for raw in raws[:2]]
    with pytest.raises(Overloaded):
        await node.driver.submit(raws[2])
    node.start()
    store.may_return.set()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == [True, True]
    assert await asyncio.wait_for(node.driver.submit(raws[3]), 10) is True
    await node.stop()


async def _until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; the test's own time limit ends it otherwise."""
    while not holds():  # noqa: ASYNC110 - the node has no event for it
        await asyncio.sleep(0.01)


def test_a_clock_set_back_an_hour_stops_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that ran an hour ahead is set right: slots are counted from there at once, timers wait no hour."""
    node = place.node()
    begun_ms = now_ms()
    monkeypatch.setattr(driver_module, "now_ms", lambda: begun_ms + 3_600_000)
    node.driver._handle_timers()
    assert 0 < node.driver._until_slot_ms() <= place.world.genesis.parameters.slot_ms
    monkeypatch.setattr(driver_module, "now_ms", lambda: begun_ms)
    assert node.driver._until_slot_ms() == 0
    node.driver._handle_timers()
    assert 0 < node.driver._until_slot_ms() <= place.world.genesis.parameters.slot_ms


async def test_a_transaction_that_governs_is_refused_at_once_where_it_does_not_fit() -> None:
    """And one that is on disk already is no error, whatever became of it since."""
    place = Place(1)
    node = place.node()
    node.start()

    def signed(payload: CandidateChange | Delegations, kind: Kind) -> bytes:
        return place.world.make_payload(0, kind, payload, now_ms=now_ms())

    withdraw = signed(CandidateChange(None), Kind.CANDIDATE)
    wrong = signed(Delegations([DelegationPart("nobody", 1)]), Kind.DELEGATE)
    first, second = await node.submit_transactions([withdraw, wrong])
    assert (first.status, first.error) == ("stored", None)
    assert second.error is not None
    assert (second.status, second.error.what) == ("refused", "no candidate")
    await _until(lambda: "carrier-00" not in node.state.candidates)
    (again,) = await node.submit_transactions([withdraw])
    assert (again.status, again.error) == ("known", None)
    await node.stop()
