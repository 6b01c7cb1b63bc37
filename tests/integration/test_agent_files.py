"""The agent takes files: from folders, from a log that grows, and from a person's hand, over real files and sockets."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from node.agent import running_agent
from tests.integration.test_agent import ROOT, TOKEN, AgentProcess, FakeNode, cdr, configure, serving
from tests.telephony.agent_kit import World, record_key

FIXTURES = ROOT / "tests" / "telephony" / "fixtures"


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.agent.STOP_S", 0.3)
    monkeypatch.setattr("telephony.delivery.ASK_MS_MIN", 10)
    monkeypatch.setattr("telephony.delivery.IDLE_S", 0.02)
    monkeypatch.setattr("telephony.agent.PACK_S", 0.01)
    monkeypatch.setattr("telephony.watching.LOOK_S", 0.02)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for it."""
    for _ in range(4500):
        if is_so():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError("90 s have not been enough")


async def feed(data: bytes, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "node.cli.agent", "feed", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    output, errors = await asyncio.wait_for(process.communicate(data), 30)
    return process.returncode or 0, output.decode(), errors.decode()


async def test_files_end_on_the_ledger_once(tmp_path: Path) -> None:
    """A folder, a log that is rotated, and a person: the same call from two of them counts once."""
    folder, log = tmp_path / "cdrs", tmp_path / "events.jsonl"
    folder.mkdir()
    calls = [json.dumps(cdr(number)).encode() + b"\n" for number in range(9)]
    (folder / "1.json").write_bytes(calls[0] + calls[1])
    (folder / "bad.json").write_bytes(b"not JSON\n")
    log.write_bytes(calls[2])
    watch = {
        "errors": {"source": "kamailio", "directory": str(folder), "settle_s": 0},
        "log": {"source": "kamailio", "follow": str(log), "settle_s": 0},
    }
    world = World(tmp_path / "unused")
    node = FakeNode(world)
    async with serving(node) as url, running_agent(configure(tmp_path, url, watch=watch)) as (agent, listen):
        await until(lambda: agent.intake.counters.spooled == 3)
        log.rename(tmp_path / "events.jsonl.1")
        log.write_bytes(calls[3])
        (tmp_path / "ingest-token").write_text(TOKEN)
        at = ("kamailio", "--url", f"http://{listen}", "--token-file", str(tmp_path / "ingest-token"))
        assert await feed(b"".join(calls[:7]), *at) == (0, "7 on disk\n", "")
        status, _, errors = await feed(calls[7] + b"{}\n", *at)
        assert status == 1
        assert "of 2 records 1 are on disk; 1 cannot be read and are dead letters" in errors
        await until(lambda: agent.backlog == 0 and len(node.taken) == 8)
        async with aiohttp.ClientSession() as session, session.get(f"http://{listen}/metrics") as response:
            metrics = await response.text()
    assert len(node.taken) == 8
    assert sorted(path.name for path in folder.rglob("*.*")) == ["1.json", "bad.json", "bad.json.reason"]
    assert (folder / "done" / "1.json").exists()
    assert 'ledger_agent_watch_files_total{outcome="failed",watch="errors"} 1.0' in metrics
    assert 'ledger_agent_watch_records_total{outcome="spooled",watch="log"} 2.0' in metrics
    assert 'ledger_agent_watch_failing{watch="log"} 0.0' in metrics


async def test_a_spool_is_fed_while_no_agent_runs(tmp_path: Path) -> None:
    data = (FIXTURES / "asterisk" / "Master.csv").read_bytes()
    spool = str(tmp_path / "spool")
    assert await feed(data, "asterisk", "--spool", spool) == (0, "6 on disk\n", "")
    async with running_agent(configure(tmp_path)):
        status, _, errors = await feed(data, "asterisk", "--spool", spool)
    assert (status, "has this spool open" in errors) == (1, True)
    status, _, errors = await feed(data, "asterisks", "--spool", spool)
    assert (status, "no such platform" in errors) == (1, True)


async def test_killed_while_it_reads_files_it_misses_none(tmp_path: Path) -> None:
    """Three kills while files come and a log is rotated: every record in them is on the ledger, and counts once."""
    chance = random.Random(4)
    folder, log = tmp_path / "cdrs", tmp_path / "events.jsonl"
    folder.mkdir()
    watch = (
        f'[watch.folder]\nsource = "kamailio"\ndirectory = "{folder}"\nsettle_s = 0\n'
        f'[watch.log]\nsource = "kamailio"\nfollow = "{log}"\nsettle_s = 1\n'
    )
    (tmp_path / "watch.toml").write_text(watch)
    node = FakeNode(World(tmp_path / "unused"))
    written: set[bytes] = set()

    def lines(count: int) -> bytes:
        calls = [cdr(len(written) + index) for index in range(count)]
        written.update(record_key(call["call_id"]) for call in calls)
        return b"".join(json.dumps(call).encode() + b"\n" for call in calls)

    async with serving(node) as url:
        config = configure(tmp_path, url)
        for round_ in range(4):
            agent = AgentProcess(config, "--config", str(tmp_path / "watch.toml"))
            await agent.url()
            # A log that is gone before an agent ever began to watch for it is another's.
            await until((config.spool / "watch" / "log.json").exists)
            for number in range(8):
                (tmp_path / "part").write_bytes(lines(chance.randrange(1, 150)))
                (tmp_path / "part").rename(folder / f"{round_}-{number}.json")
                with log.open("ab") as file:
                    file.write(lines(chance.randrange(1, 50)))
                await asyncio.sleep(chance.random() / 4)
            if round_ < 3:
                assert await agent.end(signal.SIGKILL) == -signal.SIGKILL
                log.rename(tmp_path / f"events.jsonl.{round_}")
        await until(lambda: written <= node.taken)
        await until(lambda: not list(folder.glob("*.json")))
        assert await agent.end(signal.SIGTERM) == 0
    assert node.taken == written
    assert len(list((folder / "done").iterdir())) == 32
