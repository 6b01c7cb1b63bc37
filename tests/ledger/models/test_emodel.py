"""The integer E-model against 490 vectors, an independent floating-point G.107, and its own bounds."""

import csv
import subprocess
import sys
from math import exp, log2, log10, sqrt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.models import emodel
from ledger.models.tables import CODECS

ROOT = Path(__file__).resolve().parents[3]
VECTORS = list(csv.DictReader((ROOT / "tests" / "vectors" / "g107.csv").read_text(encoding="ascii").splitlines()))


def float_idd(ta_ms):
    if ta_ms <= 100:
        return 0.0
    x = log2(ta_ms / 100)
    return 25 * ((1 + x**6) ** (1 / 6) - 3 * (1 + (x / 3) ** 6) ** (1 / 6) + 2)


def float_r(ie, bpl, loss_percent, burst, ta_ms):
    """G.107 (06/2015) in full, every parameter but these five at its default, perfect echo control."""
    slr, rlr, stmr, ds, dr, telr, wepl, qdu = 8, 2, 15, 3, 3, 65, 110, 1
    nc, nfor, ps, pr = -70, -64, 35, 35
    olr = slr + rlr
    nos = ps - slr - ds - 100 + 0.004 * (ps - olr - ds - 14) ** 2
    pre = pr + 10 * log10(1 + 10 ** ((10 - (stmr + dr)) / 10))
    nor = rlr - 121 + pre + 0.008 * (pre - 35) ** 2
    no = 10 * log10(sum(10 ** (n / 10) for n in (nc, nos, nor, nfor + rlr)))
    ro = 15 - 1.5 * (slr + no)
    xolr = olr + 0.2 * (64 + no - rlr)
    iolr = 20 * ((1 + (xolr / 8) ** 8) ** (1 / 8) - xolr / 8)
    stmro = -10 * log10(10 ** (-stmr / 10) + exp(0) * 10 ** (-telr / 10))
    ist = (
        12 * (1 + ((stmro - 13) / 6) ** 8) ** (1 / 8)
        - 28 * (1 + ((stmro + 1) / 19.4) ** 35) ** (1 / 35)
        - 13 * (1 + ((stmro - 3) / 33) ** 13) ** (1 / 13)
        + 29
    )
    q = 37 - 15 * log10(qdu)
    g = 1.07 + 0.258 * q + 0.0602 * q**2
    iq = 15 * log10(1 + 10 ** ((ro - 100) / 15 + 46 / 8.4 - g / 9) + 10 ** (46 / 30 - g / 40))
    rle = 10.5 * (wepl + 7)
    idle = (ro - rle) / 2 + sqrt((ro - rle) ** 2 / 4 + 169)
    ie_eff = ie + (95 - ie) * loss_percent / (loss_percent / burst + bpl)
    return ro - (iolr + ist + iq) - idle - float_idd(ta_ms) - ie_eff


def float_mos(r):
    if r <= 0:
        return 1.0
    r = min(r, 100.0)
    return min(4.5, max(1.0, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6))


def inputs(row):
    ie, bpl = round(1000 * float(row["Ie"])), round(1000 * float(row["Bpl"]))
    counters = [int(row[name]) for name in ("lost", "expected", "burstR_milli", "Ta_us")]
    return ie, bpl, *counters


def test_there_are_490_vectors():
    assert len(VECTORS) == 490


def test_vectors_are_reproduced_exactly():
    for row in VECTORS:
        *head, one_way_us = inputs(row)
        r = emodel.r_milli_unclamped(*head, one_way_us=one_way_us)
        mos = emodel.mos_micro(max(0, min(100_000, r)))
        assert (int(row["R_milli_int"]), int(row["MOS_micro_int"])) == (r, mos), row


def test_vectors_lie_beside_the_floating_model():
    for row in VECTORS:
        *head, one_way_us = inputs(row)
        r = emodel.r_milli_unclamped(*head, one_way_us=one_way_us)
        assert abs(r / 1000 - float(row["R_float"])) <= 0.0017, row
        mos = max(1.0, float(row["MOS_float"]))
        assert abs(emodel.mos_micro(r) / 1e6 - mos) <= 0.00009, row


def test_oracle_has_the_default_r_and_mos():
    assert round(float_r(0, 4.3, 0, 1, 0), 6) == 93.206208
    assert round(float_mos(float_r(0, 4.3, 0, 1, 0)), 6) == 4.409406


