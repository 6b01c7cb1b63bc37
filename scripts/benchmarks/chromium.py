"""A headless Chromium, spoken to in its own protocol over the one library that the programs need anyway.

Source: https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_S = 30.0
ANSWER_S = 30.0
STOP_S = 10.0


def find_chromium() -> str | None:
    """Return the path of a Chromium on this machine."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """A connection to a browser; answers come in the order in which they are asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0

    async def call(self, method: str, *, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Call a method, of one page where ``session`` names it. Raises RuntimeError where the browser refuses."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        await self._socket.send_json(message)
        async with asyncio.timeout(ANSWER_S):
            while True:
                answer = await self._socket.receive_json()
                if answer.get("id") == self._number:
                    break
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    @asynccontextmanager
    async def page(self, before: str) -> AsyncIterator[Page]:
        """An empty page of a fresh profile; ``before`` runs in each document before its own scripts."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = (await self.call("Target.createTarget", url="about:blank", browserContextId=context))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        await self.call("Page.enable", session=session)
        await self.call("Page.addScriptToEvaluateOnNewDocument", session=session, source=before)
        try:
            yield Page(self, session)
        finally:
            await self.call("Target.disposeBrowserContext", browserContextId=context)


class Page:
    """One page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    async def go(self, url: str) -> None:
        """Begin to load ``url``."""
        await self._browser.call("Page.navigate", session=self._session, url=url)

    async def evaluate(self, script: str) -> Any:
        """Return the JSON value of an expression."""
        answer = await self._browser.call(
            "Runtime.evaluate", session=self._session, expression=script, returnByValue=True
        )
        return answer["result"].get("value")


@asynccontextmanager
async def running_chromium(path: str) -> AsyncIterator[Browser]:
    """Run a Chromium with a profile of its own. Raises RuntimeError where it does not start."""
    with tempfile.TemporaryDirectory(prefix="ledgerd-bench-", ignore_cleanup_errors=True) as profile:
        command = [path, "--headless", "--remote-debugging-port=0", f"--user-data-dir={profile}", "--no-first-run"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium refuses its sandbox to root
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = await asyncio.create_subprocess_exec(*command, "about:blank", **quiet)
        try:
            url = await _debugging_url(Path(profile) / "DevToolsActivePort", process)
            async with aiohttp.ClientSession() as client, client.ws_connect(url, max_msg_size=0) as socket:
                yield Browser(socket)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()


async def _debugging_url(file: Path, process: asyncio.subprocess.Process) -> str:
    """Return the address that the browser writes into its profile once it listens."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.returncode is None:
        lines = await asyncio.to_thread(_lines, file)
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        await asyncio.sleep(0.05)
    raise RuntimeError("Chromium did not start")


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
