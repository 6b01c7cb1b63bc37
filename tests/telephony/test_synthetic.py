"""Made-up traffic: every record holds, the shares are a carrier's, and one seed gives one stream."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.cdr import CallRecord, QualityMethod, record_key_of
from ledger.codec import decode, encode
from ledger.errors import ConfigError
from ledger.rules.ruleset import RuleSet, default_rule_set_pin
from telephony.synthetic import HOURLY_WEIGHTS, Traffic, _exponential, generate_records

START_MS = 1_795_219_200_000  # 2026-11-21 00:00 UTC
RULES = RuleSet(default_rule_set_pin("lifecycle"), carbon_basis="lifecycle")


def take(count: int, **options: object) -> list[CallRecord]:
    return list(islice(generate_records(Traffic(**{"seed": 1, "start_ms": START_MS, **options})), count))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def day() -> list[CallRecord]:
    return take(20_000)


def test_every_record_holds_and_is_canonical(day: list[CallRecord]) -> None:
    assert [violation for record in day if (violation := RULES.check_record(record))] == []
    assert [decode(encode(record), CallRecord) for record in day] == day


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    holding_mean_ms=st.sampled_from([1_000, 20_000, 180_000, 86_400_000]),
    answered_percent=st.integers(0, 100),
    unmeasured_percent=st.integers(0, 100),
    calls_per_hour=st.sampled_from([1, 3_600, 3_600_000_000]),
    is_daily=st.booleans(),
)
def test_every_kind_of_traffic_holds(**options: object) -> None:
    records = take(40, **options)
    assert [violation for record in records if (violation := RULES.check_record(record))] == []
    assert [decode(encode(record), CallRecord) for record in records] == records


def test_records_come_as_calls_end(day: list[CallRecord]) -> None:
    assert all(earlier.end_ms <= later.end_ms for earlier, later in pairwise(day))
    assert day[0].end_ms >= START_MS


def test_no_two_records_are_of_one_call(day: list[CallRecord]) -> None:
    assert len({record_key_of("alpha", record) for record in day}) == len(day)
    assert len({record.party_commitment for record in day}) == len(day)


def test_shares_are_those_of_a_carrier(day: list[CallRecord]) -> None:
    answered = [record for record in day if record.answer_ms]
    assert 40 <= 100 * len(answered) // len(day) < 60
    assert 10 <= 100 * sum(record.quality is None for record in answered) // len(answered) < 40
    mean_ms = sum(record.end_ms - record.answer_ms for record in answered) // len(answered)
    assert 170_000 <= mean_ms <= 190_000
    methods = {record.quality.method for record in answered if record.quality}
    assert methods == {QualityMethod.G107, QualityMethod.RTPENGINE_10}
    assert len({record.energy.grid_zone for record in answered if record.energy}) == 6
    assert {record.sip_code for record in day} == {200, 404, 480, 486, 487, 503, 603}
    lossy = [r for r in answered if r.quality and r.quality.mean.loss_ppm]
    assert 10 <= 100 * len(lossy) // len(answered) < 30
    # In 20,000 / 60,000 of an hour.
    assert 19 * 60_000 <= day[-1].end_ms - START_MS <= 21 * 60_000


def test_one_seed_is_one_stream_and_another_is_another() -> None:
    assert take(200) == take(200)
    assert {encode(r) for r in take(200)} & {encode(r) for r in take(200, seed=2)} == set()


def test_the_members_secret_decides_the_commitments() -> None:
    one, other = take(50), take(50, member_secret=b"\x01" * 32)
    assert {r.call_commitment for r in one} & {r.call_commitment for r in other} == set()
    assert [r.end_ms for r in one] == [r.end_ms for r in other]


def test_a_day_has_its_busy_hour() -> None:
    by_hour = [0] * 24
    for record in take(24_000, calls_per_hour=1_000, is_daily=True):
        by_hour[record.end_ms // 3_600_000 % 24] += 1
    assert by_hour.index(max(by_hour)) in range(8, 18)
    assert min(by_hour) * 8 < max(by_hour)
    assert max(HOURLY_WEIGHTS) == HOURLY_WEIGHTS[10]


@pytest.mark.parametrize("mean", [1_000, 60_000, 180_000])
def test_the_exponential_table_has_its_mean_and_its_shape(mean: int) -> None:
    values = _exponential(mean)
    assert abs(sum(values) - mean * len(values)) <= len(values)
    # The median of an exponential is ln 2 of its mean.
    assert abs(1000 * values[len(values) // 2] // mean - 693) <= 3
    assert list(values) == sorted(values)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"calls_per_hour": 0}, "calls_per_hour"),
        ({"answered_percent": 101}, "answered_percent"),
        ({"unmeasured_percent": -1}, "unmeasured_percent"),
        ({"holding_mean_ms": 0}, "holding_mean_ms"),
        ({"start_ms": 0}, "start_ms"),
        ({"grid_zones": ("GB", "XX")}, "grid_zones"),
        ({"grid_zones": ()}, "grid_zones"),
    ],
)
def test_traffic_that_cannot_be_is_refused(options: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        take(1, **options)
    assert caught.value.where == where
