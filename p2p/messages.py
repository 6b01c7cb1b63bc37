"""The messages of the peering: one frame is a type byte and the canonical MessagePack of one struct.

Decoding is strict and bounded before anything is kept; on any bytes it raises EncodingError or returns a message.
Transactions travel as the raw bytes that were signed and stored: nothing here looks into their records.

Source: docs/protocol.md, "Peering".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, TypeAlias, get_args

from msgspec import Meta

from ledger.block import BLOCK_TRANSACTIONS_MAX, Block, BodyItem, SealedHeader, Vote
from ledger.codec import U16, Bytes20, Bytes32, Bytes33, Bytes64, Count, MemberId, TimeMs, Wire, decode, encode
from ledger.errors import EncodingError, FieldError
from ledger.genesis import Endpoint
from ledger.transaction import TRANSACTION_BYTES_MAX
from p2p import limits

VERSION = 1
"""The protocol version spoken here."""

Text = Annotated[
    str,
    Meta(pattern=rf"^[ -~]{{0,{limits.CLOSE_REASON_CHARACTERS_MAX}}}\Z", max_length=limits.CLOSE_REASON_CHARACTERS_MAX),
]
Agent = Annotated[
    str, Meta(pattern=rf"^[!-~]{{0,{limits.AGENT_CHARACTERS_MAX}}}\Z", max_length=limits.AGENT_CHARACTERS_MAX)
]
SkewMs = Annotated[int, Meta(ge=-(2**42), le=2**42)]
Ids = Annotated[list[Bytes32], Meta(min_length=1, max_length=limits.ANNOUNCE_IDS_MAX)]
Raw = Annotated[bytes, Meta(min_length=1, max_length=TRANSACTION_BYTES_MAX)]


class Hello(Wire, frozen=True):
    """The first message of both sides."""

    chain_id: Bytes32
    versions: Annotated[list[U16], Meta(min_length=1, max_length=limits.VERSIONS_MAX)]
    """Protocol versions spoken; the highest common one is used."""
    public_key: Bytes33
    """A node key of a member."""
    nonce: Bytes32
    """Fresh and random: the other side signs over it."""
    endpoint: Endpoint
    """Where the sender can be dialled; may be empty."""


class Proof(Wire, frozen=True):
    """The second message of both sides: the sender holds the key of its hello."""

    signature: Bytes64
    """Over ``H("hello", [side, hello of the dialler, hello of the acceptor, TLS fingerprints])``."""


class CloseCode(IntEnum):
    """Why a connection ends."""

    SHUTDOWN = 1
    """The sender stops."""
    HANDSHAKE = 2
    """The handshake failed; the reason says how."""
    DUPLICATE = 3
    """Another connection between the two is kept."""
    FAULT = 4
    """The receiver broke the protocol."""
    BANNED = 5
    """Too many faults."""
    BUSY = 6
    """No room for another peer."""
    SLOW = 7
    """The receiver did not keep up."""


class Close(Wire, frozen=True):
    """The last message: why."""

    code: CloseCode
    reason: Text


class Status(Wire, frozen=True):
    """What the sender has; sent at the start, and at times."""

    head_height: Count
    head_id: Bytes32
    head_slot: Count
    justified_height: Count
    final_height: Count
    final_id: Bytes32
    member_id: MemberId
    agent: Agent
    """Program and version, as ``ledgerd/0.1.0``."""


class Seen(Wire, frozen=True):
    """What the sender has seen of the receiver; sent at the start, and at times.

    Whoever lost its vote record, or restored an old one, learns what it has signed: its own signatures prove it.
    """

    final_height: Count
    """Of the sender: up to here the receiver must have the chain before it signs."""
    now_ms: TimeMs
    """The sender's clock."""
    skew_ms: SkewMs | None
    """How far the receiver's clock seemed ahead when its last ones arrived, their way not deducted; null before."""
    votes: Annotated[list[Vote], Meta(max_length=limits.SEEN_KEYS_MAX)]
    """The highest vote of each node key of the receiver's member, as far as seen."""
    headers: Annotated[list[SealedHeader], Meta(max_length=limits.SEEN_KEYS_MAX)]
    """The header of the latest slot of each of these keys, without certificate."""


class PeerAddress(Wire, frozen=True):
    """Where a peer listens; a hint, proven only by dialling."""

    key_id: Bytes20
    endpoint: Endpoint


class Peers(Wire, frozen=True):
    """Peers that the sender knows."""

    addresses: Annotated[list[PeerAddress], Meta(max_length=limits.PEER_ADDRESSES_MAX)]


class Transactions(Wire, frozen=True):
    """Bodies, pushed by the node that took them in or asked for: raw canonical transactions."""

    raws: Annotated[list[Raw], Meta(min_length=1, max_length=limits.TRANSACTIONS_MAX)]


