"""``ledger-agent map check`` as a person runs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from node.cli.agent import main

SAMPLE = Path(__file__).parents[1] / "telephony" / "fixtures" / "mapped" / "Master.csv"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command; return exit status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ledger-agent", "map", "check", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        output = capsys.readouterr()
        return int(caught.value.code or 0), output.out, output.err

    return call


def test_calls_are_shown_without_what_is_private(run):
    status, output, _ = run("asterisk", SAMPLE, "--timezone", "Europe/Vienna", "--rows", "1")
    assert (status, output.splitlines()) == (
        0,
        [
            "row 1: call 0000000000.0000, from tag 0000-00-00 00:00:00/0000, +000000000000 -> +00000000000",
            "row 1:   setup 2026-11-21T08:05:11.000Z, answered after 8.000 s, ended after 149.000 s",
            "row 1:   SIP 200, Q.850 16, released by unknown, codec unknown",
            "3 rows: 3 calls, 3 different, 0 refused",
        ],
    )
    assert "2071838750" not in output


def test_quality_and_notes_are_shown(run, tmp_path):
    mapping, sample = tmp_path / "m.toml", tmp_path / "cdrs"
    mapping.write_text(
        'timezone = "Europe/Vienna"\n[call]\ncall_id = "id"\nsetup = { column = "at", time = "iso" }\n'
        'duration = "secs"\n[[quality]]\nmos = "mos"\njitter = "jit"\n'
    )
    sample.write_text("id,at,secs,mos,jit\na,2026-03-29T02:30:00,5,4.2,7\n")
    assert run(mapping, sample)[1].splitlines()[3:5] == [
        "row 1:   quality (measured, both, CQ): MOS 4.200, round trip unknown, jitter 7000 us, loss unknown",
        "row 1:   note: a local time of it was skipped by its clock: read with the offset before the change",
    ]


def test_refused_rows_and_calls_that_count_once(run, tmp_path):
    sample = tmp_path / "Master.csv"
    line = SAMPLE.read_text().splitlines()[0]
    sample.write_text("\n".join([line, line, line.replace('"ANSWERED"', '"LOST"')]))
    status, output, _ = run("asterisk", sample, "--rows", "0")
    known = "answered, no answer, busy, failed, congestion"
    refusal = f"answered (disposition): a word without a meaning (expected {known}, found xxxx)"
    assert (status, output.splitlines()) == (
        1,
        [
            "row 2: the same call as row 1: the ledger counts one of them",
            f"row 3: refused: {refusal}",
            "3 rows: 2 calls, 1 different, 1 refused",
        ],
    )


def test_mapping_alone(run, tmp_path):
    assert run("3cx")[:2] == (0, "the mapping is right; with a file of CDRs behind it, it is tried on them\n")
    (tmp_path / "m.toml").write_text("[call]\nwho = 1\n")
    status, _, error = run(tmp_path / "m.toml")
    assert (status, "m.toml: call.who" in error, "unknown key" in error) == (1, True, True)


def test_neither_file_nor_preset(run):
    status, _, error = run("4cx")
    assert (status, "4cx" in error) == (1, True)
