"""Governing a chain of one node with ``ledgerctl``: what the guide says to try, and what is said of mistakes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger.codec import decode
from ledger.crypto import PrivateKey
from ledger.transaction import Kind, Transaction
from node.client import Client
from tests.integration.openapi_check import check_answer

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "operations.md").read_text()
pytestmark = pytest.mark.xdist_group("cluster")


@dataclass
class Chain:
    """A development chain that runs."""

    data: Path
    url: str
    token: str

    @property
    def govern(self) -> list[object]:
        """Return the options to sign with."""
        return ["--key", self.data / "dev" / "govern.pem"]

    def run(self, *arguments: object, token: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``ledgerctl``."""
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "LEDGERCTL_URL": self.url}
        variables["LEDGERCTL_TOKEN"] = self.token if token is None else token
        command = [sys.executable, "-m", "node.cli.ledgerctl", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60, check=False)

    def ctl(self, *arguments: object) -> Any:
        """Run ``ledgerctl`` and return what it says as JSON."""
        done = self.run(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, ""), f"{arguments}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def refused(self, *arguments: object, **options: Any) -> str:
        """Run what is refused, and return what is said."""
        done = self.run(*arguments, **options)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        return done.stderr


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """``ledgerd --dev``, as the guide has it."""
    data = tmp_path_factory.mktemp("dev") / "d"
    command = [sys.executable, "-m", "node.cli.ledgerd", "--dev", "--data", str(data)]
    command += ["--api", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = (data.parent / "log").open("wb")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=variables) as process:
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            made = Chain(data, words[1], words[3])
            deadline = time.monotonic() + 30
            while not Client(made.url).is_ready():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield made
        finally:
            process.terminate()
    log.close()


@pytest.fixture(scope="module")
def walked(chain: Chain) -> list[str]:
    """What the commands of "Try governing" said, one after another."""
    section = GUIDE.split("### Try governing")[1].split("\n## ")[0]
    lines = [line.strip() for line in section.splitlines() if line.startswith("    ledgerctl ")]
    assert len(lines) == 9
    said = []
    for line in lines:
        done = chain.run(*shlex.split(line.replace("DIR", str(chain.data)), comments=True)[1:])
        assert (done.returncode, done.stderr) == (0, ""), f"{line}: {done.stdout}{done.stderr}"
        said.append(done.stdout)
    return said


def test_what_the_guide_says_to_try(walked: list[str]) -> None:
    members, _, added, revoked, shown, proposed, delegated, proved, producers = walked
    assert "Weight 1; a proposal needs 1 of it." in members
    assert "it may sign from height" in added
    assert "signs nothing after height" in revoked
    assert '"candidate_id": "dev"' in shown
    assert "Carried out at height" in proposed
    assert "From height" in delegated
    assert "which is final. Changes of the voting set since genesis, each signed by quorums of both sets: 0." in proved
    assert proved.split()[:2] == ["weight", "5"]
    assert "Voting set 0: dev." in producers


def test_a_dry_run_sends_nothing(chain: Chain, walked: list[str]) -> None:
    assert walked
    before = chain.ctl("members", "dev")["delegates"]
    shown = chain.ctl("delegate", "--none", "--print", *chain.govern)
    assert (shown["kind"], shown["member_id"], shown["payload"]) == ("delegate", "dev", {"parts": []})
    assert chain.ctl("members", "dev")["delegates"] == before
    assert before["dev"] in {4, 5}  # as the guide left it, or as signed elsewhere


def test_signed_elsewhere_and_handed_in_here(chain: Chain, walked: list[str], tmp_path: Path) -> None:
    assert walked
    out = tmp_path / "signed.tx"
    offline = ["--genesis", chain.data / "dev" / "genesis.json", "--member", "dev", "--node", "http://127.0.0.1:1"]
    told = chain.ctl("delegate", "dev=4", "--out", out, *offline, *chain.govern)
    assert decode(out.read_bytes(), Transaction).envelope.kind is Kind.DELEGATE
    handed = chain.ctl("submit-transaction", out)
    assert (handed["tx_id"], handed["state"]) == (told["tx_id"], "final")
    assert chain.ctl("members", "dev")["delegates"] == {"dev": 4}
    # Once more does no harm.
    assert chain.ctl("submit-transaction", out)["height"] == handed["height"]
    shown = chain.ctl("show", "tx", told["tx_id"])
    assert (shown["records"], shown["payload"]) == ([], {"parts": [{"candidate_id": "dev", "weight": 4}]})
    assert '"candidate_id": "dev"' in chain.run("show", "tx", told["tx_id"]).stdout
    assert "exists already" in chain.refused("delegate", "dev=4", "--out", out, *offline, *chain.govern)


