"""The handshake: both sides prove membership, or the connection ends with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.crypto import PrivateKey
from ledger.entries import KeyEntry
from ledger.errors import PeerError
from p2p import limits
from p2p.handshake import Handshake, NonceMemory, ProvenPeer, Side
from p2p.messages import CloseCode, Hello, Proof, Status, close_message, decode_message, encode_message

CHAIN = b"\x01" * 32
KEYS = {name: PrivateKey.from_seed(name.encode()) for name in ("carrier-a", "carrier-b")}
STRANGER = PrivateKey.from_seed(b"stranger")
ENTRIES = {key.key_id: KeyEntry(name, key.public_key, 1, 1) for name, key in KEYS.items()}


def side(which, key=None, *, chain_id=CHAIN, nonce=None, nonces=None, endpoint="", fingerprints=()):
    """Return a handshake of carrier-a (dialling) or carrier-b (accepting)."""
    default = KEYS["carrier-a" if which is Side.DIALLER else "carrier-b"]
    return Handshake(
        which,
        key=key or default,
        chain_id=chain_id,
        nonce=nonce or bytes([int(which) + 1]) * 32,
        node_key=ENTRIES.get,
        nonces=nonces or NonceMemory(),
        endpoint=endpoint,
        fingerprints=fingerprints,
    )


def pair(**changes):
    """Return a dialler and an acceptor, the acceptor changed."""
    return side(Side.DIALLER), side(Side.ACCEPTOR, **changes)


def run(a, b):
    """Exchange frames in lock-step until both are done."""
    hello_a, hello_b = a.start(), b.start()
    proof_b, proof_a = b.receive(hello_a), a.receive(hello_b)
    assert (b.receive(proof_a), a.receive(proof_b)) == (None, None)


def refusal(handshake, *frames):
    """Return the PeerError that the last of ``frames`` raises."""
    for frame in frames[:-1]:
        handshake.receive(frame)
    with pytest.raises(PeerError) as raised:
        handshake.receive(frames[-1])
    assert handshake.peer is None
    return raised.value


def test_two_members():
    """Each knows the other's key, member, endpoint and version."""
    a, b = pair(endpoint="ws://127.0.0.1:9090")
    run(a, b)
    assert a.peer == ProvenPeer(KEYS["carrier-b"].key_id, "carrier-b", "ws://127.0.0.1:9090", 1)
    assert b.peer == ProvenPeer(KEYS["carrier-a"].key_id, "carrier-a", "", 1)


def test_one_side_after_the_other():
    """The order in which the frames cross does not matter."""
    a, b = pair()
    proof_b = b.receive(a.start())
    proof_a = a.receive(b.start())
    a.receive(proof_b)
    b.receive(proof_a)
    assert (a.peer.member_id, b.peer.member_id) == ("carrier-b", "carrier-a")


def test_another_chain_names_both():
    """The reason holds both chain ids, so that both operators can see whose genesis differs."""
    a, b = pair(chain_id=b"\x02" * 32)
    error = refusal(a, b.start())
    assert (error.where, error.expected, error.actual) == ("handshake.hello.chain_id", "01" * 32, "02" * 32)


def test_a_stranger():
    """A key that no member has."""
    a, b = pair(key=STRANGER)
    error = refusal(a, b.start())
    assert (error.where, error.actual) == ("handshake.hello.public_key", f"key id {STRANGER.key_id.hex()}")


def test_no_common_version():
    """Versions are listed by both."""
    hello = encode_message(Hello(CHAIN, [2, 7], KEYS["carrier-b"].public_key, bytes(32), ""))
    error = refusal(side(Side.DIALLER), hello)
    assert (error.where, error.expected, error.actual) == ("handshake.hello.versions", "[1]", "[2, 7]")


def test_self_dial():
    """Our own key at the other end."""
    a, b = pair(key=KEYS["carrier-a"])
    assert refusal(a, b.start()).what == "this is the same node's key on both sides"


def test_a_reflected_hello():
    """Our own hello sent back."""
    a = side(Side.DIALLER)
    assert refusal(a, a.start()).where == "handshake.hello.public_key"


def test_a_replayed_nonce():
    """A hello seen on an earlier connection."""
    nonces = NonceMemory()
    b = side(Side.ACCEPTOR)
    side(Side.DIALLER, nonces=nonces).receive(b.start())
    error = refusal(side(Side.DIALLER, nonces=nonces, nonce=b"\x09" * 32), b.start())
    assert (error.what, error.where) == ("the nonce was used before", "handshake.hello.nonce")


def test_nonce_memory_is_bounded():
    """The oldest nonce is forgotten."""
    nonces = NonceMemory()
    assert all(nonces.is_new(n.to_bytes(32)) for n in range(limits.NONCES_MAX + 1))
    assert (nonces.is_new((1).to_bytes(32)), nonces.is_new((0).to_bytes(32))) == (False, True)


