"""A node as a process: files, sockets and signals around ``Node``.

Source: docs/operations.md, "Start and stop".
"""

from __future__ import annotations

import asyncio
import errno
import signal
import ssl
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from audit.lognote import origin_of
from audit.notes import COSIGNATURE, parse_note_key
from ledger.errors import ConfigError
from ledger.genesis import GENESIS_BYTES_MAX, Genesis, genesis_from_json
from ledger.leveldb import LevelStore
from node.agent import adapter_options, check_somebody_may_submit, join_times, serving_agent
from node.api.app import make_app
from node.api.parts import ApiParts
from node.clock import now_ms, steady_ms
from node.config import Address, NodeConfig
from node.development import make_development_chain
from node.disk import DiskWatch
from node.keyfile import (
    Token,
    make_directory,
    new_token,
    read_bounded,
    read_key,
    read_log_key,
    read_secret,
    read_tokens,
)
from node.logs import get_log
from node.looplag import watch_loop
from node.node import Node
from node.profile import energy_profile
from node.retention import keep_to_retention
from p2p.handshake import ProvenPeer
from p2p.transport import PATH, Transport, TransportConfig
from telephony.agent import Agent, AgentSettings
from telephony.agent_http import ROLE
from telephony.builder import Profile
from telephony.vault import Vault

REFUSAL_LOG_MS = 60_000
REFUSALS_MAX = 1_024
DATA_NAMES = frozenset({"FORMAT", "LOCK", "db", "segments", "vault", "dev", "lost+found"})
"""What a node keeps in its data directory, and what a fresh file system has."""
STOP_SECONDS = 5.0
"""Requests under way get this long to end."""


@dataclass(frozen=True, slots=True)
class Running:
    """A node that serves, and where."""

    node: Node
    api: Address
    listen: Address
    agent: Agent | None = None
    agent_listen: Address | None = None


def run_node(config: NodeConfig) -> int:
    """Run a node until SIGTERM or SIGINT; return the exit status. Raises LedgerError where it cannot start."""
    token = ""
    if config.dev:
        made = make_development_chain(config, now_ms())
        config, token = made.config, made.token
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_serve(config, token))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config, token))


async def _serve(config: NodeConfig, token: str) -> int:
    log = get_log("ledgerd")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_node(config) as running:
        api, listen = f"http://{running.api}", f"ws://{running.listen}"
        log.info("ready", api=api, listen=listen, chain=running.node.genesis.name, member=running.node.member_id)
        if not running.node.identity.is_known:
            log.warning("waits to be admitted", key_id=running.node.identity.key.key_id.hex())
        if token:
            sys.stdout.write(f"API {api}  token {token}\n")
            sys.stdout.flush()
        if running.agent_listen is not None:
            log.info("agent ready", listen=f"http://{running.agent_listen}")
            sys.stdout.write(f"agent http://{running.agent_listen}\n")
            sys.stdout.flush()
        driver = running.node.start()
        ends = [
            asyncio.create_task(event.wait()) for event in (stop, *([running.agent.ended] if running.agent else []))
        ]
        await asyncio.wait({driver, *ends}, return_when=asyncio.FIRST_COMPLETED)
        failure = running.node.driver.failure
        if driver.done() and not driver.cancelled() and driver.exception() is not None:
            raise driver.exception() or AssertionError
        for task in ends:
            task.cancel()
        agent_failure = running.agent.failure if running.agent is not None else None
        if agent_failure is not None:
            # Everything is in its spool: a service manager that starts both again loses nothing.
            log.error("the agent ended", exc_info=agent_failure)
        log.info("stopping", reason="signal" if failure is None else failure.sentence())
    if failure is not None:
        raise failure
    return 0 if agent_failure is None else 1


