"""What payloads do to the state: every operation, and everything that makes one not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from consensus.election import founding_state
from ledger.block import Vote, vote_digest
from ledger.codec import encode
from ledger.crypto import PrivateKey, key_id_of
from ledger.entries import (
    KeyEntry,
    KeyStanding,
    MemberEntry,
    PendingSet,
    Producer,
    Proposal,
    ProposalAction,
    ProposalEntry,
    StruckEntry,
    VotingEntry,
)
from ledger.errors import UnusableTransaction
from ledger.genesis import KEYS_MAX, MEMBERS_MAX, Candidate, MemberKey, Role
from ledger.governance import (
    KEYS_EVER_MAX,
    PROPOSAL_LIFETIME_MS_MAX,
    PROPOSALS_PER_MEMBER_MAX,
    apply_payload,
    keys_in_office,
)
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
from ledger.state import State, state_changes
from tests.ledger.ledger_samples import CHAIN_ID, GENESIS, NODE_KEYS, NOW_MS, SUBMIT_KEY

STATE = founding_state(GENESIS)
ALBA, BORA, CIMA, DORA = NODE_KEYS.values()
NEW = PrivateKey.from_seed(b"new")
NEWER = PrivateKey.from_seed(b"newer")
HEIGHT = 9
DAY_MS = 86_400_000


def apply(state: State, member: str, payload: Any, *, tx: int = 0, height: int = HEIGHT, now: int = NOW_MS) -> State:
    """Apply a payload of ``member``; its transaction's id ends in ``tx``."""
    return apply_payload(state, payload, member_id=member, tx_id=tx.to_bytes(32), height=height, time_ms=now)


def changes(state: State, member: str, payload: Any, **place: Any) -> dict[Any, Any]:
    """Return the entries that a payload changes."""
    return state_changes(state, apply(state, member, payload, **place))


def refusal(state: State, member: str, payload: Any, **place: Any) -> tuple[str, str]:
    """Return field and words of a payload that does not fit."""
    with pytest.raises(UnusableTransaction) as caught:
        apply(state, member, payload, **place)
    return caught.value.where, caught.value.what


def add(key: PrivateKey = NEW, roles: int = Role.SUBMIT) -> KeyChange:
    return KeyChange(KeyOperation.ADD, key.public_key, roles, None)


def rotate(old: PrivateKey, key: PrivateKey = NEW) -> KeyChange:
    return KeyChange(KeyOperation.ROTATE, key.public_key, 0, old.key_id)


def revoke(old: PrivateKey) -> KeyChange:
    return KeyChange(KeyOperation.REVOKE, None, 0, old.key_id)


def entry(member: str, key: PrivateKey, roles: int, standing: KeyStanding) -> KeyEntry:
    return KeyEntry(member, key.public_key, roles, standing)


def propose(action: ProposalAction, member: str | None = None, **fields: Any) -> Proposal:
    """Return a proposal that is open for a day."""
    return msgspec.structs.replace(Proposal(action, member, 0, [], 0, NOW_MS + DAY_MS), **fields)


def admit(member: str = "edda", *keys: PrivateKey) -> Proposal:
    given = [MemberKey(key.public_key, 7) for key in keys or (NEW,)]
    return propose(ProposalAction.ADMIT, member, weight=50, keys=given)


def carried(state: State, proposal: Proposal, by: tuple[str, ...] = ("alba", "bora", "cima")) -> State:
    """Return the state after a proposal that members propose and approve."""
    state = apply(state, by[0], proposal, tx=77)
    for name in by[1:]:
        state = apply(state, name, Approval((77).to_bytes(32)))
    assert (77).to_bytes(32) not in state.proposals
    return state


def with_govern(state: State, member: str = "alba") -> State:
    """Return the state with a second govern key of a member."""
    return apply(state, member, KeyChanges([add(NEWER, Role.GOVERN)]))


def struck(state: State, member: str = "cima", *, is_out: int = 0) -> State:
    return state.changed({("struck", member): StruckEntry(5, is_out)})


def double_vote(key: PrivateKey, height: int = 7) -> Evidence:
    """Return evidence of two votes for ``height``."""
    votes = []
    for tag in (b"\x01", b"\x02"):
        link = (0, bytes(32), height, tag * 32)
        votes.append(Vote(*link, key.key_id, key.sign(vote_digest(CHAIN_ID, *link))))
    return Evidence(key.public_key, sorted(votes, key=encode), [])


