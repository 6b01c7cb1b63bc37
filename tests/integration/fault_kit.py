"""What goes wrong around real nodes: links that are cut, disks that fill up, members that lie, clients of nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest

from ledger.crypto import PrivateKey
from ledger.genesis import Genesis, Role, chain_id_of
from ledger.state import genesis_state
from node.cluster import Cluster, ClusterNode
from node.config import Address
from node.localnet import LocalNode
from p2p.messages import Message
from p2p.transport import Transport, TransportConfig
from tests.integration.cluster_kit import wait_until

T = TypeVar("T")
CHUNK_BYTES = 64 * 1024
CALL_SECONDS = 20
NOWHERE = "ws://127.0.0.1:9"
"""An address that nobody listens on."""


class Loop:
    """An event loop in a thread of its own: relays and liars run beside a test that waits."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function there and return its result."""

        async def work() -> T:
            return function(*arguments)

        return self.run(work())


# --- Links ----------------------------------------------------------------------------------------------------


class Relays:
    """TCP relays on loopback, one for each way from one node to another, to be cut and healed at will.

    Attributes:
        heard: what went over each connection in each direction, where it is kept.
    """

    def __init__(self, *, keeps: bool = False) -> None:
        """``keeps``: what goes over the relays is kept in memory."""
        self.heard: list[bytearray] = []
        self._keeps = keeps
        self._servers: list[asyncio.Server] = []
        self._tasks: dict[tuple[str, str], set[asyncio.Task[None]]] = {}
        self._cut: set[tuple[str, str]] = set()

    async def open(self, way: tuple[str, str], target: Address) -> int:
        """Relay connections to ``target``; return the port to dial instead."""
        tasks = self._tasks.setdefault(way, set())

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                if way not in self._cut:
                    await _relay(reader, writer, target, self._listen)
            except asyncio.CancelledError:
                pass  # The link was cut.
            finally:
                tasks.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def _listen(self) -> bytearray | None:
        """Return where a connection keeps what goes over it in one direction."""
        if not self._keeps:
            return None
        self.heard.append(bytearray())
        return self.heard[-1]

    def cut(self, ways: set[tuple[str, str]]) -> None:
        """End the connections of ``ways`` as a pulled cable does, and refuse new ones."""
        self._cut = ways
        for way in ways:
            for task in self._tasks[way]:
                task.cancel()

    def heal(self) -> None:
        """Let connections through again."""
        self._cut = set()

    async def close(self) -> None:
        """End everything."""
        self.cut(set(self._tasks))
        for server in self._servers:
            server.close()
        await asyncio.sleep(0)


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    target: Address,
    listen: Callable[[], bytearray | None],
) -> None:
    """Carry bytes both ways until one side ends."""
    try:
        far_reader, far_writer = await asyncio.open_connection(target.host, target.port)
    except OSError:
        return
    pumps = [
        asyncio.create_task(_pump(reader, far_writer, listen())),
        asyncio.create_task(_pump(far_reader, writer, listen())),
    ]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        far_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray | None) -> None:
    """Carry bytes one way, and add them to ``heard``."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            if heard is not None:
                heard += data
            writer.write(data)
            await writer.drain()


def set_option(place: ClusterNode, name: str, value: object) -> None:
    """Change one option in a node's configuration file."""
    text = place.config.read_text()
    changed, count = re.subn(rf"^{name} = .*$", f"{name} = {json.dumps(value)}", text, flags=re.MULTILINE)
    assert count == 1, name
    place.config.write_text(changed)


def lead_through(relays: Relays, loop: Loop, cluster: Cluster) -> None:
    """Make the nodes of ``cluster`` reach each other through ``relays`` only."""
    for place in cluster.nodes:
        others = [other for other in cluster.nodes if other is not place]
        ports = [loop.run(relays.open((place.member_id, other.member_id), other.listen)) for other in others]
        set_option(place, "peers", [f"ws://127.0.0.1:{port}" for port in ports])
        # What peers tell each other would lead around the relays.
        set_option(place, "endpoint", NOWHERE)


# --- Disks ----------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(path: Path, *, mib: int, read_only: bool = False) -> Iterator[Path]:
    """Make ``path`` a file system of its own; skips the test where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={mib}m,mode=700" + (",ro" if read_only else "")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "ledgerd-test", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> Path:
    """Write a file in ``path`` until nothing fits any more; return it."""
    ballast = path / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError) as caught:
        while True:
            file.write(bytes(1 << 20))
    assert caught.value.errno == errno.ENOSPC
    return ballast


# --- Peers that are not what they should be -------------------------------------------------------------------


class OddPeer:
    """A real transport with a key of the test's choice, that says what the test wants.

    Attributes:
        connected: key ids of the nodes it is connected to now.
        ended: why connections ended. refused: why others did not come up.
    """

    def __init__(self, loop: Loop, genesis: Genesis, key: PrivateKey, nodes: list[LocalNode]) -> None:
        self.ended: list[str] = []
        self.refused: list[str] = []
        self._loop = loop
        state = genesis_state(genesis)
        self._transport = Transport(
            TransportConfig(tuple(f"ws://{node.place.listen}" for node in nodes)),
            key=key,
            chain_id=chain_id_of(genesis),
            node_key=lambda key_id: state.key_with_role(key_id, Role.NODE),
            on_message=lambda _peer, _message: None,
            on_peer_up=lambda _peer: None,
            on_peer_down=lambda _peer, reason: self.ended.append(reason),
            on_refused=lambda _address, reason: self.refused.append(reason),
        )

    def __enter__(self) -> Self:
        self._loop.run(self._transport.start())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._transport.stop())

    @property
    def connected(self) -> set[bytes]:
        return {peer.key_id for peer in self._loop.call(lambda: self._transport.peers)}

    def tell(self, node_key_id: bytes, *messages: Message) -> None:
        """Say something to one node, once it is connected."""
        wait_until("the odd peer is connected", lambda: node_key_id in self.connected)
        for message in messages:
            assert self._loop.call(self._transport.send, node_key_id, message)


def say(address: Address, data: bytes, *, seconds: float = 1) -> bytes:
    """Send raw bytes to a port, and return what comes back until the other end closes or says no more."""
    answer = b""
    connection = socket.create_connection((address.host, address.port), timeout=seconds)
    with connection, contextlib.suppress(OSError):
        connection.sendall(data)
        while len(answer) < CHUNK_BYTES and (part := connection.recv(CHUNK_BYTES)):
            answer += part
    return answer


# --- Logs -----------------------------------------------------------------------------------------------------


def events(node: LocalNode, name: str) -> list[dict[str, Any]]:
    """Return a node's log events of one name; every line must be an event."""
    return [event for event in map(json.loads, node.log.read_text().splitlines()) if event["event"] == name]


def assert_clean_log(node: LocalNode) -> None:
    """Assert that a log has events only, and none of a fault of the program."""
    for line in node.log.read_text().splitlines():
        assert line.startswith("{"), line
        assert "Traceback" not in line, line
        assert json.loads(line)["event"] != "request failed", line
