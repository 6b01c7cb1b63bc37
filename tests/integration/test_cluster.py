"""Four real nodes: what was promised is kept, whatever dies."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.integration.cluster_kit import Feeder, get, is_final, metric, running_cluster, statuses, wait_until

KILLS = 50
MISSED_BLOCKS = 1_000


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_fifty_kills_of_any_node_lose_nothing(tmp_path: Path) -> None:
    """SIGKILL at any moment: every record that a node stored becomes final everywhere; nobody votes or seals twice."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    with running_cluster(tmp_path / "net") as (cluster, nodes):
        feeder = Feeder(cluster)
        for _ in range(KILLS):
            for _ in range(rng.randrange(1, 4)):
                feeder.send(rng.choice(nodes))
            time.sleep(rng.random() * 0.4)
            victim = rng.choice(nodes)
            victim.kill()
            feeder.send(rng.choice([node for node in nodes if node is not victim]))
            victim.start()
            victim.wait_ready()
        assert len(feeder.sent) > KILLS
        for node in nodes:
            for tx_id in feeder.sent:
                wait_until(
                    f"{tx_id.hex()} final at {node.name}, seed {seed}\n{statuses(nodes)}",
                    lambda node=node, tx_id=tx_id: is_final(node, tx_id),
                )
        finals = [get(node, f"/v1/blocks/{_lowest_final(nodes)}") for node in nodes]
        assert all(final == finals[0] for final in finals)
        for node in nodes:
            assert metric(node, "ledgerd_faults_proven_total") == 0


def _lowest_final(nodes: list) -> int:
    return min(get(node, "/v1/status")["final"]["height"] for node in nodes)


@pytest.mark.slow
def test_a_node_that_was_off_for_a_thousand_blocks_catches_up_and_says_so(tmp_path: Path) -> None:
    """It answers 'syncing' with how far behind it is, then holds all of them."""
    with running_cluster(tmp_path / "net", slot_ms=100) as (cluster, nodes):
        feeder = Feeder(cluster)
        sleeper = nodes[3]
        sleeper.kill()
        awake = nodes[:3]
        deadline = time.monotonic() + 220
        while (target := _lowest_final(awake)) < MISSED_BLOCKS:
            assert time.monotonic() < deadline, f"only {target} blocks"
            feeder.send(awake[0], 3)
            time.sleep(0.02)
        sleeper.start()
        sleeper.wait_ready()
        seen: dict[str, int] = {}

        def has_caught_up() -> bool:
            status = get(sleeper, "/v1/status")
            if status:
                state, behind = status["sync"]["state"], status["sync"]["behind_blocks"]
                seen[state] = max(seen.get(state, 0), behind)
            return bool(status) and status["final"]["height"] >= target and status["sync"]["state"] == "in-step"

        wait_until("the sleeper catches up", has_caught_up)
        assert seen["syncing"] > MISSED_BLOCKS // 2
        for tx_id in feeder.sent:
            wait_until(f"{tx_id.hex()} final at the sleeper", lambda tx_id=tx_id: is_final(sleeper, tx_id))


def test_two_of_four_make_nothing_final_and_go_on_when_the_others_return(tmp_path: Path) -> None:
    """Without a quorum records wait, stored but not final; when it is there again they become final unaided."""
    with running_cluster(tmp_path / "net") as (cluster, nodes):
        feeder = Feeder(cluster)
        first = feeder.send(nodes[0])
        assert first is not None
        wait_until("the first is final", lambda: is_final(nodes[0], first))
        for node in nodes[2:]:
            node.kill()
        waiting = feeder.send(nodes[0])
        assert waiting is not None
        time.sleep(3)
        assert not is_final(nodes[0], waiting)
        assert get(nodes[0], "/v1/status")["sync"]["state"] == "alone"
        for node in nodes[2:]:
            node.start()
        for node in nodes:
            wait_until(f"final at {node.name}", lambda node=node: is_final(node, waiting))
