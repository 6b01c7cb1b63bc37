"""``ledgerctl`` signs what governs, without a node: every command's payload, checked as every node checks it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consensus.election import founding_state
from ledger.codec import decode
from ledger.crypto import PrivateKey
from ledger.errors import LedgerError
from ledger.genesis import chain_id_of, genesis_from_json
from ledger.readable import to_readable
from ledger.rules.ruleset import RuleSet
from ledger.transaction import LIFETIME_MS_MAX, Transaction
from ledger.validation import CheckedTransaction, check_transaction
from node.cli import ledgerctl
from node.cli.govern import decided, find_proposal, parse_key_id
from node.cli.members import describe_proposal
from node.client import ApiFault, Client
from node.desk import Desk, Followed, not_final, submit_to_any
from node.keyfile import read_key
from tests.test_operations import commands_of

ROOT = Path(__file__).parents[2]
GENESIS = genesis_from_json((ROOT / "genesis.json").read_bytes())
STATE = founding_state(GENESIS)
KEY = ROOT / "scripts" / "devnet" / "alpha-govern.pem"
NODE = ROOT / "scripts" / "devnet" / "alpha-node.pem"
NEW = PrivateKey.from_seed(b"new").public_key.hex()
NEWER = PrivateKey.from_seed(b"newer").public_key.hex()
NEW_ID = PrivateKey.from_seed(b"new").key_id.hex()

Ctl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ctl:
    """Run ``ledgerctl``; return status and what it said."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ledgerctl", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        for name in ("LEDGERCTL_URL", "LEDGERCTL_KEY", "LEDGERCTL_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        status: object = 0
        try:
            ledgerctl.main()
        except SystemExit as end:
            status = end.code or 0
        assert isinstance(status, int)
        return status, *capsys.readouterr()

    return run


def offline(key: Path = KEY) -> list[object]:
    """Return the options that name key and chain, for the development network of the project."""
    return ["--key", key, "--genesis", ROOT / "genesis.json", "--member", "alpha"]


def check(raw: bytes) -> CheckedTransaction:
    """Check a transaction as every node does."""
    rules = RuleSet(GENESIS.rules, carbon_basis=GENESIS.parameters.carbon_basis)
    return check_transaction(raw, chain_id=chain_id_of(GENESIS), key_of=STATE.keys.get, rules=rules)


COMMANDS: dict[str, tuple[list[object], str, dict[str, Any]]] = {
    "key add": (
        ["key", "add", NEW, "--role", "submit", "--role", "govern", "--role", "submit"],
        "key",
        {"changes": [{"operation": "add", "public_key": NEW, "roles": 6, "key_id": None}]},
    ),
    "key rotate": (
        ["key", "rotate", NEW_ID, NEWER],
        "key",
        {"changes": [{"operation": "rotate", "public_key": NEWER, "roles": 0, "key_id": NEW_ID}]},
    ),
    "key revoke by public key": (
        ["key", "revoke", NEW],
        "key",
        {"changes": [{"operation": "revoke", "public_key": None, "roles": 0, "key_id": NEW_ID}]},
    ),
    "stand": (
        ["candidate", "stand", "--with-key", NODE, "--endpoint", "wss://a.example:443", "--zone", "GB"],
        "candidate",
        {
            "candidate": {
                "key_id": STATE.candidates["alpha"].key_id.hex(),
                "endpoint": "wss://a.example:443",
                "grid_zone": "GB",
            }
        },
    ),
    "withdraw": (["candidate", "withdraw"], "candidate", {"candidate": None}),
    "delegate": (
        ["delegate", "beta=40", "alpha=60"],
        "delegate",
        {"parts": [{"candidate_id": "alpha", "weight": 60}, {"candidate_id": "beta", "weight": 40}]},
    ),
    "delegate nothing": (["delegate", "--none"], "delegate", {"parts": []}),
    "approve": (["approve", "ab" * 32], "approve", {"proposal_id": "ab" * 32}),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_signs(ctl: Ctl, tmp_path: Path, name: str) -> None:
    arguments, kind, payload = COMMANDS[name]
    status, said, _ = ctl(*arguments, *offline(), "--out", tmp_path / "tx", "--json")
    assert status == 0
    checked = check((tmp_path / "tx").read_bytes())
    assert json.loads(said)["tx_id"] == checked.tx_id.hex()
    assert (checked.envelope.kind.name.lower(), to_readable(checked.payload)) == (kind, payload)
    assert (checked.envelope.member_id, checked.envelope.key_id) == ("alpha", read_key(KEY, is_dev=True).key_id)
    assert checked.envelope.expires_ms - checked.envelope.created_ms == LIFETIME_MS_MAX


PROPOSALS: dict[str, tuple[list[object], dict[str, Any]]] = {
    "admit with one key": (
        ["admit", "epsilon", "--weight", "80", "--with-node-key", NEW],
        {
            "action": "admit",
            "member_id": "epsilon",
            "weight": 80,
            "keys": [{"public_key": NEW, "roles": 7}],
            "seats": 0,
        },
    ),
    "admit with two keys": (
        ["admit", "epsilon", "--weight", "80", "--with-node-key", NEW, "--with-govern-key", NEWER],
        {
            "action": "admit",
            "member_id": "epsilon",
            "weight": 80,
            "keys": [{"public_key": NEW, "roles": 3}, {"public_key": NEWER, "roles": 4}],
            "seats": 0,
        },
    ),
    "reweigh": (
        ["reweigh", "beta", "7"],
        {"action": "reweigh", "member_id": "beta", "weight": 7, "keys": [], "seats": 0},
    ),
    "remove": (["remove", "beta"], {"action": "remove", "member_id": "beta", "weight": 0, "keys": [], "seats": 0}),
    "readmit": (["readmit", "beta"], {"action": "readmit", "member_id": "beta", "weight": 0, "keys": [], "seats": 0}),
    "seats": (["seats", "7"], {"action": "seats", "member_id": None, "weight": 0, "keys": [], "seats": 7}),
}


@pytest.mark.parametrize("name", PROPOSALS)
def test_what_is_proposed(ctl: Ctl, tmp_path: Path, name: str) -> None:
    arguments, proposal = PROPOSALS[name]
    assert ctl("propose", *arguments, "--days", "30", *offline(), "--out", tmp_path / "tx")[0] == 0
    checked = check((tmp_path / "tx").read_bytes())
    found = to_readable(checked.payload)
    lasts_ms = found.pop("expires_ms") - checked.envelope.created_ms
    assert found == proposal
    assert 29 * 86_400_000 < lasts_ms < 30 * 86_400_000
    assert describe_proposal(found)


def test_a_dry_run_shows_what_would_be_signed(ctl: Ctl, tmp_path: Path) -> None:
    status, said, _ = ctl("delegate", "beta=40", *offline(), "--print", "--json")
    shown = json.loads(said)
    assert (status, shown["member_id"], shown["payload"]) == (
        0,
        "alpha",
        {"parts": [{"candidate_id": "beta", "weight": 40}]},
    )
    assert shown["chain_id"] == chain_id_of(GENESIS).hex()
    status, said, _ = ctl("delegate", "beta=40", *offline(), "--print")
    assert (status, '"candidate_id": "beta"' in said) == (0, True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_never_written_over(ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "tx").write_text("mine")
    status, said, error = ctl("delegate", "--none", *offline(), "--out", tmp_path / "tx")
    assert (status, said, "exists already" in error) == (1, "", True)
    assert (tmp_path / "tx").read_text() == "mine"


def test_its_lifetime_is_as_asked_for(ctl: Ctl, tmp_path: Path) -> None:
    assert ctl("delegate", "--none", *offline(), "--out", tmp_path / "tx", "--valid-minutes", "5")[0] == 0
    envelope = decode((tmp_path / "tx").read_bytes(), Transaction).envelope
    assert envelope.expires_ms - envelope.created_ms == 300_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["delegate", "a=0"], "not a delegation"),
        (["delegate", "a=1", "a=2"], "not a delegation"),
        (["delegate", "A=1"], "parts[0].candidate_id"),
        (["key", "add", "02" + "ff" * 32, "--role", "node"], "not a public key"),
        (["key", "add", NEW, "--role", "boss"], "unknown role"),
        (["candidate", "stand", "--with-key", NODE, "--zone", "Mars"], "grid_zone"),
        (["propose", "admit", "a_b", "--weight", "1", "--with-node-key", NEW], "member_id"),
        (["propose", "admit", "eps", "--weight", "1", "--with-node-key", NEW, "--with-submit-key", "x"], "be read"),
    ],
)
def test_what_cannot_be_signed(ctl: Ctl, tmp_path: Path, arguments: list[object], words: str) -> None:
    status, said, error = ctl(*arguments, *offline(), "--out", tmp_path / "tx")
    assert (status, said, words in error) == (1, "", True), error
    assert list(tmp_path.iterdir()) == []


