"""What every store promises, held by each of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ledger.errors import StoreError
from ledger.leveldb import LevelStore
from ledger.store import (
    MemoryStore,
    Space,
    Store,
    WriteBatch,
    height_key,
    key,
    record_key_row,
    space_range,
    transaction_key,
)

ALL = (b"", b"\xff")


@pytest.fixture(params=["memory", "leveldb"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    if request.param == "memory":
        return MemoryStore
    return lambda: LevelStore(tmp_path / "data")


@pytest.fixture
def store(make: Callable[[], Store]) -> Iterator[Store]:
    opened = make()
    yield opened
    opened.close()


def meta(name: str) -> bytes:
    return key(Space.META, name.encode())


def put(store: Store, **rows: bytes | None) -> None:
    store.write(WriteBatch(puts=[(meta(name), value) for name, value in rows.items()]))


def test_an_empty_store(store: Store) -> None:
    assert store.get(meta("a")) is None
    assert store.get_checked(meta("a")) is None
    assert store.body(bytes(32)) is None
    assert store.has_body(bytes(32)) is False
    assert list(store.scan(*ALL)) == []
    assert list(store.scan(*ALL, reverse=True)) == []


def test_put_overwrite_and_delete(store: Store) -> None:
    put(store, a=b"1", b=b"")
    put(store, a=b"2", c=b"3")
    assert (store.get(meta("a")), store.get_checked(meta("b")), store.get(meta("c"))) == (b"2", b"", b"3")
    put(store, a=None, missing=None)
    assert store.get(meta("a")) is None
    assert list(store.scan(*ALL)) == [(meta("b"), b""), (meta("c"), b"3")]


def test_puts_of_one_batch_apply_in_order(store: Store) -> None:
    a, b = meta("a"), meta("b")
    store.write(WriteBatch(puts=[(a, b"1"), (a, None), (a, b"2"), (b, b"1"), (b, None)]))
    assert list(store.scan(*ALL)) == [(a, b"2")]


def test_an_empty_batch_changes_nothing(store: Store) -> None:
    put(store, a=b"1")
    store.write(WriteBatch())
    assert list(store.scan(*ALL)) == [(meta("a"), b"1")]


def test_bodies_are_found_by_id(store: Store) -> None:
    bodies = [(bytes([i]) * 32, bytes([i]) * (i * 1000)) for i in range(5)]
    store.write(WriteBatch(puts=[(meta("a"), b"1")], bodies=bodies))
    assert [store.body(tx_id) for tx_id, _ in bodies] == [body for _, body in bodies]
    assert [store.has_body(tx_id) for tx_id, _ in bodies] == [True] * 5
    assert store.has_body(b"\xff" * 32) is False
    assert [row_key for row_key, _ in store.scan(*space_range(Space.TRANSACTION))] == [
        transaction_key(tx_id) for tx_id, _ in bodies
    ]


def test_a_body_written_again_replaces_the_first(store: Store) -> None:
    tx_id = b"\x01" * 32
    store.write(WriteBatch(bodies=[(tx_id, b"first"), (tx_id, b"second")]))
    assert store.body(tx_id) == b"second"
    store.write(WriteBatch(bodies=[(tx_id, b"third")]))
    assert store.body(tx_id) == b"third"


def test_a_body_is_forgotten_with_its_row(store: Store) -> None:
    kept, dropped = b"\x01" * 32, b"\x02" * 32
    store.write(WriteBatch(bodies=[(kept, b"k"), (dropped, b"d")]))
    store.write(WriteBatch(puts=[(transaction_key(dropped), None)]))
    assert (store.body(kept), store.body(dropped), store.has_body(dropped)) == (b"k", None, False)


def test_scan_is_half_open_ordered_and_reversible(store: Store) -> None:
    rows = [(height_key(height), b"%d" % height) for height in (0, 1, 255, 256, 65536)]
    store.write(WriteBatch(puts=[*reversed(rows), (meta("a"), b"other space")]))
    assert list(store.scan(*space_range(Space.HEIGHT))) == rows
    assert list(store.scan(*space_range(Space.HEIGHT), reverse=True)) == rows[::-1]
    assert list(store.scan(height_key(1), height_key(256))) == rows[1:3]
    assert list(store.scan(height_key(1), height_key(256), reverse=True)) == rows[2:0:-1]
    assert list(store.scan(height_key(2), height_key(255))) == []
    assert list(store.scan(height_key(256), height_key(1))) == []


def test_scan_sees_the_moment_it_was_asked_for(store: Store) -> None:
    rows = [(height_key(height), b"old") for height in range(1000)]
    store.write(WriteBatch(puts=rows))
    scan = store.scan(*space_range(Space.HEIGHT))
    store.write(WriteBatch(puts=[(height_key(500), b"new"), (height_key(501), None), (height_key(2000), b"")]))
    assert list(scan) == rows


def test_drop_range_drops_whole_minutes(store: Store) -> None:
    rows = [(record_key_row(minute, n.to_bytes(2, "big")), bytes(16)) for minute in range(5) for n in range(300)]
    store.write(WriteBatch(puts=[*rows, (meta("a"), b"1")]))
    store.drop_range(record_key_row(1), record_key_row(4))
    assert list(store.scan(*space_range(Space.RECORD))) == rows[:300] + rows[-300:]
    assert store.get(meta("a")) == b"1"
    store.drop_range(record_key_row(4), record_key_row(1))
    store.drop_range(record_key_row(1), record_key_row(4))
    assert len(list(store.scan(*ALL))) == 601


def test_drop_range_leaves_the_stores_own_rows(store: Store) -> None:
    store.write(WriteBatch(puts=[(meta("a"), b"1")], bodies=[(bytes(32), b"body")]))
    store.drop_range(b"", b"\xff\xff")
    assert list(store.scan(*ALL)) == []
    assert store.body(bytes(32)) is None
    store.write(WriteBatch(bodies=[(bytes(32), b"again")]))
    assert store.body(bytes(32)) == b"again"


@pytest.mark.parametrize("row_key", [b"", b"\x00tail", b"\x0f", transaction_key(bytes(32))])
def test_the_stores_own_keys_are_refused_and_nothing_is_written(store: Store, row_key: bytes) -> None:
    with pytest.raises(ValueError, match="the store alone"):
        store.write(WriteBatch(puts=[(meta("a"), b"1"), (row_key, b"x")], bodies=[(bytes(32), b"body")]))
    assert (store.get(meta("a")), store.has_body(bytes(32))) == (None, False)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_an_id_of_another_length_is_refused(store: Store, length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        store.write(WriteBatch(puts=[(meta("a"), b"1")], bodies=[(bytes(length), b"body")]))
    assert store.get(meta("a")) is None


def test_too_many_bytes_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.store.BODIES_BYTES_MAX", 10)
    with pytest.raises(StoreError, match="expected <= 10, found 11"):
        store.write(WriteBatch(bodies=[(bytes(32), bytes(11))]))
    store.write(WriteBatch(bodies=[(bytes(32), bytes(10))]))
    assert store.has_body(bytes(32))


def test_a_closed_store_says_so(make: Callable[[], Store]) -> None:
    store = make()
    store.close()
    store.close()
    uses: list[Callable[[], object]] = [
        lambda: store.write(WriteBatch()),
        lambda: store.get(meta("a")),
        lambda: store.get_checked(meta("a")),
        lambda: store.scan(*ALL),
        lambda: store.body(bytes(32)),
        lambda: store.has_body(bytes(32)),
        lambda: store.drop_range(*ALL),
    ]
    for use in uses:
        with pytest.raises(StoreError, match="the store is closed"):
            use()


def test_spaces_are_disjoint_and_above_the_stores_own() -> None:
    assert len({space.value for space in Space}) == len(Space)
    assert {len(space.value) for space in Space} == {1}
    assert min(space.value for space in Space) == b"\x10"


class TwinMachine(RuleBasedStateMachine):
    """Any sequence of writes leaves LevelDB, opened again now and then, with what memory has."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(type(self).directory) / str(type(self).runs)
        type(self).runs += 1
        self.disk: Store = LevelStore(self.path)
        self.memory = MemoryStore()

    @rule(
        puts=st.lists(
            st.tuples(
                st.integers(0, 20).map(height_key),
                st.none() | st.binary(max_size=4),
            ),
            max_size=6,
        ),
        bodies=st.lists(
            st.tuples(st.integers(0, 9).map(lambda i: bytes([i]) * 32), st.binary(max_size=90)), max_size=4
        ),
    )
    def write(self, puts: list[tuple[bytes, bytes | None]], bodies: list[tuple[bytes, bytes]]) -> None:
        for store in (self.disk, self.memory):
            store.write(WriteBatch(puts, bodies))

    @rule(a=st.integers(0, 21), b=st.integers(0, 21))
    def drop(self, a: int, b: int) -> None:
        for store in (self.disk, self.memory):
            store.drop_range(height_key(a), height_key(b))

    @rule()
    def reopen(self) -> None:
        self.disk.close()
        self.disk = LevelStore(self.path, create=False)

    @invariant()
    def same(self) -> None:
        heights = space_range(Space.HEIGHT)
        assert list(self.disk.scan(*heights)) == list(self.memory.scan(*heights))
        ids = [bytes([i]) * 32 for i in range(10)]
        assert [self.disk.body(i) for i in ids] == [self.memory.body(i) for i in ids]

    def teardown(self) -> None:
        self.disk.close()

    directory = ""
    runs = 0


TestTwin = TwinMachine.TestCase
TestTwin.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def _twin_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(TwinMachine, "directory", str(tmp_path_factory.mktemp("twin")))
    # Small segments, so that a few bodies already begin the next one.
    patch.setattr("ledger.segments.SEGMENT_BYTES", 400)
    yield
    patch.undo()
