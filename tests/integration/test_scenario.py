"""The scenario holds from beginning to end, and leaves nothing behind: neither at its end nor when interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_demo import left_running

ROOT = Path(__file__).parents[2]
SCENARIO = [sys.executable, str(ROOT / "scripts" / "scenario_main.py")]
SECONDS = 400
"""It takes a minute and a half where it has two cores to itself."""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The scenario's environment: its temporary files go where this test can look."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    yield {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": path}
    assert left_running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(SECONDS + 60)
def test_every_step_holds(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*SCENARIO, "--quick"], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)
    for words in (
        "zeta has joined: it fetched the chain by itself",
        "7 vote (alpha, beta, delta, epsilon, eta, gamma, zeta), 5 make a quorum, 2 may be faulty",
        "zeta voted twice for height",
        "the old key of beta is revoked; zeta is out",
        "blocks became final without it",
        "4 vote (alpha, beta, delta, gamma), 3 make a quorum, 1 may be faulty",
        "each final exactly once on all of alpha, beta, gamma, delta, epsilon, eta",
        "finality never paused longer than",
        "-> 7 -> 6 -> ",
        "2 nodes agree",
        "ledger-verify, data of delta: OK: ",
        "ledger-verify, export of gamma: OK: ",
        "Everything held",
    ):
        assert words in done.stdout
    refused = [line for line in done.stdout.splitlines() if " refused: " in line]
    assert len(set(refused)) >= 20
    assert (
        f"{len(refused)} forgeries of this chain, each refused by ledger-verify and by the light client" in done.stdout
    )


def test_an_interrupted_run_leaves_nothing(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [*SCENARIO, "--quick"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as scenario:
        assert scenario.stdout
        for line in scenario.stdout:
            if "Three more carriers" in line:
                break
        assert len(left_running(Path(environment["TMPDIR"]))) >= 4
        scenario.send_signal(signal.SIGINT)
        _, said = scenario.communicate(timeout=60)
    assert (said, scenario.returncode) == ("\ninterrupted\n", 130)


@pytest.mark.parametrize("arguments", [["--epoch-slots", "5"], ["--nonsense"]])
def test_wrong_usage_is_status_two_and_starts_nothing(environment: dict[str, str], arguments: list[str]) -> None:
    done = subprocess.run([*SCENARIO, *arguments], env=environment, capture_output=True, check=False)
    assert done.returncode == 2
