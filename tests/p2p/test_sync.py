"""Sync: headers first, from several peers, whatever some of them say; and an honest word on the way."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consensus.verdict import Verdict
from ledger.block import BodyItem, block_id_of
from ledger.errors import InvalidBlock, LedgerError, PeerError
from p2p import limits
from p2p.gossip import Gossip
from p2p.messages import (
    Announce,
    BlockBody,
    Bodies,
    GetBodies,
    GetHeaders,
    Headers,
    NotFound,
    Status,
    What,
)
from p2p.scores import Scores
from p2p.sync import Sync, SyncStatus, is_for_sync
from tests.p2p.gossip_network import CHAIN, block_of, transaction

A, B, C = (bytes([n]) * 20 for n in (0xA, 0xB, 0xC))


def chain_of(length, *, transactions=0, salt=0, below=()):
    """Return blocks linked from genesis (or above ``below``), each naming some transactions."""
    blocks = list(below)
    for height in range(len(blocks) + 1, length + 1):
        parent_id = block_id_of(blocks[-1].sealed.header) if blocks else CHAIN
        ids = [transaction(1_000 * height + n)[0] for n in range(transactions)]
        blocks.append(block_of(ids, height, parent_id, slot=2 * height + salt))
    return blocks


def id_of(block):
    return block_id_of(block.sealed.header)


class Chain:
    """A chain view over a list of blocks; the last ``unfinal`` are not final."""

    def __init__(self, blocks=(), *, unfinal=2, transactions=()):
        self.blocks = list(blocks)
        self.unfinal = unfinal
        self.store = dict(transactions)
        self.bad_headers = set()

    def status(self):
        head = len(self.blocks)
        final = max(0, head - self.unfinal)
        return Status(head, self.block_id_at(head), head, final, final, self.block_id_at(final), "carrier-a", "test/1")

    def has_block(self, block_id):
        return block_id == CHAIN or self.block(block_id) is not None

    def has_transaction(self, tx_id):
        return tx_id in self.store

    def block(self, block_id):
        return next((block for block in self.blocks if id_of(block) == block_id), None)

    def block_id_at(self, height):
        if height == 0:
            return CHAIN
        return id_of(self.blocks[height - 1]) if height <= len(self.blocks) else None

    def check_header(self, sealed):
        if block_id_of(sealed.header) in self.bad_headers:
            raise InvalidBlock("not signed by a producer")
        return True


class Bench:
    """One sync under a test's direct control."""

    def __init__(self, chain, *peers):
        self.chain = chain
        self.wanted = []
        self.sync = Sync(chain, want_transactions=self.want, scores=Scores())
        for peer in peers:
            self.sync.peer_up(peer, now_ms=0)
        self.sync.take_ready()

    def want(self, tx_ids, holders, *, now_ms):
        self.wanted.append((list(tx_ids), list(holders)))

    def receive(self, message, sender, now_ms=0):
        return self.sync.receive(message, sender, now_ms=now_ms)

    def hear(self, blocks, *senders, now_ms=0):
        for sender in senders:
            self.receive(Chain(blocks).status(), sender, now_ms)

    def sends(self):
        return self.sync.take_ready().sends

    def timer(self, now_ms):
        self.sync.handle_timer(now_ms=now_ms)


def headers_of(blocks):
    return Headers([block.sealed for block in blocks])


def bodies_of(blocks):
    return Bodies([BlockBody(id_of(block), block.body) for block in blocks])


def test_alone_and_in_step():
    """A node that hears nobody says so; one that is no block behind is in step."""
    blocks = chain_of(3)
    bench = Bench(Chain(blocks))
    assert bench.sync.status() == SyncStatus("alone", 0, 3, 0)
    bench.sync.peer_up(A, now_ms=0)
    assert bench.sync.status() == SyncStatus("alone", 0, 3, 0)
    bench.hear(blocks, A)
    assert bench.sync.status() == SyncStatus("in step", 0, 3, 1)
    bench.sync.peer_down(A, now_ms=0)
    assert bench.sync.status().state == "alone"


