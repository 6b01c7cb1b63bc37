"""The agent beside a proxy: how fast it takes CDRs in and catches up, and what it holds in memory.

A real ``ledger-agent`` on one core of its own; the proxies, and a ledger that says final at once, on the others.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from benchmarks.ingest_load import Load, LoadResult, numbers_of, template_of
from benchmarks.processes import cpu_s
from benchmarks.report import Figure
from benchmarks.rules import measure_rules
from node.config import NodeConfig
from node.development import make_development_chain
from telephony.adapters.base import Kind
from telephony.spool import GROUP_BYTES_MAX, HEADER_BYTES, Spool

ROUNDS = 5
"""Of each load; the best one counts: what else the machine does is no cost of the agent's."""
ROUND_S = 5.0
SINGLE_CONNECTIONS = 64
ARRAY_CONNECTIONS = 16
ARRAY_CDRS = 50
SYNC_S = 2.0
OUTAGE_RECORDS = 1_000_000
"""At least so many: a large wholesale carrier takes in 700,000 in its busiest hour."""
OUTAGE_S = 600.0
"""Until all of it is built, or all of it is final, at most."""
MEMORY_RECORDS = 1_000_000
MIB = 1 << 20
BUILT = "ledger_agent_built_records_total"
NOBODY = "http://127.0.0.1:9"
NUMBER = "123456789012"
CALLER = "210987654321"
"""What stands in the CDR for them."""
CALL_AGE_S = 600


def run() -> list[Figure]:
    """Measure everything."""
    with tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory:
        bench = Bench(Path(directory))
        syncs = bench.measure_syncs()
        bare = bench.measure_bare()
        # Before anything that writes a gigabyte: a disk that has just taken that is slower for a while.
        building = bench.building_figures()
        return [
            Figure("ceiling_fsync_per_s", "synced writes of one CDR", syncs, "/s"),
            Figure(
                "ceiling_bare_posts_per_s",
                "posts to the same server without work",
                bare.single.posts_per_s,
                "/s",
                note=f"{_share(bare.single)}; {bare.arrays.records_per_s:,.0f} CDRs/s in posts of {ARRAY_CDRS}",
            ),
            *bench.intake_figures(bare, syncs),
            *building,
            *bench.outage_figures(),
            bench.memory_figure(),
            Figure("rules_us_per_record", "quality, energy and rules", measure_rules(), "us", target=5, at_most=True),
        ]


class Round(NamedTuple):
    """The best round of one load."""

    records_per_s: float
    posts_per_s: float
    p99_ms: float
    core_share: float
    """CPU seconds of the server a second: less than 1 where other programs had the core, or it waited."""

    @property
    def core_us(self) -> float:
        """Return what a post takes of the core, in microseconds."""
        return self.core_share / self.posts_per_s * 1e6


class Rounds(NamedTuple):
    """The best rounds of both loads."""

    single: Round
    arrays: Round


