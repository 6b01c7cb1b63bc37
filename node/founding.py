"""Founding a chain: from members, weights and public keys to a genesis that holds.

Source: docs/operations.md, "Found a chain".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ledger.crypto import PrivateKey, check_public_key, key_id_of
from ledger.errors import ConfigError, LedgerError
from ledger.genesis import (
    PRODUCERS_MAX,
    Candidate,
    Delegation,
    Genesis,
    GenesisMember,
    MemberKey,
    Parameters,
    Role,
    check_genesis,
)
from ledger.readable import from_readable, to_readable
from ledger.rules.ruleset import default_rule_set_pin

DAY_MS: Final = 86_400_000

DEFAULT_PARAMETERS: Final = Parameters(
    slot_ms=1_000,
    epoch_slots=3_600,
    producer_count=PRODUCERS_MAX,
    max_unfinal=100,
    heartbeat_slots=60,
    record_window_ms=35 * DAY_MS,
    block_records_max=200_000,
    block_bytes_max=64 * 1024 * 1024,
    member_share_milli=1_000,
    carbon_basis="lifecycle",
)
"""What ``ledgerctl genesis new`` takes where nothing else is asked for.

One block a second is final in two to three; an idle chain seals one a minute; records may be five weeks late, which
covers a monthly billing run; a block holds a minute of a tier-1 carrier's busy hour.
"""


@dataclass(frozen=True, slots=True)
class Founder:
    """A founding member. A role for which no key is given goes to the node key."""

    member_id: str
    weight: int
    node: bytes
    """Compressed public key, 33 bytes; the others too."""
    submit: bytes | None = None
    govern: bytes | None = None
    endpoint: str = ""
    grid_zone: str = ""
    stands: bool = True
    """Whether it stands for a seat, with all its weight delegated to itself."""


def make_genesis(
    name: str,
    founders: Sequence[Founder],
    *,
    genesis_time_ms: int,
    parameters: Parameters = DEFAULT_PARAMETERS,
) -> Genesis:
    """Return the genesis of ``founders``, checked whole. Raises ConfigError naming what does not fit."""
    ordered = sorted(founders, key=lambda founder: founder.member_id)
    genesis = Genesis(
        1,
        name,
        genesis_time_ms,
        parameters,
        [_member(founder) for founder in ordered],
        [Delegation(f.member_id, f.member_id, f.weight) for f in ordered if f.stands],
        default_rule_set_pin(parameters.carbon_basis),
    )
    try:
        # Types and bounds, as every node checks them when it reads the file.
        check_genesis(from_readable(to_readable(genesis), Genesis))
    except LedgerError as error:
        raise ConfigError(error.what, where=error.where, expected=error.expected, actual=error.actual) from None
    return genesis


def _member(founder: Founder) -> GenesisMember:
    roles: dict[bytes, int] = {founder.node: Role.NODE}
    for key, role in ((founder.submit, Role.SUBMIT), (founder.govern, Role.GOVERN)):
        owner = founder.node if key is None else key
        roles[owner] = roles.get(owner, 0) | role
    candidate = Candidate(key_id_of(founder.node), founder.endpoint, founder.grid_zone) if founder.stands else None
    keys = [MemberKey(key, int(role)) for key, role in roles.items()]
    return GenesisMember(founder.member_id, founder.weight, keys, candidate)


def parse_public_key(text: str, *, where: str) -> bytes:
    """Return the public key in ``text``: 66 hex digits, or a file with them or with a PEM key on P-256.

    A private PEM key will do, but is better left at home. Raises ConfigError.
    """
    if not _is_key_hex(text):
        try:
            data = Path(text).expanduser().read_bytes()
        except OSError as error:
            raise ConfigError(
                f"the public key cannot be read: {error.strerror}",
                where=where,
                expected="66 hex digits, or a file that ledgerctl keygen wrote",
                actual=text,
            ) from None
        if b"-----BEGIN" in data:
            return _from_pem(data[data.find(b"-----BEGIN") :], where=text)
        text = data.decode("ascii", "replace").strip()
    try:
        key = bytes.fromhex(text)
        check_public_key(key)
    except (ValueError, LedgerError):
        raise ConfigError(
            "not a public key on P-256", where=where, expected="a compressed point, 66 hex digits", actual=text
        ) from None
    return key


def _is_key_hex(text: str) -> bool:
    return len(text) == 66 and not set(text) - set("0123456789abcdefABCDEF")


def _from_pem(data: bytes, *, where: str) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if b"PRIVATE KEY" in data[:64]:
        return PrivateKey.from_pem(data, where=where).public_key
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError("not a public key on P-256", where=where, expected="PEM, or 66 hex digits")
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


def parse_carbon_basis(text: str) -> Literal["lifecycle", "direct"]:
    """Return ``text`` where it is a carbon basis. Raises ConfigError."""
    if text == "lifecycle":
        return "lifecycle"
    if text == "direct":
        return "direct"
    raise ConfigError("not a carbon basis", where="--carbon-basis", expected="lifecycle | direct", actual=text)
