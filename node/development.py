"""``ledgerd --dev``: a chain of one node with fresh keys, made on the spot.

Source: docs/operations.md, "Development".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ledger.crypto import PrivateKey
from ledger.genesis import (
    Candidate,
    Delegation,
    Genesis,
    GenesisMember,
    MemberKey,
    Parameters,
    Role,
    genesis_to_json,
)
from ledger.rules.ruleset import default_rule_set_pin
from node.cluster import ENERGY, GRID_ZONES
from node.config import NodeConfig
from node.keyfile import (
    DEVELOPMENT_MARK,
    make_directory,
    new_secret,
    new_token,
    read_bounded,
    write_key,
    write_private,
)

MEMBER_ID = "dev"
NAME = "development"
"""Of every development chain: its keys are taken for such a chain only."""
PARAMETERS = Parameters(
    slot_ms=500,
    epoch_slots=600,
    producer_count=21,
    max_unfinal=100,
    heartbeat_slots=60,
    record_window_ms=35 * 86_400_000,
    block_records_max=200_000,
    block_bytes_max=64 * 1024 * 1024,
    member_share_milli=1000,
    carbon_basis="lifecycle",
)
"""Half-second slots: a record is final in about a second."""


@dataclass(frozen=True, slots=True)
class DevelopmentChain:
    """A configuration completed with fresh files, and the token to use it with."""

    config: NodeConfig
    token: str


def make_development_chain(config: NodeConfig, now_ms: int) -> DevelopmentChain:
    """Return ``config`` with every file that was not given, made fresh in the data directory or found there.

    Raises ConfigError where a file cannot be written.
    """
    home = config.data / "dev"
    names = {
        name: home / name
        for name in ("genesis.json", "node.pem", "submit.pem", "govern.pem", "secret", "tokens.json", "token")
    }
    if not names["token"].exists():
        make_directory(home)
        _make_files(names, now_ms)
    completed = replace(
        config,
        genesis=config.genesis or names["genesis.json"],
        key=config.key or names["node.pem"],
        submit_key=config.submit_key or names["submit.pem"],
        member_secret=config.member_secret or names["secret"],
        tokens=config.tokens or names["tokens.json"],
        energy=config.energy or {**ENERGY, "grid_zone": GRID_ZONES[0]},
    )
    return DevelopmentChain(completed, read_bounded(names["token"], "development token").decode().strip())


def _make_files(names: dict[str, Path], now_ms: int) -> None:
    """Write keys, secret, tokens and genesis; the token last, for its presence says that all is there."""
    for path in names.values():
        path.unlink(missing_ok=True)
    node, submit, govern = PrivateKey.generate(), PrivateKey.generate(), PrivateKey.generate()
    comment = DEVELOPMENT_MARK.decode()
    write_key(names["node.pem"], node, comment=comment)
    write_key(names["submit.pem"], submit, comment=comment)
    write_key(names["govern.pem"], govern, comment=comment)
    write_private(names["secret"], new_secret().hex().encode())
    member = GenesisMember(
        MEMBER_ID,
        1,
        [
            MemberKey(node.public_key, Role.NODE),
            MemberKey(submit.public_key, Role.SUBMIT),
            MemberKey(govern.public_key, Role.GOVERN),
        ],
        Candidate(node.key_id, "", ""),
    )
    genesis = Genesis(
        1,
        NAME,
        now_ms,
        PARAMETERS,
        [member],
        [Delegation(MEMBER_ID, MEMBER_ID, 1)],
        default_rule_set_pin("lifecycle"),
    )
    write_private(names["genesis.json"], genesis_to_json(genesis))
    text, token = new_token("dev", ["submit", "private"])
    write_private(names["tokens.json"], msgspec.json.encode([token]))
    write_private(names["token"], text.encode() + b"\n")
