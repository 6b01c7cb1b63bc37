"""What a node measures of itself: histograms, the disk, the event loop, votes and flags."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.block import Vote
from ledger.rules.flags import FLAGS
from node import looplag
from node.counters import VOTERS_MAX, Counters
from node.disk import DAY_MS, SAMPLE_MS, SAMPLES_MAX, DiskUsage, DiskWatch, size_of
from telephony.histogram import Histogram
from tests.ledger.ledger_samples import make_record

BOUNDS = (0.1, 1.0, 10.0)


@given(st.lists(st.floats(-1, 100)))
def test_a_histogram_counts_what_lies_under_each_bound(values: list[float]) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    kept = [max(0.0, value) for value in values]
    assert histogram.buckets() == [
        *((str(bound), float(sum(value <= bound for value in kept))) for bound in BOUNDS),
        ("+Inf", float(len(values))),
    ]
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(kept))


def test_a_directory_is_measured_with_all_below_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "b").write_bytes(bytes(5))
    (tmp_path / "elsewhere").symlink_to("/")
    link = (tmp_path / "elsewhere").lstat().st_size
    assert size_of(tmp_path) == 15 + link
    assert size_of(tmp_path / "not there") == 0


def test_growth_is_told_once_ten_minutes_were_watched(tmp_path: Path) -> None:
    watch = DiskWatch(tmp_path)
    watch.look(now_ms=1_000)
    begin_ms = watch._samples[0][0]
    (tmp_path / "a").write_bytes(bytes(6_000))
    watch.look(now_ms=begin_ms + SAMPLE_MS - 1)
    assert (watch.usage.store_bytes, watch.usage.growth_bytes_per_day) == (6_000, None)
    watch.look(now_ms=begin_ms + SAMPLE_MS)
    assert watch.usage.growth_bytes_per_day == 6_000 * DAY_MS // SAMPLE_MS
    assert watch.usage.free_bytes > 0
    (tmp_path / "a").unlink()
    watch.look(now_ms=begin_ms + 2 * SAMPLE_MS)
    assert watch.usage.growth_bytes_per_day == 0


def test_a_day_of_samples_is_kept_and_no_more(tmp_path: Path) -> None:
    watch = DiskWatch(tmp_path)
    begin_ms = watch._samples[0][0]
    for step in range(3 * SAMPLES_MAX):
        watch.look(now_ms=begin_ms + step * SAMPLE_MS)
    assert len(watch._samples) == SAMPLES_MAX
    assert watch.usage.grown_ms == DAY_MS


def test_a_directory_that_is_gone_has_no_bytes_and_no_room(tmp_path: Path) -> None:
    watch = DiskWatch(tmp_path / "gone")
    assert watch.usage == DiskUsage(0, 0)


async def test_the_loops_lag_is_what_a_sleep_took_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looplag, "LOOK_S", 0.0)
    lag_s = Histogram((1_000.0,))
    task = asyncio.create_task(looplag.watch_loop(lag_s))
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    assert lag_s.count >= 5
    assert lag_s.sum > 0
    with pytest.raises(asyncio.CancelledError):
        await task


def vote(key_id: bytes, height: int) -> Vote:
    return Vote(height - 1, bytes(32), height, bytes(32), key_id, bytes(64))


def test_votes_are_counted_by_key_and_the_highest_is_known() -> None:
    counters = Counters()
    for height in (5, 9, 7):
        counters.saw_vote(vote(b"a", height))
    counters.saw_vote(vote(b"b", 3))
    found = {key_id: (seen.count, seen.height) for key_id, seen in counters.votes.items()}
    assert found == {b"a": (3, 9), b"b": (1, 3)}


def test_keys_whose_votes_are_counted_are_bounded() -> None:
    counters = Counters()
    for number in range(2 * VOTERS_MAX):
        counters.saw_vote(vote(number.to_bytes(4), 1))
    assert len(counters.votes) == VOTERS_MAX
    assert (2 * VOTERS_MAX - 1).to_bytes(4) in counters.votes


def test_flags_of_what_is_taken_in_are_counted() -> None:
    counters = Counters()
    counters.took_in(make_record())
    before = counters.flagged["overlong-call"]
    counters.took_in(make_record(end_ms=make_record().setup_ms + 5 * 3_600_000))
    assert (before, counters.flagged["overlong-call"]) == (0, 1)
    assert list(counters.flagged) == list(FLAGS)
