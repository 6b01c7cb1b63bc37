"""What waits to become final: pending transactions, and when to let one go.

Source: docs/protocol.md, "Transaction".
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable

from consensus.pool import Pool
from consensus.ready import Outbox, TransactionDropped
from ledger.cdr import CallRecord
from ledger.codec import decode, decode_each
from ledger.errors import LedgerError, StoreDamaged, UnusableTransaction
from ledger.record_index import RecordIndex
from ledger.store import Space, Store, space_range
from ledger.transaction import Transaction
from ledger.transition import BodyBuilder
from ledger.validation import CheckedTransaction

EXPIRIES_SLACK = 1_024
"""Expiry times of transactions that are gone may be this many more than those of transactions that wait."""

PAYLOAD_FAILURES_MAX = 32
"""Transactions of one member that govern and do not fit, in one block: trying one costs up to a millisecond."""

CheckRaw = Callable[[bytes], CheckedTransaction]
"""Validates raw transactions read back from the store."""


class Pending:
    """The pool, with what the store and the final chain know of its transactions.

    Attributes:
        pool: the transactions themselves.
    """

    def __init__(self, store: Store, index: RecordIndex, check: CheckRaw, outbox: Outbox) -> None:
        self.pool = Pool()
        self._store = store
        self._index = index
        self._check = check
        self._outbox = outbox
        self._expiries: list[tuple[int, bytes]] = []
        self._void_at: dict[bytes, int] = {}
        """Transactions found all void, with the height that must be final for it to be certain."""

    def __contains__(self, tx_id: bytes) -> bool:
        return tx_id in self.pool or self._store.has_body(tx_id)

    def add(self, tx: CheckedTransaction) -> None:
        """Take a transaction in, unless it is final already."""
        if self._index.height_of(tx.tx_id) is None and tx.tx_id not in self.pool:
            self.pool.add(tx)
            heapq.heappush(self._expiries, (tx.envelope.expires_ms, tx.tx_id))
            if len(self._expiries) > 2 * len(self.pool) + EXPIRIES_SLACK:
                # Most became final long before they expire: their times would pile up for hours.
                self._expiries = [(waiting.envelope.expires_ms, waiting.tx_id) for waiting in self.pool]
                heapq.heapify(self._expiries)

    def restore(self) -> None:
        """Take in what the store holds as pending; what no longer fits the chain is passed over."""
        for key, _ in self._store.scan(*space_range(Space.PENDING)):
            raw = self._store.body(key[1:])
            if raw is None:
                continue
            try:
                self.add(self._check(raw))
            except UnusableTransaction:
                continue

    def transaction(self, tx_id: bytes) -> CheckedTransaction:
        """Return a transaction from the pool or, after a restart or on another branch, from disk."""
        tx = self.pool.get(tx_id)
        if tx is not None:
            return tx
        raw = self._store.body(tx_id)
        if raw is None:
            raise LedgerError("a block was handed over without all its transactions", where="body", actual=tx_id)
        tx = self._check(raw)
        self.add(tx)
        return tx

    def read_records(self, tx_id: bytes) -> list[CallRecord]:
        """Return the records of a transaction that was taken in. Raises StoreDamaged where it is gone."""
        raw = self._store.body(tx_id)
        if raw is None:
            raise StoreDamaged("a transaction taken in is not on disk", where=f"transaction {tx_id.hex()}")
        return decode_each(decode(raw, Transaction).items, CallRecord)

    def fill(self, builder: BodyBuilder, parent_height: int) -> None:
        """Put pending transactions into the body of a child of the head, oldest first, as many as fit."""
        failed: Counter[str] = Counter()
        for tx in self.pool:
            member_id = tx.envelope.member_id
            if tx.tx_id in self._void_at or not builder.fits(tx):
                continue
            if tx.payload is not None and failed[member_id] >= PAYLOAD_FAILURES_MAX:
                continue
            try:
                builder.add(tx)
            except UnusableTransaction as error:
                # A key that may not sign is found out at once; who stole one that has ended uses up no tries.
                failed[member_id] += tx.payload is not None and error.where != "envelope.key_id"
                if error.where == "tx_id" and not builder.seen.has_transaction(tx.tx_id):
                    # Void by what the branch counted up to the parent or, if the body has begun, in this very block.
                    self._void_at[tx.tx_id] = parent_height + 1 if builder.body else parent_height

    # -- letting go ------------------------------------------------------------------------------------------------

    def on_final(self, tx_ids: Iterable[bytes]) -> None:
        """Let go of transactions that are final now."""
        for tx_id in tx_ids:
            self.pool.remove(tx_id)
            self._void_at.pop(tx_id, None)
            self._outbox.put(Space.PENDING.value + tx_id, None)

    def on_reorg(self) -> None:
        """Forget what was void on the branch left: it may count on the other."""
        self._void_at.clear()

    def drop_void(self, final_height: int) -> None:
        """Forget transactions whose records were all void by what is final now."""
        for tx_id in [tx_id for tx_id, at in self._void_at.items() if at <= final_height]:
            del self._void_at[tx_id]
            if tx_id in self.pool:
                self._drop(tx_id, "void")

    def drop_expired(self, now_ms: int, is_included: Callable[[bytes], bool]) -> None:
        """Forget transactions that no later block may hold; one in a block that is not final yet stays with it."""
        kept = []
        while self._expiries and self._expiries[0][0] <= now_ms:
            entry = heapq.heappop(self._expiries)
            tx_id = entry[1]
            if tx_id not in self.pool:
                continue
            if is_included(tx_id):
                kept.append(entry)
            else:
                self._drop(tx_id, "expired")
        for entry in kept:
            heapq.heappush(self._expiries, entry)

    def _drop(self, tx_id: bytes, reason: str) -> None:
        self.pool.remove(tx_id)
        self._outbox.put(Space.PENDING.value + tx_id, None)
        self._outbox.tell(TransactionDropped(tx_id, reason))
