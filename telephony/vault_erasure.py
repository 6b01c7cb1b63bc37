"""Forgetting on purpose: subjects and periods of the vault, what a dispute holds back, and how long anything is kept.

A shredding goes in steps, each durable before the next and each harmless when done twice: it is written down; records
under a hold get keys of their own; of the others' fields that stay the proofs are saved; the keys go; the bodies are
erased. What a crash interrupts goes on when the vault is opened. The chain has only salted commitments: it is not
touched, and verifies as before.

Source: docs/privacy.md, "To forget".
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from ledger.commitment import PRIVATE_FIELDS
from ledger.errors import ConfigError
from telephony.numbers import ANONYMOUS
from telephony.vault_bodies import Bodies, Keys, Shredding, UnreadableBody, leaves_of, seal_fields, unseal
from telephony.vault_files import VaultFiles
from telephony.vault_holds import HELD_NOW, Holds
from telephony.vault_keys import DAY_MS, HELD, NONCE_BYTES, KeyFile, end_of_period_ms, periods_in

BATCH: Final = 1000
"""Records of one commit: it stays short, and so does the write-ahead log."""
REASON_MAX: Final = 200
"""Characters of a reason."""
RETAIN_DAYS_MAX: Final = 36_500

_MEANT: Final = {"subject": "(r.caller = :what OR r.callee = :what)", "period": "r.period = :what"}
_HAS_BODY: Final = "(r.caller_body IS NOT NULL OR r.callee_body IS NOT NULL OR r.rest_body IS NOT NULL)"
_LOSES: Final = {
    "subject": """((r.caller = :what AND r.caller_body IS NOT NULL) OR (r.callee = :what AND r.callee_body IS NOT NULL)
        OR r.rest_body IS NOT NULL)""",
    "period": _HAS_BODY,
}
"""Whether a record that is meant has something left that the shredding takes."""
_ROW: Final = (
    "r.number, r.record_key, r.period, r.caller, r.callee, r.has_own_keys, r.caller_body, r.callee_body, r.rest_body"
)
_ERASE: Final = {
    "subject": """UPDATE record AS r SET
        caller_body = CASE WHEN caller = :what THEN NULL ELSE caller_body END,
        callee_body = CASE WHEN callee = :what THEN NULL ELSE callee_body END,
        caller_shredding = CASE WHEN caller = :what AND caller_body IS NOT NULL THEN :number ELSE caller_shredding END,
        callee_shredding = CASE WHEN callee = :what AND callee_body IS NOT NULL THEN :number ELSE callee_shredding END,
        rest_shredding = CASE WHEN rest_body IS NOT NULL THEN :number ELSE rest_shredding END,
        rest_body = NULL""",
    "period": """UPDATE record AS r SET leaves = NULL,
        caller_shredding = CASE WHEN caller_body IS NOT NULL THEN :number ELSE caller_shredding END,
        callee_shredding = CASE WHEN callee_body IS NOT NULL THEN :number ELSE callee_shredding END,
        rest_shredding = CASE WHEN rest_body IS NOT NULL THEN :number ELSE rest_shredding END,
        caller_body = NULL, callee_body = NULL, rest_body = NULL""",
}
_SHREDDING: Final = "number, kind, what, reason, time_ms, state = 'done', records, held"

Row = tuple[Any, ...]


def keys_of(
    files: VaultFiles, record_key: bytes, period: str | None, caller: bytes, callee: bytes, bodies: Bodies
) -> Keys:
    """Return the keys of a record that its bodies ask for.

    period: None for a record with keys of its own.
    """
    file = files.keys(period or HELD)
    if period is None:
        caller, callee = files.own_key_of("caller", record_key), files.own_key_of("callee", record_key)
    needs_caller = bodies.caller is not None or bodies.rest is not None
    needs_callee = bodies.callee is not None or bodies.rest is not None
    return Keys(file.key_of(caller) if needs_caller else None, file.key_of(callee) if needs_callee else None)


class Erasure:
    """Shreds, holds and retains in one vault; see ``Vault.erasure``. Calls block, and wait for those of the vault.

    Attributes:
        holds: what is disputed.
    """

    def __init__(self, files: VaultFiles) -> None:
        self._files = files
        self.holds = Holds(files, self._settle)

    def subject_of(self, party: str) -> bytes:
        """Return the 16 bytes that stand for a caller or callee, as ``telephony.numbers`` writes it, in this vault."""
        return self._files.subject_of(party.encode("utf-8", "surrogateescape"))

    # -- shredding ---------------------------------------------------------------------------------------------------

    def shred_subject(self, party: str, *, reason: str, now_ms: int) -> Shredding:
        """Forget a caller or callee for good, in every record so far; return what was done. Durable on return.

        The other party of each record stays, and stays provable; Call-ID, tags, addresses and the raw document hold
        both and go. Records under a hold are kept until it is released. A call that comes in later is new.
        Raises ConfigError for an empty party or a reason that does not fit, StoreError.
        """
        if party in {"", ANONYMOUS}:
            raise ConfigError("whom?", where="subject", expected="a number or URI as the vault has it")
        if party.lstrip("+") in reason:
            raise ConfigError("the reason names the subject", where="reason", hint="It is kept: leave the number out")
        return self._begin("subject", self.subject_of(party), reason, now_ms)

    def shred_period(self, period: str, *, reason: str, now_ms: int) -> Shredding:
        """Forget every private part of a month, ``2026-11``, for good, but for records under a hold.

        Return what was done. Durable on return. Raises ConfigError, StoreError.
        """
        end_of_period_ms(period)
        return self._begin("period", period, reason, now_ms)

    def would_lose(self, kind: Literal["subject", "period"], what: bytes | str) -> tuple[int, int]:
        """Return how many records a shredding would take something of, and how many of them a hold would keep."""
        query = f"""SELECT COUNT(*), COALESCE(SUM({HELD_NOW}), 0) FROM record AS r
            WHERE {_MEANT[kind]} AND {_LOSES[kind]}"""  # noqa: S608 - names only
        with self._files.lock, self._files.translated():
            count, held = self._files.db.execute(query, {"what": what}).fetchone()
        return count - held, held

    def resume(self) -> None:
        """End what a crash interrupted. Raises StoreError."""
        with self._files.lock, self._files.translated():
            self._finish_all()

    def log(self) -> list[Shredding]:
        """Return what was shredded, the oldest first."""
        with self._files.lock, self._files.translated():
            rows = self._files.db.execute(f"SELECT {_SHREDDING} FROM shredding ORDER BY number")  # noqa: S608 - names only
            return [_shredding(row) for row in rows]

    def shreddings_by_number(self, numbers: Iterable[int | None]) -> dict[int | None, Shredding]:
        """Return shreddings by their numbers. For who has the vault's lock."""
        query = f"SELECT {_SHREDDING} FROM shredding WHERE number = ?"  # noqa: S608 - names only
        rows = [self._files.db.execute(query, (number,)).fetchone() for number in numbers if number is not None]
        return {row[0]: _shredding(row) for row in rows if row is not None}

    # -- retention ---------------------------------------------------------------------------------------------------

    @property
    def retain_days(self) -> int | None:
        """Return how long private parts are kept after the end of their month; None: for ever."""
        with self._files.lock, self._files.translated():
            row = self._files.db.execute("SELECT value FROM vault WHERE name = 'retain_days'").fetchone()
            return row[0] if row is not None else None

    def set_retain_days(self, days: int | None) -> None:
        """Set how long private parts are kept. Durable on return. Raises ConfigError, StoreError."""
        if days is not None and not 1 <= days <= RETAIN_DAYS_MAX:
            raise ConfigError("no such time", where="retain_days", expected=f"1 to {RETAIN_DAYS_MAX}", actual=days)
        with self._files.lock, self._files.translated(), self._files.transaction() as db:
            db.execute("DELETE FROM vault WHERE name = 'retain_days'")
            if days is not None:
                db.execute("INSERT INTO vault VALUES ('retain_days', ?)", (days,))

    def retention_due(self, now_ms: int) -> list[str]:
        """Return the months that have been kept long enough and have keys left, the oldest first."""
        days = self.retain_days
        if days is None:
            return []
        with self._files.lock:
            periods = [
                period
                for period in periods_in(self._files.directory)
                if end_of_period_ms(period) + days * DAY_MS <= now_ms
            ]
            return [period for period in periods if len(self._files.keys(period))]

    def apply_retention(self, now_ms: int) -> list[Shredding]:
        """Shred what the policy no longer keeps, but for records under a hold; return what was done."""
        days = self.retain_days
        reason = f"retention: kept {days} days after its month"
        return [self.shred_period(period, reason=reason, now_ms=now_ms) for period in self.retention_due(now_ms)]

    # -- inside ------------------------------------------------------------------------------------------------------

    def _begin(self, kind: str, what: bytes | str, reason: str, now_ms: int) -> Shredding:
        check_words("reason", reason)
        with self._files.lock, self._files.translated():
            with self._files.transaction() as db:
                # A crash before this leaves nothing; after it the shredding is carried out, whatever happens.
                number = db.execute(
                    """INSERT INTO shredding (kind, what, reason, time_ms, up_to, state)
                    VALUES (?, ?, ?, ?, 0, 'asked')""",
                    (kind, what, reason, now_ms),
                ).lastrowid
            self._finish_all()
            return self.shreddings_by_number([number])[number]

    def _settle(self) -> None:
        """Carry out what a hold had kept from being shredded, now that one was released. For who has the lock."""
        self._finish_all()

    def _finish_all(self) -> None:
        # All that is there is meant; also what came in after an interruption, for its keys may be the same.
        self._files.db.execute(
            """UPDATE shredding SET up_to = (SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'record')
            WHERE state = 'asked'"""
        )
        query = "SELECT number, kind, what, up_to, state FROM shredding WHERE state <> 'done' ORDER BY number"
        for number, kind, what, up_to, state in self._files.db.execute(query).fetchall():
            values = {"number": number, "what": what, "up_to": up_to, "limit": BATCH}
            meant = f"{_MEANT[kind]} AND r.number <= :up_to"
            self._move_held(meant, values)
            if kind == "subject":
                self._save_leaves(meant, values)
            self._shred_keys(kind, meant, values, is_first=state == "asked")
            self._erase(kind, meant, values)
            with self._files.transaction() as db:
                held = f"SELECT COUNT(*) FROM record AS r WHERE {meant} AND {HELD_NOW} AND {_LOSES[kind]}"  # noqa: S608 - names only
                (count,) = db.execute(held, values).fetchone()
                db.execute("UPDATE shredding SET state = 'done', held = ? WHERE number = ?", (count, number))

    def _move_held(self, meant: str, values: dict[str, Any]) -> None:
        """Give records under a hold keys of their own: those of their subjects and period are about to go."""
        query = f"""SELECT {_ROW} FROM record AS r
            WHERE {meant} AND r.has_own_keys = 0 AND {HELD_NOW} AND {_HAS_BODY} LIMIT :limit"""  # noqa: S608 - names only
        while rows := self._files.db.execute(query, values).fetchall():
            file = self._files.keys(HELD)
            # A crash after this leaves keys that open nothing yet.
            file.ensure({self._files.own_key_of(side, row[1]) for row in rows for side in ("caller", "callee")})
            with self._files.transaction() as db:
                db.executemany(
                    """UPDATE record SET has_own_keys = 1, caller_body = ?, callee_body = ?, rest_body = ?
                    WHERE number = ?""",
                    [(*self._under_own_keys(row, file), row[0]) for row in rows],
                )

    def _under_own_keys(self, row: Row, file: KeyFile) -> Bodies:
        record_key = row[1]
        try:
            groups = self._unsealed(row)
        except UnreadableBody:
            raise self._files.damaged(f"the private part of record {record_key.hex()}, under a hold,") from None
        own = Keys(*(file.key_of(self._files.own_key_of(side, record_key)) for side in ("caller", "callee")))
        return seal_fields(groups, record_key, own, secrets.token_bytes(4 * NONCE_BYTES))

    def _save_leaves(self, meant: str, values: dict[str, Any]) -> None:
        """Save the hashes of all leaves while they can be computed, so that what stays can be proven."""
        query = f"""SELECT {_ROW} FROM record AS r WHERE {meant} AND r.number > :after AND r.leaves IS NULL
            AND NOT {HELD_NOW} AND r.caller_body IS NOT NULL AND r.callee_body IS NOT NULL AND r.rest_body IS NOT NULL
            ORDER BY r.number LIMIT :limit"""  # noqa: S608 - names only
        after = 0
        while rows := self._files.db.execute(query, {**values, "after": after}).fetchall():
            after = rows[-1][0]
            with self._files.transaction() as db:
                db.executemany(
                    "UPDATE record SET leaves = ? WHERE number = ?", [(self._leaves(row), row[0]) for row in rows]
                )

    def _leaves(self, row: Row) -> bytes | None:
        try:
            groups = self._unsealed(row)
        except UnreadableBody:
            # Damage must not keep a subject from being forgotten.
            return None
        fields = [field for group in groups.values() for field in group]
        return b"".join(leaves_of(fields)) if len(fields) == len(PRIVATE_FIELDS) else None

    def _unsealed(self, row: Row) -> dict[str, Any]:
        _, record_key, period, caller, callee, has_own_keys, *parts = row
        bodies = Bodies(*parts)
        keys = keys_of(self._files, record_key, None if has_own_keys else period, caller, callee, bodies)
        return unseal(bodies, record_key, keys)

    def _shred_keys(self, kind: str, meant: str, values: dict[str, Any], *, is_first: bool) -> None:
        """Let keys go: of the subject or period, and of records that have their own and no hold any more."""
        if is_first and kind == "period":
            self._files.keys(values["what"]).shred_all()
        elif is_first:
            query = f"SELECT DISTINCT r.period FROM record AS r WHERE {meant} AND r.has_own_keys = 0"  # noqa: S608 - names only
            for (period,) in self._files.db.execute(query, values).fetchall():
                self._files.keys(period).shred({values["what"]})
        query = f"""SELECT r.record_key, r.caller, r.callee FROM record AS r
            WHERE {meant} AND r.has_own_keys = 1 AND {_HAS_BODY} AND NOT {HELD_NOW}"""  # noqa: S608 - names only
        gone = {
            self._files.own_key_of(side, record_key)
            for record_key, *subjects in self._files.db.execute(query, values)
            for side, subject in zip(("caller", "callee"), subjects, strict=True)
            if kind == "period" or subject == values["what"]
        }
        self._files.keys(HELD).shred(gone)

    def _erase(self, kind: str, meant: str, values: dict[str, Any]) -> None:
        """Erase bodies that nothing opens any more, and note which shredding took them."""
        chosen = f"SELECT r.number FROM record AS r WHERE {meant} AND NOT {HELD_NOW} AND {_LOSES[kind]} LIMIT :limit"  # noqa: S608 - names only
        count = 1
        while count:
            with self._files.transaction() as db:
                count = db.execute(f"{_ERASE[kind]} WHERE r.number IN ({chosen})", values).rowcount
                db.execute("UPDATE shredding SET records = records + ? WHERE number = ?", (count, values["number"]))


def check_words(where: str, text: str) -> None:
    """Raise ConfigError unless ``text`` is one line of a person's words."""
    if not text or not text.isprintable() or len(text) > REASON_MAX:
        raise ConfigError("not words", where=where, expected=f"1 to {REASON_MAX} printable characters")


def _shredding(row: Sequence[Any] | sqlite3.Row) -> Shredding:
    number, kind, what, reason, time_ms, is_done, records, held = row
    text = what.hex() if isinstance(what, bytes) else what
    return Shredding(number, kind, text, reason, time_ms, bool(is_done), records, held)
