"""``ledgerctl status``, ``show``, ``receipt`` and ``tail``: questions to a node."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from node.cli import members
from node.cli.submit import Token, TokenFile, Url

show_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Look at the chain.")

Json = Annotated[bool, typer.Option("--json", help="For machines.")]


@show_app.callback()
def _show() -> None:
    """Look at the chain."""


def status(
    urls: Annotated[list[str] | None, typer.Argument(help="APIs to ask, side by side. [default: --url]")] = None,
    url: Url = "http://127.0.0.1:8080",
    as_json: Json = False,
) -> None:
    """Show how nodes are: in step or how far behind, head, final block, peers, pending records, clock, votes.

    The status is 1 where one does not answer.
    """
    from ledger.errors import LedgerError
    from node.cli.lines import with_moments
    from node.cli.output import print_error, print_facts, print_json
    from node.client import Client

    found: dict[str, dict[str, Any]] = {}
    failed = 0
    for one in urls or [url]:
        try:
            found[one] = Client(one).get("/v1/status")
        except LedgerError as error:
            print_error(error)
            failed += 1
    if as_json:
        print_json(found if urls else found.get(url))
    elif found:
        print_facts({one: with_moments(facts) for one, facts in found.items()})
    if failed:
        raise typer.Exit(1)


def _ask(url: str, path: str, *, as_json: bool, token: str = "") -> dict[str, Any] | None:
    """Return what is at ``path``, None where it was printed as JSON already."""
    from node.cli.output import print_json
    from node.client import Client

    answer: dict[str, Any] = Client(url, token).get(path)
    if as_json:
        print_json(answer)
        return None
    return answer


@show_app.command()
def head(url: Url = "http://127.0.0.1:8080", as_json: Json = False) -> None:
    """Show the tip of the chain, and the final block."""
    from node.cli.lines import with_moments
    from node.cli.output import print_facts

    if answer := _ask(url, "/v1/head", as_json=as_json):
        print_facts({"": with_moments(answer)})


@show_app.command()
def block(
    block: Annotated[str, typer.Argument(help="Height, or id in hex.")],
    url: Url = "http://127.0.0.1:8080",
    as_json: Json = False,
) -> None:
    """Show a block: header, totals, and the transactions in it."""
    from node.cli.lines import describe_totals, with_moments
    from node.cli.output import print_facts, print_line, print_rows

    if not (answer := _ask(url, f"/v1/blocks/{_part(block)}", as_json=as_json)):
        return
    transactions, totals = answer.pop("transactions"), answer["header"].pop("totals")
    for bulky in ("certificate", "signature"):
        answer.pop(bulky, None)
    print_facts({"": with_moments(answer)})
    print_line(f"\n{describe_totals(totals)}\n")
    print_rows([{"transaction": tx["tx_id"], "void": tx["void"]} for tx in transactions], empty="no transactions")


@show_app.command()
def tx(
    tx_id: Annotated[str, typer.Argument(help="Id in hex.")], url: Url = "http://127.0.0.1:8080", as_json: Json = False
) -> None:
    """Show a transaction: who signed it, how far it is, and its records, or what it asks for where it governs."""
    from node.cli.lines import with_moments
    from node.cli.output import print_facts, print_json, print_line, print_rows

    if not (answer := _ask(url, f"/v1/transactions/{_part(tx_id)}", as_json=as_json)):
        return
    records, void, payload = answer.pop("records"), answer.pop("void"), answer.pop("payload")
    print_facts({"": with_moments(answer)})
    print_line("")
    if payload is not None:
        print_json(payload)
        return
    rows = [_summary(index, record, is_void=index in void) for index, record in enumerate(records)]
    print_rows(rows, empty="no records")


@show_app.command()
def record(
    place: Annotated[str, typer.Argument(help="TXID/INDEX.")],
    distance_km: Annotated[
        int | None, typer.Option(min=0, help="Between the two ends, where you know both sites: flags delays too short.")
    ] = None,
    url: Url = "http://127.0.0.1:8080",
    token: Token = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Show a record, how far it is, and what is suspicious in it; with a token of role private, one's private part.

    Flags refuse nothing: each is possible, and says where to look first when two carriers' figures differ.
    """
    from node.cli.lines import describe_flag, with_moments
    from node.cli.output import print_facts, print_line
    from node.cli.submit import read_token

    path = f"/v1/records/{parse_place(place)}"
    if distance_km is not None:
        path += f"?distance_km={distance_km}"
    if answer := _ask(url, path, as_json=as_json, token=read_token(token, token_file)):
        flags = answer.pop("flags", [])
        print_facts({"": with_moments(answer)})
        for flag in flags:
            print_line(f"\n{describe_flag(flag)}")


