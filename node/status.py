"""What a node tells of itself: to the API, the commands and the metrics.

Source: docs/operations.md, "When something is wrong".
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from node.disk import DiskUsage
from node.signing import NodeSigning

SYNC_STATES: Final = ("in-step", "syncing", "joining", "alone", "stalled")
"""Of ``NodeSync.state``, in API, commands, metrics and docs."""


def program_version() -> str:
    """Return the installed version."""
    try:
        return version("ledgerd")
    except PackageNotFoundError:
        return "0+unknown"


@dataclass(frozen=True, slots=True)
class Point:
    """A block, by where it is."""

    height: int
    block_id: bytes
    slot: int


@dataclass(frozen=True, slots=True)
class NodeSync:
    """Whether the node is in step.

    Attributes:
        state: ``in-step``; ``syncing``: a peer has blocks that are not here; ``joining``: no member has the node's key,
            as far as the chain is known here; ``alone``: too few producers are connected to make anything final;
            ``stalled``: records wait for finality longer than STALL_SLOTS.
    """

    state: str
    behind_blocks: int
    target_height: int


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A peer connected.

    Attributes:
        head_height: of its best chain, as it said last, and ``final_height`` of its final block; None where it did not.
        agent: its program and version.
        is_open_plaintext: the connection leaves this machine without TLS.
    """

    key_id: bytes
    member_id: str
    endpoint: str
    is_producer: bool
    head_height: int | None
    final_height: int | None
    agent: str
    is_open_plaintext: bool


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What an operator asks first.

    Attributes:
        now_ms: the wall clock here.
        rule_set: id of the rules in force.
        disk: None where nobody measures it.
    """

    version: str
    chain_id: bytes
    chain_name: str
    member_id: str | None
    is_producer: bool
    sync: NodeSync
    head: Point
    justified_height: int
    final: Point
    final_age_ms: int
    slot: int
    peers: int
    pool_transactions: int
    pool_records: int
    is_disk_full: bool
    clock_skew_ms: int
    signing: NodeSigning
    now_ms: int
    rule_set: bytes
    disk: DiskUsage | None
