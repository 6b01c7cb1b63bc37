"""The command line: one seed told, many counted, figures written, failures cut down."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from consensus.votes import VoteGuard
from node.sim import many, shrink
from node.sim.many import run_many, run_seeds
from node.sim.mix import Choice
from node.sim.run import main


def test_one_seed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3"]) == 0
    first = capsys.readouterr().out
    assert main(["--seed", "3"]) == 0
    assert capsys.readouterr().out == first
    lines = first.splitlines()
    assert lines[0] == "slot.ms   who  what"
    assert lines[-1] == "every invariant held"
    assert sum(" votes " in line for line in lines) > 10


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_many_are_counted(jobs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    assert main(["--schedules", "24", "--seed", "7", "--jobs", jobs, "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    assert (figures["schedules"], figures["violations"], figures["failing_seeds"]) == (24, 0, [])
    assert figures["seconds"] > 0
    expected = run_seeds(Choice(), range(7, 31)).coverage.figures()
    assert figures["coverage"] == expected
    told = capsys.readouterr()
    assert "24 schedules in" in told.out
    assert "set change completed" in told.out
    assert "of 4 nodes, simple peers" in told.err


def test_failing_seeds_are_named_and_cut_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(VoteGuard, "after_seal", lambda self, _slot: self)
    monkeypatch.setattr(shrink, "RUNS_MAX", 100)
    options = ["--nodes", "4", "--more", "0", "--peers", "simple", "--faults", "delay,crash"]
    assert main([*options, "--schedules", "150", "--jobs", "1", "--no-shrink"]) == 1
    told = capsys.readouterr()
    failing = re.search(r"failing seeds: (\d+)", told.out)
    assert failing is not None
    assert f"seed {failing[1]} (4 nodes, simple peers): V3: " in told.err
    plan = tmp_path / "plan.json"
    assert main([*options, "--seed", failing[1], "--save", str(plan)]) == 1
    told = capsys.readouterr()
    assert "VIOLATION: V3: " in told.out
    assert len(json.loads(plan.read_text())["events"]) <= 20
    assert main(["--plan", str(plan), "--no-shrink"]) == 1
    assert capsys.readouterr().out.splitlines()[:-3] == told.out.splitlines()[:-3]


def test_an_interrupt_leaves_what_was_done(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = many.run_seeds

    def interrupted(choice: Choice, seeds: range) -> many.Outcome:
        if seeds.start >= 20:
            raise KeyboardInterrupt
        return real(choice, seeds)

    monkeypatch.setattr(many, "run_seeds", interrupted)
    assert main(["--schedules", "50", "--jobs", "1"]) == 130
    told = capsys.readouterr()
    assert "20 schedules in" in told.out
    assert told.err.endswith("interrupted\n")


def test_workers_end_with_whoever_asked() -> None:
    outcomes = run_many(Choice(), range(1_000), 2)
    first = next(outcomes)
    assert first.coverage.total == many.CHUNK
    outcomes.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "22"], "--nodes: 1 to 21, not 22"),
        (["--faults", "rain"], "--faults: 'rain' is not a valid Fault"),
        (["--schedules", "0"], "1 or more"),
        (["--jobs", "0"], "1 or more"),
        (["--nodes", "3", "--more", "1"], "only where there are 4 seats"),
        (["--more", "-1"], "--more: 0 or more"),
    ],
)
def test_bad_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "{}", "no plan"])
def test_a_plan_that_cannot_be_read(content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.json"
    if content is not None:
        file.write_text(content)
    assert main(["--plan", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"ledgerd sim: {file}: ")
