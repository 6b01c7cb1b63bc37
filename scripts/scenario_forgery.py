"""Forgeries of a chain: what an auditor and a light client would be given by somebody who has more keys than he should.

The forger has every node key there ever was as far as sealing goes: blocks he changed are sealed anew, and linked up to
the end. Votes he has of those who left office, were struck or have another key by now; of the others he has the votes
that they cast. Each forgery is served both ways: as an export to ``ledger-verify``, and as answers of a node to a light
client.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace
from stage import NotHeld, held

from audit.export import ExportReader, FrameType, make_frame, make_preamble
from audit.follow import Follower
from audit.light import LightClient, LightSource
from audit.raw import Head
from audit.report import AuditReport
from audit.source import ExportSource
from audit.verify import verify_chain
from consensus.setchange import VotingProof
from ledger import merkle
from ledger.block import (
    BodyItem,
    Certificate,
    CertificatePart,
    Header,
    SealedHeader,
    bitmap_indexes,
    block_id_of,
    body_root,
    certificate_hash,
    genesis_block_id,
    sum_totals,
    void_bitmap,
    vote_digest,
)
from ledger.cdr import CallRecord
from ledger.codec import ZERO32, decode, decode_each, encode
from ledger.crypto import PrivateKey
from ledger.entries import PendingSet, Producer, VotingEntry
from ledger.errors import LedgerError
from ledger.genesis import Genesis, chain_id_of
from ledger.rules.ruleset import RuleSet
from ledger.state import state_path
from ledger.statetree import inner_hash, leaf_hash
from ledger.transaction import Kind, Transaction
from ledger.validation import totals_of
from node.client import Client
from node.light import ApiSource

REASON_CHARACTERS = 96
MINUTE_MS = 60_000


@dataclass
class Chain(LightSource):
    """A chain as a node tells it: to an auditor whole, to a light client what that asks for.

    Attributes:
        keys: by id, to seal with.
        sealed, bodies, transactions: of each block, from height 1.
        child, certificate: what makes the last block final.
        changes: proof of each voting set after the first, in order.
        voting, siblings: the voting entry after the last block, and its way in the state tree.
    """

    genesis: Genesis
    keys: dict[bytes, PrivateKey]
    sealed: list[SealedHeader]
    bodies: list[list[BodyItem]]
    transactions: list[list[bytes]]
    child: SealedHeader
    certificate: Certificate
    changes: list[VotingProof]
    voting: VotingEntry
    siblings: list[bytes]
    name: str = "forged"

    # -- as a light client sees it --------------------------------------------------------------------------------

    def final(self) -> VotingProof:
        """See ``LightSource.final``."""
        return VotingProof(self.sealed[-1].header, self.voting, self.siblings, self.certificate)

    def set_changes(self, after: int) -> list[VotingProof]:
        """See ``LightSource.set_changes``."""
        return self.changes[after:]

    def headers(self, first: int, count: int) -> list[SealedHeader]:
        """See ``LightSource.headers``."""
        return self.sealed[first - 1 : first - 1 + count]

    def history(self, height: int, size: int) -> list[bytes]:
        """See ``LightSource.history``."""
        return merkle.inclusion_proof(self._leaves(size), height)

    def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """See ``LightSource.consistency``."""
        return merkle.consistency_proof(self._leaves(new_size), old_size)

    def _leaves(self, size: int) -> list[bytes]:
        return [merkle.leaf_hash(block_id) for block_id in self.ids()[:size]]

    # -- as an auditor sees it ------------------------------------------------------------------------------------

    def to_export(self) -> bytes:
        """Return it as a file."""
        head = Head(1, len(self.sealed), block_id_of(self.sealed[-1].header))
        frames = [make_frame(FrameType.GENESIS, encode(self.genesis)), make_frame(FrameType.HEAD, encode(head))]
        for sealed, body, transactions in zip(self.sealed, self.bodies, self.transactions, strict=True):
            frames += [make_frame(FrameType.SEALED, encode(sealed)), make_frame(FrameType.BODY, encode(body))]
            frames += [make_frame(FrameType.TRANSACTION, raw) for raw in transactions]
        frames.append(make_frame(FrameType.CHILD, encode(self.child)))
        frames.append(make_frame(FrameType.CERTIFICATE, encode(self.certificate)))
        return b"".join([make_preamble(), *frames, make_frame(FrameType.END, b"")])

    # -- what a forger does with it -------------------------------------------------------------------------------

    def ids(self) -> list[bytes]:
        """Return the ids of all blocks, genesis first."""
        genesis_id = bytes(genesis_block_id(chain_id_of(self.genesis)))
        return [genesis_id, *(bytes(block_id_of(sealed.header)) for sealed in self.sealed)]

    def change(self, height: int, *, link: bool = True, **fields: object) -> None:
        """Change fields of the header at ``height``; with ``link`` seal it, and all above it on it."""
        sealed = self.sealed[height - 1]
        self.sealed[height - 1] = replace(sealed, header=replace(sealed.header, **fields))
        if link:
            self.seal(height)

    def carry(self, height: int, certificate: Certificate | None) -> None:
        """Let the block at ``height`` carry another certificate."""
        self.sealed[height - 1] = replace(self.sealed[height - 1], certificate=certificate)
        self.change(height, qc_hash=certificate_hash(certificate))

    def seal(self, first: int) -> None:
        """Seal the block at ``first`` as it is, and those above it on it, with their producers' keys."""
        self.sealed[first - 1] = self._signed(self.sealed[first - 1].header, self.sealed[first - 1].certificate)
        leaves = [merkle.leaf_hash(block_id) for block_id in self.ids()[: first + 1]]
        for height in range(first + 1, len(self.sealed) + 1):
            old = self.sealed[height - 1]
            parent_id = block_id_of(self.sealed[height - 2].header)
            header = replace(old.header, height=height, parent_id=parent_id, history_root=merkle.root(leaves))
            self.sealed[height - 1] = self._signed(header, old.certificate)
            leaves.append(merkle.leaf_hash(block_id_of(header)))
        header = replace(self.child.header, parent_id=block_id_of(self.sealed[-1].header))
        self.child = self._signed(replace(header, history_root=merkle.root(leaves)), self.child.certificate)
        self.changes = [
            replace(proof, header=self.sealed[proof.header.height - 1].header)
            if first <= proof.header.height <= len(self.sealed)
            else proof
            for proof in self.changes
        ]

    def _signed(self, header: Header, certificate: Certificate | None) -> SealedHeader:
        return SealedHeader(header, self.keys[header.producer_key_id].sign(block_id_of(header)), certificate)

    def vote(self, producer: Producer, certificate: Certificate) -> bytes:
        """Return the signature of a producer on a certificate's link."""
        c = certificate
        return self.keys[producer.key_id].sign(
            vote_digest(chain_id_of(self.genesis), c.s_height, c.s_id, c.t_height, c.t_id)
        )

    def recertify(self, set_id: int, producers: list[Producer], voters: list[Producer]) -> None:
        """Let ``voters`` make the last block final, in the places of the first of ``producers``."""
        signatures = [self.vote(voter, self.certificate) for voter in voters]
        signers = void_bitmap(list(range(len(voters))), len(producers))
        self.certificate = replace(self.certificate, parts=[CertificatePart(set_id, signers, signatures)])

    def change_set(self, index: int, edit: Callable[[Certificate], Certificate]) -> None:
        """Change the joint certificate of a set change, in its proof and in the block that carries the first."""
        proof = self.changes[index]
        self.changes[index] = replace(proof, certificate=edit(proof.certificate))
        height = self.carrier(proof.header.height)
        carried = self.sealed[height - 1].certificate
        assert carried is not None
        self.carry(height, edit(carried))

    def carrier(self, height: int) -> int:
        """Return where the first certificate of two sets is carried above ``height``."""
        for sealed in self.sealed[height:]:
            if sealed.certificate is not None and len(sealed.certificate.parts) == 2:
                return sealed.header.height
        raise NotHeld(f"no block above {height} carries the votes of two sets")

    def tell_voting(self, index: int, voting: VotingEntry) -> None:
        """Let the block of a set change have another voting entry in its state, proven by its header."""
        proof = self.changes[index]
        self.changes[index] = replace(proof, voting=voting)
        self.change(proof.header.height, state_root=_root_with(voting, proof.siblings))


