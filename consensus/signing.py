"""The keys of a node: which of them may sign now, and what peers are told of theirs.

Source: docs/consensus.md, "After a start".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from consensus.caution import Caution, Standing, View, Wait, Word
from consensus.rows import WaitRow, guard_key, read_final_id, read_header, read_wait, wait_key
from consensus.tree import BlockNode
from consensus.votes import Link, SignatureCheck, VoteGuard, VotingSet, digest_of, link_of
from consensus.witness import Witness
from ledger.block import Certificate, SealedHeader, Vote, block_id_of
from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.errors import InvalidBlock, InvalidVote
from ledger.genesis import Genesis
from ledger.store import Store

RECALL_BLOCKS = 256
"""Final blocks looked through after a start, for what others have signed: what they forget is rarely older."""

Put = Callable[[bytes, bytes | None], None]


class Chain(Protocol):
    """What must be known of the chain: of an engine, what it shows to everybody."""

    genesis: Genesis
    chain_id: bytes
    guard: VoteGuard
    head: BlockNode

    @property
    def final(self) -> BlockNode:
        """Return the final block."""


class Signing:
    """Ties caution and witness to the guard and the store of one engine.

    keys: of this node, by key id.
    promise: replaces the guard, on disk before anything that follows is sent.
    put: asks for a row to be written.
    is_cautious: False lets every key sign at once, for a store that is known never to go back.
    """

    def __init__(
        self,
        chain: Chain,
        store: Store,
        keys: Mapping[bytes, PrivateKey],
        promise: Callable[[VoteGuard], None],
        put: Put,
        is_valid: SignatureCheck,
        *,
        is_cautious: bool,
    ) -> None:
        self.caution = Caution(chain.genesis.parameters.epoch_slots)
        self.witness = Witness()
        self._chain = chain
        self._keys = keys
        self._promise = promise
        self._put = put
        self._is_valid = is_valid
        self._is_cautious = is_cautious
        for key_id in keys:
            standing = _standing_of(store, key_id) if is_cautious else Standing.CLEAR
            self.caution.begin(key_id, standing)
            if standing is Standing.NEW:
                # From now on this directory has a record of it: one that waits for a seat will not wait again.
                self._keep(key_id)
                promise(chain.guard)
        if is_cautious:
            self._recall(store)

    # -- what was seen ---------------------------------------------------------------------------------------------

    def saw_vote(self, link: Link, key_id: bytes, signature: bytes) -> None:
        """Take note of a vote; its signature was verified."""
        if not self._is_cautious:
            return
        self.witness.note_vote(link, key_id, signature)
        if key_id in self._keys:
            self._has_signed(key_id, VoteGuard().after_vote(link))

    def saw_certificate(self, certificate: Certificate, sets: Sequence[VotingSet]) -> None:
        """Take note of a valid certificate; ``sets`` are those that may have signed it."""
        if not self._is_cautious:
            return
        self.witness.note_certificate(certificate, sets)
        for key_id in self._keys:
            vote = self.witness.vote_of(key_id)
            if vote is not None:
                self._has_signed(key_id, VoteGuard().after_vote(link_of(vote)))

    def saw_header(self, sealed: SealedHeader) -> None:
        """Take note of a header; its signature was verified."""
        if not self._is_cautious:
            return
        self.witness.note_header(sealed)
        if sealed.header.producer_key_id in self._keys:
            self._has_signed(sealed.header.producer_key_id, VoteGuard().after_seal(sealed.header.slot))

    def hear(
        self, peer_key_id: bytes, word: Word, votes: Iterable[Vote], headers: Iterable[SealedHeader], *, slot: int
    ) -> None:
        """Take the word of a peer, and the proofs that came with it, in ``slot`` by this node's clock.

        Raises InvalidVote or InvalidBlock for a signature that is not ours; then the peer has told nothing.
        """
        for vote in votes:
            # [IGNORE] It is of a key of this node, and says something new
            if self._is_news(vote.key_id, VoteGuard().after_vote(link_of(vote))):
                self._check_vote(vote)
                self.saw_vote(link_of(vote), vote.key_id, vote.signature)
        for sealed in headers:
            if self._is_news(sealed.header.producer_key_id, VoteGuard().after_seal(sealed.header.slot)):
                self._check_header(sealed)
                self.saw_header(sealed)
        entry = self._chain.head.chain.state.keys.get(peer_key_id)
        self.caution.hear(peer_key_id, word, member_id=entry.member_id if entry else "")
        self.look(slot)

    def told_to(self, key_ids: Iterable[bytes]) -> tuple[list[Vote], list[SealedHeader]]:
        """Return what was seen of these keys, for whoever holds them; the highest first."""
        votes = [vote for key_id in key_ids if (vote := self.witness.vote_of(key_id)) is not None]
        headers = [sealed for key_id in key_ids if (sealed := self.witness.header_of(key_id)) is not None]
        votes.sort(key=lambda vote: -vote.t_height)
        headers.sort(key=lambda sealed: -sealed.header.slot)
        return votes, headers

    # -- what may be done ------------------------------------------------------------------------------------------

    def look(self, slot: int) -> None:
        """Take note of the time and the chain; a key whose wait is over promises not to go back on what it forgot."""
        view, justified_height = self._view(slot), self._chain.head.finality.justified.height
        asking = {key_id for key_id in self._keys if self.caution.standing(key_id) is Standing.ASKING}
        for key_id in self.caution.look(view):
            if key_id not in asking:
                # It votes above everything that there was, from no lower than what was justified.
                beyond = VoteGuard(view.head_height + 1, max(justified_height, view.final_height), view.slot + 1)
                self._promise(self._chain.guard.raised_to(beyond))
                self._keep(key_id)

    def may_vote(self, key_id: bytes) -> bool:
        """Tell whether a key of this node may vote."""
        return self.caution.may_vote(key_id)

    def may_seal(self, key_id: bytes, slot: int) -> bool:
        """Tell whether a key of this node may seal in ``slot``."""
        return self.caution.may_seal(key_id, slot)

    def wait(self, slot: int) -> Wait:
        """Return what is waited for."""
        return self.caution.wait(self._view(slot))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _view(self, slot: int) -> View:
        head, final = self._chain.head, self._chain.final
        return View(slot, head.height, final.height, final.slot, head.next_voting)

    def _recall(self, store: Store) -> None:
        """Look through the last final blocks for what was signed."""
        final = self._chain.final
        for height in range(max(1, final.height - RECALL_BLOCKS + 1), final.height + 1):
            block_id = read_final_id(store, height)
            sealed = None if block_id is None else read_header(store, block_id)
            if sealed is not None:
                self.saw_header(sealed)
                if sealed.certificate is not None:
                    # On a final chain a set is known by its number.
                    self.saw_certificate(sealed.certificate, final.next_voting)

    def _is_news(self, key_id: bytes, proven: VoteGuard) -> bool:
        """Tell whether something that makes a key owe ``proven`` would change anything, and is worth its check."""
        if key_id not in self._keys:
            return False
        return self.caution.standing(key_id) is Standing.NEW or not self._chain.guard.covers(proven)

    def _has_signed(self, key_id: bytes, proven: VoteGuard) -> None:
        """One of our keys has signed what makes it owe ``proven``: nothing new, or something that was forgotten."""
        is_beyond_record = not self._chain.guard.covers(proven)
        if self.caution.has_signed(key_id, is_beyond_record=is_beyond_record):
            self._keep(key_id)
        if is_beyond_record:
            self._promise(self._chain.guard.raised_to(proven))

    def _keep(self, key_id: bytes) -> None:
        """Write why a key waits, for a start in the middle of it."""
        standing = self.caution.standing(key_id)
        is_waiting = standing not in {Standing.ASKING, Standing.CLEAR}
        if self._is_cautious:
            self._put(wait_key(key_id), encode(WaitRow(standing.value)) if is_waiting else None)

    def _check_vote(self, vote: Vote) -> None:
        # [REJECT] The signature is ours
        digest = digest_of(self._chain.chain_id, link_of(vote))
        if not self._is_valid(self._keys[vote.key_id].public_key, digest, vote.signature):
            raise InvalidVote("not signed with our key", where="seen.votes", actual=vote.signature)

    def _check_header(self, sealed: SealedHeader) -> None:
        header = sealed.header
        # [REJECT] It is of this chain, and the signature is ours
        is_ours = self._is_valid(self._keys[header.producer_key_id].public_key, block_id_of(header), sealed.signature)
        if header.chain_id != self._chain.chain_id or not is_ours:
            raise InvalidBlock("not signed with our key", where="seen.headers", actual=sealed.signature)


def _standing_of(store: Store, key_id: bytes) -> Standing:
    """Return how it is with a key as the store has it."""
    row = read_wait(store, key_id)
    if row is not None:
        return Standing(row.standing)
    return Standing.ASKING if store.get(guard_key(key_id)) is not None else Standing.NEW
