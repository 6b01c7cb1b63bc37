"""Values for the tests of the ledger: samples that hold, and strategies for random values of any protocol type."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from ledger import block, cdr, commitment, entries, genesis, payloads, state, transaction
from ledger.cdr import CallRecord
from ledger.codec import Wire
from ledger.crypto import PrivateKey
from ledger.genesis import (
    Candidate,
    Delegation,
    Genesis,
    GenesisMember,
    MemberKey,
    Parameters,
    Role,
    RuleSetPin,
    chain_id_of,
)
from ledger.rules.base import Violation
from ledger.transaction import Transaction, make_transaction

MODULES = (block, cdr, commitment, entries, genesis, payloads, transaction)
WIRE_TYPES: list[type[Wire]] = [
    kind
    for module in MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Wire) and kind is not Wire and kind.__module__ == module.__name__
]
"""Every protocol struct of the ledger."""

SUBMIT_KEY = PrivateKey.from_seed(b"submit")
NODE_KEYS = {name: PrivateKey.from_seed(name.encode()) for name in ("alba", "bora", "cima", "dora")}
GENESIS_MS = 1_767_225_600_000
MINUTE_MS = 60_000
NOW_MS = GENESIS_MS + 60 * MINUTE_MS
"""An hour after genesis."""
PARAMETERS = Parameters(1_000, 100, 4, 8, 30, 35 * 86_400_000, 100_000, 64 * 1024 * 1024, 1_000, "lifecycle")
NO_RULES = RuleSetPin([], [])


def make_genesis(parameters: Parameters = PARAMETERS, rules: RuleSetPin = NO_RULES) -> Genesis:
    """Return a genesis of four members; the first has a submit key as well."""
    members = []
    for name, key in NODE_KEYS.items():
        keys = [MemberKey(key.public_key, Role.NODE | Role.GOVERN)]
        if name == "alba":
            keys.append(MemberKey(SUBMIT_KEY.public_key, Role.SUBMIT))
        members.append(GenesisMember(name, 100, keys, Candidate(key.key_id, "", "DE")))
    delegations = [Delegation(name, name, 100) for name in NODE_KEYS]
    return Genesis(1, "sample", GENESIS_MS, parameters, members, delegations, rules)


GENESIS = make_genesis()
CHAIN_ID = chain_id_of(GENESIS)
STATE = state.genesis_state(GENESIS)


def make_record(number: int = 0, *, setup_ms: int = GENESIS_MS + 30_000, **changes: Any) -> CallRecord:
    """Return a record of call ``number``: answered after 4 s, ended after 64 s, nothing measured."""
    record = CallRecord(
        version=1,
        service=cdr.Service.VOICE,
        leg=cdr.Leg.ORIGINATING,
        party_commitment=bytes(32),
        call_commitment=number.to_bytes(16, "big"),
        setup_ms=setup_ms,
        answer_ms=setup_ms + 4_000,
        end_ms=setup_ms + 64_000,
        sip_code=200,
        q850_cause=16,
        released_by=cdr.ReleasedBy.CALLER,
        codec=0,
        packets_sent=3_000,
        packets_received=2_970,
        octets_sent=480_000,
        octets_received=475_200,
        quality=None,
        levels=None,
        energy=None,
    )
    return msgspec.structs.replace(record, **changes)


def sign_records(records: list[CallRecord], **changes: Any) -> Transaction:
    """Return a transaction of ``records`` by the sample's submit key."""
    fields = {
        "key": SUBMIT_KEY,
        "member_id": "alba",
        "chain_id": CHAIN_ID,
        "created_ms": NOW_MS,
        "expires_ms": NOW_MS + 3_600_000,
        **changes,
    }
    return make_transaction([msgspec.msgpack.encode(record) for record in records], **fields)


class NoRules:
    """A rule set that finds nothing wrong."""

    rule_set_id = STATE.rule_set

    def check_record(self, record: CallRecord) -> Violation | None:
        return None


# -- random values of any type ------------------------------------------------------------------------------------


