"""The maker of the vectors of governance; ``make-vectors`` runs it."""

from __future__ import annotations

from typing import Any

import msgspec
from ledger_vectors import GENESIS_MS, NODE_KEYS, SUBMIT_KEY, sample_genesis

from consensus.election import founding_state
from consensus.votes import Checkpoint, Link, digest_of
from ledger.block import EMPTY_TOTALS, Header, Vote, block_id_of
from ledger.codec import ZERO32, encode
from ledger.crypto import PrivateKey
from ledger.entries import Proposal, ProposalAction
from ledger.errors import InvalidTransaction, UnusableTransaction
from ledger.genesis import Candidate, MemberKey, Role, chain_id_of
from ledger.governance import apply_payload
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
    read_payload,
)
from ledger.readable import to_readable
from ledger.state import State, state_changes, state_path
from ledger.transaction import Kind, make_transaction, tx_id_of

CHAIN_ID = chain_id_of(sample_genesis())
HOUR_MS = 3_600_000
NEW_NODE = PrivateKey.from_seed(b"node alba 2")
NEW_SUBMIT = PrivateKey.from_seed(b"submit bora")
EDDA = PrivateKey.from_seed(b"node edda")
EDDA_KEYS = [
    MemberKey(EDDA.public_key, Role.NODE | Role.GOVERN),
    MemberKey(PrivateKey.from_seed(b"submit edda").public_key, Role.SUBMIT),
]
KINDS = {
    KeyChanges: Kind.KEY,
    CandidateChange: Kind.CANDIDATE,
    Delegations: Kind.DELEGATE,
    Proposal: Kind.PROPOSE,
    Approval: Kind.APPROVE,
    Evidence: Kind.EVIDENCE,
}


def proposal(action: ProposalAction, *, member: str | None = None, weight: int = 0, seats: int = 0) -> Proposal:
    keys = EDDA_KEYS if action is ProposalAction.ADMIT else []
    return Proposal(action, member, weight, keys, seats, GENESIS_MS + 24 * HOUR_MS)


def double_vote(name: str, *links: tuple[Checkpoint, Checkpoint]) -> Evidence:
    key = NODE_KEYS[name]
    votes = [Vote(*s, *t, key.key_id, key.sign(digest_of(CHAIN_ID, Link(s, t)))) for s, t in links]
    return Evidence(key.public_key, sorted(votes, key=encode), [])


def double_block(name: str) -> Evidence:
    key = NODE_KEYS[name]
    signed = []
    for parent in (b"\x11", b"\x22"):
        header = Header(
            1, CHAIN_ID, 9, 12, parent * 32, key.key_id, ZERO32, 0, ZERO32, EMPTY_TOTALS, ZERO32, ZERO32, ZERO32
        )
        signed.append(SignedHeader(header, key.sign(block_id_of(header))))
    return Evidence(key.public_key, [], sorted(signed, key=encode))


def point(height: int, tag: int) -> Checkpoint:
    return Checkpoint(height, bytes([tag]) * 32)


class _Sequence:
    """Transactions that govern, one in each block from height 1 on, and what each does to the state."""

    def __init__(self) -> None:
        self.state: State = founding_state(sample_genesis())
        self.steps: list[dict[str, Any]] = []
        self.ids: list[bytes] = []

    def apply(self, member: str, payload: Payload, key: PrivateKey | None = None) -> None:
        """Apply a transaction of ``member``, or note that it does not fit."""
        height = len(self.steps) + 1
        time_ms = GENESIS_MS + height * 1_000
        kind = KINDS[type(payload)]
        tx = make_transaction(
            [encode(payload)],
            key=key or NODE_KEYS[member],
            member_id=member,
            chain_id=CHAIN_ID,
            created_ms=time_ms,
            expires_ms=time_ms + HOUR_MS,
            kind=kind,
        )
        assert read_payload(kind, tx.items, CHAIN_ID) == payload
        tx_id = tx_id_of(tx.envelope)
        self.ids.append(tx_id)
        before, field = self.state, None
        try:
            self.state = apply_payload(before, payload, member_id=member, tx_id=tx_id, height=height, time_ms=time_ms)
        except UnusableTransaction as error:
            field = error.where
        changes = sorted(state_changes(before, self.state).items(), key=lambda change: encode(change[0]))
        self.steps.append(
            {
                "height": height,
                "time_ms": time_ms,
                "member_id": member,
                "kind": kind.name.lower(),
                "payload": to_readable(payload),
                "item": tx.items[0].hex(),
                "tx_id": tx_id.hex(),
                "encoded": encode(tx).hex(),
                "does_not_fit": field,
                "changes": [
                    {
                        "key": encode(name).hex(),
                        "path": state_path(*name).hex(),
                        "value": None if value is None else encode(value).hex(),
                    }
                    for name, value in changes
                ],
                "state_root": self.state.tree.root.hex(),
            }
        )


