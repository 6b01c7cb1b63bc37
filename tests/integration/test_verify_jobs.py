"""``ledger-verify --jobs`` with real processes: the same verdict; and whoever is killed, a sentence and no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.genesis import Genesis, genesis_to_json
from tests.audit.conftest import data_dir, genesis, original, parts
from tests.audit.tamper import Parts
from tests.audit.test_verify import CONTENTS, H

__all__ = ["data_dir", "genesis", "original", "parts"]

WAIT_S = 60.0
"""Longer than anything takes on a busy machine."""


def command(target: Path, genesis_file: Path, *options: object) -> list[str]:
    return [
        sys.executable,
        "-m",
        "node.cli.verify",
        *map(str, (target, "--genesis", genesis_file, *options)),
    ]


@pytest.fixture
def genesis_file(tmp_path: Path, genesis: Genesis) -> Path:
    path = tmp_path / "trusted.json"
    path.write_bytes(genesis_to_json(genesis))
    return path


def verdict(target: Path, genesis_file: Path, *options: object) -> tuple[int, str]:
    done = subprocess.run(
        command(target, genesis_file, *options), capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("change", [None, "record_contradicts_itself", "signature_flipped"])
def test_two_jobs_say_what_one_says(
    change: str | None, parts: Parts, data_dir: Path, genesis_file: Path, tmp_path: Path
) -> None:
    if change is not None:
        CONTENTS[change][0](parts)
    export = tmp_path / "chain.export"
    export.write_bytes(parts.to_export())
    for target in (export,) if change is not None else (export, data_dir):
        one = verdict(target, genesis_file, "--jobs", 1)
        assert verdict(target, genesis_file, "--jobs", 2) == one
        assert one[0] == int(change is not None)
        assert one[1].startswith(
            "OK: 14 blocks" if change is None else f"NOT OK: height {H}, field {CONTENTS[change][2]}"
        )


# -- processes that end before their time ----------------------------------------------------------------------------


@dataclass
class Stalled:
    """An audit with two workers whose export stops in the middle, until ``go_on``."""

    process: subprocess.Popen[str]
    workers: list[int]
    go_on: Callable[[], None]

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=WAIT_S)
        assert "Traceback" not in err
        return self.process.returncode, out, err


def children_of(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended, whoever has yet to take note of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def stalled(original: Parts, genesis_file: Path, tmp_path: Path) -> Iterator[Stalled]:
    data = original.to_export()
    pipe = tmp_path / "chain.export"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        command(pipe, genesis_file, "--jobs", 3, "--resume", tmp_path / "audit.state"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    file = pipe.open("wb", buffering=0)
    # Less than is read ahead: the command has taken it all, and waits for more.
    file.write(data[: len(data) // 2])
    wait_until(lambda: len(children_of(process.pid)) == 2)
    workers = children_of(process.pid)

    def go_on() -> None:
        # An audit that has noticed already takes no more.
        with suppress(BrokenPipeError):
            file.write(data[len(data) // 2 :])
        file.close()

    yield Stalled(process, workers, go_on)
    file.close()
    process.kill()
    process.communicate()
    wait_until(lambda: all(map(is_gone, workers)))


def test_a_worker_that_is_killed(stalled: Stalled) -> None:
    for worker in stalled.workers:
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, stalled.workers)))
    stalled.go_on()
    status, out, err = stalled.end()
    assert (status, out) == (2, "")
    assert "a worker process ended by SIGKILL before its work was done" in err
    assert "Where memory is short, audit with --jobs 1" in err


def test_an_audit_that_is_interrupted(stalled: Stalled) -> None:
    stalled.process.send_signal(signal.SIGINT)
    status, out, err = stalled.end()
    assert (status, out) == (2, "")
    assert "ledger-verify: interrupted after height " in err
    assert "Go on with --resume " in err
    # One that was just being started ends with its input.
    wait_until(lambda: all(map(is_gone, stalled.workers)))


def test_an_audit_that_is_killed_leaves_no_worker(stalled: Stalled) -> None:
    stalled.process.kill()
    stalled.process.wait(WAIT_S)
    wait_until(lambda: all(map(is_gone, stalled.workers)))


def test_an_audit_that_goes_on(original: Parts, genesis_file: Path, tmp_path: Path) -> None:
    export, state = tmp_path / "chain.export", tmp_path / "audit.state"
    export.write_bytes(original.to_export())
    first = verdict(export, genesis_file, "--resume", state)
    assert (first[0], first[1][:12]) == (0, "OK: 14 block")
    done = subprocess.run(
        command(export, genesis_file, "--resume", state, "--jobs", 2),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == first
    assert f"goes on after height 14, as {state} says; what is below is not looked at again" in done.stderr
