"""Calls told in parts, from the spool to the ledger: one record each, whatever comes first, late, or twice.

The documents are those that the platforms wrote; what waits how long comes from an agent's configuration.
"""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from ledger.cdr import CallRecord, MosKind, Observer, QualityMethod, ReleasedBy
from ledger.codec import decode, decode_each
from ledger.errors import ConfigError
from ledger.transaction import Transaction
from node.agent import join_times, load_agent_config
from telephony import building
from telephony.adapters.base import Kind
from telephony.adapters.registry import Adapters
from telephony.gathering import NO_CALL, NO_REST, JoinTimes
from tests.telephony.agent_kit import NOW_MS, Crash, Faults, Parts, World, opened, spooled

FIXTURES = Path(__file__).parent / "fixtures"
LAB = json.loads((FIXTURES / "sip-lab-run.json").read_text())
MEASURED = ("mos_", "loss_", "jitter_", "rtt_")
CDR = json.dumps({name: value for name, value in LAB["cdrs"][0].items() if not name.startswith(MEASURED)}).encode()
CALL_ID = LAB["cdrs"][0]["call_id"]
ANSWER = json.dumps({"call-id": CALL_ID, **LAB["calls"][0]["rtpengine"]}).encode()
PHONE = (FIXTURES / "vq-reports" / "rfc6035-session.txt").read_bytes().replace(b"6dg37f1890463", CALL_ID.encode(), 1)
LINES = (FIXTURES / "kamailio-5.6.3-acc_json-transactions.jsonl").read_bytes().splitlines()
ADAPTERS = Adapters().by_kind

WAIT_S, KEEP_S = 60, 900
CONFIGURATION = f"""
join_keep_s = {KEEP_S}
[sources.kamailio]
join_wait_s = {WAIT_S}
[sources.cucm-cdr]
join_wait_s = {WAIT_S}
[sources.kamailio-acc]
join_wait_s = {WAIT_S}
"""


def times_of(text: str, folder: Path) -> JoinTimes:
    """Return the times that a configuration file sets."""
    file = folder / "agent.toml"
    file.write_text(text)
    config = load_agent_config({}, {}, file)
    return join_times(config.sources, config.join_keep_s)


def rows(adapter: Kind, name: str) -> list[bytes]:
    """Return the rows of a CUCM file."""
    return ADAPTERS[adapter].split((FIXTURES / "cucm" / name).read_bytes(), "text/csv")[0]


CUCM_CDR = rows(Kind.CUCM_CDR, "cdr_StandAloneCluster_01_202611211506_17")[1]
CMRS = rows(Kind.CUCM_CMR, "cmr_StandAloneCluster_01_202611211506_18")[2:4]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A ledger a moment after the last of the recorded calls."""
    now_ms = 1_795_265_090_000
    assert now_ms > NOW_MS
    return World(tmp_path / "agent", wall_ms=now_ms, ledger_ms=now_ms)


@pytest.fixture
def times(tmp_path: Path) -> JoinTimes:
    return times_of(CONFIGURATION, tmp_path)


def take(parts: Parts, *documents: tuple[Kind, bytes]) -> None:
    """Take documents in now, after ``check`` passed them, as it does for every post."""
    for kind, document in documents:
        ADAPTERS[kind].check(document)
        spooled(parts.spool, document, kind=kind, time_ms=parts.world.wall_ms)


async def pass_time(parts: Parts, seconds: int) -> None:
    parts.world.pass_time(seconds)
    for _ in range(8):
        await parts.step()


def records_of(world: World) -> list[CallRecord]:
    """Return the records that count, in the order of their ends; fails where one counts twice."""
    assert set(world.counted.values()) <= {1}
    found = [
        record
        for tx_id, void in world.final.items()
        for index, record in enumerate(decode_each(decode(world.raws[tx_id], Transaction).items, CallRecord))
        if index not in void
    ]
    return sorted(found, key=lambda record: (record.end_ms, record.call_commitment))


def facts_of(record: CallRecord) -> dict[str, Any]:
    """Return what of a record does not depend on chance: its salts are new each time."""
    return {
        name: getattr(record, name)
        for name in record.__struct_fields__
        if name not in {"party_commitment", "call_commitment"}
    }


def letters(parts: Parts) -> list[tuple[str, bytes]]:
    return [(letter.reason, letter.data) for letter in parts.dead]


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_cdr_and_reports_of_two_kinds_are_one_record(world, times, order):
    """rtpengine's answer and a phone's report join in any order: the phone's own figures stand, being complete too."""
    documents = [(Kind.KAMAILIO, CDR), (Kind.RTPENGINE, ANSWER), (Kind.VQ_REPORT, PHONE)]
    with opened(world, times=times) as parts:
        for index in order:
            take(parts, documents[index])
            await pass_time(parts, 5)
        assert (records_of(world), parts.waiting.count) == ([], 3)
        await pass_time(parts, WAIT_S)
        (record,) = records_of(world)
        assert (parts.backlog, letters(parts)) == (0, [])
    assert (record.quality.method, record.quality.observer) == (QualityMethod.RFC3611, Observer.CALLER)
    assert (record.quality.kind, record.quality.mean.mos_milli) == (MosKind.CQ, 4000)
    assert (record.levels.signal_dbm0, record.levels.burst_density) == (-18, 0)
    assert (record.packets_sent, record.packets_received) == (300, 301)


