"""Hashes, keys and signatures: SHA-256 with a tag for each use, ECDSA on P-256.

The digest that is signed is the id itself, so a browser signs the same bytes with WebCrypto and an HSM signs a
prehashed value. Signatures are ``r || s``, 64 bytes, low s only: each has one spelling. Our signers use the
deterministic nonces of RFC 6979; verifiers cannot tell and do not ask.

Source: docs/protocol.md, "Hashes, keys, signatures".
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature

from ledger.codec import encode
from ledger.errors import BadSignature, ConfigError

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order n of P-256 (FIPS 186-5)."""
HALF_ORDER = ORDER // 2

HMAC_BLOCK_BYTES = 64
"""Of SHA-256."""

TAGS = ("genesis", "tx", "header", "vote", "key", "hello", "record", "private", "state", "rules", "table", "schedule")
"""Every use of a hash has its own tag, so no hash of one kind can pass as another."""

_PREFIX = {tag: b"ledgerd/" + tag.encode() + b"/1\x00" for tag in TAGS}
_STARTED = {tag: sha256(prefix) for tag, prefix in _PREFIX.items()}
_PREHASHED = ec.ECDSA(Prehashed(hashes.SHA256()))
_DETERMINISTIC = ec.ECDSA(Prehashed(hashes.SHA256()), deterministic_signing=True)


def tagged_hash(tag: str, data: bytes) -> bytes:
    """Return ``SHA-256("ledgerd/<tag>/1" || 00 || data)``; ``data`` is canonical MessagePack already."""
    digest = _STARTED[tag].copy()
    digest.update(data)
    return digest.digest()


def started_hash(tag: str, prefix: bytes) -> hashlib._Hash:
    """Return a SHA-256 that has taken in the tag and ``prefix``: to be copied for many values that begin alike."""
    digest = _STARTED[tag].copy()
    digest.update(prefix)
    return digest


def tagged_bytes(tag: str, data: bytes) -> bytes:
    """Return the bytes whose SHA-256 is ``tagged_hash(tag, data)``: what WebCrypto is given to sign."""
    return _PREFIX[tag] + data


def hash_of(tag: str, value: Any) -> bytes:
    """Return ``H(tag, value)``: the tagged hash of the canonical MessagePack of ``value``."""
    return tagged_hash(tag, encode(value))


def key_id_of(public_key: bytes) -> bytes:
    """Return the 20-byte id of a compressed public key (33 bytes)."""
    return hash_of("key", public_key)[:20]


@lru_cache(maxsize=4096)
def _load(public_key: bytes) -> ec.EllipticCurvePublicKey:
    """Return the point; decompression costs a square root, so points are remembered. Raises ValueError."""
    if len(public_key) != 33 or public_key[0] not in (2, 3):
        raise ValueError("not a compressed point")
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)


def check_public_key(public_key: bytes, *, where: str = "public_key") -> None:
    """Raise BadSignature, with ``where``, unless ``public_key`` is a compressed point (33 bytes) on P-256."""
    try:
        _load(public_key)
    except ValueError:
        raise BadSignature(
            "not a compressed point on P-256", where=where, expected="33 bytes beginning 02 or 03", actual=public_key
        ) from None


def is_valid_signature(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    """Tell whether ``signature`` (64 bytes, low s) is by ``public_key`` over the 32-byte ``digest``."""
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    if len(signature) != 64 or not (0 < r < ORDER and 0 < s <= HALF_ORDER):
        return False
    try:
        _load(public_key).verify(encode_dss_signature(r, s), digest, _PREHASHED)
    except (InvalidSignature, ValueError):
        return False
    return True


def verify(public_key: bytes, digest: bytes, signature: bytes, *, where: str) -> None:
    """Raise BadSignature, with ``where``, unless the signature is good."""
    if not is_valid_signature(public_key, digest, signature):
        raise BadSignature(
            "the signature does not verify",
            where=where,
            expected=f"64 bytes r || s with low s, by key {key_id_of(public_key).hex()}",
            actual=signature,
        )


class PrivateKey:
    """A P-256 private key that signs ids.

    Attributes:
        public_key: compressed point, 33 bytes.
        key_id: its 20-byte id.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        )
        self.key_id = key_id_of(self.public_key)

    @classmethod
    def generate(cls) -> PrivateKey:
        """Return a fresh key from the operating system's randomness."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_seed(cls, seed: bytes) -> PrivateKey:
        """Return the key that ``seed`` determines: for test vectors and simulations only."""
        number = int.from_bytes(sha256(seed).digest()) % (ORDER - 1) + 1
        return cls(ec.derive_private_key(number, ec.SECP256R1()))

    @classmethod
    def from_pem(cls, data: bytes, *, where: str) -> PrivateKey:
        """Read an unencrypted PKCS #8 or SEC1 PEM key on P-256. Raises ConfigError naming ``where``."""
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ConfigError(
                "not a private key this program can use",
                where=where,
                expected="an unencrypted PEM key on P-256",
                hint="Make one with: ledgerctl keygen FILE",
            )
        return cls(key)

    def to_pem(self) -> bytes:
        """Return the key as PKCS #8 PEM, unencrypted: the file's mode protects it."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, digest: bytes) -> bytes:
        """Return ``r || s`` (64 bytes, low s) over a 32-byte digest, with an RFC 6979 nonce."""
        r, s = decode_dss_signature(self._key.sign(digest, _DETERMINISTIC))
        s = min(s, ORDER - s)
        return r.to_bytes(32) + s.to_bytes(32)


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """Return HMAC-SHA256 (RFC 2104); many under one key cost half of what ``hmac.digest`` takes for each."""
    inner, outer = _hmac_begun(key)
    inner, outer = inner.copy(), outer.copy()
    inner.update(data)
    outer.update(inner.digest())
    return outer.digest()


@lru_cache(maxsize=64)
def _hmac_begun(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """Return the inner and the outer hash of RFC 2104 with the key taken in."""
    block = (sha256(key).digest() if len(key) > HMAC_BLOCK_BYTES else key).ljust(HMAC_BLOCK_BYTES, b"\0")
    return sha256(bytes(byte ^ 0x36 for byte in block)), sha256(bytes(byte ^ 0x5C for byte in block))
