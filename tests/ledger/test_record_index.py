"""Which record keys have counted: exact, bounded in memory, the same after a restart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import record_index
from ledger.errors import StoreDamaged
from ledger.record_index import Overlay, RecordIndex, SeenRecords, is_row_of, row_of, split_keys
from ledger.store import MemoryStore, Space, WriteBatch, record_key_row


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def overlay(minutes: dict[int, set[int]], tx_ids: set[int] = frozenset()) -> Overlay:  # type: ignore[assignment]
    made = Overlay()
    for minute, numbers in minutes.items():
        made.add(minute, {key(n) for n in numbers})
    made.tx_ids = {n.to_bytes(32, "big") for n in tx_ids}
    return made


def test_rows_are_one_for_each_block_and_minute_with_sorted_keys() -> None:
    index = RecordIndex(MemoryStore())
    rows = index.add(7, overlay({5: {3, 1, 2}, 6: {9}}, {4}))
    height = (7).to_bytes(8, "big")
    assert sorted(rows) == [
        (Space.LOCATION.value + (4).to_bytes(32, "big"), height),
        (record_key_row(5, height), key(1) + key(2) + key(3)),
        (record_key_row(6, height), key(9)),
    ]
    assert rows[0][0] == b"\x30" + (5).to_bytes(4, "big") + height


@given(st.sets(st.binary(min_size=16, max_size=16), max_size=6), st.data())
def test_a_row_of_keys_has_one_spelling(keys: set[bytes], data: st.DataObject) -> None:
    row = row_of(keys)
    assert is_row_of(row, keys)
    assert set(split_keys(row)) == keys
    other = b"".join(data.draw(st.lists(st.sampled_from([*sorted(keys), key(1)]), max_size=7)))
    assert is_row_of(other, keys) == (other == row)
    assert not is_row_of(row + b"x", keys)
    assert not is_row_of(row[:-1], keys) or not keys


def test_an_empty_set_makes_no_row() -> None:
    made = Overlay()
    made.add(5, set())
    assert RecordIndex(MemoryStore()).add(1, made) == []


def test_what_was_added_is_there_before_it_is_written() -> None:
    index = RecordIndex(MemoryStore())
    index.add(7, overlay({5: {1}}, {4}))
    assert index.minute(5) == {key(1)}
    assert index.minute(6) == set()
    assert index.height_of((4).to_bytes(32, "big")) == 7
    assert index.height_of(bytes(32)) is None


def test_a_row_that_is_cut_is_named() -> None:
    store = MemoryStore()
    store.write(WriteBatch([(record_key_row(5, bytes(8)), bytes(17))]))
    with pytest.raises(StoreDamaged) as caught:
        RecordIndex(store).minute(5)
    assert (caught.value.where, caught.value.actual) == ("minute 5", "17")


def test_the_last_minute_there_is_has_a_neighbour() -> None:
    index = RecordIndex(MemoryStore())
    assert index.minute(4_102_444_800_000 // 60_000 + 1) == set()


def test_memory_is_bounded_but_for_the_minutes_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_index, "RESIDENT_KEYS_MAX", 10)
    store = MemoryStore()
    index = RecordIndex(store)
    for height in range(1, 21):
        rows = index.add(height, overlay({height: set(range(height * 100, height * 100 + 5))}))
        store.write(WriteBatch(rows))
        index.trim()
        assert len(index._minutes) <= record_index.RESIDENT_MINUTES_MIN
        assert index._resident == sum(map(len, index._minutes.values())) <= 15
    assert index.minute(1) == {key(n) for n in range(100, 105)}
    assert index.minute(20) == {key(n) for n in range(2000, 2005)}


def test_empty_minutes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_index, "RESIDENT_MINUTES_MAX", 4)
    index = RecordIndex(MemoryStore())
    for minute in range(100):
        index.minute(minute)
    assert len(index._minutes) == 100
    index.trim()
    assert sorted(index._minutes) == [96, 97, 98, 99]


def test_the_minute_used_last_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_index, "RESIDENT_MINUTES_MAX", 3)
    index = RecordIndex(MemoryStore())
    for minute in (1, 2, 3, 4, 1):
        index.minute(minute)
    index.trim()
    assert sorted(index._minutes) == [1, 3, 4]


class CountingStore(MemoryStore):
    """Counts how often a minute is read back."""

    def __init__(self) -> None:
        super().__init__()
        self.scans = 0

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self.scans += 1
        return super().scan(start, stop, reverse=reverse)


def finalise(index: RecordIndex, store: MemoryStore, height: int, minutes: range) -> None:
    """Ask for ``minutes`` as a block does, and make it final with two keys in each."""
    for minute in minutes:
        index.minute(minute)
    keys = {minute: {height * 1000 + minute * 2, height * 1000 + minute * 2 + 1} for minute in minutes}
    store.write(WriteBatch(index.add(height, overlay(keys))))
    index.trim()


def test_minutes_that_every_block_asks_for_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_index, "RESIDENT_KEYS_MAX", 10)
    store = CountingStore()
    index = RecordIndex(store)
    for height in range(1, 11):
        finalise(index, store, height, range(15))
    assert (store.scans, index._resident) == (15, 300)


def test_minutes_out_of_use_go_after_some_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_index, "RESIDENT_KEYS_MAX", 10)
    store = MemoryStore()
    index = RecordIndex(store)
    finalise(index, store, 1, range(15))
    held = [len(index._minutes)]
    for height in range(2, 3 + record_index.IN_USE_BLOCKS):
        finalise(index, store, height, range(100, 101))
        held.append(len(index._minutes))
    # The old ones stay for as long as there is room beside the one in use.
    assert held == [15, 16, 4, 3]
    assert set(index._asked_at) == set(index._minutes)


def test_minutes_in_use_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_index, "RESIDENT_KEYS_MAX", 10)
    monkeypatch.setattr(record_index, "IN_USE_KEYS_MAX", 20)
    store = MemoryStore()
    index = RecordIndex(store)
    for height in range(1, 6):
        finalise(index, store, height, range(15))
        assert index._resident == sum(map(len, index._minutes.values())) <= 20 + 10


def test_a_branch_sees_its_own_overlays_and_the_final_chain() -> None:
    index = RecordIndex(MemoryStore())
    index.add(1, overlay({5: {1}}, {1}))
    left, right = overlay({5: {2}}, {2}), overlay({5: {3}, 6: {4}}, {3})
    seen = SeenRecords(index, [left])
    assert set().union(*seen.layers(5)) == {key(1), key(2)}
    assert [set(layer) for layer in SeenRecords(index, [right]).layers(6)] == [{key(4)}, set()]
    seen.overlay.add(5, {key(9)})
    assert set().union(*seen.layers(5)) == {key(1), key(2), key(9)}
    assert set().union(*SeenRecords(index, [left]).layers(5)) == {key(1), key(2)}
    ids = [n.to_bytes(32, "big") for n in (1, 2, 3)]
    assert [seen.has_transaction(tx_id) for tx_id in ids] == [True, True, False]


STEPS = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, 6), st.sets(st.integers(0, 30), min_size=1, max_size=4), max_size=3),
        st.sampled_from(["keep", "write", "restart"]),
        st.integers(0, 6),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(STEPS)
def test_it_is_a_set_of_keys_by_minute_whatever_is_evicted_or_restarted(
    steps: list[tuple[dict[int, set[int]], str, int]],
) -> None:
    store, unwritten = MemoryStore(), []
    index = RecordIndex(store)
    model: dict[int, set[bytes]] = {}
    heights: dict[bytes, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_index, "RESIDENT_KEYS_MAX", 3)
        patch.setattr(record_index, "RESIDENT_MINUTES_MIN", 1)
        for height, (minutes, then, asked) in enumerate(steps, start=1):
            unwritten += index.add(height, overlay(minutes, {height}))
            heights[height.to_bytes(32, "big")] = height
            for minute, numbers in minutes.items():
                model.setdefault(minute, set()).update(key(n) for n in numbers)
            if then != "keep":
                store.write(WriteBatch(unwritten))
                unwritten = []
                index.trim()
            if then == "restart":
                index = RecordIndex(store)
            assert index.minute(asked) == model.get(asked, set())
            assert {tx_id: index.height_of(tx_id) for tx_id in heights} == heights
        assert {minute: set(index.minute(minute)) for minute in model} == model
