"""The files of the party vault: a database of encrypted bodies, and a file of keys for each period.

Who uses them, ``vault`` for records and ``vault_erasure`` for forgetting, shares one lock, one connection and one set
of key files. A vault belongs to one process.

Source: docs/privacy.md, "The vault".
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ledger.crypto import hmac_sha256
from ledger.errors import ConfigError, StoreDamaged, StoreError, StoreFull, StoreLocked, StoreVersion
from telephony.vault_key_table import SUBJECT_BYTES
from telephony.vault_keys import PERIODS_OPEN_MAX, KeyFile, derive_key, fingerprint

FORMAT_VERSION: Final = 2
"""Of the database's tables; others are refused."""
SECRET_BYTES: Final = 32
CACHE_KIB: Final = 8_000
"""Of the database in memory: by default SQLite holds 2 MB, and reads a page for most rows of a large vault."""
CHECKPOINT_PAGES: Final = 4000
"""The write-ahead log goes into the database when it has 16 MB, some batches of a replay; by default, with each."""

_SCHEMA: Final = """
CREATE TABLE vault (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE record (
    number INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used again: a shredding means those up to a number
    record_key BLOB NOT NULL UNIQUE,
    content BLOB NOT NULL,      -- keyed hash of what was handed in
    tx_id BLOB,                 -- null until the ledger has it on disk
    tx_index INTEGER,
    period TEXT NOT NULL,
    caller BLOB NOT NULL,       -- subjects: keyed hashes
    callee BLOB NOT NULL,
    has_own_keys INTEGER NOT NULL DEFAULT 0,    -- 1: its keys are in the file of records under a hold
    caller_body BLOB,           -- null where there never was one, or where it was shredded
    callee_body BLOB,
    rest_body BLOB,             -- under both keys
    leaves BLOB,                -- hashes of all fields, kept when some are shredded: the others stay provable
    caller_shredding INTEGER,   -- which shredding took it
    callee_shredding INTEGER,
    rest_shredding INTEGER
);
CREATE INDEX record_unplaced ON record (record_key) WHERE tx_id IS NULL;
CREATE INDEX record_caller ON record (caller);
CREATE INDEX record_callee ON record (callee);
CREATE INDEX record_period ON record (period);
CREATE INDEX record_own_keys ON record (period) WHERE has_own_keys = 1;
CREATE TABLE shredding (
    number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,         -- subject, period
    what NOT NULL,              -- keyed hash of the subject, or the month
    reason TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    up_to INTEGER NOT NULL,     -- number of the last record that it means
    state TEXT NOT NULL,        -- asked, settling (what a hold had kept), done
    records INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE hold (
    number INTEGER PRIMARY KEY,
    reason TEXT NOT NULL,
    who TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    released_ms INTEGER,
    released_by TEXT
);
CREATE TABLE hold_target (      -- of holds that are in force
    hold INTEGER NOT NULL REFERENCES hold (number),
    kind TEXT NOT NULL,         -- record, subject, period
    what NOT NULL               -- record key, keyed hash of the subject, or the month
);
CREATE INDEX hold_target_what ON hold_target (what, kind);
"""


class VaultFiles:
    """A vault's database and key files, open.

    Attributes:
        directory: where they are.
        db: the connection; statements go between ``lock`` and ``translated``.
        lock: for one thread at a time.
    """

    def __init__(self, directory: Path, secret: bytes) -> None:
        """Open the files in ``directory``, making them where there are none.

        secret: the member's 32 bytes.
        Raises ConfigError for another member's secret, StoreLocked while another process has the vault, StoreVersion
        for another format, StoreDamaged or StoreError for what cannot be read.
        """
        if len(secret) != SECRET_BYTES:
            raise ConfigError("not a member secret", where="member_secret", expected=f"{SECRET_BYTES} bytes")
        self.directory = directory
        self.lock = threading.Lock()
        self._secret = secret
        self._subject_key = derive_key(secret, "subject")
        self._keys: OrderedDict[str, KeyFile] = OrderedDict()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the vault cannot be made: {error.strerror}", where=str(directory)) from None
        self._path = directory / "vault.sqlite"
        with self.translated():
            self.db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=0)
            try:
                self._prepare()
            except BaseException:
                self.db.close()
                raise

    def close(self) -> None:
        """Release the files; a second time does nothing."""
        with self.lock:
            self.db.close()

    def subject_of(self, party: bytes) -> bytes:
        """Return the 16 bytes that stand for a caller or callee in this vault."""
        return hmac_sha256(self._subject_key, b"party/" + party)[:SUBJECT_BYTES]

    def own_key_of(self, side: str, record_key: bytes) -> bytes:
        """Return the name of the key that one record under a hold has for one side."""
        return hmac_sha256(self._subject_key, b"own/" + side.encode() + record_key)[:SUBJECT_BYTES]

    def keys(self, period: str) -> KeyFile:
        """Return the keys of a period, or of the records under a hold."""
        file = self._keys.get(period)
        if file is None:
            file = self._keys[period] = KeyFile(self.directory, period, self._secret)
            while len(self._keys) > PERIODS_OPEN_MAX:
                self._keys.popitem(last=False)
        self._keys.move_to_end(period)
        return file

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Make what is executed inside durable on the way out, or, where anything raises, leave all as it was."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn SQLite's errors into the project's."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith("SQLITE_FULL"):
                hint = "Free some space; nothing that was kept is lost"
                raise StoreFull("no room for the vault", where=str(self._path), hint=hint) from None
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                hint = "It belongs to one process: stop the node or agent that has it, do this, and start it again"
                raise StoreLocked("another process has the vault", where=str(self._path), hint=hint) from None
            if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                raise self.damaged("the vault's database") from None
            raise StoreError(f"the vault cannot be used: {error}", where=str(self._path)) from None

    def damaged(self, what: str) -> StoreDamaged:
        """Return the error for what does not read as it was written."""
        return StoreDamaged(
            f"{what} on disk cannot be read",
            where=str(self._path),
            hint="Restore the vault from a backup; the chain itself is not touched",
        )

    def _prepare(self) -> None:
        """Set the database up. The lock is taken with the first statement and held until ``close``."""
        self.db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        # The indexes' pages are in no order, and each is changed again with the next batches.
        self.db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self.db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        # What is deleted is overwritten, not left in free pages.
        self.db.execute("PRAGMA secure_delete = ON")
        with self.transaction():
            self._check_version()
        self._path.chmod(0o600)

    def _check_version(self) -> None:
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _SCHEMA.split(";\n"):
                self.db.execute(statement)
            self.db.execute("INSERT INTO vault VALUES ('member', ?)", (fingerprint(self._secret),))
            self.db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        elif version != FORMAT_VERSION:
            raise StoreVersion(
                "the vault is of another format version",
                where=str(self._path),
                expected=FORMAT_VERSION,
                actual=version,
                hint="Use the release that wrote it",
            )
        row = self.db.execute("SELECT value FROM vault WHERE name = 'member'").fetchone()
        if row is None or row[0] != fingerprint(self._secret):
            raise ConfigError(
                "the vault was made with another member secret",
                where=str(self.directory),
                hint="Give the secret that was in use when the vault was made; without it nothing in it can be read",
            )
