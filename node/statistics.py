"""What final blocks add up to: by the minute for an hour, by the hour for a day, and altogether.

Pure and in integers. Headers say exactly how many records a block has and what they add up to; how MOS is spread, which
grid zones they used and how many calls were answered only the records say. Of a large block a part of them is read, so
a tally tells how many of its records were.

Source: docs/explorer.md, "What the figures are".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from ledger.block import Totals, is_void
from ledger.cdr import CallRecord
from ledger.models.rounding import divide_half_up

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
MINUTES_KEPT: Final = 60
HOURS_KEPT: Final = 24
RECENT_BLOCKS_MAX: Final = 1_200
"""Blocks kept one by one, for the rate of the last minute: slots are at least 50 ms."""

MOS_BIN_MILLI: Final = 100
MOS_BINS: Final = 40
"""From MOS 1.0 to 5.0; 5.0 itself is in the last one."""
ZONES_MAX: Final = 300
"""Grid zones of one tally, more than any table has; what lies beyond is counted as OTHER_ZONES."""
OTHER_ZONES: Final = "other"
_MOS_LEAST_MILLI: Final = 1_000


class _Reading(msgspec.Struct, array_like=True, gc=False):
    mos_milli: int


class _Quality(msgspec.Struct, array_like=True, gc=False):
    method: int
    band: int
    kind: int
    observer: int
    samples: int
    r_milli: int | None
    one_way_us: int | None
    packets_expected: int
    packets_lost: int
    packets_discarded: int
    loss_events: int
    mean: _Reading


class _Energy(msgspec.Struct, array_like=True, gc=False):
    method: int
    boundary: int
    device_class: int
    device_mj: int
    network_mj: int
    server_mj: int
    pue_milli: int
    grid_zone: str
    intensity_mg_per_kwh: int
    intensity_table: msgspec.Raw
    co2_ug: int


class _Record(msgspec.Struct, array_like=True, gc=False):
    """A call record as far as statistics want it: decoded in a third of the time, for it was checked on arrival."""

    version: int
    service: int
    leg: int
    party_commitment: msgspec.Raw
    call_commitment: msgspec.Raw
    setup_ms: int
    answer_ms: int
    end_ms: int
    sip_code: int
    q850_cause: int
    released_by: int
    codec: int
    packets_sent: int
    packets_received: int
    octets_sent: int
    octets_received: int
    quality: _Quality | None
    levels: msgspec.Raw
    energy: _Energy | None


assert _Record.__struct_fields__ == CallRecord.__struct_fields__
_decode_record = msgspec.msgpack.Decoder(_Record).decode


class MosKey(NamedTuple):
    """What MOS are comparable: ``ledger.cdr.QualityMethod``, ``MosKind`` and ``Band``."""

    method: int
    kind: int
    band: int


@dataclass(slots=True)
class MosFigures:
    """MOS of one key: how many, their sum and least in thousandths, and how many in each bin of 0.1."""

    count: int = 0
    sum_milli: int = 0
    minimum_milli: int = 5_000
    bins: list[int] = field(default_factory=lambda: [0] * MOS_BINS)

    def add(self, other: MosFigures) -> None:
        """Count those of ``other`` in."""
        self.count += other.count
        self.sum_milli += other.sum_milli
        self.minimum_milli = min(self.minimum_milli, other.minimum_milli)
        self.bins = [a + b for a, b in zip(self.bins, other.bins, strict=True)]


@dataclass(slots=True)
class ZoneFigures:
    """Energy of one grid zone: records, millijoules (servers with PUE) and micrograms of CO2e."""

    records: int = 0
    energy_mj: int = 0
    co2_ug: int = 0

    def add(self, other: ZoneFigures) -> None:
        """Count those of ``other`` in."""
        self.records += other.records
        self.energy_mj += other.energy_mj
        self.co2_ug += other.co2_ug


@dataclass(slots=True)
class Read:
    """What records that were read one by one say.

    Attributes:
        records: how many were read; void ones are not among them.
        answered: those with an answer, and ``talk_ms`` of them.
    """

    records: int = 0
    answered: int = 0
    talk_ms: int = 0
    mos: dict[MosKey, MosFigures] = field(default_factory=dict)
    zones: dict[str, ZoneFigures] = field(default_factory=dict)

    def add(self, other: Read) -> None:
        """Count those of ``other`` in."""
        self.records += other.records
        self.answered += other.answered
        self.talk_ms += other.talk_ms
        for key, figures in other.mos.items():
            self.mos.setdefault(key, MosFigures()).add(figures)
        for name, zone in other.zones.items():
            _zone_of(self.zones, name).add(zone)

    def add_items(self, items: Sequence[bytes], void_bitmap: bytes) -> None:
        """Count the encoded records of one transaction, but for void ones. Raises msgspec.DecodeError."""
        for index, item in enumerate(items):
            if void_bitmap and is_void(void_bitmap, index):
                continue
            record = _decode_record(item)
            self.records += 1
            if record.answer_ms:
                self.answered += 1
                self.talk_ms += max(0, record.end_ms - record.answer_ms)
            if record.quality is not None:
                self._add_quality(record.quality)
            if record.energy is not None:
                self._add_energy(record.energy)

    def _add_quality(self, quality: _Quality) -> None:
        key = MosKey(quality.method, quality.kind, quality.band)
        figures = self.mos.get(key)
        if figures is None:
            figures = self.mos[key] = MosFigures()
        mos_milli = quality.mean.mos_milli
        figures.count += 1
        figures.sum_milli += mos_milli
        figures.minimum_milli = min(figures.minimum_milli, mos_milli)
        figures.bins[min((mos_milli - _MOS_LEAST_MILLI) // MOS_BIN_MILLI, MOS_BINS - 1)] += 1

    def _add_energy(self, energy: _Energy) -> None:
        zone = self.zones.get(energy.grid_zone)
        if zone is None:
            zone = _zone_of(self.zones, energy.grid_zone)
        server_mj = divide_half_up(energy.server_mj * energy.pue_milli, 1000)
        zone.records += 1
        zone.energy_mj += energy.device_mj + energy.network_mj + server_mj
        zone.co2_ug += energy.co2_ug


def _zone_of(zones: dict[str, ZoneFigures], name: str) -> ZoneFigures:
    """Return the figures of a zone; of one too many, those of all that are."""
    if name not in zones and len(zones) >= ZONES_MAX:
        name = OTHER_ZONES
    return zones.setdefault(name, ZoneFigures())


@dataclass(slots=True)
class Tally:
    """What some blocks add up to. All but ``read`` is from their headers, and exact.

    Attributes:
        mos: count, sum and least in thousandths by method and kind, as headers have them.
        read: what those of the records say that were read.
    """

    blocks: int = 0
    transactions: int = 0
    records: int = 0
    void: int = 0
    talk_ms: int = 0
    octets: int = 0
    device_mj: int = 0
    network_mj: int = 0
    server_mj: int = 0
    co2_ug: int = 0
    mos: dict[tuple[int, int], tuple[int, int, int]] = field(default_factory=dict)
    read: Read = field(default_factory=Read)

    def add(self, other: Tally) -> None:
        """Count what ``other`` did."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for key, (count, sum_milli, minimum_milli) in other.mos.items():
            before = self.mos.get(key, (0, 0, minimum_milli))
            self.mos[key] = (before[0] + count, before[1] + sum_milli, min(before[2], minimum_milli))
        self.read.add(other.read)


