"""All that the API may ask of the node it stands in front of. ``node.node.Node`` is one; tests bring their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from consensus.engine import Engine
from ledger.errors import LedgerError
from ledger.genesis import Genesis
from ledger.store import Store
from ledger.validation import Rules
from node.counters import Counters
from node.disk import DiskUsage
from p2p.traffic import Traffic


class Submitted(Protocol):
    """What became of one raw transaction."""

    @property
    def tx_id(self) -> bytes:
        """Return its id; empty where it could not be read that far."""

    @property
    def status(self) -> str:
        """Return ``stored`` when it is on disk now, ``known`` when it was before."""

    @property
    def error(self) -> LedgerError | None:
        """Return why it was refused, None when it was not."""


class RecordRef(Protocol):
    """Where a record is: the transaction and its place in it."""

    @property
    def tx_id(self) -> bytes:
        """Return the transaction's id."""

    @property
    def index(self) -> int:
        """Return the record's place, from 0."""


class Promise(Protocol):
    """What the node says of a transaction."""

    @property
    def state(self) -> str:
        """Return ``stored``, ``accepted``, ``included``, ``final``, ``expired`` or ``void``."""

    @property
    def height(self) -> int | None:
        """Return the height of its block, None while it is in none."""


class Subscription(Protocol):
    """A live stream of events; it ends when the reader falls behind too far, or the node stops."""

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """Return the events, each a dict with a string under ``event``."""

    def close(self) -> None:
        """Stop listening; a second time does nothing."""


class Point(Protocol):
    """A block, by where it is."""

    @property
    def height(self) -> int:
        """Return its height."""

    @property
    def block_id(self) -> bytes:
        """Return its id."""

    @property
    def slot(self) -> int:
        """Return its slot, -1 for genesis."""


class SyncState(Protocol):
    """Whether the node is in step with its peers."""

    @property
    def state(self) -> str:
        """Return ``in-step``, ``syncing``, ``alone`` (hears no quorum) or ``stalled`` (nothing becomes final)."""

    @property
    def behind_blocks(self) -> int:
        """Return how many blocks it lacks."""

    @property
    def target_height(self) -> int:
        """Return the highest height that a peer told of."""


class Signing(Protocol):
    """Whether the node may vote and seal."""

    @property
    def state(self) -> str:
        """Return ``clear`` where it may, else one of ``node.signing.STATES``."""

    @property
    def waits_for(self) -> str:
        """Return what must happen, in words."""


class NodeStatus(Protocol):
    """How the node is. What it holds beyond this is shown under ``/v1/status`` too: it is a dataclass."""

    @property
    def version(self) -> str:
        """Return the program's version."""

    @property
    def sync(self) -> SyncState:
        """Return whether it is in step."""

    @property
    def head(self) -> Point:
        """Return the tip of the best chain."""

    @property
    def final(self) -> Point:
        """Return the final block."""

    @property
    def justified_height(self) -> int:
        """Return the height of the highest justified block."""

    @property
    def peers(self) -> int:
        """Return how many peers are connected."""

    @property
    def pool_transactions(self) -> int:
        """Return how many transactions are pending."""

    @property
    def pool_records(self) -> int:
        """Return how many records they hold."""

    @property
    def slot(self) -> int:
        """Return the slot of this moment."""

    @property
    def is_disk_full(self) -> bool:
        """Return whether the last write found no room."""

    @property
    def clock_skew_ms(self) -> int:
        """Return how far the clocks of peers are from this one, in the median; positive: they are ahead."""

    @property
    def signing(self) -> Signing:
        """Return whether it may vote and seal."""

    @property
    def disk(self) -> DiskUsage | None:
        """Return how the disk is, None where nobody measures it."""

    @property
    def final_age_ms(self) -> int:
        """Return how long ago the slot of the final block began."""


class Backend(Protocol):
    """A node, as the API sees it."""

    @property
    def genesis(self) -> Genesis:
        """Return the chain's genesis."""

    @property
    def chain_id(self) -> bytes:
        """Return the chain's id."""

    @property
    def engine(self) -> Engine:
        """Return the consensus engine, to read only."""

    @property
    def store(self) -> Store:
        """Return the store, to read only."""

    @property
    def rules(self) -> Rules:
        """Return the rules in force."""

    @property
    def member_id(self) -> str | None:
        """Return the member whose records this node takes in, None for an observer."""

    @property
    def counters(self) -> Counters:
        """Return what has happened since the start."""

    @property
    def traffic(self) -> Traffic:
        """Return what went over the wires to peers."""

    def last_vote_height(self, key_id: bytes) -> int | None:
        """Return the highest block that a key was seen to vote for, None where it was not."""

    async def submit_transactions(self, raws: list[bytes]) -> Sequence[Submitted]:
        """Take in raw transactions; those without an error are on disk on return. Raises StoreError."""

    async def submit_items(self, items: list[bytes]) -> Sequence[RecordRef]:
        """Sign and store encoded records; all are on disk on return. Raises LedgerError, then none may be."""

    async def keep_rows(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Make rows of space META that belong to the API durable. Raises StoreError."""

    def promise_of(self, tx_id: bytes) -> Promise | None:
        """Return what the node says of a transaction, None for one it does not know."""

    def status(self) -> NodeStatus:
        """Return how the node is."""

    def peers(self) -> Sequence[Any]:
        """Return a dataclass for each connected peer."""

    def subscribe(self) -> Subscription:
        """Return a live stream of events from now on. Raises Overloaded where there are too many listeners."""
