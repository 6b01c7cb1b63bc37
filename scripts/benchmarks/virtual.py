"""Many real nodes in one process, on virtual time: each as fast as if it had a core of its own.

Everything is the node's own code: driver, engine, gossip, sync, checks, signatures, the store on disk. Only the clock
and the connections are made up. A node takes its turns one after the other; what a turn takes of this core, and what
its writes take of the disk, is measured and passes on the clock of that node alone. A message leaves at the moment of
its turn at which it was sent and arrives ``delay_ms`` later, encoded and decoded as on the wire.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import node.clock
import node.node
from ledger.crypto import PrivateKey
from ledger.genesis import Genesis
from ledger.leveldb import LevelStore
from ledger.store import WriteBatch
from node.driver import Driver
from node.node import Node
from p2p.handshake import ProvenPeer
from p2p.messages import Message, decode_message, encode_message


class Clock:
    """Virtual time: that of the node whose turn it is.

    Attributes:
        begun_ms: when the turn began.
        write_s: what its writes took by the wall, and ``write_cpu_s``, what that was of the core.
    """

    def __init__(self, start_ms: int) -> None:
        self.begun_ms = float(start_ms)
        self.write_s = self.write_cpu_s = 0.0
        self._cpu_started = time.thread_time()

    def begin(self, at_ms: float) -> None:
        """Begin a turn."""
        self.begun_ms = at_ms
        self.write_s = self.write_cpu_s = 0.0
        self._cpu_started = time.thread_time()

    @property
    def cpu_s(self) -> float:
        """Return what the turn has taken of the core so far."""
        return time.thread_time() - self._cpu_started

    @property
    def ms(self) -> float:
        """Return the time it is."""
        return self.begun_ms + 1000 * (self.cpu_s - self.write_cpu_s + self.write_s)

    def now_ms(self) -> int:
        """Return the time it is, as nodes are told."""
        return int(self.ms)


class VirtualDriver(Driver):
    """The node's driver, whose turns are taken one at a time, and which waits for its writes in them."""

    clock: Clock

    async def _write_batch(self, batch: WriteBatch, *, is_urgent: bool) -> None:  # noqa: ARG002 - as in the driver
        started_s, cpu_started_s = time.perf_counter(), time.thread_time()
        self._store.write(batch)
        self.clock.write_s += time.perf_counter() - started_s
        self.clock.write_cpu_s += time.thread_time() - cpu_started_s

    def wait_ms(self) -> float:
        """Return how long nothing is due."""
        return self._wait_ms()

    async def turn(self) -> None:
        """Take a turn."""
        await self._turn()


class VirtualNode:
    """One node of the network: a transport to its driver.

    Attributes:
        final_ms: height -> when it was final here, and on disk.
        cpu_s: what it took of a core.
        frames_in, bytes_in: what came from its peers.
    """

    def __init__(self, network: Network, key_id: bytes, real: Node) -> None:
        self.network = network
        self.real = real
        self.peer = ProvenPeer(key_id, real.member_id, "", 1)
        self.peers: list[ProvenPeer] = []
        self.final_ms: dict[int, float] = {}
        self.cpu_s = 0.0
        self.frames_in = self.bytes_in = 0
        self.inbox: list[tuple[bytes, bytes]] = []
        self.due_ms = self.free_ms = network.clock.begun_ms
        self._encoded: tuple[Message, bytes] | None = None
        driver = real.driver
        assert isinstance(driver, VirtualDriver)
        self.driver = driver
        driver.clock = network.clock
        driver.attach(self)  # type: ignore[arg-type] # all that the driver asks of a transport

    def send(self, peer: bytes, message: Message) -> bool:
        """Send a frame; one that goes to several peers in a row is encoded once, as by the transport."""
        if self._encoded is None or self._encoded[0] is not message:
            self._encoded = (message, encode_message(message))
        self.network.carry(self.peer.key_id, peer, self._encoded[1])
        return True

    def review(self) -> None:
        """Keep every connection: no key ends here."""

    def ban(self, peer: bytes, reason: str) -> None:
        """Fail: nobody lies here."""
        raise RuntimeError(f"{self.peer.member_id} banned {peer.hex()}: {reason}")

    async def turn(self, at_ms: float) -> None:
        """Take in what arrived, take a turn, and say when the next is due."""
        clock = self.network.clock
        clock.begin(at_ms)
        frames, self.inbox = self.inbox, []
        self.frames_in += len(frames)
        self.bytes_in += sum(len(frame) for _, frame in frames)
        for sender, frame in frames:
            self.driver.deliver(sender, decode_message(frame))
        await self.driver.turn()
        self.free_ms = clock.ms
        wait_ms = self.driver.wait_ms()
        self.due_ms = self.free_ms + max(0.0, wait_ms)
        height = self.driver.final_height
        while height and height not in self.final_ms:
            self.final_ms[height] = self.free_ms
            height -= 1
        self.cpu_s += clock.cpu_s