def test_the_second_node_is_tried_where_the_first_does_not_answer(chain: Chain, walked: list[str]) -> None:
    assert walked
    nodes = ["--node", "http://127.0.0.1:1", "--node", chain.url]
    assert chain.ctl("candidate", "stand", "--with-key", chain.data / "dev" / "node.pem", *nodes, *chain.govern)
    assert "does not answer" in chain.refused("candidate", "withdraw", *nodes[:2], *chain.govern)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["delegate", "nobody=1"], "no candidate"),
        (["delegate", "dev=1000"], "more than the member's weight"),
        (["delegate", "dev"], "not a delegation"),
        (["delegate"], "say to whom"),
        (["delegate", "dev=1", "--none"], "say to whom"),
        (["approve", "ab"], "not an open proposal"),
        (["approve", "ab" * 32], "no open proposal"),
        (["key", "revoke", "ab" * 20], "not an active key of this member"),
        (["key", "add", "{new}", "--role", "king"], "unknown role"),
        (["key", "add", "nowhere.pub", "--role", "node"], "cannot be read"),
        (["propose", "remove", "dev"], "the last member cannot be removed"),
        (["propose", "readmit", "dev"], "the member was not struck"),
        (["propose", "admit", "Upper", "--weight", "1", "--with-node-key", "{new}"], "member_id"),
        (["candidate", "stand", "--with-key", "{new}"], "not a node key of this member"),
        (["candidate", "stand", "--with-key", "{new}", "--endpoint", "http://x"], "endpoint"),
        (["delegate", "dev=1", "--wait", "soon"], "not a promise"),
    ],
)
def test_what_does_not_fit_is_said_in_words(chain: Chain, walked: list[str], arguments: list[str], words: str) -> None:
    assert walked
    new = PrivateKey.from_seed(b"unknown").public_key.hex()
    assert words in chain.refused(*(part.replace("{new}", new) for part in arguments), *chain.govern)


def test_the_wrong_key_is_named_before_anything_is_signed(chain: Chain, walked: list[str], tmp_path: Path) -> None:
    assert walked
    chain.run("keygen", tmp_path / "mine.pem")
    assert "the chain does not know this key" in chain.refused("delegate", "dev=1", "--key", tmp_path / "mine.pem")
    submit = chain.data / "dev" / "submit.pem"
    assert "this key may not govern" in chain.refused("delegate", "dev=1", "--key", submit)
    assert "where: Authorization" in chain.refused("delegate", "dev=1", *chain.govern, token="")
    assert "cannot be read" in chain.refused("delegate", "dev=1", "--key", tmp_path / "none.pem")


def test_keys_of_nobody(chain: Chain) -> None:
    assert "no such member" in chain.refused("key", "list", "nobody")


def test_what_is_proved_and_what_is_proved_absent(chain: Chain, walked: list[str]) -> None:
    assert walked
    genesis = ["--genesis", chain.data / "dev" / "genesis.json"]
    assert chain.run("prove", "struck", "dev", *genesis).stdout.startswith("There is no struck/dev.")
    delegates = chain.ctl("members", "dev")["delegates"]
    assert chain.ctl("prove", "delegation", "dev", "dev", *genesis)["value"] == delegates["dev"]
    other = ROOT / "genesis.json"
    assert "does not prove it" in chain.refused("prove", "member", "dev", "--genesis", other)
    assert "not an entry of the state" in chain.refused("prove", "crown", *genesis)


def test_answers_are_as_the_document_says(chain: Chain, walked: list[str]) -> None:
    assert walked
    client = Client(chain.url)
    key_id = client.get("/v1/keys")["keys"][0]["key_id"]
    for path in (
        "/v1/members",
        "/v1/members/dev",
        "/v1/keys",
        "/v1/energy/pops?pop=london=GB,1.3&pop=oslo=NO&server_mw=850",
        "/v1/keys?member_id=dev",
        "/v1/candidates",
        "/v1/proposals",
        "/v1/producers",
        "/v1/status",
        "/v1/state?key=member/dev",
        f"/v1/state?key=key/{key_id}",
        "/v1/state?key=member/nobody",
    ):
        check_answer("GET", path, 200, "application/json", client.get(path))


def test_a_transaction_that_governs_holds_no_records(chain: Chain, walked: list[str]) -> None:
    assert walked
    blocks = [Client(chain.url).get(f"/v1/blocks/{height}") for height in range(1, 4)]
    tx_id = next(tx["tx_id"] for block in blocks for tx in block["transactions"])
    for command in (["show", "record"], ["receipt"]):
        assert "holds no records" in chain.refused(*command, f"{tx_id}/0")