def test_a_new_peer_is_told_what_we_have_and_again_at_times():
    """At once, then each interval."""
    bench = Bench(Chain(chain_of(3)))
    bench.sync.peer_up(A, now_ms=0)
    assert bench.sends() == [(A, bench.chain.status())]
    assert bench.sync.next_timer_ms() == limits.STATUS_INTERVAL_MS
    bench.timer(limits.STATUS_INTERVAL_MS)
    assert bench.sends() == [(A, bench.chain.status())]


def test_headers_then_bodies_then_transactions():
    """The way of one block, in order, and the status on the way."""
    blocks = chain_of(5, transactions=1)
    chain = Chain(blocks[:1], unfinal=0)
    bench = Bench(chain, A, B)
    bench.hear(blocks, A)
    assert bench.sync.status() == SyncStatus("syncing", 4, 5, 1)
    assert bench.sends() == [(A, GetHeaders(2, limits.HEADERS_MAX))]
    assert bench.receive(headers_of(blocks[1:]), A) is Verdict.ACCEPT
    assert bench.sends() == [(A, GetBodies([id_of(block) for block in blocks[1:]]))]
    bench.receive(bodies_of(blocks[1:]), A)
    ids = [block.body[0].tx_id for block in blocks[1:]]
    assert bench.wanted == [([tx_id], [A]) for tx_id in ids]
    bench.sync.transactions_stored(ids[1:], now_ms=0)
    assert bench.sync.take_ready().blocks == []
    bench.sync.transactions_stored(ids[:1], now_ms=0)
    assert bench.sync.take_ready().blocks == [(block, A) for block in blocks[1:]]
    chain.blocks = blocks
    assert bench.sync.status() == SyncStatus("in step", 0, 5, 1)


def test_blocks_that_are_here_are_skipped():
    """A restart begins above the final block and fetches only what is lacking."""
    blocks = chain_of(9)
    bench = Bench(Chain(blocks[:5], unfinal=3), A)
    bench.hear(blocks, A)
    assert bench.sends() == [(A, GetHeaders(3, limits.HEADERS_MAX))]
    bench.receive(headers_of(blocks[2:]), A)
    assert bench.sends() == [(A, GetBodies([id_of(block) for block in blocks[5:]]))]


def test_bodies_come_from_several_peers():
    """In ranges, from all that are that high."""
    blocks = chain_of(80)
    bench = Bench(Chain(), A, B, C)
    bench.hear(blocks, A, B)
    bench.hear(blocks[:70], C)
    leader, request = bench.sends()[0]
    assert request == GetHeaders(1, limits.HEADERS_MAX)
    bench.receive(headers_of(blocks), leader)
    ids = [id_of(block) for block in blocks]
    assert bench.sends() == [(A, GetBodies(ids[:32])), (B, GetBodies(ids[32:64])), (C, GetBodies(ids[64:70]))]


def test_a_partial_answer_is_continued():
    """What found no room is asked again."""
    blocks = chain_of(4)
    bench = Bench(Chain(), A)
    bench.hear(blocks, A)
    bench.receive(headers_of(blocks), A)
    bench.sends()
    bench.receive(bodies_of(blocks[:1]), A)
    assert bench.sends() == [(A, GetBodies([id_of(block) for block in blocks[1:]]))]


def test_a_slow_peer_is_replaced():
    """Headers and bodies that do not come are asked elsewhere."""
    blocks = chain_of(4)
    bench = Bench(Chain(), A, B)
    bench.hear(blocks, A, B)
    leader = bench.sends()[0][0]
    other = A if leader == B else B
    bench.timer(limits.SYNC_TIMEOUT_MS)
    assert (other, GetHeaders(1, limits.HEADERS_MAX)) in bench.sends()
    assert bench.receive(headers_of(blocks), leader, limits.SYNC_TIMEOUT_MS) is Verdict.IGNORE
    bench.receive(headers_of(blocks), other, limits.SYNC_TIMEOUT_MS)
    request = GetBodies([id_of(block) for block in blocks])
    assert bench.sends() == [(other, request)]
    bench.timer(limits.SYNC_TIMEOUT_MS + limits.SYNC_COOL_OFF_MS)
    assert (leader, request) in bench.sends()


