"""The driver while its store is slow or fails: what comes in meanwhile, and who is told what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice

import pytest

from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.errors import LedgerError, StoreDamaged, StoreError
from ledger.genesis import Candidate, Delegation, Genesis, GenesisMember, MemberKey, Role, chain_id_of
from ledger.rules.ruleset import default_rule_set_pin
from ledger.store import MemoryStore, WriteBatch
from ledger.transaction import make_transaction
from node.clock import now_ms
from node.founding import DEFAULT_PARAMETERS
from node.node import Node
from telephony.synthetic import Traffic, generate_records

PRODUCER, OBSERVER, SUBMIT = (PrivateKey.from_seed(name) for name in (b"producer", b"observer", b"submit"))
WAIT_S = 10


class GatedStore(MemoryStore):
    """A store whose writes wait until they are let through, or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.error: StoreError | None = None
        self.bodies: list[int] = []

    def write(self, batch: WriteBatch) -> None:
        self.begun.set()
        assert self.gate.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        self.bodies.append(len(batch.bodies))
        super().write(batch)


def make_genesis() -> Genesis:
    """Return a chain of a producer and of an observer, whose node therefore writes nothing by itself."""
    founders = [
        GenesisMember(
            "observer",
            1,
            [MemberKey(OBSERVER.public_key, Role.NODE | Role.GOVERN), MemberKey(SUBMIT.public_key, Role.SUBMIT)],
            None,
        ),
        GenesisMember(
            "producer",
            1,
            [MemberKey(PRODUCER.public_key, Role.NODE | Role.GOVERN)],
            Candidate(PRODUCER.key_id, "", ""),
        ),
    ]
    rules = default_rule_set_pin("lifecycle")
    delegations = [Delegation("producer", "producer", 1)]
    return Genesis(1, "slow", now_ms(), DEFAULT_PARAMETERS, founders, delegations, rules)


def make_raws(genesis: Genesis, count: int) -> list[bytes]:
    """Return signed transactions of two records each, of yesterday."""
    records = generate_records(Traffic(seed=1, start_ms=now_ms() - 86_400_000))
    return [
        encode(
            make_transaction(
                [encode(record) for record in islice(records, 2)],
                key=SUBMIT,
                member_id="observer",
                chain_id=chain_id_of(genesis),
                created_ms=now_ms(),
                expires_ms=now_ms() + 3_600_000,
            )
        )
        for _ in range(count)
    ]


@asynccontextmanager
async def running_node() -> AsyncIterator[tuple[Node, GatedStore, list[bytes]]]:
    genesis, store = make_genesis(), GatedStore()
    node = Node(genesis, store, key=OBSERVER)
    # Every new store begins with a record of its key.
    store.write(WriteBatch(list(node.engine.take_ready().puts), []))
    store.bodies.clear()
    store.begun.clear()
    node.start()
    try:
        yield node, store, make_raws(genesis, 4)
    finally:
        store.gate.set()
        await node.stop()


async def begun(store: GatedStore) -> None:
    """Return once the store is in the middle of a write."""
    assert await asyncio.to_thread(store.begun.wait, WAIT_S)


async def until_checked(node: Node) -> None:
    """Return once nothing handed in waits to be checked."""
    async with asyncio.timeout(WAIT_S):
        while node.driver._desk.waiting:  # noqa: ASYNC110 - the driver has no event for this
            await asyncio.sleep(0.001)


async def test_what_comes_in_during_a_write_is_checked_then_and_shares_the_next() -> None:
    async with running_node() as (node, store, raws):
        store.gate.clear()
        first = node.driver.submit(raws[0])
        await begun(store)
        others = [node.driver.submit(raw) for raw in raws[1:]]
        await until_checked(node)
        assert [future.done() for future in (first, *others)] == [False] * 4
        store.gate.set()
        async with asyncio.timeout(WAIT_S):
            assert await asyncio.gather(first, *others) == [True] * 4
        assert store.bodies == [1, 3]


async def test_the_same_again_during_its_write_is_stored_once_and_not_new() -> None:
    async with running_node() as (node, store, raws):
        store.gate.clear()
        first = node.driver.submit(raws[0])
        await begun(store)
        again = [node.driver.submit(raws[0]) for _ in range(2)]
        await until_checked(node)
        store.gate.set()
        async with asyncio.timeout(WAIT_S):
            assert await asyncio.gather(first, *again) == [True, False, False]
        assert sum(store.bodies) == 1
        assert (node.counters.transactions_stored, node.counters.records_stored) == (1, 2)
        assert len(node.engine.pool) == 1


async def test_a_bad_one_during_a_write_is_refused_before_the_write_ends() -> None:
    async with running_node() as (node, store, raws):
        store.gate.clear()
        first = node.driver.submit(raws[0])
        await begun(store)
        bad = node.driver.submit(raws[1][:-1])
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(LedgerError):
                await bad
        assert not first.done()


async def test_a_store_that_fails_tells_everybody_who_waits_and_ends_the_driver() -> None:
    async with running_node() as (node, store, raws):
        store.gate.clear()
        store.error = StoreDamaged("the disk is broken")
        written = node.driver.submit(raws[0])
        await begun(store)
        checked = node.driver.submit(raws[1])
        await until_checked(node)
        store.gate.set()
        async with asyncio.timeout(WAIT_S):
            outcomes = await asyncio.gather(written, checked, return_exceptions=True)
        assert outcomes == [store.error, store.error]
        assert node.driver.failure is store.error


async def test_a_submitter_who_left_is_no_trouble() -> None:
    async with running_node() as (node, store, raws):
        store.gate.clear()
        first = node.driver.submit(raws[0])
        await begun(store)
        gone, bad = node.driver.submit(raws[1]), node.driver.submit(raws[2][:-1])
        gone.cancel()
        bad.cancel()
        store.gate.set()
        async with asyncio.timeout(WAIT_S):
            assert await first
            assert await node.driver.submit(raws[3])
        assert len(node.engine.pool) == 3
