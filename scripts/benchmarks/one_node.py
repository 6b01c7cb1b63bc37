"""One node on one core: signed batches in, sealed, voted and final, on disk.

The node is the real one (engine, driver, store on disk) without peers and without HTTP, in a process bound to one
core: checking, hashing, syncing and LevelDB's own threads all share it.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import deque
from pathlib import Path

import uvloop

from benchmarks.processes import pin_to_one_core
from benchmarks.report import Figure
from benchmarks.traffic import BATCH_RECORDS, DAY_RECORDS, prepare_records, read_batches, sign_batches
from ledger.crypto import PrivateKey
from ledger.genesis import Candidate, Delegation, Genesis, GenesisMember, MemberKey, Role
from ledger.leveldb import LevelStore
from ledger.rules.ruleset import default_rule_set_pin
from node.driver import now_ms
from node.founding import DEFAULT_PARAMETERS
from node.node import Node, Overloaded

LOAD_S = 20.0
"""Batches are handed in for this long; then the node finishes."""
RECORDS_MAX = DAY_RECORDS
SUBMITTERS = 4
"""Submitters that each wait for an answer before they hand in more."""
GROUP_BATCHES = 8
"""Batches of one submission."""
UNFINAL_RECORDS_MAX = 400_000
"""Submitters pause above this: memory is bounded, and no block is larger than a second's work."""
FINISH_S = 60.0
MEMBER_ID = "dev"


def run() -> list[Figure]:
    """Measure records a second from the first submission to the finality of the last record."""
    paths = prepare_records(RECORDS_MAX)
    pin_to_one_core()
    with (
        tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        rate, note = runner.run(_measure(Path(directory), paths))
    return [Figure("one_node_records_per_s", "one node, one core", rate, "/s", target=50_000, note=note)]


async def _measure(directory: Path, paths: list[Path]) -> tuple[float, str]:
    node_key, submit_key = PrivateKey.generate(), PrivateKey.generate()
    node = Node(_make_genesis(node_key, submit_key), LevelStore(directory), key=node_key)
    raws = deque(
        sign_batches(
            read_batches(paths, RECORDS_MAX),
            key=submit_key,
            member_id=MEMBER_ID,
            chain_id=node.chain_id,
            now_ms=now_ms(),
        )
    )
    counters = node.driver.counters
    submitted = 0

    async def submit() -> None:
        nonlocal submitted
        while raws and time.perf_counter() < load_until:
            if submitted - counters.records_final > UNFINAL_RECORDS_MAX:
                await asyncio.sleep(0.01)
                continue
            group = [raws.popleft() for _ in range(min(GROUP_BATCHES, len(raws)))]
            submitted += len(group) * BATCH_RECORDS
            try:
                answers = await node.submit_transactions(group)
            except Overloaded:
                raws.extendleft(reversed(group))
                submitted -= len(group) * BATCH_RECORDS
                await asyncio.sleep(0.05)
                continue
            errors = [answer.error for answer in answers if answer.error is not None]
            if errors:
                raise errors[0]

    node.start()
    started, cpu_started = time.perf_counter(), time.process_time()
    load_until = started + LOAD_S
    try:
        await asyncio.gather(*(submit() for _ in range(SUBMITTERS)))
        give_up = time.perf_counter() + FINISH_S
        while counters.records_final < submitted and time.perf_counter() < give_up:
            await asyncio.sleep(0.01)
        took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
        final = counters.records_final
    finally:
        await node.stop()
        node.store.close()
    if final != submitted or counters.records_void:
        raise RuntimeError(
            f"{submitted:,} records were handed in, {final:,} became final, {counters.records_void} void"
        )
    return final / took_s, f"{final:,} records in {took_s:.1f} s, {cpu_s:.1f} s of CPU, {counters.blocks_final} blocks"


def _make_genesis(node_key: PrivateKey, submit_key: PrivateKey) -> Genesis:
    """Return a chain of one member, as ``ledgerd --dev`` makes it, with slots of a second."""
    keys = [MemberKey(node_key.public_key, Role.NODE | Role.GOVERN), MemberKey(submit_key.public_key, Role.SUBMIT)]
    member = GenesisMember(MEMBER_ID, 1, keys, Candidate(node_key.key_id, "", ""))
    delegation = Delegation(MEMBER_ID, MEMBER_ID, 1)
    rules = default_rule_set_pin(DEFAULT_PARAMETERS.carbon_basis)
    return Genesis(1, "bench", now_ms(), DEFAULT_PARAMETERS, [member], [delegation], rules)
