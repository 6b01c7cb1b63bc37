"""``ledgerctl`` against a node that runs: what an operator types, from the first record to its receipt."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.commitment import make_private_part, party_commitment
from ledger.readable import to_readable
from node.cluster import make_cluster
from node.founding import DEFAULT_PARAMETERS
from node.localnet import LocalNode, stop_all
from telephony.synthetic import Traffic, generate_records

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("cluster")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    """One node that is a whole chain."""
    cluster = make_cluster(
        tmp_path_factory.mktemp("ctl") / "net",
        ["solo"],
        genesis_time_ms=time.time_ns() // 1_000_000,
        parameters=msgspec.structs.replace(DEFAULT_PARAMETERS, slot_ms=200),
    )
    one = LocalNode(cluster.nodes[0])
    one.start()
    try:
        one.wait_ready()
        yield one
    finally:
        stop_all([one])


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    start_ms = time.time_ns() // 1_000_000 - 3_600_000
    return [to_readable(record) for record in islice(generate_records(Traffic(7, start_ms)), 40)]


def ctl(node: LocalNode, *arguments: object, stdin: str = "", is_json: bool = True) -> Any:
    done = run(node, *arguments, *(["--json"] if is_json else []), stdin=stdin)
    assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stderr
    return json.loads(done.stdout) if is_json else done.stdout


def run(node: LocalNode, *arguments: object, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "LEDGERCTL_URL": node.place.url,
        "LEDGERCTL_TOKEN": node.place.token,
        "COLUMNS": "200",
        **environment,
    }
    command = [sys.executable, "-m", "node.cli.ledgerctl", *map(str, arguments)]
    return subprocess.run(command, env=variables, input=stdin, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def handed(node: LocalNode, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What submit said of records handed in as lines on standard input, once they were final."""
    lines = "\n".join(map(json.dumps, records[:30]))
    results: list[dict[str, Any]] = ctl(node, "submit", "-", "--wait", "final", stdin=lines)
    return results


def test_submit_tells_of_each_record(handed: list[dict[str, Any]]) -> None:
    assert [(result["outcome"], result["state"]) for result in handed] == [("stored", "final")] * 30
    assert len({(result["tx_id"], result["index"]) for result in handed}) == 30


def test_submitting_again_does_no_harm(
    node: LocalNode, records: list[dict[str, Any]], handed: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "again.json"
    path.write_text(json.dumps([{"record": record} for record in records[:2]]))
    done = run(node, "submit", path)
    places = [f"{result['tx_id']}/{result['index']}" for result in handed[:2]]
    assert done.stdout.splitlines() == [f"{n} already stored {place}" for n, place in enumerate(places, 1)]
    assert (done.returncode, done.stderr) == (0, "2 already stored\n")


def test_a_call_handed_in_with_other_content_is_told_its_place(
    node: LocalNode, records: list[dict[str, Any]], handed: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"record": {**records[0], "sip_code": 299}}))
    done = run(node, "submit", path)
    place = f"/v1/records/{handed[0]['tx_id']}/{handed[0]['index']}"
    assert (done.returncode, done.stdout.rstrip().endswith(f"It is at {place}")) == (1, True)


def test_a_bad_record_does_not_hold_up_the_good_ones(
    node: LocalNode, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(map(json.dumps, [records[30], {**records[31], "end_ms": 5}, {"setup_ms": 1}])))
    done = run(node, "submit", path)
    first, second, third = done.stdout.splitlines()
    assert first.startswith("1 stored ")
    late_ms = records[31]["setup_ms"] - 5
    assert second.startswith(f"2 refused record.end_ms: The call ended {late_ms} ms before it was set up: ")
    assert "rule call-shape/end-before-setup" in second
    assert third.startswith("3 refused record.")
    assert (done.returncode, done.stderr) == (1, "1 stored, 2 refused\n")


def test_submit_without_the_right_token(node: LocalNode, records: list[dict[str, Any]]) -> None:
    for token in ("", "lt_wrong"):
        done = run(node, "submit", "-", stdin=json.dumps(records[32]), LEDGERCTL_TOKEN=token)
        assert (done.returncode, done.stdout) == (1, "")
        assert "  where: Authorization" in done.stderr.splitlines()


