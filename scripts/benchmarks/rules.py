"""What one record costs before it is signed: its quality rated, its energy reckoned, and all rules asked.

The mix is that of ``telephony.synthetic``: about half of the calls answered, a fifth of those without quality, half of
the rest rated by the E-model and half by rtpengine's formula.
"""

from __future__ import annotations

import gc
import time
from itertools import islice

from ledger.cdr import CallRecord, QualityMethod, talk_ms
from ledger.models import carbon, emodel, energy, rtpengine
from ledger.models.tables import CODECS
from ledger.rules.base import Check
from ledger.rules.ruleset import RuleSet, default_rule_set_pin
from telephony.synthetic import Traffic, generate_records

RECORDS = 1_000
"""No more than a core's cache holds: a record is rated and checked right after it was made, not fetched from afar."""
CHUNK = 50
"""Records timed at once, for some 200 us: less than the time after which another process may get the core."""
ROUNDS = 400
"""The best round of each chunk counts: what else the machine does is no cost of a record."""
START_MS = 1_767_225_600_000


def measure_rules(records: int = RECORDS, rounds: int = ROUNDS) -> float:
    """Return microseconds for quality, energy and rules of one record, the mean of the whole mix.

    records: 1 or more, made before the clock starts. Takes about 5 ms a round with the default. The caller binds the
    process to a core where it wants that.
    """
    made = list(islice(generate_records(Traffic(seed=4, start_ms=START_MS)), records))
    check = RuleSet(default_rule_set_pin("lifecycle"), carbon_basis="lifecycle").check_record
    chunks = [made[first : first + CHUNK] for first in range(0, records, CHUNK)]
    best_ns = [
        min(times)
        for times in zip(*[[_round_ns(chunk, check) for chunk in chunks] for _ in range(rounds)], strict=True)
    ]
    return sum(best_ns) / 1000 / records


def _round_ns(records: list[CallRecord], check: Check) -> int:
    gc.disable()
    try:
        started_ns = time.perf_counter_ns()
        for record in records:
            rate(record)
            reckon(record)
            if check(record) is not None:
                raise SystemExit(f"a made-up record breaks a rule: {check(record)}")
        return time.perf_counter_ns() - started_ns
    finally:
        gc.enable()


def rate(record: CallRecord) -> int:
    """Return the MOS, in thousandths, that the record's method gives for its figures; 0 where it has none."""
    quality = record.quality
    if quality is None:
        return 0
    if quality.method is QualityMethod.RTPENGINE_10:
        worst = quality.worst or quality.mean
        return rtpengine.mos_milli(worst.rtt_us, worst.jitter_us, worst.loss_ppm)
    codec = CODECS[record.codec]
    if codec.ie_milli is None or codec.bpl_milli is None or quality.one_way_us is None:
        return 0
    rating = emodel.rate(
        codec.ie_milli,
        codec.bpl_milli,
        lost=quality.packets_lost,
        expected=quality.packets_expected,
        loss_events=quality.loss_events,
        one_way_us=quality.one_way_us,
    )
    return rating[1] if rating else 0


def reckon(record: CallRecord) -> int:
    """Return the CO2 in micrograms of a record by its method, device and zone; 0 where it has no energy."""
    used = record.energy
    if used is None:
        return 0
    duration_ms = talk_ms(record)
    _, most_mw = energy.DEVICE_POWER_MW[used.device_class]
    device_mj = energy.power_mj(most_mw, duration_ms)
    octets = record.octets_sent + record.octets_received
    network_mj = energy.network_mj(used.method, used.boundary, octets, duration_ms)
    intensity = carbon.intensity_mg_per_kwh(used.intensity_table, used.grid_zone) or 0
    return carbon.co2_ug(energy.total_mj(device_mj, network_mj, used.server_mj, used.pue_milli), intensity)
