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
            "line 1: call 0000000000.0000, from tag 0000-00-00 00:00:00/0000, +000000000000 -> +00000000000",
            "line 1:   setup 2026-11-21T08:05:11.000Z, answered after 8.000 s, ended after 149.000 s",
            "line 1:   SIP 200, Q.850 16, released by unknown, codec unknown",
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
        "line 2:   quality (measured, both, CQ): MOS 4.200, round trip unknown, jitter 7000 us, loss unknown",
        "line 2:   note: a local time of it was skipped by its clock: read with the offset before the change",
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
            "line 2: the same call as line 1: the ledger counts one of them",
            f"line 3: refused: {refusal}",
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
    assert (status, "4cx" in error, "one of 3cx, asterisk, cucm" in error) == (1, True, True)


SMALL = (
    '[call]\ncall_id = "id"\ncaller = "from"\ncodec = "from"\n'
    'setup = { column = "at", time = "epoch" }\nduration = "s"\n'
)


def where_of(output: str) -> list[str]:
    """Return where each row stands that was refused."""
    return [line.partition(": refused")[0] for line in output.splitlines() if ": refused" in line]


@pytest.mark.parametrize(
    ("form", "sample", "refused"),
    [
        ("csv", 'id,from,at,s\n\na,"two\nlines",5,1\nb,x,y,1\n\nc,x,5\n', ["line 5", "line 7"]),
        ("csv", "id,from,at,s\r\na,x,y,1\r\n", ["line 2"]),
        ("json", '{"id":"a","at":5,"s":1}\n\n{"id":"b","at":"y"}\n[1]\n', ["line 3", "line 4"]),
        ("json", '[{"id":"a","at":5,"s":1},\n\n {"id":"b"}, 7]', ["entry 2", "entry 3"]),
        ("json", '{"id":"b"}', ["entry 1"]),
    ],
)
def test_refused_rows_are_named_by_their_line(run, tmp_path, form, sample, refused):
    """As an editor counts them, names, empty lines and quoted line breaks too."""
    (tmp_path / "m.toml").write_text(f"format = '{form}'\n{SMALL}")
    (tmp_path / "sample").write_bytes(sample.encode())
    status, output, _ = run(tmp_path / "m.toml", tmp_path / "sample")
    assert (status, where_of(output)) == (1, refused)


def test_samples_may_be_longer_than_a_post(run, tmp_path):
    (tmp_path / "m.toml").write_text(SMALL)
    (tmp_path / "sample").write_text("id,from,at,s\n" + "".join(f"{row},x,5,1\n" for row in range(1_500)))
    status, output, _ = run(tmp_path / "m.toml", tmp_path / "sample", "--rows", "0")
    assert (status, output) == (0, "1500 rows: 1500 calls, 1500 different, 0 refused\n")


def test_a_sample_without_rows_is_no_success(run, tmp_path):
    (tmp_path / "m.toml").write_text(SMALL)
    (tmp_path / "sample").write_text("id,from,at,s\n")
    status, output, _ = run(tmp_path / "m.toml", tmp_path / "sample")
    assert (status, output) == (1, "0 rows: 0 calls, 0 different, 0 refused\n")


@pytest.mark.parametrize("column", ["id", "from", "at", "s", "mos", "way", "to"])
def test_nothing_private_is_shown_wherever_it_stands(run, tmp_path, column):
    """A mapping that is wrong takes a number for a codec, a time, a MOS; what is shown has its form only."""
    (tmp_path / "m.toml").write_text(
        f"{SMALL}callee = 'to'\nleg = {{ column = 'way', map = {{ out = 'originating' }} }}\n"
        "[[quality]]\nmos = 'mos'\njitter = 's'\n"
    )
    row = {"id": "a", "from": "PCMU", "at": "5", "s": "1", "mos": "4", "way": "out", "to": "b"}
    planted = ["+442071838750", "alice.smith", "Q442071838750", "4420718387"]
    rows = [{**row, column: secret} for secret in planted]
    text = "\n".join([",".join(row), *(",".join(each.values()) for each in rows)])
    (tmp_path / "sample").write_text(text)
    _, output, error = run(tmp_path / "m.toml", tmp_path / "sample")
    assert len(output.splitlines()) > len(planted)
    assert [word for word in ("4420718", "alice", "smith") if word in output + error] == []
