"""The edge agent as a process: options, socket and signals around ``telephony.agent.Agent``.

Source: docs/agent.md, "Options".
"""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ledger.cdr import Leg, Service
from ledger.crypto import key_id_of
from ledger.errors import ConfigError
from ledger.genesis import GENESIS_BYTES_MAX, Genesis, genesis_from_json
from node import development
from node.config import TABLES, Address, parse_address, parse_region, parse_table, parse_tables, read_toml
from node.keyfile import Token, read_bounded, read_key, read_secret, read_tokens
from node.logs import get_log
from node.profile import energy_profile
from telephony.adapters.base import Adapter
from telephony.adapters.registry import Adapters
from telephony.agent import Agent, AgentSettings, steady_ms
from telephony.agent_http import ROLE, AgentApp
from telephony.builder import Profile
from telephony.following import Follower
from telephony.gathering import KEEP_MS, JoinTimes
from telephony.http_server import HttpServer
from telephony.vault import Vault
from telephony.watching import (
    Folder,
    FolderSettings,
    FollowSettings,
    Keep,
    Watch,
    Watches,
    adapter_for,
    parse_watch,
)

ENVIRONMENT_PREFIX: Final = "LEDGER_AGENT_"
STOP_S: Final = 5.0
"""Requests under way get this long to end."""
MIB: Final = 1024 * 1024
GC_OBJECTS: Final = 50_000
"""How many more objects than before there must be for the collector to look for cycles: the objects of one batch."""
SWITCH_S: Final = 0.0005
"""How long one thread of Python may keep the others waiting."""
LISTEN: Final = Address("127.0.0.1", 8090)


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything an agent is started with.

    Attributes:
        listen: where SIP proxies post their CDRs.
        spool: the agent's directory; nothing else may write there.
        to: API addresses of ledger nodes, tried in this order.
        genesis: the chain's genesis file.
        member: whose submit key it is; needed where the genesis file does not know the key.
        submit_key: PEM file of the key that signs records.
        member_secret: file with the member's secret, for call commitments and the vault.
        vault: directory of the private parts and of what is on its way; in the spool's where it is not given.
        leg: ``originating``, ``terminating`` or ``transit``: which side of the calls this proxy serves.
        service: ``voice``, or another of the record's services.
        region: country of national phone numbers in CDRs, ``GB``; empty: only international ones are read.
        token_file: file with the bearer token that the nodes gave out.
        ingest_tokens: JSON file of the tokens that proxies must bring, as ``ledgerctl token new`` writes it.
        reserve_mib: room left on the disk; with less, CDRs are answered 507.
        log_level: debug, info, warning, error.
        join_keep_s: how long the parts of a call that is not whole are kept.
        log_format: auto, text, json.
        energy: how the energy of a call is reckoned; a table, see docs/operations.md.
        sources: options of each platform's adapter, tables by name; ``join_wait_s`` in each is how long its whole calls
            wait for reports of their quality.
        watch: folders and files that records are taken from, tables by name; see docs/agent.md, "Watched files".
    """

    listen: Address = LISTEN
    spool: Path = Path("ledger-agent-spool")
    to: tuple[str, ...] = ()
    genesis: Path | None = None
    member: str = ""
    submit_key: Path | None = None
    member_secret: Path | None = None
    vault: Path | None = None
    leg: str = "originating"
    service: str = "voice"
    region: str = ""
    token_file: Path | None = None
    ingest_tokens: Path | None = None
    reserve_mib: int = 64
    join_keep_s: int = KEEP_MS // 1000
    log_level: str = "info"
    log_format: str = "auto"
    energy: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    watch: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


OPTIONS: Final = tuple(option.name for option in fields(AgentConfig))
"""Names as in the TOML file; a flag has hyphens, a variable is in capitals behind ``LEDGER_AGENT_``."""


def load_agent_config(
    flags: Mapping[str, Any], environment: Mapping[str, str], config_file: Path | None = None
) -> AgentConfig:
    """Return the configuration: a flag beats the environment, that beats the file, that beats the default.

    Raises ConfigError naming the option, where it was set, and what was expected.
    """
    values: dict[str, Any] = {}
    for name, value in read_toml(config_file).items() if config_file else ():
        if name not in OPTIONS:
            raise ConfigError("unknown option", where=f"{config_file}: {name}", expected=", ".join(OPTIONS))
        values[name] = _PARSERS[name](value, f"{config_file}: {name}")
    for name in OPTIONS:
        variable = ENVIRONMENT_PREFIX + name.upper()
        if variable in environment and name not in TABLES:
            values[name] = _PARSERS[name](environment[variable], variable)
        if flags.get(name) is not None:
            values[name] = _PARSERS[name](flags[name], "--" + name.replace("_", "-"))
    return AgentConfig(**values)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError("not text", where=where, actual=value)
    return value


def _nodes(value: Any, where: str) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts:
        raise ConfigError("no nodes", where=where, expected="http://HOST:PORT, several separated by commas")
    return tuple(_node(part, where) for part in parts)


def _node(value: Any, where: str) -> str:
    text = value.strip() if isinstance(value, str) else ""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for one that is no number
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.query and not parts.fragment
    except ValueError:
        is_good = False
    if not is_good:
        raise ConfigError("not a node's address", where=where, expected="http://HOST:PORT", actual=value)
    if parts.username is not None:
        raise ConfigError("a password in an address", where=where, expected="a token, in --token-file")
    return text.rstrip("/")


def _count(value: Any, where: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ConfigError("not a number", where=where, expected="0 or more", actual=value)
    return int(text)


def _choice(*choices: str) -> Callable[[Any, str], str]:
    def parse(value: Any, where: str) -> str:
        if value not in choices:
            raise ConfigError("not a choice", where=where, expected=" | ".join(choices), actual=value)
        return str(value)

    return parse


def _path(value: Any, where: str) -> Path:
    return Path(_text(value, where)).expanduser()


_PARSERS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "listen": lambda value, where: parse_address(_text(value, where), where=where),
    "spool": _path,
    "to": _nodes,
    "genesis": _path,
    "member": _text,
    "submit_key": _path,
    "member_secret": _path,
    "vault": _path,
    "leg": _choice(*(leg.name.lower() for leg in Leg)),
    "service": _choice(*(service.name.lower() for service in Service)),
    "region": lambda value, where: parse_region(value, where=where),
    "token_file": _path,
    "ingest_tokens": _path,
    "reserve_mib": _count,
    "join_keep_s": _count,
    "log_level": _choice("debug", "info", "warning", "error"),
    "log_format": _choice("auto", "text", "json"),
    "energy": lambda value, where: parse_table(value, where=where),
    "sources": lambda value, where: parse_tables(value, where=where),
    "watch": lambda value, where: parse_tables(value, where=where),
}


def run_agent(config: AgentConfig) -> int:
    """Run an agent until SIGTERM or SIGINT; return the exit status. Raises LedgerError where it cannot start."""
    # Building is long stretches of Python in a thread of its own: it gives way to an answer sooner than by default.
    sys.setswitchinterval(SWITCH_S)
    # What a batch makes goes without a collector, for it holds no cycles: by default a replay spends a tenth of its
    # CPU time on looking through it again and again.
    gc.freeze()
    gc.set_threshold(GC_OBJECTS)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_serve(config))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config))


async def _serve(config: AgentConfig) -> int:
    log = get_log("ledger-agent")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_agent(config) as (agent, listen):
        log.info("ready", listen=f"http://{listen}")
        if not listen.is_loopback:
            log.warning("CDRs come in unencrypted from other machines", listen=str(listen))
        # Somebody who asked for port 0, a script, reads here where it is.
        sys.stdout.write(f"http://{listen}\n")
        sys.stdout.flush()
        waiting = [asyncio.create_task(event.wait()) for event in (stop, agent.ended)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        log.info("stopping", reason="signal" if agent.failure is None else "delivery ended")
    if agent.failure is not None:
        # Everything is in the spool: a service manager that starts it again loses nothing.
        log.error("delivery ended", exc_info=agent.failure)
        return 1
    return 0


@asynccontextmanager
async def running_agent(config: AgentConfig) -> AsyncIterator[tuple[Agent, Address]]:
    """An agent that serves while the context is open, and where. Raises ConfigError or StoreError where it cannot."""
    settings, tokens = _settings(config), _ingest_tokens(config)
    async with serving_agent(settings, tokens, config.listen, watch=config.watch) as serving:
        yield serving


@asynccontextmanager
async def serving_agent(
    settings: AgentSettings,
    tokens: Sequence[Token],
    listen: Address,
    *,
    option: str = "--listen",
    vault: Vault | None = None,
    watch: Mapping[str, Mapping[str, Any]] | None = None,
) -> AsyncIterator[tuple[Agent, Address]]:
    """An agent that serves proxies with one of ``tokens`` at ``listen``, which ``option`` says, and where it does.

    vault: one that is open already and that others close. watch: tables of what is watched, by name.
    Raises ConfigError or StoreError where it cannot.
    """
    watched = [parse_watch(name, table) for name, table in (watch or {}).items()]
    by_name = Adapters(settings.sources).by_name
    adapters = [adapter_for(one, by_name) for one in watched]
    agent = Agent(settings, vault)
    watches = Watches(
        [
            _watch(one, adapter, agent.intake.keep, settings.spool / "watch")
            for one, adapter in zip(watched, adapters, strict=True)
        ]
    )
    server = HttpServer(AgentApp(agent, tokens, watches.watches))
    try:
        agent.start()
        watches.start()
        yield agent, await _listen(server, listen, option)
    finally:
        # First nobody can hand in more, then what came in is brought to rest.
        await server.close(STOP_S)
        await watches.stop()
        await agent.stop()


def _watch(settings: FolderSettings | FollowSettings, adapter: Adapter, keep: Keep, directory: Path) -> Watch:
    if isinstance(settings, FolderSettings):
        return Folder(settings, adapter, keep, steady_ms=steady_ms)
    return Follower(settings, adapter, keep, steady_ms=steady_ms, directory=directory)


async def _listen(server: HttpServer, address: Address, option: str) -> Address:
    try:
        return Address(address.host, await server.start(address.host, address.port))
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        raise ConfigError(
            "the port is in use" if in_use else f"cannot listen: {error.strerror}",
            where=f"{option} {address}",
            hint="Is another agent running? Choose another port, or 0 for a free one" if in_use else "",
        ) from None


def _settings(config: AgentConfig) -> AgentSettings:
    if not config.to:
        raise ConfigError("where to?", where="--to", hint="Give the API address of a node, as http://127.0.0.1:8080")
    key_file = _needed(config.submit_key, "--submit-key", "Make one with: ledgerctl keygen FILE")
    secret_file = _needed(config.member_secret, "--member-secret", "Make one with: ledgerctl keygen --secret FILE")
    genesis_file = _needed(config.genesis, "--genesis", "Give the chain's genesis.json, as its nodes have it")
    genesis = genesis_from_json(
        read_bounded(genesis_file, "genesis file", bytes_max=GENESIS_BYTES_MAX), where=str(genesis_file)
    )
    # A development key is known to everybody, and signs for a chain that everybody may write to.
    key = read_key(key_file, is_dev=genesis.name == development.NAME)
    return AgentSettings(
        spool=config.spool,
        nodes=config.to,
        genesis=genesis,
        member_id=_member_of(config, genesis, key.key_id),
        submit_key=key,
        profile=Profile(
            read_secret(secret_file),
            leg=Leg[config.leg.upper()],
            service=Service[config.service.upper()],
            region=config.region,
            energy=energy_profile(config.energy, carbon_basis=genesis.parameters.carbon_basis),
        ),
        vault=config.vault or config.spool / "vault",
        token=_node_token(config),
        reserve_bytes=config.reserve_mib * MIB,
        sources=adapter_options(config.sources),
        times=join_times(config.sources, config.join_keep_s),
    )


def join_times(sources: Mapping[str, Mapping[str, Any]], keep_s: int = KEEP_MS // 1000) -> JoinTimes:
    """Return how long documents wait, by ``[sources.NAME]`` tables. Raises ConfigError naming the source."""
    tables = [(name, f"sources.{name}", table) for name, table in sources.items()]
    # Each mapping is a source of its own, with a table of its own.
    tables += [(name, f"sources.mapped.{name}", table) for name, table in sources.get("mapped", {}).items()]
    waits = {
        name: _count(table["join_wait_s"], f"{where}.join_wait_s") * 1000
        for name, where, table in tables
        if isinstance(table, Mapping) and "join_wait_s" in table
    }
    return JoinTimes(keep_s * 1000, waits)


def adapter_options(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return what of ``[sources.NAME]`` tables is for the adapters."""
    return {name: _without_wait(table) for name, table in sources.items()}