class Announce(Wire, frozen=True):
    """The sender holds these transactions, checked, and gives them on request."""

    tx_ids: Ids


class GetTransactions(Wire, frozen=True):
    """Asks for bodies; answered in order by one Transactions as far as they fit, and NotFound for those not held."""

    tx_ids: Annotated[list[Bytes32], Meta(min_length=1, max_length=limits.GET_TRANSACTIONS_MAX)]


class Stored(Wire, frozen=True):
    """The sender has these transactions on disk, synced: a crash of its submitter cannot lose them any more."""

    tx_ids: Ids


class GetBlock(Wire, frozen=True):
    """Asks for one block by its id; answered by Block or NotFound."""

    block_id: Bytes32


class Votes(Wire, frozen=True):
    """Votes, pushed and passed on."""

    votes: Annotated[list[Vote], Meta(min_length=1, max_length=limits.VOTES_MAX)]


class GetHeaders(Wire, frozen=True):
    """Asks for headers of the receiver's best chain, ascending."""

    from_height: Annotated[int, Meta(ge=1, le=2**62)]
    count: Annotated[int, Meta(ge=1, le=limits.HEADERS_MAX)]


class Headers(Wire, frozen=True):
    """Headers with their certificates, consecutive; fewer than asked where the chain or the room ends."""

    headers: Annotated[list[SealedHeader], Meta(max_length=limits.HEADERS_MAX)]


class GetBodies(Wire, frozen=True):
    """Asks for the bodies of blocks; answered in order by one Bodies as far as they fit, and NotFound."""

    block_ids: Annotated[list[Bytes32], Meta(min_length=1, max_length=limits.BODIES_MAX)]


class BlockBody(Wire, frozen=True):
    """The body of one block."""

    block_id: Bytes32
    items: Annotated[list[BodyItem], Meta(max_length=BLOCK_TRANSACTIONS_MAX)]


class Bodies(Wire, frozen=True):
    """Bodies asked for."""

    bodies: Annotated[list[BlockBody], Meta(min_length=1, max_length=limits.BODIES_MAX)]


class What(IntEnum):
    """What was not found."""

    TRANSACTION = 1
    BLOCK = 2
    BODY = 3


class NotFound(Wire, frozen=True):
    """The receiver of a request does not have these; no fault."""

    what: What
    ids: Ids


Message: TypeAlias = (
    Hello
    | Proof
    | Close
    | Status
    | Peers
    | Seen
    | Transactions
    | Announce
    | GetTransactions
    | Stored
    | Block
    | GetBlock
    | Votes
    | GetHeaders
    | Headers
    | GetBodies
    | Bodies
    | NotFound
)
"""Everything that may be in a frame; a block travels as ``ledger.block.Block`` itself."""

TYPE_BYTES: dict[type[Any], int] = {
    Hello: 1,
    Proof: 2,
    Close: 3,
    Status: 16,
    Peers: 17,
    Seen: 18,
    Transactions: 32,
    Announce: 33,
    GetTransactions: 34,
    Stored: 35,
    Block: 48,
    GetBlock: 49,
    Votes: 50,
    GetHeaders: 64,
    Headers: 65,
    GetBodies: 66,
    Bodies: 67,
    NotFound: 80,
}
"""The first byte of a frame."""

_KINDS = {number: kind for kind, number in TYPE_BYTES.items()}
_PREFIXES = {kind: bytes([number]) for kind, number in TYPE_BYTES.items()}
assert set(TYPE_BYTES) == set(get_args(Message))


def encode_message(message: Message) -> bytes:
    """Return the frame of a message."""
    return _PREFIXES[type(message)] + encode(message)


def decode_message(frame: bytes) -> Message:
    """Return the message in a frame.

    Raises EncodingError for an empty, oversized or unknown frame, FieldError naming the field for a wrong type or
    bound, NonCanonicalEncoding for a second spelling; nothing else, whatever the bytes.
    """
    if not frame:
        raise EncodingError("an empty frame", where="frame", expected="a type byte and a body")
    if len(frame) > limits.FRAME_BYTES_MAX:
        raise EncodingError(
            "the frame is too large",
            where="frame",
            expected=f"at most {limits.FRAME_BYTES_MAX} bytes",
            actual=len(frame),
        )
    kind = _KINDS.get(frame[0])
    if kind is None:
        raise FieldError("an unknown type of message", where="frame.type", actual=frame[0])
    message: Message = decode(frame[1:], kind)
    return message


def printable(text: str) -> str:
    """Return ``text`` cut and stripped to what a Close may hold."""
    clean = "".join(c if " " <= c <= "~" else "?" for c in text)
    most = limits.CLOSE_REASON_CHARACTERS_MAX
    return clean if len(clean) <= most else clean[: most - 3] + "..."


def close_message(code: CloseCode, reason: str) -> Close:
    """Return a Close with any text as its reason."""
    return Close(code, printable(reason))
