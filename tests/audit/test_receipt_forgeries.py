"""Whoever holds all keys but a quorum's, and any number of good receipts, makes none that a stranger takes."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import pytest

from audit.receipt import verify_receipt
from audit.reference_receipts import prove
from audit.reference_wire import Refused
from ledger.errors import InvalidProof
from ledger.genesis import genesis_from_json, genesis_to_json
from node.cli.verify import main
from tests.audit.agreement import signatures_remembered
from tests.audit.receipt_forgeries import FORGERIES, Kit, make_kit


@pytest.fixture(scope="module")
def kit() -> Kit:
    return make_kit()


def test_what_they_are_made_from_is_good(kit: Kit) -> None:
    verdict = verify_receipt(kit.text.encode(), kit.world.genesis)
    assert (verdict.set_id, verdict.void, [field.name for field in verdict.revealed]) == (2, False, ["caller"])


def test_there_are_enough_of_them(kit: Kit) -> None:
    texts = {one.text(kit) for one in FORGERIES.values()}
    assert (len(FORGERIES) >= 40, len(texts)) == (True, len(FORGERIES))
    assert all(one.about.endswith(".") for one in FORGERIES.values())


@pytest.mark.parametrize("name", FORGERIES)
def test_the_command_says_no_and_names_the_step(
    name: str, kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the genesis file alone, and no network."""
    genesis, receipt, report = tmp_path / "genesis.json", tmp_path / "receipt.json", tmp_path / "report.json"
    genesis.write_bytes(genesis_to_json(kit.world.genesis))
    receipt.write_text(FORGERIES[name].text(kit), encoding="utf-8")
    arguments = ["ledger-verify", receipt, "--genesis", genesis, "--json", report]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    try:
        with pytest.raises(SystemExit) as caught:
            main()
    finally:
        gc.enable()
    said = capsys.readouterr().out
    assert (caught.value.code, said.startswith("NOT OK: receipt, field "), said.count("\n")) == (1, True, 1)
    found = json.loads(report.read_bytes())
    assert (found["ok"], found["field"]) == (False, FORGERIES[name].where)


def test_the_published_ones_are_refused_where_they_say() -> None:
    vectors = json.loads((Path(__file__).parents[1] / "vectors" / "receipt_forgeries.json").read_text())
    genesis = genesis_from_json(vectors["genesis"].encode(), where="genesis")
    good = json.loads(vectors["good"])
    assert verify_receipt(vectors["good"].encode(), genesis).set_id == 2
    assert [case["name"] for case in vectors["forgeries"]] == list(FORGERIES)
    for case in vectors["forgeries"]:
        text = case.get("file")
        if text is None:
            text = json.dumps(
                {name: value for name, value in (good | case["set"]).items() if name not in case["remove"]}
            )
        with pytest.raises(InvalidProof) as caught:
            verify_receipt(text.encode(), genesis)
        assert caught.value.where == case["where"]


def test_the_second_implementation_refuses_them_at_the_same_step(kit: Kit) -> None:
    genesis = genesis_to_json(kit.world.genesis)
    with signatures_remembered():
        assert prove(kit.text.encode(), genesis).set_id == 2
        for name, one in FORGERIES.items():
            with pytest.raises(Refused) as caught:
                prove(one.text(kit).encode(), genesis)
            # It names the step, and no more of what is inside a path or a field shown.
            assert (name, caught.value.where) == (name, one.where[: len(caught.value.where)])
            assert caught.value.where
