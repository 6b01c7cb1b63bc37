"""Peers over real sockets on loopback: who is let in, what ends a connection, and how it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ledger.crypto import PrivateKey
from ledger.entries import KeyEntry
from ledger.errors import ConfigError
from p2p import limits
from p2p.addresses import check_url, is_loopback
from p2p.handshake import Handshake, NonceMemory, Side
from p2p.messages import (
    Announce,
    Close,
    CloseCode,
    PeerAddress,
    Peers,
    Transactions,
    decode_message,
    encode_message,
)
from p2p.transport import PATH, Transport, TransportConfig

CHAIN = b"\x01" * 32
NAMES = ("carrier-a", "carrier-b", "carrier-c")
KEYS = sorted((PrivateKey.from_seed(name.encode()) for name in NAMES), key=lambda key: key.key_id)
LOW, MIDDLE, HIGH = KEYS
ENTRIES = {key.key_id: KeyEntry(name, key.public_key, 1, 1) for key, name in zip(KEYS, NAMES, strict=True)}
STRANGER = PrivateKey.from_seed(b"stranger")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short waits."""
    monkeypatch.setattr(limits, "BACKOFF_MIN_MS", 10)
    monkeypatch.setattr(limits, "BACKOFF_MAX_MS", 50)
    monkeypatch.setattr(limits, "CLOSE_TIMEOUT_MS", 300)


async def until(condition, seconds=10):
    """Wait until ``condition()`` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions over plain state
            await asyncio.sleep(0.005)


class End:
    """A transport that listens on loopback and remembers what it was told."""

    def __init__(
        self, key, *, peers=(), chain_id=CHAIN, tls=None, certificate=None, endpoint="", entries=ENTRIES, known=()
    ):
        self.key_id = key().key_id if callable(key) else key.key_id
        self.events = []
        self.messages = []
        self.refused = []
        self.faults = []
        self.gate = None
        self.tls = tls
        self.transport = Transport(
            TransportConfig(peers=tuple(peers), certificate=certificate, endpoint=endpoint),
            key=key,
            chain_id=chain_id,
            node_key=entries.get,
            on_message=self.take,
            on_peer_up=lambda peer: self.events.append(("up", peer.key_id)),
            on_peer_down=lambda key_id, reason: self.events.append(("down", key_id, reason)),
            on_fault=lambda key_id, reason: self.faults.append((key_id, reason)),
            on_refused=lambda address, reason: self.refused.append(reason),
            is_candidate=lambda key_id: key_id in ENTRIES,
            is_unknown=lambda key_id: key_id not in entries and key_id not in known,
        )

    def take(self, peer, message):
        self.messages.append((peer, message))
        return self.gate.wait() if self.gate is not None else None

    @property
    def connected(self):
        return [peer.key_id for peer in self.transport.peers]

    async def listen(self, port=0):
        app = web.Application()
        self.transport.attach(app)
        self.runner = web.AppRunner(app, shutdown_timeout=1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", port, ssl_context=self.tls, reuse_address=True)
        await site.start()
        self.port = self.runner.addresses[0][1]
        self.url = f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.port}"

    async def close(self):
        await self.transport.stop()
        await self.runner.cleanup()


@pytest.fixture
async def make():
    """Return a function that starts an End; all are stopped afterwards."""
    ends = []

    async def start(key, **options):
        port = options.pop("port", 0)
        end = End(key, **options)
        await end.listen(port)
        ends.append(end)
        await end.transport.start()
        return end

    yield start
    for end in ends:
        await end.close()


@contextlib.asynccontextmanager
async def raw_peer(end, key=HIGH, *, shake=True, **ws_options):
    """Connect to ``end`` with frames of the test's own making, after a good handshake."""
    async with aiohttp.ClientSession() as session, session.ws_connect(end.url + PATH, **ws_options) as ws:
        if shake:
            handshake = Handshake(
                Side.DIALLER, key=key, chain_id=CHAIN, nonce=b"\x05" * 32, node_key=ENTRIES.get, nonces=NonceMemory()
            )
            await ws.send_bytes(handshake.start())
            while handshake.peer is None:
                answer = handshake.receive((await ws.receive()).data)
                if answer:
                    await ws.send_bytes(answer)
            await until(lambda: key.key_id in end.connected)
        yield ws


async def last_words(ws):
    """Return the Close that the other end sends."""
    async with asyncio.timeout(5):
        while True:
            message = await ws.receive()
            assert message.type is aiohttp.WSMsgType.BINARY, message
            decoded = decode_message(message.data)
            if isinstance(decoded, Close):
                return decoded


