"""Payloads of transactions that govern: what is right about them by themselves, and every refusal."""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.block import EMPTY_TOTALS, Header, Vote, block_id_of, vote_digest
from ledger.codec import ZERO32, encode
from ledger.crypto import PrivateKey
from ledger.entries import KeyEntry, KeyStanding, Proposal, ProposalAction
from ledger.errors import (
    EncodingError,
    FieldError,
    InvalidTransaction,
    LedgerError,
    NonCanonicalEncoding,
    UnusableTransaction,
)
from ledger.genesis import Candidate, MemberKey, Role
from ledger.payloads import (
    PAYLOADS,
    ROLES,
    Approval,
    CandidateChange,
    DelegationPart,
    Delegations,
    Evidence,
    KeyChange,
    KeyChanges,
    KeyOperation,
    SignedHeader,
    is_vote_fault,
    read_payload,
)
from ledger.transaction import Kind, make_transaction
from ledger.validation import check_transaction
from tests.ledger.ledger_samples import CHAIN_ID, NODE_KEYS, NOW_MS, SUBMIT_KEY, NoRules, plain, values_of

KEY = PrivateKey.from_seed(b"new")
OTHER = PrivateKey.from_seed(b"other")
NO_POINT = b"\x02" + b"\xff" * 32


def read(payload: Any) -> Any:
    """Return what is read from the encoding of a payload."""
    kind = next(kind for kind, made in PAYLOADS.items() if made is type(payload))
    return read_payload(kind, [encode(payload)], CHAIN_ID)


def vote(source: tuple[int, int], target: tuple[int, int], key: PrivateKey = KEY, chain_id: bytes = CHAIN_ID) -> Vote:
    """Return a signed vote between blocks given by height and a tag."""
    link = (source[0], bytes([source[1]]) * 32, target[0], bytes([target[1]]) * 32)
    return Vote(*link, key.key_id, key.sign(vote_digest(chain_id, *link)))


def header(slot: int, tag: int, key: PrivateKey = KEY, chain_id: bytes = CHAIN_ID) -> SignedHeader:
    """Return a signed header in a slot; ``tag`` tells those of one slot apart."""
    made = Header(
        1, chain_id, 5, slot, bytes([tag]) * 32, key.key_id, ZERO32, 0, ZERO32, EMPTY_TOTALS, ZERO32, ZERO32, ZERO32
    )
    return SignedHeader(made, key.sign(block_id_of(made)))


def evidence(*pair: Any, key: PrivateKey = KEY) -> Evidence:
    """Return evidence of two votes or headers, in the order of their encodings."""
    ordered = sorted(pair, key=encode)
    is_votes = isinstance(pair[0], Vote)
    return Evidence(key.public_key, ordered if is_votes else [], [] if is_votes else ordered)


def admit(**changes: Any) -> Proposal:
    """Return a proposal to admit a member."""
    keys = [MemberKey(KEY.public_key, Role.NODE | Role.GOVERN), MemberKey(OTHER.public_key, Role.SUBMIT)]
    made = Proposal(ProposalAction.ADMIT, "edda", 50, keys, 0, NOW_MS)
    return msgspec.structs.replace(made, **changes)


GOOD: dict[str, Any] = {
    "add": KeyChanges([KeyChange(KeyOperation.ADD, KEY.public_key, 3, None)]),
    "rotate": KeyChanges([KeyChange(KeyOperation.ROTATE, KEY.public_key, 0, OTHER.key_id)]),
    "revoke": KeyChanges([KeyChange(KeyOperation.REVOKE, None, 0, KEY.key_id)]),
    "sixteen": KeyChanges([KeyChange(KeyOperation.REVOKE, None, 0, bytes([i]) * 20) for i in range(16)]),
    "stand": CandidateChange(Candidate(KEY.key_id, "wss://a.example:1", "DE")),
    "withdraw": CandidateChange(None),
    "delegate": Delegations([DelegationPart("a", 1), DelegationPart("b", 10**9)]),
    "delegate nothing": Delegations([]),
    "admit": admit(),
    "reweigh": admit(action=ProposalAction.REWEIGH, keys=[]),
    "remove": admit(action=ProposalAction.REMOVE, weight=0, keys=[]),
    "readmit": admit(action=ProposalAction.READMIT, weight=0, keys=[]),
    "seats": admit(action=ProposalAction.SEATS, member_id=None, weight=0, keys=[], seats=21),
    "approve": Approval(bytes(32)),
    "E1": evidence(vote((0, 0), (5, 1)), vote((0, 0), (5, 2))),
    "E1 from two sources": evidence(vote((1, 1), (5, 1)), vote((2, 1), (5, 1))),
    "E2": evidence(vote((1, 1), (6, 1)), vote((2, 2), (5, 2))),
    "double block": evidence(header(7, 1), header(7, 2)),
}

