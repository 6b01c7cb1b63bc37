"""Who is at fault where two histories are final: votes of one producer that contradict each other.

Two conflicting blocks are final only where f + 1 producers voted twice for one height, or for a link around another.
Certificates hold their votes, so certificates from both histories name them.

Source: docs/consensus.md, "Why it is safe".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from consensus.votes import VotingSet, digest_of, link_of
from ledger.block import Certificate, Vote, bitmap_indexes
from ledger.codec import encode
from ledger.crypto import is_valid_signature
from ledger.entries import Producer
from ledger.payloads import Evidence, is_vote_fault


@dataclass(frozen=True, slots=True)
class Accusation:
    """A producer, and two votes that no honest one casts both."""

    producer: Producer
    evidence: Evidence


def accuse(
    first: Iterable[Certificate], second: Iterable[Certificate], sets: Mapping[int, VotingSet], chain_id: bytes
) -> list[Accusation]:
    """Return those who voted for both histories, by member id: one proof for each.

    first, second: certificates of either; they may be forged, since each signature is verified.
    sets: voting sets by number; votes of others are not read.
    """
    one, other = _votes_of(first, sets, chain_id), _votes_of(second, sets, chain_id)
    found: dict[bytes, Accusation] = {}
    for producer, a in one:
        for _, b in (pair for pair in other if pair[0].key_id == producer.key_id):
            if producer.key_id not in found and is_vote_fault(a, b):
                votes = sorted((a, b), key=encode)
                found[producer.key_id] = Accusation(producer, Evidence(producer.public_key, votes, []))
    return sorted(found.values(), key=lambda each: each.producer.member_id)


def _votes_of(
    certificates: Iterable[Certificate], sets: Mapping[int, VotingSet], chain_id: bytes
) -> list[tuple[Producer, Vote]]:
    votes: dict[bytes, tuple[Producer, Vote]] = {}
    for certificate in certificates:
        link = link_of(certificate)
        digest = digest_of(chain_id, link)
        for part in certificate.parts:
            voting_set = sets.get(part.set_id)
            producers = voting_set.producers if voting_set else ()
            for index, signature in zip(bitmap_indexes(part.signers), part.signatures, strict=False):
                if index < len(producers) and is_valid_signature(producers[index].public_key, digest, signature):
                    vote = Vote(*link.source, *link.target, producers[index].key_id, signature)
                    votes[encode(vote)] = (producers[index], vote)
    return list(votes.values())
