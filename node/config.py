"""What an operator sets: each option as a flag, in a TOML file, and in the environment.

A flag beats the environment, the environment beats the file, the file beats the default.

Source: docs/operations.md, "Options".
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ledger.errors import ConfigError
from telephony.numbers import check_region

ENVIRONMENT_PREFIX = "LEDGERD_"
_PEER = re.compile(r"wss?://[A-Za-z0-9.:\[\]_-]{1,200}")
"""What a peer may be told (ledger.genesis.Endpoint), and what it therefore may be dialled by."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 asks the system for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Tell whether only this machine can reach it."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything a node is started with.

    Attributes:
        genesis: the chain's genesis file; with ``dev`` it may be absent, and a fresh chain is made.
        data: the node's directory; nothing else may write there.
        key: PEM file of the node key.
        next_key: PEM file of the key that is to take its place, or has: see "Governing the chain".
        joining: start though the chain, as far as it is here, does not know the node key.
        listen: where peers connect.
        api: where people and programs connect.
        peers: WebSocket addresses to dial.
        endpoint: the address given to peers, where it differs from ``listen``.
        submit_key: PEM file of a key with the submit role, for records handed to this node.
        member_secret: file with the member's secret, for call commitments and the party vault.
        region: country of national phone numbers in CDRs, ``GB``; empty: only international ones are read.
        tokens: JSON file of API tokens.
        hosts: Host header values the API answers to, beside loopback.
        tls_certificate: PEM file of the certificate (chain) that peers are served with; peers then dial ``wss://``.
        tls_key: PEM file of its private key.
        allow_plaintext: peer without TLS beyond loopback; for networks that encrypt below.
        log_level: debug, info, warning, error.
        log_format: auto, text, json.
        dev: a development chain: fresh keys, relaxed where said so.
        energy: profile for records whose platform reports no energy, see docs/operations.md.
        agent_spool: directory of an agent in this process; None: there is none.
        agent_listen: where SIP proxies post their CDRs to it.
        log_key: PEM file of the Ed25519 key that signs the final block as a note for transparency logs' tools.
        witnesses: verifier keys of those whose cosignatures of these notes are shown.
        sources: options of each platform's adapter, for the agent; tables by name, see docs/agent.md.
        watch: folders and files that the agent takes records from; tables by name, see docs/agent.md.
    """

    genesis: Path | None = None
    data: Path = Path("ledgerd-data")
    key: Path | None = None
    next_key: Path | None = None
    joining: bool = False
    listen: Address = Address("127.0.0.1", 9090)
    api: Address = Address("127.0.0.1", 8080)
    peers: tuple[str, ...] = ()
    endpoint: str = ""
    submit_key: Path | None = None
    member_secret: Path | None = None
    region: str = ""
    tokens: Path | None = None
    hosts: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    allow_plaintext: bool = False
    log_level: str = "info"
    log_format: str = "auto"
    dev: bool = False
    energy: Mapping[str, Any] = field(default_factory=dict)
    agent_spool: Path | None = None
    agent_listen: Address = Address("127.0.0.1", 8090)
    log_key: Path | None = None
    witnesses: tuple[str, ...] = ()
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    watch: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


TABLES = frozenset({"energy", "sources", "watch"})
"""Options that can only stand in the TOML file, of the node and of the agent."""


def parse_address(text: str, *, where: str) -> Address:
    """Return HOST:PORT. Raises ConfigError."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or text != text.strip() or "/" in text:
        raise ConfigError("not an address", where=where, expected="HOST:PORT, as 127.0.0.1:9090", actual=text)
    return Address(host, port)


def _parse_peer(text: str, *, where: str) -> str:
    url = text.removesuffix("/")
    try:
        parts = urlsplit(url)
        is_good = bool(_PEER.fullmatch(url) and parts.hostname and parts.port)
    except ValueError:
        is_good = False
    if not is_good:
        raise ConfigError("not a peer address", where=where, expected="ws://HOST:PORT or wss://HOST:PORT", actual=text)
    return url


def _parse_endpoint(value: Any, *, where: str) -> str:
    """Return an address that peers can be told, empty for none: a bad one would make every peer refuse the hello."""
    text = _parse_text(value, where=where)
    return _parse_peer(text, where=where) if text else ""


