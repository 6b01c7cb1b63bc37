"""The benchmarks' own arithmetic, records and command; what they measure is not a matter for tests."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from importlib import import_module
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

ROOT = Path(__file__).parent.parent
KEYS = {
    "one_node_records_per_s",
    "four_node_records_per_s",
    "finality_slots_p99",
    "finality_slots_p99_4",
    "finality_slots_p99_7",
    "finality_slots_p99_21",
    "set_change_extra_slots",
    "vote_cpu_percent_21",
    "audit_records_per_s",
    "audit_speedup_2_jobs",
    "audit_rss_growth_mb",
    "reference_records_per_s",
    "receipt_ms",
    "explorer_first_paint_ms",
    "explorer_idle_cpu_percent",
    "idle_cpu_percent",
    "rss_growth_mb",
    "agent_durable_records_per_s",
    "agent_single_posts_per_s",
    "agent_p99_ms",
    "agent_building_posts_per_s",
    "agent_building_p99_ms",
    "build_records_per_s",
    "replay_records_per_s",
    "agent_rss_mb",
    "rules_us_per_record",
    "ceiling_speedup_2_jobs",
    "ceiling_fsync_per_s",
    "ceiling_bare_posts_per_s",
    "ceiling_p256_verify_per_s",
    "ceiling_sha256_per_s",
    "ceiling_msgspec_decode_per_s",
    "ceiling_leveldb_batch_per_s",
}

sys.path.insert(0, str(ROOT / "scripts"))

from benchmarks import finality, frames, rules, traffic  # noqa: E402
from benchmarks.__main__ import PARTS  # noqa: E402
from benchmarks.load import percentile  # noqa: E402
from benchmarks.report import Figure, print_table, write_json  # noqa: E402

from ledger.cdr import CallRecord, QualityMethod, record_key_of  # noqa: E402
from ledger.codec import decode  # noqa: E402
from ledger.crypto import PrivateKey, is_valid_signature  # noqa: E402
from ledger.transaction import Transaction, tx_id_of  # noqa: E402
from telephony.synthetic import Traffic, generate_records  # noqa: E402


def test_percentile_is_the_smallest_value_that_so_many_do_not_exceed() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7.0], 99) == 7
    assert percentile([1.0, 2.0, 3.0], 50) == 2


def test_a_target_is_a_floor_or_a_bound() -> None:
    assert Figure("", "", 3, "/s", target=3).is_met
    assert not Figure("", "", 2.9, "/s", target=3).is_met
    assert Figure("", "", 3, "slots", target=3, at_most=True).is_met
    assert not Figure("", "", 3.1, "slots", target=3, at_most=True).is_met
    assert Figure("", "", 0, "").is_met


def test_the_file_is_one_flat_object_of_the_figures_with_a_key(tmp_path: Path) -> None:
    figures = [Figure("a_records_per_s", "a", 1234.56789, "/s"), Figure("", "shown only", 2, "")]
    write_json(figures, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == {"a_records_per_s": 1234.568}


def test_the_table_shows_ratios_to_the_ceilings_of_the_run() -> None:
    figures = [
        Figure("ceiling_sha256_per_s", "SHA-256", 1_000_000, "/s"),
        Figure("one_node_records_per_s", "one node", 62_500, "/s", target=50_000),
        Figure("idle_cpu_percent", "idle", 0.25, "%", target=2, at_most=True),
        Figure("", "a slot", 20, "ms"),
    ]
    output = StringIO()
    print_table(figures, Console(file=output, width=120, no_color=True))
    lines = [" ".join(line.split()) for line in output.getvalue().splitlines()]
    assert "measured target / SHA-256" in lines
    assert "one node 62,500/s >= 50,000 0.0625" in lines
    assert "idle 0.25 % <= 2" in lines
    # So many of them fit that time.
    assert "a slot 20.00 ms 2e+04" in lines


async def test_a_frame_between_two_transports_takes_some_of_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAMES", 40)
    assert 1 < await frames.frame_cost_us(1_000) < 100_000


def test_a_network_on_virtual_time_finds_how_soon_blocks_are_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four real nodes, forty slots: everything handed in is final, no sooner than two ways and a slot allow."""
    monkeypatch.setattr(traffic, "CHUNK_RECORDS", 4_500)
    path = tmp_path / "records"
    traffic._make_chunk((0, path), traffic.yesterday_ms())
    chain = finality.Chain(4, 4, 100, [path])

    async def play() -> tuple[dict[int, float], list[int]]:
        with chain.running(tmp_path / "nodes") as network:
            await chain.play(network, 40)
            return chain.finality(network), [node.real.counters.records_final for node in network.nodes]

    seen, records = asyncio.run(play())
    assert len(seen) >= 37
    assert len(set(records)) == 1
    assert records[0] >= 37 * finality.PARTS_PER_SLOT * finality.PART_RECORDS
    assert all(took >= 1 + 2 * finality.DELAY_MS / 1000 for took in seen.values())


def test_every_key_is_measured_by_a_part_and_explained() -> None:
    modules = [module for part in PARTS.values() for module in part]
    sources = [(ROOT / "scripts" / "benchmarks" / f"{module}.py").read_text() for module in modules]
    measured = {
        key
        for source in sources
        for key in re.findall(r'"(\w+_(?:per_s|p99|ms|us_per_record|percent|slots|mb|2_jobs)(?:_\d+)?)"', source)
    }
    assert measured == KEYS
    document = (ROOT / "docs" / "benchmarks.md").read_text()
    assert [key for key in sorted(KEYS) if f"`{key}`" not in document] == []
    assert [part for part in PARTS if f"### `{part}`" not in document] == []
    assert all(callable(import_module(f"benchmarks.{module}").run) for module in modules)


def test_records_are_distinct_ordered_by_their_ends_and_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "CHUNK_RECORDS", 1_500)
    paths = [tmp_path / "0", tmp_path / "1"]
    for index, path in enumerate(paths):
        traffic._make_chunk((index, path), traffic.yesterday_ms())
    batches = list(traffic.read_batches(paths, 2_200))
    assert [len(batch) for batch in batches] == [1_000, 500, 700]
    records = [decode(item, CallRecord) for batch in batches for item in batch]
    assert len({record_key_of("solo", record) for record in records}) == 2_200
    assert all(before.end_ms <= after.end_ms for before, after in pairwise(records[:1_500]))
    key = PrivateKey.from_seed(b"bench")
    raws = traffic.sign_batches(iter(batches), key=key, member_id="solo", chain_id=bytes(32), now_ms=1)
    transactions = [decode(raw, Transaction) for raw in raws]
    assert [transaction.items for transaction in transactions] == batches
    assert all(is_valid_signature(key.public_key, tx_id_of(t.envelope), t.signature) for t in transactions)


def test_an_unknown_part_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "one_nod"],
        cwd=ROOT / "scripts",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert (
        "no such part: one_nod; there are ceilings, one_node, four_nodes, consensus, audit, idle, memory" in done.stderr
    )


def test_the_cost_of_the_rules_is_that_of_real_work() -> None:
    """Quality is rated to what the record says, and energy is reckoned wherever there is some."""
    records = [next(iter(chunk)) for chunk in [generate_records(Traffic(seed=n, start_ms=10**12)) for n in range(40)]]
    rated = [record for record in records if record.quality and record.quality.method is QualityMethod.G107]
    assert rated
    assert [rules.rate(record) for record in rated] == [record.quality.mean.mos_milli for record in rated]
    assert [rules.reckon(record) > 0 for record in records] == [record.energy is not None for record in records]
    assert rules.measure_rules(records=10, rounds=1) > 0
