"""What happened, line by line, and one hash over all of it: same seed, same hash."""

from __future__ import annotations

from hashlib import sha256

from node.sim.world import GENESIS_MS, SLOT_MS


class Transcript:
    """The story of one run.

    Attributes:
        lines: what was said, in order.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._hash = sha256()

    def say(self, now_ms: int, who: str, text: str) -> None:
        """Add a line, with the time in slots since genesis."""
        slot, ms = divmod(now_ms - GENESIS_MS, SLOT_MS)
        line = f"{slot:4}.{ms:03} {who:>4} {text}"
        self.lines.append(line)
        self._hash.update(line.encode() + b"\n")

    @property
    def digest(self) -> str:
        """Return the hash of everything said so far."""
        return self._hash.hexdigest()
