"""What the demonstration and the scenario have in common: a clock on the screen, steps that must hold, a clean end."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ledger.errors import LedgerError
from node.localnet import LocalNode, LocalProcess, stop_all

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class NotHeld(Exception):
    """A step did not show what it should."""


def held(what: str, is_so: bool) -> None:
    """Fail the run where something is not so."""
    if not is_so:
        raise NotHeld(f"did not hold: {what}")


def final_height(node: LocalNode) -> int:
    """Return the height that is final at a node."""
    return int(node.client.get("/v1/head")["final"]["height"])


class Screen:
    """Lines with the time since the start, from any thread."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Return the time since the start."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Print a line with the time."""
        with self._lock:
            print(f"{self.seconds:6.1f} s  {text}", flush=True)

    def title(self, text: str) -> None:
        """Print what begins now."""
        with self._lock:
            print(f"\n{text}", flush=True)


class Play(Protocol):
    """Something with nodes of its own, to be played once."""

    nodes: Sequence[LocalProcess]

    def run(self) -> None:
        """Play it. Raises NotHeld at the first step that does not hold."""


def play(
    name: str, make: Callable[[Path, Screen], Play], *, keeps_running: bool = False, keeps_files: bool = False
) -> int:
    """Play what ``make`` returns in a folder of its own, and clear up; return the status for the shell.

    keeps_running: where it held, leave the nodes and their files. keeps_files: stop the nodes, leave the files.
    """
    for number in INTERRUPTIONS[1:]:
        signal.signal(number, _interrupt)
    screen = Screen()
    folder = Path(tempfile.mkdtemp(prefix=f"ledgerd-{name}-"))
    made: Play | None = None
    status = 1
    try:
        made = make(folder, screen)
        made.run()
        status = 0
        screen.title(f"Everything held, in {screen.seconds:.0f} s.")
    except KeyboardInterrupt:
        status = 130
        print("\ninterrupted", file=sys.stderr)
    except (NotHeld, LedgerError, OSError, subprocess.SubprocessError) as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        for node in made.nodes if made else ():
            print(f"-- {node.log} ends:\n{node.log_tail()}", file=sys.stderr)
    finally:
        for number in INTERRUPTIONS:
            signal.signal(number, signal.SIG_IGN)
        if status or not keeps_running:
            stop_all(made.nodes if made else [])
            if keeps_files:
                screen.say(f"the files are in {folder}")
            else:
                shutil.rmtree(folder, ignore_errors=True)
    return status


def start(node: LocalProcess) -> None:
    """Start a node, or an agent."""
    with uninterrupted():
        node.start()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put an interruption off: one that comes while a process begins would leave it without anybody who ends it."""
    came: list[int] = []
    old = {number: signal.signal(number, lambda number, _: came.append(number)) for number in INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _interrupt(*_: object) -> None:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt
