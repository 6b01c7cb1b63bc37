"""``ledger-agent``: takes CDRs beside a SIP proxy and hands them to the ledger.

Source: docs/agent.md.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.errors import ConfigError, LedgerError
from node.cli.mapping import map_app
from node.cli.vault import app as vault_app

if TYPE_CHECKING:
    from node.agent import AgentConfig
    from telephony.dead_letters import DeadLetters
    from telephony.spool import Spool

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Takes CDRs beside a SIP proxy, keeps them on disk, and hands them to ledger nodes.",
)
dead_app = typer.Typer(no_args_is_help=True, help="Records that could not go on: look, mend, send again, drop.")
app.add_typer(dead_app, name="dead")
app.add_typer(vault_app, name="vault")
app.add_typer(map_app, name="map")

Text = str | None
SPOOL_VARIABLE = "LEDGER_AGENT_SPOOL"
SpoolOption = Annotated[Path, typer.Option("--spool", envvar=SPOOL_VARIABLE, help="The agent's spool directory.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids, as dead list shows them.")]
All = Annotated[bool, typer.Option("--all", help="All that there are.")]
DOCUMENT_BYTES_MAX = 1024 * 1024


@app.command()
def run(
    config: Annotated[Path | None, typer.Option(help="TOML file with any of these options.")] = None,
    listen: Annotated[Text, typer.Option(help="HOST:PORT for the proxies. [default: 127.0.0.1:8090]")] = None,
    spool: Annotated[Text, typer.Option(help="The agent's own directory. [default: ledger-agent-spool]")] = None,
    to: Annotated[Text, typer.Option(help="http://HOST:PORT of nodes, separated by commas.")] = None,
    genesis: Annotated[Text, typer.Option(help="The chain's genesis file.")] = None,
    member: Annotated[Text, typer.Option(help="Whose submit key it is, where genesis does not know it.")] = None,
    submit_key: Annotated[Text, typer.Option(help="PEM file of the key that signs records.")] = None,
    member_secret: Annotated[Text, typer.Option(help="File with the member's secret.")] = None,
    vault: Annotated[Text, typer.Option(help="Directory of the private parts. [default: in the spool]")] = None,
    leg: Annotated[Text, typer.Option(help="originating | terminating | transit [default: originating]")] = None,
    service: Annotated[Text, typer.Option(help="What the calls are. [default: voice]")] = None,
    region: Annotated[Text, typer.Option(help="Country of national phone numbers in CDRs, as GB.")] = None,
    token_file: Annotated[Text, typer.Option(help="File with the token that the nodes gave out.")] = None,
    ingest_tokens: Annotated[Text, typer.Option(help="JSON file of the tokens that proxies bring.")] = None,
    reserve_mib: Annotated[Text, typer.Option(help="MiB left free on the disk. [default: 64]")] = None,
    join_keep_s: Annotated[Text, typer.Option(help="Parts of no whole call are kept so long. [default: 86400]")] = None,
    log_level: Annotated[Text, typer.Option(help="debug | info | warning | error [default: info]")] = None,
    log_format: Annotated[Text, typer.Option(help="auto | text | json [default: auto]")] = None,
) -> None:
    """Run the agent until it is told to stop.

    Every option may also stand in the TOML file, or in the environment as LEDGER_AGENT_ and its name in capitals.
    """
    flags: dict[str, Any] = {name: value for name, value in locals().items() if name != "config"}
    from node.agent import load_agent_config, run_agent
    from node.logs import set_up_logs

    options = load_agent_config(flags, os.environ, config)
    set_up_logs(options.log_level, options.log_format)
    raise typer.Exit(run_agent(options))


@app.command()
def feed(
    source: Annotated[str, typer.Argument(metavar="NAME", help="Whose records they are: kamailio, asterisk, ...")],
    config: Annotated[Path | None, typer.Option(help="The agent's TOML file: its spool, and options of NAME.")] = None,
    url: Annotated[str, typer.Option(help="http://HOST:PORT of an agent that runs.")] = "",
    token_file: Annotated[Path | None, typer.Option(help="With --url: file with a token of its ingest tokens.")] = None,
    spool: Annotated[Text, typer.Option(help="Without --url: the spool of an agent that does not run.")] = None,
) -> None:
    """Hand over the records on standard input. Status 0: all are on the agent's disk; else it says how many are not."""
    from node.agent import adapter_options, load_agent_config, read_token
    from node.cli.output import print_line
    from telephony.adapters.registry import Adapters
    from telephony.feeding import AgentConnection, SpoolSink, UrlSink, error_of
    from telephony.feeding import feed as feed_all

    if url and spool:
        raise ConfigError("which?", where="--url", expected="either --url or --spool")
    options = load_agent_config({"spool": spool}, os.environ, config)
    by_name = Adapters(adapter_options(options.sources)).by_name
    if source not in by_name:
        raise ConfigError("no such platform", where="NAME", expected=", ".join(sorted(by_name)), actual=source)
    adapter = by_name[source]

    def read(size: int) -> bytes:
        return os.read(sys.stdin.fileno(), size)

    if url:
        connection = AgentConnection(url, source, read_token(token_file) if token_file else "")
        outcome = feed_all(adapter, read, UrlSink(adapter, connection))
        connection.close()
    else:
        with _open_spool(options) as (opened, letters):
            outcome = feed_all(adapter, read, SpoolSink(adapter, opened, letters, now_ms=_now_ms))
    for fault in outcome.faults:
        print(_one_line(fault), file=sys.stderr)  # noqa: T201 - for the person who has the file
    error = error_of(outcome)
    if error is not None:
        raise error
    print_line(f"{outcome.kept:,} on disk")


