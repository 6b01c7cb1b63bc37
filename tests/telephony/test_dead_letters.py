"""Dead letters: none is lost, each is there once, and people and the agent may work on them at the same time."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import ConfigError, StoreFull
from telephony.adapters.base import Kind
from telephony.dead_letters import DeadLetters, Letter, as_json, dead_letter

KIND = Kind.FREESWITCH_JSON


def letter(data: bytes, time_ms: int = 1) -> Letter:
    return dead_letter(data, kind=KIND, stage="intake", reason="because", time_ms=time_ms)


def lines_of(path: Path) -> list[bytes]:
    return (path / "dead" / "letters.jsonl").read_bytes().splitlines()


@given(st.binary(max_size=200))
def test_a_record_comes_out_as_it_was(data: bytes) -> None:
    assert letter(data).data == data
    shown = as_json(letter(data))
    assert (shown["id"], shown["kind"]) == (letter(data).id, "freeswitch-json")


def test_the_same_record_again_is_the_same_letter(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    assert letters.add([letter(b"a"), letter(b"b"), letter(b"a", 2)]) == 2
    assert letters.add([letter(b"b", 3), letter(b"c")]) == 1
    assert [one.data for one in DeadLetters(tmp_path)] == [b"a", b"b", b"c"]
    assert len(letters) == 3


def test_two_at_the_same_file_see_what_the_other_did(tmp_path: Path) -> None:
    agent, person = DeadLetters(tmp_path), DeadLetters(tmp_path)
    agent.add([letter(b"a"), letter(b"b"), letter(b"c")])
    person.refresh()
    person.add([Letter("retry", letter(b"a").id, 2), Letter("retry", letter(b"b").id, 2, document="mended")])
    person.add([Letter("dropped", letter(b"c").id, 3)])
    agent.refresh()
    assert agent.retries() == [(letter(b"a").id, KIND, b"a"), (letter(b"b").id, KIND, b"mended")]
    agent.add([Letter("retried", letter(b"a").id, 4)])
    person.refresh()
    assert [one.data for one in person] == [b"b"]


def test_one_that_fails_again_after_a_retry_is_open_again(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.add([letter(b"a")])
    letters.add([Letter("retry", letter(b"a").id, 2)])
    assert letters.is_retry_wanted(letter(b"a").id)
    letters.add([letter(b"a", 3)])
    assert (letters.retries(), [one.time_ms for one in letters]) == ([], [3])


def test_an_agent_that_starts_leaves_out_what_is_settled(tmp_path: Path) -> None:
    agent, person = DeadLetters(tmp_path), DeadLetters(tmp_path)
    agent.add([letter(b"a"), letter(b"b"), letter(b"c")])
    agent.add([Letter("dropped", letter(b"a").id, 2), Letter("retry", letter(b"c").id, 2)])
    agent.compact()
    assert len(lines_of(tmp_path)) == 3
    for letters in (agent, person, DeadLetters(tmp_path)):
        letters.refresh()
        assert [one.data for one in letters] == [b"b", b"c"]
        assert letters.retries() == [(letter(b"c").id, KIND, b"c")]


def test_a_line_that_a_crash_left_half_written_harms_nothing(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.add([letter(b"a")])
    with (tmp_path / "dead" / "letters.jsonl").open("ab") as file:
        file.write(b'{"event":"dead","id":"12')
    letters = DeadLetters(tmp_path)
    letters.add([letter(b"b")])
    again = DeadLetters(tmp_path)
    assert ([one.data for one in again], again.unreadable) == ([b"a", b"b"], 1)


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    letters = DeadLetters(tmp_path)
    letters.add([letter(b"a")])
    before = lines_of(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StoreFull):
            letters.add([letter(b"b")])
        if call == "fsync":
            with pytest.raises(StoreFull):
                letters.compact()
    assert lines_of(tmp_path) == before
    assert letters.add([letter(b"b")]) == 1


def test_a_letter_of_before_there_were_kinds_is_of_kamailio(tmp_path: Path) -> None:
    DeadLetters(tmp_path).close()
    line = b'{"event":"dead","id":"12ab","time_ms":1,"stage":"intake","reason":"because","document":"{}"}\n'
    (tmp_path / "dead" / "letters.jsonl").write_bytes(line)
    assert as_json(DeadLetters(tmp_path).get("12ab"))["kind"] == "kamailio"


def test_an_id_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="12ab: no such dead letter"):
        DeadLetters(tmp_path).get("12ab")