def test_a_lost_peer_is_replaced():
    """What it was asked is asked of the other, be it headers or bodies."""
    blocks = chain_of(4)
    bench = Bench(Chain(), A, B, C)
    bench.hear(blocks, A, B, C)
    assert bench.sends() == [(A, GetHeaders(1, limits.HEADERS_MAX))]
    bench.sync.peer_down(A, now_ms=0)
    assert bench.sends() == [(C, GetHeaders(1, limits.HEADERS_MAX))]
    bench.receive(headers_of(blocks), C)
    request = GetBodies([id_of(block) for block in blocks])
    assert bench.sends() == [(B, request)]
    bench.sync.peer_down(B, now_ms=0)
    assert bench.sends() == [(C, request)]
    bench.sync.peer_down(C, now_ms=0)
    assert bench.sync.status().state == "alone"


def lie(name, blocks):
    """Return the message of a lying peer, and who was asked what before."""
    other = chain_of(4, salt=1)
    return {
        "another height": headers_of(blocks[1:]),
        "no link within": headers_of([blocks[0], other[1]]),
        "nothing below its final height": Headers([]),
        "too many": headers_of(chain_of(limits.HEADERS_MAX + 1)),
        "another body": Bodies([BlockBody(id_of(blocks[0]), [BodyItem(bytes(32), b"")])]),
        "a longer body": Bodies([BlockBody(id_of(blocks[0]), [])]),
        "a body not asked for": bodies_of(other[:1]),
    }[name]


@pytest.mark.parametrize("name", ["another height", "no link within", "nothing below its final height", "too many"])
def test_lies_about_headers(name):
    """[REJECT] Each is raised, and the headers are asked of another peer."""
    blocks = chain_of(4, transactions=1)
    bench = Bench(Chain(), A, B)
    bench.hear(blocks, A, B)
    leader = bench.sends()[0][0]
    with pytest.raises(PeerError):
        bench.receive(lie(name, blocks), leader)
    assert bench.sends() == [(A if leader == B else B, GetHeaders(1, limits.HEADERS_MAX))]


@pytest.mark.parametrize("name", ["another body", "a longer body", "a body not asked for"])
def test_lies_about_bodies(name):
    """[REJECT] Each is raised, and the bodies are asked of another peer."""
    blocks = chain_of(4, transactions=1)
    bench = Bench(Chain(), A, B)
    bench.hear(blocks, A, B)
    leader = bench.sends()[0][0]
    bench.receive(headers_of(blocks), leader)
    assert bench.sends() == [(A, GetBodies([id_of(block) for block in blocks]))]
    with pytest.raises(PeerError):
        bench.receive(lie(name, blocks), A)
    assert (B, GetBodies([id_of(block) for block in blocks])) in bench.sends()


def test_a_header_without_a_producers_signature():
    """[REJECT] What the engine's check says goes to the caller."""
    blocks = chain_of(4)
    chain = Chain()
    chain.bad_headers = {id_of(blocks[2])}
    bench = Bench(chain, A)
    bench.hear(blocks, A)
    with pytest.raises(InvalidBlock):
        bench.receive(headers_of(blocks), A)
    assert bench.sync.status() == SyncStatus("syncing", 4, 4, 1)


def test_a_final_block_that_is_not_ours():
    """[REJECT] Two final blocks at one height: the node does not follow."""
    ours, theirs = chain_of(3), chain_of(9, salt=1)
    bench = Bench(Chain(ours, unfinal=0), A)
    bench.hear(theirs, A)
    assert bench.sends() == [(A, GetHeaders(4, limits.HEADERS_MAX))]
    with pytest.raises(PeerError, match="a final block that is not ours"):
        bench.receive(headers_of(theirs[3:]), A)


