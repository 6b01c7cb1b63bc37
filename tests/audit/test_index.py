"""The audit's own index is exact, whether its keys are in memory or on disk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from audit import index as index_module
from audit.index import AuditIndex
from ledger.record_index import Overlay

KEYS = [bytes([n]) * 16 for n in range(12)]

blocks = st.lists(st.dictionaries(st.integers(0, 6), st.sets(st.sampled_from(KEYS), min_size=1)), max_size=12)


def overlay_of(minutes: dict[int, set[bytes]]) -> Overlay:
    overlay = Overlay()
    for minute, keys in minutes.items():
        overlay.add(minute, keys)
    return overlay


@given(blocks, st.integers(0, 20))
def test_it_knows_what_a_dict_knows(chain: list[dict[int, set[bytes]]], resident_max: int) -> None:
    expected: dict[int, set[bytes]] = {}
    index, before = AuditIndex(), index_module.RESIDENT_KEYS_MAX
    index_module.RESIDENT_KEYS_MAX = resident_max
    try:
        for height, minutes in enumerate(chain, start=1):
            for minute in minutes:
                assert set(index.minute(minute)) == expected.get(minute, set())
            index.count(height, overlay_of(minutes), {}, 0)
            for minute, keys in minutes.items():
                expected.setdefault(minute, set()).update(keys)
        assert {minute: set(index.minute(minute)) for minute in range(8)} == {
            minute: expected.get(minute, set()) for minute in range(8)
        }
    finally:
        index_module.RESIDENT_KEYS_MAX = before
        index.close()


def test_keys_leave_memory(monkeypatch) -> None:
    monkeypatch.setattr(index_module, "RESIDENT_KEYS_MAX", 4)
    index = AuditIndex()
    for minute in range(6):
        index.count(minute + 1, overlay_of({minute: set(KEYS[:3])}), {}, 0)
    assert (len(index._sets), index._held) == (3, 9)
    assert all(set(index.minute(minute)) == set(KEYS[:3]) for minute in range(6))
    index.close()


def test_transactions_are_known_until_they_expire() -> None:
    index = AuditIndex()
    index.count(1, Overlay(), {b"a": 60_000, b"b": 130_000}, 1_000)
    assert (index.height_of(b"a"), index.height_of(b"b"), index.height_of(b"c")) == (1, 1, None)
    index.count(2, Overlay(), {b"c": 200_000}, 119_999)
    assert (index.height_of(b"a"), index.height_of(b"c")) == (1, 2)
    index.count(3, Overlay(), {}, 120_000)
    assert (index.height_of(b"a"), index.height_of(b"b")) == (None, 1)
    index.close()
