"""A stretch of the chain on its way here: headers, then bodies, then transactions; handed on in height order. Pure.

Everything is checked against what was asked and against the headers before it is kept: links, ids, producers'
signatures, body roots. The window is bounded in blocks and bytes.

Source: docs/protocol.md, "Peering".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from ledger.block import Block, BodyItem, SealedHeader, block_id_of, body_root
from ledger.errors import PeerError
from p2p import limits
from p2p.messages import BlockBody, Status
from p2p.scores import PeerId

ITEM_BYTES = 36
"""An encoded body item without its bitmap."""


class ChainView(Protocol):
    """What sync asks of the node."""

    def status(self) -> Status:
        """Return what this node has, as its peers are told."""

    def has_block(self, block_id: bytes) -> bool:
        """Tell whether a block was accepted here, final or not."""

    def has_transaction(self, tx_id: bytes) -> bool:
        """Tell whether a body is on disk."""

    def block(self, block_id: bytes) -> Block | None:
        """Return an accepted block."""

    def block_id_at(self, height: int) -> bytes | None:
        """Return the block of the best chain at a height; the chain id at 0."""

    def check_header(self, sealed: SealedHeader) -> bool:
        """Raise InvalidBlock where the header's producer did not sign it; False where that key is not known yet."""


class ForkError(PeerError):
    """Headers that do not continue those before: the peer's best chain changed, which is no fault."""


class Piece:
    """One block of the stretch."""

    __slots__ = ("asked", "block_id", "body", "held", "lacking", "missing", "sealed", "wanted")

    def __init__(self, sealed: SealedHeader, block_id: bytes) -> None:
        self.sealed = sealed
        self.block_id = block_id
        self.body: list[BodyItem] | None = None
        self.asked: PeerId | None = None
        """Who was asked for the body."""
        self.lacking: set[PeerId] = set()
        """Who said not to have it."""
        self.missing: set[bytes] = set()
        """Transactions that are not on disk yet."""
        self.wanted = False
        """Whether they were asked for."""
        self.held = False
        """Whether one of them could not be checked yet: its key may be admitted in a block before this one."""

    @property
    def height(self) -> int:
        """Return the block's height."""
        return self.sealed.header.height


