"""The agent with real sockets: proxies on one side, nodes that fail in all ways on the other, kills in between."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ledger.errors import ConfigError, StoreLocked
from ledger.genesis import genesis_to_json
from node.agent import AgentConfig, running_agent
from node.clock import now_ms
from node.config import Address, NodeConfig
from node.development import make_development_chain
from node.runtime import running_node
from telephony import targets
from telephony.turns import Turns
from tests.telephony.agent_kit import GENESIS, KEY, NODES, SECRET, World, record_key

ROOT = Path(__file__).parent.parent.parent
TOKEN = "lt_proxy"
NODE_TOKEN = "lt_node"
WAIT_S = 90.0
Json = dict[str, Any]


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.agent.STOP_S", 0.3)
    monkeypatch.setattr("telephony.delivery.ASK_MS_MIN", 10)
    monkeypatch.setattr("telephony.delivery.IDLE_S", 0.02)
    monkeypatch.setattr("telephony.agent.PACK_S", 0.01)
    monkeypatch.setattr(targets, "BACKOFF_MS_MIN", 4)
    monkeypatch.setattr(targets, "BACKOFF_MS_MAX", 30)


def cdr(number: int, **fields: str) -> Json:
    end_s = now_ms() // 1000
    return {
        "call_id": f"call-{number}",
        "from_tag": "a",
        "start_time": f"{end_s - 20}.494",
        "end_time": f"{end_s - 10}.521",
        "sip_code": "200",
        "from": "sip:+442071838750@example.net",
        **fields,
    }


class FakeNode:
    """A node in front of a ledger in memory: what it takes is final when it is asked; it fails as told, by request."""

    def __init__(self, world: World, name: str = NODES[0]) -> None:
        self.world = world
        self.requests = 0
        self.ways: list[str] = []
        self.token = NODE_TOKEN
        self._name = name

    @property
    def taken(self) -> set[bytes]:
        """Return the keys of the records that count, having made sure that each does once."""
        assert set(self.world.counted.values()) <= {1}
        return set(self.world.counted)

    async def promises(self, request: web.Request) -> web.StreamResponse:
        self.world.ledger_ms = now_ms()
        self.world.seal()
        answer = await self.world.ask("GET", self._name + str(request.rel_url), None)
        return web.Response(status=answer.status, body=answer.body)

    async def post(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.world.ledger_ms = now_ms()
        self.requests += 1
        way = self.ways.pop(0) if self.ways else "well"
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"detail": "no such token"}, status=401)
        if way == "cut":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if way.isdigit():
            return web.Response(status=int(way), text="<html>not a problem document</html>")
        if way == "garbage":
            return web.json_response({"results": [{"status": 200}] * 50}, status=200)
        answer = await self.world.ask("POST", self._name + "/v1/transactions", body)
        if way == "lost answer":
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=answer.status, body=answer.body)


@asynccontextmanager
async def serving(node: FakeNode, port: int = 0) -> AsyncIterator[str]:
    app = web.Application(client_max_size=32 * 1024 * 1024)
    app.router.add_post("/v1/transactions", node.post)
    app.router.add_get("/v1/promises", node.promises)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def configure(tmp_path: Path, *nodes: str, **more: Any) -> AgentConfig:
    tokens = [
        {"name": "proxy", "sha256": sha256(TOKEN.encode()).hexdigest(), "roles": ["submit"]},
        {"name": "reader", "sha256": sha256(b"lt_reader").hexdigest(), "roles": ["private"]},
    ]
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    (tmp_path / "token").write_text(NODE_TOKEN + "\n")
    (tmp_path / "genesis.json").write_bytes(genesis_to_json(GENESIS))
    (tmp_path / "submit.pem").write_bytes(KEY.to_pem())
    (tmp_path / "secret").write_text(SECRET.hex())
    return AgentConfig(
        listen=Address("127.0.0.1", 0),
        spool=tmp_path / "spool",
        to=nodes or ("http://127.0.0.1:9",),
        genesis=tmp_path / "genesis.json",
        submit_key=tmp_path / "submit.pem",
        member_secret=tmp_path / "secret",
        token_file=tmp_path / "token",
        ingest_tokens=tmp_path / "tokens.json",
        **{"reserve_mib": 0, **more},
    )


class Proxy:
    """What posts CDRs to an agent."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def post(self, documents: Any, **headers: str) -> tuple[int, Json]:
        body = documents if isinstance(documents, bytes) else json.dumps(documents).encode()
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **headers}
        async with self._session.post(
            f"{self._url}/v1/ingest/kamailio", data=BytesIO(body), headers=headers
        ) as response:
            return response.status, await response.json(content_type=None)

    async def get(self, path: str) -> tuple[int, str]:
        async with self._session.get(self._url + path) as response:
            return response.status, await response.text()


