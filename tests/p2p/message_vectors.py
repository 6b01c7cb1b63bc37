"""One example of every message of the peering, and the vectors made of them."""

from __future__ import annotations

from typing import Any

from ledger.block import (
    EMPTY_TOTALS,
    Block,
    BodyItem,
    Certificate,
    CertificatePart,
    Header,
    SealedHeader,
    Vote,
    body_root,
    certificate_hash,
)
from ledger.codec import ZERO32, encode
from ledger.crypto import PrivateKey
from p2p.handshake import Side, proof_digest
from p2p.messages import (
    TYPE_BYTES,
    Announce,
    BlockBody,
    Bodies,
    Close,
    CloseCode,
    GetBlock,
    GetBodies,
    GetHeaders,
    GetTransactions,
    Headers,
    Hello,
    Message,
    NotFound,
    PeerAddress,
    Peers,
    Proof,
    Seen,
    Status,
    Stored,
    Transactions,
    Votes,
    What,
    encode_message,
)

KEY = PrivateKey.from_seed(b"message vectors")
CHAIN_ID = bytes(range(32))
IDS = [bytes([n]) * 32 for n in (1, 2)]


def example_block() -> Block:
    """Return a block of two transactions that carries a certificate; its signature is over nothing."""
    body = [BodyItem(IDS[0], b""), BodyItem(IDS[1], b"\x05")]
    certificate = Certificate(6, IDS[0], 7, IDS[1], [CertificatePart(0, b"\x07", [bytes([n]) * 64 for n in (3, 4, 5)])])
    header = Header(
        1, CHAIN_ID, 8, 300, IDS[1], KEY.key_id, ZERO32, 2, body_root(body), EMPTY_TOTALS, ZERO32, ZERO32,
        certificate_hash(certificate),
    )  # fmt: skip
    return Block(SealedHeader(header, bytes(64), certificate), body)


def example_messages() -> list[Message]:
    """Return one example of each message, in the order of their type bytes."""
    block = example_block()
    hello = Hello(CHAIN_ID, [1], KEY.public_key, bytes(32), "ws://127.0.0.1:9090")
    vote = Vote(6, IDS[0], 7, IDS[1], KEY.key_id, bytes(64))
    return [
        hello,
        Proof(KEY.sign(proof_digest(Side.DIALLER, b"a", b"b", []))),
        Close(CloseCode.SHUTDOWN, "stopping"),
        Status(8, IDS[0], 300, 7, 6, IDS[1], "carrier-a", "ledgerd/0.1.0"),
        Peers([PeerAddress(KEY.key_id, "wss://node.example:9090")]),
        Seen(6, 1_780_000_000_000, -12, [vote], [SealedHeader(block.sealed.header, bytes(64), None)]),
        Transactions([b"\x93\x01\x02\x03", b"\x90"]),
        Announce(IDS),
        GetTransactions(IDS),
        Stored(IDS),
        block,
        GetBlock(IDS[0]),
        Votes([vote]),
        GetHeaders(1, 256),
        Headers([block.sealed]),
        GetBodies(IDS),
        Bodies([BlockBody(IDS[0], block.body)]),
        NotFound(What.TRANSACTION, IDS),
    ]


def proof_vectors() -> list[dict[str, Any]]:
    """Return what each side signs over one pair of hellos, without TLS and with it."""
    acceptor_key = PrivateKey.from_seed(b"message vectors, acceptor")
    dialler = encode(Hello(CHAIN_ID, [1], KEY.public_key, bytes(32), ""))
    acceptor = encode(Hello(CHAIN_ID, [1, 2], acceptor_key.public_key, b"\x01" * 32, "wss://node.example:9090"))
    cases = [
        (side, key, fingerprints)
        for fingerprints in ([], [b"\xfa" * 32])
        for side, key in ((Side.DIALLER, KEY), (Side.ACCEPTOR, acceptor_key))
    ]
    return [
        {
            "side": int(side),
            "dialler_hello": dialler.hex(),
            "acceptor_hello": acceptor.hex(),
            "fingerprints": [fingerprint.hex() for fingerprint in fingerprints],
            "digest": proof_digest(side, dialler, acceptor, fingerprints).hex(),
            "frame": encode_message(Proof(key.sign(proof_digest(side, dialler, acceptor, fingerprints)))).hex(),
        }
        for side, key, fingerprints in cases
    ]


def message_vectors() -> dict[str, Any]:
    """Return the document of ``tests/vectors/messages.json``."""
    return {
        "description": "One frame of each message of the peering: a type byte and the canonical MessagePack of a fixed"
        " array (docs/protocol.md, Peering). frame is hex. invalid frames must be refused by every implementation."
        " proofs: what each side signs over both hellos (digest), and its Proof, by the key in its own hello.",
        "frames": [
            {
                "message": type(message).__name__,
                "type": TYPE_BYTES[type(message)],
                "frame": encode_message(message).hex(),
            }
            for message in example_messages()
        ],
        "proofs": proof_vectors(),
        "invalid": [
            {"why": "empty", "frame": ""},
            {"why": "unknown type", "frame": "0090"},
            {"why": "type byte only", "frame": "20"},
            {"why": "no ids", "frame": "219190"},
            {"why": "an id of 31 bytes", "frame": "219191c41f" + "01" * 31},
            {"why": "a trailing byte", "frame": "219191c420" + "01" * 32 + "00"},
            {"why": "a field too many", "frame": "219291c420" + "01" * 32 + "00"},
            {"why": "a length of four bytes where one does", "frame": "2191dd00000001c420" + "01" * 32},
            {"why": "an integer of two bytes where one does", "frame": "4092cc0101"},
            {"why": "a height of 0", "frame": "40920001"},
            {"why": "a count beyond the bound", "frame": "409201cd0101"},
            {"why": "a float", "frame": "4092ca3f80000001"},
            {"why": "a control character in a reason", "frame": "039201a10a"},
        ],
    }
