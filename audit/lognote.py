"""The notes of a chain: its final block as the checkpoint of a transparency log whose leaves are the ids of its blocks.

The size is the height of a final block, the root its ``history_root``. Beside the line of the node's log key and those
of witnesses stands one of our own kind with the proof of that block, so that a note can be held against the genesis and
the quorum instead of against a log key.

Source: docs/audit.md, "Notes and tiles".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from audit.light import LightCheckpoint, LightClient
from audit.notes import (
    LogKey,
    Note,
    NoteKey,
    NoteSignature,
    TreeHead,
    Verified,
    key_id_of,
    parse_note,
    parse_tree_head,
)
from audit.voting import check_voting
from consensus.setchange import VotingProof
from ledger.codec import decode, encode
from ledger.errors import BadSignature, EncodingError, InvalidProof, LedgerError
from ledger.genesis import Genesis, chain_id_of

FINALITY: Final = b"\xffledgerd/final/1"
"""Kind of our own line: 0xff leads in those without a number of their own."""


def origin_of(chain_id: bytes) -> str:
    """Return what a chain's notes name in their first line; every node's log key has this name too."""
    return f"ledgerd/{chain_id.hex()}"


def tree_head_of(proof: VotingProof) -> TreeHead:
    """Return the tree head that a final block proves."""
    header = proof.header
    return TreeHead(origin_of(header.chain_id), header.height, header.history_root)


def make_note(proof: VotingProof, key: LogKey) -> Note:
    """Return the note of a final block, with the line of the node's log key and the one that carries the proof."""
    head = tree_head_of(proof)
    text = head.to_text()
    return Note(text, (key.sign(text, head.origin), finality_line(proof)))


def finality_line(proof: VotingProof) -> NoteSignature:
    """Return the line that carries the proof of a final block: other readers pass over it."""
    chain_id = proof.header.chain_id
    return NoteSignature(origin_of(chain_id), _finality_id(chain_id), encode(proof))


def finality_of(note: Note, chain_id: bytes) -> VotingProof | None:
    """Return the proof that a note carries, which is not verified yet; None where it has none.

    Raises EncodingError where it cannot be read, or is of another tree head than the note's.
    """
    for one in note.signatures:
        if (one.name, one.key_id) != (origin_of(chain_id), _finality_id(chain_id)):
            continue
        try:
            proof = decode(one.body, VotingProof)
        except LedgerError as error:
            raise EncodingError(f"the proof in it cannot be read: {error}", where="note") from None
        # [REJECT] The proof is of the block that the note names
        if tree_head_of(proof) != parse_tree_head(note.text):
            found = f"height {proof.header.height}, root {proof.header.history_root.hex()}"
            raise EncodingError("the proof in it is of another tree head", where="note", actual=found)
        return proof
    return None


@dataclass(frozen=True, slots=True)
class CheckedNote:
    """What holds of a note.

    Attributes:
        signed: the signatures by keys that were asked for.
        set_id: the voting set that made the block final; None where that was not shown.
        unproven: why it was not; empty where it was.
    """

    head: TreeHead
    signed: list[Verified]
    set_id: int | None
    unproven: str


def check_note(
    data: bytes, genesis: Genesis, *, keys: Sequence[NoteKey], checkpoints: Sequence[LightCheckpoint] = ()
) -> CheckedNote:
    """Return what holds of a note of a chain.

    keys: each must have signed it. checkpoints: name voting sets that are trusted beside that of genesis.
    Raises EncodingError, BadSignature or InvalidProof naming what does not hold. Where nothing was shown, ``signed`` is
    empty and ``set_id`` None: then it proves nothing.
    """
    note = parse_note(data)
    head = parse_tree_head(note.text)
    chain_id = chain_id_of(genesis)
    # [REJECT] It is of this chain
    if head.origin != origin_of(chain_id):
        raise InvalidProof("of another log", where="origin", expected=origin_of(chain_id), actual=head.origin)
    signed = note.verify(keys)
    # [REJECT] Every key asked for signed it
    for key in keys:
        if key not in [one.key for one in signed]:
            raise BadSignature("a signature is missing", where="note", expected=f"by {key.to_text()}")
    proof = finality_of(note, chain_id)
    if proof is None:
        return CheckedNote(head, signed, None, "it carries no certificate")
    trusted = {one.trusted.set_id: one.trusted for one in _clients(genesis, checkpoints)}
    number = proof.voting.set_id
    if number not in trusted:
        return CheckedNote(head, signed, None, f"its certificate is of voting set {number}, which is not known here")
    # [REJECT] A quorum made its block final
    check_voting(proof, trusted[number], chain_id, where="final")
    return CheckedNote(head, signed, number, "")


def _clients(genesis: Genesis, checkpoints: Sequence[LightCheckpoint]) -> list[LightClient]:
    return [LightClient(genesis), *(LightClient(genesis, one) for one in checkpoints)]


def _finality_id(chain_id: bytes) -> bytes:
    return key_id_of(origin_of(chain_id), FINALITY, chain_id)
