"""What a network does to a call, and where the points go: one rating with its parts.

For people who plan or complain. From round trip, jitter and loss, as a monitoring tool shows them, it reckons the
mouth-to-ear delay, rates the call by one of the formulas of this package, and says how many points of R went to delay,
to the codec and to loss. Parts add up: start - delay - codec - loss is R, before R is clamped at 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from ledger.cdr import Band, QualityMethod
from ledger.errors import FieldError
from ledger.models import delay, emodel, emodel_wide, freeswitch, rtpengine, rtpengine13, scales
from ledger.models.tables import Codec

PPM: Final = 1_000_000
_PPM_PER_PERCENT: Final = 10_000

BANDS: Final[Mapping[str, Band]] = MappingProxyType({"N": Band.NARROWBAND, "W": Band.WIDEBAND, "F": Band.FULLBAND})
"""Bands as the codec registry names them."""

_MODEL_BANDS: Final[Mapping[QualityMethod, str]] = MappingProxyType(
    {QualityMethod.G107: "N", QualityMethod.G107_1: "W", QualityMethod.G107_2: "F"}
)
_WIDE_SCALES: Final[Mapping[QualityMethod, emodel_wide.Scale]] = MappingProxyType(
    {QualityMethod.G107_1: emodel_wide.WIDEBAND, QualityMethod.G107_2: emodel_wide.FULLBAND}
)

METHODS: Final = (
    *_MODEL_BANDS,
    QualityMethod.RTPENGINE_10,
    QualityMethod.RTPENGINE_13,
    QualityMethod.FREESWITCH,
)
"""The methods that can be computed from a network's figures; ``rfc3611`` and ``measured`` are somebody's own."""


def method_name(method: QualityMethod) -> str:
    """Return the name of a method as people write it: ``g107.1``, ``rtpengine-13``."""
    return method.name.lower().replace("g107_", "g107.").replace("_", "-")


class Network(NamedTuple):
    """What is known of the way between two telephones."""

    rtt_us: int
    """Round trip, >= 0."""
    jitter_us: int
    """Interarrival jitter of RFC 3550, >= 0."""
    loss_ppm: int
    """0 to 1,000,000."""
    burst_milli: int = emodel.RANDOM_MILLI
    """1000 x the burst ratio, at least 1000; 1000 is random loss."""
    buffer_us: int | None = None
    """Nominal delay of the jitter buffer; None: twice the jitter."""


class Rating(NamedTuple):
    """A rated call. R and points are in thousandths."""

    method: QualityMethod
    band: Band
    r_milli: int
    mos_milli: int
    start_milli: int
    """R before anything is taken from it."""
    delay_milli: int
    codec_milli: int
    loss_milli: int
    budget: list[delay.Part]
    """Parts of the one-way delay; empty where the formula knows none."""
    remarks: list[str]
    """What the formula leaves out or gets wrong here, one sentence each."""

    @property
    def one_way_us(self) -> int:
        """Return what the budget adds up to."""
        return delay.total_us(self.budget)


def method_of(codec: Codec) -> QualityMethod | None:
    """Return the E-model of a codec's band; None where there is no voice."""
    return next((method for method, band in _MODEL_BANDS.items() if band == codec.band), None)