def test_the_token_may_be_in_a_file(node: LocalNode, records: list[dict[str, Any]]) -> None:
    arguments = ("submit", "-", "--token-file", node.place.home / "token")
    assert run(node, *arguments, stdin=json.dumps(records[33]), LEDGERCTL_TOKEN="").returncode == 0


def test_submit_takes_kamailios_cdrs(node: LocalNode) -> None:
    now = time.time()
    cdr = {"start_time": f"{now - 10:.3f}", "end_time": f"{now - 5:.3f}", "duration": "5.000", "sip_code": "200"}
    cdr |= {"call_id": "a@b", "from_tag": "t1", "to_tag": "t2", "src_uri": "sip:+442071838750@x", "dst_uri": "sip:b@x"}
    done = run(node, "submit", "-", "--kamailio", stdin=json.dumps(cdr))
    assert (done.stdout.startswith("1 stored "), done.returncode) == (True, 0)
    place = done.stdout.split()[2]
    found = ctl(node, "show", "record", place)
    assert found["record"]["sip_code"] == 200
    assert found["record"]["energy"]["grid_zone"] == "GB"
    assert found["private"]["call_id"]["value"] == "a@b"
    assert "private" not in json.loads(run(node, "show", "record", place, "--json", LEDGERCTL_TOKEN="").stdout)


def test_status_of_several_nodes_side_by_side(node: LocalNode) -> None:
    status = ctl(node, "status")
    assert status["chain_name"] == "local"
    other = "http://127.0.0.1:1"
    done = run(node, "status", node.place.url, other, "--json")
    assert done.returncode == 1
    assert list(json.loads(done.stdout)) == [node.place.url]
    assert f"  where: {other}" in done.stderr.splitlines()
    assert "chain_name" in ctl(node, "status", is_json=False)


def test_show(node: LocalNode, handed: list[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    place = handed[3]
    head = ctl(node, "show", "head")
    assert head["final"]["height"] >= 1
    found = ctl(node, "show", "record", f"{place['tx_id']}/{place['index']}")
    assert (found["record"], found["promise"]["state"]) == (records[3], "final")
    block = ctl(node, "show", "block", found["promise"]["height"])
    assert place["tx_id"] in [tx["tx_id"] for tx in block["transactions"]]
    assert ctl(node, "show", "block", block["block_id"]) == block
    assert ctl(node, "show", "tx", place["tx_id"])["envelope"]["member_id"] == "solo"
    assert [producer["member_id"] for producer in ctl(node, "show", "producers")["producers"]] == ["solo"]
    assert ctl(node, "show", "peers") == {"peers": []}
    assert ctl(node, "show", "genesis")["chain_id"] == head["chain_id"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("head",), "final.height"),
        (("block", "1"), " records  "),
        (("producers",), "A quorum is 1 of 1, 0 may fail."),
        (("peers",), "no peers"),
        (("genesis",), "faults tolerated"),
    ],
)
def test_show_for_people(node: LocalNode, handed: list[dict[str, Any]], arguments: tuple[str, ...], words: str) -> None:
    assert handed
    assert words in ctl(node, "show", *arguments, is_json=False)


def test_show_a_record_for_people(node: LocalNode, handed: list[dict[str, Any]]) -> None:
    tx_id = handed[0]["tx_id"]
    assert "promise.state" in ctl(node, "show", "record", f"{tx_id}/0", is_json=False)
    lines = ctl(node, "show", "tx", tx_id, is_json=False).splitlines()
    assert len(lines) > 30
    assert lines[-1].split()[1] == "yes"  # it counts


@pytest.mark.parametrize(
    "arguments", [("block", "999999"), ("block", "xyz"), ("tx", "../status"), ("record", "00" * 32 + "/0")]
)
def test_what_is_not_there_is_an_error_with_status_one(node: LocalNode, arguments: tuple[str, ...]) -> None:
    done = run(node, "show", *arguments)
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0].startswith("error: no")) == (1, "", True)


