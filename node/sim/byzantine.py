"""A producer that lies in every way that the rules let it try.

It runs the real engine to know the chain, and says other things than the engine would: two blocks in its slot to two
halves of the peers, votes for every branch, blocks withheld, votes from stale sources, certificates that nobody signed.
"""

from __future__ import annotations

from consensus.engine import Engine
from consensus.votes import Link, digest_of, link_of
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
    _voted_at = -1

    def announce(self, message: Block | Vote) -> None:
        """Say something, perhaps something else, to some."""
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
                    self._vote(engine, node.link)
                if Lie.STALE_SOURCE in self.lies and self._random() < 0.25:
                    self._vote(engine, Link(root.checkpoint, node.checkpoint))
        super().flush(engine)

    def _vote(self, engine: Engine, link: Link) -> None:
        """Sign a vote that V1 or V2 may forbid, and say it to some."""
        if link.source.height >= link.target.height:
            return
        signature = self.key.sign(digest_of(engine.chain_id, link))
        vote = Vote(*link.source, *link.target, self.key.key_id, signature)
        for peer in self.peers:
            if self._random() < 0.5:
                self.send(peer, vote)

    def _withhold(self, block: Block) -> None:
        """Keep a block back for some slots, then say it to one peer."""
        self._clock.after(int(self._random() * WITHHELD_MS_MAX), self.send, self._choose(self.peers), block)

    def _tell_two_stories(self, block: Block) -> None:
        """Seal a second block in the same slot, and give each to some of the peers."""
        other = self._variant(block, block.sealed.certificate)
        for peer in self.peers:
            self.send(peer, self._choose([block, other]))

    def _carry_bogus(self, block: Block) -> None:
        """Claim a quorum that nobody gave."""
        old = block.sealed.certificate
        if old is None:
            self.broadcast(block)
            return
        part = old.parts[0]
        signatures = [bytes(64) for _ in part.signatures]
        bogus = Certificate(old.s_height, old.s_id, old.t_height, old.t_id, [type(part)(0, part.signers, signatures)])
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
            builder.add(self.world.check(self.store.body(item.tx_id) or b""))
        other = make_header(parent.chain, header.slot, self.key.key_id, builder, certificate)
        assert certificate_hash(certificate) == other.qc_hash
        signature = self.key.sign(block_id_of(other))
        return Block(SealedHeader(other, signature, certificate), builder.body)
