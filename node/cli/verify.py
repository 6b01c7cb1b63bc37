"""``ledger-verify``: audits a data directory, an exported file, a running node, or one receipt.

Exit status: 0 where everything holds, 1 where something does not, 2 where nothing could be said.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec

import typer

from ledger.errors import ConfigError, LedgerError, StoreDamaged, Unfinished
from node.cli.verify_audit import run_audit, say

if TYPE_CHECKING:
    from audit.source import ChainSource
    from ledger.genesis import Genesis

OK, NOT_OK, UNREADABLE = 0, 1, 2
NOTE_BYTES_MAX = 1 << 20

P = ParamSpec("P")

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


GenesisFile = Annotated[
    Path | None,
    typer.Option(
        "--genesis", metavar="FILE", readable=False, help="The genesis file you trust; else one beside the target."
    ),
]
Since = Annotated[
    list[str] | None,
    typer.Option(
        "--since",
        metavar="SEEN",
        help="What was seen earlier must be in the chain: HEIGHT:ID, or a file: checkpoint, report, receipt, note. "
        "A node is then asked for proofs, not for its blocks.",
    ),
]
SaveCheckpoint = Annotated[
    Path | None,
    typer.Option("--save-checkpoint", metavar="FILE", readable=False, help="Keep what the next --since needs."),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        metavar="N",
        min=1,
        max=256,
        help="Processes that check; else one for each core where the chain is long enough.",
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume", metavar="FILE", readable=False, help="Keep here how far the audit came, and go on from there."
    ),
]


def interruptible(command: Callable[P, None]) -> Callable[P, None]:
    """Return a command that says in a sentence that it was interrupted; a status of 1 would be a verdict."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise Unfinished("interrupted") from None

    return run


@app.command()
@interruptible
def verify(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET", help="Data directory, export file, http://HOST:PORT of a node, receipt, or note."
        ),
    ],
    genesis: GenesisFile = None,
    since: Since = None,
    full: Annotated[
        bool, typer.Option("--full", help="With --since and a node: audit its blocks all the same.")
    ] = False,
    save_checkpoint: SaveCheckpoint = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Say whether nodes have one history, where they part, who signed both.")
    ] = False,
    keys: Annotated[
        list[str] | None, typer.Option("--key", metavar="VKEY", help="A log or witness that must have signed the note.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report here.")] = None,
    jobs: Jobs = None,
    resume: Resume = None,
    reference: Annotated[bool, typer.Option("--reference", help="By the second implementation, slowly.")] = False,
) -> None:
    """Derive a chain, or one record, again from its raw bytes, and say whether everything holds.

    Nothing in a data directory is changed: evidence stays as it is. A running node is audited over its API.
    """
    if compare:
        from node.cli.verify_light import compare_urls

        refuse(
            "--compare begins at genesis",
            {"--since": since, "--key": keys, "--save-checkpoint": save_checkpoint, "--resume": resume},
        )
        tell(*compare_urls(targets, genesis), json_file)
    if len(targets) != 1:
        raise ConfigError("one target at a time", where="TARGET", hint="--compare holds several nodes side by side")
    target = targets[0]
    seen = since or []
    if reference:
        refuse("the second implementation keeps nothing to go on from", {"--resume": resume})
        from node.cli.verify_reference import refer

        tell(*refer(target, genesis, seen, save_checkpoint), json_file)
    if is_receipt(target):
        refuse(
            "a receipt has no chain",
            {"--since": since, "--key": keys, "--save-checkpoint": save_checkpoint, "--resume": resume},
        )
        raise typer.Exit(verify_one_receipt(Path(target), genesis, json_file))
    if is_note(target):
        from node.cli.verify_light import verify_note

        refuse("a note has no chain", {"--save-checkpoint": save_checkpoint, "--resume": resume})
        data = read_file(Path(target), NOTE_BYTES_MAX)
        trusted = load_genesis(None, target, genesis)
        tell(*verify_note(data, trusted, name=target, keys=keys or [], since=seen), json_file)
    refuse("a chain is signed by no log", {"--key": keys})
    if is_url(target) and seen and not full:
        from node.cli.verify_light import verify_since

        refuse("proofs are asked for, not blocks; --full audits them", {"--resume": resume})

        tell(*verify_since(target, genesis, seen, save_checkpoint), json_file)
    audit(target, genesis, seen, save_checkpoint, json_file, jobs, resume)


