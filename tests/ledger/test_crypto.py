"""Hashes with tags, keys and signatures: against a second implementation and known answers."""

from __future__ import annotations

from base64 import b64decode, b64encode
from hashlib import sha256, sha512

import ecdsa
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from ecdsa.util import sigdecode_string, sigencode_string
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.codec import encode
from ledger.crypto import (
    HALF_ORDER,
    ORDER,
    TAGS,
    PrivateKey,
    check_public_key,
    hash_of,
    hmac_sha256,
    is_valid_signature,
    key_id_of,
    tagged_bytes,
    tagged_hash,
    verify,
)
from ledger.errors import BadSignature, ConfigError

KEY = PrivateKey.from_seed(b"crypto")
DIGEST = sha256(b"digest").digest()
PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1


def pair(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@pytest.mark.parametrize("tag", TAGS)
def test_a_tagged_hash_is_sha256_of_the_tagged_bytes(tag: str) -> None:
    expected = sha256(b"ledgerd/" + tag.encode() + b"/1\x00data").digest()
    assert tagged_hash(tag, b"data") == expected
    assert sha256(tagged_bytes(tag, b"data")).digest() == expected
    assert hash_of(tag, [1, b"x"]) == tagged_hash(tag, encode([1, b"x"]))


def test_no_tag_begins_another() -> None:
    prefixes = [tagged_bytes(tag, b"") for tag in TAGS]
    assert len(set(TAGS)) == len(TAGS)
    assert [(a, b) for a in prefixes for b in prefixes if a != b and b.startswith(a)] == []


def test_an_unknown_tag_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError):
        tagged_hash("unknown", b"")


def test_the_order_is_that_of_p256() -> None:
    assert ecdsa.NIST256p.order == ORDER
    assert ORDER // 2 == HALF_ORDER


def test_a_key_id_is_twenty_bytes_of_a_hash() -> None:
    assert key_id_of(KEY.public_key) == tagged_hash("key", b"\xc4\x21" + KEY.public_key)[:20]
    assert KEY.key_id == key_id_of(KEY.public_key)
    assert len(KEY.public_key) == 33


@settings(max_examples=20, deadline=None)
@given(st.binary(min_size=1, max_size=8), st.binary(min_size=32, max_size=32))
def test_signatures_verify_in_the_other_implementation_and_back(seed: bytes, digest: bytes) -> None:
    key = PrivateKey.from_seed(seed)
    other = ecdsa.VerifyingKey.from_string(key.public_key, ecdsa.NIST256p)
    signature = key.sign(digest)
    assert other.verify_digest(signature, digest, sigdecode=sigdecode_string)
    assert int.from_bytes(signature[32:], "big") <= HALF_ORDER
    number = int.from_bytes(sha256(seed).digest(), "big") % (ORDER - 1) + 1
    theirs = ecdsa.SigningKey.from_secret_exponent(number, ecdsa.NIST256p)
    r, s = ecdsa.util.sigdecode_string(theirs.sign_digest(digest, sigencode=sigencode_string), ORDER)
    assert is_valid_signature(key.public_key, digest, pair(r, min(s, ORDER - s)))
    assert not is_valid_signature(key.public_key, digest, pair(r, max(s, ORDER - s)))


def test_the_nonce_is_that_of_rfc6979() -> None:
    """RFC 6979, A.2.5: P-256 with SHA-256; s is ours where it is low, its negative otherwise."""
    number = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    key = PrivateKey(ec.derive_private_key(number, ec.SECP256R1()))
    x = 0x60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6
    y = 0x7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299
    assert key.public_key == bytes([2 + (y & 1)]) + x.to_bytes(32, "big")
    known = {
        b"sample": (
            0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
            0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
        ),
        b"test": (
            0xF1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367,
            0x019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083,
        ),
    }
    for message, (r, s) in known.items():
        assert key.sign(sha256(message).digest()) == pair(r, min(s, ORDER - s))


def test_signing_is_repeatable_and_depends_on_the_digest() -> None:
    assert KEY.sign(DIGEST) == KEY.sign(DIGEST)
    assert KEY.sign(DIGEST) != KEY.sign(sha256(b"other").digest())


def test_every_way_to_spoil_a_signature_is_seen() -> None:
    good = KEY.sign(DIGEST)
    r, s = int.from_bytes(good[:32], "big"), int.from_bytes(good[32:], "big")
    assert is_valid_signature(KEY.public_key, DIGEST, good)
    bad = {
        "high s": pair(r, ORDER - s),
        "r zero": pair(0, s),
        "s zero": pair(r, 0),
        "both zero": bytes(64),
        "r = n": pair(ORDER, s),
        "s = n": pair(r, ORDER),
        "all ones": b"\xff" * 64,
        "short": good[:-1],
        "long": good + b"\x00",
        "empty": b"",
        "swapped": good[32:] + good[:32],
        "bit": bytes([good[0] ^ 1]) + good[1:],
        "half order + 1": pair(r, HALF_ORDER + 1),
    }
    assert [name for name, signature in bad.items() if is_valid_signature(KEY.public_key, DIGEST, signature)] == []
    assert not is_valid_signature(KEY.public_key, sha256(b"other").digest(), good)
    assert not is_valid_signature(PrivateKey.from_seed(b"x").public_key, DIGEST, good)
    assert not is_valid_signature(KEY.public_key, DIGEST[:31], good)
    assert not is_valid_signature(KEY.public_key, DIGEST + b"\x00", good)


