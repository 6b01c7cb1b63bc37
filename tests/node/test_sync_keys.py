"""Catching up through admissions, elections and key rotations: what later blocks need is known only from earlier ones.

Two whole nodes, with the gossip, sync and driver they run with, over a link in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count

import pytest

from consensus.engine import Engine
from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.entries import Proposal, ProposalAction
from ledger.genesis import MemberKey, Role
from ledger.payloads import Approval, DelegationPart, Delegations, KeyChange, KeyChanges, KeyOperation
from ledger.store import MemoryStore
from ledger.transaction import Kind, make_transaction
from node import node as node_module
from node.node import Node
from node.sim.world import (
    EPOCH_SLOTS,
    govern_key,
    is_stand_in_signature,
    make_record,
    member_name,
    producer_key,
    submit_key,
)
from p2p import limits
from p2p.messages import Message
from tests.consensus.bench_kit import Bench, time_of

MEMBERS, SEATS = 7, 4
SOURCE, TARGET = 5, 6
"""Members without a seat: they keep the chain and sign nothing."""


class Chain:
    """A chain that grows by hand, with records of some members in each slot."""

    def __init__(self) -> None:
        self.bench = Bench(MEMBERS, seats=SEATS)
        self.slots = count()
        self.calls = count(1)
        self.feeders: dict[int, PrivateKey] = {0: submit_key(0)}
        """Members that hand in records, with the key they sign with."""

    @property
    def slot(self) -> int:
        """Return the slot of the head."""
        return max(self.bench.observer.head.slot, 0)

    def run(self, slots: int) -> None:
        """Let slots pass."""
        for slot in (next(self.slots) for _ in range(slots)):
            for member, key in self.feeders.items():
                self.feed(member, key, slot)
            self.bench.run_slot(slot)

    def feed(self, member: int, key: PrivateKey, slot: int) -> None:
        """Hand in a record of a member."""
        now_ms = time_of(slot)
        transaction = make_transaction(
            [encode(make_record(next(self.calls), now_ms))],
            key=key,
            member_id=member_name(member),
            chain_id=self.bench.chain_id,
            created_ms=now_ms,
            expires_ms=now_ms + 3_600_000,
        )
        self.bench.hand_in(encode(transaction))

    def admit(self, number: int) -> None:
        """Admit a member, by everybody's approval; from then on it hands in records."""
        keys = [
            MemberKey(producer_key(number).public_key, Role.NODE),
            MemberKey(submit_key(number).public_key, Role.SUBMIT),
            MemberKey(govern_key(number).public_key, Role.GOVERN),
        ]
        proposal = Proposal(ProposalAction.ADMIT, member_name(number), 1, keys, 0, time_of(self.slot + 5_000))
        proposal_id = self.bench.govern(0, Kind.PROPOSE, proposal, slot=self.slot)
        self.run(1)
        for other in range(1, MEMBERS):
            self.bench.govern(other, Kind.APPROVE, Approval(proposal_id), slot=self.slot)
        self.run(1)
        self.feeders[number] = submit_key(number)

    def elect(self, number: int, *, by: int) -> None:
        """Give a member another one's weight."""
        parts = Delegations([DelegationPart(member_name(number), 100)])
        self.bench.govern(by, Kind.DELEGATE, parts, slot=self.slot)

    def rotate_submit_key(self, member: int, seed: bytes) -> None:
        """Let a member sign its records with another key."""
        new = PrivateKey.from_seed(seed)
        change = KeyChange(KeyOperation.ROTATE, new.public_key, 0, self.feeders[member].key_id)
        self.bench.govern(member, Kind.KEY, KeyChanges([change]), slot=self.slot)
        self.run(1)
        self.feeders[member] = new

    def rotate_node_key(self, member: int, new: int) -> None:
        """Give a producer another key, which its node has at hand."""
        bench = self.bench
        bench.next_keys[member] = producer_key(new)
        bench.engines[member] = bench.make(member)
        change = KeyChange(KeyOperation.ROTATE, producer_key(new).public_key, 0, producer_key(member).key_id)
        bench.govern(member, Kind.KEY, KeyChanges([change]), slot=self.slot)


