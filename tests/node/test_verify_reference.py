"""``ledger-verify --reference``: the second implementation on everything that the first reads, in the same words."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from audit import reference as audit_reference
from ledger.genesis import Genesis, genesis_to_json
from tests.audit.agreement import signatures_remembered
from tests.audit.conftest import data_dir, genesis, original, parts
from tests.audit.tamper import Parts
from tests.node.test_verify_cli import H, Run, export, genesis_file, ok, receipt, run

__all__ = ["data_dir", "export", "genesis", "genesis_file", "ok", "original", "parts", "receipt", "run"]


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with signatures_remembered():
        yield


def test_a_directory_and_an_export(run: Run, data_dir: Path, export: Path, genesis_file: Path, ok: str) -> None:
    assert run(data_dir, "--genesis", genesis_file, "--reference")[:2] == (0, ok)
    assert run(export, "--genesis", genesis_file, "--reference")[:2] == (0, ok)


def test_an_export_with_the_genesis_it_carries(run: Run, export: Path, ok: str) -> None:
    status, out, err = run(export, "--reference")
    assert (status, out) == (0, ok)
    assert "compare the chain id with one that you trust" in err


def test_a_receipt(run: Run, receipt: Path, genesis_file: Path) -> None:
    status, out, _ = run(receipt, "--genesis", genesis_file, "--reference")
    assert (status, out) == run(receipt, "--genesis", genesis_file)[:2]
    assert out.startswith("OK: record 5 of transaction ")
    receipt.write_text(receipt.read_text().replace('"index":5', '"index":4'))
    status, out, _ = run(receipt, "--genesis", genesis_file, "--reference")
    assert (status, out.startswith("NOT OK: receipt, field item_path.root: ")) == (1, True)


def test_a_difference(run: Run, parts: Parts, genesis_file: Path, tmp_path: Path, data_dir: Path) -> None:
    original = parts.copy()
    parts.put_header(H, tx_count=7)
    path, report = tmp_path / "changed.export", tmp_path / "report.json"
    path.write_bytes(parts.to_export())
    status, out, _ = run(path, "--genesis", genesis_file, "--reference", "--json", report)
    assert (status, out) == (1, f"NOT OK: height {H}, field tx_count: not what the chain gives: expected 2, found 7\n")
    found = json.loads(report.read_bytes())
    assert (found["ok"], found["implementation"], found["height"], found["where"]) == (
        False,
        "reference",
        H,
        "tx_count",
    )
    assert found["blocks"] == H - 1
    # A directory is handed over byte for byte.
    changed = parts.to_directory(data_dir, original, tmp_path / "changed")
    assert run(changed, "--genesis", genesis_file, "--reference")[:2] == (status, out)


def test_another_genesis(run: Run, export: Path, tmp_path: Path, genesis: Genesis) -> None:
    path = tmp_path / "another.json"
    path.write_bytes(genesis_to_json(replace(genesis, name="another")))
    status, out, _ = run(export, "--genesis", path, "--reference")
    assert (status, out) == (1, "NOT OK: height 0, field genesis: the genesis carried is not the one given\n")


def test_damage(run: Run, export: Path, genesis_file: Path, data_dir: Path, tmp_path: Path) -> None:
    export.write_bytes(export.read_bytes()[:-1])
    status, out, _ = run(export, "--genesis", genesis_file, "--reference")
    assert (status, out.startswith(f"NOT OK: damaged store at height 15, {export} at ")) == (1, True)
    export.write_bytes(export.read_bytes()[:40])
    assert run(export, "--genesis", genesis_file, "--reference")[0] == 1
    copy = Path(shutil.copytree(data_dir, tmp_path / "copy"))
    segment = copy / "segments" / "00000000.seg"
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    status, out, _ = run(copy, "--genesis", genesis_file, "--reference")
    assert (status, out.startswith("NOT OK: damaged: ")) == (1, True)


@pytest.mark.parametrize("option", [["--since", "1:" + "00" * 32], ["--save-checkpoint", "far.json"]])
def test_what_it_does_not_do(option: list[str], run: Run, export: Path, genesis_file: Path) -> None:
    status, _, err = run(export, "--genesis", genesis_file, "--reference", *option)
    assert (status, "takes and leaves no checkpoint" in err) == (2, True)


def test_what_cannot_be_read(run: Run, tmp_path: Path, genesis_file: Path) -> None:
    assert run(tmp_path / "none", "--genesis", genesis_file, "--reference")[0] == 2
    assert run(genesis_file, "--genesis", tmp_path / "none", "--reference")[0] == 2


def test_the_commands_of_the_document(
    run: Run, export: Path, receipt: Path, genesis_file: Path, ok: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/audit.md has them, in a folder with these files; scripts of the repository have tests of their own."""
    guide = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    section = guide.partition("\n## A second implementation\n")[2].partition("\n## ")[0]
    commands = re.findall(r"^\$ ((?!\./scripts/)[^#\n]*)", section, flags=re.MULTILINE)
    for path, name in ((export, "chain.export"), (receipt, "receipt.json"), (genesis_file, "genesis.json")):
        Path(name).write_bytes(path.read_bytes())
    said = []
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "ledger-verify":
            status, out, _ = run(*arguments)
        else:
            assert (program, *arguments[:2]) == ("python", "-m", "audit.reference")
            status, out = audit_reference.main(arguments[2:]), capsys.readouterr().out
        said.append((status, out))
    assert said[:2] == [(0, ok), (0, ok)]
    assert (said[2][0], said[2][1][:13], len(said)) == (0, "OK: record 5 ", 3)
