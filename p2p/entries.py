"""What is known of each transaction on its way, and of each connection. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import msgspec

from ledger.codec import decode_loose
from ledger.crypto import tagged_hash
from p2p import limits
from p2p.scores import PeerId


class _Outline(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A transaction with its parts left as they are."""

    envelope: msgspec.Raw
    signature: msgspec.Raw
    items: msgspec.Raw


def id_of_raw(raw: bytes) -> bytes:
    """Return the id of an encoded transaction without decoding its items.

    A body that is not canonical, or not what its envelope says, gets an id all the same; the full check refuses it.
    Raises EncodingError for what is no array of three.
    """
    envelope = decode_loose(raw, _Outline).envelope
    return tagged_hash("tx", bytes(envelope))


class Received(NamedTuple):
    """A body to be checked and stored by the driver, which must answer with stored, unusable or invalid."""

    raw: bytes
    sender: PeerId
    tx_id: bytes


class Stage(IntEnum):
    """How far a transaction has come here."""

    DELAYED = 0
    """Not here; may come by itself."""
    WANTED = 1
    """Not here; to be asked for."""
    ASKED = 2
    """Not here; asked for."""
    CHECKING = 3
    """Here; the driver checks and stores it."""
    HELD = 4
    """On disk."""


class Peer:
    """A connection; a new one to the same peer begins with nothing known."""

    __slots__ = ("bit", "deadline_ms", "failures", "key_id", "offers", "opened", "peer_id", "request", "up")

    def __init__(self, peer_id: PeerId, key_id: bytes, bit: int) -> None:
        self.peer_id = peer_id
        self.key_id = key_id
        self.bit = bit
        """Its place in ``Entry.holders``: one bit, free again when the connection is down."""
        self.up = True
        self.offers: deque[bytes] = deque()
        """Ids it can give that were wanted when put here."""
        self.opened = 0
        """Entries it brought up that are not here yet."""
        self.request: dict[bytes, None] = {}
        """Ids asked of it and not answered."""
        self.deadline_ms = 0
        self.failures = 0


class Entry:
    """A transaction that is not final yet."""

    __slots__ = ("accepted", "attempts", "holders", "needed", "opener", "quiet", "size", "stage", "stored_by")

    def __init__(self, stage: Stage, opener: Peer | None) -> None:
        self.stage = stage
        self.opener = opener
        self.holders = 0
        """The bits of the connections that have it."""
        self.stored_by: set[bytes] = set()
        self.accepted = False
        self.needed = False
        """A block names it: it is taken in however much is pending."""
        self.quiet = False
        """Old: fetched for the chain's past, not to be announced."""
        self.attempts = 0
        self.size = 0


def chunks(ids: list[bytes]) -> Iterator[list[bytes]]:
    """Yield ``ids`` in lists that fit a message."""
    for start in range(0, len(ids), limits.ANNOUNCE_IDS_MAX):
        yield ids[start : start + limits.ANNOUNCE_IDS_MAX]
