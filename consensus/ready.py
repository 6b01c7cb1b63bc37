"""What an engine asks of its driver, after each step.

The order is the contract: make ``writes`` durable, then send ``messages``, then tell of ``events``. A crash before
the write leaves the engine as if the step had not happened; a crash after it leaves a promise kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from consensus.tree import BlockNode
from ledger.block import Block, Vote
from ledger.payloads import Evidence


@dataclass(frozen=True, slots=True)
class HeadChanged:
    """Another block is the tip of the best chain; ``is_reorg``: not a child of the old one."""

    head: BlockNode
    is_reorg: bool


@dataclass(frozen=True, slots=True)
class BlockFinal:
    """A block became final; told in ascending order of height."""

    node: BlockNode
    block: Block


@dataclass(frozen=True, slots=True)
class TransactionDropped:
    """A pending transaction will never be in a block as it is: sign anew."""

    tx_id: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class FaultProven:
    """A producer signed two messages that no honest one signs both; told once for each key, until it is settled.

    Attributes:
        member_id: whose key it is; empty where no branch knows it.
    """

    member_id: str
    evidence: Evidence


Event = HeadChanged | BlockFinal | TransactionDropped | FaultProven


@dataclass(slots=True)
class Ready:
    """One step's output.

    Attributes:
        puts: rows to write (None deletes), all in one durable batch, before anything else.
        messages: blocks and votes to send to every peer.
        events: what to tell people and programs.
    """

    puts: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    messages: list[Block | Vote] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.puts or self.messages or self.events)


class Outbox:
    """Collects one step's output from the parts of an engine."""

    def __init__(self) -> None:
        self.ready = Ready()

    def put(self, row_key: bytes, value: bytes | None) -> None:
        """Ask for a row to be written; None deletes it."""
        self.ready.puts.append((row_key, value))

    def send(self, message: Block | Vote) -> None:
        """Ask for a message to be sent to every peer, once everything put before is durable."""
        self.ready.messages.append(message)

    def tell(self, event: Event) -> None:
        """Tell of something."""
        self.ready.events.append(event)

    def take(self) -> Ready:
        """Return what was collected, and begin anew."""
        ready, self.ready = self.ready, Ready()
        return ready
