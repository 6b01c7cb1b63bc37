"""What must hold after every step of every run, whatever the network, the disks and f liars do.

Everything is judged from outside: from messages as they leave a node, from what engines tell of, and from what the
disks hold after a crash.
"""

from __future__ import annotations

from collections import Counter

from consensus.ready import BlockFinal, Event, FaultProven, HeadChanged, TransactionDropped
from consensus.rows import read_final_id
from consensus.tree import BlockNode
from consensus.votes import Link, link_of
from ledger.block import Block, Totals, Vote, block_id_of, is_void
from ledger.cdr import CallRecord, record_key_of
from ledger.codec import decode, decode_each
from ledger.crypto import key_id_of
from ledger.genesis import Role
from ledger.transaction import Transaction
from node.sim.clock import SimClock
from node.sim.judge import Judge, Violation
from node.sim.node import SimNode
from node.sim.transcript import Transcript
from node.sim.world import SLOT_MS, World, number_of_key

__all__ = ["Invariants", "Violation"]

DEEP = 4
"""Reorganisations of so many blocks and more are counted as one kind: in a short run they are rare."""


class Invariants:
    """The judge of one run.

    Attributes:
        final: the id of the final block at each height, as the first node told it.
        accepted: transactions that a quorum of producers has on disk.
        included: transactions of final blocks.
        void: accepted transactions all of whose records had counted.
        seen: how often what happened, by the names of ``node.sim.coverage``.
    """

    def __init__(self, world: World, clock: SimClock, transcript: Transcript, liars: list[int]) -> None:
        """``liars``: the numbers of the nodes that it does not bind."""
        self.final: dict[int, bytes] = {0: world.chain_id}
        self.final_at_ms: dict[int, int] = {0: clock.now_ms}
        self.accepted: dict[bytes, int] = {}
        self.included: set[bytes] = set()
        self.void: set[bytes] = set()
        self.seen: Counter[str] = Counter()
        self.judge = Judge(world.chain_id, world.founding, liars, self.seen)
        self._world = world
        self._keys: dict[bytes, list[bytes]] = {}
        self._judged = 0
        self._told: dict[int, tuple[SimNode, BlockFinal]] = {}
        """Final blocks above a height that no node has told of yet."""
        self._clock = clock
        self._transcript = transcript
        self._reached: dict[int, int] = {}
        self._roots: dict[int, tuple[bytes, bytes, Totals]] = {}
        self._counted: set[bytes] = set()
        self._last_vote: dict[int, Link] = {}
        self._max_source: dict[int, int] = {}
        self._last_seal: dict[int, tuple[int, bytes]] = {}
        self._heads: dict[int, BlockNode] = {}
        self._final_ms: dict[int, int] = {}

    # -- what is seen ----------------------------------------------------------------------------------------------

    def on_start(self, node: SimNode) -> None:
        """Check that a crash undid nothing final."""
        assert node.engine is not None
        head, final = node.engine.head, node.engine.final
        self._say(node, "starts at height {}, final {}", head.height, final.height)
        if not node.is_honest:
            return
        if node.life > 1:
            self.seen["restart with unfinal blocks" if head is not final else "restart with nothing unfinal"] += 1
        self._heads[node.number] = head
        self._check_not_undone(node)
        for height in range(1, final.height + 1):
            block_id = read_final_id(node.store, height) or b""
            # It may be final nowhere else, and never told: the power failed after the write.
            if self.final.setdefault(height, block_id) != block_id:
                raise Violation(f"n{node.number} restarted with another final block at height {height}")

    def on_crash(self, node: SimNode, where: str) -> None:
        """Note it."""
        self._say(node, "crashes: {}", where)
        self.seen[f"crash: {where}"] += 1

    def on_reject(self, node: SimNode, sender: int, reason: str) -> None:
        """Honest nodes send no lies, though an honest node may pass a liar's words on unjudged: it never does."""
        self.seen["lie refused"] += 1
        self._say(node, "rejects what n{} sent: {}", sender, reason)

    def on_sent(self, node: SimNode, message: Block | Vote) -> None:
        """Hold every own vote and block that leaves an honest node against V1, V2 and V3."""
        if isinstance(message, Vote):
            self._say(node, "votes {} -> {} {}", message.s_height, message.t_height, message.t_id)
            if node.is_honest:
                self._check_vote(node.number, link_of(message))
            return
        header = message.sealed.header
        block_id = block_id_of(header)
        certificate = message.sealed.certificate
        self._say(
            node,
            "seals slot {} height {} {} on {}: {} transactions{}",
            header.slot,
            header.height,
            block_id,
            header.parent_id,
            len(message.body),
            f", certificate on {certificate.t_height}" if certificate else "",
        )
        self.seen["block sealed" if message.body else "empty block sealed"] += 1
        if node.is_honest:
            self._check_seal(node.number, header.slot, block_id)

    def on_event(self, node: SimNode, event: Event) -> None:
        """Judge what an engine tells of."""
        match event:
            case BlockFinal():
                self._say(node, "final {} {}", event.node.height, event.node.block_id)
                if node.is_honest:
                    self._check_final(node, event)
            case TransactionDropped():
                self._say(node, "drops {}: {}", event.tx_id, event.reason)
                self.seen[f"transaction dropped: {event.reason}"] += 1
                if node.is_honest:
                    self._check_dropped(node, event)
            case HeadChanged():
                if node.is_honest:
                    self._on_head(node, event)
            case FaultProven(member_id, evidence):
                self._say(node, "proves a {} of {}", evidence.fault, member_id)
                self.seen[f"{evidence.fault} proven"] += 1
                self._check_liar(node, key_id_of(evidence.public_key), evidence.fault)

    def _on_head(self, node: SimNode, event: HeadChanged) -> None:
        """Note how deep a reorganisation goes: how many blocks the node leaves."""
        old, self._heads[node.number] = self._heads[node.number], event.head
        if not event.is_reorg:
            return
        kept = {here.block_id for here in event.head.branch()}
        left = 0
        for here in old.branch():
            if here.block_id in kept:
                break
            left += 1
        self._say(node, "changes to {} at height {}, leaving {} blocks", event.head.block_id, event.head.height, left)
        self.seen[f"reorganisation of {_band(left) if left < DEEP else f'{DEEP} and more'}"] += 1

    def on_accepted(self, node: SimNode, tx_id: bytes) -> None:
        """Remember a promise."""
        if node.is_honest and self._world.by_id[tx_id].payload is None:
            self.accepted.setdefault(tx_id, self._clock.now_ms)

    def on_step(self, node: SimNode) -> None:
        """Check what may never happen to a final block."""
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
        last = self._last_vote.get(number)
        if last == link:
            return  # sent again
        height, source = link.target.height, link.source.height
        if last is not None and height <= last.target.height:
            raise Violation(f"V1: n{number} votes for height {height} after {last.target.height}")
        if source < self._max_source.get(number, 0):
            raise Violation(f"V2: n{number} votes from {source} after {self._max_source[number]}")
        self._last_vote[number] = link
        self._max_source[number] = source

    def _check_seal(self, number: int, slot: int, block_id: bytes) -> None:
        last_slot, last_id = self._last_seal.get(number, (-1, b""))
        if slot <= last_slot and block_id != last_id:
            raise Violation(f"V3: n{number} seals slot {slot} after {last_slot}")
        self._last_seal[number] = (slot, block_id)

    def _check_liar(self, node: SimNode, key_id: bytes, deed: str) -> None:
        """Check that a proof is of a liar: nobody else can be proven to have lied."""
        if not node.is_honest:
            return
        culprit = next((peer for peer in [node, *node.peers] if peer.number == number_of_key(key_id)), None)
        if culprit is None or culprit.is_honest:
            raise Violation(f"n{node.number} holds a proof that honest n{culprit and culprit.number} {deed}")

    def _check_final(self, node: SimNode, event: BlockFinal) -> None:
        height, block_id = event.node.height, event.node.block_id
        if self.final.setdefault(height, block_id) != block_id:
            raise Violation(f"conflicting final blocks at height {height}: n{node.number} has another one")
        header = event.block.sealed.header
        roots = (event.node.chain.state.tree.root, event.node.chain.history.root(), header.totals)
        if self._roots.setdefault(height, roots) != roots:
            raise Violation(f"n{node.number} has another state at height {height}")
        self._note_gap(node)
        self.final_at_ms.setdefault(height, self._clock.now_ms)
        if height > self._judged:
            self._told.setdefault(height, (node, event))
        while self._judged + 1 in self._told:
            self._judged += 1
            self._judge(*self._told.pop(self._judged))

    def _judge(self, node: SimNode, event: BlockFinal) -> None:
        """Judge a block that is final, in ascending order and each height once."""
        height, header = event.node.height, event.block.sealed.header
        if self.final[height - 1] != header.parent_id:
            raise Violation(f"the final block at {height} is not a child of the one before")
        self.judge.on_final(height, event.node.block_id, event.block, event.node.chain.state)
        self._count(node, event.block)

    def _count(self, node: SimNode, block: Block) -> None:
        """Count the records of a block that is final for the first time, each at most once."""
        counted = 0
        for item in block.body:
            if item.tx_id in self.included:
                raise Violation(f"transaction {item.tx_id.hex()[:6]} is final twice")
            self.included.add(item.tx_id)
            payload = self._world.by_id[item.tx_id].payload
            if payload is not None:
                self.seen[f"in the chain: {self._world.by_id[item.tx_id].envelope.kind.name.lower()}"] += 1
                continue
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
        """Return the keys of the records of a transaction that ``node`` took in."""
        raw = node.store.body(tx_id)
        if raw is None:
            raise Violation(f"n{node.number} lost the body of {tx_id.hex()[:6]}")
        keys = self._keys.get(tx_id)
        if keys is None:
            transaction = decode(raw, Transaction)
            records = decode_each(transaction.items, CallRecord)
            keys = [record_key_of(transaction.envelope.member_id, record) for record in records]
            self._keys[tx_id] = keys
        return keys

    def _check_dropped(self, node: SimNode, event: TransactionDropped) -> None:
        if event.reason == "expired":
            if self._world.by_id[event.tx_id].envelope.expires_ms > node.now_ms:
                raise Violation(f"n{node.number} dropped {event.tx_id.hex()[:6]} before it expired")
            return
        if not self._counted.issuperset(self._record_keys(node, event.tx_id)):
            raise Violation(f"n{node.number} dropped {event.tx_id.hex()[:6]}, whose records do not all count")
        self.void.add(event.tx_id)

    # -- at the end ------------------------------------------------------------------------------------------------

    def lost(self, nodes: list[SimNode]) -> list[bytes]:
        """Return accepted transactions that are neither final nor void, and whose signer is still one."""
        missing = [tx_id for tx_id in self.accepted if tx_id not in self.included and tx_id not in self.void]
        missing = [tx_id for tx_id in missing if not self._counted.issuperset(self._keys_anywhere(nodes, tx_id))]
        return [tx_id for tx_id in missing if self._may_still_count(nodes[0], tx_id)] if missing else []

    def _may_still_count(self, node: SimNode, tx_id: bytes) -> bool:
        """Tell whether a transaction's signer may sign records still: what a member that left handed in is void."""
        if node.engine is None:
            return True
        key_id = self._world.by_id[tx_id].envelope.key_id
        return node.engine.final.chain.state.key_with_role(key_id, Role.SUBMIT) is not None

    def _keys_anywhere(self, nodes: list[SimNode], tx_id: bytes) -> list[bytes]:
        holder = next((node for node in nodes if node.store.has_body(tx_id)), None)
        if holder is None:
            raise Violation(f"no honest node holds accepted {tx_id.hex()[:6]}")
        return self._record_keys(holder, tx_id)

    def _note_gap(self, node: SimNode) -> None:
        """Note how long nothing became final here; blocks that become final at once count as one."""
        now_ms = self._clock.now_ms
        gap_slots = (now_ms - self._final_ms.get(node.number, now_ms)) // SLOT_MS
        if gap_slots > 1:
            self.seen[f"nothing final for {_band(gap_slots)} slots"] += 1
        self._final_ms[node.number] = now_ms

    def _say(self, node: SimNode, text: str, *facts: object) -> None:
        self._transcript.say(self._clock.now_ms, f"n{node.number}", text, *facts)


def _band(count: int) -> str:
    """Return ``count`` among few bands."""
    for low, high in ((1, 1), (2, 3), (4, 7), (8, 15)):
        if count <= high:
            return str(low) if low == high else f"{low} to {high}"
    return "16 and more"
