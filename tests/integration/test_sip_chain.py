"""The whole way of one record: a SIP call through Kamailio and rtpengine, final on four nodes, audited, proven."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from node.localnet import LocalNode, stop_all
from tests.integration.cluster_kit import get, running_cluster, wait_until
from tests.integration.test_sip_lab import needs_programs, run_lab


def records_of(node: LocalNode, *, token: str = "") -> list[dict]:
    """Return every final record of a node, private part included where the token is its owner's."""
    records = []
    for height in range(1, get(node, "/v1/status")["final"]["height"] + 1):
        for item in get(node, f"/v1/blocks/{height}")["transactions"]:
            count = get(node, f"/v1/transactions/{item['tx_id']}")["envelope"]["item_count"]
            for index in range(count):
                request = urllib.request.Request(f"{node.place.url}/v1/records/{item['tx_id']}/{index}")
                if token:
                    request.add_header("Authorization", f"Bearer {token}")
                with urllib.request.urlopen(request, timeout=10) as response:
                    records.append(json.load(response))
    return records


@pytest.mark.system
@pytest.mark.slow
@needs_programs
def test_real_calls_are_on_the_chain_with_rtpengines_mos(tmp_path: Path) -> None:
    """Answered, busy, cancelled and without RTCP: each call's record is final on all nodes, MOS as rtpengine said."""
    with running_cluster(tmp_path / "net") as (_cluster, nodes):
        alpha = nodes[0]
        lab = run_lab(tmp_path, "--ingest-url", f"{alpha.place.url}/v1/ingest/kamailio", "--token", alpha.place.token)
        calls = {call["call_id"]: call for call in lab["calls"]}
        assert {call["kind"] for call in lab["calls"]} >= {"answered", "busy", "cancelled", "without-rtcp"}

        def own() -> dict[str, dict]:
            records = records_of(alpha, token=alpha.place.token)
            return {record["private"]["call_id"]["value"]: record for record in records}

        wait_until("every call is final", lambda: own().keys() == calls.keys(), 30)
        by_call = own()
        for call_id, call in calls.items():
            record = by_call[call_id]["record"]
            if call["kind"] == "answered":
                tags = call["rtpengine"]["tags"].values()
                heard_by_caller = next(tag for tag in tags if tag["label"] == "A")
                ssrc = str(heard_by_caller["medias"][0]["streams"][0]["SSRC"])
                measured = call["rtpengine"]["SSRC"][ssrc]["average MOS"]
                assert record["quality"]["method"] == "rtpengine_10"
                assert record["quality"]["observer"] == "caller"
                assert record["quality"]["mean"]["mos_milli"] == measured["MOS"] * 100
            else:
                assert record["quality"] is None
            assert record["sip_code"] == {"busy": 486, "cancelled": 487}.get(call["kind"], 200)
        public = [{k: v for k, v in record.items() if k != "private"} for record in by_call.values()]
        lowest = max(record["promise"]["height"] for record in public)
        for node in nodes[1:]:
            wait_until("others have them", lambda node=node: get(node, "/v1/status")["final"]["height"] >= lowest)
            others = records_of(node)
            assert [r["record"] for r in others] == [by_call_id["record"] for by_call_id in records_of(alpha)]
            assert not any("private" in record for record in others)
        stop_all(nodes)
        for node in nodes:
            audit = subprocess.run(
                [sys.executable, "-m", "node.cli.verify", node.place.data, "--genesis", tmp_path / "net/genesis.json"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert audit.returncode == 0, audit.stdout + audit.stderr
