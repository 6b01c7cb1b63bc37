"""``ledgerctl mos``: what it prints, what it refuses, and that the guide shows the truth."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ledger.errors import ConfigError
from ledger.models.scales import MOS_CLASSES_MILLI
from ledger.models.tables import CODECS
from node.cli import mos
from node.cli.ledgerctl import app

GUIDE = (Path(__file__).parents[2] / "docs" / "quality.md").read_text(encoding="utf-8")


def run(*arguments: str) -> str:
    """Run ``ledgerctl mos`` and return what it prints."""
    done = CliRunner().invoke(app, ["mos", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: str) -> ConfigError:
    """Run ``ledgerctl mos`` and return the error that a person is told."""
    done = CliRunner().invoke(app, ["mos", *arguments])
    assert isinstance(done.exception, ConfigError), done.output
    return done.exception


def test_the_commands_of_the_guide_print_what_it_says() -> None:
    examples = re.findall(r"^    \$ ledgerctl mos (.+)\n((?:    .*\n|\n)+)", GUIDE, flags=re.MULTILINE)
    assert len(examples) == 2
    for arguments, expected in examples:
        wanted = [line.split() for line in expected.splitlines() if line.strip()]
        assert [line.split() for line in run(*shlex.split(arguments)).splitlines() if line.strip()] == wanted


def test_the_guide_has_the_classes() -> None:
    head, _, names = GUIDE[GUIDE.index("| MOS from |") :].splitlines()[:3]
    least, words = ([cell.strip() for cell in line.strip("|").split("|")[1:]] for line in (head, names))
    assert least[:-1] == [f"{milli / 1000:.1f}" for milli, _ in MOS_CLASSES_MILLI]
    assert words == [*(name for _, name in MOS_CLASSES_MILLI), "very bad"]


def test_json_has_integers_in_the_units_of_a_record() -> None:
    found = json.loads(run("--codec", "PCMA", "--rtt", "400.5", "--jitter", "2", "--loss", "1.25", "--json"))
    assert found["method"] == "g107"
    assert found["codec"] == {"row": 3, "name": "PCMA", "packet_us": 20_000, "concealment": "none"}
    assert found["budget_us"]["network, half the round trip"] == 200_250
    assert found["one_way_us"] == sum(found["budget_us"].values())
    points = found["points_milli"]
    assert found["r_milli"] == points["start"] - points["delay"] - points["codec"] - points["loss"]
    assert found["classes"] == {"round_trip": "poor", "jitter": "good", "loss": "poor"}


def test_methods_without_a_delay_have_no_budget() -> None:
    found = json.loads(run("--codec", "PCMU", "--loss", "2", "--method", "freeswitch", "--json"))
    assert (found["r_milli"], found["one_way_us"], found["budget_us"]) == (97_000, None, {})
    assert "neither delay nor codec" in run("--codec", "PCMU", "--method", "freeswitch")


@pytest.mark.parametrize(
    ("codec", "name", "method"),
    [
        ("PCMU", "G.107", "g107"),
        ("G722", "g107.1", "g107.1"),
        ("G722", "G107_1", "g107.1"),
        ("opus", "G.107.2", "g107.2"),
        ("PCMU", "RTPENGINE_13", "rtpengine-13"),
        ("PCMU", "rtpengine-10", "rtpengine-10"),
        ("G722", "", "g107.1"),
        ("opus", "", "g107.2"),
    ],
)
def test_methods_are_known_by_what_people_write(codec: str, name: str, method: str) -> None:
    printed = run("--codec", codec, "--ie", "10", "--bpl", "20", "--method", name, "--json")
    assert json.loads(printed)["method"] == method


@pytest.mark.parametrize(
    ("name", "ptime_ms", "plc", "row"),
    [
        ("G.711", 0, False, 1),
        ("G.711", 0, True, 2),
        ("G711A", 0, False, 3),
        ("pcmu", 10, False, 5),
        ("PCMA", 30, True, 12),
        ("G.729A", 0, False, 20),
        ("g.729a", 10, False, 21),
        ("G.723.1", 0, False, 30),
        ("GSM-EFR", 0, True, 40),
        ("Opus", 0, False, 80),
    ],
)
def test_codecs_are_known_by_what_people_call_them(name: str, ptime_ms: int, plc: bool, row: int) -> None:
    assert mos.find_codec(name, ptime_ms, plc=plc).row == row


def test_every_alias_is_a_codec_and_every_codec_is_found_by_its_own_name() -> None:
    names = {codec.name for codec in CODECS.values() if codec.band}
    assert set(mos.CODEC_ALIASES.values()) <= names
    assert {mos.find_codec(name).name for name in names} == names
    assert not {mos._plain(name) for name in names} & set(mos.CODEC_ALIASES)


def test_the_list_has_every_voice_codec() -> None:
    rows = json.loads(run("--list", "--json"))
    assert len(rows) == sum(1 for codec in CODECS.values() if codec.band)
    models = {row["codec"]: row["E-model"] for row in rows}
    assert (models["PCMU"], models["opus"], models["G729"]) == ("g107", "unratable", "unratable")
    assert "PCMU" in run("--list")


@pytest.mark.parametrize(
    ("arguments", "where", "told"),
    [
        ((), "--codec", "--list"),
        (("--codec", "nonsense"), "--codec", "PCMU, PCMA, G729A"),
        (("--codec", "H264"), "--codec", "PCMU, PCMA, G729A"),
        (("--codec", "opus"), "--codec", "--ie and --bpl"),
        (("--codec", "G729"), "--codec", "no confirmed Bpl"),
        (("--codec", "PCMU", "--ptime", "25"), "--ptime", "20, 10, 30"),
        (("--codec", "G726-32", "--plc"), "--plc", "G726-32"),
        (("--codec", "PCMU", "--method", "guess"), "--method", "rtpengine-13"),
        (("--codec", "PCMU", "--method", "measured"), "--method", "rtpengine-13"),
        (("--codec", "PCMU", "--method", "g107.2"), "--method", "g107"),
        (("--codec", "PCMU", "--loss", "101"), "--loss", "0 to 100"),
        (("--codec", "PCMU", "--loss", "nan"), "--loss", "0 to 100"),
        (("--codec", "PCMU", "--jitter", "some"), "--jitter", "0 to 1000"),
        (("--codec", "PCMU", "--rtt", "-1"), "--rtt", "0 to 4000"),
        (("--codec", "PCMU", "--rtt", "4000"), "--rtt", "2000 ms"),
        (("--codec", "PCMU", "--burst-ratio", "0.5"), "--burst-ratio", "1 to 100"),
        (("--codec", "PCMU", "--ie", "5"), "--bpl", "both, or neither"),
        (("--codec", "PCMU", "--bpl", "5"), "--ie", "both, or neither"),
        (("--codec", "opus", "--ie", "5", "--bpl", "0"), "--bpl", "1 to 100"),
        (("--codec", "opus", "--ie", "5", "--bpl", "9", "--loss", "1", "--burst-ratio", "2"), "--burst-ratio", "1"),
        (("--codec", "PCMU", "--loss", "100", "--method", "freeswitch"), "--loss", "below 100 %"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(arguments: tuple[str, ...], where: str, told: str) -> None:
    error = refused(*arguments)
    assert error.where == where
    assert told in f"{error.what} {error.expected} {error.hint}"


@given(st.text(max_size=12) | st.decimals().map(str) | st.floats().map(str))
def test_any_text_for_a_number_is_within_bounds_or_refused(text: str) -> None:
    try:
        number = mos._thousandths("--loss", text, 100)
    except ConfigError:
        number = 0
    assert 0 <= number <= 100_000


@pytest.mark.parametrize(
    ("milli", "decimals", "text"),
    [
        (12_345, 2, "12.35"),
        (-14_902, 2, "-14.90"),
        (0, 2, "0.00"),
        (999, 1, "1.0"),
        (-4, 2, "0.00"),
        (104_125, 1, "104.1"),
    ],
)
def test_thousandths_are_shown_rounded(milli: int, decimals: int, text: str) -> None:
    assert mos._fixed(milli, decimals) == text
