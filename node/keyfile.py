"""Keys, secrets and tokens in files that only their owner can read.

Source: docs/operations.md, "Keys".
"""

from __future__ import annotations

import os
import re
import secrets
from hashlib import sha256
from pathlib import Path

import msgspec

from audit.notes import LogKey
from ledger.crypto import PrivateKey
from ledger.errors import ConfigError

DEVELOPMENT_MARK = b"DEVELOPMENT ONLY"
"""Stands in the first line of every key file of a development network; such a key is refused outside --dev."""
SECRET_BYTES = 32
SHA256_HEX = re.compile(r"[0-9a-f]{64}")
FILE_BYTES_MAX = 1024 * 1024
"""More than any key, secret or tokens file; a device given by mistake may have no end."""
TOKEN_ROLES = ("submit", "private")
"""``submit``: may hand in records. ``private``: may see the private fields of this member's records."""


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An API token: only its SHA-256 is kept."""

    name: str
    sha256: str
    roles: list[str]


def read_key(path: Path, *, is_dev: bool) -> PrivateKey:
    """Return the private key in a PEM file. Raises ConfigError naming the file and what to do."""
    data = read_bounded(path, "private key", "Make one with: ledgerctl keygen " + str(path))
    if DEVELOPMENT_MARK in data and not is_dev:
        raise ConfigError(
            "a development key, known to everybody, is refused outside --dev",
            where=str(path),
            hint="Make one of your own with: ledgerctl keygen FILE",
        )
    return PrivateKey.from_pem(data[data.find(b"-----BEGIN") :] if b"-----BEGIN" in data else data, where=str(path))


def read_log_key(path: Path) -> LogKey:
    """Return the log key in a PEM file. Raises ConfigError naming the file and what to do."""
    data = read_bounded(path, "log key", "Make one with: ledgerctl keygen --log " + str(path))
    return LogKey.from_pem(data, where=str(path))


def write_key(path: Path, key: PrivateKey, *, comment: str = "") -> None:
    """Write a private key, readable by its owner only; never over an existing file."""
    head = f"# {comment}\n".encode() if comment else b""
    write_private(path, head + key.to_pem())


def read_secret(path: Path) -> bytes:
    """Return a member's 32-byte secret, hex in a file."""
    text = read_bounded(path, "member secret", "Make one with: ledgerctl keygen --secret " + str(path)).strip()
    try:
        secret = bytes.fromhex(text.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise ConfigError("not a member secret", where=str(path), expected=f"{SECRET_BYTES} bytes in hex")
    return secret


def new_secret() -> bytes:
    """Return a fresh member secret."""
    return secrets.token_bytes(SECRET_BYTES)


def new_token(name: str, roles: list[str]) -> tuple[str, Token]:
    """Return a fresh token, to be shown once, and what is kept of it."""
    text = "lt_" + secrets.token_urlsafe(32)
    return text, Token(name, sha256(text.encode()).hexdigest(), roles)


def read_tokens(path: Path) -> list[Token]:
    """Return the tokens of a JSON file. Raises ConfigError naming file and field."""
    data = read_bounded(path, "tokens file", "Make one with: ledgerctl token new NAME --file " + str(path))
    try:
        tokens = msgspec.json.decode(data, type=list[Token])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"not a tokens file: {error}", where=str(path)) from None
    for token in tokens:
        where = f"{path}: {token.name}"
        unknown = sorted(set(token.roles) - set(TOKEN_ROLES))
        if unknown:
            raise ConfigError("no such role", where=where, expected=", ".join(TOKEN_ROLES), actual=", ".join(unknown))
        if not SHA256_HEX.fullmatch(token.sha256):
            raise ConfigError("not the hash of a token", where=where, expected="64 hex digits", actual=token.sha256)
    return tokens


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read. Raises ConfigError where it exists."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError("exists already", where=str(path), hint="Choose another name, or move it away") from None
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from None
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def make_directory(path: Path) -> None:
    """Make a directory, with those above it, where there is none, to be written. Raises ConfigError."""
    hint = "Choose a directory that this user may write"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the directory cannot be made: {error.strerror}", where=str(path), hint=hint) from None
    # The system is asked rather than the mode bits: a read-only file system refuses even root.
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError("the directory cannot be written", where=str(path), hint=hint)


def read_bounded(path: Path, what: str, hint: str = "", *, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """Return the bytes of a small file. Raises ConfigError naming ``what`` where it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"the {what} cannot be read: {error.strerror}", where=str(path), hint=hint) from None
    if len(data) > bytes_max:
        raise ConfigError(f"the {what} is too large", where=str(path), expected=f"at most {bytes_max} bytes")
    return data
