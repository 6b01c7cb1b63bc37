"""What becomes of the documents of one call that wait for each other: a call, dead letters, or more waiting.

Pure; times are UTC milliseconds.

Source: docs/agent.md, "Calls told in parts".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ledger.errors import FieldError
from telephony.joining import add_quality, is_of_dialog, merge_call
from telephony.source import PartRole, Source, SourceCall, SourcePart
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


class _Whole(NamedTuple):
    """A call that is whole."""

    call: SourceCall
    parts: list[Waiter]
    due_ms: int
    """When it goes on."""


def gather(found: Sequence[tuple[Waiter, Source]], *, times: JoinTimes, now_ms: int) -> Gathered:
    """Return what becomes of ``found``, all that waits of one key."""
    result = Gathered()
    wholes = [
        _Whole(source, [waiter], waiter.taken_ms + times.wait_of(source.platform))
        for waiter, source in found
        if isinstance(source, SourceCall)
    ]
    wholes += _merge(found, result, times, now_ms)
    added: dict[int, list[SourcePart]] = {index: [] for index in range(len(wholes))}
    used: dict[int, list[Waiter]] = {index: [] for index in range(len(wholes))}
    unused = []
    for waiter, source in found:
        if isinstance(source, SourceCall) or source.role is not PartRole.QUALITY:
            continue
        its = _calls_of(source, wholes)
        for index in its:
            added[index].append(source)
        last = max(its, key=lambda index: wholes[index].due_ms, default=None)
        if last is None or wholes[last].due_ms > now_ms:
            unused.append(waiter)
        else:
            used[last].append(waiter)
    for index, (bare, parts, due_ms) in enumerate(wholes):
        if due_ms > now_ms:
            result.postponed += [(waiter.number, due_ms) for waiter in parts]
        else:
            result.calls.append(Joined(add_quality(bare, added[index]), bare, [*parts, *used[index]]))
    _keep(unused, NO_CALL, result, times, now_ms)
    return result


def _calls_of(report: SourcePart, wholes: Sequence[_Whole]) -> list[int]:
    """Return the indexes of the calls that a report is of; of those that fit, the answered ones, if any."""
    fitting = [index for index, whole in enumerate(wholes) if is_of_dialog(whole.call, report)]
    return [index for index in fitting if wholes[index].call.answer_ms] or fitting


def _merge(found: Sequence[tuple[Waiter, Source]], result: Gathered, times: JoinTimes, now_ms: int) -> list[_Whole]:
    """Return the calls that begins and ends make; what has no counterpart waits on.

    Of several ends of one dialog, as where both sides hung up at once, the earliest counts.
    """
    begins, ends = (
        sorted(
            (
                (waiter, source)
                for waiter, source in found
                if isinstance(source, SourcePart) and source.role is role and source.call is not None
            ),
            key=_moment,
        )
        for role in (PartRole.BEGIN, PartRole.END)
    )
    wholes: list[_Whole] = []
    taken: set[int] = set()
    dialogs: list[SourceCall] = []
    for begin, first in begins:
        mates = [(end, last) for end, last in ends if end.number not in taken and _is_of(first, last)]
        if any(is_of_dialog(dialog, first) for dialog in dialogs):
            result.dead.append((begin, ANOTHER))
        elif not mates:
            _keep([begin], NO_REST, result, times, now_ms)
        else:
            taken.update(end.number for end, _ in mates)
            whole = _merge_first(begin, first, mates, result, times)
            if whole is not None:
                wholes.append(whole)
                dialogs.append(whole.call)
    _keep([end for end, _ in ends if end.number not in taken], NO_REST, result, times, now_ms)
    return wholes


def _merge_first(
    begin: Waiter, first: SourcePart, mates: Sequence[tuple[Waiter, SourcePart]], result: Gathered, times: JoinTimes
) -> _Whole | None:
    """Return the call that a beginning and the first end that does not contradict it make; None where all do."""
    whole, reason = None, ""
    for end, last in mates:
        if whole is not None:
            result.dead.append((end, ANOTHER))
            continue
        try:
            due_ms = max(begin.taken_ms, end.taken_ms) + times.wait_of(first.platform)
            whole = _Whole(merge_call(first, last), [begin, end], due_ms)
        except FieldError as error:
            reason = error.sentence()
            result.dead.append((end, reason))
    if whole is None:
        result.dead.append((begin, reason))
    return whole


def _is_of(begin: SourcePart, end: SourcePart) -> bool:
    return begin.call is not None and is_of_dialog(begin.call, end)


def _moment(part: tuple[Waiter, SourcePart]) -> tuple[int, int, bytes]:
    """Order parts by what they say, never by when they came."""
    call = part[1].call
    return (call.end_ms, call.setup_ms, part[0].document) if call is not None else (0, 0, part[0].document)


def _keep(waiters: Sequence[Waiter], reason: str, result: Gathered, times: JoinTimes, now_ms: int) -> None:
    """Have ``waiters`` wait on; those that have waited too long are dead."""
    for waiter in waiters:
        due_ms = waiter.taken_ms + times.keep_ms
        if due_ms > now_ms:
            result.postponed.append((waiter.number, due_ms))
        else:
            result.dead.append((waiter, reason))
