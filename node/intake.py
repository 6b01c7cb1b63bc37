"""Records handed to this node: packed together, signed once, and followed to the disk.

Source: docs/architecture.md, "The way of one record".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.errors import LedgerError
from ledger.transaction import ITEMS_MAX, LIFETIME_MS_MAX, TRANSACTION_BYTES_MAX, make_transaction, tx_id_of

PACK_DELAY_MS = 50
"""Records that come within this time share a transaction, and its signature."""
ENVELOPE_BYTES = 512
"""Room for envelope, signature and array headers."""
LIFETIME_MS = LIFETIME_MS_MAX // 2
"""Long enough to outlast an outage of the other producers, short enough to be told of trouble."""


class Overloaded(LedgerError):
    """The node takes in nothing more for the moment."""

    code = "overloaded"


@dataclass(frozen=True, slots=True)
class RecordRef:
    """Where a record is: the transaction and its place in it."""

    tx_id: bytes
    index: int


@dataclass(frozen=True, slots=True)
class Submission:
    """A raw transaction taken in here, and who waits for it to be on disk."""

    raw: bytes
    done: asyncio.Future[bool]

    def succeed(self, *, is_new: bool) -> None:
        """Tell that it is on disk; whoever waited may have gone."""
        if not self.done.done():
            self.done.set_result(is_new)

    def fail(self, error: LedgerError) -> None:
        """Tell that it was not taken in; whoever waited may have gone."""
        if not self.done.done():
            self.done.set_exception(error)


class Packer:
    """Collects encoded records into signed transactions."""

    def __init__(
        self,
        *,
        key: PrivateKey,
        member_id: str,
        chain_id: bytes,
        now_ms: Callable[[], int],
        submit: Callable[[bytes], asyncio.Future[bool]],
    ) -> None:
        self._key = key
        self._member_id = member_id
        self._chain_id = chain_id
        self._now_ms = now_ms
        self._submit = submit
        self._items: list[bytes] = []
        self._waiting: list[asyncio.Future[RecordRef]] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: bytes) -> asyncio.Future[RecordRef]:
        """Take an encoded record; the future ends when it is on disk here, with its place."""
        if len(self._items) == ITEMS_MAX or self._bytes + len(item) + 5 > TRANSACTION_BYTES_MAX - ENVELOPE_BYTES:
            self.flush()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[RecordRef] = loop.create_future()
        self._items.append(item)
        self._waiting.append(future)
        self._bytes += len(item) + 5
        if self._timer is None:
            self._timer = loop.call_later(PACK_DELAY_MS / 1000, self.flush)
        return future

    def flush(self) -> None:
        """Sign and submit what has been collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._items:
            return
        items, self._items = self._items, []
        waiting, self._waiting = self._waiting, []
        self._bytes = 0
        now_ms = self._now_ms()
        transaction = make_transaction(
            items,
            key=self._key,
            member_id=self._member_id,
            chain_id=self._chain_id,
            created_ms=now_ms,
            expires_ms=now_ms + LIFETIME_MS,
        )
        tx_id = tx_id_of(transaction.envelope)

        def answer(done: asyncio.Future[bool]) -> None:
            error = asyncio.CancelledError() if done.cancelled() else done.exception()
            for index, future in enumerate(waiting):
                if future.done():
                    continue
                if isinstance(error, LedgerError):
                    future.set_exception(error)
                elif error is not None:
                    future.cancel()
                else:
                    future.set_result(RecordRef(tx_id, index))

        self._submit(encode(transaction)).add_done_callback(answer)
