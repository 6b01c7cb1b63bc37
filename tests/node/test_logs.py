"""Logs: every line on standard error is one event, also what libraries say."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging
from node.logs import get_log, set_up_logs
set_up_logs({level!r}, "json")
get_log("part").info("an event", number=1)
logging.getLogger("aiohttp.server").info("not worth a line")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("aiohttp.server").exception("Error handling %s", "request")
"""


def lines(level: str) -> list[dict]:
    """Return what a program that logs at ``level`` says."""
    command = [sys.executable, "-c", PROGRAM.format(level=level)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_librarys_words_are_one_event_with_their_trace() -> None:
    own, library = lines("info")
    assert (own["event"], own["part"], own["number"], own["level"]) == ("an event", "part", 1, "info")
    assert (library["event"], library["part"], library["logger"]) == ("library warning", "library", "aiohttp.server")
    assert (library["message"], library["level"]) == ("Error handling request", "error")
    assert "ZeroDivisionError" in library["exception"]


NOT_HTTP = """
import asyncio, socket
from aiohttp import web
from node.logs import get_log, set_up_logs
set_up_logs({level!r}, "json")
async def serve():
    runner = web.AppRunner(web.Application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    writer.write(b"GET / HTTP/1.1\\r\\nno header at all\\r\\n\\r\\n")
    print((await reader.readline()).decode())
    writer.close()
    await runner.cleanup()
    get_log("test").info("done")
asyncio.run(serve())
"""


@pytest.mark.parametrize(("level", "events"), [("info", ["done"]), ("debug", ["not HTTP", "done"])])
def test_what_is_no_http_fills_no_log(level: str, events: list[str]) -> None:
    command = [sys.executable, "-c", NOT_HTTP.format(level=level)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("HTTP/1.0 400")
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == events


PRIVATE = """
import asyncio, sys, tempfile
from ledger.errors import FieldError, StoreError
from node.logs import get_log, set_up_logs
set_up_logs("info", {form!r})
log = get_log("part")
number = "+442071838750"
def first():
    {{}}[number]
def wrapped():
    try:
        first()
    except KeyError as error:
        raise FieldError("not a number", where="from", actual=number) from error
def disk():
    raise StoreError("no room", where="the spool") from OSError(28, "No space left", number)
for work in (first, wrapped, disk):
    try:
        work()
    except Exception as error:
        log.error("failed", exc_info=error)
async def lost():
    asyncio.get_running_loop().create_future().set_exception(ValueError(number))
asyncio.run(lost())
async def task():
    async def inside(argument):
        raise ValueError(argument)
    held = asyncio.create_task(inside(number))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
asyncio.run(task())
import threading
thread = threading.Thread(target=first)
thread.start()
thread.join()
class Leaving:
    def __del__(self):
        raise ValueError(number)
Leaving()
raise LookupError(number)
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_an_exception_says_is_not_logged(form: str) -> None:
    """Kinds and places are, and the words of errors that tell of the program itself."""
    command = [sys.executable, "-c", PRIVATE.format(form=form)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    said = done.stderr
    assert "2071838750" not in said
    for word in (
        "KeyError",
        "ledger.errors.FieldError",
        "no room",
        "No space left",
        "ValueError",
        "in first",
        "a thread ended",
        "lost",
        "LookupError",
    ):
        assert word in said


def test_the_level_holds_for_both() -> None:
    assert [line["event"] for line in lines("error")] == ["library warning"]