async def test_two_members_exchange_messages(make):
    """In order, both ways, large and small."""
    a = await make(LOW)
    b = await make(HIGH, peers=[a.url])
    await until(lambda: a.connected and b.connected)
    assert (a.connected, b.connected) == ([b.key_id], [a.key_id])
    sent = [Announce([bytes([n]) * 32]) for n in range(100)]
    large = Transactions([bytes(512 * 1024)] * 2)
    for message in [large, *sent]:
        assert b.transport.send(a.key_id, message)
    a.transport.broadcast(sent[0])
    await until(lambda: len(a.messages) == 101 and len(b.messages) == 1)
    assert a.messages == [(b.key_id, message) for message in [large, *sent]]
    assert b.messages == [(a.key_id, sent[0])]


async def test_sending_to_nobody(make):
    """A peer that is not connected."""
    a = await make(LOW)
    assert a.transport.send(b"\x01" * 20, Announce([bytes(32)])) is False


async def test_another_genesis_is_refused_with_both_ids(make):
    """Both ends can print whose chain is which."""
    a = await make(LOW)
    b = await make(HIGH, peers=[a.url], chain_id=b"\x02" * 32)
    await until(lambda: a.refused and b.refused)
    for reason in (a.refused[0], b.refused[0]):
        assert "01" * 32 in reason
        assert "02" * 32 in reason
        assert "genesis files differ" in reason
    assert (a.events, b.events) == ([], [])


async def test_a_stranger_is_refused(make):
    """Its key is named at both ends."""
    a = await make(LOW)
    b = await make(STRANGER, peers=[a.url])
    await until(lambda: a.refused and b.refused)
    assert f"key id {STRANGER.key_id.hex()}" in a.refused[0]
    assert "the other side closed" in b.refused[0]
    assert f"key id {STRANGER.key_id.hex()}" in b.refused[0]


async def test_dialling_oneself_ends(make):
    """The address is not dialled again."""
    a = await make(LOW)
    a.transport._dial(a.url)
    await until(lambda: len(a.refused) == 2 and not a.transport._dials)
    assert all("the same node's key" in reason for reason in a.refused)


async def test_silence_is_not_waited_for(make, monkeypatch):
    """A connection that does not shake hands."""
    monkeypatch.setattr(limits, "HANDSHAKE_TIMEOUT_MS", 50)
    a = await make(LOW)
    async with raw_peer(a, shake=False) as ws:
        close = await last_words(ws)
    assert (close.code, "took too long" in close.reason) == (CloseCode.HANDSHAKE, True)


async def test_a_large_frame_before_the_proof(make):
    """Strangers may send no more than a hello."""
    a = await make(LOW)
    async with raw_peer(a, shake=False) as ws:
        await ws.send_bytes(b"\x01" + bytes(limits.HANDSHAKE_FRAME_BYTES_MAX))
        close = await last_words(ws)
    assert close.code is CloseCode.HANDSHAKE
    assert "the frame is too large" in close.reason


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "an empty frame"),
        (b"\x00\x90", "an unknown type of message"),
        (encode_message(Announce([bytes(32)]))[:-1], "not valid MessagePack"),
        (bytes.fromhex("2191dd00000001c420") + bytes(32), "not the canonical encoding"),
        (b"\x02\x91\xc4\x40" + bytes(64), "Proof after the handshake"),
    ],
)
async def test_what_is_no_message_ends_the_connection(make, frame, reason):
    """With a reason for the peer, and a fault for its score."""
    a = await make(LOW)
    async with raw_peer(a) as ws:
        await ws.send_bytes(frame)
        close = await last_words(ws)
    assert (close.code, reason in close.reason) == (CloseCode.FAULT, True)
    assert [key_id for key_id, _ in a.faults] == [HIGH.key_id]
    assert a.events[-1][:2] == ("down", HIGH.key_id)


async def test_a_text_frame_ends_the_connection(make):
    """Frames are binary."""
    a = await make(LOW)
    async with raw_peer(a) as ws:
        await ws.send_str("hello")
        close = await last_words(ws)
    assert (close.code, "a text frame" in close.reason) == (CloseCode.FAULT, True)


async def test_an_oversized_frame_ends_the_connection(make):
    """Before it is read whole."""
    a = await make(LOW)
    async with raw_peer(a, max_msg_size=0) as ws:
        with contextlib.suppress(OSError, aiohttp.ClientError):  # it is closed while the frame is on its way
            await ws.send_bytes(bytes(limits.FRAME_BYTES_MAX + 1))
        await until(lambda: a.events[-1][0] == "down")
    assert a.faults[0][0] == HIGH.key_id
    assert f"exceeds limit {limits.FRAME_BYTES_MAX}" in a.faults[0][1]


