"""The survey over stores that do not do what they should, and what it costs where nothing happens."""

from __future__ import annotations

import asyncio
from itertools import islice

import pytest

from ledger.codec import encode
from ledger.errors import StoreDamaged, StoreError
from ledger.store import MemoryStore, WriteBatch
from ledger.transaction import tx_id_of
from node import survey as module
from node.survey import Survey, run_survey
from telephony.synthetic import Traffic, generate_records
from tests.integration.api_node import NOW_MS, ApiNode, sign

RECORDS = list(islice(generate_records(Traffic(seed=3, start_ms=NOW_MS - 3 * 3_600_000)), 60))


async def chain_of(blocks: int) -> ApiNode:
    """Return a node whose first blocks have ten records each."""
    node = ApiNode()
    for number in range(blocks):
        tx = sign([encode(record) for record in RECORDS[10 * number : 10 * number + 10]])
        await node.submit_transactions([encode(tx)])
        node.tick(2)
    node.tick(2)
    return node


def counted(survey: Survey) -> tuple[int, int, int]:
    return survey.look(lambda statistics, here: (statistics.all.records, statistics.all.read.records, here.from_height))


async def test_records_of_old_blocks_are_read_up_to_a_bound_the_newest_first(monkeypatch):
    node = await chain_of(5)
    monkeypatch.setattr(module, "LOOK_BACK_RECORDS", 30)
    survey = Survey(node.store, node.genesis, node.engine.final.height)
    while survey.step():
        pass
    assert counted(survey) == (50, 30, 1)


async def test_blocks_are_counted_back_to_a_bound(monkeypatch):
    node = await chain_of(5)
    final = node.engine.final.height
    monkeypatch.setattr(module, "LOOK_BACK_BLOCKS", 4)
    survey = Survey(node.store, node.genesis, final)
    while survey.step():
        pass
    assert counted(survey)[2] == final - 3


async def test_a_step_is_short_and_new_blocks_come_first(monkeypatch):
    node = await chain_of(4)
    monkeypatch.setattr(module, "STEP_BLOCKS", 1)
    survey = Survey(node.store, node.genesis, node.engine.final.height)
    before = node.engine.final.height
    await node.submit_transactions([encode(sign([encode(record) for record in RECORDS[50:60]]))])
    node.tick(3)
    assert survey.step()
    assert counted(survey)[2] == before + 1
    while survey.step():
        pass
    assert counted(survey) == (50, 50, 1)


async def test_damage_is_named():
    node = await chain_of(1)
    tx_id = tx_id_of(sign([encode(record) for record in RECORDS[:10]]).envelope)
    assert node.store.has_body(tx_id)
    node.store.write(WriteBatch([], [(tx_id, b"\xc1")]))
    with pytest.raises(StoreDamaged, match=tx_id.hex()):
        while Survey(node.store, node.genesis, node.engine.final.height).step():
            pass


class FailingStore(MemoryStore):
    """A store that fails a number of times."""

    failures = 2

    def get(self, row_key: bytes) -> bytes | None:
        if self.failures:
            self.failures -= 1
            raise StoreError("the disk is away")
        return super().get(row_key)


async def test_it_goes_on_once_the_store_does(monkeypatch):
    node = ApiNode()
    pauses: list[float] = []
    rested = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if seconds == module.POLL_S:
            rested.set()
            await asyncio.Future()

    monkeypatch.setattr(module.asyncio, "sleep", pause)
    task = asyncio.create_task(run_survey(Survey(FailingStore(), node.genesis, 0)))
    await rested.wait()
    task.cancel()
    assert pauses == [module.FAULT_PAUSE_S, module.FAULT_PAUSE_S, module.POLL_S]
