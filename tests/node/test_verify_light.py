"""``ledger-verify`` without blocks: since the last time, nodes compared, notes; over sources without a network."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from audit.export import export_chain
from audit.lognote import make_note, origin_of
from audit.notes import COSIGNATURE, LogKey, parse_note
from audit.since import earlier_from_file
from ledger.errors import ConfigError
from ledger.genesis import Genesis, chain_id_of, genesis_to_json
from ledger.payloads import Evidence, is_vote_fault
from ledger.readable import from_readable
from node.cli.ledgerctl import app as ledgerctl
from node.cli.ledgerd import app as ledgerd
from node.cli.verify import main
from node.client import ApiFault
from node.keyfile import read_log_key
from tests.audit.chains import FIVE, Cluster, govern, make_genesis, make_raw
from tests.audit.light_kit import PeerSource

Run = Callable[..., tuple[int, str, str]]
A, B = "http://a", "http://b"
SCRAPS = [
    '{"record"',
    '{"head_id"',
    ": {}",
    ': "0"',
    ": [",
    '{"final"',
    ', "height": 1',
    "}",
    "]",
    "ledgerd/",
    "\n1\n",
    "\n\n— ",
]


@pytest.fixture(scope="module")
def genesis() -> Genesis:
    return make_genesis(name="governed", members=FIVE, seats=4)


@pytest.fixture(scope="module")
def cluster(genesis: Genesis) -> Cluster:
    made = Cluster(genesis)
    govern(made)
    return made


@pytest.fixture(scope="module")
def young(genesis: Genesis) -> Cluster:
    """The same chain, as it was at height 24."""
    made = Cluster(genesis)
    govern(made, slots=25)
    return made


@pytest.fixture(scope="module")
def forked(genesis: Genesis) -> Cluster:
    """Another chain from height 21 on, under another voting set at its end."""
    made = Cluster(genesis)
    govern(made, slots=20)
    while made.slot < 45:
        made.submit(make_raw(genesis, range(9_000 + made.slot * 3, 9_003 + made.slot * 3), now_ms=made.now_ms))
        made.step()
    return made


@pytest.fixture
def sources(cluster: Cluster, genesis: Genesis) -> dict[str, PeerSource]:
    """Sources by address; a test may put others in their place."""
    return {url: PeerSource(cluster.peers[0], genesis, name=url) for url in (A, B)}


@pytest.fixture
def run(
    sources: dict[str, PeerSource],
    genesis: Genesis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run the command in a folder with the genesis; return exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    Path("genesis.json").write_bytes(genesis_to_json(genesis))
    monkeypatch.setattr("node.light.ApiSource", lambda url: sources[url])

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ledger-verify", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(caught.value.code or 0), out, err

    return call


def no_answer(_question: str, _answer: Any) -> Any:
    raise ApiFault("the node does not answer: refused", status=0)


def block_at(source: PeerSource, height: int) -> str:
    return f"{height}:{source.peer.engine.block_id_at(height).hex()}"


# -- since the last time -----------------------------------------------------------------------------------------------


def test_a_checkpoint_is_all_that_the_next_time_needs(
    run: Run, sources: dict[str, PeerSource], young: Cluster, genesis: Genesis
) -> None:
    sources[A] = PeerSource(young.peers[0], genesis, name=A)
    status, out, _ = run(A, "--since", block_at(sources[A], 3), "--save-checkpoint", "far.json")
    assert (status, out.startswith("OK: extends what was seen at height 3; final at height 24 id ")) == (0, True)
    assert len(Path("far.json").read_bytes()) < 8_192
    status, out, _ = run(B, "--since", "far.json", "--save-checkpoint", "far.json", "--json", "report.json")
    final = sources[B].peer.engine.final
    expected = (
        f"OK: extends what was seen at height 24; final at height 59 id {final.block_id.hex()} by proofs; "
        "blocks were not looked at; voting set 4: echo, alfa, bravo, delta\n"
    )
    assert (status, out) == (0, expected)
    # Only what came since is asked for, and no header.
    assert (sources[B].asked.count("set_changes"), sources[B].asked.count("headers")) == (1, 0)
    assert sources[B].asked.count("consistency") == 1
    report = json.loads(Path("report.json").read_bytes())
    assert (report["ok"], report["height"], report["head_id"]) == (True, 59, final.block_id.hex())
    # The report, too, says what was seen.
    for seen in ("far.json", "report.json"):
        assert run(A.replace("a", "b"), "--since", seen)[:2] == (0, expected.replace("height 24", "height 59"))


def test_a_note_was_seen(run: Run, sources: dict[str, PeerSource], young: Cluster, genesis: Genesis) -> None:
    note = make_note(PeerSource(young.peers[0], genesis).final(), LogKey.generate())
    Path("note").write_bytes(note.to_bytes())
    assert run(A, "--since", "note")[0] == 0
    plain = note.text + "\n" + note.signatures[0].to_line()
    Path("note").write_text(plain)
    assert run(A, "--since", "note")[0] == 0
    assert sources[A].asked.count("consistency") == 2


@pytest.mark.parametrize("seen", ["checkpoint", "report", "block", "note", "plain note"])
def test_another_history_than_the_one_seen(
    seen: str, run: Run, sources: dict[str, PeerSource], forked: Cluster, genesis: Genesis
) -> None:
    sources[B] = PeerSource(forked.peers[0], genesis, name=B)
    assert run(B, "--since", f"0:{chain_id_of(genesis).hex()}", "--save-checkpoint", "far", "--json", "report")[0] == 0
    note = make_note(sources[B].final(), LogKey.generate())
    height = sources[B].peer.engine.final.height
    given = {"checkpoint": "far", "report": "report", "block": block_at(sources[B], height)}.get(seen, "note")
    Path("note").write_text(
        note.text + "\n" + "".join(one.to_line() for one in note.signatures[: 1 if "plain" in seen else 2])
    )
    status, out, _ = run(A, "--since", given, "--json", "verdict")
    report = json.loads(Path("verdict").read_bytes())
    assert (status, report["ok"], out.startswith("NOT OK: http://a: height ")) == (1, False, True)
    what = {
        "checkpoint": "height 44, field history_root: block 41 is not shown to be in its history",
        "plain note": "it is not shown to extend the history up to block 44",
    }.get(seen, "another block is final than the one seen earlier")
    assert what in out


def test_another_genesis_than_the_one_seen(run: Run) -> None:
    """No node is asked for a header of it: there is none, and its refusal would be no verdict."""
    status, out, _ = run(A, "--since", f"0:{'11' * 32}")
    assert (status, "height 0, field block_id: another block is final than the one seen earlier" in out) == (1, True)


def test_a_checkpoint_before_the_fork_is_extended_by_both(
    run: Run, sources: dict[str, PeerSource], forked: Cluster, genesis: Genesis
) -> None:
    assert run(A, "--since", block_at(sources[A], 20))[0] == 0
    sources[B] = PeerSource(forked.peers[0], genesis, name=B)
    assert run(B, "--since", block_at(sources[A], 20))[0] == 0
    status, out, _ = run(B, "--since", block_at(sources[A], 21))
    assert (status, "another block is final than the one seen earlier" in out) == (1, True)


def test_two_histories_of_one_voting_set_are_blamed(run: Run, sources: dict[str, PeerSource], genesis: Genesis) -> None:
    for url, calls, slots in ((A, 0, 14), (B, 7_000, 9)):
        made = Cluster(genesis)
        while made.slot < slots:
            made.submit(make_raw(genesis, range(calls + made.slot * 3, calls + made.slot * 3 + 2), now_ms=made.now_ms))
            made.step()
        sources[url] = PeerSource(made.peers[0], genesis, name=url)
    assert run(B, "--since", f"0:{chain_id_of(genesis).hex()}", "--save-checkpoint", "far")[0] == 0
    status, out, _ = run(A, "--since", "far", "--json", "verdict")
    # Of the history seen there is one certificate left: that of the checkpoint.
    assert (status, "Proven to have voted for both: alfa, bravo. The chain bears 1 faulty" in out) == (1, True)
    assert accused(json.loads(Path("verdict").read_bytes())) == ["alfa", "bravo"]


def test_a_node_that_is_behind_is_no_verdict(
    run: Run, sources: dict[str, PeerSource], young: Cluster, genesis: Genesis
) -> None:
    assert run(A, "--since", block_at(sources[A], 59), "--save-checkpoint", "far")[0] == 0
    sources[A] = PeerSource(young.peers[0], genesis, name=A)
    for seen in ("far", block_at(sources[B], 59)):
        status, out, err = run(A, "--since", seen, "--save-checkpoint", "other")
        assert (status, out, "it has not come as far as what was seen" in err) == (2, "", True)
    assert not Path("other").exists()


def test_a_lie_and_no_answer(run: Run, sources: dict[str, PeerSource]) -> None:
    sources[A].forge = lambda question, answer: [bytes(32), *answer[1:]] if question == "consistency" else answer
    assert run(B, "--since", block_at(sources[B], 5), "--save-checkpoint", "far")[0] == 0
    sources[B].forge = no_answer
    status, _, err = run(B, "--since", "far")
    assert (status, "the node does not answer: refused" in err) == (2, True)
    Path("note").write_bytes(make_note(sources[A].final(), LogKey.generate()).to_bytes())
    sources[A].forge = lambda question, answer: [*answer, bytes(32)] if question == "consistency" else answer
    status, out, _ = run(A, "--since", "note")
    assert (status, "is not shown to extend the history up to block 59: the path is too long" in out) == (1, True)


@pytest.mark.parametrize("change", ["other chain", "damaged", "cut", "no receipt", "other log"])
def test_what_was_not_seen_of_this_chain(change: str, run: Run, sources: dict[str, PeerSource]) -> None:
    assert run(A, "--since", block_at(sources[A], 5), "--save-checkpoint", "far", "--json", "report")[0] == 0
    checkpoint, report = json.loads(Path("far").read_bytes()), json.loads(Path("report").read_bytes())
    note = make_note(sources[A].final(), LogKey.generate()).to_bytes()
    text = {
        "other chain": json.dumps(report | {"chain_id": "00" * 32}),
        "damaged": json.dumps(checkpoint | {"final": checkpoint["final"] | {"siblings": []}}),
        "cut": json.dumps(checkpoint)[:-9],
        "no receipt": '{"record": 1}',
        "other log": note.decode().replace("ledgerd/", "ledgerd/0", 1),
    }[change]
    Path("seen").write_text(text)
    status, out, err = run(A, "--since", "seen")
    assert (status, out, "seen: not something seen of this chain" in err) == (2, "", True)


@given(st.binary(max_size=300) | st.builds("".join, st.lists(st.sampled_from(SCRAPS), max_size=9)).map(str.encode))
def test_anything_else_was_not_seen(data: bytes) -> None:
    genesis = make_genesis(name="governed", members=FIVE, seats=4)
    with pytest.raises(ConfigError, match="not something seen of this chain") as caught:
        earlier_from_file(data, genesis, where="seen")
    assert caught.value.where == "seen"


# -- comparing ---------------------------------------------------------------------------------------------------------


def accused(report: dict[str, Any]) -> list[str]:
    """Return whom a report accuses, with two votes each that contradict each other."""
    found = report["conflict"]["accused"]
    assert all(is_vote_fault(*from_readable(one["evidence"], Evidence).votes) for one in found)
    return [one["member_id"] for one in found]


def test_nodes_of_one_history(run: Run, sources: dict[str, PeerSource], young: Cluster, genesis: Genesis) -> None:
    sources[B] = PeerSource(young.peers[0], genesis, name=B)
    status, out, _ = run("--compare", A, B, "--json", "report")
    assert (status, out.startswith("OK: one history (http://b 24, http://a 59); final at height 59 id ")) == (0, True)
    report = json.loads(Path("report").read_bytes())
    assert (report["ok"], [one["height"] for one in report["nodes"]]) == (True, [59, 24])


def test_where_two_histories_part(run: Run, sources: dict[str, PeerSource], forked: Cluster, genesis: Genesis) -> None:
    sources["http://c"] = PeerSource(forked.peers[0], genesis, name="http://c")
    status, out, _ = run("--compare", A, "http://c", B, "--json", "report")
    lines = out.splitlines()
    a, c = (block_at(sources[url], 21).partition(":")[2] for url in (A, "http://c"))
    assert status == 1
    assert lines[0].startswith("NOT OK: http://c and http://")
    assert lines[1] == f"The histories part at height 21: {c} and {a}."
    # The voters of height 21, though on one side bravo has another key since, and charlie was struck.
    assert lines[2].startswith("Proven to have voted for both: alfa, bravo, charlie, echo. The chain bears 1 faulty")
    report = json.loads(Path("report").read_bytes())
    parting = report["conflict"]["first_difference"]
    assert (parting["height"], [side["block_id"] for side in parting["sides"]]) == (21, [c, a])
    assert [side["final_height"] for side in parting["sides"]] == [44, 59]
    assert accused(report) == ["alfa", "bravo", "charlie", "echo"]


def test_a_node_that_lies_or_does_not_answer(run: Run, sources: dict[str, PeerSource]) -> None:
    sources[B].forge = no_answer
    status, out, err = run("--compare", A, B, "--json", "report")
    assert (status, out, err) == (2, "", "http://b: the node does not answer: refused\n")
    assert json.loads(Path("report").read_bytes())["nodes"][1]["what"] == "the node does not answer: refused"
    sources[B].forge = lambda question, answer: answer[:-1] if question == "history" else answer
    status, out, _ = run("--compare", A, B)
    assert (status, out.startswith("NOT OK: http://b: height ")) == (1, True)


def test_a_node_of_another_chain(run: Run, sources: dict[str, PeerSource]) -> None:
    other = Cluster(make_genesis(name="another", members=FIVE, seats=4))
    govern(other, slots=5)
    sources[B] = PeerSource(other.peers[0], other.genesis, name=B)
    status, out, _ = run("--compare", A, B)
    assert (status, out.startswith("NOT OK: http://b: height 4, field header.chain_id: of another chain")) == (1, True)
    status, out, _ = run(B, "--since", block_at(sources[A], 3))
    assert (status, "field header.chain_id: of another chain" in out) == (1, True)


def test_a_node_that_will_not_show_where_it_parted(
    run: Run, sources: dict[str, PeerSource], forked: Cluster, genesis: Genesis
) -> None:
    """What is proven by then is told all the same."""
    sources[B] = PeerSource(forked.peers[0], genesis, name=B)
    sources[B].forge = lambda question, answer: [] if question == "headers" else answer
    status, out, _ = run("--compare", A, B)
    assert (status, "two blocks are final at one height" in out, "part at height" in out) == (1, True, False)


# -- the guide ---------------------------------------------------------------------------------------------------------

GUIDE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()


def commands_of(section: str) -> list[tuple[list[str], list[str]]]:
    """Return the commands in a section of the guide, each with the lines that it is said to print."""
    text = GUIDE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    found: list[tuple[list[str], list[str]]] = []
    for line in "\n".join(re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)).splitlines():
        if line.startswith("$ "):
            found.append((shlex.split(line[2:]), []))
        else:
            found[-1][1].append(line)
    return found


def as_in_the_guide(line: str) -> str:
    """Return a line with ids shortened to nothing: those of the guide are another chain's."""
    return re.sub(r"[0-9a-f]{4,}(\.\.\.)?(?![0-9a-z])", "ID", line)


