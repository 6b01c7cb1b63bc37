"""A producer that lies in every way that the rules let it try.

It runs the real engine to know the chain, and says other things than the engine would: two blocks in its slot to two
halves of the peers, votes for every branch, blocks withheld, votes from stale sources, certificates that nobody signed.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from consensus.engine import Engine
from consensus.votes import Link, VotingSet, digest_of, link_of
from ledger.block import (
    Block,
    Certificate,
    SealedHeader,
    Vote,
    block_id_of,
    certificate_hash,
)
from ledger.record_index import SeenRecords
from ledger.transition import BodyBuilder, make_header
from node.sim.governing import Parliament
from node.sim.node import SimNode
from node.sim.plan import Lie

WITHHELD_MS_MAX = 6_000
VOTES_EVERY_MS = 100
"""Two liars that answer each other's votes at once would fill the network with them."""


class ByzantineNode(SimNode):
    """A producer that is not honest."""

    is_honest = False
    lies: frozenset[Lie] = frozenset(Lie)
    """What it does."""
    parliament = Parliament()
    """Where what it says is kept, to be held against it; each run has its own."""
    _voted_at = -1

    def announce(self, message: Block | Vote) -> None:
        """Say something, perhaps something else, to some."""
        self.parliament.hear(self.number, message)
        if isinstance(message, Vote):
            super().announce(message)
            return
        self._watch.on_sent(self, message)
        story = self._choose([Lie.WITHHELD_BLOCK, Lie.TWO_BLOCKS, Lie.BOGUS_CERTIFICATE, None, None])
        if story not in self.lies:
            self.broadcast(message)
        elif story is Lie.WITHHELD_BLOCK:
            self._withhold(message)
        elif story is Lie.TWO_BLOCKS:
            self._tell_two_stories(message)
        else:
            self._carry_bogus(message)

    def flush(self, engine: Engine) -> None:
        """Vote for everything in sight, then do as the engine says."""
        if self._voted_at != self._clock.now_ms // VOTES_EVERY_MS and self._random() < 0.25:
            self._voted_at = self._clock.now_ms // VOTES_EVERY_MS
            root = engine.tree.root
            for node in engine.tree.tips():
                if node is root:
                    continue
                if Lie.EVERY_BRANCH in self.lies:
                    self._vote(engine, node.link, node.voting)
                if Lie.STALE_SOURCE in self.lies and self._random() < 0.25:
                    self._vote(engine, Link(root.checkpoint, node.checkpoint), node.voting)
        super().flush(engine)

    def _vote(self, engine: Engine, link: Link, voting: Sequence[VotingSet]) -> None:
        """Sign a vote that V1 or V2 may forbid, and say it to some."""
        if link.source.height >= link.target.height:
            return
        for key in (self.key, self.next_key):
            if key is None or not any(voting_set.index_of(key.key_id) is not None for voting_set in voting):
                continue
            vote = Vote(*link.source, *link.target, key.key_id, key.sign(digest_of(engine.chain_id, link)))
            self.parliament.hear(self.number, vote)
            for peer in self.peers:
                if self._random() < 0.5:
                    self.send(peer, vote)

    def _withhold(self, block: Block) -> None:
        """Keep a block back for some slots, then say it to one peer."""
        self._clock.after(int(self._random() * WITHHELD_MS_MAX), self.send, self._choose(self.peers), block)

    def _tell_two_stories(self, block: Block) -> None:
        """Seal a second block in the same slot, and give each to some of the peers."""
        other = self._variant(block, block.sealed.certificate)
        self.parliament.hear(self.number, other)
        for peer in self.peers:
            self.send(peer, self._choose([block, other]))

    def _carry_bogus(self, block: Block) -> None:
        """Claim a quorum that nobody gave."""
        old = block.sealed.certificate
        if old is None:
            self.broadcast(block)
            return
        if len(old.parts) > 1 and self._random() < 0.5:
            # Signed by one of the two sets that must: what a change of the voting set would be without joint quorum.
            parts = [self._choose(old.parts)]
        else:
            parts = [replace(part, signatures=[bytes(64) for _ in part.signatures]) for part in old.parts]
        bogus = Certificate(old.s_height, old.s_id, old.t_height, old.t_id, parts)
        self.broadcast(self._variant(block, bogus))

    def _variant(self, block: Block, certificate: Certificate | None) -> Block:
        """Return another block of the same slot on the same parent, right but for ``certificate``."""
        assert self.engine is not None
        header = block.sealed.header
        parent = self.engine.tree.get(header.parent_id)
        if parent is None:
            return block
        time_ms = self.world.time_of(header.slot)
        seen = SeenRecords(self.engine.index, self.engine.tree.overlays(parent))
        finality = parent.finality.after(link_of(certificate)) if certificate else parent.finality
        begin = parent.begin_child(header.slot, finality)
        builder = BodyBuilder(begin, parent.height + 1, time_ms, seen, self.engine.pending.read_records)
        for item in block.body[:-1]:
            builder.add(self.engine.pending.transaction(item.tx_id))
        key = self.key if self.next_key is None or header.producer_key_id == self.key.key_id else self.next_key
        other = make_header(parent.chain, header.slot, key.key_id, builder, certificate)
        assert certificate_hash(certificate) == other.qc_hash
        signature = key.sign(block_id_of(other))
        return Block(SealedHeader(other, signature, certificate), builder.body)
