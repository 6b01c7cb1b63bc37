"""Proof of a change of the voting set, for those who follow a chain without its blocks.

While a change is pending, a certificate needs a quorum of the old set and of the new one. So where the old set is
trusted, one final block whose state shows the change pending, with the certificate that made it final, proves the new.

Source: docs/consensus.md, "Changing the voting set".
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from consensus.votes import SignatureCheck, VotingSet, check_certificate
from ledger.block import Certificate, Header, block_id_of
from ledger.codec import Bytes32, Wire, encode
from ledger.crypto import is_valid_signature
from ledger.entries import VotingEntry
from ledger.errors import InvalidProof, InvalidVote
from ledger.state import State, state_path
from ledger.statetree import DEPTH_MAX, StateProof, verify_state_proof


class VotingProof(Wire, frozen=True):
    """Whose votes certify the children of a final block."""

    header: Header
    """Of the block."""
    voting: VotingEntry
    """The entry ``["voting"]`` of the state after it."""
    siblings: Annotated[list[Bytes32], Meta(max_length=DEPTH_MAX)]
    """From the root of the state tree down to the entry."""
    certificate: Certificate
    """On the link from the block to its child: it makes the block final."""


def prove_voting(header: Header, state: State, certificate: Certificate) -> VotingProof:
    """Return the proof of the voting sets in ``state``, the one after ``header``'s block."""
    siblings = list(state.tree.prove(state_path("voting")).siblings)
    return VotingProof(header, state.voting, siblings, certificate)


def check_voting_proof(
    proof: VotingProof, trusted: VotingSet, chain_id: bytes, *, is_valid: SignatureCheck = is_valid_signature
) -> VotingSet | None:
    """Check that the block of ``proof`` is final by the word of ``trusted``; return the set to come, if there is one.

    Raises InvalidProof whose ``where`` names what does not hold.
    """
    header, voting, certificate = proof.header, proof.voting, proof.certificate
    # [REJECT] The block is of this chain, and its state has this entry
    if header.chain_id != chain_id:
        raise InvalidProof("of another chain", where="header.chain_id", expected=chain_id, actual=header.chain_id)
    tree_proof = StateProof(tuple(proof.siblings))
    verify_state_proof(header.state_root, state_path("voting"), encode(voting), tree_proof)
    # [REJECT] The current set is the one trusted
    if voting.set_id != trusted.set_id or tuple(voting.producers) != trusted.producers:
        raise InvalidProof(
            "the current set is another than the one trusted",
            where="voting",
            expected=trusted.set_id,
            actual=voting.set_id,
        )
    # [REJECT] The certificate is on the link from the block to a child of it
    link = (certificate.s_height, certificate.s_id, certificate.t_height)
    if link != (header.height, block_id_of(header), header.height + 1):
        raise InvalidProof(
            "the certificate does not make this block final",
            where="certificate",
            expected=f"from {block_id_of(header).hex()} at {header.height} to height {header.height + 1}",
            actual=f"from {certificate.s_id.hex()} at {certificate.s_height} to height {certificate.t_height}",
        )
    pending = None
    if voting.pending is not None:
        pending = VotingSet(voting.set_id + 1, tuple(voting.pending.producers))
    # [REJECT] A quorum of every set that must sign did
    try:
        check_certificate(certificate, [trusted, pending] if pending else [trusted], chain_id, is_valid=is_valid)
    except InvalidVote as error:
        raise InvalidProof(
            error.what, where=f"certificate.{error.where}", expected=error.expected, actual=error.actual
        ) from None
    return pending
