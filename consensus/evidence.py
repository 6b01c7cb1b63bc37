"""Faults that leave proof: found in what was signed, kept until the member is struck.

Everything given to the finder was verified; what it finds are two messages of one key that no honest producer signs
both. An honest producer's votes go up in target and never down in source (V1, V2), and so do the votes remembered here,
for the first one that does not is a proof. So a new vote is compared with its two neighbours by target height alone.

Source: docs/consensus.md, "Faults".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from consensus.blockcheck import check_sealed_header
from consensus.ready import FaultProven, Outbox
from consensus.rows import evidence_key, read_block, read_evidence, read_final_id
from consensus.schedule import producer_at
from consensus.tree import BlockNode, BlockTree
from consensus.votes import SignatureCheck, digest_of, link_of
from ledger.block import SealedHeader, Vote, bitmap_indexes
from ledger.codec import encode
from ledger.crypto import key_id_of
from ledger.errors import InvalidVote, UnusableTransaction
from ledger.governance import check_accusation
from ledger.payloads import Evidence, SignedHeader, is_vote_fault
from ledger.state import State
from ledger.store import Store
from ledger.transition import ChainState
from ledger.validation import KeyOf

VOTES_REMEMBERED = 1_024
"""Votes remembered of one key. What falls out is the lowest target: two votes for a height further back than this many
votes of the key are not told apart any more, which is long final. A vote around an older one stays proof, for it is
around the newest as well. Half of it may lie above the final block, so that who votes far ahead pushes nothing out but
what lies further ahead."""
HEADERS_REMEMBERED = 64
"""Headers remembered of one key, of its latest slots."""
KEYS_REMEMBERED = 256
"""Keys of which anything is remembered, ten times the producers; the least in use goes first."""


@dataclass(slots=True)
class _Signed:
    """What was seen of one key.

    Attributes:
        votes: ascending in target height; sources do not descend.
        headers: by slot.
    """

    public_key: bytes
    votes: list[Vote] = field(default_factory=list)
    headers: dict[int, SignedHeader] = field(default_factory=dict)


class FaultFinder:
    """Remembers what each key signed, and finds two messages that contradict each other.

    Attributes:
        final_height: of the final block; votes above it are what matters now.
    """

    def __init__(self) -> None:
        self.final_height = 0
        self._keys: dict[bytes, _Signed] = {}

    def saw_vote(self, vote: Vote, public_key: bytes) -> Evidence | None:
        """Remember a vote whose signature was verified, or return what it proves together with an earlier one."""
        votes = self._signed(vote.key_id, public_key).votes
        place = bisect_left(votes, vote.t_height, key=_target)
        rival = _rival(votes, place, vote)
        if rival is not None:
            return accuse_voter(public_key, rival, vote)
        if place == len(votes) or votes[place].t_height != vote.t_height:
            votes.insert(place, vote)
        if len(votes) > VOTES_REMEMBERED:
            is_far_ahead = votes[VOTES_REMEMBERED // 2].t_height > self.final_height
            votes.pop(-1 if is_far_ahead else 0)
        return None

    def accuser_of(self, vote: Vote) -> bytes | None:
        """Return the public key to verify ``vote`` with if it contradicts a vote remembered, else None."""
        signed = self._keys.get(vote.key_id)
        if signed is None:
            return None
        place = bisect_left(signed.votes, vote.t_height, key=_target)
        return signed.public_key if _rival(signed.votes, place, vote) is not None else None

    def saw_header(self, signed_header: SignedHeader, public_key: bytes) -> Evidence | None:
        """Remember a header whose signature was verified, or return what it proves together with an earlier one."""
        header = signed_header.header
        headers = self._signed(header.producer_key_id, public_key).headers
        other = headers.setdefault(header.slot, signed_header)
        if other.header != header:
            return accuse_sealer(public_key, other, signed_header)
        if len(headers) > HEADERS_REMEMBERED:
            del headers[min(headers)]
        return None

    def _signed(self, key_id: bytes, public_key: bytes) -> _Signed:
        """Return what is remembered of a key, now the latest in use."""
        signed = self._keys.pop(key_id, None) or _Signed(public_key)
        self._keys[key_id] = signed
        if len(self._keys) > KEYS_REMEMBERED:
            del self._keys[next(iter(self._keys))]
        return signed

    def header_of(self, key_id: bytes, slot: int) -> SignedHeader | None:
        """Return the header remembered of a key and slot."""
        signed = self._keys.get(key_id)
        return signed.headers.get(slot) if signed is not None else None


class Faults:
    """The finder of one engine, with the evidence that waits to be acted upon.

    Attributes:
        kept: evidence by the id of the key accused, one for each key; in the store as well, until it is settled.
    """

    def __init__(
        self, store: Store, outbox: Outbox, final: ChainState, *, key_of: KeyOf, is_valid: SignatureCheck
    ) -> None:
        """Begin with what the store keeps.

        final: the chain after the final block. key_of: returns a key that any branch knows.
        """
        self.kept: dict[bytes, Evidence] = read_evidence(store)
        self._finder = FaultFinder()
        self._store = store
        self._chain_id = final.chain_id
        self._is_valid = is_valid
        self._key_of = key_of
        self._outbox = outbox
        self._final = final.state

    def saw_vote(self, vote: Vote, public_key: bytes) -> None:
        """Take note of a vote whose signature was verified."""
        self._note(self._finder.saw_vote(vote, public_key))

    def saw_late_vote(self, vote: Vote) -> None:
        """Look at a vote that counts no more: only one that contradicts another is worth a check of its signature.

        Raises InvalidVote.
        """
        public_key = self._finder.accuser_of(vote)
        if public_key is None or vote.key_id in self.kept:
            return
        # [REJECT] Its voter signed it
        if not self._is_valid(public_key, digest_of(self._chain_id, link_of(vote)), vote.signature):
            raise InvalidVote("the signature does not verify", where="signature", actual=vote.signature)
        self.saw_vote(vote, public_key)

    def saw_block(self, node: BlockNode, tree: BlockTree) -> None:
        """Take note of a validated block in ``tree``: its header, and the votes that its certificate is made of."""
        assert node.block is not None
        self.saw_header(node.block.sealed, producer_at(node.schedule, node.slot).public_key)
        certificate = node.block.sealed.certificate
        found = tree.votable_on_branch(node, link_of(certificate).target) if certificate is not None else None
        if certificate is None or found is None:
            return
        link = link_of(certificate)
        for part, voting_set in zip(certificate.parts, found.voting, strict=True):
            for index, signature in zip(bitmap_indexes(part.signers), part.signatures, strict=True):
                producer = voting_set.producers[index]
                vote = Vote(*link.source, *link.target, producer.key_id, signature)
                self.saw_vote(vote, producer.public_key)

    def saw_header(self, sealed: SealedHeader, public_key: bytes) -> None:
        """Take note of a header whose signature was verified, whatever else is wrong with its block."""
        self._note(self._finder.saw_header(SignedHeader(sealed.header, sealed.signature), public_key))

    def saw_late_header(self, sealed: SealedHeader) -> None:
        """Look at a header at or below the final height: is it a second one of its slot? Raises InvalidBlock."""
        header = sealed.header
        rival = self._finder.header_of(header.producer_key_id, header.slot) or self._final_header(header.height)
        key = self._key_of(header.producer_key_id)
        if rival is None or key is None or header.producer_key_id in self.kept:
            return
        other = rival.header
        if other == header or (other.slot, other.producer_key_id) != (header.slot, header.producer_key_id):
            return
        check_sealed_header(sealed, key.public_key, self._chain_id, self._is_valid)
        self._finder.saw_header(rival, key.public_key)
        self.saw_header(sealed, key.public_key)

    def settle(self, final: State, height: int) -> None:
        """Let go of evidence that has done its work, or can do none, by the state after the final block."""
        self._final = final
        self._finder.final_height = height
        for key_id in [key_id for key_id, evidence in self.kept.items() if is_settled(final, evidence)]:
            del self.kept[key_id]
            self._outbox.put(evidence_key(key_id), None)

    def _note(self, evidence: Evidence | None) -> None:
        if evidence is None:
            return
        key_id = key_id_of(evidence.public_key)
        if key_id in self.kept or is_settled(self._final, evidence):
            return
        key = self._key_of(key_id)
        self.kept[key_id] = evidence
        self._outbox.put(evidence_key(key_id), encode(evidence))
        self._outbox.tell(FaultProven(key.member_id if key else "", evidence))

    def _final_header(self, height: int) -> SignedHeader | None:
        block_id = read_final_id(self._store, height)
        block = read_block(self._store, block_id) if block_id is not None else None
        return SignedHeader(block.sealed.header, block.sealed.signature) if block is not None else None


def is_settled(state: State, evidence: Evidence) -> bool:
    """Tell whether evidence can do no more on ``state``: struck already, readmitted since, or gone."""
    if key_id_of(evidence.public_key) not in state.keys:
        # Its key was admitted on a branch that is not final yet.
        return False
    try:
        check_accusation(state, evidence)
    except UnusableTransaction:
        return True
    return False


def accuse_voter(public_key: bytes, one: Vote, other: Vote) -> Evidence:
    """Return two votes that contradict each other as evidence."""
    return Evidence(public_key, sorted((one, other), key=encode), [])


def accuse_sealer(public_key: bytes, one: SignedHeader, other: SignedHeader) -> Evidence:
    """Return two headers of one slot as evidence."""
    return Evidence(public_key, [], sorted((one, other), key=encode))


def _target(vote: Vote) -> int:
    return vote.t_height


def _rival(votes: Sequence[Vote], place: int, vote: Vote) -> Vote | None:
    """Return a vote that ``vote`` contradicts; ``place`` is the first with no lower target."""
    return next((other for other in votes[max(0, place - 1) : place + 1] if is_vote_fault(other, vote)), None)
