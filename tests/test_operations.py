"""docs/operations.md tells the truth: every option, with its flag, variable and default; every command and error."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main

from node.cli.ledgerctl import app as ledgerctl
from node.cli.ledgerd import app as ledgerd
from node.config import ENVIRONMENT_PREFIX, OPTIONS, TABLES, NodeConfig
from node.founding import DEFAULT_PARAMETERS
from node.keyfile import TOKEN_ROLES

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "operations.md").read_text()
OPTION_ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in TEXT.split("\n## Options\n")[1].split("\n## ")[0].splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 5 and cells[0].startswith("`")
}


def test_every_option_has_its_row_and_no_other() -> None:
    assert list(OPTION_ROWS) == list(OPTIONS)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in TABLES])
def test_an_options_flag_and_variable_are_named(name: str) -> None:
    flag, variable, _, meaning = OPTION_ROWS[name]
    assert flag == f"`--{name.replace('_', '-')}`"
    assert variable == f"`{ENVIRONMENT_PREFIX}{name.upper()}`"
    assert meaning


def test_the_defaults_are_those_of_the_program() -> None:
    defaults = {field.name: field.default for field in fields(NodeConfig)}
    for name in ("data", "listen", "api", "log_level", "log_format"):
        assert OPTION_ROWS[name][2] == f"`{defaults[name]}`"
    for name in ("allow_plaintext", "dev"):
        assert OPTION_ROWS[name][2] == str(defaults[name]).lower()
    for name in ("genesis", "key", "peers", "submit_key", "member_secret", "tokens", "hosts"):
        assert (OPTION_ROWS[name][2], not defaults[name]) == ("none", True)


def test_every_option_is_a_flag_of_ledgerd() -> None:
    command = typer.main.get_command(ledgerd)
    flags = {option for parameter in command.params for option in parameter.opts}
    assert {f"--{name.replace('_', '-')}" for name in OPTIONS if name not in TABLES} - flags == set()


def test_the_parameters_of_a_chain_are_explained_with_their_defaults() -> None:
    command = typer.main.get_command(ledgerctl).commands["genesis"].commands["new"]  # type: ignore[attr-defined]
    rows = dict(re.findall(r"^\| (`--.+?) \| (.+?) \|", TEXT, flags=re.MULTILINE))
    documented = {
        flag: default
        for flags, defaults in rows.items()
        for flag, default in zip(re.findall(r"`(--[\w-]+)`", flags), defaults.split(", "), strict=True)
    }
    actual = {
        option: str(parameter.default)
        for parameter in command.params
        for option in parameter.opts
        if option in documented
    }
    assert actual == documented
    assert int(documented["--slot-ms"]) == DEFAULT_PARAMETERS.slot_ms
    assert int(documented["--block-records"]) == DEFAULT_PARAMETERS.block_records_max


def test_commands_in_the_guide_exist() -> None:
    group = typer.main.get_command(ledgerctl)
    commands = set(group.commands)  # type: ignore[attr-defined]
    mentioned = set(re.findall(r"ledgerctl ([a-z]+)", TEXT))
    assert mentioned - commands == set()
    assert {"keygen", "genesis", "network", "token", "status"} <= mentioned


def commands_of(text: str) -> list[list[str]]:
    """Return the ledgerctl commands in the code of a document, words as a shell splits them."""
    code = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip().startswith("ledgerctl ")]


def test_commands_in_the_guide_are_spelt_as_the_program_wants_them() -> None:
    """Every option and argument of every ledgerctl line is one that the command takes; nothing is run."""
    found = commands_of(TEXT)
    assert len(found) > 25
    for words in found:
        command: Any = typer.main.get_command(ledgerctl)
        context = command.make_context("ledgerctl", ["status"])
        name, rest = "", [word for word in words[1:] if word not in {"&", "..."}]
        while hasattr(command, "commands"):
            assert rest[0] in command.commands, words
            name, command, rest = rest[0], command.commands[rest[0]], rest[1:]
        command.make_context(name, rest, parent=context)


def test_errors_in_the_table_are_words_of_the_program() -> None:
    sources = "".join(path.read_text() for package in ("ledger", "node") for path in (ROOT / package).rglob("*.py"))
    table = TEXT.split("\n## Errors\n")[1].split("\n## ")[0]
    errors = re.findall(r"^\| (\w[^|]+?) \|", table, flags=re.MULTILINE)[1:]
    assert len(errors) > 8
    summaries = {"process N has this data directory open", "the rules, a table or vectors differ"}
    assert [error for error in errors if error not in sources and error not in summaries] == []


def test_log_events_in_the_table_are_words_of_the_program() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "node").rglob("*.py"))
    table = TEXT.split("\n## Logs\n")[1]
    cells = re.findall(r"^\| `(\w+)` \| (.+?) \|", table, flags=re.MULTILINE)
    assert cells
    events = [event for _, names in cells for event in re.findall(r"`([^`]+)`", names)]
    assert [event for event in events if f'"{event}"' not in sources] == []


def test_roles_of_tokens_are_named() -> None:
    assert [role for role in TOKEN_ROLES if f"`{role}`" not in TEXT] == []
