"""Flags: the suspicious but possible is told and never refused, and ordinary calls have none."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.cdr import CallRecord
from ledger.readable import from_readable
from ledger.rules.flags import FLAGS, flags_of
from ledger.rules.ruleset import _changed
from telephony.synthetic import Traffic, generate_records

ROOT = Path(__file__).resolve().parents[3]
VECTORS = json.loads((ROOT / "tests" / "vectors" / "flags.json").read_text(encoding="ascii"))
CASES = VECTORS["cases"]


def record_of(case: dict[str, Any]) -> CallRecord:
    """Return the record of a vector."""
    return from_readable(_changed(VECTORS["base"], case["set"]), CallRecord)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_vector(case):
    """Names as expected; field, value and bound say what a person needs to find it."""
    record = record_of(case)
    flags = flags_of(record, distance_km=case.get("distance_km"))
    assert [flag.name for flag in flags] == case["expected"]
    for flag in flags:
        place = record
        for name in flag.field.split("."):
            place = getattr(place, name)
        assert flag.value == place
        assert flag.bound != flag.value
        # What is suspicious, with figures, and after the colon what to look at.
        wrong, _, remedy = flag.message.partition(": ")
        assert any(character.isdigit() for character in wrong), flag.message
        assert remedy.startswith("look "), flag.message
        assert not flag.message.endswith(".")


def test_every_flag_is_raised_by_a_vector_and_left_down_by_another():
    """Cases have names of their own, and each flag is raised somewhere."""
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert {name for case in CASES for name in case["expected"]} == set(FLAGS)
    assert sum(not case["expected"] for case in CASES) >= len(FLAGS)


def test_flags_come_in_their_order():
    """A record with much wrong has its flags in the order of FLAGS."""
    changes = {
        "sip_code": 486,
        "end_ms": VECTORS["base"]["end_ms"] + 86_400_000,
        "packets_received": 0,
        "quality.packets_expected": 20,
        "levels.noise_dbm0": 0,
    }
    flags = flags_of(record_of({"set": changes}), distance_km=40_000)
    names = [flag.name for flag in flags]
    assert names == [
        "code-against-answer",
        "overlong-call",
        "one-way-media",
        "octets-not-frames",
        "short-for-a-mos",
        "faster-than-light",
        "noise-above-signal",
    ]
    assert names == sorted(names, key=list(FLAGS).index)


def test_ordinary_traffic_is_not_flagged():
    """Made-up calls keep to the rules of ordinary ones; a flag on most records would tell nobody anything."""
    records = list(islice(generate_records(Traffic(seed=7, start_ms=1_767_225_600_000)), 2_000))
    assert [record for record in records if flags_of(record)] == []


@given(st.data())
def test_no_record_crashes_the_flags(data):
    """Any record that decodes gets its flags, whatever rules it breaks."""
    record = record_of(data.draw(st.sampled_from(CASES)))
    extremes = st.sampled_from([0, 1, 999, 2**32 - 1])
    names = ("setup_ms", "answer_ms", "end_ms", "packets_sent", "packets_received", "octets_sent", "codec")
    record = replace(record, **{name: data.draw(extremes) for name in names})
    for flag in flags_of(record, distance_km=data.draw(st.none() | st.integers(0, 100_000))):
        assert flag.name in FLAGS


def test_every_flag_is_documented():
    """Each with what it means, why it is suspicious and why it may be true all the same."""
    text = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    rows = [row.strip("|").split(" | ") for row in text.splitlines() if row.startswith("| `")]
    documented = {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows}
    for name, meaning in FLAGS.items():
        assert documented[name][0] == meaning
        assert len(documented[name]) == 3
        assert all(documented[name])
