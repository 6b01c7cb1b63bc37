"""Does today's chain extend the one seen earlier: asked of a node, in a second, by proofs and without any block.

What was seen may be a checkpoint of a light client or of an audit, the report of an audit, a receipt, a note, or just
height and id. A checkpoint is the best of these: who votes follows from it, so nothing older is asked for or trusted.

Source: docs/audit.md, "Since the last time".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from audit.follow import Follower
from audit.light import LightCheckpoint, LightClient, LightSource, check_history, checkpoint_from_json, point_of
from audit.lognote import finality_of, origin_of
from audit.notes import parse_note, parse_tree_head
from audit.receipt import verify_receipt
from consensus.votes import Checkpoint
from ledger import merkle
from ledger.errors import ConfigError, EncodingError, InvalidProof, LedgerError
from ledger.genesis import Genesis, chain_id_of
from ledger.readable import parse_json

HEIGHT_DIGITS_MAX: Final = 18


@dataclass(frozen=True, slots=True)
class Earlier:
    """What was seen of a chain before. Whoever can change it can choose what today's is held against.

    Attributes:
        name: what a person calls it.
        block_id: of the block at ``height``; None where only its history is known, as from a note.
        history_root: of that block, over the ids of all blocks below it; None where only its id is known.
        checkpoint: where a light client may go on from.
    """

    name: str
    height: int
    block_id: bytes | None
    history_root: bytes | None = None
    checkpoint: LightCheckpoint | None = None


class NotThereYet(LedgerError):
    """A source has not come as far as what was seen earlier: nothing can be said of it."""

    code = "not-there-yet"


# -- what was seen -----------------------------------------------------------------------------------------------------


def earlier_from_text(text: str, *, where: str) -> Earlier:
    """Return the block that ``HEIGHT:ID`` names. Raises ConfigError."""
    height, _, block_id = text.partition(":")
    try:
        raw = bytes.fromhex(block_id)
    except ValueError:
        raw = b""
    if not height.isascii() or not height.isdecimal() or len(height) > HEIGHT_DIGITS_MAX or len(raw) != 32:
        raise ConfigError("not a block", where=where, expected="HEIGHT:ID, the id as 64 hex digits", actual=text)
    return Earlier(f"block {height}", int(height), raw)


def earlier_from_file(data: bytes, genesis: Genesis, *, where: str) -> Earlier:
    """Return what a file says was seen: a checkpoint, a report, a receipt or a note. Raises ConfigError."""
    try:
        return _read_note(data, genesis, where) if not data.lstrip().startswith(b"{") else _read(data, genesis, where)
    except LedgerError as error:
        raise ConfigError(
            f"not something seen of this chain: {error.sentence()}",
            where=where,
            expected="HEIGHT:ID, or a file: a checkpoint, the --json report of an audit, a receipt, or a note",
        ) from None


def _read(data: bytes, genesis: Genesis, where: str) -> Earlier:
    document = parse_json(data)
    if isinstance(document, dict) and "record" in document:
        verdict = verify_receipt(data, genesis)
        return Earlier(where, verdict.height, verdict.block_id)
    if isinstance(document, dict) and "head_id" in document:
        return _read_report(document, genesis, where)
    checkpoint = checkpoint_from_json(data)
    # This verifies it: a checkpoint that contradicts itself is damaged.
    client = LightClient(genesis, checkpoint)
    return Earlier(where, client.point.height, client.point.block_id, checkpoint.final.header.history_root, checkpoint)


def _read_report(document: dict[str, Any], genesis: Genesis, where: str) -> Earlier:
    chain_id = chain_id_of(genesis).hex()
    # [REJECT] The report is of this chain
    if document.get("chain_id") != chain_id:
        raise InvalidProof("of another chain", where="chain_id", expected=chain_id, actual=document.get("chain_id"))
    found = earlier_from_text(f"{document.get('height')}:{document['head_id']}", where="head_id")
    return Earlier(where, found.height, found.block_id)


def _read_note(data: bytes, genesis: Genesis, where: str) -> Earlier:
    note = parse_note(data)
    head = parse_tree_head(note.text)
    chain_id = chain_id_of(genesis)
    # [REJECT] The note is of this chain
    if head.origin != origin_of(chain_id):
        raise InvalidProof("of another log", where="origin", expected=origin_of(chain_id), actual=head.origin)
    if not 0 < head.size < 10**HEIGHT_DIGITS_MAX:
        raise EncodingError("not the height of a block", where="note, line 2", actual=head.size)
    proof = finality_of(note, chain_id)
    return Earlier(where, head.size, None if proof is None else point_of(proof.header).block_id, head.root)


# -- whether today's extends it ----------------------------------------------------------------------------------------


def extend(genesis: Genesis, source: LightSource, seen: Sequence[Earlier]) -> LightClient:
    """Return a light client that has come to the final block of ``source``, which extends all that was seen.

    Raises InvalidProof at the first lie or where it does not extend it, TwoHistories where both are proven final,
    NotThereYet where the source has not come as far, and what the source raises where it does not answer.
    """
    checkpoints = [one for one in seen if one.checkpoint is not None]
    best = max(checkpoints, key=lambda one: one.height, default=None)
    client = LightClient(genesis, None if best is None else best.checkpoint)
    follower = Follower(client, source)
    follower.catch_up()
    highest = max((one.height for one in seen), default=0)
    if follower.is_behind or client.point.height < highest:
        shown = "nothing up to it" if follower.is_behind else f"height {client.point.height}"
        raise NotThereYet(
            "it has not come as far as what was seen", where=source.name, expected=f"height {highest}", actual=shown
        )
    for one in seen:
        _check_extends(follower, one)
    return client


def _check_extends(follower: Follower, one: Earlier) -> None:
    """Check that the final block's history has what was seen in it. Raises InvalidProof."""
    client, source = follower.client, follower.source
    point, final = client.point, client.final
    if one.block_id is not None and point.height == one.height and point.block_id != one.block_id:
        raise _other_block(one, point.block_id)
    if one.block_id is not None and not one.height and one.block_id != client.chain_id:
        raise _other_block(one, client.chain_id)
    if final is None:
        return
    if one.block_id is not None and one.height < point.height:
        try:
            earlier = Checkpoint(one.height, one.block_id)
            check_history(earlier, final.header, follower.path(one.height, point.height))
        except InvalidProof:
            found = follower.block_in_history(one.height, final.header)
            if found is not None and point_of(found).block_id != one.block_id:
                raise _other_block(one, point_of(found).block_id) from None
            raise
    if one.history_root is not None:
        path = source.consistency(one.height, point.height)
        try:
            merkle.verify_consistency(one.height, point.height, one.history_root, final.header.history_root, path)
        except InvalidProof as error:
            raise InvalidProof(
                f"it is not shown to extend the history up to block {one.height}: {error.what}",
                where=f"height {point.height}, field history_root",
                expected=one.history_root,
                actual=error.actual,
            ) from None


def _other_block(one: Earlier, actual: bytes) -> InvalidProof:
    return InvalidProof(
        "another block is final than the one seen earlier",
        where=f"height {one.height}, field block_id",
        expected=one.block_id,
        actual=actual,
    )