def _parse_list(value: Any, *, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise ConfigError("not a list", where=where, expected="strings, separated by commas in a flag", actual=value)


def _parse_bool(value: Any, *, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in {"1", "true", "yes", "on"}:
        return True
    if str(value).lower() in {"0", "false", "no", "off", ""}:
        return False
    raise ConfigError("neither true nor false", where=where, expected="true or false", actual=value)


def _parse_choice(*choices: str) -> Callable[..., str]:
    def parse(value: Any, *, where: str) -> str:
        if value not in choices:
            raise ConfigError("not a choice", where=where, expected=" | ".join(choices), actual=value)
        return str(value)

    return parse


def _parse_text(value: Any, *, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError("not text", where=where, actual=value)
    return value


def parse_region(value: Any, *, where: str) -> str:
    """Return the country of national phone numbers, empty for none. Raises ConfigError."""
    text = _parse_text(value, where=where)
    try:
        check_region(text)
    except ConfigError as error:
        raise ConfigError(error.what, where=where, expected=error.expected, actual=text) from None
    return text


def _parse_path(value: Any, *, where: str) -> Path:
    return Path(value) if isinstance(value, Path) else Path(_parse_text(value, where=where)).expanduser()


def parse_table(value: Any, *, where: str) -> Mapping[str, Any]:
    """Return a table. Raises ConfigError for anything else."""
    if not isinstance(value, dict):
        raise ConfigError("not a table", where=where, expected="a table of the TOML file")
    return value


def parse_tables(value: Any, *, where: str) -> Mapping[str, Mapping[str, Any]]:
    """Return a table of tables. Raises ConfigError for anything else."""
    tables = parse_table(value, where=where).items()
    return {name: parse_table(table, where=f"{where}.{name}") for name, table in tables}


_PARSERS: dict[str, Callable[..., Any]] = {
    "genesis": _parse_path,
    "data": _parse_path,
    "key": _parse_path,
    "next_key": _parse_path,
    "joining": _parse_bool,
    "listen": parse_address,
    "api": parse_address,
    "peers": lambda value, where: tuple(_parse_peer(peer, where=where) for peer in _parse_list(value, where=where)),
    "endpoint": _parse_endpoint,
    "submit_key": _parse_path,
    "member_secret": _parse_path,
    "region": parse_region,
    "tokens": _parse_path,
    "hosts": _parse_list,
    "tls_certificate": _parse_path,
    "tls_key": _parse_path,
    "allow_plaintext": _parse_bool,
    "log_level": _parse_choice("debug", "info", "warning", "error"),
    "log_format": _parse_choice("auto", "text", "json"),
    "dev": _parse_bool,
    "energy": parse_table,
    "agent_spool": _parse_path,
    "agent_listen": parse_address,
    "log_key": _parse_path,
    "witnesses": _parse_list,
    "sources": parse_tables,
    "watch": parse_tables,
}

OPTIONS = tuple(f.name for f in fields(NodeConfig))
"""Names as in the TOML file; a flag has hyphens, a variable is in capitals behind ``LEDGERD_``."""


def load_config(
    flags: Mapping[str, Any], environment: Mapping[str, str], config_file: Path | None = None
) -> NodeConfig:
    """Return the configuration. Raises ConfigError naming the option, where it was set, and what was expected."""
    values: dict[str, Any] = {}
    for name, value in read_toml(config_file).items() if config_file else ():
        if name not in _PARSERS:
            raise ConfigError("unknown option", where=f"{config_file}: {name}", expected=", ".join(OPTIONS))
        values[name] = _PARSERS[name](value, where=f"{config_file}: {name}")
    for name in OPTIONS:
        variable = ENVIRONMENT_PREFIX + name.upper()
        if variable in environment and name not in TABLES:
            values[name] = _PARSERS[name](environment[variable], where=variable)
        if flags.get(name) is not None:
            values[name] = _PARSERS[name](flags[name], where="--" + name.replace("_", "-"))
    return NodeConfig(**values)


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file says. Raises ConfigError for one that cannot be read, or is no TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid TOML: {error}", where=str(path)) from None
