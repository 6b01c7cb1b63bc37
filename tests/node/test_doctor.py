"""What the doctor says: every finding, both ways, from answers that no node had to give."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as changed
from typer.testing import CliRunner

from ledger.block import EMPTY_TOTALS, Certificate, CertificatePart, Header, SealedHeader
from ledger.errors import EncodingError
from node.cli.doctor import line_of, summary_of
from node.cli.ledgerctl import app
from node.doctor import gathering
from node.doctor.answers import (
    AgentAnswers,
    Clock,
    Conflict,
    DiskAnswer,
    Gathered,
    HealthAnswer,
    KeyAnswer,
    KeysAnswer,
    NoAnswer,
    NodeAnswers,
    PeerAnswer,
    PeersAnswer,
    PendingAnswer,
    Point,
    ProducersAnswer,
    Proof,
    ProposalAnswer,
    ProposalsAnswer,
    ProposalText,
    RecentBlocks,
    SeatAnswer,
    SigningAnswer,
    StatusAnswer,
    StruckAnswer,
    SyncAnswer,
    VoterAnswer,
    VotingAnswer,
    read_answer,
    read_json,
    recent_of,
)
from node.doctor.examine import examine
from node.doctor.findings import CHECKS, Finding, Level, lasting, size, some, worst

NAMES = ("alpha", "beta", "gamma", "delta")
HEIGHT, NOW_MS, GIB = 1_000, 1_795_250_000_000, 1 << 30
DAY = 86_400_000
CHAIN = "ab" * 32
STATUS = StatusAnswer(
    version="0.1.0",
    chain_id=CHAIN,
    chain_name="settlement",
    member_id="alpha",
    is_producer=True,
    sync=SyncAnswer("in-step", 0, HEIGHT + 1),
    head=Point(HEIGHT + 1, "11" * 32, 5_001),
    final=Point(HEIGHT, "22" * 32, 5_000),
    final_age_ms=2_100,
    peers=3,
    pool_records=12,
    is_disk_full=False,
    clock_skew_ms=2,
    signing=SigningAnswer("clear", "", "", None),
    now_ms=NOW_MS,
    rule_set="cd" * 32,
    disk=DiskAnswer(50 * GIB, GIB, GIB, 4 * 3_600_000),
)
PRODUCERS = ProducersAnswer(
    quorum=3,
    faults_tolerated=1,
    producers=[SeatAnswer(name, 100, 1) for name in NAMES],
    voting=VotingAnswer(2, [VoterAnswer(name, f"{i:040x}", HEIGHT + 1) for i, name in enumerate(NAMES)]),
    pending=None,
    struck=[],
)


def node(name: str, **changes: Any) -> NodeAnswers:
    """Return the answers of a node that is well; ``status`` names fields of its status that differ."""
    status = changed(STATUS, member_id=name, **changes.pop("status", {}))
    peers = PeersAnswer(
        [PeerAnswer(other, "ledgerd/0.1.0", is_open_plaintext=False) for other in NAMES if other != name]
    )
    answers = NodeAnswers(
        url=f"http://{name}:8080",
        asked_ms=NOW_MS,
        clock=Clock(0, 5),
        status=status,
        producers=PRODUCERS,
        peers=peers,
        proposals=ProposalsAnswer([]),
        keys=KeysAnswer([]),
        recent=RecentBlocks(128, 10_000, {}),
    )
    return replace(answers, **changes)


def four(**of_delta: Any) -> list[NodeAnswers]:
    """Return four nodes, the last of which differs."""
    return [*map(node, NAMES[:3]), node("delta", **of_delta)]


def told(gathered: Gathered) -> list[Finding]:
    """Return what is said that is not well."""
    return [each for each in examine(gathered) if each.level is not Level.OK]


def said(gathered: Gathered) -> list[tuple[Level, str, str]]:
    """Return level, check and whom it is about of what is not well."""
    return [(each.level, each.check, each.about.partition(" ")[0]) for each in told(gathered)]


def producers(**changes: Any) -> ProducersAnswer:
    return changed(PRODUCERS, **changes)


def votes_of(**heights: int | None) -> ProducersAnswer:
    """Return the producers with other last votes."""
    voters = [changed(v, last_vote_height=heights.get(v.member_id, HEIGHT + 1)) for v in PRODUCERS.voting.producers]
    return producers(voting=VotingAnswer(2, voters))


def everywhere(answer: ProducersAnswer) -> list[NodeAnswers]:
    return [node(name, producers=answer) for name in NAMES]


# -- all is well -----------------------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_four_that_are_well() -> None:
    findings = examine(Gathered([node(name, proof=Proof(HEIGHT)) for name in NAMES], chain_id=CHAIN))
    assert [each for each in findings if each.level is not Level.OK or each.todo] == []
    assert {each.check for each in findings} == set(CHECKS) - {"agent"}
    assert [each.check for each in findings] == sorted((each.check for each in findings), key=list(CHECKS).index)


def test_what_is_not_well_says_what_to_do() -> None:
    findings = told(Gathered(four(status={"is_disk_full": True}), silent=[NoAnswer("http://x", "silence", "start it")]))
    assert findings
    assert [each for each in findings if not each.todo] == []


def test_without_any_answer_only_that_is_said() -> None:
    found = examine(Gathered([], silent=[NoAnswer("http://x:1", "the node does not answer", "start it")]))
    assert found == [Finding(Level.BAD, "answer", "http://x:1", "the node does not answer", "start it")]


# -- each by itself --------------------------------------------------------------------------------------------------

OFF = SigningAnswer("clock-off", "its clock is off", "its clock to be right", None)
CASES: dict[str, tuple[dict[str, Any], list[tuple[Level, str, str]]]] = {
    "syncing": ({"status": {"sync": SyncAnswer("syncing", 7, 9)}}, [(Level.WARN, "sync", "delta")]),
    "joining": ({"status": {"sync": SyncAnswer("joining", 0, 9)}}, [(Level.WARN, "sync", "delta")]),
    "alone": ({"status": {"sync": SyncAnswer("alone", 0, 9)}}, [(Level.BAD, "sync", "delta")]),
    "stalled": ({"status": {"sync": SyncAnswer("stalled", 0, 9)}}, [(Level.BAD, "sync", "delta")]),
    "behind, and says in step": ({"status": {"final": Point(990, "33" * 32, 4_990)}}, [(Level.BAD, "sync", "delta")]),
    "a little behind": ({"status": {"final": Point(HEIGHT - 3, "33" * 32, 4_990)}}, []),
    "asked ten seconds before": (
        {"status": {"final": Point(HEIGHT - 12, "33" * 32, 4_988)}, "asked_ms": NOW_MS - 10_000},
        [],
    ),
    "a lie": ({"proof": Proof(0, lie="not a quorum")}, [(Level.BAD, "proof", "delta")]),
    "no proof": ({"proof": Proof(0, silence="timed out")}, [(Level.WARN, "proof", "delta")]),
    "proves less than it says": ({"proof": Proof(HEIGHT - 4)}, [(Level.BAD, "proof", "delta")]),
    "proves nearly all": ({"proof": Proof(HEIGHT - 3)}, []),
    "asking": ({"status": {"signing": SigningAnswer("asking", "just started", "peers", None)}},
               [(Level.WARN, "signing", "delta")]),
    "new": ({"status": {"signing": SigningAnswer("new", "new", "a block", None)}}, [(Level.WARN, "signing", "delta")]),
    "lost": ({"status": {"signing": SigningAnswer("lost", "no record", "slot 9", NOW_MS + 90_000)}},
             [(Level.BAD, "signing", "delta")]),
    "old": ({"status": {"signing": SigningAnswer("old", "older", "slot", 0)}}, [(Level.BAD, "signing", "delta")]),
    "clock-off": ({"status": {"signing": OFF}}, [(Level.BAD, "signing", "delta")]),
    "an observer need not sign": ({"status": {"signing": OFF, "is_producer": False}}, []),
    "full": ({"status": {"is_disk_full": True}}, [(Level.BAD, "disk", "delta")]),
    "days left: 2": ({"status": {"disk": DiskAnswer(3 * GIB - 1, GIB, GIB, DAY)}}, [(Level.BAD, "disk", "delta")]),
    "days left: 3": ({"status": {"disk": DiskAnswer(3 * GIB, GIB, GIB, DAY)}}, [(Level.WARN, "disk", "delta")]),
    "days left: 14": ({"status": {"disk": DiskAnswer(14 * GIB, GIB, GIB, DAY)}}, []),
    "little room": ({"status": {"disk": DiskAnswer(GIB, GIB, 0, DAY)}}, [(Level.WARN, "disk", "delta")]),
    "hardly any room": ({"status": {"disk": DiskAnswer(GIB // 8, GIB, -5, DAY)}}, [(Level.BAD, "disk", "delta")]),
    "growth by records": (
        # 10,000 records in 128 s are 1.6 GiB a day.
        {"status": {"disk": DiskAnswer(5 * GIB, GIB, None, 0)}}, [(Level.WARN, "disk", "delta")]),
    "too few blocks to tell": (
        {"status": {"disk": DiskAnswer(5 * GIB, GIB, None, 0)}, "recent": RecentBlocks(59, 10_000, {})}, []),
    "nobody measures": ({"status": {"disk": None}}, []),
    "clock ahead by 0.3 of a slot": ({"clock": Clock(300, 5)}, [(Level.WARN, "clock", "delta")]),
    "clock behind by 0.6 of a slot": ({"clock": Clock(-600, 5)}, [(Level.BAD, "clock", "delta")]),
    "clock off within the way there": ({"clock": Clock(300, 60)}, []),
    "its peers say that it is behind": ({"status": {"clock_skew_ms": 600}}, [(Level.BAD, "clock", "delta")]),
    "without TLS": (
        {"peers": PeersAnswer([PeerAnswer(n, "ledgerd/0.1.0", is_open_plaintext=n == "beta") for n in NAMES[:3]])},
        [(Level.WARN, "peers", "delta")],
    ),
    "another version": ({"status": {"version": "0.2.0"}}, [(Level.WARN, "versions", "all")]),
    "other rules": ({"status": {"rule_set": "ee" * 32}}, [(Level.BAD, "versions", "all")]),
    "another chain": ({"status": {"chain_id": "ef" * 32}}, [(Level.BAD, "chain", "all")]),
    "an unanswered question": ({"unanswered": {"/v1/keys": "HTTP 500"}}, [(Level.WARN, "answer", "delta")]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_of_one_node(name: str) -> None:
    changes, expected = CASES[name]
    assert said(Gathered(four(**changes))) == expected


def test_the_states_that_nodes_tell_have_their_advice() -> None:
    from node.doctor.nodes import SIGNING_TODO, SYNC_TODO
    from node.signing import STATES
    from node.status import SYNC_STATES

    assert set(SIGNING_TODO) == set(STATES) - {"clear"}
    assert set(SYNC_TODO) == set(SYNC_STATES) - {"in-step"}


def test_a_node_of_another_chain_than_the_file_is_not_what_was_meant() -> None:
    found = told(Gathered(four(), chain_id="99" * 32))
    assert [(each.level, each.check) for each in found] == [(Level.BAD, "chain")] * 4


def test_two_histories_are_told_above_all() -> None:
    found = told(Gathered(four(), conflicts=[Conflict(("http://a", "http://b"), "two blocks are final at one height")]))
    assert [(each.level, each.check, each.about) for each in found] == [(Level.BAD, "chain", "http://a and http://b")]


# -- finality --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age_ms", "records", "is_bad"),
    [
        (20_000, 5, False),
        (20_001, 5, True),
        (200_000, 0, False),
        (200_001, 0, True),
    ],
)
def test_finality_is_late_where_records_wait_and_at_rest_after_three_heartbeats(
    age_ms: int, records: int, *, is_bad: bool
) -> None:
    nodes = [node(name, status={"final_age_ms": age_ms, "pool_records": records}) for name in NAMES]
    assert said(Gathered(nodes)) == ([(Level.BAD, "finality", "chain")] if is_bad else [])


# -- votes -----------------------------------------------------------------------------------------------------------


def test_who_does_not_vote_is_named_with_the_height() -> None:
    (found,) = told(Gathered(everywhere(votes_of(delta=HEIGHT - 4))))
    assert (found.level, found.check, found.about) == (Level.BAD, "votes", "delta")
    assert found.what == "has not voted since block 997; the chain bears no further failure"


def test_three_blocks_late_is_voting() -> None:
    assert told(Gathered(everywhere(votes_of(delta=HEIGHT - 3)))) == []


def test_a_vote_that_one_node_saw_is_a_vote() -> None:
    nodes = everywhere(votes_of(delta=10))
    assert told(Gathered([*nodes[:3], node("delta")])) == []


def test_a_vote_in_a_certificate_is_a_vote() -> None:
    nodes = [
        replace(each, recent=RecentBlocks(128, 0, {f"{3:040x}": HEIGHT})) for each in everywhere(votes_of(delta=10))
    ]
    assert told(Gathered(nodes)) == []


def test_with_seven_voters_one_silent_can_wait_and_three_stop_the_chain() -> None:
    answer = producers(faults_tolerated=2, quorum=5)
    one, three = (
        changed(answer, voting=votes_of(**dict.fromkeys(names, 5)).voting) for names in (NAMES[3:], NAMES[1:])
    )
    (found,) = [each for each in told(Gathered([node("alpha", producers=one)])) if each.check == "votes"]
    assert (found.level, found.what) == (
        Level.WARN,
        "has not voted since block 6; the chain bears 1 more failure",
    )
    stopped = [each for each in told(Gathered([node("alpha", producers=three)])) if each.check == "votes"]
    assert {(each.level, each.what) for each in stopped} == {
        (Level.BAD, "has not voted since block 6; with so many silent nothing becomes final")
    }


def test_a_voter_never_heard_of_is_silent_only_where_its_node_is_not_there() -> None:
    assert said(Gathered(everywhere(votes_of(delta=None)))) == [(Level.WARN, "votes", "delta")]
    peers = PeersAnswer([PeerAnswer(name, "ledgerd/0.1.0", is_open_plaintext=False) for name in NAMES[1:3]])
    nodes = [node("alpha", producers=votes_of(delta=None), peers=peers)]
    assert said(Gathered(nodes)) == [(Level.BAD, "votes", "delta"), (Level.WARN, "peers", "alpha")]


def test_on_a_chain_without_a_block_nobody_is_silent() -> None:
    begin = Point(0, CHAIN, -1)
    status = {"head": begin, "final": begin, "pool_records": 0}
    answer = votes_of(**dict.fromkeys(NAMES))
    assert told(Gathered([node(name, status=status, producers=answer) for name in NAMES])) == []


def test_certificates_tell_who_signed_them_as_far_as_the_set_is_known() -> None:
    def sealed(height: int, slot: int, certificate: Certificate | None, records: int = 5) -> SealedHeader:
        totals = changed(EMPTY_TOTALS, records=records)
        none = bytes(32)
        header = Header(1, none, height, slot, none, bytes(20), none, 0, none, totals, none, none, none)
        return SealedHeader(header, bytes(64), certificate)

    def certified(height: int, set_id: int, signers: int) -> Certificate:
        part = CertificatePart(set_id, bytes([signers]), [bytes(64)])
        return Certificate(height - 1, bytes(32), height, bytes(32), [part])

    headers = [
        sealed(7, 70, certified(6, 1, 0b1111)),
        sealed(8, 75, certified(7, 2, 0b0111)),
        sealed(9, 90, certified(8, 2, 0b1_0000_011)),
        sealed(10, 91, None),
    ]
    recent = recent_of(headers, PRODUCERS.voting)
    assert recent == RecentBlocks(21, 15, {f"{0:040x}": 8, f"{1:040x}": 8, f"{2:040x}": 7})
    assert recent_of(headers[:1], PRODUCERS.voting) == RecentBlocks(0, 0, {})
    assert recent_of([], PRODUCERS.voting) == RecentBlocks()


# -- slots, peers, clocks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sealed", "missed", "is_said"), [(2, 3, True), (3, 3, False), (0, 2, False), (0, 3, True)])
def test_who_misses_more_than_half_of_its_slots_is_named(sealed: int, missed: int, *, is_said: bool) -> None:
    seats = [*PRODUCERS.producers[:3], SeatAnswer("delta", sealed, missed)]
    expected = [(Level.WARN, "slots", "delta")] if is_said else []
    assert said(Gathered(everywhere(producers(producers=seats)))) == expected


def with_peers(name: str, *others: str) -> NodeAnswers:
    peers = [PeerAnswer(other, "ledgerd/0.1.0", is_open_plaintext=False) for other in others]
    return node(name, peers=PeersAnswer(peers))


def test_too_few_peers_are_bad_and_one_that_is_not_there_is_a_warning() -> None:
    assert said(Gathered([with_peers("alpha", "beta", "gamma")])) == [(Level.WARN, "peers", "alpha")]
    assert said(Gathered([with_peers("alpha", "beta", "a-guest")])) == [(Level.BAD, "peers", "alpha")]
    (found,) = told(Gathered([with_peers("alpha", "beta", "gamma")]))
    assert found.what == "2 peers, with 3 of 4 voters in reach; not connected: delta"


def test_a_connection_that_only_one_side_has_is_told() -> None:
    nodes = [node("alpha"), with_peers("beta", "gamma", "delta"), node("gamma"), node("delta")]
    found = [(each.about, each.what) for each in told(Gathered(nodes)) if "which does not have it" in each.what]
    assert found == [("alpha http://alpha:8080", "it has beta as a peer, which does not have it")]


def test_of_two_nodes_of_one_member_nobody_says_which_is_meant() -> None:
    nodes = [node("alpha"), with_peers("beta", "gamma", "delta"), with_peers("beta", "alpha", "gamma", "delta")]
    found = [each.what for each in told(Gathered(nodes)) if "which does not have it" in each.what]
    assert found == []


def clocks(*ahead_ms: int) -> list[tuple[Level, str, str]]:
    nodes = [node(name, clock=Clock(ahead, 5)) for name, ahead in zip(NAMES, ahead_ms, strict=False)]
    return said(Gathered(nodes))


def test_the_clock_that_differs_from_most_is_off() -> None:
    assert clocks(0, 10, 400, -5) == [(Level.WARN, "clock", "gamma")]
    assert clocks(400, 410, 395) == [(Level.WARN, "clock", "this")]
    assert clocks(400) == [(Level.WARN, "clock", "this")]
    # Of two, this machine's decides.
    assert clocks(0, -800) == [(Level.BAD, "clock", "beta")]
    assert clocks(-800, 5) == [(Level.BAD, "clock", "alpha")]


# -- governance ------------------------------------------------------------------------------------------------------


def proposals(left_ms: int) -> list[NodeAnswers]:
    proposal = ProposalAnswer("3f21c0" + 58 * "0", "alpha", ProposalText(NOW_MS + left_ms), 200, 267)
    return [node(name, proposals=ProposalsAnswer([proposal])) for name in NAMES]


def test_a_proposal_about_to_expire_is_told_a_day_before() -> None:
    assert told(Gathered(proposals(86_400_000))) == []
    (found,) = told(Gathered(proposals(86_399_999)))
    assert (found.level, found.about) == (Level.WARN, "proposal 3f21c000")
    assert found.what == "by alpha, lacks weight 67, ends in 23 h 59 min"


@pytest.mark.parametrize(("minutes", "level"), [(5, None), (6, Level.WARN), (30, Level.WARN), (31, Level.BAD)])
def test_a_change_of_the_voting_set_that_takes_too_long(minutes: int, level: Level | None) -> None:
    since_ms = NOW_MS - minutes * 60_000
    nodes = [node(name, producers=producers(pending=PendingAnswer(998)), pending_since_ms=since_ms) for name in NAMES]
    assert said(Gathered(nodes)) == ([] if level is None else [(level, "governance", "chain")])


def test_members_struck_and_keys_that_retire_are_named() -> None:
    keys = KeysAnswer([KeyAnswer("ab" * 20, "beta", "retiring"), KeyAnswer("cd" * 20, "beta", "active")])
    nodes = [node(name, producers=producers(struck=[StruckAnswer("gamma")]), keys=keys) for name in NAMES]
    assert said(Gathered(nodes)) == [(Level.WARN, "governance", "gamma"), (Level.WARN, "governance", "beta")]


# -- agents ----------------------------------------------------------------------------------------------------------

HEALTH = HealthAnswer("ok", 0, 0, 0, 0, "0.1.0", 50 * GIB)
AGENTS: dict[str, tuple[dict[str, Any], list[Level]]] = {
    "well": ({}, []),
    "busy": ({"backlog": 70_000, "oldest_age_ms": 60_000}, []),
    "a minute old": ({"backlog": 1, "oldest_age_ms": 60_001}, [Level.WARN]),
    "five minutes old": ({"backlog": 1, "oldest_age_ms": 300_001}, [Level.BAD]),
    "dead letters": ({"dead_letters": 1}, [Level.WARN]),
    "nodes that fail": ({"nodes_failing": 1}, [Level.WARN]),
    "full": ({"status": "full", "disk_free_bytes": 9}, [Level.BAD]),
    "failed": ({"status": "failed"}, [Level.BAD]),
    "little room": ({"disk_free_bytes": GIB}, [Level.WARN]),
    "hardly any room": ({"disk_free_bytes": GIB // 8}, [Level.BAD]),
}


@pytest.mark.parametrize("name", AGENTS)
def test_what_is_said_of_an_agent(name: str) -> None:
    changes, levels = AGENTS[name]
    found = told(Gathered([], agents=[AgentAnswers("http://agent:8090", changed(HEALTH, **changes))]))
    assert [(each.level, each.check, each.about) for each in found] == [
        (level, "agent", "agent http://agent:8090") for level in levels
    ]


def test_a_watch_that_fails_is_named() -> None:
    (found,) = told(Gathered([], agents=[AgentAnswers("http://agent:8090", HEALTH, ("cdrs", "log"))]))
    assert (found.level, found.what) == (Level.BAD, "nothing can be taken in from cdrs, log")


# -- whatever nodes say ----------------------------------------------------------------------------------------------


leaves = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_what_is_no_status_is_no_answer(document: Any) -> None:
    with pytest.raises(EncodingError):
        read_answer(document, StatusAnswer)


def test_what_an_answer_has_beyond_is_passed_over() -> None:
    document = msgspec.to_builtins(STATUS)
    assert read_answer({**document, "of_tomorrow": 1}, StatusAnswer) == STATUS


def test_a_number_that_nobody_could_mean_is_no_answer() -> None:
    """One node that lies so must not end the examination of all: what is computed of it would be no float."""
    for text in (b'{"disk": {"free_bytes": 1%s}}' % (b"0" * 400), b"[" * 100_000, b"{"):
        with pytest.raises(ValueError, match=r"."):
            read_json(text)
    assert read_json(b'{"a": -9223372036854775808}') == {"a": -(2**63)}


numbers = st.integers(-(2**63), 2**63 - 1)


@given(numbers, numbers, numbers, numbers, st.text(max_size=9), st.booleans())
def test_no_numbers_and_words_are_too_strange(a: int, b: int, c: int, d: int, text: str, is_producer: bool) -> None:
    """Nodes may say anything: what comes of it is findings, each one printable line or two."""
    status = changed(
        STATUS, sync=SyncAnswer(text, a, b), final=Point(c, "", d), final_age_ms=a, pool_records=b, clock_skew_ms=c,
        signing=SigningAnswer(text, text, text, d), now_ms=a, is_producer=is_producer, member_id=text,
        disk=DiskAnswer(a, b, c, d),
    )  # fmt: skip
    seats = [SeatAnswer(text, a, b)]
    voting = VotingAnswer(a, [VoterAnswer(text, text, d)])
    answer = ProducersAnswer(a, b, seats, voting, PendingAnswer(c), [StruckAnswer(text)])
    strange = replace(
        node("alpha", producers=answer, pending_since_ms=a, recent=RecentBlocks(abs(b), c, {text: d})), status=status
    )
    for finding in examine(Gathered([strange, node("beta")])):
        assert all(line.isprintable() for line in line_of(finding).split("\n"))
        assert line_of(finding).count("\n") == bool(finding.todo)


# -- words and the command -------------------------------------------------------------------------------------------


def test_lengths_sizes_and_numbers_in_words() -> None:
    times = (0, 9_999, 10_000, 90_000, 3_600_000, 90_061_000)
    assert [lasting(each) for each in times] == ["0 ms", "9999 ms", "10 s", "1 min 30 s", "1 h", "1 d 1 h"]
    assert [size(each) for each in (5, 2048, 3 << 20, 5 << 29, 1 << 41)] == [
        "5 bytes",
        "2.0 KiB",
        "3.0 MiB",
        "2.5 GiB",
        "2.0 TiB",
    ]
    assert [some(each, "block") for each in (0, 1, 2_000)] == ["0 blocks", "1 block", "2,000 blocks"]


def test_the_worst_counts() -> None:
    bad, warning, well = (Finding(level, "answer", "", "") for level in (Level.BAD, Level.WARN, Level.OK))
    assert [worst(each) for each in ([well, warning, bad], [warning, well], [well], [])] == [
        Level.BAD,
        Level.WARN,
        Level.OK,
        Level.OK,
    ]


Doctor = Callable[..., tuple[int, str]]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Run the command over answers that were gathered already."""

    def run(gathered: Gathered, *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(gathering, "gather", lambda urls, *, genesis, timeout_s: gathered)
        done = CliRunner().invoke(app, ["doctor", "http://a", *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout

    return run


def test_the_status_of_the_command_says_how_bad_it_is(doctor: Doctor) -> None:
    assert doctor(Gathered(four()))[0] == 0
    assert doctor(Gathered(four(status={"version": "0.2.0"})))[0] == 3
    assert doctor(Gathered(four(status={"is_disk_full": True, "version": "0.2.0"})))[0] == 1


def test_lines_are_for_people(doctor: Doctor) -> None:
    _, out = doctor(Gathered(everywhere(votes_of(delta=HEIGHT - 4))), "--quiet")
    assert out.splitlines() == [
        "BAD   votes       delta: has not voted since block 997; the chain bears no further failure",
        "      -> Is its node up, connected and clear to sign? Tell the member; meanwhile stop no other producer",
        summary_of(examine(Gathered(everywhere(votes_of(delta=HEIGHT - 4)))), is_proven=False),
    ]
    assert out.splitlines()[-1].startswith("1 bad, 0 warnings, ")


def test_the_guide_shows_what_is_printed_and_explains_every_check() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    section = guide.split("\n### Paged at night\n")[1].split("\n### ")[0]
    (finding,) = told(Gathered(everywhere(votes_of(delta=HEIGHT - 4))))
    assert [line for line in line_of(finding).splitlines() if f"    {line}\n" not in section] == []
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(CHECKS)


def test_json_has_the_same(doctor: Doctor) -> None:
    gathered = Gathered(four(status={"version": "0.2.0"}))
    _, out = doctor(gathered, "--json")
    document = json.loads(out)
    assert document["level"] == "warn"
    expected = [{**asdict(each), "level": each.level.value} for each in examine(gathered)]
    assert document["findings"] == expected
