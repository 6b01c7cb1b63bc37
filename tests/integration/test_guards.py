"""Real nodes that lost their vote record, restored an old one, or run on a wrong clock: they say so, and wait."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from node.localnet import LocalNode
from tests.integration.cluster_kit import Feeder, get, is_final, metric, running_cluster, wait_until
from tests.integration.fault_kit import assert_clean_log, events

SLOT_MS = 500
EPOCH_SLOTS = 20
SKEWED = """
import sys, time
true_ns, skew_ns = time.time_ns, int(sys.argv.pop(1)) * 1_000_000
time.time_ns = lambda: true_ns() + skew_ns
from node.cli.ledgerd import main
main()
"""


class SkewedNode(LocalNode):
    """A node whose clock is ahead by ``skew_ms``."""

    skew_ms = 0

    def start(self) -> None:
        """See ``LocalNode.start``."""
        command = [sys.executable, "-c", SKEWED, str(self.skew_ms), "--config", str(self.place.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def signing(node: LocalNode) -> dict[str, Any]:
    """Return what a node says of whether it may sign."""
    status = get(node, "/v1/status")
    return status["signing"] if status else {"state": "no answer"}


def make_final(feeder: Feeder, node: LocalNode, count: int = 1) -> None:
    """Have this many transactions recorded, one after the other."""
    for _ in range(count):
        tx_id = feeder.send(node)
        assert tx_id is not None
        wait_until("a transaction is final", lambda tx_id=tx_id: is_final(node, tx_id))


def assert_nobody_contradicted_itself(nodes: list[LocalNode]) -> None:
    """Assert that no node has seen two votes or two blocks of anybody where there may be one."""
    for node in nodes:
        assert metric(node, "ledgerd_faults_proven_total") == 0
        assert_clean_log(node)


def assert_waits_and_votes_again(feeder: Feeder, nodes: list[LocalNode], waiting: LocalNode, state: str) -> None:
    """Assert that ``waiting`` neither votes nor seals for an epoch, says why, and then takes part again."""
    begun = time.monotonic()
    wait_until(f"it says {state}", lambda: signing(waiting)["state"] == state)
    said = signing(waiting)
    assert said["waits_for"].startswith(("slot ", "1 more producer", "2 more producers", "block "))
    assert said["until_ms"] > 0
    make_final(feeder, nodes[0], 3)
    while signing(waiting)["state"] == state:
        assert metric(waiting, "ledgerd_votes_cast_total") == 0
        assert metric(waiting, "ledgerd_blocks_sealed_total") == 0
        assert time.monotonic() < begun + 60
        time.sleep(0.2)
    assert time.monotonic() - begun > EPOCH_SLOTS * SLOT_MS / 1000 * 0.8
    assert signing(waiting) == {"state": "clear", "reason": "", "waits_for": "", "until_ms": None}
    make_final(feeder, nodes[0], 3)
    wait_until("it votes", lambda: metric(waiting, "ledgerd_votes_cast_total") > 0)
    assert [event["state"] for event in events(waiting, "neither votes nor seals")][-1] == state
    assert_nobody_contradicted_itself(nodes)


def test_a_lost_disk_and_a_restored_backup(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "net", slot_ms=SLOT_MS, epoch_slots=EPOCH_SLOTS) as (cluster, nodes):
        feeder = Feeder(cluster)
        make_final(feeder, nodes[0], 3)
        last = nodes[3]
        wait_until("all may sign", lambda: {signing(node)["state"] for node in nodes} == {"clear"})
        wait_until("it has voted", lambda: metric(last, "ledgerd_votes_cast_total") > 0)
        last.kill()
        backup = tmp_path / "backup"
        shutil.copytree(last.place.data, backup)
        shutil.rmtree(last.place.data)
        last.start()
        last.wait_ready()
        assert_waits_and_votes_again(feeder, nodes, last, "lost")
        last.kill()
        shutil.rmtree(last.place.data)
        shutil.copytree(backup, last.place.data)
        last.start()
        last.wait_ready()
        assert_waits_and_votes_again(feeder, nodes, last, "old")


def test_a_whole_cluster_that_restarts_is_at_work_again_at_once(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "net", slot_ms=SLOT_MS) as (cluster, nodes):
        feeder = Feeder(cluster)
        make_final(feeder, nodes[0])
        for node in nodes:
            node.kill()
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_ready()
        begun = time.monotonic()
        wait_until("all may sign", lambda: {signing(node)["state"] for node in nodes} == {"clear"}, 10)
        # Peers that were dialled before they listened are dialled again within two seconds.
        assert time.monotonic() - begun < 4
        make_final(feeder, nodes[0])
        for node in nodes:
            assert events(node, "neither votes nor seals") == []
        assert_nobody_contradicted_itself(nodes)


def check_clock_off(folder: Path, skew_ms: int) -> None:
    """Assert that a node whose clock is off votes, seals nothing, says so, and seals again once it is right."""
    with running_cluster(folder / "net", slot_ms=1_000) as (cluster, nodes):
        feeder = Feeder(cluster)
        make_final(feeder, nodes[0])
        nodes[3].kill()
        skewed = SkewedNode(nodes[3].place)
        skewed.skew_ms = skew_ms
        nodes[3] = skewed
        skewed.start()
        skewed.wait_ready()
        wait_until("it says that its clock is off", lambda: signing(skewed)["state"] == "clock-off", 30)
        assert "250 ms" in signing(skewed)["waits_for"]
        status = get(skewed, "/v1/status")
        assert status
        assert abs(status["clock_skew_ms"] + skew_ms) < 100
        before = metric(skewed, "ledgerd_blocks_sealed_total"), metric(skewed, "ledgerd_votes_cast_total")
        make_final(feeder, nodes[0], 4)
        assert metric(skewed, "ledgerd_blocks_sealed_total") == before[0]
        assert metric(skewed, "ledgerd_votes_cast_total") > before[1]
        assert events(skewed, "seals no blocks") != []
        assert {signing(node)["state"] for node in nodes[:3]} == {"clear"}
        skewed.kill()
        skewed.skew_ms = 0
        skewed.start()
        skewed.wait_ready()
        wait_until("it may seal", lambda: signing(skewed)["state"] == "clear")
        assert_nobody_contradicted_itself(nodes)


SKEWS_MS = (-700, 700)


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Future[None]]]:
    """A cluster for each skew, side by side: nodes look at their clocks for ten seconds before they say anything."""
    with ThreadPoolExecutor(len(SKEWS_MS)) as pool:
        yield {skew_ms: pool.submit(check_clock_off, tmp_path_factory.mktemp("net"), skew_ms) for skew_ms in SKEWS_MS}


@pytest.mark.xdist_group("clocks")
@pytest.mark.parametrize("skew_ms", SKEWS_MS)
def test_a_clock_that_is_off_by_more_than_half_a_slot(clocks: dict[int, Future[None]], skew_ms: int) -> None:
    """It votes, seals nothing, says so, and seals again once its clock is right."""
    clocks[skew_ms].result()