def test_a_receipt_is_proven_without_the_node(node: LocalNode, handed: list[dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "receipt.json"
    place = f"{handed[5]['tx_id']}/{handed[5]['index']}"
    ctl(node, "receipt", place, "--out", out, is_json=False)
    assert run(node, "receipt", place, "--out", out).returncode == 1  # never over an existing file
    status, said = verify(node, out)
    assert (status, said[0].startswith("OK: "), len(said)) == (0, True, 1)


@pytest.fixture(scope="module")
def private_place(node: LocalNode, records: list[dict[str, Any]]) -> str:
    """Return the place of a final record whose private part the node has."""
    values = {"caller": "+442071838750", "callee": "sip:ben@host.test", "call_id": "a84b4c76e66710"}
    part = make_private_part(values, [bytes([i]) * 32 for i in range(7)])
    record = {**records[36], "party_commitment": party_commitment(part).hex()}
    private = {field.name: {"salt": field.salt.hex(), "value": field.value.decode()} for field in part.fields}
    document = json.dumps({"record": record, "private": private})
    [handed] = ctl(node, "submit", "-", "--wait", "final", stdin=document)
    return f"{handed['tx_id']}/{handed['index']}"


def test_a_receipt_shows_what_the_carrier_chooses(node: LocalNode, private_place: str, tmp_path: Path) -> None:
    out = tmp_path / "receipt.json"
    assert run(node, "receipt", private_place, "--reveal", "number", "--out", out).returncode == 1
    assert run(node, "receipt", private_place, "--reveal", "caller", "--out", out, LEDGERCTL_TOKEN="").returncode == 1
    ctl(node, "receipt", private_place, "--reveal", "caller", "--out", out, is_json=False)
    status, said = verify(node, out)
    assert (status, said[1:]) == (0, ["  caller is what the record was made with: +442071838750"])
    assert ("ben@" in out.read_text(), out.stat().st_mode & 0o777) == (False, 0o600)


def test_the_commands_of_the_document(node: LocalNode, private_place: str, tmp_path: Path) -> None:
    """As docs/audit.md has them, but for the one at a stopped agent: tests/node/test_vault_cli.py."""
    section = re.search(r"^## Receipts$(.*?)^## ", (ROOT / "docs" / "audit.md").read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None
    commands = [shlex.split(line, comments=True) for line in re.findall(r"^\$ (.*)$", section[1], re.MULTILINE)]
    assert [command[0] for command in commands] == ["ledgerctl", "ledger-verify", "ledgerctl", "ledger-agent"]
    shutil.copy(node.place.home.parent / "genesis.json", tmp_path)
    (tmp_path / "private.token").write_text(node.place.token)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "LEDGERCTL_URL": node.place.url}
    for program, *arguments in [*commands[:3], commands[1]]:
        module = {"ledgerctl": "node.cli.ledgerctl", "ledger-verify": "node.cli.verify"}[program]
        if program == "ledgerctl":
            (tmp_path / "receipt.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", module, *(private_place if one == "TXID/INDEX" else one for one in arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    shown = [line.split()[0] for line in done.stdout.splitlines()]
    assert shown == ["OK:", "caller", "call_id"]


def verify(node: LocalNode, receipt: Path) -> tuple[int, list[str]]:
    """Verify a receipt with the genesis alone; return the exit status and what was said."""
    genesis = node.place.home.parent / "genesis.json"
    command = [sys.executable, "-m", "node.cli.verify", str(receipt), "--genesis", str(genesis)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    return done.returncode, done.stdout.splitlines()


def test_tail_shows_what_happens(node: LocalNode, records: list[dict[str, Any]]) -> None:
    command = [sys.executable, "-m", "node.cli.ledgerctl", "tail", "--url", node.place.url, "--json"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}) as tail:
        try:
            time.sleep(1.0)  # it says nothing until something happens
            assert run(node, "submit", "-", stdin=json.dumps(records[35])).returncode == 0
            assert tail.stdout
            events = [json.loads(tail.stdout.readline()) for _ in range(2)]
        finally:
            tail.terminate()
    assert {"block", "final"} >= {event["event"] for event in events}


def test_follow_verifies_what_is_final(node: LocalNode, handed: list[dict[str, Any]], tmp_path: Path) -> None:
    """By proof, from the genesis file on; a second time from where the first one ended."""
    far = tmp_path / "far.json"
    asked = ["follow", node.place.url, "--genesis", str(node.place.home.parent / "genesis.json"), "--once"]
    first = run(node, *asked, "--checkpoint", far)
    assert (first.returncode, first.stderr.count("from genesis")) == (0, 1), first.stderr
    assert re.match(r"OK: final at height \d+ id [0-9a-f]{64}; voting set 0: solo$", first.stdout.splitlines()[-1])
    again = run(node, *asked, "--checkpoint", far)
    assert (again.returncode, again.stderr.count("as the checkpoint says")) == (0, 1), again.stderr
