"""Rules on the shape of a call: its times in order, its codec known, no more packets than fit into it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ledger.cdr import CallRecord
from ledger.models.rounding import divide_half_up
from ledger.models.tables import CODECS
from ledger.rules import words
from ledger.rules.base import Check, RuleContext, RuleModule, Violation

_NAME: Final = "call-shape"


def _refuse_times(setup_ms: int, answer_ms: int, end_ms: int) -> Violation:
    """Return the violation of times that are out of order."""
    if end_ms < setup_ms:
        return Violation(
            f"{_NAME}/end-before-setup",
            "end_ms",
            end_ms,
            f">= setup_ms {setup_ms}",
            f"The call ended {setup_ms - end_ms} ms before it was set up: look for a clock that was set back, or for "
            "the "
            "times of another call",
        )
    if answer_ms < setup_ms:
        return Violation(
            f"{_NAME}/answer-before-setup",
            "answer_ms",
            answer_ms,
            f">= setup_ms {setup_ms}, or 0 for a call never answered",
            f"The call was answered {setup_ms - answer_ms} ms before it was set up: look for a clock that was set "
            "back, "
            "or for the time of another leg; a call never answered has 0",
        )
    return Violation(
        f"{_NAME}/answer-after-end",
        "answer_ms",
        answer_ms,
        f"<= end_ms {end_ms}, or 0 for a call never answered",
        f"The call was answered {answer_ms - end_ms} ms after it had ended: look for swapped times, or for a clock "
        "that "
        "was set back; a call never answered has 0",
    )


def _refuse_packets(record: CallRecord, most: int, packet_us: int) -> Violation:
    """Return the violation of more packets than a call of this length holds."""
    duration_ms = record.end_ms - record.setup_ms
    return Violation(
        f"{_NAME}/too-many-packets",
        "packets_sent",
        record.packets_sent,
        f"<= {most}",
        f"{record.packets_sent} packets were sent, but the {duration_ms} ms from setup to end hold {most} at most, one "
        f"each {words.ms(packet_us)}: look for packets counted twice, another packet time, or counters of another call",
    )


def _compile(parameters: Mapping[str, int], _context: RuleContext) -> Check:
    slack = parameters["packet_slack"]
    drift_ppm = parameters["clock_drift_ppm"]
    packet_us_of = {row: codec.packet_us for row, codec in CODECS.items()}.get

    def check(record: CallRecord) -> Violation | None:
        setup_ms = record.setup_ms
        answer_ms = record.answer_ms
        end_ms = record.end_ms
        if end_ms < setup_ms or (answer_ms and not setup_ms <= answer_ms <= end_ms):
            return _refuse_times(setup_ms, answer_ms, end_ms)
        packet_us = packet_us_of(record.codec)
        if packet_us is None:
            return Violation(
                f"{_NAME}/unknown-codec",
                "codec",
                record.codec,
                "a row of table codecs-1, or 0 for unknown",
                f"Codec {record.codec} is no row of the registry: look it up in table codecs-1, or send 0 where it is "
                "not known",
            )
        if packet_us:
            fitting = -(-1000 * (end_ms - setup_ms) // packet_us)
            # Only a stream at its very limit needs the second, exact question.
            if record.packets_sent > fitting + slack:
                most = fitting + slack + divide_half_up(fitting * drift_ppm, 1_000_000)
                if record.packets_sent > most:
                    return _refuse_packets(record, most, packet_us)
        return None

    return check


MODULE: Final = RuleModule(
    name=_NAME,
    version=1,
    reads=("setup_ms", "answer_ms", "end_ms", "codec", "packets_sent"),
    part="",
    tables=("codecs-1",),
    defaults=MappingProxyType({"packet_slack": 2, "clock_drift_ppm": 200}),
    rules=MappingProxyType(
        {
            "end-before-setup": "A call does not end before it begins.",
            "answer-before-setup": "A call is not answered before it begins; 0 means never answered.",
            "answer-after-end": "A call is not answered after it ended.",
            "unknown-codec": "The codec is a row of the registry.",
            "too-many-packets": (
                "Packets sent are at most ceil((end - setup) / packet time), plus packet_slack, plus "
                "clock_drift_ppm of them for a sender whose clock runs fast. Codecs without a fixed packet "
                "time are not asked."
            ),
        }
    ),
    compile_check=_compile,
)
"""The released module."""
