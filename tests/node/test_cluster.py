"""Networks in one directory: what their nodes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.errors import ConfigError
from node.cluster import add_home, make_cluster
from node.config import load_config


def test_a_home_for_a_member_to_come_joins_the_others(tmp_path: Path) -> None:
    cluster = make_cluster(tmp_path / "network", ["alpha", "beta"], genesis_time_ms=1_000)
    place = add_home(cluster, "gamma")
    config = load_config({}, {}, place.config)
    assert (config.joining, config.genesis) == (True, cluster.genesis_file)
    assert config.peers == tuple(f"ws://{node.listen}" for node in cluster.nodes)
    assert (config.api, config.listen) == (place.api, place.listen)
    assert place.api not in {node.api for node in cluster.nodes}
    for name in ("node.pem", "submit.pem", "govern.pem", "secret", "tokens.json"):
        assert (place.home / name).stat().st_mode & 0o077 == 0
    # The founders do not wait to be admitted.
    assert not load_config({}, {}, cluster.nodes[0].config).joining
    assert "gamma" not in {member.member_id for member in cluster.genesis.members}


def test_a_home_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    cluster = make_cluster(tmp_path / "network", ["alpha"], genesis_time_ms=1_000)
    with pytest.raises(ConfigError, match="Choose another directory"):
        add_home(cluster, "alpha")