@asynccontextmanager
async def agent_on(config: AgentConfig) -> AsyncIterator[tuple[Any, Proxy]]:
    async with (
        running_agent(config) as (agent, listen),
        aiohttp.ClientSession() as session,
    ):
        yield agent, Proxy(session, f"http://{listen}")


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def dead_letters(config: AgentConfig) -> list[Json]:
    lines = (config.spool / "dead" / "letters.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


async def test_what_a_proxy_hands_in_becomes_final(tmp_path: Path) -> None:
    node = FakeNode(World(tmp_path))
    async with serving(node) as url, agent_on(configure(tmp_path, url)) as (agent, proxy):
        assert await proxy.post(cdr(0)) == (202, {"status": 202, "outcome": "spooled"})
        status, answer = await proxy.post([cdr(number) for number in range(1, 450)])
        assert (status, Counter(result["outcome"] for result in answer["results"])) == (202, {"spooled": 449})
        await until(lambda: agent.backlog == 0)
        assert node.taken == {record_key(f"call-{number}") for number in range(450)}
        assert (agent.built, agent.stored, agent.final, agent.void) == (450, 450, 450, 0)


async def test_a_bad_cdr_is_named_and_kept_and_the_others_go_on(tmp_path: Path) -> None:
    node = FakeNode(World(tmp_path))
    bad = cdr(2, end_time="yesterday")
    async with serving(node) as url, agent_on(config := configure(tmp_path, url)) as (agent, proxy):
        status, problem = await proxy.post(bad)
        assert (status, problem["field"], problem["actual"]) == (400, "end_time", "xxxxxxxxx")
        status, problem = await proxy.post([cdr(1), bad, cdr(3)])
        assert (status, problem["type"]) == (422, "urn:ledgerd:problem:not-all-kept")
        assert [result["status"] for result in problem["results"]] == [202, 400, 202]
        await until(lambda: agent.backlog == 0)
        assert node.taken == {record_key("call-1"), record_key("call-3")}
        assert agent.dead == 1
    (letter,) = dead_letters(config)
    assert (json.loads(letter["document"]), letter["stage"]) == (bad, "intake")
    assert letter["reason"].startswith("end_time: not a time")


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{}", {}, 400, "field"),
        (b"nonsense", {}, 400, "encoding"),
        (b"\xff\xfe", {}, 400, "encoding"),
        (b"[]", {}, 400, "encoding"),
        (b"[1]", {}, 400, "field"),
        (b'{"call_id":"\xff"}', {}, 400, "encoding"),
        (b"[" * 100_000, {}, 400, "encoding"),
        (b"{}", {"Authorization": "Bearer wrong"}, 401, "unauthorized"),
        (b"{}", {"Authorization": ""}, 401, "unauthorized"),
        (b"{}", {"Authorization": "Bearer lt_reader"}, 403, "forbidden"),
        (b" " * (4 * 1024 * 1024 + 1), {}, 413, "too-large"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
        (b"{}", {"Content-Encoding": "gzip"}, 415, "unsupported-media-type"),
    ],
)
async def test_refusals_say_why(tmp_path: Path, body: bytes, headers: dict[str, str], status: int, code: str) -> None:
    async with agent_on(configure(tmp_path)) as (agent, proxy):
        found, problem = await proxy.post(body, **headers)
        assert (found, problem["status"], problem["type"]) == (status, status, f"urn:ledgerd:problem:{code}")
        assert agent.backlog == 0
        assert agent.dead == (status == 400)


