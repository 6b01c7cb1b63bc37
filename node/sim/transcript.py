"""What happened, line by line, and one hash over all of it: same seed, same hash.

Lines are kept in parts and put together when somebody wants to read them: of thousands of runs, few are read.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from node.sim.world import GENESIS_MS, SLOT_MS


class Transcript:
    """The story of one run."""

    def __init__(self) -> None:
        self._told: list[tuple[int, str, str, tuple[Any, ...]]] = []

    def say(self, now_ms: int, who: str, text: str, *facts: Any) -> None:
        """Add a line: ``text`` with ``facts`` put in by ``str.format``. Bytes are ids and shown by their beginning."""
        self._told.append((now_ms, who, text, facts))

    @property
    def lines(self) -> list[str]:
        """Return what was said, in order, each line with the time in slots since genesis."""
        return [_line(*part) for part in self._told]

    @property
    def digest(self) -> str:
        """Return the hash of everything said so far."""
        return sha256("".join(f"{line}\n" for line in self.lines).encode()).hexdigest()


def _line(now_ms: int, who: str, text: str, facts: tuple[Any, ...]) -> str:
    slot, ms = divmod(now_ms - GENESIS_MS, SLOT_MS)
    shown = [fact.hex()[:6] if isinstance(fact, bytes) else fact for fact in facts]
    return f"{slot:4}.{ms:03} {who:>4} {text.format(*shown) if facts else text}"
