"""The one driver: owns clock, store and the order of things, and feeds the pure cores.

One task does everything that changes the chain, in turns: take what came in, let the cores decide, write, and only
then send and answer. While a write is being synced, what came in since is checked, and shares the next one.

Source: docs/architecture.md, "Pure cores, one driver".
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from consensus.engine import Engine
from consensus.ready import BlockFinal, Event, FaultProven, HeadChanged, Ready, TransactionDropped
from consensus.verdict import Verdict
from ledger.block import Block, Vote
from ledger.errors import (
    LedgerError,
    StoreError,
    StoreFull,
    UnknownParent,
)
from ledger.store import Space, Store, WriteBatch
from ledger.transition import block_time_ms
from ledger.validation import CheckedTransaction
from node.checking import CheckDesk, Checked
from node.clock import now_ms, steady_ms
from node.counters import Counters
from node.evidence import log_fault
from node.logs import get_log
from node.signing import SigningWatch
from p2p import limits
from p2p.gossip import Gossip
from p2p.messages import Message, Seen
from p2p.scores import PeerId
from p2p.seen import SeenExchange
from p2p.sync import Sync, is_for_sync
from p2p.transport import Transport

T = TypeVar("T")

INBOX_MESSAGES_MAX = 1_024
"""Messages waiting for their turn; beyond this, peers wait as well."""
PROMISES_MAX = 50_000
"""Transactions whose acceptance or loss is remembered for those who ask."""
DISK_FULL_RETRY_S = 1.0


class Listener(Protocol):
    """Who is told of events, in order, after they are durable."""

    def on_event(self, event: Event) -> None:
        """Take note."""


class Driver:
    """Runs engine, gossip and sync of one node over one store and one transport."""

    def __init__(
        self,
        *,
        engine: Engine,
        gossip: Gossip,
        sync: Sync,
        seen: SeenExchange,
        store: Store,
        check: Callable[[bytes], CheckedTransaction],
        listener: Listener,
    ) -> None:
        self.engine = engine
        self.gossip = gossip
        self.sync = sync
        self.seen = seen
        self.counters = Counters()
        self.final_height = engine.final.height
        """Height up to which blocks are final on disk; the engine knows of them before that."""
        self.accepted: dict[bytes, None] = {}
        self.dropped: dict[bytes, str] = {}
        self.failure: StoreError | None = None
        self.is_disk_full = False
        self.transport: Transport | None = None
        self._store = store
        self._listener = listener
        self._keys = engine.head.chain.state.keys
        self._inbox: deque[tuple[Message, PeerId]] = deque()
        self._desk = CheckDesk(engine, gossip, sync, check=check, reject=self._reject)
        self._writing: list[Checked] = []
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._is_over = False
        self._log = get_log("driver")
        self.watch = SigningWatch(engine, lambda: seen.clocks_ms, self._log)

    # -- what others call --------------------------------------------------------------------------------------------

    def attach(self, transport: Transport) -> None:
        """Use ``transport`` for what is to be sent."""
        self.transport = transport

    def submit(self, raw: bytes) -> asyncio.Future[bool]:
        """Take in a raw transaction of a submitter.

        The future ends when it is on disk, with whether it is new here, or with its error.
        """
        self._wake.set()
        return self._desk.submit(raw)

    async def keep_rows(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Make rows that no core knows of durable, between the loop's own writes. Raises StoreError."""
        if self._is_over:
            raise self.failure or StoreError("the node is stopping")
        batch = WriteBatch([*rows], [])
        await asyncio.get_running_loop().run_in_executor(self._writer, self._store.write, batch)

    def deliver(self, peer_id: PeerId, message: Message) -> Awaitable[object] | None:
        """Take in a message of a peer; what is returned is awaited before that peer's next one is read."""
        self._inbox.append((message, peer_id))
        self._wake.set()
        if len(self._inbox) < INBOX_MESSAGES_MAX:
            return None
        self._drained.clear()
        return self._drained.wait()

    def peer_up(self, peer_id: PeerId) -> None:
        """Begin with a connection; a peer's id is its key id."""
        self.gossip.peer_up(peer_id, peer_id, now_ms=steady_ms())
        self.engine.heard(peer_id, now_ms=now_ms())
        self.sync.peer_up(peer_id, now_ms=steady_ms())
        self.seen.peer_up(peer_id, now_ms=steady_ms())
        self._wake.set()

    def peer_down(self, peer_id: PeerId) -> None:
        """Forget a connection."""
        self.gossip.peer_down(peer_id, now_ms=steady_ms())
        self.sync.peer_down(peer_id, now_ms=steady_ms())
        self.seen.peer_down(peer_id)
        self._wake.set()

    def is_being_stored(self, tx_id: bytes) -> bool:
        """Tell whether a transaction is checked and its write under way: it may be on disk, and is not pending yet."""
        return any(c.tx.tx_id == tx_id for c in (*self._writing, *self._desk.passed))

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Drive until cancelled, or until the store fails: then ``failure`` says how, and this returns."""
        try:
            while True:
                await self._wait()
                await self._turn()
        except StoreError as error:
            self.failure = error
            self._log.error("store failed", error=error.sentence())
        finally:
            self._is_over = True
            self._fail_submissions()
            self._writer.shutdown(wait=True)

    def _wait_ms(self) -> int:
        """Return how long nothing is due by itself; 0 or less where something is."""
        if self._desk:
            return 0
        timers = [core.next_timer_ms() for core in (self.gossip, self.sync, self.seen)]
        return min([self._until_slot_ms(), *(due_ms - steady_ms() for due_ms in timers if due_ms is not None)])

    async def _wait(self) -> None:
        """Sleep until something came in or a core's timer is due."""
        delay_s = self._wait_ms() / 1000
        if delay_s > 0 and not self._wake.is_set():
            try:
                async with asyncio.timeout(delay_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
        else:
            await asyncio.sleep(0)
        self._wake.clear()

    def _until_slot_ms(self) -> int:
        """Return how long the engine's timer has to wait; not at all when the wall clock was set back."""
        wait_ms = self.engine.next_timer_ms() - now_ms()
        return wait_ms if wait_ms <= 2 * self.engine.genesis.parameters.slot_ms else 0

    async def _turn(self) -> None:
        """One turn: inputs, decisions, one durable write, outputs."""
        self._take_messages()
        self._handle_timers()
        self._run_gossip()
        self._run_sync()
        ready = self.engine.take_ready()
        if not ready and not self._desk.passed:
            self._desk.check_some()
        self._writing = self._desk.take_passed()
        await self._write(ready, self._writing)
        self._after_write(ready, self._writing)
        self._writing = []
        self._run_gossip()
        self._run_sync()

    def _take_messages(self) -> None:
        """Hand messages to those they are for; a lie costs its sender."""
        time_ms = steady_ms()
        while self._inbox:
            message, peer_id = self._inbox.popleft()
            try:
                if isinstance(message, Seen):
                    self.seen.receive(message, peer_id, wall_ms=now_ms())
                elif is_for_sync(message):
                    self.sync.receive(message, peer_id, now_ms=time_ms)
                else:
                    self.gossip.receive(message, peer_id, now_ms=time_ms)
            except StoreError:
                # Ours, not the peer's, and what was under way is half done.
                raise
            except LedgerError as error:
                self._reject(peer_id, error)
        self._drained.set()

    def _handle_timers(self) -> None:
        time_ms = now_ms()
        if self.transport is not None:
            # A chain at rest is silent, but its peers are there.
            for peer in self.transport.peers:
                self.engine.heard(peer.key_id, now_ms=time_ms)
        for core in (self.gossip, self.sync, self.seen):
            due_ms = core.next_timer_ms()
            if due_ms is not None and due_ms <= steady_ms():
                core.handle_timer(now_ms=steady_ms())
        if self._until_slot_ms() <= 0:
            self.engine.handle_timer(now_ms=time_ms)
            if self.transport is not None:
                self.transport.review()
        self.watch.look(now_ms=time_ms)

    def _run_gossip(self) -> None:
        """Carry out what gossip decided: send, and hand blocks and votes to the engine."""
        ready = self.gossip.take_ready()
        self._send(ready.sends)
        for peer_id, reason in ready.banned:
            self._log.warning("banned", peer=peer_id.hex(), reason=reason, for_ms=limits.BAN_MS)
            if self.transport is not None:
                self.transport.ban(peer_id, reason)
        for received in ready.transactions:
            self._desk.receive(received.raw, received.sender, received.tx_id)
        for tx_id in ready.accepted:
            self._remember(self.accepted, tx_id, None)
        for block, sender in ready.blocks:
            self._receive_block(block, sender)
        for vote, sender in ready.votes:
            self._receive_vote(vote, sender)

    def _receive_block(self, block: Block, sender: PeerId) -> None:
        try:
            if self.engine.receive_block(block, now_ms=now_ms()) is Verdict.ACCEPT:
                self.gossip.block_accepted(block, sender)
            elif block.sealed.header.slot > self.engine.slot_at(now_ms()):
                # From a slot to come: when that has begun, another copy is welcome.
                self.gossip.block_refused(block)
        except UnknownParent:
            self.gossip.block_refused(block)
            self.sync.unknown_parent(block, sender, now_ms=steady_ms())
        except StoreError:
            raise
        except LedgerError as error:
            self.gossip.block_refused(block)
            self._reject(sender, error)

    def _receive_vote(self, vote: Vote, sender: PeerId) -> None:
        try:
            if self.engine.receive_vote(vote, now_ms=now_ms()) is Verdict.ACCEPT:
                self.counters.saw_vote(vote)
                self.gossip.vote_accepted(vote, sender, now_ms=steady_ms())
            else:
                self.gossip.vote_ignored(vote)
        except StoreError:
            raise
        except LedgerError as error:
            self._reject(sender, error)

    async def _write(self, ready: Ready, checked: list[Checked]) -> None:
        """Make one turn durable. A crash before it loses nothing that was promised; after it, nothing at all."""
        distinct = {c.tx.tx_id: c.raw for c in checked}
        bodies: list[tuple[bytes, bytes]] = [
            (tx_id, raw) for tx_id, raw in distinct.items() if not self._store.has_body(tx_id)
        ]
        puts = [*ready.puts, *((Space.PENDING.value + tx_id, b"") for tx_id in distinct)]
        if bodies:
            try:
                await self._write_batch(WriteBatch(puts, bodies), is_urgent=bool(ready.messages))
            except StoreFull as error:
                self._refuse(checked, error)
                await self._write_when_room(ready.puts)
        elif puts:
            await self._write_when_room(puts)
        self.engine.written()

    async def _write_batch(self, batch: WriteBatch, *, is_urgent: bool) -> None:
        """Write; meanwhile check what came in, unless a block or vote waits for this write: then nothing slows it."""
        writing = asyncio.get_running_loop().run_in_executor(self._writer, self._store.write, batch)
        if not is_urgent:
            writing.add_done_callback(lambda _: self._wake.set())
            while not writing.done():
                if self._desk.check_next():
                    await asyncio.sleep(0)
                else:
                    self._wake.clear()
                    await self._wake.wait()
            # It may have been a message that woke us, and that still waits for its turn.
            self._wake.set()
        await writing
        self.is_disk_full = False

    async def _write_when_room(self, puts: list[tuple[bytes, bytes | None]]) -> None:
        """Write what the engine decided; with a full disk wait for room, for nothing may be sent before."""
        while puts:
            try:
                return await self._write_batch(WriteBatch(puts, []), is_urgent=True)
            except StoreFull as error:
                self.is_disk_full = True
                self._log.error("disk full, waiting for room", error=error.sentence())
                # Those who hand in records are not to wait for room as well.
                self._desk.fail_submissions(error)
                await asyncio.sleep(DISK_FULL_RETRY_S)
        return None

    def _refuse(self, checked: list[Checked], error: StoreFull) -> None:
        """Give back transactions for which there is no room: their submitters keep them, peers offer them again."""
        self.is_disk_full = True
        self._log.error("disk full, transactions refused", error=error.sentence(), transactions=len(checked))
        for c in checked:
            if c.submission is not None:
                c.submission.fail(error)
            else:
                self.gossip.transaction_refused(c.tx.tx_id, b"", invalid=False, now_ms=steady_ms())
        checked.clear()

    def _after_write(self, ready: Ready, checked: list[Checked]) -> None:
        """Send, answer and tell what is durable now."""
        time_ms = steady_ms()
        for message in ready.messages:
            if isinstance(message, Block):
                self.counters.blocks_sealed += 1
                self.gossip.own_block(message)
            else:
                self.counters.votes_cast += 1
                self.counters.saw_vote(message)
                self.gossip.own_vote(message)
        self._tell(ready.events)
        groups: tuple[list[Checked], list[Checked]] = ([], [])
        for c in checked:
            # The same one may have come twice before it was on disk.
            is_new = c.tx.tx_id not in self.engine.pool
            if is_new:
                self.engine.add_transaction(c.tx)
                self.counters.transactions_stored += 1
                self.counters.records_stored += c.tx.record_count
            groups[c.submission is None].append(c)
            if c.submission is not None:
                c.submission.succeed(is_new=is_new)
        for is_own, group in zip((True, False), groups, strict=True):
            if group:
                ids, raws = [c.tx.tx_id for c in group], [c.raw for c in group]
                self.gossip.transactions_stored(ids, own=is_own, now_ms=time_ms, raws=raws)
                self.sync.transactions_stored(ids, now_ms=time_ms)

    def _tell(self, events: list[Event]) -> None:
        """Count events, let gossip forget what needs no spreading any more, and tell the listener."""
        for event in events:
            self.counters.count(event)
            self._measure(event)
            if isinstance(event, BlockFinal):
                self.final_height = event.node.height
                self.gossip.forget(item.tx_id for item in event.block.body)
                for item in event.block.body:
                    self.accepted.pop(item.tx_id, None)
            elif isinstance(event, TransactionDropped):
                self.gossip.forget([event.tx_id])
                self.accepted.pop(event.tx_id, None)
                self._remember(self.dropped, event.tx_id, event.reason)
            elif isinstance(event, HeadChanged) and event.head.chain.state.keys is not self._keys:
                self._keys = event.head.chain.state.keys
                self.gossip.keys_changed(now_ms=steady_ms())
                self.sync.keys_changed(now_ms=steady_ms())
            elif isinstance(event, FaultProven):
                log_fault(self._log, event, self.engine.key_ids)
            self._listener.on_event(event)

    def _measure(self, event: Event) -> None:
        """Take the measure of blocks, as far as they came in their time: of those fetched later it tells nothing."""
        if self.sync.status().state == "syncing":
            return
        if isinstance(event, BlockFinal) and event.block.body:
            began_ms = block_time_ms(self.engine.genesis, event.node.slot)
            self.counters.finality_s.observe((now_ms() - began_ms) / 1000)
        elif isinstance(event, HeadChanged) and event.head.block is not None and not event.is_reorg:
            pending = [self.engine.pool.get(item.tx_id) for item in event.head.block.body]
            self.counters.block_bytes.observe(sum(tx.size for tx in pending if tx is not None))
            self.counters.block_records.observe(event.head.block.sealed.header.totals.records)

    def _run_sync(self) -> None:
        """Carry out what sync decided: send, and apply the blocks it fetched."""
        ready = self.sync.take_ready()
        self._send([*ready.sends, *self.seen.take_sends()])
        for block, sender in ready.blocks:
            try:
                self.engine.receive_block(block, now_ms=now_ms())
            except StoreError:
                raise
            except UnknownParent:
                # An earlier block was ignored, as one from the future: sync asks for the stretch again.
                continue
            except LedgerError as error:
                self.sync.block_refused(block, now_ms=steady_ms())
                self._reject(sender, error)

    def _send(self, sends: list[tuple[PeerId, Message]]) -> None:
        if self.transport is not None:
            for peer_id, message in sends:
                self.transport.send(peer_id, message)

    def _reject(self, peer_id: PeerId, error: LedgerError) -> None:
        """Charge a peer for a lie."""
        self.counters.rejected[error.code] = self.counters.rejected.get(error.code, 0) + 1
        self._log.warning("rejected", peer=peer_id.hex(), error=error.sentence())
        self.gossip.reject(peer_id, error.sentence(), now_ms=steady_ms())

    def _fail_submissions(self) -> None:
        """Tell those who still wait that nothing was stored."""
        error = self.failure or StoreError("the node is stopping", hint="Keep the records and submit them again")
        self._desk.fail_submissions(error)
        for c in (*self._writing, *self._desk.passed):
            if c.submission is not None:
                c.submission.fail(error)

    @staticmethod
    def _remember(memory: dict[bytes, T], tx_id: bytes, value: T) -> None:
        memory[tx_id] = value
        while len(memory) > PROMISES_MAX:
            del memory[next(iter(memory))]
