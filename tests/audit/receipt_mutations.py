"""Mutants of receipts, drawn from a seed: of their text, their values, what is packed in them, and of whole chains."""

from __future__ import annotations

import copy
import json
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgpack

from ledger.entries import KeyStanding
from ledger.errors import LedgerError
from ledger.genesis import Genesis, genesis_from_json, genesis_to_json
from tests.audit.mutations import change_value, other_value, spell_otherwise
from tests.audit.receipt_forgeries import FORGERIES, make_kit
from tests.audit.receipt_world import World
from tests.audit.worlds import world

Document = dict[str, Any]
Case = tuple[str, bytes]
"""A receipt as text, and the genesis file that it is to be held against."""
Mutate = Callable[[Random, str], str]
KINDS: dict[str, Mutate] = {}

NAMES = ("alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf")
PACKED = ("final", "header", "set_changes")
PATHS = ("item_path", "tx_path", "history_path", "key.path", "void_bitmap")


def kind(mutate: Mutate) -> Mutate:
    """Note a kind of mutation by its function's name."""
    KINDS[mutate.__name__] = mutate
    return mutate


@cache
def good_receipts() -> list[Case]:
    """Return the receipts of the test vectors."""
    document = json.loads((Path(__file__).parents[1] / "vectors" / "receipts.json").read_bytes())
    return [(case["file"], document["genesis"][case["genesis"]].encode()) for case in document["receipts"]]


@cache
def _forgeries() -> tuple[list[str], bytes]:
    kit = make_kit()
    return [one.text(kit) for one in FORGERIES.values()], genesis_to_json(kit.world.genesis)


def by_chance(rng: Random) -> Case:
    """Return a receipt of a chain made to measure, most often a good one."""
    items, transactions = rng.randint(1, 9), rng.randint(1, 9)
    voted = [sorted(rng.sample(NAMES, rng.randint(1, 7))) for _ in range(rng.randint(0, 2))]
    made = World(
        names=NAMES,
        seats=rng.randint(1, 7),
        changes=voted,
        pending=sorted(rng.sample(NAMES, 4)) if rng.random() < 0.3 else None,
        entries=rng.choice((0, 1, 5, 40)),
        blocks=rng.randint(4 + 100 * len(voted), 1_000),
        items=items,
        index=rng.randrange(items),
        voids=rng.choice((0, 0, rng.randint(0, items))),
        transactions=transactions,
        position=rng.randrange(transactions),
        mos_count=rng.choice((0, 1, 40)),
        in_final_block=rng.random() < 0.2,
        roles=rng.choice((2, 2, 2, 3, 6, 7, 1, 4)),
        standing=rng.choice(list(KeyStanding)),
        has_key=rng.random() < 0.95,
    )
    shown = rng.choice(((), (), ("caller",), ("call_id", "raw"), "all"))
    return made.receipt(shown).decode(), genesis_to_json(made.genesis)


def _written(document: Document) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


# -- text and JSON -----------------------------------------------------------------------------------------------------


@kind
def text_changed(rng: Random, text: str) -> str:
    """A character of the file, or a piece of it."""
    at = rng.randrange(len(text))
    other = rng.choice('0123456789abcdef"{}[]:,. nulltre\\\n\u00e9\0')
    pieces = (text[:at] + other + text[at + 1 :], text[:at] + other + text[at:], text[:at] + text[at + 1 :])
    return rng.choice((*pieces, *pieces, text[:at], text + other, other + text))


def _spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        found += _spots(child, (*path, name))
    return found


def _other_json(rng: Random, value: Any) -> Any:
    if isinstance(value, str) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        cut, digit = value[:at] + value[at + 1 :], rng.choice("0123456789abcdefABCDEF+/=Zg")
        return rng.choice((value[:at] + digit + value[at + 1 :], cut, value.upper(), value + digit, ""))
    made = other_value(rng, value)
    return made.hex() if isinstance(made, bytes) else made


@kind
def value_changed(rng: Random, text: str) -> str:
    """One value of the document."""
    document = json.loads(text)
    path = rng.choice(_spots(document))
    here = document
    for step in path[:-1]:
        here = here[step]
    here[path[-1]] = _other_json(rng, here[path[-1]])
    return _written(document)


@kind
def fields_moved(rng: Random, text: str) -> str:
    """A field missing, added, under another name, twice, or in another place."""
    document = json.loads(text)
    objects = [document, *(_at(document, path) for path in _spots(document))]
    here = rng.choice([one for one in objects if isinstance(one, dict)])
    name, how = rng.choice(list(here)), rng.randrange(5)
    if how == 0:
        del here[name]
    elif how == 1:
        here[rng.choice(("more", "Record", ""))] = rng.choice((0, None, "x"))
    elif how == 2:
        here[name + "_"] = here.pop(name)
    elif how == 3:
        here[name] = here.pop(name)
    else:
        again = json.dumps(name) + ":"
        return text.replace(again, again + json.dumps(here[name]) + "," + again, 1)
    return _written(document)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


