"""The party vault: what is kept, what is not on disk, and what survives damage and kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.commitment import PrivatePart, make_private_part
from ledger.errors import ConfigError, StoreDamaged, StoreError, StoreFull, StoreLocked, StoreVersion
from telephony import vault_keys
from telephony.vault import Place, Vault, VaultEntry, VaultRow
from telephony.vault_keys import KeyFile, period_of

SECRET = bytes(range(32))
NOVEMBER_MS = 1_795_231_128_494  # 2026-11-21
DECEMBER_MS = NOVEMBER_MS + 30 * 86_400_000
CALLER, CALLEE, CALL_ID = "+442071838750", "sip:anna.example@host.test", "call-4711@host.test"


def private_part(caller: str = CALLER) -> PrivatePart:
    """Return a private part with numbers that a test can look for."""
    return make_private_part(
        {"caller": caller, "callee": CALLEE, "call_id": CALL_ID}, [bytes([i]) * 32 for i in range(7)]
    )


def entry(
    vault: Vault, number: int, *, caller: str = CALLER, setup_ms: int = NOVEMBER_MS, text: bytes = b"x"
) -> VaultEntry:
    """Return an entry whose record key is ``number``."""
    return VaultEntry(number.to_bytes(16), setup_ms, vault.content_hash(text), private_part(caller))


def key(number: int) -> bytes:
    """Return the record key of ``entry``."""
    return number.to_bytes(16)


def forget(vault: Vault, party: str) -> None:
    """Shred a subject."""
    vault.erasure.shred_subject(party, reason="asked to", now_ms=DECEMBER_MS)


@pytest.fixture
def vault(tmp_path):
    """Return an empty vault."""
    with_close = Vault(tmp_path / "vault", SECRET)
    yield with_close
    with_close.close()


def test_what_is_put_can_be_got_after_reopening(tmp_path, vault):
    vault.put_many([entry(vault, 1), entry(vault, 2, caller="+12025550123", setup_ms=DECEMBER_MS)])
    vault.set_location(key(1), b"t" * 32, 7)
    vault.close()
    again = Vault(tmp_path / "vault", SECRET)
    content = again.content_hash(b"x")
    assert again.get(key(1)) == private_part()
    assert again.get(key(2)) == private_part("+12025550123")
    assert again.get(key(3)) is None
    assert again.find([key(1), key(2), key(3)]) == {
        key(1): VaultRow(content, b"t" * 32, 7),
        key(2): VaultRow(content, None, 0),
    }
    assert again.unplaced(10) == [key(2)]
    again.close()


def test_a_record_without_a_private_part_is_known_and_shows_nothing(vault):
    vault.put_many([VaultEntry(key(1), NOVEMBER_MS, vault.content_hash(b"x"), None)])
    assert vault.get(key(1)) is None
    assert vault.find([key(1)]) == {key(1): VaultRow(vault.content_hash(b"x"), None, 0)}


def test_an_entry_takes_the_place_of_the_older_one(vault):
    vault.store([entry(vault, 1)], [])
    vault.store([], [Place(key(1), b"t" * 32, 0)])
    vault.store([entry(vault, 1, caller="+12025550123", text=b"y")])
    assert vault.find([key(1)]) == {key(1): VaultRow(vault.content_hash(b"y"), None, 0)}
    assert vault.get(key(1)) == private_part("+12025550123")


def test_more_keys_than_one_statement_takes_are_found(vault):
    vault.put_many([VaultEntry(key(i), NOVEMBER_MS, b"c" * 32, None) for i in range(1200)])
    assert sorted(vault.find([key(i) for i in range(1300)])) == [key(i) for i in range(1200)]


def test_nothing_personal_is_on_disk(tmp_path, vault):
    """Neither the numbers nor plain hashes of them: one core tries a whole numbering plan in minutes."""
    vault.put_many([entry(vault, 1), entry(vault, 2, setup_ms=DECEMBER_MS)])
    forget(vault, "+12025550123")
    vault.close()
    written = b"".join(path.read_bytes() for path in (tmp_path / "vault").iterdir())
    for text in (CALLER, CALLER[1:], CALLEE, "anna", CALL_ID, "4711", SECRET.hex()):
        assert text.encode() not in written
    assert SECRET not in written
    assert vault_keys.sha256(CALLER.encode()).digest() not in written


def test_only_the_owner_can_open_the_files(tmp_path, vault):
    vault.put_many([entry(vault, 1)])
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "vault").glob("*")}
    assert modes["vault.sqlite"] == 0o600
    assert modes["keys-2026-11.jsonl"] == 0o600
    assert (tmp_path / "vault").stat().st_mode & 0o777 == 0o700


def test_one_key_for_each_subject_and_month(tmp_path, vault):
    other = "+12025550123"
    vault.put_many(
        [entry(vault, 1), entry(vault, 2), entry(vault, 3, caller=other), entry(vault, 4, setup_ms=DECEMBER_MS)]
    )
    lines = {path.name: len(path.read_text().splitlines()) for path in (tmp_path / "vault").glob("keys-*")}
    # Two callers and one callee in November, one of each in December.
    assert lines == {"keys-2026-11.jsonl": 3, "keys-2026-12.jsonl": 2}


def test_another_secret_is_refused(tmp_path, vault):
    vault.put_many([entry(vault, 1)])
    vault.close()
    with pytest.raises(ConfigError, match="another member secret"):
        Vault(tmp_path / "vault", bytes(32))
    with pytest.raises(ConfigError, match="32 bytes"):
        Vault(tmp_path / "vault", b"short")


def test_a_second_owner_is_refused(tmp_path, vault):
    with pytest.raises(StoreLocked):
        Vault(tmp_path / "vault", SECRET)
    vault.put_many([entry(vault, 1)])
    assert vault.get(key(1)) == private_part()


def test_another_format_is_refused(tmp_path, vault):
    vault._db.execute("PRAGMA user_version = 9")
    vault.close()
    with pytest.raises(StoreVersion, match="expected 2, found 9"):
        Vault(tmp_path / "vault", SECRET)


def test_what_is_no_database_is_named(tmp_path):
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault" / "vault.sqlite").write_bytes(b"this is a text, and not a short one" * 100)
    with pytest.raises(StoreDamaged, match=r"vault\.sqlite"):
        Vault(tmp_path / "vault", SECRET)


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path):
    (tmp_path / "vault").write_text("a file")
    with pytest.raises(StoreError, match="cannot be made"):
        Vault(tmp_path / "vault", SECRET)


BODIES = ("caller_body", "callee_body", "rest_body")


@pytest.mark.parametrize("column", BODIES)
def test_a_flipped_byte_of_a_body_is_found(vault, column):
    vault.put_many([entry(vault, 1), entry(vault, 2)])
    (body,) = vault._db.execute(f"SELECT {column} FROM record WHERE record_key = ?", (key(1),)).fetchone()
    flipped = body[:9] + bytes([body[9] ^ 1]) + body[10:]
    vault._db.execute(f"UPDATE record SET {column} = ? WHERE record_key = ?", (flipped, key(1)))
    with pytest.raises(StoreDamaged, match=key(1).hex()):
        vault.get(key(1))
    assert vault.get(key(2)) == private_part()


@pytest.mark.parametrize("column", BODIES)
def test_a_body_moved_to_another_record_is_found(vault, column):
    """The record key is associated data: a body proves which record it belongs to."""
    vault.put_many([entry(vault, 1), entry(vault, 2)])
    row = vault._db.execute(f"SELECT {column} FROM record WHERE record_key = ?", (key(1),)).fetchone()
    vault._db.execute(f"UPDATE record SET {column} = ? WHERE record_key = ?", (*row, key(2)))
    with pytest.raises(StoreDamaged):
        vault.get(key(2))


def test_bodies_of_caller_and_callee_cannot_be_exchanged(vault):
    """Somebody who calls himself has one key for both sides."""
    vault.put_many([VaultEntry(key(1), NOVEMBER_MS, b"c" * 32, private_part(CALLEE))])
    vault._db.execute("UPDATE record SET caller_body = callee_body, callee_body = caller_body")
    with pytest.raises(StoreDamaged):
        vault.get(key(1))


def test_every_flipped_byte_of_a_key_file_is_found(tmp_path):
    """Whatever byte is hit, the key is not used; only the last line's end may look like a crash's leavings."""
    file = KeyFile(tmp_path, "2026-11", SECRET)
    file.ensure({b"s" * 16, b"t" * 16})
    good = file.path.read_bytes()
    for position in range(len(good)):
        file.path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(StoreDamaged):
            again = KeyFile(tmp_path, "2026-11", SECRET)
            again.key_of(b"s" * 16)
            again.key_of(b"t" * 16)


def test_a_torn_last_line_is_written_over(tmp_path):
    """A crash while a key is appended: nothing was encrypted under it yet."""
    file = KeyFile(tmp_path, "2026-11", SECRET)
    file.ensure({b"s" * 16})
    good = file.path.read_bytes()
    for torn in (b"{", b'{"subject":"74', b"\0\0\0"):
        file.path.write_bytes(good + torn)
        again = KeyFile(tmp_path, "2026-11", SECRET)
        again.ensure({b"t" * 16})
        assert [json.loads(line)["subject"] for line in file.path.read_text().splitlines()] == ["73" * 16, "74" * 16]
        assert KeyFile(tmp_path, "2026-11", SECRET).key_of(b"s" * 16) is not None


def test_a_lost_key_file_is_told_from_a_shredded_key(tmp_path, vault):
    vault.put_many([entry(vault, 1)])
    vault.close()
    (tmp_path / "vault" / "keys-2026-11.jsonl").unlink()
    again = Vault(tmp_path / "vault", SECRET)
    with pytest.raises(StoreDamaged, match="keys-2026-11"):
        again.get(key(1))
    again.close()


def test_a_full_disk_keeps_what_was_there(vault):
    vault.put_many([entry(vault, 1)])
    (pages,) = vault._db.execute("PRAGMA page_count").fetchone()
    vault._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFull):
        vault.put_many([entry(vault, number) for number in range(2, 500)])
    assert vault.get(key(1)) == private_part()
    assert vault.find([key(2)]) == {}
    vault._db.execute("PRAGMA max_page_count = 100000")
    vault.put_many([entry(vault, 2)])
    assert vault.get(key(2)) == private_part()


def test_more_months_than_are_held_in_memory(vault):
    entries = [entry(vault, month, setup_ms=NOVEMBER_MS + month * 31 * 86_400_000) for month in range(13)]
    vault.put_many(entries)
    assert [vault.get(key(month)) for month in range(13)] == [private_part()] * 13


@given(st.dates(min_value=vault_keys.datetime(1970, 1, 1).date(), max_value=vault_keys.datetime(2099, 12, 31).date()))
def test_a_period_is_the_utc_month(date):
    moment = vault_keys.datetime(date.year, date.month, date.day, 23, 59, 59, tzinfo=vault_keys.UTC)
    assert period_of(int(moment.timestamp()) * 1000 + 999) == f"{date.year:04}-{date.month:02}"


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ledger.commitment import make_private_part
from telephony.vault import Place, Vault, VaultEntry

vault = Vault(Path(sys.argv[1]), bytes(range(32)))
number = int(sys.argv[3])
while True:
    part = make_private_part({"caller": f"+4420{number:08}"}, [bytes([7]) * 32] * 7)
    month_ms = 1_795_231_128_494 + number % 3 * 31 * 86_400_000
    vault.store([VaultEntry(number.to_bytes(16), month_ms, vault.content_hash(b"%d" % number), part)], [])
    vault.set_location(number.to_bytes(16), number.to_bytes(32), number)
    print(number, flush=True)
    number += 1
"""


def test_kill_9_loses_nothing_that_was_kept(tmp_path):
    """Killed at any moment and opened again, everything that was told to be kept is there, in its place."""
    root = str(Path(__file__).parent.parent.parent)
    number = 0
    for kill_after in (1, 3, 7, 12):
        command = [sys.executable, "-c", CHILD, str(tmp_path / "vault"), root, str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            for _ in range(kill_after):
                assert child.stdout.readline()
            os.kill(child.pid, signal.SIGKILL)
            told = [line for line in child.stdout.read().splitlines() if line]
        last = int(told[-1]) if told else number + kill_after - 1
        vault = Vault(tmp_path / "vault", SECRET)
        for kept in range(last + 1):
            part = vault.get(kept.to_bytes(16))
            assert part is not None
            assert part.fields[0].value == f"+4420{kept:08}".encode()
            assert vault.find([kept.to_bytes(16)])[kept.to_bytes(16)].tx_id == kept.to_bytes(32)
        vault.close()
        number = last + 1
