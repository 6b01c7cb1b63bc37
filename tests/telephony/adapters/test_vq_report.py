"""RFC 6035 reports: as the RFC has them, as phones and browsers write them, and as nobody should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import Band, Levels, MosKind, Observer, QualityMethod
from ledger.commitment import PRIVATE_TEXT_MAX
from ledger.errors import ConfigError, EncodingError, FieldError
from telephony.adapters.vq_report import VqReportAdapter, make_vq_report
from telephony.source import PartRole, SourcePart, SourceReading

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vq-reports"
RFC, PHONE, WEB, INTERVAL = (
    (FIXTURES / f"{name}.txt").read_bytes()
    for name in ("rfc6035-session", "desk-phone", "web-client-without-mos", "interval")
)
ADAPTER = VqReportAdapter()


def parsed(report: bytes) -> SourcePart:
    return ADAPTER.parse(report)


def with_line(line: str) -> bytes:
    """Return a short report with one line more in its local metrics."""
    return f"VQSessionReport: CallTerm\r\nCallID: c\r\nLocalMetrics:\r\n{line}\r\nQualityEst:MOSCQ=4.0\r\n".encode()


def local(line: str) -> Any:
    """Return the quality that a short report with one line more has."""
    (quality,) = parsed(with_line(line)).qualities
    return quality


def test_report_as_the_rfc_has_it():
    """Every figure of the example lands where it belongs, the caller's and what it was told of the callee's."""
    part = parsed(RFC)
    assert (part.role, part.join, part.call) == (PartRole.QUALITY, ("call-id", "6dg37f1890463"), None)
    here, there = part.qualities
    assert (here.observer, here.samples, here.kind, here.band) == (Observer.CALLER, 1, MosKind.CQ, Band.NARROWBAND)
    assert here.average == SourceReading(4000, 200_000, 2000, 50_000, None)
    assert (here.method, here.r_milli, here.one_way_us) == (QualityMethod.RFC3611, 85_000, 200_000)
    assert (there.observer, there.average) == (Observer.CALLEE, SourceReading(4200, 210_000, 4000, 2500, None))
    assert part.levels == Levels(
        signal_dbm0=-18,
        noise_dbm0=-50,
        rerl_db=55,
        burst_density=0,
        gap_density=5,
        burst_ms=0,
        gap_ms=500,
        jitter_buffer_ms=40,
        jitter_buffer_max_ms=80,
        end_system_delay_ms=140,
    )
    assert part.raw == RFC.decode()


def test_report_of_a_desk_phone():
    """Lines in another order, no spaces, 127 for what is not known, a gap longer than a record can hold."""
    part = parsed(PHONE)
    (quality,) = part.qualities
    assert part.join == ("call-id", "329662837@192.0.2.21")
    assert quality.observer is Observer.CALLEE
    assert quality.average == SourceReading(3800, None, 0, 0, None)
    assert (quality.r_milli, quality.one_way_us) == (92_000, 88_000)
    assert part.levels == Levels(-21, -64, None, 2, 0, 60, 65_535, 40, 40, 177)


def test_client_that_computes_no_mos():
    """A MOS of 0 is none; the buffer it did measure is kept."""
    part = parsed(WEB)
    assert part.qualities == ()
    assert part.levels == Levels(None, None, None, 0, 0, 0, 0, 12, 30, None)


def test_interval_report_is_no_report_of_the_call():
    """Its figures are of a stretch: without a number of reports they never win over those of the call."""
    (quality,) = parsed(INTERVAL).qualities
    assert (quality.samples, quality.observer, quality.average.mos_milli) == (None, Observer.UNKNOWN, 4100)


def test_levels_of_a_stretch_are_not_those_of_the_call():
    """They stay in the raw record; a report of nothing else is kept all the same, since it was measured."""
    stretch = RFC.replace(b"VQSessionReport", b"VQIntervalReport")
    assert (parsed(RFC).levels is not None, parsed(stretch).levels) == (True, None)
    part = parsed(b"VQIntervalReport\nCallID:c\nSignal:SL=-20")
    assert (part.qualities, part.levels) == ((), None)


def test_order_of_lines_does_not_matter():
    """Within each block lines may stand in any order, and names in any letters."""
    head, _, rest = RFC.decode().replace("\r\n  ", " ").partition("LocalMetrics:\r\n")
    here, _, there = rest.partition("RemoteMetrics:\r\n")
    mixed = "\n".join(
        [
            "LOCALMETRICS :",
            *(line.upper().replace(":", " : ", 1) for line in reversed(here.splitlines())),
            "remotemetrics:",
            *reversed(there.splitlines()),
            *reversed(head.splitlines()),
        ]
    )
    part, expected = parsed(mixed.encode()), parsed(RFC)
    assert (part.qualities, part.levels, part.join) == (expected.qualities, expected.levels, expected.join)


@pytest.mark.parametrize("name", ["Metrics:", "LocalMetrics:", "localmetrics", ""])
def test_names_of_the_local_block(name):
    text = f"VQAlertReport: Type=NLR Severity=Critical Dir=local\nCallID:c\n{name}\nQualityEst: MOSLQ = 3.5 RLQ=70\n"
    (quality,) = parsed(text.encode()).qualities
    assert (quality.average.mos_milli, quality.kind, quality.r_milli) == (3500, MosKind.LQ, 70_000)


@pytest.mark.parametrize(
    ("line", "figure", "expected"),
    [
        ("PacketLoss:NLR=0.42", "loss_ppm", 4200),
        ("PacketLoss:NLR=100.0", "loss_ppm", 1_000_000),
        ("PacketLoss:NLR=", "loss_ppm", None),
        ("PacketLoss:NLR=NaN", "loss_ppm", None),
        ("PacketLoss:NLR=-", "loss_ppm", None),
        ("PacketLoss:NLR=1.23456789", "loss_ppm", 12_340),
        ("Delay:RTD=0", "rtt_us", None),
        ("Delay:RTD=45.5", "rtt_us", 45_500),
        ("Delay:IAJ=0", "jitter_us", 0),
        ('Delay:X="RTD=1" IAJ=3', "jitter_us", 3000),
        ("Delay:IAJ=1 IAJ=2", "jitter_us", 1000),
    ],
)
def test_reading(line, figure, expected):
    assert getattr(local(line).average, figure) == expected


@pytest.mark.parametrize(
    ("said", "mos_milli", "kind"),
    [
        ("MOSCQ=4.1 MOSLQ=4.3", 4100, MosKind.CQ),
        ("MOSCQ=0 MOSLQ=4.3", 4300, MosKind.LQ),
        ("MOSCQ=12.7 MOSLQ=4.356", 4356, MosKind.LQ),
        ("MOSCQ=127 MOSLQ=5", 5000, MosKind.LQ),
    ],
)
def test_which_mos(said, mos_milli, kind):
    (quality,) = parsed(f"VQSessionReport\nCallID:c\nQualityEst:{said}".encode()).qualities
    assert (quality.average.mos_milli, quality.kind) == (mos_milli, kind)


@pytest.mark.parametrize(
    ("said", "band"),
    [
        ("PD=PCMA SR=8000", Band.NARROWBAND),
        ("PD=G722 SR=8000", Band.WIDEBAND),
        ("PD=AMR-WB SR=16000", Band.WIDEBAND),
        ("PD=opus SR=48000", Band.FULLBAND),
        ("PD=x SR=11025", Band.NARROWBAND),
        ("PD=x", Band.NARROWBAND),
    ],
)
def test_band(said, band):
    assert local(f"SessionDesc:{said}").band is band


@pytest.mark.parametrize(
    ("origin", "observer"),
    [
        ("OrigID: <sip:a@x>", Observer.CALLER),
        ("OrigID: <sip:b@x>", Observer.CALLEE),
        ("OrigID: <sip:c@x>", Observer.UNKNOWN),
        ("FromID: <sip:B@x;tag=7>", Observer.CALLEE),
        ("", Observer.UNKNOWN),
    ],
)
def test_who_heard_it(origin, observer):
    text = f"VQSessionReport\nCallID:c\nLocalID: <sip:a@x>\nRemoteID: sip:b@x\n{origin}\nQualityEst:MOSCQ=4"
    (quality,) = parsed(text.encode()).qualities
    assert quality.observer is observer


def test_names_that_are_not_utf8():
    """A display name in Latin-1 costs nothing."""
    part = parsed(RFC.replace(b"Alice <", "Müller <".encode("latin-1")))
    assert part.qualities[0].observer is Observer.CALLER
    assert "Müller" in part.raw


@pytest.mark.parametrize(
    ("report", "where"),
    [
        (b"CallID: c\nQualityEst:MOSCQ=4", "document"),
        (b"VQSessionReport\nQualityEst:MOSCQ=4", "CallID"),
        (b"VQSessionReport\nCallID:\nQualityEst:MOSCQ=4", "CallID"),
        (b"VQSessionReport\nCallID:c\n", "document"),
        (b"VQSessionReport\nCallID:c\nQualityEst:MOSCQ=0 MOSLQ=0", "document"),
        (with_line("PacketLoss:NLR=100.01"), "LocalMetrics.PacketLoss.NLR"),
        (with_line("PacketLoss:NLR=a"), "LocalMetrics.PacketLoss.NLR"),
        (with_line("PacketLoss:NLR=-1"), "LocalMetrics.PacketLoss.NLR"),
        (with_line("Delay:RTD=65536"), "LocalMetrics.Delay.RTD"),
        (with_line("Signal:SL=-129"), "LocalMetrics.Signal.SL"),
        (with_line("BurstGapLoss:BD=3600001"), "LocalMetrics.BurstGapLoss.BD"),
        (RFC.replace(b"NLR=0.25", b"NLR=0,25"), "RemoteMetrics.PacketLoss.NLR"),
        (b"VQSessionReport\n" + b"x" * PRIVATE_TEXT_MAX, "document"),
    ],
)
def test_report_refused(report, where):
    """The error names the value at fault."""
    with pytest.raises(FieldError) as caught:
        ADAPTER.check(report)
    assert caught.value.where == where


def test_body_is_one_report():
    assert ADAPTER.split(RFC, "application/vq-rtcpxr") == ([RFC], False)
    with pytest.raises(EncodingError):
        ADAPTER.split(b" \r\n", "application/vq-rtcpxr")


def test_there_are_no_options():
    assert make_vq_report({}).name == "vq-report"
    with pytest.raises(ConfigError):
        make_vq_report({"x": 1})


LINES = RFC.decode().splitlines() + PHONE.decode().splitlines()
VALUES = st.sampled_from(["", "0", "127", "-5", "4.1", "1e9", "99999999999", "NaN", '"', "=", "\u0661"])


@given(st.lists(st.sampled_from(LINES), max_size=25), st.lists(st.tuples(st.integers(0, 80), VALUES), max_size=3))
def test_shuffled_and_damaged_reports_never_crash(lines, changes):
    """Real lines in any order and number, with some values spoilt, are read or refused."""
    text = "\r\n".join(lines)
    for index, value in changes:
        before, _, after = text.partition("=" if index % 2 else f"={index % 10}")
        text = f"{before}={value} {after}"
    try:
        part = parsed(text.encode())
    except EncodingError:
        return
    assert all(1000 <= quality.average.mos_milli <= 5000 for quality in part.qualities)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(body):
    with pytest.raises(EncodingError):
        parsed(b"VQSessionReport\nX:" + body)