# -- what is packed ----------------------------------------------------------------------------------------------------


@kind
def packed_changed(rng: Random, text: str) -> str:
    """A value or a spelling inside a header or a proof."""
    document = json.loads(text)
    name = rng.choice([name for name in PACKED if document[name]])
    holder, at = (document[name], rng.randrange(len(document[name]))) if name == "set_changes" else (document, name)
    data = b64decode(holder[at])
    holder[at] = b64encode(rng.choice((change_value, change_value, change_value, spell_otherwise))(rng, data)).decode()
    return _written(document)


@kind
def path_changed(rng: Random, text: str) -> str:
    """A path with a hash more or less, another hash, or its base64 spelled otherwise."""
    document = json.loads(text)
    name = rng.choice(PATHS)
    holder = document["key"] if name == "key.path" else document
    name = name.removeprefix("key.")
    data = b64decode(holder[name])
    hashes = [data[at : at + 32] for at in range(0, len(data), 32)]
    how = rng.randrange(5)
    if how == 0:
        hashes.insert(rng.randrange(len(hashes) + 1), rng.randbytes(rng.choice((32, 32, 31))))
    elif how == 1 and hashes:
        del hashes[rng.randrange(len(hashes))]
    elif how == 2:
        rng.shuffle(hashes)
    elif how == 3:
        hashes = hashes * 9
    made = b64encode(b"".join(hashes)).decode()
    holder[name] = rng.choice((made.rstrip("="), made + "=", made + "\n", made)) if how == 4 else made
    return _written(document)


@kind
def recombined(rng: Random, text: str) -> str:
    """Fields of another receipt."""
    document, other = json.loads(text), json.loads(rng.choice(good_receipts())[0])
    shared = [name for name in document if name in other]
    for name in rng.sample(shared, rng.choice((1, 1, 2, 5, 10))):
        document[name] = copy.deepcopy(other[name])
    return _written(document)


@kind
def parts_moved(rng: Random, text: str) -> str:
    """Set changes or shown fields dropped, doubled or in another order."""
    document = json.loads(text)
    name = rng.choice(("set_changes", "revealed"))
    given = document.get(name) or [rng.choice((document["final"], document["header"] or ""))]
    made = list(given)
    how, at = rng.randrange(3), rng.randrange(len(made))
    if how == 0:
        del made[at]
    elif how == 1:
        made.insert(rng.randrange(len(made) + 1), made[at])
    else:
        rng.shuffle(made)
    document[name] = made
    if rng.random() < 0.3:
        document["personal_data"] = 1 - document["personal_data"]
    return _written(document)


@kind
def nothing_changed(_rng: Random, text: str) -> str:
    """As it was; good, unless its chain is not."""
    return text


@kind
def spaced_otherwise(_rng: Random, text: str) -> str:
    """The same document, written by another program."""
    return json.dumps(json.loads(text), indent=1)


def receipt_mutant(seed: int) -> tuple[str, Genesis, bytes, bytes]:
    """Return kind, genesis, the file of that genesis, and the receipt, of a seed."""
    rng = Random(seed)
    while True:
        name = rng.choice([*sorted(KINDS), "known_forgery"])
        if name == "known_forgery":
            texts, genesis_json = _forgeries()
            text = rng.choice(texts)
            if rng.random() < 0.3:
                text = text_changed(rng, text)
        else:
            text, genesis_json = rng.choice(good_receipts()) if rng.random() < 0.5 else by_chance(rng)
            if rng.random() < 0.02:
                genesis_json = rng.choice(good_receipts())[1]
            try:
                text = KINDS[name](rng, text)
            except (ValueError, TypeError, LookupError, OverflowError, NotBase64, LedgerError, msgpack.UnpackException):
                continue
        return name, genesis_from_json(genesis_json), genesis_json, text.encode("utf-8", "surrogatepass")


def genesis_mutant(seed: int) -> bytes:
    """Return a genesis file with a change or two, its ``chain_id`` as it was or left out."""
    rng = Random(seed)
    document = json.loads(genesis_to_json(world(rng.choice(("plain", "governed", "tight"))).genesis))
    if rng.random() < 0.9:
        del document["chain_id"]
    text = _written(document)
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        try:
            text = rng.choice((value_changed, value_changed, fields_moved, text_changed, _entries_moved))(rng, text)
        except (ValueError, TypeError):
            break  # the first change left no JSON, or the second is none
    return text.encode("utf-8", "surrogatepass")


def _entries_moved(rng: Random, text: str) -> str:
    """Entries of a list dropped, doubled or in another order."""
    document = json.loads(text)
    lists = [one for one in (_at(document, path) for path in _spots(document)) if isinstance(one, list) and one]
    here = rng.choice(lists)
    how, at = rng.randrange(3), rng.randrange(len(here))
    if how == 0:
        del here[at]
    elif how == 1:
        here.insert(rng.randrange(len(here) + 1), copy.deepcopy(here[at]))
    else:
        rng.shuffle(here)
    return _written(document)
