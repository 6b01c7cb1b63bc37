"""Pending transactions: checked, on disk here, and not final yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ledger.validation import CheckedTransaction

POOL_RECORDS_MAX = 1_000_000
"""Records taken in but not final: their keys cost about 100 bytes each while they wait."""
POOL_TRANSACTIONS_MAX = 200_000
"""Transactions taken in but not final: about 2 kB each beside the keys. More than three of the largest blocks name."""
POOL_MEMBER_SHARE = 2
"""One member may take one part in so many of either: nobody can keep the others' records out."""
POOL_MEMBER_PAYLOADS_MAX = 256
"""Transactions of one member that govern: some may never fit, and wait until they expire."""


class Pool:
    """Pending transactions in order of arrival."""

    def __init__(self) -> None:
        self._transactions: dict[bytes, CheckedTransaction] = {}
        self._member_transactions: Counter[str] = Counter()
        self._member_records: Counter[str] = Counter()
        self._member_payloads: Counter[str] = Counter()
        self.records = 0

    def __contains__(self, tx_id: bytes) -> bool:
        return tx_id in self._transactions

    def __len__(self) -> int:
        return len(self._transactions)

    def __iter__(self) -> Iterator[CheckedTransaction]:
        return iter(self._transactions.values())

    @property
    def is_full(self) -> bool:
        """Tell whether nothing more should be taken in, but for what blocks name."""
        return self.records >= POOL_RECORDS_MAX or len(self._transactions) >= POOL_TRANSACTIONS_MAX

    def has_room_for(self, tx: CheckedTransaction) -> bool:
        """Tell whether its member's share has room for ``tx``."""
        member_id = tx.envelope.member_id
        if tx.payload is not None:
            return self._member_payloads[member_id] < POOL_MEMBER_PAYLOADS_MAX
        return (
            self._member_transactions[member_id] * POOL_MEMBER_SHARE < POOL_TRANSACTIONS_MAX
            and self._member_records[member_id] * POOL_MEMBER_SHARE < POOL_RECORDS_MAX
        )

    def get(self, tx_id: bytes) -> CheckedTransaction | None:
        """Return a pending transaction, or None."""
        return self._transactions.get(tx_id)

    def add(self, tx: CheckedTransaction) -> None:
        """Take a transaction in; a second time changes nothing."""
        if tx.tx_id not in self._transactions:
            self._transactions[tx.tx_id] = tx
            self._count(tx, 1)

    def remove(self, tx_id: bytes) -> None:
        """Let a transaction go: it is final, expired or unusable."""
        tx = self._transactions.pop(tx_id, None)
        if tx is not None:
            self._count(tx, -1)

    def _count(self, tx: CheckedTransaction, sign: int) -> None:
        member_id = tx.envelope.member_id
        self.records += sign * tx.record_count
        self._member_records[member_id] += sign * tx.record_count
        self._member_transactions[member_id] += sign
        self._member_payloads[member_id] += sign * (tx.payload is not None)
