"""Mutual proof of membership, before anything else is parsed. Pure: no I/O, no clock, no randomness.

Both sides send a hello at once, each answers the other's hello with a proof, and each is done once the other's
proof holds. The side taken is signed, so a hello cannot be reflected; both nonces are signed, so a proof cannot be
replayed; under TLS the certificates' fingerprints are signed, so nobody can sit between.

Source: docs/protocol.md, "Peering".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from ledger.codec import encode
from ledger.crypto import PrivateKey, hash_of, is_valid_signature, key_id_of
from ledger.entries import KeyEntry
from ledger.errors import EncodingError, PeerError
from p2p import limits
from p2p.messages import VERSION, Close, Hello, Proof, decode_message, encode_message

NONCE_BYTES = 32


class Side(IntEnum):
    """Who began the connection."""

    DIALLER = 0
    ACCEPTOR = 1

    @property
    def other(self) -> Side:
        """The opposite side."""
        return Side(1 - self)


class SelfDialError(PeerError):
    """We reached ourselves: this address need not be dialled again."""


@dataclass(frozen=True, slots=True)
class ProvenPeer:
    """A peer that proved its key.

    Attributes:
        key_id: id of its node key (20 bytes).
        member_id: the member whose key it is.
        endpoint: where it says it listens; may be empty.
        version: the protocol version to speak.
    """

    key_id: bytes
    member_id: str
    endpoint: str
    version: int


def _is_no_stranger(_key_id: bytes) -> bool:
    """Take nobody whose key is not known: the default."""
    return False


class NonceMemory:
    """The last nonces seen, to tell a replayed hello; bounded by ``limits.NONCES_MAX``."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def is_new(self, nonce: bytes) -> bool:
        """Tell whether ``nonce`` was not seen before, and remember it."""
        if nonce in self._seen:
            return False
        self._seen[nonce] = None
        if len(self._seen) > limits.NONCES_MAX:
            self._seen.popitem(last=False)
        return True


def proof_digest(side: Side, dialler: bytes, acceptor: bytes, fingerprints: Sequence[bytes]) -> bytes:
    """Return what ``side`` signs over both encoded hellos and the TLS certificates' SHA-256, the acceptor's first."""
    return hash_of("hello", (int(side), dialler, acceptor, list(fingerprints)))


