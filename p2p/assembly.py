"""Blocks that came by gossip: kept until all their transactions are here, handed on, passed on. Pure.

A block names its transactions by id. What is missing is left the time of a push that is under way, then asked of the
block's sender, then of everybody; a block that stays incomplete is dropped, and sync brings it if it counts.

Source: docs/protocol.md, "Peering".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from ledger.block import Block, SealedHeader, block_id_of, body_root
from ledger.errors import InvalidBlock, PeerError
from p2p import limits
from p2p.inventory import Inventory
from p2p.scores import PeerId


class _Waiting:
    """A block that lacks transactions."""

    __slots__ = ("block", "deadline_ms", "missing", "retry_ms", "sender")

    def __init__(self, block: Block, sender: PeerId, missing: set[bytes], now_ms: int) -> None:
        self.block = block
        self.sender = sender
        self.missing = missing
        self.retry_ms = now_ms + limits.BLOCK_RETRY_MS
        self.deadline_ms = now_ms + limits.BLOCK_WAIT_MS


class Assembly:
    """Blocks on their way to the engine. The driver takes ``complete`` through Gossip."""

    def __init__(
        self,
        inventory: Inventory,
        *,
        has_transaction: Callable[[bytes], bool],
        check_header: Callable[[SealedHeader], bool],
    ) -> None:
        self.complete: list[tuple[Block, PeerId]] = []
        self._inventory = inventory
        self._has_transaction = has_transaction
        self._check_header = check_header
        self._seen: OrderedDict[bytes, set[PeerId]] = OrderedDict()
        self._waiting: OrderedDict[bytes, _Waiting] = OrderedDict()
        self._waited_for: dict[bytes, set[bytes]] = {}

    def receive(self, block: Block, sender: PeerId, *, now_ms: int) -> bool:
        """Take a block from a peer; tell whether it is new. Raises PeerError, InvalidBlock [REJECT]."""
        block_id = block_id_of(block.sealed.header)
        holders = self._seen.get(block_id)
        # [IGNORE] It was seen already.
        if holders is not None:
            holders.add(sender)
            return False
        header = block.sealed.header
        # [REJECT] The body is as long as the header says.
        if header.tx_count != len(block.body):
            raise PeerError("a body of another length", where="block.body", expected=header.tx_count)
        missing = {item.tx_id for item in block.body if not self._has_transaction(item.tx_id)}
        if missing:
            # Before memory is spent on waiting. The engine checks a complete block, these included.
            # [REJECT] The body is the one of the header.
            if body_root(block.body) != header.tx_root:
                raise InvalidBlock("the body is not the header's", where="block.body", expected=header.tx_root)
            # [REJECT] Its producer signed the header. [IGNORE] That key is known here: otherwise sync brings the block.
            if not self._check_header(block.sealed):
                return False
            # [IGNORE] The sender has filled its share of the waiting room.
            waiting = sum(entry.sender == sender for entry in self._waiting.values())
            if waiting >= limits.BLOCKS_WAITING_PER_PEER_MAX:
                return False
        self.note(block_id, sender)
        if missing:
            self._wait(block_id, _Waiting(block, sender, missing, now_ms), now_ms)
        else:
            self.complete.append((block, sender))
        return True

    def note(self, block_id: bytes, holder: PeerId | None) -> None:
        """Remember a block as seen, and who has it."""
        holders = self._seen.setdefault(block_id, set())
        if holder is not None:
            holders.add(holder)
        if len(self._seen) > limits.BLOCKS_SEEN_MAX:
            self._seen.popitem(last=False)

    def forget(self, block_id: bytes) -> None:
        """Take a block that the engine refused or could not place as never seen: another copy may be good."""
        self._seen.pop(block_id, None)
        self._remove(block_id)

    def lacking(self, block_id: bytes, peers: Iterable[PeerId]) -> list[PeerId]:
        """Return those of ``peers`` that are not known to have a block, and take them as having it from now on."""
        self.note(block_id, None)
        holders = self._seen[block_id]
        without = [peer for peer in peers if peer not in holders]
        holders.update(without)
        return without

    def peer_down(self, peer: PeerId) -> None:
        """Forget what a connection brought: a new one begins with nothing known."""
        for holders in self._seen.values():
            holders.discard(peer)

    def stored(self, tx_ids: Iterable[bytes]) -> None:
        """Take note that these are here now; blocks that wait for nothing more are complete."""
        for tx_id in tx_ids:
            for block_id in sorted(self._waited_for.pop(tx_id, ())):
                waiting = self._waiting[block_id]
                waiting.missing.discard(tx_id)
                if not waiting.missing:
                    self._remove(block_id)
                    self.complete.append((waiting.block, waiting.sender))

    def next_timer_ms(self) -> int | None:
        """Return when ``handle_timer`` is due, or None."""
        return min((min(w.retry_ms, w.deadline_ms) for w in self._waiting.values()), default=None)

    def handle_timer(self, *, now_ms: int) -> None:
        """Ask everybody for what blocks still miss; drop those that waited too long."""
        for block_id, waiting in list(self._waiting.items()):
            if now_ms >= waiting.deadline_ms:
                self.forget(block_id)
            elif now_ms >= waiting.retry_ms:
                waiting.retry_ms = now_ms + limits.BLOCK_RETRY_MS
                self._inventory.want(sorted(waiting.missing), self._inventory.peers, now_ms=now_ms)

    def retry(self, *, now_ms: int) -> None:
        """Ask everybody at once for what blocks miss: what could not be checked before may be good now."""
        for waiting in self._waiting.values():
            self._inventory.want(sorted(waiting.missing), self._inventory.peers, now_ms=now_ms)

    def _wait(self, block_id: bytes, waiting: _Waiting, now_ms: int) -> None:
        if len(self._waiting) >= limits.BLOCKS_WAITING_MAX:
            self.forget(next(iter(self._waiting)))
        self._waiting[block_id] = waiting
        for tx_id in waiting.missing:
            self._waited_for.setdefault(tx_id, set()).add(block_id)
        order = [item.tx_id for item in waiting.block.body if item.tx_id in waiting.missing]
        self._inventory.want(order, [waiting.sender], now_ms=now_ms, delay_ms=limits.BLOCK_PULL_DELAY_MS)

    def _remove(self, block_id: bytes) -> None:
        waiting = self._waiting.pop(block_id, None)
        for tx_id in waiting.missing if waiting else ():
            blocks = self._waited_for.get(tx_id, set())
            blocks.discard(block_id)
            if not blocks:
                self._waited_for.pop(tx_id, None)