def test_the_commands_of_the_guide(
    run: Run, sources: dict[str, PeerSource], young: Cluster, forked: Cluster, genesis: Genesis
) -> None:
    urls = {name: f"http://{name}:8080" for name in "ac"}
    sources[urls["a"]] = PeerSource(young.peers[0], genesis, name=urls["a"])
    sources[urls["c"]] = PeerSource(forked.peers[0], genesis, name=urls["c"])
    Path("chain.export").write_bytes(b"".join(export_chain(young.peers[0].store, genesis)))
    (kept, _), (since, said) = commands_of("Since the last time")
    assert run(*kept[1:])[0] == 0
    sources[urls["a"]] = PeerSource(sources[A].peer, genesis, name=urls["a"])
    status, out, _ = run(*since[1:])
    assert (status, [as_in_the_guide(line) for line in out.splitlines()]) == (
        0,
        [as_in_the_guide(line) for line in said],
    )
    [(compare, said)] = commands_of("Comparing nodes")
    status, out, _ = run(*compare[1:])
    assert (status, [as_in_the_guide(line) for line in out.splitlines()[:3]]) == (
        1,
        [as_in_the_guide(line) for line in said],
    )
    assert set(json.loads(Path("evidence.json").read_bytes())["conflict"]) >= {"proofs", "first_difference", "accused"}