def _sequence() -> _Sequence:
    made = _Sequence()
    add = KeyChange(KeyOperation.ADD, NEW_SUBMIT.public_key, Role.SUBMIT, None)
    govern = KeyChange(KeyOperation.ADD, PrivateKey.from_seed(b"govern alba").public_key, Role.GOVERN, None)
    rotate = KeyChange(KeyOperation.ROTATE, NEW_NODE.public_key, 0, NODE_KEYS["alba"].key_id)
    made.apply("bora", KeyChanges([add]))
    made.apply("dora", KeyChanges([add]))  # the key is known by now
    made.apply("alba", KeyChanges([govern, rotate]))
    made.apply("bora", KeyChanges([KeyChange(KeyOperation.REVOKE, None, 0, NEW_SUBMIT.key_id)]))
    made.apply("bora", KeyChanges([KeyChange(KeyOperation.REVOKE, None, 0, NODE_KEYS["bora"].key_id)]))  # its last
    made.apply("cima", CandidateChange(Candidate(NODE_KEYS["cima"].key_id, "wss://new.example:443", "FR")))
    made.apply("dora", Delegations([DelegationPart("bora", 3), DelegationPart("dora", 100)]))
    made.apply("dora", Delegations([DelegationPart("bora", 104)]))  # more than its weight
    made.apply("dora", CandidateChange(None))
    made.apply("bora", proposal(ProposalAction.ADMIT, member="edda", weight=50))
    admit = made.ids[-1]
    made.apply("cima", KeyChanges([KeyChange(KeyOperation.ADD, EDDA_KEYS[1].public_key, Role.SUBMIT, None)]))  # taken
    made.apply("cima", Approval(admit))
    made.apply("cima", Approval(admit))  # twice
    made.apply("dora", Approval(admit))
    made.apply("dora", proposal(ProposalAction.REWEIGH, member="alba", weight=70))
    reweigh = made.ids[-1]
    made.apply("bora", Approval(reweigh))
    made.apply("cima", Approval(reweigh))
    made.apply("bora", double_vote("cima", (point(0, 0), point(5, 1)), (point(0, 0), point(5, 2))))
    made.apply("bora", double_vote("cima", (point(1, 1), point(5, 1)), (point(2, 1), point(4, 1))))  # struck already
    made.apply("bora", double_block("dora"))
    made.apply("bora", proposal(ProposalAction.READMIT, member="cima"))
    readmit = made.ids[-1]
    made.apply("alba", Approval(readmit), NEW_NODE)
    made.apply("dora", Approval(readmit))
    made.apply("edda", Approval(readmit), EDDA)
    made.apply("dora", proposal(ProposalAction.SEATS, seats=7))
    made.apply("bora", proposal(ProposalAction.REMOVE, member="dora"))
    remove = made.ids[-1]
    made.apply("cima", Approval(remove))
    made.apply("alba", Approval(remove), NEW_NODE)
    made.apply("edda", Approval(remove), EDDA)
    return made


def _refused() -> list[dict[str, Any]]:
    """Return payloads that nobody may pass on, each with the field at fault."""
    key = NEW_NODE.public_key
    vote = double_vote("cima", (point(0, 0), point(5, 1)), (point(0, 0), point(5, 2)))
    harmless = double_vote("cima", (point(0, 0), point(5, 1)), (point(1, 1), point(6, 2)))
    admit = proposal(ProposalAction.ADMIT, member="edda", weight=50)
    wrong: list[tuple[str, Payload]] = [
        ("add without roles", KeyChanges([KeyChange(KeyOperation.ADD, key, 0, None)])),
        ("rotate with roles", KeyChanges([KeyChange(KeyOperation.ROTATE, key, 1, NEW_NODE.key_id)])),
        ("revoke with a new key", KeyChanges([KeyChange(KeyOperation.REVOKE, key, 0, NEW_NODE.key_id)])),
        ("no point on the curve", KeyChanges([KeyChange(KeyOperation.ADD, b"\x02" + b"\xff" * 32, 1, None)])),
        ("parts descend", Delegations([DelegationPart("dora", 1), DelegationPart("bora", 1)])),
        ("a candidate twice", Delegations([DelegationPart("bora", 1), DelegationPart("bora", 2)])),
        ("seats with a member", msgspec.structs.replace(admit, action=ProposalAction.SEATS, seats=4)),
        ("nobody could govern", msgspec.structs.replace(admit, keys=EDDA_KEYS[1:])),
        ("a key twice", msgspec.structs.replace(admit, keys=[EDDA_KEYS[0], EDDA_KEYS[0]])),
        ("one vote", msgspec.structs.replace(vote, votes=vote.votes[:1])),
        ("votes descend", msgspec.structs.replace(vote, votes=vote.votes[::-1])),
        ("by another key", msgspec.structs.replace(vote, public_key=key)),
        ("votes that do not contradict", harmless),
    ]
    cases = []
    for why, payload in wrong:
        try:
            read_payload(KINDS[type(payload)], [encode(payload)], CHAIN_ID)
        except InvalidTransaction as error:
            where = error.where
        except Exception as error:  # noqa: BLE001 - FieldError and BadSignature name a field as well
            where = getattr(error, "where", "")
        else:
            raise AssertionError(why)
        cases.append(
            {"why": why, "kind": KINDS[type(payload)].name.lower(), "item": encode(payload).hex(), "field": where}
        )
    return cases


def make_governance() -> dict[str, Any]:
    assert SUBMIT_KEY.key_id in founding_state(sample_genesis()).keys
    return {
        "about": "Transactions that govern, on the state of genesis.json, one in each block, nothing else in it and no "
        "turns counted: what each changes (null: the entry goes) and the state root after it. Those that do not fit "
        "(`does_not_fit`: the field) change nothing. `refused`: payloads wrong by themselves.",
        "steps": _sequence().steps,
        "refused": _refused(),
    }


MAKERS = {"governance.json": make_governance}
