"""``ledgerctl doctor``: an honest examination of nodes and agents, each finding with what to do.

Source: docs/operations.md, "Paged at night".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from node.doctor.findings import Finding

TIMEOUT_S = 5.0
CHECK_COLUMNS = 11


def doctor(
    urls: Annotated[list[str], typer.Argument(help="APIs of nodes, and agents: the more, the more is seen.")],
    genesis: Annotated[Path | None, typer.Option(help="The genesis file you trust: proves what is final.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=600.0, help="Seconds for one answer.")] = TIMEOUT_S,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only what is not well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Look at nodes and agents as they are now: what is wrong, and what to do about it.

    Changes nothing, and needs no token. The status is 0 where all is well, 1 where something is BAD, 3 where there are
    warnings only.
    """
    from dataclasses import asdict

    from node.cli.checkpoints import read_genesis
    from node.cli.output import print_json, print_line
    from node.doctor.examine import examine
    from node.doctor.findings import EXIT_STATUS, Level, worst
    from node.doctor.gathering import gather

    trusted = read_genesis(genesis) if genesis is not None else None
    findings = examine(gather(urls, genesis=trusted, timeout_s=timeout))
    level = worst(findings)
    told = [finding for finding in findings if not quiet or finding.level is not Level.OK]
    if as_json:
        print_json({"level": level.value, "findings": [{**asdict(each), "level": each.level.value} for each in told]})
    else:
        for finding in told:
            print_line(line_of(finding))
        print_line(summary_of(findings, is_proven=trusted is not None))
    raise typer.Exit(EXIT_STATUS[level])


def line_of(finding: Finding) -> str:
    """Return a finding as a person reads it: one line, and one more with what to do."""
    line = f"{finding.level.name:<5} {finding.check:<{CHECK_COLUMNS}} {plain(finding.about)}: {plain(finding.what)}"
    return f"{line}\n{'':<6}-> {plain(finding.todo)}" if finding.todo else line


def plain(text: str) -> str:
    """Return a text without what could steer a terminal: what nodes say may be anything."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def summary_of(findings: Sequence[Finding], *, is_proven: bool) -> str:
    """Return how many there are of each, and what was taken on trust."""
    from node.doctor.findings import Level

    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    warnings = "1 warning" if counts[Level.WARN] == 1 else f"{counts[Level.WARN]} warnings"
    text = f"{counts[Level.BAD]} bad, {warnings}, {counts[Level.OK]} well"
    return text if is_proven else f"{text}; nothing was proven: --genesis FILE does"
