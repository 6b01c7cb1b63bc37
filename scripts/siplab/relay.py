"""A bad network on purpose: RTP and RTCP pass through it late, unevenly, or not at all.

It stands between a user agent and rtpengine, in both directions, and is the address that the SDP names. Chance is
seeded, so that a call can be made again just as bad.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Path:
    """What happens to packets on their way, in each direction by itself."""

    loss_percent: float = 0.0
    """Of RTP packets; reports always arrive."""
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    """Up to so much more delay, evenly spread; packets never overtake each other."""

    @classmethod
    def parse(cls, text: str) -> Path:
        """Return the path in ``LOSS,DELAY,JITTER``: percent and milliseconds. Raises ValueError."""
        loss, delay, jitter = (float(part) for part in text.split(","))
        if not (0 <= loss < 100 and 0 <= delay <= 2_000 and 0 <= jitter <= 2_000):
            raise ValueError(text)
        return cls(loss, delay, jitter)


class _Lane(asyncio.DatagramProtocol):
    """One relayed port: from the user agent on to rtpengine, from anybody else to the user agent."""

    def __init__(self, near: tuple[str, int], path: Path, *, loses: bool, chance: random.Random) -> None:
        self._near = near
        self.far: tuple[str, int] | None = None
        self._path = path
        self._loses = loses
        self._chance = chance
        self._free_at = {True: 0.0, False: 0.0}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        outward = address == self._near
        target = self.far if outward else self._near
        if target is None or (self._loses and self._chance.random() * 100 < self._path.loss_percent):
            return
        loop = asyncio.get_running_loop()
        delay_s = (self._path.delay_ms + self._chance.random() * self._path.jitter_ms) / 1000
        # In order, as in a queue: what left later arrives later.
        at = self._free_at[outward] = max(loop.time() + delay_s, self._free_at[outward])
        loop.call_at(at, self._send, data, target)

    def _send(self, data: bytes, target: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, target)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Relay:
    """Two relayed ports, RTP and the one above; ``port`` is the even one."""

    def __init__(self, port: int, lanes: tuple[_Lane, _Lane]) -> None:
        self.port = port
        self._lanes = lanes

    @classmethod
    async def open(cls, port: int, near_port: int, path: Path, seed: int) -> Relay:
        """Bind ``port`` and ``port + 1`` for the user agent at ``near_port``; raises OSError when one is taken."""
        loop = asyncio.get_running_loop()
        chance = random.Random(seed)  # noqa: S311 - a network's chance, not a secret
        lanes = [_Lane(("127.0.0.1", near_port + offset), path, loses=offset == 0, chance=chance) for offset in (0, 1)]
        try:
            for offset, lane in enumerate(lanes):
                await loop.create_datagram_endpoint(lambda lane=lane: lane, ("127.0.0.1", port + offset))
        except OSError:
            for lane in lanes:
                lane.close()
            raise
        return cls(port, (lanes[0], lanes[1]))

    def aim(self, far_port: int) -> None:
        """Send what comes from the user agent to ``far_port`` and the one above, on loopback."""
        for offset, lane in enumerate(self._lanes):
            lane.far = ("127.0.0.1", far_port + offset)

    def close(self) -> None:
        """Give the sockets back; what is still on its way is lost."""
        for lane in self._lanes:
            lane.close()