def audit(
    target: str,
    genesis: Path | None,
    seen: list[str],
    save: Path | None,
    json_file: Path | None,
    jobs: int | None,
    resume: Path | None,
) -> None:
    """Audit a whole chain, say what it comes to and end."""
    from audit.light import LightCheckpoint
    from audit.verify import KnownHead
    from node.cli.checkpoints import read_seen, write_checkpoint

    with closing(open_source(target)) as source:
        trusted = load_genesis(source, target, genesis)
        known = [KnownHead(one.height, one.block_id, one.history_root) for one in read_seen(seen, trusted)]
        report = run_audit(source, trusted, known, jobs=jobs, resume=resume)
    # Before anything that can fail: it may have taken hours.
    typer.echo(report.sentence())
    if json_file is not None:
        write_json(json_file, report.to_json())
    if report.ok and report.final is not None:
        write_checkpoint(save, LightCheckpoint(1, report.chain_id, report.final))
    raise typer.Exit(OK if report.ok else NOT_OK)


def refuse(why: str, options: dict[str, object]) -> None:
    """Raise ConfigError where one of some options was given that mean nothing here."""
    for name, value in options.items():
        if value:
            raise ConfigError(f"{why}: this option means nothing here", where=name)


def tell(status: int, line: str, report: dict[str, Any], json_file: Path | None) -> NoReturn:
    """Write the report, say the verdict and end."""
    if json_file is not None:
        write_json(json_file, report)
    if status == UNREADABLE:
        say(line)
    else:
        typer.echo(line)
    raise typer.Exit(status)


def read_file(path: Path, size_max: int) -> bytes:
    """Return a small file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(size_max + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(data) > size_max:
        raise ConfigError("too large", where=str(path), expected=f"at most {size_max} bytes")
    return data


def is_url(target: str) -> bool:
    """Tell whether the target is the address of a node."""
    return target.lower().startswith(("http://", "https://"))


def is_receipt(target: str) -> bool:
    """Tell whether the target is a file whose content begins as JSON does."""
    return _begin(target).lstrip().startswith(b"{")


def is_note(target: str) -> bool:
    """Tell whether the target is a file whose content begins with the name of a chain's log."""
    return _begin(target).startswith(b"ledgerd/")


def _begin(target: str) -> bytes:
    """Return the first bytes of a file, none where it is no file. Raises ConfigError."""
    path = Path(target)
    if is_url(target) or not path.is_file():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=target) from None


def open_source(target: str) -> ChainSource:
    """Return the chain to audit. Raises ConfigError or StoreError."""
    from audit.export import MAGIC
    from audit.source import DirectorySource, ExportSource, NodeSource

    if is_url(target):
        return NodeSource(target)
    path = Path(target)
    if path.is_dir():
        return DirectorySource(path)
    try:
        file = path.open("rb")
        is_export = file.peek(len(MAGIC)).startswith(MAGIC[:8])
    except OSError as error:
        hint = "The address of a node begins with http:// or https://" if ":" in target else ""
        raise ConfigError(f"cannot be read: {error.strerror}", where=target, hint=hint) from None
    if not is_export:
        file.close()
        raise ConfigError(
            "nothing that can be audited",
            where=target,
            expected="a data directory, an export, the address of a node, or a receipt",
        )
    return ExportSource(file, name=target)