# -- keys ----------------------------------------------------------------------------------------------------------


def test_a_key_is_added() -> None:
    found = changes(STATE, "bora", KeyChanges([add(roles=Role.SUBMIT | Role.GOVERN)]))
    assert found == {("key", NEW.key_id): entry("bora", NEW, 6, KeyStanding.ACTIVE)}


def test_a_key_out_of_office_rotates_and_ends_at_once() -> None:
    assert changes(STATE, "alba", KeyChanges([rotate(SUBMIT_KEY)])) == {
        ("key", SUBMIT_KEY.key_id): entry("alba", SUBMIT_KEY, Role.SUBMIT, KeyStanding.REVOKED),
        ("key", NEW.key_id): entry("alba", NEW, Role.SUBMIT, KeyStanding.ACTIVE),
    }


def test_a_key_in_office_rotates_and_retires_with_its_candidacy_handed_on() -> None:
    roles = Role.NODE | Role.GOVERN
    assert changes(STATE, "bora", KeyChanges([rotate(BORA)])) == {
        ("key", BORA.key_id): entry("bora", BORA, roles, KeyStanding.RETIRING),
        ("key", NEW.key_id): entry("bora", NEW, roles, KeyStanding.ACTIVE),
        ("candidate", "bora"): Candidate(NEW.key_id, "", "DE"),
    }


def test_a_revoked_key_takes_its_candidacy_along() -> None:
    state = with_govern(STATE, "bora")
    assert changes(state, "bora", KeyChanges([revoke(BORA)])) == {
        ("key", BORA.key_id): entry("bora", BORA, 5, KeyStanding.RETIRING),
        ("candidate", "bora"): None,
    }


@pytest.mark.parametrize("place", ["seats", "voting", "pending"])
def test_where_a_key_is_in_office(place: str) -> None:
    here = Producer("alba", SUBMIT_KEY.key_id, SUBMIT_KEY.public_key)
    voting = STATE.voting
    state = {
        "seats": lambda: STATE.changed({("epoch",): msgspec.structs.replace(STATE.epoch, seats=[here])}),
        "voting": lambda: STATE.changed({("voting",): msgspec.structs.replace(voting, producers=[here])}),
        "pending": lambda: STATE.changed({("voting",): VotingEntry(0, voting.producers, PendingSet(3, [here]))}),
    }[place]()
    assert SUBMIT_KEY.key_id in keys_in_office(state)
    ended = apply(state, "alba", KeyChanges([revoke(SUBMIT_KEY)])).keys[SUBMIT_KEY.key_id]
    assert ended.standing is KeyStanding.RETIRING


def test_changes_see_those_before_them() -> None:
    """A govern key is added, then the only one ends; what was added is rotated on."""
    state = apply(STATE, "bora", KeyChanges([add(NEW, Role.GOVERN), revoke(BORA), rotate(NEW, NEWER)]))
    assert state.keys[NEW.key_id].standing is KeyStanding.REVOKED
    assert state.keys[NEWER.key_id] == entry("bora", NEWER, Role.GOVERN, KeyStanding.ACTIVE)
    assert "bora" not in state.candidates


def test_the_candidacy_follows_two_rotations() -> None:
    state = apply(STATE, "bora", KeyChanges([rotate(BORA, NEW), rotate(NEW, NEWER)]))
    assert state.candidates["bora"].key_id == NEWER.key_id


KNOWN = ("changes[0].public_key", "the chain knows this key already")
NOT_OWN = ("changes[0].key_id", "not an active key of this member")


def test_a_key_is_new_to_the_chain_for_ever() -> None:
    assert refusal(STATE, "bora", KeyChanges([add(SUBMIT_KEY)])) == KNOWN
    ended = apply(STATE, "alba", KeyChanges([revoke(SUBMIT_KEY)]))
    assert refusal(ended, "alba", KeyChanges([add(SUBMIT_KEY)])) == KNOWN
    assert refusal(ended, "alba", KeyChanges([rotate(ALBA, SUBMIT_KEY)])) == KNOWN
    twice = KeyChanges([add(NEW), add(NEW)])
    assert refusal(STATE, "bora", twice) == ("changes[1].public_key", KNOWN[1])


