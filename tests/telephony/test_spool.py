"""The spool: what was acknowledged comes out again, in order, whatever happens to process, disk and bytes."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from struct import pack
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import EncodingError, StoreDamaged, StoreError, StoreFull, StoreLocked, StoreVersion
from telephony import spool as spool_module
from telephony.adapters.base import DOCUMENT_BYTES_MAX, Kind
from telephony.spool import HEADER_BYTES, Batch, Frame, Spool
from telephony.spool_files import Position

ROOT = Path(__file__).parent.parent.parent


def open_spool(path: Path) -> Spool:
    return Spool(path, reserve_bytes=0)


def put(spool: Spool, *documents: bytes, time_ms: int = 1) -> None:
    spool.append([(Kind.KAMAILIO, document) for document in documents], time_ms=time_ms)


def read_all(spool: Spool, start: Position | None = None, count_max: int = 7) -> Batch:
    """Read to the end in small steps, as the builder does."""
    position = start or spool.cursor
    everything = Batch(spool.end)
    while True:
        batch = spool.read(position, count_max=count_max, bytes_max=5_000)
        if batch.end == position:
            return everything
        everything.frames.extend(batch.frames)
        everything.damages.extend(batch.damages)
        position = batch.end


def documents_of(batch: Batch) -> list[bytes]:
    return [frame.document for frame in batch.frames]


def only_segment(path: Path) -> Path:
    (segment,) = path.glob("*.seg")
    return segment


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 200)


def test_documents_come_out_as_they_went_in(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "s")
    put(spool, b"one", b"", b"three", time_ms=5)
    put(spool, b"four", time_ms=6)
    kind = int(Kind.KAMAILIO)
    expected = [
        Frame(1, 5, kind, b"one"),
        Frame(2, 5, kind, b""),
        Frame(3, 5, kind, b"three"),
        Frame(4, 6, kind, b"four"),
    ]
    assert read_all(spool).frames == expected
    assert spool.backlog == 4
    spool.close()
    assert read_all(open_spool(tmp_path / "s")).frames == expected


def test_a_frame_is_laid_out_as_documented(tmp_path: Path) -> None:
    """Written out by hand: an older spool must stay readable."""
    spool = open_spool(tmp_path)
    put(spool, b"{}", time_ms=0x1A1FBF5A2BE)
    head = bytes.fromhex("ff434452 0000000000000001 000001a1fbf5a2be 00000002 01") + pack(">I", crc32(b"{}"))
    assert only_segment(tmp_path).read_bytes() == head + pack(">I", crc32(head, 0)) + b"{}"
    assert only_segment(tmp_path).name == "00000000000000000001.seg"
    assert (tmp_path / "FORMAT").read_text() == "ledger-agent spool 1\n"


def test_the_cursor_is_kept_and_what_is_before_it_not_read_again(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    put(spool, b"a", b"b", b"c")
    spool.advance(spool.read(spool.cursor, count_max=2).end)
    assert spool.backlog == 1
    spool.close()
    spool = open_spool(tmp_path)
    assert (documents_of(read_all(spool)), spool.backlog) == ([b"c"], 1)


@pytest.mark.usefixtures("small_segments")
def test_segments_roll_and_go_when_delivered(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for number in range(10):
        put(spool, b"%050d" % number)
    assert len(list(tmp_path.glob("*.seg"))) == 5
    position = spool.read(spool.cursor, count_max=4).end
    spool.advance(position)
    assert sorted(int(path.stem) for path in tmp_path.glob("*.seg")) == [5, 7, 9]
    assert documents_of(read_all(spool)) == [b"%050d" % number for number in range(4, 10)]
    spool.close()
    spool = open_spool(tmp_path)
    assert documents_of(read_all(spool)) == [b"%050d" % number for number in range(4, 10)]
    spool.advance(spool.end)
    assert sorted(int(path.stem) for path in tmp_path.glob("*.seg")) == [9]


def test_a_spool_at_rest_keeps_nothing_that_was_delivered(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    put(spool, b"a", b"b")
    middle = spool.read(spool.cursor, count_max=1).end
    spool.advance(middle)
    spool.retire()
    assert documents_of(read_all(spool)) == [b"b"]
    old = spool.end
    spool.advance(old)
    spool.retire()
    spool.retire()
    assert list(tmp_path.glob("*.seg")) == []
    assert (spool.backlog, spool.end) == (0, Position(3, 0, 3))
    put(spool, b"c")
    # Who stood at the old end finds what came then.
    assert read_all(spool, old) == Batch(spool.end, [Frame(3, 1, Kind.KAMAILIO, b"c")], [])
    spool.close()
    spool = open_spool(tmp_path)
    assert (documents_of(read_all(spool)), spool.notices) == ([b"c"], [])
    spool.advance(spool.end)
    spool.retire()
    spool.close()
    spool = open_spool(tmp_path)
    assert (spool.backlog, spool.end, spool.notices) == (0, Position(4, 0, 4), [])


@pytest.mark.parametrize("call", ["unlink", "replace", "rename"])
def test_a_spool_that_cannot_be_brought_to_rest_is_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    spool = open_spool(tmp_path)
    put(spool, b"a")
    spool.advance(spool.end)
    with monkeypatch.context() as patch:
        patch.setattr(Path, call, fail_with(errno.EIO))
        patch.setattr(os, call, fail_with(errno.EIO))
        with contextlib.suppress(StoreError):
            spool.retire()
    put(spool, b"b")
    assert documents_of(read_all(spool)) == [b"b"]
    spool.advance(spool.cursor)
    assert [int(path.stem) for path in tmp_path.glob("*.seg")] == [2]
    spool.close()
    assert documents_of(read_all(open_spool(tmp_path))) == [b"b"]


@pytest.mark.usefixtures("small_segments")
def test_a_crash_before_segments_are_deleted_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = open_spool(tmp_path)
    for number in range(6):
        put(spool, b"%050d" % number)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail_with(errno.EIO))
        with pytest.raises(StoreError):
            spool.advance(spool.read(spool.cursor, count_max=4).end)
    spool.close()
    spool = open_spool(tmp_path)
    assert documents_of(read_all(spool)) == [b"%050d" % number for number in (4, 5)]
    assert sorted(int(path.stem) for path in tmp_path.glob("*.seg")) == [5]


@given(st.lists(st.binary(max_size=40), max_size=4), st.data())
@settings(max_examples=40, deadline=None)
def test_a_torn_write_costs_nothing_that_was_acknowledged(torn: list[bytes], data: st.DataObject) -> None:
    """A crash leaves any beginning of the last group; what was acknowledged is whole, and new writes follow it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        spool = open_spool(path)
        put(spool, b"kept 1", b"kept 2")
        acknowledged = spool.end.offset
        put(spool, *torn)
        size = spool.end.offset
        spool.close()
        cut = data.draw(st.integers(acknowledged, size))
        os.truncate(only_segment(path), cut)
        spool = open_spool(path)
        found = documents_of(read_all(spool))
        assert found == [b"kept 1", b"kept 2", *torn[: len(found) - 2]]
        put(spool, b"new")
        batch = read_all(spool)
        assert (documents_of(batch), batch.damages) == ([*found, b"new"], [])
        assert [frame.sequence for frame in batch.frames] == list(range(1, len(found) + 2))
        spool.close()


