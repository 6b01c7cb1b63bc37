"""Transactions: what is signed, and how records are packed."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import merkle
from ledger.cdr import RECORD_BYTES_MAX, CallRecord
from ledger.codec import decode, encode
from ledger.crypto import hash_of, is_valid_signature
from ledger.errors import FieldError
from ledger.transaction import (
    ITEMS_MAX,
    TRANSACTION_BYTES_MAX,
    Envelope,
    Kind,
    Transaction,
    make_transaction,
    pack_records,
    tx_id_of,
)
from tests.ledger.ledger_samples import CHAIN_ID, NOW_MS, SUBMIT_KEY, make_record, plain, sign_records, values_of


def test_what_is_signed_is_the_id_and_the_id_is_of_the_envelope() -> None:
    tx = sign_records([make_record(1), make_record(2)])
    items = [encode(make_record(1)), encode(make_record(2))]
    assert tx.items == items
    assert tx.envelope == Envelope(
        1, CHAIN_ID, Kind.RECORDS, "alba", SUBMIT_KEY.key_id, NOW_MS, NOW_MS + 3_600_000, 2, merkle.root_of(items)
    )
    assert tx_id_of(tx.envelope) == hash_of("tx", plain(tx.envelope))
    assert is_valid_signature(SUBMIT_KEY.public_key, tx_id_of(tx.envelope), tx.signature)
    assert decode(encode(tx), Transaction) == tx


@pytest.mark.parametrize(
    ("index", "value", "where"),
    [
        (0, 2, "version"),
        (1, bytes(31), "chain_id"),
        (2, 0, "kind"),
        (2, 9, "kind"),
        (3, "", "member_id"),
        (3, "a" * 33, "member_id"),
        (3, "Alba", "member_id"),
        (3, "alba\n", "member_id"),
        (3, b"alba", "member_id"),
        (4, bytes(21), "key_id"),
        (5, -1, "created_ms"),
        (6, 4_102_444_800_001, "expires_ms"),
        (7, 0, "item_count"),
        (7, 1_001, "item_count"),
        (8, bytes(33), "items_root"),
    ],
)
def test_bounds_of_an_envelope(index: int, value: object, where: str) -> None:
    fields = plain(sign_records([make_record()]).envelope)
    fields[index] = value
    with pytest.raises(FieldError) as caught:
        decode(msgpack.packb(fields), Envelope)
    assert caught.value.where == where


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_can_be_spelt(kind: Kind) -> None:
    tx = make_transaction(
        [b"x"], key=SUBMIT_KEY, member_id="alba", chain_id=CHAIN_ID, created_ms=1, expires_ms=2, kind=kind
    )
    assert decode(encode(tx), Transaction).envelope.kind is kind


@pytest.mark.parametrize(
    ("items", "where"), [([], "items"), ([b""], "items[0]"), ([b"x"] * 1_001, "items"), (None, "items")]
)
def test_bounds_of_items(items: object, where: str) -> None:
    fields = plain(sign_records([make_record()]))
    fields[2] = items
    with pytest.raises(FieldError) as caught:
        decode(msgpack.packb(fields), Transaction)
    assert caught.value.where == where


def test_an_envelope_and_its_signature_take_less_than_what_packing_leaves() -> None:
    longest = Envelope(1, bytes(32), Kind.AMEND, "a" * 32, bytes(20), 2**42, 2**42, 1_000, bytes(32))
    overhead = len(encode(Transaction(longest, bytes(64), [])))
    assert overhead + 2 + 3 <= RECORD_BYTES_MAX


@settings(max_examples=10, deadline=None)
@given(st.lists(values_of(CallRecord), min_size=1, max_size=20), st.integers(1, 200))
def test_packed_groups_keep_every_record_in_order_and_fit(records: list[CallRecord], times: int) -> None:
    groups = pack_records(records * times)
    assert [item for group in groups for item in group] == [encode(r) for r in records * times]
    for group in groups:
        assert 1 <= len(group) <= ITEMS_MAX
        tx = make_transaction(
            group, key=SUBMIT_KEY, member_id="a" * 32, chain_id=CHAIN_ID, created_ms=2**41, expires_ms=2**41 + 1
        )
        assert len(encode(tx)) <= TRANSACTION_BYTES_MAX


def test_packing_fills_up() -> None:
    assert [len(group) for group in pack_records([make_record()] * 2_500)] == [1_000, 1_000, 500]
    assert pack_records([]) == []
