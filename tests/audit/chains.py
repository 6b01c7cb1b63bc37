"""Real chains for the audit's tests: engines of four producers in one thread, on a clock that is a number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from consensus.engine import Engine
from ledger.block import Block, Vote
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
from ledger.readable import from_readable
from ledger.rules.ruleset import RuleSet, default_rule_set_pin, read_vectors
from ledger.state import genesis_state
from ledger.store import MemoryStore, Store, WriteBatch
from ledger.transaction import make_transaction
from ledger.validation import check_transaction

GENESIS_MS = 1_790_000_040_000
SLOT_MS = 1_000
MEMBERS = ("alfa", "bravo", "charlie", "delta")
NODE_KEYS = {name: PrivateKey.from_seed(b"node " + name.encode()) for name in MEMBERS}
SUBMIT_KEYS = {name: PrivateKey.from_seed(b"submit " + name.encode()) for name in MEMBERS}


def make_genesis(*, name: str = "audit-test", epoch_slots: int = 8, members: Sequence[str] = MEMBERS) -> Genesis:
    """Return a chain of members of equal weight, each with a seat."""
    return Genesis(
        1,
        name,
        GENESIS_MS,
        Parameters(SLOT_MS, epoch_slots, len(members), 16, 30, 35 * 86_400_000, 200_000, 64 << 20, 1_000, "lifecycle"),
        [
            GenesisMember(
                member,
                100,
                [
                    MemberKey(NODE_KEYS[member].public_key, Role.NODE),
                    MemberKey(SUBMIT_KEYS[member].public_key, Role.SUBMIT),
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
    """Four producers that hear each other at once."""

    def __init__(self, genesis: Genesis, stores: Sequence[Store] | None = None) -> None:
        self.genesis = genesis
        self.slot = 0
        keys = genesis_state(genesis).keys
        chain_id, rules = chain_id_of(genesis), rules_of(genesis)
        self._check = lambda raw: check_transaction(raw, chain_id=chain_id, key_of=keys.get, rules=rules)
        names = [member.member_id for member in genesis.members]
        self.peers = [
            Peer(Engine(genesis, store, key=NODE_KEYS[name], check=self._check), store)
            for name, store in zip(names, stores or [MemoryStore() for _ in names], strict=True)
        ]

    @property
    def now_ms(self) -> int:
        """Return the start of the present slot."""
        return self.genesis.genesis_time_ms + self.slot * self.genesis.parameters.slot_ms

    def submit(self, raw: bytes) -> None:
        """Put a transaction on every producer's disk and into its pool."""
        tx = self._check(raw)
        for peer in self.peers:
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
