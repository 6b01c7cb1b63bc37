"""A chain of one member in this process: the real node on disk, without peers and without HTTP."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.traffic import BATCH_RECORDS, read_batches, sign_batches
from ledger.crypto import PrivateKey
from ledger.genesis import Candidate, Delegation, Genesis, GenesisMember, MemberKey, Role
from ledger.leveldb import LevelStore
from ledger.rules.ruleset import default_rule_set_pin
from node.clock import now_ms
from node.founding import DEFAULT_PARAMETERS
from node.node import Node, Overloaded

SUBMITTERS = 4
"""Submitters that each wait for an answer before they hand in more."""
GROUP_BATCHES = 8
"""Batches of one submission."""
UNFINAL_RECORDS_MAX = 400_000
"""Submitters pause above this: memory stays bounded."""
FINISH_S = 60.0
"""How long the last records may take to become final."""
MEMBER_ID = "solo"


@dataclass(frozen=True, slots=True)
class Filled:
    """What was done: ``records`` became final in ``took_s``, which cost ``cpu_s`` of this process."""

    genesis: Genesis
    records: int
    blocks: int
    took_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class SoloChain:
    """A chain of one member, with the keys to fill it."""

    genesis: Genesis
    node_key: PrivateKey
    submit_key: PrivateKey


def fill_chain(
    directory: Path, paths: list[Path], *, records_max: int, seconds: float, chain: SoloChain | None = None
) -> Filled:
    """Make a chain in ``directory`` of up to ``records_max`` records, handed in for at most ``seconds``.

    chain: to be filled instead of a fresh one.
    Time counts from the first submission to the finality of the last record. Raises RuntimeError where something is
    refused, void or not final in time.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_fill(directory, paths, records_max, seconds, chain or _make_chain()))


async def _fill(directory: Path, paths: list[Path], records_max: int, seconds: float, chain: SoloChain) -> Filled:
    node = Node(chain.genesis, LevelStore(directory), key=chain.node_key)
    try:
        raws = deque(
            sign_batches(
                read_batches(paths, records_max),
                key=chain.submit_key,
                member_id=chain.genesis.members[0].member_id,
                chain_id=node.chain_id,
                now_ms=now_ms(),
            )
        )
        node.start()
        counters = node.driver.counters
        started, cpu_started = time.perf_counter(), time.process_time()
        left = len(raws)
        await asyncio.gather(*(_submit(node, raws, started + seconds, left) for _ in range(SUBMITTERS)))
        submitted = (left - len(raws)) * BATCH_RECORDS
        await _until_final(node, submitted)
        took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    finally:
        await node.stop()
        node.store.close()
    if counters.records_final != submitted or counters.records_void:
        final, void = counters.records_final, counters.records_void
        raise RuntimeError(f"{submitted:,} records were handed in; {final:,} became final, {void:,} are void")
    return Filled(chain.genesis, submitted, counters.blocks_final, took_s, cpu_s)


async def _submit(node: Node, raws: deque[bytes], until: float, total: int) -> None:
    """Hand in one group after the other; each is on disk before the next."""
    counters = node.driver.counters
    while raws and time.perf_counter() < until:
        if (total - len(raws)) * BATCH_RECORDS - counters.records_final > UNFINAL_RECORDS_MAX:
            await asyncio.sleep(0.01)
            continue
        group = [raws.popleft() for _ in range(min(GROUP_BATCHES, len(raws)))]
        try:
            answers = await node.submit_transactions(group)
        except Overloaded:
            raws.extendleft(reversed(group))
            await asyncio.sleep(0.05)
            continue
        for answer in answers:
            if answer.error is not None:
                raise answer.error


async def _until_final(node: Node, records: int) -> None:
    give_up = time.perf_counter() + FINISH_S
    while node.driver.counters.records_final < records and time.perf_counter() < give_up:  # noqa: ASYNC110 - a counter
        await asyncio.sleep(0.01)


def _make_chain() -> SoloChain:
    """Return a chain of one member with slots of a second."""
    node_key, submit_key = PrivateKey.generate(), PrivateKey.generate()
    keys = [MemberKey(node_key.public_key, Role.NODE | Role.GOVERN), MemberKey(submit_key.public_key, Role.SUBMIT)]
    member = GenesisMember(MEMBER_ID, 1, keys, Candidate(node_key.key_id, "", ""))
    delegation = Delegation(MEMBER_ID, MEMBER_ID, 1)
    rules = default_rule_set_pin(DEFAULT_PARAMETERS.carbon_basis)
    genesis = Genesis(1, "bench", now_ms(), DEFAULT_PARAMETERS, [member], [delegation], rules)
    return SoloChain(genesis, node_key, submit_key)
