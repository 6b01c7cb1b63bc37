"""When a producer seals a block, and what goes into it.

Source: docs/consensus.md, "When to seal".
"""

from __future__ import annotations

from consensus.finality import BranchFinality
from consensus.pending import Pending
from consensus.tree import BlockNode
from consensus.votes import VotePool, link_of
from ledger.block import Block, Certificate, SealedHeader, block_id_of
from ledger.crypto import PrivateKey
from ledger.genesis import Parameters
from ledger.record_index import SeenRecords
from ledger.transition import BodyBuilder, chain_after, make_header


def is_empty_block_due(
    head: BlockNode, final: BlockNode, slot: int, parameters: Parameters, *, is_hearing_quorum: bool
) -> bool:
    """Tell whether to seal a block without transactions: for votes owed, or as a heartbeat.

    Votes are owed on records, and on a change of the voting set. Without finality for ``max_unfinal`` blocks only while
    a quorum is being heard: the halves of a partition must not race each other to heights where nobody may vote any
    more.
    """
    is_owed = head.last_records_height > final.height or head.chain.state.voting.pending is not None
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


def begin_body(
    parent: BlockNode,
    slot: int,
    time_ms: int,
    certificate: Certificate | None,
    seen: SeenRecords,
    pending: Pending,
) -> BodyBuilder:
    """Return the body of a child of ``parent`` that carries ``certificate``, filled with what is pending."""
    begin = parent.begin_child(slot, _finality_after(parent, certificate))
    builder = BodyBuilder(begin, parent.height + 1, time_ms, seen, pending.read_records)
    pending.fill(builder, parent.height)
    return builder


def seal_block(
    parent: BlockNode, slot: int, key: PrivateKey, builder: BodyBuilder, certificate: Certificate | None
) -> BlockNode:
    """Return the node of a new block on ``parent``, signed with ``key``."""
    header = make_header(parent.chain, slot, key.key_id, builder, certificate)
    sealed = SealedHeader(header, key.sign(block_id_of(header)), certificate)
    return parent.child(
        Block(sealed, builder.body),
        chain_after(parent.chain, header, builder.state),
        _finality_after(parent, certificate),
        parent.schedule_at(slot),
        builder.seen.overlay,
    )


def _finality_after(parent: BlockNode, certificate: Certificate | None) -> BranchFinality:
    return parent.finality.after(link_of(certificate)) if certificate else parent.finality
