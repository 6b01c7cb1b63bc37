"""``ledgerd --agent-spool``: the same agent in the node's process, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import ConfigError
from node.clock import now_ms
from node.config import Address, NodeConfig
from node.development import make_development_chain
from node.runtime import running_node
from tests.integration.cluster_kit import wait_until

ROOT = Path(__file__).parent.parent.parent
WAIT_S = 90.0


def cdr(number: int) -> dict[str, str]:
    end_s = now_ms() // 1000
    return {
        "call_id": f"call-{number}@host.test",
        "from_tag": "f",
        "from": "sip:+442071838750@host.test",
        "start_time": f"{end_s - 20}.5",
        "end_time": f"{end_s - 10}.25",
        "sip_code": "200",
    }


class Ledgerd:
    """``ledgerd --dev`` with an agent; its two addresses and the token stand on standard output."""

    def __init__(self, directory: Path) -> None:
        options = [
            *("--dev", "--data", str(directory / "data"), "--agent-spool", str(directory / "spool")),
            *("--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0"),
            *("--log-level", "error"),
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "node.cli.ledgerd", *options],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        first, second = (self.process.stdout.readline().split() for _ in range(2))
        self.api, self.token, self.agent = first[1], first[3], second[1]

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        status = self.process.wait(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def post(self, documents: list[dict[str, str]]) -> int:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{self.agent}/v1/ingest/kamailio", json.dumps(documents).encode(), headers=headers
        )
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return int(answer.status)

    def get(self, url: str) -> Any:
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            return json.load(answer)

    @property
    def backlog(self) -> int:
        return int(self.get(f"{self.agent}/healthz")["backlog"])


def test_what_the_agent_of_a_node_takes_is_final_once_whatever_kills_both(tmp_path: Path) -> None:
    documents = [cdr(number) for number in range(300)]
    ledgerd = Ledgerd(tmp_path)
    try:
        assert ledgerd.post(documents[:200]) == 202
        ledgerd.end(signal.SIGKILL)
        ledgerd = Ledgerd(tmp_path)
        # The proxy had no answer to some, as far as it knows.
        assert ledgerd.post(documents[150:]) == 202
        wait_until("everything is final", lambda: ledgerd.backlog == 0)
        blocks = ledgerd.get(f"{ledgerd.api}/v1/head")["final"]["height"]
        counted = [
            len(ledgerd.get(f"{ledgerd.api}/v1/transactions/{transaction['tx_id']}")["records"])
            - len(transaction["void"])
            for height in range(1, blocks + 1)
            for transaction in ledgerd.get(f"{ledgerd.api}/v1/blocks/{height}")["transactions"]
        ]
        assert sum(counted) == 300
        assert ledgerd.end(signal.SIGTERM) == 0
    finally:
        ledgerd.process.kill()
        ledgerd.process.wait()


async def test_a_node_that_cannot_sign_has_no_agent(tmp_path: Path) -> None:
    here = Address("127.0.0.1", 0)
    config = NodeConfig(
        dev=True, data=tmp_path / "data", api=here, listen=here, agent_spool=tmp_path / "spool", agent_listen=here
    )
    made = make_development_chain(config, now_ms()).config
    without = {"submit-key": replace(made, submit_key=None), "member-secret": replace(made, member_secret=None)}
    for missing, config in {**without, "tokens": replace(made, tokens=None)}.items():
        with pytest.raises(ConfigError, match=f"--{missing}"):
            await running_node(config).__aenter__()
