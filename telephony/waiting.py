"""Documents that wait for others of their call, on disk in the party vault's database.

A call that is told in parts waits here until it is whole; a call that is whole waits where its source says so, for the
reports of its quality; a call that seems to end in the future waits until its time has come. Bodies are encrypted, and
what joins them is a keyed hash. Rows that are done with stay a while without their body, so that the same document,
sent once more, is known again.

Source: docs/agent.md, "Calls told in parts".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from telephony.vault import Vault

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS waiting (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        document BLOB NOT NULL UNIQUE,      -- keyed hash of kind and document
        call BLOB NOT NULL,                 -- keyed hash of what its call is known by
        role INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        taken_ms INTEGER NOT NULL,
        due_ms INTEGER NOT NULL,            -- when to look at it again
        body BLOB                           -- sealed; null when it is done with
    )""",
    "CREATE INDEX IF NOT EXISTS waiting_call ON waiting (call)",
    "CREATE INDEX IF NOT EXISTS waiting_due ON waiting (due_ms)",
)

PARTS_MAX: Final = 1_000
"""Documents of one call that are looked at together: a report every ten seconds for almost three hours. It bounds what
somebody can make an agent hold in memory who sends reports of one Call-ID for ever."""


class Role(IntEnum):
    """What a document is to its call; from 1 on as ``telephony.source.PartRole``."""

    WHOLE = 0
    BEGIN = 1
    END = 2
    QUALITY = 3


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document that is to wait."""

    call: bytes
    """What its call is known by, in clear bytes."""
    role: Role
    kind: int
    taken_ms: int
    due_ms: int
    document: bytes


class Waiter(NamedTuple):
    """A document that waits."""

    number: int
    call: bytes
    """Keyed hash."""
    role: Role
    kind: int
    taken_ms: int
    document: bytes


class Waiting:
    """The documents that wait at one agent.

    Attributes:
        count: how many there are, without those done with.
    """

    def __init__(self, vault: Vault) -> None:
        """Make the table where there is none. Raises StoreError."""
        self._vault = vault
        with vault.transaction() as db:
            for statement in _SCHEMA:
                db.execute(statement)
        self.count = 0
        self.recount()

    def recount(self) -> None:
        """Count anew, after a commit."""
        with self._vault.reading() as db:
            (self.count,) = db.execute("SELECT count(body) FROM waiting").fetchone()

    def next_due_ms(self) -> int | None:
        """Return when the next document is to be looked at."""
        with self._vault.reading() as db:
            (due_ms,) = db.execute("SELECT min(due_ms) FROM waiting").fetchone()
        return None if due_ms is None else int(due_ms)

    def due(self, now_ms: int, limit: int) -> list[list[Waiter]]:
        """Return calls of which something is due, at most ``limit``, each with its documents that wait.

        Of a call with more than PARTS_MAX documents those that are due come first, then calls, their beginnings and
        ends, and reports.
        """
        with self._vault.reading() as db:
            query = "SELECT DISTINCT call FROM waiting WHERE due_ms <= ? AND body IS NOT NULL LIMIT ?"
            calls = [row[0] for row in db.execute(query, (now_ms, limit))]
            query = """SELECT number, call, role, kind, taken_ms, document, body FROM waiting
                WHERE call = ? AND body IS NOT NULL ORDER BY due_ms > ?, role, number LIMIT ?"""
            found = [db.execute(query, (call, now_ms, PARTS_MAX)).fetchall() for call in calls]
        return [
            [
                Waiter(number, call, Role(role), kind, taken_ms, self._vault.unseal(body, document))
                for number, call, role, kind, taken_ms, document, body in rows
            ]
            for rows in found
        ]

    def add(self, db: sqlite3.Connection, documents: Sequence[NewDocument]) -> None:
        """Keep documents, inside a commit; one that is there, or was not long ago, is left out."""
        rows = []
        for new in documents:
            name = self._name_of(new.kind, new.document)
            call = self._vault.content_hash(b"call/" + new.call)
            body = self._vault.seal(new.document, name)
            rows.append((name, call, new.role, new.kind, new.taken_ms, new.due_ms, body))
        insert = """INSERT OR IGNORE INTO waiting (document, call, role, kind, taken_ms, due_ms, body)
            VALUES (?, ?, ?, ?, ?, ?, ?)"""
        db.executemany(insert, rows)

    def finish(self, db: sqlite3.Connection, numbers: Sequence[int], until_ms: int) -> None:
        """Erase documents, inside a commit; until ``until_ms`` they are known again."""
        update = "UPDATE waiting SET body = NULL, due_ms = ? WHERE number = ?"
        db.executemany(update, [(until_ms, number) for number in numbers])

    def postpone(self, db: sqlite3.Connection, due: Sequence[tuple[int, int]]) -> None:
        """Look at documents, ``(number, due_ms)``, again later, inside a commit."""
        db.executemany("UPDATE waiting SET due_ms = ? WHERE number = ?", [(due_ms, number) for number, due_ms in due])

    def remove(self, db: sqlite3.Connection, numbers: Sequence[int]) -> None:
        """Delete documents, inside a commit: sent again, they are new."""
        db.executemany("DELETE FROM waiting WHERE number = ?", [(number,) for number in numbers])

    def purge(self, db: sqlite3.Connection, now_ms: int) -> None:
        """Delete what is done with and no longer to be known again, inside a commit."""
        db.execute("DELETE FROM waiting WHERE body IS NULL AND due_ms <= ?", (now_ms,))

    def forget(self, db: sqlite3.Connection, kind: int, document: bytes) -> None:
        """No longer know a document that is done with, inside a commit: sent again, it is new."""
        name = self._name_of(kind, document)
        db.execute("DELETE FROM waiting WHERE document = ? AND body IS NULL", (name,))

    def _name_of(self, kind: int, document: bytes) -> bytes:
        return self._vault.content_hash(b"document/%d/" % kind + document)