@pytest.mark.parametrize("order", [0, 1])
async def test_cdr_and_answer_of_rtpengine(world, times, order):
    """What Kamailio's own rtpengine variables would have said, told apart from the CDR."""
    with opened(world, times=times) as parts:
        take(parts, [(Kind.KAMAILIO, CDR), (Kind.RTPENGINE, ANSWER)][order])
        await pass_time(parts, 5)
        take(parts, [(Kind.RTPENGINE, ANSWER), (Kind.KAMAILIO, CDR)][order])
        await pass_time(parts, WAIT_S)
        (record,) = records_of(world)
        assert (parts.backlog, letters(parts)) == (0, [])
    assert (record.quality.method, record.quality.observer) == (QualityMethod.RTPENGINE_10, Observer.CALLER)
    assert (record.quality.mean.mos_milli, record.quality.samples) == (4400, 3)
    assert (record.packets_sent, record.packets_received) == (300, 301)


async def test_metrics_of_a_probe_alone(world, times):
    """RFC 3611 as JSON, with the tag of the side that it is of."""
    probe = json.dumps({"call-id": CALL_ID, "tag": LAB["cdrs"][0]["to_tag"], "mos_cq": 40, "r_factor": 82}).encode()
    with opened(world, times=times) as parts:
        take(parts, (Kind.RTCP_XR, probe), (Kind.KAMAILIO, CDR))
        await pass_time(parts, WAIT_S)
        (record,) = records_of(world)
    assert (record.quality.observer, record.quality.r_milli) == (Observer.CALLEE, 82_000)


async def test_cdr_and_cmrs_of_cucm_are_one_record(world, times):
    """Two phones report, each on its leg; the record of an originating leg has what the caller heard."""
    world.wall_ms = world.ledger_ms = 1_795_250_000_000
    with opened(world, times=times) as parts:
        take(parts, (Kind.CUCM_CMR, CMRS[1]), (Kind.CUCM_CDR, CUCM_CDR), (Kind.CUCM_CMR, CMRS[0]))
        await pass_time(parts, WAIT_S)
        (record,) = records_of(world)
        assert (parts.backlog, letters(parts)) == (0, [])
    assert (record.quality.method, record.quality.kind) == (QualityMethod.MEASURED, MosKind.LQ)
    assert (record.quality.observer, record.quality.mean.mos_milli) == (Observer.CALLER, 4350)
    assert (record.quality.packets_expected, record.quality.packets_lost) == (5000, 100)


@pytest.mark.parametrize("is_backwards", [False, True])
async def test_accounting_by_transaction(world, times, is_backwards):
    """Five recorded calls, begun and ended in eight lines, in either order: five records."""
    with opened(world, times=times) as parts:
        take(parts, *((Kind.KAMAILIO_ACC, line) for line in (LINES[::-1] if is_backwards else LINES)))
        await pass_time(parts, WAIT_S)
        records = records_of(world)
        assert (parts.backlog, letters(parts)) == (0, [])
    assert [(record.sip_code, record.released_by) for record in records] == [
        (486, ReleasedBy.CALLEE),
        (487, ReleasedBy.CALLER),
        (200, ReleasedBy.CALLER),
        (200, ReleasedBy.CALLER),
        (200, ReleasedBy.CALLEE),
    ]
    assert [record.answer_ms > 0 for record in records] == [False, False, True, True, True]