show_app.command()(members.producers)


@show_app.command()
def peers(url: Url = "http://127.0.0.1:8080", as_json: Json = False) -> None:
    """Show who is connected."""
    from node.cli.output import print_rows

    if answer := _ask(url, "/v1/peers", as_json=as_json):
        print_rows(answer["peers"], empty="no peers")


@show_app.command()
def genesis(url: Url = "http://127.0.0.1:8080", as_json: Json = False) -> None:
    """Show the chain's founding; with --json the genesis file itself."""
    from ledger.genesis import genesis_from_json
    from node.cli.found import print_genesis
    from node.cli.output import print_line
    from node.client import Client

    body = Client(url).get_bytes("/v1/genesis")
    # Checked here, not believed: the chain id shown is that of the contents.
    found = genesis_from_json(body, where=f"{url}/v1/genesis")
    if as_json:
        print_line(body.decode().rstrip())
    else:
        print_genesis(found, f"{url}/v1/genesis")


def receipt(
    place: Annotated[str, typer.Argument(help="TXID/INDEX of a final record.")],
    out: Annotated[str, typer.Option(help="Where to write it; - for standard output.")] = "-",
    url: Url = "http://127.0.0.1:8080",
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    reveal: Annotated[
        str, typer.Option("--reveal", metavar="FIELDS", help="Private fields to show: caller,call_id ... or all.")
    ] = "",
    token: Token = "",
    token_file: TokenFile = "",
) -> None:
    """Fetch the proof that a record is on the chain, for ledger-verify to check without any node.

    --reveal shows private fields in it, each by itself, and needs a token of role private.
    """
    from audit.revealed import parse_names
    from node.cli.output import print_line, write_new
    from node.cli.submit import read_token
    from node.client import Client

    path, held = f"/v1/records/{parse_place(place)}/receipt", ""
    if reveal:
        parse_names(reveal)
        path, held = f"{path}?reveal={reveal}", read_token(token, token_file)
    body = Client(url, held).get_bytes(path)
    if out == "-":
        print_line(body.decode().rstrip())
        return
    write_new(out, body, force=force, is_private=bool(reveal))
    if reveal:
        typer.echo(f"{out} holds personal data: only its owner may read it here", err=True)
    typer.echo(f"{out}: check it with: ledger-verify {out} --genesis genesis.json", err=True)


def tail(url: Url = "http://127.0.0.1:8080", as_json: Json = False) -> None:
    """Show what happens as it happens: blocks, finality, losses. Ctrl-C ends it."""
    import json

    from node.cli.lines import describe_event
    from node.cli.output import print_line
    from node.client import Client

    try:
        for event in Client(url).events():
            print_line(json.dumps(event) if as_json else describe_event(event))
    except KeyboardInterrupt:
        return


def parse_place(text: str) -> str:
    """Return TXID/INDEX as part of an address. Raises ConfigError."""
    from ledger.errors import ConfigError

    tx_id, _, index = text.partition("/")
    if len(tx_id) != 64 or set(tx_id) - set("0123456789abcdef") or not index.isascii() or not index.isdigit():
        raise ConfigError(
            "not the place of a record", where="TXID/INDEX", expected="64 hex digits, a slash, a number", actual=text
        )
    return f"{tx_id}/{int(index)}"


def _part(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _summary(index: int, record: dict[str, Any], *, is_void: bool) -> dict[str, Any]:
    """Return the part of a record that fits a line."""
    from node.cli.lines import utc

    quality, energy = record.get("quality"), record.get("energy")
    talk_ms = record["end_ms"] - record["answer_ms"] if record["answer_ms"] else 0
    return {
        "index": index,
        "counts": not is_void,
        "ended": utc(record["end_ms"]),
        "leg": record["leg"],
        "sip": record["sip_code"],
        "talk_s": talk_ms // 1000,
        "method": quality["method"] if quality else None,
        "mos": f"{quality['mean']['mos_milli'] / 1000:.2f}" if quality else None,
        "co2_ug": energy["co2_ug"] if energy else None,
    }
