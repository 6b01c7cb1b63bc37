"""Reading members of a JSON object that a platform wrote: typed, bounded, by name; every error says where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ledger.cdr import ReleasedBy
from ledger.commitment import PRIVATE_TEXT_MAX
from ledger.errors import ConfigError, EncodingError, FieldError
from telephony.adapters.base import decode_json, is_utf8

_DIGITS: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_Q850: Final = re.compile(r"Q\.850\b[^,]*?;\s*cause\s*=\s*([0-9]{1,3})(?![0-9])", re.ASCII | re.IGNORECASE)


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


def decode_fields(document: bytes) -> tuple[Fields, str]:
    """Return the JSON object of a document, and its text as it came.

    Raises EncodingError where it is not JSON, FieldError where it is no object or over PRIVATE_TEXT_MAX bytes.
    """
    if len(document) > PRIVATE_TEXT_MAX:
        expected = f"at most {PRIVATE_TEXT_MAX} bytes"
        raise FieldError("too long", where="document", expected=expected, actual=len(document))
    return Fields(decode_json(document)), decode_text(document)


def decode_text(document: bytes) -> str:
    """Return a document as text. Raises EncodingError where it is not UTF-8."""
    try:
        return document.decode()
    except UnicodeDecodeError as error:
        raise EncodingError("not UTF-8", where="document", expected="UTF-8 text", actual=error.reason) from None


def q850_cause(reason: str) -> int:
    """Return the cause of a Reason header (RFC 3326) for Q.850, 0 to 127; 0 where it has none."""
    found = _Q850.search(reason)
    cause = int(found[1]) if found else 0
    return cause if cause <= 127 else 0


def released_by_code(sip_code: int) -> ReleasedBy:
    """Return who gave a failed attempt up, by its final response: 487 comes from a CANCEL, busy from the callee."""
    if sip_code == 487:
        return ReleasedBy.CALLER
    return ReleasedBy.CALLEE if sip_code in {480, 486, 600, 603} else ReleasedBy.NETWORK


def check_options(name: str, options: Mapping[str, Any], known: frozenset[str] = frozenset()) -> None:
    """Raise ConfigError for an option that an adapter does not have."""
    for option in options:
        if option not in known:
            expected = ", ".join(sorted(known)) or "none"
            raise ConfigError("unknown option", where=f"sources.{name}.{option}", expected=expected)
