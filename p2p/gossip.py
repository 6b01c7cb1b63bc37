"""How transactions, blocks and votes spread: one state machine, no I/O, no clock.

The driver feeds it messages, the outcomes of its checks and the time; and after each of these takes what is ready:
messages to send, bodies to check and store, complete blocks and votes for the engine. It must answer every body in
``GossipReady.transactions`` with ``transactions_stored`` or ``transaction_refused``, and every block and vote that
the engine took with ``block_accepted`` and ``vote_accepted``: only what was checked here is passed on.

Source: docs/protocol.md, "Peering".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from consensus.verdict import Verdict
from ledger.block import Block, SealedHeader, Vote, block_id_of
from p2p import limits
from p2p.assembly import Assembly
from p2p.entries import Received
from p2p.inventory import Inventory
from p2p.messages import (
    Announce,
    GetBlock,
    GetTransactions,
    Message,
    NotFound,
    Stored,
    Transactions,
    Votes,
    What,
)
from p2p.scores import PeerId, Scores

GossipMessage: TypeAlias = Transactions | Announce | GetTransactions | Stored | Block | GetBlock | Votes | NotFound
"""What ``Gossip.receive`` takes; all else is for sync or the transport."""


@dataclass(frozen=True, slots=True)
class GossipReady:
    """What is to be done.

    Attributes:
        sends: messages to send, in this order for each peer. One object may go to several: encode it once.
        transactions: bodies to be checked and stored.
        blocks: blocks whose transactions are all here, for the engine.
        votes: votes for the engine.
        accepted: ids that a quorum of producers has on disk now.
        banned: peers to be closed and refused for ``limits.BAN_MS``, with the reason.
    """

    sends: list[tuple[PeerId, Message]]
    transactions: list[Received]
    blocks: list[tuple[Block, PeerId]]
    votes: list[tuple[Vote, PeerId]]
    accepted: list[bytes]
    banned: list[tuple[PeerId, str]]


class Gossip:
    """The gossip of one node.

    own_key_id: this node's key (20 bytes).
    is_producer: whether a key id is a producer's; is_quorum: whether these are enough to accept a transaction.
    has_transaction: whether a body is on disk, pending, included or final.
    read_transaction, read_block: what peers ask for; None where it is not here.
    check_header: raises InvalidBlock where its producer did not sign it; False where that key is not known here.
    """

    def __init__(
        self,
        *,
        own_key_id: bytes,
        is_producer: Callable[[bytes], bool],
        is_quorum: Callable[[set[bytes]], bool],
        has_transaction: Callable[[bytes], bool],
        read_transaction: Callable[[bytes], bytes | None],
        read_block: Callable[[bytes], Block | None],
        check_header: Callable[[SealedHeader], bool],
    ) -> None:
        self.scores = Scores()
        self._inventory = Inventory(
            own_key_id=own_key_id,
            is_producer=is_producer,
            is_quorum=is_quorum,
            has_transaction=has_transaction,
            read_transaction=read_transaction,
        )
        self._assembly = Assembly(self._inventory, has_transaction=has_transaction, check_header=check_header)
        self._read_block = read_block
        self._sends: list[tuple[PeerId, Message]] = []
        self._votes: list[tuple[Vote, PeerId]] = []
        self._votes_seen: OrderedDict[Vote, set[PeerId]] = OrderedDict()
        self._votes_good: OrderedDict[Vote, None] = OrderedDict()
        self._votes_out: list[Vote] = []
        self._votes_at_ms: int | None = None

    # --- Peers --------------------------------------------------------------------------------------------------

    def peer_up(self, peer_id: PeerId, key_id: bytes, *, now_ms: int) -> None:
        """Begin with a new connection: tell it what it may lack of transactions and votes."""
        self._inventory.peer_up(peer_id, key_id)
        recent = list(self._votes_good)[-limits.VOTES_TO_NEW_PEER_MAX :]
        if recent:
            self._send_votes(recent, [peer_id])
        self._inventory.ask(now_ms=now_ms)

    def peer_down(self, peer_id: PeerId, *, now_ms: int) -> None:
        """Forget a connection; what was asked of it is asked elsewhere."""
        self._inventory.peer_down(peer_id)
        self._assembly.peer_down(peer_id)
        for holders in self._votes_seen.values():
            holders.discard(peer_id)
        self._inventory.ask(now_ms=now_ms)

    def reject(self, peer: PeerId, reason: str, *, now_ms: int) -> None:
        """Charge a peer for a message that was refused; enough of it bans."""
        self.scores.reject(peer, reason, now_ms=now_ms)

    # --- Messages -----------------------------------------------------------------------------------------------

    def receive(self, message: Message, sender: PeerId, *, now_ms: int) -> Verdict:
        """Take a message from a peer that is up.

        ACCEPT: new and taken up, which says nothing yet of the checks of its contents. IGNORE: nothing new.
        REJECT is raised: any LedgerError costs the sender (``reject``).
        """
        # [IGNORE] The connection is gone: the message waited while it closed.
        if sender not in self._inventory.peers:
            return Verdict.IGNORE
        fresh = self._dispatch(message, sender, now_ms)
        self._inventory.ask(now_ms=now_ms)
        return Verdict.ACCEPT if fresh else Verdict.IGNORE

    def _dispatch(self, message: Message, sender: PeerId, now_ms: int) -> bool:
        match message:
            case Transactions():
                return self._inventory.receive_transactions(message, sender, now_ms=now_ms)
            case Stored():
                return self._inventory.receive_stored(message, sender, now_ms=now_ms)
            case Announce():
                return self._inventory.receive_announce(message, sender, now_ms=now_ms)
            case Votes():
                return self._receive_votes(message, sender)
            case Block():
                return self._assembly.receive(message, sender, now_ms=now_ms)
            case GetTransactions():
                self._inventory.answer(message, sender)
                return True
            case GetBlock():
                block = self._read_block(message.block_id)
                self._sends.append((sender, block or NotFound(What.BLOCK, [message.block_id])))
                return True
            case NotFound(what=What.TRANSACTION):
                self._inventory.receive_not_found(message.ids, sender)
                return False
            case _:
                # [IGNORE] It is not gossip's.
                return False

    def _receive_votes(self, message: Votes, sender: PeerId) -> bool:
        fresh = False
        for vote in message.votes:
            holders = self._votes_seen.get(vote)
            # [IGNORE] The vote was seen already.
            if holders is None:
                fresh = True
                self._note_vote(vote)
                self._votes.append((vote, sender))
            self._votes_seen[vote].add(sender)
        return fresh

    # --- The driver's words ---------------------------------------------------------------------------------------

    def transactions_stored(
        self, tx_ids: Sequence[bytes], *, own: bool, now_ms: int, raws: Sequence[bytes] = ()
    ) -> None:
        """Take note that these are on disk, synced: say ``stored`` to all, push or announce, complete blocks.

        own: taken in here from a submitter, hence pushed; otherwise received, hence announced.
        raws: their bodies in the same order, where the caller has them at hand; read back otherwise.
        """
        self._inventory.stored(tx_ids, own=own, now_ms=now_ms, raws=raws)
        self._assembly.stored(tx_ids)
        self._inventory.ask(now_ms=now_ms)

    def transactions_restored(self, tx_ids: Iterable[bytes]) -> None:
        """Take note, before any peer is up, of pending transactions found on disk: peers may lack them."""
        self._inventory.restored(tx_ids)

    def transaction_refused(self, tx_id: bytes, sender: PeerId, *, invalid: bool, now_ms: int) -> None:
        """Take note that a body failed its checks.

        invalid: it is a lie of ``sender`` (InvalidTransaction, EncodingError), to be rejected besides; others may
        have the good one. Otherwise the transaction cannot be used here now (UnusableTransaction), whoever sends it.
        """
        self._inventory.refused(tx_id, sender, invalid=invalid, now_ms=now_ms)
        self._inventory.ask(now_ms=now_ms)

    def keys_changed(self, *, now_ms: int) -> None:
        """Take note that the head knows other keys: what was not usable for want of one may be now."""
        self._inventory.keys_changed()
        self._assembly.retry(now_ms=now_ms)
        self._inventory.ask(now_ms=now_ms)

    def is_needed(self, tx_id: bytes) -> bool:
        """Tell whether a block that is on its way names a transaction; others may be refused where too many wait."""
        return self._inventory.is_needed(tx_id)

    def forget(self, tx_ids: Iterable[bytes]) -> None:
        """Drop transactions that are final or expired."""
        self._inventory.forget(tx_ids)

    def want_transactions(self, tx_ids: Iterable[bytes], holders: Iterable[PeerId], *, now_ms: int) -> None:
        """Get old transactions for sync from any of ``holders``; they are not announced afterwards."""
        self._inventory.want(tx_ids, holders, now_ms=now_ms, quiet=True)
        self._inventory.handle_timer(now_ms=now_ms)
        self._inventory.ask(now_ms=now_ms)

    def own_block(self, block: Block) -> None:
        """Send a block sealed here to every peer."""
        self._send_block(block)

    def block_accepted(self, block: Block, sender: PeerId) -> None:
        """Pass on a block that the engine took."""
        self._assembly.note(block_id_of(block.sealed.header), sender)
        self._send_block(block)

    def block_refused(self, block: Block) -> None:
        """Forget a block that the engine refused or cannot place yet: another copy may be good, or come in time."""
        self._assembly.forget(block_id_of(block.sealed.header))

    def own_vote(self, vote: Vote) -> None:
        """Send a vote cast here to every peer, at once; again, where the engine sends it again."""
        self._votes_seen.pop(vote, None)
        self._note_vote(vote)
        self._keep_vote(vote)
        self._send_votes([vote], list(self._inventory.peers))

    def vote_accepted(self, vote: Vote, sender: PeerId, *, now_ms: int) -> None:
        """Pass on a vote that the engine took, with the next bundle."""
        self._note_vote(vote)
        self._votes_seen[vote].add(sender)
        self._keep_vote(vote)
        self._votes_out.append(vote)
        if self._votes_at_ms is None:
            self._votes_at_ms = now_ms + limits.BUNDLE_DELAY_MS

    def vote_ignored(self, vote: Vote) -> None:
        """Forget a vote that the engine could not use yet: it may be sent again, and be of use then."""
        self._votes_seen.pop(vote, None)

    # --- Time and results -----------------------------------------------------------------------------------------

    def next_timer_ms(self) -> int | None:
        """Return when ``handle_timer`` is due, or None."""
        times = (self._inventory.next_timer_ms(), self._assembly.next_timer_ms(), self._votes_at_ms)
        return min((time for time in times if time is not None), default=None)

    def handle_timer(self, *, now_ms: int) -> None:
        """Do what is due."""
        self._assembly.handle_timer(now_ms=now_ms)
        self._inventory.handle_timer(now_ms=now_ms)
        if self._votes_at_ms is not None and now_ms >= self._votes_at_ms:
            votes, self._votes_out, self._votes_at_ms = self._votes_out, [], None
            self._send_votes(votes, list(self._inventory.peers))
        self._inventory.ask(now_ms=now_ms)

    def take_ready(self) -> GossipReady:
        """Return what is to be done since the last call."""
        inventory, assembly = self._inventory, self._assembly
        ready = GossipReady(
            self._sends + inventory.sends,
            inventory.received,
            assembly.complete,
            self._votes,
            inventory.accepted,
            self.scores.take_banned(),
        )
        self._sends, inventory.sends, inventory.received = [], [], []
        assembly.complete, self._votes, inventory.accepted = [], [], []
        return ready

    # --- Inside ---------------------------------------------------------------------------------------------------

    def _send_block(self, block: Block) -> None:
        block_id = block_id_of(block.sealed.header)
        self._sends += [(peer, block) for peer in self._assembly.lacking(block_id, self._inventory.peers)]

    def _send_votes(self, votes: list[Vote], peers: list[PeerId]) -> None:
        """Send each peer the votes that it is not known to have; what is the same for several is one object."""
        made: dict[tuple[Vote, ...], list[Votes]] = {}
        for peer in peers:
            lacking = tuple(vote for vote in votes if vote in self._votes_seen and peer not in self._votes_seen[vote])
            if lacking not in made:
                step = limits.VOTES_MAX
                made[lacking] = [Votes(list(lacking[i : i + step])) for i in range(0, len(lacking), step)]
            self._sends += [(peer, message) for message in made[lacking]]
            for vote in lacking:
                self._votes_seen[vote].add(peer)

    def _note_vote(self, vote: Vote) -> None:
        self._votes_seen.setdefault(vote, set())
        if len(self._votes_seen) > limits.VOTES_SEEN_MAX:
            self._votes_seen.popitem(last=False)

    def _keep_vote(self, vote: Vote) -> None:
        self._votes_good[vote] = None
        if len(self._votes_good) > limits.VOTES_TO_NEW_PEER_MAX:
            self._votes_good.popitem(last=False)