async def test_a_full_disk_is_said_before_it_is_too_late(tmp_path: Path) -> None:
    async with agent_on(configure(tmp_path, reserve_mib=2**30)) as (agent, proxy):
        for documents in (cdr(1), [cdr(1), cdr(2)], {"bad": 1}, b"nonsense"):
            status, problem = await proxy.post(documents)
            assert (status, problem["type"]) == (507, "urn:ledgerd:problem:store-full")
        assert (agent.backlog, agent.dead) == (0, 0)
        status, health = await proxy.get("/healthz")
        assert (status, json.loads(health)["status"]) == (503, "full")
        _, metrics = await proxy.get("/metrics")
        assert "ledger_agent_refused_records_total 4.0" in metrics
        assert "ledger_agent_has_room 0.0" in metrics


async def test_a_node_that_fails_in_all_ways_gets_everything_in_the_end(tmp_path: Path) -> None:
    """Each way for each of the first requests; then it is well. Nothing is lost, nothing good is a dead letter."""
    node = FakeNode(World(tmp_path))
    node.ways = [
        "cut",
        "500",
        "503",
        "garbage",
        "lost answer",
        "408",
        "429",
        "404",
        "302",
        "413",
        "400",
    ]
    async with serving(node) as url, agent_on(configure(tmp_path, url)) as (agent, proxy):
        for start in range(0, 1000, 100):
            assert (await proxy.post([cdr(number) for number in range(start, start + 100)]))[0] == 202
        await until(lambda: agent.backlog == 0)
        assert node.taken == {record_key(f"call-{number}") for number in range(1000)}
        assert (agent.final, agent.void, agent.dead, node.ways) == (1000, 0, 0, [])


async def test_what_no_node_will_ever_take_becomes_a_dead_letter_with_its_reason(tmp_path: Path) -> None:
    node = FakeNode(World(tmp_path, refuse=lambda record: record.sip_code == 603))
    documents = [cdr(number, sip_code="603" if number in {3, 5, 7} else "486") for number in range(10)]
    async with serving(node) as url, agent_on(config := configure(tmp_path, url)) as (agent, proxy):
        await proxy.post(documents)
        await until(lambda: agent.backlog == 0)
        assert (agent.final, agent.dead) == (7, 3)
    found = {json.loads(letter["document"])["call_id"]: letter["reason"] for letter in dead_letters(config)}
    assert set(found) == {"call-3", "call-5", "call-7"}
    assert all(reason.startswith("HTTP 422: items[") for reason in found.values())


async def test_a_wrong_token_makes_no_dead_letters(tmp_path: Path) -> None:
    """A fault of the set-up: everything waits until somebody has mended it."""
    node = FakeNode(World(tmp_path))
    node.token = "another"
    async with serving(node) as url, agent_on(configure(tmp_path, url)) as (agent, proxy):
        await proxy.post([cdr(number) for number in range(10)])
        await until(lambda: node.requests >= 5)
        assert (agent.backlog, agent.dead, node.taken) == (10, 0, set())
        node.token = NODE_TOKEN
        await until(lambda: agent.backlog == 0)
        assert len(node.taken) == 10


async def test_another_node_takes_over_and_a_dead_ledger_is_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path)
    first, second = FakeNode(world), FakeNode(world, NODES[1])
    async with serving(second) as second_url:
        async with serving(first) as first_url:
            config = configure(tmp_path, first_url, second_url)
            async with agent_on(config) as (agent, proxy):
                await proxy.post(cdr(1))
                await until(lambda: agent.backlog == 0)
                first.ways = ["500"] * 1000
                await proxy.post(cdr(2))
                await until(lambda: agent.backlog == 0)
        assert [len(held) for held in world.stored.values()] == [1, 1]
    # Neither node is there now; the agent takes in all the same, also over a restart.
    for number in (3, 4):
        async with agent_on(config) as (agent, proxy):
            assert (await proxy.post(cdr(number)))[0] == 202
            await until(lambda: all(agent.failing.values()))
            _, health = await proxy.get("/healthz")
            assert json.loads(health)["nodes_failing"] == 2
    async with serving(second, port=int(second_url.rpartition(":")[2])), agent_on(config) as (agent, _):
        await until(lambda: agent.backlog == 0)
    assert second.taken == {record_key(f"call-{number}") for number in (1, 2, 3, 4)}


