"""What every adapter offers, and the reading of values that many of them share.

An adapter is pure: bytes in, a ``Source`` or an error that names the field out, whatever the bytes. What it does not
know of a document stays in ``raw`` and is otherwise ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, Protocol

import msgspec

from ledger.errors import EncodingError, FieldError
from telephony.source import Source

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
"""A post holds at most 50 CDRs of some 1.5 kB; this leaves room for long URIs."""

DOCUMENTS_PER_BODY_MAX: Final = 1000
"""Our own configuration of Kamailio sends 50; a queue emptied by other means may send more."""

DOCUMENT_BYTES_MAX: Final = 1024 * 1024
"""An adapter takes 64 KiB of text; spelled with JSON escapes that is six times as long."""

TIME_MS_MAX: Final = 4_102_444_800_000
"""The year 2100."""
COUNTER_MAX: Final = 2**63 - 1
U32_MAX: Final = 2**32 - 1

_SECONDS_DIGITS_MAX: Final = 10
_FRACTION_DIGITS_MAX: Final = 9


class Kind(IntEnum):
    """Which adapter reads a document: a byte in the spool, never given a second meaning."""

    KAMAILIO = 1
    """One ``acc_json`` CDR: a JSON object."""
    KAMAILIO_ACC = 2
    """One ``acc_json`` line of a single transaction: an INVITE or a BYE."""
    RTPENGINE = 3
    """Answer of rtpengine to ``query`` or ``delete``."""
    FREESWITCH_JSON = 4
    FREESWITCH_XML = 5
    ASTERISK_CSV = 6
    """One row of ``Master.csv``."""
    ASTERISK_JSON = 7
    OPENSIPS = 8
    """One ``E_ACC_CDR`` event."""
    CUCM_CDR = 9
    """One row of a CDR file, as a JSON object by the names in its first line."""
    CUCM_CMR = 10
    VQ_REPORT = 11
    """Body of an RFC 6035 PUBLISH."""
    RTCP_XR = 12
    """Values of an RFC 3611 VoIP metrics block, as a JSON object."""
    MAPPED = 13
    """A row of CSV or a line of JSON that a mapping file explains, as a JSON array of mapping name and object."""


class Adapter(Protocol):
    """Reads the documents of one platform."""

    @property
    def name(self) -> str:
        """Return the last part of the path that takes its documents, ``/v1/ingest/NAME``."""

    @property
    def kind(self) -> Kind:
        """Return what stands beside its documents in the spool."""

    @property
    def media_types(self) -> frozenset[str]:
        """Return the Content-Types that a post may have."""

    def split(self, body: bytes, media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the documents in a post or a file, and whether they came as an array of some kind.

        Each stands alone: what a file says once for all rows, as names of columns, is in every document.
        Raises EncodingError for a body that is no such thing, or has none or more than DOCUMENTS_PER_BODY_MAX.
        """

    def check(self, document: bytes) -> None:
        """Raise EncodingError or FieldError for a document that ``parse`` is sure to refuse.

        Made to be quick, some microseconds: what it lets pass ``parse`` may still refuse.
        """

    def parse(self, document: bytes) -> Source:
        """Return what a document says. Raises EncodingError or FieldError, never anything else."""


class MakeAdapter(Protocol):
    """Makes an adapter from its table in the agent's configuration."""

    def __call__(self, options: Mapping[str, Any]) -> Adapter:
        """Return the adapter. Raises ConfigError naming the option."""


def split_json(body: bytes) -> tuple[list[bytes], bool]:
    """Return the JSON documents in a body, each as it came, and whether they came as an array.

    Raises EncodingError for a body that is no JSON, or an array of too many or none.
    """
    try:
        if not body.lstrip(b" \t\r\n").startswith(b"["):
            return [bytes(msgspec.json.decode(body, type=msgspec.Raw))], False
        documents = [bytes(raw) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EncodingError("the body is not JSON", where="body", expected="a CDR or an array", actual=error) from None
    check_count(len(documents))
    return documents, True


def check_count(count: int) -> None:
    """Raise EncodingError for a body with no document, or too many."""
    if not 1 <= count <= DOCUMENTS_PER_BODY_MAX:
        expected = f"1 to {DOCUMENTS_PER_BODY_MAX}"
        raise EncodingError("wrong number of CDRs", where="body", expected=expected, actual=count)


def decode_json(document: bytes) -> object:
    """Return one decoded JSON document. Raises EncodingError."""
    if len(document) > DOCUMENT_BYTES_MAX:
        expected = f"at most {DOCUMENT_BYTES_MAX} bytes"
        raise EncodingError("too long", where="cdr", expected=expected, actual=len(document))
    try:
        return msgspec.json.decode(document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise EncodingError("not JSON", where="cdr", expected="a JSON object", actual=error) from None


def decimal_seconds_to_ms(text: str, field: str) -> int:
    """Return ``1795231128.494`` as 1795231128494, without a float; finer digits are cut off.

    Raises FieldError for anything else than digits with at most nine decimals, or a time after 2099.
    """
    seconds, point, fraction = text.partition(".")
    digits = seconds + fraction
    is_number = digits.isdecimal() and digits.isascii() and bool(fraction) == bool(point)
    if not is_number or not 1 <= len(seconds) <= _SECONDS_DIGITS_MAX or len(fraction) > _FRACTION_DIGITS_MAX:
        raise FieldError("not a time", where=field, expected="seconds since 1970, 1795231128.494", actual=text)
    time_ms = int(seconds + (fraction + "000")[:3])
    if time_ms > TIME_MS_MAX:
        raise FieldError("beyond the year 2099", where=field, expected=f"at most {TIME_MS_MAX} ms", actual=text)
    return time_ms


def is_utf8(text: str) -> bool:
    """Tell whether ``text`` has no lone surrogates, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
