"""The party vault: the private parts of a carrier's own records, encrypted at rest.

Beside each private part stands what the carrier's node must know to take a record in exactly once: the record key,
a keyed hash of what was handed in, and where on the chain the record went. Nothing that is personal is on disk in
the clear: subjects and contents are keyed hashes, bodies are AES-256-GCM under keys of their subjects (caller and
callee) and month, bound to their record. Whoever forgets a subject's keys has forgotten the subject: ``erasure`` does.

Bodies lie in SQLite (write-ahead log, every commit synced), keys in files of their own (``telephony.vault_keys``).
A vault belongs to one process. Calls block; they may come from any thread, one at a time.

Source: docs/privacy.md, "The vault".
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.commitment import PrivateField, PrivatePart
from ledger.crypto import hmac_sha256
from telephony.vault_bodies import REST, Bodies, PrivateView, UnreadableBody, leaves_of, seal, unseal
from telephony.vault_erasure import Erasure, keys_of
from telephony.vault_files import VaultFiles
from telephony.vault_keys import NONCE_BYTES, derive_key, period_of

FIND_MAX: Final = 500
"""Keys asked for in one statement: SQLite takes 999 variables at least."""
NONCES_BYTES: Final = 4 * NONCE_BYTES
"""Of one record."""

_PUT: Final = """
INSERT OR REPLACE INTO record
    (record_key, content, period, caller, callee, caller_body, callee_body, rest_body, tx_id, tx_index)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
"""Replaced, not changed: it gets a number of its own, and no older shredding means it."""

_NOWHERE: Final = (None, None)
_NO_BODIES: Final = Bodies(None, None, None)


@dataclass(frozen=True, slots=True)
class VaultEntry:
    """A record to be kept."""

    record_key: bytes
    setup_ms: int
    """Decides the period of its keys."""
    content: bytes
    """``Vault.content_hash`` of what was handed in."""
    private: PrivatePart | None