def load_genesis(source: ChainSource | None, target: str, given: Path | None) -> Genesis:
    """Return the genesis to hold the target against: the one given, else carried along, else lying beside it."""
    from ledger.codec import decode
    from ledger.genesis import Genesis, chain_id_of, check_genesis

    path = given or next((p for p in genesis_places(target) if p.is_file()), None)
    carried = source.genesis() if source is not None else None
    if given is None and carried is not None:
        try:
            genesis = decode(carried, Genesis)
            check_genesis(genesis)
        except LedgerError as error:
            raise StoreDamaged(f"the genesis it carries cannot be used: {error}", where=target) from None
        say(f"genesis: carried by {target}; chain {chain_id_of(genesis).hex()}")
        say("  compare the chain id with one that you trust, or give --genesis FILE")
        return genesis
    if path is None:
        raise ConfigError(
            "no genesis file", where="--genesis", expected="the chain's genesis.json", hint="Give --genesis FILE"
        )
    genesis = read_genesis(path)
    say(f"genesis: {path}; chain {chain_id_of(genesis).hex()}")
    return genesis


def genesis_places(target: str) -> list[Path]:
    """Return where a genesis file may lie that belongs to the target."""
    if is_url(target):
        return []
    path = Path(target)
    inside = [path, path / "dev"] if path.is_dir() else []
    return [folder / "genesis.json" for folder in (*inside, path.absolute().parent, Path())]


def read_genesis(path: Path) -> Genesis:
    """Return the genesis in a file. Raises ConfigError."""
    from ledger.genesis import GENESIS_BYTES_MAX, genesis_from_json

    return genesis_from_json(read_file(path, GENESIS_BYTES_MAX), where=str(path))


def verify_one_receipt(path: Path, genesis: Path | None, json_file: Path | None) -> int:
    """Verify a receipt and say what it proves; return the exit status."""
    from audit.receipt import verify_receipt
    from audit.receipt_file import RECEIPT_BYTES_MAX
    from audit.revealed import shown_text
    from ledger.errors import InvalidProof

    data = read_file(path, RECEIPT_BYTES_MAX)
    trusted = load_genesis(None, str(path), genesis)
    try:
        verdict = verify_receipt(data, trusted)
    except InvalidProof as error:
        report: dict[str, Any] = {"ok": False, "field": error.where, "what": error.what}
        report |= {"expected": error.expected, "actual": error.actual}
        line = f"NOT OK: receipt, field {error.sentence()}"
    else:
        report = {"ok": True, **verdict.to_json()}
        line = verdict.sentence()
        for field in verdict.revealed:
            line += f"\n  {field.name} is what the record was made with: {shown_text(field)}"
    if json_file is not None:
        write_json(json_file, report, is_private=bool(report.get("revealed")))
    typer.echo(line)
    return OK if report["ok"] else NOT_OK


def write_json(path: Path, document: dict[str, Any], *, is_private: bool = False) -> None:
    """Write a report. Raises ConfigError.

    is_private: only its owner may read it.
    """
    import msgspec

    from node.cli.output import write_new

    data = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    write_new(str(path), data, force=True, is_private=is_private)


def main() -> None:
    """Run the command; whatever happens is said in one line."""
    try:
        app(prog_name="ledger-verify")
    except StoreDamaged as error:
        typer.echo(f"NOT OK: damaged: {error}")
        sys.exit(NOT_OK)
    except LedgerError as error:
        say(f"ledger-verify: {error}")
        sys.exit(UNREADABLE)
    except OSError as error:
        say(f"ledger-verify: {error.filename or 'the system refuses'}: {error.strerror or error}")
        sys.exit(UNREADABLE)
    except Exception as error:  # noqa: BLE001 - a traceback is no answer; this line is what to report
        say(f"ledger-verify: an error of the program itself, please report it: {type(error).__name__}: {error}")
        sys.exit(UNREADABLE)


if __name__ == "__main__":
    main()
