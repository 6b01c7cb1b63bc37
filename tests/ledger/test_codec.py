"""One value, one spelling; and nothing but our own errors, whatever the bytes."""

from __future__ import annotations

from typing import Annotated, Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.block import Block, Totals
from ledger.cdr import CallRecord
from ledger.codec import Count, Wire, decode, decode_each, decode_loose, encode
from ledger.entries import Proposal
from ledger.errors import EncodingError, FieldError, LedgerError, NonCanonicalEncoding
from ledger.genesis import Genesis, MemberKey, Zone
from ledger.models.rounding import divide_half_up
from ledger.transaction import Envelope, Transaction
from tests.ledger.ledger_samples import GENESIS, WIRE_TYPES, make_record, plain, respelled, sign_records, values_of

KINDS = pytest.mark.parametrize("kind", WIRE_TYPES, ids=lambda kind: kind.__name__)


@KINDS
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_what_is_encoded_decodes_to_itself_and_is_what_msgpack_writes(kind: type[Wire], data: st.DataObject) -> None:
    value = data.draw(values_of(kind))
    encoded = encode(value)
    assert decode(encoded, kind) == value
    assert encoded == msgpack.packb(plain(value), use_bin_type=True)
    assert encode(decode(encoded, kind)) == encoded


@KINDS
@settings(max_examples=3, deadline=None)
@given(st.data())
def test_every_other_spelling_is_refused(kind: type[Wire], data: st.DataObject) -> None:
    value = data.draw(values_of(kind))
    for other in respelled(plain(value))[:300]:
        with pytest.raises(EncodingError):
            decode(other, kind)


@KINDS
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_arbitrary_and_damaged_bytes_raise_only_encoding_errors(kind: type[Wire], data: st.DataObject) -> None:
    damaged = bytearray(encode(data.draw(values_of(kind))))
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for attempt in (bytes(damaged), bytes(damaged[:cut]), data.draw(st.binary(max_size=80))):
        try:
            value = decode(attempt, kind)
        except LedgerError as error:
            assert isinstance(error, EncodingError)  # noqa: PT017
            assert error.where  # noqa: PT017
        else:
            assert encode(value) == attempt


@KINDS
def test_trailing_missing_and_extra_elements_are_refused(kind: type[Wire]) -> None:
    least = len(kind.__struct_fields__)
    for raw in (
        b"",
        b"\xc0",
        b"\x80",
        b"\xc1",
        bytes([0x90]),
        b"\xdd\xff\xff\xff\xff",
        b"\xdc\x00" + bytes([least + 1]),
    ):
        with pytest.raises(EncodingError):
            decode(raw, kind)


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(EncodingError, match="trailing"):
        decode(encode(make_record()) + b"\x00", CallRecord)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"\x91\x01", None),
        (b"\x91\xcc\x01", NonCanonicalEncoding),
        (b"\x91\xd0\x01", NonCanonicalEncoding),
        (b"\xdc\x00\x01\x01", NonCanonicalEncoding),
        (b"\xdd\x00\x00\x00\x01\x01", NonCanonicalEncoding),
        (b"\x91\xca\x3f\x80\x00\x00", FieldError),  # 1.0
        (b"\x91\xcb\x3f\xf0" + bytes(6), FieldError),
        (b"\x91\xc3", FieldError),  # true
        (b"\x91\xc0", FieldError),
        (b"\x91\xa11", FieldError),
        (b"\x91\xff", FieldError),  # -1
        (b"\x91\xd4\x00\x00", FieldError),  # an extension
        (b"\x91\xd6\xff\x00\x00\x00\x00", FieldError),  # a timestamp
        (b"\x91\xcf" + b"\x80" + bytes(7), FieldError),  # 2^63
        (b"\x81\x00\x01", FieldError),  # a map
        (b"\x91\xc1", EncodingError),
        (b"\x91", EncodingError),
    ],
)
def test_spellings_of_one(raw: bytes, error: type[EncodingError] | None) -> None:
    class One(Wire, frozen=True):
        value: Count

    if error is None:
        assert decode(raw, One) == One(1)
    else:
        with pytest.raises(EncodingError) as caught:
            decode(raw, One)
        assert type(caught.value) is error


def test_invalid_utf8_is_an_encoding_error() -> None:
    class Text(Wire, frozen=True):
        value: Zone

    with pytest.raises(EncodingError):
        decode(b"\x91\xa2\xff\xfe", Text)


@pytest.mark.parametrize(
    ("value", "kind", "where"),
    [
        ([*plain(make_record())[:-1], 5], CallRecord, "energy"),
        ([2, *plain(make_record())[1:]], CallRecord, "version"),
        ([1, 9, *plain(make_record())[2:]], CallRecord, "service"),
        ([[bytes(33), 8], 1], list[MemberKey], "[0].roles"),
        ([1], CallRecord, "CallRecord"),
    ],
)
def test_errors_name_the_field(value: Any, kind: type, where: str) -> None:
    with pytest.raises(FieldError) as caught:
        decode(msgpack.packb(value), kind)
    assert caught.value.where == where


