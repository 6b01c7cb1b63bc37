"""One side of a call's audio: RTP out every 20 ms, and RTCP that reports honestly on what came in.

RTP and RTCP as in RFC 3550. The payload is G.711 A-law silence: the lab is about what the network reports, and
nobody listens. Losses are made by not counting packets that arrived, so that one direction can be bad on purpose.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import time

PTIME_S = 0.020
SAMPLES_PER_PACKET = 160
CLOCK_HZ = 8000
PCMA = 8
RTCP_INTERVAL_S = 1.1
"""Shorter than RFC 3550 has it, so that a call of seconds yields several reports; rtpengine keeps one a second."""
NTP_EPOCH_S = 2_208_988_800


def ntp_now() -> int:
    """Return the wall clock as a 64-bit NTP timestamp."""
    return int((time.time() + NTP_EPOCH_S) * (1 << 32))


class Reception:
    """What a receiver knows of the stream it hears, by RFC 3550 section 6.4.1 and appendix A.

    drop_every: every n-th packet counts as lost; 0 for none.
    """

    def __init__(self, drop_every: int = 0) -> None:
        self.drop_every = drop_every
        self.ssrc: int | None = None
        self.first_seq = 0
        self.last_seq = 0
        self.received = 0
        self.jitter = 0.0
        self.last_transit = 0.0
        self.prior_expected = 0
        self.prior_received = 0
        self.last_sr_middle = 0
        self.last_sr_at_s = 0.0

    def take_rtp(self, packet: bytes, now_s: float) -> None:
        """Count one RTP packet."""
        if len(packet) < 12:
            return
        seq, stamp, ssrc = struct.unpack("!HII", packet[2:12])
        if self.ssrc is None:
            self.ssrc, self.first_seq, self.last_seq = ssrc, seq, seq
            self.last_transit = now_s * CLOCK_HZ - stamp
        # Extended by what the 16-bit counter moved; the lab's calls never reorder by more than half its range.
        self.last_seq += (seq - self.last_seq + 0x8000) % 0x10000 - 0x8000
        if self.drop_every and seq % self.drop_every == 0:
            return
        self.received += 1
        transit = now_s * CLOCK_HZ - stamp
        self.jitter += (abs(transit - self.last_transit) - self.jitter) / 16
        self.last_transit = transit

    def take_rtcp(self, packet: bytes, now_s: float) -> None:
        """Remember the sender report, if this is one: the next report block answers it."""
        if len(packet) >= 20 and packet[1] == 200:
            self.last_sr_middle = struct.unpack("!I", packet[10:14])[0]
            self.last_sr_at_s = now_s

    def report_block(self, now_s: float) -> bytes:
        """Return the 24-byte report block since the last one, empty when nothing was heard yet."""
        if self.ssrc is None:
            return b""
        expected = self.last_seq - self.first_seq + 1
        lost = max(0, expected - self.received)
        expected_since = expected - self.prior_expected
        lost_since = expected_since - (self.received - self.prior_received)
        self.prior_expected, self.prior_received = expected, self.received
        fraction = min(255, (max(0, lost_since) << 8) // expected_since) if expected_since else 0
        delay = int((now_s - self.last_sr_at_s) * 65536) if self.last_sr_middle else 0
        return struct.pack(
            "!IIIIII",
            self.ssrc,
            fraction << 24 | lost & 0xFFFFFF,
            self.last_seq & 0xFFFFFFFF,
            int(self.jitter),
            self.last_sr_middle,
            delay,
        )


class _Receiver(asyncio.DatagramProtocol):
    """Hands datagrams to a function."""

    def __init__(self, take: object) -> None:
        self.take = take

    def datagram_received(self, data: bytes, _addr: tuple[str, int]) -> None:
        self.take(data, time.monotonic())


class MediaSession:
    """Sockets and sender of one side; ``port`` is even and RTCP is one above."""

    def __init__(self, port: int, rtp: asyncio.DatagramTransport, rtcp: asyncio.DatagramTransport, heard: Reception):
        self.port = port
        self.heard = heard
        self._rtp = rtp
        self._rtcp = rtcp
        self._ssrc = secrets.randbits(32)
        self._task: asyncio.Task[None] | None = None
        self.packets_sent = 0

    @classmethod
    async def open(cls, port: int, *, drop_every: int = 0) -> MediaSession:
        """Bind ``port`` and ``port + 1`` on loopback; raises OSError when one is taken."""
        loop = asyncio.get_running_loop()
        heard = Reception(drop_every)
        rtp, _ = await loop.create_datagram_endpoint(lambda: _Receiver(heard.take_rtp), ("127.0.0.1", port))
        try:
            rtcp, _ = await loop.create_datagram_endpoint(lambda: _Receiver(heard.take_rtcp), ("127.0.0.1", port + 1))
        except OSError:
            rtp.close()
            raise
        return cls(port, rtp, rtcp, heard)

    def start(self, remote_port: int, *, with_rtcp: bool) -> None:
        """Begin to send to ``remote_port`` on loopback, with reports or without."""
        self._task = asyncio.create_task(self._send(("127.0.0.1", remote_port), with_rtcp))

    async def stop(self) -> None:
        """Stop sending and give the sockets back."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._rtp.close()
        self._rtcp.close()

    async def _send(self, remote: tuple[str, int], with_rtcp: bool) -> None:
        started_s = time.monotonic()
        seq, stamp = secrets.randbits(15), secrets.randbits(31)
        next_report_s = started_s + RTCP_INTERVAL_S
        payload = b"\xd5" * SAMPLES_PER_PACKET
        while True:
            header = struct.pack("!BBHII", 0x80, PCMA, seq & 0xFFFF, stamp & 0xFFFFFFFF, self._ssrc)
            self._rtp.sendto(header + payload, remote)
            self.packets_sent += 1
            seq, stamp = seq + 1, stamp + SAMPLES_PER_PACKET
            now_s = time.monotonic()
            if with_rtcp and now_s >= next_report_s:
                next_report_s += RTCP_INTERVAL_S
                self._rtcp.sendto(self._report(stamp, now_s), (remote[0], remote[1] + 1))
            await asyncio.sleep(max(0.0, started_s + self.packets_sent * PTIME_S - now_s))

    def _report(self, stamp: int, now_s: float) -> bytes:
        block = self.heard.report_block(now_s)
        ntp = ntp_now()
        body = struct.pack(
            "!IIIIII",
            self._ssrc,
            ntp >> 32,
            ntp & 0xFFFFFFFF,
            stamp & 0xFFFFFFFF,
            self.packets_sent,
            self.packets_sent * SAMPLES_PER_PACKET,
        )
        report = struct.pack("!BBH", 0x80 | bool(block), 200, (len(body) + len(block)) // 4) + body + block
        name = b"sip-lab"
        chunk = struct.pack("!IBB", self._ssrc, 1, len(name)) + name + b"\0"
        chunk += b"\0" * (-len(chunk) % 4)
        return report + struct.pack("!BBH", 0x81, 202, len(chunk) // 4) + chunk
