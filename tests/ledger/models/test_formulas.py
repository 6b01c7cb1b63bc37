"""The formulas in use, each computed over the same ten networks: the table of ``docs/quality.md``."""

import csv
from math import floor, log
from pathlib import Path

import pytest

from ledger.models import emodel, rtpengine, rtpengine13
from ledger.models.tables import CODECS
from tests.ledger.models import float_emodel

ROOT = Path(__file__).resolve().parents[3]
ROWS = list(csv.DictReader((ROOT / "tests" / "vectors" / "mos_formulas.csv").read_text(encoding="ascii").splitlines()))
INPUTS = ("rtt_ms", "jitter_ms", "loss_percent")


def cut(r):
    """MOS as most programs compute it: cut off outside R 0 to 100."""
    return 1.0 if r < 0 else 4.5 if r > 100 else float_emodel.cubic(r)


def by_effective_latency(latency_ms, r0=93.2):
    """The rule of thumb before losses: a fortieth of a point for each ms below 160, a tenth from there on."""
    return r0 - latency_ms / 40 if latency_ms < 160 else r0 - (latency_ms - 120) / 10


def pingplotter(rtt, jitter, loss):
    return round(cut(by_effective_latency(rtt + 2 * jitter + 10) - 2.5 * loss), 2)


def pingplotter_one_way(rtt, jitter, loss):
    return pingplotter(rtt / 2, jitter, loss)


def rtpengine_10(rtt, jitter, loss):
    return rtpengine.mos_x10(1000 * rtt, 1000 * jitter, 10_000 * loss) / 10


def rtpengine_13(rtt, jitter, loss):
    return rtpengine13.mos_x10(1000 * rtt, 1000 * jitter, 10_000 * loss) / 10


def rtpengine_13_opus(rtt, jitter, loss):
    return rtpengine13.mos_x10_fullband(1000 * rtt, 1000 * jitter, 10_000 * loss) / 10


def asterisk(rtt, jitter, deviation, loss):
    return round(cut(by_effective_latency(rtt + 2 * jitter * deviation / 3 + 10) - 2 * loss), 2)


def asterisk_seconds(rtt, jitter, loss):
    """As its source has it: jitter in seconds, beside a latency in milliseconds, so it counts for nothing."""
    return asterisk(rtt, jitter / 1000, jitter / 1000, loss)


def asterisk_ms(rtt, jitter, loss):
    """With jitter in milliseconds, and half the round trip for the latency."""
    return asterisk(rtt / 2, jitter, jitter, loss)


def twilio(rtt, jitter, loss):
    """R0 before anything simultaneous, and no R below 6.52."""
    latency = rtt + 2 * jitter + 10
    r = by_effective_latency(latency, 94.768) if latency < 1000 else 0
    return round(float_emodel.cubic(max(r - 2.5 * loss, 6.52) if loss <= r / 2.5 else 0), 2)


def voipmonitor(_rtt, _jitter, loss):
    """Loss alone, by a cubic of its own."""
    if not loss:
        return 4.5
    r = 93.2062077233 - 95 * loss / (loss + 17.2647)
    return round(min(4.5, max(1.0, 2.06405 + 0.031738 * r - 0.000356641 * r**2 + 2.93143e-6 * r**3)), 2)


def browser_score(rtt, jitter, loss, beyond_150_ms):
    """Opus with error correction, no bit rate known; R is not cut off, so what is far below 0 is MOS 5."""
    delay = 20 + 2 * jitter + rtt / 2
    ie_eff = 6 + 94 * loss / (loss + 20)
    r = 100 - ie_eff - 0.03 * delay - (beyond_150_ms(delay) if delay > 150 else 0)
    return min(5.0, max(1.0, floor(100 * float_emodel.cubic(r) + 0.5) / 100))


def rtcscore_1(rtt, jitter, loss):
    """The first version: the excess over 150 ms squared."""
    return browser_score(rtt, jitter, loss, lambda delay: 0.1 * (delay - 150) ** 2)


def livekit_1(rtt, jitter, loss):
    """The first version: a tenth of the whole delay from 150 ms on."""
    return browser_score(rtt, jitter, loss, lambda delay: 0.1 * delay)


def one_way(rtt, jitter):
    """Half the round trip, a buffer of twice the jitter, packets of 20 ms."""
    return rtt / 2 + 2 * jitter + 20


def cole_rosenbluth(rtt, jitter, loss):
    """R. Cole, J. Rosenbluth: Voice over IP performance monitoring, 2001, G.711."""
    delay = one_way(rtt, jitter)
    r = 94.2 - 0.024 * delay - 0.11 * max(0.0, delay - 177.3) - 30 * log(1 + 15 * loss / 100)
    return round(cut(r), 2)


def g107(row, rtt, jitter, loss):
    codec = CODECS[row]
    one_way_us = round(1000 * one_way(rtt, jitter))
    head = codec.ie_milli, codec.bpl_milli, loss, 100, emodel.RANDOM_MILLI
    return round(emodel.mos_micro(emodel.r_milli_unclamped(*head, one_way_us=one_way_us)) / 1_000_000, 2)


def g107_pcmu_plc(rtt, jitter, loss):
    return g107(2, rtt, jitter, loss)


def g107_pcmu(rtt, jitter, loss):
    return g107(1, rtt, jitter, loss)


def g107_g729a(rtt, jitter, loss):
    return g107(20, rtt, jitter, loss)


FORMULAS = (
    pingplotter,
    pingplotter_one_way,
    rtpengine_10,
    rtpengine_13,
    rtpengine_13_opus,
    asterisk_seconds,
    asterisk_ms,
    twilio,
    voipmonitor,
    rtcscore_1,
    livekit_1,
    cole_rosenbluth,
    g107_pcmu_plc,
    g107_pcmu,
    g107_g729a,
)


def test_the_table_has_ten_networks_and_a_column_for_each_formula():
    assert len(ROWS) == 10
    assert tuple(ROWS[0]) == (*INPUTS, *(formula.__name__ for formula in FORMULAS))


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda formula: formula.__name__)
def test_the_table_is_what_the_formula_gives(formula):
    computed = [formula(*(int(row[name]) for name in INPUTS)) for row in ROWS]
    assert [float(row[formula.__name__]) for row in ROWS] == computed


def test_formulas_in_use_differ_by_up_to_four():
    spreads = []
    for row in ROWS:
        values = [float(row[formula.__name__]) for formula in FORMULAS]
        spreads.append(max(values) - min(values))
    assert max(spreads) == 4.0


def test_the_guide_shows_this_table():
    guide = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    for formula in FORMULAS:
        line = next(line for line in guide.splitlines() if line.startswith(f"| `{formula.__name__}` |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[2:] == [row[formula.__name__] for row in ROWS]
