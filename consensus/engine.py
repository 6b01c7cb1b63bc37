"""The consensus of one node: blocks and votes in, blocks and votes out.

A state machine without I/O and without a clock: time is an argument, and what must be written comes out of
``take_ready`` before what must be sent. The same object runs in a node and in the simulator.

Source: docs/consensus.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from consensus.election import Producer
from consensus.finality import BranchFinality, makes_final
from consensus.forkchoice import choose_head
from consensus.params import quorum_of
from consensus.pool import Pool
from consensus.ready import BlockFinal, DoubleVote, HeadChanged, Ready, TransactionDropped
from consensus.recovery import final_point_of, restore_tree
from consensus.rows import (
    BEST_CERTIFICATE,
    FINAL_CERTIFICATE,
    FINAL_POINT,
    abandoned_puts,
    block_puts,
    final_puts,
    guard_key,
    read_block,
    read_certificate,
    read_final_id,
    read_guard,
    read_unfinal,
)
from consensus.schedule import producer_at
from consensus.tree import BlockNode
from consensus.verdict import Verdict
from consensus.votes import TARGET_AHEAD_MAX, VoteGuard, VotePool, check_certificate, digest_of, link_of
from ledger.block import Block, Certificate, SealedHeader, Vote, block_id_of, certificate_hash
from ledger.cdr import CallRecord
from ledger.codec import decode, decode_each, encode
from ledger.crypto import PrivateKey, is_valid_signature
from ledger.errors import (
    InvalidBlock,
    InvalidVote,
    LedgerError,
    StoreDamaged,
    UnknownParent,
    UnusableTransaction,
    WrongProducer,
)
from ledger.genesis import Genesis
from ledger.record_index import Overlay, RecordIndex, SeenRecords
from ledger.store import Space, Store
from ledger.transaction import Transaction
from ledger.transition import BodyBuilder, apply_block, block_time_ms, chain_after, make_header
from ledger.validation import CheckedTransaction

AHEAD_SLOTS_MAX = 1
"""Blocks of slots that have not begun here are taken this far ahead: clocks are never exactly equal."""
ORPHANS_MAX = 64
"""Blocks held while their parent is fetched."""
BLOCKS_PER_SLOT_MAX = 2
"""Blocks of one producer in one slot that are kept: one is right, the second is proof of a fault."""
HEARD_SLOTS = 4
"""A producer heard from within this many slots is being heard."""
RESEND_SLOTS = 2
"""An own vote that led to nothing is sent again after this many slots: a connection may have dropped it."""

CheckRaw = Callable[[bytes], CheckedTransaction]


class Engine:
    """One node's view of the chain, and its part in making it.

    Attributes:
        tree: the final block and what is above it.
        head: tip of the best chain.
        pool: pending transactions.
        guard: what this node's key has promised.
    """

    def __init__(self, genesis: Genesis, store: Store, *, key: PrivateKey | None, check: CheckRaw) -> None:
        """Rebuild everything from ``store``; ``check`` validates raw transactions read back from it."""
        self.genesis = genesis
        self._store = store
        self._key = key
        self._check = check
        self._index = RecordIndex(store)
        self._ready = Ready()
        self._orphans: dict[bytes, list[Block]] = {}
        self._heard: dict[bytes, int] = {}
        self._void_at: dict[bytes, int] = {}
        self._own_vote: Vote | None = None
        self._sent_slot = -1
        self._timer_slot = -1
        self.pool = Pool()
        self.tree = restore_tree(genesis, store)
        self.head = self.tree.root
        self.chain_id = self.tree.root.chain.chain_id
        self.votes = VotePool(self.chain_id)
        self.best_certificate = read_certificate(store)
        self.guard = self._restore_guard()
        self._restore_unfinal()
        self._ready = Ready()

    # -- what others may ask ---------------------------------------------------------------------------------------

    @property
    def final(self) -> BlockNode:
        """Return the final block."""
        return self.tree.root

    @property
    def producers(self) -> tuple[Producer, ...]:
        """Return the producers of the head's epoch, by rank."""
        return self.head.voting[-1].producers

    @property
    def quorum(self) -> int:
        """Return how many producers make a quorum."""
        return quorum_of(len(self.producers))

    @property
    def key_id(self) -> bytes | None:
        """Return the id of this node's producer key, None for an observer."""
        return self._key.key_id if self._key else None

    def has_transaction(self, tx_id: bytes) -> bool:
        """Tell whether a transaction's body is on disk here or about to be."""
        return tx_id in self.pool or self._store.has_body(tx_id)

    def included_height(self, tx_id: bytes) -> int | None:
        """Return the height of the block on the best chain, above the final one, that holds ``tx_id``."""
        for node in self.head.branch():
            if node is not self.tree.root and tx_id in node.overlay.tx_ids:
                return node.height
        return None

    def final_height(self, tx_id: bytes) -> int | None:
        """Return the height of the final block that holds ``tx_id``."""
        return self._index.height_of(tx_id)

    def block(self, block_id: bytes) -> Block | None:
        """Return a block from the tree or, once final, from the store."""
        node = self.tree.get(block_id)
        return node.block if node is not None else read_block(self._store, block_id)

    def block_id_at(self, height: int) -> bytes | None:
        """Return the id of the best chain's block at ``height``."""
        if height == 0:
            return self.chain_id
        if height <= self.tree.root.height:
            return read_final_id(self._store, height)
        for node in self.head.branch():
            if node.height == height:
                return node.block_id
        return None

    def slot_at(self, now_ms: int) -> int:
        """Return the slot that ``now_ms`` falls in; negative before genesis."""
        return (now_ms - self.genesis.genesis_time_ms) // self.genesis.parameters.slot_ms

    def is_hearing_quorum(self, now_ms: int) -> bool:
        """Tell whether a quorum of producers, this one included, was heard from within HEARD_SLOTS."""
        since = now_ms - HEARD_SLOTS * self.genesis.parameters.slot_ms
        heard = sum(p.key_id == self.key_id or self._heard.get(p.key_id, -1) >= since for p in self.producers)
        return heard >= self.quorum

    # -- input -----------------------------------------------------------------------------------------------------

    def heard(self, key_id: bytes, *, now_ms: int) -> None:
        """Note that something authentic came from a node key."""
        self._heard[key_id] = now_ms

    def add_transaction(self, tx: CheckedTransaction) -> None:
        """Take in a transaction that is checked and whose body is on disk."""
        if self._index.height_of(tx.tx_id) is None:
            self.pool.add(tx)

    def receive_block(self, block: Block, *, now_ms: int) -> Verdict:
        """Validate a block all of whose transactions are on disk, and follow it if it is on the best chain.

        Raises InvalidBlock for a lie, UnknownParent where an ancestor is missing: the block is held until it comes.
        """
        header = block.sealed.header
        block_id = block_id_of(header)
        # [IGNORE] It is new and above the final block
        if block_id in self.tree.nodes or header.height <= self.tree.root.height:
            return Verdict.IGNORE
        # [REJECT] A member's producer sealed it for this chain
        self.check_header(block.sealed)
        # [IGNORE] Its slot has begun, give or take
        if header.slot > self.slot_at(now_ms) + AHEAD_SLOTS_MAX:
            return Verdict.IGNORE
        # [IGNORE] At most two by one producer in one slot
        same_slot = [n for n in self.tree.nodes.values() if n.slot == header.slot and n.block]
        if sum(_producer_of(n) == header.producer_key_id for n in same_slot) >= BLOCKS_PER_SLOT_MAX:
            return Verdict.IGNORE
        if header.parent_id not in self.tree.nodes:
            self._hold(block)
            raise UnknownParent("the parent is not known here", where="parent_id", actual=header.parent_id)
        self._insert(self._validate(block))
        self.heard(header.producer_key_id, now_ms=now_ms)
        self._adopt_orphans(block_id)
        self._update_head()
        return Verdict.ACCEPT

    def receive_vote(self, vote: Vote, *, now_ms: int) -> Verdict:
        """Count a vote. Raises InvalidVote for a wrong signature or a link that leads downwards."""
        link = link_of(vote)
        producer = next((p for p in self.producers if p.key_id == vote.key_id), None)
        # [IGNORE] The voter is a producer, and the target is above the final block and near enough
        if producer is None:
            return Verdict.IGNORE
        if not self.tree.root.height < link.target.height <= self.tree.root.height + TARGET_AHEAD_MAX:
            return Verdict.IGNORE
        # [REJECT] The link leads upwards
        if link.source.height >= link.target.height:
            raise InvalidVote("the target is not above the source", where="t_height", actual=vote.t_height)
        if not self.votes.add(vote, producer.public_key):
            return Verdict.IGNORE
        self.heard(vote.key_id, now_ms=now_ms)
        other = self.votes.conflicting(link, vote.key_id)
        if other is not None:
            self._ready.events.append(DoubleVote(other, vote))
        target = self.tree.get(link.target.block_id)
        if target is not None and target.link == link:
            self._certify_from_votes(target)
            self._update_head()
        return Verdict.ACCEPT

    def handle_timer(self, *, now_ms: int) -> None:
        """Do what is due in this slot: seal a block if it is this node's turn, send an unanswered vote again."""
        slot = self.slot_at(now_ms)
        self._timer_slot = max(self._timer_slot, slot)
        self._drop_expired(now_ms)
        vote = self._own_vote
        if vote and vote.t_height > self.tree.root.height and slot >= self._sent_slot + RESEND_SLOTS:
            self._ready.messages.append(vote)
            self._sent_slot = slot
        if self._may_seal(slot):
            self._seal(slot, now_ms)

    def next_timer_ms(self) -> int | None:
        """Return when ``handle_timer`` wants to be called: at the start of the next slot."""
        parameters = self.genesis.parameters
        return self.genesis.genesis_time_ms + (self._timer_slot + 1) * parameters.slot_ms

    def take_ready(self) -> Ready:
        """Cast the vote owed for the head and return everything to write, send and tell, in that order."""
        self._vote()
        ready, self._ready = self._ready, Ready()
        return ready

    def written(self) -> None:
        """Note that every ``puts`` taken so far is durable: memory held for it may go."""
        self._index.trim()

    # -- checks ----------------------------------------------------------------------------------------------------

    def check_header(self, sealed: SealedHeader) -> None:
        """Check what a header says without its parent. Raises InvalidBlock."""
        header = sealed.header
        # [REJECT] It is for this chain
        if header.chain_id != self.chain_id:
            raise InvalidBlock("for another chain", where="chain_id", expected=self.chain_id, actual=header.chain_id)
        producer = next((p for p in self.producers if p.key_id == header.producer_key_id), None)
        # [REJECT] A producer signed it
        if producer is None:
            raise WrongProducer("not a producer's key", where="producer_key_id", actual=header.producer_key_id)
        if not is_valid_signature(producer.public_key, block_id_of(header), sealed.signature):
            raise InvalidBlock("the signature does not verify", where="signature", actual=sealed.signature)
        # [REJECT] The certificate is the one in the header
        if certificate_hash(sealed.certificate) != header.qc_hash:
            raise InvalidBlock("not the certificate in the header", where="qc_hash", actual=header.qc_hash)

    def check_certificate(self, certificate: Certificate) -> None:
        """Check a certificate's signatures by the current sets. Raises InvalidVote."""
        check_certificate(certificate, self.head.voting, self.chain_id, self.votes.signature)

    def _validate(self, block: Block) -> BlockNode:
        """Return the node of a block on a known parent. Raises InvalidBlock."""
        header = block.sealed.header
        parent = self.tree.nodes[header.parent_id]
        # [REJECT] Slots only go up
        if header.slot <= parent.slot:
            raise InvalidBlock(
                "the slot is not after the parent's", where="slot", expected=f"> {parent.slot}", actual=header.slot
            )
        schedule = parent.schedule_at(header.slot)
        owner = producer_at(schedule, header.slot)
        # [REJECT] The producer owns this slot
        if owner.key_id != header.producer_key_id:
            raise WrongProducer(
                "the slot is another producer's",
                where="producer_key_id",
                expected=f"{owner.key_id.hex()} ({owner.member_id}) in slot {header.slot}",
                actual=header.producer_key_id,
            )
        finality = self._finality_after(parent, block.sealed.certificate)
        transactions = [self._transaction(item.tx_id) for item in block.body]
        seen = SeenRecords(self._index, self.tree.overlays(parent))
        time_ms = block_time_ms(self.genesis, header.slot)
        chain = apply_block(parent.chain, block, transactions, time_ms, seen, self._read_records)
        last = header.height if block.body else parent.last_records_height
        return BlockNode(
            block,
            chain,
            finality,
            schedule,
            parent.voting,
            parent=parent,
            overlay=seen.overlay,
            last_records_height=last,
        )

    def _finality_after(self, parent: BlockNode, certificate: Certificate | None) -> BranchFinality:
        """Return what the branch proves once it carries ``certificate``. Raises InvalidBlock."""
        if certificate is None:
            return parent.finality
        link = link_of(certificate)
        found = self.tree.link_on_branch(parent, link.target)
        # [REJECT] The target is an ancestor, higher than any certified before in this chain
        if found is None or link.target.height <= parent.finality.justified.height:
            raise InvalidBlock(
                "the certificate's target is not an ancestor above the last one certified",
                where="certificate.t_id",
                expected=f"an ancestor above height {parent.finality.justified.height}",
                actual=f"{link.target.block_id.hex()} at {link.target.height}",
            )
        # [REJECT] The source is the one that the target's own chain gives
        right, node = found
        if right != link:
            raise InvalidBlock(
                "wrong source", where="certificate.s_id", expected=right.source.block_id, actual=link.source.block_id
            )
        try:
            sets = node.voting if node else parent.voting
            check_certificate(certificate, sets, self.chain_id, self.votes.signature)
        except InvalidVote as error:
            raise InvalidBlock(
                error.what, where=f"certificate.{error.where}", expected=error.expected, actual=error.actual
            ) from None
        return parent.finality.after(link)

    def _transaction(self, tx_id: bytes) -> CheckedTransaction:
        """Return a transaction from the pool or, after a restart or on another branch, from disk."""
        tx = self.pool.get(tx_id)
        if tx is not None:
            return tx
        raw = self._store.body(tx_id)
        if raw is None:
            raise LedgerError("a block was handed over without all its transactions", where="body", actual=tx_id)
        tx = self._check(raw)
        self.add_transaction(tx)
        return tx

    def _read_records(self, tx_id: bytes) -> list[CallRecord]:
        raw = self._store.body(tx_id)
        if raw is None:
            raise StoreDamaged("a transaction taken in is not on disk", where=f"transaction {tx_id.hex()}")
        return decode_each(decode(raw, Transaction).items, CallRecord)

    # -- the tree --------------------------------------------------------------------------------------------------

    def _hold(self, block: Block) -> None:
        """Keep a block until its parent comes; the oldest goes when there are too many."""
        held = self._orphans.setdefault(block.sealed.header.parent_id, [])
        if block not in held:
            held.append(block)
        while sum(map(len, self._orphans.values())) > ORPHANS_MAX:
            self._orphans.pop(next(iter(self._orphans)))

    def _adopt_orphans(self, block_id: bytes) -> None:
        """Insert held descendants of ``block_id``; one that lies is dropped, its sender unknown by now."""
        waiting = self._orphans.pop(block_id, [])
        while waiting:
            block = waiting.pop()
            child_id = block_id_of(block.sealed.header)
            if block.sealed.header.parent_id not in self.tree.nodes or child_id in self.tree.nodes:
                continue
            try:
                self._insert(self._validate(block))
            except LedgerError:
                continue
            waiting.extend(self._orphans.pop(child_id, []))

    def _insert(self, node: BlockNode) -> None:
        """Add a validated block, and draw what its certificate and the votes held prove."""
        assert node.block is not None
        self.tree.add(node)
        self._ready.puts.extend(block_puts(node.block_id, node.block))
        certificate = node.block.sealed.certificate
        if certificate is not None:
            self._certified(certificate)
        self._certify_from_votes(node)

    def _certify_from_votes(self, node: BlockNode) -> None:
        if not node.certified and node is not self.tree.root:
            certificate = self.votes.certificate(node.link, node.voting)
            if certificate is not None:
                self._certified(certificate)

    def _certified(self, certificate: Certificate) -> None:
        """Note a valid certificate on a block of the tree; finalise its source where that follows."""
        link = link_of(certificate)
        best = self.best_certificate
        if best is None or certificate.t_height > best.t_height:
            self.best_certificate = certificate
            self._ready.puts.append((BEST_CERTIFICATE, encode(certificate)))
        target = self.tree.get(link.target.block_id)
        if target is not None and not target.certified:
            self.tree.certify(target)
        source = self.tree.get(link.source.block_id)
        if makes_final(link) and source is not None and source is not self.tree.root:
            self._ready.puts.append((FINAL_CERTIFICATE, encode(certificate)))
            self._finalise(source)

    def _finalise(self, node: BlockNode) -> None:
        """Make ``node`` and its ancestors final: the point of no return."""
        path, abandoned = self.tree.advance(node)
        puts = self._ready.puts
        for here in path:
            assert here.block is not None
            puts.extend(self._index.add(here.height, here.overlay))
            puts.extend(final_puts(here.height, here.block_id))
            for item in here.block.body:
                self.pool.remove(item.tx_id)
                puts.append((Space.PENDING.value + item.tx_id, None))
            self._ready.events.append(BlockFinal(here, here.block))
        for lost in abandoned:
            puts.extend(abandoned_puts(lost.height, lost.block_id))
        node.overlay = Overlay()
        puts.append((FINAL_POINT, encode(final_point_of(self.tree))))
        self.votes.prune(node.height)
        self._drop_void()
        if self.head.block_id not in self.tree.nodes:
            self.head = node

    def _update_head(self) -> None:
        """Follow the best tip."""
        best = choose_head(self.tree.tips())
        if best is not self.head:
            is_reorg = self.head not in best.branch()
            if is_reorg:
                self._void_at.clear()
            self.head = best
            self._ready.events.append(HeadChanged(best, is_reorg))

    # -- voting and sealing ----------------------------------------------------------------------------------------

    def _vote(self) -> None:
        """Vote for the head if V1 and V2 allow it; the guard is in the writes that precede the vote."""
        head = self.head
        if self._key is None or head.block is None or head is self.tree.root:
            return
        if all(voting_set.index_of(self._key.key_id) is None for voting_set in head.voting):
            return
        if not self.guard.may_vote(head.link):
            return
        self._set_guard(self.guard.after_vote(head.link))
        signature = self._key.sign(digest_of(self.chain_id, head.link))
        vote = Vote(*head.link.source, *head.link.target, self._key.key_id, signature)
        self.votes.add(vote, self._key.public_key)
        self._own_vote = vote
        self._sent_slot = self._timer_slot
        self._ready.messages.append(vote)
        self._certify_from_votes(head)
        self._update_head()

    def _may_seal(self, slot: int) -> bool:
        """Tell whether ``slot`` is this node's, is new on the head, and V3 allows it."""
        if self._key is None or slot <= self.head.slot or slot < self.guard.next_slot:
            return False
        return producer_at(self.head.schedule_at(slot), slot).key_id == self._key.key_id

    def _seal(self, slot: int, now_ms: int) -> None:
        """Seal a block on the head if there is reason to."""
        assert self._key is not None
        parent = self.head
        seen = SeenRecords(self._index, self.tree.overlays(parent))
        time_ms = block_time_ms(self.genesis, slot)
        builder = BodyBuilder(parent.chain.state, time_ms, seen, self._read_records)
        self._fill(builder)
        if not builder.body and not self._is_empty_block_due(slot, now_ms):
            return
        certificate = self._certificate_to_carry(parent)
        header = make_header(parent.chain, slot, self._key.key_id, builder, certificate)
        sealed = SealedHeader(header, self._key.sign(block_id_of(header)), certificate)
        block = Block(sealed, builder.body)
        # A crash from here on leaves a slot that stays empty, never a second header for it (V3).
        self._set_guard(self.guard.after_seal(slot))
        node = BlockNode(
            block,
            chain_after(parent.chain, header),
            parent.finality.after(link_of(certificate)) if certificate else parent.finality,
            parent.schedule_at(slot),
            parent.voting,
            parent=parent,
            overlay=seen.overlay,
            last_records_height=header.height if block.body else parent.last_records_height,
        )
        self._ready.messages.append(block)
        self._insert(node)
        self._update_head()

    def _fill(self, builder: BodyBuilder) -> None:
        """Put pending transactions into a body, oldest first, as many as fit."""
        for tx in self.pool:
            if tx.tx_id in self._void_at or not builder.fits(tx):
                continue
            try:
                builder.add(tx)
            except UnusableTransaction as error:
                if error.where == "tx_id" and not builder.seen.has_transaction(tx.tx_id):
                    self._void_at[tx.tx_id] = self.head.height

    def _is_empty_block_due(self, slot: int, now_ms: int) -> bool:
        """Tell whether to seal a block without transactions: for votes owed on records, or as a heartbeat."""
        head, final = self.head, self.tree.root
        is_owed = head.last_records_height > final.height
        is_heartbeat = slot - head.slot >= self.genesis.parameters.heartbeat_slots
        if not is_owed and not is_heartbeat:
            return False
        if head.height - final.height < self.genesis.parameters.max_unfinal:
            return True
        return self.is_hearing_quorum(now_ms)

    def _certificate_to_carry(self, parent: BlockNode) -> Certificate | None:
        """Return the highest certificate on ``parent`` or an ancestor that its chain does not carry yet."""
        for node in parent.branch():
            if node.height <= parent.finality.justified.height:
                return None
            certificate = self._certificate_on(node)
            if certificate is not None:
                return certificate
        return None

    def _certificate_on(self, node: BlockNode) -> Certificate | None:
        best = self.best_certificate
        if best is not None and link_of(best) == node.link:
            return best
        return self.votes.certificate(node.link, node.voting)

    def _set_guard(self, guard: VoteGuard) -> None:
        assert self._key is not None
        self.guard = guard
        self._ready.puts.append((guard_key(self._key.key_id), encode(guard)))

    # -- pending transactions --------------------------------------------------------------------------------------

    def _drop_expired(self, now_ms: int) -> None:
        """Forget transactions that no later block may hold."""
        expired = [tx.tx_id for tx in self.pool if tx.envelope.expires_ms <= now_ms]
        for tx_id in expired:
            if self.included_height(tx_id) is None:
                self._drop(tx_id, "expired")

    def _drop_void(self) -> None:
        """Forget transactions whose records were all void on what is final now."""
        height = self.tree.root.height
        for tx_id in [tx_id for tx_id, at in self._void_at.items() if at <= height]:
            del self._void_at[tx_id]
            if tx_id in self.pool:
                self._drop(tx_id, "void")

    def _drop(self, tx_id: bytes, reason: str) -> None:
        self.pool.remove(tx_id)
        self._ready.puts.append((Space.PENDING.value + tx_id, None))
        self._ready.events.append(TransactionDropped(tx_id, reason))

    # -- after a restart -------------------------------------------------------------------------------------------

    def _restore_guard(self) -> VoteGuard:
        if self._key is None:
            return VoteGuard()
        guard = read_guard(self._store, self._key.key_id)
        return guard or VoteGuard()

    def _restore_unfinal(self) -> None:
        """Validate the stored blocks above the final one again, then take in the pending transactions."""
        for block_id in read_unfinal(self._store):
            block = read_block(self._store, block_id)
            if block is None or block.sealed.header.parent_id not in self.tree.nodes:
                continue
            self._insert(self._validate(block))
        if self.best_certificate is not None:
            self._certified(self.best_certificate)
        start, stop = Space.PENDING.value, bytes([Space.PENDING.value[0] + 1])
        self._take_in(key[1:] for key, _ in self._store.scan(start, stop))
        self._update_head()

    def _take_in(self, tx_ids: Iterable[bytes]) -> None:
        for tx_id in tx_ids:
            raw = self._store.body(tx_id)
            if raw is None or tx_id in self.pool:
                continue
            try:
                self.add_transaction(self._check(raw))
            except UnusableTransaction:
                continue


def _producer_of(node: BlockNode) -> bytes:
    assert node.block is not None
    return node.block.sealed.header.producer_key_id
