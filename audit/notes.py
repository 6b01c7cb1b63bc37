"""Signed notes: text with a line for each signature, as transparency logs publish their checkpoints.

Two kinds of signatures are known here: of a log (Ed25519), and of a witness, who says when it saw the checkpoint and
that it extends those it saw before (Ed25519 with a time). Others are passed over, as the format demands.

Source: C2SP signed-note, tlog-checkpoint, tlog-cosignature.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.errors import BadSignature, ConfigError, EncodingError
from ledger.merkle import HASH_BYTES

NOTE_BYTES_MAX: Final = 256 << 10
"""The certificate of 21 producers takes about 8 KB of a note, a cosignature 130 bytes."""
SIGNATURES_MAX: Final = 64
"""Lines of signatures in a note; readers must bear 16."""
NAME_CHARACTERS_MAX: Final = 255
SIZE_MAX: Final = 2**63 - 1

ED25519: Final = 0x01
COSIGNATURE: Final = 0x04

_DASH = "— "
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_TIME_BYTES = 8


# -- keys --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key that may sign notes.

    Attributes:
        name: without spaces and plus signs.
        kind: ``ED25519`` of a log, or ``COSIGNATURE`` of a witness.
        public_key: Ed25519, 32 bytes.
    """

    name: str
    kind: int
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """Return the four bytes by which signatures name it beside its name."""
        return key_id_of(self.name, bytes([self.kind]), self.public_key)

    def to_text(self) -> str:
        """Return it as a verifier key, as configurations of witnesses and monitors have it."""
        material = base64.b64encode(bytes([self.kind]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{material}"


def key_id_of(name: str, kind: bytes, public_key: bytes) -> bytes:
    """Return the first four bytes of the hash that names a key."""
    return sha256(name.encode() + b"\n" + kind + public_key).digest()[:4]


def parse_note_key(text: str, *, where: str = "", kinds: Collection[int] = (ED25519, COSIGNATURE)) -> NoteKey:
    """Return the verifier key ``NAME+ID+KEY``. Raises ConfigError naming ``where`` for anything else than ``kinds``."""
    # The name has no plus sign, but the base64 of the key may.
    name, _, rest = text.strip().partition("+")
    key_id, _, material = rest.partition("+")
    try:
        raw = _from_base64(material, "key")
        key = NoteKey(name, raw[0] if raw else 0, raw[1:])
        is_good = key.kind in kinds and len(key.public_key) == _KEY_BYTES and _is_name(name)
    except (EncodingError, ValueError):
        is_good = False
    if not is_good or key.key_id.hex() != key_id:
        raise ConfigError(
            "not the verifier key of a log or a witness" if len(kinds) > 1 else "not the verifier key of a witness",
            where=where,
            expected=f"NAME+8 hex digits+base64, Ed25519 of type {' or '.join(map(str, kinds))}",
            actual=text[:NAME_CHARACTERS_MAX],
        )
    return key


class LogKey:
    """The Ed25519 key with which a node signs its notes: another than the one it seals and votes with.

    Attributes:
        public_key: 32 bytes.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> LogKey:
        """Return a fresh key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, data: bytes, *, where: str) -> LogKey:
        """Read an unencrypted PKCS #8 PEM key. Raises ConfigError naming ``where``."""
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(
                "not a log key",
                where=where,
                expected="an unencrypted PEM key on Ed25519",
                hint="Make one with: ledgerctl keygen --log FILE",
            )
        return cls(key)

    def to_pem(self) -> bytes:
        """Return the key as PKCS #8 PEM, unencrypted: the file's mode protects it."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def note_key(self, name: str, kind: int = ED25519) -> NoteKey:
        """Return what others verify with."""
        return NoteKey(name, kind, self.public_key)

    def sign(self, text: str, name: str) -> NoteSignature:
        """Return the signature of a log over a note's text."""
        return NoteSignature(name, self.note_key(name).key_id, self._key.sign(text.encode()))

    def cosign(self, text: str, name: str, time_s: int) -> NoteSignature:
        """Return the signature of a witness over a note's text at a time, in seconds since 1970."""
        key_id = self.note_key(name, COSIGNATURE).key_id
        signature = self._key.sign(_cosigned(text, time_s))
        return NoteSignature(name, key_id, time_s.to_bytes(_TIME_BYTES) + signature)


# -- notes -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One line below a note.

    Attributes:
        name: of the key.
        key_id: its four bytes.
        body: what follows them: a signature, behind a time where it is a witness's; or something of another kind.
    """

    name: str
    key_id: bytes
    body: bytes

    def to_line(self) -> str:
        """Return the line, with its end."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.body).decode()}\n"


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that holds.

    Attributes:
        time_s: when a witness saw it, in seconds since 1970; None for a log's.
    """

    key: NoteKey
    signature: NoteSignature
    time_s: int | None


@dataclass(frozen=True, slots=True)
class Note:
    """Text that keys signed; nothing in it is to be believed before a signature was verified.

    Attributes:
        text: ends with the end of a line.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def to_bytes(self) -> bytes:
        """Return it as it is sent and kept."""
        return (self.text + "\n" + "".join(one.to_line() for one in self.signatures)).encode()

    def signed(self, *more: NoteSignature) -> Note:
        """Return it with more signatures; each key signs once, with the last of its lines."""
        newest = {(one.name, one.key_id): one for one in more}
        kept = [one for one in self.signatures if (one.name, one.key_id) not in newest]
        return replace(self, signatures=(*kept, *newest.values()))

    def verify(self, keys: Sequence[NoteKey]) -> list[Verified]:
        """Return the signatures by ``keys``; those of others are passed over, as the format demands.

        Raises BadSignature where a signature by one of them does not hold.
        """
        known = {(key.name, key.key_id): key for key in keys}
        found = []
        for one in self.signatures:
            key = known.get((one.name, one.key_id))
            if key is not None:
                found.append(_verified(key, one, self.text))
        return found


def parse_note(data: bytes) -> Note:
    """Return the note in ``data``, of which nothing is verified yet. Raises EncodingError."""
    if len(data) > NOTE_BYTES_MAX:
        raise EncodingError("too large", where="note", expected=f"at most {NOTE_BYTES_MAX} bytes", actual=len(data))
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise EncodingError("not UTF-8", where="note") from None
    if any(character < " " and character != "\n" for character in whole):
        raise EncodingError("a control character", where="note")
    head, found, below = whole.rpartition("\n\n")
    if not found or not below.endswith("\n"):
        raise EncodingError("not a signed note", where="note", expected="text, an empty line, lines of signatures")
    lines = below.removesuffix("\n").split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise EncodingError("too many signatures", where="note", expected=f"at most {SIGNATURES_MAX}")
    return Note(head + "\n", tuple(parse_signature(line) for line in lines))


def parse_signature(line: str) -> NoteSignature:
    """Return what one line below a note says, its end left off. Raises EncodingError."""
    name, found, text = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not found or not _is_name(name):
        raise EncodingError("not a line of a signature", where="note", expected="a dash, NAME and base64")
    raw = _from_base64(text, "note")
    if len(raw) <= 4:
        raise EncodingError("a signature is too short", where="note", actual=f"{len(raw)} bytes")
    return NoteSignature(name, raw[:4], raw[4:])


def _verified(key: NoteKey, one: NoteSignature, text: str) -> Verified:
    time_s, signature, message = None, one.body, text.encode()
    if key.kind == COSIGNATURE:
        time_s, signature = int.from_bytes(one.body[:_TIME_BYTES]), one.body[_TIME_BYTES:]
        message = _cosigned(text, time_s)
    # [REJECT] The signature has the length of its kind, and a time that there may be
    # [REJECT] It is by that key over that message
    if (
        len(signature) != _SIGNATURE_BYTES
        or (time_s or 0) > SIZE_MAX
        or not _is_valid(key.public_key, signature, message)
    ):
        raise BadSignature(
            "the signature does not verify", where=f"note, key {key.name}", expected=f"by {key.to_text()}"
        )
    return Verified(key, one, time_s)


def _is_valid(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _cosigned(text: str, time_s: int) -> bytes:
    """Return what a witness signs."""
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


# -- checkpoints -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TreeHead:
    """What a note says of a log's tree.

    Attributes:
        origin: which log it is.
        size: leaves in the tree.
        root: of the tree, by RFC 6962.
    """

    origin: str
    size: int
    root: bytes

    def to_text(self) -> str:
        """Return the text of its note."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse_tree_head(text: str) -> TreeHead:
    """Return what the text of a note says. Extension lines are passed over. Raises EncodingError naming the line."""
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < 3 or not all(lines):
        raise EncodingError("not a checkpoint", where="note", expected="lines of origin, size and root")
    origin, digits, root_text = lines[:3]
    is_number = digits.isascii() and digits.isdigit() and len(digits) < 20 and str(int(digits)) == digits
    if not is_number or int(digits) > SIZE_MAX:
        raise EncodingError("not a size", where="note, line 2", expected=f"0 to {SIZE_MAX}", actual=digits)
    root = _from_base64(root_text, "note, line 3")
    if len(root) != HASH_BYTES:
        raise EncodingError("not a root", where="note, line 3", expected=f"{HASH_BYTES} bytes", actual=len(root))
    return TreeHead(origin, int(digits), root)


# -- text --------------------------------------------------------------------------------------------------------------


def _is_name(name: str) -> bool:
    is_short = 0 < len(name) <= NAME_CHARACTERS_MAX
    return is_short and "+" not in name and not any(character.isspace() for character in name)


def _from_base64(text: str, where: str) -> bytes:
    """Return the bytes, which have this one spelling. Raises EncodingError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        raise EncodingError("not base64", where=where)
    return data
