"""Both verifiers at bounds that chance seldom meets: too many of something, too large, or already done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from ledger.block import Vote, vote_digest
from ledger.cdr import CallRecord
from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.entries import Proposal, ProposalAction
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
)
from ledger.transaction import Kind
from tests.audit.agreement import audited, referred
from tests.audit.chains import FIVE, GOVERN_KEYS, NODE_KEYS, SUBMIT_KEYS, double_vote, make_payload, make_record
from tests.audit.differential import remembering
from tests.audit.worlds import Deed, World, calls_of, double_block, sign_items, world

ADD, ROTATE, REVOKE = KeyOperation.ADD, KeyOperation.ROTATE, KeyOperation.REVOKE
H = 3


@pytest.fixture(scope="module", autouse=True)
def remembered() -> Iterator[None]:
    with remembering():
        yield


def now_ms(w: World, height: int) -> int:
    return w.genesis.genesis_time_ms + w.parts.header(height).slot * w.genesis.parameters.slot_ms


def verdict_on(w: World, height: int, raws: Sequence[bytes]) -> tuple[str, int, str]:
    """Return the one verdict on a chain that ends with a block of these transactions."""
    data = w.finish(height, *w.remake(height, raws)).to_export()
    (mine, sentence), (other, other_sentence) = audited(data, w.genesis, w.rules), referred(data, w.genesis)
    assert mine == other
    assert mine[0] != "ok" or sentence == other_sentence
    return mine


def key(number: int) -> PrivateKey:
    return PrivateKey.from_seed(f"one of many: {number}".encode())


def added(number: int, roles: int = 2) -> KeyChange:
    return KeyChange(ADD, key(number).public_key, roles, None)


def proposed(action: ProposalAction, member_id: str | None = None, weight: int = 0, seats: int = 0) -> Proposal:
    keys = [MemberKey(key(0).public_key, 4)] if action is ProposalAction.ADMIT else []
    return Proposal(action, member_id, weight, keys, seats, 1_790_000_100_000)


def vote(member: str, chain_id: bytes, source: int, target: int) -> Vote:
    link = (source, bytes([source]) * 32, target, bytes([target]) * 32)
    return Vote(*link, NODE_KEYS[member].key_id, NODE_KEYS[member].sign(vote_digest(chain_id, *link)))


def surrounding(w: World) -> Evidence:
    votes = [vote("echo", chain_id_of(w.genesis), *link) for link in ((1, 9), (2, 8))]
    return Evidence(NODE_KEYS["echo"].public_key, sorted(votes, key=encode), [])


def alfa(kind: Kind, *payloads: object) -> list[Deed]:
    return [("alfa", kind, payload) for payload in payloads]  # type: ignore[misc]


Deeds = Callable[[World], list[Deed]]
OK = ("ok", "")
ADMIT, REWEIGH, REMOVE = ProposalAction.ADMIT, ProposalAction.REWEIGH, ProposalAction.REMOVE
READMIT, SEATS = ProposalAction.READMIT, ProposalAction.SEATS
CASES: dict[str, tuple[Deeds, tuple[str, str]]] = {
    "eight payloads of a member": (
        lambda _w: alfa(Kind.KEY, *(KeyChanges([added(n)]) for n in range(8))),
        OK,
    ),
    "nine payloads of a member": (
        lambda _w: alfa(Kind.KEY, *(KeyChanges([added(n)]) for n in range(9))),
        ("not ok", "body[8]"),
    ),
    "as many keys as a member may have": (
        lambda _w: alfa(
            Kind.KEY, *(KeyChanges([added(16 * t + n) for n in range(16)][: 61 - 16 * t]) for t in range(4))
        ),
        OK,
    ),
    "one key too many": (
        lambda _w: alfa(
            Kind.KEY, *(KeyChanges([added(16 * t + n) for n in range(16)][: 62 - 16 * t]) for t in range(4))
        ),
        ("not ok", "body[3].changes"),
    ),
    "seventeen changes at once": (
        lambda _w: alfa(Kind.KEY, KeyChanges([added(n) for n in range(17)])),
        ("not ok", "transactions[0].changes"),
    ),
    "a key added twice": (
        lambda _w: alfa(Kind.KEY, KeyChanges([added(1), added(1)])),
        ("not ok", "body[0].changes[1].public_key"),
    ),
    "the last key to govern with": (
        lambda _w: alfa(Kind.KEY, KeyChanges([KeyChange(REVOKE, None, 0, GOVERN_KEYS["alfa"].key_id)])),
        ("not ok", "body[0].changes"),
    ),
    "a key rotated into itself": (
        lambda _w: alfa(
            Kind.KEY, KeyChanges([KeyChange(ROTATE, SUBMIT_KEYS["alfa"].public_key, 0, SUBMIT_KEYS["alfa"].key_id)])
        ),
        ("not ok", "body[0].changes[0].public_key"),
    ),
    "a key of somebody else": (
        lambda _w: alfa(Kind.KEY, KeyChanges([KeyChange(REVOKE, None, 0, SUBMIT_KEYS["bravo"].key_id)])),
        ("not ok", "body[0].changes[0].key_id"),
    ),
    "a candidate that withdraws": (
        lambda _w: [("alfa", Kind.KEY, KeyChanges([added(0)])), ("alfa", Kind.CANDIDATE, CandidateChange(None))],
        OK,
    ),
    "a candidate with a key to submit": (
        lambda _w: alfa(Kind.CANDIDATE, CandidateChange(Candidate(SUBMIT_KEYS["alfa"].key_id, "", ""))),
        ("not ok", "body[0].candidate.key_id"),
    ),
    "all that a member has delegated": (
        lambda _w: alfa(Kind.DELEGATE, Delegations([DelegationPart("alfa", 60), DelegationPart("bravo", 40)])),
        OK,
    ),
    "more than a member has delegated": (
        lambda _w: alfa(Kind.DELEGATE, Delegations([DelegationPart("alfa", 60), DelegationPart("bravo", 41)])),
        ("not ok", "body[0].parts"),
    ),
    "delegations out of order": (
        lambda _w: alfa(Kind.DELEGATE, Delegations([DelegationPart("bravo", 1), DelegationPart("alfa", 1)])),
        ("not ok", "transactions[0].parts.candidate_id"),
    ),
    "as many open proposals as a member may have": (
        # One was made in the block before.
        lambda _w: alfa(Kind.PROPOSE, *(proposed(SEATS, seats=n) for n in range(1, 8))),
        OK,
    ),
    "one open proposal too many": (
        lambda _w: alfa(Kind.PROPOSE, *(proposed(SEATS, seats=n) for n in range(1, 9))),
        ("not ok", "body[7].proposals"),
    ),
    "a proposal to remove who is none": (
        lambda _w: alfa(Kind.PROPOSE, proposed(REMOVE, "foxtrot")),
        ("not ok", "body[0].proposal.member_id"),
    ),
    "a proposal to readmit who is in": (
        lambda _w: alfa(Kind.PROPOSE, proposed(READMIT, "bravo")),
        ("not ok", "body[0].proposal.member_id"),
    ),
    "a proposal to admit who is in": (
        lambda _w: alfa(Kind.PROPOSE, proposed(ADMIT, "bravo", 1)),
        ("not ok", "body[0].proposal.member_id"),
    ),
    "a proposal without what it is about": (
        lambda _w: alfa(Kind.PROPOSE, proposed(REWEIGH, "bravo")),
        ("not ok", "transactions[0].proposal"),
    ),
    "an approval of nothing": (
        lambda _w: alfa(Kind.APPROVE, Approval(bytes(32))),
        ("not ok", "body[0].proposal_id"),
    ),
    "evidence of two votes for one height": (
        lambda w: alfa(Kind.EVIDENCE, double_vote(w.genesis, "echo", height=2)),
        OK,
    ),
    "evidence of a vote around another": (lambda w: alfa(Kind.EVIDENCE, surrounding(w)), OK),
    "evidence of two blocks in a slot": (
        lambda w: alfa(Kind.EVIDENCE, double_block(w.genesis, "echo", height=2, slots=(2, 2))),
        OK,
    ),
    "evidence of two blocks in two slots": (
        lambda w: alfa(Kind.EVIDENCE, double_block(w.genesis, "echo", height=2, slots=(2, 3))),
        ("not ok", "transactions[0].evidence"),
    ),
    "evidence against who is struck": (
        lambda w: alfa(Kind.EVIDENCE, double_vote(w.genesis, "echo", height=2), surrounding(w)),
        ("not ok", "body[1].public_key"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_members_do(name: str) -> None:
    deeds, expected = CASES[name]
    w = world("governed")
    raws = [make_payload(w.genesis, kind, payload, now_ms=now_ms(w, H), member=who) for who, kind, payload in deeds(w)]
    verdict, height, where = verdict_on(w, H, raws)
    assert (verdict, height, where) == (expected[0], H, expected[1])


def test_who_is_left_alone() -> None:
    w = world("alone")
    raw = make_payload(w.genesis, Kind.PROPOSE, proposed(REMOVE, "alfa"), now_ms=now_ms(w, 2), member="alfa")
    assert verdict_on(w, 2, [raw]) == ("not ok", 2, "body[0].proposal.member_id")


def test_as_many_payloads_as_five_members_may_have() -> None:
    """Eight of each of five members: each has as many as it may."""
    w = world("governed")
    raws = [
        make_payload(w.genesis, Kind.KEY, KeyChanges([added(10 * m + n)]), now_ms=now_ms(w, H), member=who)
        for m, who in enumerate(FIVE)
        for n in range(8)
    ]
    assert verdict_on(w, H, raws) == ("ok", H, "")


def records_of(w: World, count: int) -> list[bytes]:
    return [encode(make_record(call, end_ms=now_ms(w, H) - 1_000)) for call in range(5_000, 5_000 + count)]


@pytest.mark.parametrize(("sizes", "expected"), [([4], "body[0]"), ([2, 2], "body[1]"), ([3], "")])
def test_more_records_than_a_member_may_have(sizes: list[int], expected: str) -> None:
    """Three records of a member in blocks of five, in one transaction or in two."""
    w = world("tight")
    items = iter(records_of(w, sum(sizes)))
    raws = [sign_items(w.genesis, [next(items) for _ in range(size)], now_ms(w, H)) for size in sizes]
    assert verdict_on(w, H, raws) == ("not ok" if expected else "ok", H, expected)


def test_a_transaction_that_is_too_large() -> None:
    w = world("plain")
    # Items may be longer than any record is: the bound of the whole is met first.
    raw = sign_items(w.genesis, [bytes(1_000)] * 530, now_ms(w, H))
    assert verdict_on(w, H, [raw]) == ("not ok", H, "transactions[0].transaction")


def test_a_thousand_records_and_one_more() -> None:
    w = world("plain")
    assert verdict_on(w, H, [calls_of(w.genesis, range(9_000, 9_300), now_ms(w, H))]) == ("ok", H, "")
    items = [encode(make_record(call, end_ms=now_ms(w, H) - 1_000)) for call in range(5_000, 6_001)]
    raw = sign_items(w.genesis, items[:1_000], now_ms(w, H)).replace(b"\xdc\x03\xe8", b"\xdc\x03\xe9") + (
        b"\xc5" + len(items[-1]).to_bytes(2) + items[-1]
    )
    assert verdict_on(w, H, [raw])[2].startswith("transactions[0].items")


@pytest.mark.parametrize(
    ("rule_at", "bounds_at", "expected"), [(100, 290, "items[290].sip_code"), (290, 100, "items[100].sip_code")]
)
def test_what_is_out_of_bounds_comes_before_what_breaks_a_rule(rule_at: int, bounds_at: int, expected: str) -> None:
    """Of all records of a transaction, however far apart they are."""
    w = world("plain")
    items = [encode(make_record(call, end_ms=now_ms(w, H) - 1_000)) for call in range(5_000, 5_300)]
    bad = make_record(1, end_ms=now_ms(w, H))
    items[rule_at] = encode(
        CallRecord(*[0 if name == "end_ms" else getattr(bad, name) for name in bad.__struct_fields__])
    )
    items[bounds_at] = encode(bad).replace(b"\xcc\xc8", b"\xcd\x02\xbc", 1)
    assert verdict_on(w, H, [sign_items(w.genesis, items, now_ms(w, H))]) == (
        "not ok",
        H,
        f"transactions[0].{expected}",
    )
