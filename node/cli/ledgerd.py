"""``ledgerd``: run a node."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ledger.errors import LedgerError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Text = str | None


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of these options.")] = None,
    genesis: Annotated[Text, typer.Option(help="The chain's genesis file.")] = None,
    data: Annotated[Text, typer.Option(help="The node's own directory. [default: ledgerd-data]")] = None,
    key: Annotated[Text, typer.Option(help="PEM file of the node key.")] = None,
    next_key: Annotated[Text, typer.Option(help="PEM file of the key that takes the node key's place.")] = None,
    joining: Annotated[bool | None, typer.Option(help="Start though the node key is not known yet.")] = None,
    listen: Annotated[Text, typer.Option(help="HOST:PORT for peers. [default: 127.0.0.1:9090]")] = None,
    api: Annotated[Text, typer.Option(help="HOST:PORT of the API. [default: 127.0.0.1:8080]")] = None,
    peers: Annotated[Text, typer.Option(help="ws://HOST:PORT of peers to dial, separated by commas.")] = None,
    endpoint: Annotated[Text, typer.Option(help="Address told to peers, where it differs from --listen.")] = None,
    submit_key: Annotated[Text, typer.Option(help="PEM file of the key that signs records handed in here.")] = None,
    member_secret: Annotated[Text, typer.Option(help="File with the member's secret.")] = None,
    tokens: Annotated[Text, typer.Option(help="JSON file of API tokens.")] = None,
    region: Annotated[Text, typer.Option(help="Country of national phone numbers in CDRs, as GB.")] = None,
    hosts: Annotated[Text, typer.Option(help="Host headers the API answers to beside loopback.")] = None,
    tls_certificate: Annotated[Text, typer.Option(help="PEM certificate that peers are served with.")] = None,
    tls_key: Annotated[Text, typer.Option(help="PEM key of that certificate.")] = None,
    allow_plaintext: Annotated[bool | None, typer.Option(help="Peer without TLS beyond loopback.")] = None,
    agent_spool: Annotated[Text, typer.Option(help="Run an agent in this process too; its own directory.")] = None,
    agent_listen: Annotated[Text, typer.Option(help="HOST:PORT of that agent. [default: 127.0.0.1:8090]")] = None,
    log_key: Annotated[Text, typer.Option(help="PEM file of a log key: sign /checkpoint with it.")] = None,
    witnesses: Annotated[Text, typer.Option(help="Verifier keys of witnesses, separated by commas.")] = None,
    log_level: Annotated[Text, typer.Option(help="debug | info | warning | error [default: info]")] = None,
    log_format: Annotated[Text, typer.Option(help="auto | text | json [default: auto]")] = None,
    dev: Annotated[bool | None, typer.Option(help="A one-node chain with fresh keys.")] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    """Run a node of a call-record ledger.

    Every option may also stand in the TOML file, or in the environment as LEDGERD_ and its name in capitals.
    """
    if context.invoked_subcommand is not None:
        return
    flags: dict[str, Any] = {k: v for k, v in locals().items() if k not in {"context", "config", "version"}}
    if version:
        from node.status import program_version

        typer.echo(f"ledgerd {program_version()}")
        return
    sys.exit(_run(flags, config))


@app.command(
    "sim",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def simulate(context: typer.Context) -> None:
    """Run a whole cluster on a virtual clock, network and disks: ledgerd sim --seed N."""
    from node.sim.run import main as run_simulation

    sys.exit(run_simulation(context.args))


def _run(flags: dict[str, Any], config_file: Path | None) -> int:
    from node.config import load_config
    from node.logs import set_up_logs
    from node.runtime import run_node

    try:
        config = load_config(flags, os.environ, config_file)
        set_up_logs(config.log_level, config.log_format)
        return run_node(config)
    except LedgerError as error:
        typer.echo(f"ledgerd: {error.sentence()}", err=True)
        return 1


def main() -> None:
    """Run ``ledgerd``."""
    app()


if __name__ == "__main__":
    main()
