"""The integer E-model against 490 vectors, an independent floating-point G.107, and its own bounds."""

import csv
import subprocess
import sys
from math import atan2, cos, pi, sqrt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import FieldError
from ledger.models import emodel
from ledger.models.tables import CODECS
from tests.ledger.models import float_emodel

ROOT = Path(__file__).resolve().parents[3]
VECTORS = list(csv.DictReader((ROOT / "tests" / "vectors" / "g107.csv").read_text(encoding="ascii").splitlines()))


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
    assert round(float_emodel.narrowband_r(0, 4.3, 0, 1, 0), 6) == 93.206208
    assert round(float_emodel.mos(float_emodel.narrowband_r(0, 4.3, 0, 1, 0)), 6) == 4.409406


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
    oracle = float_emodel.narrowband_r(
        codec.ie_milli / 1000,
        codec.bpl_milli / 1000,
        100 * lost / expected,
        burst_milli / 1000,
        one_way_us / 1000,
    )
    # Three roundings of half a thousandth, R0 0.0002 off, and up to 0.00025 between the chord and the curve of Idd.
    assert abs(r / 1000 - oracle) <= 0.002
    assert abs(emodel.mos_micro(r) / 1e6 - float_emodel.mos(oracle)) <= 0.00011


def test_idd_table_is_as_computed():
    check = [sys.executable, str(ROOT / "scripts" / "make-tables"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "g107_idd.csv: as computed\ntables.js: as computed\n"), done.stderr


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


def closed_r(mos):
    """R of a MOS by the closed form of G.107 Appendix I."""
    h = atan2(15 * sqrt(max(0.0, -903522 + 1113960 * mos - 202500 * mos * mos)), 18566 - 6750 * mos) / 3
    return 20 / 3 * (8 - sqrt(226) * cos(h + pi / 3))


@given(st.integers(emodel.R_MILLI_OF_MOS_1, emodel.R_MILLI_MAX))
def test_r_of_mos_inverts_mos_of_r(r_milli):
    assert emodel.r_milli_of(emodel.mos_micro(r_milli)) == r_milli


@given(st.integers(emodel.MOS_MICRO_MIN, emodel.MOS_MICRO_MAX))
def test_r_of_mos_is_the_closed_form(mos):
    # At the lower end a millionth of MOS is a seventh of a thousandth of R.
    assert abs(emodel.r_milli_of(mos) / 1000 - closed_r(mos / 1e6)) <= 0.0012


def test_every_mos_of_a_record_comes_back_from_its_r():
    back = [emodel.mos_milli(emodel.r_milli_of(1000 * mos_milli)) for mos_milli in range(1_000, 4_501)]
    assert back == list(range(1_000, 4_501))


@pytest.mark.parametrize("mos", [0, emodel.MOS_MICRO_MIN - 1, emodel.MOS_MICRO_MAX + 1])
def test_no_r_outside_the_scale_of_mos(mos):
    with pytest.raises(FieldError, match="no R has this MOS"):
        emodel.r_milli_of(mos)