def test_the_note_of_the_guide(run: Run, sources: dict[str, PeerSource], genesis: Genesis) -> None:
    keygen, node, _, _, (verify, said) = commands_of("Notes and tiles")
    assert CliRunner().invoke(ledgerctl, keygen[0][1:]).exit_code == 0
    name = verify[-1].partition("+")[0]
    note = make_note(sources[A].final(), read_log_key(Path("log.pem")))
    witness = LogKey.generate()
    Path("note").write_bytes(note.signed(witness.cosign(note.text, name, 1_795_250_000)).to_bytes())
    assert run(A, "--since", block_at(sources[A], 5), "--save-checkpoint", "far.json")[0] == 0
    status, out, _ = run(*verify[1:-1], witness.note_key(name, COSIGNATURE).to_text())
    assert (status, [as_in_the_guide(out.rstrip())]) == (0, [as_in_the_guide(line) for line in said])
    options = {option for parameter in typer.main.get_command(ledgerd).params for option in parameter.opts}
    assert {word for word in node[0] if word.startswith("--")} <= options


# -- notes -------------------------------------------------------------------------------------------------------------


def test_a_note_by_its_certificate_and_by_keys(
    run: Run, sources: dict[str, PeerSource], young: Cluster, genesis: Genesis
) -> None:
    log, witness = LogKey.generate(), LogKey.generate()
    note = make_note(sources[A].final(), log)
    note = note.signed(witness.cosign(note.text, "witness.example/w1", 1_795_250_000))
    Path("note").write_bytes(note.to_bytes())
    origin = origin_of(chain_id_of(genesis))
    keys = [log.note_key(origin).to_text(), witness.note_key("witness.example/w1", COSIGNATURE).to_text()]
    # Voting set 4: it is known by whoever kept a checkpoint of it.
    status, _, err = run("note")
    assert (status, "its certificate is of voting set 4, which is not known here" in err) == (2, True)
    assert run(A, "--since", block_at(sources[A], 5), "--save-checkpoint", "far")[0] == 0
    status, out, _ = run("note", "--since", "far", "--key", keys[0], "--key", keys[1], "--json", "report")
    root = sources[A].peer.engine.final.block.sealed.header.history_root.hex()
    expected = (
        f"OK: block 59, history root {root}; final by voting set 4; signed by {origin}; "
        "witnessed by witness.example/w1 at 2026-11-21 08:33:20 UTC\n"
    )
    assert (status, out) == (0, expected)
    assert json.loads(Path("report").read_bytes())["signed_by"][1]["time_s"] == 1_795_250_000
    assert run("note", "--key", keys[1])[0] == 0
    status, out, _ = run("note", "--key", LogKey.generate().note_key(origin).to_text())
    assert (status, out.startswith("NOT OK: note: a signature is missing")) == (1, True)
    Path("note").write_bytes(note.to_bytes().replace(b"\n59\n", b"\n58\n"))
    assert run("note", "--key", keys[0])[0] == 1
    early = make_note(PeerSource(young.peers[0], genesis).set_changes(0)[0], log)
    Path("note").write_bytes(early.to_bytes())
    status, out, _ = run("note")
    assert (status, out.endswith("; final by voting set 0\n")) == (0, True)


def test_a_note_whose_certificate_was_changed(run: Run, young: Cluster, genesis: Genesis) -> None:
    proof = PeerSource(young.peers[0], genesis).set_changes(0)[0]
    good = make_note(proof, LogKey.generate())
    line = good.signatures[1]
    for at in (40, 900, -1):
        body = bytearray(line.body)
        body[at] ^= 1
        changed = parse_note(good.to_bytes()).signed(type(line)(line.name, line.key_id, bytes(body)))
        Path("note").write_bytes(changed.to_bytes())
        status, out, _ = run("note")
        assert (status, out.startswith("NOT OK: ")) == (1, True)
