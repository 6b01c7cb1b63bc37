"""The consensus of one node: blocks and votes in, blocks and votes out.

A state machine without I/O and without a clock: time is an argument, and what must be written comes out of
``take_ready`` before what must be sent. The same object runs in a node and in the simulator.

Source: docs/consensus.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from contextlib import suppress

from consensus.blockcheck import BlockValidator, check_sealed_header
from consensus.evidence import Faults
from consensus.finality import makes_final
from consensus.forkchoice import choose_head
from consensus.orphans import Orphans
from consensus.pending import Pending
from consensus.pool import Pool
from consensus.ready import BlockFinal, HeadChanged, Outbox, Ready
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
    set_change_puts,
)
from consensus.schedule import producer_at
from consensus.sealing import begin_body, certificate_to_carry, is_empty_block_due, seal_block
from consensus.signing import Signing
from consensus.tree import BlockNode
from consensus.verdict import Verdict
from consensus.votes import TARGET_AHEAD_MAX, SignatureCheck, VoteGuard, VotePool, digest_of, link_of
from ledger.block import Block, Certificate, SealedHeader, Vote, block_id_of
from ledger.codec import encode
from ledger.crypto import PrivateKey, is_valid_signature
from ledger.entries import KeyEntry, Producer
from ledger.errors import InvalidBlock, InvalidVote, UnknownParent, UnusableTransaction
from ledger.genesis import Genesis
from ledger.record_index import Overlay, RecordIndex, SeenRecords
from ledger.state import EMPTY_STATE, state_changes, state_puts
from ledger.store import Store
from ledger.transition import block_time_ms
from ledger.validation import CheckedTransaction, KeyOf

AHEAD_SLOTS_MAX = 1
"""Blocks of slots that have not begun here are taken this far ahead: clocks are never exactly equal."""
BLOCKS_PER_SLOT_MAX = 2
"""Blocks of one producer in one slot that are kept: one is right, the second is proof of a fault."""
HEARD_SLOTS = 4
"""A producer heard from within this many slots is being heard."""
RESEND_SLOTS = 2
"""An own vote that led to nothing is sent again after this many slots: a connection may have dropped it."""


class Engine:
    """One node's view of the chain, and its part in making it.

    Attributes:
        tree: the final block and what is above it.
        head: tip of the best chain.
        pending: transactions that wait to become final.
        index: which records counted.
        guard: what this node's key has promised.
        faults: what was proven of producers.
    """

    def __init__(
        self,
        genesis: Genesis,
        store: Store,
        *,
        key: PrivateKey | None,
        next_key: PrivateKey | None = None,
        check: Callable[[bytes, KeyOf], CheckedTransaction],
        is_valid: SignatureCheck = is_valid_signature,
        is_cautious: bool = False,
    ) -> None:
        """Rebuild everything from ``store``.

        key: seals and votes where it is in office; None for an observer.
        next_key: the one that takes its place: while it is rotated both may be in office, one in each voting set.
        check: validates a raw transaction, given who knows keys by their ids.
        is_cautious: keys sign only once peers have told what they saw of them.
        """
        self.genesis = genesis
        self._store = store
        self._keys = {k.key_id: k for k in (key, next_key) if k is not None}
        self._is_valid = is_valid
        self._outbox = Outbox()
        self._orphans = Orphans()
        self._heard: dict[bytes, int] = {}
        self._own_votes: list[Vote] = []
        self._sent_slot = -1
        self._timer_slot = self._now_slot = -1
        self._has_left_branch = False
        self.index = RecordIndex(store)
        self._check = check
        self.pending = Pending(store, self.index, self.check, self._outbox)
        self.tree = restore_tree(genesis, store)
        self.head = self.tree.root
        self.chain_id = self.tree.root.chain.chain_id
        self.votes = VotePool(self.chain_id, is_valid)
        self.best_certificate = read_certificate(store)
        self.guard = read_guard(store) if self._keys else VoteGuard()
        self.signing = Signing(
            self, store, self._keys, self._set_guard, self._outbox.put, is_valid, is_cautious=is_cautious
        )
        self.faults = Faults(store, self._outbox, self.tree.root.chain, key_of=self.key_entry, is_valid=is_valid)
        self._validator = BlockValidator(genesis, self.tree, self.index, self.pending, self.votes, is_valid)
        self._restore_unfinal()

    # -- what others may ask ---------------------------------------------------------------------------------------

    @property
    def pool(self) -> Pool:
        """Return the pending transactions."""
        return self.pending.pool

    @property
    def final(self) -> BlockNode:
        """Return the final block."""
        return self.tree.root

    @property
    def producers(self) -> list[Producer]:
        """Return who may produce in the head's epoch, by rank."""
        return self.head.chain.state.epoch.seats

    @property
    def quorum(self) -> int:
        """Return how many votes of the current voting set certify."""
        return self.head.next_voting[0].quorum

    @property
    def key_ids(self) -> Collection[bytes]:
        """Return the ids of this node's keys; empty for an observer."""
        return self._keys.keys()

    @property
    def is_in_office(self) -> bool:
        """Tell whether this node may produce in the head's epoch, or votes on its next block."""
        office = [*self.producers, *(p for voting_set in self.head.next_voting for p in voting_set.producers)]
        return any(producer.key_id in self._keys for producer in office)

    def is_voter(self, key_id: bytes) -> bool:
        """Tell whether a key is of a set that must sign a child of the head."""
        return any(voting_set.index_of(key_id) is not None for voting_set in self.head.next_voting)

    def is_quorum(self, key_ids: AbstractSet[bytes]) -> bool:
        """Tell whether these keys make a quorum of every set that must sign a child of the head."""
        return all(voting_set.is_quorum(key_ids) for voting_set in self.head.next_voting)

    def key_entry(self, key_id: bytes) -> KeyEntry | None:
        """Return a key that the head, or the tip of another branch, knows; None for a stranger's."""
        found = (tip.chain.state.keys.get(key_id) for tip in (self.head, *self.tree.tips()))
        return next((entry for entry in found if entry is not None), None)

    def check(self, raw: bytes) -> CheckedTransaction:
        """Check a raw transaction context-free. Raises InvalidTransaction, EncodingError or UnusableTransaction."""
        try:
            return self._check(raw, self.key_entry)
        except UnusableTransaction:
            # Branches may disagree whose a key is, or on its roles: what any of them may hold is good here.
            for keys in {id(keys): keys for tip in self.tree.tips() if (keys := tip.chain.state.keys)}.values():
                with suppress(UnusableTransaction):
                    return self._check(raw, keys.get)
            raise

    def has_transaction(self, tx_id: bytes) -> bool:
        """Tell whether a transaction's body is on disk here or about to be."""
        return tx_id in self.pending

    def included_height(self, tx_id: bytes) -> int | None:
        """Return the height of the block on the best chain, above the final one, that holds ``tx_id``."""
        for node in self.head.branch():
            if node is not self.tree.root and tx_id in node.overlay.tx_ids:
                return node.height
        return None

    def final_height(self, tx_id: bytes) -> int | None:
        """Return the height of the final block that holds ``tx_id``."""
        return self.index.height_of(tx_id)

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
        """Tell whether a quorum of voters, this one included, was heard from within HEARD_SLOTS."""
        since = now_ms - HEARD_SLOTS * self.genesis.parameters.slot_ms
        heard = self._keys.keys() | {key_id for key_id, at_ms in self._heard.items() if at_ms >= since}
        return self.is_quorum(heard | self.head.voters_met(heard))

    # -- input -----------------------------------------------------------------------------------------------------

    def heard(self, key_id: bytes, *, now_ms: int) -> None:
        """Note that something authentic came from a node key."""
        self._heard[key_id] = now_ms

    def add_transaction(self, tx: CheckedTransaction) -> None:
        """Take in a transaction that is checked and whose body is on disk."""
        self.pending.add(tx)

    def receive_block(self, block: Block, *, now_ms: int) -> Verdict:
        """Validate a block all of whose transactions are on disk, and follow it if it is on the best chain.

        Raises InvalidBlock for a lie, UnknownParent where an ancestor is missing: the block is held until it comes.
        """
        header = block.sealed.header
        block_id = block_id_of(header)
        # [IGNORE] It is new and above the final block
        if block_id in self.tree.nodes:
            return Verdict.IGNORE
        if header.height <= self.tree.root.height:
            self.faults.saw_late_header(block.sealed)
            return Verdict.IGNORE
        # [REJECT] Its producer, if known here by now, sealed it for this chain
        self._now_slot = self.slot_at(now_ms)
        is_signed = self.check_header(block.sealed)
        # [IGNORE] Its slot has begun, give or take
        if header.slot > self._now_slot + AHEAD_SLOTS_MAX:
            return Verdict.IGNORE
        # [IGNORE] At most two by one producer in one slot, unless others built on it
        same_slot = [n.block.sealed.header for n in self.tree.nodes.values() if n.slot == header.slot and n.block]
        rivals = [other for other in same_slot if other.producer_key_id == header.producer_key_id]
        if len(rivals) >= BLOCKS_PER_SLOT_MAX and not self._orphans.is_awaited(block_id):
            return Verdict.IGNORE
        if header.parent_id not in self.tree.nodes:
            if is_signed:
                self._orphans.hold(block)
            raise UnknownParent("the parent is not known here", where="parent_id", actual=header.parent_id)
        self._insert(self._validator.validate(block, is_signed=is_signed))
        if header.slot >= self._now_slot - HEARD_SLOTS:
            self.heard(header.producer_key_id, now_ms=now_ms)
        self._adopt_orphans(block_id)
        self._update_head()
        self.signing.look(self.slot_at(now_ms))
        return Verdict.ACCEPT

    def receive_vote(self, vote: Vote, *, now_ms: int) -> Verdict:
        """Count a vote. Raises InvalidVote for a wrong signature or a link that leads downwards."""
        link = link_of(vote)
        target = self.tree.get(link.target.block_id)
        # [IGNORE] The voter is in a voting set, and the target is above the final block and near enough
        public_key = self._voter_key(vote.key_id, target)
        is_near = self.tree.root.height < link.target.height <= self.tree.root.height + TARGET_AHEAD_MAX
        # [IGNORE] Its voter does not flood everybody with votes for blocks that nobody has
        is_flood = target is None and self.votes.is_full_of(vote.key_id)
        if public_key is None or not is_near or is_flood:
            self.faults.saw_late_vote(vote)
            return Verdict.IGNORE
        # [REJECT] The link leads upwards
        if link.source.height >= link.target.height:
            raise InvalidVote("the target is not above the source", where="t_height", actual=vote.t_height)
        if not self.votes.add(vote, public_key):
            return Verdict.IGNORE
        self.signing.saw_vote(link, vote.key_id, vote.signature)
        self.heard(vote.key_id, now_ms=now_ms)
        self.faults.saw_vote(vote, public_key)
        if target is not None and target.link == link:
            self._certify_from_votes(target)
            self._update_head()
        return Verdict.ACCEPT

    def handle_timer(self, *, now_ms: int) -> None:
        """Do what is due in this slot: seal a block if it is this node's turn, send an unanswered vote again."""
        slot = self._now_slot = self.slot_at(now_ms)
        self.signing.look(slot)
        # A clock that was set back takes both along; V3 keeps a slot from being sealed in twice.
        self._timer_slot, self._sent_slot = slot, min(self._sent_slot, slot)
        self.pending.drop_expired(now_ms, lambda tx_id: self.included_height(tx_id) is not None)
        votes = [vote for vote in self._own_votes if vote.t_height > self.tree.root.height]
        if votes and slot >= self._sent_slot + RESEND_SLOTS:
            for vote in votes:
                self._outbox.send(vote)
            self._sent_slot = slot
        key = self._sealing_key(slot)
        if key is not None:
            self._seal(key, slot, now_ms)

    def next_timer_ms(self) -> int:
        """Return when ``handle_timer`` wants to be called: at the start of the next slot."""
        parameters = self.genesis.parameters
        return self.genesis.genesis_time_ms + (self._timer_slot + 1) * parameters.slot_ms

    def take_ready(self) -> Ready:
        """Cast the vote owed for the head and return everything to write, send and tell, in that order."""
        self._vote()
        return self._outbox.take()

    def written(self) -> None:
        """Note that every ``puts`` taken so far is durable: memory held for it may go."""
        # Rows that came up since must not be let go of before they are written as well.
        if not self._outbox.ready.puts:
            self.index.trim()

    # -- checks ----------------------------------------------------------------------------------------------------

    def check_header(self, sealed: SealedHeader) -> bool:
        """Check what a header says without its parent; tell whether its producer's key is known here by now.

        Raises InvalidBlock for a lie. A key not known may have been admitted in a block that is not here yet.
        """
        entry = self.key_entry(sealed.header.producer_key_id)
        if entry is None:
            return False
        check_sealed_header(sealed, entry.public_key, self.chain_id, self._is_valid)
        # Its block may lack transactions, or a parent, for ever. Slots far ahead would push out those that matter.
        if sealed.header.slot <= self._now_slot + AHEAD_SLOTS_MAX:
            self.faults.saw_header(sealed, entry.public_key)
        return True

    # -- the tree --------------------------------------------------------------------------------------------------

    def _adopt_orphans(self, block_id: bytes) -> None:
        """Insert held descendants of ``block_id``; one that lies is dropped, its sender unknown by now."""
        waiting = self._orphans.release(block_id)
        while waiting:
            block = waiting.pop()
            child_id = block_id_of(block.sealed.header)
            if block.sealed.header.parent_id not in self.tree.nodes or child_id in self.tree.nodes:
                continue
            try:
                self._insert(self._validator.validate(block))
            except InvalidBlock:
                continue
            waiting.extend(self._orphans.release(child_id))

    def _insert(self, node: BlockNode) -> None:
        """Add a validated block, and draw what its certificate and the votes held prove."""
        assert node.block is not None
        self.tree.add(node)
        self.signing.saw_header(node.block.sealed)
        self.faults.saw_block(node, self.tree)
        self._outbox.ready.puts.extend(block_puts(node.block_id, node.block))
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
            self._outbox.put(BEST_CERTIFICATE, encode(certificate))
        target = self.tree.get(link.target.block_id)
        if target is not None:
            self.signing.saw_certificate(certificate, target.voting)
            self.tree.certify(target)
        source = self.tree.get(link.source.block_id)
        if makes_final(link) and source is not None and source is not self.tree.root:
            self._outbox.put(FINAL_CERTIFICATE, encode(certificate))
            self._outbox.ready.puts.extend(set_change_puts(self.tree.root.chain.state, source, certificate))
            self._finalise(source)

    def _finalise(self, node: BlockNode) -> None:
        """Make ``node`` and its ancestors final: the point of no return."""
        old = self.tree.root
        path, abandoned = self.tree.advance(node)
        puts = self._outbox.ready.puts
        for here in path:
            assert here.block is not None
            puts.extend(self.index.add(here.height, here.overlay))
            puts.extend(final_puts(here.height, here.block_id))
            self.pending.on_final(item.tx_id for item in here.block.body)
            self._outbox.tell(BlockFinal(here, here.block))
        for lost in abandoned:
            puts.extend(abandoned_puts(lost.height, lost.block_id))
        node.overlay = Overlay()
        before = EMPTY_STATE if old.block is None else old.chain.state
        puts.extend(state_puts(state_changes(before, node.chain.state)))
        puts.append((FINAL_POINT, encode(final_point_of(self.tree))))
        self.votes.prune(node.height)
        self.faults.settle(node.chain.state, node.height)
        if self.head.block_id not in self.tree.nodes:
            # The head's branch lost: whatever was void on it may count on the one that won.
            self.pending.on_reorg()
            self.head = node
            self._has_left_branch = True
        self.pending.drop_void(node.height)

    def _update_head(self) -> None:
        """Follow the best tip."""
        best = choose_head(self.tree.tips())
        if best is not self.head:
            is_reorg = self._has_left_branch or self.head not in best.branch()
            self._has_left_branch = False
            if is_reorg:
                self.pending.on_reorg()
            self.head = best
            self._outbox.tell(HeadChanged(best, is_reorg))

    # -- voting and sealing ----------------------------------------------------------------------------------------

    def _voter_key(self, key_id: bytes, target: BlockNode | None) -> bytes | None:
        """Return the public key of a voter on ``target`` or, where that is not known, on the head or a child of it."""
        sets = target.voting if target is not None else (*self.head.voting, *self.head.next_voting)
        return next((p.public_key for voting_set in sets for p in voting_set.producers if p.key_id == key_id), None)

    def _vote(self) -> None:
        """Vote for the head if V1 and V2 allow it; the guard is in the writes that precede the vote."""
        head = self.head
        if head.block is None or head is self.tree.root or not self.guard.may_vote(head.link):
            return
        voters = {producer.key_id for voting_set in head.voting for producer in voting_set.producers}
        own = [key for key_id, key in self._keys.items() if key_id in voters and self.signing.may_vote(key_id)]
        if not own:
            return
        self._set_guard(self.guard.after_vote(head.link))
        digest = digest_of(self.chain_id, head.link)
        self._own_votes = [Vote(*head.link.source, *head.link.target, key.key_id, key.sign(digest)) for key in own]
        self._sent_slot = self._timer_slot
        for vote, key in zip(self._own_votes, own, strict=True):
            self.votes.add(vote, key.public_key)
            self.faults.saw_vote(vote, key.public_key)
            self._outbox.send(vote)
        self._certify_from_votes(head)
        self._update_head()

    def _sealing_key(self, slot: int) -> PrivateKey | None:
        """Return the key to seal with if ``slot`` is this node's, is new on the head, and V3 allows it."""
        if not self._keys or slot <= self.head.slot or slot < self.guard.next_slot:
            return None
        key_id = producer_at(self.head.schedule_at(slot), slot).key_id
        return self._keys[key_id] if key_id in self._keys and self.signing.may_seal(key_id, slot) else None

    def _seal(self, key: PrivateKey, slot: int, now_ms: int) -> None:
        """Seal a block on the head if there is reason to."""
        parent = self.head
        certificate = certificate_to_carry(parent, self.votes, self.best_certificate)
        seen = SeenRecords(self.index, self.tree.overlays(parent))
        time_ms = block_time_ms(self.genesis, slot)
        builder = begin_body(parent, slot, time_ms, certificate, seen, self.pending)
        if not builder.body and not is_empty_block_due(
            parent, self.final, slot, self.genesis.parameters, is_hearing_quorum=self.is_hearing_quorum(now_ms)
        ):
            return
        # A crash from here on leaves a slot that stays empty, never a second header for it (V3).
        self._set_guard(self.guard.after_seal(slot))
        node = seal_block(parent, slot, key, builder, certificate)
        assert node.block is not None
        self._outbox.send(node.block)
        self._insert(node)
        self._update_head()

    def _set_guard(self, guard: VoteGuard) -> None:
        """Promise, for every key of this node at once: a member that votes with two is one voter."""
        self.guard = guard
        for key_id in self._keys:
            self._outbox.put(guard_key(key_id), encode(guard))

    # -- after a restart -------------------------------------------------------------------------------------------

    def _restore_unfinal(self) -> None:
        """Validate the stored blocks above the final one again, then take in the pending transactions."""
        for block_id in read_unfinal(self._store):
            block = read_block(self._store, block_id)
            if block is None or block.sealed.header.parent_id not in self.tree.nodes:
                continue
            self._insert(self._validator.validate(block))
        if self.best_certificate is not None:
            self._certified(self.best_certificate)
        self.pending.restore()
        self._update_head()