def test_a_branch_that_is_not_final_is_no_fault():
    """[IGNORE] A peer that lacks the certificate may be elsewhere for a while."""
    ours, theirs = chain_of(3), chain_of(9, salt=1)
    bench = Bench(Chain(ours, unfinal=0), A)
    bench.receive(Chain(theirs, unfinal=9).status(), A)
    bench.sends()
    assert bench.receive(headers_of(theirs[3:]), A) is Verdict.ACCEPT
    assert bench.sync.take_ready() == type(bench.sync.take_ready())([], [])


def test_a_leader_that_changes_its_mind(monkeypatch):
    """[IGNORE] The unfinal part is asked again from our final block, a bounded number of times."""
    monkeypatch.setattr(limits, "SYNC_WINDOW_BLOCKS", 4)
    monkeypatch.setattr(limits, "HEADERS_MAX", 2)
    blocks, other = chain_of(9), chain_of(9, salt=1)
    bench = Bench(Chain(), A)
    bench.hear(blocks, A)
    assert bench.sends() == [(A, GetHeaders(1, 2))]
    bench.receive(headers_of(blocks[:2]), A)
    assert bench.sends() == [(A, GetHeaders(3, 2)), (A, GetBodies([id_of(block) for block in blocks[:2]]))]
    bench.receive(headers_of(other[2:4]), A)
    assert bench.sends() == [(A, GetHeaders(1, 2))]
    bench.receive(headers_of(other[:2]), A)
    assert bench.sends()[1] == (A, GetBodies([id_of(block) for block in other[:2]]))


def test_an_answer_nobody_asked_for():
    """[IGNORE] It may have come too late."""
    blocks = chain_of(4)
    bench = Bench(Chain(), A)
    for message in (headers_of(blocks), bodies_of(blocks), NotFound(What.BODY, [id_of(blocks[0])])):
        assert bench.receive(message, A) is Verdict.IGNORE
        assert bench.receive(message, B) is Verdict.IGNORE
    assert bench.receive(Announce([bytes(32)]), A) is Verdict.IGNORE


def test_not_found_asks_elsewhere():
    """A peer that lacks a body is not asked for it again."""
    blocks = chain_of(4)
    bench = Bench(Chain(), A, B)
    bench.hear(blocks, B, A)
    bench.receive(headers_of(blocks), bench.sends()[0][0])
    ids = [id_of(block) for block in blocks]
    assert bench.sends() == [(A, GetBodies(ids))]
    assert bench.sync._download.leader == B
    bench.receive(NotFound(What.BODY, ids), A)
    assert bench.sends() == [(B, GetBodies(ids))]


def test_a_single_block_ahead_is_left_to_gossip_for_a_while():
    """It is under way; after the grace it is fetched."""
    blocks = chain_of(4)
    bench = Bench(Chain(blocks[:3]), A)
    bench.hear(blocks, A)
    assert (bench.sends(), bench.sync.status().state) == ([], "in step")
    assert bench.sync.next_timer_ms() == limits.SYNC_GRACE_MS
    bench.timer(limits.SYNC_GRACE_MS)
    assert bench.sends() == [(A, GetHeaders(2, limits.HEADERS_MAX))]


def test_a_lower_branch_is_not_followed():
    """And no timer runs for it for ever."""
    bench = Bench(Chain(chain_of(5), unfinal=5), A)
    bench.receive(Chain(chain_of(3, salt=1), unfinal=3).status(), A)
    bench.timer(limits.SYNC_GRACE_MS)
    assert bench.sends() == []
    assert bench.sync.next_timer_ms() == limits.STATUS_INTERVAL_MS


def test_an_unknown_parent_begins_at_once():
    """A block that does not connect says that its sender has more."""
    blocks = chain_of(9)
    bench = Bench(Chain(blocks[:3], unfinal=0), A)
    bench.hear(blocks[:3], A)
    bench.sync.unknown_parent(blocks[8], A, now_ms=5)
    assert bench.sends() == [(A, GetHeaders(4, limits.HEADERS_MAX))]
    assert bench.sync.status() == SyncStatus("syncing", 6, 9, 1)
    bench.sync.unknown_parent(blocks[8], B, now_ms=5)