def _without_wait(table: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        name: _without_wait(value) if isinstance(value, Mapping) else value
        for name, value in table.items()
        if name != "join_wait_s"
    }


def _needed(path: Path | None, option: str, hint: str) -> Path:
    if path is None:
        raise ConfigError("records cannot be signed without it", where=option, hint=hint)
    return path


def _member_of(config: AgentConfig, genesis: Genesis, key_id: bytes) -> str:
    """Return whose key it is. Raises ConfigError."""
    owners = [member for member in genesis.members for key in member.keys if key_id_of(key.public_key) == key_id]
    found = owners[0].member_id if owners else ""
    if config.member and found not in {"", config.member}:
        raise ConfigError("another member's key", where="--member", expected=found, actual=config.member)
    if not (config.member or found):
        raise ConfigError(
            "the genesis file does not know the submit key",
            where="--submit-key",
            actual=key_id,
            hint="Say whose it is with --member, where the key was added to the chain later",
        )
    return config.member or found


def _node_token(config: AgentConfig) -> str:
    """Return the token for the nodes, empty where none is given. Raises ConfigError."""
    return read_token(config.token_file) if config.token_file is not None else ""


def read_token(path: Path) -> str:
    """Return the bearer token in a file. Raises ConfigError."""
    where = f"--token-file {path}"
    try:
        token = path.read_text("ascii").strip()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=where) from None
    except UnicodeDecodeError:
        raise ConfigError("not a token", where=where) from None
    if not token or not token.isprintable() or " " in token:
        raise ConfigError("not a token", where=where, expected="one line")
    return token


def _ingest_tokens(config: AgentConfig) -> list[Token]:
    if config.ingest_tokens is None:
        raise ConfigError(
            "who may hand in CDRs?",
            where="--ingest-tokens",
            hint="Make a tokens file with: ledgerctl token new kamailio-1 --file FILE",
        )
    tokens = read_tokens(config.ingest_tokens)
    check_somebody_may_submit(tokens, f"--ingest-tokens {config.ingest_tokens}")
    return tokens


def check_somebody_may_submit(tokens: Sequence[Token], where: str) -> None:
    """Raise ConfigError where no token may hand in CDRs."""
    if not any(ROLE in token.roles for token in tokens):
        raise ConfigError("no token here may hand in CDRs", where=where, expected=f"one of role {ROLE}")
