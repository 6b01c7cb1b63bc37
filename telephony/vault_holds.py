"""Dispute holds: records that are kept although a subject is forgotten or their time is up.

Source: docs/privacy.md, "Dispute hold".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.errors import ConfigError
from telephony.vault_files import VaultFiles
from telephony.vault_keys import end_of_period_ms

TARGETS_MAX: Final = 10_000
"""Of one hold: a dispute over more names months."""
WORDS_MAX: Final = 200

HELD_NOW: Final = """EXISTS (SELECT 1 FROM hold_target AS t WHERE
    (t.what = r.record_key AND t.kind = 'record') OR (t.what = r.period AND t.kind = 'period')
    OR (t.what IN (r.caller, r.callee) AND t.kind = 'subject'))"""
"""Whether the record ``r`` is under a hold."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold, in force or released."""

    number: int
    reason: str
    who: str
    since_ms: int
    released_ms: int | None
    """None while it is in force."""
    released_by: str | None
    targets: int
    """Records, subjects and months that it names; 0 once it is released."""


@dataclass(frozen=True, slots=True)
class HeldNow:
    """What holds keep, for what is no record of the vault. Subjects are keyed hashes."""

    subjects: frozenset[bytes]
    periods: frozenset[str]
    calls: frozenset[tuple[bytes, bytes]]
    """Caller and callee of each record that is named."""


class Holds:
    """The holds of one vault; see ``Erasure.holds``."""

    def __init__(self, files: VaultFiles, settle: Callable[[], None]) -> None:
        """``settle`` carries out, under the lock, the shreddings that a hold had kept back."""
        self._files = files
        self._settle = settle

    def place(
        self,
        *,
        reason: str,
        who: str,
        now_ms: int,
        records: Sequence[bytes] = (),
        subjects: Sequence[str] = (),
        periods: Sequence[str] = (),
    ) -> Hold:
        """Keep records from being shredded: those named, those of parties, those of months, also ones yet to come.

        Durable on return. Raises ConfigError for what cannot be held: nothing, an unknown record, no month.
        """
        for name, text in (("reason", reason), ("who", who)):
            if not text or not text.isprintable() or len(text) > WORDS_MAX:
                raise ConfigError("not words", where=name, expected=f"1 to {WORDS_MAX} printable characters")
        for period in periods:
            end_of_period_ms(period)
        count = len(records) + len(subjects) + len(periods)
        if not 1 <= count <= TARGETS_MAX or "" in subjects:
            raise ConfigError("what is to be held?", where="hold", expected=f"1 to {TARGETS_MAX} records and the like")
        hashed = [self._files.subject_of(party.encode("utf-8", "surrogateescape")) for party in subjects]
        targets: list[tuple[str, bytes | str]] = [
            *(("record", key) for key in records),
            *(("subject", subject) for subject in hashed),
            *(("period", period) for period in periods),
        ]
        with self._files.lock, self._files.translated():
            for key in records:
                if self._files.db.execute("SELECT 1 FROM record WHERE record_key = ?", (key,)).fetchone() is None:
                    raise ConfigError("no such record in the vault", where="record_key", actual=key)
            with self._files.transaction() as db:
                values = (reason, who, now_ms)
                number = db.execute("INSERT INTO hold (reason, who, since_ms) VALUES (?, ?, ?)", values).lastrowid
                db.executemany("INSERT INTO hold_target VALUES (?, ?, ?)", [(number, *target) for target in targets])
            assert number is not None
            return self._get(number)

    def release(self, number: int, *, who: str, now_ms: int) -> Hold:
        """End a hold; what it kept from being shredded is shredded now, unless another hold keeps it.

        Durable on return. Raises ConfigError where no such hold is in force, StoreError.
        """
        if not who or not who.isprintable() or len(who) > WORDS_MAX:
            raise ConfigError("not words", where="who", expected=f"1 to {WORDS_MAX} printable characters")
        with self._files.lock, self._files.translated():
            hold = self._get(number)
            if hold.released_ms is not None:
                raise ConfigError("released before", where=f"hold {number}", actual=f"by {hold.released_by}")
            with self._files.transaction() as db:
                values = (now_ms, who, number)
                db.execute("UPDATE hold SET released_ms = ?, released_by = ? WHERE number = ?", values)
                db.execute("DELETE FROM hold_target WHERE hold = ?", (number,))
                # With the release, so that a crash behind it forgets none of them.
                db.execute("UPDATE shredding SET state = 'settling' WHERE held > 0 AND state = 'done'")
            self._settle()
            return self._get(number)

    def all(self) -> list[Hold]:
        """Return every hold there was, the oldest first."""
        with self._files.lock, self._files.translated():
            numbers = self._files.db.execute("SELECT number FROM hold ORDER BY number").fetchall()
            return [self._get(number) for (number,) in numbers]

    def in_force(self) -> HeldNow:
        """Return what the holds in force keep."""
        with self._files.lock, self._files.translated():
            targets = self._files.db.execute("SELECT kind, what FROM hold_target").fetchall()
            query = """SELECT r.caller, r.callee FROM record AS r
                WHERE r.record_key IN (SELECT what FROM hold_target WHERE kind = 'record')"""
            calls = self._files.db.execute(query).fetchall()
        return HeldNow(
            frozenset(what for kind, what in targets if kind == "subject"),
            frozenset(what for kind, what in targets if kind == "period"),
            frozenset((caller, callee) for caller, callee in calls),
        )

    def is_held(self, record_key: bytes) -> bool:
        """Tell whether a hold keeps a record."""
        query = f"SELECT {HELD_NOW} FROM record AS r WHERE r.record_key = ?"  # noqa: S608 - names only
        with self._files.lock, self._files.translated():
            row = self._files.db.execute(query, (record_key,)).fetchone()
            return bool(row and row[0])

    def _get(self, number: int) -> Hold:
        query = """SELECT number, reason, who, since_ms, released_ms, released_by,
            (SELECT COUNT(*) FROM hold_target WHERE hold = number) FROM hold WHERE number = ?"""
        row = self._files.db.execute(query, (number,)).fetchone()
        if row is None:
            raise ConfigError("no such hold", where=f"hold {number}", hint="List them with: ledger-agent vault holds")
        return Hold(*row)
