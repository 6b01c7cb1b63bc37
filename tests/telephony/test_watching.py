"""Watched folders: complete files are taken in, then moved; what is wrong is named; nothing is moved too early."""

from __future__ import annotations

import asyncio
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import ConfigError, LedgerError, StoreFull
from telephony import watching
from telephony.adapters.base import Adapter
from telephony.adapters.registry import Adapters
from telephony.intake import fault_of
from telephony.pieces import Found
from telephony.watching import Folder, FolderSettings, FollowSettings, Watches, adapter_for, parse_watch

ADAPTERS = Adapters().by_name
CDR = b'{"call_id":"c%d","from_tag":"f","start_time":"10","end_time":"11"}'
BAD = b'{"call_id":"c","from_tag":"f","start_time":"10"}'


class Desk:
    """Takes documents in as an intake does, or fails as told."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.dead: list[bytes] = []
        self.failure: Exception | None = None

    async def keep(self, adapter: Adapter, found: Sequence[Found]) -> list[LedgerError | None]:
        if self.failure is not None:
            raise self.failure
        faults = [one.fault or fault_of(adapter, one.document) for one in found]
        self.kept += [one.document for one, fault in zip(found, faults, strict=True) if fault is None]
        self.dead += [one.document for one, fault in zip(found, faults, strict=True) if fault is not None]
        return faults


class Place:
    """A folder, what watches it, and the time."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.desk = Desk()
        self.now_ms = 0
        self.source = settings.pop("source", "kamailio")
        self.settings = FolderSettings("w", self.source, directory, **{"settle_s": 2, **settings})
        self.restart()

    def restart(self) -> None:
        adapter = ADAPTERS[self.source]
        self.folder = Folder(self.settings, adapter, self.desk.keep, steady_ms=lambda: self.now_ms)

    async def look(self, seconds: int = 0) -> None:
        self.now_ms += seconds * 1000
        await self.folder.look()

    def write(self, name: str, data: bytes, mtime_s: int = 1) -> None:
        (self.directory / name).write_bytes(data)
        os.utime(self.directory / name, (mtime_s, mtime_s))

    def names(self) -> list[str]:
        files = (path for path in self.directory.rglob("*") if not path.is_dir())
        return sorted(str(path.relative_to(self.directory)) for path in files)


async def test_a_file_is_taken_when_it_has_not_changed_for_a_while(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write("a.json", CDR % 1)
    await place.look()
    await place.look(1)
    assert (place.names(), place.folder.counters.waiting) == (["a.json"], 1)
    place.write("a.json", CDR % 1 + b"\n" + CDR % 2)
    await place.look(1)
    await place.look(1)
    assert place.desk.kept == []
    await place.look(1)
    assert (place.names(), place.desk.kept) == (["done/a.json"], [CDR % 1, CDR % 2])
    counters = place.folder.counters
    assert (counters.done, counters.failed, counters.documents, counters.waiting) == (1, 0, 2, 0)


async def test_files_that_are_renamed_into_place_need_no_wait_and_go_oldest_first(tmp_path: Path) -> None:
    place = Place(tmp_path, settle_s=0, pattern="*.json", is_deleted=True)
    place.write("b.json", CDR % 1, mtime_s=1)
    place.write("a.json", CDR % 2, mtime_s=2)
    place.write(".c.json", CDR % 3)
    place.write("d.json.part", CDR % 4)
    (tmp_path / "link.json").symlink_to(tmp_path / "d.json.part")
    os.mkfifo(tmp_path / "pipe.json")
    await place.look()
    assert place.desk.kept == [CDR % 1, CDR % 2]
    assert place.names() == [".c.json", "d.json.part", "link.json", "pipe.json"]


async def test_a_name_that_comes_again_overwrites_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, settle_s=0)
    for number in range(3):
        place.write("a.json", CDR % number)
        await place.look()
    assert place.names() == ["done/a.json", "done/a.json.1", "done/a.json.2"]
    assert (tmp_path / "done/a.json.1").read_bytes() == CDR % 1