def budget_of(codec: Codec, network: Network) -> list[delay.Part]:
    """Return the one-way delay part by part: half the round trip, the jitter buffer, packets and codec."""
    buffer_us = 2 * network.jitter_us if network.buffer_us is None else network.buffer_us
    parts = [
        delay.Part("network, half the round trip", network.rtt_us // 2),
        delay.jitter_buffer(buffer_us),
        *delay.coding(codec.name, codec.packet_us),
    ]
    return [part for part in parts if part.us]


def explain(codec: Codec, method: QualityMethod, network: Network) -> Rating:
    """Return the rating of a call with ``codec`` over ``network``.

    Raises FieldError where the method cannot rate it: a codec without confirmed values or of another band, a delay
    beyond 2 s, losses in bursts on a wider band, or a method whose formula nobody but the endpoint knows.
    """
    if codec.band not in BANDS:
        raise FieldError("there is no voice to rate", where="codec", expected="a voice codec", actual=codec.name)
    if method in _MODEL_BANDS:
        return _by_emodel(codec, method, network)
    if method == QualityMethod.RTPENGINE_10:
        return _by_rtpengine_10(network)
    if method == QualityMethod.RTPENGINE_13:
        return _by_rtpengine_13(codec, network)
    if method == QualityMethod.FREESWITCH:
        return _by_freeswitch(network)
    raise FieldError(
        "only who measured knows this method's formula",
        where="method",
        expected=", ".join(map(method_name, METHODS)),
        actual=method_name(method),
    )


def _by_emodel(codec: Codec, method: QualityMethod, network: Network) -> Rating:
    """Return the rating by G.107, G.107.1 or G.107.2, whichever method says."""
    ie_milli, bpl_milli = codec.ie_milli, codec.bpl_milli
    if _MODEL_BANDS[method] != codec.band:
        own = method_of(codec)
        expected = method_name(own) if own else ""
        raise FieldError(
            f"{codec.name} is of another band", where="method", expected=expected, actual=method_name(method)
        )
    if ie_milli is None or bpl_milli is None or codec.grade not in {"A", "B"}:
        missing = "Bpl" if ie_milli is not None and codec.grade in {"A", "B"} else "Ie and Bpl"
        raise FieldError(
            f"{codec.name} has no confirmed {missing}, so it is unratable",
            where="codec",
            hint="Name a ratable codec, or bring Ie and Bpl along",
        )
    budget = budget_of(codec, network)
    one_way_us = delay.total_us(budget)
    if one_way_us > emodel.ONE_WAY_US_MAX:
        raise FieldError(
            "no conversation to rate at this delay",
            where="rtt",
            expected=f"at most {emodel.ONE_WAY_US_MAX // 1000} ms one way, with jitter buffer and codec",
            actual=f"{one_way_us // 1000} ms",
        )
    scale = _WIDE_SCALES.get(method)
    if scale is None:
        start_milli, delay_milli = emodel.R0_MILLI, emodel.idd_milli(one_way_us)
        ie_eff_milli = emodel.ie_eff_milli(ie_milli, bpl_milli, network.loss_ppm, PPM, network.burst_milli)
    else:
        if network.loss_ppm and network.burst_milli > emodel.RANDOM_MILLI:
            raise FieldError("losses in bursts are rated in narrowband only", where="burst_ratio", expected=1)
        start_milli, delay_milli = scale.r0_milli, emodel_wide.idd_milli(scale, one_way_us)
        ie_eff_milli = emodel_wide.ie_eff_milli(scale, ie_milli, bpl_milli, network.loss_ppm, PPM)
    r_milli = start_milli - delay_milli - ie_eff_milli
    mos_milli = emodel.mos_milli(r_milli) if scale is None else emodel_wide.mos_milli(scale, r_milli)
    return Rating(
        method,
        BANDS[codec.band],
        max(0, r_milli),
        mos_milli,
        start_milli,
        delay_milli,
        ie_milli,
        ie_eff_milli - ie_milli,
        budget,
        [],
    )


def _by_rtpengine_10(network: Network) -> Rating:
    percent = network.loss_ppm // _PPM_PER_PERCENT
    effective_ms = network.rtt_us // 1000 + 2 * (network.jitter_us // 1000) + 10
    delay_milli = 25 * effective_ms if effective_ms < 160 else 100 * (effective_ms - 120)
    loss_milli = 2_500 * percent
    mos_milli = rtpengine.mos_milli(network.rtt_us, network.jitter_us, percent * _PPM_PER_PERCENT)
    r_milli = max(0, 93_200 - delay_milli - loss_milli)
    remarks = ["It knows no codec and takes the round trip for the delay.", _whole_percents(percent)]
    band = Band.NARROWBAND
    method = QualityMethod.RTPENGINE_10
    return Rating(method, band, r_milli, mos_milli, 93_200, delay_milli, 0, loss_milli, [], remarks)


def _by_rtpengine_13(codec: Codec, network: Network) -> Rating:
    fullband = codec.clock_hz == rtpengine13.FULLBAND_CLOCK_HZ
    percent = network.loss_ppm // _PPM_PER_PERCENT
    seen = network.rtt_us, network.jitter_us, percent * _PPM_PER_PERCENT
    r_of = rtpengine13.r_milli_fullband if fullband else rtpengine13.r_milli
    start_milli, r_milli = r_of(0, 0, 0), r_of(*seen)
    without_loss_milli = r_of(network.rtt_us, network.jitter_us, 0)
    codec_milli = rtpengine13.OPUS_IE_MILLI if fullband else 0
    remarks = [_whole_percents(percent)]
    if fullband:
        remarks.append("Its values for codecs of 48 kHz stand in no recommendation.")
    elif percent * _PPM_PER_PERCENT > rtpengine13.FALLING_LOSS_PPM_MAX:
        remarks.append("At this loss the formula turns around: more loss gives a better MOS. It is no rating.")
    return Rating(
        QualityMethod.RTPENGINE_13,
        Band.FULLBAND if fullband else Band.NARROWBAND,
        max(0, r_milli),
        rtpengine13.mos_milli(*seen, fullband=fullband),
        start_milli + codec_milli,
        start_milli - without_loss_milli,
        codec_milli,
        without_loss_milli - r_milli,
        [
            delay.Part("network, half the round trip", network.rtt_us // 2),
            delay.Part("jitter, whole milliseconds", network.jitter_us // 1000 * 1000),
        ],
        remarks,
    )


def _by_freeswitch(network: Network) -> Rating:
    received = PPM - network.loss_ppm
    # Of so many packets sent the missing ones are its flaws, counted against those that came.
    rated = freeswitch.rate(received, network.loss_ppm) if network.loss_ppm < PPM else None
    if rated is None:
        raise FieldError("FreeSWITCH measures nothing where nothing arrives", where="loss", expected="below 100 %")
    r_milli, mos_milli = rated
    remarks = ["It knows neither delay nor codec, and counts every missing or late packet as a flaw."]
    if network.loss_ppm > received:
        remarks.append("With more flaws than packets it starts counting anew: it is no rating.")
    method, band = QualityMethod.FREESWITCH, Band.NARROWBAND
    return Rating(method, band, r_milli, mos_milli, 100_000, 0, 0, 100_000 - r_milli, [], remarks)


def _whole_percents(percent: int) -> str:
    return f"rtpengine counts loss in whole percents: {percent} here."


def best_mos_milli(rating: Rating) -> int:
    """Return the greatest MOS that the rating's method gives on its band: what a figure is to be compared with."""
    return scales.mos_milli_max(rating.method, rating.band)
