"""A file that grows for ever: every row is read, whatever rotation does, and restarts in between."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import LedgerError, StoreFull
from telephony import following
from telephony.adapters.base import Adapter
from telephony.adapters.registry import Adapters
from telephony.following import Follower
from telephony.pieces import Found
from telephony.watching import FollowSettings

ADAPTERS = Adapters().by_name


class Log:
    """Master.csv, whoever writes and rotates it, and what follows it."""

    def __init__(self, directory: Path, source: str = "asterisk", *, is_from_end: bool = False) -> None:
        self.directory = directory
        self.file = directory / "Master.csv"
        self.source = source
        self.kept: list[bytes] = []
        self.failure: Exception | None = None
        self.now_ms = 0
        self.time_s = 1_000
        self.rotations = 0
        self.settings = FollowSettings("log", source, self.file, 2, is_from_end)
        self.follower = self._made()

    def _made(self) -> Follower:
        return Follower(
            self.settings,
            ADAPTERS[self.source],
            self._keep,
            steady_ms=lambda: self.now_ms,
            directory=self.directory / "state",
        )

    async def _keep(self, _adapter: Adapter, found: Sequence[Found]) -> list[LedgerError | None]:
        if self.failure is not None:
            raise self.failure
        self.kept += [one.document for one in found if one.fault is None]
        return [one.fault for one in found]

    def restart(self) -> None:
        self.follower.close()
        self.follower = self._made()

    def write(self, data: bytes) -> None:
        self.time_s += 1
        with self.file.open("ab") as file:
            file.write(data)
        os.utime(self.file, (self.time_s, self.time_s))

    def rotate(self, *, is_copy: bool = False) -> None:
        self.rotations += 1
        place = self.directory / f"Master.csv.{self.rotations}"
        if is_copy:
            shutil.copy2(self.file, place)
            os.truncate(self.file, 0)
            self.time_s += 1
            os.utime(self.file, (self.time_s, self.time_s))
        else:
            self.file.rename(place)

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self.follower.look()

    async def settle(self) -> None:
        for _ in range(40):
            self.now_ms += 1000
            await self.follower.look()


def test_rows_are_taken_when_their_line_ends(tmp_path: Path) -> None:
    log = Log(tmp_path)

    async def run() -> None:
        await log.look()
        log.write(b"a,1\nb,")
        await log.look()
        assert (log.kept, log.follower.counters.waiting) == ([b"a,1"], 2)
        log.write(b"2\n")
        await log.look()
        assert (log.kept, log.follower.counters.waiting) == ([b"a,1", b"b,2"], 0)
        log.restart()
        log.write(b'"c\n",3\n')
        await log.look(3)
        assert log.kept == [b"a,1", b"b,2", b'"c\n",3']
        assert (log.follower.counters.documents, log.follower.counters.refused) == (1, 0)

    asyncio.run(run())


@pytest.mark.parametrize("is_copy", [False, True])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_rotated_file_is_read_to_its_end_first(tmp_path: Path, *, is_copy: bool, restarts: bool) -> None:
    log = Log(tmp_path)

    async def run() -> None:
        log.write(b"a\n")
        await log.look()
        log.write(b"b\nc")
        log.rotate(is_copy=is_copy)
        if restarts:
            log.restart()
        log.write(b"d,longer than what stood here before\n")
        log.rotate()
        log.write(b"e\n")
        await log.settle()
        assert log.kept == [b"a", b"b", b"c", b"d,longer than what stood here before", b"e"]
        assert log.follower.counters.failed == 0

    asyncio.run(run())


@pytest.mark.parametrize("restarts", [False, True])
def test_files_that_came_and_were_rotated_between_two_looks(tmp_path: Path, *, restarts: bool) -> None:
    """The agent was killed, or slow: it had noted that there is no file yet, and finds two generations of one."""
    log = Log(tmp_path)

    async def run() -> None:
        log.write(b"before the very first look\n")
        log.rotate()
        await log.look()
        assert log.kept == []
        noted = tmp_path / "state" / "log.json"
        os.utime(noted, (log.time_s + 1, log.time_s + 1))
        if restarts:
            log.restart()
        log.write(b"a\n")
        log.rotate()
        log.write(b"b\n")
        log.rotate()
        log.write(b"c\n")
        await log.settle()
        assert log.kept == [b"a", b"b", b"c"]
        assert (log.follower.counters.failed, log.follower.counters.done) == (0, 2)

    asyncio.run(run())


def test_a_rotated_file_that_is_still_written_to(tmp_path: Path) -> None:
    log = Log(tmp_path)

    async def run() -> None:
        log.write(b"a\n")
        await log.look()
        log.rotate()
        rotated = tmp_path / "Master.csv.1"
        for text in (b"b", b"c\n"):
            await log.look()
            with rotated.open("ab") as file:
                file.write(text)
            log.now_ms += 1_900
        log.write(b"d\n")
        await log.settle()
        assert log.kept == [b"a", b"bc", b"d"]

    asyncio.run(run())


def test_what_was_packed_before_it_was_read_is_told(tmp_path: Path) -> None:
    log = Log(tmp_path)

    async def run() -> None:
        log.write(b"a\n")
        await log.look()
        log.restart()
        log.write(b"b\n")
        log.rotate()
        (tmp_path / "Master.csv.1").rename(tmp_path / "Master.csv.1.gz")
        await log.look()
        assert log.follower.counters.failed == 0
        log.write(b"c\n")
        await log.settle()
        assert (log.kept, log.follower.counters.failed) == ([b"a", b"c"], 1)

    asyncio.run(run())


def test_the_first_look_may_begin_at_the_end(tmp_path: Path) -> None:
    log = Log(tmp_path, is_from_end=True)

    async def run() -> None:
        log.write(b"old\nha")
        await log.look()
        log.write(b"lf\n")
        log.restart()
        await log.look()
        assert log.kept == [b"half"]

    asyncio.run(run())


def test_a_file_that_is_not_there_yet_is_read_from_its_begin(tmp_path: Path) -> None:
    log = Log(tmp_path, is_from_end=True)

    async def run() -> None:
        await log.look()
        log.restart()
        log.write(b"a\n")
        await log.look()
        assert log.kept == [b"a"]

    asyncio.run(run())


def test_what_the_disk_refuses_is_read_again(tmp_path: Path) -> None:
    log = Log(tmp_path)

    async def run() -> None:
        log.write(b"a\n")
        log.failure = StoreFull("the disk is full")
        with pytest.raises(StoreFull):
            await log.look()
        log.failure = None
        await log.look()
        assert log.kept == [b"a"]

    asyncio.run(run())


def test_a_crash_before_the_offset_is_kept_reads_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come twice then, never not at all, and the ledger counts a call once."""
    log = Log(tmp_path)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    async def run() -> None:
        log.write(b"a\n")
        await log.look()
        log.write(b"b\n")
        monkeypatch.setattr(Follower, "_save", crash)
        with pytest.raises(KeyboardInterrupt):
            await log.look()
        monkeypatch.undo()
        log.restart()
        log.write(b"c\n")
        await log.look()
        assert log.kept == [b"a", b"b", b"b", b"c"]

    asyncio.run(run())


