"""Receipts of a chain that nobody had to seal: headers, states and certificates made to measure, signed by real keys.

What a receipt shows of a chain is a handful of structs. Here each is made by itself, so a block may hold a thousand
transactions, and a history sixteen million blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from msgspec import structs

from audit.receipt_file import EnvelopePart, KeyPart, ReceiptFile, compact, pack, pack_bytes, pack_path, write_receipt
from audit.revealed import RevealedField, revealed_to_json
from audit.voting import founding_set
from consensus.setchange import VotingProof
from consensus.votes import VotingSet
from ledger import merkle
from ledger.block import (
    BodyItem,
    Certificate,
    CertificatePart,
    Header,
    MosTotal,
    Totals,
    block_id_of,
    is_void,
    void_bitmap,
    vote_digest,
)
from ledger.cdr import (
    Band,
    Boundary,
    CallRecord,
    DeviceClass,
    Energy,
    EnergyMethod,
    Leg,
    Levels,
    MosKind,
    Observer,
    Quality,
    QualityMethod,
    Reading,
    ReleasedBy,
    Service,
)
from ledger.codec import encode
from ledger.commitment import PRIVATE_FIELDS, PrivatePart, make_private_part, party_commitment, prove_field
from ledger.crypto import PrivateKey
from ledger.entries import KeyEntry, KeyStanding, PendingSet, Producer, VotingEntry
from ledger.genesis import Candidate, Delegation, Genesis, GenesisMember, MemberKey, Parameters, Role, chain_id_of
from ledger.rules.ruleset import default_rule_set_pin
from ledger.state import state_path
from ledger.statetree import StateTree
from ledger.transaction import Envelope, Kind, tx_id_of
from ledger.transition import block_time_ms

GENESIS_MS = 1_767_225_600_000
SUBMIT_KEY = PrivateKey.from_seed(b"submit")
PRIVATE = {
    "caller": "+4315550100",
    "callee": "+442079460000",
    "call_id": "a84b4c76e66710@pc33.example.com",
    "from_tag": "1928301774",
    "to_tag": "a6c85cf",
    "addresses": "198.51.100.7, 203.0.113.9",
    # A byte of a platform that writes Latin-1.
    "raw": "<cdr name='J\udcf6rg'/>",
}


def digest(text: str) -> bytes:
    """Return 32 bytes that nothing leads to."""
    return sha256(text.encode()).digest()


def key_of(member_id: str) -> PrivateKey:
    """Return the node key of a member."""
    return PrivateKey.from_seed(b"node " + member_id.encode())


def producer_of(member_id: str) -> Producer:
    """Return the seat of a member."""
    key = key_of(member_id)
    return Producer(member_id, key.key_id, key.public_key)


def private_part() -> PrivatePart:
    """Return the private part of the record."""
    return make_private_part(PRIVATE, [digest(f"salt {name}") for name in PRIVATE_FIELDS])


def large_record() -> CallRecord:
    """Return a record in which everything was measured, with numbers of a long call."""
    reading = Reading(4_123, 123_456, 12_345, 12_345, 3_600_000)
    return CallRecord(
        1,
        Service.CONFERENCE,
        Leg.TERMINATING,
        party_commitment(private_part()),
        digest("call")[:16],
        GENESIS_MS + 1_000,
        GENESIS_MS + 11_000,
        GENESIS_MS + 7_211_000,
        200,
        16,
        ReleasedBy.NETWORK,
        9,
        3_600_000,
        3_600_000,
        576_000_000,
        576_000_000,
        Quality(
            QualityMethod.RTPENGINE_13,
            Band.SUPER_WIDEBAND,
            MosKind.CQ,
            Observer.BOTH,
            1_440,
            93_200,
            123_456,
            3_600_000,
            12_345,
            1_234,
            1_234,
            reading,
            reading,
            reading,
        ),
        Levels(-22, -60, 55, 164, 104, 4_000, 12_000, 400, 1_200, 750),
        Energy(
            EnergyMethod.POWER_ATTRIBUTED,
            Boundary.CORE_ACCESS_CPE,
            DeviceClass.CONFERENCE,
            120_000_000,
            38_200_000,
            9_000_000,
            1_400,
            "US-CA",
            217_410,
            "ember-2026",
            73_460_000,
        ),
    )


def busy_totals(mos_count: int) -> Totals:
    """Return the totals of a block with a million records of so many methods and kinds."""
    places = [(method, kind) for method in range(1, 9) for kind in range(1, 6)][:mos_count]
    mos = [MosTotal(method, kind, 125_000, 500_000_000, 1_234) for method, kind in places]
    return Totals(999_000, 1_000, 10**12, 10**14, 10**14, 10**13, 10**13, 10**15, mos)


@dataclass
class World:
    """A chain of some producers, of which one record is to be proven.

    Attributes:
        names: of the members; the first ``seats`` vote at first.
        changes: for each change of the voting set, the members of the set to come.
        pending: of a change under way in the final block, if there is one.
        entries: in the state, besides the two that are proven.
        blocks: below the final one.
        items: records of the transaction; ``index`` is the one proven, the first of ``voids`` void ones is 0.
        transactions: of the block; ``position`` is that of the record's.
    """

    names: Sequence[str] = ("alfa", "bravo", "charlie", "delta")
    seats: int = 4
    changes: Sequence[Sequence[str]] = ()
    pending: Sequence[str] | None = None
    entries: int = 40
    blocks: int = 1_000
    items: int = 5
    index: int = 2
    voids: int = 0
    transactions: int = 3
    position: int = 1
    mos_count: int = 3
    in_final_block: bool = False
    chain_name: str = "receipts"
    roles: int = Role.SUBMIT
    standing: KeyStanding = KeyStanding.ACTIVE
    has_key: bool = True
    record: CallRecord = field(default_factory=large_record)

    def __post_init__(self) -> None:
        self.genesis = self._genesis()
        self.chain_id = chain_id_of(self.genesis)
        self.founders = founding_set(self.genesis)
        tree = StateTree.empty()
        for number in range(self.entries):
            tree = tree.set(digest(f"path {number}"), b"entry")
        self.key_entry = KeyEntry(self.names[0], SUBMIT_KEY.public_key, self.roles, self.standing)
        self.tree = tree
        if self.has_key:
            self.tree = tree.set(state_path("key", SUBMIT_KEY.key_id), encode(self.key_entry))
        self.records = [
            self.record
            if number == self.index
            else structs.replace(self.record, call_commitment=digest(str(number))[:16])
            for number in range(self.items)
        ]
        self.bitmap = void_bitmap(list(range(self.voids)), self.items)

    def _genesis(self) -> Genesis:
        members = [
            GenesisMember(
                name, 100, [MemberKey(key_of(name).public_key, Role.NODE)], Candidate(key_of(name).key_id, "", "AT")
            )
            for name in sorted(self.names)
        ]
        # By rank they come in the order of the names: each is given a little less than the one before.
        delegations = [Delegation(name, name, 100 - self.names.index(name)) for name in sorted(self.names)]
        parameters = Parameters(
            1_000, 360, self.seats, 16, 30, 35 * 86_400_000, 1_000_000, 64 << 20, 1_000, "lifecycle"
        )
        return Genesis(
            1, self.chain_name, GENESIS_MS, parameters, members, delegations, default_rule_set_pin("lifecycle")
        )

    def header(self, height: int, *, tree: StateTree, tx_root: bytes, history_root: bytes) -> Header:
        """Return the header of a block."""
        return Header(
            1,
            self.chain_id,
            height,
            height * 2,
            digest(f"parent of {height}"),
            key_of(self.names[0]).key_id,
            digest("rules"),
            self.transactions,
            tx_root,
            busy_totals(self.mos_count),
            tree.root,
            history_root,
            digest("certificate carried"),
        )

    def certify(self, header: Header, sets: Sequence[VotingSet], child: str = "child") -> Certificate:
        """Return the certificate on the link from a block to a child, of the first of each set that are a quorum."""
        return self.certify_by(header, [(one, range(one.quorum)) for one in sets], child)

    def certify_by(
        self, header: Header, signers: Sequence[tuple[VotingSet, Sequence[int]]], child: str = "child"
    ) -> Certificate:
        """Return the certificate with these signers of each set, by rank."""
        link = (header.height, block_id_of(header), header.height + 1, digest(f"{child} of {header.height}"))
        return self.certify_link(link, signers)

    def certify_link(
        self, link: tuple[int, bytes, int, bytes], signers: Sequence[tuple[VotingSet, Sequence[int]]]
    ) -> Certificate:
        """Return the certificate on a link, its ends by height and id."""
        signed = vote_digest(self.chain_id, *link)
        parts = [
            CertificatePart(
                one.set_id,
                void_bitmap(list(ranks), len(one.producers)),
                [key_of(one.producers[rank].member_id).sign(signed) for rank in ranks],
            )
            for one, ranks in signers
        ]
        return Certificate(*link, parts)

    def proof(
        self,
        height: int,
        current: VotingSet,
        pending: Sequence[str] | None,
        *,
        tx_root: bytes = merkle.EMPTY_ROOT,
        history_root: bytes = merkle.EMPTY_ROOT,
    ) -> VotingProof:
        """Return the proof that a block is final by the word of ``current`` and of the set to come, if any."""
        coming = None if pending is None else PendingSet(height - 3, [producer_of(name) for name in pending])
        entry = VotingEntry(current.set_id, list(current.producers), coming)
        tree = self.tree.set(state_path("voting"), encode(entry))
        header = self.header(height, tree=tree, tx_root=tx_root, history_root=history_root)
        sets = [current]
        if coming is not None:
            sets.append(VotingSet(current.set_id + 1, tuple(coming.producers)))
        siblings = list(tree.prove(state_path("voting")).siblings)
        return VotingProof(header, entry, siblings, self.certify(header, sets))

    def set_changes(self) -> tuple[list[VotingProof], VotingSet]:
        """Return the proof of each change, and the set that they lead to."""
        current, proofs = self.founders, []
        for number, names in enumerate(self.changes):
            proofs.append(self.proof(100 * (number + 1), current, names))
            current = VotingSet(current.set_id + 1, tuple(producer_of(name) for name in names))
        return proofs, current

    def envelope(self) -> Envelope:
        """Return what the submitter signs."""
        root = merkle.root_of([encode(record) for record in self.records])
        times_ms = (GENESIS_MS + 7_300_000, GENESIS_MS + 7_400_000)
        return Envelope(1, self.chain_id, Kind.RECORDS, self.names[0], SUBMIT_KEY.key_id, *times_ms, self.items, root)

    def body(self) -> list[bytes]:
        """Return the encoded items of the block."""
        return [
            encode(
                BodyItem(tx_id_of(self.envelope()), self.bitmap)
                if number == self.position
                else BodyItem(digest(f"tx {number}"), b"")
            )
            for number in range(self.transactions)
        ]

    def receipt(self, revealed: Sequence[str] = ()) -> bytes:
        """Return the receipt of the record, with these private fields shown, or ``"all"``."""
        envelope, body = self.envelope(), self.body()
        tx_id, tx_root = tx_id_of(envelope), merkle.root_of(body)
        proofs, current = self.set_changes()
        height, history_path, history_root = self.blocks // 3, "", digest("history")
        header = self.header(height, tree=self.tree, tx_root=tx_root, history_root=digest("below"))
        if not self.in_final_block:
            path = [digest(f"history {i}") for i in range(_path_length(height, self.blocks))]
            history_path = pack_path(path)
            history_root = _root_above(merkle.leaf_hash(block_id_of(header)), height, self.blocks, path)
        root = tx_root if self.in_final_block else digest("transactions of the final block")
        final = self.proof(self.blocks, current, self.pending, tx_root=root, history_root=history_root)
        if self.in_final_block:
            header = final.header
        tree = self.tree.set(state_path("voting"), encode(final.voting))
        file = ReceiptFile(
            3,
            0,
            self.chain_id,
            tx_id,
            self.index,
            int(is_void(self.bitmap, self.index)),
            header.height,
            block_time_ms(self.genesis, header.slot),
            self.record,
            EnvelopePart(
                envelope.member_id, envelope.created_ms, envelope.expires_ms, envelope.item_count, envelope.items_root
            ),
            SUBMIT_KEY.sign(tx_id),
            self.key_part(tree),
            path_of([encode(record) for record in self.records], self.index),
            self.position,
            path_of(body, self.position),
            pack_bytes(self.bitmap),
            None if self.in_final_block else pack(header),
            history_path,
            [pack(compact(proof)) for proof in proofs],
            pack(compact(final)),
        )
        return write_receipt(
            file, [revealed_to_json(reveal(name)) for name in (PRIVATE_FIELDS if revealed == "all" else revealed)]
        )

    def key_part(self, tree: StateTree) -> KeyPart:
        """Return the proof of the submitter's key; of another entry where the state is without it."""
        siblings = tree.prove(state_path("key", SUBMIT_KEY.key_id)).siblings
        entry = self.key_entry
        return KeyPart(entry.public_key, entry.roles, entry.standing, pack_path(siblings))


def reveal(name: str, part: PrivatePart | None = None) -> RevealedField:
    """Return a field of the record's private part, with what proves it."""
    part = part or private_part()
    return RevealedField(part.fields[PRIVATE_FIELDS.index(name)], prove_field(part, name))


def path_of(items: Sequence[bytes], index: int) -> str:
    """Return the path of an item, as a receipt has it."""
    return pack_path(merkle.inclusion_proof([merkle.leaf_hash(item) for item in items], index))


def _path_length(index: int, size: int) -> int:
    """Return how many hashes lead from a leaf to the root of a tree of ``size`` leaves."""
    last, length = size - 1, 0
    while last:
        if index & 1 or index < last:
            length += 1
        index, last = index >> 1, last >> 1
    return length


def _root_above(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root to which a path leads."""
    last, node = size - 1, leaf
    hashes = iter(path)
    while last:
        if index & 1:
            node = merkle.node_hash(next(hashes), node)
        elif index < last:
            node = merkle.node_hash(node, next(hashes))
        index, last = index >> 1, last >> 1
    return node