async def test_calls_that_come_one_by_one_while_no_node_answers_are_few_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog of small ones would be as many signatures for the nodes to check when they are back."""
    monkeypatch.setattr("telephony.agent.AWAY_S", 60.0)
    monkeypatch.setattr("telephony.agent.PACK_DOCUMENTS", 20)
    monkeypatch.setattr("telephony.building.BATCH_DOCUMENTS", 20)
    monkeypatch.setattr("telephony.agent.REST_S", 0.01)
    world = World(tmp_path)
    async with serving(FakeNode(world)) as url, agent_on(configure(tmp_path, url)) as (agent, proxy):
        await proxy.post(cdr(0))
        await until(lambda: agent.backlog == 0)
        port = int(url.rpartition(":")[2])
    async with agent_on(configure(tmp_path, url)) as (agent, proxy):
        async with serving(FakeNode(world), port=port):
            await proxy.post(cdr(1))
            await until(lambda: agent.backlog == 0)
        await proxy.post(cdr(2))
        await until(lambda: all(agent.failing.values()))
        for number in range(3, 43):
            await proxy.post(cdr(number))
        await until(lambda: agent.built == 42)
        async with serving(FakeNode(world), port=port):
            await until(lambda: agent.backlog == 0)
    assert len(world.counted) == 43
    # One for each of the calls before the outage, one that found it out, and two of twenty.
    assert len(world.raws) == 5


async def test_what_comes_in_goes_before_building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is built while it is intake's turn."""
    is_for_intake = True
    monkeypatch.setattr(Turns, "is_for_intake", lambda *_: is_for_intake)
    monkeypatch.setattr("telephony.agent.REST_S", 0.01)
    world = World(tmp_path)
    async with serving(FakeNode(world)) as url, agent_on(configure(tmp_path, url)) as (agent, proxy):
        await proxy.post(cdr(1))
        await asyncio.sleep(0.5)
        assert agent.built == 0
        is_for_intake = False
        await until(lambda: agent.backlog == 0)
    assert len(world.counted) == 1