class Network:
    """Nodes that are all connected to each other.

    Attributes:
        nodes: in the order of ``keys``.
        delay_ms: of every message, one way.
    """

    def __init__(
        self, genesis: Genesis, keys: Sequence[PrivateKey], directory: Path, *, start_ms: int, delay_ms: float
    ) -> None:
        self.genesis = genesis
        self.delay_ms = delay_ms
        self.clock = Clock(start_ms)
        self._order = itertools.count()
        self._plans: list[tuple[float, int, VirtualNode, tuple[bytes, bytes] | None]] = []
        self._stores = [LevelStore(directory / f"{number}") for number in range(len(keys))]
        self.nodes = [
            VirtualNode(self, key.key_id, Node(genesis, store, key=key, submit_key=key))
            for store, key in zip(self._stores, keys, strict=True)
        ]
        self._by_key = {here.peer.key_id: here for here in self.nodes}
        for here in self.nodes:
            self._plan(here, float(start_ms))
        for one, other in itertools.permutations(self.nodes, 2):
            one.peers.append(other.peer)
            one.driver.peer_up(other.peer.key_id)

    def carry(self, sender: bytes, to: bytes, frame: bytes) -> None:
        """Take a frame along, to arrive later."""
        plan = (self.clock.ms + self.delay_ms, next(self._order), self._by_key[to], (sender, frame))
        heapq.heappush(self._plans, plan)

    def submit(self, number: int, raw: bytes) -> None:
        """Hand a transaction to a node, now."""
        self.nodes[number].driver.submit(raw)
        self._plan(self.nodes[number], self.clock.begun_ms)

    async def run_until(self, until_ms: float) -> None:
        """Let everything happen that does before ``until_ms``."""
        while self._plans and self._plans[0][0] < until_ms:
            at_ms, _, here, arrival = heapq.heappop(self._plans)
            if arrival is not None:
                here.inbox.append(arrival)
                if at_ms < here.due_ms:
                    self._plan(here, at_ms)
            elif at_ms == max(here.due_ms, here.free_ms):
                # Otherwise another turn was taken or planned meanwhile.
                await here.turn(at_ms)
                self._plan(here, here.due_ms)
        self.clock.begin(until_ms)

    def _plan(self, here: VirtualNode, due_ms: float) -> None:
        """Plan the next turn of a node, for when it has finished the one before."""
        here.due_ms = due_ms
        heapq.heappush(self._plans, (max(due_ms, here.free_ms), next(self._order), here, None))

    def close(self) -> None:
        """Close the stores."""
        for store in self._stores:
            store.close()


@contextmanager
def running_network(
    genesis: Genesis, keys: Sequence[PrivateKey], directory: Path, *, start_ms: int, delay_ms: float
) -> Iterator[Network]:
    """Run a node for each of ``keys`` until the context ends; their clocks begin at ``start_ms``."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(node.node, "Driver", VirtualDriver))
        network: list[Network] = []
        ticking = Clock(start_ms)

        def now_ms() -> int:
            return (network[0].clock if network else ticking).now_ms()

        for module in [module for name, module in sys.modules.items() if name.startswith("node.")]:
            for name, value in list(vars(module).items()):
                if value in (node.clock.now_ms, node.clock.steady_ms) and module is not node.clock:
                    stack.enter_context(patch.object(module, name, now_ms))
        made = Network(genesis, keys, directory, start_ms=start_ms, delay_ms=delay_ms)
        network.append(made)
        stack.callback(made.close)
        # What was made so far stays; each node alone would have a small heap to look through.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        yield made