@asynccontextmanager
async def running_node(config: NodeConfig) -> AsyncIterator[Running]:
    """A node that serves while the context is open. Raises ConfigError or StoreError where it cannot."""
    genesis = read_genesis(config)
    if config.key is None:
        raise ConfigError("a node needs a key", where="--key", hint="Make one with: ledgerctl keygen FILE")
    key = read_key(config.key, is_dev=config.dev)
    next_key = read_key(config.next_key, is_dev=config.dev) if config.next_key else None
    submit_key = read_key(config.submit_key, is_dev=config.dev) if config.submit_key else None
    secret = read_secret(config.member_secret) if config.member_secret else None
    tokens = read_tokens(config.tokens) if config.tokens else []
    async with AsyncExitStack() as stack:
        make_directory(config.data)
        check_data_directory(config.data)
        store = LevelStore(config.data)
        stack.callback(store.close)
        node = Node(
            genesis,
            store,
            key=key,
            next_key=next_key,
            submit_key=submit_key,
            member_secret=secret,
            is_joining=config.joining,
        )
        node.disk = DiskWatch(config.data)
        _run_beside(stack, node.disk.run())
        _run_beside(stack, watch_loop(node.counters.loop_lag_s))
        listen, transport = await _serve_peers(stack, config, node)
        stack.push_async_callback(node.stop)
        # Before the driver: what a crash left without a place in the vault is found among the pending.
        vault = _open_vault(stack, config, node)
        for_agent, agent_token = new_token("agent", [ROLE])
        known = [*tokens, agent_token] if config.agent_spool is not None else tokens
        api = await _serve_api(stack, config, node, known, vault)
        # Nobody is dialled, and nobody let in, by a node that may yet fail to start.
        node.driver.attach(transport)
        await transport.start()
        node.start()
        if vault is not None:
            _run_beside(stack, keep_to_retention(vault, node))
        agent, agent_listen = None, None
        if config.agent_spool is not None:
            settings = agent_settings(config, node, api, for_agent)
            check_somebody_may_submit(tokens, "--tokens")
            agent, agent_listen = await stack.enter_async_context(
                serving_agent(
                    settings,
                    tokens,
                    config.agent_listen,
                    option="--agent-listen",
                    vault=vault,
                    watch=config.watch,
                )
            )
        yield Running(node, api, listen, agent, agent_listen)


def _run_beside(stack: AsyncExitStack, work: Coroutine[object, object, None]) -> None:
    """Have ``work`` done until the stack is unwound."""
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.wait([task])

    stack.push_async_callback(end)


def agent_settings(config: NodeConfig, node: Node, api: Address, token: str) -> AgentSettings:
    """Return what the agent in a node's process is started with: it hands in at the node itself, by ``token``.

    Raises ConfigError where the node has no submit key, no member secret or no member.
    """
    assert config.agent_spool is not None
    if node.submit_key is None or node.member_secret is None:
        missing = "--submit-key" if node.submit_key is None else "--member-secret"
        raise ConfigError("the agent cannot sign records without it", where=missing)
    if node.member_id is None:
        raise ConfigError("the chain does not know this node's member yet", where="--agent-spool")
    host = "127.0.0.1" if api.host in {"0.0.0.0", "::", ""} else api.host  # noqa: S104 - compared, not bound
    return AgentSettings(
        spool=config.agent_spool,
        nodes=(f"http://{Address(host, api.port)}",),
        genesis=node.genesis,
        member_id=node.member_id,
        submit_key=node.submit_key,
        profile=_profile(config, node, node.member_secret),
        vault=config.data / "vault",
        token=token,
        sources=adapter_options(config.sources),
        times=join_times(config.sources),
    )


def check_data_directory(data: Path) -> None:
    """Raise ConfigError for a directory that holds something else: a node must not begin a second life there."""
    try:
        names = {entry.name for entry in data.iterdir()}
    except OSError:
        return
    foreign = sorted(names - DATA_NAMES)
    if foreign and "FORMAT" not in names:
        raise ConfigError(
            "holds other things and is no node's data directory",
            where=f"--data {data}",
            expected="an empty or new directory, or one that a node has used",
            actual=", ".join(foreign[:5]),
            hint="A node that was started with other data must go on with it: its votes are remembered there",
        )


def read_genesis(config: NodeConfig) -> Genesis:
    """Return the chain's genesis. Raises ConfigError."""
    if config.genesis is None:
        raise ConfigError(
            "no chain is named",
            where="--genesis",
            hint="Give the chain's genesis.json, or --dev for a chain of your own",
        )
    data = read_bounded(config.genesis, "genesis file", bytes_max=GENESIS_BYTES_MAX)
    return genesis_from_json(data, where=str(config.genesis))