def test_zeros_at_the_end_are_a_torn_write(tmp_path: Path) -> None:
    """After a power cut a file may have grown without its bytes."""
    spool = open_spool(tmp_path)
    put(spool, b"kept")
    spool.close()
    with only_segment(tmp_path).open("ab") as file:
        file.write(bytes(500))
    spool = open_spool(tmp_path)
    assert documents_of(read_all(spool)) == [b"kept"]
    assert len(spool.notices) == 1
    assert "500 bytes of an unfinished write cut off" in spool.notices[0]


@given(
    st.lists(st.binary(max_size=30), min_size=1, max_size=8),
    st.integers(min_value=0),
    st.integers(1, 255),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_a_changed_byte_costs_one_document_and_is_reported(
    documents: list[bytes], place: int, change: int, is_reopened: bool
) -> None:
    """Wherever a byte is changed: every other document comes out, and the damage names file and offset."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        spool = open_spool(path)
        put(spool, *documents)
        segment = only_segment(path)
        data = bytearray(segment.read_bytes())
        place %= len(data)
        data[place] ^= change
        segment.write_bytes(data)
        if is_reopened:
            spool.close()
            spool = open_spool(path)
        put(spool, b"new")
        batch = read_all(spool)
        index, offset = 0, 0
        while offset + HEADER_BYTES + len(documents[index]) <= place:
            offset += HEADER_BYTES + len(documents[index])
            index += 1
        assert documents_of(batch) == [*documents[:index], *documents[index + 1 :], b"new"]
        (damage,) = batch.damages
        assert isinstance(damage.error, StoreDamaged)
        assert damage.error.where == f"{segment} at {offset}"
        assert damage.data == bytes(data[offset : offset + HEADER_BYTES + len(documents[index])])
        assert damage.records == 1
        spool.advance(batch.end)
        assert spool.backlog == 0
        spool.close()


@pytest.mark.usefixtures("small_segments")
def test_a_missing_segment_is_reported_with_how_many_records_it_had(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for number in range(6):
        put(spool, b"%050d" % number)
    (tmp_path / f"{3:020}.seg").unlink()
    for again in (spool, None):
        if again is None:
            spool.close()
        batch = read_all(again or open_spool(tmp_path))
        assert documents_of(batch) == [b"%050d" % number for number in (0, 1, 4, 5)]
        assert [(damage.records, damage.data) for damage in batch.damages] == [(2, b"")]
        assert "records 3 to 4" in batch.damages[0].error.sentence()


def test_a_lost_cursor_means_everything_once_more(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    put(spool, b"a", b"b")
    spool.advance(spool.end)
    spool.close()
    for text in (b"", b"{", b'{"segment":1,"offset":0,"sequence":2,"check":1}', b"\xff"):
        (tmp_path / "cursor").write_bytes(text)
        spool = open_spool(tmp_path)
        assert documents_of(read_all(spool)) == [b"a", b"b"]
        spool.close()


def test_a_segment_shorter_than_what_was_delivered_is_never_grown_with_zeros(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    put(spool, b"a", b"b")
    spool.advance(spool.end)
    spool.close()
    os.truncate(only_segment(tmp_path), 10)
    spool = open_spool(tmp_path)
    put(spool, b"c")
    batch = read_all(spool)
    assert (documents_of(batch), batch.damages) == ([b"c"], [])
    assert batch.frames[0].sequence == 3


def test_one_process_at_a_time(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    with pytest.raises(StoreLocked, match=f"process {os.getpid()} has this spool open"):
        open_spool(tmp_path)
    spool.close()
    open_spool(tmp_path).close()


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("ledger-agent spool 2\n")
    with pytest.raises(StoreVersion, match="expected ledger-agent spool 1, found ledger-agent spool 2"):
        open_spool(tmp_path)
    (tmp_path / "FORMAT").write_text("ledger-agent spool 1\n")
    open_spool(tmp_path).close()


def test_a_document_too_long_is_refused_whole(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    with pytest.raises(EncodingError):
        put(spool, b"small", bytes(DOCUMENT_BYTES_MAX + 1))
    put(spool, bytes(DOCUMENT_BYTES_MAX))
    assert [len(document) for document in documents_of(read_all(spool))] == [DOCUMENT_BYTES_MAX]


# -- the disk ----------------------------------------------------------------------------------------------------


def fail_with(number: int):
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_the_reserve_is_kept(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    spool = Spool(tmp_path, reserve_bytes=disk.f_bavail * disk.f_frsize + 2**40)
    with pytest.raises(StoreFull, match="the disk is nearly full"):
        put(spool, b"a")
    assert (spool.backlog, spool.has_room, only_segment(tmp_path).stat().st_size) == (0, False, 0)


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreError)]
)
def test_a_failed_write_keeps_nothing_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, kind: type[StoreError]
) -> None:
    spool = open_spool(tmp_path)
    put(spool, b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_with(number))
        with pytest.raises(kind):
            put(spool, b"lost 1", b"lost 2")
    assert only_segment(tmp_path).stat().st_size == HEADER_BYTES + len(b"before")
    put(spool, b"after")
    assert documents_of(read_all(spool)) == [b"before", b"after"]
    spool.close()
    assert documents_of(read_all(open_spool(tmp_path))) == [b"before", b"after"]


def test_a_disk_that_fills_in_the_middle_of_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pwrite writes part of it, then has no room; and the cut fails as well: the next open cuts it."""
    spool = open_spool(tmp_path)
    put(spool, b"before")
    real_pwrite, left = os.pwrite, [40]

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_pwrite(fd, bytes(data)[: left.pop()], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        patch.setattr(os, "ftruncate", fail_with(errno.EIO))
        with pytest.raises(StoreFull):
            put(spool, b"lost 1", b"lost 2")
    put(spool, b"x")
    assert documents_of(read_all(spool)) == [b"before", b"x"]
    assert only_segment(tmp_path).stat().st_size == 2 * HEADER_BYTES + len(b"beforex")


@pytest.mark.usefixtures("small_segments")
def test_a_new_segment_that_cannot_be_made_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller documents, which would have had room in the old segment, must not go there afterwards."""
    spool = open_spool(tmp_path)
    put(spool, b"%0100d" % 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_with(errno.ENOSPC))
        with pytest.raises(StoreFull):
            put(spool, b"%0100d" % 2)
    put(spool, b"small")
    expected = [b"%0100d" % 1, b"small"]
    assert documents_of(read_all(spool)) == expected
    spool.close()
    spool = open_spool(tmp_path)
    put(spool, b"more")
    batch = read_all(spool)
    assert (documents_of(batch), batch.damages) == ([*expected, b"more"], [])


@pytest.mark.usefixtures("small_segments")
def test_a_spool_at_rest_deletes_what_it_has_also_after_a_group_that_the_disk_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That group had begun a segment of its own."""
    spool = open_spool(tmp_path)
    put(spool, b"%0100d" % 1)
    spool.advance(spool.end)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail_with(errno.ENOSPC))
        with pytest.raises(StoreFull):
            put(spool, b"%0100d" % 2)
    spool.retire()
    assert b"".join(path.read_bytes() for path in tmp_path.glob("*.seg")) == b""
    put(spool, b"more")
    assert documents_of(read_all(spool)) == [b"more"]


def test_a_cursor_that_cannot_be_written_is_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = open_spool(tmp_path)
    put(spool, b"a", b"b")
    spool.advance(spool.read(spool.cursor, count_max=1).end)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_with(errno.ENOSPC))
        with pytest.raises(StoreFull):
            spool.advance(spool.end)
    spool.close()
    assert documents_of(read_all(open_spool(tmp_path))) == [b"b"]


