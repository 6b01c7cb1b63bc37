"""Two verifiers that share no code, held against each other on mutants of good chains: verdict and place.

``./scripts/differential --count 20000 --seed 1``. Each mutant follows from its seed alone (``mutations.mutant``), so a
disagreement is shown again by ``--seed N --count 1 --keep FILE``.

Pure Python takes milliseconds for a signature, and most of a mutant is what its chain was before: see ``remembering``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from audit import ahead as audit_ahead
from audit import reference
from audit.receipt import verify_receipt
from audit.verify import verify_chain
from ledger.crypto import PrivateKey
from ledger.errors import InvalidProof
from ledger.genesis import Genesis, genesis_to_json
from ledger.validation import Rules
from tests.audit import agreement
from tests.audit.agreement import Place, audited, referred
from tests.audit.mutations import mutant
from tests.audit.receipt_mutations import receipt_mutant
from tests.audit.test_jobs import Inline

EACH = 16
"""Of the signatures made here, one of so many is looked at all the same."""
MADE_MAX = 500_000
AHEAD_EACH = 5
"""One mutant of so many is audited a second time, as with ``--jobs 2``."""
CHUNK = 50
"""Mutants that a process is given at once."""


Outcome = tuple[str, int, str]
"""Verdict, height and place, of a good chain the sentence on what is in it; ``crash`` with the error."""


@dataclass
class Tally:
    """What many mutants came to.

    Attributes:
        verdicts: how often, by kind and verdict.
        places: how often, by field without indexes.
        disagreements: seed, kind, and both outcomes.
    """

    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    disagreements: list[tuple[int, str, Outcome, Outcome]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in what others came to."""
        self.verdicts += other.verdicts
        self.places += other.places
        self.disagreements += other.disagreements


def outcome(verify: Callable[..., tuple[Place, str]], *given: Any) -> Outcome:
    """Return what a verifier says; of what is good all of it."""
    try:
        (verdict, height, where), sentence = verify(*given)
    except Exception as error:  # no verifier may fail on anything, not even both in one way
        return "crash", 0, f"{type(error).__name__}: {error}"
    return verdict, height, sentence if verdict == "ok" else where


@contextmanager
def remembering() -> Iterator[None]:
    """Spare the reference what it has done before: the proof of a rule set, and looking at a signature it has seen.

    A signature that was made here, with the key that it is held against, is not looked at but once in ``EACH``.
    """
    look, rules_of, sign = lru_cache(maxsize=50_000)(reference.is_signed), reference.rules_of, PrivateKey.sign
    rules: dict[bytes, Any] = {}
    made: set[tuple[bytes, bytes, bytes]] = set()

    def signing(key: PrivateKey, digest: bytes) -> bytes:
        signature = sign(key, digest)
        if len(made) < MADE_MAX and digest[0] % EACH:
            made.add((key.public_key, digest, signature))
        return signature

    def is_signed(public_key: bytes, digest: bytes, signature: bytes) -> bool:
        return (public_key, digest, signature) in made or look(public_key, digest, signature)

    def remembered(genesis: Any) -> Any:
        key = reference.encode(genesis)
        if key not in rules:
            rules[key] = rules_of(genesis)
        return rules[key]

    with ExitStack() as patches:
        for name, module in sys.modules.items():
            if name.startswith("audit.reference") and hasattr(module, "is_signed"):
                patches.enter_context(patch.object(module, "is_signed", is_signed))
        patches.enter_context(patch.object(reference, "rules_of", remembered))
        patches.enter_context(patch.object(PrivateKey, "sign", signing))
        yield


def judge(seeds: Sequence[int]) -> Tally:
    """Return what both say of the mutants of some seeds."""
    tally = Tally()
    for seed in seeds:
        kind, world, data = mutant(seed)
        mine, other = outcome(audited, data, world.genesis, world.rules), outcome(referred, data, world.genesis)
        tally.verdicts[kind, mine[0]] += 1
        if mine[0] == "not ok":
            tally.places[_without_indexes(mine[2])] += 1
        if mine != other or mine[0] == "crash":
            tally.disagreements.append((seed, kind, mine, other))
        if seed % AHEAD_EACH == 0:
            ahead = outcome(audited_ahead, data, world.genesis, world.rules)
            if ahead != mine:
                tally.disagreements.append((seed, f"{kind}, audited by workers", mine, ahead))
    return tally


def audited_ahead(data: bytes, genesis: Genesis, rules: Rules) -> tuple[Place, str]:
    """Return what the audit says where workers look at blocks before it; here without processes."""
    with (
        patch("audit.verify.Workers", Inline),
        patch.object(audit_ahead, "BATCH_PIECES", 5),
        patch.object(agreement, "verify_chain", partial(verify_chain, jobs=2)),
    ):
        return audited(data, genesis, rules)


