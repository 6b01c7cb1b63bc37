"""The table of a key file's lines does what a dict would, and key files do what they did with one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import StoreDamaged
from telephony import vault_keys
from telephony.vault_key_table import OFFSET_MAX, KeyTable
from telephony.vault_keys import KeyFile

SECRET = bytes(range(32))
# Few different bytes: many subjects in one bucket, and entries that together spell another.
SUBJECTS = st.binary(min_size=16, max_size=16) | st.lists(st.sampled_from(b"\0\1"), min_size=16, max_size=16).map(bytes)


@given(st.lists(st.tuples(SUBJECTS, st.integers(0, OFFSET_MAX), st.booleans())), SUBJECTS)
def test_it_finds_what_a_dict_would(puts: list[tuple[bytes, int, bool]], other: bytes) -> None:
    table, expected = KeyTable(), {}
    for subject, offset, has_key in puts:
        table.put(subject, offset, has_key=has_key)
        expected[subject] = (offset, has_key)
    assert {subject: table.find(subject) for subject in expected} == expected
    assert table.find(other) == expected.get(other)
    assert table.keys == sum(has_key for _, has_key in expected.values())


def test_two_entries_that_spell_a_third_are_not_taken_for_it() -> None:
    table = KeyTable()
    one, two = b"\0\0" + bytes(range(1, 15)), b"\0\0" + bytes(range(15, 29))
    table.put(one, 0, has_key=False)
    table.put(two, 0, has_key=True)
    third = b"\0\0" + (one[2:] + bytes(5) + two[2:])[8:22]
    assert (table.find(one), table.find(two), table.find(third)) == ((0, False), (0, True), None)
    table.put(third, 7, has_key=True)
    assert (table.find(third), table.keys) == ((7, True), 2)


def raw_keys(file: KeyFile, subjects: list[bytes]) -> list[bytes]:
    """Return what the key of each subject makes of the same bytes: it tells keys apart."""
    keys = [file.key_of(subject) for subject in subjects]
    return [key.encrypt(bytes(12), b"same", None) for key in keys if key is not None]


def test_keys_that_are_no_longer_held_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_keys, "KEYS_READY_MAX", 3)
    subjects = [bytes([number]) * 16 for number in range(20)]
    file = KeyFile(tmp_path, "2026-11", SECRET)
    for start in range(0, 20, 2):
        file.ensure(set(subjects[start : start + 2]))
    there = raw_keys(file, subjects)
    assert len(set(there)) == len(file) == 20
    assert raw_keys(file, subjects[::-1]) == there[::-1]
    assert raw_keys(KeyFile(tmp_path, "2026-11", SECRET), subjects) == there
    assert len(file._ready) + len(file._ready_before) <= 6


def test_shredded_and_made_again_it_is_another_key_and_one_line(tmp_path: Path) -> None:
    one, two = b"1" * 16, b"2" * 16
    file = KeyFile(tmp_path, "2026-11", SECRET)
    file.ensure({one, two})
    (first, kept) = raw_keys(file, [one, two])
    for _ in range(3):
        assert file.shred({one, b"3" * 16}) == 1
        assert (len(file), file.key_of(one)) == (1, None)
        assert KeyFile(tmp_path, "2026-11", SECRET).key_of(one) is None
        assert len(file.path.read_bytes().splitlines()) == 2
        file.ensure({one})
        assert raw_keys(file, [one, two])[1] == kept
    assert raw_keys(KeyFile(tmp_path, "2026-11", SECRET), [one, two]) == raw_keys(file, [one, two])
    assert raw_keys(file, [one]) != [first]
    assert (file.shred_all(), file.shred_all(), len(file), file.key_of(two)) == (2, 0, 0, None)


def test_a_line_that_changed_or_went_since_the_start_is_damage(tmp_path: Path) -> None:
    subjects = [b"1" * 16, b"2" * 16]
    KeyFile(tmp_path, "2026-11", SECRET).ensure(set(subjects))
    file = KeyFile(tmp_path, "2026-11", SECRET)
    lines = file.path.read_bytes().splitlines(keepends=True)
    file.path.write_bytes(lines[1] + lines[0])
    for subject in subjects:
        with pytest.raises(StoreDamaged, match="does not open"):
            file.key_of(subject)
    file.path.unlink()
    with pytest.raises(StoreDamaged, match="not there"):
        file.key_of(subjects[0])


@pytest.mark.parametrize(
    "line", [b'{"subject":"31","wrapped":""}\n', b'{"subject":"%s","wrapped":"00"}\n' % (b"31" * 16)]
)
def test_a_line_of_another_length_is_damage(tmp_path: Path, line: bytes) -> None:
    vault_keys.path_of(tmp_path, "2026-11").write_bytes(line)
    with pytest.raises(StoreDamaged, match="not a line of keys"):
        KeyFile(tmp_path, "2026-11", SECRET)
