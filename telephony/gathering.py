"""What becomes of the documents of one call that wait for each other: a call, dead letters, or more waiting.

Pure; times are UTC milliseconds.

Source: docs/agent.md, "Calls told in parts".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ledger.errors import FieldError
from telephony.joining import add_quality, merge_call
from telephony.source import Source, SourceCall, SourcePart
from telephony.waiting import Role, Waiter

KEEP_MS: Final = 24 * 3_600_000
"""How long parts whose call is not whole are kept, where the configuration does not say."""

NO_CALL: Final = "a report, but its call never came, or went on without it"
NO_REST: Final = "a part of a call whose other part never came"
ANOTHER: Final = "another begin or end of a call that has both"


@dataclass(frozen=True, slots=True)
class JoinTimes:
    """How long documents wait for others of their call."""

    keep_ms: int = KEEP_MS
    """Parts whose call is not whole; then they are dead letters."""
    wait_ms: Mapping[str, int] = field(default_factory=dict)
    """A whole call, by its platform, for reports of its quality; then it goes on with those that came."""

    def wait_of(self, platform: str) -> int:
        """Return how long a whole call of ``platform`` waits."""
        return self.wait_ms.get(platform, 0)


class Joined(NamedTuple):
    """A call that is to go on."""

    call: SourceCall
    """With all that is known of its quality."""
    bare: SourceCall
    """Without what the reports said: the same whenever they came."""
    parts: list[Waiter]


@dataclass(slots=True)
class Gathered:
    """What becomes of the documents of one call."""

    calls: list[Joined] = field(default_factory=list)
    dead: list[tuple[Waiter, str]] = field(default_factory=list)
    postponed: list[tuple[int, int]] = field(default_factory=list)
    """Number of each that waits on, and when to look at it again."""


def role_of(source: Source) -> Role:
    """Return what a document is to its call."""
    return Role(int(source.role)) if isinstance(source, SourcePart) else Role.WHOLE


def gather(found: Sequence[tuple[Waiter, Source]], *, times: JoinTimes, now_ms: int) -> Gathered:
    """Return what becomes of ``found``, all that waits of one call."""
    result = Gathered()
    reports = [(waiter, source) for waiter, source in found if role_of(source) is Role.QUALITY]
    ready: list[tuple[SourceCall, list[Waiter]]] = []
    for waiter, source in found:
        if isinstance(source, SourceCall):
            due_ms = waiter.taken_ms + times.wait_of(source.platform)
            if due_ms <= now_ms:
                ready.append((source, [waiter]))
            else:
                result.postponed.append((waiter.number, due_ms))
    ready += _merge(found, result, times, now_ms)
    is_waiting = bool(result.postponed)
    used = [waiter for waiter, _ in reports] if ready and not is_waiting else []
    for bare, waiters in ready:
        parts = [source for _, source in reports if isinstance(source, SourcePart)]
        try:
            result.calls.append(Joined(add_quality(bare, parts), bare, [*waiters, *used]))
        except FieldError as error:
            # A call is not lost for a bad report.
            result.calls.append(Joined(bare, bare, waiters))
            result.dead += [(waiter, error.sentence()) for waiter in used]
        used = []
    if not ready or is_waiting:
        _keep([waiter for waiter, _ in reports], NO_CALL, result, times, now_ms)
    return result


def _merge(
    found: Sequence[tuple[Waiter, Source]], result: Gathered, times: JoinTimes, now_ms: int
) -> list[tuple[SourceCall, list[Waiter]]]:
    """Return the call that a begin and an end make, where both are there and have waited long enough."""
    begins, ends = (
        [(waiter, source) for waiter, source in found if isinstance(source, SourcePart) and role_of(source) is role]
        for role in (Role.BEGIN, Role.END)
    )
    if not (begins and ends):
        _keep([waiter for waiter, _ in [*begins, *ends]], NO_REST, result, times, now_ms)
        return []
    (begin, first), (end, last) = begins[0], ends[0]
    result.dead += [(waiter, ANOTHER) for waiter, _ in [*begins[1:], *ends[1:]]]
    due_ms = max(begin.taken_ms, end.taken_ms) + times.wait_of(first.platform)
    if due_ms > now_ms:
        result.postponed += [(begin.number, due_ms), (end.number, due_ms)]
        return []
    try:
        return [(merge_call(first, last), [begin, end])]
    except FieldError as error:
        result.dead += [(begin, error.sentence()), (end, error.sentence())]
        return []


def _keep(waiters: Sequence[Waiter], reason: str, result: Gathered, times: JoinTimes, now_ms: int) -> None:
    """Have ``waiters`` wait on; those that have waited too long are dead."""
    for waiter in waiters:
        due_ms = waiter.taken_ms + times.keep_ms
        if due_ms > now_ms:
            result.postponed.append((waiter.number, due_ms))
        else:
            result.dead.append((waiter, reason))
