"""Gossip: every transaction reaches every node, each body about once; blocks wait for what they name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.verdict import Verdict
from ledger.block import BodyItem, block_id_of
from ledger.errors import EncodingError, InvalidBlock, PeerError
from p2p import limits
from p2p.entries import id_of_raw
from p2p.gossip import Gossip
from p2p.messages import (
    Announce,
    GetBlock,
    GetTransactions,
    NotFound,
    Status,
    Stored,
    Transactions,
    Votes,
    What,
)
from p2p.scores import Scores
from tests.p2p.gossip_network import Network, block_of, transaction, vote_of

A, B, C = (bytes([n]) * 20 for n in (0xA, 0xB, 0xC))
OWN = b"\xee" * 20


class Bench:
    """One gossip under a test's direct control."""

    def __init__(self, *peers, quorum=3, check_header=lambda sealed: True):
        self.store = {}
        self.blocks = {}
        self.gossip = Gossip(
            own_key_id=OWN,
            is_producer=lambda key_id: key_id != C,
            is_quorum=lambda stored_by: len(stored_by) >= quorum,
            has_transaction=self.store.__contains__,
            read_transaction=self.store.get,
            read_block=self.blocks.get,
            check_header=check_header,
        )
        for peer in peers:
            self.gossip.peer_up(peer, peer, now_ms=0)

    def receive(self, message, sender, now_ms=0):
        return self.gossip.receive(message, sender, now_ms=now_ms)

    def timer(self, now_ms):
        self.gossip.handle_timer(now_ms=now_ms)

    def sends(self):
        return self.gossip.take_ready().sends

    def keep(self, *pairs, own=False, now_ms=0):
        self.store.update(pairs)
        self.gossip.transactions_stored([tx_id for tx_id, _ in pairs], own=own, now_ms=now_ms)


def test_id_of_raw_is_the_id():
    """The id is taken without decoding the items."""
    tx_id, raw = transaction(1)
    assert id_of_raw(raw) == tx_id


@pytest.mark.parametrize("raw", [b"", b"\x90", b"\x92\x01\x02", b"\x94\x01\x02\x03\x04", b"\xc1", b"\x93\x01\x02"])
def test_id_of_no_transaction(raw):
    """What is no array of three has no id."""
    with pytest.raises(EncodingError):
        id_of_raw(raw)


@given(st.binary(max_size=100))
def test_id_of_arbitrary_bytes(raw):
    """Arbitrary bytes have an id or raise EncodingError."""
    try:
        tx_id = id_of_raw(raw)
    except EncodingError:
        return
    assert len(tx_id) == 32


def test_own_transactions_are_pushed():
    """A body taken in here goes to every peer at once, with stored."""
    bench = Bench(A, B)
    tx_id, raw = transaction(1)
    bench.keep((tx_id, raw), own=True)
    push, stored = Transactions([raw]), Stored([tx_id])
    assert sorted(bench.sends(), key=str) == sorted([(A, push), (B, push), (A, stored), (B, stored)], key=str)


def test_pushes_are_bundled_to_a_bounded_size():
    """Bodies share messages of at most a mebibyte, one object for all peers."""
    bench = Bench(A, B)
    pairs = [transaction(n, size=400_000) for n in range(5)]
    bench.keep(*pairs, own=True)
    pushes = [(peer, message) for peer, message in bench.sends() if isinstance(message, Transactions)]
    assert [len(message.raws) for peer, message in pushes if peer == A] == [2, 2, 1]
    assert [id(m) for p, m in pushes if p == A] == [id(m) for p, m in pushes if p == B]


def test_received_transactions_are_announced_later():
    """To those not known to have them, in one bundle."""
    bench = Bench(A, B, C)
    pairs = [transaction(n) for n in (1, 2)]
    assert bench.receive(Transactions([raw for _, raw in pairs]), A) is Verdict.ACCEPT
    assert bench.gossip.take_ready().transactions == [(raw, A, tx_id) for tx_id, raw in pairs]
    bench.keep(*pairs)
    ids = [tx_id for tx_id, _ in pairs]
    assert bench.sends() == [(A, Stored(ids)), (B, Stored(ids)), (C, Stored(ids))]
    bench.receive(Stored([ids[0]]), B)
    bench.timer(limits.ANNOUNCE_DELAY_MS + limits.BUNDLE_DELAY_MS)
    assert bench.sends() == [(B, Announce([ids[1]])), (C, Announce(ids))]