@cache
def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a protocol type, within its bounds and at them."""
    if kind is commitment.PrivatePart:
        return st.lists(
            st.tuples(st.binary(min_size=32, max_size=32), st.binary(max_size=40)), min_size=7, max_size=7
        ).map(
            lambda parts: commitment.PrivatePart(
                [
                    commitment.PrivateField(name, *part)
                    for name, part in zip(commitment.PRIVATE_FIELDS, parts, strict=True)
                ]
            )
        )
    bounds: dict[str, Any] = {}
    while get_origin(kind) is Annotated:
        kind, *metas = get_args(kind)
        for meta in metas:
            names = ("ge", "le", "min_length", "max_length", "pattern")
            bounds.update({name: getattr(meta, name) for name in names if getattr(meta, name, None) is not None})
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return st.one_of([st.none() if option is type(None) else values_of(option) for option in get_args(kind)])
    if origin is Literal:
        return st.sampled_from(get_args(kind))
    if origin is list:
        least = bounds.get("min_length", 0)
        most = min(bounds.get("max_length", 3), least + 2)
        return st.lists(values_of(get_args(kind)[0]), min_size=least, max_size=most)
    if issubclass(kind, Wire):
        hints = get_type_hints(kind, include_extras=True)
        return st.builds(kind, *(st.deferred(_later(hints[name])) for name in kind.__struct_fields__))
    if issubclass(kind, IntEnum):
        return st.sampled_from(kind)
    return _scalars(kind, bounds)


def _later(kind: Any) -> Callable[[], st.SearchStrategy[Any]]:
    return lambda: values_of(kind)


def _scalars(kind: Any, bounds: dict[str, Any]) -> st.SearchStrategy[Any]:
    if kind is bytes:
        least = bounds.get("min_length", 0)
        return st.binary(min_size=least, max_size=min(bounds.get("max_length", 64), least + 40))
    if kind is str:
        return st.from_regex(bounds["pattern"])
    assert kind is int
    low, high = bounds["ge"], bounds["le"]
    edges = [e for n in (7, 8, 15, 16, 31, 32) for e in (2**n - 1, 2**n) if low <= e <= high]
    return st.sampled_from([low, high, *edges]) | st.integers(low, high)


# -- every spelling of a value in MessagePack ---------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Return a protocol value as lists, integers, bytes, strings and None."""
    if isinstance(value, msgspec.Struct):
        return [plain(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, int) else value


def _headers(size: int, fixed: tuple[int, int] | None, forms: dict[int, int]) -> list[bytes]:
    found = [bytes([fixed[0] + size])] if fixed and size < fixed[1] else []
    return found + [bytes([code]) + size.to_bytes(n, "big") for code, n in forms.items() if size < 1 << 8 * n]


def spellings(value: Any) -> list[tuple[bytes, list[Any]]]:
    """Return (head, children) of every way to begin ``value``; the canonical one first."""
    if value is None:
        return [(b"\xc0", []), (b"\xc2", [])]
    if isinstance(value, int):
        unsigned = _headers(value, (0, 128), {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}) if value >= 0 else []
        signed = [
            bytes([0xD0 + i]) + value.to_bytes(n, "big", signed=True)
            for i, n in enumerate((1, 2, 4, 8))
            if -(1 << 8 * n - 1) <= value < 1 << 8 * n - 1
        ]
        fixed = [value.to_bytes(1, "big", signed=True)] if -32 <= value < 0 else []
        return [(head, []) for head in fixed + unsigned + signed]
    if isinstance(value, list):
        return [(head, value) for head in _headers(len(value), (0x90, 16), {0xDC: 2, 0xDD: 4})]
    data = value if isinstance(value, bytes) else value.encode()
    as_bytes = _headers(len(data), None, {0xC4: 1, 0xC5: 2, 0xC6: 4})
    as_text = _headers(len(data), (0xA0, 32), {0xD9: 1, 0xDA: 2, 0xDB: 4})
    heads = as_bytes + as_text if isinstance(value, bytes) else as_text + as_bytes
    return [(head + data, []) for head in heads]


def respelled(value: Any) -> list[bytes]:
    """Return the encodings of a plain value in which exactly one element has another spelling."""
    ways = spellings(value)
    head, children = ways[0]
    canonical = [_canonical(child) for child in children]
    found = [other + b"".join(canonical) for other, _ in ways[1:]]
    for index, child in enumerate(children):
        before, after = b"".join(canonical[:index]), b"".join(canonical[index + 1 :])
        found += [head + before + other + after for other in respelled(child)]
    return found


def _canonical(value: Any) -> bytes:
    head, children = spellings(value)[0]
    return head + b"".join(map(_canonical, children))
