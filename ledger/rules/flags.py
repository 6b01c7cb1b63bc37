"""Flags: what in a record is suspicious and yet possible.

A flag refuses nothing and is no part of the protocol: it tells a person where to look first when two carriers' figures
differ. Pure and in integers, so everybody who looks at a record sees the same flags.

Source: docs/rules.md, "Flags".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from ledger.cdr import Band, CallRecord, Levels, MosKind, Quality, QualityMethod, talk_ms
from ledger.models import delay, emodel, rtpengine13
from ledger.models.tables import CODECS
from ledger.rules import words

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60_000

OVERLONG_MS: Final = 4 * 60 * MINUTE_MS
"""Four hours from setup to end: common limit after which switches end a call by themselves."""

RATABLE_MS: Final = 5_000
"""Less talk than that has at most one RTCP report (RFC 3550: every 5 s), too few to rate a call by."""

RATABLE_PACKETS: Final = 250
"""The same in packets of 20 ms."""

SAMPLE_MS: Final = 30_000
"""At least one report in so much talk is expected of a relay that averages reports; they come every 5 s."""

MEDIA_EXPECTED_MS: Final = 1_000
"""After so much talk at least one packet should have come."""

R_SLACK_MILLI: Final = 153
"""MOS, in thousandths, by which a MOS and an R beside it may differ: a truncated tenth, and one R at 0.0528 MOS."""

US_PER_KM: Final = min(delay.US_PER_KM.values())
"""One way over ground on the fastest line there is."""

DISTANCE_KM_MAX: Final = delay.KM_MAX

FLAGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "code-against-answer": "An answered call with a final response that is a failure, or the reverse.",
        "coarse-times": "All times of the call are whole seconds, or whole minutes.",
        "overlong-call": "From setup to end it took more than 4 hours.",
        "early-media": "Nobody answered, and yet there was media.",
        "one-way-media": "An answered call with packets in one direction only.",
        "talk-without-media": "A second of talk or more with a known codec, and not one packet.",
        "octets-not-frames": "Octets are not packets times the frame of a codec with a constant rate.",
        "short-for-a-mos": "A MOS of less than 5 s of talk, or of fewer than 250 packets expected.",
        "few-samples": "rtpengine_10, rtpengine_13: fewer than one report in 30 s of talk.",
        "jitter-above-buffer": "Jitter above the greatest delay of the jitter buffer, and nothing was discarded.",
        "faster-than-light": "The delay is less than 4 us/km between two sites whose distance is known.",
        "loss-beyond-formula": "rtpengine_13: loss above 15 %, where its formula rates more loss better.",
        "mos-off-r": "rfc3611: a narrowband MOS-CQ more than 0.153 from that of the R beside it.",
        "noise-above-signal": "The noise between words is louder than the words.",
    }
)
"""Every flag by name, with what it means; names never change."""


class Flag(NamedTuple):
    """One suspicion: facts for a program, and one sentence for a billing analyst."""

    name: str
    """One of ``FLAGS``."""
    field: str
    """Path of the field to look at first."""
    value: int | str
    """What the record says."""
    bound: int | str
    """What would have been usual."""
    message: str
    """One sentence, no trailing full stop."""


def flags_of(record: CallRecord, *, distance_km: int | None = None) -> list[Flag]:
    """Return what is suspicious about ``record``, in the order of ``FLAGS``; empty where nothing is.

    distance_km: between the two ends along the ground, 0 to ``DISTANCE_KM_MAX``, where the caller knows both sites;
    the record itself has no places. Never raises for a record that decodes, whatever rules it breaks.
    """
    flags = [*_flags_of_times(record), *_flags_of_media(record)]
    quality = record.quality
    if quality is not None:
        flags += _flags_of_quality(record, quality)
        if distance_km:
            flags += _flags_of_distance(quality, distance_km)
        flags += _flags_of_method(quality)
    levels = record.levels
    if levels is not None:
        flags += _flags_of_levels(levels)
    return flags


def _flags_of_times(record: CallRecord) -> Iterator[Flag]:
    setup_ms, answer_ms, end_ms, sip_code = record.setup_ms, record.answer_ms, record.end_ms, record.sip_code
    if answer_ms and sip_code >= 300:
        yield Flag(
            "code-against-answer",
            "sip_code",
            sip_code,
            "200..299 for an answered call",
            f"The call was answered, but its final response is {sip_code}, a failure: look whether the talk was real "
            "before charging for it",
        )
    elif not answer_ms and 200 <= sip_code < 300:
        yield Flag(
            "code-against-answer",
            "sip_code",
            sip_code,
            "300 or more for a call never answered",
            f"The call has no answer time, but its final response is {sip_code}, an answer: look whether its answer "
            "time was lost",
        )
    if not (setup_ms % SECOND_MS or answer_ms % SECOND_MS or end_ms % SECOND_MS):
        is_minutes = not (setup_ms % MINUTE_MS or answer_ms % MINUTE_MS or end_ms % MINUTE_MS)
        step_ms, unit = (MINUTE_MS, "minute") if is_minutes else (SECOND_MS, "second")
        yield Flag(
            "coarse-times",
            "end_ms",
            end_ms,
            f"not all times a multiple of {step_ms} ms",
            f"All times are whole {unit}s, so the {end_ms - setup_ms} ms from setup to end may be up to a {unit} "
            "off: look at the "
            "platform's clock format before comparing durations",
        )
    duration_ms = end_ms - setup_ms
    if duration_ms > OVERLONG_MS:
        yield Flag(
            "overlong-call",
            "end_ms",
            end_ms,
            f"<= {setup_ms + OVERLONG_MS}",
            f"The call lasted {words.decimal(duration_ms, 3)} s, more than {OVERLONG_MS // SECOND_MS} s: look whether "
            "its real end (BYE) was missed and a timer ended it",
        )


def _flags_of_media(record: CallRecord) -> Iterator[Flag]:
    sent, received = record.packets_sent, record.packets_received
    if not record.answer_ms:
        if sent or received or record.octets_sent or record.octets_received:
            field = "packets_sent" if sent or not received else "packets_received"
            yield Flag(
                "early-media",
                field,
                sent or received,
                0,
                f"The call was never answered, but {sent} packets were sent and {received} received: look whether "
                "more than ringback and announcements went through",
            )
    elif not sent and not received:
        talked_ms = talk_ms(record)
        if record.codec and talked_ms >= MEDIA_EXPECTED_MS:
            yield Flag(
                "talk-without-media",
                "packets_sent",
                0,
                "> 0",
                f"The call has a codec and {talked_ms} ms of talk, but 0 packets in both directions: look for a "
                "false answer, or for media that went past the platform",
            )
    elif not (sent and received):
        name = "received" if sent else "sent"
        yield Flag(
            "one-way-media",
            f"packets_{name}",
            0,
            "> 0",
            f"{sent} packets were sent and {received} received, so one side heard nothing: look for a NAT or "
            "firewall, or for a call on hold",
        )
    codec = CODECS.get(record.codec)
    if codec is not None and (frame := codec.payload_octets):
        for name, packets, octets in (
            ("sent", sent, record.octets_sent),
            ("received", received, record.octets_received),
        ):
            if octets != packets * frame:
                yield Flag(
                    "octets-not-frames",
                    f"octets_{name}",
                    octets,
                    packets * frame,
                    f"{packets} packets {name} in {codec.name} are {packets * frame} octets ({frame} each), but "
                    f"{octets} were counted: look for headers counted in, another packet time, or telephone events",
                )


def _flags_of_quality(record: CallRecord, quality: Quality) -> Iterator[Flag]:
    talked_ms = talk_ms(record)
    expected = quality.packets_expected
    if talked_ms < RATABLE_MS:
        yield Flag(
            "short-for-a-mos",
            "quality.mean.mos_milli",
            quality.mean.mos_milli,
            f"none below {RATABLE_MS} ms of talk",
            f"MOS {words.milli(quality.mean.mos_milli)} rests on {talked_ms} ms of talk, less than {RATABLE_MS} ms: "
            "look at longer calls before judging the line",
        )
    elif 0 < expected < RATABLE_PACKETS:
        yield Flag(
            "short-for-a-mos",
            "quality.packets_expected",
            expected,
            f">= {RATABLE_PACKETS}",
            f"MOS {words.milli(quality.mean.mos_milli)} rests on {expected} packets, fewer than {RATABLE_PACKETS}: "
            "look at longer calls before judging the line",
        )
    if quality.method in _AVERAGES_REPORTS and quality.samples < (usual := talked_ms // SAMPLE_MS):
        yield Flag(
            "few-samples",
            "quality.samples",
            quality.samples,
            f">= {usual}",
            f"The mean rests on {quality.samples} report{'s' * (quality.samples != 1)} in {talked_ms} ms of talk, "
            f"fewer than {usual}: look "
            "whether the endpoints send RTCP all the time",
        )
    levels = record.levels
    buffer_ms = (levels.jitter_buffer_max_ms or levels.jitter_buffer_ms) if levels is not None else None
    if buffer_ms and expected and not quality.packets_discarded:
        name, jitter_us = "mean", quality.mean.jitter_us
        if quality.worst is not None and quality.worst.jitter_us > jitter_us:
            name, jitter_us = "worst", quality.worst.jitter_us
        if jitter_us > 1000 * buffer_ms:
            yield Flag(
                "jitter-above-buffer",
                f"quality.{name}.jitter_us",
                jitter_us,
                f"<= {1000 * buffer_ms}",
                f"Jitter was {words.ms(jitter_us)} ({name}), above the jitter buffer's {buffer_ms} ms, but 0 packets "
                "were discarded: look whether both are of the same stream",
            )


_AVERAGES_REPORTS: Final = frozenset({QualityMethod.RTPENGINE_10, QualityMethod.RTPENGINE_13})


def _flags_of_distance(quality: Quality, distance_km: int) -> Iterator[Flag]:
    least_us = US_PER_KM * distance_km
    for name in ("mean", "worst", "best"):
        reading = getattr(quality, name)
        # 0 is unknown.
        if reading is not None and 0 < reading.rtt_us < 2 * least_us:
            yield Flag(
                "faster-than-light",
                f"quality.{name}.rtt_us",
                reading.rtt_us,
                f">= {2 * least_us}",
                f"The {name} round trip is {words.ms(reading.rtt_us)}, but {distance_km} km and back take "
                f"{words.ms(2 * least_us)} at least: look for a wrong site, or for media answered nearer by",
            )
            return
    one_way_us = quality.one_way_us
    if one_way_us is not None and 0 < one_way_us < least_us:
        yield Flag(
            "faster-than-light",
            "quality.one_way_us",
            one_way_us,
            f">= {least_us}",
            f"The one-way delay is {words.ms(one_way_us)}, but {distance_km} km take {words.ms(least_us)} at least: "
            "look for a wrong site, or for media answered nearer by",
        )


def _flags_of_method(quality: Quality) -> Iterator[Flag]:
    if quality.method is QualityMethod.RTPENGINE_13 and quality.band is not Band.FULLBAND:
        most_ppm = rtpengine13.FALLING_LOSS_PPM_MAX
        for name in ("mean", "worst", "best"):
            reading = getattr(quality, name)
            if reading is not None and reading.loss_ppm > most_ppm:
                yield Flag(
                    "loss-beyond-formula",
                    f"quality.{name}.loss_ppm",
                    reading.loss_ppm,
                    f"<= {most_ppm}",
                    f"The {name} loss is {words.percent(reading.loss_ppm)}, and above {words.percent(most_ppm)} this "
                    "formula rates more loss better: look at the loss, not at the MOS of "
                    f"{words.milli(reading.mos_milli)}",
                )
                break
    r_milli = quality.r_milli
    is_conversation = quality.kind is MosKind.CQ and quality.band is Band.NARROWBAND
    if quality.method is QualityMethod.RFC3611 and is_conversation and r_milli is not None:
        usual_milli = emodel.mos_milli(r_milli)
        if abs(quality.mean.mos_milli - usual_milli) > R_SLACK_MILLI:
            yield Flag(
                "mos-off-r",
                "quality.mean.mos_milli",
                quality.mean.mos_milli,
                f"{usual_milli} +- {R_SLACK_MILLI}",
                f"The endpoint reports MOS {words.milli(quality.mean.mos_milli)}, but its R of "
                f"{words.milli(r_milli)} is MOS {words.milli(usual_milli)} by G.107: look which of the two other "
                "carriers compare",
            )


def _flags_of_levels(levels: Levels) -> Iterator[Flag]:
    signal, noise = levels.signal_dbm0, levels.noise_dbm0
    if signal is not None and noise is not None and noise > signal:
        yield Flag(
            "noise-above-signal",
            "levels.noise_dbm0",
            noise,
            f"<= signal_dbm0 {signal}",
            f"The noise is {noise} dBm0, louder than the speech with {signal} dBm0: look whether the two were swapped",
        )
