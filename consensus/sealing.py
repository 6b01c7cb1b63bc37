"""When a producer seals a block, and what goes into it.

Source: docs/consensus.md, "When to seal".
"""

from __future__ import annotations

from consensus.pending import Pending
from consensus.tree import BlockNode, BlockTree
from consensus.votes import VotePool, link_of
from ledger.block import Block, Certificate, SealedHeader, block_id_of
from ledger.crypto import PrivateKey
from ledger.genesis import Parameters
from ledger.record_index import RecordIndex, SeenRecords
from ledger.transition import BodyBuilder, chain_after, make_header


def is_empty_block_due(
    head: BlockNode, final: BlockNode, slot: int, parameters: Parameters, *, is_hearing_quorum: bool
) -> bool:
    """Tell whether to seal a block without transactions: for votes owed on records, or as a heartbeat.

    Without finality for ``max_unfinal`` blocks only while a quorum is being heard: the halves of a partition must not
    race each other to heights where nobody may vote any more.
    """
    is_owed = head.last_records_height > final.height
    is_heartbeat = slot - head.slot >= parameters.heartbeat_slots
    if not is_owed and not is_heartbeat:
        return False
    return head.height - final.height < parameters.max_unfinal or is_hearing_quorum


def certificate_to_carry(parent: BlockNode, votes: VotePool, best: Certificate | None) -> Certificate | None:
    """Return the highest certificate on ``parent`` or an ancestor that its chain does not carry yet."""
    for node in parent.branch():
        if node.height <= parent.finality.justified.height:
            return None
        if best is not None and link_of(best) == node.link:
            return best
        certificate = votes.certificate(node.link, node.voting)
        if certificate is not None:
            return certificate
    return None


def begin_body(parent: BlockNode, tree: BlockTree, index: RecordIndex, pending: Pending, time_ms: int) -> BodyBuilder:
    """Return the body of a child of ``parent`` at ``time_ms``, filled with what is pending."""
    builder = BodyBuilder(parent.chain.state, time_ms, SeenRecords(index, tree.overlays(parent)), pending.read_records)
    pending.fill(builder, parent.height)
    return builder


def seal_block(
    parent: BlockNode, slot: int, key: PrivateKey, builder: BodyBuilder, certificate: Certificate | None
) -> BlockNode:
    """Return the node of a new block on ``parent``, signed with ``key``."""
    header = make_header(parent.chain, slot, key.key_id, builder, certificate)
    sealed = SealedHeader(header, key.sign(block_id_of(header)), certificate)
    finality = parent.finality.after(link_of(certificate)) if certificate else parent.finality
    return parent.child(
        Block(sealed, builder.body),
        chain_after(parent.chain, header),
        finality,
        parent.schedule_at(slot),
        builder.seen.overlay,
    )