def test_errors_name_nested_fields() -> None:
    raw = plain(GENESIS)
    raw[4][1][2][0][1] = 99
    with pytest.raises(FieldError) as caught:
        decode(msgpack.packb(raw), Genesis)
    assert caught.value.where == "members[1].keys[0].roles"
    raw = plain(sign_records([make_record()]))
    raw[0][3] = "ALBA"
    with pytest.raises(FieldError) as caught:
        decode(msgpack.packb(raw), Transaction)
    assert caught.value.where == "envelope.member_id"
    assert str(caught.value.expected) == "1 to 32 of a-z, 0-9 and -"


def test_a_pattern_is_told_in_words_also_behind_an_optional() -> None:
    raw = plain(GENESIS)
    raw[1] = "A Name"
    with pytest.raises(FieldError) as caught:
        decode(msgpack.packb(raw), Genesis)
    assert caught.value.what == "not of the form that this field has"
    assert (caught.value.where, caught.value.expected) == ("name", "1 to 64 of a-z, 0-9, dot, _ and -")
    with pytest.raises(FieldError) as caught:
        decode(msgpack.packb([2, "Alba", 1, [], 0, 1]), Proposal)
    assert (caught.value.where, caught.value.expected) == ("member_id", "1 to 32 of a-z, 0-9 and -")


def test_a_batch_names_the_first_item_and_its_field() -> None:
    good = encode(make_record())
    bad = msgpack.packb([*plain(make_record())[:5], -1, *plain(make_record())[6:]])
    assert decode_each([good, good], CallRecord) == [make_record(), make_record()]
    assert decode_each([], CallRecord) == []
    with pytest.raises(FieldError) as caught:
        decode_each([good, bad, b""], CallRecord, where="items")
    assert caught.value.where == "items[1].setup_ms"
    assert str(caught.value).startswith("items[1].setup_ms: Expected")


def test_a_batch_refuses_a_second_spelling() -> None:
    good = encode(make_record())
    assert good[:3] == b"\xdc\x00\x13"
    longer = b"\xdd\x00\x00\x00\x13" + good[3:]
    with pytest.raises(NonCanonicalEncoding) as caught:
        decode_each([good, longer], CallRecord)
    assert caught.value.where == "[1].CallRecord"


def test_loose_decoding_leaves_the_spelling_to_its_caller() -> None:
    good = encode(make_record())
    assert decode_loose(b"\xdd\x00\x00\x00\x13" + good[3:], CallRecord) == make_record()


def test_a_length_that_is_a_lie_allocates_nothing() -> None:
    for raw in (b"\x99" + bytes(8) + b"\xdd\xff\xff\xff\xff", b"\x92\xc6\xff\xff\xff\xff"):
        with pytest.raises(EncodingError):
            decode(raw, Totals)


def test_nesting_without_end_is_an_encoding_error() -> None:
    with pytest.raises(EncodingError):
        decode(b"\x91" * 100_000, Block)


def test_struct_names_in_errors_are_those_of_the_type() -> None:
    with pytest.raises(EncodingError) as caught:
        decode(b"\xc1", Envelope)
    assert caught.value.where == "Envelope"
    with pytest.raises(EncodingError) as caught:
        decode(b"\xc1", list[Envelope])
    assert caught.value.where == "list"


@given(st.integers(0, 10**30), st.integers(1, 10**15))
def test_half_up(numerator: int, denominator: int) -> None:
    result = divide_half_up(numerator, denominator)
    assert -denominator <= 2 * (numerator - result * denominator) < denominator


@pytest.mark.parametrize(("a", "b", "expected"), [(0, 3, 0), (1, 2, 1), (1, 3, 0), (2, 3, 1), (5, 2, 3), (7, 2, 4)])
def test_half_up_by_example(a: int, b: int, expected: int) -> None:
    assert divide_half_up(a, b) == expected


def test_every_integer_list_and_string_has_bounds() -> None:
    """What has no bound in its type could be made to grow by whoever sends it."""
    unbounded = []

    def visit(kind: Any, name: str, bounds: set[str]) -> None:
        info = msgspec.inspect.type_info(kind) if not isinstance(kind, msgspec.inspect.Type) else kind
        if isinstance(info, msgspec.inspect.Metadata):  # a type with a description
            info = info.type
        if isinstance(info, msgspec.inspect.StructType):
            for field in info.fields:
                visit(field.type, f"{info.cls.__name__}.{field.name}", bounds)
        elif isinstance(info, msgspec.inspect.UnionType):
            for option in info.types:
                visit(option, name, bounds)
        elif isinstance(info, msgspec.inspect.ListType):
            if info.max_length is None:
                unbounded.append(name)
            visit(info.item_type, name, bounds)
        elif isinstance(info, msgspec.inspect.IntType):
            if info.ge is None or info.le is None:
                unbounded.append(name)
        elif isinstance(info, msgspec.inspect.BytesType | msgspec.inspect.StrType):
            if info.max_length is None:
                unbounded.append(name)
        else:
            assert isinstance(
                info, msgspec.inspect.LiteralType | msgspec.inspect.EnumType | msgspec.inspect.NoneType
            ), name

    for kind in WIRE_TYPES:
        visit(kind, kind.__name__, set())
    assert unbounded == []


def test_the_bound_visitor_sees_what_has_none() -> None:
    kind = Annotated[list[int], msgspec.Meta(max_length=1)]
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.ListType)
    assert (info.max_length, info.item_type.ge) == (1, None)
