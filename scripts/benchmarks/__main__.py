"""The command: runs each part in a process of its own and shows what they measured."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.report import WIDTH_PIPED, Figure, print_table, write_json
from node.logs import set_up_logs

PARTS = {
    "ceilings": {"ceilings": 300},
    "one_node": {"one_node": 300},
    "four_nodes": {"four_nodes": 420},
    "consensus": {"finality": 900},
    "audit": {"audit_chain": 600, "reference": 240, "receipts": 240, "explorer": 600},
    "idle": {"idle": 240},
    "memory": {"memory": 600},
    "ingest": {"ingest": 600},
}
"""Name of each part -> its modules, and after how many seconds each is ended as hung."""
GRACE_S = 20
"""A part that is ended gets this long to end what it started."""


def main() -> int:
    """Run the parts asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="./scripts/bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS) + "; all without a name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat JSON object")
    parser.add_argument("--child", metavar="MODULE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return _run_here(arguments.child)
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if arguments.json and not arguments.json.absolute().parent.is_dir():
        parser.error(f"--json {arguments.json}: there is no such directory")
    # The ceilings go with everything: without them a figure says nothing about any other machine, or hour.
    wanted = [part for part in PARTS if not arguments.parts or part in {"ceilings", *arguments.parts}]
    signal.signal(signal.SIGTERM, _leave)
    figures: list[Figure] = []
    failed = False
    for module, limit_s in [limit for part in wanted for limit in PARTS[part].items()]:
        found = _run_child(module, limit_s)
        failed |= found is None
        figures += found or []
    print_table(figures, Console(width=None if sys.stdout.isatty() else WIDTH_PIPED))
    if arguments.json:
        write_json(figures, arguments.json)
    return 1 if failed else 0


def _run_child(module: str, limit_s: int) -> list[Figure] | None:
    """Return what a module measured, in a process of its own; None where it failed or hung."""
    print(f"{module} ...", file=sys.stderr)
    started = time.monotonic()
    command = [sys.executable, "-m", "benchmarks", "--child", module]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            output, _ = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            print(f"{module}: ended after {limit_s} s", file=sys.stderr)
            output = b""
        finally:
            _end(child)
    if child.returncode or not output:
        print(f"{module}: failed with status {child.returncode}", file=sys.stderr)
        return None
    print(f"{module}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return msgspec.json.decode(output, type=list[Figure])


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a part that still runs; it ends its own processes first."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _run_here(module: str) -> int:
    """Run a module in this process and write its figures to standard output."""
    signal.signal(signal.SIGTERM, _leave)
    # Whatever else is printed, by whomever, goes where people read.
    output = os.dup(1)
    os.dup2(2, 1)
    set_up_logs("error", "text")
    figures = import_module(f"benchmarks.{module}").run()
    with os.fdopen(output, "wb") as file:
        file.write(msgspec.json.encode(figures))
    return 0


def _leave(_number: int, _frame: object) -> None:
    """End by way of every ``finally``: nothing that was started stays."""
    raise SystemExit(143)


if __name__ == "__main__":
    raise SystemExit(main())
