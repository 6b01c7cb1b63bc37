"""Metrics: each is documented, what is documented is there, and they are named as Prometheus' conventions have it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ledger.block import Vote
from ledger.payloads import FAULTS
from ledger.rules.flags import FLAGS
from node.metrics import Metrics
from p2p.messages import TYPE_BYTES, Peers
from tests.integration.api_node import KEY, NOW_MS, ApiNode
from tests.metric_kit import PROMTOOL, Family, check_with_promtool, families_of, faults_of

ROOT = Path(__file__).parent.parent.parent
OF_NODES, _ = (ROOT / "docs" / "metrics.md").read_text().split("\n## ledger-agent\n")


@pytest.fixture(scope="module")
def scrape() -> str:
    """Return what a node tells that has done a little of everything."""
    node = ApiNode()
    node.tick(3)
    counters = node.counters
    counters.records_final, counters.rejected["bad-signature"] = 7, 2
    counters.answered("/v1/records", 201, 0.06)
    counters.answered("/v1/records", 422, 3.0)
    counters.finality_s.observe(1.5)
    counters.saw_vote(Vote(1, bytes(32), 2, bytes(32), KEY.key_id, bytes(64)))
    node.traffic.received(Peers([]), 12)
    node.traffic.received(Peers([]), 8)
    body, content_type = Metrics(node).render()
    assert content_type.startswith("text/plain")
    return body.decode()


@pytest.fixture(scope="module")
def scraped(scrape: str) -> dict[str, Family]:
    return families_of(scrape)


def test_the_table_and_the_scrape_name_the_same_metrics(scraped: dict[str, Family]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (gauge|counter|histogram) \|", OF_NODES, re.MULTILINE)
    assert sorted(rows) == sorted((family.name, family.kind) for family in scraped.values())


def test_every_label_is_named_beside_its_metric(scraped: dict[str, Family]) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| \w+ \| (.+) \|$", OF_NODES, re.MULTILINE))
    ours = [family for family in scraped.values() if family.name.startswith("ledgerd_")]
    missing = [
        f"{family.name}: {label}" for family in ours for label in family.labels if f"`{label}`" not in rows[family.name]
    ]
    assert missing == []


def test_the_text_beside_the_table_names_metrics_that_are(scraped: dict[str, Family]) -> None:
    named = set(re.findall(r"\b(?:ledgerd|process|python)_\w+", OF_NODES))
    assert named <= set(scraped)


def test_names_are_as_the_conventions_have_it(scrape: str) -> None:
    assert faults_of(scrape) == []


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: Debian package prometheus")
def test_promtool_finds_nothing_to_say(scrape: str) -> None:
    assert check_with_promtool(scrape) == ""


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("# HELP a_ms_total x\n# TYPE a_ms_total counter\na_ms_total 1\n", "an abbreviated unit"),
        ("# TYPE a_seconds gauge\na_seconds 1\n", "no help"),
        ("# HELP a_total x\n# TYPE a_total gauge\na_total 1\n", "only counters end so"),
        ("# HELP a_count x\n# TYPE a_count gauge\na_count 1\n", "only parts of histograms"),
        ('# HELP a x\n# TYPE a gauge\na{job="b"} 1\n', "a label that Prometheus gives"),
        ("# HELP a_gauge x\n# TYPE a_gauge gauge\na_gauge 1\n", "names its kind"),
        ('# HELP a x\n# TYPE a gauge\na{someLabel="b"} 1\n', "not in small letters"),
    ],
)
def test_the_conventions_catch_what_they_forbid(line: str, fault: str) -> None:
    (found,) = faults_of(line)
    assert fault in found


def test_values_are_the_nodes(scraped: dict[str, Family]) -> None:
    assert scraped["ledgerd_slot"].samples == [({}, 13.0)]
    assert scraped["ledgerd_clock_skew_seconds"].samples == [({}, -0.005)]
    assert [labels["state"] for labels, value in scraped["ledgerd_signing"].samples if value] == ["clear"]
    assert [labels["state"] for labels, value in scraped["ledgerd_sync"].samples if value] == ["in-step"]
    assert scraped["ledgerd_rejected_total"].samples == [({"reason": "bad-signature"}, 2.0)]
    final = [value for labels, value in scraped["ledgerd_records_total"].samples if labels == {"promise": "final"}]
    assert final == [7.0]
    assert scraped["ledgerd_final_age_seconds"].samples[0][1] <= (NOW_MS + 3_000 - (NOW_MS - 10_000)) / 1000
    assert scraped["ledgerd_store_bytes"].samples == [({}, float(1 << 30))]


def test_producers_are_told_apart(scraped: dict[str, Family]) -> None:
    assert scraped["ledgerd_votes_seen_total"].samples == [({"producer": "carrier-a"}, 1.0)]
    assert scraped["ledgerd_last_vote_height"].samples == [({"producer": "carrier-a"}, 2.0)]
    assert [labels for labels, _ in scraped["ledgerd_slots_missed_total"].samples] == [{"producer": "carrier-a"}]
    # The only voter is this node itself.
    assert scraped["ledgerd_peer_up"].samples == []


def test_requests_and_their_times_are_told_by_route(scrape: str, scraped: dict[str, Family]) -> None:
    assert scraped["ledgerd_ingest_requests_total"].samples == [
        ({"route": "/v1/records", "status": "201"}, 1.0),
        ({"route": "/v1/records", "status": "422"}, 1.0),
    ]
    # The refused one took three seconds and does not count.
    for line in (
        'ledgerd_ingest_seconds_bucket{le="0.05",route="/v1/records"} 0.0',
        'ledgerd_ingest_seconds_bucket{le="0.1",route="/v1/records"} 1.0',
        'ledgerd_ingest_seconds_bucket{le="+Inf",route="/v1/records"} 1.0',
        'ledgerd_ingest_seconds_count{route="/v1/records"} 1.0',
        'ledgerd_finality_seconds_bucket{le="1.0"} 0.0',
        'ledgerd_finality_seconds_bucket{le="2.0"} 1.0',
        "ledgerd_finality_seconds_sum 1.5",
    ):
        assert line in scrape.splitlines()


def test_labels_are_bounded_by_the_program(scraped: dict[str, Family]) -> None:
    def values(name: str, label: str) -> list[str]:
        return sorted({labels[label] for labels, _ in scraped[name].samples})

    assert values("ledgerd_peer_messages_total", "message") == sorted(kind.__name__ for kind in TYPE_BYTES)
    assert values("ledgerd_peer_messages_total", "direction") == ["in", "out"]
    assert values("ledgerd_flagged_records_total", "flag") == sorted(FLAGS)
    assert values("ledgerd_faults_proven_total", "fault") == sorted(FAULTS)
    peers_in = {"direction": "in", "message": "Peers"}
    assert [value for labels, value in scraped["ledgerd_peer_messages_total"].samples if labels == peers_in] == [2.0]
    assert [value for labels, value in scraped["ledgerd_peer_bytes_total"].samples if labels == peers_in] == [20.0]
