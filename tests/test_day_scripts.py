"""What ``scripts/day`` makes and how it judges: documents that adapters read, keys, kills, every kind of difference."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from ledger.cdr import record_key_of
from ledger.rules.ruleset import RuleSet, default_rule_set_pin
from telephony.adapters.registry import Adapters
from telephony.builder import Profile, build_record, fresh_salts

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from day_chain import ChainRecords, differences
from day_documents import DAY_MS, PLATFORMS, Document, key_of, make_day
from day_main import plan_kills

SECRET = bytes(range(32))
START_MS = 20_000 * DAY_MS
COUNT = 1_200


@pytest.fixture(scope="module")
def day() -> list[Document]:
    return list(make_day(5, COUNT, START_MS))


def test_every_document_becomes_the_record_that_its_key_names(day: list[Document]) -> None:
    """Read by its platform's adapter, a call has the key, the MOS and the end that the document was made with."""
    rules = RuleSet(default_rule_set_pin("lifecycle"), carbon_basis="lifecycle")
    adapters = Adapters().by_name
    for document in day:
        call = adapters[document.platform].parse(document.body)
        record, _, warnings = build_record(call, Profile(SECRET), fresh_salts())
        assert (record_key_of("alpha", record), warnings) == (key_of(document, "alpha", SECRET), [])
        assert rules.check_record(record) is None
        found = (record.end_ms, record.answer_ms > 0, record.quality is not None)
        assert found == (document.end_ms, document.is_answered, document.is_measured)


def test_the_day_is_a_carriers(day: list[Document]) -> None:
    assert len({key_of(document, "alpha", SECRET) for document in day}) == COUNT
    ends = [document.end_ms for document in day]
    assert ends == sorted(ends)
    assert ends[0] >= START_MS
    assert 20 * 3_600_000 < ends[-1] - ends[0] < 28 * 3_600_000
    assert Counter(document.platform for document in day).keys() == set(PLATFORMS)
    answered = [document for document in day if document.is_answered]
    assert 40 <= 100 * len(answered) // COUNT <= 60
    assert 10 <= 100 * sum(not document.is_measured for document in answered) // len(answered) <= 40
    hours = Counter(document.end_ms // 3_600_000 % 24 for document in day)
    assert sum(hours[hour] for hour in range(9, 12)) > 5 * sum(hours[hour] for hour in range(2, 5))


def test_the_same_seed_is_the_same_day(day: list[Document]) -> None:
    assert list(make_day(5, COUNT, START_MS)) == day
    assert next(make_day(6, COUNT, START_MS)) != day[0]


KEYS = [bytes([number]) * 16 for number in range(4)]


@pytest.mark.parametrize(
    ("handed_in", "counted", "said"),
    [
        (KEYS, KEYS, []),
        (KEYS, KEYS[:3], ["1 missing from the chain"]),
        (KEYS[:3], KEYS, ["1 on the chain, handed in by nobody"]),
        (KEYS, [*KEYS, KEYS[2]], ["1 on the chain more than once"]),
        ([*KEYS, KEYS[1]], KEYS, ["1 handed in under one key more than once"]),
        (KEYS[:2], KEYS[2:], ["2 missing from the chain", "2 on the chain, handed in by nobody"]),
    ],
)
def test_each_kind_of_difference_is_told(handed_in: list[bytes], counted: list[bytes], said: list[str]) -> None:
    found = ChainRecords(counted=Counter(counted))
    assert [sentence.partition(", such as")[0] for sentence in differences(handed_in, found)] == said


@pytest.mark.parametrize("seed", range(20))
def test_the_agent_and_a_node_are_killed_whatever_the_seed(seed: int) -> None:
    processes = ["agent", "alpha", "beta", "gamma", "delta"]
    plan = plan_kills(Random(seed), 3, processes)
    assert plan == plan_kills(Random(seed), 3, processes)
    shares, victims = zip(*plan, strict=True)
    assert list(shares) == sorted(shares)
    assert 0 < shares[0] < shares[-1] < 1
    assert "agent" in victims
    assert set(victims) - {"agent"}
