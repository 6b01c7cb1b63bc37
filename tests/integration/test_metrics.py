"""Metrics: each is documented, and what is documented is there."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from node.metrics import Metrics
from telephony.agent import Counters
from telephony.agent_http import Metrics as AgentMetrics
from telephony.intake import IntakeCounters
from telephony.watching import WatchCounters
from tests.integration.api_node import NOW_MS, ApiNode

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def scraped() -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return the samples of a scrape by name."""
    node = ApiNode()
    node.tick(3)
    node.counters.records_final, node.counters.rejected["bad-signature"] = 7, 2
    body, content_type = Metrics(node).render()
    assert content_type.startswith("text/plain")
    families = list(text_string_to_metric_families(body.decode()))
    samples = [sample for family in families for sample in family.samples]
    return {s.name: [(x.labels, x.value) for x in samples if x.name == s.name] for s in samples}


OF_NODES, OF_AGENTS = (ROOT / "docs" / "metrics.md").read_text().split("\n## ledger-agent\n")


def test_the_table_and_the_scrape_name_the_same_metrics(scraped):
    rows = re.findall(r"^\| `(\w+)` \| (gauge|counter) \|", OF_NODES, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(scraped)
    assert [name for name, kind in rows if (kind == "counter") != name.endswith("_total")] == []


def test_the_text_beside_the_table_names_metrics_that_are(scraped):
    named = set(re.findall(r"\b(?:ledgerd|process|python)_\w+", OF_NODES))
    assert named <= set(scraped)


def test_values_are_the_nodes(scraped):
    assert scraped["ledgerd_slot"] == [({}, 13.0)]
    assert scraped["ledgerd_clock_skew_seconds"] == [({}, -0.005)]
    assert [labels["state"] for labels, value in scraped["ledgerd_signing"] if value] == ["clear"]
    assert scraped["ledgerd_rejected_total"] == [({"reason": "bad-signature"}, 2.0)]
    assert [value for labels, value in scraped["ledgerd_records_total"] if labels == {"promise": "final"}] == [7.0]
    assert scraped["ledgerd_final_age_seconds"][0][1] <= (NOW_MS + 3_000 - (NOW_MS - 10_000)) / 1000


def test_the_agents_table_and_its_scrape_name_the_same_metrics():
    agent = SimpleNamespace(
        counters=Counters(), intake=SimpleNamespace(counters=IntakeCounters()), failing={"http://a": 1}, has_room=True
    )
    for name in (
        "built",
        "known",
        "stored",
        "final",
        "void",
        "resigned",
        "backlog",
        "waiting",
        "oldest_age_ms",
        "dead",
    ):
        setattr(agent, name, 0)
    watch = SimpleNamespace(name="w", counters=WatchCounters())
    registry = CollectorRegistry()
    registry.register(AgentMetrics(cast("Any", agent), [cast("Any", watch)]))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    found = {sample.name for family in families for sample in family.samples}
    rows = re.findall(r"^\| `(\w+)` \| (gauge|counter) \|", OF_AGENTS, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(found)
    assert [name for name, kind in rows if (kind == "counter") != name.endswith("_total")] == []
    assert set(re.findall(r"\bledger_agent_\w+", OF_AGENTS)) == found
