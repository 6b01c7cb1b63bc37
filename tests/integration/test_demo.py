"""The demonstration holds, and leaves nothing behind: neither at its end nor when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, str(ROOT / "scripts" / "demo_main.py"), "--records", "300"]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The demonstration's environment: its temporary files go where this test can look."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    yield {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": path}
    assert left_running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def left_running(folder: Path) -> list[str]:
    """Return the command lines of processes that have something to do with ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


def test_every_step_holds(environment: dict[str, str]) -> None:
    done = subprocess.run(DEMO, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    for words in (
        "kill -9 delta",
        "caught up by itself",
        "300 records final on all four nodes",
        "already stored",
        "refused by rule voice-quality/mos",
        "delta  OK: ",
        "receipt OK: ",
        "audit  NOT OK: ",
        "receipt NOT OK: ",
        "Everything held",
    ):
        assert words in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(environment: dict[str, str], number: signal.Signals) -> None:
    with subprocess.Popen(DEMO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        for line in demo.stdout:
            if "records over the HTTP API" in line:
                break
        assert len(left_running(Path(environment["TMPDIR"]))) == 4
        time.sleep(0.5)  # in the middle of the feeding
        demo.send_signal(number)
        _, said = demo.communicate(timeout=60)
    assert (said, demo.returncode) == ("\ninterrupted\n", 130)


@pytest.mark.parametrize("arguments", [["--records", "1"], ["--nonsense"]])
def test_wrong_usage_is_status_two_and_starts_nothing(environment: dict[str, str], arguments: list[str]) -> None:
    done = subprocess.run([*DEMO, *arguments], env=environment, capture_output=True, check=False)
    assert done.returncode == 2