def test_a_key_of_an_open_proposal_is_taken_by_nobody() -> None:
    """Or any member could veto an admission by registering the newcomer's key."""
    state = apply(STATE, "alba", admit(), tx=1)
    for payload in (KeyChanges([add(NEW)]), KeyChanges([rotate(CIMA, NEW)])):
        assert refusal(state, "cima", payload) == KNOWN
        with pytest.raises(UnusableTransaction, match="An open proposal would admit a member with it"):
            apply(state, "cima", payload)
    later = NOW_MS + DAY_MS
    assert ("key", NEW.key_id) in changes(state, "cima", KeyChanges([add(NEW)]), now=later)


@pytest.mark.parametrize("change", [revoke, rotate])
def test_only_an_active_key_of_the_member_ends(change: Callable[[PrivateKey], KeyChange]) -> None:
    assert refusal(STATE, "alba", KeyChanges([change(BORA)])) == NOT_OWN
    assert refusal(STATE, "alba", KeyChanges([change(NEWER)])) == NOT_OWN
    for key in (SUBMIT_KEY, ALBA):
        ended = apply(with_govern(STATE), "alba", KeyChanges([revoke(key)]))
        assert refusal(ended, "alba", KeyChanges([change(key)])) == NOT_OWN


def test_a_member_can_always_govern_itself() -> None:
    wanted = ("changes", "this would leave the member without a govern key")
    assert refusal(STATE, "bora", KeyChanges([revoke(BORA)])) == wanted
    assert refusal(STATE, "bora", KeyChanges([add(NEW, 3), revoke(BORA)])) == wanted
    assert apply(STATE, "bora", KeyChanges([revoke(BORA), add(NEW, Role.GOVERN)]))


def many_keys(count: int, standing: KeyStanding) -> dict[Any, Any]:
    return {("key", i.to_bytes(20)): KeyEntry("bora", i.to_bytes(33), 2, standing) for i in range(count)}


def test_how_many_keys_a_member_has() -> None:
    full = STATE.changed(many_keys(KEYS_MAX - 1, KeyStanding.ACTIVE))
    assert refusal(full, "bora", KeyChanges([add()])) == ("changes", "too many active keys")
    assert apply(full, "bora", KeyChanges([rotate(BORA)]))
    assert apply(full, "alba", KeyChanges([add()]))


def test_how_many_keys_a_member_ever_has() -> None:
    full = STATE.changed(many_keys(KEYS_EVER_MAX - 1, KeyStanding.REVOKED))
    assert refusal(full, "bora", KeyChanges([add()])) == ("changes", "too many keys, ended ones included")
    assert apply(full, "alba", KeyChanges([add()]))


# -- candidates and delegations ------------------------------------------------------------------------------------


def test_standing_and_withdrawing() -> None:
    there = Candidate(CIMA.key_id, "wss://c.example:1", "FR")
    assert changes(STATE, "cima", CandidateChange(there)) == {("candidate", "cima"): there}
    assert changes(STATE, "cima", CandidateChange(None)) == {("candidate", "cima"): None}


def test_delegations_wait_for_a_candidate_that_withdrew() -> None:
    state = apply(STATE, "cima", CandidateChange(None))
    assert state.delegations["cima", "cima"] == 100


def test_who_may_not_stand_or_withdraw() -> None:
    gone = apply(STATE, "cima", CandidateChange(None))
    assert refusal(gone, "cima", CandidateChange(None)) == ("candidate", "the member does not stand")
    here = CandidateChange(STATE.candidates["cima"])
    assert refusal(struck(STATE), "cima", here) == ("candidate", "the member was struck")
    wrong = ("candidate.key_id", "not a node key of this member")
    for key in (SUBMIT_KEY, BORA, NEW):
        assert refusal(STATE, "alba", CandidateChange(Candidate(key.key_id, "", ""))) == wrong
    retiring = apply(with_govern(STATE), "alba", KeyChanges([revoke(ALBA)]))
    assert refusal(retiring, "alba", CandidateChange(Candidate(ALBA.key_id, "", ""))) == wrong


