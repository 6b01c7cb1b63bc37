"""Real chains for the audit's tests: engines of four producers in one thread, on a clock that is a number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from consensus.engine import Engine
from ledger.block import Block, Vote, vote_digest
from ledger.cdr import CallRecord
from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.genesis import (
    Candidate,
    Delegation,
    Genesis,
    GenesisMember,
    MemberKey,
    Parameters,
    Role,
    chain_id_of,
)
from ledger.payloads import (
    DelegationPart,
    Delegations,
    Evidence,
    KeyChange,
    KeyChanges,
    KeyOperation,
    Payload,
)
from ledger.readable import from_readable
from ledger.rules.ruleset import RuleSet, default_rule_set_pin, read_vectors
from ledger.store import MemoryStore, Store, WriteBatch
from ledger.transaction import Kind, make_transaction
from ledger.validation import CheckedTransaction, KeyOf, check_transaction

GENESIS_MS = 1_790_000_040_000
SLOT_MS = 1_000
MEMBERS = ("alfa", "bravo", "charlie", "delta")
FIVE = (*MEMBERS, "echo")
NODE_KEYS = {name: PrivateKey.from_seed(b"node " + name.encode()) for name in FIVE}
SUBMIT_KEYS = {name: PrivateKey.from_seed(b"submit " + name.encode()) for name in FIVE}
GOVERN_KEYS = {name: PrivateKey.from_seed(b"govern " + name.encode()) for name in FIVE}
NEXT_KEY = PrivateKey.from_seed(b"node bravo, the next one")
"""What ``bravo`` rotates its node key to."""


def make_genesis(
    *, name: str = "audit-test", epoch_slots: int = 8, members: Sequence[str] = MEMBERS, seats: int | None = None
) -> Genesis:
    """Return a chain of members of equal weight, each a candidate."""
    return Genesis(
        1,
        name,
        GENESIS_MS,
        Parameters(
            SLOT_MS, epoch_slots, seats or len(members), 16, 30, 35 * 86_400_000, 200_000, 64 << 20, 1_000, "lifecycle"
        ),
        [
            GenesisMember(
                member,
                100,
                [
                    MemberKey(NODE_KEYS[member].public_key, Role.NODE),
                    MemberKey(SUBMIT_KEYS[member].public_key, Role.SUBMIT),
                    MemberKey(GOVERN_KEYS[member].public_key, Role.GOVERN),
                ],
                Candidate(NODE_KEYS[member].key_id, "", "AT"),
            )
            for member in members
        ],
        [Delegation(member, member, 100) for member in members],
        default_rule_set_pin("lifecycle"),
    )


def rules_of(genesis: Genesis) -> RuleSet:
    """Return the compiled rules of a chain."""
    return RuleSet(genesis.rules, carbon_basis=genesis.parameters.carbon_basis)


@cache
def _base_records() -> tuple[CallRecord, CallRecord]:
    quality = from_readable(json.loads(read_vectors("voice-quality", 1))["base"], CallRecord)
    energy = from_readable(json.loads(read_vectors("energy", 1))["base"], CallRecord)
    return quality, energy


def make_record(call: int, *, end_ms: int) -> CallRecord:
    """Return a record that holds under every rule: one third with quality, the others with energy."""
    quality, energy = _base_records()
    base = energy if call % 3 else quality
    shift = end_ms - base.end_ms
    fields = {name: getattr(base, name) for name in base.__struct_fields__}
    digest = sha256(call.to_bytes(8)).digest()
    fields |= {
        "party_commitment": digest,
        "call_commitment": digest[:16],
        "setup_ms": base.setup_ms + shift,
        "answer_ms": base.answer_ms and base.answer_ms + shift,
        "end_ms": end_ms,
    }
    return CallRecord(**fields)


def make_raw(
    genesis: Genesis,
    calls: Iterable[int],
    *,
    now_ms: int,
    member: str = "alfa",
    lifetime_ms: int = 3_600_000,
    chain_id: bytes | None = None,
    spread_ms: int = 50_000,
) -> bytes:
    """Return an encoded transaction of the records of ``calls``, all ended within ``spread_ms`` before ``now_ms``.

    A call ends at a time of its own, so its record is the same in every transaction of the same minute.
    """
    minute = now_ms // 60_000 * 60_000
    records = [make_record(call, end_ms=minute - call * 7_919 % spread_ms) for call in calls]
    transaction = make_transaction(
        [encode(record) for record in records],
        key=SUBMIT_KEYS[member],
        member_id=member,
        chain_id=chain_id or chain_id_of(genesis),
        created_ms=now_ms,
        expires_ms=now_ms + lifetime_ms,
    )
    return encode(transaction)


def make_payload(genesis: Genesis, kind: Kind, payload: Payload, *, now_ms: int, member: str) -> bytes:
    """Return an encoded transaction that governs."""
    transaction = make_transaction(
        [encode(payload)],
        key=(NODE_KEYS if kind is Kind.EVIDENCE else GOVERN_KEYS)[member],
        member_id=member,
        chain_id=chain_id_of(genesis),
        created_ms=now_ms,
        expires_ms=now_ms + 3_600_000,
        kind=kind,
    )
    return encode(transaction)


def double_vote(genesis: Genesis, member: str, *, height: int) -> Evidence:
    """Return the evidence of a member that voted for two blocks at ``height``, neither of which there is."""
    key = NODE_KEYS[member]
    votes = []
    for target in (b"\xaa" * 32, b"\xbb" * 32):
        link = (0, chain_id_of(genesis), height, target)
        votes.append(Vote(*link, key.key_id, key.sign(vote_digest(chain_id_of(genesis), *link))))
    return Evidence(key.public_key, sorted(votes, key=encode), [])


@dataclass
class Peer:
    """One producer: its engine and its store."""

    engine: Engine
    store: Store

    def take(self) -> list[Block | Vote]:
        """Persist what is ready and return what is to be sent."""
        ready = self.engine.take_ready()
        self.store.write(WriteBatch(puts=ready.puts))
        self.engine.written()
        return ready.messages


class Cluster:
    """Producers that hear each other at once."""

    def __init__(self, genesis: Genesis, stores: Sequence[Store] | None = None) -> None:
        self.genesis = genesis
        self.slot = 0
        chain_id, rules = chain_id_of(genesis), rules_of(genesis)

        def check(raw: bytes, key_of: KeyOf) -> CheckedTransaction:
            return check_transaction(raw, chain_id=chain_id, key_of=key_of, rules=rules)

        names = [member.member_id for member in genesis.members]
        self.peers = []
        for name, store in zip(names, stores or [MemoryStore() for _ in names], strict=True):
            next_key = NEXT_KEY if name == "bravo" else None
            engine = Engine(genesis, store, key=NODE_KEYS[name], next_key=next_key, check=check)
            self.peers.append(Peer(engine, store))

    @property
    def now_ms(self) -> int:
        """Return the start of the present slot."""
        return self.genesis.genesis_time_ms + self.slot * self.genesis.parameters.slot_ms

    def submit(self, raw: bytes) -> None:
        """Put a transaction on every producer's disk and into its pool."""
        for peer in self.peers:
            tx = peer.engine.check(raw)
            peer.store.write(WriteBatch(bodies=[(tx.tx_id, raw)]))
            peer.engine.add_transaction(tx)

    def step(self, *, deliver: Callable[[Block | Vote], bool] = lambda _message: True) -> None:
        """Let one slot pass; ``deliver`` says which messages arrive."""
        for peer in self.peers:
            peer.engine.handle_timer(now_ms=self.now_ms)
        waiting = [(peer, message) for peer in self.peers for message in peer.take()]
        while waiting:
            sender, message = waiting.pop(0)
            if not deliver(message):
                continue
            for peer in self.peers:
                if peer is sender:
                    continue
                receive = peer.engine.receive_block if isinstance(message, Block) else peer.engine.receive_vote
                receive(message, now_ms=self.now_ms)
                waiting += [(peer, answer) for answer in peer.take()]
        self.slot += 1


