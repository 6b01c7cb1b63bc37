"""Metrics in the format of Prometheus, read from the node at each scrape.

Names follow Prometheus' conventions: base units, ``_total`` on counters. Each is described in docs/metrics.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from node.signing import STATES as SIGNING_STATES

if TYPE_CHECKING:
    # The API serves the metrics, and so imports this module.
    from node.api.backend import Backend

MS_PER_S: Final = 1000


class Metrics:
    """The metrics of one node, in a registry of their own."""

    def __init__(self, node: Backend) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_NodeCollector(node))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def render(self) -> tuple[bytes, str]:
        """Return the text of a scrape and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class _NodeCollector(Collector):
    """Reads status and counters when asked."""

    def __init__(self, node: Backend) -> None:
        self._node = node

    def describe(self) -> Iterator[Metric]:
        """Return nothing: names are checked by a test, and the node may not be up yet."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Return every metric as it is now."""
        yield from self._gauges()
        yield from self._counters()

    def _gauges(self) -> Iterator[Metric]:
        status = self._node.status()
        build = InfoMetricFamily("ledgerd_build", "The program and the chain it follows.")
        python = ".".join(map(str, sys.version_info[:3]))
        build.add_metric([], {"version": status.version, "python": python, "chain_id": self._node.chain_id.hex()})
        yield build
        yield _gauge("ledgerd_head_height", "Height of the tip of the best chain.", status.head.height)
        yield _gauge("ledgerd_justified_height", "Height of the highest justified block.", status.justified_height)
        yield _gauge("ledgerd_final_height", "Height of the final block.", status.final.height)
        age = status.final_age_ms / MS_PER_S
        yield _gauge("ledgerd_final_age_seconds", "Time since the slot of the final block began.", age)
        yield _gauge("ledgerd_slot", "Slot of this moment.", status.slot)
        yield _gauge("ledgerd_sync_behind_blocks", "Blocks this node lacks.", status.sync.behind_blocks)
        yield _gauge("ledgerd_peers", "Connected peers.", status.peers)
        yield _gauge("ledgerd_pool_transactions", "Transactions that are not final yet.", status.pool_transactions)
        yield _gauge("ledgerd_pool_records", "Records that are not final yet.", status.pool_records)
        yield _gauge("ledgerd_disk_full", "1 while the disk has no room.", status.is_disk_full)
        skew = status.clock_skew_ms / MS_PER_S
        yield _gauge("ledgerd_clock_skew_seconds", "How far the clocks of peers are ahead, in the median.", skew)
        signing = GaugeMetricFamily(
            "ledgerd_signing", "1 for the state that says whether this node may vote and seal.", labels=["state"]
        )
        for state in SIGNING_STATES:
            signing.add_metric([state], state == status.signing.state)
        yield signing
        engine = self._node.engine
        yield _gauge("ledgerd_producers", "Producers of the epoch.", len(engine.producers))
        yield _gauge("ledgerd_quorum", "Producers that make a quorum.", engine.quorum)
        governed = engine.head.chain.state
        yield _gauge(
            "ledgerd_voting_set", "Number of the voting set, one more with each change.", governed.voting.set_id
        )
        is_changing = governed.voting.pending is not None
        yield _gauge("ledgerd_voting_set_changing", "1 while a change of the voting set is not final.", is_changing)
        yield _gauge("ledgerd_members", "Members of the chain.", len(governed.members))
        yield _gauge("ledgerd_members_struck", "Members proven faulty and not readmitted.", len(governed.struck))
        yield _gauge("ledgerd_proposals", "Proposals that were not carried out yet.", len(governed.proposals))

    def _counters(self) -> Iterator[Metric]:
        counters = self._node.counters
        records = CounterMetricFamily("ledgerd_records", "Records by what was promised of them.", labels=["promise"])
        records.add_metric(["stored"], counters.records_stored)
        records.add_metric(["final"], counters.records_final)
        records.add_metric(["void"], counters.records_void)
        yield records
        yield _counter("ledgerd_transactions_stored", "Transactions put on disk here.", counters.transactions_stored)
        yield _counter("ledgerd_transactions_dropped", "Transactions that expired or were void.", counters.dropped)
        yield _counter("ledgerd_blocks_sealed", "Blocks sealed by this node.", counters.blocks_sealed)
        yield _counter("ledgerd_blocks_final", "Blocks that became final.", counters.blocks_final)
        yield _counter("ledgerd_votes_cast", "Votes cast by this node.", counters.votes_cast)
        yield _counter("ledgerd_reorganisations", "Times the tip moved to another branch.", counters.reorganisations)
        faults = CounterMetricFamily("ledgerd_faults_proven", "Producers proven faulty.", labels=["fault"])
        for fault, count in sorted(counters.faults.items()):
            faults.add_metric([fault], count)
        yield faults
        rejected = CounterMetricFamily("ledgerd_rejected", "Messages of peers that were lies.", labels=["reason"])
        for reason, count in sorted(counters.rejected.items()):
            rejected.add_metric([reason], count)
        yield rejected


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)
