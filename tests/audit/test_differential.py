"""A share of what ``./scripts/differential`` does: both verifiers agree on mutants of chains and receipts.

More of them, by the thousand: ``./scripts/differential --count 20000``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest

from audit import reference, reference_rules, reference_state, reference_transactions
from ledger.errors import ConfigError
from ledger.genesis import chain_id_of, genesis_from_json
from ledger.rules.ruleset import RuleSet
from tests.audit.agreement import audited, referred
from tests.audit.differential import (
    audited_receipt,
    judge,
    judge_receipts,
    main,
    outcome,
    referred_receipt,
    remembering,
)
from tests.audit.mutations import KINDS, mutant
from tests.audit.receipt_mutations import genesis_mutant, good_receipts, receipt_mutant
from tests.audit.worlds import world

SHARE = 60
"""Mutants of each of ``PARTS`` parts, so that several processes share them."""
PARTS = 6


@pytest.fixture(scope="module", autouse=True)
def remembered() -> Iterator[None]:
    with remembering():
        yield


@pytest.mark.parametrize("part", range(PARTS))
def test_both_agree_on_mutants_of_chains(part: int) -> None:
    tally = judge(range(part * SHARE, (part + 1) * SHARE))
    assert tally.disagreements == []
    assert tally.verdicts.total() == SHARE
    # Not all for one reason, and some are good.
    assert len(tally.places) > 15
    assert sum(count for (_kind, verdict), count in tally.verdicts.items() if verdict == "ok") > 3


def test_both_agree_on_mutants_of_receipts() -> None:
    tally = judge_receipts(range(200))
    assert tally.disagreements == []
    assert len(tally.places) > 15
    assert sum(count for (_kind, verdict), count in tally.verdicts.items() if verdict == "ok") > 20


def test_a_mutant_follows_from_its_seed() -> None:
    for seed in range(40):
        assert mutant(seed)[::2] == mutant(seed)[::2]
        assert receipt_mutant(seed) == receipt_mutant(seed)


def test_a_quorum_of_one_less_one_signs_nothing() -> None:
    """Seed 905729 once forged such a certificate, and then could not read it."""
    assert mutant(905_729)


def test_every_kind_is_drawn() -> None:
    assert {mutant(seed)[0] for seed in range(360)} == set(KINDS)


@pytest.mark.parametrize("part", range(3))
def test_both_take_the_same_genesis_files(part: int) -> None:
    """Where one says what chain it is, and has its rules, the other does; which field is wrong is not compared."""
    taken = 0
    for seed in range(part * 100, (part + 1) * 100):
        data = genesis_mutant(seed)
        mine = chain_named(data)
        assert (seed, mine) == (seed, chain_named_by_reference(data))
        taken += mine is not None
    assert 10 < taken < 90


def chain_named(data: bytes) -> str | None:
    try:
        genesis = genesis_from_json(data)
        RuleSet(genesis.rules, carbon_basis=genesis.parameters.carbon_basis)
    except ConfigError:
        return None
    return chain_id_of(genesis).hex()


def chain_named_by_reference(data: bytes) -> str | None:
    try:
        genesis = reference_state.read_genesis(data)
        reference_rules.open_tables(genesis.rules, genesis.parameters.carbon_basis)
    except reference.Unusable:
        return None
    return reference.tagged_hash("genesis", genesis).hex()


def test_a_field_without_a_name() -> None:
    """It was ``record.`` for one and ``record`` for the other until the two disagreed."""
    text, genesis_json = good_receipts()[0]
    data = text.replace('"record":{', '"record":{"":1,').encode()
    assert audited_receipt(data, genesis_from_json(genesis_json))[0] == ("not ok", 0, "record.''")
    assert referred_receipt(data, genesis_json)[0] == ("not ok", 0, "record.''")


# -- a verifier with a fault is found out ------------------------------------------------------------------------------


FAULTS = {
    "void records": (reference_transactions, "EDGE_MS", 0, "record_repeated"),
    "seals": (reference.Chain, "check_seal", lambda *_given: None, "sealed_by_another"),
    "certificates": (reference, "check_certificate", lambda *_given: None, "certificate_changed"),
    "proposals": (reference_state, "_check_proposal", lambda *_given: None, "deeds_added"),
}
"""What is wrong then, and which kind of mutant shows it."""


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_reference_is_found(name: str) -> None:
    place, attribute, wrong, kind = FAULTS[name]
    w = world("governed")
    with patch.object(place, attribute, wrong):
        mutants = (KINDS[kind](Random(seed), w) for seed in range(200))
        assert any(outcome(audited, data, w.genesis, w.rules) != outcome(referred, data, w.genesis) for data in mutants)


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert (
        main(["--count", "4", "--receipts", "2", "--seed", "7", "--jobs", "1", "--keep", str(tmp_path / "m.export")])
        == 0
    )
    assert capsys.readouterr().out.splitlines()[-1].endswith("0 disagreements")