def test_a_body_here_is_ignored():
    """[IGNORE] The same body again, being checked, held or final."""
    bench = Bench(A, B)
    tx_id, raw = transaction(1)
    bench.receive(Transactions([raw]), A)
    assert bench.receive(Transactions([raw]), B) is Verdict.IGNORE
    bench.keep((tx_id, raw))
    assert bench.receive(Transactions([raw]), B) is Verdict.IGNORE
    bench.gossip.forget([tx_id])
    assert bench.receive(Transactions([raw]), B) is Verdict.IGNORE
    assert len(bench.gossip.take_ready().transactions) == 1


def test_garbage_is_rejected():
    """[REJECT] A body that is no array of three."""
    with pytest.raises(EncodingError):
        Bench(A).receive(Transactions([b"\x90"]), A)


def test_an_announced_body_is_asked_of_one_peer():
    """Of one announcer at a time; after the time-out, of another."""
    bench = Bench(A, B)
    bench.receive(Announce([b"\x01" * 32]), A)
    bench.receive(Announce([b"\x01" * 32]), B)
    bench.timer(0)
    assert bench.sends() == [(A, GetTransactions([b"\x01" * 32]))]
    assert bench.gossip.next_timer_ms() == limits.PULL_TIMEOUT_MS
    bench.timer(limits.PULL_TIMEOUT_MS)
    assert bench.sends() == [(B, GetTransactions([b"\x01" * 32]))]


def test_not_found_asks_elsewhere():
    """A peer that says it does not have it is not asked again."""
    bench = Bench(A, B)
    for peer in (A, B):
        bench.receive(Announce([b"\x01" * 32]), peer)
    bench.timer(0)
    bench.sends()
    bench.receive(NotFound(What.TRANSACTION, [b"\x01" * 32, b"\x02" * 32]), A)
    assert bench.sends() == [(B, GetTransactions([b"\x01" * 32]))]
    bench.receive(NotFound(What.TRANSACTION, [b"\x01" * 32]), B)
    assert (bench.sends(), bench.gossip.next_timer_ms()) == ([], None)


def test_a_partial_answer_is_continued():
    """What did not fit the answer is asked for again at once."""
    bench = Bench(A)
    pairs = [transaction(n) for n in (1, 2)]
    bench.receive(Announce([tx_id for tx_id, _ in pairs]), A)
    bench.timer(0)
    assert bench.sends() == [(A, GetTransactions([tx_id for tx_id, _ in pairs]))]
    bench.receive(Transactions([pairs[0][1]]), A)
    assert bench.sends() == [(A, GetTransactions([pairs[1][0]]))]


def test_a_lost_peer_is_replaced():
    """What was asked of a peer that went down is asked of another."""
    bench = Bench(A, B)
    for peer in (A, B):
        bench.receive(Announce([b"\x01" * 32]), peer)
    bench.timer(0)
    bench.sends()
    bench.gossip.peer_down(A, now_ms=1)
    assert bench.sends() == [(B, GetTransactions([b"\x01" * 32]))]
    assert bench.receive(Announce([b"\x02" * 32]), A) is Verdict.IGNORE


def test_a_peer_that_never_gives_is_given_up():
    """An id is asked for a bounded number of times."""
    bench = Bench(A)
    bench.receive(Announce([b"\x01" * 32]), A)
    requests = 0
    while (at := bench.gossip.next_timer_ms()) is not None:
        bench.timer(at)
        requests += len(bench.sends())
    assert requests == 8


def test_stored_announces_after_a_while():
    """A stored for an unknown id waits for the push that is under way."""
    bench = Bench(A)
    bench.receive(Stored([b"\x01" * 32]), A)
    bench.timer(limits.STORED_PULL_DELAY_MS - 1)
    assert bench.sends() == []
    bench.timer(limits.STORED_PULL_DELAY_MS)
    assert bench.sends() == [(A, GetTransactions([b"\x01" * 32]))]


def test_stored_is_bundled_when_busy():
    """The first goes at once, those soon after it together."""
    bench = Bench(A)
    ids = []
    for n in range(3):
        bench.receive(Transactions([transaction(n)[1]]), A, now_ms=n)
        bench.keep(transaction(n), now_ms=n)
        ids.append(transaction(n)[0])
    assert bench.sends() == [(A, Stored(ids[:1]))]
    bench.timer(limits.BUNDLE_DELAY_MS)
    assert bench.sends() == [(A, Stored(ids[1:]))]


