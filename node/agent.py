"""The edge agent as a process: options, socket and signals around ``telephony.agent.Agent``.

Source: docs/agent.md, "Options".
"""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ledger.errors import ConfigError
from node.config import Address, parse_address, read_toml
from node.keyfile import read_tokens
from node.logs import get_log
from telephony.agent import Agent, AgentSettings
from telephony.agent_http import ROLE, AgentApp
from telephony.http_server import HttpServer

ENVIRONMENT_PREFIX: Final = "LEDGER_AGENT_"
STOP_S: Final = 5.0
"""Requests under way get this long to end."""
MIB: Final = 1024 * 1024
LISTEN: Final = Address("127.0.0.1", 8090)


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything an agent is started with.

    Attributes:
        listen: where SIP proxies post their CDRs.
        spool: the agent's directory; nothing else may write there.
        to: API addresses of ledger nodes, tried in this order.
        token_file: file with the bearer token that the nodes gave out.
        ingest_tokens: JSON file of the tokens that proxies must bring, as ``ledgerctl token new`` writes it.
        reserve_mib: room left on the disk; with less, CDRs are answered 507.
        log_level: debug, info, warning, error.
        log_format: auto, text, json.
    """

    listen: Address = LISTEN
    spool: Path = Path("ledger-agent-spool")
    to: tuple[str, ...] = ()
    token_file: Path | None = None
    ingest_tokens: Path | None = None
    reserve_mib: int = 64
    log_level: str = "info"
    log_format: str = "auto"


OPTIONS: Final = tuple(field.name for field in fields(AgentConfig))
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
        if variable in environment:
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
    "token_file": _path,
    "ingest_tokens": _path,
    "reserve_mib": _count,
    "log_level": _choice("debug", "info", "warning", "error"),
    "log_format": _choice("auto", "text", "json"),
}


def run_agent(config: AgentConfig) -> int:
    """Run an agent until SIGTERM or SIGINT; return the exit status. Raises LedgerError where it cannot start."""
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
    agent = Agent(settings)
    server = HttpServer(AgentApp(agent, tokens))
    try:
        agent.start()
        yield agent, await _listen(server, config.listen)
    finally:
        # First nobody can hand in more, then what came in is brought to rest.
        await server.close(STOP_S)
        await agent.stop()


async def _listen(server: HttpServer, address: Address) -> Address:
    try:
        return Address(address.host, await server.start(address.host, address.port))
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        raise ConfigError(
            "the port is in use" if in_use else f"cannot listen: {error.strerror}",
            where=f"--listen {address}",
            hint="Is another agent running? Choose another port, or 0 for a free one" if in_use else "",
        ) from None


def _settings(config: AgentConfig) -> AgentSettings:
    if not config.to:
        raise ConfigError("where to?", where="--to", hint="Give the API address of a node, as http://127.0.0.1:8080")
    token = ""
    if config.token_file is not None:
        try:
            token = config.token_file.read_text("ascii").strip()
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", where=f"--token-file {config.token_file}") from None
        except UnicodeDecodeError:
            raise ConfigError("not a token", where=f"--token-file {config.token_file}") from None
        if not token or not token.isprintable() or " " in token:
            raise ConfigError("not a token", where=f"--token-file {config.token_file}", expected="one line")
    return AgentSettings(config.spool, config.to, token, config.reserve_mib * MIB)


def _ingest_tokens(config: AgentConfig) -> list[Any]:
    if config.ingest_tokens is None:
        raise ConfigError(
            "who may hand in CDRs?",
            where="--ingest-tokens",
            hint="Make a tokens file with: ledgerctl token new kamailio-1 --file FILE",
        )
    tokens = read_tokens(config.ingest_tokens)
    if not any(ROLE in token.roles for token in tokens):
        raise ConfigError("no token here may hand in CDRs", where=f"--ingest-tokens {config.ingest_tokens}")
    return tokens
