"""A day of calls through a real agent and four real nodes, killed at random: every call on the chain exactly once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster_kit import wait_until
from tests.integration.test_demo import left_running

ROOT = Path(__file__).parents[2]
DAY = [sys.executable, str(ROOT / "scripts" / "day_main.py")]
RECORDS = 40_000
"""As many as the ordinary suite has time for; where the whole day runs, it takes this one's place."""
DAY_RECORDS = 170_000
IS_FULL = "LEDGERD_FULL_DAY" in os.environ

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A run's environment: its temporary files go where this test can look, and nothing of it is left."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    yield {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": path}
    assert left_running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "records",
    [
        pytest.param(
            RECORDS,
            marks=pytest.mark.skipif(
                IS_FULL, reason=f"the day of {DAY_RECORDS:,} shows all of it, with the same kills"
            ),
        ),
        pytest.param(
            DAY_RECORDS,
            marks=[
                pytest.mark.system,
                pytest.mark.skipif(not IS_FULL, reason="minutes: ./scripts/test --system runs it"),
            ],
        ),
    ],
)
def test_every_call_is_on_the_chain_exactly_once(environment: dict[str, str], records: int) -> None:
    """Three kills of agent and nodes; counts and the set of keys, read back from a node, prove it."""
    command = [*DAY, "--records", str(records), "--seed", "7", "--kills", "3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=850, check=False)
    assert (done.stderr, done.returncode) == ("", 0), done.stdout
    said = done.stdout
    kills = re.findall(r"kill -9 (\w+)", said)
    assert len(kills) == 3
    assert "agent" in kills
    assert len(re.findall(r"(\w+) is back", said)) == 3
    count = f"{records:,}"
    proof = rf"{count} documents, {count} records on the chain of delta, {count} keys, the same set"
    assert re.search(proof, said)
    assert "no dead letters" in said
    assert re.search(rf"ledger-verify on the disk of beta: OK: \d+ blocks, {count} records", said)
    answered, unmeasured = map(int, re.findall(r"(\d+)% answered, (\d+)% of these without MOS", said)[0])
    assert 40 <= answered <= 60
    assert 10 <= unmeasured <= 40


def test_an_interrupted_day_leaves_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    with subprocess.Popen(DAY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as day:
        assert day.stdout
        for line in day.stdout:
            if "taken by the agent" in line:
                break
        # One of them may just have been killed, and not be back yet.
        wait_until("four nodes and an agent run", lambda: len(left_running(tmp_path)) == 5)
        day.send_signal(signal.SIGINT)
        _, said = day.communicate(timeout=60)
    assert (said, day.returncode) == ("\ninterrupted\n", 130)


@pytest.mark.parametrize("arguments", [["--records", "999"], ["--kills", "21"], ["--nonsense"]])
def test_wrong_usage_is_status_two_and_starts_nothing(arguments: list[str]) -> None:
    done = subprocess.run([*DAY, *arguments], capture_output=True, check=False, timeout=60)
    assert done.returncode == 2