@contextmanager
def _open_spool(options: AgentConfig) -> Iterator[tuple[Spool, DeadLetters]]:
    """Open a spool that no agent has open. Raises StoreLocked where one runs, another StoreError."""
    from telephony.dead_letters import DeadLetters
    from telephony.spool import Spool

    with ExitStack() as stack:
        opened = Spool(options.spool, reserve_bytes=options.reserve_mib * 1024 * 1024)
        stack.callback(opened.close)
        letters = DeadLetters(options.spool)
        stack.callback(letters.close)
        yield opened, letters


@dead_app.command("list")
def list_dead(
    spool: SpoolOption, as_json: Annotated[bool, typer.Option("--json", help="Whole, one a line.")] = False
) -> None:
    """List the dead letters, oldest first: id, when, where it failed, why."""
    import msgspec

    from node.cli.output import print_line
    from telephony.dead_letters import as_json as whole

    letters = _dead_letters(spool)
    for letter in letters:
        if as_json:
            print_line(msgspec.json.encode(whole(letter)).decode())
        else:
            mark = "  (to be sent again)" if letters.is_retry_wanted(letter.id) else ""
            print_line(f"{letter.id}  {_utc(letter.time_ms)}  {letter.stage:8}  {_one_line(letter.reason)}{mark}")
    if not as_json and not len(letters):
        print_line("no dead letters")


@dead_app.command()
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="As dead list shows it.")],
    spool: SpoolOption,
    document: Annotated[bool, typer.Option("--document", help="The record alone, as it came: to mend it.")] = False,
) -> None:
    """Show one dead letter, with the record."""
    import msgspec

    from telephony.dead_letters import as_json

    letter = _dead_letters(spool).get(id_)
    data = letter.data if document else msgspec.json.format(msgspec.json.encode(as_json(letter)), indent=2)
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.flush()


@dead_app.command()
def retry(
    spool: SpoolOption,
    ids: Ids = None,
    is_all: All = False,
    document: Annotated[str, typer.Option("--with", help="File with the mended record, - for standard input.")] = "",
) -> None:
    """Send dead letters again. A running agent does it within seconds, another at its start."""
    from node.cli.output import print_line, read_file
    from telephony.adapters.registry import Adapters
    from telephony.dead_letters import Letter
    from telephony.intake import fault_of

    letters = _dead_letters(spool)
    chosen = _choose(letters, ids, is_all=is_all)
    mended = None
    if document:
        if len(chosen) != 1:
            raise ConfigError("one record mends one dead letter", where="--with", expected="one id", actual=len(chosen))
        data = read_file(document, bytes_max=DOCUMENT_BYTES_MAX).strip()
        adapter = Adapters().by_kind.get(letters.get(chosen[0]).kind)
        fault = fault_of(adapter, data) if adapter is not None else None
        if fault is not None:
            raise fault
        mended = data.decode()
    letters.add([Letter("retry", id_, _now_ms(), document=mended) for id_ in chosen])
    print_line(f"{len(chosen)} to be sent again")


@dead_app.command()
def drop(spool: SpoolOption, ids: Ids = None, is_all: All = False) -> None:
    """Give dead letters up, for good: their records will be on no ledger."""
    from node.cli.output import print_line
    from telephony.dead_letters import Letter

    letters = _dead_letters(spool)
    chosen = _choose(letters, ids, is_all=is_all)
    letters.add([Letter("dropped", id_, _now_ms()) for id_ in chosen])
    print_line(f"{len(chosen)} dropped")


def _dead_letters(spool: Path) -> DeadLetters:
    from telephony.dead_letters import DeadLetters

    if not (spool / "FORMAT").exists():
        raise ConfigError("no spool here", where=f"--spool {spool}", expected="the directory of a ledger-agent")
    return DeadLetters(spool)


def _choose(letters: DeadLetters, ids: list[str] | None, *, is_all: bool) -> list[str]:
    """Return the ids meant. Raises ConfigError for one that is not there, before anything is done."""
    if is_all == bool(ids):
        raise ConfigError("which?", where="ID", expected="ids as dead list shows them, or --all")
    chosen = list(dict.fromkeys(ids)) if ids else [letter.id for letter in letters]
    for id_ in chosen:
        letters.get(id_)
    return chosen


def _utc(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _one_line(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def main() -> None:
    """Run ``ledger-agent``: status 0 when it was done, 1 when it could not be, 2 for a wrong command line."""
    from node.cli.output import print_error

    try:
        app()
    except LedgerError as error:
        print_error(error)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read the list has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