async def test_what_is_wrong_stands_beside_the_file(tmp_path: Path) -> None:
    place = Place(tmp_path, settle_s=0)
    place.write("a.json", b"\n".join([CDR % 1, BAD, CDR % 2]))
    place.write("b.json", b"no records at all")
    await place.look()
    assert place.names() == ["failed/a.json", "failed/a.json.reason", "failed/b.json", "failed/b.json.reason"]
    assert (place.desk.kept, place.desk.dead) == ([CDR % 1, CDR % 2], [BAD])
    reason = (tmp_path / "failed/a.json.reason").read_text().splitlines()
    assert reason[0] == "1 of 3 records cannot be read and are dead letters, 2 are on their way to the ledger:"
    assert "end_time" in reason[1]
    assert "the body is not JSON" in (tmp_path / "failed/b.json.reason").read_text()
    assert (tmp_path / "failed/a.json.reason").stat().st_mode & 0o077 == 0
    assert (place.folder.counters.failed, place.folder.counters.refused) == (2, 1)


async def test_a_later_piece_that_cannot_be_split_is_dead_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telephony.pieces.PIECE_ROWS", 2)
    place = Place(tmp_path, settle_s=0)
    place.write("a.json", b"\n".join([CDR % 1, CDR % 2, b"{x", b"{y", CDR % 3]))
    await place.look()
    assert (place.desk.kept, place.desk.dead) == ([CDR % 1, CDR % 2, CDR % 3], [b"{x", b"{y"])


async def test_a_disk_that_refuses_leaves_the_file_where_it_is(tmp_path: Path) -> None:
    place = Place(tmp_path, settle_s=0)
    place.write("a.json", CDR % 1)
    place.desk.failure = StoreFull("the disk is full")
    with pytest.raises(StoreFull):
        await place.look()
    assert place.names() == ["a.json"]
    place.desk.failure = None
    await place.look()
    assert (place.names(), place.desk.kept) == (["done/a.json"], [CDR % 1])


async def test_a_crash_before_the_move_reads_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, settle_s=0)
    place.write("a.json", CDR % 1)
    with monkeypatch.context() as patch:
        patch.setattr(watching, "sync_directory", lambda _: None)
        patch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="no"):
            await place.look()
        # While it runs, it does not read again what it could not move.
        with pytest.raises(OSError, match="no"):
            await place.look()
    assert place.desk.kept == [CDR % 1]
    place.restart()
    await place.look()
    assert (place.names(), place.desk.kept) == (["done/a.json"], [CDR % 1, CDR % 1])


def fail(*_: object) -> None:
    raise OSError("no")


async def test_a_file_that_changes_while_it_is_read_is_not_moved(tmp_path: Path) -> None:
    place = Place(tmp_path, settle_s=0)
    place.write("a.json", CDR % 1)
    real_keep = place.desk.keep

    async def keep(adapter: Adapter, found: Sequence[Found]) -> list[LedgerError | None]:
        place.write("a.json", CDR % 1 + b"\n" + CDR % 2, mtime_s=3)
        return await real_keep(adapter, found)

    place.folder = Folder(place.settings, ADAPTERS["kamailio"], keep, steady_ms=lambda: 0)
    await place.look()
    assert place.names() == ["a.json"]
    place.restart()
    await place.look()
    assert (place.names(), place.desk.kept) == (["done/a.json"], [CDR % 1, CDR % 1, CDR % 2])


