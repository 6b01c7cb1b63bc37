"""Reading what a platform wrote by the names of its fields: bounded, and every error says where.

``Fields`` is for platforms that write JSON with types of its own and objects in objects; ``Values`` for those whose
values are all of them texts, whatever they look like, and where one that is no text must not cost the call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from ledger.commitment import PRIVATE_TEXT_MAX
from ledger.errors import ConfigError, EncodingError, FieldError
from telephony.adapters.base import decode_json, is_utf8

NOT_TEXT: Final = "\ufffd"
"""What stands where a platform's bytes were no UTF-8."""

TEXT_BYTES_MAX: Final = 4096
"""Longest value that an adapter takes over; SIP limits none, but no Call-ID or URI that works is longer."""

_DIGITS: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_INTEGER = re.compile(r"[0-9]{1,19}", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,19}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)


class Fields:
    """A JSON object; a member that is missing, null or an empty string is unknown."""

    def __init__(self, value: object, path: str = "") -> None:
        """Take a decoded value, known as ``path`` in errors; raises FieldError for anything but an object."""
        if not isinstance(value, Mapping):
            raise FieldError(
                "not an object", where=path or "document", expected="a JSON object", actual=_kind_of(value)
            )
        self._values: Mapping[str, Any] = value
        self._path = path

    def where(self, name: str) -> str:
        """Return the path of a member, for errors."""
        return f"{self._path}.{name}" if self._path else name

    def names(self) -> list[str]:
        """Return the names of all members, in the document's order."""
        return list(self._values)

    def text(self, name: str) -> str:
        """Return a member's text, empty where unknown. Raises FieldError for another type."""
        value = self._values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str) or not is_utf8(value):
            raise FieldError("not text", where=self.where(name), expected="a string", actual=_kind_of(value))
        return value

    def required(self, name: str) -> str:
        """Return a member's text. Raises FieldError where it is unknown."""
        value = self.text(name)
        if not value:
            found = "an empty string" if self._values.get(name) == "" else "none"
            raise FieldError("missing", where=self.where(name), expected="text that is not empty", actual=found)
        return value

    def integer(self, name: str, least: int, most: int) -> int | None:
        """Return a whole number, written as number or as text; None where unknown.

        Raises FieldError for another type or one that is not ``least`` to ``most``.
        """
        value = self._values.get(name)
        if value is None or value == "":
            return None
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            expected = f"{least} to {most}"
            raise FieldError("not such a number", where=self.where(name), expected=expected, actual=_shown(value))
        return value

    def member(self, name: str) -> Fields | None:
        """Return an object in the object, None where unknown. Raises FieldError for another type."""
        value = self._values.get(name)
        return None if value is None else Fields(value, self.where(name))

    def members(self, name: str) -> list[Fields]:
        """Return the objects of a list, none where unknown. Raises FieldError for another type."""
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise FieldError("not a list", where=self.where(name), expected="a list", actual=_kind_of(value))
        return [Fields(item, f"{self.where(name)}[{index}]") for index, item in enumerate(value)]

    def value(self, name: str) -> object:
        """Return a member as it was decoded, None where missing."""
        return self._values.get(name)


def _kind_of(value: object) -> str:
    return type(value).__name__


def _shown(value: object) -> object:
    """Return a value for an error: numbers and short text; other things by their type."""
    return value if isinstance(value, int | float | str) else _kind_of(value)


