"""A person who holds a receipt against what she trusts, in the explorer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, Route, expect

from ledger.genesis import chain_id_of
from tests.browser.kit import BROWSER, ROOT, DevNode
from tests.browser.test_explorer import CONTRAST

pytestmark = BROWSER
VECTORS = Path(__file__).parent.parent / "vectors"
PHONE = {"width": 360, "height": 780}


def verdict(page: Page) -> Locator:
    return page.locator(".said strong")


async def open_proof(page: Page, node: DevNode, tx_id: str) -> None:
    await page.goto(f"{node.url}/#/record/{tx_id}/3")
    await page.get_by_role("button", name="Verify in this browser").click()


async def test_a_record_is_proven_against_the_hash_that_a_person_trusts(
    page: Page, node: DevNode, tx_ids: list[str]
) -> None:
    await open_proof(page, node, tx_ids[0])
    await expect(verdict(page)).to_have_text("Proven, if this is the genesis that you trust.")
    steps = page.locator("[data-step]")
    await expect(steps).to_have_count(10)
    assert await steps.locator("summary .tag").all_inner_texts() == ["holds"] * 10

    trusted = page.get_by_label("Genesis hash that you trust")
    chain_id = chain_id_of(node.genesis()).hex()
    await trusted.fill(f" {chain_id.upper()}\n")
    await expect(verdict(page)).to_have_text("Proven.")
    await trusted.fill("0" + chain_id[1:] if chain_id[0] != "0" else "1" + chain_id[1:])
    await expect(verdict(page)).to_have_text("Not proven.")
    await expect(page.locator(".said")).to_contain_text(f"Found: {chain_id}")
    await expect(steps).to_have_count(1)
    await trusted.fill(chain_id[:-1])
    await expect(verdict(page)).to_have_text("That is no genesis hash.")


async def test_receipts_from_files(page: Page, node: DevNode, tmp_path: Path) -> None:
    """A stranger's receipt with its genesis file: a true one, a forged one, and one that was dropped on the page."""
    known = json.loads((VECTORS / "receipt_forgeries.json").read_text())
    forgery = next(one for one in known["forgeries"] if "file" in one)
    for name, text in (("genesis", known["genesis"]), ("good", known["good"]), ("<b>forged</b>", forgery["file"])):
        (tmp_path / name.replace("/", "")).write_text(text)
    await page.goto(f"{node.url}/#/verify")
    await page.get_by_label("or its genesis file").set_input_files(tmp_path / "genesis")
    receipt = page.get_by_label("Receipt")
    await receipt.set_input_files(tmp_path / "good")
    await expect(verdict(page)).to_have_text("good: Proven.")
    # The file is all that there is to see: what it proves is shown beside the verdict.
    said = page.locator(".proof, main").filter(has_text="The record that was proven").last
    packets = f"{json.loads(known['good'])['record']['packets_sent']:,}"
    await expect(said).to_contain_text(packets)
    await receipt.set_input_files(tmp_path / "<b>forged<b>")
    await expect(verdict(page)).to_have_text("<b>forged<b>: Not proven.")
    await expect(page.get_by_text("The record that was proven")).to_have_count(0)
    await expect(page.locator(".said")).to_contain_text(f"{forgery['where']}: ")

    script = """(text) => {
        const files = new DataTransfer();
        files.items.add(new File([text], "dropped"));
        document.querySelector(".said").dispatchEvent(
            new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
    }"""
    await page.evaluate(script, known["good"])
    await expect(verdict(page)).to_have_text("dropped: Proven.")


async def test_private_fields_are_shown_with_their_proof(page: Page, node: DevNode, tmp_path: Path) -> None:
    receipts = json.loads((VECTORS / "receipts.json").read_text())
    one = next(one for one in receipts["receipts"] if one["name"] == "caller and call id shown")
    (tmp_path / "receipt").write_text(one["file"])
    (tmp_path / "genesis").write_text(receipts["genesis"][one["genesis"]])
    await page.goto(f"{node.url}/#/verify")
    await page.get_by_label("or its genesis file").set_input_files(tmp_path / "genesis")
    await page.get_by_label("Receipt").set_input_files(tmp_path / "receipt")
    await expect(verdict(page)).to_have_text("receipt: Proven.")
    step = page.locator("[data-step=revealed]")
    await step.locator("summary").click()
    expected = [bytes.fromhex(field["value_hex"]).decode() for field in one["expected"]["revealed"]]
    assert await step.locator("dd").all_inner_texts() == expected


