"""Delay budgets that anybody can add up."""

import pytest

from ledger.errors import FieldError
from ledger.models import delay, emodel
from ledger.models.delay import Part
from ledger.models.tables import CODECS


def test_a_transatlantic_call_with_g729():
    parts = [
        *delay.coding("G729A", 20_000),
        delay.propagation("fibre", 300),
        delay.propagation("submarine cable", 6_000),
        delay.equipment("digital transit exchange", 3),
        delay.equipment("echo canceller", 2),
        delay.equipment("DCME pair"),
        delay.jitter_buffer(40_000),
    ]
    assert parts == [
        Part("packetisation", 20_000),
        Part("codec look-ahead", 5_000),
        Part("codec processing", 10_000),
        Part("300 km fibre", 1_500),
        Part("6000 km submarine cable", 36_000),
        Part("3 x digital transit exchange", 1_350),
        Part("2 x echo canceller", 1_000),
        Part("1 x DCME pair", 30_000),
        Part("jitter buffer", 40_000),
    ]
    assert delay.total_us(parts) == 144_850
    assert emodel.idd_milli(delay.total_us(parts)) == 96


def test_a_geostationary_hop_alone_costs_ten_points():
    hop = delay.satellite(36_000)
    assert hop == Part("1 x satellite at 36000 km", 260_000)
    assert emodel.idd_milli(hop.us) == 10_136
    assert [delay.satellite(height, 2).us for height in (400, 14_000)] == [24_000, 220_000]


@pytest.mark.parametrize(
    ("medium", "us"), [("cable", 4_000), ("radio relay", 4_000), ("fibre", 5_000), ("submarine cable", 6_000)]
)
def test_a_thousand_kilometres(medium, us):
    assert delay.propagation(medium, 1_000).us == us


@pytest.mark.parametrize(
    ("name", "us"),
    [("channel modem", 750), ("transmultiplexer", 1_500), ("echo canceller", 500), ("digital transit exchange", 450)],
)
def test_equipment(name, us):
    assert delay.equipment(name).us == us


def test_algorithmic_delay_is_g_114s():
    # (N + 1) frames and the look-ahead: G.729 with two frames 35 ms, G.723.1 with one 67.5 ms.
    assert delay.total_us(delay.coding("G729", 20_000)) == 35_000
    assert delay.total_us(delay.coding("G723-6.3", 30_000)) == 67_500
    assert delay.total_us(delay.coding("PCMU", 20_000)) == 20_125


def test_a_codec_without_a_figure_has_its_packets_alone():
    assert delay.coding("opus", 20_000) == [Part("packetisation", 20_000)]


def test_codecs_named_are_in_the_registry_and_their_packets_are_whole_frames():
    named = [codec for codec in CODECS.values() if codec.name in delay.LOOK_AHEAD_US]
    assert {codec.name for codec in named} == set(delay.LOOK_AHEAD_US)
    assert [codec.name for codec in named if codec.packet_us % delay.LOOK_AHEAD_US[codec.name][0]] == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: delay.propagation("string", 1),
        lambda: delay.propagation("fibre", -1),
        lambda: delay.propagation("fibre", delay.KM_MAX + 1),
        lambda: delay.satellite(35_786),
        lambda: delay.satellite(36_000, 5),
        lambda: delay.equipment("kettle"),
        lambda: delay.equipment("echo canceller", -1),
        lambda: delay.coding("PCMU", -1),
        lambda: delay.jitter_buffer(-1),
    ],
)
def test_what_cannot_be_is_said(make):
    with pytest.raises(FieldError):
        make()
