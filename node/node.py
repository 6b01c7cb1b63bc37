"""One node: everything put together, and what the API, the commands and the metrics may ask of it.

Source: docs/architecture.md, "The house".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from consensus.election import elect
from consensus.engine import Engine
from consensus.params import FAULT_TOLERANT_MIN
from ledger.crypto import PrivateKey
from ledger.errors import ConfigError, LedgerError
from ledger.genesis import Genesis, Role, chain_id_of
from ledger.rules.ruleset import RuleSet
from ledger.state import KeyEntry, State, genesis_state
from ledger.store import Space, Store, WriteBatch
from ledger.validation import CheckedTransaction, check_transaction
from node.driver import Driver, now_ms
from node.events import EventHub, Subscription
from node.intake import Packer, RecordRef
from node.logs import get_log
from p2p.gossip import Gossip
from p2p.messages import Status
from p2p.sync import Sync, SyncStatus

CHAIN_ROW = Space.META.value + b"chain"
STATES = ("stored", "accepted", "included", "final", "void", "expired")
"""What may be said of a transaction, everywhere: API, commands, metrics, docs."""


@dataclass(frozen=True, slots=True)
class Promise:
    """How far a transaction has come; ``height`` once it is in a block."""

    state: str
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to one raw transaction: on disk, or why not."""

    tx_id: bytes | None
    error: LedgerError | None


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What an operator asks first."""

    version: str
    chain_id: str
    chain_name: str
    member_id: str
    is_producer: bool
    sync: SyncStatus
    head_height: int
    head_id: str
    head_slot: int
    justified_height: int
    final_height: int
    final_id: str
    unfinal_with_records: bool
    slot_now: int
    since_head_ms: int
    peers: int
    pending_transactions: int
    pending_records: int
    is_disk_full: bool
    clock_skew_ms: int | None


def program_version() -> str:
    """Return the installed version."""
    try:
        return version("ledgerd")
    except PackageNotFoundError:
        return "0+unknown"


class Node:
    """A node on an open store; ``start`` sets it going.

    Attributes:
        member_id: whose node key it has.
        submit_key: signs records handed to this node, None where it takes none.
        member_secret: 32 bytes, for call commitments and the vault.
    """

    def __init__(
        self,
        genesis: Genesis,
        store: Store,
        *,
        key: PrivateKey,
        submit_key: PrivateKey | None = None,
        member_secret: bytes | None = None,
    ) -> None:
        """Check keys and rules against the chain and restore the engine. Raises ConfigError or StoreError."""
        self.genesis = genesis
        self.store = store
        self.chain_id = chain_id_of(genesis)
        self.submit_key = submit_key
        self.member_secret = member_secret
        self.events = EventHub()
        self._log = get_log("node")
        self._key = key
        self.rules = RuleSet(genesis.rules, carbon_basis=genesis.parameters.carbon_basis)
        self.rules.run_conformance()
        _bind_store(store, self.chain_id)
        # Until the engine stands, keys are those of genesis: enough to read back what it validated before.
        self._state = genesis_state(genesis)
        owner = self.node_key(key.key_id)
        if owner is None:
            raise ConfigError(
                "the node key belongs to no member of this chain",
                where="--key",
                expected="a key with the node role in the genesis file",
                actual=key.key_id,
                hint="Start with the member's own key, or have this one admitted",
            )
        self.member_id = owner.member_id
        is_producer = any(producer.key_id == key.key_id for producer in elect(self._state))
        self.engine = Engine(genesis, store, key=key if is_producer else None, check=self.check)
        self._check_submit_key()
        self.gossip = Gossip(
            own_key_id=key.key_id,
            is_producer=lambda key_id: any(p.key_id == key_id for p in self.engine.producers),
            quorum=lambda: self.engine.quorum,
            has_transaction=self.engine.has_transaction,
            read_transaction=store.body,
            read_block=self.engine.block,
            check_header=self.engine.check_header,
        )
        self.sync = Sync(
            ChainForPeers(self.engine, self.member_id),
            want_transactions=self.gossip.want_transactions,
            scores=self.gossip.scores,
        )
        self.driver = Driver(
            engine=self.engine,
            gossip=self.gossip,
            sync=self.sync,
            store=store,
            check=self.check,
            listener=self.events,
        )
        self._packer: Packer | None = None
        self._task: asyncio.Task[None] | None = None

    def _check_submit_key(self) -> None:
        if self.submit_key is None:
            return
        entry = self._key_entry(self.submit_key.key_id)
        if entry is None or not entry.roles & Role.SUBMIT or entry.member_id != self.member_id:
            raise ConfigError(
                "not a submit key of this node's member",
                where="--submit-key",
                expected=f"a key of {self.member_id} with the submit role",
                actual=self.submit_key.key_id,
            )

    def _key_entry(self, key_id: bytes) -> KeyEntry | None:
        return self.state.keys.get(key_id)

    @property
    def state(self) -> State:
        """Return the state at the head of the best chain."""
        engine: Engine | None = getattr(self, "engine", None)
        return self._state if engine is None else engine.head.chain.state

    def node_key(self, key_id: bytes) -> KeyEntry | None:
        """Return the active node key of a member, None for anybody else's."""
        return self.state.key_with_role(key_id, Role.NODE)

    def is_candidate(self, key_id: bytes) -> bool:
        """Tell whether a key is one that a member stands for a seat with."""
        return any(candidate.key_id == key_id for candidate in self.state.candidates.values())

    def check(self, raw: bytes) -> CheckedTransaction:
        """Check a raw transaction context-free, under the rules in force."""
        return check_transaction(raw, chain_id=self.chain_id, key_of=self._key_entry, rules=self.rules)

    # -- running -----------------------------------------------------------------------------------------------------

    def start(self) -> asyncio.Task[None]:
        """Begin, once; the task returned ends when the node stops, by itself only when its store fails."""
        if self._task is not None:
            return self._task
        producers = len(self.engine.producers)
        if producers < FAULT_TOLERANT_MIN:
            self._log.warning("this chain tolerates no fault", producers=producers, needed=FAULT_TOLERANT_MIN)
        self._task = asyncio.create_task(self.driver.run(), name="driver")
        return self._task

    async def stop(self) -> None:
        """End cleanly: what was promised is on disk, those who wait are told."""
        if self._packer is not None:
            self._packer.flush()
        self.events.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # -- for those who hand in records -------------------------------------------------------------------------------

    async def submit_transactions(self, raws: Sequence[bytes]) -> list[Submitted]:
        """Take in signed transactions; each is on disk here when this returns, or has its error."""
        self._check_room()
        futures = [self.driver.submit(raw) for raw in raws]
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        return [_submitted(raw, outcome) for raw, outcome in zip(raws, outcomes, strict=True)]

    async def submit_items(self, items: Sequence[bytes]) -> list[RecordRef]:
        """Take in encoded records of this node's member; on disk, signed, when this returns.

        Raises LedgerError: nothing of the transaction concerned is kept.
        """
        self._check_room()
        if self.submit_key is None:
            raise ConfigError("this node takes in no records", where="--submit-key", hint="Start it with a submit key")
        if self._packer is None:
            self._packer = Packer(
                key=self.submit_key,
                member_id=self.member_id,
                chain_id=self.chain_id,
                now_ms=now_ms,
                submit=self.driver.submit,
            )
        return list(await asyncio.gather(*map(self._packer.add, items)))

    def _check_room(self) -> None:
        if self.driver.failure is not None:
            raise self.driver.failure
        if self.engine.pool.is_full:
            raise Overloaded(
                "too many records wait for finality",
                expected="a quorum of producers at work",
                hint="Keep the records and submit them again in some seconds",
            )

    # -- for those who ask -------------------------------------------------------------------------------------------

    def promise_of(self, tx_id: bytes) -> Promise | None:
        """Return how far a transaction has come, None for one unknown here."""
        height = self.engine.final_height(tx_id)
        if height is not None:
            return Promise("final", height)
        height = self.engine.included_height(tx_id)
        if height is not None:
            return Promise("included", height)
        if tx_id in self.engine.pool:
            return Promise("accepted" if tx_id in self.driver.accepted else "stored")
        reason = self.driver.dropped.get(tx_id)
        if reason is not None:
            return Promise(reason)
        return Promise("expired") if self.store.has_body(tx_id) else None

    def status(self) -> NodeStatus:
        """Return what an operator asks first."""
        engine, time_ms = self.engine, now_ms()
        head, final = engine.head, engine.final
        head_time_ms = self.genesis.genesis_time_ms + max(head.slot, 0) * self.genesis.parameters.slot_ms
        return NodeStatus(
            version=program_version(),
            chain_id=self.chain_id.hex(),
            chain_name=self.genesis.name,
            member_id=self.member_id,
            is_producer=engine.key_id is not None,
            sync=self.sync.status(now_ms=time_ms),
            head_height=head.height,
            head_id=head.block_id.hex(),
            head_slot=head.slot,
            justified_height=head.justified_height,
            final_height=final.height,
            final_id=final.block_id.hex(),
            unfinal_with_records=head.last_records_height > final.height,
            slot_now=engine.slot_at(time_ms),
            since_head_ms=time_ms - head_time_ms,
            peers=len(self.driver.transport.peers) if self.driver.transport else 0,
            pending_transactions=len(engine.pool),
            pending_records=engine.pool.records,
            is_disk_full=self.driver.is_disk_full,
            clock_skew_ms=self.sync.clock_skew_ms,
        )

    def subscribe(self) -> Subscription | None:
        """Return a live stream of events, None where there are too many listeners."""
        return self.events.subscribe()