def test_accepted_is_a_quorum_of_producers():
    """Own counted after the sync, others than producers not at all, each once, told once."""
    bench = Bench(A, B, C)
    tx_id, raw = transaction(1)
    bench.receive(Stored([tx_id]), A)
    bench.receive(Stored([tx_id]), A)
    bench.receive(Stored([tx_id]), C)
    assert bench.gossip.take_ready().accepted == []
    bench.keep((tx_id, raw), own=True)
    assert bench.gossip.take_ready().accepted == []
    bench.receive(Stored([tx_id]), B)
    assert bench.gossip.take_ready().accepted == [tx_id]
    assert bench.receive(Stored([tx_id]), B) is Verdict.IGNORE


def test_requests_are_answered_in_order_and_bounded():
    """First what is missing, then what fits one message."""
    bench = Bench(A)
    pairs = [transaction(n, size=400_000) for n in range(4)]
    bench.store.update(pairs)
    bench.receive(GetTransactions([b"\x09" * 32, *(tx_id for tx_id, _ in pairs)]), A)
    assert bench.sends() == [
        (A, NotFound(What.TRANSACTION, [b"\x09" * 32])),
        (A, Transactions([raw for _, raw in pairs[:2]])),
    ]


def test_a_bad_body_is_asked_elsewhere():
    """A body with a good id and a bad signature costs its sender only."""
    bench = Bench(A, B)
    tx_id, raw = transaction(1)
    bench.receive(Announce([tx_id]), B)
    bench.receive(Transactions([raw[:-1] + b"\xff"]), A)
    bench.gossip.transaction_refused(tx_id, A, invalid=True, now_ms=0)
    assert bench.sends() == [(B, GetTransactions([tx_id]))]
    assert bench.receive(Transactions([raw]), B) is Verdict.ACCEPT


def test_an_unusable_transaction_is_not_pulled_again():
    """What cannot be used here is not asked of the next announcer; after a while it may be tried again."""
    bench = Bench(A, B)
    tx_id, raw = transaction(1)
    bench.receive(Transactions([raw]), A)
    bench.gossip.transaction_refused(tx_id, A, invalid=False, now_ms=0)
    bench.sends()
    assert bench.receive(Announce([tx_id]), B) is Verdict.IGNORE
    assert bench.receive(Transactions([raw]), B) is Verdict.IGNORE
    assert bench.gossip.next_timer_ms() is None
    assert bench.receive(Transactions([raw]), B, limits.UNUSABLE_MS) is Verdict.ACCEPT


def test_other_keys_make_usable_what_was_not():
    """It is taken when it comes, and asked for at once where a block waits for it."""
    bench = Bench(A, B)
    (first, first_raw), (second, second_raw) = transaction(1), transaction(2)
    bench.receive(block_of([second]), A)
    for tx_id, raw in ((first, first_raw), (second, second_raw)):
        bench.receive(Transactions([raw]), A)
        bench.gossip.transaction_refused(tx_id, A, invalid=False, now_ms=0)
    bench.sends()
    bench.gossip.keys_changed(now_ms=1)
    assert bench.sends() == [(A, GetTransactions([second]))]
    assert bench.receive(Transactions([second_raw]), A) is Verdict.ACCEPT
    assert bench.receive(Announce([first]), B) is Verdict.ACCEPT


def test_offers_of_one_peer_are_bounded(monkeypatch):
    """[IGNORE] A peer that announces more than it gives."""
    monkeypatch.setattr(limits, "OFFERS_PER_PEER_MAX", 2)
    bench = Bench(A, B)
    assert bench.receive(Announce([bytes([n]) * 32 for n in range(2)]), A) is Verdict.ACCEPT
    assert bench.receive(Announce([b"\x09" * 32]), A) is Verdict.IGNORE
    assert bench.receive(Announce([b"\x09" * 32]), B) is Verdict.ACCEPT


def test_unchecked_bodies_are_bounded(monkeypatch):
    """[IGNORE] A push while the driver does not keep up; it is asked for when there is room."""
    monkeypatch.setattr(limits, "UNCHECKED_BYTES_MAX", 400)
    bench = Bench(A)
    (first, raw), (second, other) = transaction(1), transaction(2)
    bench.receive(Transactions([raw]), A)
    assert bench.receive(Transactions([other]), A) is Verdict.IGNORE
    assert [r.tx_id for r in bench.gossip.take_ready().transactions] == [first]
    bench.keep((first, raw))
    assert (A, GetTransactions([second])) in bench.sends()


