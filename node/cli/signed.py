"""Commands that sign something with a govern key: their common options, and what is done with what they make."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from node.cli.submit import Token, TokenFile

if TYPE_CHECKING:
    from ledger.payloads import Payload
    from ledger.transaction import Kind, Transaction
    from node.client import Client
    from node.desk import Desk

VALID_MINUTES: Final = 10
VALID_MINUTES_MAX: Final = 24 * 60
WAITS: Final = ("final", "stored")

Nodes = Annotated[
    list[str] | None,
    typer.Option(
        "--node",
        "--url",
        envvar="LEDGERCTL_URL",
        help="API of a node; several are tried in turn. [default: http://127.0.0.1:8080]",
    ),
]
KeyFile = Annotated[
    Path, typer.Option("--key", envvar="LEDGERCTL_KEY", help="PEM file of the govern key that signs.", readable=False)
]
MemberName = Annotated[str, typer.Option("--member", help="Whose key it is; asked of the node by default.")]
GenesisFile = Annotated[
    Path | None, typer.Option("--genesis", metavar="FILE", help="The chain, where no node is asked.", readable=False)
]
Out = Annotated[str, typer.Option(metavar="FILE", help="Write the signed transaction here instead of handing it in.")]
PrintOnly = Annotated[bool, typer.Option("--print", help="Show what would be signed; sign and send nothing.")]
ValidMinutes = Annotated[
    int | None,
    typer.Option(
        min=1, max=VALID_MINUTES_MAX, help="A block may take it this long. [default: 10, with --out 1440, the most]"
    ),
]
Wait = Annotated[str, typer.Option(help="final | stored: until it is.")]
Timeout = Annotated[int, typer.Option(help="Seconds to wait.", min=1)]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


@dataclass(frozen=True, slots=True)
class Order:
    """What a command wants signed.

    Attributes:
        payload: itself, or what returns it once a node may be asked.
        effect: says, once it is final at a height, what changed and from when on.
    """

    kind: Kind
    payload: Payload | Callable[[Desk], Payload]
    effect: Callable[[Desk, str, int], list[str]]


@dataclass(frozen=True, slots=True)
class Common:
    """The options that all these commands have."""

    key: KeyFile
    node: Nodes = None
    token: Token = ""
    token_file: TokenFile = ""
    as_member: MemberName = ""
    genesis: GenesisFile = None
    out: Out = ""
    print_only: PrintOnly = False
    valid_minutes: ValidMinutes = None
    wait: Wait = "final"
    timeout: Timeout = 120
    as_json: Json = False


def signed(make: Callable[..., Order]) -> Callable[..., None]:
    """Return the command that signs what ``make`` returns and sees it through.

    make: takes the command's own arguments; its docstring is the command's help.
    """
    hints = get_type_hints(make, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(make).parameters.values()]
    common_hints = get_type_hints(Common, include_extras=True)
    common = [
        p.replace(annotation=common_hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for p in inspect.signature(Common).parameters.values()
    ]

    def command(**options: Any) -> None:
        chosen = Common(**{p.name: options.pop(p.name) for p in common})
        order = make(**options)
        see_through(open_desk(chosen), order, chosen)

    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    command.__doc__ = make.__doc__
    command.__name__ = make.__name__
    command.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [*own, *common]}
    return command


def make_clients(nodes: list[str] | None, token: str, token_file: str) -> list[Client]:
    """Return a client for each node. Raises ConfigError."""
    from node.cli.submit import read_token
    from node.client import DEFAULT_URL, Client

    text = read_token(token, token_file)
    return [Client(url, text) for url in nodes or [DEFAULT_URL]]


def open_desk(common: Common) -> Desk:
    """Return the desk of the options. Raises ConfigError."""
    from ledger.errors import ConfigError
    from ledger.genesis import GENESIS_BYTES_MAX, chain_id_of, genesis_from_json
    from node.cli.output import read_file
    from node.desk import Desk
    from node.keyfile import read_key

    if common.wait not in WAITS:
        raise ConfigError("not a promise", where="--wait", expected=" | ".join(WAITS), actual=common.wait)
    chain_id = None
    if common.genesis is not None:
        data = read_file(str(common.genesis), bytes_max=GENESIS_BYTES_MAX)
        chain_id = chain_id_of(genesis_from_json(data, where=str(common.genesis)))
        if common.out and not common.as_member:
            raise ConfigError("without a node the member must be named", where="--member", expected="--member NAME")
    clients = make_clients(common.node, common.token, common.token_file)
    # A key known to everybody governs nothing but chains that know it.
    return Desk(clients, read_key(common.key, is_dev=True), chain_id=chain_id, member_id=common.as_member or None)


def see_through(desk: Desk, order: Order, common: Common) -> None:
    """Sign, hand in and follow; or show, or write, what is signed. Raises LedgerError where it was refused or lost."""
    from ledger.codec import encode
    from node.cli.output import print_json, write_new

    payload = order.payload(desk) if callable(order.payload) else order.payload
    if common.print_only:
        show_payload(desk, order.kind, payload, as_json=common.as_json)
        return
    minutes = common.valid_minutes or (VALID_MINUTES_MAX if common.out else VALID_MINUTES)
    transaction = desk.sign(order.kind, payload, lifetime_ms=minutes * 60_000)
    if common.out:
        write_new(common.out, encode(transaction), force=False)
        tell_written(transaction, common)
        return
    result = hand_in(desk, transaction, common)
    if result["state"] == "final":
        result["effect"] = order.effect(desk, result["tx_id"], result["height"])
    if common.as_json:
        print_json(result)
    else:
        for line in result.get("effect", []):
            typer.echo(line)


def hand_in(desk: Desk, transaction: Transaction, common: Common) -> dict[str, Any]:
    """Hand a transaction in and follow it as far as asked; return how far it came."""
    from ledger.codec import encode
    from ledger.transaction import tx_id_of
    from node.cli.lines import utc
    from node.desk import not_final

    tx_id = tx_id_of(transaction.envelope).hex()
    client = desk.submit(encode(transaction))
    if not common.as_json:
        typer.echo(f"{transaction.envelope.kind.name.lower()} {tx_id} stored by {client.url}")
    if common.wait == "stored":
        return {"tx_id": tx_id, "state": "stored", "height": None}
    followed = desk.follow(client, transaction, timeout_s=common.timeout)
    if followed.state != "final":
        raise not_final(followed, tx_id, utc(transaction.envelope.expires_ms))
    if not common.as_json:
        typer.echo(f"final at height {followed.height}")
    # Whoever is asked about the effect has to have it.
    desk.clients = [client, *(other for other in desk.clients if other is not client)]
    return {"tx_id": tx_id, "state": followed.state, "height": followed.height}


def show_payload(desk: Desk, kind: Kind, payload: Payload, *, as_json: bool) -> None:
    """Show what would be signed."""
    from ledger.codec import encode
    from ledger.payloads import read_payload
    from ledger.readable import to_readable
    from node.cli.output import print_facts, print_json

    item = encode(payload)
    read_payload(kind, [item], desk.chain_id)
    document = {
        "kind": kind.name.lower(),
        "chain_id": desk.chain_id.hex(),
        "member_id": desk.member_id,
        "key_id": desk.key.key_id.hex(),
        "payload": to_readable(payload),
        "item": item.hex(),
    }
    if as_json:
        print_json(document)
        return
    print_facts({"": {name: value for name, value in document.items() if name not in {"payload", "item"}}})
    typer.echo("payload")
    print_json(document["payload"])


def tell_written(transaction: Transaction, common: Common) -> None:
    """Say where the signed transaction is, and until when it is good."""
    from ledger.transaction import tx_id_of
    from node.cli.lines import utc
    from node.cli.output import print_json

    envelope = transaction.envelope
    tx_id = tx_id_of(envelope).hex()
    if common.as_json:
        print_json({"tx_id": tx_id, "file": common.out, "expires_ms": envelope.expires_ms})
        return
    typer.echo(f"{common.out}: {envelope.kind.name.lower()} {tx_id}, good until {utc(envelope.expires_ms)}")
    typer.echo(f"Hand it in with: ledgerctl submit-transaction {common.out}")
