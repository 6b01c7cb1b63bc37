"""What a simulated chain is made of: keys, a genesis, and transactions of records.

Signatures of producers are cheap stand-ins that everybody can check and, in a simulation, nobody forges. Transactions
are checked once for all nodes, since the check is a pure function of the bytes; where many are made, their signatures
are stand-ins as well.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256

from consensus.election import founding_state
from ledger.cdr import CallRecord, Leg, ReleasedBy, Service
from ledger.codec import ZERO32, encode
from ledger.crypto import PrivateKey, is_valid_signature
from ledger.genesis import (
    PRODUCERS_MAX,
    Candidate,
    Delegation,
    Genesis,
    GenesisMember,
    MemberKey,
    Parameters,
    Role,
    RuleSetPin,
    chain_id_of,
)
from ledger.payloads import Payload
from ledger.state import State
from ledger.transaction import Kind, make_transaction
from ledger.transition import block_time_ms
from ledger.validation import CheckedTransaction, KeyOf, check_transaction

GENESIS_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z, start of slot 0 of every simulated chain."""
SLOT_MS = 1_000
LIFETIME_MS = 3_600_000
MAX_UNFINAL = 12
HEARTBEAT_SLOTS = 30
EPOCH_SLOTS = 10
MEMBER_WEIGHT = 100
NEXT_KEY = 64
"""Added to a node's number for the key that it rotates to."""


class StandInKey(PrivateKey):
    """A key whose signatures cost a hash."""

    def sign(self, digest: bytes) -> bytes:
        """Return what ``is_stand_in_signature`` accepts."""
        return _stand_in(self.public_key, digest)


def _stand_in(public_key: bytes, digest: bytes) -> bytes:
    half = sha256(public_key + digest).digest()
    return half + half


