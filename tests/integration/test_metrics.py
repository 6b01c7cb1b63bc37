"""Metrics: each is documented, and what is documented is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from node.metrics import Metrics
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


OF_NODES, _ = (ROOT / "docs" / "metrics.md").read_text().split("\n## ledger-agent\n")


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
