"""Engines and chains for the tests of consensus: stand-in signatures, memory stores, no network."""

from __future__ import annotations

from collections.abc import Iterable

from consensus.engine import Engine
from consensus.ready import Ready
from consensus.votes import Checkpoint, Link, VotingSet, digest_of
from ledger.block import Block, Certificate, CertificatePart, Header, SealedHeader, Vote, block_id_of, void_bitmap
from ledger.crypto import PrivateKey
from ledger.errors import UnknownParent
from ledger.payloads import Payload
from ledger.store import MemoryStore, Space, Store, WriteBatch
from ledger.transaction import Kind
from node.sim.world import GENESIS_MS, SLOT_MS, World, is_stand_in_signature, producer_key

ZERO = Checkpoint(0, bytes(32))


def point(height: int, tag: int = 0) -> Checkpoint:
    """Return a made-up block; ``tag`` tells those of one height apart."""
    return Checkpoint(height, bytes([height, tag]) * 16)


def time_of(slot: int) -> int:
    """Return when a slot begins."""
    return GENESIS_MS + slot * SLOT_MS


def make_vote(chain_id: bytes, number: int, link: Link) -> Vote:
    """Return the vote of producer ``number``."""
    key = producer_key(number)
    return Vote(*link.source, *link.target, key.key_id, key.sign(digest_of(chain_id, link)))


def make_certificate(chain_id: bytes, voting_set: VotingSet, link: Link, signers: Iterable[int]) -> Certificate:
    """Return a certificate by the producers at these places of the set."""
    places = sorted(signers)
    keys = {producer_key(n).key_id: producer_key(n) for n in range(21)}
    digest = digest_of(chain_id, link)
    signatures = [keys[voting_set.producers[i].key_id].sign(digest) for i in places]
    part = CertificatePart(voting_set.set_id, void_bitmap(places, len(voting_set.producers)), signatures)
    return Certificate(*link.source, *link.target, [part])


def resign(block: Block, *, certificate: Certificate | None = None, keep: bool = True, **changes: object) -> Block:
    """Return ``block`` with other header fields, signed by its producer anew."""
    old = block.sealed.header
    fields = {name: getattr(old, name) for name in Header.__struct_fields__}
    header = Header(**{**fields, **changes})  # type: ignore[arg-type]
    keys = {producer_key(n).key_id: producer_key(n) for n in range(21)}
    signature = keys[header.producer_key_id].sign(block_id_of(header))
    return Block(SealedHeader(header, signature, block.sealed.certificate if keep else certificate), block.body)


class Bench:
    """Several engines of one chain, fed by hand.

    Attributes:
        engines: by producer number; one more, without a key, is the observer at the end.
    """

    def __init__(self, producers: int = 4, seats: int | None = None, *, nodes: int | None = None) -> None:
        """``nodes``: engines, where there are more of them than founders: for members admitted later."""
        self.world = World(producers, seats)
        self.chain_id = self.world.chain_id
        self.next_keys: dict[int, PrivateKey] = {}
        self.stores: list[Store] = [MemoryStore() for _ in range((nodes or producers) + 1)]
        self.engines = [self.make(n) for n in range(len(self.stores))]

    def make(self, number: int) -> Engine:
        """Return a new engine over the store of ``number``."""
        key = producer_key(number) if number < len(self.stores) - 1 else None
        return Engine(
            self.world.genesis,
            self.stores[number],
            key=key,
            next_key=self.next_keys.get(number),
            check=self.world.check,
            is_valid=is_stand_in_signature,
        )

    @property
    def observer(self) -> Engine:
        """Return the engine without a key."""
        return self.engines[-1]

    def flush(self, number: int) -> Ready:
        """Take what an engine has ready and write it."""
        ready = self.engines[number].take_ready()
        if ready.puts:
            self.stores[number].write(WriteBatch(list(ready.puts), []))
        self.engines[number].written()
        return ready

    def submit(
        self, calls: list[int], *, member: int = 0, now_ms: int | None = None, lifetime_ms: int = 60_000
    ) -> bytes:
        """Give a transaction of these calls to every engine; return its id."""
        made_ms = time_of(0) if now_ms is None else now_ms
        return self.hand_in(self.world.make_transaction(member, calls, now_ms=made_ms, lifetime_ms=lifetime_ms))

    def govern(self, member: int, kind: Kind, payload: Payload, *, slot: int = 0) -> bytes:
        """Give a transaction that governs, made in ``slot``, to every engine; return its id."""
        return self.hand_in(self.world.make_payload(member, kind, payload, now_ms=time_of(slot)))

    def hand_in(self, raw: bytes) -> bytes:
        """Give a transaction to every engine; return its id."""
        checked = self.observer.check(raw)
        for engine, store in zip(self.engines, self.stores, strict=True):
            store.write(WriteBatch([(Space.PENDING.value + checked.tx_id, b"")], [(checked.tx_id, raw)]))
            engine.add_transaction(checked)
        return checked.tx_id

    def owner_of(self, slot: int) -> int:
        """Return the number of the producer whose slot it is on the observer's head."""
        return self.owner_of_on(len(self.engines) - 1, slot)

    def owner_of_on(self, number: int, slot: int) -> int:
        """Return the number of the producer whose slot it is on the head of ``number``."""
        head = self.engines[number].head
        schedule = head.schedule_at(slot)
        key_id = schedule.order[(slot - schedule.first_slot) % len(schedule.order)].key_id
        return next(n for n in range(21) if producer_key(n).key_id == key_id)

    def seal(self, slot: int) -> Block:
        """Let the owner of ``slot`` seal, and return its block without telling anybody."""
        number = self.owner_of(slot)
        self.engines[number].handle_timer(now_ms=time_of(slot))
        blocks = [m for m in self.flush(number).messages if isinstance(m, Block)]
        assert len(blocks) == 1
        return blocks[0]

    def run_slot(self, slot: int, *, silent: Iterable[int] = ()) -> Block | None:
        """Play one slot without delays: seal, deliver, vote, deliver votes. ``silent`` nodes say and hear nothing."""
        away = set(silent)
        here = [n for n in range(len(self.engines)) if n not in away]
        for n in here:
            self.engines[n].handle_timer(now_ms=time_of(slot))
        sealed: Block | None = None
        waiting = True
        while waiting:
            waiting = False
            for n in here:
                for message in self.flush(n).messages:
                    waiting = True
                    if isinstance(message, Block):
                        sealed = message
                    for other in here:
                        if other != n:
                            self._deliver(message, n, other, slot)
        return sealed

    def _deliver(self, message: Block | Vote, sender: int, to: int, slot: int) -> None:
        """Hand a message over, and first the ancestors that the receiver lacks."""
        engine = self.engines[to]
        if isinstance(message, Vote):
            engine.receive_vote(message, now_ms=time_of(slot))
            return
        try:
            engine.receive_block(message, now_ms=time_of(slot))
        except UnknownParent:
            parent = self.engines[sender].block(message.sealed.header.parent_id)
            assert parent is not None
            self._deliver(parent, sender, to, slot)
