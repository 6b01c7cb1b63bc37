"""A clock that is off is said once a minute while it lasts, and not for one late message."""

from __future__ import annotations

from typing import Any

import pytest

from node.clockwatch import ClockWatch

SLOT_MS = 1_000
START_MS = 1_800_000_000_000


class Lines:
    """A log that keeps (level, event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))


def run(watch: ClockWatch, clocks_ms: list[int], begin_s: int, end_s: int) -> None:
    """Let the seconds from ``begin_s`` to before ``end_s`` pass, with four turns of the driver in each."""
    for quarter in range(4 * begin_s, 4 * end_s):
        now_ms = START_MS + 250 * quarter
        if watch.is_due(now_ms=now_ms):
            watch.look(clocks_ms, now_ms=now_ms)


def test_said_once_a_minute_while_it_lasts() -> None:
    log = Lines()
    watch = ClockWatch(SLOT_MS, log)
    run(watch, [251], 0, 10)
    assert log.lines == []
    run(watch, [251], 10, 131)
    assert [(level, event) for level, event, _ in log.lines] == [("warning", "clock is off")] * 3
    fields = log.lines[0][2]
    assert (fields["skew_ms"], fields["allowed_ms"], fields["this_clock"]) == (251, 250, "behind its peers")
    assert "NTP" in fields["hint"]


def test_a_quarter_of_a_slot_is_allowed_either_way() -> None:
    log = Lines()
    watch = ClockWatch(SLOT_MS, log)
    run(watch, [250], 0, 60)
    run(watch, [-250], 60, 120)
    run(watch, [], 120, 180)
    assert log.lines == []
    run(watch, [-251], 180, 191)
    assert [fields["this_clock"] for _, _, fields in log.lines] == ["ahead of its peers"]


def test_one_late_status_is_no_clock_that_is_off() -> None:
    log = Lines()
    watch = ClockWatch(SLOT_MS, log)
    for begin_s in range(0, 200, 10):
        run(watch, [-900], begin_s, begin_s + 9)
        run(watch, [-20], begin_s + 9, begin_s + 10)
    assert log.lines == []


def test_being_in_step_again_is_said_and_the_next_time_it_is_off_as_well() -> None:
    log = Lines()
    watch = ClockWatch(SLOT_MS, log)
    run(watch, [5_000], 0, 12)
    run(watch, [3], 12, 20)
    run(watch, [-5_000], 20, 31)
    assert [(level, event) for level, event, _ in log.lines] == [
        ("warning", "clock is off"),
        ("info", "clock in step"),
        ("warning", "clock is off"),
    ]


def test_a_clock_set_back_stops_nothing() -> None:
    log = Lines()
    watch = ClockWatch(SLOT_MS, log)
    run(watch, [5_000], 1_000, 1_012)
    run(watch, [5_000], 0, 12)
    assert [event for _, event, _ in log.lines] == ["clock is off"] * 2


def test_beyond_half_a_slot_it_is_not_to_seal_until_it_is_back_within_a_quarter() -> None:
    watch = ClockWatch(SLOT_MS, Lines())
    said = []
    for begin_s, clocks_ms in enumerate(([500] * 3, [501] * 3, [501] * 3, [260] * 3, [250] * 3, [-501] * 3)):
        run(watch, clocks_ms, 20 * begin_s, 20 * begin_s + 9)
        early = watch.is_off
        run(watch, clocks_ms, 20 * begin_s + 9, 20 * begin_s + 20)
        said.append((early, watch.is_off))
    assert said == [(False, False), (False, True), (True, True), (True, True), (False, False), (False, True)]


def test_one_late_word_does_not_stop_it() -> None:
    watch = ClockWatch(SLOT_MS, Lines())
    for begin_s in range(0, 200, 10):
        run(watch, [-900, -900, -900], begin_s, begin_s + 9)
        run(watch, [-300, -300, -300], begin_s + 9, begin_s + 10)
    assert not watch.is_off


def test_nobody_to_compare_with_changes_nothing() -> None:
    watch = ClockWatch(SLOT_MS, Lines())
    run(watch, [900, 900], 0, 15)
    run(watch, [], 15, 30)
    assert watch.is_off
    run(watch, [3], 30, 31)
    assert not watch.is_off


@pytest.mark.parametrize(
    ("clocks_ms", "is_off"),
    [
        ([9_000], False),
        ([9_000, 9_000], True),
        ([-9_000, 9_000], False),
        ([0, 9_000, 9_000], False),
        ([9_000, 9_000, 9_000], True),
        ([0, 0, 9_000], False),
        ([-9_000, -9_000, -9_000, 0, 0, 0], False),
        ([-9_000, -9_000, -9_000, -9_000, 0, 0], True),
    ],
)
def test_a_majority_of_clocks_must_be_on_one_side(clocks_ms: list[int], is_off: bool) -> None:
    """With its own clock among them: of two that differ, one must go on."""
    watch = ClockWatch(SLOT_MS, Lines())
    run(watch, sorted(clocks_ms), 0, 30)
    assert watch.is_off == is_off
