"""``ledgerctl follow``: what it prints and with which status it ends, over sources without a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ledger.genesis import Genesis, genesis_to_json
from ledger.readable import to_readable
from node.cli.ledgerctl import app
from node.client import ApiFault
from tests.audit.chains import FIVE, Cluster, govern, make_genesis, make_raw
from tests.audit.light_kit import PeerSource

Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(scope="module")
def genesis() -> Genesis:
    return make_genesis(name="governed", members=FIVE, seats=4)


@pytest.fixture(scope="module")
def cluster(genesis: Genesis) -> Cluster:
    made = Cluster(genesis)
    govern(made)
    return made


@pytest.fixture
def sources(cluster: Cluster, genesis: Genesis) -> dict[str, PeerSource]:
    """Sources by address; a test may put others in their place."""
    return {f"http://{name}": PeerSource(cluster.peers[0], genesis, name=f"http://{name}") for name in ("a", "b")}


@pytest.fixture
def run(sources: dict[str, PeerSource], genesis: Genesis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    path = tmp_path / "genesis.json"
    path.write_bytes(genesis_to_json(genesis))
    monkeypatch.setattr("node.light.ApiSource", lambda url: sources[url])

    def call(*arguments: object) -> tuple[int, list[str], str]:
        done = CliRunner().invoke(app, ["follow", *map(str, arguments), "--genesis", str(path)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout.splitlines(), done.stderr

    return call


def no_answer(_question: str, _answer: Any) -> Any:
    raise ApiFault("the node does not answer: refused", status=0)


def test_once(run: Run, cluster: Cluster) -> None:
    status, lines, err = run("http://a", "--once")
    assert (status, len(lines)) == (0, 4 + 59 + 1)
    assert lines[0] == "voters set 1 follows at height 17: +echo -delta; 4 vote"
    assert lines[1] == "voters set 2 follows at height 33: other keys; 4 vote"
    assert lines[2] == "voters set 3 follows at height 41: -charlie; 3 vote"
    assert lines[4].startswith("final        1 slot 0 ")
    assert lines[4].endswith(("by alfa", "by bravo", "by charlie", "by delta"))
    final = cluster.peers[0].engine.final.block_id.hex()
    assert lines[-1] == f"OK: final at height 59 id {final}; voting set 4: echo, alfa, bravo, delta"
    assert err.endswith("from genesis\n")


def test_json_lines(run: Run) -> None:
    status, lines, _ = run("http://a", "--once", "--json")
    events = [json.loads(line) for line in lines]
    assert (status, [event["event"] for event in events]) == (0, ["voters"] * 4 + ["final"] * 59 + ["ok"])
    assert (events[4]["height"], events[-1]["set_id"], len(events[3]["producers"])) == (1, 4, 4)


def test_a_checkpoint_is_written_and_resumed_from(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "far"
    assert run("http://a", "--once", "--checkpoint", file)[0] == 0
    before = file.read_bytes()
    status, lines, err = run("http://a", "--once", "--checkpoint", file)
    assert (status, len(lines), file.read_bytes()) == (0, 1, before)
    assert err.endswith("from height 59, as the checkpoint says\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "genesis.json"]


def test_a_damaged_checkpoint_is_not_written_over(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "far"
    run("http://a", "--once", "--checkpoint", file)
    document = json.loads(file.read_bytes())
    document["final"]["header"]["slot"] += 1
    for text in ("", "{}", json.dumps(document)):
        file.write_text(text)
        with pytest.raises(Exception, match="not a checkpoint") as caught:
            run("http://a", "--once", "--checkpoint", file)
        assert (caught.value.where, file.read_text()) == (str(file), text)


def test_several_nodes(run: Run) -> None:
    status, lines, _ = run("http://a", "http://b", "--once")
    assert (status, len(lines), lines[-1].endswith("; 2 of 2 nodes agree")) == (0, 4 + 59 + 1, True)


def test_one_that_does_not_answer(run: Run, sources: dict[str, PeerSource]) -> None:
    sources["http://b"].forge = no_answer
    status, lines, err = run("http://a", "http://b", "--once")
    assert (status, lines[-1].endswith("; 1 of 2 nodes agree")) == (3, True)
    assert "http://b: the node does not answer: refused\n" in err
    assert run("http://b", "--once")[:2] == (3, [])


def test_the_first_lie_ends_it(run: Run, sources: dict[str, PeerSource], tmp_path: Path) -> None:
    def forge(question: str, answer: Any) -> Any:
        return answer[1:] if question == "set_changes" else answer

    sources["http://b"].forge = forge
    file = tmp_path / "far"
    status, lines, _ = run("http://a", "http://b", "--checkpoint", file)
    assert (status, file.exists()) == (1, False)
    assert lines[-1].startswith(
        "NOT OK: http://b: height 33, field voting: the current set is another than the one trusted"
    )
    status, lines, _ = run("http://b", "--json")
    assert (status, json.loads(lines[-1])["event"], json.loads(lines[-1])["source"]) == (1, "not-ok", "http://b")


def test_two_histories_are_told_with_their_proof(
    run: Run, sources: dict[str, PeerSource], genesis: Genesis, tmp_path: Path
) -> None:
    fork = Cluster(genesis)
    while fork.slot < 16:
        fork.submit(make_raw(genesis, range(9_000 + fork.slot, 9_003 + fork.slot), now_ms=fork.now_ms))
        fork.step()
    sources["http://b"] = PeerSource(fork.peers[0], genesis, name="http://b")
    status, lines, _ = run("http://a", "http://b", "--once")
    at = next(index for index, line in enumerate(lines) if line.startswith("NOT OK"))
    assert status == 1
    assert lines[at].startswith(
        "NOT OK: http://b and http://a: height 15: two blocks are final at one height (expected "
    )
    assert lines[at + 1].startswith("Proven to have voted for both: ")
    assert "The chain bears 1 faulty, and these are " in lines[at + 1]
    document = json.loads("\n".join(lines[at + 2 :]))
    assert document["headers"][1] == to_readable(sources["http://a"].headers(15, 1)[0].header)
    assert [sorted(part) for part in document["proofs"]] == [["certificate", "header", "siblings", "voting"]] * 2
    # A checkpoint of one of them finds the other out as well.
    file = tmp_path / "far"
    run("http://b", "--once", "--checkpoint", file)
    status, lines, _ = run("http://a", "--once", "--checkpoint", file)
    assert (status, lines[-1][:1]) == (1, "}")
    assert any(line.startswith("NOT OK: http://a: height 15: two blocks are final") for line in lines)


def test_a_node_behind_the_checkpoint(
    run: Run, sources: dict[str, PeerSource], genesis: Genesis, tmp_path: Path
) -> None:
    file = tmp_path / "far"
    run("http://a", "--once", "--checkpoint", file)
    young = Cluster(genesis)
    govern(young, slots=9)
    sources["http://a"] = PeerSource(young.peers[0], genesis, name="http://a")
    status, lines, err = run("http://a", "--once", "--checkpoint", file)
    assert (status, lines) == (3, [])
    assert "http://a: behind height 59, so nothing of it was verified" in err


def test_it_follows_until_interrupted(
    run: Run, sources: dict[str, PeerSource], genesis: Genesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = Cluster(genesis)
    sources["http://a"] = PeerSource(growing.peers[0], genesis, name="http://a")
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 20:
            raise KeyboardInterrupt
        govern(growing, slots=len(waits))

    monkeypatch.setattr("time.sleep", sleep)
    status, lines, _ = run("http://a")
    assert (status, waits[0], len(lines)) == (0, 1.0, 18)
    assert lines[-1].startswith("final       18 ")
