"""The second implementation, part one: bytes. Encoding, types with their bounds, hashes, keys, signatures, trees.

Written from docs/protocol.md alone; nothing of the project is imported. The struct tables below are those of the
document, field by field. A decoded struct is a tuple that can also be read by the names of its fields.

Source: docs/protocol.md, "Encoding", "Hashes, keys, signatures", and the tables of every struct.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import ecdsa
import msgpack

COUNT_MAX = 2**63 - 1
TIME_MAX = 4_102_444_800_000
ZERO32 = bytes(32)
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order of P-256."""
PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
"""The prime of its field."""


class Refused(Exception):
    """Something is not as it must be.

    Attributes:
        where: the field, in the vocabulary of docs/audit.md, "What is checked, in order"; empty: the whole value.
        what: one sentence, no full stop.
        height: of the block concerned, None where that is not known here.
    """

    def __init__(self, where: str, what: str, height: int | None = None) -> None:
        self.where, self.what, self.height = where, what, height
        super().__init__(f"{where}: {what}" if where else what)

    def within(self, place: str) -> Refused:
        """Return the same as a part of ``place``."""
        dot = "" if not place or not self.where or self.where.startswith("[") else "."
        return Refused(f"{place}{dot}{self.where}", self.what, self.height)


class Unusable(Exception):
    """Nothing can be said: a genesis that is none, a format or rules that are not those known here."""


def expect(where: str, found: object, right: object) -> None:
    """Refuse what is not as it must be."""
    if found != right:
        shown = [(value.hex() if isinstance(value, bytes) else str(value))[:200] for value in (right, found)]
        raise Refused(where, f"not what the chain gives: expected {shown[0]}, found {shown[1]}")


@contextlib.contextmanager
def within(place: str) -> Iterator[None]:
    """Name the place of whatever is refused inside."""
    try:
        yield
    except Refused as error:
        raise error.within(place) from None


# -- MessagePack, read in the order of the bytes -------------------------------------------------------------------