class Values:
    """The values of one document by name, as text; ``notes`` collects what of them was left out and why."""

    def __init__(self, values: Mapping[str, Any], notes: list[str], prefix: str = "") -> None:
        """Take over the texts and numbers of ``values``; lists and objects are not values."""
        self._values = {name: text for name, value in values.items() if (text := _as_text(value)) is not None}
        self._prefix = prefix
        self.notes = notes

    def where(self, name: str) -> str:
        """Return the path of a field, for errors."""
        return self._prefix + name

    def plain(self, name: str) -> str:
        """Return a field's text as it is, empty where it is missing or null. Raises FieldError where too long."""
        value = self._values.get(name, "")
        if len(value) > TEXT_BYTES_MAX // 4 and len(value.encode("utf-8", "replace")) > TEXT_BYTES_MAX:
            expected = f"at most {TEXT_BYTES_MAX} bytes"
            raise FieldError("too long", where=self.where(name), expected=expected, actual=f"{len(value)} characters")
        return value

    def text(self, *names: str) -> str:
        """Return the first of the fields that has a text; one that was not UTF-8 is left out with a note."""
        for name in names:
            value = self.plain(name)
            if NOT_TEXT in value or not is_utf8(value):
                self.notes.append(f"{self.where(name)} was not UTF-8 and is left out")
            elif value:
                return value
        return ""

    def required(self, *names: str) -> str:
        """Return the text of the first field that has one, mended where it was not UTF-8. Raises FieldError."""
        for name in names:
            value = self.plain(name)
            if value:
                return value if is_utf8(value) else value.encode("utf-8", "replace").decode()
        actual = "no such field" if names[0] not in self._values else "an empty string"
        raise FieldError("missing", where=self.where(names[0]), expected="text that is not empty", actual=actual)

    def integer(self, name: str, most: int, least: int = 0) -> int | None:
        """Return an integer, ``12`` or ``12.0``; None where it is unset. Raises FieldError."""
        value = self.plain(name).strip()
        if not value:
            return None
        whole = value.removesuffix(".0")
        if not _INTEGER.fullmatch(whole) or not least <= int(whole) <= most:
            expected = f"{least} to {most}"
            raise FieldError("not such a number", where=self.where(name), expected=expected, actual=value)
        return int(whole)

    def scaled(self, name: str, places: int, most: int) -> int | None:
        """Return a decimal number times ten to the power of ``places``, rounded half up; None where it is unset.

        Raises FieldError for no number, a negative one, or one over ``most`` when scaled.
        """
        value = self.plain(name).strip()
        if not value:
            return None
        found = scaled_of(value, places)
        if found is None or not 0 <= found <= most:
            expected = f"0 to {Decimal(most).scaleb(-places)}"
            raise FieldError("not such a number", where=self.where(name), expected=expected, actual=value)
        return found


def _as_text(value: object) -> str | None:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else None


def scaled_of(text: str, places: int) -> int | None:
    """Return a decimal number times ten to the power of ``places``, rounded half up; None for no number."""
    if not _DECIMAL.fullmatch(text):
        return None
    return int(Decimal(text).scaleb(places).to_integral_value(ROUND_HALF_UP))


def decode_object(document: bytes) -> dict[str, Any]:
    """Return one decoded JSON object. Raises EncodingError, or FieldError for JSON of another kind."""
    found = decode_json(document)
    if not isinstance(found, dict):
        raise FieldError("not a CDR", where="cdr", expected="a JSON object", actual=type(found).__name__)
    return found


def decode_fields(document: bytes) -> tuple[Fields, str]:
    """Return the JSON object of a document, and its text as it came.

    Raises EncodingError where it is not JSON, FieldError where it is no object or over PRIVATE_TEXT_MAX bytes.
    """
    if len(document) > PRIVATE_TEXT_MAX:
        expected = f"at most {PRIVATE_TEXT_MAX} bytes"
        raise FieldError("too long", where="document", expected=expected, actual=len(document))
    return Fields(decode_json(document)), decode_text(document)


def text_of(data: bytes) -> str:
    """Return UTF-8 text without a byte order mark; U+FFFD stands where it was none."""
    return data.decode("utf-8", "replace").removeprefix("\ufeff")


def decode_text(document: bytes) -> str:
    """Return a document as text. Raises EncodingError where it is not UTF-8."""
    try:
        return document.decode()
    except UnicodeDecodeError as error:
        raise EncodingError("not UTF-8", where="document", expected="UTF-8 text", actual=error.reason) from None


def check_options(name: str, options: Mapping[str, Any], known: frozenset[str] = frozenset()) -> None:
    """Raise ConfigError for an option that an adapter does not have."""
    for option in options:
        if option not in known:
            expected = ", ".join(sorted(known)) or "none"
            raise ConfigError("unknown option", where=f"sources.{name}.{option}", expected=expected)