def test_delegations_take_the_place_of_those_before() -> None:
    parts = Delegations([DelegationPart("bora", 60), DelegationPart("dora", 40)])
    assert changes(STATE, "alba", parts) == {
        ("delegation", "alba", "alba"): None,
        ("delegation", "alba", "bora"): 60,
        ("delegation", "alba", "dora"): 40,
    }
    assert changes(STATE, "alba", Delegations([])) == {("delegation", "alba", "alba"): None}


def test_what_may_not_be_delegated() -> None:
    too_much = Delegations([DelegationPart("bora", 60), DelegationPart("dora", 41)])
    assert refusal(STATE, "alba", too_much) == ("parts", "more than the member's weight")
    nobody = ("parts.candidate_id", "no candidate")
    assert refusal(STATE, "alba", Delegations([DelegationPart("edda", 1)])) == nobody
    gone = apply(STATE, "cima", CandidateChange(None))
    for state in (gone, struck(STATE)):
        assert refusal(state, "alba", Delegations([DelegationPart("cima", 1)])) == nobody


# -- proposals -----------------------------------------------------------------------------------------------------


def test_a_proposal_is_open_until_two_thirds_of_the_weight_approve() -> None:
    proposal = propose(ProposalAction.SEATS, seats=3)
    first = apply(STATE, "cima", proposal, tx=1)
    assert state_changes(STATE, first) == {("proposal", (1).to_bytes(32)): ProposalEntry("cima", proposal, ["cima"])}
    second = apply(first, "alba", Approval((1).to_bytes(32)))
    assert second.proposals[(1).to_bytes(32)].approvals == ["alba", "cima"]
    third = apply(second, "bora", Approval((1).to_bytes(32)))
    assert state_changes(second, third) == {
        ("proposal", (1).to_bytes(32)): None,
        ("parameters",): msgspec.structs.replace(GENESIS.parameters, producer_count=3),
    }


@pytest.mark.parametrize(("weight", "is_enough"), [(199, False), (200, True)])
def test_exactly_two_thirds_are_enough(weight: int, is_enough: bool) -> None:
    """200 of 300: the others have 100."""
    members = {("member", name): MemberEntry(w) for name, w in (("alba", weight), ("bora", 50), ("cima", 50))}
    total = STATE.changed({**members, ("member", "dora"): MemberEntry(300 - weight - 100)})
    after = apply(total, "alba", propose(ProposalAction.SEATS, seats=3), tx=1)
    assert (after.parameters.producer_count == 3) == is_enough


def test_when_a_proposal_is_open() -> None:
    proposal = propose(ProposalAction.SEATS, seats=3)
    wrong = ("expires_ms", "expired, or open for too long")
    for expires_ms in (NOW_MS, NOW_MS + PROPOSAL_LIFETIME_MS_MAX + 1):
        assert refusal(STATE, "alba", msgspec.structs.replace(proposal, expires_ms=expires_ms)) == wrong
    for expires_ms in (NOW_MS + 1, NOW_MS + PROPOSAL_LIFETIME_MS_MAX):
        assert apply(STATE, "alba", msgspec.structs.replace(proposal, expires_ms=expires_ms)).proposals
    state = apply(STATE, "alba", proposal, tx=1)
    closed = ("proposal_id", "no open proposal")
    assert refusal(state, "bora", Approval((1).to_bytes(32)), now=NOW_MS + DAY_MS) == closed
    assert refusal(state, "bora", Approval(bytes(32))) == closed
    assert refusal(state, "alba", Approval((1).to_bytes(32))) == ("proposal_id", "approved already")


def test_open_proposals_of_one_member_are_few_and_nobody_elses_business() -> None:
    state = STATE
    for tx in range(PROPOSALS_PER_MEMBER_MAX):
        state = apply(state, "alba", propose(ProposalAction.SEATS, seats=3), tx=tx)
    again = propose(ProposalAction.SEATS, seats=3)
    assert refusal(state, "alba", again, tx=99) == ("proposals", "too many proposals of this member are open")
    assert apply(state, "bora", again, tx=99)
    later = NOW_MS + DAY_MS
    fresh = propose(ProposalAction.SEATS, seats=3, expires_ms=later + 1)
    assert list(apply(state, "alba", fresh, tx=99, now=later).proposals) == [(99).to_bytes(32)]