async def listen_on(
    stack: AsyncExitStack,
    app: web.Application,
    address: Address,
    option: str,
    tls: ssl.SSLContext | None = None,
) -> Address:
    """Serve ``app``; return the address with the port that was given. Raises ConfigError, as for a port in use."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS, auto_decompress=False)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, address.host, address.port, ssl_context=tls)
    try:
        await site.start()
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        raise ConfigError(
            "the port is in use" if in_use else f"cannot listen: {error.strerror}",
            where=f"{option} {address}",
            hint="Is another node running? Choose another port, or 0 for a free one"
            if in_use
            else "Give an address of this machine, or 0.0.0.0 for all of them",
        ) from None
    return Address(address.host, runner.addresses[0][1])


async def _serve_peers(stack: AsyncExitStack, config: NodeConfig, node: Node) -> tuple[Address, Transport]:
    """Listen for peers; return where, and the transport that is to serve them once the driver has it."""

    async def handle(request: web.Request) -> web.StreamResponse:
        transport = node.driver.transport
        return await transport.handle(request) if transport is not None else web.Response(status=503)

    app = web.Application()
    app.router.add_get(PATH, handle)
    tls = read_tls(config)
    listen = await listen_on(stack, app, config.listen, "--listen", tls[0] if tls else None)
    # The port, which the transport tells its peers, is known only once it listens.
    endpoint = config.endpoint or f"{'wss' if tls else 'ws'}://{listen}"
    transport = make_transport(node, config, endpoint, tls[1] if tls else None)
    stack.push_async_callback(transport.stop)
    return listen, transport


def read_tls(config: NodeConfig) -> tuple[ssl.SSLContext, bytes] | None:
    """Return the TLS context to serve peers with and its certificate (DER), None without. Raises ConfigError.

    Who a peer is, its node key says, bound to this certificate's fingerprint: no authority needs to have signed it.
    """
    certificate, key = config.tls_certificate, config.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError(
            "a certificate needs its key, and a key its certificate", where="--tls-certificate, --tls-key"
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
        first = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be used: {error}", where=f"{certificate}, {key}", expected="PEM files") from None
    return context, first.public_bytes(serialization.Encoding.DER)


def make_transport(node: Node, config: NodeConfig, endpoint: str, certificate: bytes | None) -> Transport:
    """Return the transport whose connections feed ``node``; ``certificate`` (DER) is what peers are served with."""
    log = get_log("peering")
    refusals = _Refusals()

    def on_peer_up(peer: ProvenPeer) -> None:
        log.info("peer up", peer=peer.key_id.hex(), member=peer.member_id, endpoint=peer.endpoint)
        refusals.forget(peer.endpoint)
        node.driver.peer_up(peer.key_id)

    def on_peer_down(peer_id: bytes, reason: str) -> None:
        log.info("peer down", peer=peer_id.hex(), reason=reason)
        node.driver.peer_down(peer_id)

    return Transport(
        TransportConfig(config.peers, endpoint, config.allow_plaintext, certificate),
        key=lambda: node.identity.key,
        chain_id=node.chain_id,
        node_key=node.identity.node_key,
        on_message=node.driver.deliver,
        on_peer_up=on_peer_up,
        on_peer_down=on_peer_down,
        on_fault=lambda peer_id, reason: node.gossip.reject(peer_id, reason, now_ms=steady_ms()),
        on_refused=refusals.note,
        is_candidate=node.identity.is_candidate,
        is_unknown=node.identity.is_unknown,
    )


class _Refusals:
    """Logs that an address cannot be reached: when it begins, when the reason changes, and now and then."""

    def __init__(self) -> None:
        self._log = get_log("peering")
        self._last: OrderedDict[str, tuple[str, int]] = OrderedDict()

    def note(self, address: str, reason: str) -> None:
        """Log it, unless the same was logged lately."""
        before, at_ms = self._last.get(address, ("", 0))
        if reason == before and now_ms() < at_ms + REFUSAL_LOG_MS:
            return
        self._last[address] = (reason, now_ms())
        if len(self._last) > REFUSALS_MAX:
            self._last.popitem(last=False)
        self._log.warning("no peering", address=address, reason=reason)

    def forget(self, address: str) -> None:
        """Begin anew: the peer is there."""
        self._last.pop(address, None)


def _open_vault(stack: AsyncExitStack, config: NodeConfig, node: Node) -> Vault | None:
    """Return the party vault, None for a node that takes in no records."""
    if node.member_secret is None or node.submit_key is None:
        return None
    vault = Vault(config.data / "vault", node.member_secret)
    stack.callback(vault.close)
    return vault


def _profile(config: NodeConfig, node: Node, secret: bytes) -> Profile:
    """Return what the member says about the calls of its proxy. Raises ConfigError."""
    energy = energy_profile(config.energy, carbon_basis=node.genesis.parameters.carbon_basis)
    return Profile(secret, energy=energy, region=config.region)


async def _serve_api(
    stack: AsyncExitStack, config: NodeConfig, node: Node, tokens: Sequence[Token], vault: Vault | None
) -> Address:
    """Serve people and programs; return where."""
    profile = _profile(config, node, node.member_secret) if node.member_secret is not None else None
    # An agent in this process asks by the address that is listened at.
    hosts = config.hosts if config.agent_spool is None else (*config.hosts, config.api.host)
    log_key = None if config.log_key is None else read_log_key(config.log_key)
    witnesses = [parse_note_key(text, where="--witnesses", kinds=[COSIGNATURE]) for text in config.witnesses]
    if log_key is not None:
        get_log("api").info("notes are signed", key=log_key.note_key(origin_of(node.chain_id)).to_text())
    parts = ApiParts(tokens=tokens, hosts=hosts, vault=vault, profile=profile, log_key=log_key, witnesses=witnesses)
    return await listen_on(stack, make_app(node, parts), config.api, "--api")