class Download:
    """A stretch that begins above the final block of this node.

    Attributes:
        leader: the peer whose headers are followed.
        tail_height: height of the last header taken.
    """

    def __init__(self, chain: ChainView, leader: PeerId, *, anchor_height: int, anchor_id: bytes) -> None:
        self.leader = leader
        self.anchor_height = anchor_height
        self.tail_height = anchor_height
        self._tail_id = anchor_id
        self._chain = chain
        self._pieces: deque[Piece] = deque()
        self._by_id: dict[bytes, Piece] = {}
        self._waited_for: dict[bytes, list[Piece]] = {}
        self._bytes = 0

    @property
    def room(self) -> int:
        """Return how many more headers may be held."""
        return limits.SYNC_WINDOW_BLOCKS - len(self._pieces)

    @property
    def front(self) -> Piece | None:
        """Return the block that is handed on next."""
        return self._pieces[0] if self._pieces else None

    def take_headers(self, headers: Iterable[SealedHeader], *, count: int, is_refused: Callable[[bytes], bool]) -> None:
        """Take the answer to a request for ``count`` headers above the tail.

        Raises ForkError where they do not continue the tail, PeerError or InvalidBlock for a lie; nothing is kept then.
        """
        height, tail_id = self.tail_height, self._tail_id
        pieces: list[Piece] = []
        for sealed in headers:
            header = sealed.header
            # [REJECT] They are consecutive and no more than asked for.
            if header.height != height + 1 or len(pieces) == count:
                raise PeerError("not the headers asked for", where="headers.height", expected=height + 1)
            if header.parent_id != tail_id:
                # [IGNORE] The peer changed its mind between two answers.
                if not pieces:
                    raise ForkError("the headers do not continue those before", where="headers.parent_id")
                # [REJECT] Within one answer they link.
                raise PeerError("the headers do not link", where="headers.parent_id", expected=tail_id)
            height, tail_id = header.height, block_id_of(header)
            # [REJECT] None was found invalid here.
            if is_refused(tail_id):
                raise PeerError("a block that was refused before", where="headers", actual=tail_id)
            if not self._chain.has_block(tail_id):
                # [REJECT] Its producer signed it. A key admitted on the way is known when the block's turn comes.
                self._chain.check_header(sealed)
                pieces.append(Piece(sealed, tail_id))
            else:
                pieces.append(Piece(sealed, b""))
        self.tail_height, self._tail_id = height, tail_id
        for piece in pieces:
            if piece.block_id:
                self._pieces.append(piece)
                self._by_id[piece.block_id] = piece

    def next_bodies(self, peer: PeerId, head_height: int) -> list[bytes]:
        """Return the ids of the bodies to ask of a peer whose head is at ``head_height``, and note that it is asked."""
        ids: list[bytes] = []
        if self._bytes > limits.SYNC_WINDOW_BYTES:
            return ids
        for piece in self._pieces:
            if piece.height > head_height or len(ids) == limits.BODIES_MAX:
                break
            if piece.body is None and piece.asked is None and peer not in piece.lacking:
                piece.asked = peer
                ids.append(piece.block_id)
        return ids

    def take_bodies(self, bodies: Iterable[BlockBody]) -> None:
        """Take bodies that were asked for. Raises PeerError where one is not the header's [REJECT]."""
        for body in bodies:
            piece = self._by_id.get(body.block_id)
            # [IGNORE] It came from elsewhere meanwhile.
            if piece is None or piece.body is not None:
                continue
            header = piece.sealed.header
            # [REJECT] The body is the one of the header.
            if len(body.items) != header.tx_count or body_root(body.items) != header.tx_root:
                raise PeerError("the body is not the header's", where="bodies.items", expected=header.tx_root)
            piece.body = body.items
            self._bytes += _size(body.items)
            for item in body.items:
                if item.tx_id not in piece.missing and not self._chain.has_transaction(item.tx_id):
                    piece.missing.add(item.tx_id)
                    self._waited_for.setdefault(item.tx_id, []).append(piece)

    def give_back(self, peer: PeerId, ids: Iterable[bytes], *, lacks: bool) -> None:
        """Take back bodies asked of ``peer`` that did not come; ``lacks``: it said not to have them."""
        for block_id in ids:
            piece = self._by_id.get(block_id)
            if piece is not None and piece.body is None and piece.asked == peer:
                piece.asked = None
                if lacks:
                    piece.lacking.add(peer)

    def next_transactions(self) -> list[Piece]:
        """Return the blocks whose transactions are to be asked for now, and note that they are."""
        pieces: list[Piece] = []
        room = limits.SYNC_TRANSACTIONS_WANTED_MAX - sum(len(p.missing) for p in self._pieces if p.wanted)
        for piece in self._pieces:
            if piece.body is None or room <= 0:
                break
            if not piece.wanted and (not piece.held or piece is self._pieces[0]):
                piece.wanted = True
                room -= len(piece.missing)
                if piece.missing:
                    pieces.append(piece)
        return pieces

    def stored(self, tx_ids: Iterable[bytes]) -> bool:
        """Take note that these are on disk; tell whether any was waited for."""
        found = False
        for tx_id in tx_ids:
            for piece in self._waited_for.pop(tx_id, ()):
                piece.missing.discard(tx_id)
                found = True
        return found

    def refused(self, tx_id: bytes) -> None:
        """Take note that a transaction could not be checked yet: it is asked for again when its block's turn comes.

        What is refused in the very turn is left to the stall timer: asking again at once could go on for ever.
        """
        for piece in self._waited_for.get(tx_id, ()):
            piece.held = True
            piece.wanted = piece is self.front

    def keys_changed(self) -> bool:
        """Want again what could not be checked before; tell whether there is any."""
        held = [piece for piece in self._pieces if piece.held]
        for piece in held:
            piece.held = piece.wanted = False
        return bool(held)

    def take_complete(self) -> list[Block]:
        """Return the blocks that are complete and whose turn it is, and let go of them."""
        blocks: list[Block] = []
        while self._pieces:
            piece = self._pieces[0]
            if piece.body is None or piece.missing:
                break
            self._pieces.popleft()
            del self._by_id[piece.block_id]
            self._bytes -= _size(piece.body)
            blocks.append(Block(piece.sealed, piece.body))
        return blocks


def _size(items: list[BodyItem]) -> int:
    return sum(ITEM_BYTES + len(item.void_bitmap) for item in items)
