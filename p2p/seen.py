"""Peers tell each other what they have seen of one another: signatures that may have been forgotten, and the clock.

Pure. A side whose message says 12:00:00 when it is 12:00:01 here may be slow, or its message was under way for a
second. Both sides say how it looked to them; half of the difference is the clocks', as long as both ways take equally
long.

Source: docs/protocol.md, "Peering"; for clocks RFC 5905, section 8.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from consensus.verdict import Verdict
from p2p import limits
from p2p.messages import Message, Seen
from p2p.scores import PeerId


@dataclass(slots=True)
class _Peer:
    """The clock of one peer.

    samples_ms: how far ahead it seemed, latest last. told_ms: how far ahead ours seemed there.
    """

    samples_ms: deque[int] = field(default_factory=lambda: deque(maxlen=limits.SKEW_SAMPLES))
    told_ms: int | None = None

    @property
    def seems_ms(self) -> int | None:
        """Return by how much it seems ahead, the way of its messages not deducted: the one least under way."""
        return max(self.samples_ms, default=None)

    @property
    def ahead_ms(self) -> int | None:
        """Return by how much it is ahead; None before it told."""
        seems_ms = self.seems_ms
        if seems_ms is None:
            return None
        return seems_ms if self.told_ms is None else (seems_ms - self.told_ms) // 2


class SeenExchange:
    """One node's side of it.

    tell: makes the message for a peer; the second argument is its ``skew_ms``.
    hear: takes what a peer has seen of this node. Raises LedgerError for a lie.
    """

    def __init__(self, tell: Callable[[PeerId, int | None], Seen], hear: Callable[[PeerId, Seen], None]) -> None:
        self._tell = tell
        self._hear = hear
        self._peers: dict[PeerId, _Peer] = {}
        self._due_ms: int | None = None
        self._sends: list[tuple[PeerId, Message]] = []

    @property
    def clocks_ms(self) -> list[int]:
        """Return by how much the clock of each peer is ahead of ours, of those that told, ascending."""
        return sorted(ahead_ms for peer in self._peers.values() if (ahead_ms := peer.ahead_ms) is not None)

    def peer_up(self, peer_id: PeerId, *, now_ms: int) -> None:
        """Begin with a connection: tell it what we have seen of it."""
        self._peers[peer_id] = _Peer()
        self._send(peer_id)
        if self._due_ms is None:
            self._due_ms = now_ms + limits.SEEN_INTERVAL_MS

    def peer_down(self, peer_id: PeerId) -> None:
        """Forget a connection."""
        self._peers.pop(peer_id, None)

    def receive(self, message: Seen, sender: PeerId, *, wall_ms: int) -> Verdict:
        """Take in what a peer has seen; ``wall_ms`` is this node's clock. Raises LedgerError for a lie."""
        peer = self._peers.get(sender)
        # [IGNORE] The connection is gone: the message waited while it closed.
        if peer is None:
            return Verdict.IGNORE
        is_first = not peer.samples_ms
        peer.samples_ms.append(message.now_ms - wall_ms)
        peer.told_ms = message.skew_ms
        if is_first and message.skew_ms is None:
            # Now that there is something to say of its clock.
            self._send(sender)
        self._hear(sender, message)
        return Verdict.ACCEPT

    def next_timer_ms(self) -> int | None:
        """Return when ``handle_timer`` is due, or None."""
        return self._due_ms if self._peers else None

    def handle_timer(self, *, now_ms: int) -> None:
        """Tell every peer again."""
        if self._due_ms is not None and now_ms >= self._due_ms:
            self._due_ms = now_ms + limits.SEEN_INTERVAL_MS
            for peer_id in self._peers:
                self._send(peer_id)

    def take_sends(self) -> list[tuple[PeerId, Message]]:
        """Return what is to be sent since the last call."""
        sends, self._sends = self._sends, []
        return sends

    def _send(self, peer_id: PeerId) -> None:
        self._sends.append((peer_id, self._tell(peer_id, self._peers[peer_id].seems_ms)))
