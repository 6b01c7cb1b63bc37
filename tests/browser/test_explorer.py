"""The explorer in a real browser: right figures, nothing taken for markup, usable by keyboard, eye and ear."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Browser, Page, Route, expect

from ledger.crypto import PrivateKey
from tests.browser.kit import BROWSER, DevNode

pytestmark = BROWSER

PHONE = {"width": 360, "height": 780}
ATTACK = '<img src=x onerror="window.wasAttacked=1"><script>window.wasAttacked=1</script>"\'&amp;'
CONTRAST = """
() => {
    const channel = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const colour = (text) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = text;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
    const behind = (node) => {
        for (let here = node; here; here = here.parentElement) {
            const found = colour(getComputedStyle(here).backgroundColor);
            if (found[3] === 255) return found;
            if (found[3] !== 0) throw new Error(`half transparent behind ${node.textContent}`);
        }
        return [255, 255, 255, 255];
    };
    const faults = [];
    let looked = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        const box = node.getBoundingClientRect();
        if (!walker.currentNode.textContent.trim() || node.closest("noscript, .unseen, svg") || !box.width) continue;
        const [one, two] = [light(colour(getComputedStyle(node).color)), light(behind(node))];
        const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
        looked += 1;
        const what = `${node.tagName}.${node.className} ${node.textContent.slice(0, 40)}`;
        if (ratio < 4.5) faults.push(`${ratio.toFixed(2)} ${what}`);
    }
    return { looked, faults };
}
"""


async def show(page: Page, node: DevNode, path: str = "") -> None:
    """Go to a view and wait until it is there."""
    await page.goto(f"{node.url}/#/{path}")
    await expect(page.locator("main:not([aria-busy])")).to_be_visible()


def views(tx_ids: list[str]) -> list[str]:
    """Return the address of each kind of view."""
    client_views = ["", "blocks", "block/1", f"tx/{tx_ids[0]}", f"record/{tx_ids[0]}/0", "members", "member/dev"]
    return [*client_views, "search/e", "search/nothing-like-this"]


async def test_the_overview_shows_what_the_chain_has(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    await show(page, node)
    seen = node.client.get("/v1/explore")
    await expect(page.locator(".tile").nth(3).locator(".value")).to_have_text(f"{seen['periods']['all']['records']:,}")
    final = page.locator(".tile").first.locator(".value")
    shown = int((await final.inner_text()).replace(",", ""))
    assert 0 <= node.client.get("/v1/head")["final"]["height"] - shown <= 3
    hour = seen["periods"]["hour"]["read"]
    await expect(page.get_by_text(f"{hour['answered']:,} answered of {hour['records']:,}")).to_be_visible()
    share = 100 * hour["answered"] / hour["records"]
    await expect(page.locator("dl.stats dd").nth(1)).to_contain_text(f"{share:.1f} %")
    for mos in hour["mos"]:
        name = {"rtpengine_10": "rtpengine-10"}.get(mos["method"], mos["method"])
        method = page.locator("article.method").filter(has=page.get_by_text(name, exact=True))
        await expect(method).to_contain_text(f"{mos['sum_milli'] / mos['count'] / 1000:.2f} mean")
        await expect(method).to_contain_text(f"{mos['count']:,} rated")
    zones = await page.locator("section[aria-labelledby=energy] tbody tr").all_inner_texts()
    assert [row.split()[0] for row in zones] == [zone["zone"] for zone in hour["zones"]]


async def test_periods_are_chosen_by_a_press(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    await show(page, node)
    await expect(page.get_by_role("button", name="Last hour")).to_have_attribute("aria-pressed", "true")
    await page.get_by_role("button", name="All counted").click()
    await expect(page.get_by_role("button", name="All counted")).to_have_attribute("aria-pressed", "true")
    await expect(page.locator("dl.stats")).to_contain_text("since height 1")


async def test_new_blocks_come_by_themselves(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    await show(page, node)
    await expect(page.locator("#live")).to_have_text("live")
    counted = page.locator(".tile").nth(3).locator(".value")
    before = int((await counted.inner_text()).replace(",", ""))
    node.submit_records(7, seed=77)
    await expect(counted).to_have_text(f"{before + 7:,}")


async def test_what_a_reader_opened_and_reached_stays_while_figures_change(
    page: Page, node: DevNode, tx_ids: list[str]
) -> None:
    await show(page, node)
    summary = page.locator("summary").filter(has_text="By the hour")
    await summary.click()
    await page.locator("section[aria-labelledby=latest] a").first.focus()
    counted = page.locator(".tile").nth(3).locator(".value")
    before = int((await counted.inner_text()).replace(",", ""))
    node.submit_records(5, seed=80)
    await expect(counted).to_have_text(f"{before + 5:,}")
    await expect(page.locator("details").first).to_have_attribute("open", "")
    assert await page.evaluate("document.activeElement.textContent") == "All blocks"


async def test_a_block_that_is_not_final_becomes_so_before_ones_eyes(
    page: Page, node: DevNode, tx_ids: list[str]
) -> None:
    await show(page, node, "blocks")
    await expect(page.locator("#live")).to_have_text("live")
    before = node.client.get("/v1/head")["head"]["height"]
    node.submit_records(5, seed=81)
    row = page.locator("tbody tr").filter(has=page.get_by_role("link", name=f"{before + 1:,}", exact=True))
    await expect(row).to_contain_text("final")


async def test_from_a_block_to_a_record_and_its_fields(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    height = node.client.get(f"/v1/transactions/{tx_ids[0]}")["promise"]["height"]
    await show(page, node, f"block/{height}")
    await expect(page.get_by_role("heading", level=1)).to_contain_text(f"Block {height}")
    await expect(page.get_by_text("1 of 1 signed")).to_be_visible()
    await page.get_by_role("link", name=tx_ids[0][:12]).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Transaction")
    records = node.client.get(f"/v1/transactions/{tx_ids[0]}")["records"]
    place = next(i for i, record in enumerate(records) if record["quality"] and record["energy"])
    await page.get_by_role("link", name=f"/{place}", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Call record")
    await expect(page.get_by_role("heading", level=1)).to_be_focused()
    record = records[place]
    body = page.locator("main")
    for text in (
        f"{record['quality']['mean']['mos_milli'] / 1000:.2f}",
        f"{record['packets_sent']:,}",
        record["energy"]["grid_zone"],
        record["party_commitment"],
        record["call_commitment"],
        tx_ids[0],
    ):
        await expect(body).to_contain_text(text)
    await page.go_back()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Transaction")


async def test_what_governs_is_shown_with_its_payload(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    public_key = PrivateKey.from_seed(b"of a browser test").public_key.hex()
    node.ctl("key", "add", public_key, "--role", "submit", "--key", node.home / "govern.pem", "--node", node.url)
    await show(page, node)
    await page.get_by_role("searchbox").fill(public_key)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Key")
    await expect(page.locator("main")).to_contain_text(public_key)
    blocks = node.client.get("/v1/explore/blocks")["blocks"]
    named = [node.client.get(f"/v1/explore/blocks/{b['height']}")["transactions"] for b in blocks if b["transactions"]]
    tx_id = next(tx["tx_id"] for txs in named for tx in txs if tx["kind"] == "key")
    await show(page, node, f"tx/{tx_id}")
    await expect(page.locator("pre")).to_contain_text(public_key)


async def test_search_goes_where_the_only_answer_is(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    await show(page, node)
    await page.keyboard.press("/")
    await expect(page.get_by_role("searchbox")).to_be_focused()
    await page.keyboard.type(tx_ids[1][:16])
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Transaction")
    await expect(page.locator("main")).to_contain_text(tx_ids[1])


PERSONS = [
    *["+49 30 901820", "+1", "0049 30 901820", "030/90 18 20", "(030) 901820", "030-901820", "12345/6", "212.555.0123"],
    *["1 212 555 0123 ext. 7", "+49-30-901820;ext=7", "01234", "tel:112", "sip:alice@example.org"],
    *["SIPS:bob", "alice@example.org", "٠١٢٣٤٥٦٧٨٩", "00493090182012345678"],
]
NO_PERSONS = ["1", "9999", "0x12345", "12ab34", "dev", "carrier-12345", f"{'12' * 32}/0", "1" * 40, "3,0", "#7", "5e1b"]
HEIGHTS = ["12345", "1,234,567", "#4930901820", " 99999999999 ", "2125550123"]
"""Or numbers: that depends on how many blocks there are."""


async def kinds_of(page: Page, texts: list[str]) -> list[str]:
    script = "async (texts) => texts.map((await import('./explorer/numbers.js')).kindOf)"
    return list(await page.evaluate(script, texts))


async def test_what_looks_like_a_person(page: Page, node: DevNode) -> None:
    await show(page, node)
    assert await kinds_of(page, PERSONS) == ["person"] * len(PERSONS)
    assert await kinds_of(page, NO_PERSONS) == [""] * len(NO_PERSONS)
    assert await kinds_of(page, HEIGHTS) == ["height"] * len(HEIGHTS)


@pytest.mark.parametrize("text", [PERSONS[0], "sip:alice@example.org", "4930901820"])
async def test_numbers_and_addresses_of_persons_stay_in_the_page(page: Page, node: DevNode, text: str) -> None:
    asked: list[str] = []
    await show(page, node)
    page.on("request", lambda request: asked.append(request.url))
    before = page.url
    await page.get_by_role("searchbox").fill(text)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("looks like a telephone number")
    await expect(page.get_by_role("searchbox")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_role("searchbox")).to_be_focused()
    assert page.url == before
    # The address of the view is no way around it.
    await page.goto("about:blank")
    await show(page, node, f"search/{quote(text, safe='')}")
    await expect(page.locator("main").get_by_role("alert")).to_contain_text("The chain holds neither")
    assert [url for url in asked if "search" in url.partition("#")[0]] == []


async def test_what_is_no_number_of_a_person_is_searched_for(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    await show(page, node)
    field = page.get_by_role("searchbox")
    await field.fill("12345")
    await page.keyboard.press("Enter")
    await expect(field).to_have_attribute("aria-invalid", "true")
    # Typing takes the refusal back.
    await field.fill("0x12345")
    await expect(field).not_to_have_attribute("aria-invalid", "true")
    async with page.expect_request("**/v1/search?q=0x12345"):
        await page.keyboard.press("Enter")


async def test_a_height_of_the_chain_is_no_number_of_a_person(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    async def be_long(route: Route) -> None:
        response = await route.fetch()
        document = await response.json()
        document["head"]["height"] = 1_234_567
        await route.fulfill(response=response, json=document)

    await page.route("**/v1/head", be_long)
    await show(page, node)
    field = page.get_by_role("searchbox")
    for text, sent in (("1,234,567", "1%2C234%2C567"), ("#12345", "%2312345")):
        await field.fill(text)
        async with page.expect_request(f"**/v1/search?q={sent}"):
            await page.keyboard.press("Enter")
    await field.fill("1234568")
    await page.keyboard.press("Enter")
    await expect(field).to_have_attribute("aria-invalid", "true")


async def test_the_search_field_says_what_becomes_of_what_is_typed(page: Page, node: DevNode) -> None:
    await show(page, node)
    note = page.get_by_text("Sent to the node as typed.")
    await expect(note).to_be_hidden()
    await page.keyboard.press("/")
    await expect(note).to_be_visible()
    await expect(page.get_by_role("searchbox")).to_have_accessible_description(re.compile("No telephone numbers"))


async def test_the_keyboard_reaches_everything(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    await show(page, node)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    assert await page.evaluate("location.hash") == "#/"
    reached = []
    for _ in range(120):
        await page.keyboard.press("Tab")
        reached.append(
            await page.evaluate(
                "() => { const at = document.activeElement, style = getComputedStyle(at);"
                " return [at.tagName, at.textContent.trim().slice(0, 20), style.outlineStyle] }"
            )
        )
        if reached[-1][1] == "Metrics":
            break
    assert [where for where in reached if where[2] == "none" and where[0] != "BODY"] == []
    texts = [where[1] for where in reached]
    assert {"dev", "Last day", "Table", "By the hour", "All blocks", "API"} <= set(texts)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["laptop", "phone"])
async def test_every_view_is_readable_and_fits(
    browser: Browser, node: DevNode, tx_ids: list[str], scheme: Any, size: str
) -> None:
    viewport: Any = PHONE if size == "phone" else {"width": 1280, "height": 800}
    context = await browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    page = await context.new_page()
    for path in [*views(tx_ids), "verify", "call"]:
        await show(page, node, path)
        assert await page.evaluate("document.documentElement.dataset.theme") == scheme
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        found = await page.evaluate(CONTRAST)
        assert found["faults"] == [], path
        assert found["looked"] > 12
    await context.close()


async def test_the_colours_chosen_stay_chosen(page: Page, node: DevNode) -> None:
    await page.emulate_media(color_scheme="light")
    await show(page, node)
    await page.get_by_role("button", name="Dark colours").click()
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(12, 19, 26)"
    await page.reload()
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
    await expect(page.get_by_role("button", name="Dark colours")).to_have_attribute("aria-pressed", "true")


async def test_landmarks_headings_and_names(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    for path in views(tx_ids):
        await show(page, node, path)
        for role in ("banner", "main", "contentinfo", "search"):
            await expect(page.get_by_role(role)).to_have_count(1)  # type: ignore[arg-type]
        await expect(page.get_by_role("heading", level=1)).to_have_count(1)
        unnamed = await page.evaluate(
            "() => [...document.querySelectorAll('button, a, input, svg[role=img], table')].filter((node) =>"
            " !(node.getAttribute('aria-label') || node.textContent.trim() || node.labels?.length)).length"
        )
        assert unnamed == 0
        tables = await page.evaluate("[...document.querySelectorAll('table')].filter((t) => !t.caption).length")
        assert tables == 0
    assert await page.title() == "Search · ledgerd explorer"


async def test_what_is_searched_for_is_shown_as_text(page: Page, node: DevNode) -> None:
    await show(page, node)
    await page.get_by_role("searchbox").fill(ATTACK)
    await page.keyboard.press("Enter")
    await expect(page.locator("main code.id")).to_have_text(ATTACK)
    assert await page.evaluate("window.wasAttacked") is None


def poisoned(value: Any) -> Any:
    """Return a JSON value with every text in it an attack, but for what views compute with."""
    if isinstance(value, dict):
        kept = {"method", "kind", "band", "service", "state", "standing"}
        return {name: item if name in kept else poisoned(item) for name, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return ATTACK if isinstance(value, str) else value


async def test_a_lying_node_cannot_make_markup(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    async def poison(route: Route) -> None:
        response = await route.fetch()
        document = await response.json()
        # A single result would be gone to.
        document |= {"results": 2 * document["results"]} if "results" in document else {}
        await route.fulfill(response=response, body=json.dumps(poisoned(document)))

    await page.route(lambda url: "/v1/" in url and "/v1/events" not in url, poison)
    for path in views(tx_ids):
        await show(page, node, path)
        await expect(page.locator("main")).to_contain_text(
            "<img src=x" if path != "search/nothing-like-this" else "<img"
        )
        assert await page.evaluate(
            "[window.wasAttacked, document.querySelectorAll('main img, main script').length]"
        ) == [
            None,
            0,
        ]


async def test_a_problem_is_told_as_the_node_tells_it(
    page: Page, node: DevNode, tx_ids: list[str], faults: list[str]
) -> None:
    await show(page, node, "block/99999999")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Not found")
    await expect(page.get_by_role("alert")).to_contain_text("no block yet")
    assert len(faults) == 1
    faults.clear()
    await show(page, node, "no/such/view")
    await expect(page.locator("main")).to_contain_text("There is no such view.")


async def test_a_node_that_is_away_is_said_to_be_and_comes_back(
    page: Page, node: DevNode, tx_ids: list[str], faults: list[str]
) -> None:
    async def refuse(route: Route) -> None:
        await route.abort("connectionrefused")

    await show(page, node)
    await expect(page.locator("#live")).to_have_text("live")
    await page.route("**/v1/**", refuse)
    node.submit_records(3, seed=82)
    await expect(page.locator("#live")).to_have_text("not connected", timeout=20_000)
    # What was known is still there.
    await expect(page.locator(".tile")).to_have_count(4)
    await page.unroute("**/v1/**", refuse)
    records = node.client.get("/v1/explore")["periods"]["all"]["records"]
    await expect(page.locator(".tile").nth(3).locator(".value")).to_have_text(f"{records:,}", timeout=30_000)
    await expect(page.locator("#live")).to_have_text("live")
    assert {fault.partition(" (")[0] for fault in faults} == {
        "error: Failed to load resource: net::ERR_CONNECTION_REFUSED"
    }
    faults.clear()


async def test_a_view_asked_of_a_node_that_is_away_comes_once_it_is_back(
    page: Page, node: DevNode, tx_ids: list[str], faults: list[str]
) -> None:
    async def refuse(route: Route) -> None:
        await route.abort("connectionrefused")

    for path, heading in (("", "Overview"), ("block/1", "Block 1")):
        await page.route("**/v1/**", refuse)
        await page.goto("about:blank")
        await show(page, node, path)
        await expect(page.get_by_role("alert")).to_contain_text("does not answer")
        await page.unroute("**/v1/**", refuse)
        await expect(page.get_by_role("heading", level=1)).to_contain_text(heading)
        await expect(page.get_by_role("alert")).to_have_count(0)
    faults.clear()


async def test_finality_is_told_to_those_who_listen(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    await show(page, node)
    await expect(page.locator("[aria-live=polite]")).to_have_text(re.compile(r"^Block [\d,]+ is final\.$"))


async def test_a_page_in_the_background_asks_nothing(page: Page, node: DevNode) -> None:
    asked: list[str] = []
    await show(page, node)
    await expect(page.locator("#live")).to_have_text("live")
    await page.evaluate(
        "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.on("request", lambda request: asked.append(request.url))
    node.submit_records(2, seed=78)
    node.submit_records(2, seed=79)
    assert asked == []
    await page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    await expect(page.locator("#live")).to_have_text("live")
    assert sorted({url.rpartition("/")[2] for url in asked}) == ["events", "explore"]
