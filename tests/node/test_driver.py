"""The driver and its node over a store in memory: what is promised, and what no fault may cost."""

from __future__ import annotations

import asyncio

import pytest

from ledger.block import Vote
from ledger.crypto import PrivateKey
from ledger.errors import StoreDamaged
from ledger.store import MemoryStore, Space, WriteBatch
from node.driver import now_ms
from node.node import Node
from node.sim.world import World, producer_key
from p2p.messages import GetTransactions, Message, Stored, Votes


class DamagedStore(MemoryStore):
    """A store whose bodies are wrong once told so."""

    is_damaged = False

    def body(self, tx_id: bytes) -> bytes | None:
        """See ``Store.body``."""
        if self.is_damaged:
            raise StoreDamaged("wrong bytes", where=tx_id.hex())
        return super().body(tx_id)


class Place:
    """Member 0's store on a chain of four, and its key."""

    def __init__(self) -> None:
        self.world = World(4)
        self.store = DamagedStore()
        self.key: PrivateKey = producer_key(0)

    def node(self) -> Node:
        """Return a node that begins with what the store holds."""
        return Node(self.world.genesis, self.store, key=self.key)

    def transaction(self, call: int = 1) -> tuple[bytes, bytes]:
        """Return id and bytes of a fresh transaction."""
        raw = self.world.make_transaction(0, [call], now_ms=now_ms())
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
async def test_a_damaged_store_stops_the_node_and_costs_no_peer(
    place: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going on would leave a half-finished step in memory, and ban honest peers for what they asked."""
    node = place.node()
    peer = producer_key(1).key_id
    node.driver.peer_up(peer)
    message: Message = GetTransactions([bytes(32)])
    if kind != "body asked for":
        message = Votes([Vote(0, bytes(32), 1, bytes(32), peer, bytes(64))])

        def damaged(vote: Vote, *, now_ms: int) -> None:
            raise StoreDamaged("a row of record keys is cut", where="minute 1")

        monkeypatch.setattr(node.engine, "receive_vote", damaged)
    place.store.is_damaged = True
    node.driver.deliver(peer, message)
    await asyncio.wait_for(node.start(), 10)
    assert isinstance(node.driver.failure, StoreDamaged)
    assert node.counters.rejected == {}
