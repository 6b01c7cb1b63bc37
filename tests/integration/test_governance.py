"""Real nodes, governed with ``ledgerctl`` alone: a member is admitted, joins, produces and votes; a key rotates."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from node.cluster import Cluster, ClusterNode, free_ports
from node.config import Address
from node.localnet import LocalNode, stop_all
from tests.integration.cluster_kit import Feeder, get, is_final, running_cluster, wait_until

ROOT = Path(__file__).parents[2]
SLOT_MS = 400
EPOCH_SLOTS = 12
CHANGE_SECONDS = 90
"""Three epochs, an election and a change of the voting set, on a machine that is busy."""

pytestmark = pytest.mark.xdist_group("cluster")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``ledgerctl``."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "node.cli.ledgerctl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=150, check=False)


def ctl(*arguments: object) -> Any:
    """Run ``ledgerctl`` and return what it says as JSON."""
    done = run(*arguments, "--json")
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def signing(node: LocalNode) -> list[object]:
    """Return the options with which a member signs and hands in at its node."""
    home = node.place.home
    return ["--key", home / "govern.pem", "--node", node.place.url, "--token-file", home / "token"]


def make_home(cluster: Cluster, name: str) -> ClusterNode:
    """Write the files of a node that is no member's yet, with the commands an operator has."""
    home = cluster.directory / name
    home.mkdir(mode=0o700)
    for role in ("node", "submit", "govern"):
        ctl("keygen", home / f"{role}.pem")
    run("keygen", home / "secret", "--secret")
    token = run("token", "new", "operator", "--file", home / "tokens.json").stdout.strip()
    (home / "token").write_text(token)
    api, listen = (Address("127.0.0.1", port) for port in free_ports(2))
    peers = [f"ws://{node.listen}" for node in cluster.nodes]
    values = {
        "genesis": str(cluster.genesis_file),
        "data": str(home / "data"),
        "key": str(home / "node.pem"),
        "listen": str(listen),
        "api": str(api),
        "peers": peers,
        "endpoint": f"ws://{listen}",
        "submit_key": str(home / "submit.pem"),
        "member_secret": str(home / "secret"),
        "tokens": str(home / "tokens.json"),
    }
    place = ClusterNode(name, home, api, listen, token, "GB")
    place.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    return place


@contextmanager
def records_flow(feeder: Feeder, nodes: list[LocalNode]) -> Iterator[None]:
    """Hand in records all the while, at whichever node takes them."""
    stop = threading.Event()

    def feed() -> None:
        turn = 0
        while not stop.wait(0.2):
            feeder.send(nodes[turn % len(nodes)], records=5)
            turn += 1

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def producers(node: LocalNode) -> dict[str, Any]:
    """Return who produces and votes, empty where the node does not answer."""
    return get(node, "/v1/producers") or {}


def votes(node: LocalNode) -> dict[str, str]:
    """Return the keys of the voting set by member, empty while it changes."""
    view = producers(node)
    if not view or view["pending"] is not None:
        return {}
    return {one["member_id"]: one["key_id"] for one in view["voting"]["producers"]}


def sync_state(node: LocalNode) -> str:
    """Return how a node is."""
    answer = get(node, "/v1/status")
    return answer["sync"]["state"] if answer else ""


def test_a_member_is_admitted_joins_and_votes_and_a_key_rotates_while_records_flow(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "net", slot_ms=SLOT_MS, epoch_slots=EPOCH_SLOTS) as (cluster, nodes):
        alpha, beta, gamma, _ = nodes
        feeder = Feeder(cluster)
        epsilon = LocalNode(make_home(cluster, "epsilon"), ["--joining"])
        try:
            with records_flow(feeder, [alpha, gamma]):
                admit(cluster, nodes, epsilon)
                stand(nodes, epsilon)
                beta = rotate(cluster, nodes, beta)
                epsilon = begin_anew(epsilon)
            everybody = [*nodes, epsilon]
            for tx_id in feeder.sent:
                wait_until("all is final", lambda tx_id=tx_id: all(is_final(n, tx_id) for n in everybody))
            assert len(feeder.sent) > 50
            proved = ctl("prove", "member", "epsilon", "--url", epsilon.place.url, "--genesis", cluster.genesis_file)
            assert proved["value"]["weight"] == 80
        finally:
            stop_all([epsilon, beta])


