"""Messages: one spelling each, strict decoding, and no surprise on any bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.codec import decode
from ledger.crypto import is_valid_signature
from ledger.errors import EncodingError, FieldError, NonCanonicalEncoding
from p2p import limits
from p2p.messages import (
    TYPE_BYTES,
    Announce,
    CloseCode,
    GetTransactions,
    Hello,
    Transactions,
    close_message,
    decode_message,
    encode_message,
)
from tests.p2p.message_vectors import example_messages, message_vectors

VECTORS = Path(__file__).parent.parent / "vectors" / "messages.json"
EXAMPLES = example_messages()
FRAMES = [encode_message(message) for message in EXAMPLES]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_round_trip(message):
    """What is sent is what is read."""
    assert decode_message(encode_message(message)) == message


def test_every_message_has_an_example():
    """No message is without a vector, and each has its own type byte."""
    assert [type(message) for message in EXAMPLES] == list(TYPE_BYTES)
    assert len(set(TYPE_BYTES.values())) == len(TYPE_BYTES)


def test_vectors_on_disk_are_those_made():
    """The published vectors are what the code does."""
    assert json.loads(VECTORS.read_text()) == message_vectors()


@pytest.mark.parametrize("vector", message_vectors()["frames"], ids=lambda v: v["message"])
def test_frame_vectors(vector):
    """Each frame decodes to its message, and has its type byte first."""
    message = decode_message(bytes.fromhex(vector["frame"]))
    assert (type(message).__name__, bytes.fromhex(vector["frame"])[0]) == (vector["message"], vector["type"])


@pytest.mark.parametrize("vector", message_vectors()["proofs"])
def test_proof_vectors(vector):
    """The digest follows from the specification alone, and the proof is by the key in the side's own hello."""
    hellos = [bytes.fromhex(vector[name]) for name in ("dialler_hello", "acceptor_hello")]
    signed = [vector["side"], *hellos, [bytes.fromhex(text) for text in vector["fingerprints"]]]
    digest = hashlib.sha256(b"ledgerd/hello/1\0" + msgspec.msgpack.encode(signed)).digest()
    assert digest.hex() == vector["digest"]
    public_key = decode(hellos[vector["side"]], Hello).public_key
    assert is_valid_signature(public_key, digest, decode_message(bytes.fromhex(vector["frame"])).signature)


@pytest.mark.parametrize("vector", message_vectors()["invalid"], ids=lambda v: v["why"])
def test_invalid_vectors(vector):
    """Each invalid frame is refused as an encoding error."""
    with pytest.raises(EncodingError):
        decode_message(bytes.fromhex(vector["frame"]))


def test_the_field_is_named():
    """A wrong bound names the field and the element."""
    with pytest.raises(FieldError) as raised:
        decode_message(bytes([TYPE_BYTES[Announce]]) + bytes.fromhex("9191c41f") + bytes(31))
    assert raised.value.where == "tx_ids[0]"


def test_a_second_spelling_is_refused():
    """A longer spelling of a length that has a shorter one."""
    with pytest.raises(NonCanonicalEncoding):
        decode_message(bytes.fromhex("2191dd00000001c420" + "01" * 32))


def test_an_oversized_frame_is_refused_by_its_length():
    """The bound is checked before the body is looked at."""
    with pytest.raises(EncodingError) as raised:
        decode_message(bytes([32]) + bytes(limits.FRAME_BYTES_MAX))
    assert raised.value.actual == str(limits.FRAME_BYTES_MAX + 1)


def test_too_many_ids_are_refused():
    """A request holds at most its bound."""
    frame = encode_message(GetTransactions([bytes(32)] * (limits.GET_TRANSACTIONS_MAX + 1)))
    with pytest.raises(FieldError) as raised:
        decode_message(frame)
    assert raised.value.where == "tx_ids"


def test_the_largest_messages_fit_a_frame():
    """Whatever the bounds allow a sender to build on purpose fits."""
    ids = Announce([bytes(32)] * limits.ANNOUNCE_IDS_MAX)
    bodies = Transactions([bytes(512 * 1024)] * 2)
    assert max(len(encode_message(ids)), len(encode_message(bodies))) <= limits.FRAME_BYTES_MAX


def test_a_close_takes_any_reason():
    """A reason from elsewhere is cut and made printable, never an error."""
    message = close_message(CloseCode.FAULT, "na\u00efve\n" + "x" * 1_000)
    assert decode_message(encode_message(message)) == message
    assert message.reason.startswith("na?ve?xxx")
    assert len(message.reason) == limits.CLOSE_REASON_CHARACTERS_MAX


@given(st.binary(max_size=300))
def test_arbitrary_bytes(frame):
    """Anything decodes to a message that encodes to the same bytes, or raises EncodingError."""
    try:
        message = decode_message(frame)
    except EncodingError:
        return
    assert encode_message(message) == frame


@given(st.sampled_from(FRAMES), st.data())
def test_damaged_frames(frame, data):
    """A real frame with one byte changed, cut or doubled is refused or is another canonical message."""
    at = data.draw(st.integers(0, len(frame) - 1))
    damaged = data.draw(
        st.sampled_from(
            [
                frame[:at],
                frame[:at] + bytes([data.draw(st.integers(0, 255))]) + frame[at + 1 :],
                frame[:at] + frame[at : at + 1] + frame[at:],
                frame + frame[at:],
            ]
        )
    )
    try:
        message = decode_message(damaged)
    except EncodingError:
        return
    assert encode_message(message) == damaged