def test_a_proof_by_another_key():
    """The proof must be by the key of the hello."""
    a, b = pair()
    proof = encode_message(Proof(STRANGER.sign(bytes(32))))
    assert refusal(a, b.start(), proof).where == "handshake.proof.signature"


def test_a_proof_of_the_other_side_is_not_ours():
    """A proof reflected to its maker does not hold, though made over the same hellos."""
    a, b = pair()
    ours = a.receive(b.start())
    with pytest.raises(PeerError) as raised:
        a.receive(ours)
    assert raised.value.where == "handshake.proof.signature"


def test_a_proof_of_an_earlier_connection():
    """Fresh nonces make an old proof worthless."""
    a, b = pair()
    old = b.receive(a.start())
    again = side(Side.DIALLER, nonce=b"\x07" * 32)
    assert refusal(again, b.start(), old).where == "handshake.proof.signature"


def test_a_channel_in_between():
    """Under TLS both must see the same certificate."""
    a, b = side(Side.DIALLER, fingerprints=[b"\x01" * 32]), side(Side.ACCEPTOR, fingerprints=[b"\x02" * 32])
    proof = b.receive(a.start())
    assert refusal(a, b.start(), proof).where == "handshake.proof.signature"


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        ([encode_message(Proof(bytes(64)))], "out of order"),
        ([encode_message(Status(0, bytes(32), 0, 0, 0, bytes(32), "a", ""))], "out of order"),
        ([b""], "out of order"),
        ([b"\x01" + bytes(limits.HANDSHAKE_FRAME_BYTES_MAX)], "the frame is too large"),
        ([encode_message(close_message(CloseCode.BUSY, "full"))], "the other side closed: full"),
    ],
)
def test_out_of_order(frames, what):
    """Anything but a hello first ends it, before it is decoded."""
    assert refusal(side(Side.DIALLER), *frames).what == what


def test_a_second_hello():
    """A proof follows the hello, nothing else."""
    a, b = pair()
    other = side(Side.ACCEPTOR, nonce=b"\x08" * 32)
    assert refusal(a, b.start(), other.start()).expected == "Proof"


def test_after_the_end():
    """A finished handshake takes no more."""
    a, b = pair()
    run(a, b)
    with pytest.raises(PeerError, match="the handshake is over"):
        a.receive(b.start())


def test_every_refusal_fits_a_close():
    """The sentence of a refusal can be sent to the other side whole."""
    a, b = pair(chain_id=b"\x02" * 32)
    reason = refusal(a, b.start()).sentence()
    assert decode_message(encode_message(close_message(CloseCode.HANDSHAKE, reason))).reason == reason


@given(st.lists(st.binary(max_size=1_100) | st.binary(max_size=200).map(lambda b: b"\x01" + b), max_size=3))
def test_arbitrary_frames(frames):
    """Arbitrary frames never prove anybody and raise only PeerError."""
    handshake = side(Side.ACCEPTOR)
    for frame in frames:
        with pytest.raises(PeerError):
            handshake.receive(frame)
    assert handshake.peer is None


def test_a_stranger_at_an_address_that_the_operator_named():
    """Its key is proven all the same; whose it is nobody can say yet. A key that is known and ended is refused."""
    known = {}
    a = Handshake(
        Side.DIALLER, key=KEYS["carrier-a"], chain_id=CHAIN, nonce=b"\x01" * 32, node_key=known.get,
        nonces=NonceMemory(), is_stranger=lambda key_id: key_id == STRANGER.key_id,
    )  # fmt: skip
    b = side(Side.ACCEPTOR, STRANGER)
    run(a, b)
    assert a.peer == ProvenPeer(STRANGER.key_id, "", "", 1)
    a = Handshake(
        Side.DIALLER, key=KEYS["carrier-a"], chain_id=CHAIN, nonce=b"\x03" * 32, node_key=known.get,
        nonces=NonceMemory(), is_stranger=lambda key_id: key_id == STRANGER.key_id,
    )  # fmt: skip
    assert "no member has this node key" in refusal(a, side(Side.ACCEPTOR).start()).what


def test_a_stranger_has_to_prove_its_key_as_well():
    a = Handshake(
        Side.DIALLER, key=KEYS["carrier-a"], chain_id=CHAIN, nonce=b"\x01" * 32, node_key=ENTRIES.get,
        nonces=NonceMemory(), is_stranger=lambda key_id: key_id == STRANGER.key_id,
    )  # fmt: skip
    hello = side(Side.ACCEPTOR, STRANGER).start()
    assert "proof" in refusal(a, hello, encode_message(Proof(bytes(64)))).where
