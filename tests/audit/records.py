"""Records that break rules, one after the other: for holding two implementations of the rules against each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any

import msgspec

from ledger.cdr import CallRecord
from ledger.codec import INT_MAX, encode
from ledger.errors import EncodingError
from ledger.models.tables import CODECS
from ledger.readable import from_readable
from ledger.rules.ruleset import MODULES, read_vectors

Record = list[Any]
"""A CallRecord as its array."""
Path = tuple[int, ...]

TIMES = (5, 6, 7)
DAY_MS = 86_400_000
CODEC, QUALITY, LEVELS, ENERGY = 11, 16, 17, 18
NUMBERS = (0, 1, 2, 4, 8, 100, 127, 128, 1_000, 4_400, 4_500, 5_000, 10_000, 93_206, 100_000, 10**6, 2**32 - 1, 2**40)


def array_of(record: CallRecord) -> Record:
    """Return a record as its array."""
    array: Record = msgspec.msgpack.decode(encode(record))
    return array


@cache
def vector_records() -> list[Record]:
    """Return every record of the conformance vectors, those that hold and those that do not."""
    records = []
    for name, version in sorted(MODULES):
        vectors = json.loads(read_vectors(name, version))
        for case in [{"set": {}}, *vectors["cases"]]:
            made = json.loads(json.dumps(vectors["base"]))
            for path, value in case["set"].items():
                *parents, last = path.split(".")
                place = made
                for parent in parents:
                    place = place[parent]
                place[last] = value
            try:
                records.append(array_of(from_readable(made, CallRecord)))
            except EncodingError as error:
                raise AssertionError(case) from error
    return records


def leaves(value: Any, path: Path = ()) -> list[Path]:
    """Return the path of every value of nested arrays that is no array."""
    if not isinstance(value, list):
        return [path]
    return [leaf for index, one in enumerate(value) for leaf in leaves(one, (*path, index))]


def at(value: Any, path: Path) -> Any:
    """Return what is at a path."""
    for index in path:
        value = value[index]
    return value


def put(value: Any, path: Path, new: Any) -> None:
    """Put something at a path."""
    at(value, path[:-1])[path[-1]] = new


def other_number(rng: Random, number: int) -> int:
    """Return another number, near, far or at the edge of something."""
    kind = rng.randrange(6)
    if kind == 0:
        other = rng.choice(NUMBERS)
    elif kind == 1:
        other = number * rng.choice((2, 3, 10, 1_000))
    elif kind == 2:
        other = number // rng.choice((2, 3, 10, 1_000))
    else:
        other = number + rng.choice((-1, 1)) * rng.choice((1, 1, 2, 10, 99, 100, 101, 154, 1_000, 10_001, 60_000))
    return min(max(other, 0), INT_MAX)


def shifted(record: Record, by_ms: int) -> Record:
    """Return the record of another time."""
    made = list(record)
    for index in TIMES:
        made[index] = made[index] and max(1, made[index] + by_ms)
    return made


def _change_leaf(rng: Random, record: Record) -> None:
    numbers = [path for path in leaves(record) if isinstance(at(record, path), int)]
    parts = [path for path in numbers if path[0] in {QUALITY, LEVELS, ENERGY}]
    path = rng.choice(parts if parts and rng.random() < 0.7 else numbers)
    put(record, path, other_number(rng, at(record, path)))


def _swap_parts(rng: Random, record: Record) -> None:
    other = rng.choice(vector_records())
    index = rng.choice((QUALITY, LEVELS, ENERGY))
    record[index] = json.loads(json.dumps(other[index]))


def _change_codec(rng: Random, record: Record) -> None:
    record[CODEC] = rng.choice(sorted(CODECS))


def _change_method(rng: Random, record: Record) -> None:
    if record[QUALITY] is not None:
        record[QUALITY][rng.randrange(4)] = rng.randint(1, 8)
    if record[ENERGY] is not None:
        record[ENERGY][rng.randrange(3)] = rng.randint(1, 4)


def _drop(rng: Random, record: Record) -> None:
    if record[QUALITY] is not None:
        record[QUALITY][rng.choice((5, 6, 12, 13))] = None
    if record[LEVELS] is not None:
        record[LEVELS][rng.randrange(10)] = None


def _move_times(rng: Random, record: Record) -> None:
    by = rng.choice((-60_000, -1_000, -1, 1, 1_000, 60_000, -35 * DAY_MS, -36 * DAY_MS))
    for index in TIMES if abs(by) > DAY_MS else rng.sample(TIMES, rng.randint(1, 3)):
        record[index] = max(0, record[index] + by)


def _change_zone(rng: Random, record: Record) -> None:
    if record[ENERGY] is not None:
        record[ENERGY][7] = rng.choice(("GB", "US", "US-CA", "ZZ", "AT"))
        record[ENERGY][9] = rng.choice(("ember-2026", "egrid-2023", "desnz-2025", "ember-2025"))


CHANGES: Sequence[Callable[[Random, Record], None]] = (
    *(_change_leaf, _change_leaf, _change_leaf, _change_leaf),
    *(_swap_parts, _change_codec, _change_method, _drop, _move_times, _change_zone),
)


def changed_record(rng: Random, record: Record) -> Record:
    """Return a copy of a record with one to three changes, any of which may put a field out of its bounds."""
    made: Record = msgspec.msgpack.decode(msgspec.msgpack.encode(record))
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice(CHANGES)(rng, made)
    return made