def take_chain(client: Client, genesis: Genesis, keys: list[PrivateKey]) -> Chain:
    """Return the final chain of a node whose chain rests. Raises NotHeld where it does not."""
    source = ApiSource(client.url)
    for _ in range(10):
        reader = ExportReader(io.BytesIO(client.get_bytes("/v1/export")), name="export")
        blocks = list(reader.blocks())
        final = source.final()
        finality = reader.finality
        if final is not None and final.header.height == len(blocks) and finality.child and finality.certificate:
            changes: list[VotingProof] = []
            while len(changes) < final.voting.set_id:
                changes += source.set_changes(len(changes))
            return Chain(
                genesis,
                {key.key_id: key for key in keys},
                [decode(block.sealed, SealedHeader) for block in blocks],
                [decode(block.body, list[BodyItem]) for block in blocks],
                [[raw for raw in block.transactions if raw is not None] for block in blocks],
                decode(finality.child, SealedHeader),
                decode(finality.certificate, Certificate),
                changes,
                final.voting,
                list(final.siblings),
            )
    raise NotHeld("the chain does not rest: its export and its final block are never of one height")


def try_forgeries(chain: Chain, path: Path, say: Callable[[str], None]) -> int:
    """Serve every forgery to both and tell why they refuse it; return how many. Raises NotHeld where one is taken."""
    rules = RuleSet(chain.genesis.rules, carbon_basis=chain.genesis.parameters.carbon_basis)
    report = audit(chain, path, rules)
    held(f"the audit takes the chain as it is ({report.sentence()})", report.ok)
    refusal = follow(chain)
    held(f"the light client takes the chain as it is ({refusal})", not refusal)
    for what, forge in FORGERIES.items():
        forged = copy.copy(chain)
        for name in ("sealed", "bodies", "transactions", "changes", "siblings"):
            setattr(forged, name, list(getattr(chain, name)))
        forge(forged)
        report = audit(forged, path, rules)
        held(f"the audit refuses: {what}", not report.ok)
        refusal = follow(forged)
        held(f"the light client refuses: {what}", bool(refusal))
        say(f"refused: {what}")
        say(f"    audit: {_short(report.sentence().removeprefix('NOT OK: '))}")
        say(f"    light: {_short(refusal)}")
    return len(FORGERIES)