@given(
    codec=st.sampled_from([codec for codec in CODECS.values() if codec.is_ratable]),
    expected=st.integers(1, 10**7),
    lost_ppm=st.integers(0, 10**6),
    events_ppm=st.integers(0, 10**6),
    one_way_us=st.integers(0, emodel.ONE_WAY_US_MAX),
)
def test_integer_model_follows_the_floating_model(codec, expected, lost_ppm, events_ppm, one_way_us):
    lost = expected * lost_ppm // 10**6
    events = max(1, lost * events_ppm // 10**6) if lost else 0
    burst_milli = emodel.burst_ratio_milli(lost, expected, events)
    r = emodel.r_milli_unclamped(codec.ie_milli, codec.bpl_milli, lost, expected, burst_milli, one_way_us=one_way_us)
    oracle = float_r(
        codec.ie_milli / 1000,
        codec.bpl_milli / 1000,
        100 * lost / expected,
        burst_milli / 1000,
        one_way_us / 1000,
    )
    # Linear interpolation and four roundings: half a thousandth each, and the chord under the curve.
    assert abs(r / 1000 - oracle) <= 0.0025
    assert abs(emodel.mos_micro(r) / 1e6 - float_mos(oracle)) <= 0.00015


def test_idd_table_is_as_computed():
    check = [sys.executable, str(ROOT / "scripts" / "make-tables"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "g107_idd.csv: as computed\n"), done.stderr


def test_idd_is_interpolated_and_never_falls():
    assert emodel.idd_milli(100_000) == 0
    assert emodel.idd_milli(150_000) == 164
    assert emodel.idd_milli(150_500) == 172
    values = [emodel.idd_milli(us) for us in range(0, 2_000_001, 250)]
    assert values == sorted(values)
    assert emodel.idd_milli(2_000_000) == 48_076


def test_burst_ratio_of_random_loss_is_one_and_of_bursts_more():
    assert emodel.burst_ratio_milli(0, 1000, 0) == 1000
    assert emodel.burst_ratio_milli(100, 10_000, 99) == 1000
    assert emodel.burst_ratio_milli(100, 10_000, 25) == 3960
    assert emodel.burst_ratio_milli(1000, 1000, 1) == 1000


def test_mos_is_clamped_at_both_ends():
    assert emodel.mos_micro(-5) == 1_000_000
    assert emodel.mos_micro(3_000) == 1_000_000
    assert emodel.mos_micro(100_000) == 4_500_000
    assert emodel.mos_micro(148_000) == 4_500_000
    assert emodel.mos_milli(emodel.R0_MILLI) == 4_409


def test_rate_of_a_clean_call():
    assert emodel.rate(0, 4_300, lost=0, expected=15_000, loss_events=0, one_way_us=20_000) == (93_206, 4_409)


def test_rate_clamps_r_at_zero():
    assert emodel.rate(5_000, 10_000, lost=7_500, expected=15_000, loss_events=1, one_way_us=1_000_000) == (
        0,
        1_000,
    )


@pytest.mark.parametrize(
    ("lost", "expected", "loss_events", "one_way_us"),
    [
        (0, 100, 0, 2_000_001),
        (0, 100, 0, -1),
        (0, 0, 0, 0),
        (1, 100, 0, 0),
        (1, 100, 2, 0),
        (0, 100, 1, 0),
        (101, 100, 1, 0),
        (-1, 100, 0, 0),
        (1, 100, -1, 0),
    ],
)
def test_what_contradicts_itself_is_unratable(lost, expected, loss_events, one_way_us):
    rated = emodel.rate(0, 4_300, lost=lost, expected=expected, loss_events=loss_events, one_way_us=one_way_us)
    assert rated is None


@given(
    codec=st.sampled_from([codec for codec in CODECS.values() if codec.is_ratable]),
    received=st.integers(0, 10**6),
    lost=st.integers(0, 10**6),
    events=st.integers(1, 10**6),
    one_way_us=st.integers(0, emodel.ONE_WAY_US_MAX),
)
def test_rate_is_the_parts_put_together(codec, received, lost, events, one_way_us):
    expected = received + lost + 1
    events = min(events, lost)
    head = codec.ie_milli, codec.bpl_milli
    burst_milli = emodel.burst_ratio_milli(lost, expected, events)
    r = emodel.r_milli_unclamped(*head, lost, expected, burst_milli, one_way_us=one_way_us)
    rated = emodel.rate(*head, lost=lost, expected=expected, loss_events=events, one_way_us=one_way_us)
    assert (max(0, r), emodel.mos_milli(r)) == rated


def test_looking_mos_up_is_the_cubic():
    steps = emodel._MOS_STEPS_R_MILLI
    assert emodel.mos_milli(emodel.R0_MILLI) == emodel.MOS_MILLI_MIN + len(steps)
    for mos_milli, r_milli in enumerate(steps, emodel.MOS_MILLI_MIN + 1):
        assert emodel.mos_milli(r_milli - 1) == mos_milli - 1
        assert emodel.mos_milli(r_milli) == mos_milli
    assert steps == sorted(steps)
