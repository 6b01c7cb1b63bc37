"""From the voting set of genesis to the present one, by the proofs of its changes alone.

Source: docs/consensus.md, "Changing the voting set".
"""

from __future__ import annotations

from consensus.election import founding_state
from consensus.epochs import voting_sets
from consensus.setchange import VotingProof, check_voting_proof
from consensus.votes import VotingSet
from ledger.errors import InvalidProof
from ledger.genesis import Genesis


def founding_set(genesis: Genesis) -> VotingSet:
    """Return the voting set that genesis names."""
    return voting_sets(founding_state(genesis))[0]


def check_voting(proof: VotingProof, trusted: VotingSet, chain_id: bytes, *, where: str) -> VotingSet | None:
    """Check that the block of ``proof`` is final by the word of ``trusted``; return the set to come, if there is one.

    where: what the proof is called in errors. Raises InvalidProof.
    """
    try:
        return check_voting_proof(proof, trusted, chain_id)
    except InvalidProof as error:
        # Of the state proof there is but the way that may be wrong.
        field = "siblings" if error.where in {"root", "path", "siblings"} else error.where
        raise InvalidProof(error.what, where=f"{where}.{field}", expected=error.expected, actual=error.actual) from None


def check_set_change(proof: VotingProof, trusted: VotingSet, chain_id: bytes, *, where: str) -> VotingSet:
    """Return the set that follows ``trusted``, on which that and itself agreed. Raises InvalidProof."""
    pending = check_voting(proof, trusted, chain_id, where=where)
    # [REJECT] There is a change under way in its state
    if pending is None:
        raise InvalidProof("no change of the voting set", where=f"{where}.voting.pending", expected="the set to come")
    return pending