@dataclass(frozen=True)
class Link:
    """One side's end of a connection; what it sends arrives at once, in order."""

    key_id: bytes
    other: Callable[[], Node]
    own: bytes

    @property
    def peers(self) -> list[Link]:
        """Return the one peer."""
        return [self]

    def send(self, peer_id: bytes, message: Message) -> bool:
        """Hand a message to the other side."""
        assert peer_id == self.key_id
        self.other().driver.deliver(self.own, message)
        return True

    def review(self) -> None:
        """Whoever is connected may stay."""

    def ban(self, peer_id: bytes, reason: str) -> None:
        """Nobody lies here."""
        raise AssertionError(f"banned: {reason}")


def connect(one: Node, one_id: bytes, other: Node, other_id: bytes) -> None:
    """Let two nodes meet."""
    for node, own, peer, peer_id in ((one, one_id, other, other_id), (other, other_id, one, one_id)):
        node.driver.attach(Link(peer_id, lambda peer=peer: peer, own))  # type: ignore[arg-type, misc]
    one.driver.peer_up(other_id)
    other.driver.peer_up(one_id)


async def catch_up(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> Node:
    """Return a node that began with nothing and has what the chain's observer has."""
    monkeypatch.setattr(node_module, "Engine", partial(Engine, is_valid=is_stand_in_signature))
    # Only what is asked for again at once may help: a second of waiting would be a minute on a real chain.
    for name in ("SYNC_STALL_MS", "BLOCK_RETRY_MS"):
        monkeypatch.setattr(limits, name, 600_000)
    genesis, keys = chain.bench.world.genesis, [producer_key(n) for n in (SOURCE, TARGET)]
    source = Node(genesis, chain.bench.stores[-1], key=keys[0])
    target = Node(genesis, MemoryStore(), key=keys[1])
    connect(source, keys[0].key_id, target, keys[1].key_id)
    head = chain.bench.observer.head
    source.start()
    target.start()
    try:
        async with asyncio.timeout(40):
            while target.engine.head.height < head.height:  # noqa: ASYNC110 - it is the node's own doing
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"stands at {target.engine.head.height} of {head.height}, {target.sync.status()}")
    finally:
        await target.stop()
        await source.stop()
    assert target.engine.head.block_id == head.block_id
    assert target.counters.rejected == {}
    assert source.counters.rejected == {}
    return target


async def test_a_key_admitted_in_the_window_signs_later_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain()
    chain.run(3)
    chain.admit(8)
    chain.run(12)
    target = await catch_up(chain, monkeypatch)
    assert member_name(8) in target.state.members
    assert target.counters.records_stored >= 12 + 12


async def test_across_admissions_elections_set_changes_and_rotations(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain()
    chain.run(3)
    chain.admit(8)
    chain.elect(4, by=3)
    chain.run(2 * EPOCH_SLOTS)
    chain.rotate_submit_key(0, b"another")
    chain.rotate_submit_key(8, b"and another")
    chain.rotate_node_key(1, 11)
    chain.run(2 * EPOCH_SLOTS)
    chain.admit(9)
    chain.elect(3, by=3)
    chain.rotate_submit_key(8, b"a third")
    chain.run(3 * EPOCH_SLOTS)
    target = await catch_up(chain, monkeypatch)
    observer = chain.bench.observer
    assert target.state.voting.set_id >= 3
    assert target.state.tree.root == observer.head.chain.state.tree.root


async def test_a_gap_longer_than_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several windows, a key admitted in one and used through the next."""
    monkeypatch.setattr(limits, "SYNC_WINDOW_BLOCKS", 32)
    monkeypatch.setattr(limits, "SYNC_TRANSACTIONS_WANTED_MAX", 40)
    chain = Chain()
    for number in (8, 9, 10):
        chain.run(9)
        chain.admit(number)
    chain.run(30)
    target = await catch_up(chain, monkeypatch)
    assert len(target.state.members) == MEMBERS + 3
