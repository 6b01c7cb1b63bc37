"""Canonical MessagePack: one value, one spelling.

Everything that is hashed, signed, stored or sent is a fixed array of integers, byte strings, ASCII strings, nulls
and arrays of those. Decoding checks types and bounds, encodes again and compares: two byte strings for one value
would be a fork waiting.

Source: docs/protocol.md, "Encoding".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from ledger.errors import EncodingError, FieldError, NonCanonicalEncoding

T = TypeVar("T")

INT_MAX = 2**63 - 1
"""Largest integer of the protocol: what signed 64-bit languages hold."""

Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Bytes20 = Annotated[bytes, msgspec.Meta(min_length=20, max_length=20)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Bytes33 = Annotated[bytes, msgspec.Meta(min_length=33, max_length=33)]
Bytes64 = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Count = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
"""A count or quantity that is never negative."""
U16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=4_102_444_800_000)]
"""Milliseconds since 1970-01-01T00:00:00Z, to the end of 2099."""
MemberId = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,32}\Z", max_length=32, description="1 to 32 of a-z, 0-9 and -")
]
"""A member (a carrier): lower-case letters, digits and hyphens."""

ZERO32 = bytes(32)

_encoder = msgspec.msgpack.Encoder()
encode: Callable[[Any], bytes] = _encoder.encode
"""Return the canonical MessagePack of ``value`` (a protocol struct, or integers, bytes, strings, lists)."""


class Wire(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """Base of everything that is signed, stored or sent: a fixed array, immutable."""


@cache
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def decode(data: bytes | memoryview, kind: type[T]) -> T:
    """Return the value of type ``kind`` that ``data`` spells canonically.

    Raises FieldError naming the field for a wrong type or bound, EncodingError for bytes that are no MessagePack,
    NonCanonicalEncoding for a second spelling of a valid value.
    """
    value: T = decode_loose(data, kind)
    if encode(value) != data:
        raise NonCanonicalEncoding(
            "this is not the canonical encoding of its value",
            where=type_name(kind),
            expected="shortest integers and lengths, exactly the fields of the type",
        )
    return value


def decode_loose(data: bytes | memoryview, kind: type[T]) -> T:
    """Decode without the canonical check; only for what the caller encodes and compares itself."""
    try:
        value: T = _decoder(cast("Any", kind)).decode(data)
    except msgspec.ValidationError as error:
        raise field_error(error, kind) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, OverflowError) as error:
        raise EncodingError(f"not valid MessagePack: {error}", where=type_name(kind)) from None
    return value


def decode_each(items: Sequence[bytes], kind: type[T], *, where: str = "") -> list[T]:
    """Return the values of many canonical byte strings, decoded and compared as one batch.

    Raises as ``decode`` does, with ``where`` followed by ``[index]`` before the field.
    """
    read = _decoder(cast("Any", kind)).decode
    try:
        values = [read(item) for item in items]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError):
        _raise_first(items, kind, where)
    # Each item was one whole value, and values delimit themselves: if the whole is canonical, so is each.
    if encode(values) != _array_header(len(values)) + b"".join(items):
        _raise_first(items, kind, where)
    return values


def _array_header(count: int) -> bytes:
    """Return the canonical beginning of an array of ``count`` elements."""
    if count < 16:
        return bytes([0x90 | count])
    return b"\xdc" + count.to_bytes(2) if count < 65_536 else b"\xdd" + count.to_bytes(4)


def _raise_first(items: Sequence[bytes], kind: type[Any], where: str) -> None:
    """Raise the error of the first item that does not decode."""
    for index, item in enumerate(items):
        try:
            decode(item, kind)
        except EncodingError as error:
            raise type(error)(
                error.what,
                where=f"{where}[{index}].{error.where}",
                expected=error.expected,
                actual=error.actual,
                hint=error.hint,
            ) from None
    raise AssertionError("the batch failed, its items did not")


def type_name(kind: Any) -> str:
    """Return the name of a protocol type for a message to a person."""
    return getattr(kind, "__name__", None) or str(kind)


_STEP = re.compile(r"\[(\d+|\.\.\.)\]|\.([A-Za-z_][A-Za-z0-9_]*)")


def field_error(error: msgspec.ValidationError, kind: Any) -> FieldError:
    """Turn msgspec's ``$[3][1]`` into a FieldError whose ``where`` names the fields of ``kind``."""
    text = str(error)
    what, _, path = text.partition(" - at `")
    where = ""
    here: Any = kind
    for match in _STEP.finditer(path):
        step = match.group(1) or match.group(2)
        name, here = _child(here, step)
        where += name if name.startswith("[") or not where else f".{name}"
    form = _described(here) if " matching regex " in what else ""
    if form:
        return FieldError("not of the form that this field has", where=where or type_name(kind), expected=form)
    return FieldError(what.replace("`", ""), where=where or type_name(kind))


def _described(kind: Any) -> str:
    """Return what the type says of its form to a person, else nothing."""
    if get_origin(kind) is Annotated:
        return next((m.description for m in kind.__metadata__ if isinstance(m, msgspec.Meta) and m.description), "")
    return next((text for argument in get_args(kind) if (text := _described(argument))), "")


def _child(kind: Any, step: str) -> tuple[str, Any]:
    """Return the name and type of element ``step`` of ``kind``."""
    kind = _plain(kind)
    fields = getattr(kind, "__struct_fields__", None)
    if fields is not None:
        hints = get_type_hints(kind, include_extras=True)
        name = fields[int(step)] if step.isdigit() and int(step) < len(fields) else step
        return name, hints.get(name)
    arguments = get_args(kind)
    return f"[{step}]", arguments[0] if arguments else None


def _plain(kind: Any) -> Any:
    """Strip Annotated and Optional from a type."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    options = [a for a in get_args(kind) if a is not type(None)]
    if len(options) == 1 and type(None) in get_args(kind):
        return _plain(options[0])
    return kind