def judge_receipts(seeds: Sequence[int]) -> Tally:
    """Return what both say of the mutants of receipts of some seeds."""
    tally = Tally()
    for seed in seeds:
        kind, genesis, genesis_json, data = receipt_mutant(seed)
        mine = outcome(audited_receipt, data, genesis)
        other = outcome(referred_receipt, data, genesis_json)
        kind = f"receipt: {kind}"
        tally.verdicts[kind, mine[0]] += 1
        if mine[0] == "not ok":
            tally.places[f"receipt: {mine[2]}"] += 1
        if mine != other or mine[0] == "crash":
            tally.disagreements.append((seed, kind, mine, other))
    return tally


def audited_receipt(data: bytes, genesis: Genesis) -> tuple[Place, str]:
    """Return what ``ledger-verify`` says of a receipt."""
    try:
        verdict = verify_receipt(data, genesis)
    except InvalidProof as error:
        return ("not ok", 0, error.where), ""
    return ("ok", verdict.height, ""), verdict.sentence()


def referred_receipt(data: bytes, genesis_json: bytes) -> tuple[Place, str]:
    """Return what the reference says of a receipt."""
    verdict = reference.verify_receipt(data, genesis_json)
    return ("ok" if verdict.ok else "not ok", verdict.height, verdict.where), verdict.sentence


def _without_indexes(where: str) -> str:
    return "".join(char for char in where if not char.isdigit())


_APART = ExitStack()


def _begin_apart() -> None:
    """Begin a process of its own: what it remembers, it remembers to its end. Ctrl-C is for the one who began it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _APART.enter_context(remembering())


# -- the command -------------------------------------------------------------------------------------------------------


def arguments_of(given: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="./scripts/differential", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2_000, metavar="N", help="mutants (default 2000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the first mutant, the next one's is N + 1")
    parser.add_argument("--receipts", type=int, metavar="N", help="mutants of receipts (default a quarter of --count)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default 2)")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the first mutant and its genesis.json here")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Run mutants through both verifiers; return 0 where they agree on every one, 1 where not, 130 when interrupted."""
    options = arguments_of(given)
    if options.keep is not None:
        _, world, data = mutant(options.seed)
        options.keep.write_bytes(data)
        options.keep.with_suffix(".genesis.json").write_bytes(genesis_to_json(world.genesis))
    receipts = options.count // 4 if options.receipts is None else options.receipts
    work = [(judge, seeds) for seeds in _chunks(options.seed, options.count)]
    work += [(judge_receipts, seeds) for seeds in _chunks(options.seed, receipts)]
    begun, tally, told, status = time.monotonic(), Tally(), 0, 0
    pool = ProcessPoolExecutor(max(options.jobs, 1), initializer=_begin_apart)
    try:
        for part in pool.map(_judge_chunk, work):
            tally.add(part)
            done = tally.verdicts.total()
            if done // 1_000 > told:
                told = done // 1_000
                sys.stderr.write(
                    f"{done:,} of {options.count + receipts:,}, {len(tally.disagreements)} disagreements\n"
                )
    except KeyboardInterrupt:
        status = 130
    finally:
        pool.shutdown(cancel_futures=True)
    show(tally, time.monotonic() - begun)
    return 1 if tally.disagreements else status


def _chunks(first: int, count: int) -> list[range]:
    return [range(at, min(at + CHUNK, first + count)) for at in range(first, first + count, CHUNK)]


def _judge_chunk(work: tuple[Callable[[Sequence[int]], Tally], Sequence[int]]) -> Tally:
    return work[0](work[1])


def show(tally: Tally, seconds: float) -> None:
    """Print what many mutants came to."""
    verdicts = ("ok", "not ok", "damaged", "unusable", "crash")
    lines = [f"{'mutation':32}" + "".join(f"{verdict:>9}" for verdict in verdicts)]
    for kind in sorted({kind for kind, _verdict in tally.verdicts}):
        counts = [tally.verdicts[kind, verdict] for verdict in verdicts]
        lines += [f"{kind:32}" + "".join(f"{count:>9,}" for count in counts)]
    count = tally.verdicts.total()
    lines += [
        f"seed {seed}, {kind}:\n  audit     {mine}\n  reference {other}"
        for seed, kind, mine, other in tally.disagreements
    ]
    lines.append(
        f"{count:,} mutants in {seconds:,.0f} s, {count / seconds:,.1f} a second; {len(tally.places)} fields named, "
        f"{len(tally.disagreements)} disagreements"
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
