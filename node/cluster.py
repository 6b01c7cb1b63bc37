"""A whole network in one directory: keys, secrets, tokens, genesis and a configuration for each node.

For trying things out, demonstrations and tests, on one machine. A real network is founded by its members, each of
whom makes its keys at home: docs/operations.md, "Found a chain".
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ledger.crypto import PrivateKey
from ledger.errors import ConfigError
from ledger.genesis import Genesis, Parameters, genesis_to_json
from node.config import Address
from node.founding import DEFAULT_PARAMETERS, Founder, make_genesis
from node.keyfile import new_secret, new_token, read_tokens, write_key, write_private

GRID_ZONES: Final = ("GB", "DE", "FR", "PL", "NO", "US", "ES", "SE")
"""Where the members of a made-up network get their electricity, in turn."""
ENERGY: Final = {
    "device_class": "phone",
    "device_mw": 3_200,
    "network_method": "power_marginal",
    "boundary": "core_access_cpe",
    "server_mw": 45,
    "pue_milli": 1_300,
    "intensity_table": "ember-2026",
}
"""How a node of a made-up network reckons the energy of calls whose platform reports none."""
HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """One member's node: its files and addresses."""

    member_id: str
    home: Path
    api: Address
    listen: Address
    token: str
    """Bearer token with every role; also in ``home/token``."""
    grid_zone: str

    @property
    def config(self) -> Path:
        """TOML file for ``ledgerd --config``."""
        return self.home / "node.toml"

    @property
    def data(self) -> Path:
        """Data directory."""
        return self.home / "data"

    @property
    def url(self) -> str:
        """Base address of the API."""
        return f"http://{self.api}"


@dataclass(frozen=True, slots=True)
class ClusterAgent:
    """An agent that signs for a member: its files and address."""

    member_id: str
    home: Path
    listen: Address
    token: str
    """Bearer token for proxies that hand in CDRs."""

    @property
    def config(self) -> Path:
        """TOML file for ``ledger-agent run --config``."""
        return self.home / "agent.toml"

    @property
    def spool(self) -> Path:
        """Spool directory."""
        return self.home / "spool"

    @property
    def url(self) -> str:
        """Base address, where proxies post."""
        return f"http://{self.listen}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A network in ``directory``."""

    directory: Path
    genesis: Genesis
    nodes: tuple[ClusterNode, ...]

    @property
    def genesis_file(self) -> Path:
        """The chain's genesis.json."""
        return self.directory / "genesis.json"


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nobody listens on, all different; somebody may still take one later."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            probe = stack.enter_context(socket.socket())
            probe.bind((HOST, 0))
            ports.append(probe.getsockname()[1])
        return ports


def make_cluster(
    directory: Path,
    member_ids: Sequence[str],
    *,
    genesis_time_ms: int,
    parameters: Parameters = DEFAULT_PARAMETERS,
    name: str = "local",
    base_port: int | None = None,
) -> Cluster:
    """Write a network of ``member_ids`` to ``directory`` and return it.

    base_port: the first of two ports for each node (API, peers); without one, free ports are found.
    Raises ConfigError where a file is there already or a name does not fit.
    """
    if len(set(member_ids)) != len(member_ids):
        raise ConfigError("a member is named twice", where="--members", actual=",".join(member_ids))
    directory = directory.absolute()
    count = 2 * len(member_ids)
    if base_port is not None and not 1 <= base_port <= 65_536 - count:
        raise ConfigError("no such port", where="--base", expected=f"1 to {65_536 - count}", actual=base_port)
    ports = free_ports(count) if base_port is None else list(range(base_port, base_port + count))
    listen = {member: Address(HOST, ports[2 * i + 1]) for i, member in enumerate(member_ids)}
    keys = {member: (PrivateKey.generate(), PrivateKey.generate(), PrivateKey.generate()) for member in member_ids}
    zones = {member: GRID_ZONES[i % len(GRID_ZONES)] for i, member in enumerate(member_ids)}
    founders = []
    for member in member_ids:
        node_key, submit_key, govern_key = (key.public_key for key in keys[member])
        endpoint = f"ws://{listen[member]}"
        founders.append(Founder(member, 100, node_key, submit_key, govern_key, endpoint, zones[member]))
    genesis = make_genesis(name, founders, genesis_time_ms=genesis_time_ms, parameters=parameters)
    nodes = []
    for i, member in enumerate(member_ids):
        peers = [f"ws://{address}" for other, address in listen.items() if other != member]
        node = _write_home(directory / member, keys[member], Address(HOST, ports[2 * i]), listen[member], zones[member])
        write_private(node.config, _toml(node, directory / "genesis.json", peers).encode())
        nodes.append(node)
    write_private(directory / "genesis.json", genesis_to_json(genesis))
    (directory / "genesis.json").chmod(0o644)
    return Cluster(directory, genesis, tuple(nodes))