def test_an_unknown_parent_on_another_branch():
    """A block no higher than what its sender had before, which is here: the sender has moved to another branch.

    One that is as high as ours is fetched: branches that grow in step would never meet otherwise.
    """
    blocks, other = chain_of(9), chain_of(9, salt=1)
    bench = Bench(Chain(blocks[:8], unfinal=8), A)
    bench.receive(Chain(blocks[:8], unfinal=8).status(), A)
    bench.sync.unknown_parent(other[6], A, now_ms=5)
    assert bench.sends() == []
    bench.sync.unknown_parent(other[7], A, now_ms=5)
    assert bench.sends() == [(A, GetHeaders(1, limits.HEADERS_MAX))]


def test_branches_of_one_height_meet():
    """A head that is not known and no higher is fetched after a while: all choose from the same branches."""
    blocks, other = chain_of(5), chain_of(5, salt=1)
    bench = Bench(Chain(blocks, unfinal=5), A)
    bench.receive(Chain(other, unfinal=5).status(), A)
    assert bench.sends() == []
    bench.timer(limits.SYNC_GRACE_MS)
    assert bench.sends() == [(A, GetHeaders(1, limits.HEADERS_MAX))]


def test_a_refused_block_is_not_fetched_again():
    """[REJECT] Nor any chain over it."""
    blocks = chain_of(4)
    bench = Bench(Chain(), A, B)
    bench.hear(blocks, A, B)
    leader = bench.sends()[0][0]
    bench.receive(headers_of(blocks), leader)
    bench.receive(bodies_of(blocks), A)
    assert len(bench.sync.take_ready().blocks) == 4
    bench.sync.block_refused(blocks[0], now_ms=0)
    later = limits.SYNC_GRACE_MS
    bench.timer(later)
    (other, request), *_ = bench.sends()
    assert request == GetHeaders(1, limits.HEADERS_MAX)
    with pytest.raises(PeerError, match="refused before"):
        bench.receive(headers_of(blocks), other, later)


def test_transactions_that_do_not_come_are_asked_of_everybody():
    """After a while, again and again."""
    blocks = chain_of(4, transactions=1)
    bench = Bench(Chain(), A, B)
    bench.hear(blocks, A)
    bench.hear([], B)
    bench.receive(headers_of(blocks), A)
    bench.receive(bodies_of(blocks), A)
    bench.wanted.clear()
    bench.timer(limits.SYNC_STALL_MS)
    bench.timer(2 * limits.SYNC_STALL_MS)
    assert bench.wanted == 2 * [([blocks[0].body[0].tx_id], [A, B])]


def test_what_could_not_be_checked_is_asked_for_again():
    """When the head knows other keys, and when its block's turn comes; in that turn once, then by the stall timer."""
    blocks = chain_of(4, transactions=1)
    ids = [block.body[0].tx_id for block in blocks]
    chain = Chain()
    bench = Bench(chain, A)
    bench.hear(blocks, A)
    bench.receive(headers_of(blocks), A)
    bench.receive(bodies_of(blocks), A)
    assert [wanted for wanted, _ in bench.wanted] == [[tx_id] for tx_id in ids]
    bench.wanted.clear()
    bench.sync.transaction_refused(ids[1])
    bench.sync.transaction_refused(ids[3])
    bench.sync.transaction_refused(bytes(32))
    bench.sync.keys_changed(now_ms=0)
    assert bench.wanted == [([ids[1]], [A]), ([ids[3]], [A])]
    bench.wanted.clear()
    bench.sync.keys_changed(now_ms=0)
    assert bench.wanted == []
    bench.sync.transaction_refused(ids[1])
    bench.sync.transactions_stored(ids[:1], now_ms=0)
    # The first block is handed on, and it is the second one's turn.
    assert bench.sync.take_ready().blocks == [(blocks[0], A)]
    assert bench.wanted == [([ids[1]], [A])]
    bench.wanted.clear()
    bench.sync.transaction_refused(ids[1])
    bench.timer(1)
    assert bench.wanted == []
    bench.timer(limits.SYNC_STALL_MS)
    assert bench.wanted == [([ids[1]], [A])]
    bench.wanted.clear()
    bench.sync.keys_changed(now_ms=limits.SYNC_STALL_MS)
    assert bench.wanted == [([ids[1]], [A])]
    bench.sync.transactions_stored(ids[1:], now_ms=limits.SYNC_STALL_MS)
    assert [block for block, _ in bench.sync.take_ready().blocks] == blocks[1:]


