"""Catching up: who is ahead, what is fetched from whom, and an honest word on how far behind we are. Pure.

Headers come from one peer, the leader; bodies and transactions from all that have them, in ranges, at once. What does
not come is asked elsewhere; a peer that lies is rejected. Progress needs no record of its own: a restart begins above
the final block, and skips what is here.

Source: docs/protocol.md, "Peering".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from consensus.verdict import Verdict
from ledger.block import Block, SealedHeader, block_id_of
from ledger.codec import encode
from ledger.errors import LedgerError, PeerError
from p2p import limits
from p2p.download import ChainView, Download, ForkError
from p2p.messages import BlockBody, Bodies, GetBodies, GetHeaders, Headers, Message, NotFound, Status, What
from p2p.scores import PeerId, Scores


def is_for_sync(message: Message) -> bool:
    """Tell whether a message is for ``Sync.receive``; otherwise it is for ``Gossip.receive``."""
    if isinstance(message, NotFound):
        return message.what is What.BODY
    return isinstance(message, Status | GetHeaders | Headers | GetBodies | Bodies)


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """How far this node is.

    Attributes:
        state: ``alone`` hears nobody, ``syncing`` lacks blocks that a peer has, ``in step`` otherwise.
        behind_blocks: blocks that the highest peer has and this node has not.
        target_height: height of the highest of the most reliable peers, or our own where that is higher.
        peers: peers that told what they have.
    """

    state: Literal["alone", "syncing", "in step"]
    behind_blocks: int
    target_height: int
    peers: int


@dataclass(frozen=True, slots=True)
class SyncReady:
    """What is to be done: messages to send, and complete blocks for the engine in height order."""

    sends: list[tuple[PeerId, Message]]
    blocks: list[tuple[Block, PeerId]]


@dataclass(slots=True)
class _Peer:
    """What a peer said, and what it is asked."""

    status: Status | None = None
    unknown_since_ms: int | None = None
    """Since when its head is not known here."""
    headers_asked: int = 0
    """How many headers it was asked for; 0 for none."""
    headers_due_ms: int = 0
    bodies_asked: list[bytes] = field(default_factory=list)
    bodies_due_ms: int = 0
    cool_until_ms: int = 0
    """It failed to answer, or what it has led nowhere: not asked until then, unless there is no other."""
    failures: int = 0
    """Since its last good answer: those with fewer are asked first, or a few silent peers could be asked in turns."""

    def reaches(self, height: int) -> bool:
        """Tell whether it says to have a block at ``height``."""
        return self.status is not None and self.status.head_height >= height

    def fail(self, now_ms: int) -> None:
        """Leave it alone for a while, and prefer others after that."""
        self.failures += 1
        self.cool_until_ms = now_ms + limits.SYNC_COOL_OFF_MS


class Sync:
    """The catching up of one node.

    chain: what the node has and checks.
    want_transactions: gets bodies by id from some of the peers named (``Gossip.want_transactions``); the driver says
        with ``transactions_stored`` when they are on disk.
    scores: where lies are charged (``Gossip.scores``).
    """

    def __init__(self, chain: ChainView, *, want_transactions: Callable[..., None], scores: Scores) -> None:
        self._chain = chain
        self._want = want_transactions
        self._scores = scores
        self._peers: dict[PeerId, _Peer] = {}
        self._download: Download | None = None
        self._forks = 0
        self._stall_ms: int | None = None
        self._looked_ms = -1
        self._status_due_ms: int | None = None
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._sends: list[tuple[PeerId, Message]] = []
        self._blocks: list[tuple[Block, PeerId]] = []

    # --- What the node is told --------------------------------------------------------------------------------------

    def status(self) -> SyncStatus:
        """Return how far this node is, as far as its peers say."""
        own = self._chain.status().head_height
        told = [(peer.failures, peer.status.head_height) for peer in self._peers.values() if peer.status is not None]
        # Only the most reliable count: one liar could have us say for ever that we lack blocks.
        target = max([own, *(height for failures, height in told if failures == min(told)[0])])
        if not told:
            return SyncStatus("alone", 0, own, 0)
        syncing = self._download is not None or target >= own + limits.SYNC_LAG_BLOCKS
        return SyncStatus("syncing" if syncing else "in step", target - own, target, len(told))

    def peer_status(self, peer_id: PeerId) -> Status | None:
        """Return what a peer said last."""
        peer = self._peers.get(peer_id)
        return peer.status if peer else None

    # --- Peers ------------------------------------------------------------------------------------------------------

    def peer_up(self, peer_id: PeerId, *, now_ms: int) -> None:
        """Begin with a new connection: tell it what we have."""
        self._peers[peer_id] = _Peer()
        self._sends.append((peer_id, self._chain.status()))
        if self._status_due_ms is None:
            self._status_due_ms = now_ms + limits.STATUS_INTERVAL_MS

    def peer_down(self, peer_id: PeerId, *, now_ms: int) -> None:
        """Forget a connection; what was asked of it is asked elsewhere."""
        peer = self._peers.pop(peer_id, None)
        if peer is None:
            return
        if self._download is not None:
            self._download.give_back(peer_id, peer.bodies_asked, lacks=False)
            if self._download.leader == peer_id:
                self._change_leader(now_ms)
        self._step(now_ms)

    # --- Messages ---------------------------------------------------------------------------------------------------

    def receive(self, message: Message, sender: PeerId, *, now_ms: int) -> Verdict:
        """Take a message from a peer that is up.

        IGNORE: an answer to nothing that is still asked. A lie is raised as PeerError or InvalidBlock, to be charged
        with ``Gossip.reject``; what was asked of the liar is asked elsewhere.
        """
        peer = self._peers.get(sender)
        # [IGNORE] The connection is gone: the message waited while it closed.
        if peer is None:
            return Verdict.IGNORE
        fresh = True
        match message:
            case Status():
                self._receive_status(message, peer, now_ms)
            case GetHeaders():
                self._answer_headers(message, sender)
            case GetBodies():
                self._answer_bodies(message, sender)
            case Headers():
                fresh = self._receive_headers(message, sender, peer, now_ms)
            case Bodies():
                fresh = self._receive_bodies(message, sender, peer, now_ms)
            case NotFound(what=What.BODY):
                fresh = self._receive_not_found(message, sender, peer)
            case _:
                fresh = False
        self._step(now_ms)
        return Verdict.ACCEPT if fresh else Verdict.IGNORE

    def _receive_status(self, status: Status, peer: _Peer, now_ms: int) -> None:
        peer.status = status
        if self._chain.has_block(status.head_id):
            peer.unknown_since_ms = None
        elif peer.unknown_since_ms is None:
            peer.unknown_since_ms = now_ms

    def _receive_headers(self, message: Headers, sender: PeerId, peer: _Peer, now_ms: int) -> bool:
        count, peer.headers_asked = peer.headers_asked, 0
        download = self._download
        # [IGNORE] An answer that came too late.
        if count == 0 or download is None or download.leader != sender:
            return False
        if not message.headers:
            self._end_of_headers(download, peer, now_ms)
            return True
        try:
            download.take_headers(message.headers, count=count, is_refused=self._refused.__contains__)
        except ForkError:
            self._fork(download, peer, now_ms)
        except LedgerError:
            # A lie: the caller charges it. What came in earlier answers was linked and signed, and is kept.
            peer.fail(now_ms)
            self._change_leader(now_ms)
            self._step(now_ms)
            raise
        return True

    def _end_of_headers(self, download: Download, peer: _Peer, now_ms: int) -> None:
        """The leader has no header above the tail, although it said so."""
        claimed = peer.status
        peer.fail(now_ms)
        height = download.tail_height + 1
        self._change_leader(now_ms)
        # [REJECT] Who has a final block has the headers below it.
        if claimed is not None and claimed.final_height >= height:
            self._step(now_ms)
            raise PeerError(
                "no header below the final height claimed", where="headers", expected=f"a header at {height}"
            )

    def _fork(self, download: Download, peer: _Peer, now_ms: int) -> None:
        """The leader's headers do not continue ours."""
        if download.tail_height == download.anchor_height:
            # Not even our final block. An honest peer that lacks a certificate may be on another branch for a while.
            peer.fail(now_ms)
            self._restart()
            # [REJECT] Two final blocks at one height: one of us is lied to.
            if peer.status is not None and peer.status.final_height >= download.anchor_height:
                self._step(now_ms)
                raise PeerError(
                    "a final block that is not ours", where="headers.parent_id", expected=f"at {download.anchor_height}"
                )
            return
        self._forks += 1
        if self._forks > limits.SYNC_FORKS_MAX:
            self._forks = 0
            peer.fail(now_ms)
        self._restart()

    def _receive_bodies(self, message: Bodies, sender: PeerId, peer: _Peer, now_ms: int) -> bool:
        asked, peer.bodies_asked = peer.bodies_asked, []
        download = self._download
        # [IGNORE] An answer that came too late.
        if not asked or download is None:
            return False
        try:
            # [REJECT] Nothing but what was asked for.
            if not {body.block_id for body in message.bodies} <= set(asked):
                raise PeerError("a body that was not asked for", where="bodies.block_id")  # noqa: TRY301
            download.take_bodies(message.bodies)
        except PeerError:
            download.give_back(sender, asked, lacks=True)
            peer.fail(now_ms)
            if download.leader == sender:
                self._change_leader(now_ms)
            self._step(now_ms)
            raise
        peer.failures = 0
        # What found no room in the answer is asked again.
        download.give_back(sender, asked, lacks=False)
        return True

    def _receive_not_found(self, message: NotFound, sender: PeerId, peer: _Peer) -> bool:
        gone = set(message.ids) & set(peer.bodies_asked)
        # [IGNORE] It was not asked for.
        if not gone or self._download is None:
            return False
        self._download.give_back(sender, gone, lacks=True)
        peer.bodies_asked = [block_id for block_id in peer.bodies_asked if block_id not in gone]
        if self._download.leader == sender:
            # It gave the headers and lacks the bodies: its best chain changed.
            self._restart()
        return True

    def _answer_headers(self, message: GetHeaders, sender: PeerId) -> None:
        headers: list[SealedHeader] = []
        room = limits.HEADERS_BYTES_MAX
        for height in range(message.from_height, message.from_height + message.count):
            block_id = self._chain.block_id_at(height)
            block = None if block_id is None else self._chain.block(block_id)
            if block is None:
                break
            room -= len(encode(block.sealed))
            if headers and room < 0:
                break
            headers.append(block.sealed)
        self._sends.append((sender, Headers(headers)))

    def _answer_bodies(self, message: GetBodies, sender: PeerId) -> None:
        bodies: list[BlockBody] = []
        missing: list[bytes] = []
        room = limits.BODIES_BYTES_MAX
        for block_id in message.block_ids:
            block = self._chain.block(block_id)
            if block is None:
                missing.append(block_id)
                continue
            body = BlockBody(block_id, block.body)
            room -= len(encode(body))
            if bodies and room < 0:
                break
            bodies.append(body)
        if missing:
            self._sends.append((sender, NotFound(What.BODY, missing)))
        if bodies:
            self._sends.append((sender, Bodies(bodies)))

    # --- The driver's words -------------------------------------------------------------------------------------------

    def transactions_stored(self, tx_ids: Sequence[bytes], *, now_ms: int) -> None:
        """Take note that these are on disk, synced."""
        if self._download is not None and self._download.stored(tx_ids):
            self._stall_ms = now_ms + limits.SYNC_STALL_MS
            self._step(now_ms)

    def transaction_refused(self, tx_id: bytes) -> None:
        """Take note that a transaction cannot be used here, for now at least."""
        if self._download is not None:
            self._download.refused(tx_id)

    def keys_changed(self, *, now_ms: int) -> None:
        """Take note that the head knows other keys: what was refused for want of one may be good now."""
        if self._download is not None and self._download.keys_changed():
            self._step(now_ms)

    def block_refused(self, block: Block, *, now_ms: int) -> None:
        """Take note that the engine found a block invalid that sync handed on: its chain is not fetched again."""
        self._refused[block_id_of(block.sealed.header)] = None
        if len(self._refused) > limits.SYNC_BAD_BLOCKS_MAX:
            self._refused.popitem(last=False)
        if self._download is not None:
            leader = self._peers.get(self._download.leader)
            if leader is not None:
                leader.fail(now_ms)
            self._restart()
        self._step(now_ms)

    def unknown_parent(self, block: Block, sender: PeerId, *, now_ms: int) -> None:
        """Take note that a block came whose parent is not here: its sender has more."""
        peer = self._peers.get(sender)
        if peer is None or peer.status is None:
            return
        header = block.sealed.header
        if header.height > peer.status.head_height or self._chain.has_block(peer.status.head_id):
            old = peer.status
            peer.status = Status(
                header.height, block_id_of(header), header.slot, old.justified_height, old.final_height, old.final_id,
                old.member_id, old.agent,
            )  # fmt: skip
        peer.unknown_since_ms = now_ms - limits.SYNC_GRACE_MS
        self._step(now_ms)

    # --- Time and results ---------------------------------------------------------------------------------------------

    def next_timer_ms(self) -> int | None:
        """Return when ``handle_timer`` is due, or None."""
        if not self._peers:
            return None
        times = [self._status_due_ms, self._stall_ms]
        for peer in self._peers.values():
            times.append(peer.headers_due_ms if peer.headers_asked else None)
            times.append(peer.bodies_due_ms if peer.bodies_asked else None)
            if self._download is None and peer.unknown_since_ms is not None:
                # Once: when it has passed without a download, only something new can begin one.
                look_ms = max(peer.unknown_since_ms + limits.SYNC_GRACE_MS, peer.cool_until_ms)
                times.append(look_ms if look_ms > self._looked_ms else None)
        return min((time for time in times if time is not None), default=None)

    def handle_timer(self, *, now_ms: int) -> None:
        """Tell peers what we have, give up on answers that did not come, look again who is ahead."""
        if self._status_due_ms is not None and now_ms >= self._status_due_ms:
            self._status_due_ms = now_ms + limits.STATUS_INTERVAL_MS
            message = self._chain.status()
            self._sends += [(peer_id, message) for peer_id in self._peers]
        for peer_id, peer in self._peers.items():
            if peer.bodies_asked and now_ms >= peer.bodies_due_ms:
                asked, peer.bodies_asked = peer.bodies_asked, []
                peer.fail(now_ms)
                if self._download is not None:
                    self._download.give_back(peer_id, asked, lacks=False)
            if peer.headers_asked and now_ms >= peer.headers_due_ms:
                peer.headers_asked = 0
                peer.fail(now_ms)
                if self._download is not None and self._download.leader == peer_id:
                    self._change_leader(now_ms)
        if self._stall_ms is not None and now_ms >= self._stall_ms:
            self._ask_everybody(now_ms)
        self._looked_ms = now_ms
        self._step(now_ms)

    def take_ready(self) -> SyncReady:
        """Return what is to be done since the last call."""
        ready = SyncReady(self._sends, self._blocks)
        self._sends, self._blocks = [], []
        return ready

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _ask_everybody(self, now_ms: int) -> None:
        """The block whose turn it is lacks transactions for long: ask all who may have them."""
        front = self._download.front if self._download else None
        self._stall_ms = now_ms + limits.SYNC_STALL_MS
        if front is not None and front.missing:
            self._want(sorted(front.missing), list(self._peers), now_ms=now_ms)

    def _restart(self) -> None:
        """Drop the stretch; what is still lacking is found again above the final block."""
        self._download = None
        self._stall_ms = None
        for peer in self._peers.values():
            # Answers under way are of no use any more.
            peer.headers_asked = 0
            peer.bodies_asked = []

    def _change_leader(self, now_ms: int) -> None:
        """Follow another peer's headers, or give up where nobody else is ahead."""
        assert self._download is not None
        old = self._peers.get(self._download.leader)
        if old is not None:
            old.headers_asked = 0
        leader = self._best(now_ms)
        if leader is None:
            self._restart()
        else:
            self._download.leader = leader

    def _best(self, now_ms: int) -> PeerId | None:
        """Return the peer to follow: of those ahead and not cooling off, the most reliable, then the highest."""
        own = self._chain.status()
        ahead = [
            (-peer.failures, status.final_height, status.justified_height, status.head_height, peer_id)
            for peer_id, peer in self._peers.items()
            if (status := peer.status) is not None
            and now_ms >= peer.cool_until_ms
            and _is_ahead(peer, own, now_ms)
            and not self._chain.has_block(status.head_id)
        ]
        return max(ahead)[-1] if ahead else None

    def _step(self, now_ms: int) -> None:
        """Begin, continue or end a download: ask for what there is room for, hand on what is complete."""
        if self._download is None:
            leader = self._best(now_ms)
            if leader is None:
                return
            own = self._chain.status()
            self._download = Download(self._chain, leader, anchor_height=own.final_height, anchor_id=own.final_id)
            self._stall_ms = now_ms + limits.SYNC_STALL_MS
        download = self._download
        self._ask_headers(download, now_ms)
        self._ask_bodies(download, now_ms)
        self._blocks += [(block, download.leader) for block in download.take_complete()]
        for piece in download.next_transactions():
            holders = [peer_id for peer_id, peer in self._peers.items() if peer.reaches(piece.height)]
            self._want(sorted(piece.missing), holders, now_ms=now_ms)
        led_by, front = self._peers[download.leader], download.front
        if front is not None and front.body is None and front.lacking.issuperset(self._peers):
            # Nobody has what the leader's headers name.
            led_by.fail(now_ms)
            self._restart()
        elif front is None and led_by.status is not None and download.tail_height >= led_by.status.head_height:
            # All is handed on. Until the peer says something new, there is nothing more to get from it.
            led_by.unknown_since_ms = None
            led_by.cool_until_ms = now_ms + limits.SYNC_GRACE_MS
            self._forks = 0
            self._restart()

    def _ask_headers(self, download: Download, now_ms: int) -> None:
        leader = self._peers[download.leader]
        head = leader.status.head_height if leader.status else 0
        # Not for every block that is handed on, but by the half window.
        room = min(download.room, limits.HEADERS_MAX)
        if leader.headers_asked or download.tail_height >= head or room < limits.SYNC_WINDOW_BLOCKS // 2:
            return
        leader.headers_asked = room
        leader.headers_due_ms = now_ms + limits.SYNC_TIMEOUT_MS
        self._sends.append((download.leader, GetHeaders(download.tail_height + 1, room)))

    def _ask_bodies(self, download: Download, now_ms: int) -> None:
        cool = [peer_id for peer_id, peer in self._peers.items() if now_ms >= peer.cool_until_ms]
        for peer_id in sorted(cool or self._peers, key=lambda peer_id: self._peers[peer_id].failures):
            peer = self._peers[peer_id]
            if peer.bodies_asked or peer.status is None:
                continue
            if ids := download.next_bodies(peer_id, peer.status.head_height):
                peer.bodies_asked = ids
                peer.bodies_due_ms = now_ms + limits.SYNC_TIMEOUT_MS
                self._sends.append((peer_id, GetBodies(ids)))


def _is_ahead(peer: _Peer, own: Status, now_ms: int) -> bool:
    """Tell whether a peer has what we lack, what may be better than ours, and what is not just under way."""
    status = peer.status
    if status is None or peer.unknown_since_ms is None:
        return False
    if status.head_height >= own.head_height + limits.SYNC_LAG_BLOCKS:
        return True
    # As high is ahead as well: branches that grow in step would never meet.
    is_as_high = (status.justified_height, status.head_height) >= (own.justified_height, own.head_height)
    return is_as_high and now_ms >= peer.unknown_since_ms + limits.SYNC_GRACE_MS
