"""How soon a block is final with 4, 7 and 21 producers, what a change of the voting set adds, and what votes cost."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from benchmarks.frames import frame_cost_us
from benchmarks.load import percentile
from benchmarks.processes import pin_to_one_core
from benchmarks.report import Figure
from benchmarks.traffic import CHUNK_RECORDS, LIFETIME_MS, prepare_records, read_batches
from benchmarks.virtual import Network, running_network
from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.genesis import Genesis, chain_id_of
from ledger.payloads import DelegationPart, Delegations
from ledger.transaction import Kind, make_transaction
from node.clock import now_ms
from node.founding import DEFAULT_PARAMETERS, Founder, make_genesis

DELAY_MS = 50.0
"""Of every message, one way."""
KEYS = {4: "finality_slots_p99_4", 7: "finality_slots_p99_7", 21: "finality_slots_p99_21"}
SLOTS = {4: 200, 7: 200, 21: 120}
"""How long each chain runs, by its producers."""
WARM_UP_SLOTS = 10
"""Until connections, status and caches are as they stay."""
PARTS_PER_SLOT = 4
PART_RECORDS = 25
"""Four members a second are handed 25 records each: 100 records a second."""
CHANGE_SEATS = 7
CHANGE_EPOCH_SLOTS = 12
CHANGES = 5
EPOCHS_PER_CHANGE = 3
"""Weight is shifted to seven others every three epochs: elected in one, they seal, and vote from the next."""
FINALITY_SLOTS = 2.5
EXTRA_SLOTS = 1.0
VOTE_CPU_PERCENT = 10.0


def run() -> list[Figure]:
    """Measure all of it."""
    pin_to_one_core()
    paths = prepare_records(CHUNK_RECORDS)
    figures = []
    for producers, slots in SLOTS.items():
        print(f"  {producers} producers, {slots} slots", file=sys.stderr)
        figures += asyncio.run(_steady(producers, slots, paths))
    print(f"  {CHANGES} changes of the voting set", file=sys.stderr)
    figures.append(asyncio.run(_changes(paths)))
    return figures


async def _steady(producers: int, slots: int, paths: list[Path]) -> list[Figure]:
    """Measure finality, and with the most producers the share of a core, over ``slots`` with producers that stay."""
    chain = Chain(producers, producers, DEFAULT_PARAMETERS.epoch_slots, paths)
    with tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory, chain.running(Path(directory)) as network:
        await chain.play(network, WARM_UP_SLOTS)
        warm = [(node.cpu_s, node.frames_in, node.bytes_in) for node in network.nodes]
        await chain.play(network, slots)
        spent = [
            (node.cpu_s - cpu_s, node.frames_in - frames, node.bytes_in - size)
            for node, (cpu_s, frames, size) in zip(network.nodes, warm, strict=True)
        ]
        seen = sorted(took for height, took in chain.finality(network).items() if chain.slots[height] >= WARM_UP_SLOTS)
    if len(seen) < slots - 4:
        raise RuntimeError(f"{producers} producers: {len(seen)} blocks final in {slots} slots")
    figures = [
        Figure(
            KEYS[producers],
            f"finality with {producers} producers, 99 of 100 blocks",
            percentile(seen, 99),
            "slots",
            target=FINALITY_SLOTS,
            at_most=True,
            note=f"half of {len(seen)} blocks {percentile(seen, 50):.2f}, at most {seen[-1]:.2f}",
        )
    ]
    if producers == max(SLOTS):
        figures += await _cost(spent, slots)
    return figures


async def _cost(spent: list[tuple[float, int, int]], slots: int) -> list[Figure]:
    """Return what the busiest node takes of a core.

    spent: of each node, its CPU seconds, and the frames and bytes that came.
    """
    cpu_s, frames, size = max(spent)
    frame_us = await frame_cost_us(round(size / frames))
    per_slot = frames / slots
    own_ms, carried_ms = 1000 * cpu_s / slots, per_slot * frame_us / 1000
    total_ms = own_ms + carried_ms
    return [
        Figure(
            "vote_cpu_percent_21",
            "a node's share of a core, 21 producers",
            100 * total_ms / DEFAULT_PARAMETERS.slot_ms,
            "%",
            target=VOTE_CPU_PERCENT,
            at_most=True,
            note=f"{own_ms:.1f} ms a slot, and {carried_ms:.1f} ms for {per_slot:.0f} frames at {frame_us:.0f} us",
        ),
        Figure("", "the same, of each slot", total_ms, "ms"),
    ]


async def _changes(paths: list[Path]) -> Figure:
    """Measure finality around changes of the voting set, each to seven others, beside that of other blocks."""
    chain = Chain(2 * CHANGE_SEATS, CHANGE_SEATS, CHANGE_EPOCH_SLOTS, paths)
    period = CHANGE_EPOCH_SLOTS * EPOCHS_PER_CHANGE
    with tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory, chain.running(Path(directory)) as network:
        for change in range(CHANGES):
            await chain.play(network, 2)
            chain.shift(network, change)
            await chain.play(network, period - 2)
        seen = chain.finality(network)
    changes = {set_id: heights for set_id, heights in chain.changing.items() if set_id < CHANGES}
    if len(changes) < CHANGES - 1:
        raise RuntimeError(f"{len(changes)} of {CHANGES} voting sets came")
    near = {
        height for heights in changes.values() for height in range(min(heights) - 1, max(heights) + 3) if height in seen
    }
    far = sorted(took for height, took in seen.items() if height not in near and height > WARM_UP_SLOTS)
    most, usual = max(seen[height] for height in near), percentile(far, 50)
    return Figure(
        "set_change_extra_slots",
        "finality around a change of the voting set, more than usual",
        max(0.0, most - usual),
        "slots",
        target=EXTRA_SLOTS,
        at_most=True,
        note=f"{len(changes)} changes, {len(near)} blocks, at most {most:.2f} slots; half of the others {usual:.2f}",
    )


class Chain:
    """A chain of members that all stand for a seat, its records and its time.

    Attributes:
        slots: height -> the slot of its block.
        changing: id of a voting set -> heights of the blocks from which on it is pending.
    """

    def __init__(self, members: int, seats: int, epoch_slots: int, paths: list[Path]) -> None:
        self.keys = [PrivateKey.from_seed(f"carrier {number}".encode()) for number in range(members)]
        self.names = [f"carrier-{number:02d}" for number in range(members)]
        self.slots: dict[int, int] = {}
        self.changing: dict[int, set[int]] = {}
        self.genesis = self._make_genesis(seats, epoch_slots)
        self._seats = seats
        self._slot = 0
        self._random = random.Random(members)  # noqa: S311 - repeatable is the point
        self._parts: Iterator[list[bytes]] = (
            batch[start : start + PART_RECORDS]
            for batch in read_batches(paths, CHUNK_RECORDS)
            for start in range(0, len(batch), PART_RECORDS)
        )

    def _make_genesis(self, seats: int, epoch_slots: int) -> Genesis:
        parameters = msgspec.structs.replace(DEFAULT_PARAMETERS, producer_count=seats, epoch_slots=epoch_slots)
        founders = [Founder(name, 100, key.public_key) for name, key in zip(self.names, self.keys, strict=True)]
        return make_genesis("bench", founders, genesis_time_ms=now_ms() // 1000 * 1000, parameters=parameters)

    def running(self, directory: Path) -> AbstractContextManager[Network]:
        """Return the network of its members' nodes."""
        start_ms = self.genesis.genesis_time_ms
        return running_network(self.genesis, self.keys, directory, start_ms=start_ms, delay_ms=DELAY_MS)

    async def play(self, network: Network, slots: int) -> None:
        """Let ``slots`` pass, with records at odd moments."""
        slot_ms = self.genesis.parameters.slot_ms
        for _ in range(slots):
            begin_ms = self.genesis.genesis_time_ms + self._slot * slot_ms
            for at_ms in sorted(self._random.sample(range(slot_ms), PARTS_PER_SLOT)):
                await network.run_until(begin_ms + at_ms)
                self._hand_in(network, self._random.randrange(len(self.keys)), Kind.RECORDS, next(self._parts))
            await network.run_until(begin_ms + slot_ms - 1)
            self._note(network)
            # What was handed in has been answered: the loop lets go of it.
            await asyncio.sleep(0)
            self._slot += 1

    def shift(self, network: Network, number: int) -> None:
        """Let every member put its weight behind one of the seven whose turn it is."""
        first = self._seats * ((number + 1) % 2)
        for member in range(len(self.keys)):
            favourite = self.names[first + member % self._seats]
            payload = Delegations([DelegationPart(favourite, 100)])
            self._hand_in(network, member, Kind.DELEGATE, [encode(payload)])

    def _hand_in(self, network: Network, member: int, kind: Kind, items: list[bytes]) -> None:
        created_ms = network.clock.now_ms()
        transaction = make_transaction(
            items,
            kind=kind,
            key=self.keys[member],
            member_id=self.names[member],
            chain_id=chain_id_of(self.genesis),
            created_ms=created_ms,
            expires_ms=created_ms + LIFETIME_MS,
        )
        network.submit(member, encode(transaction))

    def _note(self, network: Network) -> None:
        """Remember what the blocks of a node's branch say."""
        for block in network.nodes[0].real.engine.head.branch():
            self.slots[block.height] = block.slot
            voting = block.chain.state.voting
            if voting.pending is not None:
                self.changing.setdefault(voting.set_id, set()).add(block.height)

    def finality(self, network: Network) -> dict[int, float]:
        """Return, for each block final on all nodes, the slots from the start of its own to then, on the last node."""
        begin_ms, slot_ms = self.genesis.genesis_time_ms, self.genesis.parameters.slot_ms
        heights = set.intersection(*(set(node.final_ms) for node in network.nodes))
        last_ms = {height: max(node.final_ms[height] for node in network.nodes) for height in heights}
        return {height: (ms - begin_ms) / slot_ms - self.slots[height] for height, ms in last_ms.items()}