def test_the_inventory_is_bounded(monkeypatch):
    """The oldest entry goes."""
    monkeypatch.setattr(limits, "INVENTORY_ENTRIES_MAX", 10)
    bench = Bench()
    for n in range(20):
        bench.keep(transaction(n), own=True)
    bench.gossip.peer_up(A, A, now_ms=0)
    assert bench.sends() == [(A, Stored([transaction(n)[0] for n in range(10, 20)]))]


def test_a_full_inventory_still_pushes_what_was_just_stored(monkeypatch):
    """The oldest entry goes, be it one that was announced long ago and is stored only now."""
    monkeypatch.setattr(limits, "INVENTORY_ENTRIES_MAX", 2)
    bench = Bench(A, B)
    (first, raw), (second, other) = transaction(1), transaction(2)
    bench.receive(Announce([first, b"\x09" * 32]), A)
    bench.sends()
    bench.keep((first, raw), (second, other), own=True)
    pushed = [(peer, message) for peer, message in bench.sends() if isinstance(message, Transactions)]
    assert pushed == [(peer, Transactions([raw, other])) for peer in (A, B)]


def test_a_complete_block_is_handed_on_and_passed_on():
    """To those not known to have it."""
    bench = Bench(A, B, C)
    block = block_of([])
    assert bench.receive(block, A) is Verdict.ACCEPT
    assert bench.receive(block, B) is Verdict.IGNORE
    assert bench.gossip.take_ready().blocks == [(block, A)]
    bench.gossip.block_accepted(block, A)
    assert bench.sends() == [(C, block)]
    bench.gossip.block_accepted(block, A)
    assert bench.sends() == []


def test_own_block_goes_to_all():
    """And is not sent back."""
    bench = Bench(A, B)
    block = block_of([])
    bench.gossip.own_block(block)
    assert bench.sends() == [(A, block), (B, block)]
    assert bench.receive(block, A) is Verdict.IGNORE


def test_a_block_waits_for_its_transactions():
    """First they may come by themselves, then the sender is asked, then everybody."""
    bench = Bench(A, B)
    tx_id, raw = transaction(1)
    block = block_of([tx_id])
    bench.receive(block, A)
    assert bench.sends() == []
    bench.timer(limits.BLOCK_PULL_DELAY_MS)
    assert bench.sends() == [(A, GetTransactions([tx_id]))]
    bench.timer(limits.BLOCK_RETRY_MS)
    bench.receive(NotFound(What.TRANSACTION, [tx_id]), A)
    assert bench.sends() == [(B, GetTransactions([tx_id]))]
    bench.receive(Transactions([raw]), B)
    assert bench.gossip.take_ready().blocks == []
    bench.keep((tx_id, raw))
    assert bench.gossip.take_ready().blocks == [(block, A)]


def test_a_block_that_stays_incomplete_is_dropped():
    """After its time; the same block may come again."""
    bench = Bench(A)
    block = block_of([b"\x01" * 32])
    bench.receive(block, A)
    bench.timer(limits.BLOCK_WAIT_MS)
    assert bench.receive(block, A) is Verdict.ACCEPT


def test_waiting_blocks_are_bounded(monkeypatch):
    """By peer, and altogether: the oldest goes."""
    monkeypatch.setattr(limits, "BLOCKS_WAITING_PER_PEER_MAX", 2)
    monkeypatch.setattr(limits, "BLOCKS_WAITING_MAX", 3)
    bench = Bench(A, B)
    blocks = [block_of([b"\x01" * 32], height) for height in range(1, 6)]
    assert [bench.receive(block, A) for block in blocks[:3]] == [Verdict.ACCEPT, Verdict.ACCEPT, Verdict.IGNORE]
    assert [bench.receive(block, B) for block in blocks[3:]] == [Verdict.ACCEPT, Verdict.ACCEPT]
    bench.gossip.transactions_stored([b"\x01" * 32], own=False, now_ms=0)
    assert len(bench.gossip.take_ready().blocks) == 3


