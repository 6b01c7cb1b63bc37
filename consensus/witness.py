"""What was seen of other producers: the highest vote and the latest header that each key has signed.

Whoever lost its vote record is told; its own signature is the proof, so nobody can be silenced by a lie. In memory:
after a restart it begins with what the stored blocks say.

Source: docs/consensus.md, "After a start".
"""

from __future__ import annotations

from collections.abc import Sequence

from consensus.votes import Link, VotingSet, link_of
from ledger.block import Certificate, SealedHeader, Vote, bitmap_indexes


class Witness:
    """Remembers one vote and one header for each key; every signature given to it was verified."""

    def __init__(self) -> None:
        self._votes: dict[bytes, tuple[Link, bytes]] = {}
        self._headers: dict[bytes, SealedHeader] = {}

    def vote_of(self, key_id: bytes) -> Vote | None:
        """Return the vote with the highest target that was seen of a key: its highest source as well, by V2."""
        found = self._votes.get(key_id)
        return Vote(*found[0].source, *found[0].target, key_id, found[1]) if found else None

    def header_of(self, key_id: bytes) -> SealedHeader | None:
        """Return the header of the latest slot that was seen of a key, without the certificate it carried."""
        return self._headers.get(key_id)

    def note_vote(self, link: Link, key_id: bytes, signature: bytes) -> None:
        """Remember a vote if it is the highest of its key."""
        found = self._votes.get(key_id)
        if found is None or found[0].target.height < link.target.height:
            self._votes[key_id] = (link, signature)

    def note_certificate(self, certificate: Certificate, sets: Sequence[VotingSet]) -> None:
        """Remember the votes that a valid certificate is made of, as far as the sets that signed it are in ``sets``."""
        link, known = link_of(certificate), {voting_set.set_id: voting_set for voting_set in sets}
        for part in certificate.parts:
            if part.set_id in known:
                producers = known[part.set_id].producers
                for index, signature in zip(bitmap_indexes(part.signers), part.signatures, strict=True):
                    self.note_vote(link, producers[index].key_id, signature)

    def note_header(self, sealed: SealedHeader) -> None:
        """Remember a header if it is the latest of its producer."""
        key_id = sealed.header.producer_key_id
        found = self._headers.get(key_id)
        if found is None or found.header.slot < sealed.header.slot:
            self._headers[key_id] = SealedHeader(sealed.header, sealed.signature, None)
