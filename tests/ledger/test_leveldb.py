"""What can go wrong with files: each fault is named and costs nothing that was acknowledged."""

import errno
import fcntl
import os
import random
import shutil
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.data_directory import copy_for_audit
from ledger.errors import StoreDamaged, StoreError, StoreFull, StoreLocked, StoreVersion
from ledger.leveldb import LevelStore, plyvel
from ledger.segments import POINTER
from ledger.store import Space, WriteBatch, height_key, key, space_range

HEAD = key(Space.META, b"head")
HEIGHTS = space_range(Space.HEIGHT)


def tx(number: int) -> bytes:
    return number.to_bytes(32, "big")


def body_of(number: int) -> bytes:
    return b"%d." % number * (number % 97 + 1)


def step(number: int) -> WriteBatch:
    """A batch like those of a node: two bodies, a row, and a pointer to the newest."""
    bodies = [(tx(2 * number + i), body_of(2 * number + i)) for i in range(2)]
    return WriteBatch([(height_key(number), b"block %d" % number), (HEAD, b"%d" % number)], bodies)


def check_steps(store: LevelStore, count: int) -> None:
    """Exactly the first ``count`` steps are in ``store``."""
    rows = [(height_key(number), b"block %d" % number) for number in range(count)]
    assert list(store.scan(*HEIGHTS)) == rows
    assert store.get_checked(HEAD) == (b"%d" % (count - 1) if count else None)
    bodies = [store.body(tx(number)) for number in range(2 * count + 2)]
    assert bodies == [body_of(number) for number in range(2 * count)] + [None, None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of ten steps, closed."""
    path = tmp_path / "data"
    store = LevelStore(path)
    for number in range(10):
        store.write(step(number))
    store.close()
    return path


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.segments.SEGMENT_BYTES", 400)


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def test_what_was_written_is_there_after_opening_again(path: Path) -> None:
    for _ in range(2):
        store = LevelStore(path, create=False)
        check_steps(store, 10)
        store.close()


def test_bodies_roll_over_into_further_segments(tmp_path: Path, small_segments: None) -> None:
    store = LevelStore(tmp_path)
    for number in range(10):
        store.write(step(number))
    check_steps(store, 10)
    assert len(list((tmp_path / "segments").iterdir())) > 4
    store.write(WriteBatch(bodies=[(tx(999), bytes(5000))]))
    store.close()
    again = LevelStore(tmp_path)
    assert again.body(tx(999)) == bytes(5000)
    check_steps(again, 10)
    again.close()


def test_a_missing_directory_is_not_made_unless_asked(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store here"):
        LevelStore(tmp_path / "typo", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a directory")
    with pytest.raises(StoreError, match="the disk refuses"):
        LevelStore(tmp_path / "data")


# --- damage


def test_a_torn_tail_is_cut_off(path: Path) -> None:
    """A crash between the sync of the bodies and the LevelDB batch."""
    segment = path / "segments" / "00000000.seg"
    whole = segment.read_bytes()
    segment.write_bytes(whole + b"LSEG half a frame")
    (path / "segments" / "00000001.seg").write_bytes(b"LSEG a segment just begun")
    store = LevelStore(path)
    assert (segment.read_bytes(), list((path / "segments").iterdir())) == (whole, [segment])
    store.write(step(10))
    check_steps(store, 11)
    store.close()


def test_a_segment_shorter_than_its_tail_is_damage(path: Path) -> None:
    segment = path / "segments" / "00000000.seg"
    os.truncate(segment, segment.stat().st_size - 1)
    with pytest.raises(StoreDamaged, match=r"ends too early .* Restore it from a backup") as caught:
        LevelStore(path)
    assert caught.value.where == str(segment)


@pytest.mark.parametrize("which", [0, 1, -1])
@pytest.mark.parametrize("fault", ["missing", "short"])
def test_every_segment_is_checked_at_opening(tmp_path: Path, small_segments: None, which: int, fault: str) -> None:
    store = LevelStore(tmp_path)
    for number in range(10):
        store.write(step(number))
    store.close()
    segment = sorted((tmp_path / "segments").iterdir())[which]
    if fault == "missing":
        segment.unlink()
    else:
        os.truncate(segment, segment.stat().st_size - 1)
    with pytest.raises(StoreDamaged) as caught:
        LevelStore(tmp_path)
    assert caught.value.where == str(segment)


def test_a_segment_that_goes_missing_while_open_is_named(path: Path) -> None:
    store = LevelStore(path)
    (path / "segments" / "00000000.seg").unlink()
    with pytest.raises(StoreDamaged, match=r"00000000\.seg: a segment is missing"):
        store.body(tx(1))
    store.close()


def test_any_flipped_byte_of_a_segment_is_found_by_reading(path: Path) -> None:
    segment = path / "segments" / "00000000.seg"
    sizes = [44 + len(body_of(number)) for number in range(20)]
    offset = 0
    for number, size in enumerate(sizes):
        for at in (offset, offset + 5, offset + 9, offset + 20, offset + 44, offset + size - 1):
            flip(segment, at)
            store = LevelStore(path)
            with pytest.raises(StoreDamaged) as caught:
                store.body(tx(number))
            assert caught.value.where == f"{segment} at {offset}"
            store.close()
            flip(segment, at)
        offset += size
    assert offset == segment.stat().st_size


def read_all(path: Path) -> str:
    """Open and read everything with checksums: ``whole`` or ``damaged``, and nothing else may come of it."""
    try:
        store = LevelStore(path, create=False)
    except StoreDamaged:
        return "damaged"
    try:
        check_steps(store, 10)
    except StoreDamaged:
        return "damaged"
    finally:
        store.close()
    return "whole"


@pytest.mark.parametrize("pattern", ["*.ldb", "MANIFEST-*", "CURRENT"])
def test_a_flipped_byte_of_leveldb_is_found_or_harmless(path: Path, tmp_path: Path, pattern: str) -> None:
    """Never other rows than those written. Harmless are bytes that only help, such as bloom filters."""
    LevelStore(path).close()
    [name] = [p.relative_to(path) for p in (path / "db").glob(pattern)]
    size = (path / name).stat().st_size
    results = set()
    for offset in {*range(0, size, max(1, size // 40)), size - 1}:
        copy = tmp_path / f"copy{offset}"
        shutil.copytree(path, copy)
        flip(copy / name, offset)
        results.add(read_all(copy))
        shutil.rmtree(copy)
    assert "damaged" in results


def test_a_flipped_byte_in_the_log_is_found(path: Path, tmp_path: Path) -> None:
    """LevelDB's log, where synced batches lie until they are sorted; paranoid_checks makes it look."""
    [name] = [p.relative_to(path) for p in (path / "db").glob("*.log")]
    size = (path / name).stat().st_size
    for offset in range(0, size * 9 // 10, size // 60):
        copy = tmp_path / f"copy{offset}"
        shutil.copytree(path, copy)
        flip(copy / name, offset)
        assert read_all(copy) == "damaged", offset
        shutil.rmtree(copy)


@pytest.mark.parametrize("pattern", ["*.ldb", "MANIFEST-*", "CURRENT"])
def test_a_missing_file_of_leveldb_is_damage(path: Path, pattern: str) -> None:
    """Above all LevelDB must not take a lost CURRENT for an empty directory and begin anew."""
    LevelStore(path).close()
    [file] = (path / "db").glob(pattern)
    file.unlink()
    with pytest.raises(StoreDamaged) as caught:
        LevelStore(path)
    assert caught.value.where == str(path / "db")


def test_damage_found_while_reading_names_the_directory(path: Path) -> None:
    store = LevelStore(path)
    store.write(WriteBatch([(height_key(number), bytes(100)) for number in range(2000)]))
    store.close()
    LevelStore(path).close()
    table = max((path / "db").glob("*.ldb"), key=lambda p: p.stat().st_size)
    flip(table, table.stat().st_size // 2)
    store = LevelStore(path)
    uses: list[Callable[[], object]] = [
        lambda: [store.get_checked(height_key(number)) for number in range(2000)],
        lambda: list(store.scan(*HEIGHTS)),
        lambda: list(store.scan(*HEIGHTS, reverse=True)),
        lambda: list(store.scan(height_key(500), height_key(1500))),
        lambda: store.drop_range(*HEIGHTS),
    ]
    assert store.get_checked(height_key(1900)) == bytes(100)
    for use in uses:
        with pytest.raises(StoreDamaged, match="Restore it from a backup") as caught:
            use()
        assert caught.value.where == str(path / "db")
    store.close()


# --- version and lock


@pytest.mark.parametrize(
    ("line", "kind", "hint"),
    [
        ("ledgerd store 3\n", StoreVersion, "Run the newer program"),
        ("ledgerd store 1\n", StoreVersion, "Delete it and let the node sync again"),
        ("ledgerd store x\n", StoreDamaged, "Restore it"),
        ("ledgerd store 1", StoreDamaged, "Restore it"),
        ("ledgerd store 15", StoreDamaged, "Restore it"),
        ("", StoreDamaged, "Restore it"),
    ],
)
def test_another_format_version_is_refused(path: Path, line: str, kind: type[StoreError], hint: str) -> None:
    (path / "FORMAT").write_text(line)
    before = files(path / "db")
    with pytest.raises(kind) as caught:
        LevelStore(path)
    assert caught.value.hint.startswith(hint)
    assert files(path / "db") == before


def test_a_store_without_its_format_line_is_not_taken_for_a_new_one(path: Path) -> None:
    (path / "FORMAT").unlink()
    with pytest.raises(StoreDamaged, match="the file FORMAT is missing"):
        LevelStore(path)


def test_a_store_whose_making_was_cut_short_is_made_again(tmp_path: Path) -> None:
    LevelStore(tmp_path).close()
    (tmp_path / "FORMAT").unlink()
    store = LevelStore(tmp_path)
    store.write(step(0))
    check_steps(store, 1)
    store.close()


def test_a_second_opening_names_the_process_that_was_first(path: Path) -> None:
    store = LevelStore(path)
    with pytest.raises(StoreLocked, match=f"process {os.getpid()} has this data directory open"):
        LevelStore(path)
    with pytest.raises(StoreLocked):
        copy_for_audit(path, path.parent / "copy")
    assert not (path.parent / "copy").exists()
    check_steps(store, 10)
    store.close()
    LevelStore(path).close()


def test_two_may_copy_at_once_and_nobody_opens_meanwhile(path: Path, tmp_path: Path) -> None:
    with (path / "LOCK").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        copy_for_audit(path, tmp_path / "copy")
        with pytest.raises(StoreLocked):
            LevelStore(path)
    LevelStore(path).close()


def test_a_second_process_is_refused(path: Path) -> None:
    store = LevelStore(path)
    code = f"from ledger.leveldb import LevelStore\nLevelStore({str(path)!r})"
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    store.close()
    assert f"StoreLocked: {path}: process {os.getpid()} has this data directory open" in second.stderr


@pytest.fixture
def evidence(path: Path, tmp_path: Path) -> Iterator[LevelStore]:
    """The store of ten steps with bytes that a crash left behind its end, opened as whoever examines it does."""
    with (path / "segments" / "00000000.seg").open("ab") as segment:
        segment.write(b"torn")
    (path / "segments" / "00000001.seg").write_bytes(b"never acknowledged")
    copy_for_audit(path, tmp_path / "copy")
    store = LevelStore(tmp_path / "copy", create=False, evidence=path)
    yield store
    store.close()


def test_evidence_is_read_and_stays_as_it_was(path: Path, evidence: LevelStore) -> None:
    before = files(path)
    check_steps(evidence, 10)
    with pytest.raises(StoreError, match="for reading alone"):
        evidence.write(step(10))
    with pytest.raises(StoreError, match="for reading alone"):
        evidence.drop_range(*HEIGHTS)
    check_steps(evidence, 10)
    evidence.close()
    assert files(path) == before


def test_bodies_are_not_copied(evidence: LevelStore, tmp_path: Path) -> None:
    assert {file.name for file in (tmp_path / "copy").iterdir()} == {"FORMAT", "LOCK", "db"}


def test_evidence_is_read_on_while_its_node_runs_again(path: Path, evidence: LevelStore) -> None:
    node = LevelStore(path)
    for number in range(10, 30):
        node.write(step(number))
    check_steps(evidence, 10)
    check_steps(node, 30)
    node.close()


def test_evidence_that_lacks_the_end_of_a_segment_is_damaged(path: Path, tmp_path: Path) -> None:
    segment = path / "segments" / "00000000.seg"
    os.truncate(segment, segment.stat().st_size - 1)
    before = files(path)
    copy_for_audit(path, tmp_path / "copy")
    with pytest.raises(StoreDamaged, match="ends too early") as caught:
        LevelStore(tmp_path / "copy", create=False, evidence=path)
    assert (caught.value.where, files(path)) == (str(segment), before)


def test_a_pipe_by_the_name_of_a_file_keeps_nobody_waiting(path: Path, evidence: LevelStore, tmp_path: Path) -> None:
    segment = path / "segments" / "00000000.seg"
    segment.unlink()
    os.mkfifo(segment)
    with pytest.raises(StoreError) as caught:
        evidence.body(tx(0))
    assert caught.value.where.startswith(str(segment))
    (path / "LOCK").unlink()
    os.mkfifo(path / "LOCK")
    copy_for_audit(path, tmp_path / "second")
    with pytest.raises(StoreDamaged, match="a segment is missing"):
        LevelStore(tmp_path / "second", create=False, evidence=path)


def test_a_forged_pointer_takes_no_more_memory_than_the_segment_has(path: Path) -> None:
    store = LevelStore(path)
    segments = store._segments
    tracemalloc.start()
    with pytest.raises(StoreDamaged, match="damaged"):
        segments.read(tx(0), POINTER.pack(0, 0, 0xFFFF_FFFF))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    store.close()
    assert most < 1 << 20


def test_a_copy_needs_a_store_and_a_new_directory(path: Path, tmp_path: Path) -> None:
    copy_for_audit(path, tmp_path / "copy")
    with pytest.raises(StoreError, match="needs a new directory"):
        copy_for_audit(path, tmp_path / "copy")
    with pytest.raises(StoreError, match="no store here"):
        copy_for_audit(tmp_path, tmp_path / "other")


# --- full disk


class Failing:
    """Stands for one call of the operating system: fails once armed, works otherwise."""

    def __init__(self, real: Callable[..., Any], code: int) -> None:
        self.real, self.code, self.armed = real, code, False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.armed:
            self.armed = False
            raise OSError(self.code, os.strerror(self.code))
        return self.real(*args, **kwargs)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("call", ["open", "ftruncate", "pwrite", "fdatasync", "fsync"])
def test_a_failing_call_costs_only_its_write(
    tmp_path: Path, small_segments: None, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    failing = Failing(getattr(os, call), code)
    monkeypatch.setattr(os, call, failing)
    store = LevelStore(tmp_path / "data")
    kinds = set()
    for number in range(20):
        failing.armed = True
        try:
            store.write(step(number))
        except StoreError as error:
            kinds.add(type(error))
            failing.armed = False
            check_steps(store, number)
            store.write(step(number))
        failing.armed = False
        check_steps(store, number + 1)
    assert kinds == {StoreError if code == errno.EIO else StoreFull}
    store.close()
    store = LevelStore(tmp_path / "data")
    check_steps(store, 20)
    store.close()


def test_a_write_cut_short_by_a_full_disk_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system writes what fits and says how much; only the next call fails."""
    store = LevelStore(path)
    real = os.pwrite
    room = [50]

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(fd, data[: room[0]], offset)
        room[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", pwrite)
    size = (path / "segments" / "00000000.seg").stat().st_size
    with pytest.raises(StoreFull):
        store.write(step(10))
    assert (path / "segments" / "00000000.seg").stat().st_size == size
    room[0] = 10**9
    store.write(step(10))
    check_steps(store, 11)
    store.close()


class FailingDatabase:
    """A LevelDB handle whose next write fails, having reached the log or not; reads see nothing of it."""

    def __init__(self, real: Any, reached_the_log: bool, text: str) -> None:
        self.real, self.reached, self.text = real, reached_the_log, text
        self.late: list[tuple[bytes, bytes | None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def write_batch(self, **_: Any) -> Any:
        return self

    def __enter__(self) -> Any:
        return self

    def put(self, row_key: bytes, value: bytes) -> None:
        self.late.append((row_key, value))

    def delete(self, row_key: bytes) -> None:
        self.late.append((row_key, None))

    def __exit__(self, *_: object) -> None:
        raise plyvel.IOError(f"IO error: {self.text}".encode())

    def close(self) -> None:
        if self.reached:
            with self.real.write_batch(transaction=True, sync=True) as batch:
                for row_key, value in self.late:
                    if value is None:
                        batch.delete(row_key)
                    else:
                        batch.put(row_key, value)
        self.real.close()


@pytest.mark.parametrize("reached_the_log", [False, True])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (os.strerror(errno.ENOSPC), StoreFull),
        (os.strerror(errno.EROFS), StoreError),
        ("Input/output error", StoreDamaged),
    ],
)
def test_a_failed_batch_does_not_come_back(
    path: Path, reached_the_log: bool, text: str, kind: type[StoreError]
) -> None:
    """LevelDB may have the batch in its log although the write failed; opening again would bring it back."""
    store = LevelStore(path)
    store._db = FailingDatabase(store._db, reached_the_log, text)
    with pytest.raises(StoreError) as caught:
        store.write(WriteBatch([(height_key(3), None), (HEAD, b"wrong")], [(tx(3), b"wrong"), (tx(99), b"new")]))
    assert type(caught.value) is kind
    check_steps(store, 10)
    store.write(WriteBatch())
    check_steps(store, 10)
    assert store.has_body(tx(99)) is False
    store.write(step(10))
    store.close()
    store = LevelStore(path)
    check_steps(store, 11)
    store.close()


def test_a_write_leaves_the_reserve_alone(path: Path) -> None:
    store = LevelStore(path, reserve_bytes=1 << 60)
    with pytest.raises(StoreFull, match="free some room and try again"):
        store.write(step(10))
    check_steps(store, 10)
    store.drop_range(*HEIGHTS)
    assert list(store.scan(*HEIGHTS)) == []
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 72 MB, 32 of them taken by a file that can be deleted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=72m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    (disk / "ballast").write_bytes(bytes(32 << 20))
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("what", ["bodies", "rows"])
def test_a_really_full_disk(small_disk: Path, what: str) -> None:
    """Filled to the last byte, in the segments or in LevelDB; then there is room again."""
    store = LevelStore(small_disk / "data", reserve_bytes=0)

    def batch(number: int) -> WriteBatch:
        filler = number.to_bytes(4, "big") * 50_000
        rows: list[tuple[bytes, bytes | None]] = [(HEAD, b"%d" % number)]
        if what == "bodies":
            return WriteBatch(rows, [(tx(number), filler)])
        return WriteBatch([*rows, (height_key(number), filler)])

    def check(count: int) -> None:
        assert store.get_checked(HEAD) == b"%d" % (count - 1)
        for number in range(count + 1):
            filler = number.to_bytes(4, "big") * 50_000 if number < count else None
            found = store.body(tx(number)) if what == "bodies" else store.get_checked(height_key(number))
            assert found == filler

    written = 0
    with pytest.raises(StoreFull):
        for written in range(1000):
            store.write(batch(written))
    assert written > 20
    for _ in range(3):
        with pytest.raises(StoreFull):
            store.write(batch(written))
        check(written)
    (small_disk / "ballast").unlink()
    for number in range(written, written + 5):
        store.write(batch(number))
    check(written + 5)
    store.close()
    store = LevelStore(small_disk / "data", reserve_bytes=0)
    check(written + 5)
    store.close()


# --- threads and crashes


def test_reading_while_another_thread_writes(tmp_path: Path, small_segments: None) -> None:
    """What the newest row promises is there; handles are replaced under the readers' feet meanwhile."""
    store = LevelStore(tmp_path)
    faults: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(150):
                if number % 30 == 29:
                    store._db = FailingDatabase(store._db, True, os.strerror(errno.ENOSPC))
                    with pytest.raises(StoreFull):
                        store.write(step(number))
                store.write(step(number))
        except BaseException as error:
            faults.append(error)

    writer = threading.Thread(target=work)
    writer.start()
    reads = 0
    while writer.is_alive():
        newest = store.get(HEAD)
        if newest is not None:
            number = int(newest)
            assert store.body(tx(2 * number + 1)) == body_of(2 * number + 1)
            try:
                assert len(list(store.scan(*HEIGHTS))) >= number
            except StoreError as error:
                assert error.what == "the store was closed during a scan"  # noqa: PT017
            reads += 1
    writer.join()
    assert faults == []
    assert reads > 0
    check_steps(store, 150)
    store.close()


def test_a_scan_left_halfway_holds_nothing(path: Path) -> None:
    store = LevelStore(path)
    scan = store.scan(*HEIGHTS)
    assert next(scan) == (height_key(0), b"block 0")
    store.close()
    del scan
    LevelStore(path).close()


WRITER = """
import sys
import ledger.segments
from ledger.leveldb import LevelStore
from tests.ledger.test_leveldb import HEAD, step
ledger.segments.SEGMENT_BYTES = 5_000
store = LevelStore(sys.argv[1])
number = int(store.get(HEAD) or b"-1") + 1
while True:
    store.write(step(number))
    print(number, flush=True)
    number += 1
"""


def test_kill_9_loses_nothing_acknowledged_and_leaves_nothing_half(tmp_path: Path) -> None:
    rng = random.Random(20)
    root = Path(__file__).parents[2]
    acknowledged = -1
    for _ in range(20):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "data")]
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(rng.randrange(1, 40)):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            # What was still in the pipe was acknowledged too.
            acknowledged = max([acknowledged, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        store = LevelStore(tmp_path / "data")
        count = int(store.get(HEAD) or b"-1") + 1
        assert count in {acknowledged + 1, acknowledged + 2}
        check_steps(store, count)
        store.close()
