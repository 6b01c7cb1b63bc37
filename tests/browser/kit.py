"""A development node as a real process, and what the tests of the explorer ask of it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route

from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.genesis import Genesis, chain_id_of, genesis_from_json
from ledger.transaction import make_transaction, tx_id_of
from node.api.page import POLICY
from node.client import Client
from node.keyfile import read_key
from telephony.synthetic import Traffic, generate_records

ROOT = Path(__file__).parent.parent.parent
MEMBER = "dev"
HOUR_MS = 3_600_000
CHROMIUM = "chromium"
BROWSER = [
    pytest.mark.system(CHROMIUM),
    pytest.mark.xdist_group("browser"),
    pytest.mark.asyncio(loop_scope="session"),
]
"""Marks of every module here: Chromium is needed, one for all of them, on one event loop."""


@dataclass(frozen=True)
class DevNode:
    """``ledgerd --dev``.

    Attributes:
        home: its genesis file, keys and token.
        url: of its API, and of the explorer.
        token: with roles submit and private.
    """

    home: Path
    url: str
    token: str

    @property
    def client(self) -> Client:
        """Return a client with the node's own token."""
        return Client(self.url, self.token)

    def genesis(self) -> Genesis:
        """Return the genesis of its chain."""
        return genesis_from_json((self.home / "genesis.json").read_bytes())

    def key(self, name: str) -> PrivateKey:
        """Return one of its keys: node, submit or govern."""
        return read_key(self.home / f"{name}.pem", is_dev=True)

    def submit_records(self, records: int, *, seed: int = 1, per_transaction: int = 100) -> list[str]:
        """Hand in synthetic records of the last three hours; return the transactions' ids once all are final."""
        now = time.time_ns() // 1_000_000
        made = generate_records(Traffic(seed=seed, start_ms=now - 3 * HOUR_MS))
        key, chain_id = self.key("submit"), chain_id_of(self.genesis())
        tx_ids = []
        for start in range(0, records, per_transaction):
            items = [encode(record) for record in itertools.islice(made, min(per_transaction, records - start))]
            transaction = make_transaction(
                items, key=key, member_id=MEMBER, chain_id=chain_id, created_ms=now, expires_ms=now + HOUR_MS
            )
            self.client.submit_transaction(encode(transaction))
            tx_ids.append(tx_id_of(transaction.envelope).hex())
        wait_until("final", lambda: all(self.state_of(tx_id) in {"final", "void"} for tx_id in tx_ids))
        return tx_ids

    def state_of(self, tx_id: str) -> str:
        """Return how far a transaction has come."""
        return str(self.client.get(f"/v1/transactions/{tx_id}")["promise"]["state"])

    def ctl(self, *arguments: object) -> str:
        """Run ``ledgerctl`` against this node with its token; return what it says."""
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "LEDGERCTL_URL": self.url, "LEDGERCTL_TOKEN": self.token}
        command = [sys.executable, "-m", "node.cli.ledgerctl", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, ""), f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def running_node(data: Path, *arguments: str) -> Iterator[DevNode]:
    """Run ``ledgerd --dev`` on free ports until the end."""
    command = [sys.executable, "-m", "node.cli.ledgerd", "--dev", "--data", str(data), *arguments]
    command += ["--api", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        (data.parent / f"{data.name}.log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=variables) as process,
    ):
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            node = DevNode(data / "dev", words[1], words[3])
            wait_until("the node answers", node.client.is_ready)
            yield node
        finally:
            process.terminate()


def wait_until(what: str, is_so: Callable[[], Any], seconds: float = 60) -> None:
    """Return when ``is_so``; fail naming ``what`` when time is up."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


MODULES_URL = "http://localhost/"
"""Where ``serve_modules`` puts them: an origin that browsers hold for secure, as WebCrypto demands."""


async def serve_modules(page: Page) -> None:
    """Open an empty page beside the explorer's modules as they are in this checkout; no node is needed."""

    async def answer(route: Route) -> None:
        name = route.request.url.removeprefix(MODULES_URL)
        headers = {"Content-Security-Policy": POLICY}  # what the node sends with them
        if name:
            await route.fulfill(path=ROOT / "node" / "explorer" / name, headers=headers)
        else:
            head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>modules</title><main></main></html>'
            await route.fulfill(body=head, content_type="text/html", headers=headers)

    await page.route(f"{MODULES_URL}**", answer)
    await page.goto(MODULES_URL)
