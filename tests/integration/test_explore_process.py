"""The explorer's figures of a real ``ledgerd`` process, over its end and next start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.browser.kit import DevNode, running_node, wait_until


def figures(node: DevNode) -> Any:
    """Return all that was counted, once nothing is left to count."""
    wait_until("counted", lambda: not node.client.get("/v1/explore")["counted"]["is_looking_back"])
    return node.client.get("/v1/explore")["periods"]["all"]


def test_a_node_that_starts_again_counts_what_it_counted_before(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_node(data) as node:
        node.submit_records(500, per_transaction=50)
        before = figures(node)
        assert (before["records"], before["read"]["records"]) == (500, 500)
    with running_node(data) as node:
        after = figures(node)
        # Blocks without records may have become final meanwhile.
        assert {name: value for name, value in after.items() if name != "blocks"} == {
            name: value for name, value in before.items() if name != "blocks"
        }
        node.submit_records(30, seed=2)
        assert figures(node)["records"] == 530