def test_without_a_node_the_member_must_be_named(ctl: Ctl, tmp_path: Path) -> None:
    options = ["--key", KEY, "--genesis", ROOT / "genesis.json", "--out", tmp_path / "tx"]
    assert "the member must be named" in ctl("delegate", "--none", *options)[2]


def test_a_file_that_is_no_transaction(ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "tx").write_bytes(b"\x93\x01\x02\x03")
    assert ctl("submit-transaction", tmp_path / "tx")[0] == 1
    assert "cannot be read" in ctl("submit-transaction", tmp_path / "none")[2]


def test_nobody_answers(ctl: Ctl) -> None:
    status, said, error = ctl("delegate", "--none", "--key", KEY, "--node", "http://127.0.0.1:1")
    assert (status, said, "the node does not answer" in error) == (1, "", True)


class FakeClient(Client):
    """Answers what it is told to."""

    def __init__(self, answers: dict[str, Any], *, status: int = 0) -> None:
        super().__init__("http://127.0.0.1:1")
        self.answers = answers
        self.status = status
        self.asked: list[str] = []

    def get(self, path: str) -> Any:
        """See ``Client.get``."""
        self.asked.append(path)
        if self.status:
            raise ApiFault("no", status=self.status)
        return self.answers[path]

    def submit_transaction(self, raw: bytes) -> dict[str, Any]:
        """See ``Client.submit_transaction``."""
        self.asked.append(f"submit {len(raw)}")
        if self.status:
            raise ApiFault("no", status=self.status)
        return {"outcome": "stored"}


