"""Statistics against sums made the plain way, from the records themselves."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.block import Totals, void_bitmap
from ledger.cdr import CallRecord, talk_ms
from ledger.codec import encode
from ledger.models.rounding import divide_half_up
from ledger.validation import totals_of
from node.statistics import (
    HOUR_MS,
    HOURS_KEPT,
    MINUTE_MS,
    MINUTES_KEPT,
    MOS_BINS,
    OTHER_ZONES,
    ZONES_MAX,
    MosFigures,
    MosKey,
    Read,
    Statistics,
    Tally,
    ZoneFigures,
    sum_of,
    tally_of,
)
from telephony.synthetic import Traffic, generate_records

RECORDS = list(islice(generate_records(Traffic(seed=5, start_ms=1_795_231_127_000)), 400))
NOW_MS = 1_795_250_000_000


def read(records: list[CallRecord], void: set[int] | None = None) -> Read:
    """Return what ``Read`` makes of records."""
    made = Read()
    made.add_items([encode(record) for record in records], void_bitmap(void or set(), len(records)))
    return made


def plain(records: list[CallRecord]) -> Read:
    """Return the same, field by field from the records."""
    made = Read(len(records), sum(r.answer_ms > 0 for r in records), sum(map(talk_ms, records)))
    for quality in [r.quality for r in records if r.quality is not None]:
        key = MosKey(int(quality.method), int(quality.kind), int(quality.band))
        values = [
            r.quality.mean.mos_milli
            for r in records
            if r.quality and (r.quality.method, r.quality.kind, r.quality.band) == key
        ]
        bins = [0] * MOS_BINS
        for value in values:
            bins[min((value - 1_000) // 100, 39)] += 1
        made.mos[key] = MosFigures(len(values), sum(values), min(values), bins)
    for zone in {r.energy.grid_zone for r in records if r.energy}:
        parts = [r.energy for r in records if r.energy and r.energy.grid_zone == zone]
        energy = sum(e.device_mj + e.network_mj + divide_half_up(e.server_mj * e.pue_milli, 1000) for e in parts)
        made.zones[zone] = ZoneFigures(len(parts), energy, sum(e.co2_ug for e in parts))
    return made


@given(st.sets(st.integers(0, 399), max_size=400))
def test_records_are_read_as_they_are_and_void_ones_are_not(void):
    kept = [record for index, record in enumerate(RECORDS) if index not in void]
    assert read(RECORDS, void) == plain(kept)


@given(st.lists(st.integers(1, 60), max_size=12))
def test_reading_in_parts_and_adding_up_is_reading_at_once(sizes):
    records = iter(RECORDS)
    parts = [list(islice(records, size)) for size in sizes]
    total = Read()
    for part in parts:
        total.add(read(part))
    assert total == read([record for part in parts for record in part])


def test_zones_of_a_sum_agree_with_the_totals_of_headers():
    found, totals = read(RECORDS), totals_of(RECORDS)
    assert sum(zone.co2_ug for zone in found.zones.values()) == totals.co2_ug
    assert sum(z.energy_mj for z in found.zones.values()) == totals.device_mj + totals.network_mj + totals.server_mj
    assert sum(figures.count for figures in found.mos.values()) == sum(m.count for m in totals.mos)
    assert found.talk_ms == totals.talk_ms


def test_zones_without_end_are_counted_together():
    total = Read()
    for number in range(ZONES_MAX + 7):
        total.add(Read(zones={f"Z{number}": ZoneFigures(1, 2, 3)}))
    assert len(total.zones) == ZONES_MAX + 1
    assert total.zones[OTHER_ZONES] == ZoneFigures(7, 14, 21)


def block(records: list[CallRecord]) -> Tally:
    return tally_of(totals_of(records), 1, read(records))


def test_blocks_may_be_added_upwards_and_downwards():
    tallies = [block(RECORDS[i : i + 40]) for i in range(0, 400, 40)]
    times = [NOW_MS - (10 - i) * 17_000 for i in range(10)]
    upwards, around = Statistics(), Statistics()
    for i in range(10):
        upwards.add(i + 1, times[i], tallies[i])
    for i in (6, 7, 5, 4, 8, 3, 9, 2, 1, 0):
        around.add(i + 1, times[i], tallies[i])
    assert around.all == upwards.all == sum_of(tallies)
    assert around.minutes(NOW_MS) == upwards.minutes(NOW_MS)
    assert around.hours(NOW_MS) == upwards.hours(NOW_MS)
    assert (around.first_height, around.first_ms) == (1, times[0])
    for since_ms in (NOW_MS - 60_000, 0, NOW_MS):
        assert around.records_since(since_ms) == upwards.records_since(since_ms)
    assert upwards.records_since(NOW_MS - 60_000) == 40 * sum(time > NOW_MS - 60_000 for time in times)


@pytest.mark.parametrize(
    ("width_ms", "kept", "name"), [(MINUTE_MS, MINUTES_KEPT, "minutes"), (HOUR_MS, HOURS_KEPT, "hours")]
)
def test_what_is_older_than_kept_is_in_the_sum_alone(width_ms, kept, name):
    statistics = Statistics()
    start = NOW_MS // width_ms * width_ms
    one = tally_of(Totals(1, 0, 0, 0, 0, 0, 0, 0, []), 1, Read())
    for number in range(3 * kept):
        statistics.add(number + 1, start + number * width_ms, one)
    now_ms = start + (3 * kept - 1) * width_ms + 5
    buckets = getattr(statistics, name)(now_ms)
    assert [when for when, _ in buckets] == [start + n * width_ms for n in range(2 * kept, 3 * kept)]
    assert [tally.records for _, tally in buckets] == [1] * kept
    assert statistics.all.records == 3 * kept
    later = getattr(statistics, name)(now_ms + 2 * width_ms)
    assert [tally.records for _, tally in later] == [1] * (kept - 2) + [0, 0]
    assert len(statistics._minutes) <= MINUTES_KEPT + 1
    assert len(statistics._hours) <= HOURS_KEPT + 1


def test_an_old_block_does_not_come_back():
    statistics = Statistics()
    statistics.add(9, NOW_MS, block(RECORDS[:10]))
    statistics.add(8, NOW_MS - 25 * HOUR_MS, block(RECORDS[10:20]))
    assert sum(tally.records for _, tally in statistics.hours(NOW_MS)) == 10
    assert statistics.all.records == 20
