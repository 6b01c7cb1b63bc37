"""Votes on links, the certificates they add up to, and the promises a producer keeps on disk.

A vote is for a link from a source to a target block. The source is the block certified by the highest certificate
carried in the target's own chain, so all who vote for a target vote for the same link and quorums do not split.

Source: docs/consensus.md, "Votes and certificates".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from consensus.params import quorum_of
from ledger.block import Certificate, CertificatePart, Vote, bitmap_indexes, void_bitmap, vote_digest
from ledger.codec import INT_MAX, Count, Wire
from ledger.crypto import is_valid_signature
from ledger.entries import Producer
from ledger.errors import InvalidVote

VOTES_PER_PRODUCER_MAX = 256
"""Votes kept of one producer above the final block; the oldest goes first. An honest one needs a handful."""
TARGET_AHEAD_MAX = 20_000
"""A vote for a height this far above the final block is not kept."""

SignatureCheck = Callable[[bytes, bytes, bytes], bool]
"""Tells whether a signature is by a public key over a digest: (public_key, digest, signature)."""


class Checkpoint(NamedTuple):
    """A block by height and id."""

    height: int
    block_id: bytes


class Link(NamedTuple):
    """From a source to a target: what a vote is for."""

    source: Checkpoint
    target: Checkpoint


@dataclass(frozen=True, slots=True)
class VotingSet:
    """The producers whose quorum certifies a block.

    Attributes:
        set_id: counted from 0 in genesis, one more for each change.
        producers: by rank; bitmaps of signers follow this order.
    """

    set_id: int
    producers: tuple[Producer, ...]

    @property
    def quorum(self) -> int:
        """Return how many signatures certify."""
        return quorum_of(len(self.producers))

    def is_quorum(self, key_ids: AbstractSet[bytes]) -> bool:
        """Tell whether a quorum of the set is among ``key_ids``."""
        return sum(producer.key_id in key_ids for producer in self.producers) >= self.quorum

    def index_of(self, key_id: bytes) -> int | None:
        """Return the place of a key in the set, or None."""
        for index, producer in enumerate(self.producers):
            if producer.key_id == key_id:
                return index
        return None


class VoteGuard(Wire, frozen=True):
    """What a producer has promised; on disk before the vote or header leaves.

    V1: it votes only for targets above the last one. V2: only from sources not below the highest one.
    V3: it seals only in slots above the last one sealed in.
    """

    next_target: Count = 0
    """Lowest target height it may still vote for."""
    max_source: Count = 0
    """Lowest source height it may still vote from."""
    next_slot: Count = 0
    """Lowest slot it may still seal in."""

    def may_vote(self, link: Link) -> bool:
        """Tell whether V1 and V2 allow a vote for ``link``."""
        return link.target.height >= self.next_target and link.source.height >= self.max_source

    def covers(self, other: VoteGuard) -> bool:
        """Tell whether whatever is forbidden by ``other`` is forbidden by this one."""
        return self.raised_to(other) == self

    def raised_to(self, other: VoteGuard) -> VoteGuard:
        """Return the guard that keeps both promises."""
        return VoteGuard(
            max(self.next_target, other.next_target),
            max(self.max_source, other.max_source),
            max(self.next_slot, other.next_slot),
        )

    def after_vote(self, link: Link) -> VoteGuard:
        """Return the guard once a vote for ``link`` is cast."""
        next_target = min(link.target.height + 1, INT_MAX)
        return VoteGuard(next_target, max(self.max_source, link.source.height), self.next_slot)

    def after_seal(self, slot: int) -> VoteGuard:
        """Return the guard once a block is sealed in ``slot``."""
        return VoteGuard(self.next_target, self.max_source, min(slot + 1, INT_MAX))


def link_of(vote: Vote | Certificate) -> Link:
    """Return the link that a vote or certificate is for."""
    return Link(Checkpoint(vote.s_height, vote.s_id), Checkpoint(vote.t_height, vote.t_id))


def digest_of(chain_id: bytes, link: Link) -> bytes:
    """Return what is signed for a link."""
    return vote_digest(chain_id, *link.source, *link.target)


class VotePool:
    """Verified votes above the final block, and the certificates they make."""

    def __init__(self, chain_id: bytes, is_valid: SignatureCheck = is_valid_signature) -> None:
        self._chain_id = chain_id
        self._is_valid = is_valid
        self._links: dict[Link, dict[bytes, bytes]] = {}
        self._by_key: dict[bytes, list[Link]] = {}

    def has(self, link: Link, key_id: bytes) -> bool:
        """Tell whether the vote of ``key_id`` for ``link`` is held."""
        return key_id in self._links.get(link, ())

    def is_full_of(self, key_id: bytes) -> bool:
        """Tell whether so many votes of ``key_id`` are held that another one would push one out."""
        return len(self._by_key.get(key_id, ())) >= VOTES_PER_PRODUCER_MAX

    def add(self, vote: Vote, public_key: bytes) -> bool:
        """Keep a vote; False where it was held. Raises InvalidVote for a wrong signature."""
        link = link_of(vote)
        if self.has(link, vote.key_id):
            return False
        # [REJECT] The signature is the producer's
        if not self._is_valid(public_key, digest_of(self._chain_id, link), vote.signature):
            raise InvalidVote("the signature does not verify", where="signature", actual=vote.signature)
        self._links.setdefault(link, {})[vote.key_id] = vote.signature
        held = self._by_key.setdefault(vote.key_id, [])
        held.append(link)
        if len(held) > VOTES_PER_PRODUCER_MAX:
            self._drop(held.pop(0), vote.key_id)
        return True

    def certificate(self, link: Link, sets: Sequence[VotingSet]) -> Certificate | None:
        """Return the certificate on ``link`` once a quorum of every set voted for it, else None."""
        votes = self._links.get(link, {})
        parts = []
        for voting_set in sets:
            signers = [i for i, p in enumerate(voting_set.producers) if p.key_id in votes][: voting_set.quorum]
            if len(signers) < voting_set.quorum:
                return None
            signatures = [votes[voting_set.producers[i].key_id] for i in signers]
            bitmap = void_bitmap(signers, len(voting_set.producers))
            parts.append(CertificatePart(voting_set.set_id, bitmap, signatures))
        return Certificate(*link.source, *link.target, parts)

    def signature(self, link: Link, key_id: bytes) -> bytes | None:
        """Return the verified signature of ``key_id`` on ``link``, if held."""
        return self._links.get(link, {}).get(key_id)

    def prune(self, final_height: int) -> None:
        """Let go of votes for targets at or below the final block."""
        for link in [link for link in self._links if link.target.height <= final_height]:
            del self._links[link]
        for key_id, held in self._by_key.items():
            self._by_key[key_id] = [link for link in held if link.target.height > final_height]

    def _drop(self, link: Link, key_id: bytes) -> None:
        votes = self._links.get(link)
        if votes is not None:
            votes.pop(key_id, None)
            if not votes:
                del self._links[link]


def check_certificate(
    certificate: Certificate,
    sets: Sequence[VotingSet],
    chain_id: bytes,
    known: Callable[[Link, bytes], bytes | None] = lambda _link, _key: None,
    is_valid: SignatureCheck = is_valid_signature,
) -> None:
    """Raise InvalidVote unless ``certificate`` holds a quorum of every one of ``sets``, in order.

    known: returns a signature already verified, so that it is not verified twice.
    """
    link = link_of(certificate)
    digest = digest_of(chain_id, link)
    # [REJECT] It leads upwards
    if link.target.height <= link.source.height:
        raise InvalidVote("the target is not above the source", where="t_height", expected=f"> {link.source.height}")
    # [REJECT] It has a part for each set that must sign
    if [part.set_id for part in certificate.parts] != [voting_set.set_id for voting_set in sets]:
        raise InvalidVote(
            "signed by other sets",
            where="parts",
            expected=[s.set_id for s in sets],
            actual=[p.set_id for p in certificate.parts],
        )
    for part, voting_set in zip(certificate.parts, sets, strict=True):
        signers = bitmap_indexes(part.signers)
        size = len(voting_set.producers)
        # [REJECT] The bitmap is of the set's size and has exactly a quorum of signers, one signature each
        if len(part.signers) != (size + 7) // 8 or (signers and signers[-1] >= size):
            raise InvalidVote("the bitmap does not fit the set", where="parts.signers", expected=f"{size} producers")
        if len(signers) != voting_set.quorum or len(part.signatures) != len(signers):
            raise InvalidVote("not a quorum", where="parts.signers", expected=voting_set.quorum, actual=len(signers))
        for index, signature in zip(signers, part.signatures, strict=True):
            producer = voting_set.producers[index]
            if known(link, producer.key_id) == signature:
                continue
            # [REJECT] Every signature is good
            if not is_valid(producer.public_key, digest, signature):
                raise InvalidVote("the signature does not verify", where="parts.signatures", actual=signature)
