"""What an examination found: one line each, with what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Level(Enum):
    """How bad it is: ``WARN`` can wait for the morning, ``BAD`` cannot."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


EXIT_STATUS: Final = {Level.OK: 0, Level.BAD: 1, Level.WARN: 3}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: which, one of ``CHECKS``.
        about: whom or what: an address, a member, ``chain``, ``this machine``.
        what: what was found, in a sentence without a full stop.
        todo: what to do about it; empty where it is well.
    """

    level: Level
    check: str
    about: str
    what: str
    todo: str = ""


CHECKS: Final = {
    "answer": "who answers, and as what",
    "chain": "all are of one chain, and of the one in the genesis file",
    "proof": "the final block, by the genesis file alone",
    "sync": "whether a node that says it is in step is",
    "finality": "time since the last final block",
    "votes": "who does not vote, since which height",
    "slots": "who misses slots",
    "signing": "whether a node may vote and seal",
    "clock": "clocks against one another, and this machine's",
    "disk": "room, growth, days left",
    "peers": "too few, not mutual, without TLS",
    "versions": "programs and rules that differ",
    "governance": "proposals about to expire, a set change that is stuck, who was struck, keys that retire",
    "agent": "backlog, oldest document, dead letters, room, watched files",
}
"""What is looked at, in the order in which it is told."""


def good(check: str, about: str, what: str) -> Finding:
    """Return that something is well."""
    return Finding(Level.OK, check, about, what)


def warn(check: str, about: str, what: str, todo: str) -> Finding:
    """Return what can wait for the morning."""
    return Finding(Level.WARN, check, about, what, todo)


def bad(check: str, about: str, what: str, todo: str) -> Finding:
    """Return what cannot wait."""
    return Finding(Level.BAD, check, about, what, todo)


def worst(findings: Iterable[Finding]) -> Level:
    """Return how bad it is in all."""
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.BAD, Level.WARN) if level in levels), Level.OK)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings by what was looked at; of each, as they were found."""
    order = list(CHECKS)
    return sorted(findings, key=lambda finding: order.index(finding.check))


def some(count: int, thing: str) -> str:
    """Return a number of things in words: ``1 block``, ``2,000 blocks``."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def lasting(time_ms: int) -> str:
    """Return a length of time as people say it: milliseconds below ten seconds, else the two largest units."""
    if abs(time_ms) < 10_000:
        return f"{time_ms} ms"
    seconds = time_ms // 1000
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def size(octets: int) -> str:
    """Return a number of bytes as people say it."""
    for unit, one in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(octets) >= one:
            return f"{octets / one:.1f} {unit}"
    return f"{octets} bytes"
