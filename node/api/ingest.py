"""Records in, exactly once: the vault first, then the ledger, then the note where each record went.

What a crash leaves: before the first step nothing; after it a row without a place, which the next delivery replaces,
for nobody was told that it is kept; after the second a record on the ledger whose row has no place, which
``reconcile`` finds at the next start. The answer comes after the third.

Source: docs/api.md, "Records in".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from ledger.cdr import CallRecord
from ledger.codec import decode, decode_each
from ledger.commitment import PrivatePart
from ledger.errors import EncodingError, InvalidTransaction, LedgerError, UnusableTransaction
from ledger.transaction import Transaction
from ledger.validation import record_keys
from node.api.backend import Backend, RecordRef
from node.api.problems import NotSigned, OtherContent, Overloaded
from telephony.vault import Place, Vault, VaultEntry, VaultRow
from telephony.vault_bodies import PrivateView

RECORDS_WAITING_MAX: Final = 20_000
"""Records taken from requests that are not answered yet: about 100 MB with their raw documents."""
GROUP_MAX: Final = 5_000
"""Records of one commit of the vault: the sync is shared, the wait for it stays short."""
RECONCILE_MAX: Final = 1_000_000
"""Rows without a place that are looked for at a start."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A record that passed every check and is to be stored."""

    record: CallRecord
    item: bytes
    """Its canonical encoding."""
    record_key: bytes
    content: bytes
    """Keyed hash of what was handed in: the same again is the same record."""
    private: PrivatePart | None
    warnings: tuple[str, ...] = ()
    """What was left out of it, one sentence each."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that is on disk."""

    record_key: bytes
    tx_id: bytes
    index: int
    is_new: bool
    """False: it was there already."""
    warnings: tuple[str, ...] = ()


Outcome = Kept | LedgerError
"""What became of one record."""


class VaultWriter:
    """The vault's own thread, and the commits that many requests share."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="vault")
        self._pending: list[tuple[list[VaultEntry], list[Place], asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, VaultRow]:
        """Return what the vault knows of records."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self.vault.find, keys)

    async def look(self, record_key: bytes) -> PrivateView | None:
        """Return what there is of the private part of a record."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self.vault.look, record_key)

    async def unplaced(self) -> list[bytes]:
        """Return the records without a place."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self.vault.unplaced, RECONCILE_MAX)

    async def store(self, entries: list[VaultEntry], places: list[Place]) -> None:
        """Write as ``Vault.store`` does, together with whoever else is waiting."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((entries, places, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        await future

    async def close(self) -> None:
        """Finish what is under way."""
        if self._task is not None:
            await self._task
        await asyncio.to_thread(self._executor.shutdown)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending:
            group = self._take_group()
            entries = [entry for part, _, _ in group for entry in part]
            places = [place for _, part, _ in group for place in part]
            failure: BaseException | None = None
            try:
                await loop.run_in_executor(self._executor, self.vault.store, entries, places)
            except BaseException as error:  # noqa: BLE001 - handed to everybody who waits
                failure = error
            for _, _, future in group:
                if future.done():
                    continue
                if failure is None:
                    future.set_result(None)
                else:
                    future.set_exception(failure)

    def _take_group(self) -> list[tuple[list[VaultEntry], list[Place], asyncio.Future[None]]]:
        """Return what the next commit carries: at least one request's worth."""
        count = size = 0
        for entries, places, _ in self._pending:
            size += len(entries) + len(places)
            if count and size > GROUP_MAX:
                break
            count += 1
        group, self._pending = self._pending[:count], self._pending[count:]
        return group


