"""Signed transactions on their way to the ledger, on disk until they are final.

Two tables in the party vault's database, so that one commit holds a record's private part, its place, the transaction
that carries it, and how far the spool has been read::

    outbox      a signed transaction; gone when it is final
    progress    which spool was read up to where, in the same commit as what came of it

What a crash leaves is all of a commit or nothing: no record without its transaction, none signed twice.

Calls block; they may come from several threads.

Source: docs/agent.md, "What delivery promises".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.genesis import Parameters
from ledger.transaction import ITEMS_MAX, LIFETIME_MS_MAX, TRANSACTION_BYTES_MAX, make_transaction, tx_id_of
from ledger.validation import member_share_of
from telephony.spool_files import Position
from telephony.vault import Place, Vault, VaultEntry

ENVELOPE_BYTES: Final = 512
"""Room for envelope, signature and array headers."""
ITEM_HEAD_BYTES: Final = 5
LIFETIME_MS: Final = LIFETIME_MS_MAX // 2
"""Long enough to outlast an outage of the producers, short enough to be told of trouble."""
KEY_BYTES: Final = 16

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS outbox (
        number INTEGER PRIMARY KEY AUTOINCREMENT,   -- the order they were signed in; never used again
        tx_id BLOB NOT NULL UNIQUE,
        raw BLOB NOT NULL,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        taken_ms INTEGER NOT NULL,                  -- when the oldest of its documents came in
        records INTEGER NOT NULL,
        keys BLOB NOT NULL,                         -- record keys, 16 bytes each, in the order of the items
        kinds BLOB NOT NULL                         -- what their documents were, a byte each
    )""",
    """CREATE TABLE IF NOT EXISTS progress (
        spool BLOB PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL, sequence INTEGER NOT NULL
    )""",
)


class Item(NamedTuple):
    """A record that is to be signed."""

    data: bytes
    """Its canonical encoding."""
    record_key: bytes
    kind: int
    """Of its document, see ``telephony.adapters.base.Kind``."""
    taken_ms: int
    """When its document came in."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A signed transaction."""

    tx_id: bytes
    raw: bytes
    created_ms: int
    expires_ms: int
    taken_ms: int
    keys: tuple[bytes, ...]
    kinds: bytes


class Sent(NamedTuple):
    """What is known of a transaction in the outbox without reading it."""

    number: int
    tx_id: bytes
    created_ms: int
    expires_ms: int
    taken_ms: int
    records: int
    size: int


class Signer:
    """Packs records into signed transactions of a member."""

    def __init__(self, key: PrivateKey, *, member_id: str, chain_id: bytes, parameters: Parameters) -> None:
        self.member_id = member_id
        self._key = key
        self._chain_id = chain_id
        records_max, bytes_max = member_share_of(parameters)
        # What is larger than the member's share of a block would never be in one.
        self._items_max = max(min(ITEMS_MAX, records_max), 1)
        self._bytes_max = min(TRANSACTION_BYTES_MAX, bytes_max) - ENVELOPE_BYTES

    def pack(self, items: Sequence[Item], *, now_ms: int, items_max: int = ITEMS_MAX) -> list[Outgoing]:
        """Return ``items`` in order in as few transactions as they fit, at most ``items_max`` in one."""
        most = min(self._items_max, items_max)
        groups: list[list[Item]] = []
        room = 0
        for item in items:
            size = len(item.data) + ITEM_HEAD_BYTES
            if not groups or len(groups[-1]) >= most or size > room:
                groups.append([])
                room = self._bytes_max
            groups[-1].append(item)
            room -= size
        return [self._sign(group, now_ms) for group in groups]

    def _sign(self, items: list[Item], now_ms: int) -> Outgoing:
        expires_ms = now_ms + LIFETIME_MS
        transaction = make_transaction(
            [item.data for item in items],
            key=self._key,
            member_id=self.member_id,
            chain_id=self._chain_id,
            created_ms=now_ms,
            expires_ms=expires_ms,
        )
        return Outgoing(
            tx_id_of(transaction.envelope),
            encode(transaction),
            now_ms,
            expires_ms,
            min(item.taken_ms for item in items),
            tuple(item.record_key for item in items),
            bytes(item.kind for item in items),
        )


