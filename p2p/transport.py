"""WebSockets between peers: the only I/O of the peering.

One binary frame is one message. A connection begins with the handshake, then every message goes to the driver, in
order, with the others' in turn; what is sent waits in a bounded outbox, and a peer that does not keep up is dropped.
Two nodes keep one connection: the one dialled by the lower key id.

Source: docs/protocol.md, "Peering".
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from hashlib import sha256

import aiohttp
from aiohttp import web

from ledger.crypto import PrivateKey
from ledger.entries import KeyEntry
from ledger.errors import ConfigError, EncodingError, PeerError
from p2p import limits
from p2p.addresses import check_url, is_loopback, leaves_machine
from p2p.connection import Connection, Ending, LostError, WebSocket, any_certificate, close, frame_of
from p2p.handshake import NONCE_BYTES, Handshake, NonceMemory, ProvenPeer, SelfDialError, Side
from p2p.messages import (
    Close,
    CloseCode,
    Hello,
    Message,
    PeerAddress,
    Peers,
    Proof,
    decode_message,
    encode_message,
)
from p2p.scores import PeerId
from p2p.traffic import Traffic

PATH = "/p2p/1"
"""Where a node accepts peers."""
LEARNED_FAILURES_MAX = 5
"""Times an address that a peer told of is dialled in vain before it is forgotten."""


@dataclass(frozen=True, slots=True)
class TransportConfig:
    """What the operator says.

    Attributes:
        peers: addresses to dial, as ``ws://host:port`` or ``wss://host:port``.
        endpoint: the address to tell others; empty for none.
        allow_plaintext: peer without TLS with hosts other than this one.
        certificate: the TLS certificate this node serves (DER), where it serves any.
    """

    peers: tuple[str, ...] = ()
    endpoint: str = ""
    allow_plaintext: bool = False
    certificate: bytes | None = None


def _tell_nobody(_subject: object, _reason: str) -> None:
    """Take note of nothing: the default of the callbacks that report."""


def _no_candidate(_key_id: bytes) -> bool:
    """Dial nobody that others tell of."""
    return False


class Transport:
    """The connections of one node; all methods are for the event loop's thread.

    key: this node's, or what returns it where it may change.
    node_key: the key of a member that may meet peers by its id, or None.
    is_unknown: whether a key id may be a member's for all that is known here, this node being far behind: who has
        such a key is a peer where the operator named its address.
    on_message: takes a peer's message; what it returns is awaited before the peer's next message is read.
    on_peer_up, on_peer_down: always alternate for one peer; the latter with the reason.
    on_fault: a peer sent what is no message; its connection is closed.
    on_refused: an address could not be reached or did not pass the handshake, and why.
    is_candidate: whether a key id is a candidate's: such peers are dialled when others tell of them.
    """

    def __init__(
        self,
        config: TransportConfig,
        *,
        key: PrivateKey | Callable[[], PrivateKey],
        chain_id: bytes,
        node_key: Callable[[bytes], KeyEntry | None],
        on_message: Callable[[PeerId, Message], Awaitable[object] | None],
        on_peer_up: Callable[[ProvenPeer], None],
        on_peer_down: Callable[[PeerId, str], None],
        on_fault: Callable[[PeerId, str], None] = _tell_nobody,
        on_refused: Callable[[str, str], None] = _tell_nobody,
        is_candidate: Callable[[bytes], bool] = _no_candidate,
        is_unknown: Callable[[bytes], bool] = _no_candidate,
    ) -> None:
        for url in config.peers:
            check_url(url, allow_plaintext=config.allow_plaintext)
        self._config = config
        self._identity = key if callable(key) else lambda: key
        self._key = self._identity()
        self._chain_id = chain_id
        self._node_key = node_key
        self._on_message = on_message
        self._on_peer_up = on_peer_up
        self._on_peer_down = on_peer_down
        self._on_fault = on_fault
        self._on_refused = on_refused
        self._is_candidate = is_candidate
        self._is_unknown = is_unknown
        self._nonces = NonceMemory()
        self._connections: dict[PeerId, Connection] = {}
        self._bans: OrderedDict[PeerId, float] = OrderedDict()
        self._dials: dict[str, asyncio.Task[None]] = {}
        self._keys: dict[str, PeerId] = {}
        self._busy: set[asyncio.Task[object]] = set()
        self._handshakes = 0
        self._session: aiohttp.ClientSession | None = None
        self._stopping = False
        self._encoded: tuple[Message, bytes] | None = None
        self.traffic = Traffic()

    # --- For the driver -------------------------------------------------------------------------------------------

    def attach(self, app: web.Application) -> None:
        """Accept peers at ``PATH`` of an aiohttp application."""
        app.router.add_get(PATH, self.handle)

    async def start(self) -> None:
        """Dial the given peers, and keep dialling those that are not connected."""
        self._session = aiohttp.ClientSession()
        for url in self._config.peers:
            self._dial(url)

    async def stop(self) -> None:
        """Close all connections, telling why, and wait for them."""
        self._stopping = True
        for connection in list(self._connections.values()):
            self._finish(connection, Ending("this node stops", CloseCode.SHUTDOWN))
        if self._busy:
            await asyncio.wait(set(self._busy), timeout=3 * limits.CLOSE_TIMEOUT_MS / 1000)
        # What is left waits to dial again, or shakes hands with somebody slow.
        left = {*self._dials.values(), *self._busy}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    @property
    def peers(self) -> list[ProvenPeer]:
        """The peers connected."""
        return [connection.peer for connection in self._connections.values()]

    def is_open_plaintext(self, peer: PeerId) -> bool:
        """Tell whether a peer's connection leaves this machine without TLS."""
        return peer in self._connections and self._connections[peer].is_open_plaintext

    def send(self, peer: PeerId, message: Message) -> bool:
        """Queue a message for a peer; tell whether it is connected. A peer that does not keep up is dropped."""
        connection = self._connections.get(peer)
        if connection is None:
            return False
        frame = self._frame(message)
        connection.outbox.append(frame)
        connection.outbox_bytes += len(frame)
        self.traffic.sent(message, len(frame))
        connection.wake.set()
        if len(connection.outbox) > limits.OUTBOX_MESSAGES_MAX or connection.outbox_bytes > limits.OUTBOX_BYTES_MAX:
            waiting = f"{len(connection.outbox)} messages, {connection.outbox_bytes} bytes waited"
            self._finish(connection, Ending(f"the peer does not keep up: {waiting}", CloseCode.SLOW))
            return False
        return True

    def broadcast(self, message: Message) -> None:
        """Queue a message for every peer."""
        for peer in list(self._connections):
            self.send(peer, message)

    def ban(self, peer: PeerId, reason: str) -> None:
        """Close a peer's connection and refuse it for ``limits.BAN_MS``."""
        self._bans[peer] = asyncio.get_running_loop().time() + limits.BAN_MS / 1000
        if len(self._bans) > limits.SCORED_PEERS_MAX:
            self._bans.popitem(last=False)
        connection = self._connections.get(peer)
        if connection is not None:
            self._finish(connection, Ending(reason, CloseCode.BANNED))

    def review(self) -> None:
        """Close what the chain no longer allows: connections of keys that ended, and all where our own key changed."""
        self._key = self._identity()
        for connection in list(self._connections.values()):
            if connection.own_key_id != self._key.key_id:
                self._finish(connection, Ending("this node changes to its next key", CloseCode.SHUTDOWN))
        for key_id, connection in list(self._connections.items()):
            entry = self._node_key(key_id)
            if entry is not None:
                # Known here only now, where its address was all that spoke for it.
                connection.peer = replace(connection.peer, member_id=entry.member_id)
            elif connection.peer.member_id or not self._is_unknown(key_id):
                self._finish(connection, Ending("the peer's key is no longer a node key", CloseCode.HANDSHAKE))

    # --- Accepting ------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Accept a peer: the handler of ``PATH``."""
        address = request.remote or "?"
        refusal = self._refusal(request)
        if refusal is not None:
            self._on_refused(address, refusal.text or "")
            return refusal
        ws = web.WebSocketResponse(
            max_msg_size=limits.FRAME_BYTES_MAX,
            heartbeat=limits.PING_INTERVAL_MS / 1000,
            timeout=limits.CLOSE_TIMEOUT_MS / 1000,
            compress=False,
        )
        await ws.prepare(request)
        certificate = self._config.certificate if request.secure else None
        try:
            await self._serve(ws, Side.ACCEPTOR, address, certificate)
        except PeerError as error:
            self._on_refused(address, error.sentence())
        return ws

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request that may not become a connection."""
        if self._stopping or self._handshakes >= limits.HANDSHAKES_MAX:
            return web.Response(status=503, text="no room for another connection now")
        if not request.secure and not self._config.allow_plaintext and not is_loopback(request.remote or ""):
            return web.Response(status=403, text="peering without TLS is for loopback only (--allow-plaintext)")
        if request.secure and self._config.certificate is None:
            return web.Response(status=501, text="this node does not know the certificate it serves")
        return None

    # --- Dialling -------------------------------------------------------------------------------------------------

    def _dial(self, url: str, *, learned: bool = False) -> None:
        if url in self._dials or len(self._dials) >= limits.DIALS_MAX or self._stopping:
            return
        task = asyncio.get_running_loop().create_task(self._keep_dialling(url, learned), name=f"dial {url}")
        self._dials[url] = task
        task.add_done_callback(lambda _: self._dials.pop(url, None))

    async def _keep_dialling(self, url: str, learned: bool) -> None:
        """Keep a connection to ``url``: dial when there is none, with a jittered, doubling wait after a failure."""
        wait_ms, failures, clock = limits.BACKOFF_MIN_MS, 0, asyncio.get_running_loop().time
        while not self._stopping:
            began, failed = clock(), False
            try:
                connection = self._connections.get(self._keys.get(url, b""))
                if connection is not None:
                    await asyncio.wait([connection.end])
                else:
                    await self._dial_once(url)
            except SelfDialError as error:
                self._on_refused(url, error.sentence())
                return
            except PeerError as error:
                self._on_refused(url, error.sentence())
                failed = True
            failures = failures + 1 if failed else 0
            if learned and failures >= LEARNED_FAILURES_MAX:
                return
            # A connection that ended at once was refused at the other end: that is not to be tried at full speed.
            lasted = not failed and 1000 * (clock() - began) > wait_ms
            wait_ms = limits.BACKOFF_MIN_MS if lasted else min(2 * wait_ms, limits.BACKOFF_MAX_MS)
            if not self._stopping and self._keys.get(url, b"") not in self._connections:
                await asyncio.sleep(wait_ms * random.uniform(0.5, 1.5) / 1000)  # noqa: S311 - jitter

    async def _dial_once(self, url: str) -> None:
        """Connect and serve until the connection ends. Raises PeerError where it did not come up."""
        assert self._session is not None
        try:
            ws = await self._session.ws_connect(
                url + PATH,
                max_msg_size=limits.FRAME_BYTES_MAX,
                heartbeat=limits.PING_INTERVAL_MS / 1000,
                timeout=aiohttp.ClientWSTimeout(ws_close=limits.CLOSE_TIMEOUT_MS / 1000),
                compress=0,
                ssl=any_certificate() if url.startswith("wss:") else True,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PeerError(f"cannot connect: {error}", where=url) from None
        certificate = None
        if url.startswith("wss:"):
            certificate = ws.get_extra_info("ssl_object").getpeercert(binary_form=True)
        try:
            await self._serve(ws, Side.DIALLER, url, certificate)
        finally:
            await ws.close()

    # --- One connection, either side ------------------------------------------------------------------------------

    async def _serve(self, ws: WebSocket, side: Side, address: str, certificate: bytes | None) -> None:
        """Run a connection to its end. Raises PeerError where it did not come up."""
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        try:
            await self._serve_busy(ws, side, address, certificate)
        finally:
            self._busy.discard(task)

    async def _serve_busy(self, ws: WebSocket, side: Side, address: str, certificate: bytes | None) -> None:
        self._handshakes += 1
        own_key_id = self._key.key_id
        try:
            # Only where the operator vouches for the address. Others are admitted by the chain alone.
            is_named = side is Side.DIALLER and address in self._config.peers
            peer = await self._shake_hands(ws, side, certificate, self._is_unknown if is_named else _no_candidate)
        except PeerError as error:
            await close(ws, Ending(error.sentence(), CloseCode.HANDSHAKE))
            raise
        finally:
            self._handshakes -= 1
        if side is Side.DIALLER:
            self._keys[address] = peer.key_id
        is_open = certificate is None and leaves_machine(address)
        connection = Connection(peer, ws, side, own_key_id, is_open_plaintext=is_open)
        refusal = self._admit(connection)
        if refusal is not None:
            await close(ws, refusal)
            if refusal.tell is not CloseCode.DUPLICATE:
                raise PeerError(refusal.reason, where=address)
            return
        await self._run(connection)

    async def _shake_hands(
        self, ws: WebSocket, side: Side, certificate: bytes | None, is_stranger: Callable[[bytes], bool]
    ) -> ProvenPeer:
        handshake = Handshake(
            side,
            key=self._key,
            chain_id=self._chain_id,
            nonce=secrets.token_bytes(NONCE_BYTES),
            node_key=self._node_key,
            nonces=self._nonces,
            endpoint=self._config.endpoint,
            fingerprints=[] if certificate is None else [sha256(certificate).digest()],
            is_stranger=is_stranger,
        )
        try:
            async with asyncio.timeout(limits.HANDSHAKE_TIMEOUT_MS / 1000):
                await ws.send_bytes(handshake.start())
                while handshake.peer is None:
                    answer = handshake.receive(await frame_of(ws))
                    if answer is not None:
                        await ws.send_bytes(answer)
        except TimeoutError:
            raise PeerError(
                "the handshake took too long", where="handshake", expected=f"{limits.HANDSHAKE_TIMEOUT_MS} ms"
            ) from None
        except LostError as error:
            raise PeerError(error.what, where="handshake") from None
        except (OSError, aiohttp.ClientError) as error:
            raise PeerError(f"the connection was lost: {error}", where="handshake") from None
        return handshake.peer

    def _admit(self, connection: Connection) -> Ending | None:
        """Make a connection the one to its peer, or return why not."""
        peer = connection.peer
        until = self._bans.get(peer.key_id)
        if until is not None and asyncio.get_running_loop().time() < until:
            return Ending("this key is banned here for a while", CloseCode.BANNED)
        if self._stopping:
            return Ending("this node stops", CloseCode.SHUTDOWN)
        old = self._connections.get(peer.key_id)
        if old is not None:
            if old.side is not connection.side and old.side is self._kept_side(peer.key_id):
                return Ending("another connection between the two is kept", CloseCode.DUPLICATE)
            # The same side dialled again, so the old connection is dead to it; or the new one is the one to keep.
            self._finish(old, Ending("another connection between the two is kept", CloseCode.DUPLICATE))
        elif len(self._connections) >= limits.PEERS_MAX:
            return Ending("no room for another peer", CloseCode.BUSY)
        self._connections[peer.key_id] = connection
        self._on_peer_up(peer)
        self._tell_addresses(peer)
        return None

    def _kept_side(self, key_id: PeerId) -> Side:
        """Return our side in the connection that the lower key id dialled."""
        return Side.DIALLER if self._key.key_id < key_id else Side.ACCEPTOR

    async def _run(self, connection: Connection) -> None:
        """Read and write until something ends the connection."""
        tasks = [asyncio.create_task(self._read(connection)), asyncio.create_task(self._write(connection))]
        try:
            ending = await connection.end
        finally:
            self._finish(connection, Ending("cancelled"))
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        await close(connection.ws, ending)
        for result in results:
            # What is no fault of the peer is a fault of ours, and not to be hidden.
            if isinstance(result, Exception):
                raise result

    async def _read(self, connection: Connection) -> None:
        """Give the peer's messages to the driver; let the other peers have their turn."""
        peer, turn = connection.peer.key_id, 0
        ending = Ending("internal error", CloseCode.SHUTDOWN)
        try:
            while True:
                frame = await frame_of(connection.ws)
                message = decode_message(frame)
                self.traffic.received(message, len(frame))
                if connection.end.done():
                    return
                if isinstance(message, Close):
                    ending = Ending(f"the peer closed: {message.reason}")
                    return
                if isinstance(message, Hello | Proof):
                    # [REJECT] The handshake is over.
                    ending = Ending(f"{type(message).__name__} after the handshake", CloseCode.FAULT)
                    self._on_fault(peer, ending.reason)
                    return
                if isinstance(message, Peers):
                    self._learn(message)
                else:
                    pending = self._on_message(peer, message)
                    if pending is not None:
                        await pending
                turn = (turn + 1) % limits.INBOX_TURN_MESSAGES
                if turn == 0:
                    await asyncio.sleep(0)
        except LostError as error:
            ending = Ending(error.sentence())
        except (EncodingError, PeerError) as error:
            # [REJECT] A frame that holds no message, or one out of place.
            ending = Ending(error.sentence(), CloseCode.FAULT)
            self._on_fault(peer, error.sentence())
        finally:
            self._finish(connection, ending)

    async def _write(self, connection: Connection) -> None:
        """Send what waits in the outbox."""
        try:
            while True:
                while connection.outbox:
                    frame = connection.outbox.popleft()
                    connection.outbox_bytes -= len(frame)
                    await connection.ws.send_bytes(frame)
                connection.wake.clear()
                await connection.wake.wait()
        except (OSError, aiohttp.ClientError) as error:
            self._finish(connection, Ending(f"the connection was lost: {error}"))

    def _finish(self, connection: Connection, ending: Ending) -> None:
        """End a connection now, as far as the driver is concerned; ``_run`` closes it."""
        if connection.end.done():
            return
        connection.end.set_result(ending)
        if self._connections.get(connection.peer.key_id) is connection:
            del self._connections[connection.peer.key_id]
            self._on_peer_down(connection.peer.key_id, ending.reason)

    # --- Addresses ------------------------------------------------------------------------------------------------

    def _tell_addresses(self, peer: ProvenPeer) -> None:
        """Tell a new peer of the others, and the others of it."""
        known = [c.peer for c in self._connections.values() if c.peer.endpoint and c.peer.key_id != peer.key_id]
        if known:
            addresses = [PeerAddress(p.key_id, p.endpoint) for p in known]
            self.send(peer.key_id, Peers(addresses[: limits.PEER_ADDRESSES_MAX]))
        if peer.endpoint:
            news = Peers([PeerAddress(peer.key_id, peer.endpoint)])
            for other in [key_id for key_id in self._connections if key_id != peer.key_id]:
                self.send(other, news)

    def _learn(self, message: Peers) -> None:
        """Dial the candidates among the addresses that a peer told of."""
        for address in message.addresses:
            # [IGNORE] No candidate, ourselves, connected already, or of a kind we may not dial.
            known = address.key_id in self._connections or address.key_id == self._key.key_id
            if known or not address.endpoint or not self._is_candidate(address.key_id):
                continue
            try:
                check_url(address.endpoint, allow_plaintext=self._config.allow_plaintext)
            except ConfigError:
                continue
            self._dial(address.endpoint, learned=True)

    def _frame(self, message: Message) -> bytes:
        """Return a message's frame; one that goes to several peers in a row is encoded once."""
        if self._encoded is None or self._encoded[0] is not message:
            self._encoded = (message, encode_message(message))
        return self._encoded[1]
