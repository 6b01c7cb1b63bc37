"""Logs: every line on standard error is one event, also what libraries say."""

from __future__ import annotations

import json
import subprocess
import sys

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


def test_the_level_holds_for_both() -> None:
    assert [line["event"] for line in lines("error")] == ["library warning"]
