"""Forged variants of a real chain whose voting set changes: for an audit, and for a light client.

``Forgery`` is a chain taken apart, with the state after each block and the keys of everybody who ever produced: forgers
with all keys, but not the quorums' honesty. Each variant changes one thing, and says where an audit must find it and,
where it is something that a light client sees, where that must. A variant raises ``Unfit`` for a chain that has not
what it changes: nothing else is assumed of a chain but one change of the voting set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec.structs import replace as with_fields

from audit.auditor import ChainAuditor
from audit.light import LightSource
from audit.raw import Head, RawFinality
from consensus.epochs import voting_sets
from consensus.setchange import VotingProof
from consensus.votes import Link, VotingSet, digest_of
from ledger import merkle
from ledger.block import Certificate, CertificatePart, SealedHeader, block_id_of, certificate_hash, void_bitmap
from ledger.codec import decode, encode
from ledger.crypto import PrivateKey
from ledger.genesis import chain_id_of
from ledger.state import State, StateKey, state_path
from ledger.validation import Rules
from tests.audit.tamper import Parts

STRANGER = PrivateKey.from_seed(b"nobody on this chain")


class Unfit(Exception):
    """The chain lacks what the variant changes."""


def replay(parts: Parts, rules: Rules) -> list[State]:
    """Return the state after each block of a good chain, that of genesis first."""
    auditor = ChainAuditor(parts.genesis, rules)
    states = [auditor.chain.state]
    try:
        for raw in parts.blocks:
            auditor.add(raw)
            states.append(auditor.chain.state)
    finally:
        auditor.close()
    return states


@dataclass
class Forgery:
    """A chain to be forged.

    Attributes:
        parts: the chain, to be changed.
        states: after each block of the good chain.
        keys: private keys by id.
    """

    parts: Parts
    states: list[State]
    keys: Mapping[bytes, PrivateKey]
    answers: dict[str, Callable[[Any], Any]] = field(default_factory=dict)

    def copy(self) -> Forgery:
        """Return it, to be changed apart."""
        return replace(self, parts=self.parts.copy(), answers={})

    # -- where things are ------------------------------------------------------------------------------------------

    @property
    def last(self) -> int:
        """Return the height of the last block."""
        return len(self.parts.blocks)

    def begun(self, number: int = 1) -> int:
        """Return the height of the block that scheduled voting set ``number``."""
        for height, state in enumerate(self.states):
            pending = state.voting.pending
            if pending is not None and state.voting.set_id + 1 == number:
                return height
        raise Unfit(f"no change to set {number}")

    def completed(self, number: int = 1) -> int:
        """Return the height of the block that completed the change to voting set ``number``."""
        for height, state in enumerate(self.states):
            if state.voting.set_id == number:
                return height
        raise Unfit(f"no set {number}")

    def carrier(self, matches: Callable[[Certificate], bool], *, above: int = 0) -> int:
        """Return the height of the first block above one that carries such a certificate."""
        for height in range(above + 1, self.last + 1):
            certificate = self.parts.sealed(height).certificate
            if certificate is not None and matches(certificate):
                return height
        raise Unfit("no such certificate")

    def joint(self) -> int:
        """Return the height of the first block whose certificate two sets signed."""
        return self.carrier(lambda c: len(c.parts) == 2)

    def after(self) -> int:
        """Return the height of the first block whose certificate the new set signed alone."""
        return self.carrier(lambda c: len(c.parts) == 1 and c.parts[0].set_id == 1)

    def before(self) -> int:
        """Return the height of the last block before the joint ones whose certificate the old set signed alone."""
        end = self.joint()
        return max(h for h in range(1, end) if self.parts.sealed(h).certificate is not None)

    def set_of(self, number: int) -> VotingSet:
        """Return voting set ``number``."""
        for state in self.states:
            for voting_set in voting_sets(state):
                if voting_set.set_id == number:
                    return voting_set
        raise Unfit(f"no set {number}")

    # -- certificates and headers ----------------------------------------------------------------------------------

    def part(
        self, link: Link, voting_set: VotingSet, *, set_id: int | None = None, signers: Iterable[int] | None = None
    ) -> CertificatePart:
        """Return the signatures of a set's producers, by default its first quorum, on a link."""
        places = sorted(range(voting_set.quorum) if signers is None else signers)
        if not places:
            raise Unfit("a part that nobody signed has no encoding")
        digest = digest_of(chain_id_of(self.parts.genesis), link)
        signatures = [self.keys[voting_set.producers[i].key_id].sign(digest) for i in places]
        bitmap = void_bitmap(places, len(voting_set.producers))
        return CertificatePart(voting_set.set_id if set_id is None else set_id, bitmap, signatures)

    def put_parts(self, height: int, change: Callable[[Certificate], list[CertificatePart]]) -> None:
        """Replace the parts of the certificate that a block carries; its header follows and is sealed anew."""
        certificate = self.parts.sealed(height).certificate
        assert certificate is not None
        self.put_certificate(height, with_fields(certificate, parts=change(certificate)))

    def put_certificate(self, height: int, certificate: Certificate | None) -> None:
        """Replace the certificate that a block carries; its header follows and is sealed anew."""
        self.parts.put_sealed(height, certificate=certificate)
        self.reseal(height, qc_hash=certificate_hash(certificate))

    def reseal(self, height: int, /, *, key: PrivateKey | None = None, **changes: object) -> None:
        """Change header fields and seal anew, by the slot's owner unless told otherwise."""
        owner = self.keys[self.parts.header(height).producer_key_id]
        self.parts.reseal(height, key=key or owner, **changes)

    def put_state(self, height: int, changes: Mapping[StateKey, Any]) -> None:
        """Claim another state after a block."""
        self.states = list(self.states)
        self.states[height] = self.states[height].changed(changes)
        self.reseal(height, state_root=self.states[height].tree.root)

    def put_finality(self, change: Callable[[Certificate], list[CertificatePart]]) -> None:
        """Replace the parts of the certificate that makes the last block final."""
        raw = self.parts.finality.certificate
        assert raw is not None
        certificate = decode(raw, Certificate)
        changed = with_fields(certificate, parts=change(certificate))
        self.parts.finality = RawFinality(self.parts.finality.child, encode(changed))

    def cut(self, height: int, *, certificate: Certificate) -> None:
        """Let the chain end at a height, with the next header as the child."""
        blocks = self.parts.blocks
        child = blocks[height].sealed
        self.parts.blocks = blocks[:height]
        self.parts.head = Head(1, height, block_id_of(self.parts.header(height)))
        self.parts.finality = RawFinality(child, encode(certificate))


