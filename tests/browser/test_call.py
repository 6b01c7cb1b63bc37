"""The whole way of a browser user: a key, its admission, a WebRTC call, its record final, the proof in the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.async_api import Page, expect

from audit.receipt import verify_receipt
from ledger.cdr import CallRecord
from ledger.models.tables import CODECS
from ledger.readable import from_readable
from ledger.rules.ruleset import RuleSet, default_rule_set_pin
from tests.browser.kit import BROWSER, DevNode, serve_modules

pytestmark = BROWSER


async def test_a_record_of_ones_own_call(page: Page, node: DevNode, faults: list[str], tmp_path: Path) -> None:
    await page.goto(f"{node.url}/#/call")
    await page.get_by_role("button", name="Make a key").press("Enter")
    public_key = await page.locator("[data-public-key]").inner_text()
    assert re.fullmatch(r"0[23][0-9a-f]{64}", public_key)
    command = await page.locator("[data-command]").inner_text()
    words = command.replace("govern.pem", str(node.home / "govern.pem")).split()
    assert words[0] == "ledgerctl"

    await page.get_by_role("button", name="Start the call").press("Enter")
    await expect(page.get_by_role("button", name="Hang up")).to_be_focused()
    node.ctl(*words[1:])
    await expect(page.locator("[data-standing]")).to_have_text("active, of dev")
    await page.wait_for_selector("[data-packets]")
    await expect(page.locator("[data-packets]")).to_have_attribute("data-packets", re.compile(r"^(2[5-9]|[3-9]\d)\d$"))
    await page.keyboard.press("Enter")

    shown = json.loads(await page.locator("[data-record]").text_content() or "")
    assert await page.evaluate("document.activeElement.contains(document.querySelector('[data-record]'))")
    record = from_readable(shown, CallRecord)
    assert (record.service.name, record.codec, record.quality is None) == ("WEBRTC", 2, False)
    token = page.get_by_label("Token of your carrier")
    await token.fill("lt_of-another-node")
    await page.get_by_role("button", name="Sign and hand in").click()
    await expect(page.get_by_role("alert")).to_contain_text("the token is not known here")
    assert [fault for fault in faults if "401" not in fault] == []
    faults.clear()

    await token.fill(node.token)
    await token.press("Enter")
    await expect(page.locator("[data-state=final]")).to_have_class("tag good")
    await expect(page.locator("[data-proof-of] [data-step]")).to_have_count(10)
    await expect(page.locator("[data-proof-of] .said strong")).to_have_text(
        "Proven, if this is the genesis that you trust."
    )
    await the_key_stays_and_cannot_be_taken_out(page, public_key)
    await some_of_it_is_shown_to_somebody(page, node, record, tmp_path)


async def the_key_stays_and_cannot_be_taken_out(page: Page, public_key: str) -> None:
    await page.reload()
    await expect(page.locator("[data-public-key]")).to_have_text(public_key)
    await expect(page.locator("[data-standing]")).to_have_text("active, of dev")
    script = """async () => {
        const { loadKeys } = await import("./explorer/keeping.js");
        const { chain_id: chainId } = await (await fetch("v1/genesis")).json();
        const { pair, recordKey } = await loadKeys(chainId);
        const tries = [["pkcs8", pair.privateKey], ["jwk", pair.privateKey], ["raw", recordKey]];
        return Promise.all(tries.map(([form, key]) =>
            crypto.subtle.exportKey(form, key).then(() => "taken", (error) => error.name)));
    }"""
    assert await page.evaluate(script) == ["InvalidAccessError"] * 3


async def some_of_it_is_shown_to_somebody(page: Page, node: DevNode, record: CallRecord, tmp_path: Path) -> None:
    """The receipt that the browser makes is one for ledger-verify."""
    kept = page.locator(".kept li")
    await kept.get_by_text("Show some of it to somebody").click()
    await kept.get_by_role("button", name="Make the receipt").click()
    await expect(kept.get_by_role("status")).to_have_text("Choose what to show.")
    await kept.get_by_label("caller").check()
    await kept.get_by_role("button", name="Make the receipt").click()
    async with page.expect_download() as waiting:
        await kept.get_by_role("link", name="receipt with caller").click()
    await (await waiting.value).save_as(tmp_path / "receipt.json")
    verdict = verify_receipt((tmp_path / "receipt.json").read_bytes(), node.genesis())
    assert verdict.record == record
    assert [(field.name, field.value) for field in verdict.revealed] == [("caller", b"sip:me@browser.invalid")]


async def test_other_codecs_and_the_microphone(page: Page) -> None:
    """Short calls: too short for a MOS, and records of them hold all the same."""
    await serve_modules(page)
    script = """async (codec) => {
        const { LoopbackCall } = await import("/loopback.js");
        const { readableRecord, recordFromStats } = await import("/callrecord.js");
        const call = new LoopbackCall({ codec, source: "microphone", onStats() {} });
        await call.start();
        await new Promise((resolve) => setTimeout(resolve, 1_200));
        const stats = await call.end();
        return readableRecord(recordFromStats(stats, {
            leg: "originating", released_by: "caller",
            setup_ms: call.setupMs, answer_ms: call.answerMs, end_ms: call.endMs,
            party_commitment: new Uint8Array(32), call_commitment: new Uint8Array(16),
        }));
    }"""
    rules = RuleSet(default_rule_set_pin("lifecycle"), carbon_basis="lifecycle")
    found = []
    for codec in ("PCMA", "opus", "G722"):
        record = from_readable(await page.evaluate(script, codec), CallRecord)
        assert rules.check_record(record) is None
        assert min(record.packets_sent, record.packets_received, record.octets_sent) > 10
        found.append((CODECS[record.codec].name, record.quality))
    assert found == [("PCMA", None), ("opus", None), ("G722", None)]