def test_a_block_with_another_length_of_body():
    """[REJECT] tx_count differs."""
    block = block_of([b"\x01" * 32])
    with pytest.raises(PeerError, match="length"):
        Bench(A).receive(type(block)(block.sealed, []), A)


def test_a_block_with_another_body():
    """[REJECT] tx_root differs; the good copy is taken."""
    block = block_of([b"\x01" * 32])
    bench = Bench(A, B)
    with pytest.raises(InvalidBlock):
        bench.receive(type(block)(block.sealed, [BodyItem(b"\x02" * 32, b"")]), A)
    assert bench.receive(block, B) is Verdict.ACCEPT


def test_an_incomplete_block_needs_a_producers_signature():
    """[REJECT] Before memory is spent on it."""

    def refuse(sealed):
        raise InvalidBlock("not signed by a producer")

    bench = Bench(A, check_header=refuse)
    with pytest.raises(InvalidBlock):
        bench.receive(block_of([b"\x01" * 32]), A)
    assert bench.gossip.next_timer_ms() is None


def test_a_refused_block_may_come_again():
    """The id does not cover the signature, so another copy may be good."""
    bench = Bench(A, B)
    block = block_of([])
    bench.receive(block, A)
    bench.gossip.block_refused(block)
    assert bench.receive(block, B) is Verdict.ACCEPT


def test_blocks_are_given_by_id():
    """Or said not to be found."""
    bench = Bench(A)
    block = block_of([])
    bench.blocks[block_id_of(block.sealed.header)] = block
    bench.receive(GetBlock(block_id_of(block.sealed.header)), A)
    bench.receive(GetBlock(bytes(32)), A)
    assert bench.sends() == [(A, block), (A, NotFound(What.BLOCK, [bytes(32)]))]


def test_votes_are_handed_on_once_and_passed_on_bundled():
    """To those not known to have them."""
    bench = Bench(A, B, C)
    one, two = vote_of(1), vote_of(2)
    assert bench.receive(Votes([one, two]), A) is Verdict.ACCEPT
    assert bench.receive(Votes([two]), B) is Verdict.IGNORE
    assert bench.gossip.take_ready().votes == [(one, A), (two, A)]
    bench.gossip.vote_accepted(one, A, now_ms=0)
    bench.gossip.vote_accepted(two, A, now_ms=1)
    bench.timer(limits.BUNDLE_DELAY_MS)
    assert bench.sends() == [(B, Votes([one])), (C, Votes([one, two]))]


def test_own_votes_go_at_once():
    """A vote cast here is not bundled, and a new peer gets the newest."""
    bench = Bench(A)
    bench.gossip.own_vote(vote_of(1))
    assert bench.sends() == [(A, Votes([vote_of(1)]))]
    bench.gossip.peer_up(B, B, now_ms=0)
    assert bench.sends() == [(B, Votes([vote_of(1)]))]


def test_an_own_vote_sent_again_goes_to_all_again():
    """The engine knows why."""
    bench = Bench(A)
    bench.gossip.own_vote(vote_of(1))
    bench.gossip.own_vote(vote_of(1))
    assert bench.sends() == 2 * [(A, Votes([vote_of(1)]))]


def test_a_vote_of_no_use_yet_may_come_again():
    """The engine sees it anew."""
    bench = Bench(A)
    bench.receive(Votes([vote_of(1)]), A)
    bench.gossip.vote_ignored(vote_of(1))
    assert bench.receive(Votes([vote_of(1)]), A) is Verdict.ACCEPT


def test_others_messages_are_ignored():
    """[IGNORE] What is for sync."""
    status = Status(0, bytes(32), 0, 0, 0, bytes(32), "a", "")
    assert Bench(A).receive(status, A) is Verdict.IGNORE


def test_four_rejects_ban():
    """Points add up, are forgiven with time, and the ban ends."""
    scores = Scores()
    for _ in range(3):
        scores.reject(A, "a lie", now_ms=0)
    assert (scores.take_banned(), scores.is_banned(A, now_ms=0)) == ([], False)
    scores.reject(A, "another", now_ms=limits.SCORE_DECAY_MS)
    assert scores.take_banned() == []
    scores.reject(A, "the last", now_ms=limits.SCORE_DECAY_MS)
    assert scores.take_banned() == [(A, "the last")]
    until = limits.SCORE_DECAY_MS + limits.BAN_MS
    assert [scores.is_banned(A, now_ms=at) for at in (until - 1, until)] == [True, False]