def test_what_is_held_ahead_is_bounded(monkeypatch):
    """Headers by the window, transactions by their number."""
    monkeypatch.setattr(limits, "SYNC_WINDOW_BLOCKS", 8)
    monkeypatch.setattr(limits, "SYNC_TRANSACTIONS_WANTED_MAX", 3)
    blocks = chain_of(20, transactions=2)
    bench = Bench(Chain(), A)
    bench.hear(blocks, A)
    assert bench.sends() == [(A, GetHeaders(1, 8))]
    bench.receive(headers_of(blocks[:8]), A)
    assert bench.sends() == [(A, GetBodies([id_of(block) for block in blocks[:8]]))]
    bench.receive(bodies_of(blocks[:8]), A)
    assert (bench.sends(), len(bench.wanted)) == ([], 2)
    bench.sync.transactions_stored([item.tx_id for block in blocks[:2] for item in block.body], now_ms=0)
    assert len(bench.wanted) == 4


def test_bodies_held_ahead_are_bounded(monkeypatch):
    """By their bytes."""
    monkeypatch.setattr(limits, "SYNC_WINDOW_BYTES", 100)
    monkeypatch.setattr(limits, "BODIES_MAX", 2)
    blocks = chain_of(8, transactions=2)
    bench = Bench(Chain(), A)
    bench.hear(blocks, A)
    bench.receive(headers_of(blocks), A)
    assert bench.sends()[1] == (A, GetBodies([id_of(block) for block in blocks[:2]]))
    bench.receive(bodies_of(blocks[:2]), A)
    assert bench.sends() == []


def test_requests_are_answered_bounded(monkeypatch):
    """As far as the chain and the room go; what is not here is said."""
    blocks = chain_of(5, transactions=1)
    bench = Bench(Chain(blocks), A)
    bench.receive(GetHeaders(4, 100), A)
    bench.receive(GetHeaders(9, 1), A)
    bench.receive(GetBodies([id_of(blocks[0]), bytes(32)]), A)
    assert bench.sends() == [
        (A, headers_of(blocks[3:])),
        (A, Headers([])),
        (A, NotFound(What.BODY, [bytes(32)])),
        (A, bodies_of(blocks[:1])),
    ]
    monkeypatch.setattr(limits, "HEADERS_BYTES_MAX", 10)
    monkeypatch.setattr(limits, "BODIES_BYTES_MAX", 10)
    bench.receive(GetHeaders(1, 5), A)
    bench.receive(GetBodies([id_of(block) for block in blocks]), A)
    assert bench.sends() == [(A, headers_of(blocks[:1])), (A, bodies_of(blocks[:1]))]


def test_which_messages_are_for_sync():
    """NotFound goes by what was asked."""
    block = chain_of(1)[0]
    messages = [headers_of([]), NotFound(What.BODY, [bytes(32)]), NotFound(What.TRANSACTION, [bytes(32)]), block]
    assert [is_for_sync(message) for message in messages] == [True, True, False, False]


