"""Errors of adapters without the values that they found: those may be private, whatever field they stand in.

An error goes to whoever sent the document, into dead letters and into what their logs keep; a column that slipped puts
a number where a time belongs. So of a value found its form alone is told, every digit a 0 and every letter an x; what
an adapter says in words of its own stays. The value itself is in the document, which only dead letters keep.

Source: docs/privacy.md, "What is where".
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

from ledger.errors import EncodingError
from telephony.adapters.base import Adapter, Kind
from telephony.adapters.rows import form_of
from telephony.source import Source

_OWN_WORDS: Final = re.compile(
    r"""-?[0-9]{1,6}(?:\ (?:bytes|characters|octets))? | [0-9]+\ ms   # measured or computed, not quoted
    | none | nothing | null | true | false | empty | an\ empty\ string | one\ that\ does\ not
    | str | int | float | bool | list | dict | NoneType
    | ['A-Za-z :,()-]* (?:\((?:byte|char)\ [0-9]+\)|:\ line\ [0-9]+,\ column\ [0-9]+) | Input\ data\ was\ truncated
    | Expected\ `[\w\ |]*`,\ got\ `\w*`(?:\ -\ at\ `[$\[\]0-9.]*`)?""",
    re.ASCII | re.VERBOSE,
)
"""What is found that adapters and the parsers below them put in words, and no part of a document."""
_PRIVATE_LOOK: Final = re.compile(r"[0-9]{5}|@", re.ASCII)
"""No field of any platform has a name like that, but keys of documents may."""

E = TypeVar("E", bound=EncodingError)


def without_values(error: E) -> E:
    """Return an error of the same kind that quotes nothing of a document."""
    where, actual = error.where, error.actual
    if not _OWN_WORDS.fullmatch(actual):
        actual = form_of(actual)
    if _PRIVATE_LOOK.search(where):
        where = form_of(where)
    return type(error)(error.what, where=where, expected=error.expected, actual=actual, hint=error.hint)


class DiscreetAdapter:
    """An adapter whose errors quote nothing of a document.

    Attributes:
        itself: the adapter, for whoever asks of what kind it is.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.itself = adapter
        self.name = adapter.name
        self.kind: Kind = adapter.kind
        self.media_types = adapter.media_types

    def split(self, body: bytes, media_type: str, /) -> tuple[list[bytes], bool]:
        """Do what the adapter does. Raises EncodingError."""
        try:
            return self.itself.split(body, media_type)
        except EncodingError as error:
            raise without_values(error) from None

    def check(self, document: bytes) -> None:
        """Do what the adapter does. Raises EncodingError or FieldError."""
        try:
            self.itself.check(document)
        except EncodingError as error:
            raise without_values(error) from None

    def parse(self, document: bytes) -> Source:
        """Do what the adapter does. Raises EncodingError or FieldError."""
        try:
            return self.itself.parse(document)
        except EncodingError as error:
            raise without_values(error) from None
