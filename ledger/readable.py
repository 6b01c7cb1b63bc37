"""The readable JSON of protocol values: field names, hex for bytes, names for enumerations, integers for quantities.

One pair of functions serves every type: records, blocks, genesis, receipts.

Source: docs/protocol.md, "For people and other programs".
"""

from __future__ import annotations

import json
from enum import IntEnum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from ledger.codec import field_error
from ledger.errors import EncodingError, FieldError

T = TypeVar("T")

NAME_CHARS_SHOWN: Final = 100
"""Of the name of a field that there is not."""


def parse_json(data: bytes) -> Any:
    """Return the JSON value in ``data``, in which no object names a field twice.

    Raises EncodingError for what is not JSON, FieldError for a field given twice: programs differ in which of the two
    they would take.
    """
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise EncodingError(f"not valid JSON: {error}") from None


def shown_name(name: str) -> str:
    """Return the name of a field that somebody else gave, for a terminal: on one line, no escape sequences, bounded."""
    return ascii(name)[1:-1][:NAME_CHARS_SHOWN] or "''"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise FieldError("given twice", where=shown_name(name))
        fields[name] = value
    return fields


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def to_readable(value: Any) -> Any:
    """Return ``value`` as JSON-compatible dicts, lists, strings and integers."""
    if isinstance(value, msgspec.Struct):
        return {name: to_readable(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, IntEnum):
        return value.name.lower()
    if isinstance(value, list | tuple):
        return [to_readable(item) for item in value]
    return value


def from_readable(value: Any, kind: type[T]) -> T:
    """Return the protocol value that the JSON value ``value`` names.

    Raises FieldError naming the path of the first field that is missing, unknown, of the wrong type or out of bounds.
    """
    built = _build(value, kind, "")
    try:
        return msgspec.convert(_arrays(built), kind)
    except msgspec.ValidationError as error:
        raise field_error(error, kind) from None


def _arrays(value: Any) -> Any:
    """Return structs as the arrays that msgspec converts with every bound checked."""
    if isinstance(value, _Fields):
        return [_arrays(item) for item in value]
    if isinstance(value, list):
        return [_arrays(item) for item in value]
    return value


class _Fields(list[Any]):
    """The fields of one struct, in order."""


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _build(value: Any, kind: Any, path: str) -> Any:
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        if value is None:
            return None
        options = [option for option in get_args(kind) if option is not type(None)]
        return _build(value, options[0], path) if len(options) == 1 else value
    if origin is list:
        return _build_list(value, get_args(kind)[0], path)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _build_struct(value, kind, path)
    # However deep it is nested, nobody walks through it after this.
    if isinstance(value, list | dict):
        raise FieldError("wrong type", where=path, expected="a single value", actual=type(value).__name__)
    # JSON may spell half of a pair: no text, and nothing that could be encoded.
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise FieldError("not text", where=path, expected="Unicode without lone surrogates", actual=ascii(value))
    if not isinstance(kind, type):
        return value
    if issubclass(kind, bytes):
        return _build_bytes(value, path)
    if issubclass(kind, IntEnum):
        return _build_enum(value, kind, path)
    if isinstance(value, bool) or (isinstance(value, float) and issubclass(kind, int)):
        raise FieldError("wrong type", where=path, expected="an integer", actual=_shown(value))
    return value


def _shown(value: Any) -> str:
    """Return a scalar as it was given, of anything else its type: it may be nested too deep to print."""
    return repr(value) if isinstance(value, str | int | float | None) else type(value).__name__


def _build_list(value: Any, kind: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise FieldError("wrong type", where=path, expected="an array", actual=type(value).__name__)
    return [_build(item, kind, f"{path}[{index}]") for index, item in enumerate(value)]


def _build_struct(value: Any, kind: type[msgspec.Struct], path: str) -> _Fields:
    if not isinstance(value, dict):
        raise FieldError("wrong type", where=path or kind.__name__, expected="an object", actual=type(value).__name__)
    names = kind.__struct_fields__
    prefix = f"{path}." if path else ""
    for name in value:
        if name not in names:
            raise FieldError(
                "unknown field", where=f"{prefix}{shown_name(name)}", expected="one of " + ", ".join(names)
            )
    for name in names:
        if name not in value:
            raise FieldError("missing field", where=f"{prefix}{name}")
    hints = _hints(kind)
    return _Fields(_build(value[name], hints[name], f"{prefix}{name}") for name in names)


def _build_bytes(value: Any, path: str) -> bytes:
    try:
        data = bytes.fromhex(value)
    except (TypeError, ValueError):
        data = None
    if data is None or data.hex() != value:
        raise FieldError("not bytes", where=path, expected="lower-case hex", actual=_shown(value))
    return data


def _build_enum(value: Any, kind: type[IntEnum], path: str) -> int:
    if isinstance(value, str):
        for member in kind:
            if member.name.lower() == value:
                return int(member)
    names = ", ".join(member.name.lower() for member in kind)
    raise FieldError("not a known name", where=path, expected=f"one of {names}", actual=_shown(value))
