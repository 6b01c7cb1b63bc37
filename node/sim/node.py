"""One simulated node: the real engine under the driver's rule that what must be written is written before it is said.

A crash may strike at every point of a step: before, in the middle of and after the write, and between two messages.
After it nothing is left but the store.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from consensus.engine import Engine
from consensus.ready import Event
from consensus.verdict import Verdict
from ledger.block import Block, Vote, block_id_of
from ledger.crypto import PrivateKey
from ledger.errors import InvalidBlock, InvalidVote, UnknownParent, UnusableTransaction
from ledger.store import Space, WriteBatch
from ledger.validation import CheckedTransaction
from node.sim.clock import NodeClock, SimClock
from node.sim.messages import Message, Push, Status, Stored, WantBlock, WantRange, WantTransactions
from node.sim.network import SimNetwork
from node.sim.store import Crashed, Fate, SimStore
from node.sim.world import World, is_stand_in_signature, next_producer_key, number_of_key, producer_key

WAITING_MAX = 64
"""Blocks held while their transactions are fetched."""
RANGE_BLOCKS = 32
"""Blocks in one answer to a node that is behind."""
PUSH_MAX = 20
"""Pending transactions offered again at a time."""
VOTE_RELAYED = 0.5
"""How likely a vote is sent on. Its voter sends it again when it leads to nothing."""
STATUS_MS = 1_000
"""How often a node says how far it is, to one peer."""


class Watcher(Protocol):
    """Who sees everything that happens, from outside."""

    def on_start(self, node: SimNode) -> None:
        """A node has begun with what its store holds."""

    def on_sent(self, node: SimNode, message: Block | Vote) -> None:
        """A block of its own or a vote of its own is leaving a node."""

    def on_event(self, node: SimNode, event: Event) -> None:
        """An engine has told of something."""

    def on_accepted(self, node: SimNode, tx_id: bytes) -> None:
        """A quorum of producers has told ``node`` that it has a transaction on disk."""

    def on_step(self, node: SimNode) -> None:
        """A node has finished a step after which its final block is another one."""

    def on_crash(self, node: SimNode, where: str) -> None:
        """A node is gone; ``where`` in its step that was."""

    def on_reject(self, node: SimNode, sender: int, reason: str) -> None:
        """A node has refused a message as a lie."""


class SimNode:
    """A producer.

    Attributes:
        number: its place among the nodes.
        key: its node key; ``next_key``: the one to which that may be rotated, if it is at hand.
        engine: None while it is down.
        crash_after: how many more points of its steps it lives through; None: it is not struck.
        fate: what becomes of a write in which it is struck.
        on_down: who is told that it fell.
        life: how often it has started.
        clock: what it takes for the time.
        is_honest: whether the invariants bind it.
    """

    is_honest = True
    is_cautious = False

    def __init__(
        self,
        world: World,
        number: int,
        clock: SimClock,
        network: SimNetwork,
        random: Random,
        watch: Watcher,
    ) -> None:
        self.world = world
        self.number = number
        self.key: PrivateKey = producer_key(number)
        self.next_key: PrivateKey | None = None
        self.store = SimStore()
        self.engine: Engine | None = None
        self.peers: list[SimNode] = []
        self._by_number: dict[int, SimNode] = {}
        self.crash_after: int | None = None
        self.fate = Fate.LOST
        self.clock = NodeClock(clock)
        self.on_down: Callable[[SimNode], None] = lambda _node: None
        self._clock = clock
        self._network = network
        self._random = random.random
        self._choose = random.choice
        self._watch = watch
        self.life = 0
        self._holders: dict[bytes, set[int]] = {}
        self._accepted: set[bytes] = set()
        self._waiting: dict[bytes, tuple[Block, int]] = {}
        self._timer = 0
        self._final: object = None

    @property
    def now_ms(self) -> int:
        """Return the time on this node's own clock."""
        return self.clock.now_ms

    def meet(self, nodes: list[SimNode]) -> None:
        """Learn who is there."""
        self.peers = [peer for peer in nodes if peer is not self]
        self._by_number = {peer.number: peer for peer in self.peers}

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with what the store holds."""
        self.life += 1
        self.crash_after = None
        self.store.recover()
        self._holders, self._accepted, self._waiting = {}, set(), {}
        self.engine = Engine(
            self.world.genesis,
            self.store,
            key=self.key,
            next_key=self.next_key,
            check=self.world.check,
            is_valid=is_stand_in_signature,
            is_cautious=self.is_cautious,
        )
        self._final = self.engine.final
        self._watch.on_start(self)
        self._plan_timer()
        self._plan_status(self.life)

    def crash(self, where: str) -> None:
        """Lose everything but the store."""
        self.engine = None
        self._watch.on_crash(self, where)
        self.on_down(self)

    def set_clock(self, step_ms: int, rate: int) -> None:
        """Let its clock jump and go at another rate."""
        self.clock.change(step_ms, rate)
        if self.engine is not None:
            self._plan_timer()

    def _plan_timer(self) -> None:
        """Plan the engine's next timer, and only that one."""
        assert self.engine is not None
        self._timer += 1
        self._clock.at(self.clock.true_ms(self.engine.next_timer_ms()), self._on_timer, self._timer)

    def _on_timer(self, timer: int) -> None:
        if timer == self._timer and self.step(self._handle_timer):
            self._plan_timer()

    def _handle_timer(self, engine: Engine) -> None:
        engine.handle_timer(now_ms=self.now_ms)

    def _plan_status(self, life: int) -> None:
        self._clock.after(STATUS_MS + int(self._random() * 100), self._on_status_due, life)

    def _on_status_due(self, life: int) -> None:
        if life == self.life and self.step(self._gossip):
            self._plan_status(life)

    def step(self, action: Callable[..., None], *arguments: Any) -> bool:
        """Do one thing, write what it asks for, then send. Return whether the node lives on."""
        engine = self.engine
        if engine is None:
            return False
        try:
            action(engine, *arguments)
            self.flush(engine)
        except Crashed as error:
            self.crash(str(error))
            return False
        if engine.final is not self._final:
            self._final = engine.final
            self._watch.on_step(self)
        return True

    def flush(self, engine: Engine) -> None:
        """Persist, then speak."""
        ready = engine.take_ready()
        if ready.puts:
            self.write(WriteBatch(ready.puts))
            engine.written()
        for message in ready.messages:
            self.point("before a message")
            self.announce(message)
        for event in ready.events:
            self._watch.on_event(self, event)

    def write(self, batch: WriteBatch) -> None:
        """Write a batch, or be struck while it is written."""
        if self.crash_after == 0:
            self.store.strike = self.fate
        else:
            self.point("")
        self.store.write(batch)

    def point(self, where: str) -> None:
        """Pass one point at which the power may fail."""
        if self.crash_after is None:
            return
        if self.crash_after == 0:
            raise Crashed(where)
        self.crash_after -= 1

    # -- sending ---------------------------------------------------------------------------------------------------

    def announce(self, message: Block | Vote) -> None:
        """Send an own block or vote to every peer."""
        self._watch.on_sent(self, message)
        self.broadcast(message)

    def broadcast(self, message: Message) -> None:
        """Send to every peer."""
        for peer in self.peers:
            self.send(peer, message)

    def relay(self, message: Message, *but: int) -> None:
        """Send on to some of the peers, drawn anew each time, but not to those that have it."""
        others = [peer for peer in self.peers if peer.number not in but]
        for _ in range(1 + len(others) // 3):
            if others:
                self.send(others.pop(int(self._random() * len(others))), message)

    def send(self, peer: SimNode, message: Message) -> None:
        """Send to one peer."""
        self._network.send(self.number, peer.number, peer.deliver, message, self.number)

    def _answer(self, number: int, message: Message) -> None:
        peer = self._by_number.get(number)
        if peer is not None:
            self.send(peer, message)

    # -- receiving -------------------------------------------------------------------------------------------------

    def submit(self, raw: bytes) -> None:
        """Take in a transaction from a submitter and push it to the peers."""
        self.step(self._take_transactions, (raw,), self.number)

    def deliver(self, message: Message, sender: int) -> None:
        """Take in a message."""
        match message:
            case Vote():
                self.step(self._take_vote, message, sender)
            case Block():
                self.step(self._take_block, message, sender)
            case Push():
                self.step(self._take_transactions, message.raws, sender)
            case _:
                self.step(self._receive, message, sender)

    def _receive(self, engine: Engine, message: Message, sender: int) -> None:
        match message:
            case Stored():
                for tx_id in message.tx_ids:
                    self._holds(engine, tx_id, sender)
            case WantTransactions():
                raws = [raw for tx_id in message.tx_ids if (raw := self.store.body(tx_id)) is not None]
                self._answer(sender, Push(tuple(raws)))
            case WantBlock():
                block = engine.block(message.block_id)
                if block is not None:
                    self._answer(sender, block)
            case WantRange():
                self._send_range(engine, message.height, sender)
            case Status():
                engine.heard(producer_key(sender).key_id, now_ms=self.now_ms)
                if message.head_height > engine.final.height and engine.block(message.head_id) is None:
                    self._answer(sender, WantRange(engine.final.height + 1))
            case _:
                pass

    def _send_range(self, engine: Engine, height: int, sender: int) -> None:
        for here in range(height, height + RANGE_BLOCKS):
            block_id = engine.block_id_at(here)
            block = engine.block(block_id) if block_id else None
            if block is None:
                return
            self._answer(sender, block)

    def _take_transactions(self, engine: Engine, raws: tuple[bytes, ...], sender: int) -> None:
        """Write what is new, tell everybody that it is stored, and try the blocks that waited for it."""
        checked = self._check_all(engine, raws)
        new = {tx.tx_id: (tx, raw) for tx, raw in checked if not engine.has_transaction(tx.tx_id)}
        if new:
            # A crash before the write: the submitter was told nothing. After it: the transaction is found pending.
            puts: list[tuple[bytes, bytes | None]] = [(Space.PENDING.value + tx_id, b"") for tx_id in new]
            self.write(WriteBatch(puts, [(tx_id, raw) for tx_id, (_, raw) in new.items()]))
            for tx, _ in new.values():
                engine.add_transaction(tx)
            self.point("after a transaction is stored")
            if sender == self.number:
                self.broadcast(Push(raws))
        if sender != self.number:
            self._answer(sender, Stored(tuple([tx.tx_id for tx, _ in checked])))
        for tx, _ in checked:
            self._holds(engine, tx.tx_id, self.number, sender)
        self._retry_waiting(engine)

    def _check_all(self, engine: Engine, raws: tuple[bytes, ...]) -> list[tuple[CheckedTransaction, bytes]]:
        """Return the transactions that are right, with their bytes; one by a stranger may be right later."""
        checked = []
        for raw in raws:
            try:
                checked.append((engine.check(raw), raw))
            except UnusableTransaction:
                continue
        return checked

    def _holds(self, engine: Engine, tx_id: bytes, *numbers: int) -> None:
        """Note that nodes have a transaction on disk; once a quorum of voters has, it is accepted."""
        holders = self._holders.setdefault(tx_id, set())
        holders.update(numbers)
        if tx_id in self._accepted or len(holders) < engine.quorum:
            return
        keys = {key(n).key_id for n in holders for key in (producer_key, next_producer_key)}
        if engine.is_quorum(keys):
            self._accepted.add(tx_id)
            self._watch.on_accepted(self, tx_id)

    def _take_block(self, engine: Engine, block: Block, sender: int) -> None:
        missing = tuple(item.tx_id for item in block.body if not engine.has_transaction(item.tx_id))
        if missing:
            self._waiting[block_id_of(block.sealed.header)] = (block, sender)
            while len(self._waiting) > WAITING_MAX:
                del self._waiting[next(iter(self._waiting))]
            self._answer(sender, WantTransactions(missing))
            return
        try:
            if engine.receive_block(block, now_ms=self.now_ms) is Verdict.ACCEPT:
                self.relay(block, sender, number_of_key(block.sealed.header.producer_key_id))
        except UnknownParent:
            self._answer(sender, WantBlock(block.sealed.header.parent_id))
        except InvalidBlock as error:
            self._watch.on_reject(self, sender, error.sentence())

    def _take_vote(self, engine: Engine, vote: Vote, sender: int) -> None:
        try:
            if engine.receive_vote(vote, now_ms=self.now_ms) is Verdict.ACCEPT and self._random() < VOTE_RELAYED:
                self.relay(vote, sender, number_of_key(vote.key_id))
        except InvalidVote as error:
            self._watch.on_reject(self, sender, error.sentence())

    def _retry_waiting(self, engine: Engine) -> None:
        for block_id, (block, sender) in list(self._waiting.items()):
            if all(engine.has_transaction(item.tx_id) for item in block.body):
                self._waiting.pop(block_id, None)
                self._take_block(engine, block, sender)

    # -- from time to time -----------------------------------------------------------------------------------------

    def _gossip(self, engine: Engine) -> None:
        """Say how far this node is, ask again for what is missing, offer again what others may lack."""
        if not self.peers:
            return
        peer = self._choose(self.peers)
        self.send(peer, Status(engine.head.block_id, engine.head.height))
        missing = {
            item.tx_id
            for block, _ in self._waiting.values()
            for item in block.body
            if not engine.has_transaction(item.tx_id)
        }
        if missing:
            self.send(peer, WantTransactions(tuple(sorted(missing))))
        offered = [tx.tx_id for tx in engine.pool if peer.number not in self._holders.get(tx.tx_id, ())][:PUSH_MAX]
        raws = [raw for tx_id in offered if (raw := self.store.body(tx_id)) is not None]
        if raws:
            self.send(peer, Push(tuple(raws)))
