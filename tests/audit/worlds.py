"""Short real chains with everything in them, taken apart, and the means to make any block of them anew.

A ``World`` knows the chain after each block and every private key, so that whoever changes a block can derive again all
that follows from its contents, seal it, and have it made final by a quorum: such a block is refused for its contents
alone, or not at all. Short, since a second implementation in plain Python takes milliseconds for a signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import msgspec
from msgspec.structs import replace as with_fields

from audit.raw import Head, RawBlock, RawFinality
from audit.verify import ChainAuditor
from consensus.epochs import Position, begin_block, voting_sets
from consensus.votes import Checkpoint, Link, VotingSet, digest_of
from ledger.block import (
    BodyItem,
    Certificate,
    CertificatePart,
    Header,
    SealedHeader,
    Vote,
    block_id_of,
    body_root,
    certificate_hash,
    void_bitmap,
)
from ledger.cdr import CallRecord
from ledger.codec import decode, decode_each, encode
from ledger.crypto import PrivateKey
from ledger.entries import Proposal, ProposalAction
from ledger.errors import LedgerError
from ledger.genesis import Candidate, Genesis, MemberKey, Role, chain_id_of
from ledger.payloads import (
    Approval,
    CandidateChange,
    DelegationPart,
    Delegations,
    KeyChange,
    KeyChanges,
    KeyOperation,
    Payload,
)
from ledger.record_index import Overlay, RecordIndex, SeenRecords
from ledger.rules.ruleset import RuleSet
from ledger.store import MemoryStore
from ledger.transaction import Kind, Transaction, make_transaction, tx_id_of
from ledger.transition import BodyBuilder, block_time_ms, make_header
from ledger.validation import CheckedTransaction, check_transaction
from tests.audit.chains import (
    FIVE,
    GOVERN_KEYS,
    NEXT_KEY,
    NODE_KEYS,
    SUBMIT_KEYS,
    Cluster,
    double_vote,
    make_genesis,
    make_payload,
    rules_of,
)
from tests.audit.records import Record, vector_records
from tests.audit.tamper import Parts, take_apart

STRANGER = PrivateKey.from_seed(b"nobody on this chain")
NEWCOMER = PrivateKey.from_seed(b"govern foxtrot")
KEYS = {
    key.key_id: key
    for key in (*NODE_KEYS.values(), *SUBMIT_KEYS.values(), *GOVERN_KEYS.values(), NEXT_KEY, NEWCOMER, STRANGER)
}
"""Every private key there is, by id."""
SHIFT_MS = 24 * 3_600_000


class NoRules:
    """Finds nothing wrong: for summing up a transaction that somebody must refuse."""

    def __init__(self, rule_set_id: bytes) -> None:
        self.rule_set_id = rule_set_id

    def check_record(self, _record: CallRecord) -> None:
        """Return that it holds."""


@dataclass(frozen=True)
class Step:
    """The chain after one block, that of genesis first."""

    position: Position
    schedule: Any
    election: Any
    overlay: Overlay


@dataclass(frozen=True)
class World:
    """A good chain.

    Attributes:
        steps: the chain at height 0, 1, ...
    """

    name: str
    parts: Parts
    rules: RuleSet
    steps: Sequence[Step]

    @property
    def genesis(self) -> Genesis:
        """Return its genesis."""
        return self.parts.genesis

    @property
    def height(self) -> int:
        """Return the height of the last block."""
        return len(self.parts.blocks)

    # -- making a block anew -------------------------------------------------------------------------------------

    def summary_of(self, height: int, raw: bytes) -> CheckedTransaction | None:
        """Return the summary of a transaction, whatever its records and signature are; None where it has none."""
        state = self.steps[height - 1].position.chain.state
        try:
            return check_transaction(
                raw,
                chain_id=chain_id_of(self.genesis),
                key_of=state.keys.get,
                rules=NoRules(state.rule_set),
                is_valid=lambda *_given: True,
            )
        except LedgerError:
            return None

    def remake(self, height: int, raws: Sequence[bytes], **changes: Any) -> tuple[RawBlock, Header]:
        """Return a block with other transactions, every field of its header what follows from them, and the header.

        changes: fields of the header that do not follow. What cannot follow, since a transaction may not be in the
        block, stays as it was, but for the count and root of the body.
        """
        sealed = self.parts.sealed(height)
        header, builder = sealed.header, self._builder(height)
        body: list[BodyItem] = []
        summaries = [self.summary_of(height, raw) for raw in raws]
        for raw, tx in zip(raws, summaries, strict=True):
            if builder is not None and tx is not None:
                self._reading[tx.tx_id] = raw
                try:
                    builder.add(tx)
                    body.append(builder.body[-1])
                    continue
                except LedgerError:
                    builder = None
            body.append(BodyItem(tx.tx_id if tx else _id_of(raw), b""))
        if builder is None:
            header = with_fields(header, tx_count=len(body), tx_root=body_root(body))
        else:
            parent = self.steps[height - 1].position.chain
            header = make_header(parent, header.slot, header.producer_key_id, builder, sealed.certificate)
        header = with_fields(header, **changes)
        return self.sealed_anew(header, sealed.certificate, encode(body), list(raws)), header

    def sealed_anew(
        self,
        header: Header,
        certificate: Certificate | None,
        body: bytes,
        raws: list[bytes | None],
        *,
        key: PrivateKey | None = None,
    ) -> RawBlock:
        """Return a block of these parts, sealed by the producer it names unless told otherwise."""
        signer = key or KEYS.get(header.producer_key_id, STRANGER)
        sealed = SealedHeader(header, signer.sign(block_id_of(header)), certificate)
        return RawBlock(header.height, None, encode(sealed), body, raws)

    def _builder(self, height: int) -> BodyBuilder | None:
        before, here = self.steps[height - 1], self.steps[height]
        slot = here.position.chain.slot
        time_ms = block_time_ms(self.genesis, slot)
        begin = begin_block(before.position, here.schedule, here.election, slot, here.position.finality.final)
        overlays = [step.overlay for step in self.steps[1:height]]
        seen = SeenRecords(RecordIndex(MemoryStore()), overlays[::-1])
        self._reading.clear()
        return BodyBuilder(begin, height, time_ms, seen, self._read_records)

    def _read_records(self, tx_id: bytes) -> list[CallRecord]:
        return decode_each(decode(self._reading[tx_id], Transaction).items, CallRecord)

    @property
    def _reading(self) -> dict[bytes, bytes]:
        return _READING

    # -- ending a chain at a block --------------------------------------------------------------------------------

    def finish(self, height: int, block: RawBlock, header: Header) -> Parts:
        """Return the chain up to a block that was changed, with what makes it final: a child and two certificates."""
        block_id = block_id_of(header)
        here = Checkpoint(height, block_id)
        justified = self.steps[height].position.finality.justified
        child = self._child(height)
        certificate = self.certify(Link(justified, here), voting_sets(self.steps[height - 1].position.chain.state))
        child = with_fields(child, parent_id=block_id, height=height + 1, qc_hash=certificate_hash(certificate))
        sealed = SealedHeader(child, KEYS[child.producer_key_id].sign(block_id_of(child)), certificate)
        link = Link(here, Checkpoint(height + 1, block_id_of(child)))
        last = self.certify(link, voting_sets(self.steps[height].position.chain.state))
        blocks = [*self.parts.blocks[: height - 1], block]
        return Parts(self.genesis, Head(1, height, block_id), blocks, RawFinality(encode(sealed), encode(last)))

    def _child(self, height: int) -> Header:
        if height < self.height:
            return self.parts.header(height + 1)
        child = self.parts.finality.child
        assert child is not None
        return decode(child, SealedHeader).header

    def certify(self, link: Link, sets: Sequence[VotingSet]) -> Certificate:
        """Return a certificate on a link by the first quorum of each set."""
        digest = digest_of(chain_id_of(self.genesis), link)
        parts = []
        for one in sets:
            signatures = [KEYS[producer.key_id].sign(digest) for producer in one.producers[: one.quorum]]
            bitmap = void_bitmap(list(range(one.quorum)), len(one.producers))
            parts.append(CertificatePart(one.set_id, bitmap, signatures))
        return Certificate(*link.source, *link.target, parts)


_READING: dict[bytes, bytes] = {}
"""Transactions of the block that is being made, by id."""


def _id_of(raw: bytes) -> bytes:
    try:
        return tx_id_of(decode(raw, Transaction).envelope)
    except LedgerError:
        return raw[:32].ljust(32, b"\0")


def take_steps(parts: Parts, rules: RuleSet) -> list[Step]:
    """Return the chain after each block of a good one."""
    auditor = ChainAuditor(parts.genesis, rules)
    steps = [Step(auditor.position, auditor.schedule, None, Overlay())]
    try:
        for height, raw in enumerate(parts.blocks, 1):
            # The election is made again from the block before: what the auditor found stays inside it.
            _, election = auditor._check_slot(parts.header(height))
            applied = auditor.add(raw)
            steps.append(Step(auditor.position, auditor.schedule, election, applied.overlay))
    finally:
        auditor.close()
    return steps


# -- the chains --------------------------------------------------------------------------------------------------------


@cache
def good_records() -> list[Record]:
    """Return the records of the conformance vectors that hold under every rule."""
    rules = rules_of(make_genesis())
    return [one for one in vector_records() if rules.check_record(decode(encode(one), CallRecord)) is None]


def dated(record: Record, call: int, end_ms: int) -> Record:
    """Return a record of another call that ended at ``end_ms``."""
    made: Record = msgspec.msgpack.decode(encode(record))
    shift = end_ms - made[7]
    made[4] = call.to_bytes(16)
    made[5], made[7] = made[5] + shift, end_ms
    made[6] = made[6] and made[6] + shift
    return made


def sign_items(
    genesis: Genesis,
    items: list[bytes],
    now_ms: int,
    *,
    member: str = "alfa",
    key: PrivateKey | None = None,
    kind: Kind = Kind.RECORDS,
) -> bytes:
    """Return a transaction of these items, signed with a submit key unless told otherwise."""
    made = make_transaction(
        items,
        key=key or SUBMIT_KEYS[member],
        member_id=member,
        chain_id=chain_id_of(genesis),
        created_ms=now_ms,
        expires_ms=now_ms + 3_600_000,
        kind=kind,
    )
    return encode(made)


def calls_of(genesis: Genesis, calls: Sequence[int], now_ms: int, *, member: str = "alfa") -> bytes:
    """Return a transaction with a record of each call, of all kinds of records in turn; a call ends once."""
    good = good_records()
    ends = now_ms // 60_000 * 60_000 - 1_000
    items = [encode(dated(good[call % len(good)], call, ends - call * 7_919 % 50_000)) for call in calls]
    return sign_items(genesis, items, now_ms, member=member)


Deed = tuple[str, Kind, Payload]


def run(
    genesis: Genesis,
    slots: int,
    *,
    first_call: int = 0,
    deeds: Mapping[int, Sequence[Callable[[list[bytes]], Deed]]] | None = None,
    members: Sequence[str] = ("alfa",),
    lost: frozenset[int] = frozenset(),
) -> Parts:
    """Return the parts of a chain of some slots with two records a slot, every third with a repeated one.

    deeds: what members do to the state, by slot; each is given the ids of the deeds before it. lost: slots whose votes
    nobody hears.
    """
    cluster, done = Cluster(genesis), []
    for slot in range(slots):
        member = members[slot % len(members)]
        calls = [first_call + 2 * slot, first_call + 2 * slot + 1]
        if slot % 3 == 2:
            calls.append(first_call + 2 * (slot - len(members)))
        cluster.submit(calls_of(genesis, calls, cluster.now_ms, member=member))
        for deed in (deeds or {}).get(slot, ()):
            who, kind, payload = deed(done)
            raw = make_payload(genesis, kind, payload, now_ms=cluster.now_ms, member=who)
            done.append(tx_id_of(decode(raw, Transaction).envelope))
            cluster.submit(raw)
        cluster.step(deliver=lambda message, slot=slot: not (isinstance(message, Vote) and slot in lost))
    return take_apart(cluster.peers[0].store, genesis)


def governing(genesis: Genesis) -> dict[int, list[Callable[[list[bytes]], Deed]]]:
    """Return a deed of every kind: keys, candidates, delegations, proposals, approvals and evidence."""
    admitted = Proposal(
        ProposalAction.ADMIT,
        "foxtrot",
        30,
        [MemberKey(NEWCOMER.public_key, Role.GOVERN)],
        0,
        genesis.genesis_time_ms + 60_000,
    )
    other = Proposal(ProposalAction.REWEIGH, "echo", 120, [], 0, genesis.genesis_time_ms + 60_000)
    rotation = KeyChange(KeyOperation.ROTATE, NEXT_KEY.public_key, 0, NODE_KEYS["bravo"].key_id)
    stands = Candidate(NODE_KEYS["charlie"].key_id, "wss://charlie.example:443", "AT")
    return {
        0: [lambda _done: ("alfa", Kind.PROPOSE, admitted), lambda _done: ("delta", Kind.PROPOSE, other)],
        1: [
            lambda _done: ("delta", Kind.DELEGATE, Delegations([DelegationPart("echo", 100)])),
            lambda done: ("bravo", Kind.APPROVE, Approval(done[0])),
            lambda done: ("charlie", Kind.APPROVE, Approval(done[0])),
        ],
        2: [lambda done: ("delta", Kind.APPROVE, Approval(done[0]))],
        3: [lambda _done: ("charlie", Kind.CANDIDATE, CandidateChange(stands))],
        5: [lambda _done: ("bravo", Kind.KEY, KeyChanges([rotation]))],
        9: [lambda _done: ("alfa", Kind.EVIDENCE, double_vote(genesis, "charlie", height=3))],
    }


@cache
def world(name: str) -> World:
    """Return one of ``WORLDS``."""
    parts = WORLDS[name]()
    rules = rules_of(parts.genesis)
    return World(name, parts, rules, take_steps(parts, rules))


def _plain(first_call: int = 0, slots: int = 9) -> Parts:
    genesis = make_genesis(epoch_slots=4)
    return run(genesis, slots, first_call=first_call, members=("alfa", "bravo"), lost=frozenset({4}))


def _governed() -> Parts:
    genesis = make_genesis(name="governed", epoch_slots=4, members=FIVE, seats=4)
    return run(genesis, 20, deeds=governing(genesis))


def _alone() -> Parts:
    return run(make_genesis(name="alone", members=("alfa",)), 5)


WORLDS: dict[str, Callable[[], Parts]] = {
    "plain": _plain,
    "twin": lambda: _plain(first_call=1_000, slots=7),
    "governed": _governed,
    "alone": _alone,
}
"""``twin`` has the genesis of ``plain`` and other blocks: what parts are taken from to be put into another chain."""

__all__ = ["KEYS", "STRANGER", "World", "replace", "world"]