_SUMS: Final = (
    "blocks", "transactions", "records", "void", "talk_ms", "octets", "device_mj", "network_mj", "server_mj", "co2_ug",
)  # fmt: skip


def tally_of(totals: Totals, transactions: int, read: Read) -> Tally:
    """Return the tally of one block of ``transactions``, of whose records ``read`` was read."""
    return Tally(
        1,
        transactions,
        totals.records,
        totals.void,
        totals.talk_ms,
        totals.octets,
        totals.device_mj,
        totals.network_mj,
        totals.server_mj,
        totals.co2_ug,
        {(m.method, m.kind): (m.count, m.sum_milli, m.minimum_milli) for m in totals.mos},
        read,
    )


def sum_of(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies."""
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


class Statistics:
    """What blocks add up to, in bounded memory; blocks may be added upwards and downwards from where it began.

    Attributes:
        all: every block that was added.
        first_height: the lowest of them, None before there is one.
        first_ms: its time.
    """

    def __init__(self) -> None:
        self.all = Tally()
        self.first_height: int | None = None
        self.first_ms = 0
        self._newest_ms = 0
        self._minutes: dict[int, Tally] = {}
        self._hours: dict[int, Tally] = {}
        self._recent: deque[tuple[int, int]] = deque(maxlen=RECENT_BLOCKS_MAX)

    def add(self, height: int, time_ms: int, tally: Tally) -> None:
        """Count a block, each once; ``time_ms``: of its slot, which grows with ``height``."""
        is_newest = self.first_height is None or time_ms >= self._newest_ms
        if self.first_height is None or height < self.first_height:
            self.first_height, self.first_ms = height, time_ms
        self.all.add(tally)
        if is_newest:
            self._newest_ms = time_ms
            self._recent.append((time_ms, tally.records))
        elif len(self._recent) < RECENT_BLOCKS_MAX:
            self._recent.appendleft((time_ms, tally.records))
        _add_to(self._minutes, time_ms // MINUTE_MS, tally, self._newest_ms // MINUTE_MS - MINUTES_KEPT)
        _add_to(self._hours, time_ms // HOUR_MS, tally, self._newest_ms // HOUR_MS - HOURS_KEPT)

    def records_since(self, since_ms: int) -> int:
        """Return how many records the blocks after ``since_ms`` have, at most a minute back or so."""
        return sum(records for time_ms, records in self._recent if time_ms > since_ms)

    def minutes(self, now_ms: int) -> list[tuple[int, Tally]]:
        """Return the last MINUTES_KEPT minutes, the present one included, each with its start; oldest first."""
        return _last(self._minutes, now_ms, MINUTE_MS, MINUTES_KEPT)

    def hours(self, now_ms: int) -> list[tuple[int, Tally]]:
        """Return the last HOURS_KEPT hours, the present one included, each with its start; oldest first."""
        return _last(self._hours, now_ms, HOUR_MS, HOURS_KEPT)


def _add_to(buckets: dict[int, Tally], number: int, tally: Tally, last_gone: int) -> None:
    """Add to a bucket unless it is too old, and let go of those that are."""
    if number <= last_gone:
        return
    if number not in buckets:
        for old in [other for other in buckets if other <= last_gone]:
            del buckets[old]
        buckets[number] = Tally()
    buckets[number].add(tally)


def _last(buckets: dict[int, Tally], now_ms: int, width_ms: int, count: int) -> list[tuple[int, Tally]]:
    last = now_ms // width_ms
    return [(n * width_ms, buckets.get(n) or Tally()) for n in range(last - count + 1, last + 1)]
