"""A simulated node with the gossip and sync of real ones, over connections that are ordered, as TCP's are.

What the network loses on a connection comes late; a partition or a cut link ends it, and it is made anew when both
sides can be reached. The order of a turn is the driver's (``node/driver.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consensus.engine import Engine
from consensus.verdict import Verdict
from ledger.block import Block, Vote
from ledger.errors import InvalidBlock, InvalidVote, LedgerError, UnknownParent, UnusableTransaction
from ledger.store import Space, WriteBatch
from ledger.validation import CheckedTransaction
from node.node import ChainForPeers
from node.signing import SeenByUs
from node.sim.byzantine import ByzantineNode
from node.sim.node import SimNode
from node.sim.world import member_name
from p2p.gossip import Gossip
from p2p.messages import Seen, Votes
from p2p.seen import SeenExchange
from p2p.sync import Sync, is_for_sync

CONNECT_MS = 400
"""How often a node looks for peers it is not connected to."""
LOST_MS = 300
"""What it costs to send again what was lost."""


class PeeringNode(SimNode):
    """A producer that peers as real nodes do."""

    gossip: Gossip
    sync: Sync
    seen: SeenExchange
    is_cautious = True
    _planned_ms = 0

    def start(self) -> None:
        """Begin with what the store holds; connections come later."""
        self.links: dict[int, int] = {}
        """Peers connected, with the moment before which nothing more arrives there."""
        self.meetings: dict[int, int] = {}
        """How often it was connected to each peer: nothing outlives its connection."""
        self._received: list[tuple[bytes, bytes, bytes]] = []
        self._own: list[bytes] = []
        self._planned_ms = 2**62
        super().start()
        engine = self.engine
        assert engine is not None
        self.gossip = Gossip(
            own_key_id=self.key.key_id,
            is_producer=engine.is_voter,
            is_quorum=engine.is_quorum,
            has_transaction=engine.has_transaction,
            read_transaction=self.store.body,
            read_block=engine.block,
            check_header=engine.check_header,
        )
        self.sync = Sync(
            ChainForPeers(engine, lambda: member_name(self.number)),
            want_transactions=self.gossip.want_transactions,
            scores=self.gossip.scores,
        )
        seen = SeenByUs(engine, lambda: self.now_ms)
        self.seen = SeenExchange(seen.tell, seen.hear)

    def crash(self, where: str) -> None:
        """Lose everything but the store; the peers see their connections end."""
        for peer in self._peering():
            if peer.number in self.links:
                self._part(peer)
        super().crash(where)

    def _peering(self) -> list[PeeringNode]:
        return [peer for peer in self.peers if isinstance(peer, PeeringNode)]

    def _by_key(self, key_id: bytes) -> PeeringNode | None:
        return next((peer for peer in self._peering() if peer.key.key_id == key_id), None)

    # -- connections -----------------------------------------------------------------------------------------------

    def _gossip(self, engine: Engine) -> None:
        """Look after the connections."""
        for peer in self._peering():
            reachable = self._network.reaches(self.number, peer.number) and self._network.reaches(
                peer.number, self.number
            )
            if peer.number in self.links and not reachable:
                self._part(peer)
            elif peer.number not in self.links and reachable and peer.engine is not None:
                self._meet(peer)
        for number in self.links:
            engine.heard(self._key_of(number), now_ms=self.now_ms)

    def _key_of(self, number: int) -> bytes:
        return next(peer.key.key_id for peer in self.peers if peer.number == number)

    def _meet(self, peer: PeeringNode) -> None:
        for one, other in ((self, peer), (peer, self)):
            one.links[other.number] = self._clock.now_ms
            one.meetings[other.number] = one.meetings.get(other.number, 0) + 1
            one.gossip.peer_up(other.key.key_id, other.key.key_id, now_ms=one.now_ms)
            one.sync.peer_up(other.key.key_id, now_ms=one.now_ms)
            one.seen.peer_up(other.key.key_id, now_ms=one.now_ms)
        self._clock.after(1, peer.turn)

    def _part(self, peer: PeeringNode) -> None:
        for one, other in ((self, peer), (peer, self)):
            one.links.pop(other.number, None)
            if one.engine is not None:
                one.gossip.peer_down(other.key.key_id, now_ms=one.now_ms)
                one.sync.peer_down(other.key.key_id, now_ms=one.now_ms)
                one.seen.peer_down(other.key.key_id)

    def send(self, peer: SimNode, message: Any) -> None:
        """Send on a connection, where there is one: in order, and what is lost comes late."""
        if peer.number not in self.links or not isinstance(peer, PeeringNode):
            return
        body = Votes([message]) if isinstance(message, Vote) else message
        delay_ms = self._network.delay_ms(self.number, peer.number, LOST_MS)
        due_ms = max(self._clock.now_ms + delay_ms, self.links[peer.number])
        self.links[peer.number] = due_ms
        meeting = (peer.life, peer.meetings[self.number])
        self._clock.at(due_ms, peer.arrive, body, self, meeting)

    def arrive(self, message: Any, sender: PeeringNode, meeting: tuple[int, int]) -> None:
        """Take in a message, unless the connection it was sent on has ended."""
        if sender.number in self.links and meeting == (self.life, self.meetings[sender.number]):
            self.step(self._hear, message, sender.key.key_id)

    def _hear(self, _engine: Engine, message: Any, sender: bytes) -> None:
        try:
            if isinstance(message, Seen):
                self.seen.receive(message, sender, wall_ms=self.now_ms)
            elif is_for_sync(message):
                self.sync.receive(message, sender, now_ms=self.now_ms)
            else:
                self.gossip.receive(message, sender, now_ms=self.now_ms)
        except LedgerError as error:
            self._charge(sender, error)

    def _charge(self, sender: bytes, error: LedgerError) -> None:
        self.gossip.reject(sender, error.sentence(), now_ms=self.now_ms)
        peer = self._by_key(sender)
        self._watch.on_reject(self, peer.number if peer else -1, error.sentence())

    def set_clock(self, step_ms: int, rate: int) -> None:
        """Let its clock jump and go at another rate."""
        super().set_clock(step_ms, rate)
        if self.engine is not None:
            self._planned_ms = 2**62
            self._plan_turn()

    # -- a turn ----------------------------------------------------------------------------------------------------

    def submit(self, raw: bytes) -> None:
        """Take in a transaction from a submitter."""
        self._own.append(raw)
        self.turn()

    def turn(self) -> None:
        """Take a turn without input."""
        self.step(lambda _engine: None)

    def step(self, action: Callable[..., None], *arguments: Any) -> bool:
        """Take a turn, and plan the next for when a core wants one."""
        lives = super().step(action, *arguments)
        if lives:
            self._plan_turn()
        return lives

    def _plan_turn(self) -> None:
        timers = [core.next_timer_ms() for core in (self.gossip, self.sync, self.seen)]
        due_ms = min((t for t in timers if t is not None), default=2**62)
        if self._received:
            due_ms = self.now_ms
        if due_ms < self._planned_ms:
            self._planned_ms = due_ms
            self._clock.at(self.clock.true_ms(due_ms), self._on_turn, self.life, due_ms)

    def _on_turn(self, life: int, due_ms: int) -> None:
        if life != self.life or due_ms != self._planned_ms:
            return
        self._planned_ms = 2**62
        self.step(self._handle_timers)

    def _handle_timers(self, _engine: Engine) -> None:
        for core in (self.gossip, self.sync, self.seen):
            due_ms = core.next_timer_ms()
            if due_ms is not None and due_ms <= self.now_ms:
                core.handle_timer(now_ms=self.now_ms)

    def flush(self, engine: Engine) -> None:
        """Decide, persist, then speak."""
        self._run_cores(engine)
        checked = self._check_some(engine)
        ready = engine.take_ready()
        puts = [*ready.puts, *((Space.PENDING.value + tx.tx_id, b"") for tx, _, _ in checked)]
        if puts:
            self.write(WriteBatch(puts, [(tx.tx_id, raw) for tx, raw, _ in checked]))
            engine.written()
        for message in ready.messages:
            self.point("before a message")
            self.announce(message)
        for event in ready.events:
            self._watch.on_event(self, event)
        for tx, raw, is_own in checked:
            engine.add_transaction(tx)
            self.gossip.transactions_stored([tx.tx_id], own=is_own, now_ms=self.now_ms, raws=[raw])
            self.sync.transactions_stored([tx.tx_id], now_ms=self.now_ms)
        self._run_cores(engine)

    def announce(self, message: Block | Vote) -> None:
        """Hand an own block or vote to gossip."""
        self._watch.on_sent(self, message)
        if isinstance(message, Block):
            self.gossip.own_block(message)
        else:
            self.gossip.own_vote(message)

    def _check_some(self, engine: Engine) -> list[tuple[CheckedTransaction, bytes, bool]]:
        waiting = [(raw, True) for raw in self._own] + [(raw, False) for raw, _, _ in self._received]
        self._own, self._received = [], []
        checked: dict[bytes, tuple[CheckedTransaction, bytes, bool]] = {}
        for raw, is_own in waiting:
            try:
                tx = engine.check(raw)
            except UnusableTransaction:
                continue
            if not engine.has_transaction(tx.tx_id):
                checked.setdefault(tx.tx_id, (tx, raw, is_own))
            else:
                self.gossip.transactions_stored([tx.tx_id], own=is_own, now_ms=self.now_ms, raws=[raw])
        return list(checked.values())

    def _run_cores(self, engine: Engine) -> None:
        ready = self.gossip.take_ready()
        self._send_all(ready.sends)
        self._received.extend((r.raw, r.sender, r.tx_id) for r in ready.transactions)
        for tx_id in ready.accepted:
            self._watch.on_accepted(self, tx_id)
        for block, sender in ready.blocks:
            self._take_gossiped(engine, block, sender)
        for vote, sender in ready.votes:
            self._take_gossiped_vote(engine, vote, sender)
        fetched = self.sync.take_ready()
        self._send_all([*fetched.sends, *self.seen.take_sends()])
        for block, sender in fetched.blocks:
            try:
                engine.receive_block(block, now_ms=self.now_ms)
            except UnknownParent:
                continue
            except InvalidBlock as error:
                self.sync.block_refused(block, now_ms=self.now_ms)
                self._charge(sender, error)

    def _send_all(self, sends: list[tuple[bytes, Any]]) -> None:
        for key_id, message in sends:
            peer = self._by_key(key_id)
            if peer is not None:
                self.send(peer, message)

    def _take_gossiped(self, engine: Engine, block: Block, sender: bytes) -> None:
        try:
            if engine.receive_block(block, now_ms=self.now_ms) is Verdict.ACCEPT:
                self.gossip.block_accepted(block, sender)
        except UnknownParent:
            self.gossip.block_refused(block)
            self.sync.unknown_parent(block, sender, now_ms=self.now_ms)
        except InvalidBlock as error:
            self.gossip.block_refused(block)
            self._charge(sender, error)

    def _take_gossiped_vote(self, engine: Engine, vote: Vote, sender: bytes) -> None:
        try:
            if engine.receive_vote(vote, now_ms=self.now_ms) is Verdict.ACCEPT:
                self.gossip.vote_accepted(vote, sender, now_ms=self.now_ms)
            else:
                self.gossip.vote_ignored(vote)
        except InvalidVote as error:
            self._charge(sender, error)


class ByzantinePeer(ByzantineNode, PeeringNode):
    """A liar among real peers."""

    is_cautious = False
