"""Two branches know one key as different members': what is signed with it is good on each, wherever one's head is."""

from __future__ import annotations

from consensus.engine import Engine
from consensus.verdict import Verdict
from ledger.block import Block, block_id_of
from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.genesis import Role
from ledger.payloads import KeyChange, KeyChanges, KeyOperation
from ledger.store import MemoryStore, Space, Store, WriteBatch
from ledger.transaction import Kind, make_transaction
from ledger.validation import CheckedTransaction, KeyOf, check_transaction
from node.sim.world import NoRules, is_stand_in_signature, make_record, member_name
from tests.consensus.bench_kit import Bench, time_of

SHARED = PrivateKey.from_seed(b"added by two members")


def observer_on(bench: Bench, store: Store) -> Engine:
    """Return an engine that checks by itself what others have checked already."""

    def check(raw: bytes, key_of: KeyOf) -> CheckedTransaction:
        rules = NoRules(bench.world.founding.rule_set)
        return check_transaction(raw, chain_id=bench.chain_id, key_of=key_of, rules=rules)

    return Engine(bench.world.genesis, store, key=None, check=check, is_valid=is_stand_in_signature)


def seal_with(bench: Bench, slot: int, raw: bytes) -> Block:
    """Let the owner of ``slot``, of whom nobody else hears, seal ``raw``; return its block."""
    number = bench.owner_of(slot)
    engine = bench.engines[number]
    checked = engine.check(raw)
    row = (Space.PENDING.value + checked.tx_id, b"")
    bench.stores[number].write(WriteBatch([row], [(checked.tx_id, raw)]))
    engine.add_transaction(checked)
    engine.handle_timer(now_ms=time_of(slot))
    blocks = [m for m in bench.flush(number).messages if isinstance(m, Block)]
    assert [item.tx_id for item in blocks[0].body] == [checked.tx_id]
    return blocks[0]


def add_shared(bench: Bench, member: int, slot: int) -> bytes:
    change = KeyChange(KeyOperation.ADD, SHARED.public_key, Role.SUBMIT, None)
    return bench.world.make_payload(member, Kind.KEY, KeyChanges([change]), now_ms=time_of(slot))


def records_with_shared(bench: Bench, member: int, slot: int) -> bytes:
    now_ms = time_of(slot)
    transaction = make_transaction(
        [encode(make_record(1, now_ms))],
        key=SHARED,
        member_id=member_name(member),
        chain_id=bench.chain_id,
        created_ms=now_ms,
        expires_ms=now_ms + 60_000,
    )
    return encode(transaction)


def test_a_key_that_branches_know_as_different_members_is_good_on_both_and_after_a_restart() -> None:
    bench, store = Bench(), MemoryStore()
    observer = observer_on(bench, store)
    raws = [add_shared(bench, 1, 1), add_shared(bench, 2, 2), records_with_shared(bench, 2, 6)]
    blocks = []
    for slot, raw in zip((1, 2, 6), raws, strict=True):
        blocks.append(seal_with(bench, slot, raw))
        body = blocks[-1].body[0].tx_id
        store.write(WriteBatch([], [(body, raw)]))
    assert blocks[0].sealed.header.parent_id == blocks[1].sealed.header.parent_id
    assert blocks[2].sealed.header.parent_id == block_id_of(blocks[1].sealed.header)
    for block in blocks[:2]:
        assert observer.receive_block(block, now_ms=time_of(6)) is Verdict.ACCEPT
    assert observer.head.block_id == block_id_of(blocks[0].sealed.header)
    assert observer.receive_block(blocks[2], now_ms=time_of(6)) is Verdict.ACCEPT
    assert observer.head.block_id == block_id_of(blocks[2].sealed.header)
    store.write(WriteBatch(list(observer.take_ready().puts), []))
    assert observer_on(bench, store).head.block_id == observer.head.block_id