async def test_report_that_came_in_time_behind_a_backlog(world, times, monkeypatch):
    """An agent that has an hour to catch up: what counts is when documents came in, not when they are read."""
    others = [json.dumps({**json.loads(LINES[3]), "callid": f"c-{number}"}).encode() for number in range(5)]
    monkeypatch.setattr(building, "BATCH_DOCUMENTS", 3)
    with opened(world, times=times) as parts:
        take(parts, (Kind.KAMAILIO, CDR), *((Kind.KAMAILIO_ACC, line) for line in others))
        world.pass_time(WAIT_S - 1)
        take(parts, (Kind.RTPENGINE, ANSWER))
        world.pass_time(3600)
        await pass_time(parts, 1)
        records = records_of(world)
        assert (len(records), parts.backlog, letters(parts)) == (6, 0, [])
    assert [record.quality is not None for record in records].count(True) == 1


async def test_report_for_a_call_told_in_transactions(world, times):
    begin, end = (line for line in LINES if json.loads(line)["callid"] == "lab-ddd5127819a4@127.0.0.1")
    tags = {name: json.loads(begin)[name] for name in ("from_tag", "to_tag")}
    probe = {"call-id": "lab-ddd5127819a4@127.0.0.1", "tag": tags["to_tag"], "mos_lq": 38}
    with opened(world, times=times) as parts:
        take(parts, (Kind.KAMAILIO_ACC, end), (Kind.RTCP_XR, json.dumps(probe).encode()), (Kind.KAMAILIO_ACC, begin))
        await pass_time(parts, WAIT_S)
        (record,) = records_of(world)
    assert (record.quality.observer, record.quality.mean.mos_milli) == (Observer.CALLEE, 3800)


@pytest.mark.parametrize("again_s", [1, WAIT_S, 3 * WAIT_S])
async def test_what_comes_twice_counts_once(world, times, again_s):
    """The same documents again: while the call waits, when it has just gone on, and later."""
    documents = [(Kind.KAMAILIO, CDR), (Kind.RTPENGINE, ANSWER), *((Kind.KAMAILIO_ACC, line) for line in LINES)]
    with opened(world, times=times) as parts:
        take(parts, *documents)
        await pass_time(parts, again_s)
        take(parts, *documents)
        await pass_time(parts, 2 * WAIT_S)
        assert (len(records_of(world)), parts.backlog, letters(parts)) == (6, 0, [])
        await pass_time(parts, 3 * KEEP_S)
        assert (len(records_of(world)), parts.backlog, letters(parts)) == (6, 0, [])
    assert [record.quality is not None for record in records_of(world)].count(True) == 1


async def test_cdr_again_after_it_is_forgotten_is_still_known(world, times):
    """Without the report, which is gone: what counts is whether the call itself is the same."""
    with opened(world, times=times) as parts:
        take(parts, (Kind.KAMAILIO, CDR), (Kind.RTPENGINE, ANSWER))
        await pass_time(parts, WAIT_S)
        await pass_time(parts, 2 * KEEP_S)
        take(parts, (Kind.KAMAILIO_ACC, LINES[3]))
        await pass_time(parts, WAIT_S)
        take(parts, (Kind.KAMAILIO, CDR))
        await pass_time(parts, WAIT_S)
        assert (len(records_of(world)), parts.builder.counters.known, letters(parts)) == (2, 1, [])


async def test_late_report_is_a_dead_letter_and_changes_nothing(world, times):
    with opened(world, times=times) as parts:
        take(parts, (Kind.KAMAILIO, CDR))
        await pass_time(parts, WAIT_S)
        (before,) = records_of(world)
        take(parts, (Kind.RTPENGINE, ANSWER))
        await pass_time(parts, KEEP_S - 60)
        assert (parts.waiting.count, letters(parts)) == (1, [])
        await pass_time(parts, 60)
        assert (parts.backlog, letters(parts)) == (0, [(NO_CALL, ANSWER)])
        assert (before.quality, records_of(world)) == (None, [before])


