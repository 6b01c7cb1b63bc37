"""What must hold after every step of every run, whatever the network, the disks and f liars do.

Everything is judged from outside: from messages as they leave a node, from what engines tell of, and from what the
disks hold after a crash.
"""

from __future__ import annotations

from consensus.ready import BlockFinal, DoubleVote, Event, HeadChanged, TransactionDropped
from consensus.rows import read_final_id
from consensus.votes import Link, link_of
from ledger.block import Block, Totals, Vote, block_id_of, is_void
from ledger.cdr import CallRecord, record_key_of
from ledger.codec import decode, decode_each
from ledger.transaction import Transaction
from node.sim.clock import SimClock
from node.sim.node import SimNode
from node.sim.transcript import Transcript
from node.sim.world import World, member_name


class Violation(AssertionError):
    """An invariant does not hold."""


class Invariants:
    """The judge of one run.

    Attributes:
        final: the id of the final block at each height, as the first node told it.
        accepted: transactions that a quorum of producers has on disk.
        included: transactions of final blocks.
        void: accepted transactions all of whose records had counted.
    """

    def __init__(self, world: World, clock: SimClock, transcript: Transcript) -> None:
        self.final: dict[int, bytes] = {0: world.chain_id}
        self.final_at_ms: dict[int, int] = {0: clock.now_ms}
        self.accepted: dict[bytes, int] = {}
        self.included: set[bytes] = set()
        self.void: set[bytes] = set()
        self.rejects = 0
        self._world = world
        self._clock = clock
        self._transcript = transcript
        self._reached: dict[int, int] = {}
        self._roots: dict[int, tuple[bytes, bytes, Totals]] = {}
        self._counted: set[bytes] = set()
        self._votes: dict[int, dict[int, Link]] = {}
        self._max_source: dict[int, int] = {}
        self._seals: dict[int, dict[int, bytes]] = {}

    # -- what is seen ----------------------------------------------------------------------------------------------

    def on_start(self, node: SimNode) -> None:
        """Check that a crash undid nothing final."""
        assert node.engine is not None
        final = node.engine.final
        self._say(node, f"starts at height {node.engine.head.height}, final {final.height}")
        if not node.is_honest:
            return
        self._check_not_undone(node)
        for height in range(1, final.height + 1):
            block_id = read_final_id(node.store, height)
            if height in self.final and block_id != self.final[height]:
                raise Violation(f"n{node.number} restarted with another final block at height {height}")

    def on_crash(self, node: SimNode) -> None:
        """Note it."""
        self._say(node, "crashes")

    def on_reject(self, node: SimNode, sender: int, reason: str) -> None:
        """Honest nodes send no lies, though an honest node may pass a liar's words on unjudged: it never does."""
        self.rejects += 1
        self._say(node, f"rejects what n{sender} sent: {reason}")

    def on_sent(self, node: SimNode, message: Block | Vote) -> None:
        """Hold every own vote and block that leaves an honest node against V1, V2 and V3."""
        if isinstance(message, Vote):
            self._say(node, f"votes {message.s_height} -> {message.t_height} {message.t_id.hex()[:6]}")
            if node.is_honest:
                self._check_vote(node.number, link_of(message))
            return
        header = message.sealed.header
        block_id = block_id_of(header)
        certificate = message.sealed.certificate
        carries = f", certificate on {certificate.t_height}" if certificate else ""
        self._say(
            node,
            f"seals slot {header.slot} height {header.height} {block_id.hex()[:6]} on {header.parent_id.hex()[:6]}: "
            f"{len(message.body)} transactions{carries}",
        )
        if node.is_honest:
            self._check_seal(node.number, header.slot, block_id)

    def on_event(self, node: SimNode, event: Event) -> None:
        """Judge what an engine tells of."""
        match event:
            case BlockFinal():
                self._say(node, f"final {event.node.height} {event.node.block_id.hex()[:6]}")
                if node.is_honest:
                    self._check_final(node, event)
            case TransactionDropped():
                self._say(node, f"drops {event.tx_id.hex()[:6]}: {event.reason}")
                if node.is_honest:
                    self._check_dropped(node, event)
            case HeadChanged(is_reorg=True):
                self._say(node, f"changes to {event.head.block_id.hex()[:6]} at height {event.head.height}")
            case DoubleVote():
                self._say(node, f"sees a double vote at height {event.second.t_height}")
                if not node.is_honest:
                    return
                number = next(p for p in range(64) if member_name(p) == self._member_of(node, event.second.key_id))
                if not any(peer.number == number and not peer.is_honest for peer in node.peers):
                    raise Violation(f"n{node.number} holds a proof that honest n{number} voted twice")
            case _:
                pass

    def on_accepted(self, node: SimNode, tx_id: bytes) -> None:
        """Remember a promise."""
        if node.is_honest:
            self.accepted.setdefault(tx_id, self._clock.now_ms)

    def on_step(self, node: SimNode) -> None:
        """Check what a step may never do."""
        if node.is_honest:
            self._check_not_undone(node)

    # -- what must hold --------------------------------------------------------------------------------------------

    def _check_not_undone(self, node: SimNode) -> None:
        assert node.engine is not None
        final = node.engine.final
        if final.height < self._reached.get(node.number, 0):
            raise Violation(
                f"n{node.number} went back from final height {self._reached[node.number]} to {final.height}"
            )
        self._reached[node.number] = final.height
        known = self.final.get(final.height)
        if known is not None and known != final.block_id:
            raise Violation(f"conflicting final blocks at height {final.height}: n{node.number} has another one")

    def _check_vote(self, number: int, link: Link) -> None:
        votes = self._votes.setdefault(number, {})
        height = link.target.height
        if votes.get(height) == link:
            return  # sent again
        if votes and height <= max(votes):
            raise Violation(f"V1: n{number} votes for height {height} after {max(votes)}")
        if link.source.height < self._max_source.get(number, 0):
            raise Violation(f"V2: n{number} votes from {link.source.height} after {self._max_source[number]}")
        votes[height] = link
        self._max_source[number] = link.source.height

    def _check_seal(self, number: int, slot: int, block_id: bytes) -> None:
        seals = self._seals.setdefault(number, {})
        if seals.get(slot) == block_id:
            return
        if seals and slot <= max(seals):
            raise Violation(f"V3: n{number} seals slot {slot} after {max(seals)}")
        seals[slot] = block_id

    def _check_final(self, node: SimNode, event: BlockFinal) -> None:
        height, block_id = event.node.height, event.node.block_id
        known = self.final.get(height)
        if known is not None and known != block_id:
            raise Violation(f"conflicting final blocks at height {height}: n{node.number} has another one")
        header = event.block.sealed.header
        roots = (event.node.chain.state.tree.root, event.node.chain.history.root(), header.totals)
        if self._roots.setdefault(height, roots) != roots:
            raise Violation(f"n{node.number} has another state at height {height}")
        if known is None:
            if self.final.get(height - 1) not in (None, header.parent_id):
                raise Violation(f"the final block at {height} is not a child of the one before")
            self.final[height] = block_id
            self.final_at_ms[height] = self._clock.now_ms
            self._count(node, event.block)

    def _count(self, node: SimNode, block: Block) -> None:
        """Count the records of a block that is final for the first time, each at most once."""
        counted = 0
        for item in block.body:
            if item.tx_id in self.included:
                raise Violation(f"transaction {item.tx_id.hex()[:6]} is final twice")
            self.included.add(item.tx_id)
            for index, record_key in enumerate(self._record_keys(node, item.tx_id)):
                if is_void(item.void_bitmap, index):
                    continue
                if record_key in self._counted:
                    raise Violation(f"a record of {item.tx_id.hex()[:6]} counted twice")
                self._counted.add(record_key)
                counted += 1
        if counted != block.sealed.header.totals.records:
            raise Violation(f"height {block.sealed.header.height} counts {counted} records and says otherwise")

    def _record_keys(self, node: SimNode, tx_id: bytes) -> list[bytes]:
        raw = node.store.body(tx_id)
        if raw is None:
            raise Violation(f"n{node.number} lost the body of {tx_id.hex()[:6]}")
        transaction = decode(raw, Transaction)
        records = decode_each(transaction.items, CallRecord)
        return [record_key_of(transaction.envelope.member_id, record) for record in records]

    def _check_dropped(self, node: SimNode, event: TransactionDropped) -> None:
        raw = node.store.body(event.tx_id)
        assert raw is not None
        if event.reason == "expired":
            if decode(raw, Transaction).envelope.expires_ms > node.now_ms:
                raise Violation(f"n{node.number} dropped {event.tx_id.hex()[:6]} before it expired")
            return
        if not self._counted.issuperset(self._record_keys(node, event.tx_id)):
            raise Violation(f"n{node.number} dropped {event.tx_id.hex()[:6]}, whose records do not all count")
        self.void.add(event.tx_id)

    # -- at the end ------------------------------------------------------------------------------------------------

    def lost(self, nodes: list[SimNode]) -> list[bytes]:
        """Return accepted transactions that are neither final nor, all their records having counted, void."""
        missing = [tx_id for tx_id in self.accepted if tx_id not in self.included and tx_id not in self.void]
        return [tx_id for tx_id in missing if not self._counted.issuperset(self._keys_anywhere(nodes, tx_id))]

    def _keys_anywhere(self, nodes: list[SimNode], tx_id: bytes) -> list[bytes]:
        holder = next((node for node in nodes if node.store.has_body(tx_id)), None)
        if holder is None:
            raise Violation(f"no honest node holds accepted {tx_id.hex()[:6]}")
        return self._record_keys(holder, tx_id)

    def _member_of(self, node: SimNode, key_id: bytes) -> str:
        assert node.engine is not None
        return next(p.member_id for p in node.engine.producers if p.key_id == key_id)

    def _say(self, node: SimNode, text: str) -> None:
        self._transcript.say(self._clock.now_ms, f"n{node.number}", text)