def audit(chain: Chain, path: Path, rules: RuleSet) -> AuditReport:
    """Return the verdict of ``ledger-verify`` on the export of a chain."""
    path.write_bytes(chain.to_export())
    source = ExportSource(path.open("rb"), name=path.name)
    try:
        return verify_chain(source, chain.genesis, rules=rules)
    finally:
        source.close()
        path.unlink()


def follow(chain: Chain) -> str:
    """Return why the light client refuses what a chain answers; empty where it takes it."""
    follower = Follower(LightClient(chain.genesis), chain, all_headers=True)
    try:
        for _ in follower.poll():
            pass
    except LedgerError as error:
        return error.sentence()
    return "" if follower.client.point.height == len(chain.sealed) else "it ended below the last block"


def _short(text: str) -> str:
    return text if len(text) <= REASON_CHARACTERS else text[: REASON_CHARACTERS - 3] + "..."


def _root_with(voting: VotingEntry, siblings: list[bytes]) -> bytes:
    """Return the root of a state tree with this voting entry, all else being as it was."""
    path = state_path("voting")
    node = leaf_hash(path, encode(voting))
    bits = int.from_bytes(path, "big") >> (8 * len(path) - len(siblings))
    for sibling in reversed(siblings):
        node = inner_hash(sibling, node) if bits & 1 else inner_hash(node, sibling)
        bits >>= 1
    return node


# -- the forgeries ------------------------------------------------------------------------------------------------


def _busy(chain: Chain) -> int:
    """Return the height of a block with several transactions of records and no others, about the middle."""
    middle = len(chain.sealed) // 2
    return next(height for height in range(middle, len(chain.sealed)) if _is_busy(chain, height))


def _is_busy(chain: Chain, height: int) -> bool:
    kinds = {decode(raw, Transaction).envelope.kind for raw in chain.transactions[height - 1]}
    return kinds == {Kind.RECORDS} and len(chain.bodies[height - 1]) > 1


def _dearer(chain: Chain, *, link: bool) -> None:
    height = _busy(chain)
    totals = chain.sealed[height - 1].header.totals
    chain.change(height, link=link, totals=replace(totals, talk_ms=totals.talk_ms + MINUTE_MS))


def _without_transaction(chain: Chain) -> None:
    height = _busy(chain)
    body = chain.bodies[height - 1][:-1]
    chain.bodies[height - 1], chain.transactions[height - 1] = body, chain.transactions[height - 1][:-1]
    # Nothing in this block is wrong by then; only nobody voted for it.
    records = [decode_each(decode(raw, Transaction).items, CallRecord) for raw in chain.transactions[height - 1]]
    totals = sum_totals([totals_of(each) for each in records])
    chain.change(height, tx_count=len(body), tx_root=body_root(body), totals=totals)


