"""The development network: the same everywhere, and of no use for a real one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from consensus.election import founding_state
from consensus.params import faults_tolerated
from ledger.errors import ConfigError
from ledger.genesis import Role, genesis_from_json
from ledger.rules.ruleset import RuleSet
from node.keyfile import DEVELOPMENT_MARK, read_key

ROOT = Path(__file__).parents[2]
KEY_FILES = sorted((ROOT / "scripts" / "devnet").glob("*.pem"))


def test_the_files_are_what_make_devnet_writes() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "make-devnet"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)


def test_genesis_is_of_four_members_and_this_releases_rules() -> None:
    genesis = genesis_from_json((ROOT / "genesis.json").read_bytes())
    assert [member.member_id for member in genesis.members] == ["alpha", "beta", "delta", "gamma"]
    assert faults_tolerated(len(founding_state(genesis).voting.producers)) == 1
    assert RuleSet(genesis.rules, carbon_basis=genesis.parameters.carbon_basis).run_conformance() > 0


def test_every_key_of_genesis_has_its_file() -> None:
    genesis = genesis_from_json((ROOT / "genesis.json").read_bytes())
    wanted = {key.public_key: key.roles for member in genesis.members for key in member.keys}
    found = {read_key(path, is_dev=True).public_key: int(Role[path.stem.split("-")[1].upper()]) for path in KEY_FILES}
    assert found == wanted
    assert len(found) == 12


@pytest.mark.parametrize("path", KEY_FILES, ids=lambda path: path.name)
def test_a_key_known_to_everybody_is_refused_outside_dev(path: Path) -> None:
    assert DEVELOPMENT_MARK in path.read_bytes().splitlines()[0]
    with pytest.raises(ConfigError, match="development key") as caught:
        read_key(path, is_dev=False)
    assert caught.value.where == str(path)