class ForgedSource(LightSource):
    """What a forger answers to a light client: what follows from a forged chain, then what ``answers`` make of that."""

    def __init__(self, forgery: Forgery, *, name: str = "forger") -> None:
        self.name = name
        self._forgery = forgery
        self._parts = forgery.parts

    def _answer(self, question: str, answer: Any) -> Any:
        return self._forgery.answers.get(question, lambda given: given)(answer)

    def _proof(self, height: int, certificate: Certificate) -> VotingProof:
        state = self._forgery.states[height]
        siblings = list(state.tree.prove(state_path("voting")).siblings)
        return VotingProof(self._parts.header(height), state.voting, siblings, certificate)

    def final(self) -> VotingProof | None:
        raw = self._parts.finality.certificate
        assert raw is not None
        return self._answer("final", self._proof(len(self._parts.blocks), decode(raw, Certificate)))

    def set_changes(self, after: int) -> list[VotingProof]:
        changes = []
        for number in range(after + 1, self._forgery.states[len(self._parts.blocks)].voting.set_id + 1):
            certificate = self._certificate_on(self._forgery.begun(number))
            if certificate is not None:
                changes.append(self._proof(certificate.s_height, certificate))
        return self._answer("set_changes", changes)

    def _certificate_on(self, height: int) -> Certificate | None:
        """Return the certificate, carried or of the end, that makes a block at or above ``height`` final."""
        for above in range(height + 1, len(self._parts.blocks) + 1):
            certificate = self._parts.sealed(above).certificate
            if certificate and certificate.s_height >= height and certificate.t_height == certificate.s_height + 1:
                return certificate
        return None

    def headers(self, first: int, count: int) -> list[SealedHeader]:
        end = min(first + count, len(self._parts.blocks) + 1)
        return self._answer("headers", [self._parts.sealed(height) for height in range(first, end)])

    def history(self, height: int, size: int) -> list[bytes]:
        return self._answer("history", merkle.inclusion_proof(self._leaves(size), height))

    def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        return self._answer("consistency", merkle.consistency_proof(self._leaves(new_size), old_size))

    def _leaves(self, size: int) -> list[bytes]:
        ids = [chain_id_of(self._parts.genesis)]
        ids += [block_id_of(self._parts.header(above)) for above in range(1, size)]
        return [merkle.leaf_hash(one) for one in ids]


# -- variants ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """One way to forge a chain.

    Attributes:
        forge: changes a chain, and returns the height at which an audit must find it; None where there is nothing for
            an audit, since only answers to a light client are forged.
        field: what the audit must name.
        light: in what the light client's complaint must lie; empty where it sees nothing of it.
    """

    forge: Callable[[Forgery], int | None]
    field: str
    light: str


VARIANTS: dict[str, Variant] = {}


Forge = Callable[[Forgery], int | None]


def variant(field: str, light: str = "") -> Callable[[Forge], Forge]:
    """Note a variant by its function's name."""

    def note(forge: Forge) -> Forge:
        VARIANTS[forge.__name__] = Variant(forge, field, light)
        return forge

    return note


def all_variants() -> dict[str, Variant]:
    """Return every variant by name."""
    from tests.audit import forged_answers, forged_chains

    assert forged_answers, forged_chains
    return VARIANTS