def _left_out(chain: Chain, *, link: bool) -> None:
    height = _busy(chain)
    del chain.sealed[height - 1], chain.bodies[height - 1], chain.transactions[height - 1]
    if link:
        chain.seal(height - 1)


def _swapped(chain: Chain) -> None:
    at = _busy(chain)
    for name in ("sealed", "bodies", "transactions"):
        blocks = getattr(chain, name)
        blocks[at - 1], blocks[at] = blocks[at], blocks[at - 1]


def _cut(chain: Chain) -> None:
    for name in ("sealed", "bodies", "transactions"):
        setattr(chain, name, getattr(chain, name)[:-5])


def _by_former(chain: Chain) -> None:
    """Let one that voted once and does no longer seal the last block."""
    now = {producer.member_id for producer in chain.voting.producers}
    was = [producer for proof in chain.changes for producer in proof.voting.producers]
    former = next(producer for producer in was if producer.member_id not in now)
    chain.change(len(chain.sealed), producer_key_id=former.key_id)


def _final(chain: Chain, edit: Callable[[CertificatePart], CertificatePart]) -> None:
    chain.certificate = replace(chain.certificate, parts=[edit(part) for part in chain.certificate.parts])


def _one_short(part: CertificatePart) -> CertificatePart:
    signers = bitmap_indexes(part.signers)[:-1]
    bitmap = void_bitmap(signers, 8 * len(part.signers))
    return replace(part, signers=bitmap, signatures=part.signatures[:-1])


def _counted_twice(part: CertificatePart) -> CertificatePart:
    return replace(part, signatures=[part.signatures[0], *part.signatures[:-1]])


def _flipped(part: CertificatePart) -> CertificatePart:
    first = bytes([part.signatures[0][0] ^ 1]) + part.signatures[0][1:]
    return replace(part, signatures=[first, *part.signatures[1:]])


def _outside(part: CertificatePart) -> CertificatePart:
    bits = bitmap_indexes(part.signers)
    return replace(part, signers=void_bitmap([*bits[:-1], 8 * len(part.signers) - 1], 8 * len(part.signers)))


def _by_those_who_left(chain: Chain) -> None:
    """Put votes of keys that are in office no longer in the places of those that are."""
    now = {producer.key_id for producer in chain.voting.producers}
    was = {p.key_id: p for proof in chain.changes for p in proof.voting.producers if p.key_id not in now}
    quorum = len(chain.certificate.parts[0].signatures)
    chain.recertify(chain.voting.set_id, chain.voting.producers, list(was.values())[:quorum])


def _by_founding_set(chain: Chain) -> None:
    founders = list(chain.changes[0].voting.producers)
    chain.recertify(0, founders, founders[: len(chain.certificate.parts[0].signatures)])


def _with_old_key(chain: Chain) -> None:
    """Let one whose key has changed vote with the key it had."""
    now = {producer.member_id: producer for producer in chain.voting.producers}
    was = [p for proof in chain.changes for p in proof.voting.producers]
    old = next(p for p in was if p.member_id in now and now[p.member_id].key_id != p.key_id)
    others = [p for p in chain.voting.producers if p.member_id != old.member_id]
    voters = sorted([old, *others], key=lambda p: [q.member_id for q in chain.voting.producers].index(p.member_id))
    chain.recertify(chain.voting.set_id, chain.voting.producers, voters[: len(chain.certificate.parts[0].signatures)])


def _merely_justified(chain: Chain) -> None:
    """Let the voters themselves sign a link that leaps over a height: it makes nothing final."""
    chain.certificate = replace(chain.certificate, t_height=chain.certificate.t_height + 1)
    chain.recertify(chain.voting.set_id, chain.voting.producers, _first_voters(chain))


def _from_below(chain: Chain) -> None:
    """Let the voters themselves sign a link from the last block's parent."""
    parent = chain.sealed[-2].header
    chain.certificate = replace(chain.certificate, s_height=parent.height, s_id=block_id_of(parent))
    chain.recertify(chain.voting.set_id, chain.voting.producers, _first_voters(chain))


def _first_voters(chain: Chain) -> list[Producer]:
    return list(chain.voting.producers)[: len(chain.certificate.parts[0].signatures)]


def _change_left_out(chain: Chain) -> None:
    chain.carry(chain.carrier(chain.changes[0].header.height), None)
    del chain.changes[0]


