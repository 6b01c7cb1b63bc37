"""Is a block right? First what it says on its own, then what it says of the chain it stands on.

Source: docs/consensus.md, "Blocks".
"""

from __future__ import annotations

from consensus.finality import BranchFinality
from consensus.pending import Pending
from consensus.schedule import producer_at
from consensus.tree import BlockNode, BlockTree
from consensus.votes import SignatureCheck, VotePool, check_certificate, link_of
from ledger.block import Block, Certificate, SealedHeader, block_id_of, certificate_hash
from ledger.errors import InvalidBlock, InvalidVote, WrongProducer
from ledger.genesis import Genesis
from ledger.record_index import RecordIndex, SeenRecords
from ledger.transition import apply_block, block_time_ms


def check_sealed_header(sealed: SealedHeader, public_key: bytes, chain_id: bytes, is_valid: SignatureCheck) -> None:
    """Check what a header says without its parent, ``public_key`` being its producer's. Raises InvalidBlock."""
    header = sealed.header
    # [REJECT] It is for this chain
    if header.chain_id != chain_id:
        raise InvalidBlock("for another chain", where="chain_id", expected=chain_id, actual=header.chain_id)
    # [REJECT] Its producer signed it
    if not is_valid(public_key, block_id_of(header), sealed.signature):
        raise InvalidBlock("the signature does not verify", where="signature", actual=sealed.signature)
    # [REJECT] The certificate is the one in the header
    if certificate_hash(sealed.certificate) != header.qc_hash:
        raise InvalidBlock("not the certificate in the header", where="qc_hash", actual=header.qc_hash)


class BlockValidator:
    """Judges blocks on parents in the tree."""

    def __init__(
        self,
        genesis: Genesis,
        tree: BlockTree,
        index: RecordIndex,
        pending: Pending,
        votes: VotePool,
        is_valid: SignatureCheck,
    ) -> None:
        self._genesis = genesis
        self._tree = tree
        self._index = index
        self._pending = pending
        self._votes = votes
        self._is_valid = is_valid
        self._chain_id = tree.root.chain.chain_id

    def validate(self, block: Block, *, is_signed: bool = True) -> BlockNode:
        """Return the node of a block whose parent is known. Raises InvalidBlock.

        is_signed: ``check_sealed_header`` passed it; otherwise it is checked here, where its producer's key is known.
        """
        header = block.sealed.header
        parent = self._tree.nodes[header.parent_id]
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
        if not is_signed:
            check_sealed_header(block.sealed, owner.public_key, self._chain_id, self._is_valid)
        finality = self._finality_after(parent, block.sealed.certificate)
        transactions = [self._pending.transaction(item.tx_id) for item in block.body]
        seen = SeenRecords(self._index, self._tree.overlays(parent))
        time_ms = block_time_ms(self._genesis, header.slot)
        begin = parent.begin_child(header.slot, finality)
        chain = apply_block(parent.chain, begin, block, transactions, time_ms, seen, self._pending.read_records)
        return parent.child(block, chain, finality, schedule, seen.overlay)

    def _finality_after(self, parent: BlockNode, certificate: Certificate | None) -> BranchFinality:
        """Return what the branch proves once it carries ``certificate``. Raises InvalidBlock."""
        if certificate is None:
            return parent.finality
        link = link_of(certificate)
        found = self._tree.votable_on_branch(parent, link.target)
        # [REJECT] The target is an ancestor, higher than any certified before in this chain
        if found is None or link.target.height <= parent.finality.justified.height:
            raise InvalidBlock(
                "the certificate's target is not an ancestor above the last one certified",
                where="certificate.t_id",
                expected=f"an ancestor above height {parent.finality.justified.height}",
                actual=f"{link.target.block_id.hex()} at {link.target.height}",
            )
        # [REJECT] The source is the one that the target's own chain gives
        if found.link != link:
            raise InvalidBlock(
                "wrong source",
                where="certificate.s_id",
                expected=found.link.source.block_id,
                actual=link.source.block_id,
            )
        try:
            check_certificate(certificate, found.voting, self._chain_id, self._votes.signature, self._is_valid)
        except InvalidVote as error:
            raise InvalidBlock(
                error.what, where=f"certificate.{error.where}", expected=error.expected, actual=error.actual
            ) from None
        return parent.finality.after(link)
