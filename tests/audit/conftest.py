"""One real chain for all tests of the audit, as parts and as a data directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.block import Vote
from ledger.genesis import Genesis
from ledger.leveldb import LevelStore
from ledger.store import MemoryStore
from tests.audit.chains import Cluster, make_genesis, make_raw
from tests.audit.tamper import Parts, take_apart


def fill(cluster: Cluster) -> None:
    """Let fourteen blocks of records pass, some of them void, with votes lost in slots 4 and 5."""
    genesis = cluster.genesis
    for slot in range(20):
        if slot < 14:
            cluster.submit(make_raw(genesis, range(slot * 5, slot * 5 + 7), now_ms=cluster.now_ms))
            if slot % 3 == 2:
                cluster.submit(
                    make_raw(genesis, range(900 + slot * 5, 903 + slot * 5), now_ms=cluster.now_ms, member="bravo")
                )
        cluster.step(deliver=lambda message, slot=slot: not (isinstance(message, Vote) and slot in {4, 5}))


@pytest.fixture(scope="session")
def genesis() -> Genesis:
    return make_genesis()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory, genesis: Genesis) -> Path:
    """The data directory of a producer that was stopped. Not to be changed: copy it."""
    path = tmp_path_factory.mktemp("chain") / "data"
    cluster = Cluster(genesis, [LevelStore(path), *(MemoryStore() for _ in range(3))])
    fill(cluster)
    cluster.peers[0].store.close()
    return path


@pytest.fixture(scope="session")
def original(data_dir: Path, genesis: Genesis) -> Parts:
    store = LevelStore(data_dir)
    parts = take_apart(store, genesis)
    store.close()
    return parts


@pytest.fixture
def parts(original: Parts) -> Parts:
    return original.copy()
