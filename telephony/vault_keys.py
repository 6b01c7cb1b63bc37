"""The keys of the party vault: one data key for each subject and period, one file for each period.

A file holds one JSON object on each line. A new key is appended and synced before anything is encrypted under it;
to shred a key the file is written anew without it, synced and put in the place of the old one, so that no copy
stays behind. Keys are wrapped with a key derived from the member's secret: the file alone opens nothing.

Source: docs/api.md, "Private fields".
"""

from __future__ import annotations

import errno
import os
import secrets
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ledger.errors import StoreDamaged, StoreError, StoreFull

NONCE_BYTES: Final = 12
"""96 bits, drawn at random: for one key at most 2^32 of them are safe, and a key serves one subject for a month."""
DATA_KEY_BYTES: Final = 32
SUBJECT_BYTES: Final = 16
PERIODS_OPEN_MAX: Final = 4
"""Key files held in memory: records come from this month and the last; older ones are read to be shown."""

_RESTORE: Final = "Restore the vault from a backup; the chain itself is not touched"


class KeyLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a key file."""

    subject: str
    """Hex of 16 bytes."""
    wrapped: str
    """Hex of nonce and encrypted data key; empty: the key was shredded."""


def derive_key(secret: bytes, purpose: str) -> bytes:
    """Return the 32-byte key for ``purpose`` that a member's secret determines (HKDF-SHA256, RFC 5869)."""
    info = b"ledgerd/vault/1/" + purpose.encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)


class KeyFile:
    """The data keys of one period, ``2026-11``."""

    def __init__(self, directory: Path, period: str, secret: bytes) -> None:
        """Read the file if there is one. Raises StoreDamaged for a line that is none, StoreError for an unreadable one.

        A line without its end at the end of the file is what a crash leaves; nothing was encrypted under that key
        yet, and the next one is written in its place.
        """
        self.path = directory / f"keys-{period}.jsonl"
        self._period = period
        self._wrapping = AESGCM(derive_key(secret, f"wrap/{period}"))
        self._lines: dict[bytes, bytes] = {}
        self._size = 0
        self._read()

    def key_of(self, subject: bytes) -> AESGCM | None:
        """Return the data key of ``subject``, None where it was shredded. Raises StoreDamaged for a lost one."""
        wrapped = self._lines.get(subject)
        if wrapped is None:
            raise StoreDamaged("the key of a subject is not there", where=str(self.path), hint=_RESTORE)
        if not wrapped:
            return None
        try:
            return AESGCM(self._wrapping.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], self._bound(subject)))
        except (InvalidTag, ValueError):
            raise StoreDamaged("the key of a subject does not open", where=str(self.path), hint=_RESTORE) from None

    def ensure(self, subjects: set[bytes]) -> None:
        """Make keys for those of ``subjects`` that have none, or had theirs shredded, durable on return."""
        missing = sorted(subject for subject in subjects if not self._lines.get(subject))
        if not missing:
            return
        lines = {subject: self._wrap(subject) for subject in missing}
        data = b"".join(_line(subject, wrapped) for subject, wrapped in lines.items())
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
        self._size += len(data)
        self._lines.update(lines)

    def shred(self, subject: bytes) -> bool:
        """Forget the key of ``subject`` for good; whether there was one. Durable on return."""
        if not self._lines.get(subject):
            return False
        lines = {**self._lines, subject: b""}
        data = b"".join(_line(name, wrapped) for name, wrapped in lines.items())
        temporary = self.path.with_suffix(".new")
        try:
            _write_synced(temporary, data)
            # A crash before this leaves the old file and the key in it; after it, the key is gone.
            temporary.replace(self.path)
            _sync_directory(self.path.parent)
        except OSError as error:
            raise _failed(self.path, error) from None
        self._lines = lines
        self._size = len(data)
        return True

    def _wrap(self, subject: bytes) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._wrapping.encrypt(nonce, secrets.token_bytes(DATA_KEY_BYTES), self._bound(subject))

    def _bound(self, subject: bytes) -> bytes:
        """Return what a wrapped key is bound to, so that lines cannot be exchanged."""
        return self._period.encode() + b"/" + subject

    def _read(self) -> None:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed(self.path, error) from None
        end = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:end].splitlines(), 1):
            try:
                row = msgspec.json.decode(line, type=KeyLine)
                subject, wrapped = bytes.fromhex(row.subject), bytes.fromhex(row.wrapped)
            except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
                raise StoreDamaged("not a line of keys", where=f"{self.path}:{number}", hint=_RESTORE) from None
            self._lines[subject] = wrapped
        self._size = end


def period_of(time_ms: int) -> str:
    """Return the period (UTC month) of a time as ``2026-11``."""
    return datetime.fromtimestamp(time_ms // 1000, tz=UTC).strftime("%Y-%m")


def fingerprint(secret: bytes) -> bytes:
    """Return what tells one secret from another and gives nothing away."""
    return sha256(derive_key(secret, "fingerprint")).digest()


def _line(subject: bytes, wrapped: bytes) -> bytes:
    return msgspec.json.encode(KeyLine(subject.hex(), wrapped.hex())) + b"\n"


def _write_synced(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
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
