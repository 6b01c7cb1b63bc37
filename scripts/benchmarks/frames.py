"""What a frame between two peers costs of a core: the real transports and handshake, over loopback."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from ledger.block import Vote
from ledger.crypto import PrivateKey
from ledger.entries import KeyEntry, KeyStanding
from ledger.genesis import Role
from node.cluster import HOST, free_ports
from p2p.messages import Message, Votes, encode_message
from p2p.transport import Transport, TransportConfig

FRAMES = 5_000
CHAIN_ID = bytes(32)
CONNECT_S = 10.0


async def frame_cost_us(size: int) -> float:
    """Return the CPU microseconds of a frame of about ``size`` bytes, sent here and received there."""
    return await _measure(_message(size))


def _message(size: int) -> Message:
    """Return votes that take about ``size`` bytes."""
    vote = Vote(1, bytes(32), 2, bytes(32), bytes(20), bytes(64))
    return Votes([vote] * max(1, round(size / len(encode_message(Votes([vote]))))))


async def _measure(message: Message) -> float:
    keys = [PrivateKey.from_seed(name) for name in (b"one", b"other")]
    entries = {
        key.key_id: KeyEntry(f"carrier-{number}", key.public_key, int(Role.NODE), KeyStanding.ACTIVE)
        for number, key in enumerate(keys)
    }
    port = free_ports(1)[0]
    arrived = asyncio.Event()
    transports = [
        Transport(
            TransportConfig(peers=(f"ws://{HOST}:{port}",) if number else ()),
            key=key,
            chain_id=CHAIN_ID,
            node_key=entries.get,
            on_message=lambda _peer, _message: arrived.set(),
            on_peer_up=lambda _peer: None,
            on_peer_down=lambda _peer, _reason: None,
        )
        for number, key in enumerate(keys)
    ]
    app = web.Application()
    transports[0].attach(app)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    try:
        for transport in transports:
            await transport.start()
        async with asyncio.timeout(CONNECT_S):
            while not all(transport.peers for transport in transports):  # noqa: ASYNC110 - a moment at the start
                await asyncio.sleep(0.01)
        started_s = time.process_time()
        for number in range(FRAMES):
            arrived.clear()
            # In turn, so that each is a frame, and a wake-up, of its own.
            transports[number % 2].send(keys[1 - number % 2].key_id, message)
            await arrived.wait()
        return 1e6 * (time.process_time() - started_s) / FRAMES
    finally:
        for transport in transports:
            await transport.stop()
        await runner.cleanup()