def add_home(cluster: Cluster, member_id: str) -> ClusterNode:
    """Write the files of a node whose member is yet to be admitted to ``cluster``, and return it: it starts joining.

    Raises ConfigError where a file is there already.
    """
    api, listen = (Address(HOST, port) for port in free_ports(2))
    keys = (PrivateKey.generate(), PrivateKey.generate(), PrivateKey.generate())
    zone = GRID_ZONES[len(member_id) % len(GRID_ZONES)]
    node = _write_home(cluster.directory / member_id, keys, api, listen, zone)
    peers = [f"ws://{other.listen}" for other in cluster.nodes]
    write_private(node.config, _toml(node, cluster.genesis_file, peers, is_joining=True).encode())
    return node


def add_agent(cluster: Cluster, node: ClusterNode) -> ClusterAgent:
    """Write the files of an agent that signs for the member of ``node`` and delivers to every node, and return it.

    Each node is given the agent's token, which it reads at its start. Raises ConfigError where a file is there already.
    """
    home = cluster.directory / f"{node.member_id}-agent"
    try:
        home.mkdir(mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", where=str(home)) from None
    for_nodes, known_to_nodes = new_token("agent", ["submit"])
    for place in cluster.nodes:
        tokens = [*read_tokens(place.home / "tokens.json"), known_to_nodes]
        (place.home / "tokens.json").write_bytes(msgspec.json.encode(tokens) + b"\n")
    for_proxies, known_to_agent = new_token("proxy", ["submit"])
    write_private(home / "node-token", for_nodes.encode() + b"\n")
    write_private(home / "ingest-tokens.json", msgspec.json.encode([known_to_agent]) + b"\n")
    agent = ClusterAgent(node.member_id, home, Address(HOST, free_ports(1)[0]), for_proxies)
    values = {
        "listen": str(agent.listen),
        "spool": str(agent.spool),
        "to": [node.url, *(other.url for other in cluster.nodes if other != node)],
        "genesis": str(cluster.genesis_file),
        "submit_key": str(node.home / "submit.pem"),
        "member_secret": str(node.home / "secret"),
        "token_file": str(home / "node-token"),
        "ingest_tokens": str(home / "ingest-tokens.json"),
    }
    write_private(agent.config, _lines(values, node.grid_zone).encode())
    return agent


def _write_home(
    home: Path, keys: tuple[PrivateKey, PrivateKey, PrivateKey], api: Address, listen: Address, grid_zone: str
) -> ClusterNode:
    try:
        home.mkdir(parents=True, mode=0o700)
    except OSError as error:
        hint = "Choose another directory" if isinstance(error, FileExistsError) else ""
        raise ConfigError(f"cannot be made: {error.strerror}", where=str(home), hint=hint) from None
    for name, key in zip(("node.pem", "submit.pem", "govern.pem"), keys, strict=True):
        write_key(home / name, key)
    write_private(home / "secret", new_secret().hex().encode() + b"\n")
    text, token = new_token("operator", ["submit", "private"])
    write_private(home / "tokens.json", msgspec.json.encode([token]) + b"\n")
    write_private(home / "token", text.encode() + b"\n")
    return ClusterNode(home.name, home, api, listen, text, grid_zone)


def _toml(node: ClusterNode, genesis: Path, peers: list[str], *, is_joining: bool = False) -> str:
    """Return the configuration of ``node``; JSON values are TOML values too."""
    values: dict[str, object] = {
        "genesis": str(genesis),
        "data": str(node.data),
        "key": str(node.home / "node.pem"),
        "listen": str(node.listen),
        "api": str(node.api),
        "peers": peers,
        "endpoint": f"ws://{node.listen}",
        "submit_key": str(node.home / "submit.pem"),
        "member_secret": str(node.home / "secret"),
        "tokens": str(node.home / "tokens.json"),
    }
    if is_joining:
        values["joining"] = True
    return _lines(values, node.grid_zone)


def _lines(values: Mapping[str, object], grid_zone: str) -> str:
    """Return ``values`` and how energy is reckoned as TOML."""
    energy = {**ENERGY, "grid_zone": grid_zone}
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
    lines += ["\n[energy]\n", *(f"{name} = {json.dumps(value)}\n" for name, value in energy.items())]
    return "".join(lines)
