"""Receipts in the browser: the verdict, and the place of what fails, are those of ledger-verify."""

from __future__ import annotations

import base64
import json
import re
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest_asyncio
from playwright.async_api import Page

from audit.receipt import verify_receipt
from ledger.errors import InvalidProof
from ledger.genesis import Genesis, chain_id_of, genesis_from_json
from tests.browser.kit import BROWSER, serve_modules

pytestmark = BROWSER
VECTORS = Path(__file__).parent.parent / "vectors"
RECEIPTS = json.loads((VECTORS / "receipts.json").read_text())
VERIFY = """async (cases) => {
    const { verifyReceipt } = await import("/receipt.js");
    const found = [];
    for (const one of cases) {
        const { ok, where, steps, verdict } = await verifyReceipt(...one);
        found.push({ ok, where, verdict, steps: steps.map((step) => [step.name, step.ok]) });
    }
    return JSON.stringify(found, (_, value) => (typeof value === "bigint" ? Number(value) : value));
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def modules(page: Page) -> Page:
    await serve_modules(page)
    return page


async def verdicts(page: Page, cases: list[tuple[str, ...]]) -> Any:
    """Return what the browser says of receipts, each given with its genesis."""
    return json.loads(await page.evaluate(VERIFY, cases))


def genesis_text(name: str) -> str:
    text: str = RECEIPTS["genesis"][name]
    return text


def place_of(receipt: str, genesis: Genesis) -> str:
    """Return where ledger-verify says that a receipt fails, empty where it holds."""
    try:
        verify_receipt(receipt.encode(), genesis)
    except InvalidProof as error:
        return error.where
    return ""


async def test_good_receipts_hold(modules: Page) -> None:
    cases = [(one["file"], genesis_text(one["genesis"])) for one in RECEIPTS["receipts"]]
    found = await verdicts(modules, cases)
    assert [one["where"] for one in found] == [""] * len(cases)
    for verdict, known in zip(found, RECEIPTS["receipts"], strict=True):
        expected = {name: value for name, value in known["expected"].items() if name != "revealed"}
        assert {name: verdict["verdict"][name] for name in expected} == expected, known["name"]
        assert all(ok for _, ok in verdict["steps"])


async def test_every_forgery_is_refused_at_its_step(modules: Page) -> None:
    """The table that ledger-verify is tested with; the place has to be the same, letter by letter."""
    known = json.loads((VECTORS / "receipt_forgeries.json").read_text())
    good = json.loads(known["good"])
    cases = [(known["good"], known["genesis"])]
    for forgery in known["forgeries"]:
        changed = {name: value for name, value in good.items() if name not in forgery.get("remove", ())}
        cases.append((forgery.get("file") or json.dumps({**changed, **forgery.get("set", {})}), known["genesis"]))
    true, *forged = await verdicts(modules, cases)
    assert true["ok"]
    assert len(forged) >= 40
    expected = {one["name"]: (False, one["where"]) for one in known["forgeries"]}
    assert expected == {
        one["name"]: (verdict["ok"], verdict["where"]) for one, verdict in zip(known["forgeries"], forged, strict=True)
    }


async def test_the_genesis_that_a_person_trusts(modules: Page) -> None:
    one = RECEIPTS["receipts"][0]
    text = genesis_text(one["genesis"])
    chain_id = chain_id_of(genesis_from_json(text.encode())).hex()
    other = next(genesis for name, genesis in RECEIPTS["genesis"].items() if name != one["genesis"])
    found = await verdicts(
        modules,
        [
            (one["file"], text, chain_id),
            (one["file"], text, "00" * 32),
            (one["file"], other),
            (one["file"], text.replace("{", "", 1)),
        ],
    )
    assert [(verdict["ok"], verdict["where"]) for verdict in found] == [
        (True, ""),
        (False, "genesis"),
        (False, "chain_id"),
        (False, "genesis: file"),
    ]


def step_of(where: str) -> str:
    """Return where a receipt fails, of a packed field its name alone: bytes that are no struct are read field by field
    by one verifier, and as a whole by the other.
    """
    return re.sub(r"^(header|final|set_changes\[\d+\])\..*", r"\1", where)


async def check_same_verdicts(page: Page, receipts: list[str], genesis_name: str) -> None:
    """Every one of the receipts is refused, at the place where ledger-verify refuses it."""
    genesis = genesis_from_json(genesis_text(genesis_name).encode())
    found = await verdicts(page, [(receipt, genesis_text(genesis_name)) for receipt in receipts])
    assert [verdict["ok"] for verdict in found] == [False] * len(receipts)
    assert [step_of(verdict["where"]) for verdict in found] == [step_of(place_of(one, genesis)) for one in receipts]


def touched(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, str):
        return ("1" if value[:1] != "1" else "2") + value[1:]
    return 1 - value if value in {0, 1} else value + 1


def changed_receipts(document: Any, top: Any, path: list[Any]) -> list[str]:
    """Return the receipt once for each value in it, with that one changed, and once with that one left out."""
    made = []
    for key in list(document) if isinstance(document, dict) else range(len(document)):
        value = document[key]
        if isinstance(value, dict | list) and value:
            made += changed_receipts(value, top, [*path, key])
            continue
        for other in (touched(value) if isinstance(value, int | str) else 0, [value]):
            document[key] = other
            made.append(json.dumps(top))
        document[key] = value
        if isinstance(document, dict):
            del document[key]
            made.append(json.dumps(top))
            document[key] = value
    return made


async def test_whatever_is_changed_fails_at_the_same_place(modules: Page) -> None:
    """Every value of a receipt that shows a field and one with set changes: another, of another type, missing."""
    names = ("all shown, one of them no text", "two changes of seven, a third under way")
    chosen = [one for one in RECEIPTS["receipts"] if one["name"] in names]
    assert len(chosen) == len(names)
    for one in chosen:
        document = json.loads(one["file"])
        receipts = changed_receipts(document, document, [])
        assert len(receipts) > 150
        await check_same_verdicts(modules, receipts, one["genesis"])


async def test_objects_of_any_fields_are_refused_by_name(modules: Page) -> None:
    """A field's name may be that of something which every object of JavaScript has."""
    one = next(one for one in RECEIPTS["receipts"] if one["name"] == "all shown, one of them no text")
    places = ((), ("record",), ("record", "quality"), ("key",), ("revealed", 0))
    receipts = []
    for name in ("constructor", "toString", "__proto__", "hasOwnProperty"):
        for place in places:
            document = json.loads(one["file"])
            inner = document
            for key in place:
                inner = inner[key]
            inner[name] = {}
            receipts.append(json.dumps(document))
        fields = ("tx_id", "index", "record", "final", "key", "set_changes", "revealed")
        receipts += [json.dumps({**json.loads(one["file"]), field: {name: 1}}) for field in fields]
    receipts += [one["file"].replace('"revealed":[{', '"revealed":[1.0,{'), "1.0", "[]", "null"]
    await check_same_verdicts(modules, receipts, one["genesis"])
    genesis = json.loads(genesis_text(one["genesis"])) | {"chain_id": {}}
    (found,) = await verdicts(modules, [(one["file"], json.dumps(genesis))])
    assert (found["ok"], found["where"]) == (False, "genesis: chain_id")


