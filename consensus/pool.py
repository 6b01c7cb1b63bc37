"""Pending transactions: checked, on disk here, and not final yet."""

from __future__ import annotations

from collections.abc import Iterator

from ledger.validation import CheckedTransaction

POOL_RECORDS_MAX = 1_000_000
"""Records taken in but not final: their keys cost about 100 bytes each while they wait."""
POOL_TRANSACTIONS_MAX = 200_000
"""Transactions taken in but not final: about 2 kB each beside the keys. More than three of the largest blocks name."""


class Pool:
    """Pending transactions in order of arrival."""

    def __init__(self) -> None:
        self._transactions: dict[bytes, CheckedTransaction] = {}
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

    def get(self, tx_id: bytes) -> CheckedTransaction | None:
        """Return a pending transaction, or None."""
        return self._transactions.get(tx_id)

    def add(self, tx: CheckedTransaction) -> None:
        """Take a transaction in; a second time changes nothing."""
        if tx.tx_id not in self._transactions:
            self._transactions[tx.tx_id] = tx
            self.records += tx.record_count

    def remove(self, tx_id: bytes) -> None:
        """Let a transaction go: it is final, expired or unusable."""
        tx = self._transactions.pop(tx_id, None)
        if tx is not None:
            self.records -= tx.record_count
