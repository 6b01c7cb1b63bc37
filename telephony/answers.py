"""What a node's answers say about the transactions of an agent.

A refusal that speaks of one record, or of the time that records are from, is about the transaction; every other one
is about who sent it, where to, or when: then nothing is given up.

Source: docs/api.md, "Signed transactions".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec

REASON_CHARACTERS_MAX: Final = 2_000
"""Of a node's answer, what a dead letter keeps."""

_ITEM: Final = re.compile(r"items\[([0-9]{1,4})\](?:\..*)?", re.ASCII | re.DOTALL)
_BOUND: Final = re.compile(r"(<=|>=) ([0-9]{1,16})", re.ASCII)
_OF_A_RECORD: Final = frozenset({"rule-violation", "field", "encoding", "non-canonical-encoding"})
_URN: Final = "urn:ledgerd:problem:"


class Answer(NamedTuple):
    """A node's answer; status 0 where there was none, the reason then in ``body``."""

    status: int
    body: bytes


class Fate(Enum):
    """What becomes of a transaction that was handed in."""

    STORED = "stored"
    """A node has it on its disk."""
    AGAIN = "again"
    """Nothing is said about it: hand it in again, elsewhere or later."""
    LATER = "later"
    """It is too early for it: hand it in again in some seconds."""
    ENDED = "ended"
    """Its time is over: find out whether the chain has it, and sign its records anew where it has not."""
    RECORD = "record"
    """One record is refused, whatever is signed around it."""
    OLD = "old"
    """Records that ended before a bound are refused."""
    HALVES = "halves"
    """It is too large: sign smaller ones."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an answer says of one transaction."""

    fate: Fate
    reason: str = ""
    index: int = 0
    """Of RECORD: which item."""
    bound_ms: int = 0
    """Of OLD: what ended before this."""


class Promised(NamedTuple):
    """What a node says of a transaction that is on its way."""

    state: str
    """``stored``, ``accepted``, ``included``, ``final``, ``void``, ``expired`` or ``unknown``."""
    void: int
    """How many of its records do not count."""


class Promises(NamedTuple):
    """What a node says of several, and where its chain stands."""

    now_ms: int
    head_height: int
    final_height: int
    final_time_ms: int
    """Time of the final block: what expired before is in no block to come."""
    of: dict[bytes, Promised]


def outcomes_of(answer: Answer, count: int) -> list[Outcome]:
    """Return what an answer to ``count`` transactions says of each."""
    try:
        results = msgspec.json.decode(answer.body)["results"] if answer.status else None
        if isinstance(results, list) and len(results) == count:
            return [_outcome(result) for result in results]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError, ValueError):
        pass
    return [Outcome(Fate.AGAIN, reason_of(answer))] * count


def reason_of(answer: Answer) -> str:
    """Return why an answer says nothing of any transaction."""
    reason = f"HTTP {answer.status}" if answer.status else answer.body.decode("utf-8", "replace")
    return reason[:REASON_CHARACTERS_MAX]


def _outcome(result: Any) -> Outcome:
    status = result["status"]
    if status in {200, 201}:
        return Outcome(Fate.STORED)
    problem = result.get("problem")
    if status not in {400, 422} or not isinstance(problem, dict):
        return Outcome(Fate.AGAIN, f"HTTP {status}")
    reason = f"HTTP {status}: {problem.get('detail')}"[:REASON_CHARACTERS_MAX]
    kind = str(problem.get("type")).removeprefix(_URN)
    where, expected = str(problem.get("field")), str(problem.get("expected"))
    item, bound = _ITEM.fullmatch(where), _BOUND.fullmatch(expected)
    if kind in _OF_A_RECORD and item is not None:
        return Outcome(Fate.RECORD, reason, index=int(item[1]))
    if kind == "unusable-transaction":
        if where == "envelope.expires_ms":
            return Outcome(Fate.ENDED, reason)
        if where == "items":
            return Outcome(Fate.HALVES, reason)
        if where == "end_ms" and bound is not None and bound[1] == ">=":
            return Outcome(Fate.OLD, reason, bound_ms=int(bound[2]))
        if where in {"end_ms", "envelope.created_ms"}:
            return Outcome(Fate.LATER, reason)
    return Outcome(Fate.AGAIN, reason)


def promises_of(answer: Answer) -> Promises | None:
    """Return what a node says of transactions; None for an answer that says nothing."""
    if answer.status != 200:
        return None
    try:
        found = msgspec.json.decode(answer.body)
        promises = {
            bytes.fromhex(promise["tx_id"]): Promised(str(promise["state"]), len(promise["void"]))
            for promise in found["promises"]
        }
        numbers = (
            found["now_ms"],
            found["head"]["height"],
            found["final"]["height"],
            found["final"]["time_ms"],
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError, ValueError):
        return None
    return Promises(*numbers, promises) if all(type(number) is int for number in numbers) else None
