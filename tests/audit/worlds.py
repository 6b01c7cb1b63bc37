"""Short real chains with everything in them, taken apart, and the means to make any block of them anew.

A ``World`` knows the chain after each block and every private key, so that whoever changes a block can derive again all
that follows from its contents, seal it, and have it made final by a quorum: such a block is refused for its contents
alone, or not at all. Short, since a second implementation in plain Python takes milliseconds for a signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from random import Random
from typing import Any

import msgspec
from msgspec.structs import replace as with_fields

from audit.raw import Head, RawBlock, RawFinality
from audit.verify import ChainAuditor
from consensus.epochs import Position, begin_block, voting_sets
from consensus.votes import Checkpoint, Link, VotingSet, digest_of
from ledger.block import (
    EMPTY_TOTALS,
    Block,
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
from ledger.errors import LedgerError, UnknownParent
from ledger.genesis import Candidate, Genesis, MemberKey, Role, RuleParameter, RuleSetPin, chain_id_of
from ledger.payloads import (
    Approval,
    CandidateChange,
    DelegationPart,
    Delegations,
    Evidence,
    KeyChange,
    KeyChanges,
    KeyOperation,
    Payload,
    SignedHeader,
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
SPARE = [PrivateKey.from_seed(f"spare {number}".encode()) for number in range(3)]
NEWCOMER = PrivateKey.from_seed(b"govern foxtrot")
KEYS = {
    key.key_id: key
    for key in (*NODE_KEYS.values(), *SUBMIT_KEYS.values(), *GOVERN_KEYS.values(), *SPARE, NEXT_KEY, NEWCOMER, STRANGER)
}
"""Every private key there is, by id."""


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


@lru_cache(maxsize=64)
def world(name: str) -> World:
    """Return one of ``WORLDS``, or the chain that chance makes of a number: ``chance-7``."""
    parts = chance(int(name.removeprefix("chance-"))) if name.startswith("chance-") else WORLDS[name]()
    rules = rules_of(parts.genesis)
    return World(name, parts, rules, take_steps(parts, rules))


def chance(number: int) -> Parts:
    """Return a chain in which members do what comes to their minds, and votes and blocks are lost."""
    rng = Random(number)
    seats = rng.randint(1, 5)
    genesis = make_genesis(name="chance", epoch_slots=rng.randint(2, 5), members=FIVE, seats=seats)
    cluster, done, proposed = Cluster(genesis), [bytes(32)], None
    for slot in range(rng.randint(8, 20)):
        calls = [10 + 2 * slot, 11 + 2 * slot - rng.randint(0, 2)]
        with suppress(LedgerError):  # alfa may be no member any more
            cluster.submit(calls_of(genesis, calls, cluster.now_ms))
        deeds = [any_deed(rng, genesis, done, slot) for _ in range(rng.choice((0, 1, 1, 2)))]
        # Two thirds of the members agree but rarely by chance.
        agreed, proposed = proposed, None
        deeds += [(who, Kind.APPROVE, Approval(agreed)) for who in FIVE if agreed is not None and rng.random() < 0.9]
        for who, kind, payload in deeds:
            raw = make_payload(genesis, kind, payload, now_ms=cluster.now_ms, member=who)
            with suppress(LedgerError):
                cluster.submit(raw)
                done.append(tx_id_of(decode(raw, Transaction).envelope))
                proposed = done[-1] if kind is Kind.PROPOSE else proposed
        quiet, deaf = rng.random() < 0.03, rng.random() < 0.2
        with suppress(UnknownParent):
            cluster.step(deliver=lambda m, q=quiet, d=deaf: not (q if isinstance(m, Block) else d))
            continue
        break  # sync would fetch the parent, this cluster has none
    longest = max(cluster.peers, key=lambda peer: peer.engine.final.height)
    return take_apart(longest.store, genesis) if longest.engine.final.height > 3 else chance(number + 10_000)


def double_block(genesis: Genesis, member: str, *, height: int, slots: tuple[int, int]) -> Evidence:
    """Return two headers that a member sealed, a fault where they are of one slot."""
    key, chain_id = NODE_KEYS[member], chain_id_of(genesis)
    signed = []
    for slot, root in zip(slots, (b"\1" * 32, b"\2" * 32), strict=True):
        rest = (0, bytes(32), EMPTY_TOTALS, root, bytes(32), bytes(32))
        header = Header(1, chain_id, height, slot, bytes(32), key.key_id, bytes(32), *rest)
        signed.append(SignedHeader(header, key.sign(block_id_of(header))))
    return Evidence(key.public_key, [], sorted(signed, key=encode))


def any_deed(rng: Random, genesis: Genesis, done: Sequence[bytes], height: int) -> Deed:
    """Return something that a member may want to do, whether it may or not; proposals by all means."""
    who, other = rng.choice(FIVE), rng.choice(FIVE)
    late_ms = genesis.genesis_time_ms + rng.choice((1_000, 60_000, 60_000, 60_000, 10**10))
    key_id = rng.choice((NODE_KEYS[who], SUBMIT_KEYS[who], GOVERN_KEYS[other], *SPARE)).key_id
    key = rng.choice((*SPARE, NEXT_KEY)).public_key
    changes = [
        KeyChange(KeyOperation.ADD, key, rng.randint(1, 7), None),
        KeyChange(KeyOperation.ROTATE, key, 0, key_id),
        KeyChange(KeyOperation.REVOKE, None, 0, key_id),
    ]
    proposals = [
        Proposal(
            ProposalAction.ADMIT, rng.choice(("foxtrot", other)), 50, [MemberKey(key, rng.randint(4, 7))], 0, late_ms
        ),
        Proposal(ProposalAction.REWEIGH, other, rng.choice((1, 50, 300)), [], 0, late_ms),
        Proposal(ProposalAction.REMOVE, other, 0, [], 0, late_ms),
        Proposal(ProposalAction.READMIT, other, 0, [], 0, late_ms),
        Proposal(ProposalAction.SEATS, None, 0, [], rng.randint(1, 6), late_ms),
    ]
    wanted = sorted(rng.sample(FIVE, rng.randint(0, 3)))
    standing = Candidate(rng.choice((NODE_KEYS[who].key_id, key_id)), "", rng.choice(("", "AT", "GB-ENG")))
    deeds: list[tuple[Kind, Payload]] = [
        (Kind.KEY, KeyChanges(rng.sample(changes, rng.randint(1, 2)))),
        (Kind.CANDIDATE, CandidateChange(rng.choice((None, standing)))),
        (Kind.DELEGATE, Delegations([DelegationPart(name, rng.choice((10, 30, 50))) for name in wanted])),
        (Kind.PROPOSE, rng.choice(proposals)),
        *[(Kind.APPROVE, Approval(rng.choice(done[-3:])))] * 4,
        (Kind.PROPOSE, rng.choice(proposals)),
        (Kind.EVIDENCE, double_vote(genesis, other, height=rng.randint(1, height + 1))),
        (
            Kind.EVIDENCE,
            double_block(genesis, other, height=rng.randint(1, height + 1), slots=rng.choice(((7, 7), (7, 8)))),
        ),
    ]
    return (who, *rng.choice(deeds))


def _plain(first_call: int = 0, slots: int = 9) -> Parts:
    genesis = make_genesis(epoch_slots=4)
    return run(genesis, slots, first_call=first_call, members=("alfa", "bravo"), lost=frozenset({4}))


def _governed() -> Parts:
    genesis = make_genesis(name="governed", epoch_slots=4, members=FIVE, seats=4)
    return run(genesis, 20, deeds=governing(genesis))


def _many() -> Parts:
    """A transaction of more records than are looked at at once."""
    genesis = make_genesis(name="many", members=("alfa",))
    cluster = Cluster(genesis)
    for slot in range(3):
        cluster.submit(calls_of(genesis, range(slot * 260, slot * 260 + (260 if slot == 1 else 2)), cluster.now_ms))
        cluster.step()
    return take_apart(cluster.peers[0].store, genesis)


def _tight() -> Parts:
    """Blocks of five records at most, three of one member."""
    genesis = make_genesis(name="tight", epoch_slots=4)
    few = with_fields(genesis.parameters, block_records_max=5, block_bytes_max=6_000, member_share_milli=700)
    return run(with_fields(genesis, parameters=few), 7, members=("alfa", "bravo"))


def _loose() -> Parts:
    """A chain with hardly a rule: records that no other chain would take are added up all the same."""
    genesis = make_genesis(name="loose", epoch_slots=4)
    levels = [
        with_fields(pin, parameters=[RuleParameter("level_max_dbm0", 20)])
        for pin in genesis.rules.modules
        if pin.module == "levels"
    ]
    return run(with_fields(genesis, rules=RuleSetPin(levels, [])), 6, members=("alfa", "bravo"))


def _alone() -> Parts:
    return run(make_genesis(name="alone", members=("alfa",)), 5)


WORLDS: dict[str, Callable[[], Parts]] = {
    "plain": _plain,
    "twin": lambda: _plain(first_call=1_000, slots=7),
    "governed": _governed,
    "alone": _alone,
    "many": _many,
    "tight": _tight,
    "loose": _loose,
}
"""``twin`` has the genesis of ``plain`` and other blocks: what parts are taken from to be put into another chain."""
