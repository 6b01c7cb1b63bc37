"""Simulations from the command line: one seed told line by line, or many on all cores."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path

import msgspec

from ledger.genesis import PRODUCERS_MAX
from node.sim.cluster import Report, run_plan
from node.sim.governing import CORE
from node.sim.many import Outcome, run_many
from node.sim.mix import SHARES, Choice
from node.sim.plan import ALL_FAULTS, Fault, Plan
from node.sim.show import Ticker, tell, tell_coverage
from node.sim.shrink import Shrinker

SHRUNK_MAX = 2
"""Failing seeds that are cut down and told; of the others the number is enough."""
INTERRUPTED = 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ledgerd sim",
        description="Run a cluster on a virtual clock, network and disks, and check that no promise is broken.",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first schedule (default 0)")
    parser.add_argument("--schedules", type=int, default=1, help="how many seeds, one after the other (default 1)")
    parser.add_argument("--jobs", type=int, help="processes for many schedules (default: one for each core)")
    parser.add_argument("--nodes", type=int, help=f"seats, 1 to {PRODUCERS_MAX} (default: as the mix has it)")
    parser.add_argument("--more", type=int, help="members beyond the seats: with any, members govern and are elected")
    parser.add_argument("--slots", type=int, help="slots of faults before healing (default: as the mix has it)")
    parser.add_argument(
        "--faults",
        default="all",
        help="what may go wrong: all, none, or a list of " + ", ".join(fault.value for fault in Fault),
    )
    parser.add_argument(
        "--peers",
        choices=["mix", "simple", "real"],
        default="mix",
        help="how nodes spread messages: one by one in the simplest way, or with the gossip and sync of real nodes",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one JSON object")
    parser.add_argument("--no-shrink", action="store_true", help="tell failing seeds as they are")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the plan of the schedule told")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="run a plan that was saved instead of a seed's")
    return parser


def parse_faults(text: str) -> frozenset[Fault]:
    """Return the faults that ``text`` names. Raises ValueError for one that does not exist."""
    if text in {"all", "none"}:
        return ALL_FAULTS if text == "all" else frozenset()
    return frozenset(Fault(name.strip()) for name in text.split(","))


def _choice(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Choice:
    """Return what the options ask for; leave with a sentence where they make no sense."""
    try:
        faults = parse_faults(options.faults)
    except ValueError as error:
        parser.error(f"--faults: {error}")
    if options.nodes is not None and not 1 <= options.nodes <= PRODUCERS_MAX:
        parser.error(f"--nodes: 1 to {PRODUCERS_MAX}, not {options.nodes}")
    if options.more is not None and (options.more < 0 or (options.more and (options.nodes or CORE) < CORE)):
        parser.error(f"--more: 0 or more, and members govern only where there are {CORE} seats")
    if min(n for n in (options.schedules, options.slots, options.jobs) if n is not None) < 1:
        parser.error("--schedules, --slots and --jobs: 1 or more")
    return Choice(
        options.nodes, options.more, {"mix": None, "simple": False, "real": True}[options.peers], faults, options.slots
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for.

    Returns 0 where every invariant held, 1 where one did not, 2 for bad input, 130 when interrupted.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    choice = _choice(parser, options)
    try:
        if options.plan is not None:
            return _tell_one(run_plan(_read_plan(options.plan)), str(options.plan), options)
        if options.schedules == 1:
            return _tell_one(choice.run(options.seed), f"seed {options.seed}", options)
        return _run_all(choice, options)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except (OSError, msgspec.MsgspecError, BrokenProcessPool) as error:
        sys.stderr.write(f"ledgerd sim: {error}\n")
        return 2


def _read_plan(path: Path) -> Plan:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except OSError as error:
        raise OSError(f"{path}: cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise msgspec.DecodeError(f"{path}: not a plan that --save wrote: {error}") from None


def _tell_one(report: Report, name: str, options: argparse.Namespace) -> int:
    """Tell one run, in its shortest form where it breaks a promise."""
    if report.violation and not options.no_shrink:
        report, name = _shrink(report, name), f"{name}, cut down"
    tell(report, name)
    if options.save:
        options.save.write_bytes(msgspec.json.format(msgspec.json.encode(report.plan)) + b"\n")
    return 1 if report.violation else 0


def _shrink(report: Report, name: str) -> Report:
    """Return the shortest run found that breaks the same promise."""
    sys.stderr.write(f"{name}: {report.violation}; cutting it down\n")
    shrinker = Shrinker(report)
    best = shrinker.run()
    before, after = len(report.plan.events), len(best.plan.events)
    sys.stderr.write(f"{before} events cut down to {after} in {shrinker.runs} runs\n")
    return best


def _run_all(choice: Choice, options: argparse.Namespace) -> int:
    """Run many schedules and say what they came to."""
    seeds = range(options.seed, options.seed + options.schedules)
    jobs = options.jobs or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total, is_interrupted = Outcome(), False
    with Ticker(len(seeds)) as ticker:
        ticker.say(f"of {SHARES} schedules: {_shares(choice)}; {jobs} processes")
        try:
            with closing(run_many(choice, seeds, jobs)) as outcomes:
                for outcome in outcomes:
                    total.merge(outcome)
                    ticker.add(outcome.coverage.total)
                    for seed, violation in outcome.failures:
                        ticker.say(f"seed {seed} ({choice.shape_of(seed).name}): {violation}")
        except KeyboardInterrupt:
            is_interrupted = True
        seconds = ticker.seconds
    _sum_up(choice, total, seconds, options)
    if is_interrupted:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    return 1 if total.failures else 0


def _shares(choice: Choice) -> str:
    return ", ".join(f"{share} of {name}" for name, share in choice.shares().items())


def _sum_up(choice: Choice, total: Outcome, seconds: float, options: argparse.Namespace) -> None:
    """Write what was come through, the figures, and the failing seeds in their shortest form."""
    coverage, failures = total.coverage, sorted(total.failures)
    tell_coverage(coverage)
    out = sys.stdout
    out.write(f"{coverage.total} schedules in {seconds:.1f} s ({coverage.total / max(seconds, 0.001):.1f}/s), ")
    out.write(f"{len(failures)} violations\n")
    if options.json:
        figures = {
            "schedules": coverage.total,
            "violations": len(failures),
            "seconds": round(seconds, 3),
            "first_seed": options.seed,
            "failing_seeds": [seed for seed, _ in failures],
            "coverage": coverage.figures(),
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if not failures:
        return
    out.write("failing seeds: " + ", ".join(str(seed) for seed, _ in failures) + "\n")
    for seed, _ in failures[: 0 if options.no_shrink else SHRUNK_MAX]:
        out.flush()
        tell(_shrink(choice.run(seed), f"seed {seed}"), f"seed {seed}, cut down")


if __name__ == "__main__":
    sys.exit(main())
