"""``ledgerctl keygen``, ``key`` and ``token``: the secrets that a member makes at home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

key_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Look at keys; change those of a member.")
token_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Tokens of the HTTP API.")


@key_app.callback()
def _keys() -> None:
    """Look at keys; change those of a member."""


@token_app.callback()
def _tokens() -> None:
    """Tokens of the HTTP API."""


def keygen(
    file: Annotated[Path, typer.Argument(help="Where to write it; never over an existing file.")],
    secret: Annotated[
        bool, typer.Option("--secret", help="A member secret (32 bytes in hex) instead of a key pair.")
    ] = False,
    log: Annotated[bool, typer.Option("--log", help="A log key (Ed25519) for --log-key of a node.")] = False,
    genesis: Annotated[
        Path | None, typer.Option(help="With --log: print what witnesses and monitors of this chain need.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Make a P-256 key pair, a member secret or a log key, in a file that only its owner can read.

    Beside a key FILE.pem the public key is written to FILE.pub, to be given to the other members.
    """
    from ledger.crypto import PrivateKey
    from node.cli.output import print_facts, print_json
    from node.keyfile import new_secret, write_key, write_private

    if secret:
        write_private(file, new_secret().hex().encode() + b"\n")
        facts = {"file": str(file)}
    elif log:
        facts = _new_log_key(file, genesis)
    else:
        from ledger.errors import ConfigError
        from node.cli.output import write_new

        key = PrivateKey.generate()
        public_file = file.with_suffix(".pub")
        if public_file == file:
            raise ConfigError("the ending .pub is for the public key", where=str(file), expected="as node.pem")
        if public_file.exists() and not file.exists():
            raise ConfigError("exists already", where=str(public_file), hint="Choose another name, or move it away")
        write_key(file, key)
        write_new(str(public_file), key.public_key.hex().encode() + b"\n", force=False)
        facts = {
            "file": str(file),
            "key_id": key.key_id.hex(),
            "public_key": key.public_key.hex(),
            "public_file": str(public_file),
        }
    if as_json:
        print_json(facts)
    else:
        print_facts({"": facts})


def _new_log_key(file: Path, genesis: Path | None) -> dict[str, str]:
    """Make a log key; return what there is to know of it."""
    from audit.lognote import origin_of
    from audit.notes import LogKey
    from ledger.genesis import chain_id_of
    from node.cli.checkpoints import read_genesis
    from node.keyfile import write_private

    origin = "" if genesis is None else origin_of(chain_id_of(read_genesis(genesis)))
    key = LogKey.generate()
    write_private(file, key.to_pem())
    facts = {"file": str(file), "public_key": key.public_key.hex()}
    return facts | ({"origin": origin, "verifier_key": key.note_key(origin).to_text()} if origin else {})


@key_app.command("show")
def show_key(
    file: Annotated[str, typer.Argument(help="A key file: PEM, or hex as in a .pub.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show the public key in a file, and its id."""
    from ledger.crypto import key_id_of
    from node.cli.output import print_facts, print_json
    from node.founding import parse_public_key

    public_key = parse_public_key(file, where=file)
    facts = {"key_id": key_id_of(public_key).hex(), "public_key": public_key.hex()}
    if as_json:
        print_json(facts)
    else:
        print_facts({"": facts})


@token_app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Who gets it, as kamailio-1.")],
    file: Annotated[Path, typer.Option(help="The node's tokens file; the token is added.")],
    role: Annotated[
        list[str] | None, typer.Option(help="submit, or private; may be repeated. [default: submit]")
    ] = None,
) -> None:
    """Make a token and print it, this once: the file keeps only its SHA-256. Restart the node to have it known."""
    import msgspec

    from ledger.errors import ConfigError
    from node.cli.output import print_line
    from node.keyfile import TOKEN_ROLES, new_token, read_tokens, write_private

    roles = list(dict.fromkeys(role or ["submit"]))
    for one in roles:
        if one not in TOKEN_ROLES:
            raise ConfigError("unknown role", where="--role", expected=" | ".join(TOKEN_ROLES), actual=one)
    tokens = read_tokens(file) if file.exists() else []
    if any(token.name == name for token in tokens):
        raise ConfigError("there is a token of this name", where=f"{file}: {name}", hint="Choose another name")
    text, token = new_token(name, roles)
    # Beside it first, then in its place: a crash leaves the old file or the new one.
    fresh = file.with_name(file.name + ".new")
    fresh.unlink(missing_ok=True)
    write_private(fresh, msgspec.json.format(msgspec.json.encode([*tokens, token]), indent=2) + b"\n")
    fresh.replace(file)
    print_line(text)
