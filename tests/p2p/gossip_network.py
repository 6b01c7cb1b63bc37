"""Nodes that gossip over an in-memory network on a virtual clock: delay, reorder, loss by reconnection."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter

from ledger.block import EMPTY_TOTALS, Block, BodyItem, Header, SealedHeader, Vote, body_root
from ledger.codec import ZERO32, encode
from ledger.crypto import PrivateKey
from ledger.errors import LedgerError
from ledger.transaction import make_transaction, tx_id_of
from p2p.gossip import Gossip
from p2p.messages import Transactions

CHAIN = b"\x01" * 32
KEY = PrivateKey.from_seed(b"submitter")


def transaction(number, size=40):
    """Return the id and bytes of a transaction; its signature holds, its items mean nothing."""
    item = number.to_bytes(8) + bytes(size)
    tx = make_transaction([item], key=KEY, member_id="a", chain_id=CHAIN, created_ms=0, expires_ms=1)
    return bytes(tx_id_of(tx.envelope)), encode(tx)


def block_of(tx_ids, height=1, parent_id=CHAIN, slot=None):
    """Return a block that names transactions; only what gossip and sync look at is right."""
    body = [BodyItem(tx_id, b"") for tx_id in tx_ids]
    slot = height if slot is None else slot
    header = Header(
        1, CHAIN, height, slot, parent_id, KEY.key_id, ZERO32, len(body), body_root(body), EMPTY_TOTALS,
        ZERO32, ZERO32, ZERO32,
    )  # fmt: skip
    return Block(SealedHeader(header, bytes(64), None), body)


def vote_of(number):
    """Return a vote that nothing here checks."""
    return Vote(0, bytes(32), number, bytes(32), bytes(20), bytes(64))


class Node:
    """A gossip with the store and the checks that a driver would give it."""

    def __init__(self, name, network, quorum):
        self.name = name
        self.network = network
        self.store = {}
        self.blocks = {}
        self.votes = []
        self.accepted = []
        self.banned = []
        self.bodies_received = Counter()
        self.bad = set()
        self.gossip = Gossip(
            own_key_id=name,
            is_producer=lambda key_id: True,
            is_quorum=lambda stored_by: len(stored_by) >= quorum,
            has_transaction=self.store.__contains__,
            read_transaction=self.store.get,
            read_block=self.blocks.get,
            check_header=lambda sealed: True,
        )

    def submit(self, *numbers, size=40):
        """Take transactions in, as the API does; return their ids."""
        pairs = [transaction(number, size) for number in numbers]
        self.store.update(pairs)
        ids = [tx_id for tx_id, _ in pairs]
        self.gossip.transactions_stored(ids, own=True, now_ms=self.network.now_ms)
        self.pump()
        return ids

    def receive(self, message, sender):
        """Take a message from another node."""
        now_ms = self.network.now_ms
        if isinstance(message, Transactions):
            self.bodies_received.update(message.raws)
        try:
            self.gossip.receive(message, sender, now_ms=now_ms)
        except LedgerError as error:
            self.gossip.reject(sender, error.sentence(), now_ms=now_ms)
        self.pump()

    def pump(self):
        """Do what is ready, until nothing is."""
        now_ms = self.network.now_ms
        while True:
            ready = self.gossip.take_ready()
            for peer, message in ready.sends:
                self.network.send(self.name, peer, message)
            good = [r for r in ready.transactions if r.raw not in self.bad]
            for received in ready.transactions:
                if received.raw in self.bad:
                    self.gossip.reject(received.sender, "bad", now_ms=now_ms)
                    self.gossip.transaction_refused(received.tx_id, received.sender, invalid=True, now_ms=now_ms)
            if good:
                self.store.update((r.tx_id, r.raw) for r in good)
                self.gossip.transactions_stored([r.tx_id for r in good], own=False, now_ms=now_ms)
            for block, sender in ready.blocks:
                assert all(item.tx_id in self.store for item in block.body)
                self.blocks[block.sealed.header.height] = block
                self.gossip.block_accepted(block, sender)
            for vote, sender in ready.votes:
                self.votes.append(vote)
                self.gossip.vote_accepted(vote, sender, now_ms=now_ms)
            self.accepted += ready.accepted
            self.banned += ready.banned
            if not (ready.transactions or ready.blocks or ready.votes):
                self.network.schedule(self)
                return


class Network:
    """Nodes, links, and messages under way; a link keeps its order unless told otherwise."""

    def __init__(self, count, *, links=None, seed=0, quorum=None, delay_ms=(1, 5)):
        self.now_ms = 1_000
        self.random = random.Random(seed)
        self.delay_ms = delay_ms
        self.queue = []
        self.order = itertools.count()
        self.sent = Counter()
        names = [bytes([n]) * 20 for n in range(count)]
        self.nodes = {name: Node(name, self, quorum or 2 * count // 3 + 1) for name in names}
        self.links = set()
        self.last = {}
        self.timers = {}
        self.lossy = False
        pairs = links if links is not None else itertools.combinations(range(count), 2)
        for a, b in pairs:
            self.connect(names[a], names[b])

    def __getitem__(self, index):
        return self.nodes[bytes([index]) * 20]

    def connect(self, a, b):
        self.links.add(frozenset((a, b)))
        for one, other in ((a, b), (b, a)):
            self.nodes[one].gossip.peer_up(other, other, now_ms=self.now_ms)
            self.nodes[one].pump()

    def disconnect(self, a, b):
        """Break a connection: what is under way on it is lost."""
        self.links.discard(frozenset((a, b)))
        self.queue = [e for e in self.queue if {e[2], e[3]} != {a, b}]
        heapq.heapify(self.queue)
        for one, other in ((a, b), (b, a)):
            self.nodes[one].gossip.peer_down(other, now_ms=self.now_ms)
            self.nodes[one].pump()

    def send(self, sender, receiver, message):
        self.sent[type(message).__name__] += 1
        if frozenset((sender, receiver)) not in self.links:
            return
        if self.lossy and self.random.random() < 0.3:
            return
        at = self.now_ms + self.random.randint(*self.delay_ms)
        if not self.lossy:
            at = max(at, self.last.get((sender, receiver), 0))
            self.last[sender, receiver] = at
        heapq.heappush(self.queue, (at, next(self.order), sender, receiver, message))

    def schedule(self, node):
        self.timers[node.name] = node.gossip.next_timer_ms()

    def run(self, for_ms=60_000, steps=100_000):
        """Run until nothing is under way and no timer is set, or the time is over."""
        end = self.now_ms + for_ms
        for _ in range(steps):
            timers = [(at, name) for name, at in self.timers.items() if at is not None]
            due = min(timers, default=None)
            if self.queue and self.queue[0][0] <= min(end, due[0] if due else end):
                at, _, sender, receiver, message = heapq.heappop(self.queue)
                self.now_ms = max(self.now_ms, at)
                self.nodes[receiver].receive(message, sender)
            elif due is not None and due[0] <= end:
                self.now_ms = max(self.now_ms, due[0])
                node = self.nodes[due[1]]
                node.gossip.handle_timer(now_ms=self.now_ms)
                node.pump()
            else:
                self.now_ms = end if self.queue or due else self.now_ms
                return
        raise AssertionError("the network does not come to rest")
