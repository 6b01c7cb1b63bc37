"""Metrics in the format of Prometheus, read from the node at each scrape.

Names follow Prometheus' conventions: base units, ``_total`` on counters. Each is described in docs/metrics.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from node.signing import STATES as SIGNING_STATES
from node.status import SYNC_STATES

if TYPE_CHECKING:
    # The API serves the metrics, and so imports this module.
    from node.api.backend import Backend, NodeStatus

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
        status = self._node.status()
        yield from self._of_chain(status)
        yield from self._of_node(status)
        yield from self._of_producers()
        yield from self._of_peers()
        yield from self._counters()
        yield from self._histograms()

    def _of_chain(self, status: NodeStatus) -> Iterator[Metric]:
        yield _gauge("ledgerd_head_height", "Height of the tip of the best chain.", status.head.height)
        yield _gauge("ledgerd_justified_height", "Height of the highest justified block.", status.justified_height)
        yield _gauge("ledgerd_final_height", "Height of the final block.", status.final.height)
        age = status.final_age_ms / MS_PER_S
        yield _gauge("ledgerd_final_age_seconds", "Time since the slot of the final block began.", age)
        yield _gauge("ledgerd_slot", "Slot of this moment.", status.slot)
        length = self._node.genesis.parameters.slot_ms / MS_PER_S
        yield _gauge("ledgerd_slot_length_seconds", "How long a slot is.", length)
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

    def _of_node(self, status: NodeStatus) -> Iterator[Metric]:
        build = InfoMetricFamily("ledgerd_build", "The program and the chain it follows.")
        python = ".".join(map(str, sys.version_info[:3]))
        build.add_metric([], {"version": status.version, "python": python, "chain_id": self._node.chain_id.hex()})
        yield build
        sync = status.sync
        yield _states(
            "ledgerd_sync", "1 for the state that says whether this node is in step.", SYNC_STATES, sync.state
        )
        yield _gauge("ledgerd_sync_behind_blocks", "Blocks this node lacks.", sync.behind_blocks)
        yield _gauge("ledgerd_sync_target_height", "Height that the peers have come to.", sync.target_height)
        yield _gauge("ledgerd_pool_transactions", "Transactions that are not final yet.", status.pool_transactions)
        yield _gauge("ledgerd_pool_records", "Records that are not final yet.", status.pool_records)
        yield _gauge("ledgerd_disk_full", "1 while the disk has no room.", status.is_disk_full)
        if status.disk is not None:
            yield _gauge("ledgerd_disk_free_bytes", "Room on the disk of the data directory.", status.disk.free_bytes)
            yield _gauge("ledgerd_store_bytes", "What the data directory holds.", status.disk.store_bytes)
        skew = status.clock_skew_ms / MS_PER_S
        yield _gauge("ledgerd_clock_skew_seconds", "How far the clocks of peers are ahead, in the median.", skew)
        yield _states(
            "ledgerd_signing",
            "1 for the state that says whether this node may vote and seal.",
            SIGNING_STATES,
            status.signing.state,
        )

    def _of_producers(self) -> Iterator[Metric]:
        """By producer: at most as many as seats, or as voters."""
        engine, counters = self._node.engine, self._node.counters
        votes = CounterMetricFamily("ledgerd_votes_seen", "Votes of each voter that came here.", labels=["producer"])
        last = GaugeMetricFamily(
            "ledgerd_last_vote_height", "Highest block that each voter was seen to vote for.", labels=["producer"]
        )
        for voter in engine.head.chain.state.voting.producers:
            seen = counters.votes.get(voter.key_id)
            votes.add_metric([voter.member_id], seen.count if seen is not None else 0)
            last.add_metric([voter.member_id], self._node.last_vote_height(voter.key_id) or 0)
        sealed = CounterMetricFamily("ledgerd_slots_sealed", "Slots used, in this epoch.", labels=["producer"])
        missed = CounterMetricFamily(
            "ledgerd_slots_missed",
            "Slots unused while votes were owed, in this epoch.",
            labels=["producer"],
        )
        # Of the final block: a count that a reorganisation takes back would be read as a restart.
        state = engine.final.chain.state
        for seat, turn in zip(state.epoch.seats, state.turns.turns, strict=True):
            sealed.add_metric([seat.member_id], turn.sealed)
            missed.add_metric([seat.member_id], turn.missed)
        yield from (votes, last, sealed, missed)

    def _of_peers(self) -> Iterator[Metric]:
        """By producer, this node itself left out; other peers are only counted."""
        engine, peers = self._node.engine, self._node.peers()
        yield _gauge("ledgerd_peers", "Connected peers.", len(peers))
        is_open = sum(peer.is_open_plaintext for peer in peers)
        yield _gauge("ledgerd_peers_plaintext", "Peers beyond this machine without TLS.", is_open)
        heights = {peer.member_id: peer.head_height for peer in peers}
        up = GaugeMetricFamily("ledgerd_peer_up", "1 while the voter's node is connected.", labels=["producer"])
        height = GaugeMetricFamily(
            "ledgerd_peer_head_height", "Tip that the voter's node told of last.", labels=["producer"]
        )
        for voter in engine.head.chain.state.voting.producers:
            if voter.key_id in engine.key_ids:
                continue
            up.add_metric([voter.member_id], voter.member_id in heights)
            if heights.get(voter.member_id) is not None:
                height.add_metric([voter.member_id], heights[voter.member_id] or 0)
        yield from (up, height)
        messages = CounterMetricFamily(
            "ledgerd_peer_messages", "Messages between peers.", labels=["direction", "message"]
        )
        octets = CounterMetricFamily(
            "ledgerd_peer_bytes", "Bytes of messages between peers.", labels=["direction", "message"]
        )
        for direction, kind, flow in self._node.traffic.flows():
            messages.add_metric([direction, kind], flow.messages)
            octets.add_metric([direction, kind], flow.octets)
        yield from (messages, octets)

    def _counters(self) -> Iterator[Metric]:
        counters = self._node.counters
        records = CounterMetricFamily("ledgerd_records", "Records by what was promised of them.", labels=["promise"])
        records.add_metric(["stored"], counters.records_stored)
        records.add_metric(["final"], counters.records_final)
        records.add_metric(["void"], counters.records_void)
        yield records
        yield _by("ledgerd_flagged_records", "New records handed in here, by suspicion.", "flag", counters.flagged)
        yield _counter("ledgerd_transactions_stored", "Transactions put on disk here.", counters.transactions_stored)
        yield _counter("ledgerd_transactions_dropped", "Transactions that expired or were void.", counters.dropped)
        yield _counter("ledgerd_blocks_sealed", "Blocks sealed by this node.", counters.blocks_sealed)
        yield _counter("ledgerd_blocks_final", "Blocks that became final.", counters.blocks_final)
        yield _counter("ledgerd_votes_cast", "Votes cast by this node.", counters.votes_cast)
        yield _counter("ledgerd_reorganisations", "Times the tip moved to another branch.", counters.reorganisations)
        yield _by("ledgerd_faults_proven", "Producers proven faulty.", "fault", counters.faults)
        yield _by("ledgerd_rejected", "Messages of peers that were lies.", "reason", counters.rejected)
        requests = CounterMetricFamily(
            "ledgerd_ingest_requests", "Requests that hand something in.", labels=["route", "status"]
        )
        for (route, status), count in sorted(counters.ingest_requests.items()):
            requests.add_metric([route, str(status)], count)
        yield requests

    def _histograms(self) -> Iterator[Metric]:
        counters = self._node.counters
        for name, text, histogram in (
            ("ledgerd_finality_seconds", "From a slot's beginning until its block is final here.", counters.finality_s),
            ("ledgerd_block_records", "Records of a block that became the tip.", counters.block_records),
            ("ledgerd_block_bytes", "Bytes of its transactions.", counters.block_bytes),
            ("ledgerd_event_loop_lag_seconds", "How late the program does what is due.", counters.loop_lag_s),
        ):
            yield HistogramMetricFamily(name, text, buckets=histogram.buckets(), sum_value=histogram.sum)
        ingest = HistogramMetricFamily(
            "ledgerd_ingest_seconds", "From a request until all of it is on disk.", labels=["route"]
        )
        for route, histogram in sorted(counters.ingest_s.items()):
            ingest.add_metric([route], buckets=histogram.buckets(), sum_value=histogram.sum)
        yield ingest


def _states(name: str, text: str, states: Iterable[str], current: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["state"])
    for state in states:
        family.add_metric([state], state == current)
    return family


def _by(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)