async def test_a_dropped_connection_comes_back(make):
    """Up and down alternate at both ends."""
    a = await make(LOW)
    b = await make(HIGH, peers=[a.url])
    await until(lambda: a.connected and b.connected)
    for ws in [c.ws for c in a.transport._connections.values()]:
        ws._req.transport.abort()
    await until(lambda: [event[0] for event in b.events] == ["up", "down", "up"])
    await until(lambda: [event[0] for event in a.events] == ["up", "down", "up"])


async def test_a_peer_that_goes_amid_the_handshake_is_dialled_again(make):
    """As one that is killed at that moment: no reason to give up its address."""
    seen = []

    async def go(request):
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        seen.append(await ws.receive())
        request.transport.abort()
        return ws

    app = web.Application()
    app.router.add_get(PATH, go)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        end = await make(LOW, peers=[f"ws://127.0.0.1:{runner.addresses[0][1]}"])
        await until(lambda: len(seen) >= 3)
        assert "handshake: the connection was closed" in end.refused[0]
    finally:
        await end.close()
        await runner.cleanup()


async def test_a_restarted_peer_is_found(make):
    """A peer that was away is dialled until it is there."""
    a = await make(LOW)
    b = await make(HIGH, peers=[a.url])
    await until(lambda: b.connected)
    await a.close()
    assert b.events[-1] == ("down", LOW.key_id, "the peer closed: this node stops")
    again = await make(LOW, port=a.port)
    await until(lambda: b.connected and again.connected)


async def test_two_that_dial_each_other_keep_one(make):
    """The connection dialled by the lower key id, whoever came first."""
    a = await make(LOW)
    b = await make(HIGH, peers=[a.url])
    await until(lambda: a.connected and b.connected)
    a.transport._dial(b.url)
    await until(lambda: len(a.events) >= 3 and len(b.events) >= 3 and a.connected and b.connected)
    await asyncio.sleep(0.1)
    assert (len(a.connected), len(b.connected)) == (1, 1)
    assert [c.side for c in a.transport._connections.values()] == [Side.DIALLER]
    assert [c.side for c in b.transport._connections.values()] == [Side.ACCEPTOR]
    for end in (a, b):
        assert [event[0] for event in end.events] == ["up", "down", "up"]


async def test_a_banned_peer_is_refused(make):
    """It is told, and kept out."""
    a = await make(LOW)
    async with raw_peer(a) as ws:
        a.transport.ban(HIGH.key_id, "four lies")
        close = await last_words(ws)
    assert (close.code, close.reason) == (CloseCode.BANNED, "four lies")
    b = await make(HIGH, peers=[a.url])
    await until(lambda: a.refused)
    assert "banned" in a.refused[0]
    await until(lambda: any("banned" in str(event) for event in b.events))


async def test_a_slow_peer_is_dropped(make, monkeypatch):
    """Never waited for: sending goes on at once."""
    monkeypatch.setattr(limits, "OUTBOX_BYTES_MAX", 8 * 1024 * 1024)
    a = await make(LOW)
    async with raw_peer(a):
        big = Transactions([bytes(512 * 1024)] * 7)
        async with asyncio.timeout(5):
            while a.transport.send(HIGH.key_id, big):  # noqa: ASYNC110 - lets the writer run
                await asyncio.sleep(0)
        assert "does not keep up" in a.events[-1][2]


async def test_a_busy_driver_holds_back_the_peer(make):
    """While the driver does not return, the peer's next message is not read; others are."""
    a = await make(LOW)
    a.gate = asyncio.Event()
    b, c = await make(MIDDLE, peers=[a.url]), await make(HIGH, peers=[a.url])
    await until(lambda: len(a.connected) == 2)
    for n in range(5):
        b.transport.send(a.key_id, Announce([bytes([n]) * 32]))
    await until(lambda: len(a.messages) == 1)
    c.transport.send(a.key_id, Announce([bytes(32)]))
    await until(lambda: len(a.messages) == 2)
    assert [peer for peer, _ in a.messages] == [b.key_id, c.key_id]
    a.gate.set()
    await until(lambda: len(a.messages) == 6)


async def test_addresses_of_candidates_are_learned(make):
    """Two nodes that know one third find each other."""
    a = await make(LOW)
    b = await make(MIDDLE, peers=[a.url])
    c = End(HIGH, peers=[a.url])
    await c.listen()
    c.transport._config = TransportConfig(peers=(a.url,), endpoint=c.url)
    await c.transport.start()
    await until(lambda: len(b.connected) == 2)
    assert set(b.connected) == {a.key_id, c.key_id}
    await c.close()


