"""What a node says of the state, checked against the genesis file alone.

Source: docs/protocol.md, "Following the voting sets".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from consensus.election import founding_state
from consensus.epochs import voting_sets
from consensus.setchange import VotingProof, check_voting_proof
from consensus.votes import SignatureCheck
from ledger.block import Header
from ledger.codec import decode
from ledger.crypto import is_valid_signature
from ledger.errors import EncodingError, InvalidProof
from ledger.genesis import Genesis, chain_id_of
from ledger.readable import from_readable
from ledger.state import entry_type, state_path
from ledger.statetree import StateProof, verify_state_proof
from node.api.govern import parse_state_key


@dataclass(frozen=True, slots=True)
class Proved:
    """An entry of the final state.

    Attributes:
        value: None: there is no such entry.
        header: of the final block.
        set_changes: how many led to the voting set that made it final.
    """

    value: Any
    header: Header
    set_changes: int


def check_state_answer(
    answer: Any, genesis: Genesis, text: str, *, is_valid: SignatureCheck = is_valid_signature
) -> Proved:
    """Return what an answer of ``/v1/state?key=TEXT`` proves. Raises InvalidProof, EncodingError for another key."""
    key = parse_state_key(text)
    try:
        final = from_readable(answer["final"], VotingProof)
        changes = [from_readable(change, VotingProof) for change in answer["set_changes"]]
        siblings = tuple(bytes.fromhex(sibling) for sibling in answer["siblings"])
        proof = StateProof(siblings, bytes.fromhex(answer["other_path"]), bytes.fromhex(answer["other_value"]))
        encoded = answer["value_encoded"]
        value = None if encoded is None else bytes.fromhex(encoded)
        entry = None if value is None else decode(value, entry_type(key))
    except (KeyError, TypeError, ValueError, EncodingError) as error:
        raise InvalidProof(f"not the answer of a node: {error}", where="answer") from None
    chain_id = chain_id_of(genesis)
    trusted = voting_sets(founding_state(genesis))[0]
    for change in changes:
        following = check_voting_proof(change, trusted, chain_id, is_valid=is_valid)
        # [REJECT] Each proof leads from one set to the next
        if following is None:
            raise InvalidProof("no change of the voting set is pending there", where=f"set_changes[{trusted.set_id}]")
        trusted = following
    check_voting_proof(final, trusted, chain_id, is_valid=is_valid)
    verify_state_proof(final.header.state_root, state_path(*key), value, proof)
    return Proved(entry, final.header, len(changes))
