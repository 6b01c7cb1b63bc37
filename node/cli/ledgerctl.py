"""``ledgerctl``: everything a person asks a node for, and the files that a node needs.

Source: docs/operations.md, "Commands".
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ledger.errors import LedgerError
from node.cli import doctor, energy, evidence, follow, found, govern, keys, members, mos, show, submit, witness

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Keys, genesis, records and questions for a ledger of call records.",
)
app.command("keygen")(keys.keygen)
app.add_typer(keys.key_app, name="key")
govern.register(app, keys.key_app)
members.register(app, keys.key_app)
app.add_typer(keys.token_app, name="token")
app.add_typer(found.genesis_app, name="genesis")
app.add_typer(found.network_app, name="network")
app.command("submit")(submit.submit)
app.command("status")(show.status)
app.command("doctor")(doctor.doctor)
app.add_typer(show.show_app, name="show")
app.command("receipt")(show.receipt)
app.command("tail")(show.tail)
app.command("follow")(follow.follow)
app.add_typer(witness.witness_app, name="witness")
app.add_typer(energy.energy_app, name="energy")
app.command("mos")(mos.mos)
app.command("evidence")(evidence.evidence)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            typer.echo(f"ledgerctl {installed('ledgerd')}")
        except PackageNotFoundError:
            typer.echo("ledgerctl 0+unknown")
        raise typer.Exit


def main() -> None:
    """Run ``ledgerctl``: status 0 when it was done, 1 when it was refused, 2 for a wrong command line."""
    from node.cli.output import print_error

    try:
        app()
    except LedgerError as error:
        print_error(error)
        sys.exit(1)
    except Exception as error:
        if os.environ.get("LEDGERCTL_DEBUG"):
            raise
        what = f"this program failed: {type(error).__name__}: {error}"
        print_error(LedgerError(what, hint="Please report it, with what LEDGERCTL_DEBUG=1 shows"))
        sys.exit(1)


if __name__ == "__main__":
    main()