def test_a_member_is_admitted() -> None:
    assert state_changes(STATE, carried(STATE, admit("edda", NEW, NEWER))) == {
        ("member", "edda"): MemberEntry(50, HEIGHT),
        ("key", NEW.key_id): entry("edda", NEW, 7, KeyStanding.ACTIVE),
        ("key", NEWER.key_id): entry("edda", NEWER, 7, KeyStanding.ACTIVE),
    }


def test_who_cannot_be_admitted() -> None:
    assert refusal(STATE, "alba", admit("bora")) == ("proposal.member_id", "a member already")
    known = ("proposal.keys[1].public_key", "the chain knows this key already")
    assert refusal(STATE, "alba", admit("edda", NEW, SUBMIT_KEY)) == known
    full = STATE.changed({("member", f"m{i}"): MemberEntry(0) for i in range(MEMBERS_MAX - 4)})
    assert refusal(full, "alba", admit()) == ("proposal.member_id", "too many members")


def test_a_proposal_that_no_longer_fits_stays_open() -> None:
    """Two propose the same; the second cannot be carried out any more."""
    state = apply(STATE, "alba", admit(), tx=1)
    state = carried(state, admit())
    state = apply(state, "bora", Approval((1).to_bytes(32)))
    # The newcomer's 50 of 450 count too: three of the old members are still enough.
    assert refusal(state, "cima", Approval((1).to_bytes(32)))[1] == "a member already"
    assert state.proposals[(1).to_bytes(32)].approvals == ["alba", "bora"]


def test_another_weight_keeps_what_it_covers_of_the_delegations() -> None:
    parts = Delegations([DelegationPart("alba", 10), DelegationPart("bora", 60), DelegationPart("cima", 30)])
    state = apply(STATE, "dora", parts)
    less = carried(state, propose(ProposalAction.REWEIGH, "dora", weight=40))
    assert state_changes(state, less) == {
        ("member", "dora"): MemberEntry(40),
        ("delegation", "dora", "bora"): 30,
        ("delegation", "dora", "cima"): None,
    }
    more = carried(state, propose(ProposalAction.REWEIGH, "dora", weight=400))
    assert state_changes(state, more) == {("member", "dora"): MemberEntry(400)}


def test_a_member_is_removed_with_all_it_has() -> None:
    state = apply(struck(STATE, "alba"), "bora", Delegations([DelegationPart("cima", 60), DelegationPart("dora", 40)]))
    state = apply(state, "dora", propose(ProposalAction.SEATS, seats=3), tx=1)
    state = apply(state, "alba", Approval((1).to_bytes(32)))
    assert state_changes(state, carried(state, propose(ProposalAction.REMOVE, "alba"), ("bora", "cima", "dora"))) == {
        ("member", "alba"): None,
        ("candidate", "alba"): None,
        ("struck", "alba"): None,
        ("delegation", "alba", "alba"): None,
        ("key", SUBMIT_KEY.key_id): entry("alba", SUBMIT_KEY, Role.SUBMIT, KeyStanding.REVOKED),
        ("key", ALBA.key_id): entry("alba", ALBA, 5, KeyStanding.RETIRING),
        ("proposal", (1).to_bytes(32)): ProposalEntry("dora", propose(ProposalAction.SEATS, seats=3), ["dora"]),
    }
    without = carried(state, propose(ProposalAction.REMOVE, "dora"))
    assert {pair for pair in state.delegations if "dora" in pair} == {("bora", "dora"), ("dora", "dora")}
    assert not any("dora" in pair for pair in without.delegations)


def test_who_was_removed_has_no_say_and_comes_back_without_its_past() -> None:
    removed = carried(STATE, propose(ProposalAction.REMOVE, "dora"))
    assert refusal(removed, "dora", CandidateChange(None)) == ("envelope.member_id", "no member")
    back = carried(removed, admit("dora"), ("alba", "bora"))
    assert back.members["dora"] == MemberEntry(50, HEIGHT)
    assert back.key_with_role(DORA.key_id, Role.NODE) is None
    # Faults proven before it came back are settled, and its old key stays its own.
    assert refusal(back, "alba", double_vote(DORA, HEIGHT))[1] == "settled: the member was readmitted since"
    assert apply(back, "alba", double_vote(DORA, HEIGHT + 1)).struck == {"dora": StruckEntry(HEIGHT, 0)}