class Node:
    """A gossip and a sync over a chain of fake blocks; ``twist`` changes what it sends."""

    def __init__(self, name, network, blocks, twist=None):
        self.name = name
        self.network = network
        self.twist = twist
        self.chain = FastChain(blocks)
        self.served = Counter()
        self.rejected = Counter()
        store = self.chain.store
        self.gossip = Gossip(
            own_key_id=name, is_producer=lambda key_id: True, is_quorum=lambda stored_by: len(stored_by) >= 3,
            has_transaction=store.__contains__, read_transaction=store.get, read_block=self.chain.block,
            check_header=lambda sealed: True,
        )  # fmt: skip
        self.sync = Sync(self.chain, want_transactions=self.gossip.want_transactions, scores=self.gossip.scores)

    def receive(self, message, sender):
        now_ms = self.network.now_ms
        part = self.sync if is_for_sync(message) else self.gossip
        try:
            part.receive(message, sender, now_ms=now_ms)
        except LedgerError as error:
            self.rejected[sender] += 1
            self.gossip.reject(sender, error.sentence(), now_ms=now_ms)
        self.pump()

    def pump(self):
        now_ms = self.network.now_ms
        for _ in range(10_000):
            gossip, sync = self.gossip.take_ready(), self.sync.take_ready()
            for peer, message in gossip.sends + sync.sends:
                twisted = self.twist(message) if self.twist else message
                if twisted is not None:
                    self.served[type(twisted).__name__] += 1
                    self.network.send(self.name, peer, twisted)
            if gossip.transactions:
                self.chain.store.update((r.tx_id, r.raw) for r in gossip.transactions)
                ids = [r.tx_id for r in gossip.transactions]
                self.gossip.transactions_stored(ids, own=False, now_ms=now_ms)
                self.sync.transactions_stored(ids, now_ms=now_ms)
            for block, _ in sync.blocks:
                assert all(item.tx_id in self.chain.store for item in block.body)
                self.chain.append(block)
            if not (gossip.transactions or sync.blocks):
                return
        raise AssertionError("the node does not come to rest")


class FastChain(Chain):
    """The same with an index."""

    def __init__(self, blocks):
        super().__init__()
        self.index = {}
        for block in blocks:
            self.append(block)

    def append(self, block):
        if id_of(block) not in self.index:
            assert block.sealed.header.parent_id == self.block_id_at(len(self.blocks))
            self.index[id_of(block)] = block
            self.blocks.append(block)

    def block(self, block_id):
        return self.index.get(block_id)


