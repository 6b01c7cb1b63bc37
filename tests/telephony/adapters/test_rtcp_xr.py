"""RFC 3611 VoIP metrics: values and whole blocks, what is unavailable, and what is no block at all."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import Levels, MosKind, Observer, QualityMethod, ReleasedBy
from ledger.errors import ConfigError, EncodingError, FieldError
from telephony.adapters.rtcp_xr import (
    BLOCK,
    BOUNDS,
    RtcpXrAdapter,
    decode_block,
    fraction_ppm,
    jitter_us_of,
    make_rtcp_xr,
    signed_24,
)
from telephony.joining import add_quality
from telephony.source import SourcePart, SourceReading, partial_call

ADAPTER = RtcpXrAdapter()
VALUES = {
    "loss_rate": 13,
    "discard_rate": 5,
    "burst_density": 128,
    "gap_density": 2,
    "burst_duration": 120,
    "gap_duration": 9000,
    "round_trip_delay": 85,
    "end_system_delay": 60,
    "signal_level": -21,
    "noise_level": -64,
    "rerl": 55,
    "gmin": 16,
    "r_factor": 82,
    "ext_r_factor": 127,
    "mos_lq": 41,
    "mos_cq": 40,
    "rx_config": 0b1011_0000,
    "jb_nominal": 40,
    "jb_maximum": 80,
    "jb_abs_max": 200,
}
HEAD = bytes.fromhex("07000008 1a3b5c7d")
WIRE = HEAD + bytes.fromhex("0d05 8002 0078 2328 0055 003c ebc0 3710 527f 2928 b000 0028 0050 00c8")
"""The same values by hand, octet for octet, after the figure in RFC 3611, 4.7."""


def parsed(**members: object) -> SourcePart:
    """Return the report of an object with these members, of the call ``c``."""
    return ADAPTER.parse(json.dumps({"call-id": "c", **members}).encode())


def reading(**members: object) -> SourceReading:
    """Return the mean of the only quality in a report."""
    (quality,) = parsed(mos_cq=40, **members).qualities
    return quality.average


def test_every_value():
    part = parsed(observer="callee", interarrival_jitter=80, **VALUES)
    (quality,) = part.qualities
    assert (quality.observer, quality.samples, quality.method) == (Observer.CALLEE, 1, QualityMethod.RFC3611)
    assert quality.average == SourceReading(4000, 85_000, 10_000, 50_781, None)
    assert (quality.kind, quality.r_milli) == (MosKind.CQ, 82_000)
    assert part.levels == Levels(-21, -64, 55, 128, 2, 120, 9000, 40, 80, 60)
    assert (part.join, part.call) == (("call-id", "c"), None)


def test_block_is_36_octets():
    assert (BLOCK.size, len(WIRE)) == (36, 36)


@pytest.mark.parametrize("text", [WIRE.hex(), WIRE.hex().upper(), base64.b64encode(WIRE).decode()])
def test_block_in_hex_and_base64(text):
    """The whole block says the same as its values one by one."""
    assert decode_block(text) == VALUES
    block, values = parsed(block=text), parsed(**VALUES)
    assert (block.qualities, block.levels) == (values.qualities, values.levels)


@given(st.tuples(*(st.integers(least, most) for least, most in BOUNDS.values())), st.integers(0, 255), st.booleans())
def test_every_block_is_read_back(values, reserved, as_hex):
    """Whatever the values, the block gives them back; the reserved octets mean nothing."""
    packed = struct.pack(">BBHI", 7, reserved, 8, 1) + struct.pack(
        ">BBBBHHHHbbBBBBBBBBHHH", *values[:17], reserved, *values[17:]
    )
    text = packed.hex() if as_hex else base64.b64encode(packed).decode()
    assert decode_block(text) == dict(zip(BOUNDS, values, strict=True))


@pytest.mark.parametrize(
    "block",
    [
        "",
        "zz",
        WIRE.hex()[2:],
        (b"\x06" + WIRE[1:]).hex(),
        (WIRE[:3] + b"\x09" + WIRE[4:]).hex(),
        "=" * 48,
        "\u0661" * 72,
    ],
)
def test_no_block(block):
    with pytest.raises(FieldError) as caught:
        decode_block(block)
    assert caught.value.where == "block"


def test_unavailable_is_unknown():
    """127, a reserved MOS and a delay of 0 are nothing that was measured."""
    part = parsed(mos_cq=127, mos_lq=41, r_factor=127, signal_level=127, noise_level=-64, rerl=127, end_system_delay=0)
    (quality,) = part.qualities
    assert (quality.kind, quality.average.mos_milli, quality.r_milli) == (MosKind.LQ, 4100, None)
    assert quality.average == SourceReading(4100, None, None, None, None)
    assert part.levels == Levels(None, -64, *[None] * 8)
    assert parsed(mos_lq=9, mos_cq=51, rerl=1).qualities == ()
    assert reading(round_trip_delay=0).rtt_us is None


@pytest.mark.parametrize(("rate", "ppm"), [(0, 0), (1, 3906), (13, 50_781), (128, 500_000), (255, 996_094)])
def test_fraction(rate, ppm):
    assert (fraction_ppm(rate), reading(loss_rate=rate).loss_ppm) == (ppm, ppm)


@pytest.mark.parametrize(
    ("value", "lost"), [(0, 0), (5, 5), (2**23 - 1, 2**23 - 1), (2**23, -(2**23)), (2**24 - 3, -3), (-3, -3)]
)
def test_cumulative_loss_has_a_sign(value, lost):
    assert signed_24(value) == lost


@pytest.mark.parametrize(("lost", "ppm"), [(3, 3000), (0, 0), (2**24 - 3, 0), (-3, 0), (1000, 1_000_000)])
def test_counts_come_before_the_rate(lost, ppm):
    """Duplicates can make the number lost negative: then nothing was lost."""
    assert reading(packets_lost=lost, packets_expected=1000, loss_rate=255).loss_ppm == ppm


@pytest.mark.parametrize(
    ("units", "clock_hz", "jitter_us"), [(80, 8000, 10_000), (1, 8000, 125), (1, 48_000, 21), (0, 90_000, 0)]
)
def test_jitter_is_in_units_of_the_clock(units, clock_hz, jitter_us):
    assert jitter_us_of(units, clock_hz) == jitter_us
    assert reading(interarrival_jitter=units, clock_rate=clock_hz).jitter_us == jitter_us


def test_jitter_beyond_a_record_is_unknown():
    """A broken clock gives such values; the rest of the report stands."""
    assert reading(interarrival_jitter=2**32 - 1).jitter_us is None


@pytest.mark.parametrize(("tag", "observer"), [("f", Observer.CALLER), ("t", Observer.CALLEE)])
@pytest.mark.parametrize("said", [True, False])
def test_reporter_known_by_its_tag(tag, observer, said):
    """The side is told by the call's tags, with or without being said."""
    call = partial_call("p", "c", "{}", from_tag="f", to_tag="t", released_by=ReleasedBy.CALLER)
    side = {"observer": observer.name.lower()} if said else {}
    joined = add_quality(call, [parsed(tag=tag, mos_cq=40, **side)])
    assert [quality.observer for quality in joined.qualities] == [observer]


