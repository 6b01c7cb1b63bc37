"""Rules on what a voice metrics report adds: levels that a line can carry, bursts and buffers that agree."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ledger.cdr import CallRecord, Levels
from ledger.rules.base import Check, RuleContext, RuleModule, Violation

_NAME: Final = "levels"

UNAVAILABLE: Final = 127
"""What stands for "not measured" in a report (RFC 3611, section 4.7); a record has null."""


def _compile(parameters: Mapping[str, int], _context: RuleContext) -> Check:
    level_max_dbm0 = parameters["level_max_dbm0"]
    duration_slack_ms = parameters["duration_slack_ms"]

    def check(record: CallRecord) -> Violation | None:
        levels = record.levels
        if levels is None:
            return None
        if levels.rerl_db == UNAVAILABLE:
            return Violation(
                f"{_NAME}/unavailable",
                "levels.rerl_db",
                UNAVAILABLE,
                "0..126, 128..255 or null",
                "An echo return loss of 127 dB is how a report says that none was measured: send null in its place",
            )
        signal, noise = levels.signal_dbm0, levels.noise_dbm0
        if (signal is not None and signal > level_max_dbm0) or (noise is not None and noise > level_max_dbm0):
            return _refuse_level(levels, level_max_dbm0)
        longest_ms = record.end_ms - record.setup_ms + duration_slack_ms
        return _check_bursts(levels, longest_ms) or _check_buffer(levels)

    return check


def _refuse_level(levels: Levels, most: int) -> Violation:
    name, value = "signal", levels.signal_dbm0
    if value is None or value <= most:
        name, value = "noise", levels.noise_dbm0
    return Violation(
        f"{_NAME}/level",
        f"levels.{name}_dbm0",
        value,
        f"<= {most}",
        f"The {name} level is {value} dBm0, but a line carries {most} dBm0 at most: look for a byte that was read "
        "without its sign, or for a figure that is no level",
    )


def _check_bursts(levels: Levels, longest_ms: int) -> Violation | None:
    """Hold bursts and gaps against each other: a burst is where loss is dense, a gap where it is not."""
    density, gap_density, burst_ms = levels.burst_density, levels.gap_density, levels.burst_ms
    for name, value in (("burst", burst_ms), ("gap", levels.gap_ms)):
        if value is not None and value > longest_ms:
            return Violation(
                f"{_NAME}/period",
                f"levels.{name}_ms",
                value,
                f"<= {longest_ms}",
                f"The mean {name} lasted {value} ms, but the whole call at most {longest_ms} ms: look for a report of "
                "another call, or for another unit",
            )
    if burst_ms is not None and density is not None and (burst_ms == 0) != (density == 0):
        return Violation(
            f"{_NAME}/burst",
            "levels.burst_density",
            density,
            "> 0" if burst_ms else 0,
            f"Bursts lasted {burst_ms} ms in the mean with a density of {density}/256: where there were bursts both "
            "are "
            "above 0, where there were none both are 0; look for a figure that was not measured and sent as 0",
        )
    if density and gap_density is not None and gap_density > density:
        return Violation(
            f"{_NAME}/density",
            "levels.gap_density",
            gap_density,
            f"<= burst_density {density}",
            f"In gaps {gap_density}/256 of the packets were lost, but in bursts only {density}/256, and a burst is "
            "where "
            "more is lost: look whether the two were swapped",
        )
    return None


def _check_buffer(levels: Levels) -> Violation | None:
    nominal_ms, most_ms = levels.jitter_buffer_ms, levels.jitter_buffer_max_ms
    if nominal_ms is not None and most_ms is not None and nominal_ms > most_ms:
        return Violation(
            f"{_NAME}/buffer",
            "levels.jitter_buffer_ms",
            nominal_ms,
            f"<= jitter_buffer_max_ms {most_ms}",
            f"The jitter buffer's usual delay is {nominal_ms} ms, above its greatest of {most_ms} ms: look whether "
            "the two "
            "were swapped",
        )
    return None


MODULE: Final = RuleModule(
    name=_NAME,
    version=1,
    reads=("setup_ms", "end_ms", "levels"),
    part="levels",
    tables=(),
    # A full-scale square wave is 3.14 dBm0 (that of a full-scale sine, G.711) and 3.01 dB more.
    defaults=MappingProxyType({"level_max_dbm0": 6, "duration_slack_ms": 1_000}),
    rules=MappingProxyType(
        {
            "unavailable": "The residual echo return loss is not 127, which means unavailable: null says so.",
            "level": "Signal and noise are at most level_max_dbm0.",
            "period": "Mean burst and gap durations are at most the time from setup to end, plus duration_slack_ms.",
            "burst": "Burst duration and burst density are both 0 or both above it, where both are known.",
            "density": "Gap density is at most burst density, where there were bursts.",
            "buffer": "The jitter buffer's nominal delay is at most its maximum.",
        }
    ),
    compile_check=_compile,
)
"""The released module."""