def test_a_mesh_gets_each_body_once():
    """Four nodes, pushes from each: no body travels twice, and all are accepted where they were taken in."""
    network = Network(4)
    ids = [network[n].submit(*range(100 * n, 100 * n + 20)) for n in range(4)]
    network.run()
    for n in range(4):
        assert set(network[n].store) == {tx_id for part in ids for tx_id in part}
        assert set(network[n].bodies_received.values()) == {1}
        assert set(ids[n]) <= set(network[n].accepted)
    assert (network.sent["GetTransactions"], network.sent["Announce"]) == (0, 0)


def test_a_busy_mesh_announces_nothing():
    """One transaction each 6 ms: whoever got the push has said so before it would be told."""
    network = Network(4)
    for n in range(100):
        network[n % 4].submit(n)
        network.run(for_ms=6)
    network.run()
    assert (network.sent["Transactions"], network.sent["Announce"]) == (300, 0)
    assert network.sent["Stored"] < 900


def test_a_line_passes_bodies_on():
    """A chain of eight nodes: each body crosses each link once, by announce and pull."""
    network = Network(8, links=[(n, n + 1) for n in range(7)])
    ids = network[0].submit(*range(30))
    network.run()
    assert all(set(network[n].store) == set(ids) for n in range(8))
    assert all(set(network[n].bodies_received.values()) == {1} for n in range(1, 8))


def test_a_ring_gets_each_body_about_once():
    """Two ways round: a body is asked of one announcer only."""
    network = Network(6, links=[(n, (n + 1) % 6) for n in range(6)])
    network[0].submit(*range(30))
    network.run()
    assert all(set(network[n].bodies_received.values()) == {1} for n in range(1, 6))


def test_a_reconnected_node_learns_what_it_missed():
    """What was taken in while it was away is pending everywhere after it is back."""
    network = Network(3)
    for other in (1, 2):
        network.disconnect(network[0].name, network[other].name)
    ids = network[1].submit(*range(10))
    network.run()
    assert network[0].store == {}
    network.connect(network[0].name, network[2].name)
    network.run()
    assert set(network[0].store) == set(ids)


def test_a_liar_is_banned_and_the_others_serve():
    """Bodies with good ids and bad signatures: the liar is banned, the transactions arrive all the same."""
    network = Network(3)
    network[2].submit()
    pairs = [transaction(n) for n in range(5)]
    bad = [raw[:-1] + b"\xff" for _, raw in pairs]
    network[0].bad = set(bad)
    for raw in bad:
        network[0].receive(Transactions([raw]), network[1].name)
    assert network[0].banned == [(network[1].name, "bad")]
    ids = network[2].submit(*range(5))
    network.run()
    assert set(network[0].store) == set(ids)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_everything_reaches_everybody(data):
    """Any connected graph, order and loss: after reconnecting, all hold all transactions and the vote."""
    count = data.draw(st.integers(2, 6))
    links = [(n, data.draw(st.integers(0, n - 1))) for n in range(1, count)]
    links += data.draw(st.lists(st.sampled_from([(a, b) for b in range(count) for a in range(b)]), max_size=4))
    network = Network(count, links=set(map(tuple, map(sorted, links))), seed=data.draw(st.integers(0, 999)))
    network.lossy = data.draw(st.booleans())
    ids = []
    for n in range(count):
        ids += network[n].submit(*range(100 * n, 100 * n + data.draw(st.integers(0, 6))))
    network.run(for_ms=data.draw(st.integers(0, 100)))
    block = block_of(ids)
    network[0].store.update(transaction(100 * n + i) for n in range(count) for i in range(6))
    network[0].gossip.transactions_stored(ids, own=False, now_ms=network.now_ms)
    network[0].gossip.own_block(block)
    network[0].gossip.own_vote(vote_of(1))
    network[0].pump()
    network.run(for_ms=data.draw(st.integers(0, 3_000)))
    if network.lossy:
        # A WebSocket loses nothing but with its connection: what was lost comes after the next one.
        network.lossy = False
        for link in sorted(network.links, key=sorted):
            network.disconnect(*sorted(link))
            network.connect(*sorted(link))
    network.run()
    assert all(set(ids) <= set(node.store) for node in network.nodes.values())
    assert all(vote_of(1) in node.votes for name, node in network.nodes.items() if name != network[0].name)
