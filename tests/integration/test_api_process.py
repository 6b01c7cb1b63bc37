"""A real ``ledgerd`` process behind the API: what was answered 2xx survives kill -9, and nothing counts twice."""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.error
from pathlib import Path

import pytest

from node.cluster import make_cluster
from node.founding import DEFAULT_PARAMETERS
from node.localnet import LocalNode, stop_all
from tests.integration.cluster_kit import get, post, wait_until, wall_ms

KILLS = 6
BATCH = 5


def cdr(number: int, now_ms: int) -> dict[str, str]:
    """Return a CDR of an answered call that ended just now."""
    return {
        "call_id": f"call-{number}@host.test",
        "from_tag": "f",
        "from": f"sip:+4420{number % 7:08}@host.test",
        "to": "sip:+12025550123@host.test",
        "start_time": f"{now_ms // 1000 - 20}.5",
        "end_time": f"{now_ms // 1000 - 10}.25",
        "sip_code": "200",
    }


class Proxy(threading.Thread):
    """Posts CDRs as a proxy does, until told to stop; remembers what it was told is kept."""

    def __init__(self, node: LocalNode, seed: int) -> None:
        super().__init__()
        self._node, self._seed = node, seed
        self.sent: list[dict[str, str]] = []
        self.kept: dict[str, str] = {}
        self.is_over = False

    def run(self) -> None:
        while not self.is_over:
            batch = [cdr(self._seed + len(self.sent) + i, wall_ms()) for i in range(BATCH)]
            self.sent += batch
            self.kept.update(hand_in(self._node, batch))


def hand_in(node: LocalNode, cdrs: list[dict[str, str]]) -> dict[str, str]:
    """Post CDRs; return where each is, nothing where the node did not answer."""
    try:
        answer = post(node, "/v1/ingest/kamailio", json.dumps(cdrs).encode())
    except urllib.error.HTTPError as error:
        if error.code < 500:
            raise
        return {}
    except OSError:
        time.sleep(0.05)
        return {}
    return {one["call_id"]: result["url"] for one, result in zip(cdrs, answer["results"], strict=True)}


@pytest.mark.slow
def test_kills_lose_no_cdr_and_count_none_twice(tmp_path: Path) -> None:
    """Killed at any moment while CDRs come in; the proxy sends again what it got no answer to."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    cluster = make_cluster(tmp_path / "net", ("solo",), genesis_time_ms=wall_ms(), parameters=DEFAULT_PARAMETERS)
    node = LocalNode(cluster.nodes[0])
    sent: list[dict[str, str]] = []
    kept: dict[str, str] = {}
    try:
        node.start()
        for _ in range(KILLS):
            node.wait_ready()
            proxy = Proxy(node, len(sent))
            proxy.start()
            time.sleep(rng.random() * 0.6)
            node.kill()
            proxy.is_over = True
            proxy.join()
            sent += proxy.sent
            kept |= proxy.kept
            node.start()
        node.wait_ready()
        assert len(kept) >= KILLS
        again: dict[str, str] = {}
        for start in range(0, len(sent), 500):
            again |= hand_in(node, sent[start : start + 500])
        assert len(again) == len(sent)
        assert {call_id: again[call_id] for call_id in kept} == kept, f"seed {seed}"
        for url in sorted(set(again.values())):
            wait_until(
                f"{url} final, seed {seed}", lambda url=url: get(node, url)["promise"]["state"] in {"final", "void"}
            )
        states = {get(node, url)["promise"]["state"] for url in again.values()}
        assert states == {"final"}, f"seed {seed}"
        stop_all([node])
        on_disk = b"".join(path.read_bytes() for path in node.place.home.rglob("*") if path.is_file())
        assert b"2025550123" not in on_disk
        assert b"host.test" not in on_disk
    finally:
        stop_all([node])
