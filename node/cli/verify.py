"""``ledger-verify``: audits a data directory, an exported file, a running node, or one receipt.

Exit status: 0 where everything holds, 1 where something does not, 2 where nothing could be said.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.errors import ConfigError, LedgerError, StoreDamaged

if TYPE_CHECKING:
    from audit.report import AuditReport, Progress
    from audit.source import ChainSource
    from audit.verify import KnownHead
    from ledger.genesis import Genesis

OK, NOT_OK, UNREADABLE = 0, 1, 2
LINE_EVERY_S = 5
"""How often progress is told where there is no terminal."""
CHECKPOINT_BYTES_MAX = 1 << 20

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def verify(
    target: Annotated[str, typer.Argument(help="Data directory, export file, http://HOST:PORT of a node, or receipt.")],
    genesis: Annotated[
        Path | None,
        typer.Option(
            "--genesis", metavar="FILE", readable=False, help="The genesis file you trust; else one beside the target."
        ),
    ] = None,
    head: Annotated[
        list[str] | None, typer.Option("--head", metavar="HEIGHT:ID", help="A block known to be in the chain.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint", metavar="FILE", readable=False, help="The --json file of an earlier audit: its last block."
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report here.")] = None,
) -> None:
    """Derive a chain, or one record, again from its raw bytes, and say whether everything holds.

    Works on a copy of a data directory, never on the evidence itself. A running node is audited over its API.
    """
    known = [parse_head(text) for text in head or []] + [read_checkpoint(path) for path in checkpoint or []]
    if is_receipt(target):
        if known:
            raise ConfigError("a receipt has no chain to look for a head in", where="--head")
        raise typer.Exit(verify_one_receipt(Path(target), genesis, json_file))
    with closing(open_source(target)) as source:
        trusted = load_genesis(source, target, genesis)
        report = run_audit(source, trusted, known)
    if json_file is not None:
        write_json(json_file, report.to_json())
    typer.echo(report.sentence())
    raise typer.Exit(OK if report.ok else NOT_OK)


def parse_head(text: str) -> KnownHead:
    """Return the block that ``HEIGHT:ID`` names. Raises ConfigError."""
    from audit.verify import KnownHead

    height, _, block_id = text.partition(":")
    try:
        raw = bytes.fromhex(block_id)
    except ValueError:
        raw = b""
    if not height.isascii() or not height.isdecimal() or len(height) > 19 or len(raw) != 32:
        raise ConfigError("not a block", where="--head", expected="HEIGHT:ID, the id as 64 hex digits", actual=text)
    return KnownHead(int(height), raw)


def read_checkpoint(path: Path) -> KnownHead:
    """Return the last block of an earlier report. Raises ConfigError."""
    import msgspec

    try:
        document = msgspec.json.decode(read_file(path, CHECKPOINT_BYTES_MAX))
        return parse_head(f"{document['height']}:{document['head_id']}")
    except (msgspec.DecodeError, LookupError, TypeError, ConfigError) as error:
        raise ConfigError(
            "not the report of an audit",
            where=str(path),
            expected='JSON with "height" and "head_id", as ledger-verify --json writes',
            actual=error,
        ) from None


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
    path = Path(target)
    if is_url(target) or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip().startswith(b"{")
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


def run_audit(source: ChainSource, genesis: Genesis, known: list[KnownHead]) -> AuditReport:
    """Audit a chain, telling how far it is."""
    from audit.report import AuditReport, Difference
    from audit.verify import verify_chain
    from ledger.codec import encode
    from ledger.genesis import chain_id_of

    carried = source.genesis()
    if carried is not None and carried != encode(genesis):
        report = AuditReport(source.name, chain_id_of(genesis))
        report.head_id = report.chain_id
        what = "the genesis carried is not the one given"
        report.first_difference = Difference(0, "genesis", what, f"chain {report.chain_id.hex()}", "another")
        return report
    with showing_progress() as show:
        return verify_chain(source, genesis, known=known, on_progress=show)


@contextmanager
def showing_progress() -> Iterator[Callable[[Progress], None]]:
    """Show progress on the terminal, or in plain lines where there is none."""
    begun = time.monotonic()

    def rate(progress: Progress) -> str:
        return f"{progress.records / max(time.monotonic() - begun, 0.001):,.0f} records/s"

    if not sys.stderr.isatty():
        told = begun

        def tell(progress: Progress) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= LINE_EVERY_S:
                told = now
                left_s = (now - begun) * (progress.final_height - progress.height) / progress.height
                say(f"height {progress.height:,} of {progress.final_height:,}, {rate(progress)}, {left_s:,.0f} s left")

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("auditing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def draw(progress: Progress) -> None:
            bar.update(task, completed=progress.height, total=progress.final_height, description=rate(progress))

        yield draw


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
        write_json(json_file, report)
    typer.echo(line)
    return OK if report["ok"] else NOT_OK


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a report. Raises ConfigError."""
    import msgspec

    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from None


def say(line: str) -> None:
    """Tell the person something that is not the verdict."""
    typer.echo(line, err=True)


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
