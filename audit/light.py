"""A light client: follows what is final from genesis on by headers, certificates and set changes alone.

It trusts the genesis, or a checkpoint that it wrote itself, and of every voting set since then that its quorum was
honest. A block is taken as final when a quorum of every set that had to sign a child of it did, and when the block last
taken lies in its history. What blocks hold is not looked at: that is what ``ledger-verify`` is for.

Source: docs/audit.md, "Following a chain".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import msgspec

from audit.voting import check_set_change, check_voting, founding_set
from consensus.setchange import VotingProof
from consensus.votes import Checkpoint, VotingSet
from ledger import merkle
from ledger.block import Header, SealedHeader, block_id_of, certificate_hash, genesis_block_id
from ledger.codec import Bytes32, Wire
from ledger.errors import InvalidProof, LedgerError
from ledger.genesis import Genesis, chain_id_of
from ledger.readable import from_readable, parse_json, to_readable

HEADERS_MAX: Final = 128
"""Headers asked for at once: about 800 KB of JSON with 21 voters."""
SET_CHANGES_MAX: Final = 32
"""Changes of the voting set asked for at once: about 500 KB of JSON with 21 voters."""
SETS_KEPT_MAX: Final = 1_024
"""Voting sets remembered, newest last: those whose votes may still be held against each other."""


class LightSource(ABC):
    """Whom a light client asks, and does not believe. Every answer may be a lie."""

    name: str
    """What a person calls it."""

    @abstractmethod
    def final(self) -> VotingProof | None:
        """Return the last final block, None while that is genesis."""

    @abstractmethod
    def set_changes(self, after: int) -> list[VotingProof]:
        """Return the changes from voting set ``after`` on, in order, at most SET_CHANGES_MAX."""

    @abstractmethod
    def headers(self, first: int, count: int) -> list[SealedHeader]:
        """Return the headers of its best chain from height ``first`` on, at most ``count`` (1 to HEADERS_MAX)."""

    @abstractmethod
    def history(self, height: int, size: int) -> list[bytes]:
        """Return the path from the block at ``height`` to the history root of the final one at height ``size``."""

    @abstractmethod
    def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """Return the proof that one history is the beginning of that of the final block at height ``new_size``."""


class LightCheckpoint(Wire, frozen=True):
    """What a light client resumes from: it must come from nobody but itself."""

    version: Literal[1]
    chain_id: Bytes32
    final: VotingProof
    """Whose votes certify its child is what is trusted."""


class LightClient:
    """The last block known to be final, and who votes from there on.

    Attributes:
        chain_id: of the genesis.
        trusted: the voting set that the next proof must name as the current one.
        final: the last final block; None for genesis.
        sets: voting sets seen, by number, at most SETS_KEPT_MAX.
    """

    def __init__(self, genesis: Genesis, checkpoint: LightCheckpoint | None = None) -> None:
        """Begin at genesis, or where ``checkpoint`` left off. Raises InvalidProof where that contradicts itself."""
        self.chain_id = chain_id_of(genesis)
        self.trusted = founding_set(genesis)
        self.sets: dict[int, VotingSet] = {}
        self.final: VotingProof | None = None
        if checkpoint is not None:
            if checkpoint.chain_id != self.chain_id:
                raise InvalidProof("of another chain", where="checkpoint.chain_id", actual=checkpoint.chain_id)
            voting = checkpoint.final.voting
            self.trusted = VotingSet(voting.set_id, tuple(voting.producers))
            with _naming(checkpoint.final.header):
                check_voting(checkpoint.final, self.trusted, self.chain_id, where="checkpoint")
            self.final = checkpoint.final
        self._remember(self.trusted)

    @property
    def point(self) -> Checkpoint:
        """Return height and id of the last final block."""
        if self.final is None:
            return Checkpoint(0, genesis_block_id(self.chain_id))
        return point_of(self.final.header)

    def checkpoint(self) -> LightCheckpoint | None:
        """Return what to resume from; None at genesis."""
        return None if self.final is None else LightCheckpoint(1, self.chain_id, self.final)

    def member_of(self, key_id: bytes) -> str | None:
        """Return who votes, or voted, with a key; None where no voting set remembered has it."""
        for voting_set in reversed(self.sets.values()):
            for producer in voting_set.producers:
                if producer.key_id == key_id:
                    return producer.member_id
        return None

    def change(self, proof: VotingProof, path: Sequence[bytes] | None) -> VotingSet:
        """Take in the next change of the voting set; return the set that is trusted from now on.

        path: from the lower of this block and the last final one to the history of the higher; None where the higher
        is the child of the lower, or they are one. Raises InvalidProof naming height and field, OtherHistory where only
        the path does not hold.
        """
        with _naming(proof.header):
            pending = check_set_change(proof, self.trusted, self.chain_id, where="")
        self._place(proof, path)
        self.trusted = pending
        self._remember(pending)
        return pending

    def advance(self, proof: VotingProof, path: Sequence[bytes] | None) -> None:
        """Take in a final block, not below the last one.

        path: as in ``change``. Raises as it does; nothing is changed then.
        """
        with _naming(proof.header):
            check_voting(proof, self.trusted, self.chain_id, where="")
        # [REJECT] It is not below the last final block
        if proof.header.height < self.point.height:
            expected = f">= {self.point.height}"
            raise _wrong(proof.header, "height", "below the last final block", expected, proof.header.height)
        self._place(proof, path)

    def is_final(self, proof: VotingProof) -> bool:
        """Tell whether a block is final by the word of a voting set that was trusted before, or is."""
        known = self.sets.get(proof.voting.set_id)
        try:
            if known is not None:
                check_voting(proof, known, self.chain_id, where="")
        except InvalidProof:
            return False
        return known is not None

    def check_page(self, before: Header | None, page: Sequence[SealedHeader], path: Sequence[bytes] | None) -> None:
        """Check headers that follow ``before``, None for genesis, and lie below the last final block.

        path: from the last of them to the history of the final block; None where they reach up to it. The seals are
        not looked at: that these blocks are their producers' follows from finality. Raises InvalidProof naming height
        and field.
        """
        assert self.final is not None
        last = self.final.header
        for sealed in page:
            # [REJECT] The certificate beside a header is the one in it
            _check_equal(sealed.header, "qc_hash", sealed.header.qc_hash, certificate_hash(sealed.certificate))
        headers = [sealed.header for sealed in page]
        point, slot = (Checkpoint(0, self.chain_id), -1) if before is None else (point_of(before), before.slot)
        for header in headers if path is not None else [*headers, last]:
            # [REJECT] Each header continues the one before, in a later slot
            _check_equal(header, "chain_id", self.chain_id, header.chain_id)
            _check_equal(header, "height", point.height + 1, header.height)
            _check_equal(header, "parent_id", point.block_id, header.parent_id)
            if header.slot <= slot:
                raise _wrong(header, "slot", "not after the parent's", f"> {slot}", header.slot)
            point, slot = point_of(header), header.slot
        # [REJECT] The last of them is in the history of the final block
        if path is not None:
            check_history(point, last, path)

    def _place(self, proof: VotingProof, path: Sequence[bytes] | None) -> None:
        """Find a final block in one history with the last one, and go on to it where it is higher."""
        own = self.final
        here, height = self.point, proof.header.height
        if own is not None and height == here.height:
            if point_of(proof.header) != here:
                raise OtherHistory(own, proof, "two blocks are final at one height")
            return
        try:
            if own is not None and height < here.height:
                check_history(point_of(proof.header), own.header, path)
                return
            check_history(here, proof.header, path)
        except InvalidProof as error:
            if own is None:
                raise
            pair = (proof, own) if height < here.height else (own, proof)
            raise OtherHistory(*pair, error.what) from None
        self.final = proof

    def _remember(self, voting_set: VotingSet) -> None:
        self.sets[voting_set.set_id] = voting_set
        while len(self.sets) > SETS_KEPT_MAX:
            del self.sets[min(self.sets)]


class OtherHistory(InvalidProof):
    """Two blocks are final, and the lower is not shown to be in the history of the higher.

    Attributes:
        lower, higher: those blocks.
    """

    def __init__(self, lower: VotingProof, higher: VotingProof, what: str) -> None:
        self.lower, self.higher = lower, higher
        point = point_of(lower.header)
        where = f"height {higher.header.height}, field history_root"
        super().__init__(what, where=where, expected=f"block {point.height} with id {point.block_id.hex()}")


def point_of(header: Header) -> Checkpoint:
    """Return height and id of a block."""
    return Checkpoint(header.height, block_id_of(header))


def check_history(earlier: Checkpoint, later: Header, path: Sequence[bytes] | None) -> None:
    """Check that a block is in the history of a later one, by ``path`` or, where that is None, as its parent.

    Raises InvalidProof naming the height of the later one and the field.
    """
    if path is None:
        _check_equal(later, "height", earlier.height + 1, later.height)
        _check_equal(later, "parent_id", earlier.block_id, later.parent_id)
        return
    try:
        leaf = merkle.leaf_hash(earlier.block_id)
        merkle.verify_inclusion(leaf, earlier.height, later.height, path, later.history_root)
    except InvalidProof as error:
        what = f"block {earlier.height} is not shown to be in its history: {error.what}"
        raise _wrong(later, "history_root", what, error.expected, error.actual) from None


# -- checkpoint files --------------------------------------------------------------------------------------------------


def checkpoint_to_json(checkpoint: LightCheckpoint) -> bytes:
    """Return a checkpoint as a file: 4 KB with four voters, 9 KB with 21, half as much again while a set changes."""
    return msgspec.json.encode(to_readable(checkpoint)) + b"\n"


def checkpoint_from_json(data: bytes) -> LightCheckpoint:
    """Return the checkpoint in a file. Raises EncodingError naming the field."""
    return from_readable(parse_json(data), LightCheckpoint)


# -- errors ------------------------------------------------------------------------------------------------------------


@contextmanager
def _naming(header: Header) -> Iterator[None]:
    """Name the height in the errors of a proof."""
    try:
        yield
    except LedgerError as error:
        raise _wrong(header, error.where.lstrip("."), error.what, error.expected, error.actual) from None


def _check_equal(header: Header, field: str, expected: Any, actual: Any) -> None:
    if expected != actual:
        raise _wrong(header, field, "does not follow from the rest", expected, actual)


def _wrong(header: Header, field: str, what: str, expected: object, actual: object) -> InvalidProof:
    return InvalidProof(what, where=f"height {header.height}, field {field}", expected=expected, actual=actual)