async def test_a_learned_address_is_given_up(make):
    """One where nobody listens, or that is no candidate's, or may not be dialled."""
    a = await make(LOW)
    dead = "ws://127.0.0.1:9"
    a.transport._learn(
        Peers(
            [
                PeerAddress(STRANGER.key_id, dead),
                PeerAddress(LOW.key_id, dead),
                PeerAddress(HIGH.key_id, ""),
                PeerAddress(HIGH.key_id, "ws://192.0.2.1:9090"),
            ]
        )
    )
    assert not a.transport._dials
    a.transport._learn(Peers([PeerAddress(HIGH.key_id, dead)]))
    await until(lambda: len(a.refused) == 5 and not a.transport._dials)
    assert "cannot connect" in a.refused[0]


async def test_plaintext_is_for_loopback(make):
    """A far address needs TLS, given or coming in."""
    with pytest.raises(ConfigError, match="loopback only"):
        End(LOW, peers=["ws://192.0.2.1:9090"])
    a = await make(LOW)

    class Far:
        secure = False
        remote = "192.0.2.1"

    assert a.transport._refusal(Far()).status == 403


def certificate():
    """Return a self-signed certificate (DER) and the PEM of it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
    ).sign(key, hashes.SHA256())
    pem = cert.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return cert.public_bytes(serialization.Encoding.DER), pem


@pytest.mark.parametrize("honest", [True, False])
async def test_tls_is_bound_to_the_keys(make, tmp_path, honest):
    """A self-signed certificate serves; one that the acceptor did not sign for is somebody in between."""
    der, pem = certificate()
    (tmp_path / "node.pem").write_bytes(pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "node.pem")
    a = await make(LOW, tls=tls, certificate=der if honest else certificate()[0])
    b = await make(HIGH, peers=[a.url])
    if honest:
        await until(lambda: a.connected and b.connected)
    else:
        await until(lambda: b.refused)
        assert "the proof does not verify" in b.refused[0]


@pytest.mark.parametrize("url", ["", "http://a:1", "ws://a", "ws://:1", "ws://a:1/path", "ws://a:99999", "ws://[::1"])
def test_what_is_no_address(url):
    """A scheme, a host and a port."""
    with pytest.raises(ConfigError, match="not a peer's address"):
        check_url(url, allow_plaintext=True)


def test_loopback():
    """By name or address."""
    hosts = ["localhost", "127.0.0.1", "127.9.9.9", "::1", "192.0.2.1", "node.example", ""]
    assert [is_loopback(host) for host in hosts] == [True, True, True, True, False, False, False]


async def test_a_key_that_ended_is_closed_with_a_reason(make):
    """At the next review, on the side that knows."""
    entries = dict(ENTRIES)
    a = await make(LOW, entries=entries, known=ENTRIES)
    b = await make(HIGH, peers=[a.url])
    await until(lambda: a.connected and b.connected)
    a.transport.review()
    assert a.connected == [b.key_id]
    del entries[b.key_id]
    a.transport.review()
    assert a.connected == []
    assert a.events[-1] == ("down", b.key_id, "the peer's key is no longer a node key")
    await until(lambda: ("down", a.key_id, "the peer closed: the peer's key is no longer a node key") in b.events)
    await until(lambda: any("no member has this node key" in reason for reason in a.refused))


async def test_a_node_goes_over_to_its_next_key(make):
    """Its connections end, it dials again, and is known by the new key."""
    keys = [LOW]
    a = await make(HIGH)
    b = await make(lambda: keys[0], peers=[a.url])
    await until(lambda: a.connected == [LOW.key_id])
    keys[0] = MIDDLE
    b.transport.review()
    # A handshake that was under way with the old key ends at the next look.
    await until(lambda: b.transport.review() or a.connected == [MIDDLE.key_id])
    await until(lambda: b.connected == [HIGH.key_id])
    assert ("down", HIGH.key_id, "this node changes to its next key") in b.events


async def test_whoever_is_far_behind_takes_the_peers_that_its_operator_named(make):
    """One that it does not know yet by the address, and by name once the chain tells; nobody else."""
    entries = {LOW.key_id: ENTRIES[LOW.key_id]}
    a = await make(LOW, endpoint="ws://127.0.0.1:1")
    behind = await make(HIGH, peers=[a.url], entries=entries)
    del entries[LOW.key_id]
    behind.transport.review()
    assert behind.connected == []
    await until(lambda: behind.connected == [a.key_id])
    behind.transport.review()
    assert [peer.member_id for peer in behind.transport.peers] == [""]
    entries[LOW.key_id] = ENTRIES[LOW.key_id]
    behind.transport.review()
    assert [peer.member_id for peer in behind.transport.peers] == [ENTRIES[LOW.key_id].member_id]
    c = await make(MIDDLE, peers=[behind.url])
    await until(lambda: c.refused)
    assert behind.connected == [a.key_id]
