"""Local times, minutes, midnights, and the hours that clocks change."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import FieldError
from telephony.adapters.clocks import Times, choose_reading, choose_times, read_clock, readings_ms

VIENNA = ZoneInfo("Europe/Vienna")
DAY_MS = 86_400_000
HOUR_MS = 3_600_000


def at(text: str) -> int:
    """Return UTC as milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def readings(text: str, *, next_day: bool = False) -> tuple[list[int], bool]:
    return readings_ms(datetime.fromisoformat(text), VIENNA, "end", next_day=next_day)


def test_a_local_time_has_one_reading():
    assert readings("2026-07-01T12:00:00") == ([at("2026-07-01T10:00:00")], False)


def test_a_time_with_its_own_zone_needs_none():
    assert readings("2026-07-01T12:00:00+05:00") == ([at("2026-07-01T07:00:00")], False)


def test_the_hour_the_clock_goes_back_has_two_readings():
    """25 October 2026, 02:30 in Vienna, comes twice."""
    assert readings("2026-10-25T02:30:00") == ([at("2026-10-25T00:30:00"), at("2026-10-25T01:30:00")], False)


def test_the_hour_the_clock_skips_is_noted():
    """29 March 2026 has no 02:30 in Vienna: read an hour after 01:30, as the clock would have shown it."""
    assert readings("2026-03-29T02:30:00") == ([at("2026-03-29T01:30:00")], True)


def test_next_day_adds_a_reading_for_each_day():
    first = at("2026-07-01T10:00:00")
    assert readings("2026-07-01T12:00:00", next_day=True) == ([first, first + DAY_MS], False)


@pytest.mark.parametrize(
    "text", ["1969-12-31T23:00:00", "2101-01-01T00:00:00", "9999-12-31T23:59:59", "0001-01-01T00:00:00"]
)
def test_times_out_of_bounds(text):
    with pytest.raises(FieldError):
        readings(text, next_day=True)


def test_midnight_is_crossed():
    """Start 23:58, end 00:03 with the date of the start."""
    setup, end = readings("2026-07-01T23:58:00")[0], readings("2026-07-01T00:03:00", next_day=True)[0]
    times = choose_times(setup, [], end, (None, None), 1000)
    assert times.end_ms - times.setup_ms == 5 * 60_000


def test_a_call_within_a_day_stays_in_it():
    setup, end = readings("2026-07-01T10:00:00")[0], readings("2026-07-01T10:03:00", next_day=True)[0]
    assert choose_times(setup, [], end, (None, None), 1000).end_ms - setup[0] == 3 * 60_000


@pytest.mark.parametrize(("duration_min", "hours"), [(10, 0), (70, 1)])
def test_the_duration_decides_in_the_hour_that_comes_twice(duration_min, hours):
    """02:50 to 03:00 standard time: ten minutes, or seventy if it began before the change."""
    setup, end = readings("2026-10-25T02:50:00")[0], readings("2026-10-25T03:00:00")[0]
    times = choose_times(setup, [], end, (duration_min * 60_000, None), 1000)
    assert times.end_ms - times.setup_ms == duration_min * 60_000
    assert times.setup_ms == at("2026-10-25T01:50:00") - hours * HOUR_MS


def test_without_a_duration_the_shortest_call_and_then_the_earlier():
    setup, end = readings("2026-10-25T02:50:00")[0], readings("2026-10-25T03:00:00")[0]
    assert choose_times(setup, [], end, (None, None), 1000).setup_ms == at("2026-10-25T01:50:00")
    both = readings("2026-10-25T02:30:00")[0]
    assert choose_times(both, [], both, (None, None), 1000) == Times(both[0], 0, both[0])


def test_whether_a_reading_is_a_guess():
    """It is where the durations fit another one as well."""
    setup, end = readings("2026-10-25T02:50:00")[0], readings("2026-10-25T03:00:00")[0]
    assert choose_reading(setup, [], end, (600_000, None), 1000) == ((end[0] - 600_000, 0, end[0]), False)
    assert choose_reading(setup, [], end, (None, None), 1000) == ((end[0] - 600_000, 0, end[0]), True)
    both = readings("2026-10-25T02:30:00")[0]
    assert choose_reading(both, [], both, (0, None), 1000) == ((both[0], 0, both[0]), True)


def test_a_call_over_the_change_is_not_negative():
    """02:55 summer time to 02:05 standard time is ten minutes, not minus fifty."""
    setup, end = readings("2026-10-25T02:55:00")[0], readings("2026-10-25T02:05:00")[0]
    times = choose_times(setup, [], end, (None, None), 1000)
    assert times.end_ms - times.setup_ms == 10 * 60_000


@pytest.mark.parametrize(
    ("setup", "answer", "end", "spans", "times"),
    [
        ([100], [], [], (50, None), (100, 0, 150)),
        ([], [], [150], (50, None), (100, 0, 150)),
        ([100], [120], [], (None, 30), (100, 120, 150)),
        ([100], [], [150], (None, 30), (100, 120, 150)),
        ([100], [], [], (50, 30), (100, 120, 150)),
        ([], [120], [150], (None, None), (120, 120, 150)),
        ([100], [], [150], (50, 0), (100, 0, 150)),
    ],
)
def test_what_is_missing_follows_from_the_spans(setup, answer, end, spans, times):
    assert choose_times(setup, answer, end, spans, 1) == times


def test_minutes_do_not_make_an_order():
    """Clocks of a minute: an answer shown before the setup by less than that is at the same moment."""
    assert choose_times([60_000], [5_000], [50_000], (None, None), 60_000) == (60_000, 60_000, 60_000)
    with pytest.raises(FieldError, match="out of order"):
        choose_times([60_001], [], [1], (None, None), 60_000)


@pytest.mark.parametrize(("setup", "answer", "end"), [([], [], [5]), ([5], [], []), ([], [5], [])])
def test_too_little_to_know_the_times(setup, answer, end):
    with pytest.raises(FieldError):
        choose_times(setup, answer, end, (None, None), 1)


@pytest.mark.parametrize(("text", "form"), [("x", "iso"), ("2026-13-01", "%Y-%m-%d"), ("", "%H"), ("1", "%")])
def test_no_time_of_that_form(text, form):
    with pytest.raises(FieldError) as caught:
        read_clock(text, form, "end")
    assert caught.value.where == "end"


@given(st.integers(3 * 86_400, 4_102_300_000), st.integers(0, 7_200))
def test_every_true_call_is_among_the_readings(start_s, seconds):
    """Whatever the clock did: the call that really was is the one chosen, given its duration."""
    start_ms = start_s * 1000
    local = [datetime.fromtimestamp(start_s + more, VIENNA).replace(tzinfo=None, fold=0) for more in (0, seconds)]
    found = [readings_ms(time, VIENNA, "t")[0] for time in local]
    assert start_ms in found[0]
    assert start_ms + seconds * 1000 in found[1]
    times = choose_times(found[0], [], found[1], (seconds * 1000, None), 1000)
    assert times.end_ms - times.setup_ms == seconds * 1000