@given(st.lists(st.sampled_from(["append", "big", "deliver", "reopen", "retire", "fail"]), max_size=25), st.randoms())
@settings(max_examples=40, deadline=None)
def test_any_order_of_events_delivers_each_document_in_order(events: list[str], chance: random.Random) -> None:
    """Compared with a list: appends, failing appends, deliveries and restarts in any order, segments rolling."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_module, "SEGMENT_BYTES", 300)
        spool = open_spool(Path(directory))
        waiting: list[bytes] = []
        count = 0
        for event in events:
            if event in {"append", "big", "fail"}:
                size = 200 if event == "big" else 20
                group = [b"%d" % (count + number) * (1 + chance.randrange(size)) for number in range(3)]
                count += 3
                if event == "fail":
                    with pytest.MonkeyPatch.context() as fault, pytest.raises(StoreFull):
                        fault.setattr(os, chance.choice(["fdatasync", "pwrite"]), fail_with(errno.ENOSPC))
                        put(spool, *group)
                else:
                    put(spool, *group)
                    waiting += group
            elif event == "deliver":
                batch = spool.read(spool.cursor, count_max=2)
                assert (documents_of(batch), batch.damages) == (waiting[: len(batch.frames)], [])
                assert bool(batch.frames) == bool(waiting)
                spool.advance(batch.end)
                del waiting[: len(batch.frames)]
            elif event == "retire":
                spool.retire()
                written = b"".join(path.read_bytes() for path in Path(directory).glob("*.seg"))
                assert waiting or not written
            else:
                spool.close()
                spool = open_spool(Path(directory))
                assert spool.notices == []
            assert spool.backlog == len(waiting)
        assert documents_of(read_all(spool)) == waiting
        spool.close()


# -- kill -9 ----------------------------------------------------------------------------------------------------

VICTIM = """
import sys
from pathlib import Path
from telephony.spool import Spool
from telephony import spool
spool.SEGMENT_BYTES = 20_000
s = Spool(Path(sys.argv[1]), reserve_bytes=0)
number = int(sys.argv[2])
while True:
    count = number % 7 + 1
    s.append([(1, b"%d" % n * (n % 50 + 1)) for n in range(number, number + count)], time_ms=number)
    number += count
    if number % 3 == 0:
        s.advance(s.read(s.cursor, count_max=5).end)
    print(number, s.cursor.sequence, flush=True)
"""


def numbered(number: int) -> bytes:
    return b"%d" % number * (number % 50 + 1)


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Twenty times: a process appends and delivers until it is killed; every acknowledged document is there."""
    chance = random.Random(20)
    acknowledged = first = 0
    for _ in range(20):
        victim = subprocess.Popen(
            [sys.executable, "-c", VICTIM, str(tmp_path), str(acknowledged)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert victim.stdout is not None
        for _ in range(chance.randrange(1, 60)):
            victim.stdout.readline()
        victim.send_signal(signal.SIGKILL)
        lines = [line for line in victim.stdout.read().splitlines() if line]
        victim.stdout.close()
        assert victim.wait() == -signal.SIGKILL
        spool = open_spool(tmp_path)
        batch = read_all(spool)
        assert batch.damages == []
        assert documents_of(batch) == [numbered(frame.sequence - 1) for frame in batch.frames]
        if lines:
            acknowledged, first = (int(number) for number in lines[-1].split())
        assert spool.end.sequence - 1 >= acknowledged
        assert spool.cursor.sequence >= first
        acknowledged = spool.end.sequence - 1
        spool.close()
    assert acknowledged > 100