async def test_platform_that_does_not_wait_goes_on_without(world, tmp_path):
    """join_wait_s is 0 unless it is set: the call is not held back, the report finds it gone."""
    with opened(world, times=times_of(f"join_keep_s = {KEEP_S}", tmp_path)) as parts:
        take(parts, (Kind.RTPENGINE, ANSWER), (Kind.KAMAILIO, CDR))
        await pass_time(parts, 1)
        (record,) = records_of(world)
        await pass_time(parts, KEEP_S)
        assert (record.quality, letters(parts)) == (None, [(NO_CALL, ANSWER)])


@pytest.mark.parametrize(
    ("kind", "document", "reason"),
    [
        (Kind.RTPENGINE, ANSWER, NO_CALL),
        (Kind.VQ_REPORT, PHONE, NO_CALL),
        (Kind.CUCM_CMR, CMRS[0], NO_CALL),
        (Kind.KAMAILIO_ACC, LINES[0], NO_REST),
        (Kind.KAMAILIO_ACC, LINES[-1], NO_REST),
    ],
)
async def test_part_whose_rest_never_comes_is_a_whole_dead_letter(world, times, kind, document, reason):
    """It waits as long as ``join_keep_s`` says, also over a restart, and is then where a person finds it."""
    with opened(world, times=times) as parts:
        take(parts, (kind, document))
        await pass_time(parts, KEEP_S - 60)
        assert (parts.waiting.count, letters(parts)) == (1, [])
    with opened(world, times=times) as parts:
        await pass_time(parts, 60)
        assert (parts.backlog, letters(parts)) == (0, [(reason, document)])
        # Replayed by a person once the rest is there after all, it is new.
        take(parts, (kind, document))
        await parts.step()
        assert parts.waiting.count == 1


async def test_bad_report_does_not_cost_the_call_its_good_one(world, times):
    """A report of another dialog of this Call-ID waits for that dialog; the other one counts."""
    other = json.loads(ANSWER.replace(LAB["cdrs"][0]["to_tag"].encode(), b"another-branch"))
    with opened(world, times=times) as parts:
        take(parts, (Kind.KAMAILIO, CDR), (Kind.RTPENGINE, json.dumps(other).encode()), (Kind.RTPENGINE, ANSWER))
        await pass_time(parts, WAIT_S)
        (record,) = records_of(world)
        assert (record.quality is not None, parts.waiting.count) == (True, 1)


async def test_killed_anywhere_the_joined_call_is_one_record(tmp_path, times):
    """At every point where a kill makes a difference, and started again: the same record, with its quality."""
    documents = [(Kind.RTPENGINE, ANSWER), (Kind.KAMAILIO, CDR), *((Kind.KAMAILIO_ACC, line) for line in LINES[:2])]
    documents += [(Kind.KAMAILIO_ACC, line) for line in LINES[5:7]]
    expected = None
    for at in range(200):
        now_ms = 1_795_265_090_000
        world = World(tmp_path / str(at), wall_ms=now_ms, ledger_ms=now_ms)
        with opened(world, times=times) as parts:
            take(parts, *documents)
        world.faults = Faults(at)
        try:
            with opened(world, times=times) as parts:
                await pass_time(parts, 1)
                await pass_time(parts, WAIT_S)
        except Crash:
            pass
        is_over = at > world.faults.count
        world.faults = Faults()
        with opened(world, times=times) as parts:
            await pass_time(parts, WAIT_S)
            await parts.settle()
            assert letters(parts) == []
        found = [facts_of(record) for record in records_of(world)]
        expected = expected or found
        assert (len(found), found) == (3, expected), f"killed at point {at}"
        if is_over:
            break
    assert is_over
    assert [record["quality"] is not None for record in expected].count(True) == 1


def test_waits_are_set_by_source_and_by_mapping(tmp_path):
    text = "[sources.freeswitch]\njoin_wait_s = 5\n[sources.mapped.pbx]\nfile = 'x'\njoin_wait_s = 7\n"
    times = times_of(text, tmp_path)
    waits = {name: times.wait_of(name) for name in ("freeswitch", "pbx", "kamailio")}
    assert (waits, times.keep_ms) == ({"freeswitch": 5000, "pbx": 7000, "kamailio": 0}, 86_400_000)
    with pytest.raises(ConfigError) as caught:
        times_of("[sources.mapped.pbx]\njoin_wait_s = 'long'\n", tmp_path)
    assert caught.value.where == "sources.mapped.pbx.join_wait_s"
