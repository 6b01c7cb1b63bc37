"""One real chain for all tests of the audit, as parts and as a data directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.genesis import Genesis
from ledger.leveldb import LevelStore
from ledger.store import MemoryStore
from tests.audit.chains import Cluster, fill, make_genesis
from tests.audit.tamper import Parts, take_apart


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