def test_the_last_member_stays() -> None:
    alone = STATE.changed({("member", name): None for name in ("bora", "cima", "dora")})
    proposal = propose(ProposalAction.REMOVE, "alba")
    assert refusal(alone, "alba", proposal) == ("proposal.member_id", "the last member cannot be removed")


@pytest.mark.parametrize("action", [ProposalAction.REWEIGH, ProposalAction.REMOVE, ProposalAction.READMIT])
def test_only_members_are_decided_about(action: ProposalAction) -> None:
    assert refusal(STATE, "alba", propose(action, "edda", weight=1)) == ("proposal.member_id", "no member")


def test_a_struck_member_is_readmitted_and_stands_by_itself() -> None:
    state = struck(STATE).changed({("candidate", "cima"): None})
    readmitted = carried(state, propose(ProposalAction.READMIT, "cima"))
    assert state_changes(state, readmitted) == {
        ("struck", "cima"): None,
        ("member", "cima"): MemberEntry(100, HEIGHT),
    }
    assert apply(readmitted, "cima", CandidateChange(STATE.candidates["cima"]))


def test_who_was_not_struck_is_not_readmitted() -> None:
    proposal = propose(ProposalAction.READMIT, "cima")
    assert refusal(STATE, "alba", proposal) == ("proposal.member_id", "the member was not struck")


def test_a_struck_member_still_has_its_say() -> None:
    assert carried(struck(STATE), propose(ProposalAction.SEATS, seats=3), ("alba", "bora", "cima"))


# -- evidence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accuser", ["alba", "cima"])
def test_evidence_strikes(accuser: str) -> None:
    assert changes(STATE, accuser, double_vote(CIMA)) == {("struck", "cima"): StruckEntry(HEIGHT, 0)}


def test_evidence_strikes_by_any_key_of_the_member_that_has_not_ended() -> None:
    rotated = apply(STATE, "cima", KeyChanges([rotate(CIMA)]))
    for key in (CIMA, NEW):
        assert apply(rotated, "alba", double_vote(key)).struck == {"cima": StruckEntry(HEIGHT, 0)}


def test_evidence_by_a_key_that_has_ended_strikes_nobody() -> None:
    """A thief of a key given up long ago could have its member struck for ever, however often it is readmitted."""
    key_id = key_id_of(CIMA.public_key)
    ended = STATE.changed({("key", key_id): msgspec.structs.replace(STATE.keys[key_id], standing=KeyStanding.REVOKED)})
    assert refusal(ended, "alba", double_vote(CIMA)) == ("public_key", "the key accused has ended")
    retiring = KeyStanding.RETIRING
    ending = STATE.changed({("key", key_id): msgspec.structs.replace(STATE.keys[key_id], standing=retiring)})
    assert apply(ending, "alba", double_vote(CIMA)).struck == {"cima": StruckEntry(HEIGHT, 0)}


def test_evidence_that_does_not_fit() -> None:
    nobody = ("public_key", "the key accused is no member's")
    assert refusal(STATE, "alba", double_vote(NEW)) == nobody
    removed = carried(STATE, propose(ProposalAction.REMOVE, "dora"))
    assert refusal(removed, "alba", double_vote(DORA)) == nobody
    assert refusal(struck(STATE), "alba", double_vote(CIMA)) == ("public_key", "struck already")
    cleared = STATE.changed({("member", "cima"): MemberEntry(100, 7)})
    assert refusal(cleared, "alba", double_vote(CIMA, 7))[0] == "evidence"
    assert apply(cleared, "alba", double_vote(CIMA, 8)).struck


def test_whoever_is_no_member_changes_nothing() -> None:
    for payload in (KeyChanges([add()]), Delegations([]), admit(), Approval(bytes(32)), double_vote(CIMA)):
        assert refusal(STATE, "edda", payload) == ("envelope.member_id", "no member")


def test_what_does_not_fit_changes_nothing() -> None:
    before = STATE.tree.root
    refusal(STATE, "alba", KeyChanges([add(), revoke(BORA)]))
    assert STATE.tree.root == before
    assert key_id_of(NEW.public_key) not in STATE.keys