def admit(cluster: Cluster, nodes: list[LocalNode], epsilon: LocalNode) -> None:
    """Alpha proposes, beta and gamma approve; the new member's node waited for that."""
    alpha, beta, gamma, _ = nodes
    home = epsilon.place.home
    epsilon.start()
    epsilon.wait_ready()
    # Right after the start it may still be fetching the chain.
    wait_until("epsilon waits to be admitted", lambda: sync_state(epsilon) == "joining")
    keys = [part for role in ("node", "submit", "govern") for part in (f"--with-{role}-key", home / f"{role}.pub")]
    made = ctl("propose", "admit", "epsilon", "--weight", 80, *keys, *signing(alpha))
    assert made["effect"][0].startswith("Open until")
    ctl("approve", made["tx_id"][:10], *signing(beta))
    done = ctl("approve", made["tx_id"], *signing(gamma))
    assert done["effect"][0].startswith(f"Carried out at height {done['height']}")
    # Gamma said so; alpha may have that block a moment later.
    wait_until(
        "alpha has no open proposal",
        lambda: ctl("proposals", "--url", alpha.place.url)["proposals"] == [],
        CHANGE_SECONDS,
    )
    wait_until("epsilon is in step", lambda: sync_state(epsilon) == "in-step", CHANGE_SECONDS)
    assert ctl("status", "--url", epsilon.place.url)["member_id"] == "epsilon"
    assert "waits to be admitted" in epsilon.log.read_text()


def stand(nodes: list[LocalNode], epsilon: LocalNode) -> None:
    """The new member stands, is delegated to, is elected, and votes once it has sealed a block."""
    home = epsilon.place.home
    with_key = ["--with-key", home / "node.pub", "--endpoint", f"ws://{epsilon.place.listen}", "--zone", "GB"]
    ctl("candidate", "stand", *with_key, *signing(epsilon))
    ctl("delegate", "epsilon=80", *signing(epsilon))
    ctl("delegate", "alpha=60", "epsilon=40", *signing(nodes[0]))
    wait_until("epsilon votes", lambda: "epsilon" in votes(nodes[0]), CHANGE_SECONDS)
    candidates = {one["member_id"]: one for one in ctl("candidates", "--url", nodes[2].place.url)["candidates"]}
    assert candidates["epsilon"]["delegated_by"] == {"alpha": 40, "epsilon": 80}
    five = {"alpha", "beta", "gamma", "delta", "epsilon"}
    wait_until("epsilon sees the five who vote", lambda: votes(epsilon).keys() == five, CHANGE_SECONDS)


def rotate(cluster: Cluster, nodes: list[LocalNode], beta: LocalNode) -> LocalNode:
    """Beta's node key changes: both keys at hand, then the new one alone."""
    home = beta.place.home
    ctl("keygen", home / "next.pem")
    old, new = (ctl("key", "show", home / name)["key_id"] for name in ("node.pem", "next.pem"))
    beta.terminate()
    assert beta.wait_stopped() == 0
    beta = nodes[1] = LocalNode(beta.place, ["--next-key", str(home / "next.pem")])
    beta.start()
    beta.wait_ready()
    wait_until("beta is in step", lambda: sync_state(beta) == "in-step", CHANGE_SECONDS)
    told = ctl("key", "rotate", old, home / "next.pub", *signing(beta))
    assert "The old key is in office" in told["effect"][1]
    wait_until("the new key votes", lambda: votes(nodes[0]).get("beta") == new, CHANGE_SECONDS)
    keys = {key["key_id"]: key for key in ctl("key", "list", "beta", "--url", nodes[0].place.url)["keys"]}
    assert (keys[old]["standing"], keys[new]["standing"]) == ("revoked", "active")
    met = lambda: {peer["key_id"] for peer in (get(nodes[0], "/v1/peers") or {"peers": []})["peers"]}  # noqa: E731
    wait_until("beta meets its peers with the new key", lambda: new in met() and old not in met(), 30)
    # Its peers meet it anew, one after the other: until they have, it is alone for a moment, and says so.
    wait_until("beta is in step with its new key", lambda: sync_state(beta) == "in-step", CHANGE_SECONDS)
    beta.terminate()
    assert beta.wait_stopped() == 0
    config = beta.place.config
    config.write_text(config.read_text().replace("/node.pem", "/next.pem"))
    beta = nodes[1] = LocalNode(beta.place)
    beta.start()
    beta.wait_ready()
    wait_until("beta is in step with the new key alone", lambda: sync_state(beta) == "in-step", CHANGE_SECONDS)
    wait_until("beta votes", lambda: (get(beta, "/v1/status") or {})["signing"]["state"] == "clear", CHANGE_SECONDS)
    return beta


def begin_anew(node: LocalNode) -> LocalNode:
    """A node with an empty data directory knows neither its own key nor beta's: it syncs through both coming up."""
    node.terminate()
    assert node.wait_stopped() == 0
    shutil.rmtree(node.place.data)
    node = LocalNode(node.place, ["--joining"])
    node.start()
    node.wait_ready()
    wait_until("the node is in step again", lambda: sync_state(node) == "in-step", CHANGE_SECONDS)
    assert ctl("status", "--url", node.place.url)["member_id"] == "epsilon"
    return node
