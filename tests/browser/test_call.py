"""The whole way of a browser user: a key, its admission, a WebRTC call, its record final, the proof in the page."""

from __future__ import annotations

import json
import re

from playwright.async_api import Page, expect

from ledger.cdr import CallRecord
from ledger.readable import from_readable
from tests.browser.kit import BROWSER, DevNode

pytestmark = BROWSER


async def test_a_record_of_ones_own_call(page: Page, node: DevNode) -> None:
    await page.goto(f"{node.url}/#/call")
    await page.get_by_role("button", name="Make a key").click()
    public_key = await page.locator("[data-public-key]").inner_text()
    assert re.fullmatch(r"0[23][0-9a-f]{64}", public_key)
    command = await page.locator("[data-command]").inner_text()
    words = command.replace("govern.pem", str(node.home / "govern.pem")).split()
    assert words[0] == "ledgerctl"

    await page.get_by_role("button", name="Start the call").click()
    node.ctl(*words[1:])
    await expect(page.locator("[data-standing]")).to_have_text("active, of dev")
    await page.wait_for_selector("[data-packets]")
    await expect(page.locator("[data-packets]")).to_have_attribute("data-packets", re.compile(r"^(2[5-9]|[3-9]\d)\d$"))
    await page.get_by_role("button", name="Hang up").click()

    shown = json.loads(await page.locator("[data-record]").text_content() or "")
    print(shown)
    record = from_readable(shown, CallRecord)
    assert (record.service.name, record.codec, record.quality is None) == ("WEBRTC", 2, False)
    await page.get_by_label("Token of your carrier").fill(node.token)
    await page.get_by_role("button", name="Sign and hand in").click()
    await expect(page.locator("[data-state=final]")).to_have_class("tag good")
    await expect(page.locator("[data-proof-of] [data-step]")).to_have_count(10)
    await expect(page.locator("[data-proof-of] .said strong")).to_have_text(
        "Proven, if this is the genesis that you trust."
    )