def is_stand_in_signature(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    """Tell whether a ``StandInKey`` made ``signature``."""
    return signature == _stand_in(public_key, digest)


def _is_either_signature(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    """Tell whether a signature is a stand-in, as those in evidence always are, or a real one."""
    return is_stand_in_signature(public_key, digest, signature) or is_valid_signature(public_key, digest, signature)


def _stand_in_key(seed: bytes) -> StandInKey:
    key = PrivateKey.from_seed(seed)
    return StandInKey(key._key)  # noqa: SLF001 - the same key with another way to sign


@cache
def producer_key(number: int) -> StandInKey:
    """Return the node key of producer ``number``."""
    return _stand_in_key(b"node %d" % number)


def next_producer_key(number: int) -> StandInKey:
    """Return the node key that takes the place of ``producer_key(number)``."""
    return producer_key(number + NEXT_KEY)


@cache
def _numbers() -> dict[bytes, int]:
    return {key(n).key_id: n for n in range(PRODUCERS_MAX) for key in (producer_key, next_producer_key)}


def number_of_key(key_id: bytes) -> int:
    """Return the number of the node that has this key, now or once it is rotated; -1 for a stranger's."""
    return _numbers().get(key_id, -1)


@cache
def submit_key(number: int, *, stand_in: bool = False) -> PrivateKey:
    """Return the key with which member ``number`` signs its records."""
    seed = b"submit %d" % number
    return _stand_in_key(seed) if stand_in else PrivateKey.from_seed(seed)


def member_name(number: int) -> str:
    """Return the id of member ``number``."""
    return f"carrier-{number:02d}"


@cache
def govern_key(number: int, *, stand_in: bool = False) -> PrivateKey:
    """Return the key with which member ``number`` governs."""
    seed = b"govern %d" % number
    return _stand_in_key(seed) if stand_in else PrivateKey.from_seed(seed)


@cache
def make_genesis(members: int, seats: int | None = None, epoch_slots: int = EPOCH_SLOTS) -> Genesis:
    """Return a chain of members that all stand, of equal weight; the first ``seats`` (all of them) are elected."""
    names = [member_name(n) for n in range(members)]
    founders = [
        GenesisMember(
            names[n],
            MEMBER_WEIGHT,
            [
                MemberKey(producer_key(n).public_key, Role.NODE),
                MemberKey(submit_key(n).public_key, Role.SUBMIT),
                MemberKey(govern_key(n).public_key, Role.GOVERN),
            ],
            Candidate(producer_key(n).key_id, "", ""),
        )
        for n in range(members)
    ]
    parameters = Parameters(
        slot_ms=SLOT_MS,
        epoch_slots=epoch_slots,
        producer_count=seats or members,
        max_unfinal=MAX_UNFINAL,
        heartbeat_slots=HEARTBEAT_SLOTS,
        record_window_ms=86_400_000,
        block_records_max=1_000,
        block_bytes_max=1_000_000,
        member_share_milli=1_000,
        carbon_basis="lifecycle",
    )
    delegations = [Delegation(name, name, MEMBER_WEIGHT) for name in names]
    return Genesis(1, "simulated", GENESIS_MS, parameters, founders, delegations, RuleSetPin([], []))


@cache
def _founding_state(members: int, seats: int | None, epoch_slots: int) -> State:
    return founding_state(make_genesis(members, seats, epoch_slots))


class NoRules:
    """A rule set that every record keeps."""

    def __init__(self, rule_set_id: bytes) -> None:
        self.rule_set_id = rule_set_id

    def check_record(self, _record: CallRecord) -> None:
        """Find nothing."""


class World:
    """One chain's genesis, and the means to make and check its transactions.

    stand_ins: signatures of transactions are stand-ins too.

    Attributes:
        founding: the state at height 0.
        by_id: what was checked.
    """

    def __init__(
        self, members: int, seats: int | None = None, *, epoch_slots: int = EPOCH_SLOTS, stand_ins: bool = False
    ) -> None:
        self._stand_ins = stand_ins
        self.genesis = make_genesis(members, seats, epoch_slots)
        self.chain_id = chain_id_of(self.genesis)
        self.founding = _founding_state(members, seats, epoch_slots)
        self._rules = NoRules(self.founding.rule_set)
        self._checked: dict[bytes, CheckedTransaction] = {}
        self.by_id: dict[bytes, CheckedTransaction] = {}

    def check(self, raw: bytes, key_of: KeyOf | None = None) -> CheckedTransaction:
        """Return the summary of a raw transaction, checked in full the first time; ``key_of``: of genesis, or more."""
        checked = self._checked.get(raw)
        if checked is None:
            checked = check_transaction(
                raw,
                chain_id=self.chain_id,
                key_of=key_of or self.founding.keys.get,
                rules=self._rules,
                is_valid=_is_either_signature,
            )
            self._checked[raw] = checked
            self.by_id[checked.tx_id] = checked
        return checked

    def time_of(self, slot: int) -> int:
        """Return when ``slot`` begins."""
        return block_time_ms(self.genesis, slot)

    def make_transaction(self, member: int, calls: list[int], *, now_ms: int, lifetime_ms: int = LIFETIME_MS) -> bytes:
        """Return a signed transaction of records of the calls with these numbers.

        The same call by the same member has the same record key: only the first counts.
        """
        transaction = make_transaction(
            [encode(make_record(call, now_ms)) for call in calls],
            key=submit_key(member, stand_in=self._stand_ins),
            member_id=member_name(member),
            chain_id=self.chain_id,
            created_ms=now_ms,
            expires_ms=now_ms + lifetime_ms,
        )
        return encode(transaction)

    def make_payload(
        self, member: int, kind: Kind, payload: Payload, *, now_ms: int, key: PrivateKey | None = None
    ) -> bytes:
        """Return a signed transaction of a member that governs; ``key``: its govern key."""
        transaction = make_transaction(
            [encode(payload)],
            key=key or govern_key(member, stand_in=self._stand_ins),
            member_id=member_name(member),
            chain_id=self.chain_id,
            created_ms=now_ms,
            expires_ms=now_ms + LIFETIME_MS,
            kind=kind,
        )
        return encode(transaction)


def make_record(call: int, now_ms: int) -> CallRecord:
    """Return the record of call number ``call``, which ended just now; its setup depends on its number alone."""
    setup_ms = GENESIS_MS - 60_000 + call * 7
    return CallRecord(
        1,
        Service.VOICE,
        Leg.ORIGINATING,
        ZERO32,
        sha256(b"call %d" % call).digest()[:16],
        setup_ms,
        setup_ms + 10,
        max(now_ms, setup_ms + 20),
        200,
        16,
        ReleasedBy.CALLER,
        0,
        call % 1000,
        call % 1000,
        160 * (call % 1000),
        160 * (call % 1000),
        None,
        None,
        None,
    )
