"""Which transactions are here, who else has them, and how those that are not here are got. Pure.

A body is pushed once, by the node that took it in; everybody else announces its id, and whoever lacks it asks one
announcer at a time. One request is under way to a peer at a time; its answer may be partial, and what it left out is
asked again, here or elsewhere. All is bounded by ``p2p.limits``.

Source: docs/protocol.md, "Peering".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from itertools import count

from p2p import limits
from p2p.entries import Entry, Peer, Received, Stage, chunks, id_of_raw
from p2p.messages import Announce, GetTransactions, Message, NotFound, Stored, Transactions, What
from p2p.scores import PeerId

PULL_ATTEMPTS_MAX = 8
"""Requests for one transaction before it is given up; whoever still needs it wants it anew."""


class Inventory:
    """Transactions on their way. The driver takes ``sends``, ``received`` and ``accepted`` through Gossip."""

    def __init__(
        self,
        *,
        own_key_id: bytes,
        is_producer: Callable[[bytes], bool],
        is_quorum: Callable[[set[bytes]], bool],
        has_transaction: Callable[[bytes], bool],
        read_transaction: Callable[[bytes], bytes | None],
    ) -> None:
        self.sends: list[tuple[PeerId, Message]] = []
        self.received: list[Received] = []
        self.accepted: list[bytes] = []
        self._own_key_id = own_key_id
        self._is_producer = is_producer
        self._is_quorum = is_quorum
        self._has_transaction = has_transaction
        self._read_transaction = read_transaction
        self._peers: dict[PeerId, Peer] = {}
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._unusable: OrderedDict[bytes, int] = OrderedDict()
        self._delayed: list[tuple[int, int, bytes]] = []
        self._order = count()
        self._announce: list[tuple[int, bytes]] = []
        self._announce_at_ms: int | None = None
        self._stored_out: list[bytes] = []
        self._stored_at_ms: int | None = None
        self._stored_last_ms = -limits.BUNDLE_DELAY_MS
        self._unchecked_bytes = 0

    # --- Peers --------------------------------------------------------------------------------------------------

    def peer_up(self, peer_id: PeerId, key_id: bytes) -> None:
        """Begin with a new connection: tell it what is on disk here and not final."""
        self.peer_down(peer_id)
        taken = sum(peer.bit for peer in self._peers.values())
        self._peers[peer_id] = Peer(peer_id, key_id, (taken + 1) & ~taken)
        held = [tx_id for tx_id, entry in self._entries.items() if entry.stage is Stage.HELD and not entry.quiet]
        for ids in chunks(held[-limits.PEER_UP_IDS_MAX :]):
            self.sends.append((peer_id, Stored(ids)))

    def peer_down(self, peer_id: PeerId) -> None:
        """Forget a connection; what was asked of it is asked elsewhere."""
        peer = self._peers.pop(peer_id, None)
        if peer is None:
            return
        peer.up = False
        for tx_id in list(peer.request):
            self._back(tx_id, peer)
        for tx_id, entry in list(self._entries.items()):
            entry.holders &= ~peer.bit
            if not entry.holders and entry.stage < Stage.CHECKING:
                self._drop(tx_id)

    @property
    def peers(self) -> Iterable[PeerId]:
        """The connected peers."""
        return self._peers.keys()

    # --- Messages -----------------------------------------------------------------------------------------------

    def receive_transactions(self, message: Transactions, sender: PeerId, *, now_ms: int) -> bool:
        """Take bodies, pushed or asked for; tell whether any is new. Raises EncodingError [REJECT]."""
        peer = self._peers[sender]
        # [REJECT] Each is an array of three parts.
        ids = [id_of_raw(raw) for raw in message.raws]
        fresh = False
        for tx_id, raw in zip(ids, message.raws, strict=True):
            fresh = self._take_body(tx_id, raw, peer, now_ms) or fresh
        answered = [tx_id for tx_id in ids if peer.request.pop(tx_id, ids) is None]
        if answered:
            # What the answer left out, for want of room, is asked again.
            peer.failures = 0
            for tx_id in list(peer.request):
                self._back(tx_id, peer)
        return fresh

    def _take_body(self, tx_id: bytes, raw: bytes, peer: Peer, now_ms: int) -> bool:
        entry = self._entries.get(tx_id)
        if entry is None:
            # [IGNORE] It is here and final, or was found not usable here, or the peer offers more than we can take.
            if peer.opened >= limits.OFFERS_PER_PEER_MAX or self._is_of_no_use(tx_id, now_ms):
                return False
            entry = self._add(tx_id, Stage.DELAYED, peer)
        entry.holders |= peer.bit
        # [IGNORE] It is here or being checked already.
        if entry.stage >= Stage.CHECKING:
            return False
        # [IGNORE] The driver does not keep up: asked for again later, from who is known to have it.
        if self._unchecked_bytes + len(raw) > limits.UNCHECKED_BYTES_MAX:
            entry.stage = Stage.WANTED
            peer.offers.append(tx_id)
            return False
        self._settle(entry)
        entry.stage = Stage.CHECKING
        entry.size = len(raw)
        self._unchecked_bytes += len(raw)
        self.received.append(Received(raw, peer.peer_id, tx_id))
        return True

    def receive_announce(self, message: Announce, sender: PeerId, *, now_ms: int) -> bool:
        """Note that ``sender`` holds these; tell whether any was not known of."""
        peer = self._peers[sender]
        notes = [self._note(tx_id, peer, now_ms, 0) for tx_id in message.tx_ids]
        return any(notes)

    def receive_stored(self, message: Stored, sender: PeerId, *, now_ms: int) -> bool:
        """Note that ``sender`` has these on disk, which also announces them; tell whether anything was new."""
        peer = self._peers[sender]
        counts = self._is_producer(peer.key_id)
        fresh = False
        for tx_id in message.tx_ids:
            fresh = self._note(tx_id, peer, now_ms, limits.STORED_PULL_DELAY_MS) or fresh
            entry = self._entries.get(tx_id)
            if counts and entry is not None and peer.key_id not in entry.stored_by:
                fresh = True
                self._count(tx_id, entry, peer.key_id)
        return fresh

    def receive_not_found(self, ids: Iterable[bytes], sender: PeerId) -> None:
        """Ask elsewhere for what ``sender`` was asked for and does not have."""
        peer = self._peers[sender]
        for tx_id in ids:
            # [IGNORE] It was not asked for.
            if tx_id in peer.request:
                self._back(tx_id, peer, has_it=False)

    def answer(self, message: GetTransactions, sender: PeerId) -> None:
        """Send bodies asked for, in order and as far as they fit one message; say first what is not here."""
        peer = self._peers[sender]
        missing: list[bytes] = []
        raws: list[bytes] = []
        room = limits.TRANSACTIONS_BYTES_MAX
        for tx_id in message.tx_ids:
            raw = self._read_transaction(tx_id)
            if raw is None:
                missing.append(tx_id)
                continue
            room -= len(raw)
            if raws and room < 0:
                break
            raws.append(raw)
            entry = self._entries.get(tx_id)
            if entry is not None:
                entry.holders |= peer.bit
        if missing:
            self.sends.append((sender, NotFound(What.TRANSACTION, missing)))
        if raws:
            self.sends.append((sender, Transactions(raws)))

    # --- The driver's words ---------------------------------------------------------------------------------------

    def want(
        self, tx_ids: Iterable[bytes], holders: Iterable[PeerId], *, now_ms: int, delay_ms: int = 0, quiet: bool = False
    ) -> None:
        """Get these, which a block names, from ``holders``; ``quiet`` ones are not announced afterwards."""
        peers = [self._peers[peer_id] for peer_id in holders if peer_id in self._peers]
        for tx_id in tx_ids:
            entry = self._entries.get(tx_id)
            if entry is None:
                entry = self._add(tx_id, Stage.DELAYED, None)
                entry.quiet = quiet
            entry.needed = True
            if entry.stage >= Stage.CHECKING:
                continue
            for peer in peers:
                if not entry.holders & peer.bit:
                    entry.holders |= peer.bit
                    if entry.stage is Stage.WANTED:
                        peer.offers.append(tx_id)
            if entry.stage is Stage.DELAYED:
                self._want_at(tx_id, entry, now_ms, delay_ms)

    def stored(self, tx_ids: Sequence[bytes], *, own: bool, now_ms: int, raws: Sequence[bytes] = ()) -> None:
        """Take note that these are on disk: say so, push those taken in here, announce the others.

        raws: their bodies where the caller still has them, in the order of ``tx_ids``; read back otherwise.
        """
        fresh: list[int] = []
        for index, tx_id in enumerate(tx_ids):
            entry = self._entries.get(tx_id)
            if entry is None:
                entry = self._add(tx_id, Stage.DELAYED, None)
            if entry.stage is Stage.HELD:
                continue
            self._settle(entry)
            entry.stage = Stage.HELD
            if entry.quiet:
                self._drop(tx_id)
                continue
            fresh.append(index)
            if self._is_producer(self._own_key_id):
                self._count(tx_id, entry, self._own_key_id)
        ids = [tx_ids[index] for index in fresh]
        if own:
            self._push(ids, [raws[index] for index in fresh] if raws else None)
        else:
            self._announce_later(ids, now_ms)
        self._stored_out += ids
        if self._stored_out and self._stored_at_ms is None:
            # At once where it is quiet, bundled where it is busy.
            self._stored_at_ms = max(now_ms, self._stored_last_ms + limits.BUNDLE_DELAY_MS)
            if self._stored_at_ms == now_ms:
                self._flush_stored(now_ms)

    def restored(self, tx_ids: Iterable[bytes]) -> None:
        """Take note, before any peer is up, of what was on disk when the node began: each peer is told as it comes."""
        for tx_id in tx_ids:
            entry = self._add(tx_id, Stage.HELD, None)
            if self._is_producer(self._own_key_id):
                self._count(tx_id, entry, self._own_key_id)

    def refused(self, tx_id: bytes, sender: PeerId, *, invalid: bool, now_ms: int) -> None:
        """Take note that a body failed its checks.

        invalid: the body is a lie of ``sender``; the id may still be that of a good one, which others are asked for.
        Otherwise the transaction itself does not fit this chain now, whoever sends it.
        """
        entry = self._entries.get(tx_id)
        if entry is None or entry.stage is not Stage.CHECKING:
            return
        self._settle(entry)
        if not invalid:
            self._drop(tx_id)
            self._unusable[tx_id] = now_ms + limits.UNUSABLE_MS
            if len(self._unusable) > limits.UNUSABLE_IDS_MAX:
                self._unusable.popitem(last=False)
            return
        peer = self._peers.get(sender)
        if peer is not None:
            entry.holders &= ~peer.bit
        entry.stage = Stage.ASKED
        self._requeue(tx_id, entry, None)

    def keys_changed(self) -> None:
        """Take what was not usable as never seen: a key may have been admitted since."""
        self._unusable.clear()

    def forget(self, tx_ids: Iterable[bytes]) -> None:
        """Drop what is final or expired."""
        for tx_id in tx_ids:
            self._drop(tx_id)

    def is_needed(self, tx_id: bytes) -> bool:
        """Tell whether a block that is on its way names a transaction."""
        entry = self._entries.get(tx_id)
        return entry is not None and entry.needed

    # --- Time -----------------------------------------------------------------------------------------------------

    def next_timer_ms(self) -> int | None:
        """Return when ``handle_timer`` is due, or None."""
        times = [peer.deadline_ms for peer in self._peers.values() if peer.request]
        if self._delayed:
            times.append(self._delayed[0][0])
        times += [at for at in (self._announce_at_ms, self._stored_at_ms) if at is not None]
        return min(times, default=None)

    def handle_timer(self, *, now_ms: int) -> None:
        """Send the bundles that are due, give up on answers that did not come, ask for what did not come by itself."""
        if self._stored_at_ms is not None and now_ms >= self._stored_at_ms:
            self._flush_stored(now_ms)
        if self._announce_at_ms is not None and now_ms >= self._announce_at_ms:
            self._flush_announces(now_ms)
        for peer in self._peers.values():
            if peer.request and now_ms >= peer.deadline_ms:
                peer.failures += 1
                for tx_id in list(peer.request):
                    self._back(tx_id, peer)
        while self._delayed and now_ms >= self._delayed[0][0]:
            tx_id = heappop(self._delayed)[2]
            entry = self._entries.get(tx_id)
            if entry is not None and entry.stage is Stage.DELAYED:
                self._requeue(tx_id, entry, None)

    def ask(self, *, now_ms: int) -> None:
        """Send requests to peers that have something wanted and no request under way; those that answer first."""
        # Half the room is kept for pushes, so that what is asked for now is not dropped when it comes.
        if self._unchecked_bytes > limits.UNCHECKED_BYTES_MAX // 2:
            return
        for peer in sorted(self._peers.values(), key=lambda peer: peer.failures):
            if peer.request or not peer.offers:
                continue
            while peer.offers and len(peer.request) < limits.GET_TRANSACTIONS_MAX:
                tx_id = peer.offers.popleft()
                entry = self._entries.get(tx_id)
                if entry is not None and entry.stage is Stage.WANTED and entry.holders & peer.bit:
                    entry.stage = Stage.ASKED
                    entry.attempts += 1
                    peer.request[tx_id] = None
            if peer.request:
                peer.deadline_ms = now_ms + limits.PULL_TIMEOUT_MS
                self.sends.append((peer.peer_id, GetTransactions(list(peer.request))))

    # --- Inside ---------------------------------------------------------------------------------------------------

    def _add(self, tx_id: bytes, stage: Stage, opener: Peer | None) -> Entry:
        entry = self._entries[tx_id] = Entry(stage, opener)
        if opener is not None:
            opener.opened += 1
        if len(self._entries) > limits.INVENTORY_ENTRIES_MAX:
            self._drop(next(iter(self._entries)))
        return entry

    def _drop(self, tx_id: bytes) -> None:
        entry = self._entries.pop(tx_id, None)
        if entry is not None:
            self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        """Close the books of an entry that came, was refused or is given up."""
        self._unchecked_bytes -= entry.size
        entry.size = 0
        if entry.opener is not None:
            entry.opener.opened -= 1
            entry.opener = None

    def _note(self, tx_id: bytes, peer: Peer, now_ms: int, delay_ms: int) -> bool:
        """Note that ``peer`` has a transaction; want it after ``delay_ms``; tell whether it is new."""
        entry = self._entries.get(tx_id)
        if entry is None:
            # [IGNORE] The same, for an id.
            if peer.opened >= limits.OFFERS_PER_PEER_MAX or self._is_of_no_use(tx_id, now_ms):
                return False
            entry = self._add(tx_id, Stage.DELAYED, peer)
            entry.holders |= peer.bit
            self._want_at(tx_id, entry, now_ms, delay_ms)
            return True
        known = entry.holders & peer.bit
        entry.holders |= peer.bit
        if entry.stage is Stage.DELAYED and delay_ms == 0:
            self._want_at(tx_id, entry, now_ms, 0)
        elif entry.stage is Stage.WANTED and not known:
            peer.offers.append(tx_id)
        return False

    def _is_of_no_use(self, tx_id: bytes, now_ms: int) -> bool:
        """Tell whether a transaction is here and final, or was found not usable a short while ago."""
        until_ms = self._unusable.get(tx_id)
        if until_ms is not None and now_ms < until_ms:
            return True
        self._unusable.pop(tx_id, None)
        return self._has_transaction(tx_id)

    def _want_at(self, tx_id: bytes, entry: Entry, now_ms: int, delay_ms: int) -> None:
        """Want a transaction now, or after a delay in which it may come by itself."""
        if delay_ms == 0:
            self._requeue(tx_id, entry, None)
        else:
            heappush(self._delayed, (now_ms + delay_ms, next(self._order), tx_id))

    def _holders(self, entry: Entry) -> list[Peer]:
        """Return the connections that have a transaction, in the order in which they came up."""
        return [peer for peer in self._peers.values() if entry.holders & peer.bit]

    def _back(self, tx_id: bytes, peer: Peer, *, has_it: bool = True) -> None:
        """Take back what was asked of ``peer``."""
        peer.request.pop(tx_id, None)
        entry = self._entries.get(tx_id)
        if entry is None or entry.stage is not Stage.ASKED:
            return
        if not has_it or not peer.up:
            entry.holders &= ~peer.bit
        self._requeue(tx_id, entry, peer)

    def _requeue(self, tx_id: bytes, entry: Entry, last: Peer | None) -> None:
        """Offer an entry to its holders again: to others than ``last`` where there are others."""
        holders = self._holders(entry)
        others = [peer for peer in holders if peer is not last] or holders
        if not others or entry.attempts >= PULL_ATTEMPTS_MAX:
            self._drop(tx_id)
            return
        entry.stage = Stage.WANTED
        for peer in others:
            peer.offers.append(tx_id)

    def _count(self, tx_id: bytes, entry: Entry, key_id: bytes) -> None:
        """Count a producer that has a transaction on disk; a quorum of them accepts it."""
        entry.stored_by.add(key_id)
        if not entry.accepted and self._is_quorum(entry.stored_by):
            entry.accepted = True
            self.accepted.append(tx_id)

    def _push(self, ids: list[bytes], raws: list[bytes] | None) -> None:
        """Send bodies taken in here to every peer that is not known to have them, in messages of a bounded size."""
        bodies = raws if raws is not None else [self._read_transaction(tx_id) for tx_id in ids]
        bundle: list[tuple[bytes, bytes]] = []
        room = limits.TRANSACTIONS_BYTES_MAX
        for tx_id, raw in zip(ids, bodies, strict=True):
            if raw is None:
                continue
            if bundle and (len(raw) > room or len(bundle) == limits.TRANSACTIONS_MAX):
                self._push_bundle(bundle)
                bundle, room = [], limits.TRANSACTIONS_BYTES_MAX
            bundle.append((tx_id, raw))
            room -= len(raw)
        if bundle:
            self._push_bundle(bundle)

    def _push_bundle(self, bundle: list[tuple[bytes, bytes]]) -> None:
        # One message object for all: the transport encodes it once.
        whole = Transactions([raw for _, raw in bundle])
        for peer in self._peers.values():
            lacking = [
                (tx_id, raw)
                for tx_id, raw in bundle
                # The inventory may have had no room left for some of them.
                if (entry := self._entries.get(tx_id)) is None or not entry.holders & peer.bit
            ]
            if lacking:
                message = whole if len(lacking) == len(bundle) else Transactions([raw for _, raw in lacking])
                self.sends.append((peer.peer_id, message))
        everybody = sum(peer.bit for peer in self._peers.values())
        for tx_id, _ in bundle:
            entry = self._entries.get(tx_id)
            if entry is not None:
                entry.holders |= everybody

    def _announce_later(self, ids: list[bytes], now_ms: int) -> None:
        self._announce += [(now_ms + limits.ANNOUNCE_DELAY_MS, tx_id) for tx_id in ids]
        if self._announce and self._announce_at_ms is None:
            self._announce_at_ms = now_ms + limits.ANNOUNCE_DELAY_MS + limits.BUNDLE_DELAY_MS

    def _flush_announces(self, now_ms: int) -> None:
        """Announce what is old enough to those that have not said that they have it."""
        due = [tx_id for at, tx_id in self._announce if at <= now_ms]
        self._announce = self._announce[len(due) :]
        self._announce_at_ms = now_ms + limits.BUNDLE_DELAY_MS if self._announce else None
        entries = [(tx_id, entry) for tx_id in due if (entry := self._entries.get(tx_id)) is not None]
        for peer in self._peers.values():
            lacking = [tx_id for tx_id, entry in entries if not entry.holders & peer.bit]
            self.sends += [(peer.peer_id, Announce(chunk)) for chunk in chunks(lacking)]

    def _flush_stored(self, now_ms: int) -> None:
        ids, self._stored_out = self._stored_out, []
        self._stored_at_ms = None
        self._stored_last_ms = now_ms
        for chunk in chunks(ids):
            message = Stored(chunk)
            self.sends += [(peer_id, message) for peer_id in self._peers]
