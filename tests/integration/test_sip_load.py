"""Kamailio and the agent under call load: the agent dies, the ledger dies; every call is on the chain exactly once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from ledger.cdr import Leg, call_commitment
from ledger.crypto import hash_of
from node.cluster import Cluster, ClusterAgent, add_agent
from node.keyfile import read_secret
from node.localnet import LocalAgent, LocalNode, stop_all
from tests.integration.cluster_kit import running_cluster
from tests.integration.test_sip_lab import needs_programs

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from day_chain import differences, read_chain
from siplab.load import INVITE_CSEQ, Load, Proxy, is_installed, make_calls, running_proxy

WAIT_S = 120.0

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.xdist_group("cluster"),
    needs_programs,
    pytest.mark.skipif(not is_installed(), reason="Debian package missing: sip-tester"),
]


@pytest.fixture
def sip(tmp_path: Path) -> Path:
    """Where Kamailio and SIPp keep their files."""
    folder = tmp_path / "sip"
    folder.mkdir()
    return folder


@asynccontextmanager
async def ledger_with_agent(folder: Path) -> AsyncIterator[tuple[Cluster, list[LocalNode], LocalAgent]]:
    """Four nodes, and an agent that signs for the first one's member."""
    places: list[ClusterAgent] = []
    network = running_cluster(folder, prepare=lambda cluster: places.append(add_agent(cluster, cluster.nodes[0])))
    cluster, nodes = await asyncio.to_thread(network.__enter__)
    try:
        agent = LocalAgent(places[0])
        try:
            agent.start()
            await asyncio.to_thread(agent.wait_ready)
            yield cluster, nodes, agent
        finally:
            await asyncio.to_thread(stop_all, [agent])
    finally:
        await asyncio.to_thread(network.__exit__, None, None, None)


async def until(what: str, is_so: Callable[[], bool]) -> None:
    """Return when something is so; fail naming it where it does not come about."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not await asyncio.to_thread(is_so):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"not within {WAIT_S:.0f} s: {what}")


def keys_of(cluster: Cluster, load: Load) -> list[bytes]:
    """Return the record key of each call, from what SIPp put into its messages."""
    place = cluster.nodes[0]
    secret = read_secret(place.home / "secret")
    commitments = [call_commitment(secret, call_id, tag, INVITE_CSEQ) for call_id, tag in load.calls()]
    return [hash_of("record", (place.member_id, commitment, Leg.ORIGINATING))[:16] for commitment in commitments]


def backlog(agent: LocalAgent) -> int:
    """Return how many CDRs an agent has that are not final, -1 where it does not answer."""
    health = agent.health()
    return -1 if health is None else int(health["backlog"])


async def test_an_agent_killed_under_call_load_loses_no_call(tmp_path: Path, sip: Path) -> None:
    """200 calls through Kamailio and rtpengine; the agent is killed three times, Kamailio keeps what it has."""
    loads = [Load(50, per_second=20, name=f"load{round_}") for round_ in range(4)]
    chance = Random(11)
    async with (
        ledger_with_agent(tmp_path / "net") as (cluster, nodes, agent),
        running_proxy(sip, agent.url, agent.place.token) as proxy,
    ):
        for load in loads:
            calling = asyncio.create_task(make_calls(sip, proxy, load))
            if load is not loads[-1]:
                # The calls take two and a half seconds at least: this is in the middle of them.
                await asyncio.sleep(chance.uniform(0.3, 1.5))
                missed = misses(proxy)
                await asyncio.to_thread(agent.kill)
                await until("Kamailio misses the agent", lambda missed=missed: misses(proxy) > missed)
                agent.start()
            await calling
            await asyncio.to_thread(agent.wait_ready)
        expected = [key for load in loads for key in keys_of(cluster, load)]
        await until("every call is on the chain", lambda: not differences(expected, read_chain(nodes[1].url)))
        await until("nothing waits at the agent", lambda: backlog(agent) == 0)
        found = await asyncio.to_thread(read_chain, nodes[1].url)
        assert (differences(expected, found), found.counted.total()) == ([], 200)
        assert (agent.health() or {})["dead_letters"] == 0
        assert "dead letter" not in proxy.kamailio.output()


def misses(proxy: Proxy) -> int:
    """Return how often Kamailio could not hand in its CDRs."""
    return proxy.kamailio.output().count("ledger: not delivered")


async def test_a_ledger_outage_of_a_thousand_calls_is_caught_up(tmp_path: Path, sip: Path) -> None:
    """All nodes are killed, a thousand calls are made, the nodes come back: all calls are final, each once."""
    before, during = Load(20, 50, "before", with_sdp=False), Load(1_000, 100, "during", with_sdp=False)
    async with (
        ledger_with_agent(tmp_path / "net") as (cluster, nodes, agent),
        running_proxy(sip, agent.url, agent.place.token) as proxy,
    ):
        await make_calls(sip, proxy, before)
        expected = keys_of(cluster, before)
        await until("the first calls are on the chain", lambda: not differences(expected, read_chain(nodes[0].url)))
        await until("the agent knows it", lambda: backlog(agent) == 0)
        for node in nodes:
            await asyncio.to_thread(node.kill)
        await make_calls(sip, proxy, during)
        await until("the agent has every call", lambda: backlog(agent) == during.count)
        assert "not delivered" not in proxy.kamailio.output()
        for node in nodes:
            node.start()
        for node in nodes:
            await asyncio.to_thread(node.wait_ready)
        await until("nothing waits at the agent", lambda: backlog(agent) == 0)
        expected += keys_of(cluster, during)
        for node in nodes:
            await until(f"{node.name} has all", lambda node=node: not differences(expected, read_chain(node.url)))
        found = await asyncio.to_thread(read_chain, nodes[2].url)
        assert (found.counted.total(), (agent.health() or {})["dead_letters"]) == (1_020, 0)
