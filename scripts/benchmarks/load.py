"""The submitter: posts signed transactions to one node and watches on all nodes what becomes final, and when."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

import aiohttp
import msgspec

from node.cluster import Cluster, ClusterNode

GROUP_BATCHES = 8
"""Transactions of one request."""
REQUESTS = 2
"""Requests under way at a time: while one is answered, the next is on its way."""
PAUSE_S = 0.02
FINISH_S = 60.0
"""How long the last records may take to become final."""


@dataclass(slots=True)
class NodeView:
    """What one node's event stream said.

    Attributes:
        records: final ones.
        final_at: height -> slot, records, and the time it was told of, in milliseconds.
    """

    records: int = 0
    void: int = 0
    final_at: dict[int, tuple[int, int, float]] = field(default_factory=dict)


class Load:
    """One submitter and its views of every node."""

    def __init__(self, cluster: Cluster, *, unfinal_records_max: int) -> None:
        self.cluster = cluster
        self.views = [NodeView() for _ in cluster.nodes]
        self.submitted = 0
        self.refused = 0
        self.last_final_s = 0.0
        self._unfinal_records_max = unfinal_records_max
        self._moved = asyncio.Event()

    @property
    def final_records(self) -> int:
        """Return how many records are final on the node that is furthest behind."""
        return min(view.records for view in self.views)

    async def run(self, raws: deque[tuple[bytes, int]], *, seconds: float) -> float:
        """Post ``raws`` (with their records) for so long, wait until all are final everywhere; return how long it took.

        Raises RuntimeError where something is refused or does not become final.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            streaming = [
                asyncio.create_task(self._watch(session, node, view))
                for node, view in zip(self.cluster.nodes, self.views, strict=True)
            ]
            try:
                await asyncio.sleep(0.5)
                started = time.monotonic()
                posting = [self._post(session, raws, started + seconds) for _ in range(REQUESTS)]
                await _first_error(asyncio.gather(*posting), streaming)
                await _first_error(self._all_final(), streaming)
                return self.last_final_s - started
            finally:
                for task in streaming:
                    task.cancel()
                await asyncio.gather(*streaming, return_exceptions=True)

    async def _post(self, session: aiohttp.ClientSession, raws: deque[tuple[bytes, int]], until: float) -> None:
        node = self.cluster.nodes[0]
        headers = {"Authorization": f"Bearer {node.token}", "Content-Type": "application/msgpack"}
        while raws and time.monotonic() < until:
            if self.submitted - self.final_records > self._unfinal_records_max:
                await asyncio.sleep(PAUSE_S)
                continue
            group = [raws.popleft() for _ in range(min(GROUP_BATCHES, len(raws)))]
            records = sum(count for _, count in group)
            self.submitted += records
            body = msgspec.msgpack.encode([raw for raw, _ in group])
            async with session.post(f"{node.url}/v1/transactions", data=body, headers=headers) as response:
                answer = await response.read()
            if response.status == 503:
                # Too much waits for finality: the same again later.
                self.refused += 1
                self.submitted -= records
                raws.extendleft(reversed(group))
                await asyncio.sleep(10 * PAUSE_S)
            elif response.status not in {200, 201}:
                raise RuntimeError(f"status {response.status}: {answer[:500].decode('utf-8', 'replace')}")

    async def _all_final(self) -> None:
        give_up = time.monotonic() + FINISH_S
        while self.final_records < self.submitted:
            if time.monotonic() > give_up:
                counts = ", ".join(f"{view.records:,}" for view in self.views)
                raise RuntimeError(f"{self.submitted:,} records were stored; final on the nodes are {counts}")
            await asyncio.sleep(PAUSE_S)

    async def _watch(self, session: aiohttp.ClientSession, node: ClusterNode, view: NodeView) -> None:
        """Follow a node's events; a line with data is one event."""
        async with session.get(f"{node.url}/v1/events") as response:
            response.raise_for_status()
            async for line in response.content:
                if not line.startswith(b"data:"):
                    continue
                at_ms = time.time_ns() / 1e6
                event = msgspec.json.decode(line[5:])
                if event["event"] == "final":
                    totals = event["totals"]
                    view.records += totals["records"]
                    view.void += totals["void"]
                    view.final_at[event["height"]] = (event["slot"], totals["records"], at_ms)
                    self.last_final_s = time.monotonic()
        raise RuntimeError(f"{node.member_id} ended its event stream")

    def finality_slots(self) -> list[float]:
        """Return, for each block with records, the slots from the start of its own to its finality on the last node."""
        genesis = self.cluster.genesis
        slots = []
        for height, (slot, records, _) in self.views[0].final_at.items():
            seen = [view.final_at[height][2] for view in self.views if height in view.final_at]
            if records and len(seen) == len(self.views):
                begun_ms = genesis.genesis_time_ms + slot * genesis.parameters.slot_ms
                slots.append((max(seen) - begun_ms) / genesis.parameters.slot_ms)
        return sorted(slots)


async def _first_error(work: Awaitable[object], streaming: Sequence[asyncio.Task[None]]) -> None:
    """Wait for ``work``, or for the first event stream that breaks."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, *streaming}, return_when=asyncio.FIRST_COMPLETED)
        for stream in streaming:
            if stream.done():
                stream.result()
        await task
    finally:
        task.cancel()


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the smallest value that ``percent`` of the values do not exceed; ``ordered`` ascending, not empty."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
