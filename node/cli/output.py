"""What commands print: facts and rows as tables for people, JSON for machines, errors as four plain lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ledger.errors import LedgerError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

CELL_CHARACTERS_MAX: Final = 80
FACT_CHARACTERS_MAX: Final = 400
"""Longer values are for ``--json``."""
ID_HEX_DIGITS: Final = 64
ID_DIGITS_SHOWN: Final = 16
PIPED_COLUMNS: Final = 1_000
"""Wider than any table: what is piped is not wrapped."""


def print_table(table: Table) -> None:
    """Print a table: fitted to a terminal; plain, unwrapped and without spaces at the ends of lines when piped."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False).print(table)
        return
    console = Console(highlight=False, width=PIPED_COLUMNS, no_color=True)
    with console.capture() as capture:
        console.print(table)
    print_line("\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n")))


def print_json(value: Any) -> None:
    """Print a JSON document."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_line(text: str) -> None:
    """Print one line; it appears at once also when piped."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_facts(columns: dict[str, dict[str, Any]]) -> None:
    """Print facts under one another; several columns stand side by side, each under its title."""
    from rich.table import Table

    flat = {title: flatten(facts) for title, facts in columns.items()}
    if len(flat) > 1:
        # Ids in full, twice or more, are wider than any terminal; to compare them this much is enough.
        flat = {title: {name: _abridged(value) for name, value in facts.items()} for title, facts in flat.items()}
    names = list(dict.fromkeys(name for facts in flat.values() for name in facts))
    table = Table(box=None, show_header=len(columns) > 1, pad_edge=False)
    table.add_column("")
    for title in columns:
        table.add_column(title, overflow="fold")
    for name in names:
        # A sentence that stands alone is shown whole: its end may be what matters.
        limit = CELL_CHARACTERS_MAX if len(flat) > 1 else FACT_CHARACTERS_MAX
        table.add_row(name, *(shown(facts.get(name), limit) for facts in flat.values()))
    print_table(table)


def _abridged(value: Any) -> Any:
    """Return the beginning of an id in hex, anything else as it is."""
    is_id = isinstance(value, str) and len(value) == ID_HEX_DIGITS and not set(value) - set("0123456789abcdef")
    return f"{value[:ID_DIGITS_SHOWN]}..." if is_id else value


def print_rows(rows: Sequence[dict[str, Any]], *, empty: str) -> None:
    """Print one line for each row under a line of names; ``empty`` where there is none."""
    from rich.table import Table

    if not rows:
        print_line(empty)
        return
    flat = [flatten(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in flat:
        table.add_row(*(shown(row.get(name)) for name in names))
    print_table(table)


def flatten(facts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested objects as one level, their names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def shown(value: Any, characters_max: int = CELL_CHARACTERS_MAX) -> str:
    """Return one value as a cell: a dash for null, yes and no, the number of things in a list of objects."""
    from rich.markup import escape

    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        is_plain = all(isinstance(item, str | int) for item in value)
        text = ", ".join(map(str, value)) if is_plain else f"{len(value)} items"
    else:
        text = str(value)
    text = text if text.isprintable() else text.encode("unicode_escape").decode()
    return escape(text if len(text) <= characters_max else text[: characters_max - 3] + "...")


def print_error(error: LedgerError) -> None:
    """Print what happened, where, what was expected and what to do, on standard error."""
    lines = [f"error: {error.what}"]
    facts = {"where": error.where, "expected": error.expected, "found": error.actual, "hint": error.hint}
    lines += [f"  {name}: {value}" for name, value in facts.items() if value]
    sys.stderr.write("\n".join(lines) + "\n")


def read_file(path: str, *, bytes_max: int) -> bytes:
    """Return the bytes of a file, ``-`` for standard input. Raises ConfigError."""
    from pathlib import Path

    from ledger.errors import ConfigError

    try:
        with sys.stdin.buffer if path == "-" else Path(path).open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=path) from None
    if len(data) > bytes_max:
        raise ConfigError("too large", where=path, expected=f"at most {bytes_max} bytes")
    return data


def write_new(path: str, data: bytes, *, force: bool, is_private: bool = False) -> None:
    """Write a file that did not exist, or replace it with ``force``. Raises ConfigError.

    is_private: only its owner may read it.
    """
    import os

    from ledger.errors import ConfigError

    def opened(name: str, flags: int) -> int:
        handle = os.open(name, flags, 0o600 if is_private else 0o666)
        if is_private:
            # One that was there keeps its mode.
            os.fchmod(handle, 0o600)
        return handle

    try:
        with open(path, "wb" if force else "xb", opener=opened) as file:
            file.write(data)
    except FileExistsError:
        raise ConfigError("exists already", where=path, hint="Choose another name, or --force") from None
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=path) from None


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file at once; only its owner may read it from then on. Raises ConfigError."""
    import tempfile
    from pathlib import Path

    from ledger.errors import ConfigError

    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            beside = Path(file.name)
            file.write(data)
        try:
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from None