async def test_a_post_that_nobody_took_leaves_no_body_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent runs almost without collector: an error that kept its frames would keep megabytes with each try."""
    async with agent_on(configure(tmp_path)) as (agent, _):
        body = b"transactions" * 1000
        gc.disable()
        try:
            before = sys.getrefcount(body)
            answer = await agent._ask("POST", "http://127.0.0.1:9/v1/transactions", body)
            await asyncio.sleep(0.1)
            after = sys.getrefcount(body)
        finally:
            gc.enable()
    assert (answer.status, after) == (0, before)


async def test_metrics_and_health_tell_how_it_is(tmp_path: Path) -> None:
    async with agent_on(configure(tmp_path)) as (_, proxy):
        await proxy.post([cdr(1), cdr(2), {"bad": "x"}])
        status, health = await proxy.get("/healthz")
        assert (status, json.loads(health)["backlog"], json.loads(health)["dead_letters"]) == (200, 2, 1)
        _, metrics = await proxy.get("/metrics")
        for line in (
            "ledger_agent_spooled_records_total 2.0",
            "ledger_agent_final_records_total 0.0",
            'ledger_agent_dead_records_total{stage="intake"} 1.0',
            "ledger_agent_backlog_records 2.0",
            "ledger_agent_dead_letters 1.0",
            "ledger_agent_ingest_duration_seconds_count 1.0",
        ):
            assert line in metrics.splitlines()
        assert "ledger_agent_oldest_age_seconds" in metrics
        assert "+442071838750" not in metrics + health


async def test_damage_in_the_spool_costs_one_record_and_is_a_dead_letter(tmp_path: Path) -> None:
    config = configure(tmp_path)
    async with agent_on(config) as (_, proxy):
        await proxy.post([cdr(number) for number in range(5)])
    (segment,) = config.spool.glob("*.seg")
    data = segment.read_bytes()
    segment.write_bytes(data.replace(b"call-2", b"cXll-2"))
    node = FakeNode(World(tmp_path))
    async with serving(node) as url, agent_on(configure(tmp_path, url)) as (agent, _):
        await until(lambda: agent.backlog == 0)
        assert (node.taken, agent.dead) == ({record_key(f"call-{number}") for number in (0, 1, 3, 4)}, 1)
    (letter,) = dead_letters(config)
    assert letter["stage"] == "spool"
    assert letter["reason"].startswith(str(segment))


async def test_refused_at_the_start(tmp_path: Path) -> None:
    config = configure(tmp_path)
    async with running_agent(config) as (_, listen):
        with pytest.raises(StoreLocked, match="has this spool open"):
            await running_agent(config).__aenter__()
        elsewhere = replace(config, listen=listen, spool=tmp_path / "other")
        with pytest.raises(ConfigError, match="the port is in use"):
            await running_agent(elsewhere).__aenter__()
    for wrong in (
        replace(config, to=()),
        replace(config, ingest_tokens=None),
        replace(config, genesis=None),
        replace(config, submit_key=None),
        replace(config, member_secret=None),
        replace(config, member="another"),
        replace(config, token_file=tmp_path / "none"),
    ):
        with pytest.raises(ConfigError):
            await running_agent(wrong).__aenter__()


async def test_a_real_node_has_each_record_once_whatever_came_twice(tmp_path: Path) -> None:
    """From a proxy through the agent to final; the vault is lost on the way, so all of it is built twice."""
    made = make_development_chain(
        NodeConfig(dev=True, data=tmp_path / "node", api=Address("127.0.0.1", 0), listen=Address("127.0.0.1", 0)),
        now_ms(),
    )
    async with running_node(made.config) as running:
        config = replace(
            configure(tmp_path, f"http://{running.api}"),
            genesis=made.config.genesis,
            submit_key=made.config.submit_key,
            member_secret=made.config.member_secret,
        )
        (tmp_path / "token").write_text(made.token)
        documents = [
            *(cdr(number) for number in range(250)),
            cdr(999, start_time="1695231130.000", end_time="1695231134.521"),
        ]
        counters = running.node.driver.counters
        for is_first in (True, False):
            async with agent_on(config) as (agent, proxy):
                assert (await proxy.post(documents))[0] == 202
                await until(lambda agent=agent, is_first=is_first: agent.final == (250 if is_first else 251))
                await until(lambda agent=agent: agent.backlog == 0)
                if not is_first:
                    assert agent.void == 250
            documents.append(cdr(1000))
            shutil.rmtree(config.spool / "vault")
        assert (counters.records_final, counters.records_void) == (501 - 250, 250)
    (letter,) = dead_letters(config)
    assert (letter["stage"], letter["reason"].partition(":")[0]) == ("building", "record.end_ms")


# -- the program -------------------------------------------------------------------------------------------------------


def command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LEDGER_AGENT_LOG_FORMAT": "json"}
    return subprocess.run(
        [sys.executable, "-m", "node.cli.agent", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment,
        timeout=WAIT_S,
        check=False,
    )


class AgentProcess:
    """``ledger-agent run`` as a process of its own."""

    def __init__(self, config: AgentConfig, *more: str) -> None:
        options = {
            "--listen": str(config.listen),
            "--spool": str(config.spool),
            "--to": ",".join(config.to),
            "--genesis": str(config.genesis),
            "--submit-key": str(config.submit_key),
            "--member-secret": str(config.member_secret),
            "--token-file": str(config.token_file),
            "--ingest-tokens": str(config.ingest_tokens),
            "--reserve-mib": "0",
            "--log-level": "error",
        }
        arguments = [part for option in options.items() for part in option]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "node.cli.agent", "run", *arguments, *more],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )

    async def url(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.to_thread(self.process.stdout.readline)).strip()

    async def end(self, number: int) -> int:
        self.process.send_signal(number)
        assert self.process.stdout is not None
        status = await asyncio.to_thread(self.process.wait, WAIT_S)
        self.process.stdout.close()
        return status


@pytest.mark.slow
async def test_killed_under_load_it_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """Six kills while proxies post and the node fails now and then: each CDR answered 2xx reaches the node."""
    chance = random.Random(9)
    node = FakeNode(World(tmp_path))
    node.ways = chance.choices(["well", "503", "cut", "lost answer"], [6, 1, 1, 1], k=400)
    acknowledged: set[bytes] = set()
    async with serving(node) as node_url, aiohttp.ClientSession() as session:
        config = configure(tmp_path, node_url)
        number = 0
        for round_ in range(7):
            agent = AgentProcess(config)
            proxy = Proxy(session, await agent.url())

            async def load(proxy: Proxy = proxy, first: int = number, step: int = 0) -> int:
                count = first + step * 100_000
                while True:
                    batch = [cdr(count + index) for index in range(20)]
                    count += 20
                    try:
                        status, _ = await proxy.post(batch)
                    except aiohttp.ClientError:
                        return count
                    assert status == 202
                    acknowledged.update(record_key(document["call_id"]) for document in batch)

            if round_ == 6:
                await until(lambda: acknowledged <= node.taken)
                assert await agent.end(signal.SIGTERM) == 0
                break
            loads = [asyncio.create_task(load(step=step)) for step in range(3)]
            before = len(acknowledged)
            await until(lambda before=before: len(acknowledged) >= before + chance.randrange(100, 400))
            assert await agent.end(signal.SIGKILL) == -signal.SIGKILL
            number = (await asyncio.gather(*loads))[0] + 1000
    assert len(acknowledged) > 600
    assert acknowledged <= node.taken


async def test_dead_letters_are_listed_shown_mended_and_dropped(tmp_path: Path) -> None:
    node = FakeNode(World(tmp_path, refuse=lambda record: record.sip_code == 603))
    async with serving(node) as url:
        config = configure(tmp_path, url)
        spool = ("--spool", str(config.spool))
        agent = AgentProcess(config)
        async with aiohttp.ClientSession() as session:
            proxy = Proxy(session, await agent.url())
            bad = cdr(1, end_time="x")
            await proxy.post([bad, cdr(9, sip_code="603"), cdr(2, sip_code="no")])
            await until(lambda: len(dead_letters(config)) == 3)
        listed = await asyncio.to_thread(command, "dead", "list", *spool)
        rows = {line.split()[2] + " " + line.split()[3]: line.split()[0] for line in listed.stdout.splitlines()}
        assert set(rows) == {"intake end_time:", "building sip_code:", "delivery HTTP"}
        first = rows["intake end_time:"]
        shown = await asyncio.to_thread(command, "dead", "show", first, *spool, "--document")
        assert json.loads(shown.stdout) == bad
        mended = json.dumps(cdr(1))
        for stdin, status in ((json.dumps(cdr(1, end_time="y")), 1), (mended, 0)):
            done = await asyncio.to_thread(command, "dead", "retry", first, *spool, "--with", "-", stdin=stdin)
            assert (done.returncode, "Traceback" in done.stderr) == (status, False)
        await until(lambda: record_key("call-1") in node.taken)
        dropped = await asyncio.to_thread(command, "dead", "drop", rows["delivery HTTP"], *spool)
        assert dropped.stdout == "1 dropped\n"
        assert await agent.end(signal.SIGTERM) == 0
    listed = command("dead", "list", *spool, "--json")
    assert [json.loads(line)["document"]["call_id"] for line in listed.stdout.splitlines()] == ["call-2"]
    assert command("dead", "retry", "--all", *spool).stdout == "1 to be sent again\n"
    assert "(to be sent again)" in command("dead", "list", *spool).stdout


def test_the_command_line_explains_itself(tmp_path: Path) -> None:
    for arguments, said in (
        (("run",), "where to?"),
        (("run", "--to", "ftp://x"), "not a node's address"),
        (("run", "--to", "http://a:8080", "--listen", "here"), "not an address"),
        (("run", "--config", str(tmp_path / "none.toml")), "cannot be read"),
        (("dead", "list", "--spool", str(tmp_path / "none")), "no spool here"),
    ):
        done = command(*arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert said in done.stderr
    assert not (tmp_path / "none").exists()
