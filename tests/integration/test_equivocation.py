"""A producer of a running cluster commits faults: real processes, from the second vote to the empty seat."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from node.cluster import make_cluster
from node.founding import DEFAULT_PARAMETERS
from node.localnet import EQUIVOCATOR, LocalNode, stop_all
from tests.integration.cluster_kit import MEMBERS, Feeder, get, is_final, metric, statuses, wait_until, wall_ms
from tests.integration.fault_kit import assert_clean_log, events, set_option

pytestmark = pytest.mark.xdist_group("cluster")


def struck(node: LocalNode) -> dict[str, dict]:
    """Return what a node says of evidence, by member."""
    answer = get(node, "/v1/evidence")
    return {case["member_id"]: case for case in (answer or {"evidence": []})["evidence"]}


def seats(node: LocalNode) -> list[str]:
    """Return who may produce."""
    answer = get(node, "/v1/producers")
    return sorted(producer["member_id"] for producer in answer["producers"]) if answer else []


def ledgerctl(node: LocalNode, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command against a node."""
    command = [sys.executable, "-m", "node.cli.ledgerctl", *arguments, "--url", node.place.url]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "options", "fault"),
    [
        (signal.SIGUSR1, (), "double-vote"),
        (signal.SIGUSR1, ("--surround",), "surrounding-vote"),
        (signal.SIGUSR2, (), "double-block"),
    ],
)
def test_a_producer_that_equivocates_is_struck(
    tmp_path: Path, number: signal.Signals, options: tuple[str, ...], fault: str
) -> None:
    """Records go on becoming final all the while, and the three others keep the chain."""
    parameters = msgspec.structs.replace(DEFAULT_PARAMETERS, slot_ms=500, epoch_slots=12)
    cluster = make_cluster(tmp_path / "net", MEMBERS, genesis_time_ms=wall_ms(), parameters=parameters)
    honest = [LocalNode(place) for place in cluster.nodes[:3]]
    liar = LocalNode(cluster.nodes[3], options, program=EQUIVOCATOR)
    feeder = Feeder(cluster)
    try:
        for node in [*honest, liar]:
            node.start()
        for node in [*honest, liar]:
            node.wait_ready()
        assert feeder.send(honest[0]) is not None
        wait_until("the first record is final", lambda: all(is_final(honest[1], tx) for tx in feeder.sent))
        assert liar.process is not None
        liar.process.send_signal(number)
        deadline = time.monotonic() + 60
        while not all(struck(node).get("delta", {}).get("is_out") for node in honest):
            assert time.monotonic() < deadline, statuses(honest) + str([struck(node) for node in honest])
            feeder.send(honest[0])
            time.sleep(0.3)
        for node in honest:
            assert list(struck(node)) == ["delta"]
            assert (struck(node)["delta"]["fault"], seats(node)) == (fault, ["alpha", "beta", "gamma"])
            assert metric(node, "ledgerd_faults_proven_total") == 1
        wait_until("everything is final", lambda: all(is_final(node, tx) for tx in feeder.sent for node in honest))
        shown = ledgerctl(honest[2], "evidence", "delta")
        assert (shown.returncode, "Both signatures are good" in shown.stdout) == (0, True), shown.stderr
        assert f"delta: {fault}, final in block" in shown.stdout
        # One accusation was handed in, by whoever's turn it was.
        assert sum(len(events(node, "evidence handed in")) for node in honest) == 1
        assert len(events(liar, "equivocates")) == 1
    finally:
        stop_all([*honest, liar])
    for node in honest:
        assert_clean_log(node)
        assert events(node, "rejected") == []


def test_a_chain_that_is_not_of_this_machine_is_refused(tmp_path: Path) -> None:
    cluster = make_cluster(tmp_path / "net", MEMBERS, genesis_time_ms=wall_ms())
    place = cluster.nodes[0]
    for name, value in (("endpoint", "ws://chain.example:9090"), ("peers", ["ws://192.0.2.1:9090"])):
        before = place.config.read_text()
        set_option(place, name, value)
        command = [sys.executable, *EQUIVOCATOR, "--config", str(place.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert (done.returncode, "not on this machine" in done.stderr) == (1, True), done.stderr
        place.config.write_text(before)
