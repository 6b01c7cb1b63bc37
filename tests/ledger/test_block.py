"""Blocks: ids, roots, bitmaps, sums."""

from __future__ import annotations

from hashlib import sha256

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import merkle
from ledger.block import (
    EMPTY_TOTALS,
    MOS_TOTALS_MAX,
    BodyItem,
    Certificate,
    CertificatePart,
    Header,
    MosTotal,
    Totals,
    add_totals,
    bitmap_indexes,
    block_id_of,
    body_root,
    certificate_hash,
    genesis_block_id,
    is_void,
    sum_totals,
    void_bitmap,
    vote_digest,
)
from ledger.codec import INT_MAX, ZERO32, decode, encode
from ledger.crypto import hash_of
from ledger.errors import FieldError
from tests.ledger.ledger_samples import CHAIN_ID, plain, values_of

INDEXES = st.integers(1, 1000).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1))))


@given(INDEXES)
def test_a_bitmap_holds_exactly_its_indexes(case: tuple[int, set[int]]) -> None:
    count, indexes = case
    bitmap = void_bitmap(indexes, count)
    assert bitmap_indexes(bitmap) == sorted(indexes)
    assert [i for i in range(count) if is_void(bitmap, i)] == sorted(indexes)
    assert len(bitmap) == ((count + 7) // 8 if indexes else 0)
    assert void_bitmap(sorted(indexes), count) == bitmap


@given(st.binary(max_size=125), st.integers(0, 5_000))
def test_any_bitmap_answers_for_any_index(bitmap: bytes, index: int) -> None:
    assert is_void(bitmap, index) == (index in bitmap_indexes(bitmap))


def test_bits_begin_at_the_lowest() -> None:
    assert void_bitmap({0}, 1) == b"\x01"
    assert void_bitmap({7, 8}, 9) == b"\x80\x01"
    assert void_bitmap(set(), 9) == b""


@settings(max_examples=25, deadline=None)
@given(values_of(Header))
def test_ids_and_roots(header: Header) -> None:
    assert block_id_of(header) == hash_of("header", plain(header))
    assert genesis_block_id(CHAIN_ID) == CHAIN_ID


@settings(max_examples=25, deadline=None)
@given(st.lists(values_of(BodyItem), max_size=5))
def test_the_body_root_is_over_the_encoded_items(body: list[BodyItem]) -> None:
    assert body_root(body) == merkle.root_of([msgpack.packb(plain(item)) for item in body])


def test_the_root_of_an_empty_body() -> None:
    assert body_root([]) == sha256(b"").digest()


@settings(max_examples=25, deadline=None)
@given(values_of(Certificate))
def test_the_hash_of_a_certificate(certificate: Certificate) -> None:
    assert certificate_hash(certificate) == sha256(msgpack.packb(plain(certificate))).digest()
    assert certificate_hash(None) == ZERO32


def test_a_vote_is_bound_to_chain_and_link() -> None:
    base = (CHAIN_ID, 1, bytes(32), 2, bytes(31) + b"\x01")
    assert vote_digest(*base) == hash_of("vote", list(base))
    others = [
        (bytes(32), *base[1:]),
        (*base[:1], 0, *base[2:]),
        (*base[:2], bytes(31) + b"\x02", *base[3:]),
        (*base[:3], 3, *base[4:]),
        (*base[:4], bytes(32)),
    ]
    assert len({vote_digest(*args) for args in [base, *others]}) == 6


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ([0, b"", [bytes(64)]], "signers"),
        ([0, bytes(4), [bytes(64)]], "signers"),
        ([0, b"\x01", []], "signatures"),
        ([0, b"\x01", [bytes(64)] * 22], "signatures"),
        ([0, b"\x01", [bytes(63)]], "signatures[0]"),
        ([-1, b"\x01", [bytes(64)]], "set_id"),
        ([2**63, b"\x01", [bytes(64)]], "set_id"),
    ],
)
def test_bounds_of_a_certificate_part(part: list[object], where: str) -> None:
    with pytest.raises(FieldError) as caught:
        decode(msgpack.packb(part), CertificatePart)
    assert caught.value.where == where