def test_reporter_of_another_dialog():
    call = partial_call("p", "c", "{}", from_tag="f", to_tag="t")
    with pytest.raises(FieldError, match="another dialog"):
        add_quality(call, [parsed(tag="x", mos_cq=40)])


@pytest.mark.parametrize(
    ("members", "where"),
    [
        ({"call-id": "", "mos_cq": 40}, "call-id"),
        ({"observer": "both", "mos_cq": 40}, "observer"),
        ({"loss_rate": 256}, "loss_rate"),
        ({"signal_level": 128}, "signal_level"),
        ({"mos_cq": 4.1}, "mos_cq"),
        ({"samples": 0, "mos_cq": 40}, "samples"),
        ({"clock_rate": 0, "mos_cq": 40}, "clock_rate"),
        ({"packets_lost": 11, "packets_expected": 10, "mos_cq": 40}, "packets_lost"),
        ({"block": 7}, "block"),
        ({"block": WIRE.hex(), "mos_cq": 40}, "mos_cq"),
        ({}, "document"),
        ({"mos_cq": 127, "rerl": 127}, "document"),
    ],
)
def test_report_refused(members: dict[str, Any], where: str):
    """The error names the member at fault."""
    with pytest.raises(FieldError) as caught:
        parsed(**members)
    assert caught.value.where == where


def test_there_are_no_options():
    assert make_rtcp_xr({}).name == "rtcp-xr"
    with pytest.raises(ConfigError):
        make_rtcp_xr({"x": 1})


NAMES = st.sampled_from(
    [*BOUNDS, "block", "call-id", "observer", "tag", "packets_lost", "packets_expected", "clock_rate"]
)
ANYTHING = st.none() | st.booleans() | st.integers(-300, 70_000) | st.integers() | st.floats() | st.text(max_size=4)


@given(st.dictionaries(NAMES, ANYTHING, max_size=4))
def test_damaged_report_never_crashes(changes):
    """Real values with a few spoilt are read or refused; what is read is within bounds."""
    try:
        part = parsed(**{**VALUES, **changes})
    except EncodingError:
        return
    assert all(1000 <= quality.average.mos_milli <= 5000 for quality in part.qualities)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused(body):
    with pytest.raises(EncodingError):
        ADAPTER.check(body)