async def test_a_void_record_is_called_one(page: Page, node: DevNode, tmp_path: Path) -> None:
    receipts = json.loads((VECTORS / "receipts.json").read_text())
    one = next(one for one in receipts["receipts"] if one["name"] == "a void record")
    (tmp_path / "receipt").write_text(one["file"])
    (tmp_path / "genesis").write_text(receipts["genesis"][one["genesis"]])
    await page.goto(f"{node.url}/#/verify")
    await page.get_by_label("or its genesis file").set_input_files(tmp_path / "genesis")
    await page.get_by_label("Receipt").set_input_files(tmp_path / "receipt")
    await expect(verdict(page)).to_have_text("receipt: Proven, and void.")
    await expect(page.locator(".said")).to_contain_text("it does not count")


async def test_a_record_without_a_proof(page: Page, node: DevNode, faults: list[str], tx_ids: list[str]) -> None:
    """What the node says instead of a receipt is told."""

    async def refuse(route: Route) -> None:
        problem = {"status": 404, "title": "There is no such thing", "detail": "not final yet", "hint": "Ask again"}
        await route.fulfill(status=404, json=problem, content_type="application/problem+json")

    await page.route("**/receipt", refuse)
    await open_proof(page, node, tx_ids[0])
    await expect(verdict(page)).to_have_text("The node gave no proof.")
    await expect(page.locator(".said")).to_contain_text("not final yetAsk again")
    assert len(faults) == 1
    faults.clear()


async def test_without_a_secure_context_the_page_says_what_to_do(page: Page) -> None:
    """Browsers keep WebCrypto from pages over plain HTTP from elsewhere."""

    async def answer(route: Route) -> None:
        name = route.request.url.removeprefix("http://node.example/")
        if name:
            await route.fulfill(path=ROOT / "node" / "explorer" / name)
        else:
            await route.fulfill(body="<!doctype html><main></main>", content_type="text/html")

    await page.route("http://node.example/**", answer)
    await page.goto("http://node.example/")
    for module, mount in (("proof", "mountProof"), ("call", "mountCall")):
        script = f"async () => (await import('/{module}.js')).{mount}(document.querySelector('main'))"
        await page.evaluate(script)
        said = page.get_by_role("alert")
        await expect(said).to_contain_text("ssh -L 8080:127.0.0.1:8080 HOST")
        await expect(said).to_contain_text("ledger-verify receipt.json --genesis genesis.json")
        await page.evaluate("document.querySelector('main').replaceChildren()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_readable(page: Page, node: DevNode, tx_ids: list[str], scheme: Any) -> None:
    """Contrast of at least 4.5 everywhere, whatever the verdict is."""
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await open_proof(page, node, tx_ids[0])
    for text, said in (("", "Proven, if"), ("0" * 64, "Not proven"), (chain_id_of(node.genesis()).hex(), "Proven.")):
        await page.get_by_label("Genesis hash that you trust").fill(text)
        await expect(verdict(page)).to_contain_text(said)
        await page.locator("[data-step] summary").first.click()
        assert (await page.evaluate(CONTRAST))["faults"] == []
    await page.goto(f"{node.url}/#/call")
    await page.get_by_role("button", name="Make a key").click()
    await expect(page.locator("[data-command]")).to_be_visible()
    assert (await page.evaluate(CONTRAST))["faults"] == []


async def test_it_fits_a_phone(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    await page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    await open_proof(page, node, tx_ids[0])
    await expect(page.locator("[data-step]")).to_have_count(10)
    for summary in await page.locator("[data-step] summary").all():
        await summary.click()
    assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    await page.goto(f"{node.url}/#/call")
    await page.get_by_role("button", name="Make a key").click()
    await expect(page.locator("[data-command]")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.parametrize("lie", ["another record's receipt", "another record shown", "quality left out"])
async def test_a_true_receipt_of_something_else_proves_nothing(
    page: Page, node: DevNode, tx_ids: list[str], lie: str
) -> None:
    """A node shows a record and proves another: the person looks at the one, and must not read that it is proven."""

    async def other_receipt(route: Route) -> None:
        await route.fulfill(json=node.client.get(f"/v1/records/{tx_ids[1]}/4/receipt"))

    async def other_record(route: Route) -> None:
        shown = node.client.get(f"/v1/records/{tx_ids[0]}/3")
        if lie == "quality left out":
            del shown["record"]["quality"]
        else:
            shown["record"]["end_ms"] += 60_000
        await route.fulfill(json=shown)

    if lie == "another record's receipt":
        await page.route("**/receipt", other_receipt)
    else:
        await page.route(f"**/v1/records/{tx_ids[0]}/3", other_record)
    await open_proof(page, node, tx_ids[0])
    await page.get_by_label("Genesis hash that you trust").fill(chain_id_of(node.genesis()).hex())
    await expect(verdict(page)).to_have_text("Proven, and not what is shown here.")
    await expect(page.locator(".said.bad")).to_be_visible()
