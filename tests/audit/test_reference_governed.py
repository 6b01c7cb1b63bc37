"""The second implementation on chains whose members do anything at all: what fits, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.block import BodyItem, Vote, block_id_of, body_root, vote_digest
from ledger.codec import decode, encode
from ledger.crypto import PrivateKey
from ledger.entries import Proposal, ProposalAction
from ledger.errors import LedgerError
from ledger.genesis import Candidate, MemberKey, chain_id_of
from ledger.payloads import (
    Approval,
    CandidateChange,
    DelegationPart,
    Delegations,
    Evidence,
    KeyChange,
    KeyChanges,
    KeyOperation,
    SignedHeader,
)
from ledger.transaction import Kind, Transaction, make_transaction, tx_id_of
from tests.audit.agreement import audited, referred, signatures_remembered
from tests.audit.chains import (
    FIVE,
    GOVERN_KEYS,
    NEXT_KEY,
    NODE_KEYS,
    SUBMIT_KEYS,
    Cluster,
    govern,
    make_genesis,
    make_raw,
    rules_of,
)
from tests.audit.tamper import Parts, take_apart

GENESIS = make_genesis(name="governed", epoch_slots=4, members=FIVE, seats=4)
CHAIN_ID = chain_id_of(GENESIS)
RULES = rules_of(GENESIS)
NEW_KEYS = [PrivateKey.from_seed(f"new {number}".encode()) for number in range(4)]
ALL_KEYS = [*NODE_KEYS.values(), *SUBMIT_KEYS.values(), *GOVERN_KEYS.values(), NEXT_KEY, *NEW_KEYS]
PRODUCER_KEYS = {key.key_id: key for key in (*NODE_KEYS.values(), NEXT_KEY)}
NO_POINTS = (b"\x02" + b"\xff" * 32, b"\x04" + bytes(32), b"\x03" + bytes(31) + b"\x05")
NAMES = (*FIVE, "foxtrot", "z")
KINDS = (2, 2, 3, 4, 5, 5, 6, 6, 6, 7)
MONTH_MS = 2_592_000_000


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with signatures_remembered():
        yield


@pytest.fixture(scope="module")
def governed() -> Parts:
    cluster = Cluster(GENESIS)
    govern(cluster, slots=30)
    return take_apart(cluster.peers[0].store, GENESIS)


class Members:
    """What members may send, most of it right by itself, by one source of randomness."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.proposals: list[bytes] = []

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def new_key(self) -> bytes:
        if self.chance(0.75):
            return self.random.choice(NEW_KEYS).public_key
        return self.random.choice([*(key.public_key for key in ALL_KEYS), *NO_POINTS])

    def old_id(self) -> bytes:
        return self.random.choice(ALL_KEYS).key_id

    def key_change(self) -> KeyChange:
        operation = self.random.choice(list(KeyOperation))
        fields: dict[KeyOperation, tuple[Any, int, Any]] = {
            KeyOperation.ADD: (self.new_key(), self.random.randrange(8), None),
            KeyOperation.ROTATE: (self.new_key(), 0, self.old_id()),
            KeyOperation.REVOKE: (None, 0, self.old_id()),
        }
        return KeyChange(operation, *fields[self.random.choice([operation] * 9 + [KeyOperation.ADD])])

    def proposal(self, now_ms: int) -> Proposal:
        action, name = self.random.choice(list(ProposalAction)), self.random.choice(NAMES)
        keys = [MemberKey(self.new_key(), self.random.randrange(1, 8)) for _ in range(self.random.randrange(1, 3))]
        weight = self.random.randrange(1, 300)
        fields: dict[ProposalAction, tuple[Any, int, list[MemberKey], int]] = {
            ProposalAction.ADMIT: (name, weight, keys, 0),
            ProposalAction.REWEIGH: (name, weight, [], 0),
            ProposalAction.REMOVE: (name, 0, [], 0),
            ProposalAction.READMIT: (name, 0, [], 0),
            ProposalAction.SEATS: (None, 0, [], self.random.randrange(1, 6)),
        }
        expires_ms = now_ms + self.random.choice([0, 1, 3_000, *[100_000] * 6, MONTH_MS, MONTH_MS + 1])
        return Proposal(action, *fields[self.random.choice([action] * 9 + [ProposalAction.SEATS])], expires_ms)

    def evidence(self, parts: Parts | None) -> Evidence:
        key = self.random.choice([*NODE_KEYS.values(), NEXT_KEY, NEW_KEYS[0]])
        signed: list[Any] = []
        for number in range(self.random.choice([2] * 9 + [1])):
            if parts is None or self.chance(0.7):
                link = (self.random.randrange(4), CHAIN_ID, self.random.randrange(3, 6), bytes([number]) * 32)
                signer = self.random.choice([key] * 9 + [NEXT_KEY])
                signed.append(Vote(*link, signer.key_id, signer.sign(vote_digest(CHAIN_ID, *link))))
            else:
                header = msgspec.structs.replace(
                    parts.header(9), producer_key_id=key.key_id, tx_count=number, slot=self.random.choice([9] * 9 + [8])
                )
                signed.append(SignedHeader(header, key.sign(block_id_of(header))))
        signed.sort(key=encode, reverse=self.chance(0.1))
        votes = [one for one in signed if isinstance(one, Vote)]
        return Evidence(key.public_key, votes, [one for one in signed if isinstance(one, SignedHeader)])

    def payload(self, kind: int, now_ms: int, parts: Parts | None) -> Any:
        if kind == Kind.KEY:
            return KeyChanges([self.key_change() for _ in range(self.random.randrange(1, 4))])
        if kind == Kind.CANDIDATE:
            return CandidateChange(Candidate(self.old_id(), "", "AT") if self.chance(0.8) else None)
        if kind == Kind.DELEGATE:
            names = sorted(self.random.sample(NAMES, self.random.randrange(4)), reverse=self.chance(0.1))
            return Delegations([DelegationPart(name, self.random.randrange(1, 90)) for name in names])
        if kind == Kind.PROPOSE:
            return self.proposal(now_ms)
        if kind == Kind.APPROVE:
            return Approval(self.random.choice([*self.proposals, *self.proposals, bytes(32)]))
        return self.evidence(parts)

    def transaction(self, now_ms: int, parts: Parts | None = None) -> tuple[bytes, bytes]:
        """Return id and encoding of what a member sends."""
        kind, member = self.random.choice(KINDS), self.random.choice(FIVE)
        item = encode(self.payload(kind, now_ms, parts))
        if parts is not None and self.chance(0.1):
            place = self.random.randrange(len(item))
            item = item[:place] + self.random.randbytes(1) + item[place + 1 :]
        raw = encode(
            make_transaction(
                [item] * self.random.choice([1] * 19 + [2] if parts is not None else [1]),
                key=(NODE_KEYS if kind == Kind.EVIDENCE else GOVERN_KEYS)[member],
                member_id=member,
                chain_id=CHAIN_ID,
                created_ms=now_ms,
                expires_ms=now_ms + 3_600_000,
                kind=Kind(kind),
            )
        )
        tx_id = tx_id_of(decode(raw, Transaction).envelope)
        if kind == Kind.PROPOSE:
            self.proposals.append(tx_id)
        return tx_id, raw


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_whatever_fits_both_say_the_same(random: Random) -> None:
    """A chain is sealed with what fits and with votes lost; both verifiers come to one sentence on all of it."""
    members, cluster = Members(random), Cluster(GENESIS)
    for slot in range(random.randrange(12, 40)):
        cluster.submit(make_raw(GENESIS, range(slot * 3, slot * 3 + 2), now_ms=cluster.now_ms))
        for _ in range(random.randrange(4)):
            with suppress(LedgerError):
                cluster.submit(members.transaction(cluster.now_ms)[1])
        lost, seen = set(random.sample(range(20), random.randrange(5))), iter(range(1_000))
        cluster.step(
            deliver=lambda message, lost=lost, seen=seen: not isinstance(message, Vote) or next(seen) not in lost
        )
    parts = take_apart(cluster.peers[0].store, GENESIS)
    data = parts.to_export()
    assert referred(data, GENESIS) == audited(data, GENESIS, RULES)
    assert referred(data, GENESIS)[0] == ("ok", len(parts.blocks), "")


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.integers(1, 28))
def test_whatever_does_not_fit_both_name_one_place(governed: Parts, random: Random, height: int) -> None:
    """Some transactions are put into a block that is sealed anew; what fits shows in its state root at the latest."""
    members, parts = Members(random), governed.copy()
    now_ms = GENESIS.genesis_time_ms + parts.header(height).slot * GENESIS.parameters.slot_ms
    sent = [members.transaction(now_ms, parts) for _ in range(random.choice([1, 2, 4, 9]))]
    items = [*parts.items(height), *((BodyItem(tx_id, b""), raw) for tx_id, raw in sent)]
    body = [item for item, _ in items]
    parts.put(height, body=encode(body), transactions=[raw for _, raw in items])
    key = PRODUCER_KEYS[parts.header(height).producer_key_id]
    parts.reseal(height, key=key, tx_count=len(body), tx_root=body_root(body))
    data = parts.to_export()
    place, sentence = referred(data, GENESIS)
    expected, said = audited(data, GENESIS, RULES)
    assert place == expected
    if place[2] == "state_root":
        root = sentence.split("expected ")[1][:64]
        assert f"expected {root}" in said