@pytest.mark.parametrize("count", [0, 3])
def test_a_certificate_is_of_one_set_or_two(count: int) -> None:
    part = [0, b"\x01", [bytes(64)]]
    with pytest.raises(FieldError) as caught:
        decode(msgpack.packb([0, bytes(32), 1, bytes(32), [part] * count]), Certificate)
    assert caught.value.where == "parts"


def test_a_bitmap_is_of_a_thousand_records_at_most() -> None:
    assert decode(msgpack.packb([bytes(32), bytes(125)]), BodyItem) == BodyItem(bytes(32), bytes(125))
    with pytest.raises(FieldError) as caught:
        decode(msgpack.packb([bytes(32), bytes(126)]), BodyItem)
    assert caught.value.where == "void_bitmap"


def test_totals_hold_forty_kinds_of_mos() -> None:
    mos = [MosTotal(method, kind, 1, 1000, 1000) for method in range(1, 9) for kind in range(1, 6)]
    assert len(mos) == MOS_TOTALS_MAX
    totals = Totals(0, 0, 0, 0, 0, 0, 0, 0, mos)
    assert decode(encode(totals), Totals) == totals
    with pytest.raises(FieldError) as caught:
        decode(encode(Totals(0, 0, 0, 0, 0, 0, 0, 0, [*mos, mos[0]])), Totals)
    assert caught.value.where == "mos"


def test_negative_and_huge_slots_do_not_decode() -> None:
    header = Header(1, CHAIN_ID, 1, 1, CHAIN_ID, bytes(20), ZERO32, 0, ZERO32, EMPTY_TOTALS, ZERO32, ZERO32, ZERO32)
    assert decode(encode(header), Header) == header
    for index, name in ((2, "height"), (3, "slot")):
        for value in (-1, INT_MAX + 1):
            fields = plain(header)
            fields[index] = value
            with pytest.raises(FieldError) as caught:
                decode(msgpack.packb(fields), Header)
            assert caught.value.where == name


SMALL = st.integers(0, 10**6)
MOS = st.builds(MosTotal, st.integers(1, 3), st.integers(1, 2), st.integers(1, 9), SMALL, SMALL)
TOTALS = st.builds(
    Totals,
    *[SMALL] * 8,
    st.lists(MOS, unique_by=lambda m: (m.method, m.kind)).map(
        lambda many: sorted(many, key=lambda m: (m.method, m.kind))
    ),
)


@given(TOTALS, TOTALS, TOTALS)
def test_sums_do_not_depend_on_their_order(a: Totals, b: Totals, c: Totals) -> None:
    assert add_totals(a, b) == add_totals(b, a)
    assert add_totals(add_totals(a, b), c) == add_totals(a, add_totals(b, c)) == sum_totals([c, b, a])
    assert add_totals(a, EMPTY_TOTALS) == a
    assert sum_totals([]) == EMPTY_TOTALS
    both = add_totals(a, b)
    assert both.octets == a.octets + b.octets
    assert [(m.method, m.kind) for m in both.mos] == sorted({(m.method, m.kind) for t in (a, b) for m in t.mos})


def test_mos_of_different_methods_and_kinds_is_never_added_up() -> None:
    one = Totals(1, 0, 0, 0, 0, 0, 0, 0, [MosTotal(1, 2, 1, 4000, 4000), MosTotal(4, 1, 2, 6000, 2900)])
    two = Totals(1, 0, 0, 0, 0, 0, 0, 0, [MosTotal(1, 1, 1, 1000, 1000), MosTotal(1, 2, 3, 9000, 2500)])
    assert add_totals(one, two).mos == [
        MosTotal(1, 1, 1, 1000, 1000),
        MosTotal(1, 2, 4, 13000, 2500),
        MosTotal(4, 1, 2, 6000, 2900),
    ]