GOVERNED_SLOTS = 60


def govern(cluster: Cluster, *, slots: int = GOVERNED_SLOTS) -> None:
    """Let a chain of five members and four seats pass, with records in every slot and four changes of the voting set.

    In epoch 0 ``delta`` gives its weight to ``echo``, which takes its seat and, once it has sealed, its vote (set 1,
    from slot 18 on); in epoch 2 ``bravo`` rotates its node key (set 2, slot 34); in epoch 4 ``charlie`` is accused,
    struck (set 3, slot 42) and followed by ``delta`` (set 4, slot 50).
    """
    genesis = cluster.genesis
    rotation = KeyChange(KeyOperation.ROTATE, NEXT_KEY.public_key, 0, NODE_KEYS["bravo"].key_id)
    payloads: dict[int, tuple[str, Kind, Payload]] = {
        1: ("delta", Kind.DELEGATE, Delegations([DelegationPart("echo", 100)])),
        18: ("bravo", Kind.KEY, KeyChanges([rotation])),
        34: ("alfa", Kind.EVIDENCE, double_vote(genesis, "charlie", height=30)),
    }
    while cluster.slot < slots:
        slot = cluster.slot
        cluster.submit(make_raw(genesis, range(slot * 5, slot * 5 + 4), now_ms=cluster.now_ms))
        if slot in payloads:
            member, kind, payload = payloads[slot]
            cluster.submit(make_payload(genesis, kind, payload, now_ms=cluster.now_ms, member=member))
        cluster.step()


def fill(cluster: Cluster) -> None:
    """Let fourteen blocks of records pass, some of them void, with votes lost in slots 4 and 5."""
    genesis = cluster.genesis
    for slot in range(20):
        if slot < 14:
            cluster.submit(make_raw(genesis, range(slot * 5, slot * 5 + 7), now_ms=cluster.now_ms))
            if slot % 3 == 2:
                cluster.submit(
                    make_raw(genesis, range(900 + slot * 5, 903 + slot * 5), now_ms=cluster.now_ms, member="bravo")
                )
        cluster.step(deliver=lambda message, slot=slot: not (isinstance(message, Vote) and slot in {4, 5}))
