"""Real ``ledgerd`` processes, and what they take of the machine, read from ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.clock import now_ms
from node.cluster import Cluster, make_cluster
from node.localnet import LocalNode, stop_all

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def pin_to_one_core() -> int:
    """Bind this process, and every thread it begins from now on, to one core; return which."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


@contextmanager
def running_cluster(directory: Path, count: int) -> Iterator[tuple[Cluster, list[LocalNode]]]:
    """Found a chain of ``count`` members and run a node for each, until the context ends.

    Raises LedgerError where one does not start, RuntimeError where one has ended meanwhile.
    """
    # Whole seconds: slots then begin with the clock's.
    genesis_time_ms = now_ms() // 1000 * 1000
    members = [f"carrier-{number + 1}" for number in range(count)]
    cluster = make_cluster(directory / "cluster", members, genesis_time_ms=genesis_time_ms, name="bench")
    nodes = [LocalNode(place, ["--log-level", "warning"]) for place in cluster.nodes]
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_ready()
        yield cluster, nodes
        for node in nodes:
            if not node.is_running:
                raise RuntimeError(f"{node.name} ended; its log ends:\n{node.log_tail()}")
    finally:
        stop_all(nodes)


def rss_bytes(pid: int) -> int:
    """Return how much memory of a process is resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def own_bytes(pid: int) -> int:
    """Return how much memory of a process is resident and its own: no pages of files, which can be read again."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, all its threads together, in its own code and in the system's."""
    # The name in parentheses may hold spaces; fields count from after it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def pid_of(node: LocalNode) -> int:
    """Return the id of a node's process. Raises RuntimeError where it was never started."""
    if node.process is None:
        raise RuntimeError(f"{node.name} was not started")
    return node.process.pid
