"""What peers did wrong, and who is banned for it. Pure; time is an argument.

A rejected message costs ``limits.REJECT_SCORE`` points, a point is forgiven each ``limits.SCORE_DECAY_MS``, and
``limits.BAN_SCORE`` bans for ``limits.BAN_MS``. Ignored messages cost nothing: being late is no fault.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeAlias

from p2p import limits

PeerId: TypeAlias = bytes
"""A connected peer: the id of its node key (20 bytes); two nodes keep one connection."""


@dataclass(slots=True)
class _Record:
    """Points at a time, and the end of a ban."""

    points: int
    at_ms: int
    banned_until_ms: int = 0


class Scores:
    """Penalties by peer, remembered over reconnects; bounded by ``limits.SCORED_PEERS_MAX``."""

    def __init__(self) -> None:
        self._records: OrderedDict[PeerId, _Record] = OrderedDict()
        self._banned: list[tuple[PeerId, str]] = []

    def reject(self, peer: PeerId, reason: str, *, now_ms: int) -> None:
        """Charge ``peer`` for a lie or a malformed message; ``reason`` goes with the ban it may lead to."""
        record = self._records.pop(peer, None) or _Record(0, now_ms)
        self._records[peer] = record
        if len(self._records) > limits.SCORED_PEERS_MAX:
            self._records.popitem(last=False)
        forgiven = (now_ms - record.at_ms) // limits.SCORE_DECAY_MS
        record.points = max(0, record.points - forgiven) + limits.REJECT_SCORE
        record.at_ms = now_ms
        if record.points >= limits.BAN_SCORE:
            record.points = 0
            record.banned_until_ms = now_ms + limits.BAN_MS
            self._banned.append((peer, reason))

    def is_banned(self, peer: PeerId, *, now_ms: int) -> bool:
        """Tell whether ``peer`` is banned now."""
        record = self._records.get(peer)
        return record is not None and now_ms < record.banned_until_ms

    def take_banned(self) -> list[tuple[PeerId, str]]:
        """Return who was banned since the last call, with the last reason: their connections are to be closed."""
        banned, self._banned = self._banned, []
        return banned
