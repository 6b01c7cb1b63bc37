"""The keys of the party vault: one data key for each subject and period, one file for each period.

A file holds one JSON object on each line. A new key is appended and synced before anything is encrypted under it;
to shred keys the file is written anew without them, synced and put in the place of the old one, so that no copy
stays behind. Keys are wrapped with a key derived from the member's secret: the file alone opens nothing.

Records under a dispute hold have keys of their own, each record for each party, in the file named ``held``.

Source: docs/api.md, "Private fields".
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ledger.errors import ConfigError, StoreDamaged, StoreError, StoreFull
from telephony.vault_key_table import SUBJECT_BYTES, KeyTable

NONCE_BYTES: Final = 12
"""96 bits, drawn at random: for one key at most 2^32 of them are safe, and a key serves one subject for a month."""
DATA_KEY_BYTES: Final = 32
WRAPPED_BYTES: Final = NONCE_BYTES + DATA_KEY_BYTES + 16
"""Nonce, encrypted key and tag."""
PERIODS_OPEN_MAX: Final = 4
"""Key files held in memory: records come from this month and the last; older ones are read to be shown."""
KEYS_READY_MAX: Final = 2048
"""Keys of a file held ready, up to twice as many: those of the batch at hand, and of who calls often; 2.5 kB each."""
HELD: Final = "held"
"""Name of the file whose keys belong to records under a hold, not to a period."""
DAY_MS: Final = 86_400_000
_ALL: Final = b""
"""In the place of a subject: every key of the file was shredded."""

_PERIOD: Final = re.compile(r"(19[7-9][0-9]|20[0-9]{2})-(0[1-9]|1[0-2])", re.ASCII)
_RESTORE: Final = "Restore the vault from a backup; the chain itself is not touched"


def derive_key(secret: bytes, purpose: str) -> bytes:
    """Return the 32-byte key for ``purpose`` that a member's secret determines (HKDF-SHA256, RFC 5869)."""
    info = b"ledgerd/vault/1/" + purpose.encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)


