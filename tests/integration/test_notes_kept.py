"""A real node that was killed shows the cosignatures that it was given, and its directory passes the audit."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from audit.notes import COSIGNATURE, LogKey, parse_note, parse_tree_head
from node.cluster import make_cluster
from node.founding import DEFAULT_PARAMETERS
from node.localnet import LocalNode, stop_all
from tests.integration.cluster_kit import Feeder, is_final, post, wait_until, wall_ms

ROOT = Path(__file__).parents[2]
NAME = "witness.example/w1"
pytestmark = pytest.mark.xdist_group("cluster")


def test_a_killed_node_shows_the_cosignature_again(tmp_path: Path) -> None:
    parameters = msgspec.structs.replace(DEFAULT_PARAMETERS, slot_ms=200)
    cluster = make_cluster(tmp_path / "net", ["solo"], genesis_time_ms=wall_ms(), parameters=parameters)
    log, witness = LogKey.generate(), LogKey.generate()
    (tmp_path / "log.pem").write_bytes(log.to_pem())
    known = witness.note_key(NAME, COSIGNATURE)
    options = ("--log-key", str(tmp_path / "log.pem"), "--witnesses", known.to_text())
    node = LocalNode(cluster.nodes[0], options)
    feeder = Feeder(cluster)

    def grow() -> None:
        tx_id = feeder.send(node, 3)
        assert tx_id is not None
        wait_until("a record is final", lambda: is_final(node, tx_id))

    def shown() -> bytes:
        return node.client.get_bytes("/checkpoint")

    try:
        node.start()
        node.wait_ready()
        grow()
        note = parse_note(node.client.get_bytes("/checkpoint?newest=1"))
        cosigned = note.signed(witness.cosign(note.text, NAME, int(time.time())))
        size = parse_tree_head(note.text).size
        answer = post(node, "/v1/light/cosignatures", cosigned.to_bytes(), "text/plain")
        assert answer == {"height": size, "cosignatures": 1}
        grow()
        before = shown()
        assert (parse_note(before), parse_tree_head(parse_note(before).text).size) == (cosigned, size)
        node.kill()
        node.start()
        node.wait_ready()
        assert shown() == before
        grow()
        assert shown() == before
    finally:
        stop_all([node])
    command = [sys.executable, "-m", "node.cli.verify", str(node.place.data)]
    genesis = ["--genesis", str(tmp_path / "net" / "genesis.json")]
    done = subprocess.run([*command, *genesis], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout.startswith("OK: ")) == (0, True), done.stderr