REJECTED: dict[str, tuple[Any, str]] = {
    "add without roles": (KeyChanges([KeyChange(KeyOperation.ADD, KEY.public_key, 0, None)]), "changes[0]"),
    "add without a key": (KeyChanges([KeyChange(KeyOperation.ADD, None, 1, None)]), "changes[0]"),
    "add ends a key": (KeyChanges([KeyChange(KeyOperation.ADD, KEY.public_key, 1, KEY.key_id)]), "changes[0]"),
    "rotate with roles": (KeyChanges([KeyChange(KeyOperation.ROTATE, KEY.public_key, 1, KEY.key_id)]), "changes[0]"),
    "rotate of nothing": (KeyChanges([KeyChange(KeyOperation.ROTATE, KEY.public_key, 0, None)]), "changes[0]"),
    "rotate into nothing": (KeyChanges([KeyChange(KeyOperation.ROTATE, None, 0, KEY.key_id)]), "changes[0]"),
    "revoke with a key": (KeyChanges([KeyChange(KeyOperation.REVOKE, KEY.public_key, 0, KEY.key_id)]), "changes[0]"),
    "revoke with roles": (KeyChanges([KeyChange(KeyOperation.REVOKE, None, 1, KEY.key_id)]), "changes[0]"),
    "the second is wrong": (
        KeyChanges([GOOD["add"].changes[0], KeyChange(KeyOperation.ADD, None, 1, None)]),
        "changes[1]",
    ),
    "no point": (KeyChanges([KeyChange(KeyOperation.ADD, NO_POINT, 1, None)]), "changes[0].public_key"),
    "parts descend": (Delegations([DelegationPart("b", 1), DelegationPart("a", 1)]), "parts.candidate_id"),
    "a candidate twice": (Delegations([DelegationPart("a", 1), DelegationPart("a", 2)]), "parts.candidate_id"),
    "admit without a member": (admit(member_id=None), "proposal"),
    "admit without weight": (admit(weight=0), "proposal"),
    "admit without keys": (admit(keys=[]), "proposal"),
    "admit with seats": (admit(seats=1), "proposal"),
    "reweigh with keys": (admit(action=ProposalAction.REWEIGH), "proposal"),
    "remove with weight": (admit(action=ProposalAction.REMOVE, keys=[]), "proposal"),
    "readmit with weight": (admit(action=ProposalAction.READMIT, keys=[]), "proposal"),
    "seats of a member": (admit(action=ProposalAction.SEATS, weight=0, keys=[], seats=4), "proposal"),
    "no seats": (admit(action=ProposalAction.SEATS, member_id=None, weight=0, keys=[]), "proposal"),
    "a proposed key is no point": (admit(keys=[MemberKey(NO_POINT, 7)]), "proposal.keys[0].public_key"),
    "a proposed key twice": (admit(keys=[MemberKey(KEY.public_key, 4), MemberKey(KEY.public_key, 1)]), "proposal.keys"),
    "nobody could govern": (admit(keys=[MemberKey(KEY.public_key, 3)]), "proposal.keys"),
    "no votes, no headers": (Evidence(KEY.public_key, [], []), "evidence"),
    "one vote": (Evidence(KEY.public_key, GOOD["E1"].votes[:1], []), "evidence"),
    "one header": (Evidence(KEY.public_key, [], GOOD["double block"].headers[:1]), "evidence"),
    "votes and headers": (Evidence(KEY.public_key, GOOD["E1"].votes, GOOD["double block"].headers), "evidence"),
    "votes descend": (Evidence(KEY.public_key, GOOD["E1"].votes[::-1], []), "votes"),
    "headers descend": (Evidence(KEY.public_key, [], GOOD["double block"].headers[::-1]), "headers"),
    "the same vote twice": (Evidence(KEY.public_key, GOOD["E1"].votes[:1] * 2, []), "votes"),
    "votes in line": (evidence(vote((0, 0), (5, 1)), vote((5, 1), (6, 1))), "evidence"),
    "from one source upwards": (evidence(vote((0, 0), (5, 1)), vote((0, 0), (6, 1))), "evidence"),
    "headers of two slots": (evidence(header(7, 1), header(8, 1)), "evidence"),
    "accuser is no point": (msgspec.structs.replace(GOOD["E1"], public_key=NO_POINT), "public_key"),
    "another is accused": (evidence(*GOOD["E1"].votes, key=OTHER), "evidence"),
    "another's header": (evidence(*GOOD["double block"].headers, key=OTHER), "evidence"),
    "one vote is another's": (evidence(vote((0, 0), (5, 1)), vote((0, 0), (5, 2), OTHER)), "evidence"),
    "votes of another chain": (
        evidence(vote((0, 0), (5, 1), chain_id=ZERO32), vote((0, 0), (5, 2), chain_id=ZERO32)),
        "evidence",
    ),
    "headers of another chain": (
        evidence(header(7, 1, chain_id=ZERO32), header(7, 2, chain_id=ZERO32)),
        "headers.header.chain_id",
    ),
    "a vote is not signed": (
        evidence(GOOD["E1"].votes[0], msgspec.structs.replace(GOOD["E1"].votes[1], signature=bytes(64))),
        "evidence",
    ),
    "a header is not signed": (
        evidence(header(7, 1), msgspec.structs.replace(header(7, 2), signature=bytes(64))),
        "evidence",
    ),
}


