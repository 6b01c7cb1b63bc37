"""Real ``ledgerd`` processes: founded, started, watched and ended by id."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.client import ApiFault, Client
from node.cluster import Cluster, ClusterNode, make_cluster
from node.driver import now_ms

READY_S = 30.0
STOP_S = 15.0
LOG_TAIL_BYTES = 2_000
COMMAND = [sys.executable, "-c", "from node.cli.ledgerd import main; main()"]
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def pin_to_one_core() -> int:
    """Bind this process, and every thread it begins from now on, to one core; return which."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A process of a cluster."""

    node: ClusterNode
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise RuntimeError, with the end of its log, where it has ended."""
        if self.process.poll() is not None:
            tail = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")
            raise RuntimeError(f"{self.node.member_id} ended with status {self.process.returncode}:\n{tail}")

    def rss_bytes(self) -> int:
        """Return how much memory of the process is resident."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE_BYTES

    def cpu_s(self) -> float:
        """Return how long it has computed, in its own code and in the system's."""
        return cpu_of(self.process.pid)


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process, all its threads together."""
    # The name in parentheses may hold spaces; fields count from after it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


@contextmanager
def running_cluster(directory: Path, count: int) -> Iterator[tuple[Cluster, list[RunningNode]]]:
    """Found a chain of ``count`` members and run a node for each, until the context ends."""
    # Whole seconds: slots then begin with the clock's.
    genesis_time_ms = now_ms() // 1000 * 1000
    members = [f"carrier-{number + 1}" for number in range(count)]
    cluster = make_cluster(directory / "cluster", members, genesis_time_ms=genesis_time_ms, name="bench")
    running: list[RunningNode] = []
    try:
        for node in cluster.nodes:
            command = [*COMMAND, "--config", str(node.config), "--log-level", "warning"]
            running.append(start_node(node, command))
        for one in running:
            wait_until_ready(one)
        yield cluster, running
        for one in running:
            one.check()
    finally:
        end_all([one.process for one in running])


def start_node(node: ClusterNode, command: Sequence[str]) -> RunningNode:
    """Start a process whose output goes to a log beside its data."""
    log = node.home / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    return RunningNode(node, process, log)


def wait_until_ready(one: RunningNode) -> None:
    """Wait until the API answers. Raises RuntimeError where it does not."""
    give_up = time.monotonic() + READY_S
    while time.monotonic() < give_up:
        one.check()
        try:
            Client(one.node.url, timeout_s=2).get("/v1/head")
        except ApiFault:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{one.node.member_id} did not answer within {READY_S:.0f} s")


def end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask every process to end, and end those that do not."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    give_up = time.monotonic() + STOP_S
    for process in processes:
        try:
            process.wait(max(0.1, give_up - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
