"""``ledgerctl doctor`` before real nodes and agents, and before whatever else may listen at an address."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from node.cli.ledgerctl import app
from node.cluster import Cluster, add_agent, free_ports
from node.doctor.findings import CHECKS
from node.localnet import LocalAgent
from tests.integration.cluster_kit import Feeder, get, is_final, running_cluster, wait_until
from tests.integration.test_guards import SkewedNode, make_final, signing
from tests.metric_kit import PROMTOOL, check_with_promtool, families_of, faults_of

Findings = list[dict[str, str]]


def examine(*arguments: object) -> tuple[int, Findings]:
    """Return status and findings of the command."""
    done = CliRunner().invoke(app, ["doctor", *map(str, arguments), "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, json.loads(done.stdout)["findings"]


def not_well(findings: Findings) -> set[tuple[str, str, str]]:
    """Return level, check and whom it is about of what is not well."""
    return {(each["level"], each["check"], each["about"].split()[0]) for each in findings if each["level"] != "ok"}


# -- what is no node -------------------------------------------------------------------------------------------------

Answer = tuple[int, str, bytes]
PROBLEM = b'{"type": "urn:ledgerd:problem:unknown-host", "title": "x", "detail": "not that name", "hint": "Name it"}'
FULL = {
    "status": "full", "backlog": 3, "oldest_age_ms": 400_000, "dead_letters": 2, "nodes_failing": 0,
    "version": "0.1.0", "disk_free_bytes": 7,
}  # fmt: skip
STRANGERS: dict[str, tuple[Answer, str]] = {
    "page": ((200, "text/html", b"<!doctype html><title>It works"), "a web page (HTTP 200), not a ledgerd"),
    "login": ((401, "text/html", b"<html>"), "it wants to know who asks (HTTP 401)"),
    "elsewhere": ((302, "text/plain", b""), "it sends elsewhere (HTTP 302)"),
    "other": ((200, "application/json", b'{"status": "UP"}'), "its status is not that of this release"),
    "list": ((200, "application/json", b"[]"), "HTTP 200 with 2 bytes that are no answer of a ledgerd"),
    "bytes": ((200, "application/json", b"\xff\x00"), "HTTP 200 with 2 bytes that are no answer of a ledgerd"),
    "deep": ((200, "application/json", b"[" * 100_000), "HTTP 200 with 100000 bytes that are no answer of a ledgerd"),
    "name": ((421, "application/problem+json", PROBLEM), "it answers 421: not that name"),
}


@contextmanager
def serving(answer_to: Callable[[str], Answer]) -> Iterator[str]:
    """A server of HTTP that answers so; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = answer_to(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("name", STRANGERS)
def test_what_listens_and_is_no_ledgerd_is_named(name: str) -> None:
    answer, what = STRANGERS[name]
    with serving(lambda _: answer) as url:
        status, findings = examine(url, "--timeout", "5")
    assert status == 1
    assert [(each["level"], each["check"], each["about"]) for each in findings] == [("bad", "answer", url)]
    assert findings[0]["what"].startswith(what)
    assert findings[0]["todo"]


def test_an_address_where_nobody_listens_and_one_that_never_answers() -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        status, findings = examine(*urls, "--timeout", "0.3")
        assert time.monotonic() - begun < 10
    assert status == 1
    assert [each["about"] for each in findings] == list(urls)
    assert findings[0]["what"] == "the node does not answer: Connection refused"
    assert findings[1]["what"].startswith("the node does not answer: ")


def test_one_that_answers_a_byte_at_a_time_is_given_up() -> None:
    """No single wait is too long, all together are."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                while not stop.wait(0.05):
                    connection.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        status, findings = examine(url, "--timeout", "0.2")
        stop.set()
        thread.join()
    assert (status, len(findings)) == (1, 1)
    assert findings[0]["what"] == "it answers, but not all within 1200 ms"


def test_what_is_no_address_is_refused() -> None:
    done = CliRunner().invoke(app, ["doctor", "127.0.0.1:8080"])
    assert "not the address of an API" in str(done.exception)


def test_an_agent_that_is_full_is_one(tmp_path: Path) -> None:
    def answer_to(path: str) -> Answer:
        if path == "/healthz":
            return 503, "application/json", json.dumps(FULL).encode()
        if path == "/metrics":
            lines = 'ledger_agent_watch_failing{watch="cdrs"} 1.0\nledger_agent_watch_failing{watch="log"} 0.0\n'
            return 200, "text/plain", lines.encode()
        return 404, "application/problem+json", b'{"title": "Not Found", "detail": "nothing here"}'

    with serving(answer_to) as url:
        status, findings = examine(url)
    assert status == 1
    assert [(each["level"], each["what"]) for each in findings if each["check"] == "agent"] == [
        ("bad", "it refuses CDRs: its disk is nearly full"),
        ("bad", "nothing can be taken in from cdrs"),
        ("bad", "3 documents not final, the oldest for 6 min 40 s"),
        ("warn", "2 dead letters"),
    ]


# -- real nodes ------------------------------------------------------------------------------------------------------


def has_metrics_as_documented(url: str) -> None:
    """Assert that a running program tells what the conventions and the document have."""
    import urllib.request

    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
        scrape = response.read().decode()
    assert faults_of(scrape) == []
    assert PROMTOOL is None or check_with_promtool(scrape) == ""
    documented = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    assert [name for name in families_of(scrape) if f"| `{name}` |" not in documented] == []


def test_a_network_that_is_well_and_one_node_that_stops(tmp_path: Path) -> None:
    agents: list[LocalAgent] = []

    def prepare(cluster: Cluster) -> None:
        agents.append(LocalAgent(add_agent(cluster, cluster.nodes[0])))

    with running_cluster(tmp_path / "net", prepare=prepare) as (cluster, nodes):
        (agent,) = agents
        agent.start()
        try:
            agent.wait_ready()
            feeder = Feeder(cluster)
            make_final(feeder, nodes[0], 2)
            wait_until("all may sign", lambda: {signing(node)["state"] for node in nodes} == {"clear"}, 10)
            urls = [node.place.url for node in nodes]
            everything = [*urls, agent.url, "--genesis", cluster.genesis_file]
            for _ in range(10):
                # What has just started need not have voted yet.
                status, findings = examine(*everything)
                if status == 0:
                    break
            assert (status, not_well(findings)) == (0, set())
            assert {each["check"] for each in findings} == set(CHECKS)
            for url in (*urls, agent.url):
                has_metrics_as_documented(url)

            nodes[3].kill()
            make_final(feeder, nodes[0], 4)
            status, findings = examine(*everything)
            assert status == 1
            wrong = not_well(findings)
            assert {("bad", "answer", urls[3]), ("bad", "votes", "delta")} <= wrong
            assert {about for level, check, about in wrong if (level, check) == ("warn", "peers")} == {
                "alpha", "beta", "gamma",
            }  # fmt: skip
            (votes,) = [each["what"] for each in findings if each["check"] == "votes"]
            assert votes.startswith("has not voted since block ")
            assert votes.endswith("; the chain bears no further failure")
        finally:
            agent.terminate()
            agent.wait_stopped()


def test_a_clock_that_is_off_and_a_node_cut_off_are_told(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "net", slot_ms=1_000) as (cluster, nodes):
        feeder = Feeder(cluster)
        make_final(feeder, nodes[0])
        urls = [node.place.url for node in nodes]
        nodes[3].kill()
        skewed = nodes[3] = SkewedNode(nodes[3].place)
        skewed.skew_ms = 700
        skewed.start()
        skewed.wait_ready()
        wait_until("it says that its clock is off", lambda: signing(skewed)["state"] == "clock-off", 30)
        status, findings = examine(*urls)
        assert status == 1
        assert {("bad", "clock", "delta"), ("bad", "signing", "delta")} <= not_well(findings)
        assert {about for _, check, about in not_well(findings) if check == "clock"} == {"delta"}

        skewed.kill()
        text = skewed.place.config.read_text()
        elsewhere = f"127.0.0.1:{free_ports(1)[0]}"
        lines = [line for line in text.splitlines() if not line.startswith(("peers", "listen", "endpoint"))]
        lines.insert(0, f'peers = []\nlisten = "{elsewhere}"')
        skewed.place.config.write_text("\n".join(lines) + "\n")
        skewed.skew_ms = 0
        skewed.start()
        skewed.wait_ready()
        tx_id = feeder.send(nodes[0])
        assert tx_id is not None
        wait_until("the others go on", lambda: is_final(nodes[0], tx_id))
        assert (get(skewed, "/v1/status") or {})["sync"]["state"] == "alone"
        status, findings = examine(*urls, "--genesis", cluster.genesis_file)
        assert status == 1
        assert {("bad", "sync", "delta"), ("bad", "peers", "delta")} <= not_well(findings)
        assert ("bad", "proof", "delta") not in not_well(findings)
