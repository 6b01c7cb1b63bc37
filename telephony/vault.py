"""The party vault: the private parts of a carrier's own records, encrypted at rest.

Beside each private part stands what the carrier's node must know to take a record in exactly once: the record key,
a keyed hash of what was handed in, and where on the chain the record went. Nothing that is personal is on disk in
the clear: subjects and contents are keyed hashes, bodies are AES-256-GCM under a key of their subject and month,
bound to their record. Whoever forgets a subject's keys has forgotten the subject.

Bodies lie in SQLite (write-ahead log, every commit synced), keys in files of their own (``telephony.vault_keys``).
A vault belongs to one process. Calls block; they may come from any thread, one at a time.

Source: docs/api.md, "Private fields".
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.codec import decode, encode
from ledger.commitment import PrivatePart
from ledger.crypto import hmac_sha256
from ledger.errors import (
    ConfigError,
    EncodingError,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreVersion,
)
from telephony.vault_keys import (
    NONCE_BYTES,
    PERIODS_OPEN_MAX,
    SUBJECT_BYTES,
    KeyFile,
    derive_key,
    fingerprint,
    period_of,
)

FORMAT_VERSION: Final = 1
"""Of the database's tables; others are refused."""
SECRET_BYTES: Final = 32
FIND_MAX: Final = 500
"""Keys asked for in one statement: SQLite takes 999 variables at least."""

_SCHEMA: Final = """
CREATE TABLE vault (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE record (
    number INTEGER PRIMARY KEY,
    record_key BLOB NOT NULL UNIQUE,
    content BLOB NOT NULL,      -- keyed hash of what was handed in
    tx_id BLOB,                 -- null until the ledger has it on disk
    tx_index INTEGER,
    period TEXT NOT NULL,
    subject BLOB NOT NULL,
    nonce BLOB,                 -- null where the record came without a private part
    body BLOB
);
CREATE INDEX record_unplaced ON record (record_key) WHERE tx_id IS NULL;
CREATE INDEX record_subject ON record (subject);
"""

_PUT: Final = """
INSERT INTO record (record_key, content, period, subject, nonce, body) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (record_key) DO UPDATE SET content = excluded.content, tx_id = NULL, tx_index = NULL,
    period = excluded.period, subject = excluded.subject, nonce = excluded.nonce, body = excluded.body
"""