class Ingest:
    """Takes records in exactly once."""

    def __init__(self, node: Backend, writer: VaultWriter) -> None:
        self._node = node
        self._writer = writer
        self._in_flight: dict[bytes, asyncio.Future[None]] = {}
        self._waiting = 0

    async def take(self, incoming: Sequence[Incoming]) -> list[Outcome]:
        """Store records and return what became of each, in order; those kept are on disk.

        Raises Overloaded, or StoreError and its kinds: then none of the new ones counts as kept.
        """
        if self._waiting + len(incoming) > RECORDS_WAITING_MAX or self._node.engine.pool.is_full:
            raise Overloaded("the node cannot take more records now", hint="Keep them and hand them in again later")
        outcomes: list[Outcome | None] = [None] * len(incoming)
        self._waiting += len(incoming)
        try:
            todo = list(range(len(incoming)))
            while todo:
                todo = await self._take_free(incoming, todo, outcomes)
        finally:
            self._waiting -= len(incoming)
        return [outcome for outcome in outcomes if outcome is not None]

    async def reconcile(self) -> int:
        """Find the places of records that a crash left without; return how many were found.

        To be called before the first request: what the ledger took before the crash is still pending then.
        """
        missing = set(await self._writer.unplaced())
        if not missing:
            return 0
        places: list[Place] = []
        for tx in self._node.engine.pool:
            raw = self._node.store.body(tx.tx_id)
            if raw is None or tx.payload is not None or tx.envelope.member_id != self._node.member_id:
                continue
            records = decode_each(decode(raw, Transaction).items, CallRecord)
            keys = record_keys(tx.envelope.member_id, records)
            places += [Place(key, tx.tx_id, index) for index, key in enumerate(keys) if key in missing]
        await self._writer.store([], places)
        return len(places)

    async def _take_free(
        self, incoming: Sequence[Incoming], todo: list[int], outcomes: list[Outcome | None]
    ) -> list[int]:
        """Take those of ``todo`` that no other request has in hand; return the rest, once those have gone on."""
        mine: dict[bytes, list[int]] = {}
        theirs: list[int] = []
        for i in todo:
            key = incoming[i].record_key
            if key in self._in_flight:
                theirs.append(i)
            else:
                mine.setdefault(key, []).append(i)
        waited = [self._in_flight[incoming[i].record_key] for i in theirs]
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_flight.update(dict.fromkeys(mine, done))
        try:
            await self._take_claimed(incoming, mine, outcomes)
        finally:
            for key in mine:
                del self._in_flight[key]
            done.set_result(None)
        if waited:
            await asyncio.wait(set(waited))
        return theirs

    async def _take_claimed(
        self, incoming: Sequence[Incoming], groups: dict[bytes, list[int]], outcomes: list[Outcome | None]
    ) -> None:
        """Take records that nobody else has in hand, by record key."""
        rows = await self._writer.find(list(groups))
        new: list[int] = []
        for key, members in groups.items():
            row = rows.get(key)
            if row is not None and row.tx_id is not None and self._is_on_ledger(row.tx_id):
                for i in members:
                    outcomes[i] = _compare(incoming[i], row.content, row.tx_id, row.index)
            else:
                new.append(members[0])
        if not new:
            return
        await self._writer.store([_entry(incoming[i]) for i in new], [])
        refs = await self._submit([incoming[i].item for i in new])
        places = [Place(incoming[i].record_key, ref.tx_id, ref.index) for i, ref in zip(new, refs, strict=True)]
        await self._writer.store([], places)
        for first, place in zip(new, places, strict=True):
            it = incoming[first]
            self._node.counters.took_in(it.record)
            outcomes[first] = Kept(it.record_key, place.tx_id, place.index, is_new=True, warnings=it.warnings)
            for i in groups[it.record_key][1:]:
                outcomes[i] = _compare(incoming[i], it.content, place.tx_id, place.index)

    async def _submit(self, items: list[bytes]) -> Sequence[RecordRef]:
        """Have records signed and stored. Raises NotSigned where the transaction is refused: no fault of theirs."""
        try:
            return await self._node.submit_items(items)
        except (EncodingError, InvalidTransaction, UnusableTransaction) as error:
            raise NotSigned(
                f"the node's own transaction was refused: {error.sentence()}",
                where="submit_key",
                hint="Keep the records and hand them in again; see whether the submit key is still the member's",
            ) from error

    def _is_on_ledger(self, tx_id: bytes) -> bool:
        """Tell whether a transaction is kept here or in a block: one that expired is to be signed anew."""
        promise = self._node.promise_of(tx_id)
        return promise is not None and promise.state != "expired"


def _entry(incoming: Incoming) -> VaultEntry:
    return VaultEntry(incoming.record_key, incoming.record.setup_ms, incoming.content, incoming.private)


def _compare(incoming: Incoming, content: bytes, tx_id: bytes, index: int) -> Outcome:
    """Return the outcome for a record whose key is on the ledger with ``content``."""
    if incoming.content == content:
        return Kept(incoming.record_key, tx_id, index, is_new=False)
    return OtherContent(
        "a record of this call and leg was handed in before with other content",
        where="record_key",
        actual=incoming.record_key,
        hint=f"It is at /v1/records/{tx_id.hex()}/{index}",
    )