NUMBERS = {
    0xCC: (1, 0),
    0xCD: (2, 0),
    0xCE: (4, 0),
    0xCF: (8, 0),
    0xD0: (1, 1),
    0xD1: (2, 1),
    0xD2: (4, 1),
    0xD3: (8, 1),
}
"""Bytes that follow the code of an integer, and whether it has a sign."""
SIZED = {0xC4: (bytes, 1), 0xC5: (bytes, 2), 0xC6: (bytes, 4), 0xD9: (str, 1), 0xDA: (str, 2), 0xDB: (str, 4)}
OTHERS = {0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
"""Booleans, floats and extensions of fixed size: no value of the protocol; bytes that follow."""


class Reader:
    """A place in bytes that are MessagePack, or not."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        piece = self.data[self.at : self.at + size]
        if len(piece) < size:
            raise Malformed("the bytes end too early")
        self.at += size
        return piece

    def token(self) -> tuple[type, Any]:
        """Return the kind of the next value, and an integer itself or the length of something longer.

        The content of strings and arrays is still ahead; what is neither has the kind ``object``.
        """
        code = self.take(1)[0]
        if code < 0x80 or code >= 0xE0:
            return int, code if code < 0x80 else code - 256
        if code in NUMBERS:
            size, is_signed = NUMBERS[code]
            return int, int.from_bytes(self.take(size), signed=bool(is_signed))
        if code in SIZED:
            kind, size = SIZED[code]
            return kind, int.from_bytes(self.take(size))
        if 0x90 <= code < 0xA0:
            return list, code & 15
        if 0xA0 <= code < 0xC0:
            return str, code & 31
        if code in {0xDC, 0xDD}:
            return list, int.from_bytes(self.take(2 if code == 0xDC else 4))
        if code == 0xC0:
            return type(None), None
        if code == 0xC1:
            raise Malformed("a code that MessagePack does not have")
        if code in OTHERS:
            self.take(OTHERS[code])
        elif code in {0xC7, 0xC8, 0xC9}:
            self.take(1 + int.from_bytes(self.take(1 << code - 0xC7)))
        elif code in {0xDE, 0xDF}:
            self.take(2 if code == 0xDE else 4)
        return object, None

    def refuse(self, kind: type, length: Any, expected: str) -> Refused:
        """Return the refusal of a value of the wrong kind; its bytes must be there all the same."""
        if kind in {bytes, str}:
            self.take(length)
        return Refused("", f"not {expected}")


class Malformed(Exception):
    """The bytes are no MessagePack: the whole value is refused, wherever in it that shows."""


# -- types ---------------------------------------------------------------------------------------------------------


class Type:
    """The values that a field may have."""

    def read(self, reader: Reader) -> Any:
        """Return the next value. Raises Refused with the way to what is wrong, Malformed."""
        raise NotImplementedError

    def plain(self, value: Any) -> Any:
        """Return what a JSON value names, bounds unchecked. Raises Refused."""
        raise NotImplementedError


class Number(Type):
    """An integer from ``low`` to ``high``."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def read(self, reader: Reader) -> Any:
        """See ``Type``."""
        kind, value = reader.token()
        if kind is not int:
            raise reader.refuse(kind, value, "an integer")
        if not self.low <= value <= self.high:
            raise Refused("", f"not from {self.low} to {self.high}")
        return value

    def plain(self, value: Any) -> Any:
        """See ``Type``."""
        if type(value) is not int or not -(2**63) <= value < 2**64:
            raise Refused("", "not an integer")
        return value


class Choice(Number):
    """A number that has a name in JSON; the first name is that of ``low``."""

    def __init__(self, low: int, names: str) -> None:
        self.names = names.split()
        super().__init__(low, low + len(self.names) - 1)

    def plain(self, value: Any) -> Any:
        """See ``Type``."""
        if not isinstance(value, str) or value not in self.names:
            raise Refused("", "not a known name")
        return self.low + self.names.index(value)


class Bytes(Type):
    """A byte string of ``low`` to ``high`` bytes."""

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low, self.high = low, low if high is None else high

    def read(self, reader: Reader) -> Any:
        """See ``Type``."""
        kind, length = reader.token()
        if kind is not bytes:
            raise reader.refuse(kind, length, "a byte string")
        if not self.low <= length <= self.high:
            raise Refused("", f"not {self.low} to {self.high} bytes")
        return reader.take(length)

    def plain(self, value: Any) -> Any:
        """See ``Type``."""
        if not isinstance(value, str) or not re.fullmatch(r"([0-9a-f]{2})*", value):
            raise Refused("", "not bytes in lower-case hex")
        return bytes.fromhex(value)


class Text(Type):
    """A string of a form."""

    def __init__(self, form: str) -> None:
        self.form = re.compile(form)

    def read(self, reader: Reader) -> Any:
        """See ``Type``."""
        kind, length = reader.token()
        if kind is not str:
            raise reader.refuse(kind, length, "a string")
        try:
            text = reader.take(length).decode()
        except UnicodeDecodeError:
            raise Malformed("a string that is no text") from None
        if not self.form.fullmatch(text):
            raise Refused("", f"not of the form {self.form.pattern}")
        return text

    def plain(self, value: Any) -> Any:
        """See ``Type``."""
        if not isinstance(value, str) or any("\ud800" <= char <= "\udfff" for char in value):
            raise Refused("", "not a string")
        return value


class Maybe(Type):
    """A value or null."""

    def __init__(self, kind: Type) -> None:
        self.kind = kind

    def read(self, reader: Reader) -> Any:
        """See ``Type``."""
        if reader.data[reader.at : reader.at + 1] == b"\xc0":
            reader.at += 1
            return None
        return self.kind.read(reader)

    def plain(self, value: Any) -> Any:
        """See ``Type``."""
        return None if value is None else self.kind.plain(value)


class Array(Type):
    """An array of ``low`` to ``high`` values of one type."""

    def __init__(self, kind: Type, low: int, high: int) -> None:
        self.kind, self.low, self.high = kind, low, high

    def read(self, reader: Reader) -> Any:
        """See ``Type``."""
        kind, length = reader.token()
        if kind is not list:
            raise reader.refuse(kind, length, "an array")
        if not self.low <= length <= self.high:
            raise Refused("", f"not {self.low} to {self.high} values")
        values: list[Any] = []
        try:
            for _ in range(length):
                values.append(self.kind.read(reader))  # noqa: PERF401 - its length is the index of what is refused
        except Refused as error:
            raise error.within(f"[{len(values)}]") from None
        return values

    def plain(self, value: Any) -> Any:
        """See ``Type``."""
        if not isinstance(value, list):
            raise Refused("", "not an array")
        values: list[Any] = []
        try:
            for item in value:
                values.append(self.kind.plain(item))  # noqa: PERF401 - as in ``read``
        except Refused as error:
            raise error.within(f"[{len(values)}]") from None
        return values


class Struct(Type):
    """An array of exactly these fields. A value of it is a tuple whose places have their names as well."""

    def __init__(self, name: str, /, **fields: Type) -> None:
        self.name, self.fields = name, fields
        make: Any = NamedTuple
        self.row: Any = make(name, [(field, Any) for field in fields])

    def __call__(self, *values: Any) -> Any:
        """Return the value with these fields."""
        return self.row(*values)

    def read(self, reader: Reader) -> Any:
        """See ``Type``."""
        kind, length = reader.token()
        if kind is not list:
            raise reader.refuse(kind, length, "an array")
        if length < len(self.fields):
            raise Refused("", f"fewer fields than a {self.name} has")
        values: list[Any] = []
        try:
            for type_ in self.fields.values():
                values.append(type_.read(reader))  # noqa: PERF401 - as in Array
        except Refused as error:
            raise error.within(list(self.fields)[len(values)]) from None
        if length > len(self.fields):
            raise Refused("", f"more fields than a {self.name} has")
        return self.row(*values)

    def plain(self, value: Any) -> Any:
        """See ``Type``."""
        if not isinstance(value, dict):
            raise Refused("", "not an object")
        for name in value:
            if name not in self.fields:
                raise Refused(ascii(name)[1:-1][:100] or "''", "unknown field")
        for name in self.fields:
            if name not in value:
                raise Refused(name, "missing field")
        values: list[Any] = []
        try:
            for name, type_ in self.fields.items():
                values.append(type_.plain(value[name]))
        except Refused as error:
            raise error.within(list(self.fields)[len(values)]) from None
        return self.row(*values)


def encode(value: Any) -> bytes:
    """Return the canonical MessagePack of integers, byte strings, strings, nulls and arrays of these."""
    data: bytes = msgpack.packb(value, use_bin_type=True)
    return data


def decode(data: bytes, kind: Type, place: str = "") -> Any:
    """Return the value of ``kind`` that ``data`` spells canonically. Raises Refused, within ``place``."""
    reader = Reader(data)
    try:
        value = kind.read(reader)
    except Malformed as error:
        raise Refused(place, f"not valid MessagePack: {error}") from None
    except Refused as error:
        raise error.within(place) from None
    if reader.at != len(data):
        raise Refused(place, "bytes behind the end")
    if encode(value) != data:
        raise Refused(place, "not the canonical encoding of its value")
    return value


# -- hashes, keys, signatures --------------------------------------------------------------------------------------


def tagged_hash(tag: str, value: Any) -> bytes:
    """Return ``H(tag, value)``."""
    return sha256(b"ledgerd/" + tag.encode() + b"/1\0" + encode(value)).digest()


def key_id_of(public_key: bytes) -> bytes:
    """Return the 20-byte id of a public key."""
    return tagged_hash("key", public_key)[:20]


def vote_hash(chain_id: bytes, link: Any) -> bytes:
    """Return what is signed for the link of a vote or certificate."""
    return tagged_hash("vote", [chain_id, link.s_height, link.s_id, link.t_height, link.t_id])


@lru_cache(maxsize=1024)
def load_key(public_key: bytes) -> Any:
    """Return the point on P-256 that a compressed key is, None where it is none."""
    if len(public_key) != 33 or public_key[0] not in {2, 3} or int.from_bytes(public_key[1:]) >= PRIME:
        return None
    try:
        return ecdsa.VerifyingKey.from_string(public_key, curve=ecdsa.NIST256p, valid_encodings=("compressed",))
    except ecdsa.errors.MalformedPointError:
        return None


def is_signed(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    """Tell whether ``signature``, ``r || s`` with low s, is by ``public_key`` over ``digest``."""
    key = load_key(public_key)
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    if key is None or len(signature) != 64 or not 0 < r < ORDER or not 0 < s <= (ORDER - 1) // 2:
        return False
    try:
        return bool(key.verify_digest(signature, digest))
    except (ecdsa.BadSignatureError, TypeError):
        # TypeError: the points add up to infinity, which has no x. Whoever has the key can bring that about.
        return False


# -- Merkle trees of RFC 6962 --------------------------------------------------------------------------------------


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees."""
    return sha256(b"\1" + left + right).digest()


def merkle_root(items: Sequence[bytes]) -> bytes:
    """Return the root over leaf data."""
    history = History()
    for item in items:
        history.append(item)
    return history.root()


class History:
    """A tree that grows: the roots of its complete subtrees, largest first, and how many leaves each has."""

    def __init__(self) -> None:
        self.roots: list[tuple[int, bytes]] = []

    def append(self, data: bytes) -> None:
        """Add a leaf."""
        size, root = 1, leaf_hash(data)
        while self.roots and self.roots[-1][0] == size:
            root = node_hash(self.roots.pop()[1], root)
            size *= 2
        self.roots.append((size, root))

    def root(self) -> bytes:
        """Return the root over all leaves."""
        if not self.roots:
            return sha256(b"").digest()
        root = self.roots[-1][1]
        for _, left in reversed(self.roots[:-1]):
            root = node_hash(left, root)
        return root


def root_by_path(data: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root to which ``path`` leads from leaf ``index`` of ``size``; None where it has not the length."""
    if not 0 <= index < size:
        return None
    root, last = leaf_hash(data), size - 1
    hashes = list(path)
    while last:
        # A last node without a neighbour goes up as it is.
        if index % 2 or index < last:
            if not hashes:
                return None
            beside = hashes.pop(0)
            root = node_hash(beside, root) if index % 2 else node_hash(root, beside)
        index, last = index // 2, last // 2
    return None if hashes else root