def _changes_swapped(chain: Chain) -> None:
    low, high = (chain.carrier(proof.header.height) for proof in chain.changes[:2])
    first, second = chain.sealed[low - 1].certificate, chain.sealed[high - 1].certificate
    chain.carry(high, first)
    chain.carry(low, second)
    chain.changes[:2] = reversed(chain.changes[:2])


def _struck_stays(chain: Chain) -> None:
    """Let the state of the change that puts somebody out have him in the set to come."""
    index, proof = next(
        (index, proof)
        for index, proof in enumerate(chain.changes)
        if proof.voting.pending and len(proof.voting.pending.producers) < len(proof.voting.producers)
    )
    assert proof.voting.pending is not None
    pending = PendingSet(proof.voting.pending.height, proof.voting.producers)
    chain.tell_voting(index, replace(proof.voting, pending=pending))


def _completed_early(chain: Chain) -> None:
    voting = chain.changes[0].voting
    assert voting.pending is not None
    chain.tell_voting(0, VotingEntry(voting.set_id + 1, voting.pending.producers, None))


def _other_siblings(chain: Chain) -> None:
    proof = chain.changes[0]
    siblings = [bytes(reversed(proof.siblings[0])), *proof.siblings[1:]]
    chain.changes[0] = replace(proof, siblings=siblings)
    chain.change(proof.header.height, link=False, state_root=ZERO32)


def _carried_twice(chain: Chain) -> None:
    height = _busy(chain)
    chain.carry(height + 1, chain.sealed[height - 1].certificate)


def _joint(edit: Callable[[list[CertificatePart]], list[CertificatePart]]) -> Callable[[Chain], None]:
    """Return the forgery of the first set change whose parts are edited so."""
    return lambda chain: chain.change_set(0, lambda certificate: replace(certificate, parts=edit(certificate.parts)))


FORGERIES: dict[str, Callable[[Chain], None]] = {
    "a minute of talk more in a block's totals": lambda chain: _dearer(chain, link=False),
    "the same, with every block above sealed anew": lambda chain: _dearer(chain, link=True),
    "a transaction left out of a block, all sealed anew": _without_transaction,
    "a block left out": lambda chain: _left_out(chain, link=False),
    "a block left out, all above sealed anew": lambda chain: _left_out(chain, link=True),
    "two blocks in each other's place": _swapped,
    "the last five blocks cut off": _cut,
    "another state under the last block": lambda chain: chain.change(len(chain.sealed), state_root=ZERO32),
    "another history under the last block": lambda chain: chain.change(len(chain.sealed), history_root=ZERO32),
    "the last block in another slot": lambda chain: chain.change(
        len(chain.sealed), slot=chain.sealed[-1].header.slot + 1
    ),
    "a block of another chain": lambda chain: chain.change(_busy(chain), chain_id=ZERO32),
    "a block sealed by one who holds no seat any more": _by_former,
    "a block without the certificate it carried": lambda chain: chain.carry(_busy(chain), None),
    "a block with the certificate of the one below": _carried_twice,
    "the last block final by a vote too few": lambda chain: _final(chain, _one_short),
    "the last block final by a vote counted twice": lambda chain: _final(chain, _counted_twice),
    "the last block final by a vote that does not verify": lambda chain: _final(chain, _flipped),
    "the last block final by a voter who is not in the set": lambda chain: _final(chain, _outside),
    "the last block final by a set to come": lambda chain: _final(
        chain, lambda part: replace(part, set_id=part.set_id + 1)
    ),
    "the last block final by the set of founders": _by_founding_set,
    "the last block final by those who left": _by_those_who_left,
    "the last block final with a vote by a key that ended": _with_old_key,
    "the last block final by a certificate on another child": lambda chain: setattr(
        chain, "certificate", replace(chain.certificate, t_id=ZERO32)
    ),
    "the last block merely justified, by its real voters": _merely_justified,
    "the last block's parent made final in its place": _from_below,
    "a change of voters signed by the old set alone": _joint(lambda parts: parts[:1]),
    "a change of voters signed by the new set alone": _joint(lambda parts: parts[1:]),
    "a change of voters with the sets in the wrong order": _joint(lambda parts: parts[::-1]),
    "a change of voters with a vote of the new set too few": _joint(lambda parts: [parts[0], _one_short(parts[1])]),
    "a change of voters left out": _change_left_out,
    "two changes of voters in the wrong order": _changes_swapped,
    "a change of voters complete at once": _completed_early,
    "a change of voters that leaves in who was put out": _struck_stays,
    "a change of voters whose proof leads elsewhere": _other_siblings,
}
"""What each is, and what the forger does to the chain."""
