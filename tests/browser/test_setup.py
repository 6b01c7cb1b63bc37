"""The browser that the other tests here rely on does what they rely on."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page

from tests.browser.kit import BROWSER, DevNode

pytestmark = BROWSER


async def test_a_page_reads_from_the_node(page: Page, node: DevNode, tx_ids: list[str]) -> None:
    await page.goto(node.url + "/v1/status")
    script = "async (path) => (await (await fetch(path)).json()).promise.state"
    assert await page.evaluate(script, f"/v1/transactions/{tx_ids[0]}") == "final"
    assert await page.evaluate("isSecureContext && typeof crypto.subtle.digest") == "function"


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("console.error('this is bad')", "error: this is bad"),
        ("setTimeout(() => { throw new Error('nobody caught it') })", "exception: nobody caught it"),
        ("fetch('/v1/nowhere')", "error: Failed to load resource: the server responded with a status of 404"),
    ],
)
async def test_what_a_page_complains_of_is_seen(
    page: Page, node: DevNode, faults: list[str], script: str, fault: str
) -> None:
    await page.goto(node.url + "/v1/status")
    await page.evaluate(script + "; null")
    for _ in range(100):
        if faults:
            break
        await asyncio.sleep(0.05)
    assert [found[: len(fault)] for found in faults] == [fault]
    faults.clear()