class Handshake:
    """One side of a handshake.

    Send ``start()``, then feed every frame to ``receive`` and send what it returns, until ``peer`` is set. Any fault
    of the other side raises PeerError, whose sentence is fit to be sent in a Close.

    is_stranger: whether a key is to be taken though it is not known: its member is empty then. For an address that the
    operator named, while this node may be too far behind to know its members' keys; what is synced from there is
    verified like anything else.

    Attributes:
        peer: the proven peer, once its proof held.
    """

    def __init__(
        self,
        side: Side,
        *,
        key: PrivateKey,
        chain_id: bytes,
        nonce: bytes,
        node_key: Callable[[bytes], KeyEntry | None],
        nonces: NonceMemory,
        endpoint: str = "",
        fingerprints: Sequence[bytes] = (),
        is_stranger: Callable[[bytes], bool] = _is_no_stranger,
    ) -> None:
        self.peer: ProvenPeer | None = None
        self._is_stranger = is_stranger
        self._side = side
        self._key = key
        self._hello = Hello(chain_id, [VERSION], key.public_key, nonce, endpoint)
        self._node_key = node_key
        self._nonces = nonces
        self._fingerprints = tuple(fingerprints)
        self._theirs: Hello | None = None
        self._member_id = ""
        nonces.is_new(nonce)

    def start(self) -> bytes:
        """Return the frame to send first."""
        return encode_message(self._hello)

    def receive(self, frame: bytes) -> bytes | None:
        """Take the other side's next frame; return the frame to answer with, if any.

        Raises PeerError for every fault of the other side, and for its Close.
        """
        message = self._decode(frame)
        if isinstance(message, Close):
            raise PeerError(f"the other side closed: {message.reason}", where="handshake")
        if self.peer is not None:
            raise PeerError("the handshake is over", where="handshake")
        if self._theirs is None:
            # [REJECT] The first message is a hello.
            if not isinstance(message, Hello):
                raise _fault("out of order", "hello", expected="Hello", actual=type(message).__name__)
            self._check_hello(message)
            self._theirs = message
            return encode_message(Proof(self._key.sign(self._digest(self._side))))
        # [REJECT] The second message is a proof.
        if not isinstance(message, Proof):
            raise _fault("out of order", "proof", expected="Proof", actual=type(message).__name__)
        self._check_proof(message, self._theirs)
        return None

    def _decode(self, frame: bytes) -> object:
        # [REJECT] Nobody unproven may make us parse more than a hello's length, or another type of message.
        if len(frame) > limits.HANDSHAKE_FRAME_BYTES_MAX:
            raise _fault(
                "the frame is too large",
                "frame",
                expected=f"at most {limits.HANDSHAKE_FRAME_BYTES_MAX} bytes",
                actual=len(frame),
            )
        if frame[:1] not in (b"\x01", b"\x02", b"\x03"):
            raise _fault("out of order", "frame", expected="Hello, Proof or Close", actual=frame[:1])
        try:
            return decode_message(frame)
        except EncodingError as error:
            raise PeerError(
                error.what, where=f"handshake.{error.where}", expected=error.expected, actual=error.actual
            ) from None

    def _check_hello(self, hello: Hello) -> None:
        # [REJECT] Both are on one chain.
        if hello.chain_id != self._hello.chain_id:
            raise _fault(
                "you are on another chain",
                "hello.chain_id",
                expected=self._hello.chain_id.hex(),
                actual=hello.chain_id.hex(),
                hint="The two genesis files differ",
            )
        # [REJECT] There is a version that both speak.
        if VERSION not in hello.versions:
            raise _fault("no common protocol version", "hello.versions", expected=[VERSION], actual=hello.versions)
        # [REJECT] It is not ourselves that we reached.
        if hello.public_key == self._key.public_key:
            raise SelfDialError("this is the same node's key on both sides", where="handshake.hello.public_key")
        # [REJECT] The nonce is fresh.
        if not self._nonces.is_new(hello.nonce):
            raise _fault("the nonce was used before", "hello.nonce", actual=hello.nonce)
        # [REJECT] The key may meet peers.
        key_id = key_id_of(hello.public_key)
        entry = self._node_key(key_id)
        if entry is None and self._is_stranger(key_id):
            return
        if entry is None or entry.public_key != hello.public_key:
            raise _fault(
                "no member has this node key",
                "hello.public_key",
                actual=f"key id {key_id.hex()}",
                hint="It must be active with the node role, or in office, where this node stands",
            )
        self._member_id = entry.member_id

    def _check_proof(self, proof: Proof, hello: Hello) -> None:
        # [REJECT] The proof is by the key of the hello, for the other side, over both hellos and this very channel.
        if not is_valid_signature(hello.public_key, self._digest(self._side.other), proof.signature):
            raise _fault(
                "the proof does not verify",
                "proof.signature",
                expected="a signature over both hellos and the TLS fingerprints by the key of the hello",
            )
        self.peer = ProvenPeer(key_id_of(hello.public_key), self._member_id, hello.endpoint, VERSION)

    def _digest(self, side: Side) -> bytes:
        assert self._theirs is not None or side is self._side
        ours, theirs = encode(self._hello), encode(self._theirs)
        dialler, acceptor = (ours, theirs) if self._side is Side.DIALLER else (theirs, ours)
        return proof_digest(side, dialler, acceptor, self._fingerprints)


def _fault(what: str, where: str, *, expected: object = "", actual: object = "", hint: str = "") -> PeerError:
    return PeerError(what, where=f"handshake.{where}", expected=expected, actual=actual, hint=hint)
