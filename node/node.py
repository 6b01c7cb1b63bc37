"""One node: everything put together, and what the API, the commands and the metrics may ask of it.

Source: docs/architecture.md, "The house".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from consensus.engine import Engine
from consensus.params import FAULT_TOLERANT_MIN
from consensus.tree import BlockNode
from ledger.crypto import PrivateKey
from ledger.errors import ConfigError, LedgerError, UnusableTransaction
from ledger.genesis import Genesis, Role, chain_id_of
from ledger.rules.ruleset import RuleSet
from ledger.state import State
from ledger.store import Space, Store, WriteBatch
from ledger.transition import block_time_ms
from ledger.validation import CheckedTransaction, KeyOf, check_transaction
from node.clock import now_ms
from node.clockwatch import skew_of
from node.counters import Counters
from node.disk import DiskWatch
from node.driver import Driver
from node.events import EventHub, Subscription
from node.evidence import Accuser
from node.identity import Identity
from node.intake import Overloaded, Packer, RecordRef
from node.logs import get_log
from node.signing import SeenByUs
from node.status import NodeStatus, NodeSync, PeerInfo, Point, program_version
from p2p.entries import id_of_raw
from p2p.gossip import Gossip
from p2p.handshake import ProvenPeer
from p2p.messages import Status
from p2p.seen import SeenExchange
from p2p.sync import Sync
from p2p.traffic import Traffic

NOT_YET_A_MEMBER = "-"
"""What a node that is joining calls its member towards peers."""
CHAIN_ROW = Space.META.value + b"chain"
STALL_SLOTS = 20
"""Records that are not final after this many slots mean that something is wrong."""
STATES = ("stored", "accepted", "included", "final", "void", "expired")
"""What may be said of a transaction, everywhere: API, commands, metrics, docs."""


@dataclass(frozen=True, slots=True)
class Promise:
    """How far a transaction has come; ``height`` once it is in a block."""

    state: str
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to one raw transaction: ``stored``, ``known`` before, or ``refused`` with its error."""

    tx_id: bytes
    status: str
    error: LedgerError | None