@pytest.mark.parametrize("payload", GOOD.values(), ids=GOOD.keys())
def test_what_is_right_is_read(payload: Any) -> None:
    assert read(payload) == payload


@pytest.mark.parametrize(("payload", "where"), REJECTED.values(), ids=REJECTED.keys())
def test_what_is_wrong_by_itself_is_rejected(payload: Any, where: str) -> None:
    with pytest.raises((InvalidTransaction, FieldError)) as caught:
        read(payload)
    assert caught.value.where == where


@pytest.mark.parametrize("items", [[], [encode(GOOD["approve"])] * 2])
def test_there_is_one_item(items: list[bytes]) -> None:
    with pytest.raises(InvalidTransaction) as caught:
        read_payload(Kind.APPROVE, items, CHAIN_ID)
    assert caught.value.where == "items"


@pytest.mark.parametrize("name", GOOD)
def test_a_second_spelling_is_rejected(name: str) -> None:
    kind = next(kind for kind, made in PAYLOADS.items() if made is type(GOOD[name]))
    data = encode(GOOD[name])
    assert data[0] >> 4 == 9
    longer = b"\xdc\x00" + bytes([data[0] & 15]) + data[1:]
    for wrong in (longer, data + b"\x00", data[:-1]):
        with pytest.raises(EncodingError):
            read_payload(kind, [wrong], CHAIN_ID)
    with pytest.raises(NonCanonicalEncoding):
        read_payload(kind, [longer], CHAIN_ID)


@pytest.mark.parametrize(
    ("kind", "fields", "where"),
    [
        (Kind.KEY, [[]], "changes"),
        (Kind.KEY, [plain(GOOD["sixteen"].changes) + plain(GOOD["revoke"].changes)], "changes"),
        (Kind.KEY, [[[4, None, 0, bytes(20)]]], "changes[0].operation"),
        (Kind.KEY, [[[1, bytes(33), 8, None]]], "changes[0].roles"),
        (Kind.DELEGATE, [[["a", 0]]], "parts[0].weight"),
        (Kind.DELEGATE, [[["A", 1]]], "parts[0].candidate_id"),
        (Kind.DELEGATE, [[[f"c{i:02d}", 1] for i in range(65)]], "parts"),
        (Kind.PROPOSE, [6, "a", 0, [], 0, NOW_MS], "action"),
        (Kind.PROPOSE, [5, None, 0, [], 22, NOW_MS], "seats"),
        (Kind.PROPOSE, [2, "a", 10**9 + 1, [], 0, NOW_MS], "weight"),
        (Kind.APPROVE, [bytes(31)], "proposal_id"),
        (Kind.EVIDENCE, [bytes(33), [plain(GOOD["E1"].votes[0])] * 3, []], "votes"),
    ],
)
def test_bounds(kind: Kind, fields: list[Any], where: str) -> None:
    with pytest.raises(FieldError) as caught:
        read_payload(kind, [msgpack.packb(fields)], CHAIN_ID)
    assert caught.value.where == where


