"""Simulations from the command line: one seed told line by line, or many in a row."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ledger.genesis import PRODUCERS_MAX
from node.sim.cluster import ALL_FAULTS, Fault, Report, Simulation

SLOTS = 40


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ledgerd sim",
        description="Run a cluster on a virtual clock, network and disks, and check that no promise is broken.",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first schedule (default 0)")
    parser.add_argument("--schedules", type=int, default=1, help="how many seeds, one after the other (default 1)")
    parser.add_argument("--nodes", type=int, default=4, help=f"producers, 1 to {PRODUCERS_MAX} (default 4)")
    parser.add_argument("--slots", type=int, default=SLOTS, help=f"slots of faults before healing (default {SLOTS})")
    parser.add_argument(
        "--faults",
        default="all",
        help="what may go wrong: all, none, or a list of " + ", ".join(fault.value for fault in Fault),
    )
    parser.add_argument(
        "--simple-peers",
        action="store_true",
        help="spread messages in the simplest way instead of with gossip and sync: faster, and duplicates too",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one JSON object")
    return parser


def parse_faults(text: str) -> frozenset[Fault]:
    """Return the faults that ``text`` names. Raises ValueError for one that does not exist."""
    if text in {"all", "none"}:
        return ALL_FAULTS if text == "all" else frozenset()
    return frozenset(Fault(name.strip()) for name in text.split(","))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 0 where every invariant held, 1 where one did not, 2 for bad input."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        faults = parse_faults(options.faults)
    except ValueError as error:
        parser.error(f"--faults: {error}")
    if not 1 <= options.nodes <= PRODUCERS_MAX:
        parser.error(f"--nodes: 1 to {PRODUCERS_MAX}, not {options.nodes}")
    if options.schedules < 1 or options.slots < 1:
        parser.error("--schedules and --slots: 1 or more")
    began = time.monotonic()
    failed: list[Report] = []
    for done in range(options.schedules):
        simulation = Simulation(options.seed + done, options.nodes, faults, peering=not options.simple_peers)
        report = simulation.run(options.slots)
        if options.schedules == 1 or report.violation:
            _tell(report)
        if report.violation:
            failed.append(report)
        if options.schedules > 1 and sys.stderr.isatty():
            sys.stderr.write(f"\r{done + 1}/{options.schedules} schedules, {len(failed)} violations")
    seconds = time.monotonic() - began
    _summarise(options.schedules, failed, seconds)
    if options.json:
        figures = {"schedules": options.schedules, "violations": len(failed), "seconds": round(seconds, 3)}
        options.json.write_text(json.dumps(figures) + "\n")
    return 1 if failed else 0


def _tell(report: Report) -> None:
    """Write a run's transcript and what it came to."""
    out = sys.stdout
    out.write("slot.ms   who  what\n")
    out.writelines(f"{line}\n" for line in report.lines)
    out.write(
        f"seed {report.seed}: final height {report.final_height}, {report.transactions} transactions, "
        f"{report.crashes} crashes, all well {report.settle_slots} slots after healing\n"
        f"transcript {report.digest}\n"
    )
    out.write(f"VIOLATION: {report.violation}\n" if report.violation else "every invariant held\n")


def _summarise(schedules: int, failed: list[Report], seconds: float) -> None:
    if schedules > 1:
        rate = schedules / max(seconds, 0.001)
        sys.stdout.write(f"{schedules} schedules in {seconds:.1f} s ({rate:.1f}/s), {len(failed)} violations\n")
    if failed:
        sys.stdout.write("failing seeds: " + ", ".join(str(report.seed) for report in failed) + "\n")


if __name__ == "__main__":
    sys.exit(main())