def bad_points() -> dict[str, bytes]:
    point = ecdsa.VerifyingKey.from_string(KEY.public_key, ecdsa.NIST256p)
    full = point.to_string("uncompressed")
    no_point = next(x for x in range(2, 99) if not _is_x(x))
    small = next(x for x in range(2, 99) if _is_x(x))
    return {
        "empty": b"",
        "infinity": b"\x00",
        "infinity, padded": bytes(33),
        "uncompressed": full,
        "hybrid": bytes([6 + (full[-1] & 1)]) + full[1:],
        "prefix 4 on 33 bytes": b"\x04" + KEY.public_key[1:],
        "short": KEY.public_key[:-1],
        "long": KEY.public_key + b"\x00",
        "x not on the curve": b"\x02" + no_point.to_bytes(32, "big"),
        "x over p, a second spelling": b"\x02" + (PRIME + small).to_bytes(32, "big"),
        "x of all ones": b"\x03" + b"\xff" * 32,
    }


def _is_x(x: int) -> bool:
    square = (x**3 - 3 * x + ecdsa.NIST256p.curve.b()) % PRIME
    return pow(square, (PRIME - 1) // 2, PRIME) == 1


def test_only_compressed_points_on_the_curve_are_keys() -> None:
    check_public_key(KEY.public_key)
    small = next(x for x in range(2, 99) if _is_x(x))
    check_public_key(b"\x02" + small.to_bytes(32, "big"))
    for name, point in bad_points().items():
        with pytest.raises(BadSignature) as caught:
            check_public_key(point, where="keys[3]")
        assert (caught.value.where, caught.value.expected) == ("keys[3]", "33 bytes beginning 02 or 03"), name


def test_a_signature_under_what_is_no_key_does_not_verify() -> None:
    good = KEY.sign(DIGEST)
    assert [name for name, point in bad_points().items() if is_valid_signature(point, DIGEST, good)] == []


def test_verify_says_where_and_by_which_key() -> None:
    verify(KEY.public_key, DIGEST, KEY.sign(DIGEST), where="signature")
    with pytest.raises(BadSignature) as caught:
        verify(KEY.public_key, DIGEST, bytes(64), where="parts[0]")
    assert caught.value.where == "parts[0]"
    assert KEY.key_id.hex() in caught.value.expected
    assert caught.value.actual == "00" * 64


def test_a_key_survives_its_file() -> None:
    again = PrivateKey.from_pem(KEY.to_pem(), where="key.pem")
    assert again.public_key == KEY.public_key
    assert again.sign(DIGEST) == KEY.sign(DIGEST)
    assert PrivateKey.generate().key_id != PrivateKey.generate().key_id


def _pem(key: object, *, password: bytes | None = None, form: str = "PKCS8") -> bytes:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), how)  # type: ignore[attr-defined]


def _der(key: PrivateKey) -> bytes:
    return b64decode(b"".join(key.to_pem().splitlines()[1:-1]))


def _pem_of(der: bytes) -> bytes:
    return b"-----BEGIN PRIVATE KEY-----\n" + b64encode(der) + b"\n-----END PRIVATE KEY-----\n"


def test_a_sec1_file_is_read_as_well() -> None:
    key = ec.derive_private_key(5, ec.SECP256R1())
    assert PrivateKey.from_pem(_pem(key, form="TraditionalOpenSSL"), where="f").key_id == PrivateKey(key).key_id


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a key",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        _pem(ec.derive_private_key(5, ec.SECP384R1())),
        _pem(ec.derive_private_key(5, ec.SECP256K1())),
        _pem(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))),
        _pem(ec.derive_private_key(5, ec.SECP256R1()), password=b"secret"),
        KEY.to_pem()[:100],
        # A curve that nobody has: an object identifier of no meaning in place of P-256.
        _pem_of(_der(KEY).replace(bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d03017f"))),
        ec.derive_private_key(5, ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=["nothing", "text", "short", "P-384", "secp256k1", "Ed25519", "encrypted", "cut off", "no curve", "public"],
)
def test_what_is_no_key_file_is_refused_with_what_to_do(data: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        PrivateKey.from_pem(data, where="node.key")
    assert caught.value.where == "node.key"
    assert caught.value.hint == "Make one with: ledgerctl keygen FILE"


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_arbitrary_key_files_raise_only_config_errors(data: bytes) -> None:
    with pytest.raises(ConfigError):
        PrivateKey.from_pem(data, where="f")


def test_hmac_is_that_of_rfc4231() -> None:
    """RFC 4231, test cases 1 and 2."""
    assert hmac_sha256(b"\x0b" * 20, b"Hi There").hex() == (
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    )
    assert hmac_sha256(b"Jefe", b"what do ya want for nothing?").hex() == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    assert hmac_sha256(b"k", b"d") != sha512(b"kd").digest()[:32]