@pytest.mark.parametrize("state", [b"", b"not JSON", b'{"inode":1}'])
def test_a_lost_offset_reads_the_file_from_its_begin(tmp_path: Path, state: bytes) -> None:
    log = Log(tmp_path)

    async def run() -> None:
        log.write(b"a\n")
        await log.look()
        (tmp_path / "state" / "log.json").write_bytes(state)
        log.restart()
        log.write(b"b\n")
        await log.look()
        assert log.kept == [b"a", b"a", b"b"]

    asyncio.run(run())


def test_names_at_the_begin_go_before_rows_read_later(tmp_path: Path) -> None:
    path = Path(__file__).parent / "fixtures/cucm/cdr_StandAloneCluster_01_202611211506_17"
    lines = path.read_bytes().splitlines(keepends=True)
    log = Log(tmp_path, "cucm-cdr")

    async def run() -> None:
        log.write(b"".join(lines[:3]))
        await log.look()
        log.restart()
        log.write(lines[2])
        await log.look()
        assert len(log.kept) == 2
        assert log.kept[0] == log.kept[1]

    asyncio.run(run())


def test_rows_longer_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHUNK_BYTES", 4)
    log = Log(tmp_path)

    async def run() -> None:
        log.write(b"abcdefgh\nij\nk\n")
        await log.look(3)
        assert log.kept == [b"abcdefgh", b"ij", b"k"]

    asyncio.run(run())


OPERATIONS = st.lists(st.sampled_from(["row", "part", "rename", "copy", "restart", "look", "wait"]), max_size=25)


@settings(max_examples=25, deadline=None)
@given(OPERATIONS)
def test_every_row_is_read_in_order(operations: list[str]) -> None:
    """Whatever happens in whatever order: each row is there once, as its writer has ended it."""
    with tempfile.TemporaryDirectory() as directory:
        log = Log(Path(directory))
        written: list[bytes] = []
        is_open = False

        async def part() -> None:
            nonlocal is_open
            is_new = not log.file.exists() or log.file.stat().st_size == 0
            text = b"row %d;" % len(written)
            if is_open:
                written[-1] += text
            else:
                written.append(text)
            log.write(text)
            is_open = True
            if is_new:
                # An empty file that fills and is cut again between two looks cannot be told from one that stayed empty.
                await log.look()

        async def run() -> None:
            nonlocal is_open
            for operation in operations:
                if operation in {"row", "part"}:
                    await part()
                    if operation == "row":
                        log.write(b"\n")
                        is_open = False
                elif operation in {"rename", "copy"} and log.file.exists() and log.file.stat().st_size:
                    log.rotate(is_copy=operation == "copy")
                    is_open = False
                elif operation == "restart":
                    log.restart()
                elif operation == "look":
                    await log.look()
                elif operation == "wait":
                    log.now_ms += 3_000
            log.write(b"\nlast\n" if is_open else b"last\n")
            await log.settle()
            log.follower.close()

        asyncio.run(run())
        assert log.kept == [*written, b"last"]
