"""The explorer's first page in a real browser with two million records behind the node, and what an open page costs."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chromium import Browser, Page, find_chromium, running_chromium
from benchmarks.processes import cpu_s
from benchmarks.report import Figure
from benchmarks.solo import SoloChain, fill_chain
from benchmarks.traffic import prepare_records
from ledger.genesis import genesis_from_json
from node.clock import now_ms
from node.cluster import HOST, free_ports
from node.config import NodeConfig
from node.development import make_development_chain
from node.keyfile import read_key
from node.localnet import STOP_SECONDS

RECORDS = 2_000_000
LOAD_S = 180.0
PAINTS = 5
PAINT_S = 20.0
"""How long a page may take before it counts as broken."""
READ_AGAIN_S = 120.0
"""How long the node may take, after its start, to add up what is on its disk."""
CALM_S = 3.0
CALM_PERCENT = 5.0
IDLE_S = 10.0
TARGET_MS = 1_000.0
TARGET_IDLE_PERCENT = 2.0
WATCH = """
    new MutationObserver((changes, observer) => {
        if (!document.querySelector("main .tiles")) return;
        observer.disconnect();
        requestAnimationFrame(() => { window.figuresMs = performance.now(); });
    }).observe(document, { childList: true, subtree: true });
"""
PAINTED = """JSON.stringify([
    performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null, window.figuresMs ?? null,
])"""


@dataclass(frozen=True, slots=True)
class FirstPaint:
    """What was measured.

    Attributes:
        first_paint_ms: from the request to the browser's first contentful paint; median.
        figures_ms: until the node's figures are in the page; median.
        idle_percent: of a core, by the node, with the page open and nothing happening.
        records: behind the node.
    """

    first_paint_ms: float
    figures_ms: float
    idle_percent: float
    records: int


def run() -> list[Figure]:
    """Measure; without a Chromium on this machine there is nothing to measure."""
    if find_chromium() is None:
        print("  no Chromium on this machine: explorer_first_paint_ms is not measured", file=sys.stderr)
        return []
    found = measure_first_paint_ms()
    note = f"{found.records:,} records behind it; its figures after {found.figures_ms:.0f} ms"
    return [
        Figure(
            "explorer_first_paint_ms",
            "explorer, first contentful paint",
            found.first_paint_ms,
            "ms",
            target=TARGET_MS,
            at_most=True,
            note=note,
        ),
        Figure(
            "explorer_idle_cpu_percent",
            "an idle node with the page open",
            found.idle_percent,
            "%",
            target=TARGET_IDLE_PERCENT,
            at_most=True,
        ),
    ]


def measure_first_paint_ms(records: int = RECORDS) -> FirstPaint:
    """Fill a development chain with ``records``, serve it, and look at it. Raises RuntimeError without a Chromium."""
    chromium = find_chromium()
    if chromium is None:
        raise RuntimeError("no Chromium on this machine")
    paths = prepare_records(records)
    with tempfile.TemporaryDirectory(prefix="ledgerd-bench-") as directory:
        data = Path(directory) / "data"
        config = make_development_chain(NodeConfig(data=data, dev=True), now_ms()).config
        if config.genesis is None or config.key is None or config.submit_key is None:
            raise RuntimeError("the development chain is not complete")
        chain = SoloChain(
            genesis_from_json(config.genesis.read_bytes()),
            read_key(config.key, is_dev=True),
            read_key(config.submit_key, is_dev=True),
        )
        filled = fill_chain(data, paths, records_max=records, seconds=LOAD_S, chain=chain)
        with _serving(data) as (process, url):
            return asyncio.run(_look(chromium, url, process.pid, filled.records))


@contextmanager
def _serving(data: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    api, listen = free_ports(2)
    command = [sys.executable, "-m", "node.cli.ledgerd", "--dev", "--data", str(data)]
    command += ["--api", f"{HOST}:{api}", "--listen", f"{HOST}:{listen}", "--log-level", "error"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            # It prints its address and token once it serves; nothing at all where it ends.
            if not process.stdout or not process.stdout.readline():
                raise RuntimeError(f"ledgerd --dev ended with status {process.wait(STOP_SECONDS)}")
            yield process, f"http://{HOST}:{api}/"
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


async def _look(chromium: str, url: str, pid: int, records: int) -> FirstPaint:
    async with running_chromium(chromium) as browser:
        await _until_calm(pid)
        painted = [await _paint(browser, url) for _ in range(PAINTS)]
        async with browser.page(WATCH) as page:
            await page.go(url)
            await asyncio.sleep(CALM_S)
            before, started = cpu_s(pid), time.monotonic()
            await asyncio.sleep(IDLE_S)
            idle_percent = 100 * (cpu_s(pid) - before) / (time.monotonic() - started)
    paints, figures = zip(*painted, strict=True)
    return FirstPaint(statistics.median(paints), statistics.median(figures), idle_percent, records)


async def _until_calm(pid: int) -> None:
    """Return once the node has added up what was on its disk."""
    deadline = time.monotonic() + READ_AGAIN_S
    while time.monotonic() < deadline:
        before = cpu_s(pid)
        await asyncio.sleep(CALM_S)
        if 100 * (cpu_s(pid) - before) / CALM_S < CALM_PERCENT:
            return
    raise RuntimeError(f"the node is not calm {READ_AGAIN_S:g} s after its start")


async def _paint(browser: Browser, url: str) -> tuple[float, float]:
    """Return when a page that nothing is cached of painted first, and when its figures were there."""
    async with browser.page(WATCH) as page:
        await page.go(url)
        deadline = time.monotonic() + PAINT_S
        while time.monotonic() < deadline:
            first_ms, figures_ms = await _painted(page)
            if first_ms is not None and figures_ms is not None:
                return first_ms, figures_ms
            await asyncio.sleep(0.1)
    raise RuntimeError(f"nothing was painted within {PAINT_S:g} s")


async def _painted(page: Page) -> tuple[float | None, float | None]:
    first_ms, figures_ms = json.loads(await page.evaluate(PAINTED))
    return first_ms, figures_ms
