"""Forged variants of a chain that elects, rotates and strikes: none passes the audit, none the light client."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from audit.follow import Follower
from audit.light import LightClient, point_of
from audit.since import Earlier, NotThereYet, extend
from audit.source import ChainSource, DirectorySource
from audit.verify import verify_chain
from consensus.rows import set_change_key
from ledger.codec import encode
from ledger.errors import InvalidProof
from ledger.genesis import Genesis
from ledger.leveldb import LevelStore
from ledger.rules.ruleset import RuleSet
from ledger.store import MemoryStore, Space, WriteBatch
from node.cli.verify_light import compare
from tests.audit.chains import FIVE, NEXT_KEY, NODE_KEYS, Cluster, govern, make_genesis, rules_of
from tests.audit.forgery import ForgedSource, Forgery, all_variants, replay
from tests.audit.tamper import take_apart

KEYS = {key.key_id: key for key in (*NODE_KEYS.values(), NEXT_KEY)}
VARIANTS = all_variants()
AUDITED = [name for name, variant in VARIANTS.items() if variant.field]
IN_A_DIRECTORY = {
    "headers_in_another_order": "height_row",
    "chain_cut_where_the_end_is_merely_justified": "finality",
}
"""What is named differently there."""
HEADERS_FORGED = [
    "header_in_between_changed",
    "header_in_between_missing",
    "headers_in_between_swapped",
    "certificate_beside_a_header_changed",
    "no_headers",
    "more_headers_than_asked_for",
]
"""Only who asks for headers in between sees these."""
SEEN_BY_LIGHT = [name for name, variant in VARIANTS.items() if variant.light]


@pytest.fixture(scope="module")
def governed() -> Genesis:
    return make_genesis(name="governed", members=FIVE, seats=4)


@pytest.fixture(scope="module")
def rules(governed: Genesis) -> RuleSet:
    return rules_of(governed)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, governed: Genesis) -> Path:
    path = tmp_path_factory.mktemp("governed") / "data"
    cluster = Cluster(governed, [LevelStore(path), *(MemoryStore() for _ in FIVE[1:])])
    govern(cluster)
    cluster.peers[0].store.close()
    return path


@pytest.fixture(scope="module")
def good(directory: Path, governed: Genesis, rules: RuleSet) -> Forgery:
    store = LevelStore(directory)
    parts = take_apart(store, governed)
    store.close()
    return Forgery(parts, replay(parts, rules), KEYS)


def field_of(source: ChainSource, genesis: Genesis, rules: RuleSet) -> tuple[int, str] | None:
    found = verify_chain(source, genesis, rules=rules).first_difference
    return None if found is None else (found.height, re.sub(r"\[\d\]", "[?]", found.field))


def test_the_good_chain_passes_both(good: Forgery, governed: Genesis, rules: RuleSet, directory: Path) -> None:
    assert field_of(good.parts.to_source(), governed, rules) is None
    with closing(DirectorySource(directory)) as source:
        report = verify_chain(source, governed, rules=rules)
    assert (report.first_difference, report.height) == (None, 59)
    assert (report.elections, report.set_changes, report.struck) == (7, 4, ["charlie"])
    assert "(0 void), 7 elections, 4 changes of the voting set, struck: charlie, final at" in report.sentence()
    follower = Follower(LightClient(governed), ForgedSource(good))
    assert len(list(follower.poll())) == 59 + 4
    assert (follower.client.point.height, follower.client.trusted.set_id) == (59, 4)


def test_there_are_enough_of_them() -> None:
    assert (len(AUDITED) >= 35, len(SEEN_BY_LIGHT) >= 35) == (True, True)


@pytest.mark.parametrize("name", AUDITED)
def test_the_audit_refuses_an_export(name: str, good: Forgery, rules: RuleSet) -> None:
    forged = good.copy()
    height = VARIANTS[name].forge(forged)
    assert field_of(forged.parts.to_source(), forged.parts.genesis, rules) == (height, VARIANTS[name].field)


@pytest.mark.parametrize("name", AUDITED)
def test_the_audit_refuses_a_data_directory(
    name: str, good: Forgery, rules: RuleSet, directory: Path, tmp_path: Path
) -> None:
    forged = good.copy()
    height = VARIANTS[name].forge(forged)
    path = forged.parts.to_directory(directory, good.parts, tmp_path / "data")
    with closing(DirectorySource(path)) as source:
        assert field_of(source, forged.parts.genesis, rules) == (height, IN_A_DIRECTORY.get(name, VARIANTS[name].field))


@pytest.mark.parametrize("name", SEEN_BY_LIGHT)
def test_the_light_client_refuses_it(name: str, good: Forgery, governed: Genesis) -> None:
    forged = good.copy()
    VARIANTS[name].forge(forged)
    with pytest.raises(InvalidProof) as caught:
        list(Follower(LightClient(governed), ForgedSource(forged)).poll())
    assert VARIANTS[name].light in str(caught.value)
    assert re.match(r"height \d+|set \d+", caught.value.where)


@pytest.mark.parametrize("name", [name for name in SEEN_BY_LIGHT if name not in HEADERS_FORGED])
def test_a_forger_is_found_beside_a_good_node(name: str, good: Forgery, governed: Genesis) -> None:
    forged = good.copy()
    VARIANTS[name].forge(forged)
    status, line, report = compare([ForgedSource(good, name="good"), ForgedSource(forged)], governed)
    assert (status, line.startswith("NOT OK: forger: "), report["ok"]) == (1, True, False)


def test_a_forger_does_not_extend_what_was_seen(good: Forgery, governed: Genesis) -> None:
    """But where it forges headers in between, which nobody asks for here."""
    client = extend(governed, ForgedSource(good), [])
    assert client.final is not None
    end = client.final.header
    seen = [Earlier("end", end.height, point_of(end).block_id, end.history_root)]
    passed = []
    for name in SEEN_BY_LIGHT:
        forged = good.copy()
        VARIANTS[name].forge(forged)
        try:
            found = extend(governed, ForgedSource(forged), seen)
        except (InvalidProof, NotThereYet):
            continue
        assert found.point == client.point
        passed.append(name)
    assert passed == HEADERS_FORGED


# -- rows of a data directory that follow from such a chain ------------------------------------------------------------

ROWS: dict[str, tuple[Callable[[LevelStore], tuple[bytes, bytes | None]], str]] = {
    "state_entry_altered": (
        lambda store: (_state_row("turns"), store.get(_state_row("turns"))[:-1] + b"\x09"),
        "state_row",
    ),
    "state_entry_missing": (lambda _store: (_state_row("struck", "charlie"), None), "state_row"),
    "state_entry_of_nothing": (lambda _store: (_state_row("struck", "alfa"), encode([1, 1])), "state_row"),
    "set_change_missing": (lambda _store: (set_change_key(2), None), "set_change_row"),
    "set_change_of_nothing": (lambda store: (set_change_key(5), store.get(set_change_key(4))), "set_change_row"),
    "set_change_twice": (lambda store: (set_change_key(3), store.get(set_change_key(2))), "set_change_row[3].voting"),
}


def _state_row(*key: str) -> bytes:
    return Space.STATE.value + encode(list(key))


@pytest.mark.parametrize("name", ROWS)
def test_an_altered_row_is_found(name: str, directory: Path, governed: Genesis, rules: RuleSet, tmp_path: Path) -> None:
    change, field = ROWS[name]
    path = Path(shutil.copytree(directory, tmp_path / "data"))
    with closing(LevelStore(path)) as store:
        store.write(WriteBatch(puts=[change(store)]))
    with closing(DirectorySource(path)) as source:
        found = verify_chain(source, governed, rules=rules).first_difference
    assert found is not None
    assert found.field.startswith(field)
