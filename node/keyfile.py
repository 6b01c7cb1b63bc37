"""Keys, secrets and tokens in files that only their owner can read.

Source: docs/operations.md, "Keys".
"""

from __future__ import annotations

import os
import secrets
from hashlib import sha256
from pathlib import Path

import msgspec

from ledger.crypto import PrivateKey
from ledger.errors import ConfigError

DEVELOPMENT_MARK = b"DEVELOPMENT ONLY"
"""Stands in the first line of every key file of a development network; such a key is refused outside --dev."""
SECRET_BYTES = 32
TOKEN_ROLES = ("submit", "private")
"""``submit``: may hand in records. ``private``: may see the private fields of this member's records."""


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An API token: only its SHA-256 is kept."""

    name: str
    sha256: str
    roles: list[str]


def read_key(path: Path, *, is_dev: bool) -> PrivateKey:
    """Return the private key in a PEM file. Raises ConfigError naming the file and what to do."""
    data = _read(path, "private key", "Make one with: ledgerctl keygen " + str(path))
    if DEVELOPMENT_MARK in data and not is_dev:
        raise ConfigError(
            "a development key, known to everybody, is refused outside --dev",
            where=str(path),
            hint="Make one of your own with: ledgerctl keygen FILE",
        )
    return PrivateKey.from_pem(data[data.find(b"-----BEGIN") :] if b"-----BEGIN" in data else data, where=str(path))


def write_key(path: Path, key: PrivateKey, *, comment: str = "") -> None:
    """Write a private key, readable by its owner only; never over an existing file."""
    head = f"# {comment}\n".encode() if comment else b""
    write_private(path, head + key.to_pem())


def read_secret(path: Path) -> bytes:
    """Return a member's 32-byte secret, hex in a file."""
    text = _read(path, "member secret", "Make one with: ledgerctl keygen --secret " + str(path)).strip()
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
    data = _read(path, "tokens file", "Make one with: ledgerctl token new --file " + str(path))
    try:
        tokens = msgspec.json.decode(data, type=list[Token])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"not a tokens file: {error}", where=str(path)) from None
    for token in tokens:
        if set(token.roles) - set(TOKEN_ROLES) or len(token.sha256) != 64:
            raise ConfigError("unknown role or wrong hash", where=f"{path}: {token.name}", expected=str(TOKEN_ROLES))
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


def _read(path: Path, what: str, hint: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the {what} cannot be read: {error.strerror}", where=str(path), hint=hint) from None