@dataclass(frozen=True, slots=True)
class VaultEntry:
    """A record to be kept."""

    record_key: bytes
    setup_ms: int
    """Decides the period of its key."""
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
    """The party vault of one member at one node."""

    def __init__(self, directory: Path, secret: bytes) -> None:
        """Open the vault in ``directory``, making it where there is none.

        secret: the member's 32 bytes.
        Raises ConfigError for another member's secret, StoreLocked while another process has the vault, StoreVersion
        for another format, StoreDamaged or StoreError for what cannot be read.
        """
        if len(secret) != SECRET_BYTES:
            raise ConfigError("not a member secret", where="member_secret", expected=f"{SECRET_BYTES} bytes")
        self._directory = directory
        self._secret = secret
        self._content_key = derive_key(secret, "content")
        self._subject_key = derive_key(secret, "subject")
        self._sealing = AESGCM(derive_key(secret, "sealed"))
        self._files: OrderedDict[str, KeyFile] = OrderedDict()
        self._lock = threading.Lock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the vault cannot be made: {error.strerror}", where=str(directory)) from None
        self._path = directory / "vault.sqlite"
        with self._translated():
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=0)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    # -- what others call --------------------------------------------------------------------------------------------

    def content_hash(self, data: bytes) -> bytes:
        """Return the keyed hash (32 bytes) that stands for ``data``: only the member can test a guess."""
        return hmac_sha256(self._content_key, data)

    def subject_of(self, caller: str) -> bytes:
        """Return the 16 bytes that stand for a caller in this vault."""
        return hmac_sha256(self._subject_key, caller.encode("utf-8", "surrogateescape"))[:SUBJECT_BYTES]

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
            rows = self._encrypt(entries)
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(_PUT, rows)
                self._db.executemany(
                    "UPDATE record SET tx_id = ?, tx_index = ? WHERE record_key = ?",
                    [(place.tx_id, place.index, place.record_key) for place in places],
                )
                self._db.executemany("DELETE FROM record WHERE record_key = ?", [(key,) for key in gone])
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

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
            raise self._damaged("a sealed document") from None

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
        """Return the private part of a record; None where there is none here, or its subject was forgotten.

        Raises StoreDamaged for bytes that are not those written, or a key that is lost.
        """
        with self._lock, self._translated():
            query = "SELECT period, subject, nonce, body FROM record WHERE record_key = ?"
            row = self._db.execute(query, (record_key,)).fetchone()
            if row is None or row[3] is None:
                return None
            period, subject, nonce, body = row
            key = self._file(period).key_of(subject)
            if key is None:
                return None
            try:
                return decode(key.decrypt(nonce, body, record_key), PrivatePart)
            except (InvalidTag, ValueError, EncodingError):
                raise self._damaged(f"the private part of record {record_key.hex()}") from None

    def unplaced(self, limit: int) -> list[bytes]:
        """Return record keys that wait for their place, at most ``limit``: what a crash interrupted."""
        with self._lock, self._translated():
            rows = self._db.execute("SELECT record_key FROM record WHERE tx_id IS NULL LIMIT ?", (limit,))
            return [row[0] for row in rows]

    def shred_subject(self, caller: str) -> int:
        """Forget every private part of a caller, for good; return how many there were. Durable on return.

        First the keys go, each period's file replaced by one without them, then the bodies. The records on the chain
        stay, and can no longer be connected with anybody.
        """
        subject = self.subject_of(caller)
        with self._lock, self._translated():
            query = "SELECT DISTINCT period FROM record WHERE subject = ? AND body IS NOT NULL"
            for (period,) in self._db.execute(query, (subject,)).fetchall():
                self._file(period).shred(subject)
            # A crash between leaves bodies that nothing opens any more.
            erase = "UPDATE record SET nonce = NULL, body = NULL WHERE subject = ? AND body IS NOT NULL"
            return self._db.execute(erase, (subject,)).rowcount

    def close(self) -> None:
        """Release the files; a second time does nothing."""
        with self._lock:
            self._db.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Set the database up. The lock is taken with the first statement and held until ``close``."""
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        # What is deleted is overwritten, not left in free pages.
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._check_version()
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._path.chmod(0o600)

    def _check_version(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _SCHEMA.split(";\n"):
                self._db.execute(statement)
            self._db.execute("INSERT INTO vault VALUES ('member', ?)", (fingerprint(self._secret),))
            self._db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        elif version != FORMAT_VERSION:
            raise StoreVersion(
                "the vault is of another format version",
                where=str(self._path),
                expected=FORMAT_VERSION,
                actual=version,
                hint="Use the release that wrote it",
            )
        row = self._db.execute("SELECT value FROM vault WHERE name = 'member'").fetchone()
        if row is None or row[0] != fingerprint(self._secret):
            raise ConfigError(
                "the vault was made with another member secret",
                where=str(self._directory),
                hint="Give the secret that was in use when the vault was made; without it nothing in it can be read",
            )

    def _encrypt(self, entries: Sequence[VaultEntry]) -> list[tuple[object, ...]]:
        """Return the rows of ``entries``, their keys durable."""
        wanted: dict[str, set[bytes]] = {}
        named: list[tuple[str, bytes]] = []
        for entry in entries:
            period, subject = period_of(entry.setup_ms), self._subject_in(entry.private)
            named.append((period, subject))
            if entry.private is not None:
                wanted.setdefault(period, set()).add(subject)
        # A crash after this leaves keys that open nothing yet.
        for period, subjects in wanted.items():
            self._file(period).ensure(subjects)
        rows: list[tuple[object, ...]] = []
        for entry, (period, subject) in zip(entries, named, strict=True):
            nonce = body = None
            if entry.private is not None:
                key = self._file(period).key_of(subject)
                assert key is not None
                nonce = secrets.token_bytes(NONCE_BYTES)
                body = key.encrypt(nonce, encode(entry.private), entry.record_key)
            rows.append((entry.record_key, entry.content, period, subject, nonce, body))
        return rows

    def _subject_in(self, private: PrivatePart | None) -> bytes:
        if private is None:
            return b""
        caller = next((field.value for field in private.fields if field.name == "caller"), b"")
        return hmac_sha256(self._subject_key, caller)[:SUBJECT_BYTES]

    def _file(self, period: str) -> KeyFile:
        file = self._files.get(period)
        if file is None:
            file = self._files[period] = KeyFile(self._directory, period, self._secret)
            while len(self._files) > PERIODS_OPEN_MAX:
                self._files.popitem(last=False)
        self._files.move_to_end(period)
        return file

    def _damaged(self, what: str) -> StoreDamaged:
        return StoreDamaged(
            f"{what} on disk cannot be read",
            where=str(self._path),
            hint="Restore the vault from a backup; the chain itself is not touched",
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn SQLite's errors into the project's."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith("SQLITE_FULL"):
                hint = "Free some space; nothing that was kept is lost"
                raise StoreFull("no room for the vault", where=str(self._path), hint=hint) from None
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise StoreLocked("another process has the vault", where=str(self._path)) from None
            if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                raise self._damaged("the vault's database") from None
            raise StoreError(f"the vault cannot be used: {error}", where=str(self._path)) from None
