"""The second implementation: all test vectors, and the verdict and place of the audit on good and forged chains."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.receipt import verify_receipt as audit_receipt
from audit.reference import main, verify_receipt
from ledger.codec import encode
from ledger.errors import InvalidProof
from ledger.genesis import Genesis, genesis_from_json, genesis_to_json
from ledger.rules.ruleset import RuleSet
from tests.audit.agreement import audited, referred, signatures_remembered
from tests.audit.chains import FIVE, NEXT_KEY, NODE_KEYS, Cluster, govern, make_genesis, rules_of
from tests.audit.forgery import Forgery, all_variants, replay
from tests.audit.tamper import Parts, take_apart
from tests.audit.test_receipt import changed, leaves, others
from tests.audit.test_verify import CONTENTS, END

VARIANTS = {name: variant for name, variant in all_variants().items() if variant.field}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with signatures_remembered():
        yield


@pytest.fixture(scope="module")
def rules(genesis: Genesis) -> RuleSet:
    return rules_of(genesis)


@pytest.fixture(scope="module")
def governed() -> Forgery:
    genesis = make_genesis(name="governed", members=FIVE, seats=4)
    cluster = Cluster(genesis)
    govern(cluster)
    parts = take_apart(cluster.peers[0].store, genesis)
    return Forgery(parts, replay(parts, rules_of(genesis)), {k.key_id: k for k in (*NODE_KEYS.values(), NEXT_KEY)})


def test_a_good_chain(original: Parts, rules: RuleSet) -> None:
    data = original.to_export()
    assert referred(data, original.genesis) == audited(data, original.genesis, rules)
    assert referred(data, original.genesis)[0] == ("ok", 14, "")


def test_a_governed_chain(governed: Forgery) -> None:
    parts = governed.parts
    data = parts.to_export()
    assert referred(data, parts.genesis) == audited(data, parts.genesis, rules_of(parts.genesis))


@pytest.mark.parametrize("name", [*CONTENTS, *END])
def test_a_changed_chain(name: str, parts: Parts, rules: RuleSet) -> None:
    (CONTENTS | END)[name][0](parts)
    data = parts.to_export()
    place, sentence = referred(data, parts.genesis)
    assert (place, sentence[:6]) == (audited(data, parts.genesis, rules)[0], "NOT OK")


@pytest.mark.parametrize("name", VARIANTS)
def test_a_forged_chain(name: str, governed: Forgery) -> None:
    forged = governed.copy()
    VARIANTS[name].forge(forged)
    data = forged.parts.to_export()
    assert (
        referred(data, forged.parts.genesis)[0]
        == audited(data, forged.parts.genesis, rules_of(forged.parts.genesis))[0]
    )


def test_an_item_of_a_body_is_named_as_fields_are(parts: Parts, rules: RuleSet) -> None:
    """As ``body[1].tx_id``: it was ``body.[1].tx_id`` until the two disagreed."""
    body = [encode(item) for item in parts.body(9)]
    parts.put(9, body=b"\x92" + body[0] + b"\x92\x01" + body[1][35:])
    data = parts.to_export()
    assert referred(data, parts.genesis)[0] == ("not ok", 9, "body[1].tx_id")
    assert audited(data, parts.genesis, rules)[0] == ("not ok", 9, "body[1].tx_id")


def test_a_body_that_is_too_long(parts: Parts, rules: RuleSet) -> None:
    parts.put(9, body=b"\xdd\x00\x01\x00\x00" + encode(parts.body(9)[0]) * 65_536)
    data = parts.to_export()
    assert referred(data, parts.genesis)[0] == ("not ok", 9, "body") == audited(data, parts.genesis, rules)[0]


def test_an_export_cut_or_damaged_anywhere(original: Parts, rules: RuleSet) -> None:
    data = original.to_export()
    for place in range(0, len(data), 4_999):
        flipped = bytearray(data)
        flipped[place] ^= 0x55
        for made in (data[:place], bytes(flipped), data[:place] + data[place + 1 :]):
            assert referred(made, original.genesis)[0] == audited(made, original.genesis, rules)[0]


def test_another_genesis(original: Parts) -> None:
    other = make_genesis(name="another")
    assert referred(original.to_export(), other)[0] == ("not ok", 0, "genesis")
    assert referred(original.to_export(), other)[0] == audited(original.to_export(), other)[0]


def test_the_command(original: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genesis, chain, receipt = (tmp_path / name for name in ("genesis.json", "chain.export", "receipt.json"))
    case = RECEIPTS["receipts"][0]
    chain.write_bytes(original.to_export())
    genesis.write_bytes(genesis_to_json(original.genesis))
    assert main([str(chain), str(genesis)]) == 0
    assert capsys.readouterr().out.startswith(
        "OK: 14 blocks, 110 records (26 void), 1 election, final at height 14 id "
    )
    chain.write_bytes(original.to_export()[:-1])
    assert main([str(chain), str(genesis)]) == 1
    assert capsys.readouterr().out.startswith(f"NOT OK: damaged store at height 15, {chain} at ")
    receipt.write_text(case["file"])
    genesis.write_text(RECEIPTS["genesis"][case["genesis"]])
    assert main([str(receipt), str(genesis)]) == 0
    assert capsys.readouterr().out.startswith("OK: record 5 of transaction ")
    assert main([str(chain), str(receipt)]) == 2
    assert main([str(chain)]) == 2
    assert main([str(tmp_path / "none"), str(genesis)]) == 2


VECTORS = Path(__file__).parent.parent / "vectors"
RECEIPTS = json.loads((VECTORS / "receipts.json").read_bytes())


def audited_receipt(data: bytes, genesis: Genesis) -> str:
    try:
        return audit_receipt(data, genesis).sentence()
    except InvalidProof as error:
        return error.where


def referred_receipt(data: bytes, genesis_json: bytes) -> str:
    verdict = verify_receipt(data, genesis_json)
    assert verdict.sentence[:6] == ("OK: re" if verdict.ok else "NOT OK")
    return verdict.sentence if verdict.ok else verdict.where


@pytest.mark.parametrize("number", range(len(RECEIPTS["receipts"])))
def test_a_receipt_with_any_field_changed(number: int) -> None:
    case = RECEIPTS["receipts"][number]
    genesis_json = RECEIPTS["genesis"][case["genesis"]].encode()
    genesis, document = genesis_from_json(genesis_json), json.loads(case["file"])
    good = case["file"].encode()
    assert referred_receipt(good, genesis_json) == audited_receipt(good, genesis)
    # Every fourth field: which ones depends on the receipt.
    for place, path in enumerate(leaves(document)):
        if place % 4 != number % 4:
            continue
        here: Any = document
        for step in path:
            here = here[step]
        name = next(step for step in reversed(path) if isinstance(step, str))
        for value in others(here, name)[:6]:
            data = changed(document, path, value)
            assert (path, value, referred_receipt(data, genesis_json)) == (path, value, audited_receipt(data, genesis))


def test_forged_receipts() -> None:
    """Each of the published ones is refused, at the place that the vectors give."""
    vectors = json.loads((VECTORS / "receipt_forgeries.json").read_bytes())
    genesis_json, good = vectors["genesis"].encode(), json.loads(vectors["good"])
    assert verify_receipt(vectors["good"].encode(), genesis_json).ok
    for case in vectors["forgeries"]:
        changed_good = good | case.get("set", {})
        made = {name: value for name, value in changed_good.items() if name not in case.get("remove", [])}
        verdict = verify_receipt((case.get("file") or json.dumps(made)).encode(), genesis_json)
        assert (case["name"], verdict.ok, verdict.where) == (case["name"], False, case["where"])
    assert len(vectors["forgeries"]) >= 40


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"version":3,"version":3}', b'"\xff"', b"[" * 100_000])
def test_what_is_no_receipt(data: bytes, genesis: Genesis) -> None:
    assert referred_receipt(data, genesis_to_json(genesis)) == audited_receipt(data, genesis)


@pytest.mark.parametrize("name", ["x\nOK: it counts", "\x1b[31mred", "\ud800", "x" * 1_000])
def test_a_name_that_is_none_stays_on_its_line(name: str) -> None:
    """Whoever makes a receipt must not write the verdict: the name of an unknown field is shown escaped, and cut."""
    case = RECEIPTS["receipts"][0]
    genesis_json = RECEIPTS["genesis"][case["genesis"]].encode()
    twice = f",{json.dumps(name)}:1,{json.dumps(name)}:2}}".encode()
    for end, what in ((f",{json.dumps(name)}:1}}".encode(), "unknown field"), (twice, "given twice")):
        data = case["file"].encode().rstrip()[:-1] + end
        with pytest.raises(InvalidProof) as caught:
            audit_receipt(data, genesis_from_json(genesis_json))
        verdict = verify_receipt(data, genesis_json)
        assert verdict.sentence == f"NOT OK: receipt, field {verdict.where}: {what}"
        assert caught.value.where == verdict.where == ascii(name)[1:-1][:100]


# -- nothing shared ----------------------------------------------------------------------------------------------------

PACKAGES = {"ecdsa", "msgpack"}


def test_nothing_of_the_project_is_imported() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted((Path(__file__).parents[2] / "audit").glob("reference*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                found.setdefault(path.stem, set()).add(name)
    own = {f"audit.{name}" for name in found}
    assert len(own) >= 8
    assert {name for names in found.values() for name in names - own} - PACKAGES <= sys.stdlib_module_names | {
        "collections.abc"
    }
