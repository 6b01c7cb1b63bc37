"""What goes over the wires, counted by direction and kind of message.

Source: docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from p2p.messages import TYPE_BYTES, Message


@dataclass(slots=True)
class Flow:
    """Messages of one kind in one direction."""

    messages: int = 0
    octets: int = 0


class Traffic:
    """Messages between peers after the handshake, since the start; their frames without WebSocket and TLS.

    Bounded by the kinds of message that there are.
    """

    def __init__(self) -> None:
        self._flows = {(direction, kind): Flow() for direction in ("in", "out") for kind in TYPE_BYTES}

    def received(self, message: Message, octets: int) -> None:
        """Count a message that came in a frame of ``octets``."""
        self._count("in", message, octets)

    def sent(self, message: Message, octets: int) -> None:
        """Count a message that was queued for a peer."""
        self._count("out", message, octets)

    def flows(self) -> Iterator[tuple[str, str, Flow]]:
        """Yield direction, ``in`` or ``out``, kind of message, and what there was of it."""
        for (direction, kind), flow in self._flows.items():
            yield direction, kind.__name__, flow

    def _count(self, direction: str, message: Message, octets: int) -> None:
        flow = self._flows[direction, type(message)]
        flow.messages += 1
        flow.octets += octets
