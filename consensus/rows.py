"""What the engine keeps in the store, and how it is read back.

Source: docs/protocol.md, "Storage".
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from msgspec import Meta

from consensus.setchange import VotingProof, prove_voting
from consensus.tree import BlockNode
from consensus.votes import VoteGuard
from ledger import merkle
from ledger.block import Block, BodyItem, Certificate, SealedHeader
from ledger.codec import Bytes32, Count, Wire, decode, encode
from ledger.entries import Producers
from ledger.errors import EncodingError, StoreDamaged
from ledger.payloads import Evidence
from ledger.state import State
from ledger.store import Space, Store, height_key, space_range

T = TypeVar("T")

FINAL_POINT = Space.META.value + b"final"
BEST_CERTIFICATE = Space.META.value + b"certificate"
FINAL_CERTIFICATE = Space.META.value + b"final-certificate"
"""The certificate that made the final block final: what an auditor is shown, whatever is certified later."""
SET_CHANGE_PREFIX = Space.META.value + b"set-change/"
"""Number of a voting set (8) -> the proof that it follows the one before."""
WAIT_PREFIX = Space.META.value + b"wait/"
EVIDENCE_PREFIX = Space.META.value + b"evidence/"
"""Id of a key (20) -> evidence against it, until its member is struck or the matter is settled."""
UNFINAL_PREFIX = Space.META.value + b"unfinal/"


class WaitRow(Wire, frozen=True):
    """A key that waits until it may sign; gone once it may."""

    standing: Annotated[str, Meta(pattern="^(new|lost|old)$")]
    """Why, as ``consensus.caution.Standing``."""


class SetRow(Wire, frozen=True):
    """A voting set."""

    set_id: Count
    producers: Producers


class VotableRow(Wire, frozen=True):
    """The link on which votes for a block count, and the sets that must sign."""

    s_height: Count
    s_id: Bytes32
    t_height: Count
    t_id: Bytes32
    set_ids: list[Count]
    """Of the sets in ``FinalPoint.sets``."""


class FinalPoint(Wire, frozen=True):
    """Everything about the final block that cannot be read off its header alone."""

    height: Count
    block_id: Bytes32
    slot_after: Count
    """Its slot plus one; 0 for genesis."""
    history_size: Count
    history: list[Bytes32]
    """Frontier of the history tree up to and including it."""
    justified_height: Count
    justified_id: Bytes32
    branch_final_height: Count
    branch_final_id: Bytes32
    last_records_height: Count
    set_ids: list[Count]
    """The sets that had to sign it; those for its children are in its state."""
    below: list[VotableRow]
    """Its ancestors that a later header may still certify."""
    sets: list[SetRow]
    """Every set named above, ascending."""

    def frontier(self) -> merkle.Frontier:
        """Return the history tree's frontier."""
        return merkle.Frontier(self.history_size, tuple(self.history))


def block_puts(block_id: bytes, block: Block) -> list[tuple[bytes, bytes | None]]:
    """Return the rows of a validated block that is not final yet."""
    height = block.sealed.header.height
    return [
        (Space.HEADER.value + block_id, encode(block.sealed)),
        (Space.BODY_LIST.value + block_id, encode(block.body)),
        (UNFINAL_PREFIX + height.to_bytes(8) + block_id, b""),
    ]


def final_puts(height: int, block_id: bytes) -> list[tuple[bytes, bytes | None]]:
    """Return the rows that make a stored block the final one at its height."""
    return [(height_key(height), block_id), (UNFINAL_PREFIX + height.to_bytes(8) + block_id, None)]


def abandoned_puts(height: int, block_id: bytes) -> list[tuple[bytes, bytes | None]]:
    """Return the rows that forget a block on a branch that lost."""
    return [
        (Space.HEADER.value + block_id, None),
        (Space.BODY_LIST.value + block_id, None),
        (UNFINAL_PREFIX + height.to_bytes(8) + block_id, None),
    ]


def read_block(store: Store, block_id: bytes) -> Block | None:
    """Return a stored block, or None. Raises StoreDamaged for bytes that are no block."""
    sealed, body = store.get(Space.HEADER.value + block_id), store.get(Space.BODY_LIST.value + block_id)
    if sealed is None or body is None:
        return None
    try:
        return Block(decode(sealed, SealedHeader), decode(body, list[BodyItem]))
    except EncodingError as error:
        raise _damaged(f"block {block_id.hex()}", error) from None