@pytest.mark.parametrize(("status", "is_tried_elsewhere"), [(0, True), (503, True), (401, True), (422, False)])
def test_another_node_is_tried_unless_the_transaction_is_at_fault(status: int, is_tried_elsewhere: bool) -> None:
    first, second = FakeClient({}, status=status or 500), FakeClient({})
    if is_tried_elsewhere:
        assert submit_to_any([first, second], b"x") is second
    else:
        with pytest.raises(ApiFault):
            submit_to_any([first, second], b"x")
        assert second.asked == []
    with pytest.raises(LedgerError):
        submit_to_any([], b"x")


def test_a_proposal_is_found_by_its_beginning() -> None:
    ids = ["ab" * 32, "ac" * 32]
    client = FakeClient({"/v1/proposals": {"proposals": [{"proposal_id": one} for one in ids]}})
    desk = Desk([client], PrivateKey.from_seed(b"x"))
    assert find_proposal(desk, "ab") == bytes.fromhex(ids[0])
    assert find_proposal(desk, "ff" * 32) == b"\xff" * 32
    for text, words in (("a", "more than one"), ("x", "not an open proposal"), ("", "not an open proposal")):
        with pytest.raises(LedgerError, match=words):
            find_proposal(desk, text)


def test_what_is_said_of_an_open_proposal() -> None:
    entry = {
        "proposal_id": "ab" * 32,
        "proposal": {"expires_ms": 1_795_250_000_000},
        "approvals": ["alpha", "beta"],
        "weight": 200,
        "weight_needed": 267,
    }
    desk = Desk([FakeClient({"/v1/proposals": {"proposals": [entry]}})], PrivateKey.from_seed(b"x"))
    first, second = decided(desk, "ab" * 32, 5)
    assert "alpha, beta, weight 200 of the 267 needed" in first
    assert second.endswith(f"ledgerctl approve {'ab' * 32}")


def test_what_is_said_of_a_transaction_that_was_not_final() -> None:
    assert "no block took it" in not_final(Followed("expired", None), "ab", "then").what
    error = not_final(Followed("stored", None), "ab", "then")
    assert (error.what, error.actual) == ("not final in time", "stored")


def test_keys_by_id_or_by_file() -> None:
    assert parse_key_id(NEW_ID).hex() == parse_key_id(NEW).hex() == NEW_ID
    assert parse_key_id(str(NODE)) == STATE.candidates["alpha"].key_id


def test_the_guide_shows_every_command_that_governs() -> None:
    shown = {" ".join(words[1:3]) for words in commands_of((ROOT / "docs" / "operations.md").read_text())}
    wanted = {"key add", "key rotate", "key revoke", "candidate stand", "candidate withdraw", "propose admit"}
    assert wanted - shown == set()
