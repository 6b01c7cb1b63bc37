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
    first: Iterable[Certificate],
    second: Iterable[Certificate],
    sets: Mapping[int, VotingSet],
    chain_id: bytes,
    *,
    other_sets: Mapping[int, VotingSet] | None = None,
) -> list[Accusation]:
    """Return those who voted for both histories, by member id: one proof for each.

    first, second: certificates of either; they may be forged, since each signature is verified.
    sets: voting sets by number; votes of others are not read. other_sets: of the second history, where they are others.
    """
    one = _votes_of(first, sets, chain_id)
    other = _votes_of(second, sets if other_sets is None else other_sets, chain_id)
    found: dict[str, Accusation] = {}
    for key_id, (producer, votes) in one.items():
        _, others = other.get(key_id, (producer, {}))
        pair = next(((a, b) for a in votes.values() for b in others.values() if is_vote_fault(a, b)), None)
        if pair is not None:
            # A member that took another key in between is still one.
            evidence = Evidence(producer.public_key, sorted(pair, key=encode), [])
            found.setdefault(producer.member_id, Accusation(producer, evidence))
    return [found[member_id] for member_id in sorted(found)]


def _votes_of(
    certificates: Iterable[Certificate], sets: Mapping[int, VotingSet], chain_id: bytes
) -> dict[bytes, tuple[Producer, dict[bytes, Vote]]]:
    """Return the votes in some certificates by the key that cast them, each once."""
    found: dict[bytes, tuple[Producer, dict[bytes, Vote]]] = {}
    for certificate in certificates:
        link = link_of(certificate)
        digest = digest_of(chain_id, link)
        for part in certificate.parts:
            voting_set = sets.get(part.set_id)
            producers = voting_set.producers if voting_set else ()
            for index, signature in zip(bitmap_indexes(part.signers), part.signatures, strict=False):
                if index < len(producers) and is_valid_signature(producers[index].public_key, digest, signature):
                    producer = producers[index]
                    vote = Vote(*link.source, *link.target, producer.key_id, signature)
                    found.setdefault(producer.key_id, (producer, {}))[1][encode(vote)] = vote
    return found