class Bench:
    """Processes and files of the measurement."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        cores = sorted(os.sched_getaffinity(0))
        self._own_core = {cores[-1]}
        self._other_cores = set(cores[:-1]) or self._own_core
        os.sched_setaffinity(0, self._other_cores)
        now_ms = time.time_ns() // 1_000_000
        self._chain = make_development_chain(NodeConfig(data=directory), now_ms)
        self._now_s = now_ms // 1000
        self._numbers = 0
        self._outage_peak = 0

    # -- what is measured --------------------------------------------------------------------------------------------

    def measure_syncs(self) -> float:
        """Return how many writes of one CDR, each synced, the disk takes a second."""
        data = self._document(0)
        fd = os.open(self._directory / "syncs", os.O_RDWR | os.O_CREAT)
        try:
            done, started_s = 0, time.perf_counter()
            while (took_s := time.perf_counter() - started_s) < SYNC_S:
                os.pwrite(fd, data, done * len(data))
                os.fdatasync(fd)
                done += 1
        finally:
            os.close(fd)
        return done / took_s

    def measure_bare(self) -> Rounds:
        """Return what the server does on one core with nothing behind it."""
        with self._started("benchmarks.ingest_bare", cores=self._own_core) as (process, url):
            return self._loads(url, process.pid)

    def intake_figures(self, bare: Rounds, syncs: float) -> list[Figure]:
        """Return how fast an agent takes CDRs in while the ledger is away."""
        with self._agent("intake", NOBODY) as (process, url):
            found = self._loads(url, process.pid)
        array, single = found.arrays, found.single
        return [
            Figure(
                "agent_durable_records_per_s",
                f"CDRs in posts of {ARRAY_CDRS}, durable",
                array.records_per_s,
                "/s",
                target=40_000,
                note=f"{array.posts_per_s / bare.arrays.posts_per_s:.2f} of the bare server, {_share(array)}, "
                f"p99 {array.p99_ms:.1f} ms",
            ),
            Figure(
                "agent_single_posts_per_s",
                "posts of one CDR, durable",
                single.posts_per_s,
                "/s",
                target=12_000,
                note=f"{single.posts_per_s / bare.single.posts_per_s:.2f} of the bare server, {_share(single)}, "
                f"{single.posts_per_s / syncs:.1f} of the synced writes",
            ),
            Figure(
                "agent_p99_ms",
                f"answer to a post of one CDR, {SINGLE_CONNECTIONS} at a time, 99 of 100",
                single.p99_ms,
                "ms",
                target=20,
                at_most=True,
                note=f"{bare.single.p99_ms:.1f} ms at the bare server",
            ),
        ]

    def building_figures(self) -> list[Figure]:
        """Return how fast an agent takes CDRs in that builds and hands in meanwhile, with a ledger in reach."""
        beside = self._started("benchmarks.ingest_ledger", cores=self._other_cores)
        with beside as (_, ledger), self._agent("building", ledger) as (process, url):
            self._load(url, process.pid, cdrs=1, connections=1, seconds=0.0)
            _await_metric(url, "ledger_agent_final_records_total", 1)
            single = self._singles(url, process.pid)
            built = _metric(url, BUILT)
        return [
            Figure(
                "agent_building_posts_per_s",
                "posts of one CDR, with a ledger in reach",
                single.posts_per_s,
                "/s",
                target=12_000,
                note=f"{_share(single)}; {built:,} built meanwhile",
            ),
            Figure(
                "agent_building_p99_ms",
                "answer to a post of one CDR, with a ledger in reach",
                single.p99_ms,
                "ms",
                target=20,
                at_most=True,
            ),
        ]

    def outage_figures(self) -> list[Figure]:
        """Return how fast the calls of an outage are built while it lasts, and handed in and final after it."""
        with contextlib.ExitStack() as stack:
            with self._started("benchmarks.ingest_ledger", cores=self._other_cores) as (_, ledger):
                process, url = stack.enter_context(self._agent("outage", ledger))
                self._load(url, process.pid, cdrs=1, connections=1, seconds=0.0)
                # With the first that is final, the ledger has told the time.
                before = _await_metric(url, "ledger_agent_final_records_total", 1)
            taken = before
            while taken < OUTAGE_RECORDS:
                self._load(url, process.pid, cdrs=ARRAY_CDRS, connections=ARRAY_CONNECTIONS)
                taken = _metric(url, "ledger_agent_spooled_records_total")
            built, started_s, core_s = _metric(url, BUILT), time.perf_counter(), cpu_s(process.pid)
            left = taken - built
            _await_metric(url, BUILT, taken)
            build_s, build_core_s = time.perf_counter() - started_s, cpu_s(process.pid) - core_s
            port = str(urlsplit(ledger).port)
            stack.enter_context(self._started("benchmarks.ingest_ledger", port, cores=self._other_cores))
            started_s, core_s = time.perf_counter(), cpu_s(process.pid)
            final = _await_metric(url, "ledger_agent_final_records_total", taken)
            took_s, core_s = time.perf_counter() - started_s, cpu_s(process.pid) - core_s
            dead, self._outage_peak = _metric(url, "ledger_agent_dead_letters"), _peak_bytes(process.pid)
        if dead or final != taken:
            raise RuntimeError(f"{final} of {taken} records are final and {dead} are dead letters")
        replayed = final - before
        return [
            Figure(
                "build_records_per_s",
                "CDRs made into signed records during an outage",
                left / build_s,
                "/s",
                note=f"{left:,} records, {build_core_s / build_s:.2f} of a core, {build_core_s / left * 1e6:.0f} us of "
                f"it for each",
            ),
            Figure(
                "replay_records_per_s",
                "backlog of an outage, from the ledger's return to final",
                replayed / took_s,
                "/s",
                target=20_000,
                note=f"{replayed:,} records in {took_s:.1f} s, {core_s / replayed * 1e6:.1f} us of a core for each",
            ),
        ]

    def memory_figure(self) -> Figure:
        """Return the most memory of an agent with a long backlog: through an outage, or when nothing is built."""
        self._fill("memory", MEMORY_RECORDS)
        with self._agent("memory", NOBODY) as (process, url):
            self._load(url, process.pid, cdrs=ARRAY_CDRS, connections=ARRAY_CONNECTIONS)
            peak, backlog = _peak_bytes(process.pid), _metric(url, "ledger_agent_backlog_records")
        note = f"{peak / MIB:.0f} MB with {backlog:,} waiting as they came"
        return Figure(
            "agent_rss_mb",
            "memory, a million built and replayed",
            max(peak, self._outage_peak) / MIB,
            "MB",
            150,
            at_most=True,
            note=note,
        )

    # -- documents ---------------------------------------------------------------------------------------------------

    def _cdr(self) -> str:
        """Return a CDR as Kamailio writes it, of a call that ended some minutes ago."""
        end_s = self._now_s - CALL_AGE_S
        caller, callee = f"sip:+883{CALLER}@example.net", "sip:+12025550123@example.net"
        quality = {
            "mos_avg": "4.3",
            "mos_min": "4.3",
            "mos_min_at": "0:03",
            "mos_max": "4.4",
            "mos_samples": "4",
            "loss_avg": "0",
            "jitter_avg": "8",
            "rtt_avg": "274",
        }
        return json.dumps(
            {
                "start_time": f"{end_s - 90}.494",
                "end_time": f"{end_s}.521",
                "duration": "90.027",
                "call_id": NUMBER,
                "from_tag": "fe6f1a6b3",
                "from": caller,
                "to": callee,
                "ruri": callee,
                "src_ip": "192.0.2.1",
                "setup_ts": str(end_s - 95),
                "sip_code": "200",
                "bye_from": "fe6f1a6b3",
                **quality,
            }
        )

    def _document(self, number: int) -> bytes:
        return template_of(self._cdr(), NUMBER, CALLER) % numbers_of(number)

    def _fill(self, name: str, count: int) -> None:
        """Put documents into a spool, as an agent would have."""
        group_records = GROUP_BYTES_MAX // (HEADER_BYTES + len(self._document(0)))
        template = template_of(self._cdr(), NUMBER, CALLER)
        spool = Spool(self._directory / name)
        try:
            for start in range(0, count, group_records):
                numbers = range(start, min(start + group_records, count))
                documents = [(int(Kind.KAMAILIO), template % numbers_of(number)) for number in numbers]
                spool.append(documents, time_ms=self._now_s * 1000)
        finally:
            spool.close()

    # -- processes ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _agent(self, name: str, ledger: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
        files = self._chain.config
        home = self._directory / "dev"
        arguments = {
            "listen": "127.0.0.1:0",
            "spool": self._directory / name,
            "to": ledger,
            "genesis": files.genesis,
            "submit-key": files.submit_key,
            "member-secret": files.member_secret,
            "token-file": home / "token",
            "ingest-tokens": files.tokens,
            "log-level": "error",
        }
        flags = [f"--{option}={value}" for option, value in arguments.items()]
        with self._started("node.cli.agent", "run", *flags, cores=self._own_core) as started:
            yield started

    @contextlib.contextmanager
    def _started(self, module: str, *arguments: str, cores: set[int]) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """Run a module bound to some cores; yield it and the address that it prints first."""
        ours = os.sched_getaffinity(0)
        # What is begun takes over where its parent may run, and so do all its threads.
        os.sched_setaffinity(0, cores)
        try:
            command = [sys.executable, "-m", module, *arguments]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        finally:
            os.sched_setaffinity(0, ours)
        with process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().strip()
                if not url:
                    raise RuntimeError(f"{module} did not start")
                yield process, url
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()

    def _loads(self, url: str, pid: int) -> Rounds:
        single = self._singles(url, pid)
        arrays = [self._load(url, pid, cdrs=ARRAY_CDRS, connections=ARRAY_CONNECTIONS) for _ in range(ROUNDS)]
        return Rounds(single, max(arrays))

    def _singles(self, url: str, pid: int) -> Round:
        return max(self._load(url, pid, cdrs=1, connections=SINGLE_CONNECTIONS) for _ in range(ROUNDS))

    def _load(self, url: str, pid: int, *, cdrs: int, connections: int, seconds: float = ROUND_S) -> Round:
        """Post for a while from a process of its own."""
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        load = Load(
            host=address.hostname,
            port=address.port,
            path="/v1/ingest/kamailio",
            token=self._chain.token,
            cdr=self._cdr(),
            number=NUMBER,
            caller=CALLER,
            first=MEMORY_RECORDS + self._numbers,
            connections=connections,
            cdrs_per_post=cdrs,
            seconds=seconds,
        )
        before_s = cpu_s(pid)
        command = [sys.executable, "-m", "benchmarks.ingest_load"]
        done = subprocess.run(command, input=msgspec.json.encode(load), stdout=subprocess.PIPE, check=True)
        result = msgspec.json.decode(done.stdout, type=LoadResult)
        if result.refusals:
            raise RuntimeError(f"refused: {result.refusals[0]}")
        self._numbers += result.records
        return Round(
            result.records / result.seconds,
            result.posts / result.seconds,
            result.latencies_ms[len(result.latencies_ms) * 99 // 100],
            (cpu_s(pid) - before_s) / result.seconds,
        )


def _share(found: Round) -> str:
    return f"{found.core_share:.2f} of a core, {found.core_us:.0f} us of it a post"


def _metric(url: str, name: str) -> int:
    """Return one figure of an agent; 0 where it has none of that name."""
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    return next((int(float(line.split()[1])) for line in lines if line.startswith(f"{name} ")), 0)


def _await_metric(url: str, name: str, value: int) -> int:
    """Return a figure of an agent when it has come to ``value``, or after a long time."""
    until_s = time.perf_counter() + OUTAGE_S
    while (found := _metric(url, name)) < value and time.perf_counter() < until_s:
        time.sleep(0.1)
    return found


def _peak_bytes(pid: int) -> int:
    """Return the most memory of a process that was ever resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