@dataclass(frozen=True, slots=True)
class VaultRow:
    """What is known of a record that was handed in before."""

    content: bytes
    tx_id: bytes | None
    """None: the ledger never said that it has it on disk."""
    index: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the ledger has a record."""

    record_key: bytes
    tx_id: bytes
    index: int


class Vault:
    """The party vault of one member at one node.

    Attributes:
        erasure: forgets subjects and periods, holds what is disputed, keeps to the retention policy.
    """

    def __init__(self, directory: Path, secret: bytes) -> None:
        """Open the vault in ``directory``, making it where there is none; end what a crash left of a shredding.

        secret: the member's 32 bytes.
        Raises ConfigError for another member's secret, StoreLocked while another process has the vault, StoreVersion
        for another format, StoreDamaged or StoreError for what cannot be read.
        """
        self._files = VaultFiles(directory, secret)
        self._db, self._lock, self._translated = self._files.db, self._files.lock, self._files.translated
        self._content_key = derive_key(secret, "content")
        self._sealing = AESGCM(derive_key(secret, "sealed"))
        self.erasure = Erasure(self._files)
        try:
            self.erasure.resume()
        except BaseException:
            self._files.close()
            raise

    def content_hash(self, data: bytes) -> bytes:
        """Return the keyed hash (32 bytes) that stands for ``data``: only the member can test a guess."""
        return hmac_sha256(self._content_key, data)

    def store(self, entries: Sequence[VaultEntry], places: Sequence[Place] = ()) -> None:
        """Keep ``entries`` and note ``places`` of records kept before; all durable on return, or nothing.

        An entry takes the place of an older one with its record key: whether it may is for the caller to decide.
        Raises StoreFull where there is no room; the vault goes on working.
        """
        with self.transaction(entries, places):
            pass

    @contextmanager
    def transaction(
        self, entries: Sequence[VaultEntry] = (), places: Sequence[Place] = (), gone: Sequence[bytes] = ()
    ) -> Iterator[sqlite3.Connection]:
        """Do what ``store`` does, and whatever is executed on the connection inside, in one commit.

        For tables that others keep beside the records. ``gone`` are keys of records that no ledger will ever have:
        all that is known of them is deleted. All of it is durable behind the block, or, where the block or the
        commit raises, nothing. Raises as ``store`` does.
        """
        with self._lock, self._translated():
            at = {place.record_key: (place.tx_id, place.index) for place in places}
            # Of a new record the place goes into its row at once: a search of its own for each costs as much again.
            rows = [
                (*row, *at.get(entry.record_key, _NOWHERE))
                for entry, row in zip(entries, self._encrypt(entries), strict=True)
            ]
            for entry in entries:
                at.pop(entry.record_key, None)
            with self._files.transaction() as db:
                db.executemany(_PUT, rows)
                db.executemany(
                    "UPDATE record SET tx_id = ?, tx_index = ? WHERE record_key = ?",
                    [(*place, record_key) for record_key, place in at.items()],
                )
                db.executemany("DELETE FROM record WHERE record_key = ?", [(key,) for key in gone])
                yield db

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for statements that only read, of tables that others keep beside the records."""
        with self._lock, self._translated():
            yield self._db

    def seal(self, data: bytes, bound: bytes) -> bytes:
        """Return ``data`` encrypted under the member's secret, to be opened again with the same ``bound`` only.

        For what stays a short time; private parts have keys that can be forgotten.
        """
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._sealing.encrypt(nonce, data, bound)

    def unseal(self, sealed: bytes, bound: bytes) -> bytes:
        """Return what ``seal`` was given. Raises StoreDamaged for other bytes."""
        try:
            return self._sealing.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
        except (InvalidTag, ValueError):
            raise self._files.damaged("a sealed document") from None

    def put_many(self, entries: Sequence[VaultEntry]) -> None:
        """Keep ``entries``, as ``store`` does."""
        self.store(entries)

    def set_location(self, record_key: bytes, tx_id: bytes, index: int) -> None:
        """Note that the ledger has a record on disk, as ``store`` does."""
        self.store([], [Place(record_key, tx_id, index)])

    def find(self, record_keys: Sequence[bytes]) -> dict[bytes, VaultRow]:
        """Return what is known of those of ``record_keys`` that were handed in before."""
        found: dict[bytes, VaultRow] = {}
        with self._lock, self._translated():
            for start in range(0, len(record_keys), FIND_MAX):
                part = record_keys[start : start + FIND_MAX]
                marks = ",".join("?" * len(part))
                query = f"SELECT record_key, content, tx_id, tx_index FROM record WHERE record_key IN ({marks})"  # noqa: S608 - marks only
                for record_key, content, tx_id, index in self._db.execute(query, part):
                    found[record_key] = VaultRow(content, tx_id, index or 0)
        return found

    def get(self, record_key: bytes) -> PrivatePart | None:
        """Return the private part of a record; None where there is none here, or something of it was shredded.

        Raises StoreDamaged for bytes that are not those written, or a key that is lost.
        """
        view = self.look(record_key)
        return view.part if view is not None else None

    def look(self, record_key: bytes) -> PrivateView | None:
        """Return what is left of the private part of a record, and why the rest is gone; None where it had none.

        Raises as ``get`` does.
        """
        with self._lock, self._translated():
            query = """SELECT period, caller, callee, has_own_keys, caller_body, callee_body, rest_body, leaves,
                caller_shredding, callee_shredding, rest_shredding FROM record WHERE record_key = ?"""
            row = self._db.execute(query, (record_key,)).fetchone()
            if row is None:
                return None
            period, caller, callee, has_own_keys, *rest = row
            bodies, leaves, numbers = Bodies(*rest[:3]), rest[3], rest[4:]
            if not any(bodies) and not any(numbers):
                return None
            keys = keys_of(self._files, record_key, None if has_own_keys else period, caller, callee, bodies)
            try:
                groups = unseal(bodies, record_key, keys)
            except UnreadableBody:
                raise self._files.damaged(f"the private part of record {record_key.hex()}") from None
            reasons = self.erasure.shreddings_by_number(numbers)
        fields: dict[str, PrivateField] = {field.name: field for group in groups.values() for field in group}
        shredded = {
            name: reasons.get(number)
            for group, number in zip(("caller", "callee", "rest"), numbers, strict=True)
            if group not in groups
            for name in (REST if group == "rest" else (group,))
        }
        if not shredded:
            return PrivateView(fields, {}, leaves_of(list(fields.values())))
        kept = [leaves[i : i + 32] for i in range(0, len(leaves), 32)] if leaves else None
        return PrivateView(fields, shredded, kept)

    def records_of(self, party: str) -> list[tuple[bytes, str]]:
        """Return record key and period of every record that a caller or callee is in, shredded or not, in order."""
        subject = self.erasure.subject_of(party)
        with self._lock, self._translated():
            query = "SELECT record_key, period FROM record WHERE caller = ?1 OR callee = ?1 ORDER BY number"
            return [(key, period) for key, period in self._db.execute(query, (subject,))]

    def unplaced(self, limit: int) -> list[bytes]:
        """Return record keys that wait for their place, at most ``limit``: what a crash interrupted."""
        with self._lock, self._translated():
            rows = self._db.execute("SELECT record_key FROM record WHERE tx_id IS NULL LIMIT ?", (limit,))
            return [row[0] for row in rows]

    def close(self) -> None:
        """Release the files; a second time does nothing."""
        self._files.close()

    def _encrypt(self, entries: Sequence[VaultEntry]) -> list[tuple[object, ...]]:
        """Return the rows of ``entries``, their keys durable."""
        wanted: dict[str, set[bytes]] = {}
        named: list[tuple[str, bytes, bytes]] = []
        subjects = cache(self._files.subject_of)
        for entry in entries:
            period, caller, callee = period_of(entry.setup_ms), b"", b""
            if entry.private is not None:
                fields = entry.private.fields
                caller, callee = subjects(fields[0].value), subjects(fields[1].value)
                wanted.setdefault(period, set()).update((caller, callee))
            named.append((period, caller, callee))
        # A crash after this leaves keys that open nothing yet.
        keys = {period: self._files.keys(period).ensure(subjects) for period, subjects in wanted.items()}
        chance = secrets.token_bytes(NONCES_BYTES * len(entries))
        rows: list[tuple[object, ...]] = []
        for number, (entry, (period, caller, callee)) in enumerate(zip(entries, named, strict=True)):
            bodies = _NO_BODIES
            if entry.private is not None:
                of = keys[period]
                nonces = chance[NONCES_BYTES * number : NONCES_BYTES * (number + 1)]
                bodies = seal(entry.private, entry.record_key, of[caller], of[callee], nonces)
            rows.append((entry.record_key, entry.content, period, caller, callee, *bodies))
        return rows