class Outbox:
    """The transactions of one agent that are not final, in its vault's database.

    Attributes:
        records: how many records are in it.
        vault: what its tables are in.
    """

    def __init__(self, vault: Vault) -> None:
        """Make the tables where there are none. Raises StoreError."""
        self.vault = vault
        self.records: int = 0
        with vault.transaction() as db:
            for statement in _SCHEMA:
                db.execute(statement)
        with vault.reading() as db:
            (self.records,) = db.execute("SELECT coalesce(sum(records), 0) FROM outbox").fetchone()

    def put(
        self,
        entries: Sequence[VaultEntry],
        outgoing: Sequence[Outgoing],
        *,
        spool: bytes,
        position: Position | None,
        also: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        """Keep records and the transactions that carry them, durable on return, or nothing of it.

        position: up to where ``spool`` is read then. also: does more in the same commit.
        Raises StoreFull or another StoreError.
        """
        with self.vault.transaction(entries, _places(outgoing)) as db:
            _insert(db, outgoing)
            if position is not None:
                db.execute("INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?)", (spool, *position))
            if also is not None:
                also(db)
        self.records += sum(len(transaction.keys) for transaction in outgoing)

    def position(self, spool: bytes) -> Position | None:
        """Return up to where a spool was read, None where it never was."""
        with self.vault.reading() as db:
            query = "SELECT segment, offset, sequence FROM progress WHERE spool = ?"
            row = db.execute(query, (spool,)).fetchone()
        return Position(*row) if row else None

    def load(self, after: int, limit: int) -> list[Sent]:
        """Return at most ``limit`` transactions with numbers above ``after``, in order."""
        query = """SELECT number, tx_id, created_ms, expires_ms, taken_ms, records, length(raw) FROM outbox
            WHERE number > ? ORDER BY number LIMIT ?"""
        with self.vault.reading() as db:
            return [Sent(*row) for row in db.execute(query, (after, limit))]

    def raws(self, numbers: Sequence[int]) -> list[bytes]:
        """Return transactions as they were signed. All of them must be there."""
        with self.vault.reading() as db:
            query = "SELECT raw FROM outbox WHERE number = ?"
            return [db.execute(query, (number,)).fetchone()[0] for number in numbers]

    def items_in(self, number: int, datas: Sequence[bytes]) -> list[Item]:
        """Return the records of a transaction, whose encodings are ``datas``, with what is known of them."""
        with self.vault.reading() as db:
            query = "SELECT keys, kinds, taken_ms FROM outbox WHERE number = ?"
            keys, kinds, taken_ms = db.execute(query, (number,)).fetchone()
        starts = range(0, len(keys), KEY_BYTES)
        return [
            Item(data, keys[start : start + KEY_BYTES], kind, taken_ms)
            for data, start, kind in zip(datas, starts, kinds, strict=True)
        ]

    def settle(self, sent: Sequence[Sent]) -> None:
        """Forget transactions that are final, durably."""
        with self.vault.transaction() as db:
            db.executemany("DELETE FROM outbox WHERE number = ?", [(row.number,) for row in sent])
        self.records -= sum(row.records for row in sent)

    def replace(
        self,
        sent: Sent,
        outgoing: Sequence[Outgoing],
        gone: Sequence[bytes] = (),
        also: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        """Put ``outgoing`` in the place of a transaction that no block will ever hold, durable on return.

        gone: keys of its records that go no further. also: does more in the same commit.
        """
        with self.vault.transaction((), _places(outgoing), gone) as db:
            db.execute("DELETE FROM outbox WHERE number = ?", (sent.number,))
            _insert(db, outgoing)
            if also is not None:
                also(db)
        self.records += sum(len(transaction.keys) for transaction in outgoing) - sent.records


def _places(outgoing: Sequence[Outgoing]) -> list[Place]:
    return list(_each_place(outgoing))


def _each_place(outgoing: Sequence[Outgoing]) -> Iterator[Place]:
    for transaction in outgoing:
        for index, key in enumerate(transaction.keys):
            yield Place(key, transaction.tx_id, index)


def _insert(db: sqlite3.Connection, outgoing: Sequence[Outgoing]) -> None:
    db.executemany(
        """INSERT INTO outbox (tx_id, raw, created_ms, expires_ms, taken_ms, records, keys, kinds)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
        [
            (t.tx_id, t.raw, t.created_ms, t.expires_ms, t.taken_ms, len(t.keys), b"".join(t.keys), t.kinds)
            for t in outgoing
        ],
    )