async def test_a_folder_that_cannot_be_written_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, settle_s=0)
    place.write("a.json", CDR % 1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(LedgerError, match="the right to write"):
        await place.look()
    assert place.desk.kept == []


async def test_cucm_leaves_cdrs_and_cmrs_in_one_folder(tmp_path: Path) -> None:
    fixtures = Path(__file__).parent / "fixtures" / "cucm"
    for path in fixtures.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    places = [
        Place(tmp_path, source="cucm-cdr", pattern="cdr_*", settle_s=0),
        Place(tmp_path, source="cucm-cmr", pattern="cmr_*", settle_s=0),
    ]
    for place in places:
        await place.look()
        assert place.desk.kept
        assert place.desk.dead == []
    assert places[0].names() == sorted(f"done/{path.name}" for path in fixtures.iterdir())


async def test_one_watch_that_fails_ends_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.001)
    monkeypatch.setattr(watching, "RETRY_S", 0.001)
    (tmp_path / "good").mkdir()
    good, gone = Place(tmp_path / "good", settle_s=0), Place(tmp_path / "gone", settle_s=0)
    watches = Watches([gone.folder, good.folder])
    watches.start()
    good.write("a.json", CDR % 1)
    for _ in range(1000):
        await asyncio.sleep(0.002)
        if good.folder.counters.done:
            break
    assert (good.desk.kept, gone.folder.counters.is_failing) == ([CDR % 1], True)
    (tmp_path / "gone").mkdir()
    for _ in range(1000):
        await asyncio.sleep(0.002)
        if not gone.folder.counters.is_failing:
            break
    assert not gone.folder.counters.is_failing
    await watches.stop()


def test_tables_of_the_configuration() -> None:
    table: dict[str, Any] = {"source": "freeswitch", "directory": "/var/cdr", "pattern": "*.json", "then": "delete"}
    assert parse_watch("a", table) == FolderSettings("a", "freeswitch", Path("/var/cdr"), "*.json", 5, is_deleted=True)
    table = {"source": "asterisk", "follow": "/var/Master.csv", "settle_s": 9, "begin": "end"}
    assert parse_watch("b", table) == FollowSettings("b", "asterisk", Path("/var/Master.csv"), 9, is_from_end=True)


@pytest.mark.parametrize(
    ("name", "table", "words"),
    [
        ("a", {"source": "s"}, "either directory or follow"),
        ("a", {"source": "s", "directory": "d", "follow": "f"}, "either directory or follow"),
        ("a", {"directory": "d"}, "watch.a.source"),
        ("a", {"source": "s", "directory": "d", "begin": "end"}, "watch.a.begin: unknown option"),
        ("a", {"source": "s", "directory": ""}, "watch.a.directory: not text"),
        ("a", {"source": "s", "directory": "d", "settle_s": -1}, "0 to 86400"),
        ("a", {"source": "s", "directory": "d", "settle_s": True}, "0 to 86400"),
        ("a", {"source": "s", "directory": "d", "then": "burn"}, "move | delete"),
        ("a", {"source": "s", "follow": "d", "begin": "middle"}, "start | end"),
        ("../a", {"source": "s", "directory": "d"}, "letters, digits"),
        ("a", "text", "not a table"),
    ],
)
def test_wrong_tables_are_named(name: str, table: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("|", r"\|")):
        parse_watch(name, table)


def test_the_document_shows_tables_that_work_and_names_every_option() -> None:
    document = (Path(__file__).parent.parent.parent / "docs" / "agent.md").read_text()
    shown = [tomllib.loads(text) for text in re.findall(r"^```toml\n(.*?)^```", document, re.MULTILINE | re.DOTALL)]
    watched = [parse_watch(name, table) for text in shown for name, table in text.get("watch", {}).items()]
    assert len(watched) >= 5
    assert all(adapter_for(watch, ADAPTERS) for watch in watched)
    table = document.partition("\n## Watched files\n")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(named) == sorted(watching._FOLDER_OPTIONS | watching._FOLLOW_OPTIONS)


def test_a_watch_needs_a_platform_that_fits() -> None:
    with pytest.raises(ConfigError, match="no such platform"):
        adapter_for(FolderSettings("a", "nobody", Path()), ADAPTERS)
    with pytest.raises(ConfigError, match="whose files grow"):
        adapter_for(FollowSettings("a", "freeswitch-xml", Path()), ADAPTERS)
    assert adapter_for(FollowSettings("a", "asterisk", Path()), ADAPTERS) is ADAPTERS["asterisk"]