class KeyFile:
    """The data keys of one period, ``2026-11``, or of the records under a hold."""

    def __init__(self, directory: Path, period: str, secret: bytes) -> None:
        """Read the file if there is one. Raises StoreDamaged for a line that is none, StoreError for an unreadable one.

        A line without its end at the end of the file is what a crash leaves; nothing was encrypted under that key
        yet, and the next one is written in its place.
        """
        self.path = path_of(directory, period)
        self._bound = period.encode() + b"/"
        self._wrapping = AESGCM(derive_key(secret, f"wrap/{period}"))
        self._ready: dict[bytes, AESGCM] = {}
        self._ready_before: dict[bytes, AESGCM] = {}
        self._read()

    def __len__(self) -> int:
        """Return how many keys there are."""
        return self._table.keys

    def key_of(self, subject: bytes) -> AESGCM | None:
        """Return the data key of ``subject``, None where it was shredded. Raises StoreDamaged for a lost one."""
        ready = self._ready_of(subject)
        if ready is not None:
            return ready
        found = self._table.find(subject)
        if found is None:
            if self._is_all_shredded:
                return None
            raise StoreDamaged("the key of a subject is not there", where=str(self.path), hint=_RESTORE)
        offset, has_key = found
        return self._load([(offset, subject)])[subject] if has_key else None

    def ensure(self, subjects: set[bytes]) -> dict[bytes, AESGCM]:
        """Return the key of each of ``subjects``; those that have none, or had theirs shredded, get one.

        Durable on return. Raises StoreDamaged for a lost one, StoreError.
        """
        keys: dict[bytes, AESGCM] = {}
        missing, stored = [], []
        for subject in subjects:
            ready = self._ready_of(subject)
            if ready is not None:
                keys[subject] = ready
            elif (found := self._table.find(subject)) is not None and found[1]:
                stored.append((found[0], subject))
            else:
                missing.append(subject)
        if stored:
            keys |= self._load(sorted(stored))
        if missing:
            keys |= self._make(missing)
        return keys

    def _make(self, missing: list[bytes]) -> dict[bytes, AESGCM]:
        """Return fresh keys, on disk already."""
        size = NONCE_BYTES + DATA_KEY_BYTES
        # Drawn at once: asking the system for each costs more than the encryption.
        chance = secrets.token_bytes(len(missing) * size)
        made: dict[bytes, AESGCM] = {}
        lines = []
        for subject, start in zip(missing, range(0, len(chance), size), strict=True):
            nonce, raw = chance[start : start + NONCE_BYTES], chance[start + NONCE_BYTES : start + size]
            made[subject] = AESGCM(raw)
            lines.append(_line(subject, nonce + self._wrapping.encrypt(nonce, raw, self._bound + subject)))
        self._append(lines)
        for subject, key in made.items():
            self._table.put(subject, self._size, has_key=True)
            self._size += LINE_BYTES
            self._keep_ready(subject, key)
        return made

    def shred(self, subjects: set[bytes]) -> int:
        """Forget the keys of ``subjects`` for good; return how many there were. Durable on return."""
        gone = {subject for subject in subjects if (found := self._table.find(subject)) is not None and found[1]}
        if gone:
            self._replace(self._lines_without(gone))
        return len(gone)

    def shred_all(self) -> int:
        """Forget every key of the file for good; return how many there were. Durable on return."""
        count = len(self)
        if count or not self._is_all_shredded:
            self._replace([_line(_ALL, b"")])
        return count

    def _append(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        is_new = not self.path.exists()
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                # A crash within the write leaves a torn line beyond self._size, which the next one overwrites.
                os.ftruncate(handle, self._size)
                if os.pwrite(handle, data, self._size) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(handle)
            finally:
                os.close(handle)
            if is_new:
                _sync_directory(self.path.parent)
        except OSError as error:
            raise _failed(self.path, error) from None

    def _lines_without(self, gone: set[bytes]) -> Iterator[bytes]:
        """Give the file's lines without the keys of ``gone``, and without those that another took the place of."""
        for subject, offset, line in self._lines():
            if subject in gone:
                if self._table.find(subject) == (offset, True):
                    yield _line(subject, b"")
            elif subject == _ALL or self._table.find(subject) in {(offset, True), (offset, False)}:
                yield line

    def _replace(self, lines: Iterable[bytes]) -> None:
        temporary = self.path.with_suffix(".new")
        try:
            _write_synced(temporary, lines)
            # A crash before this leaves the old file and the keys in it; after it, they are gone.
            temporary.replace(self.path)
            _sync_directory(self.path.parent)
        except OSError as error:
            raise _failed(self.path, error) from None
        self._ready.clear()
        self._ready_before.clear()
        self._read()

    def _keep_ready(self, subject: bytes, key: AESGCM) -> AESGCM:
        """Return ``key``, held for when it is asked for again."""
        if len(self._ready) >= KEYS_READY_MAX:
            # Who called since the last time stays; who did not is read again when he does.
            self._ready_before, self._ready = self._ready, {}
        self._ready[subject] = key
        return key

    def _ready_of(self, subject: bytes) -> AESGCM | None:
        key = self._ready.get(subject)
        if key is None:
            key = self._ready_before.get(subject)
            if key is not None:
                self._keep_ready(subject, key)
        return key

    def _load(self, places: list[tuple[int, bytes]]) -> dict[bytes, AESGCM]:
        """Return the keys in the lines at these offsets, of these subjects.

        Raises StoreDamaged where a line is no longer what it was.
        """
        keys = {}
        try:
            handle = os.open(self.path, os.O_RDONLY)
            try:
                for offset, subject in places:
                    wrapped = bytes.fromhex(os.pread(handle, LINE_BYTES, offset)[_WRAPPED].decode())
                    raw = self._wrapping.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], self._bound + subject)
                    keys[subject] = self._keep_ready(subject, AESGCM(raw))
            finally:
                os.close(handle)
        except FileNotFoundError:
            raise StoreDamaged("the keys are not there", where=str(self.path), hint=_RESTORE) from None
        except OSError as error:
            raise _failed(self.path, error) from None
        except (InvalidTag, ValueError):
            raise StoreDamaged("the key of a subject does not open", where=str(self.path), hint=_RESTORE) from None
        return keys

    def _read(self) -> None:
        """Take in what the file has."""
        self._table = KeyTable()
        self._is_all_shredded = False
        self._size = 0
        for subject, offset, line in self._lines():
            if subject == _ALL:
                self._is_all_shredded = True
            else:
                self._table.put(subject, offset, has_key=len(line) == LINE_BYTES)
            self._size = offset + len(line)

    def _lines(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Give subject, offset and bytes of each line, one at a time: the file may be larger than the memory."""
        offset = 0
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n"):
                        return
                    yield self._subject_of(line, number), offset, line
                    offset += len(line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed(self.path, error) from None

    def _subject_of(self, line: bytes, number: int) -> bytes:
        """Return whose line it is. Raises StoreDamaged for one that is none; ``_load`` tells whether its key opens."""
        begin, end = len(_HEAD), line.find(b'"', len(_HEAD))
        try:
            subject = bytes.fromhex(line[begin:end].decode())
        except (UnicodeDecodeError, ValueError):
            subject = b"?"
        if len(subject) == SUBJECT_BYTES and len(line) == LINE_BYTES:
            if line.startswith(_HEAD) and line.startswith(_MIDDLE, end) and line.endswith(_TAIL):
                return subject
        elif len(subject) in {SUBJECT_BYTES, len(_ALL)} and line == _line(subject, b""):
            return subject
        raise StoreDamaged("not a line of keys", where=f"{self.path}:{number}", hint=_RESTORE)


def path_of(directory: Path, period: str) -> Path:
    """Return where the keys of a period are."""
    return directory / f"keys-{period}.jsonl"


def periods_in(directory: Path) -> list[str]:
    """Return the periods that have a key file, the oldest first. Raises StoreError."""
    try:
        names = [path.name[5:-6] for path in directory.glob("keys-*.jsonl")]
    except OSError as error:
        raise _failed(directory, error) from None
    return sorted(name for name in names if name != HELD)


def end_of_period_ms(period: str) -> int:
    """Return the first moment after a period, UTC. Raises ConfigError for what is no month."""
    found = _PERIOD.fullmatch(period)
    if not found:
        raise ConfigError("not a period", where="period", expected="a month as 2026-11", actual=period)
    year, month = int(found[1]), int(found[2])
    first_after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return int(first_after.timestamp()) * 1000


def period_of(time_ms: int) -> str:
    """Return the period (UTC month) of a time as ``2026-11``."""
    return _period_of_day(time_ms // DAY_MS)


@lru_cache(maxsize=1024)
def _period_of_day(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(day)).strftime("%Y-%m")


def fingerprint(secret: bytes) -> bytes:
    """Return what tells one secret from another and gives nothing away."""
    return sha256(derive_key(secret, "fingerprint")).digest()


_HEAD: Final = b'{"subject":"'
_MIDDLE: Final = b'","wrapped":"'
_TAIL: Final = b'"}\n'


def _line(subject: bytes, wrapped: bytes) -> bytes:
    """Return a line: subject and wrapped key in hex; no subject for all that were there, no key for a shredded one."""
    return b"".join((_HEAD, subject.hex().encode(), _MIDDLE, wrapped.hex().encode(), _TAIL))


LINE_BYTES: Final = len(_line(bytes(SUBJECT_BYTES), bytes(WRAPPED_BYTES)))
"""Of a line with a key."""
_WRAPPED: Final = slice(len(_HEAD) + 2 * SUBJECT_BYTES + len(_MIDDLE), LINE_BYTES - len(_TAIL))
"""Where in it the key is."""


def _write_synced(path: Path, lines: Iterable[bytes]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(handle)


def _sync_directory(directory: Path) -> None:
    """Make names in ``directory`` durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _failed(path: Path, error: OSError) -> StoreError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreFull("no room for the vault's keys", where=str(path), hint="Free some space; nothing was lost")
    return StoreError(f"the vault's keys cannot be used: {error.strerror}", where=str(path))
