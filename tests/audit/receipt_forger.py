"""What a forger of receipts has, and the table of what was tried."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import structs

from audit.receipt_file import FinalProof, SignedPart, pack, unpack, unpack_path
from consensus.votes import VotingSet
from ledger.block import Certificate, Header
from ledger.crypto import ORDER, PrivateKey
from tests.audit.receipt_world import World, producer_of

FOUNDERS = ("alfa", "bravo", "charlie", "delta")
SECOND = ("bravo", "charlie", "delta", "echo")
THIRD = ("echo", "foxtrot", "golf", "hotel")
STRANGERS = ("mallory", "mike", "november", "oscar")
FORGER = PrivateKey.from_seed(b"mallory submits")


def make_world(**options: Any) -> World:
    """Return the chain of the good receipt; ``options`` change what is on it, but not its genesis."""
    given = {"changes": (SECOND, THIRD), "entries": 30, "blocks": 200, "voids": 1, "mos_count": 1}
    return World(FOUNDERS, chain_name="forged", **{**given, **options})


@dataclass(frozen=True)
class Kit:
    """What a forger has.

    Attributes:
        world: the chain, with the keys of everybody.
        text: the good receipt, in which the caller is shown.
    """

    world: World
    text: str

    @property
    def document(self) -> dict[str, Any]:
        """Return the good receipt, to be changed."""
        found: dict[str, Any] = json.loads(self.text)
        return found

    @property
    def final(self) -> FinalProof:
        """Return the proof of its final block."""
        return unpack(self.document["final"], FinalProof, where="final")

    @property
    def header(self) -> Header:
        """Return the header of the record's block."""
        return unpack(self.document["header"], Header, where="header")

    def change(self, number: int) -> FinalProof:
        """Return the proof of a change of the voting set."""
        return unpack(self.document["set_changes"][number], FinalProof, where="set_changes")

    def path(self, name: str) -> list[bytes]:
        """Return a path of the good receipt."""
        return unpack_path(self.document[name], where=name)

    def with_final(self, proof: FinalProof) -> dict[str, Any]:
        """Return the receipt with another proof of the final block."""
        return {**self.document, "final": pack(proof)}

    def with_change(self, number: int, proof: FinalProof) -> dict[str, Any]:
        """Return the receipt with another proof of a change."""
        changes = self.document["set_changes"]
        return {**self.document, "set_changes": [*changes[:number], pack(proof), *changes[number + 1 :]]}

    def sign_final(self, *signers: tuple[VotingSet, Sequence[int]]) -> FinalProof:
        """Return the final block with a certificate by these, by rank."""
        return resigned(self.final, self.world.certify_by(self.final.header, signers))


Forge = Callable[[Kit], "dict[str, Any] | str"]


@dataclass(frozen=True)
class Forgery:
    """One way to forge a receipt.

    Attributes:
        about: what is tried.
        where: the step that refuses it, as ledger-verify names it.
    """

    name: str
    about: str
    where: str
    forge: Forge

    def text(self, kit: Kit) -> str:
        """Return the forged file."""
        made = self.forge(kit)
        return made if isinstance(made, str) else msgspec.json.encode(made).decode()


FORGERIES: dict[str, Forgery] = {}


def forgery(where: str) -> Callable[[Forge], Forge]:
    """Register a forgery that is refused at ``where``."""

    def register(forge: Forge) -> Forge:
        FORGERIES[forge.__name__] = Forgery(forge.__name__, forge.__doc__ or "", where, forge)
        return forge

    return register


def make_kit() -> Kit:
    """Return what every forgery begins from."""
    world = make_world()
    return Kit(world, world.receipt(("caller",)).decode())


def set_of(set_id: int, names: Sequence[str]) -> VotingSet:
    """Return a voting set of these members."""
    return VotingSet(set_id, tuple(producer_of(name) for name in names))


def resigned(proof: FinalProof, certificate: Certificate) -> FinalProof:
    """Return the proof with another certificate."""
    parts = [SignedPart(part.signers, part.signatures) for part in certificate.parts]
    return structs.replace(proof, t_id=certificate.t_id, parts=parts)


def with_part(proof: FinalProof, **fields: Any) -> FinalProof:
    """Return the proof with other fields in the first part of its certificate."""
    return structs.replace(proof, parts=[structs.replace(proof.parts[0], **fields), *proof.parts[1:]])


def high_s(signature: bytes) -> bytes:
    """Return the other signature that holds for the same digest."""
    return signature[:32] + (ORDER - int.from_bytes(signature[32:])).to_bytes(32)


def roots_of(header: Header) -> dict[str, bytes]:
    """Return the roots that a block of the forger's takes over."""
    return {"tx_root": header.tx_root, "history_root": header.history_root}
