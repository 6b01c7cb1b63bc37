"""A node for tests of the API: a real engine and store on a clock that the test moves, without peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from consensus.engine import Engine
from consensus.ready import BlockFinal, HeadChanged, TransactionDropped
from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.errors import LedgerError
from ledger.genesis import Candidate, Genesis, GenesisMember, MemberKey, Parameters, chain_id_of
from ledger.rules.ruleset import RuleSet, default_rule_set_pin
from ledger.store import MemoryStore, Space, WriteBatch
from ledger.transaction import make_transaction, tx_id_of
from ledger.validation import CheckedTransaction, check_transaction
from node.counters import Counters
from node.disk import DiskUsage
from p2p.traffic import Traffic

NOW_MS = 1_795_250_000_000
"""2026-11-21, a few hours after the calls in the fixtures."""
SLOT_MS = 1_000
MEMBER = "carrier-a"
KEY = PrivateKey.from_seed(b"api test")
STRANGER = PrivateKey.from_seed(b"a stranger")
SECRET = bytes(range(32))


@dataclass(frozen=True)
class Submitted:
    tx_id: bytes
    status: str
    error: LedgerError | None = None


@dataclass(frozen=True)
class RecordRef:
    tx_id: bytes
    index: int


@dataclass(frozen=True)
class Promise:
    state: str
    height: int | None


@dataclass(frozen=True)
class Point:
    height: int
    block_id: bytes
    slot: int


@dataclass(frozen=True)
class SyncState:
    state: str = "in-step"
    behind_blocks: int = 0
    target_height: int = 0


@dataclass(frozen=True)
class Signing:
    state: str = "clear"
    reason: str = ""
    waits_for: str = ""
    until_ms: int | None = None


@dataclass(frozen=True)
class Status:
    version: str
    chain_id: bytes
    chain_name: str
    member_id: str
    is_producer: bool
    sync: SyncState
    head: Point
    justified_height: int
    final: Point
    final_age_ms: int
    slot: int
    peers: int
    pool_transactions: int
    pool_records: int
    is_disk_full: bool
    clock_skew_ms: int
    signing: Signing
    now_ms: int
    rule_set: bytes
    disk: DiskUsage | None


@dataclass(frozen=True)
class PeerInfo:
    key_id: bytes
    member_id: str
    endpoint: str
    is_producer: bool
    head_height: int | None
    final_height: int | None
    agent: str
    is_open_plaintext: bool


class Subscription:
    def __init__(self) -> None:
        self.queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(100)
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        while (event := await self.queue.get()) is not None:
            yield event

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.queue.put_nowait(None)


def make_genesis() -> Genesis:
    """Return the genesis of a chain with one producer."""
    return Genesis(
        version=1,
        name="api-test",
        genesis_time_ms=NOW_MS - 10_000,
        parameters=Parameters(
            SLOT_MS, 1_000_000, 1, 20, 10, 35 * 86_400_000, 10_000, 4 * 1024 * 1024, 1000, "lifecycle"
        ),
        members=[
            GenesisMember(MEMBER, 1, [MemberKey(KEY.public_key, 7)], Candidate(KEY.key_id, "", "GB")),
            GenesisMember("carrier-b", 1, [MemberKey(STRANGER.public_key, 2)], None),
        ],
        delegations=[],
        rules=default_rule_set_pin("lifecycle"),
    )


class ApiNode:
    """A node as the API sees it; time passes when ``tick`` is called."""

    def __init__(self) -> None:
        self.genesis = make_genesis()
        self.chain_id = chain_id_of(self.genesis)
        self.rules = RuleSet(self.genesis.rules, carbon_basis="lifecycle")
        self.store = MemoryStore()
        self.member_id: str | None = MEMBER
        self.counters = Counters()
        self.traffic = Traffic()
        self.sync = SyncState()
        self.is_disk_full = False
        self.now_ms = NOW_MS
        self.dropped: dict[bytes, str] = {}
        self.subscriptions: list[Subscription] = []
        self.failure: LedgerError | None = None
        self.submissions = 0
        self.gate: asyncio.Event | None = None
        self.engine = Engine(self.genesis, self.store, key=KEY, check=self.check)

    def check(self, raw: bytes) -> CheckedTransaction:
        keys = self.engine.head.chain.state.keys
        return check_transaction(raw, chain_id=self.chain_id, key_of=keys.get, rules=self.rules)

    def clock(self) -> int:
        return self.now_ms

    def tick(self, slots: int = 1) -> None:
        """Let slots pass, each with its block where there is reason for one."""
        for _ in range(slots):
            self.now_ms += SLOT_MS
            self.engine.handle_timer(now_ms=self.now_ms)
            while ready := self.engine.take_ready():
                self.store.write(WriteBatch(ready.puts))
                self.engine.written()
                for event in ready.events:
                    self._tell(event)

    def _tell(self, event: object) -> None:
        told: dict[str, Any] | None = None
        if isinstance(event, HeadChanged):
            told = {"event": "block", "height": event.head.height, "block_id": event.head.block_id.hex()}
        elif isinstance(event, BlockFinal):
            told = {"event": "final", "height": event.node.height, "block_id": event.node.block_id.hex()}
        elif isinstance(event, TransactionDropped):
            self.dropped[event.tx_id] = event.reason
            told = {"event": "dropped", "tx_id": event.tx_id.hex(), "reason": event.reason}
        for subscription in self.subscriptions if told else []:
            subscription.queue.put_nowait(told)

    async def submit_transactions(self, raws: list[bytes]) -> list[Submitted]:
        if self.failure is not None:
            raise self.failure
        return [self._submit(raw) for raw in raws]

    def _submit(self, raw: bytes) -> Submitted:
        try:
            tx = self.check(raw)
        except LedgerError as error:
            return Submitted(b"", "refused", error)
        if self.engine.has_transaction(tx.tx_id):
            return Submitted(tx.tx_id, "known")
        self.store.write(WriteBatch([(Space.PENDING.value + tx.tx_id, b"")], [(tx.tx_id, raw)]))
        self.engine.add_transaction(tx)
        return Submitted(tx.tx_id, "stored")

    async def submit_items(self, items: list[bytes]) -> list[RecordRef]:
        self.submissions += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        transaction = sign(items, created_ms=self.now_ms)
        (result,) = await self.submit_transactions([encode(transaction)])
        if result.error is not None:
            raise result.error
        return [RecordRef(tx_id_of(transaction.envelope), index) for index in range(len(items))]

    async def keep_rows(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        if self.failure is not None:
            raise self.failure
        self.store.write(WriteBatch([*rows]))

    def promise_of(self, tx_id: bytes) -> Promise | None:
        for state, height in (
            ("final", self.engine.final_height(tx_id)),
            ("included", self.engine.included_height(tx_id)),
        ):
            if height is not None:
                return Promise(state, height)
        if tx_id in self.dropped:
            return Promise(self.dropped[tx_id], None)
        return Promise("stored", None) if tx_id in self.engine.pool else None

    def status(self) -> Status:
        head, final = self.engine.head, self.engine.final
        final_ms = self.genesis.genesis_time_ms + max(final.slot, 0) * SLOT_MS
        return Status(
            version="0.1.0",
            chain_id=self.chain_id,
            chain_name="api-test",
            member_id=MEMBER,
            is_producer=True,
            sync=self.sync,
            head=Point(head.height, head.block_id, head.slot),
            justified_height=head.justified_height,
            final=Point(final.height, final.block_id, final.slot),
            final_age_ms=self.now_ms - final_ms,
            slot=self.engine.slot_at(self.now_ms),
            peers=1,
            pool_transactions=len(self.engine.pool),
            pool_records=self.engine.pool.records,
            is_disk_full=self.is_disk_full,
            clock_skew_ms=-5,
            signing=Signing(),
            now_ms=self.now_ms,
            rule_set=self.rules.rule_set_id,
            disk=DiskUsage(50 << 30, 1 << 30, 1 << 20, 3_600_000),
        )

    def peers(self) -> list[PeerInfo]:
        return [
            PeerInfo(
                STRANGER.key_id,
                "carrier-b",
                "ws://b.test:9090",
                False,
                3,
                None,
                "ledgerd/0.1.0",
                is_open_plaintext=False,
            )
        ]

    def last_vote_height(self, key_id: bytes) -> int | None:
        seen = self.counters.votes.get(key_id)
        return seen.height if seen is not None else None

    def subscribe(self) -> Subscription:
        subscription = Subscription()
        self.subscriptions.append(subscription)
        return subscription


def sign(items: list[bytes], *, key: PrivateKey = KEY, member_id: str = MEMBER, created_ms: int = NOW_MS) -> Any:
    """Return a signed transaction of encoded records."""
    return make_transaction(
        items,
        key=key,
        member_id=member_id,
        chain_id=chain_id_of(make_genesis()),
        created_ms=created_ms,
        expires_ms=created_ms + 3_600_000,
    )
