"""Reads final blocks from the store into statistics: what comes, as it comes, and what was there at the start.

Everything here runs beside the event loop, in small steps. Of a block with very many records only some transactions are
read: what a step costs is bounded, however busy the chain is.

Source: docs/explorer.md, "What the figures are".
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

import msgspec

from consensus.rows import read_block, read_final_id
from ledger.block import Block, BodyItem
from ledger.errors import LedgerError, StoreDamaged
from ledger.genesis import Genesis
from ledger.store import Store
from ledger.transaction import Kind, Transaction
from ledger.transition import block_time_ms
from node.logs import get_log
from node.statistics import Read, Statistics, tally_of

T = TypeVar("T")

BLOCK_RECORDS_READ_MAX: Final = 5_000
"""Records of one block that are read: under 2 us each, so below 10 ms a block. A network of fewer than 5,000 records a
slot has all of them read."""
LOOK_BACK_BLOCKS: Final = 20_000
"""Blocks below the final one of the start that are counted, from their headers: about a second of work."""
LOOK_BACK_RECORDS: Final = 200_000
"""Records of them that are read, the newest."""
STEP_BLOCKS: Final = 250
STEP_RECORDS: Final = 10_000
"""A step ends beyond this: it holds up those who ask for about 20 ms."""
POLL_S: Final = 2.0
"""How often a chain at rest is looked at."""
SHARE: Final = 10
"""After a step it pauses for this many times as long as that took: a tenth of a core, until it has caught up."""
FAULT_PAUSE_S: Final = 60.0

_decode_transaction = msgspec.msgpack.Decoder(Transaction).decode


class Counted(NamedTuple):
    """Which blocks the statistics count.

    Attributes:
        from_height: the lowest, 0 before any.
        from_ms: its time.
        to_height: the highest.
        is_looking_back: earlier ones are still being counted.
    """

    from_height: int
    from_ms: int
    to_height: int
    is_looking_back: bool


class Survey:
    """Statistics of a store's final chain. Its methods may be called from any thread."""

    def __init__(self, store: Store, genesis: Genesis, final_height: int) -> None:
        """``final_height``: of the final block; it and those below it are counted by looking back."""
        self._store = store
        self._genesis = genesis
        self._lock = threading.Lock()
        self._statistics = Statistics()
        self._to_height = final_height
        self._back_height = final_height
        self._back_end = max(0, final_height - LOOK_BACK_BLOCKS)
        self._back_records = LOOK_BACK_RECORDS
        self._is_closed = False

    def step(self) -> bool:
        """Count some blocks, new ones first; return whether there may be more to count. Raises StoreError."""
        with self._lock:
            blocks = records = 0
            while blocks < STEP_BLOCKS and records < STEP_RECORDS:
                if self._is_closed:
                    return False
                found = self._next()
                if found is None:
                    return False
                blocks += 1
                records += found
            return True

    def catch_up(self) -> None:
        """Count the new blocks, at most a step of them. Raises StoreError."""
        with self._lock:
            blocks = records = 0
            while blocks < STEP_BLOCKS and records < STEP_RECORDS and not self._is_closed:
                found = self._forward()
                if found is None:
                    return
                blocks += 1
                records += found

    def look(self, view: Callable[[Statistics, Counted], T]) -> T:
        """Return what ``view`` makes of the statistics, while they stand still."""
        with self._lock:
            statistics = self._statistics
            return view(
                statistics,
                Counted(
                    statistics.first_height or 0,
                    statistics.first_ms,
                    self._to_height,
                    self._back_height > self._back_end,
                ),
            )

    def close(self) -> None:
        """Touch the store no more; on return no step is under way."""
        self._is_closed = True
        with self._lock:
            pass

    def _next(self) -> int | None:
        found = self._forward()
        return found if found is not None else self._backward()

    def _forward(self) -> int | None:
        """Count the block after the last one; return how many of its records were read, None where none is final."""
        height = self._to_height + 1
        block = self._block_at(height)
        if block is None:
            return None
        found = self._count(height, block, BLOCK_RECORDS_READ_MAX)
        self._to_height = height
        return found

    def _backward(self) -> int | None:
        """Count the block below the first one; return how many of its records were read, None at the end."""
        if self._back_height <= self._back_end:
            return None
        height = self._back_height
        block = self._block_at(height)
        if block is None:
            self._back_height = self._back_end
            return None
        found = self._count(height, block, min(BLOCK_RECORDS_READ_MAX, self._back_records))
        self._back_height = height - 1
        self._back_records -= found
        return found

    def _block_at(self, height: int) -> Block | None:
        block_id = read_final_id(self._store, height)
        return None if block_id is None else read_block(self._store, block_id)

    def _count(self, height: int, block: Block, records_max: int) -> int:
        header = block.sealed.header
        read = self._read(block, records_max)
        tally = tally_of(header.totals, header.tx_count, read)
        self._statistics.add(height, block_time_ms(self._genesis, header.slot), tally)
        return read.records

    def _read(self, block: Block, records_max: int) -> Read:
        """Return what the records say; where there are too many, those of every n-th transaction."""
        read = Read()
        if records_max <= 0:
            return read
        header = block.sealed.header
        stride = -(-(header.totals.records + header.totals.void) // records_max) or 1
        # Another place in each block: who is first in all of them is not in every sample.
        for item in block.body[header.height % stride :: stride]:
            if read.records >= records_max:
                break
            raw = self._store.body(item.tx_id)
            if raw is not None:
                _read_transaction(raw, item, read)
        return read


def _read_transaction(raw: bytes, item: BodyItem, read: Read) -> None:
    """Add the records of a transaction to ``read``. Raises StoreDamaged: it was good when it was stored."""
    try:
        transaction = _decode_transaction(raw)
        if transaction.envelope.kind is Kind.RECORDS:
            read.add_items(transaction.items, item.void_bitmap)
    except msgspec.MsgspecError as error:
        raise StoreDamaged(f"cannot be read: {error}", where=f"transaction {item.tx_id.hex()}") from None


async def run_survey(survey: Survey) -> None:
    """Keep the statistics up to date until cancelled; damage of the store is logged, and is others' to act on."""
    log = get_log("survey")
    while True:
        began = time.perf_counter()
        try:
            is_more = await asyncio.to_thread(survey.step)
        except LedgerError as error:
            log.warning("the chain's statistics stand still", error=error.sentence())
            await asyncio.sleep(FAULT_PAUSE_S)
            continue
        took_s = time.perf_counter() - began
        await asyncio.sleep(SHARE * took_s if is_more else POLL_S)