def read_final_id(store: Store, height: int) -> bytes | None:
    """Return the id of the final block at ``height`` (1 and up), or None."""
    return store.get(height_key(height))


def read_final_point(store: Store) -> FinalPoint | None:
    """Return the final point, None in a store that has only genesis."""
    data = store.get_checked(FINAL_POINT)
    return None if data is None else _decode(data, FinalPoint, "final point")


def read_certificate(store: Store) -> Certificate | None:
    """Return the highest certificate known, carried by a block or not."""
    data = store.get_checked(BEST_CERTIFICATE)
    return None if data is None else _decode(data, Certificate, "certificate")


def read_guard(store: Store) -> VoteGuard:
    """Return what the keys used in this data directory have promised together, read with checksums verified."""
    guards = []
    for key, _ in store.scan(*space_range(Space.VOTE)):
        data = store.get_checked(key)
        if data is not None:
            guards.append(_decode(data, VoteGuard, "vote guard"))
    return VoteGuard(
        max((guard.next_target for guard in guards), default=0),
        max((guard.max_source for guard in guards), default=0),
        max((guard.next_slot for guard in guards), default=0),
    )


def read_unfinal(store: Store) -> list[bytes]:
    """Return the ids of stored blocks that are not final, lowest first."""
    rows = store.scan(UNFINAL_PREFIX, UNFINAL_PREFIX + b"\xff" * 41)
    return [key[len(UNFINAL_PREFIX) + 8 :] for key, _ in rows]


def set_change_key(set_id: int) -> bytes:
    """Return the key of the proof that voting set ``set_id`` (1 and up) follows the one before."""
    return SET_CHANGE_PREFIX + set_id.to_bytes(8)


def set_change_puts(old: State, node: BlockNode, certificate: Certificate) -> list[tuple[bytes, bytes | None]]:
    """Return the row that proves a new voting set to those who do not follow every block, where ``node`` begins one.

    old: after the final block until now: the first proof of a change suffices. certificate: makes ``node`` final.
    """
    state = node.chain.state
    if state.voting.pending is None or node.block is None or old.voting == state.voting:
        return []
    proof = prove_voting(node.block.sealed.header, state, certificate)
    return [(set_change_key(state.voting.set_id + 1), encode(proof))]


def read_set_changes(store: Store) -> list[VotingProof]:
    """Return the proof of each change of the voting set, in order."""
    rows = store.scan(SET_CHANGE_PREFIX, SET_CHANGE_PREFIX + b"\xff" * 9)
    return [_decode(value, VotingProof, "proof of a set change") for _, value in rows]


def read_wait(store: Store, key_id: bytes) -> WaitRow | None:
    """Return why a producer key was waiting at the last stop, None where it was not."""
    data = store.get_checked(wait_key(key_id))
    return None if data is None else _decode(data, WaitRow, "wait for the vote record")


def read_header(store: Store, block_id: bytes) -> SealedHeader | None:
    """Return the header of a stored block, or None."""
    data = store.get(Space.HEADER.value + block_id)
    return None if data is None else _decode(data, SealedHeader, f"header {block_id.hex()}")


def wait_key(key_id: bytes) -> bytes:
    """Return the key of the row that says that a producer key waits."""
    return WAIT_PREFIX + key_id


def evidence_key(key_id: bytes) -> bytes:
    """Return the key of the evidence kept against a key."""
    return EVIDENCE_PREFIX + key_id


def read_evidence(store: Store) -> dict[bytes, Evidence]:
    """Return the evidence that is kept, by the id of the key accused."""
    rows = store.scan(EVIDENCE_PREFIX, EVIDENCE_PREFIX + b"\xff" * 21)
    return {key[len(EVIDENCE_PREFIX) :]: _decode(value, Evidence, "evidence") for key, value in rows}


def guard_key(key_id: bytes) -> bytes:
    """Return the key of a producer key's guard."""
    return Space.VOTE.value + key_id


def _decode(data: bytes, kind: type[T], what: str) -> T:
    try:
        return decode(data, kind)
    except EncodingError as error:
        raise _damaged(what, error) from None


def _damaged(what: str, error: EncodingError) -> StoreDamaged:
    return StoreDamaged(
        f"the {what} on disk cannot be read: {error}",
        hint="Restore the data directory from a backup, or move it away and let the node sync from its peers",
    )
