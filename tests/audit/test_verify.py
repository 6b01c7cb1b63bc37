"""A good chain passes; whatever is changed in it is found, at its height and by its field."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from audit.raw import Head, RawFinality
from audit.report import AuditReport
from audit.source import DirectorySource
from audit.verify import KnownHead, verify_chain
from consensus.election import elect
from ledger.block import BodyItem, Certificate, SealedHeader, block_id_of, body_root
from ledger.cdr import CallRecord
from ledger.codec import decode, encode
from ledger.crypto import PrivateKey
from ledger.genesis import Genesis, chain_id_of
from ledger.rules.ruleset import RuleSet
from ledger.state import genesis_state
from ledger.store import MemoryStore
from ledger.transaction import Transaction, make_transaction, tx_id_of
from ledger.validation import totals_of
from tests.audit.chains import (
    MEMBERS,
    NODE_KEYS,
    SUBMIT_KEYS,
    Cluster,
    make_genesis,
    make_raw,
    make_record,
    rules_of,
)
from tests.audit.tamper import OWNER, Parts, certify, high_s, longer_spelling, take_apart

H = 9
"""Height of a block with two transactions, one of them with void records, that carries a certificate."""


@pytest.fixture(scope="session")
def rules(genesis: Genesis) -> RuleSet:
    return rules_of(genesis)


def audit_directory(path: Path, genesis: Genesis, rules: RuleSet, **options: object) -> AuditReport:
    source = DirectorySource(path)
    try:
        return verify_chain(source, genesis, rules=rules, **options)
    finally:
        source.close()


def found(report: AuditReport) -> tuple[int, str] | None:
    difference = report.first_difference
    return None if difference is None else (difference.height, difference.field)


def test_a_good_chain_passes(original: Parts, data_dir: Path, genesis: Genesis, rules: RuleSet) -> None:
    assert (len(original.body(H)), [item.void_bitmap != b"" for item in original.body(H)]) == (2, [True, False])
    assert original.sealed(H).certificate is not None
    from_export = verify_chain(original.to_source(), genesis, rules=rules)
    from_directory = audit_directory(data_dir, genesis, rules)
    for report in (from_export, from_directory):
        assert report.first_difference is None
        assert (report.height, report.head_id, report.blocks) == (14, original.head.final_id, 14)
        assert (report.transactions, report.records, report.void) == (18, 14 * 7 + 4 * 3, 13 * 2)
        assert report.totals.records == report.records - report.void
        assert report.final_height == 14
        assert report.head_certificate.s_id == report.head_id
    assert (from_export.checked_rows, from_directory.checked_rows > 14 + 18) == (0, True)
    assert from_directory.sentence() == (
        f"OK: 14 blocks, 110 records (26 void), 1 election, final at height 14 id {original.head.final_id.hex()}"
    )


def test_the_evidence_is_not_touched(data_dir: Path, genesis: Genesis, rules: RuleSet) -> None:
    def everything() -> dict[str, tuple[int, bytes]]:
        files = [path for path in sorted(data_dir.rglob("*")) if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = everything()
    assert audit_directory(data_dir, genesis, rules).ok
    assert everything() == before


def test_a_chain_without_blocks_passes(genesis: Genesis, rules: RuleSet) -> None:
    parts = take_apart(MemoryStore(), genesis)
    report = verify_chain(parts.to_source(), genesis, rules=rules)
    assert (report.ok, report.height, report.head_id) == (True, 0, chain_id_of(genesis))


def test_progress_is_told_after_each_block(original: Parts, genesis: Genesis, rules: RuleSet) -> None:
    told: list[tuple[int, int, int]] = []
    verify_chain(
        original.to_source(),
        genesis,
        rules=rules,
        on_progress=lambda p: told.append((p.height, p.final_height, p.records)),
    )
    assert told[:2] == [(1, 14, 7), (2, 14, 14)]
    assert told[-1] == (14, 14, 110)


def test_known_blocks_are_found_again(original: Parts, genesis: Genesis, rules: RuleSet) -> None:
    known = [KnownHead(0, chain_id_of(genesis)), KnownHead(5, original.blocks[4].stated_id)]
    assert verify_chain(original.to_source(), genesis, rules=rules, known=known).ok
    wrong = verify_chain(original.to_source(), genesis, rules=rules, known=[KnownHead(5, bytes(32))])
    assert found(wrong) == (5, "block_id")
    other = verify_chain(original.to_source(), genesis, rules=rules, known=[KnownHead(0, bytes(32))])
    assert found(other) == (0, "chain_id")


# -- contents: each change as an export and as a data directory ------------------------------------------------------

Change = Callable[[Parts], None]
CONTENTS: dict[str, tuple[Change, int, str]] = {}


def changes(field: str, height: int = H) -> Callable[[Change], Change]:
    """Note a change with the height and field at which it must be found."""

    def note(change: Change) -> Change:
        CONTENTS[change.__name__] = (change, height, field)
        return change

    return note


def signed(parts: Parts, items: list[bytes], *, key: PrivateKey | None = None, **times: int) -> bytes:
    """Return a transaction of alfa made at the time of block H."""
    envelope = parts.transaction(H).envelope
    fields = {"created_ms": envelope.created_ms, "expires_ms": envelope.expires_ms, **times}
    transaction = make_transaction(
        items, key=key or SUBMIT_KEYS["alfa"], member_id="alfa", chain_id=chain_id_of(parts.genesis), **fields
    )
    return encode(transaction)


def item_of(raw: bytes) -> BodyItem:
    return BodyItem(tx_id_of(decode(raw, Transaction).envelope), b"")


def changed_record(parts: Parts, **fields: object) -> list[bytes]:
    items = list(parts.transaction(H).items)
    items[3] = encode(msgspec.structs.replace(decode(items[3], CallRecord), **fields))
    return items


@changes("transactions[0].envelope.items_root")
def record_field_changed(p: Parts) -> None:
    p.put_transaction(H, msgspec.structs.replace(p.transaction(H), items=changed_record(p, sip_code=486)))


@changes("transactions[0].envelope.item_count")
def record_removed(p: Parts) -> None:
    p.put_transaction(H, msgspec.structs.replace(p.transaction(H), items=p.transaction(H).items[:-1]))


@changes("transactions[0].envelope.items_root")
def records_swapped(p: Parts) -> None:
    a, b, *rest = p.transaction(H).items
    p.put_transaction(H, msgspec.structs.replace(p.transaction(H), items=[b, a, *rest]))


@changes("transactions[0].signature")
def envelope_changed(p: Parts) -> None:
    envelope = msgspec.structs.replace(p.transaction(H).envelope, created_ms=p.transaction(H).envelope.created_ms + 1)
    p.put_transaction(H, msgspec.structs.replace(p.transaction(H), envelope=envelope))


@changes("transactions[0].tx_id")
def transaction_signed_anew(p: Parts) -> None:
    p.put_transaction(H, signed(p, changed_record(p, sip_code=486)))


@changes("transactions[0].tx_id")
def transactions_swapped(p: Parts) -> None:
    p.put(H, transactions=p.blocks[H - 1].transactions[::-1])


@changes("transactions[0].envelope.chain_id")
def transaction_of_another_chain(p: Parts) -> None:
    p.put_transaction(H, make_raw(p.genesis, [1], now_ms=p.transaction(H).envelope.created_ms, chain_id=b"\x11" * 32))


@changes("transactions[0].signature")
def transaction_signature_flipped(p: Parts) -> None:
    signature = bytearray(p.transaction(H).signature)
    signature[40] ^= 1
    p.put_transaction(H, msgspec.structs.replace(p.transaction(H), signature=bytes(signature)))


@changes("transactions[0].signature")
def transaction_signature_high_s(p: Parts) -> None:
    p.put_transaction(H, msgspec.structs.replace(p.transaction(H), signature=high_s(p.transaction(H).signature)))


@changes("transactions[0].envelope.key_id")
def transaction_by_a_stranger(p: Parts) -> None:
    raw = signed(p, p.transaction(H).items, key=PrivateKey.from_seed(b"stranger"))
    p.reseal_body(H, [(item_of(raw), raw), *p.items(H)[1:]])


@changes("transactions[0].envelope.key_id")
def transaction_by_a_node_key(p: Parts) -> None:
    raw = signed(p, p.transaction(H).items, key=NODE_KEYS["alfa"])
    p.reseal_body(H, [(item_of(raw), raw), *p.items(H)[1:]])


@changes("transactions[0]")
def transaction_spelled_otherwise(p: Parts) -> None:
    p.put_transaction(H, longer_spelling(encode(p.transaction(H))))


@changes("transactions[0]")
def transaction_is_garbage(p: Parts) -> None:
    p.put_transaction(H, b"\xc1" * 40)


@changes("transactions[0].items[3].end_ms")
def record_contradicts_itself(p: Parts) -> None:
    raw = signed(p, changed_record(p, end_ms=1))
    p.reseal_body(H, [(item_of(raw), raw), *p.items(H)[1:]])


@changes("transactions[0].items[3]")
def record_spelled_otherwise(p: Parts) -> None:
    items = list(p.transaction(H).items)
    items[3] = longer_spelling(items[3])
    raw = signed(p, items)
    p.reseal_body(H, [(item_of(raw), raw), *p.items(H)[1:]])


@changes("body[2].tx_id")
def transaction_twice_in_the_chain(p: Parts) -> None:
    p.reseal_body(H, [*p.items(H), (BodyItem(p.body(H - 1)[0].tx_id, b""), p.blocks[H - 2].transactions[0])])


@changes("body[2].tx_id")
def transaction_twice_in_the_block(p: Parts) -> None:
    p.reseal_body(H, [*p.items(H), p.items(H)[0]])


@changes("body[0].envelope.expires_ms")
def transaction_expired(p: Parts) -> None:
    created_ms = p.transaction(H).envelope.created_ms
    raw = signed(p, p.transaction(H).items, created_ms=created_ms - 1000, expires_ms=created_ms)
    p.reseal_body(H, [(item_of(raw), raw), *p.items(H)[1:]])


@changes("body[0].envelope.created_ms")
def transaction_from_the_future(p: Parts) -> None:
    expires_ms = p.transaction(H).envelope.expires_ms
    raw = signed(p, p.transaction(H).items, created_ms=expires_ms - 1)
    p.reseal_body(H, [(item_of(raw), raw), *p.items(H)[1:]])


@changes("body[0].end_ms")
def record_from_the_future(p: Parts) -> None:
    raw = signed(p, [encode(make_record(77_777, end_ms=p.transaction(H).envelope.created_ms + 60_000))])
    p.reseal_body(H, [(item_of(raw), raw), *p.items(H)[1:]])


@changes("body[0].end_ms")
def record_older_than_the_window(p: Parts) -> None:
    old_ms = p.transaction(H).envelope.created_ms - p.genesis.parameters.record_window_ms - 60_000
    raw = signed(p, [encode(make_record(77_777, end_ms=old_ms))])
    p.reseal_body(H, [(item_of(raw), raw), *p.items(H)[1:]])


@changes("body[2].tx_id")
def transaction_wholly_void(p: Parts) -> None:
    raw = signed(p, p.transaction(H).items[:2])
    p.reseal_body(H, [*p.items(H), (item_of(raw), raw)])


@changes("body[0].void_bitmap")
def void_record_made_to_count(p: Parts) -> None:
    first, *rest = p.items(H)
    p.reseal_body(H, [(BodyItem(first[0].tx_id, b""), first[1]), *rest])


@changes("body[1].void_bitmap")
def good_record_made_void(p: Parts) -> None:
    body = p.body(H)
    p.put_body(H, [body[0], BodyItem(body[1].tx_id, b"\x01")])


@changes("tx_count")
def body_item_removed(p: Parts) -> None:
    p.put(H, body=encode(p.body(H)[:1]), transactions=p.blocks[H - 1].transactions[:1])


@changes("tx_count")
def body_item_added(p: Parts) -> None:
    raw = signed(p, [encode(make_record(77_777, end_ms=p.transaction(H).envelope.created_ms - 1))])
    p.put(
        H,
        body=encode([*p.body(H), item_of(raw)]),
        transactions=[*p.blocks[H - 1].transactions, raw],
    )


@changes("tx_root")
def body_reordered(p: Parts) -> None:
    p.put(H, body=encode(p.body(H)[::-1]), transactions=p.blocks[H - 1].transactions[::-1])


@changes("body")
def body_spelled_otherwise(p: Parts) -> None:
    p.put(H, body=longer_spelling(p.blocks[H - 1].body))


@changes("header")
def header_spelled_otherwise(p: Parts) -> None:
    p.put(H, sealed=longer_spelling(p.blocks[H - 1].sealed))


@changes("header")
def header_is_garbage(p: Parts) -> None:
    p.put(H, sealed=p.blocks[H - 1].sealed[:-3])


@changes("height")
def header_of_another_block(p: Parts) -> None:
    p.put(H, sealed=p.blocks[H].sealed)


@changes("height")
def height_changed(p: Parts) -> None:
    p.put_header(H, height=H + 1)


@changes("slot")
def slot_of_the_parent(p: Parts) -> None:
    p.put_header(H, slot=p.header(H - 1).slot)


@changes("producer_key_id")
def slot_of_another(p: Parts) -> None:
    p.reseal(H, slot=p.header(H).slot + 1)


def another_producer(p: Parts) -> bytes:
    """Return the key of a producer whose slot it is not."""
    return next(key_id for key_id in OWNER if key_id != p.header(H).producer_key_id)


@changes("producer_key_id")
def producer_changed(p: Parts) -> None:
    p.put_header(H, producer_key_id=another_producer(p))


@changes("producer_key_id")
def sealed_by_another_producer(p: Parts) -> None:
    p.reseal(H, producer_key_id=another_producer(p))


@changes("producer_key_id")
def sealed_by_a_stranger(p: Parts) -> None:
    stranger = PrivateKey.from_seed(b"stranger")
    p.reseal(H, key=stranger, producer_key_id=stranger.key_id)


@changes("signature")
def sealed_by_the_wrong_key(p: Parts) -> None:
    p.reseal(H, key=PrivateKey.from_seed(b"stranger"))


@changes("signature")
def signature_flipped(p: Parts) -> None:
    signature = bytearray(p.sealed(H).signature)
    signature[3] ^= 0x80
    p.put_sealed(H, signature=bytes(signature))


@changes("signature")
def signature_high_s(p: Parts) -> None:
    p.put_sealed(H, signature=high_s(p.sealed(H).signature))


@changes("signature")
def signature_of_another_block(p: Parts) -> None:
    p.put_sealed(H, signature=p.sealed(H - 4).signature)


@changes("totals.talk_ms")
def resealed_with_wrong_totals(p: Parts) -> None:
    totals = p.header(H).totals
    p.reseal(H, totals=msgspec.structs.replace(totals, talk_ms=totals.talk_ms + 1))


@changes("parent_id", H + 1)
def resealed_with_other_right_contents(p: Parts) -> None:
    """The producer takes its second transaction back: nothing in the block itself is wrong."""
    kept = p.items(H)[:1]
    records = [decode(item, CallRecord) for item in p.transaction(H, 0).items]
    bitmap = kept[0][0].void_bitmap
    counted = [r for i, r in enumerate(records) if not bitmap[0] >> i & 1]
    derived = msgspec.structs.replace(totals_of(counted), void=bitmap[0].bit_count())
    p.put(H, body=encode([kept[0][0]]), transactions=[kept[0][1]])
    p.reseal(H, tx_count=1, tx_root=body_root([kept[0][0]]), totals=derived)


@changes("qc_hash")
def certificate_removed(p: Parts) -> None:
    p.put_certificate(H, None)


@changes("certificate.t_height", H + 1)
def certificate_carried_twice(p: Parts) -> None:
    p.put_certificate(H + 1, p.sealed(H).certificate, seal=True)


@changes("certificate.t_id")
def certificate_target_changed(p: Parts) -> None:
    p.put_certificate(H, msgspec.structs.replace(p.sealed(H).certificate, t_id=b"\x22" * 32))


@changes("certificate.t_height")
def certificate_target_too_high(p: Parts) -> None:
    p.put_certificate(H, msgspec.structs.replace(p.sealed(H).certificate, t_height=H + 5))


@changes("certificate.s_id")
def certificate_source_changed(p: Parts) -> None:
    p.put_certificate(H, msgspec.structs.replace(p.sealed(H).certificate, s_id=b"\x22" * 32))


@changes("certificate.s_height")
def certificate_source_too_low(p: Parts) -> None:
    """A quorum that skipped a justified block: signed in earnest, and still not the one right link."""
    certificate = p.sealed(H).certificate
    low = msgspec.structs.replace(certificate, s_height=1, s_id=p.blocks[0].stated_id)
    order = [producer.member_id for producer in elect(genesis_state(p.genesis))]
    p.put_certificate(H, certify(p.genesis, low, order[:3], order), seal=True)


@changes("certificate.parts.signatures")
def certificate_signature_changed(p: Parts) -> None:
    first, *rest = p.sealed(H).certificate.parts[0].signatures
    p.change_part(H, signatures=[first[:-1] + bytes([first[-1] ^ 1]), *rest])


@changes("certificate.parts.signatures")
def certificate_signers_swapped(p: Parts) -> None:
    signers = p.sealed(H).certificate.parts[0].signers[0]
    p.change_part(H, signers=bytes([0b1110 if signers != 0b1110 else 0b0111]))


@changes("certificate.parts.signers")
def certificate_without_a_quorum(p: Parts) -> None:
    part = p.sealed(H).certificate.parts[0]
    bits = part.signers[0]
    p.change_part(H, signers=bytes([bits & (bits - 1)]), signatures=part.signatures[1:])


@changes("certificate.parts.signers")
def certificate_signer_beyond_the_set(p: Parts) -> None:
    p.change_part(H, signers=b"\x13")


@changes("certificate.parts")
def certificate_of_another_set(p: Parts) -> None:
    p.change_part(H, set_id=1)


@changes("qc_hash")
def certificate_of_another_quorum(p: Parts) -> None:
    """Good signatures, but not the certificate that the header commits to."""
    certificate = p.sealed(H).certificate
    order = [producer.member_id for producer in elect(genesis_state(p.genesis))]
    made = [certify(p.genesis, certificate, [n for n in order if n != gone], order) for gone in order]
    p.put_certificate(H, next(one for one in made if one != certificate))


def header_change(field: str, value: object) -> Change:
    return lambda parts: parts.put_header(H, **{field: value})


def totals_change(field: str) -> Change:
    def change(parts: Parts) -> None:
        totals = parts.header(H).totals
        value = [] if field == "mos" else getattr(totals, field) + 1
        parts.put_header(H, totals=msgspec.structs.replace(totals, **{field: value}))

    return change


for _name in ("chain_id", "parent_id", "rule_set", "tx_root", "state_root", "history_root", "qc_hash"):
    CONTENTS[f"header_{_name}"] = (header_change(_name, b"\x33" * 32), H, _name)
CONTENTS["header_tx_count"] = (header_change("tx_count", 3), H, "tx_count")
for _name in ("records", "void", "talk_ms", "octets", "device_mj", "network_mj", "server_mj", "co2_ug", "mos"):
    CONTENTS[f"totals_{_name}"] = (totals_change(_name), H, f"totals.{_name}")


@pytest.mark.parametrize("name", CONTENTS)
def test_a_change_is_found_in_an_export(name: str, parts: Parts, rules: RuleSet) -> None:
    change, height, field = CONTENTS[name]
    change(parts)
    report = verify_chain(parts.to_source(), parts.genesis, rules=rules)
    assert found(report) == (height, field)
    assert (report.height, report.blocks, report.ok) == (height - 1, height - 1, False)


def setup_minute(parts: Parts) -> int:
    """Return the minute in which the first call of block H was set up."""
    return decode(parts.transaction(H).items[0], CallRecord).setup_ms // 60_000


@pytest.mark.parametrize("name", CONTENTS)
def test_a_change_is_found_in_a_data_directory(
    name: str, parts: Parts, original: Parts, data_dir: Path, tmp_path: Path, rules: RuleSet
) -> None:
    change, height, field = CONTENTS[name]
    change(parts)
    if name == "resealed_with_other_right_contents":
        # The record index still has what was taken back, which shows a block earlier than the parent id.
        height, field = H, f"record_row[minute {setup_minute(parts)}]"
    path = parts.to_directory(data_dir, original, tmp_path / "data")
    assert found(audit_directory(path, parts.genesis, rules)) == (height, field)
    shutil.rmtree(path)


def test_there_are_many_changes() -> None:
    assert len(CONTENTS) >= 60


# -- genesis ---------------------------------------------------------------------------------------------------------


def test_another_weight_in_genesis_is_another_chain(original: Parts, genesis: Genesis, rules: RuleSet) -> None:
    members = [msgspec.structs.replace(genesis.members[0], weight=101), *genesis.members[1:]]
    other = msgspec.structs.replace(genesis, members=members)
    report = verify_chain(original.to_source(), other, rules=rules)
    assert found(report) == (1, "chain_id")


def test_a_forged_chain_of_the_same_members_is_another_chain(genesis: Genesis, rules: RuleSet) -> None:
    cluster = Cluster(make_genesis(name="another", members=MEMBERS))
    cluster.submit(make_raw(cluster.genesis, range(3), now_ms=cluster.now_ms))
    for _ in range(4):
        cluster.step()
    forged = take_apart(cluster.peers[0].store, cluster.genesis)
    assert forged.head.final_height > 0
    assert found(verify_chain(forged.to_source(), genesis, rules=rules)) == (1, "chain_id")


# -- the end of the chain --------------------------------------------------------------------------------------------

END: dict[str, tuple[Change, int, str]] = {}


def end(field: str, height: int = 14) -> Callable[[Change], Change]:
    """Note a change to what proves the last block final."""

    def note(change: Change) -> Change:
        END[change.__name__] = (change, height, field)
        return change

    return note


def put_final(parts: Parts, /, **changes: object) -> None:
    certificate = msgspec.structs.replace(decode(parts.finality.certificate, Certificate), **changes)
    parts.finality = replace(parts.finality, certificate=encode(certificate))


def put_child(parts: Parts, *, seal: bool = False, certificate: object = ..., **changes: object) -> None:
    sealed = decode(parts.finality.child, SealedHeader)
    header = msgspec.structs.replace(sealed.header, **changes)
    signature = OWNER[sealed.header.producer_key_id].sign(block_id_of(header)) if seal else sealed.signature
    kept = sealed.certificate if certificate is ... else certificate
    parts.finality = replace(parts.finality, child=encode(SealedHeader(header, signature, kept)))


@end("finality")
def final_certificate_missing(p: Parts) -> None:
    p.finality = replace(p.finality, certificate=None)


@end("finality")
def child_missing(p: Parts) -> None:
    p.finality = replace(p.finality, child=None)


@end("final_certificate.parts.signatures")
def final_signature_changed(p: Parts) -> None:
    part = decode(p.finality.certificate, Certificate).parts[0]
    first, *rest = part.signatures
    put_final(p, parts=[msgspec.structs.replace(part, signatures=[bytes([first[0] ^ 1]) + first[1:], *rest])])


@end("final_certificate.parts.signers")
def final_quorum_missing(p: Parts) -> None:
    part = decode(p.finality.certificate, Certificate).parts[0]
    bits = part.signers[0]
    put_final(
        p, parts=[msgspec.structs.replace(part, signers=bytes([bits & (bits - 1)]), signatures=part.signatures[1:])]
    )


@end("final_certificate.t_id")
def final_target_changed(p: Parts) -> None:
    put_final(p, t_id=b"\x44" * 32)


@end("final_certificate.s_id")
def final_source_changed(p: Parts) -> None:
    put_final(p, s_id=b"\x44" * 32)


@end("final_certificate.s_height")
def final_certificate_of_an_earlier_block(p: Parts) -> None:
    p.finality = replace(p.finality, certificate=encode(p.sealed(14).certificate))


@end("final_certificate")
def final_certificate_spelled_otherwise(p: Parts) -> None:
    p.finality = replace(p.finality, certificate=longer_spelling(p.finality.certificate))


@end("child.signature")
def child_changed(p: Parts) -> None:
    put_child(p, tx_root=b"\x55" * 32)


@end("final_certificate.t_id")
def child_sealed_anew(p: Parts) -> None:
    put_child(p, seal=True, tx_root=b"\x55" * 32)


@end("child.parent_id")
def child_of_another(p: Parts) -> None:
    put_child(p, seal=True, parent_id=p.blocks[11].stated_id)


@end("child.qc_hash")
def child_without_its_certificate(p: Parts) -> None:
    put_child(p, certificate=None)


@end("child.certificate.t_id")
def child_that_justifies_nothing(p: Parts) -> None:
    """Without a certificate on the last block in its child, votes for the child have another source."""
    put_child(p, seal=True, certificate=None, qc_hash=bytes(32))
    child = decode(p.finality.child, SealedHeader)
    order = [producer.member_id for producer in elect(genesis_state(p.genesis))]
    link = msgspec.structs.replace(decode(p.finality.certificate, Certificate), t_id=block_id_of(child.header))
    p.finality = replace(p.finality, certificate=encode(certify(p.genesis, link, order[:3], order)))


@end("block", 15)
def head_higher_than_the_blocks(p: Parts) -> None:
    p.head = Head(1, 20, b"\x66" * 32)


@end("block", 13)
def tail_cut(p: Parts) -> None:
    del p.blocks[12:]


@end("head.final_id")
def head_of_another_id(p: Parts) -> None:
    p.head = Head(1, 14, b"\x66" * 32)


@end("head", 1)
def beginning_cut(p: Parts) -> None:
    p.head = Head(3, 14, p.head.final_id)
    del p.blocks[:2]


@end("height", 6)
def block_removed(p: Parts) -> None:
    del p.blocks[5]


@end("height", 7)
def block_twice(p: Parts) -> None:
    p.blocks.insert(6, p.blocks[5])


@end("transactions", H)
def transaction_missing(p: Parts) -> None:
    p.put_transaction(H, None)


@end("transactions", H)
def transaction_too_many(p: Parts) -> None:
    p.put(H, transactions=[*p.blocks[H - 1].transactions, p.blocks[0].transactions[0]])


@pytest.mark.parametrize("name", END)
def test_a_change_at_the_end_is_found(name: str, parts: Parts, rules: RuleSet) -> None:
    change, height, field = END[name]
    change(parts)
    assert found(verify_chain(parts.to_source(), parts.genesis, rules=rules)) == (height, field)


def test_a_well_made_shorter_chain_is_found_by_a_known_head(parts: Parts, rules: RuleSet) -> None:
    """Height 11 was final once, and what proved it is in the blocks above it: only a later head tells."""
    known = KnownHead(14, parts.head.final_id)
    child, carrier = parts.sealed(12), parts.sealed(13)
    assert (carrier.certificate.s_height, carrier.certificate.t_height) == (11, 12)
    parts.finality = RawFinality(encode(child), encode(carrier.certificate))
    parts.head = Head(1, 11, parts.blocks[10].stated_id)
    del parts.blocks[11:]
    short = verify_chain(parts.to_source(), parts.genesis, rules=rules)
    assert (short.ok, short.height, short.final_height) == (True, 11, 11)
    report = verify_chain(parts.to_source(), parts.genesis, rules=rules, known=[known])
    assert (found(report), report.height) == ((12, "block"), 11)
    assert report.first_difference.actual == "nothing above height 11"