@given(st.data())
def test_random_payloads_are_read_or_refused_never_worse(data: st.DataObject) -> None:
    """No payload crashes the checks, and one that is read encodes to the very bytes that it was read from."""
    kind = data.draw(st.sampled_from(sorted(PAYLOADS)))
    item = encode(data.draw(values_of(PAYLOADS[kind])))
    try:
        payload = read_payload(kind, [item], CHAIN_ID)
    except LedgerError:
        return
    assert encode(payload) == item


@given(st.tuples(*[st.integers(0, 6)] * 4), st.tuples(*[st.integers(0, 6)] * 4))
def test_which_votes_contradict_each_other(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """By the definition, in both orders: one target height, or one around the other."""
    first, second = (
        Vote(s, bytes([tag]) * 32, s + 1 + t, bytes([other]) * 32, bytes(20), bytes(64)) for s, t, tag, other in (a, b)
    )
    is_same = (a[0], a[0] + 1 + a[1], a[2], a[3]) == (b[0], b[0] + 1 + b[1], b[2], b[3])
    around = [(x.s_height < y.s_height and y.t_height < x.t_height) for x, y in ((first, second), (second, first))]
    expected = not is_same and (first.t_height == second.t_height or any(around))
    assert is_vote_fault(first, second) == is_vote_fault(second, first) == expected


# -- in a transaction ----------------------------------------------------------------------------------------------


def sign(payload: Any, kind: Kind, key: PrivateKey = KEY) -> bytes:
    """Return an encoded transaction of member ``alba``."""
    return encode(
        make_transaction(
            [encode(payload)],
            key=key,
            member_id="alba",
            chain_id=CHAIN_ID,
            created_ms=NOW_MS,
            expires_ms=NOW_MS + 1,
            kind=kind,
        )
    )


def check(raw: bytes, standing: KeyStanding = KeyStanding.ACTIVE) -> Any:
    """Check a transaction whose key is known with every role."""
    known = {KEY.key_id: KeyEntry("alba", KEY.public_key, 7, standing)}
    return check_transaction(raw, chain_id=CHAIN_ID, key_of=known.get, rules=NoRules())


@pytest.mark.parametrize("name", GOOD)
def test_the_summary_of_a_transaction_that_governs(name: str) -> None:
    kind = next(kind for kind, made in PAYLOADS.items() if made is type(GOOD[name]))
    checked = check(sign(GOOD[name], kind))
    assert checked.payload == GOOD[name]
    assert (checked.record_count, checked.totals, checked.minutes) == (0, EMPTY_TOTALS, ())


def test_a_key_that_ended_is_judged_by_the_block() -> None:
    assert check(sign(GOOD["withdraw"], Kind.CANDIDATE), KeyStanding.REVOKED).payload == GOOD["withdraw"]


def test_a_key_that_is_not_known_is_ignored() -> None:
    with pytest.raises(UnusableTransaction, match="may not govern"):
        check(sign(GOOD["withdraw"], Kind.CANDIDATE, SUBMIT_KEY))


def test_amend_is_not_in_use() -> None:
    with pytest.raises(InvalidTransaction) as caught:
        check(sign(GOOD["withdraw"], Kind.AMEND))
    assert caught.value.where == "envelope.kind"


def test_roles() -> None:
    assert {kind: Role(role).name for kind, role in ROLES.items()} == {
        Kind.RECORDS: "SUBMIT",
        Kind.KEY: "GOVERN",
        Kind.CANDIDATE: "GOVERN",
        Kind.DELEGATE: "GOVERN",
        Kind.PROPOSE: "GOVERN",
        Kind.APPROVE: "GOVERN",
        Kind.EVIDENCE: "NODE",
    }
    assert ROLES.keys() - PAYLOADS.keys() == {Kind.RECORDS}


def test_the_height_of_a_fault_is_the_higher_one() -> None:
    assert (GOOD["E2"].height, GOOD["double block"].height) == (6, 5)
    assert evidence(header(7, 1), header(7, 2)).height == 5
    assert NODE_KEYS["alba"].key_id != KEY.key_id
