"""The clothes FreeSWITCH's CDRs come in: forms, URL encoding, base64, and XML; and the way out of each.

mod_json_cdr posts JSON, or with ``encode`` a form of one field, ``cdr=``, URL-encoded or base64; mod_xml_cdr likewise,
plain, URL-encoded, base64, or as ``text/xml``. What cannot be posted goes to a file, without ``cdr=`` but encoded as it
was for the post. So the content tells, not the Content-Type: with ``disable-100-continue`` mod_json_cdr's is wrong.

Pure: no I/O. Bad input raises EncodingError, never anything else.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, unquote_to_bytes
from xml.parsers import expat

import msgspec

from ledger.errors import EncodingError
from telephony.adapters.base import DOCUMENT_BYTES_MAX
from telephony.adapters.fields import text_of

ELEMENTS_MAX: Final = 20_000
"""Elements of one XML CDR; a call with many transfers has some thousand."""
DEPTH_MAX: Final = 32
"""mod_xml_cdr nests 7 deep, more where dialplan extensions hold others."""
DEPTH_KEPT: Final = 5
"""``cdr/call-stats/audio/inbound/mos``: nothing deeper is looked for."""
NAME_CHARACTERS_MAX: Final = 256

URL_UNSAFE: Final = frozenset('\r\n #&+:;<=>?@[\\]^`{|}"')
"""What FreeSWITCH never leaves unencoded in a URL-encoded value, but for the percent sign."""

_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}", re.ASCII)
_STRING_ENDS = re.compile(r'[}\]]|:["{\[0-9-]|,["{\[0-9-]|\Z', re.ASCII)


def unwrapped(body: bytes, opening: bytes) -> str:
    """Return the document in a post or a file as text; ``opening``: the characters that one begins with, ``b"{["``.

    Text that was not UTF-8 is mended with U+FFFD. Raises EncodingError for what is neither the document itself nor one
    of its encodings.
    """
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    is_form = body[:4] == b"cdr="
    if is_form:
        body = body[4:].lstrip()
    if body[:1] and body[:1] in opening:
        return text_of(body)
    if body[:3].upper() in {b"%%%02X" % character for character in opening}:
        return text_of(unquote_to_bytes(body.partition(b"&")[0])).strip()
    text = text_of(_from_base64(body)).strip()
    if not text or text[0].encode() not in opening:
        expected = f"a CDR that begins with {opening.decode()[0]}, plain, URL-encoded or base64"
        raise EncodingError("not a CDR", where="cdr" if is_form else "body", expected=expected)
    return text.removesuffix("\0")


def _from_base64(body: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(unquote_to_bytes(body).split()), validate=True)
    except (binascii.Error, ValueError):
        return b""


def mended_json(text: str) -> str:
    """Return JSON whose strings a second URL decoding has broken, put right by its structure; other text unchanged.

    With ``encode`` and ``encode-values`` both on, mod_json_cdr encodes what is encoded but once: an inner ``%22`` looks
    like a quote of JSON itself. A string then ends at the first quote that something follows which may follow a string.
    """
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        pass
    else:
        return text
    parts: list[str] = []
    at = 0
    while (start := text.find('"', at)) >= 0:
        end = _end_of_string(text, start + 1)
        parts += (text[at:start], _literal(text[start + 1 : end]))
        at = end + 1
    return "".join(parts) + text[at:]


def _end_of_string(text: str, at: int) -> int:
    while (end := text.find('"', at)) >= 0:
        if text[end - 1] != "\\" and _STRING_ENDS.match(text, end + 1):
            return end
        at = end + 1
    raise EncodingError("not JSON", where="cdr", expected="strings that end", actual="one that does not")


def _literal(body: str) -> str:
    """Return ``body`` as a JSON string: as it is where it is one, else with what breaks it escaped."""
    literal = f'"{body}"'
    try:
        msgspec.json.decode(literal, type=str)
    except (msgspec.MsgspecError, ValueError):
        return json.dumps(body, ensure_ascii=False)
    return literal


def decoded_values(values: Mapping[str, object]) -> dict[str, object]:
    """Return channel variables with their values URL-decoded, if they were encoded.

    With ``encode-values`` none of them has a character that must be encoded; without, some always has: the time
    stamps have spaces and colons.
    """
    texts = [value for value in values.values() if isinstance(value, str)]
    if any(not value.isascii() or not URL_UNSAFE.isdisjoint(value) for value in texts):
        return dict(values)
    return {name: url_decoded(value) if isinstance(value, str) else value for name, value in values.items()}


def url_decoded(value: str) -> str:
    """Return a URL-encoded value as text; a plus sign is one."""
    return unquote(value, errors="replace") if _ESCAPE.search(value) else value


class XmlTexts:
    """The texts of an XML document by path, ``cdr/variables/uuid``.

    Of several elements with one path the first counts, and of several call flows only what is in the first.
    """

    def __init__(self, document: bytes) -> None:
        """Read ``document``. Raises EncodingError for what is no XML, has a document type, or is beyond the bounds."""
        self.texts: dict[str, str] = {}
        self.names: set[str] = set()
        """Paths of all elements, those without text included."""
        self._path: list[str] = []
        self._parts: list[str] = []
        self._elements = 0
        self._is_muted = False
        """Within a child of the root that is not the first of its name."""
        if len(document) > DOCUMENT_BYTES_MAX:
            expected = f"at most {DOCUMENT_BYTES_MAX} bytes"
            raise EncodingError("too long", where="cdr", expected=expected, actual=len(document))
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._parts.append
        try:
            parser.Parse(document, True)
        except expat.ExpatError as error:
            raise EncodingError("not XML", where="cdr", expected="one <cdr> element", actual=error) from None

    def _refuse(self, *_: object) -> None:
        raise EncodingError("has a document type", where="cdr", expected="XML without DOCTYPE")

    def _start(self, name: str, _: object) -> None:
        self._elements += 1
        if self._elements > ELEMENTS_MAX or len(self._path) >= DEPTH_MAX or len(name) > NAME_CHARACTERS_MAX:
            expected = f"at most {ELEMENTS_MAX} elements, {DEPTH_MAX} deep, names of {NAME_CHARACTERS_MAX} characters"
            raise EncodingError("beyond the bounds of a CDR", where="cdr", expected=expected)
        self._path.append(name)
        self._parts.clear()
        if len(self._path) > DEPTH_KEPT:
            return
        path = "/".join(self._path)
        if len(self._path) <= 2:
            self._is_muted = path in self.names
        if not self._is_muted:
            self.names.add(path)

    def _end(self, _: str) -> None:
        text = "".join(self._parts).strip()
        if text and len(self._path) <= DEPTH_KEPT and not self._is_muted:
            self.texts.setdefault("/".join(self._path), text)
        self._parts.clear()
        self._path.pop()

    def under(self, path: str) -> dict[str, str]:
        """Return the texts of the children of one element, by name."""
        prefix = path + "/"
        return {
            name.removeprefix(prefix): text
            for name, text in self.texts.items()
            if name.startswith(prefix) and "/" not in name[len(prefix) :]
        }
