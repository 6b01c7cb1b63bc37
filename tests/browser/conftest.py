"""Debian's Chromium, driven by Playwright; nothing is downloaded.

Playwright's coroutines, not its blocking calls: those keep an event loop running under every later test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

from tests.browser.kit import CHROMIUM, DevNode, running_node

LAPTOP = {"width": 1280, "height": 800}
# Chromium reports most violations on the console by itself; those of "report-only" kinds come as events alone.
TELL_VIOLATIONS = """
    addEventListener("securitypolicyviolation", (event) =>
        console.error(`CSP ${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}`));
"""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium with a microphone that hums; each page is of a fresh profile."""
    arguments = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium refuses its sandbox to root
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=arguments)
        yield chromium
        await chromium.close()


@pytest.fixture
def faults() -> Iterator[list[str]]:
    """What pages complained of: errors on the console, exceptions, violations of the policy. A test that provokes one
    looks at it and clears the list; whatever is left in the end fails the test.
    """
    found: list[str] = []
    yield found
    assert found == []


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, faults: list[str]) -> AsyncIterator[Page]:
    """An empty page of the size of a laptop's, which keeps nothing of pages before."""
    context = await browser.new_context(viewport=LAPTOP)  # type: ignore[arg-type]
    await context.add_init_script(TELL_VIOLATIONS)
    page = await context.new_page()
    page.set_default_timeout(20_000)

    def on_console(message: ConsoleMessage) -> None:
        address = (message.location or {}).get("url", "")
        # The browser asks for an icon by itself wherever a document names none, as JSON does.
        if message.type in {"error", "warning"} and not address.endswith("/favicon.ico"):
            faults.append(f"{message.type}: {message.text} ({address})")

    page.on("console", on_console)
    page.on("pageerror", lambda error: faults.append(f"exception: {error}"))
    yield page
    await context.close()


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevNode]:
    """A development node that all tests here share: what one hands in, the others see."""
    with running_node(tmp_path_factory.mktemp("dev") / "data") as node:
        yield node


@pytest.fixture(scope="session")
def tx_ids(node: DevNode) -> list[str]:
    """Ids of three final transactions, 40 records each."""
    return node.submit_records(120, per_transaction=40)
