"""Two real nodes that had one history and now have two: found, blamed, and not extended; and their notes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from audit.lognote import origin_of
from audit.notes import LogKey
from ledger.genesis import chain_id_of
from ledger.payloads import Evidence, is_vote_fault
from ledger.readable import from_readable
from node.cluster import ClusterNode, make_cluster
from node.founding import DEFAULT_PARAMETERS
from node.localnet import LocalNode, stop_all
from tests.integration.cluster_kit import Feeder, get, is_final, wait_until, wall_ms

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("cluster")


@dataclass
class Twins:
    """Two nodes with one key, of which the second began with a copy of the first one's data.

    The second one comes further. Attributes:
        folder: has the genesis file, and a checkpoint of before.
    """

    nodes: list[LocalNode]
    folder: Path
    origin: str

    def verify(self, *arguments: object) -> tuple[int, list[str], dict[str, Any]]:
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "node.cli.verify", *map(str, arguments), "--json", str(report)]
        genesis = ["--genesis", str(self.folder / "genesis.json")]
        done = subprocess.run([*command, *genesis], capture_output=True, text=True, check=False, cwd=ROOT)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout.splitlines(), json.loads(report.read_bytes()) if report.exists() else {}


def final_height(node: LocalNode) -> int:
    answer = get(node, "/v1/head")
    return 0 if answer is None else answer["final"]["height"]


def block_id(node: LocalNode, height: int) -> str:
    answer = get(node, f"/v1/blocks/{height}")
    assert answer is not None
    return str(answer["block_id"])


def grow(feeder: Feeder, node: LocalNode, transactions: int) -> None:
    for _ in range(transactions):
        tx_id = feeder.send(node, 3)
        assert tx_id is not None
        wait_until("a record is final", lambda tx_id=tx_id: is_final(node, tx_id))


def copy_of(place: ClusterNode, home: Path, other: ClusterNode) -> ClusterNode:
    """Return a node with the same key and data at the addresses of another."""
    shutil.copytree(place.home, home)
    text = place.config.read_text().replace(str(place.home), str(home))
    text = text.replace(str(place.api), str(other.api)).replace(str(place.listen), str(other.listen))
    twin = replace(place, home=home, api=other.api, listen=other.listen)
    twin.config.write_text(text)
    return twin


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    folder = tmp_path_factory.mktemp("twins")
    parameters = msgspec.structs.replace(DEFAULT_PARAMETERS, slot_ms=200)
    cluster = make_cluster(folder / "net", ["solo"], genesis_time_ms=wall_ms(), parameters=parameters)
    spare = make_cluster(folder / "spare", ["spare"], genesis_time_ms=wall_ms(), parameters=parameters)
    key = LogKey.generate()
    (folder / "log.pem").write_bytes(key.to_pem())
    shutil.copy(folder / "net" / "genesis.json", folder / "genesis.json")
    place = cluster.nodes[0]
    options = ("--log-key", str(folder / "log.pem"))
    nodes = [LocalNode(place, options)]
    origin = origin_of(chain_id_of(cluster.genesis))
    try:
        nodes[0].start()
        nodes[0].wait_ready()
        grow(Feeder(cluster, seed=1), nodes[0], 2)
        made = Twins(nodes, folder, origin)
        genesis = f"0:{chain_id_of(cluster.genesis).hex()}"
        assert made.verify(place.url, "--since", genesis, "--save-checkpoint", folder / "far.json")[0] == 0
        stop_all(nodes)
        nodes.append(LocalNode(copy_of(place, folder / "twin", spare.nodes[0]), options))
        for node in nodes:
            node.start()
        for seed, node in enumerate(nodes, 2):
            node.wait_ready()
            grow(Feeder(cluster, seed=seed), node, 3)
        second = Feeder(cluster, seed=4)
        while final_height(nodes[1]) < final_height(nodes[0]) + 3:
            grow(second, nodes[1], 1)
        yield made
    finally:
        stop_all(nodes)


def test_two_histories_are_found_and_blamed(twins: Twins) -> None:
    status, lines, report = twins.verify("--compare", *(node.url for node in twins.nodes))
    assert (status, lines[0].startswith("NOT OK: "), "two blocks are final at one height" in lines[0]) == (
        1,
        True,
        True,
    )
    parting = report["conflict"]["first_difference"]
    assert parting["height"] > 1
    assert lines[1].startswith(f"The histories part at height {parting['height']}: ")
    assert lines[2] == "Proven to have voted for both: solo. The chain bears 0 faulty, and these are 1."
    height = parting["height"]
    there, below = ([block_id(node, at) for node in twins.nodes] for at in (height, height - 1))
    assert [side["block_id"] for side in parting["sides"]] == there
    assert below[0] == below[1]
    votes = from_readable(report["conflict"]["accused"][0]["evidence"], Evidence).votes
    assert is_vote_fault(*votes)


def test_both_extend_what_was_seen_before_and_not_each_other(twins: Twins) -> None:
    far = twins.folder / "far.json"
    first, second = (node.url for node in twins.nodes)
    for number, url in enumerate((first, second), 1):
        status, lines, report = twins.verify(url, "--since", far, "--save-checkpoint", twins.folder / f"far-{number}")
        assert (status, len(lines), report["ok"]) == (0, 1, True)
    status, lines, _ = twins.verify(second, "--since", twins.folder / "far-1")
    assert (status, lines[0].startswith("NOT OK: ")) == (1, True)
    # Of a node that has not come as far nothing can be said.
    assert twins.verify(first, "--since", twins.folder / "far-2")[0] == 2
    assert twins.verify(second, "--full", "--since", twins.folder / "far-1")[0] == 1
    status, lines, _ = twins.verify(second, "--full", "--since", far)
    assert (status, lines[0].startswith("OK: ")) == (0, True)


def test_the_same_node_twice_has_one_history(twins: Twins) -> None:
    status, lines, _ = twins.verify("--compare", twins.nodes[0].url, twins.nodes[0].url)
    assert (status, lines[0].startswith("OK: one history (")) == (0, True)


def test_a_node_signs_notes_with_its_log_key(twins: Twins) -> None:
    note = twins.folder / "note"
    note.write_bytes(twins.nodes[0].client.get_bytes("/checkpoint"))
    key = LogKey.from_pem((twins.folder / "log.pem").read_bytes(), where="").note_key(twins.origin).to_text()
    assert key in twins.nodes[0].log.read_text()
    status, lines, _ = twins.verify(note, "--key", key)
    assert (status, lines[0].endswith(f"; final by voting set 0; signed by {twins.origin}")) == (0, True)
    assert twins.verify(twins.nodes[0].url, "--since", note)[0] == 0
    assert twins.verify(twins.nodes[1].url, "--since", note)[0] == 1
