"""``ledger-verify`` as a person runs it: targets, verdicts, exit statuses, and no traceback whatever happens."""

from __future__ import annotations

import errno
import gc
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from audit.light import LightClient, checkpoint_from_json
from audit.lognote import make_note
from audit.notes import LogKey, parse_note, parse_tree_head
from audit.receipt import make_receipt
from ledger.genesis import Genesis, chain_id_of, genesis_from_json, genesis_to_json
from ledger.leveldb import LevelStore
from node.cli.verify import main
from tests.audit.conftest import data_dir, genesis, original, parts
from tests.audit.tamper import Parts, longer_spelling

__all__ = ["data_dir", "genesis", "original", "parts"]

H = 9
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command in an empty folder; return exit status, standard output and standard error."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ledger-verify", *map(str, arguments)])
        try:
            with pytest.raises(SystemExit) as caught:
                main()
        finally:
            gc.enable()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(caught.value.code or 0), out, err

    return call


@pytest.fixture
def genesis_file(tmp_path: Path, genesis: Genesis) -> Path:
    path = tmp_path / "trusted.json"
    path.write_bytes(genesis_to_json(genesis))
    return path


@pytest.fixture
def export(tmp_path: Path, original: Parts) -> Path:
    path = tmp_path / "chain.export"
    path.write_bytes(original.to_export())
    return path


@pytest.fixture
def receipt(tmp_path: Path, data_dir: Path, original: Parts, genesis: Genesis) -> Path:
    store = LevelStore(data_dir)
    path = tmp_path / "receipt.json"
    path.write_bytes(make_receipt(store, genesis, original.body(H)[0].tx_id, 5))
    store.close()
    return path


@pytest.fixture
def ok(original: Parts) -> str:
    return f"OK: 14 blocks, 110 records (26 void), 1 election, final at height 14 id {original.head.final_id.hex()}\n"


def test_a_directory(run: Run, data_dir: Path, genesis_file: Path, ok: str) -> None:
    assert run(data_dir, "--genesis", genesis_file)[:2] == (0, ok)


def test_an_export(run: Run, export: Path, genesis_file: Path, genesis: Genesis, ok: str) -> None:
    assert run(export, "--genesis", genesis_file)[:2] == (0, ok)
    status, out, err = run(export)
    assert (status, out) == (0, ok)
    assert f"carried by {export}; chain {chain_id_of(genesis).hex()}" in err


def test_a_receipt(run: Run, receipt: Path, genesis_file: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    status, out, _ = run(receipt, "--genesis", genesis_file, "--json", report)
    assert (status, out.startswith("OK: record 5 of transaction "), out.count("\n")) == (0, True, 1)
    assert (json.loads(report.read_bytes())["height"], json.loads(report.read_bytes())["ok"]) == (H, True)


def test_a_forged_receipt(run: Run, receipt: Path, genesis_file: Path, tmp_path: Path) -> None:
    document = json.loads(receipt.read_bytes())
    document["record"]["end_ms"] += 60_000
    receipt.write_text(json.dumps(document))
    report = tmp_path / "report.json"
    status, out, _ = run(receipt, "--genesis", genesis_file, "--json", report)
    assert (status, out.startswith("NOT OK: receipt, field item_path.root: ")) == (1, True)
    assert json.loads(report.read_bytes())["field"] == "item_path.root"


def test_json_that_is_no_receipt(run: Run, genesis_file: Path) -> None:
    status, out, _ = run(genesis_file, "--genesis", genesis_file)
    assert (status, out.startswith("NOT OK: receipt, field ")) == (1, True)


def test_the_first_difference_is_named(run: Run, parts: Parts, export: Path, tmp_path: Path) -> None:
    totals = parts.header(H).totals
    parts.put_header(H, totals=msgspec.structs.replace(totals, talk_ms=totals.talk_ms + 1))
    export.write_bytes(parts.to_export())
    report = tmp_path / "report.json"
    status, out, _ = run(export, "--json", report)
    expected, actual = totals.talk_ms, totals.talk_ms + 1
    line = f"NOT OK: height 9, field totals.talk_ms: not what the contents give: expected {expected}, found {actual}\n"
    assert (status, out) == (1, line)
    document = json.loads(report.read_bytes())
    assert (document["ok"], document["height"], document["first_difference"]["field"]) == (False, 8, "totals.talk_ms")


def test_damage_is_named_as_such(run: Run, data_dir: Path, genesis_file: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data_dir, tmp_path / "data"))
    segment = copy / "segments" / "00000000.seg"
    segment.write_bytes(segment.read_bytes()[:-1])
    status, out, _ = run(copy, "--genesis", genesis_file)
    assert (status, out.startswith(f"NOT OK: damaged store at height 1, {segment}: ")) == (1, True)