class Node:
    """A node on an open store; ``start`` sets it going.

    Attributes:
        identity: its node keys, and whose they are.
        submit_key: signs records handed to this node, None where it takes none.
        member_secret: 32 bytes, for call commitments and the vault.
        disk: measures the data directory; None where nobody does.
    """

    def __init__(
        self,
        genesis: Genesis,
        store: Store,
        *,
        key: PrivateKey,
        next_key: PrivateKey | None = None,
        submit_key: PrivateKey | None = None,
        member_secret: bytes | None = None,
        is_joining: bool = False,
    ) -> None:
        """Check keys and rules against the chain and restore the engine. Raises ConfigError or StoreError.

        next_key: the key that takes the place of ``key``: with both at hand a rotation costs no slot and no vote.
        is_joining: the chain, as far as it is here, need not know the node key.
        """
        self.genesis = genesis
        self.store = store
        self.chain_id = chain_id_of(genesis)
        self.submit_key = submit_key
        self.member_secret = member_secret
        self.disk: DiskWatch | None = None
        self.events = EventHub()
        self._log = get_log("node")
        self.rules = RuleSet(genesis.rules, carbon_basis=genesis.parameters.carbon_basis)
        self.rules.run_conformance()
        _bind_store(store, self.chain_id)
        self.engine = Engine(genesis, store, key=key, next_key=next_key, check=self._check, is_cautious=True)
        self.identity = Identity(self.engine, (key,) if next_key is None else (key, next_key), is_joining=is_joining)
        self._check_submit_key()
        self.gossip = Gossip(
            own_key_id=key.key_id,
            is_producer=lambda key_id: bool(self.identity.voting_keys([key_id])),
            is_quorum=lambda key_ids: self.engine.is_quorum(self.identity.voting_keys(key_ids)),
            has_transaction=self.engine.has_transaction,
            read_transaction=store.body,
            read_block=self.engine.block,
            check_header=self.engine.check_header,
        )
        self.gossip.transactions_restored([tx.tx_id for tx in self.engine.pool])
        self.sync = Sync(
            ChainForPeers(self.engine, lambda: self.member_id),
            want_transactions=self.gossip.want_transactions,
            scores=self.gossip.scores,
        )
        seen = SeenByUs(self.engine, now_ms)
        self.driver = Driver(
            engine=self.engine,
            gossip=self.gossip,
            sync=self.sync,
            seen=SeenExchange(seen.tell, seen.hear),
            store=store,
            check=self.engine.check,
            listener=self.events,
        )
        self._packer: Packer | None = None
        keys = [key] if next_key is None else [key, next_key]
        self._accuser = Accuser(self.engine, keys, submit=self.driver.submit, now_ms=now_ms)
        self._task: asyncio.Task[None] | None = None
        self._accusing: asyncio.Task[None] | None = None

    def _check_submit_key(self) -> None:
        if self.submit_key is None or self.member_id is None:
            return
        entry = self.state.keys.get(self.submit_key.key_id)
        if entry is None or not entry.roles & Role.SUBMIT or entry.member_id != self.member_id:
            raise ConfigError(
                "not a submit key of this node's member",
                where="--submit-key",
                expected=f"a key of {self.member_id} with the submit role",
                actual=self.submit_key.key_id,
            )

    @property
    def counters(self) -> Counters:
        """Return what has happened since the start."""
        return self.driver.counters

    @property
    def state(self) -> State:
        """Return the state at the head of the best chain."""
        return self.engine.head.chain.state

    @property
    def member_id(self) -> str | None:
        """Return whose node this is, None while the chain does not know its key here."""
        return self.identity.member_id

    def _check(self, raw: bytes, key_of: KeyOf) -> CheckedTransaction:
        return check_transaction(raw, chain_id=self.chain_id, key_of=key_of, rules=self.rules)

    # -- running -----------------------------------------------------------------------------------------------------

    def start(self) -> asyncio.Task[None]:
        """Begin, once; the task returned ends when the node stops, by itself only when its store fails."""
        if self._task is not None:
            return self._task
        producers = len(self.engine.producers)
        if producers < FAULT_TOLERANT_MIN:
            self._log.warning("this chain tolerates no fault", producers=producers, needed=FAULT_TOLERANT_MIN)
        self._task = asyncio.create_task(self.driver.run(), name="driver")
        self._accusing = asyncio.create_task(self._accuser.run(), name="accuser")
        return self._task

    async def stop(self) -> None:
        """End cleanly: what was promised is on disk, those who wait are told."""
        if self._packer is not None:
            self._packer.flush()
        self.events.close()
        tasks = [task for task in (self._accusing, self._task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
        member_id = self.member_id
        if member_id is None:
            raise UnusableTransaction("this node waits to be admitted", where="--key", actual=self.identity.key.key_id)
        if self._packer is None:
            self._check_submit_key()
            self._packer = Packer(
                key=self.submit_key,
                member_id=member_id,
                chain_id=self.chain_id,
                now_ms=now_ms,
                submit=self.driver.submit,
            )
        return list(await asyncio.gather(*map(self._packer.add, items)))

    async def keep_rows(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Make rows of space META that belong to the API durable. Raises StoreError."""
        await self.driver.keep_rows(rows)

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
            # Before it is on disk here, the votes that make it final may include one of our own that nobody has yet.
            return Promise("final" if height <= self.driver.final_height else "included", height)
        height = self.engine.included_height(tx_id)
        if height is not None:
            return Promise("included", height)
        if tx_id in self.engine.pool:
            return Promise("accepted" if tx_id in self.driver.accepted else "stored")
        reason = self.driver.dropped.get(tx_id)
        if reason is not None:
            return Promise(reason)
        if not self.store.has_body(tx_id):
            return None
        return Promise("stored" if self.driver.is_being_stored(tx_id) else "expired")

    def status(self) -> NodeStatus:
        """Return what an operator asks first."""
        engine, time_ms = self.engine, now_ms()
        return NodeStatus(
            version=program_version(),
            chain_id=self.chain_id,
            chain_name=self.genesis.name,
            member_id=self.member_id,
            is_producer=engine.is_in_office,
            sync=self._sync_state(time_ms),
            head=_point(engine.head),
            justified_height=engine.head.justified_height,
            final=_point(engine.final),
            final_age_ms=max(0, time_ms - block_time_ms(self.genesis, max(engine.final.slot, 0))),
            slot=engine.slot_at(time_ms),
            peers=len(self._connected()),
            pool_transactions=len(engine.pool),
            pool_records=engine.pool.records,
            is_disk_full=self.driver.is_disk_full,
            clock_skew_ms=skew_of(self.driver.seen.clocks_ms) or 0,
            signing=self.driver.watch.signing(now_ms=time_ms),
            now_ms=time_ms,
            rule_set=self.rules.rule_set_id,
            disk=self.disk.usage if self.disk is not None else None,
        )

    def _sync_state(self, time_ms: int) -> NodeSync:
        engine, sync = self.engine, self.sync.status()
        reachable = self.identity.voting_keys([*(peer.key_id for peer in self._connected()), *engine.key_ids])
        waits = engine.head.last_records_height > engine.final.height or engine.pool.records > 0
        stalled_since = block_time_ms(self.genesis, max(engine.final.slot, 0) + STALL_SLOTS)
        if sync.state == "syncing":
            state = "syncing"
        elif not self.identity.is_known:
            state = "joining"
        elif not engine.is_quorum(reachable):
            state = "alone"
        elif waits and time_ms > max(stalled_since, self._waits_since(time_ms)):
            state = "stalled"
        else:
            state = "in-step"
        return NodeSync(state, sync.behind_blocks, sync.target_height)

    def _waits_since(self, time_ms: int) -> int:
        """Return when the oldest pending transaction was made, plus the time it may take; now where none waits."""
        oldest = next(iter(self.engine.pool), None)
        return time_ms if oldest is None else oldest.envelope.created_ms + STALL_SLOTS * self.genesis.parameters.slot_ms

    def _connected(self) -> list[ProvenPeer]:
        return self.driver.transport.peers if self.driver.transport is not None else []

    def peers(self) -> list[PeerInfo]:
        """Return the peers connected."""
        producers = {producer.member_id for producer in self.engine.producers}
        return [self._peer_info(peer, peer.member_id in producers) for peer in self._connected()]

    def _peer_info(self, peer: ProvenPeer, is_producer: bool) -> PeerInfo:
        said = self.sync.peer_status(peer.key_id)
        return PeerInfo(
            peer.key_id,
            peer.member_id,
            peer.endpoint,
            is_producer,
            said.head_height if said else None,
            said.final_height if said else None,
            said.agent if said else "",
            self.driver.transport is not None and self.driver.transport.is_open_plaintext(peer.key_id),
        )

    @property
    def traffic(self) -> Traffic:
        """Return what went over the wires; nothing before there are any."""
        return self.driver.transport.traffic if self.driver.transport is not None else Traffic()

    def last_vote_height(self, key_id: bytes) -> int | None:
        """Return the height of the highest block that a key was seen to vote for, None where none was seen.

        The witness has what others' votes and certificates told, from before the start as well; the counters its own.
        """
        vote, counted = self.engine.signing.witness.vote_of(key_id), self.counters.votes.get(key_id)
        heights = [vote.t_height] if vote is not None else []
        return max([*heights, counted.height] if counted is not None else heights, default=None)

    def subscribe(self) -> Subscription:
        """Return a live stream of events from now on. Raises Overloaded where there are too many listeners."""
        subscription = self.events.subscribe()
        if subscription is None:
            raise Overloaded("too many listeners", hint="Close other event streams")
        return subscription


class ChainForPeers:
    """What sync may ask of the node."""

    def __init__(self, engine: Engine, member_id: Callable[[], str | None]) -> None:
        self._engine = engine
        self._member_id = member_id
        self.has_transaction = engine.has_transaction
        self.block = engine.block
        self.block_id_at = engine.block_id_at
        self.check_header = engine.check_header

    def status(self) -> Status:
        """Return what this node has, as its peers are told."""
        head, final = self._engine.head, self._engine.final
        return Status(
            head.height,
            head.block_id,
            max(head.slot, 0),
            head.justified_height,
            final.height,
            final.block_id,
            self._member_id() or NOT_YET_A_MEMBER,
            f"ledgerd/{program_version()}",
        )

    def has_block(self, block_id: bytes) -> bool:
        """Tell whether a block was accepted here, final or not."""
        return self._engine.block(block_id) is not None or block_id == self._engine.chain_id


def _submitted(raw: bytes, outcome: bool | BaseException) -> Submitted:
    try:
        tx_id = id_of_raw(raw)
    except LedgerError:
        tx_id = b""
    if isinstance(outcome, LedgerError):
        return Submitted(tx_id, "refused", outcome)
    if isinstance(outcome, BaseException):
        raise outcome
    return Submitted(tx_id, "stored" if outcome else "known", None)


def _point(node: BlockNode) -> Point:
    return Point(node.height, node.block_id, node.slot)


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