class ChainForPeers:
    """What sync may ask of the node."""

    def __init__(self, engine: Engine, member_id: str) -> None:
        self._engine = engine
        self._member_id = member_id
        self.has_transaction = engine.has_transaction
        self.block = engine.block
        self.block_id_at = engine.block_id_at
        self.check_header = engine.check_header

    def status(self, *, now_ms: int) -> Status:
        """Return what this node has, as its peers are told."""
        head, final = self._engine.head, self._engine.final
        return Status(
            head.height,
            head.block_id,
            max(head.slot, 0),
            head.justified_height,
            final.height,
            final.block_id,
            now_ms,
            self._member_id,
            f"ledgerd/{program_version()}",
        )

    def has_block(self, block_id: bytes) -> bool:
        """Tell whether a block was accepted here, final or not."""
        return self._engine.block(block_id) is not None or block_id == self._engine.chain_id


class Overloaded(LedgerError):
    """The node takes in nothing more for the moment."""

    code = "overloaded"


def _submitted(raw: bytes, outcome: object) -> Submitted:
    from p2p.entries import id_of_raw

    if isinstance(outcome, LedgerError):
        return Submitted(None, outcome)
    if isinstance(outcome, BaseException):
        raise outcome
    return Submitted(id_of_raw(raw), None)


def _bind_store(store: Store, chain_id: bytes) -> None:
    """Make a new store this chain's; refuse another chain's."""
    owner = store.get(CHAIN_ROW)
    if owner is None:
        store.write(WriteBatch([(CHAIN_ROW, chain_id)], []))
    elif owner != chain_id:
        raise ConfigError(
            "the data directory belongs to another chain",
            where="--data",
            expected=f"chain {chain_id.hex()}",
            actual=f"chain {owner.hex()}",
            hint="Use the genesis file it was started with, or another directory",
        )