def test_a_cut_export(run: Run, export: Path) -> None:
    data = export.read_bytes()
    for size, begin in ((len(data) // 2, "NOT OK: damaged store at height "), (40, "NOT OK: damaged: ")):
        export.write_bytes(data[:size])
        status, out, _ = run(export)
        assert (status, out.startswith(begin), "ends too early" in out) == (1, True, True)


def test_another_genesis(run: Run, export: Path, genesis: Genesis, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(genesis_to_json(msgspec.structs.replace(genesis, name="another")))
    status, out, _ = run(export, "--genesis", other)
    assert (status, out.startswith("NOT OK: height 0, field genesis: ")) == (1, True)


def test_an_export_with_a_broken_genesis(run: Run, parts: Parts, export: Path) -> None:
    export.write_bytes(longer_spelling(parts.to_export()))
    status, out, _ = run(export)
    assert (status, out.startswith("NOT OK: damaged: ")) == (1, True)


def test_known_heads(run: Run, export: Path, original: Parts, tmp_path: Path, ok: str) -> None:
    head = f"14:{original.head.final_id.hex()}"
    report = tmp_path / "report.json"
    assert run(export, "--since", head, "--since", f"3:{original.blocks[2].stated_id.hex()}", "--json", report)[1] == ok
    assert run(export, "--since", report)[1] == ok
    status, out, _ = run(export, "--since", f"20:{'ab' * 32}")
    assert (status, out.startswith("NOT OK: height 15, field block: the chain was cut: expected block 20:abab")) == (
        1,
        True,
    )


def test_what_an_audit_keeps_is_what_the_next_one_needs(
    run: Run, export: Path, receipt: Path, original: Parts, genesis_file: Path, tmp_path: Path, ok: str
) -> None:
    """The checkpoint is the one of ``ledgerctl follow``: the proof of the last block, a few kilobytes."""
    genesis = genesis_from_json(genesis_file.read_bytes(), where="")
    kept = tmp_path / "far.json"
    assert run(export, "--save-checkpoint", kept)[:2] == (0, ok)
    client = LightClient(genesis, checkpoint_from_json(kept.read_bytes()))
    assert (client.point, len(kept.read_bytes()) < 6_000) == ((14, original.head.final_id), True)
    assert client.final is not None
    note = tmp_path / "note"
    note.write_bytes(make_note(client.final, LogKey.generate()).to_bytes())
    for seen in (kept, receipt, note):
        assert run(export, "--since", seen)[:2] == (0, ok)
    head = parse_tree_head(parse_note(note.read_bytes()).text)
    plain = note.read_text().replace("\n14\n", "\n13\n").splitlines(keepends=True)
    note.write_text("".join(plain[:5]))
    status, out, _ = run(export, "--since", note)
    wanted = f"NOT OK: height 13, field history_root: another history is known up to here: expected {head.root.hex()}"
    assert (status, out.startswith(wanted)) == (1, True)
    note.write_text("".join(plain[:5]).replace("\n13\n", "\n15\n"))
    status, out, _ = run(export, "--since", note)
    assert (status, out.startswith("NOT OK: height 15, field ")) == (1, True)
    kept.unlink()
    assert (run(export, "--since", note, "--save-checkpoint", kept)[0], kept.exists()) == (1, False)


def test_the_genesis_file_beside_the_target_is_found(
    run: Run, data_dir: Path, genesis: Genesis, tmp_path: Path, ok: str
) -> None:
    copy = Path(shutil.copytree(data_dir, tmp_path / "node" / "data"))
    (tmp_path / "node" / "genesis.json").write_bytes(genesis_to_json(genesis))
    status, out, err = run(copy)
    assert (status, out, f"genesis: {tmp_path / 'node' / 'genesis.json'}" in err) == (0, ok, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing"], "cannot be read: No such file"),
        (["127.0.0.1:8080"], "The address of a node begins with http://"),
        (["EMPTY"], "there is no store here"),
        (["TEXT"], "nothing that can be audited"),
        (["DATA"], "no genesis file"),
        (["DATA", "--genesis", "missing.json"], "missing.json: cannot be read"),
        (["DATA", "--genesis", "TEXT"], "not valid JSON"),
        (["EXPORT", "--since", "12"], "--since: no such file, and not a block"),
        (["EXPORT", "--since", "12:zz"], "--since: not a block"),
        (["EXPORT", "--since", f"-1:{'00' * 32}"], "--since: not a block"),
        (["EXPORT", "--since", "TEXT"], "not something seen of this chain"),
        (["EXPORT", "EXPORT"], "one target at a time"),
        (["EXPORT", "--compare"], "nothing to compare"),
        (["EXPORT", "EXPORT", "--compare"], "not the address of an API"),
        (["http://127.0.0.1:1", "--since", f"1:{'00' * 32}"], "no genesis file"),
        (["http://127.0.0.1:1", "--since", f"1:{'00' * 32}", "--genesis", "GENESIS"], "the node does not answer"),
        (["http://127.0.0.1:1", "http://127.0.0.1:2", "--compare", "--genesis", "GENESIS"], "the node does not answer"),
        (["EXPORT", "--json", "missing/report.json"], "cannot be written"),
        (["RECEIPT", "--since", f"1:{'00' * 32}"], "--since: a receipt has no chain"),
        (["RECEIPT", "--save-checkpoint", "far"], "--save-checkpoint: a receipt has no chain"),
        (["EXPORT", "--key", "x"], "--key: a chain is signed by no log"),
        (["http://a", "http://b", "--compare", "--since", "TEXT"], "--since: --compare begins at genesis"),
        (["VERSION"], "another format version"),
        (["http://127.0.0.1:1"], "the node cannot be reached"),
        (["http://"], "not an address"),
        (["http://[bad"], "not an address"),
        ([], "Missing argument"),
        (["EXPORT", "--nonsense"], "No such option"),
    ],
)
def test_what_cannot_be_said_is_status_2(
    arguments: list[str],
    said: str,
    run: Run,
    data_dir: Path,
    export: Path,
    receipt: Path,
    genesis_file: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "version").write_bytes(b"ledgerd export\n\x00\x09")
    names = {
        "EMPTY": tmp_path / "empty",
        "TEXT": tmp_path / "text",
        "DATA": data_dir,
        "EXPORT": export,
        "RECEIPT": receipt,
        "VERSION": tmp_path / "version",
        "GENESIS": genesis_file,
    }
    status, _, err = run(*(names.get(argument, argument) for argument in arguments))
    assert (status, said in " ".join(err.split())) == (2, True)


def test_a_genesis_file_that_may_not_be_read(
    run: Run, export: Path, genesis_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words are ours, not a box about parameters; root may read anything, so the refusal is made here."""

    def refuse(*_: object) -> bool:
        return False

    def deny(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("os.access", refuse)
    read_file = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *a, **k: deny(path) if path == genesis_file else read_file(path, *a, **k)
    )
    status, _, err = run(export, "--genesis", genesis_file)
    assert (status, err) == (2, f"ledger-verify: {genesis_file}: cannot be read: Permission denied\n")


def test_a_running_nodes_directory(run: Run, data_dir: Path, genesis_file: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data_dir, tmp_path / "data"))
    store = LevelStore(copy)
    status, _, err = run(copy, "--genesis", genesis_file)
    store.close()
    assert (status, "ledger-verify http://HOST:PORT" in err) == (2, True)


def test_a_bug_is_said_in_one_line(run: Run, export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.cli.verify.run_audit", lambda *_a, **_k: 1 / 0)
    status, _, err = run(export)
    assert (status, "an error of the program itself" in err) == (2, True)


def test_progress_in_plain_lines(run: Run, export: Path, monkeypatch: pytest.MonkeyPatch, ok: str) -> None:
    monkeypatch.setattr("node.cli.verify_audit.LINE_EVERY_S", 0)
    status, out, err = run(export)
    assert (status, out) == (0, ok)
    assert "height 1 of 14, " in err
    assert err.splitlines()[-1].startswith("height 14 of 14, ")
    assert err.splitlines()[-1].endswith(" records/s, 0 s left")


@pytest.mark.parametrize("where", ["node.cli.verify.run_audit", "node.cli.verify.open_source", "audit.verify._take_in"])
def test_an_interruption_is_no_verdict(run: Run, export: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupt)
    status, out, err = run(export)
    hint = " after height 0. With --resume FILE an audit can go on" if where.startswith("audit") else ""
    assert (status, out, err.splitlines()[-1]) == (2, "", f"ledger-verify: interrupted{hint}")


def test_an_audit_is_gone_on_with(run: Run, export: Path, genesis_file: Path, tmp_path: Path, ok: str) -> None:
    state = tmp_path / "audit.state"
    for _ in range(2):
        status, out, err = run(export, "--genesis", genesis_file, "--resume", state)
        assert (status, out) == (0, ok)
    assert f"goes on after height 14, as {state} says; what is below is not looked at again" in err
    status, _, err = run(genesis_file, "--resume", state)
    assert (status, "a receipt has no chain: this option means nothing here" in err) == (2, True)
    status, _, err = run(export, "--reference", "--resume", state)
    assert (status, "the second implementation keeps nothing to go on from" in err) == (2, True)
    state.write_bytes(b"no state")
    status, _, err = run(export, "--genesis", genesis_file, "--resume", state)
    assert (status, err.splitlines()[-1].startswith(f"ledger-verify: {state}: not the state of an audit")) == (2, True)


def test_the_report_of_a_receipt_that_shows_private_fields_is_its_owners_alone(run: Run, tmp_path: Path) -> None:
    known = json.loads((Path(__file__).parent.parent / "vectors" / "receipts.json").read_text())
    report = tmp_path / "report.json"
    modes = {}
    for name in ("caller and call id shown", known["receipts"][0]["name"]):
        one = next(one for one in known["receipts"] if one["name"] == name)
        (tmp_path / "genesis.json").write_text(known["genesis"][one["genesis"]])
        (tmp_path / "receipt.json").write_text(one["file"])
        report.write_text("of before")
        report.chmod(0o644)
        status, _, _ = run(tmp_path / "receipt.json", "--genesis", tmp_path / "genesis.json", "--json", report)
        assert (status, json.loads(report.read_text())["ok"]) == (0, True)
        modes[name] = (bool(json.loads(report.read_text())["revealed"]), oct(report.stat().st_mode & 0o777))
    assert list(modes.values()) == [(True, "0o600"), (False, "0o644")]


@pytest.mark.parametrize("option", ["--json", "--save-checkpoint"])
def test_a_verdict_is_said_even_where_nothing_can_be_written(
    option: str, run: Run, export: Path, genesis_file: Path
) -> None:
    """It may have taken hours."""
    status, out, err = run(export, "--genesis", genesis_file, option, "no/such/folder/file")
    assert (status, out[:4]) == (2, "OK: ")
    assert "no/such/folder/file: cannot be written" in err
