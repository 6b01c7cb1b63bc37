"""``ledger-verify`` against a running node's export over HTTP, on a terminal, and interrupted."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from audit.export import export_chain
from audit.source import NodeSource
from audit.verify import verify_chain
from ledger.errors import StoreError
from ledger.genesis import Genesis, genesis_to_json
from ledger.leveldb import LevelStore
from node.cli.verify_reference import refer_chain
from tests.audit.chains import rules_of
from tests.audit.conftest import data_dir, genesis, original
from tests.audit.tamper import Parts

__all__ = ["data_dir", "genesis", "original"]


class Node:
    """An HTTP server that streams an export, and may hang up on the way."""

    def __init__(self, data_dir: Path, genesis: Genesis) -> None:
        self.store = LevelStore(data_dir)
        self.genesis = genesis
        self.cut_after: list[int] = []
        self.asked: list[str] = []
        self.status = 200
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                node.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        request.send_response(self.status)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        first_height = int(request.path.partition("from=")[2])
        left = self.cut_after.pop(0) if self.cut_after else None
        for piece in export_chain(self.store, self.genesis, first_height=first_height):
            if left is not None:
                left -= 1
                if left < 0:
                    request.close_connection = True
                    return
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        request.wfile.write(b"0\r\n\r\n")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.store.close()


@pytest.fixture
def node(data_dir: Path, genesis: Genesis) -> Iterator[Node]:
    running = Node(data_dir, genesis)
    yield running
    running.close()


def test_a_running_node(node: Node, genesis: Genesis, original: Parts) -> None:
    source = NodeSource(node.url + "/")
    report = verify_chain(source, genesis, rules=rules_of(genesis))
    source.close()
    assert (report.ok, report.height, report.head_id) == (True, 14, original.head.final_id)
    assert node.asked == ["/v1/export?from=1"]


def test_a_lost_connection_is_made_anew(node: Node, genesis: Genesis) -> None:
    node.cut_after = [12, 9]
    source = NodeSource(node.url)
    report = verify_chain(source, genesis, rules=rules_of(genesis))
    source.close()
    assert (report.first_difference, report.height) == (None, 14)
    assert (len(node.asked), node.asked[0]) == (3, "/v1/export?from=1")
    assert node.asked[1] != node.asked[0]


def test_a_connection_lost_for_good_is_no_verdict(node: Node, genesis: Genesis) -> None:
    node.cut_after = [4] * 20
    source = NodeSource(node.url)
    with pytest.raises(StoreError):
        verify_chain(source, genesis, rules=rules_of(genesis))
    source.close()
    assert len(node.asked) == 4


def test_a_node_that_refuses(node: Node) -> None:
    node.status = 503
    with pytest.raises(StoreError, match="503"):
        NodeSource(node.url)


def test_a_bar_on_a_terminal(original: Parts, tmp_path: Path) -> None:
    """On a terminal the bar is drawn and taken away; the verdict is the last line."""
    (tmp_path / "chain.export").write_bytes(original.to_export())
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "node.cli.verify", str(tmp_path / "chain.export")],
        stdout=subprocess.PIPE,
        stderr=follower,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(follower)
    seen = b""
    try:
        while piece := os.read(leader, 4096):
            seen += piece
    except OSError:  # what Linux says when the last writer has gone
        pass
    out = process.communicate(timeout=30)[0]
    os.close(leader)
    assert (process.returncode, out.startswith(b"OK: 14 blocks, 110 records")) == (0, True)
    assert b"auditing" in seen


def test_the_second_implementation_reads_a_node(node: Node, genesis: Genesis, tmp_path: Path) -> None:
    """By what the first asks of it, lost connection and all."""
    path = tmp_path / "genesis.json"
    path.write_bytes(genesis_to_json(genesis))
    node.cut_after = [20]
    verdict = refer_chain(node.url, path)
    assert (verdict.ok, verdict.height, verdict.counts["records"]) == (True, 14, 110)
    assert len(node.asked) == 2
