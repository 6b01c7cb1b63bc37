"""A disk of its own for the agent, too small: what is answered 202 is on it, what is answered 507 is nowhere."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from telephony import spool
from tests.integration.fault_kit import small_disk
from tests.integration.test_agent import FakeNode, agent_on, cdr, configure, dead_letters, serving, until
from tests.telephony.agent_kit import World, record_key

POSTS_MAX = 400


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.agent.STOP_S", 0.3)
    monkeypatch.setattr("telephony.delivery.ASK_MS_MIN", 10)
    monkeypatch.setattr("telephony.delivery.IDLE_S", 0.02)
    monkeypatch.setattr("telephony.agent.PACK_S", 0.01)
    monkeypatch.setattr("telephony.targets.BACKOFF_MS_MAX", 30)


async def test_a_full_disk_keeps_posts_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 256 * 1024)
    node = FakeNode(World(tmp_path))
    with small_disk(tmp_path / "spool", mib=8) as disk:
        config = configure(tmp_path, reserve_mib=4)
        kept: set[str] = set()
        refused: set[str] = set()
        async with agent_on(config) as (agent, proxy):
            for post in range(POSTS_MAX):
                names = [f"call-{number}" for number in range(50 * post, 50 * post + 50)]
                calls = [cdr(0, call_id=name, long="x" * 500) for name in names]
                status, answer = await proxy.post([*calls, cdr(post, end_time=f"bad {post}")])
                assert status in {422, 507}, answer
                (kept if status == 422 else refused).update(names)
                if len(refused) >= 200:
                    break
            assert kept
            assert refused
            assert "disk" in answer["detail"]
            assert agent.intake.counters.spooled == len(kept)
        # Somebody makes room; the posts that were refused do not come again here, so that any trace of them shows.
        await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=64m", str(disk)], check=True)
        async with serving(node) as url, agent_on(configure(tmp_path, url, reserve_mib=4)) as (agent, _):
            await until(lambda: agent.backlog == 0)
            assert node.taken == {record_key(name) for name in kept}
            assert len(dead_letters(config)) == len(kept) // 50
