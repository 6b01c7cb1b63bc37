"""The operator's command line where no node is needed: keys, tokens, genesis, networks, and what is said of errors."""

from __future__ import annotations

import json
import socket
import stat
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.notes import parse_note_key
from ledger.crypto import PrivateKey
from ledger.errors import ConfigError, EncodingError
from ledger.genesis import Role, chain_id_of, genesis_from_json, genesis_to_json
from node.cli import ledgerctl
from node.cli.lines import add_up, describe_briefly, describe_event, describe_totals, method_name, with_moments
from node.cli.output import flatten, print_facts, shown
from node.cli.submit import as_submission, grouped, parse_documents
from node.client import ApiFault, Client, fault_of, read_events, what_of
from node.cluster import free_ports, make_cluster
from node.config import NodeConfig, load_config
from node.development import make_development_chain
from node.founding import Founder, make_genesis, parse_public_key
from node.keyfile import read_key, read_log_key, read_secret, read_tokens
from node.profile import energy_profile


class Run:
    """One command: its status and what it said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["ledgerctl", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        try:
            ledgerctl.main()
            self.status: object = 0
        except SystemExit as end:
            self.status = end.code or 0
        self.out, self.err = capsys.readouterr()

    def facts(self) -> dict[str, str]:
        """Return a table of facts as it was printed."""
        return dict(line.split(maxsplit=1) for line in self.out.splitlines() if len(line.split(maxsplit=1)) == 2)  # type: ignore[misc]


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    return lambda *arguments: Run(capsys, monkeypatch, *arguments)


def member(tmp_path: Path, name: str, weight: int = 1) -> str:
    key = PrivateKey.from_seed(name.encode())
    (tmp_path / f"{name}.pub").write_text(key.public_key.hex() + "\n")
    return f"{name}:{weight}:{tmp_path / name}.pub"


# -- keys ----------------------------------------------------------------------------------------------------------


def test_keygen_writes_a_key_only_its_owner_can_read(ctl, tmp_path: Path) -> None:
    path = tmp_path / "node.pem"
    run = ctl("keygen", path, "--json")
    facts = json.loads(run.out)
    key = read_key(path, is_dev=False)
    assert (facts["key_id"], facts["public_key"]) == (key.key_id.hex(), key.public_key.hex())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / "node.pub").read_text() == key.public_key.hex() + "\n"
    for file in (path, tmp_path / "node.pub"):
        assert json.loads(ctl("key", "show", file, "--json").out) == {
            "key_id": key.key_id.hex(),
            "public_key": key.public_key.hex(),
        }


def test_keygen_never_overwrites(ctl, tmp_path: Path) -> None:
    path = tmp_path / "node.pem"
    assert ctl("keygen", path).status == 0
    before = path.read_bytes()
    run = ctl("keygen", path)
    assert (run.status, run.out, path.read_bytes()) == (1, "", before)
    assert run.err.splitlines()[:2] == ["error: exists already", f"  where: {path}"]


def test_keygen_makes_no_half_of_a_pair(ctl, tmp_path: Path) -> None:
    (tmp_path / "node.pub").write_text("mine")
    run = ctl("keygen", tmp_path / "node.pem")
    assert (run.status, [path.name for path in tmp_path.iterdir()]) == (1, ["node.pub"])


def test_keygen_refuses_a_private_key_named_as_a_public_one(ctl, tmp_path: Path) -> None:
    run = ctl("keygen", tmp_path / "node.pub")
    assert (run.status, list(tmp_path.iterdir())) == (1, [])


def test_keygen_of_a_log_key(ctl, tmp_path: Path) -> None:
    path = tmp_path / "log.pem"
    genesis = make_cluster(tmp_path / "net", ["solo"], genesis_time_ms=1_795_250_000_000).genesis
    (tmp_path / "genesis.json").write_bytes(genesis_to_json(genesis))
    facts = json.loads(ctl("keygen", path, "--log", "--genesis", tmp_path / "genesis.json", "--json").out)
    origin = f"ledgerd/{chain_id_of(genesis).hex()}"
    assert (facts["origin"], parse_note_key(facts["verifier_key"])) == (origin, read_log_key(path).note_key(origin))
    assert (facts["public_key"], stat.S_IMODE(path.stat().st_mode)) == (read_log_key(path).public_key.hex(), 0o600)
    assert ctl("keygen", path, "--log").status == 1
    other = tmp_path / "node.pem"
    assert ctl("keygen", other).status == 0
    with pytest.raises(ConfigError, match=r"node\.pem: not a log key"):
        read_log_key(other)


def test_keygen_secret(ctl, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert ctl("keygen", path, "--secret").status == 0
    assert len(read_secret(path)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "zz", "02" + "ff" * 32, "-----BEGIN PUBLIC KEY-----\nno\n"])
def test_key_show_names_the_file_that_holds_no_key(ctl, tmp_path: Path, content: str) -> None:
    path = tmp_path / "x"
    path.write_text(content)
    run = ctl("key", "show", path)
    assert run.status == 1
    assert run.err.startswith("error: not a public key on P-256\n")


def test_public_keys_are_read_from_every_form(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = PrivateKey.from_seed(b"x")
    point = serialization.load_pem_private_key(key.to_pem(), None).public_key()
    (tmp_path / "a.pem").write_bytes(key.to_pem())
    (tmp_path / "b.pem").write_bytes(
        point.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for text in (key.public_key.hex(), str(tmp_path / "a.pem"), str(tmp_path / "b.pem")):
        assert parse_public_key(text, where="x") == key.public_key


def test_token_is_printed_once_and_kept_as_a_hash(ctl, tmp_path: Path) -> None:
    from hashlib import sha256

    path = tmp_path / "tokens.json"
    first = ctl("token", "new", "kamailio-1", "--file", path).out.strip()
    ctl("token", "new", "billing", "--role", "private", "--role", "submit", "--file", path)
    tokens = read_tokens(path)
    assert [(token.name, token.roles) for token in tokens] == [
        ("kamailio-1", ["submit"]),
        ("billing", ["private", "submit"]),
    ]
    assert tokens[0].sha256 == sha256(first.encode()).hexdigest()
    assert first not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("arguments", "what"),
    [(["x", "--role", "root"], "unknown role"), (["had"], "there is a token of this name")],
)
def test_token_refuses(ctl, tmp_path: Path, arguments: list[str], what: str) -> None:
    path = tmp_path / "tokens.json"
    ctl("token", "new", "had", "--file", path)
    before = path.read_bytes()
    run = ctl("token", "new", *arguments, "--file", path)
    assert (run.status, run.err.splitlines()[0], path.read_bytes()) == (1, f"error: {what}", before)


# -- genesis -------------------------------------------------------------------------------------------------------


def test_genesis_new_then_show(ctl, tmp_path: Path) -> None:
    out = tmp_path / "genesis.json"
    members = [argument for name in "abcd" for argument in ("--member", member(tmp_path, name, 10))]
    run = ctl(
        *("genesis", "new", "--name", "test-1", *members, "--out", out, "--slot-ms", 500),
        *("--endpoint", "a=ws://a.example:9090", "--zone", "a=GB", "--no-seat", "d", "--start", "2027-01-01T00:00:00"),
    )
    assert run.status == 0
    genesis = genesis_from_json(out.read_bytes())
    assert genesis.parameters.slot_ms == 500
    assert genesis.genesis_time_ms == 1_798_761_600_000
    assert [m.candidate.endpoint if m.candidate else None for m in genesis.members] == [
        "ws://a.example:9090",
        "",
        "",
        None,
    ]
    shown_again = ctl("genesis", "show", out)
    facts = shown_again.facts()
    assert facts["chain_id"].strip() == chain_id_of(genesis).hex()
    assert (facts["producers"].strip(), facts["quorum"].strip()) == ("3", "3")
    assert shown_again.out == run.out
    assert json.loads(ctl("genesis", "show", out, "--json").out)["name"] == "test-1"


def test_a_role_without_a_key_of_its_own_goes_to_the_node_key() -> None:
    node, submit = PrivateKey.from_seed(b"n").public_key, PrivateKey.from_seed(b"s").public_key
    genesis = make_genesis("x", [Founder("a", 1, node), Founder("b", 1, submit, stands=False)], genesis_time_ms=0)
    assert [key.roles for key in genesis.members[0].keys] == [7]
    genesis = make_genesis("x", [Founder("a", 1, node, submit)], genesis_time_ms=0)
    assert {key.public_key: key.roles for key in genesis.members[0].keys} == {
        node: Role.NODE | Role.GOVERN,
        submit: Role.SUBMIT,
    }


def test_genesis_new_takes_keys_for_each_role(ctl, tmp_path: Path) -> None:
    keys = [PrivateKey.from_seed(seed).public_key.hex() for seed in (b"n", b"s", b"g")]
    out = tmp_path / "g.json"
    assert ctl("genesis", "new", "--name", "x", "--member", f"a:1:{keys[0]}::{keys[2]}", "--out", out).status == 0
    found = {key.public_key.hex(): key.roles for key in genesis_from_json(out.read_bytes()).members[0].keys}
    assert found == {keys[0]: Role.NODE | Role.SUBMIT, keys[2]: Role.GOVERN}


@pytest.mark.parametrize(
    ("arguments", "what", "where"),
    [
        (["--name", "X y"], "not of the form that this field has", "name"),
        (["--slot-ms", "3"], "Expected int >= 100", "parameters.slot_ms"),
        (["--record-window-days", "9" * 30], "Expected int <=", "parameters.record_window_ms"),
        (["--carbon-basis", "green"], "not a carbon basis", "--carbon-basis"),
        (["--member", "b:1"], "not a member", "--member"),
        (["--member", "b:x:02"], "not a member", "--member"),
        (["--member", "b:1:"], "a member needs a node key", "--member b"),
        (["--member", "b:1:/no/such/file"], "the public key cannot be read", "--member b"),
        (["--member", "B:1:{a}"], "not of the form that this field has", "members[0].member_id"),
        (["--member", "b:1:{a}"], "a key may be listed once and belong to one member only", "members.b.keys[0]"),
        (["--endpoint", "a"], "not a pair", "--endpoint"),
        (["--endpoint", "a=http://x"], "not of the form that this field has", "members[0].candidate.endpoint"),
        (["--zone", "b=GB"], "no such member", "--endpoint, --zone or --no-seat"),
        (["--no-seat", "a"], "nobody stands for a seat", "members"),
        (["--start", "soon"], "not a time", "--start"),
    ],
)
def test_genesis_new_names_what_does_not_fit(ctl, tmp_path: Path, arguments: list[str], what: str, where: str) -> None:
    out = tmp_path / "genesis.json"
    first = member(tmp_path, "a")
    arguments = [argument.replace("{a}", str(tmp_path / "a.pub")) for argument in arguments]
    name = [] if "--name" in arguments else ["--name", "x"]
    run = ctl("genesis", "new", *name, "--member", first, *arguments, "--out", out)
    assert run.status == 1
    assert run.err.startswith(f"error: {what}")
    assert f"  where: {where}" in run.err.splitlines()
    assert not out.exists()


def test_genesis_show_refuses_an_edited_file(ctl, tmp_path: Path) -> None:
    out = tmp_path / "genesis.json"
    ctl("genesis", "new", "--name", "x", "--member", member(tmp_path, "a"), "--out", out)
    out.write_text(out.read_text().replace('"weight": 1', '"weight": 2').replace('"weight":1', '"weight":2'))
    run = ctl("genesis", "show", out)
    assert run.status == 1
    assert run.err.splitlines()[0].startswith("error: ")


def test_genesis_new_keeps_an_existing_file_unless_forced(ctl, tmp_path: Path) -> None:
    out = tmp_path / "genesis.json"
    out.write_text("mine")
    command = ("genesis", "new", "--name", "x", "--member", member(tmp_path, "a"), "--out", out)
    assert (ctl(*command).status, out.read_text()) == (1, "mine")
    assert ctl(*command, "--force").status == 0
    assert genesis_from_json(out.read_bytes()).name == "x"


# -- networks ------------------------------------------------------------------------------------------------------


def test_network_new_writes_what_four_nodes_need(ctl, tmp_path: Path) -> None:
    home = tmp_path / "net"
    run = ctl("network", "new", home, "--base", 20_000, "--json")
    nodes = json.loads(run.out)["nodes"]
    genesis = genesis_from_json((home / "genesis.json").read_bytes())
    assert [node["member_id"] for node in nodes] == ["alpha", "beta", "gamma", "delta"]
    for i, node in enumerate(nodes):
        config = load_config({}, {}, Path(node["config"]))
        assert (str(config.api), str(config.listen)) == (f"127.0.0.1:{20_000 + 2 * i}", f"127.0.0.1:{20_001 + 2 * i}")
        assert node["api"] == f"http://{config.api}"
        assert len(config.peers) == 3
        assert f"ws://{config.listen}" == config.endpoint
        member = next(m for m in genesis.members if m.member_id == node["member_id"])
        assert config.key
        assert config.submit_key
        assert config.member_secret
        assert config.tokens
        roles = {key.public_key: key.roles for key in member.keys}
        assert roles[read_key(config.key, is_dev=False).public_key] == Role.NODE
        assert roles[read_key(config.submit_key, is_dev=False).public_key] == Role.SUBMIT
        assert len(read_secret(config.member_secret)) == 32
        assert read_tokens(config.tokens)[0].roles == ["submit", "private"]
        secret_files = [p for p in Path(node["config"]).parent.iterdir() if p.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in secret_files} == {0o600}


def test_network_new_takes_epochs_short_enough_to_be_watched(ctl, tmp_path: Path) -> None:
    ctl("network", "new", tmp_path / "net", "--epoch-slots", 40, "--producers", 5, "--slot-ms", 250)
    parameters = genesis_from_json((tmp_path / "net" / "genesis.json").read_bytes()).parameters
    assert (parameters.epoch_slots, parameters.producer_count, parameters.slot_ms) == (40, 5, 250)
    shown = ctl("genesis", "show", tmp_path / "net" / "genesis.json").out
    assert "epoch_slots       40, 10 s\n" in shown
    assert "seats             5\n" in shown


def test_a_sentence_that_stands_alone_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "its key has signed more than this data directory knows of: a restored backup, or a second node"
    print_facts({"": {"reason": reason}})
    assert " ".join(capsys.readouterr().out.split()) == f"reason {reason}"
    print_facts({"a": {"reason": reason}, "b": {"reason": reason}})
    assert "second node" not in capsys.readouterr().out


def test_records_are_no_signed_transaction(ctl, tmp_path: Path) -> None:
    (tmp_path / "calls.jsonl").write_text('{"record": {}}\n')
    run = ctl("submit-transaction", tmp_path / "calls.jsonl")
    assert (run.status, run.err.splitlines()[0]) == (1, "error: not a signed transaction: Expected array, got int")
    assert f"  where: {tmp_path / 'calls.jsonl'}" in run.err.splitlines()


def test_two_networks_share_nothing(tmp_path: Path) -> None:
    one = make_cluster(tmp_path / "a", ["x"], genesis_time_ms=0)
    other = make_cluster(tmp_path / "b", ["x"], genesis_time_ms=0)
    assert chain_id_of(one.genesis) != chain_id_of(other.genesis)
    assert one.nodes[0].token != other.nodes[0].token


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--members", "a,a"], "a member is named twice"),
        (["--members", "A"], "not of the form that this field has"),
        (["--members", ""], "Expected"),
        (["--base", "65535"], "no such port"),
        (["--slot-ms", "1"], "Expected int >= 100"),
    ],
)
def test_network_new_refuses_before_it_writes(ctl, tmp_path: Path, options: list[str], what: str) -> None:
    run = ctl("network", "new", tmp_path / "net", *options)
    assert (run.status, run.err.splitlines()[0].startswith(f"error: {what}")) == (1, True)
    assert not (tmp_path / "net").exists()


def test_network_new_never_mixes_with_what_is_there(ctl, tmp_path: Path) -> None:
    assert ctl("network", "new", tmp_path / "net").status == 0
    before = (tmp_path / "net" / "genesis.json").read_bytes()
    assert ctl("network", "new", tmp_path / "net").status == 1
    assert (tmp_path / "net" / "genesis.json").read_bytes() == before


def test_a_path_with_quotes_survives_the_configuration(tmp_path: Path) -> None:
    cluster = make_cluster(tmp_path / 'a "b" é\\', ["x"], genesis_time_ms=0)
    assert tomllib.loads(cluster.nodes[0].config.read_text())["data"] == str(cluster.nodes[0].data)


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20


# -- the command line itself ---------------------------------------------------------------------------------------


def test_wrong_usage_is_status_two(ctl) -> None:
    assert ctl("foo").status == 2
    assert ctl("status", "--json", "--nonsense").status == 2


def test_a_fault_of_the_program_is_no_traceback(ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("node.client.Client.get", fail)
    run = ctl("show", "head")
    assert (run.status, run.err.splitlines()[0]) == (1, "error: this program failed: ZeroDivisionError: oops")
    assert "Traceback" not in run.err


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://", "http://h:99999", "http://h/path"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(url)
    assert (caught.value.where, caught.value.actual) == ("--url", url)


def test_a_token_cannot_smuggle_a_header() -> None:
    with pytest.raises(ConfigError, match="not a token"):
        Client(token="x\r\nHost: evil")


@pytest.mark.parametrize("place", ["", "x/0", "00/0", "00" * 32, "00" * 32 + "/", "00" * 32 + "/-1", "AA" * 32 + "/0"])
def test_a_place_that_is_none_is_named(ctl, place: str) -> None:
    run = ctl("receipt", place)
    assert (run.status, run.err.splitlines()[0]) == (1, "error: not the place of a record")


# -- pure parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": 1}', [{"a": 1}]),
        (b'[{"a": 1}, {"b": 2}]', [{"a": 1}, {"b": 2}]),
        (b'{"a": 1}\n\n{"b": 2}\n', [{"a": 1}, {"b": 2}]),
        (b'{\n"a":\n1}', [{"a": 1}]),
    ],
)
def test_documents_come_in_three_forms(data: bytes, expected: list[object]) -> None:
    assert parse_documents(data, where="f") == expected


@pytest.mark.parametrize(
    ("data", "where"),
    [(b"", "f"), (b"[]", "f"), (b'{"a": 1}\n{"b"\n', "f, line 2"), (b"\xff", "f, line 1")],
)
def test_documents_that_are_none_name_their_line(data: bytes, where: str) -> None:
    with pytest.raises(EncodingError) as caught:
        parse_documents(data, where="f")
    assert caught.value.where == where


@given(st.binary(max_size=200))
def test_any_bytes_are_documents_or_an_encoding_error(data: bytes) -> None:
    try:
        assert parse_documents(data, where="f")
    except EncodingError as error:
        where = error.where
    else:
        where = "f"
    assert where.startswith("f")


def test_a_bare_record_is_wrapped_and_nothing_else() -> None:
    bare = {"setup_ms": 1}
    assert as_submission(bare) == {"record": bare}
    for other in ({"record": bare}, {"x": 1}, 3, None):
        assert as_submission(other) == other


@given(st.lists(st.text(max_size=3), min_size=1, max_size=2_500))
def test_requests_hold_what_a_node_takes_in_order(documents: list[str]) -> None:
    groups = grouped(documents)
    assert [document for group in groups for document in group] == documents
    assert all(0 < len(group) <= 1_000 for group in groups)


def test_requests_stay_below_the_size_a_node_takes() -> None:
    assert [len(group) for group in grouped(["x" * 5_000_000] * 5)] == [2, 2, 1]


def test_events_are_read_over_comments_and_broken_lines() -> None:
    stream = (
        b': hello\n\nid: 1\nevent: block\ndata: {"event":\ndata: "block"}\n\n'
        b'data: not json\n\ndata: {"event": "final"}\r\n\r\ndata: {"cut": 1}\n'
    )
    assert list(read_events(iter(stream.splitlines(keepends=True)))) == [{"event": "block"}, {"event": "final"}]


def test_a_problem_document_becomes_an_error_with_its_facts() -> None:
    problem = {
        "type": "urn:ledgerd:problem:rule-violation",
        "title": "The record contradicts itself",
        "detail": "record.end_ms: The call ends before it begins (expected >= 5, found 3). Mend it",
        "field": "record.end_ms",
        "expected": ">= 5",
        "actual": "3",
        "hint": "Mend it",
    }
    fault = fault_of(422, json.dumps(problem).encode(), "http://h")
    facts = (fault.what, fault.where, fault.expected, fault.actual, fault.hint, fault.status)
    assert facts == ("The call ends before it begins", "record.end_ms", ">= 5", "3", "Mend it", 422)
    assert what_of({"title": "Not found"}) == "Not found"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"\xff"])
def test_an_answer_that_is_not_a_nodes_is_said_to_be_none(body: bytes) -> None:
    assert fault_of(502, body, "http://h").what == "not the answer of a ledgerd"


def test_totals_add_up_by_method_and_never_across() -> None:
    base = dict.fromkeys(("void", "octets", "device_mj", "network_mj", "server_mj"), 0)
    one = {**base, "records": 2, "talk_ms": 60_000, "co2_ug": 1_000_000, "device_mj": 3_600_000}
    g107 = {"method": 1, "kind": 2, "count": 2, "sum_milli": 8_000, "minimum_milli": 3_900}
    relay = {"method": 4, "kind": 2, "count": 1, "sum_milli": 4_300, "minimum_milli": 4_300}
    low = {**g107, "count": 1, "sum_milli": 3_000, "minimum_milli": 3_000}
    added = add_up([{**one, "mos": [g107, relay]}, {**one, "mos": [low]}])
    assert added["records"] == 4
    assert added["mos"] == [{**g107, "count": 3, "sum_milli": 11_000, "minimum_milli": 3_000}, relay]
    assert describe_totals(added) == (
        "4 records  2 min  MOS 3.67 (g107 CQ, 3)  MOS 4.30 (rtpengine-10 CQ, 1)  2.0 Wh  2.0 g CO2e"
    )


def test_methods_are_spelled_as_ledgerctl_mos_does() -> None:
    assert [method_name({"method": method, "kind": 2}) for method in (2, 3, 5, 99)] == [
        "g107.1 CQ",
        "g107.2 CQ",
        "rtpengine-13 CQ",
        "method 99 kind 2",
    ]


def test_a_block_in_brief() -> None:
    totals = {"records": 2, "talk_ms": 60_000, "device_mj": 0, "network_mj": 0, "server_mj": 0, "co2_ug": 0, "mos": []}
    assert describe_briefly(totals) == "2 records, 1 min, MOS not measured, 0 mWh, 0 mg CO2e"
    assert describe_briefly({**totals, "records": 1}).startswith("1 record, ")
    assert describe_briefly({**totals, "device_mj": 9_000, "co2_ug": 1_240}).endswith("2.5 mWh, 1.24 mg CO2e")
    totals["mos"] = [{"method": 4, "kind": 2, "count": 2, "sum_milli": 8_500, "minimum_milli": 4_000}]
    assert describe_briefly(totals) == "2 records, 1 min, MOS 4.25 rtpengine-10, 0 mWh, 0 mg CO2e"


def test_events_are_one_line_each() -> None:
    totals = {"records": 0, "void": 0, "mos": []}
    event = {"event": "final", "height": 3, "slot": 9, "id": "ab" * 32, "transactions": 0, "totals": totals}
    assert describe_event(event) == "final        3 slot 9 abababababab  0 tx"
    assert describe_event({"event": "dropped", "tx_id": "aa", "reason": "expired"}) == "dropped tx_id aa reason expired"
    assert describe_event({}) == "?      "


def test_a_record_is_shown_with_what_is_suspicious_in_it(ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = {"name": "one-way-media", "field": "packets_sent", "value": 0, "bound": "> 0", "message": "One side: look"}
    answer = {"tx_id": "ab" * 32, "record": {"packets_sent": 0}, "flags": [flag]}
    paths = []
    monkeypatch.setattr(Client, "get", lambda _self, path: paths.append(path) or json.loads(json.dumps(answer)))
    arguments = ("show", "record", "ab" * 32 + "/0")
    lines = ctl(*arguments).out.splitlines()
    assert lines[-2:] == ["", "one-way-media (packets_sent): One side: look"]
    assert not any("items" in line for line in lines)
    assert json.loads(ctl(*arguments, "--json", "--distance-km", "5000").out) == answer
    assert paths == [f"/v1/records/{arguments[2]}", f"/v1/records/{arguments[2]}?distance_km=5000"]


def test_values_are_shown_on_one_line() -> None:
    assert [shown(value) for value in (None, True, False, 3, [1, "a"], [{}, {}], "x" * 99, "a\nb")] == [
        "-", "yes", "no", "3", "1, a", "2 items", "x" * 77 + "...", "a\\nb",
    ]  # fmt: skip
    assert flatten({"a": {"b": 1, "c": {"d": None}}, "e": [1]}) == {"a.b": 1, "a.c.d": None, "e": [1]}


def test_times_are_told_as_people_read_them() -> None:
    facts = {"record": {"setup_ms": 1_795_231_127_900, "answer_ms": 0, "jitter_buffer_ms": 60}, "index": 0}
    told = {"setup_ms": "1795231127900  2026-11-21 03:18:47 UTC", "answer_ms": "0  never", "jitter_buffer_ms": 60}
    assert with_moments(facts) == {"record": told, "index": 0}


@pytest.mark.parametrize(
    ("talk_ms", "words"), [(0, "0 min"), (12_400, "12 s"), (59_999, "60 s"), (60_000, "1 min"), (7_200_000, "120 min")]
)
def test_talk_of_less_than_a_minute_is_in_seconds(talk_ms: int, words: str) -> None:
    totals = dict.fromkeys(("void", "octets", "device_mj", "network_mj", "server_mj", "co2_ug"), 0)
    assert describe_totals({**totals, "records": 1, "talk_ms": talk_ms, "mos": []}).split("  ")[1] == words


def test_ids_side_by_side_are_abridged_and_one_alone_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"chain_id": "ab" * 32, "height": 3}
    print_facts({"": facts})
    assert capsys.readouterr().out.split() == ["chain_id", "ab" * 32, "height", "3"]
    print_facts({"one": facts, "two": facts})
    short = "ab" * 8 + "..."
    assert capsys.readouterr().out.split() == ["one", "two", "chain_id", short, short, "height", "3", "3"]


def test_a_name_that_does_not_resolve_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ApiFault, match="the node does not answer: Name or service not known"):
        Client("http://nowhere.example:8080").get("/v1/status")


def test_a_development_chain_reckons_energy(tmp_path: Path) -> None:
    made = make_development_chain(NodeConfig(data=tmp_path), 0)
    profile = energy_profile(made.config.energy, carbon_basis="lifecycle")
    assert profile is not None
    assert profile.grid_zone == "GB"
