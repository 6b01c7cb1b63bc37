"""``ledgerctl witness``: have witnesses of transparency logs cosign what a node says is final.

Source: docs/audit.md, "Notes and tiles".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.show import Json
from node.cli.submit import Token, TokenFile, Url, read_token

if TYPE_CHECKING:
    from node.client import Client
    from node.light import ApiSource
    from node.witness import Witness

witness_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Have witnesses cosign what a node says is final."
)


@witness_app.callback()
def _witness() -> None:
    """Have witnesses cosign what a node says is final."""


@witness_app.command("push")
def push(
    witness: Annotated[str, typer.Argument(metavar="WITNESS", help="Its submission prefix, as https://HOST/PREFIX.")],
    key: Annotated[str, typer.Option("--key", metavar="VKEY", help="The witness's verifier key.")],
    url: Url = "http://127.0.0.1:8080",
    token: Token = "",
    token_file: TokenFile = "",
    every: Annotated[int, typer.Option(help="Again after so many seconds, until interrupted; 0: once.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Have the node's newest note cosigned by a witness, and give the cosignature to the node to show.

    The witness signs only what extends all that it saw of the chain. The node must know it: its option --witnesses.
    """
    import time

    from audit.notes import COSIGNATURE, parse_note_key
    from ledger.errors import LedgerError
    from node.cli.output import print_error
    from node.client import Client
    from node.light import ApiSource
    from node.witness import Witness

    asked = Witness(witness, parse_note_key(key, where="--key", kinds=[COSIGNATURE]))
    client, source = Client(url, read_token(token, token_file)), ApiSource(url)
    if not every:
        _once(client, source, asked, as_json=as_json)
        return
    try:
        while True:
            try:
                _once(client, source, asked, as_json=as_json)
            except LedgerError as error:
                print_error(error)
            time.sleep(every)
    except KeyboardInterrupt:
        return


def _once(client: Client, source: ApiSource, witness: Witness, *, as_json: bool) -> None:
    from audit.notes import parse_tree_head
    from node.cli.output import print_json, print_line
    from node.witness import push as push_note

    chain_id = bytes.fromhex(client.get("/v1/head")["chain_id"])
    note, found = push_note(client, source, witness, chain_id)
    head = parse_tree_head(note.text)
    if as_json:
        print_json({"height": head.size, "origin": head.origin, "time_s": [one.time_s for one in found]})
    else:
        print_line(f"height {head.size} cosigned by {witness.key.name}")