async def test_base64_and_bytes_that_were_touched(modules: Page) -> None:
    """A byte flipped, one left out, one more, inside each packed field."""
    one = next(one for one in RECEIPTS["receipts"] if one["name"] == "two changes of seven, a third under way")
    document = json.loads(one["file"])
    receipts = []
    for name, index in (("final", None), ("header", None), ("set_changes", 0), ("set_changes", 1), ("tx_path", None)):
        packed = document[name] if index is None else document[name][index]
        data = base64.b64decode(packed)
        for at in range(0, len(data), 61):
            flipped = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
            for other in (flipped, data[:at] + data[at + 1 :], data[:at] + b"\x01" + data[at:]):
                text = base64.b64encode(other).decode()
                changed = text if index is None else [*document[name][:index], text, *document[name][index + 1 :]]
                receipts.append(json.dumps({**document, name: changed}))
    await check_same_verdicts(modules, receipts, one["genesis"])


async def test_receipts_recombined(modules: Page) -> None:
    """Each field of one true receipt put into another of the same chain: never proven by one and not by the other."""
    by_genesis: dict[str, list[dict[str, Any]]] = {}
    for one in RECEIPTS["receipts"]:
        by_genesis.setdefault(one["genesis"], []).append(json.loads(one["file"]))
    compared = 0
    for name, documents in by_genesis.items():
        genesis = genesis_from_json(genesis_text(name).encode())
        receipts = [
            json.dumps({**into, field: value})
            for into, source in permutations(documents, 2)
            for field, value in source.items()
            if into.get(field) != value
        ]
        found = await verdicts(modules, [(receipt, genesis_text(name)) for receipt in receipts])
        assert [step_of(one["where"]) for one in found] == [step_of(place_of(one, genesis)) for one in receipts]
        compared += len(receipts)
    assert compared > 70
