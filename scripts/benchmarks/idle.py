"""What a node costs that has nothing to do: alone as ``ledgerd --dev``, and as one of four."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import cpu_s, pid_of, running_cluster
from benchmarks.report import Figure
from node.cluster import HOST, free_ports
from node.localnet import STOP_SECONDS

SETTLE_S = 5.0
"""After the start: connections, first status, conformance vectors."""
MEASURE_S = 20.0
TARGET_PERCENT = 2.0


def run() -> list[Figure]:
    """Measure the share of a core, in percent."""
    alone = _measure_alone()
    with (
        tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory,
        running_cluster(Path(directory), 4) as (_, nodes),
    ):
        shares = _shares([pid_of(node) for node in nodes])
    average = sum(shares) / len(shares)
    return [
        Figure("idle_cpu_percent", "an idle node (--dev)", alone, "%", target=TARGET_PERCENT, at_most=True),
        Figure(
            "",
            "an idle node, one of four",
            average,
            "%",
            target=TARGET_PERCENT,
            at_most=True,
            note=f"the busiest {max(shares):.2f} %",
        ),
    ]


def _measure_alone() -> float:
    with tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory:
        api, listen = free_ports(2)
        command = [sys.executable, "-m", "node.cli.ledgerd", "--dev", "--data", f"{directory}/data"]
        command += ["--api", f"{HOST}:{api}", "--listen", f"{HOST}:{listen}", "--log-level", "error"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            try:
                # It prints its address and token once it serves; nothing at all where it ends.
                if not process.stdout or not process.stdout.readline():
                    raise RuntimeError(f"ledgerd --dev ended with status {process.wait(STOP_SECONDS)}")
                return _shares([process.pid])[0]
            finally:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()


def _shares(pids: list[int]) -> list[float]:
    """Return what percentage of a core each process takes over MEASURE_S."""
    time.sleep(SETTLE_S)
    before, started = [cpu_s(pid) for pid in pids], time.monotonic()
    time.sleep(MEASURE_S)
    took_s = time.monotonic() - started
    return [100 * (cpu_s(pid) - was_s) / took_s for pid, was_s in zip(pids, before, strict=True)]