class Network:
    """Delay and reorder between links, never within one."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.now_ms = 0
        self.queue = []
        self.order = itertools.count()
        self.nodes = {}
        self.last = {}

    def add(self, name, blocks, twist=None):
        self.nodes[name] = Node(name, self, blocks, twist)
        return self.nodes[name]

    def connect(self, a, b):
        for one, other in ((a, b), (b, a)):
            one.gossip.peer_up(other.name, other.name, now_ms=self.now_ms)
            one.sync.peer_up(other.name, now_ms=self.now_ms)
            one.pump()

    def send(self, sender, receiver, message):
        at = max(self.now_ms + self.random.randint(1, 20), self.last.get((sender, receiver), 0))
        self.last[sender, receiver] = at
        heapq.heappush(self.queue, (at, next(self.order), sender, receiver, message))

    def run(self, done, for_ms=300_000):
        """Run until ``done()``; tell whether it came to that."""
        while self.now_ms < for_ms and not done():
            timers = [
                (at, node.name)
                for node in self.nodes.values()
                for at in (node.gossip.next_timer_ms(), node.sync.next_timer_ms())
                if at is not None
            ]
            due = min(timers, default=(for_ms, b""))
            if self.queue and self.queue[0][0] <= due[0]:
                at, _, sender, receiver, message = heapq.heappop(self.queue)
                self.now_ms = max(self.now_ms, at)
                self.nodes[receiver].receive(message, sender)
            else:
                self.now_ms = max(self.now_ms, due[0])
                for node in self.nodes.values():
                    node.gossip.handle_timer(now_ms=self.now_ms)
                    node.sync.handle_timer(now_ms=self.now_ms)
                    node.pump()
        return done()


@pytest.fixture(scope="module")
def thousand():
    """A thousand blocks of one transaction, and the transactions."""
    numbers = [1_000 * height for height in range(1, 1_001)]
    return chain_of(1_000, transactions=1), dict(transaction(number) for number in numbers)


def cluster(thousand, *twists, seed=0):
    """Return a network of one node without blocks and one with all for each of ``twists``."""
    blocks, store = thousand
    network = Network(seed)
    late = network.add(b"\xff" * 20, [])
    for n, twist in enumerate(twists):
        node = network.add(bytes([n]) * 20, blocks, twist)
        node.chain.store.update(store)
        network.connect(late, node)
    return network, late


def test_a_thousand_blocks(thousand):
    """From three peers, all of which serve; syncing all the way, in step at the end."""
    network, late = cluster(thousand, None, None, None)
    seen = set()

    def done():
        status = late.sync.status()
        seen.add(status.state)
        assert status.behind_blocks == max(0, status.target_height - len(late.chain.blocks))
        return len(late.chain.blocks) == 1_000

    assert network.run(done)
    assert late.chain.blocks == thousand[0]
    assert late.sync.status() == SyncStatus("in step", 0, 1_000, 3)
    assert seen <= {"alone", "syncing", "in step"}
    for name, node in network.nodes.items():
        if name != late.name:
            assert node.served["Bodies"] > 0
            assert node.served["Transactions"] > 0
    assert late.rejected == Counter()


def bad_link(message):
    if isinstance(message, Headers) and len(message.headers) > 1:
        return Headers([*message.headers[:1], *message.headers[2:]])
    return message


def bad_body(message):
    if isinstance(message, Bodies):
        return Bodies([BlockBody(body.block_id, [*body.items, *body.items]) for body in message.bodies])
    return message


def boaster(message):
    if isinstance(message, Status):
        return Status(10**9, bytes(32), 10**9, 10**9, 10**9, bytes(32), "liar", "x")
    return message


def silent(message):
    return message if isinstance(message, Status) else None


LIARS = [bad_link, bad_body, boaster, silent]


@pytest.mark.parametrize("liar", LIARS)
def test_a_lying_peer_does_not_stop_it(thousand, liar):
    """It leads at first; the range is asked elsewhere; who lies is charged, who is silent is not."""
    network, late = cluster(thousand, liar)
    assert network.run(lambda: late.sync.peer_status(bytes(20)) is not None)
    for n in (1, 2):
        honest = network.add(bytes([n]) * 20, thousand[0])
        honest.chain.store.update(thousand[1])
        network.connect(late, honest)
    assert network.run(lambda: len(late.chain.blocks) == 1_000 and bool(late.rejected or liar is silent))
    assert set(late.rejected) == (set() if liar is silent else {bytes(20)})


@settings(max_examples=25, deadline=None)
@example([silent, silent, silent], 0, 3, 0)
@given(
    st.lists(st.sampled_from([None, *LIARS]), max_size=3), st.integers(0, 999), st.integers(3, 60), st.integers(0, 9)
)
def test_one_honest_peer_is_enough(twists, seed, length, skip):
    """Whatever the others say."""
    blocks = chain_of(length, transactions=2)
    store = dict(transaction(1_000 * height + n) for height in range(1, length + 1) for n in range(2))
    network, late = cluster((blocks, store), *twists, None, seed=seed)
    for block in blocks[: min(skip, length)]:
        late.chain.append(block)
    assert network.run(lambda: len(late.chain.blocks) == length)


def test_one_liar_does_not_make_a_node_say_that_it_lacks_blocks():
    """A height that nobody has, told again and again: load balancers would turn away from every honest node."""
    blocks = chain_of(3)
    bench = Bench(Chain(blocks), A, B)
    bench.hear(blocks, B)
    lie = chain_of(3, salt=1)[-1]
    claimed = Status(2**40, id_of(lie), 2**40, 3, 1, id_of(blocks[0]), "carrier-a", "liar/1")
    bench.receive(claimed, A)
    assert bench.sync.status().state == "syncing"
    bench.receive(Headers([]), A)
    for now_ms in (0, 5_000, 60_000):
        bench.receive(claimed, A, now_ms)
        bench.receive(Headers([]), A, now_ms)
        assert bench.sync.status() == SyncStatus("in step", 0, 3, 2)
