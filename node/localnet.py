"""Nodes of a cluster, and agents, as processes on this machine: started, watched, killed, stopped by process id.

For demonstrations, benchmarks and tests.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ledger.errors import LedgerError
from node.client import Client
from node.cluster import ClusterAgent, ClusterNode

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
LOG_TAIL_LINES: Final = 12
LEDGERD: Final = ("-m", "node.cli.ledgerd")
"""What Python runs for a node."""
AGENT: Final = ("-m", "node.cli.agent", "run")
EQUIVOCATOR: Final = (str(Path(__file__).parent.parent / "scripts" / "equivocator_main.py"),)
"""A producer that commits faults when it is sent SIGUSR1 (a vote) or SIGUSR2 (a block); only in a checkout."""


class LocalProcess:
    """One program of this project as a process, its output in a file.

    Attributes:
        name: for messages.
        url: base address of its API.
        log: what it wrote; every start appends.
        process: None before the first start.
    """

    def __init__(self, name: str, url: str, log: Path, arguments: Sequence[str]) -> None:
        """Prepare; nothing runs yet. arguments: what Python runs."""
        self.name = name
        self.url = url
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self._arguments = arguments

    @property
    def is_running(self) -> bool:
        """Tell whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def is_ready(self) -> bool:
        """Tell whether it answers."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the process, in a session of its own: Ctrl-C reaches only whoever started it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Return when it answers. Raises LedgerError with the end of the log where it does not."""
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if not self.is_running or time.monotonic() > deadline:
                how = "ended" if not self.is_running else f"did not answer within {seconds:g} s"
                raise LedgerError(f"{self.name} {how}; its log ends:\n{self.log_tail()}", where=str(self.log))
            time.sleep(0.05)

    def kill(self) -> None:
        """End the process as a power cut would, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> None:
        """Ask the process to stop."""
        if self.process is not None and self.is_running:
            self.process.send_signal(signal.SIGTERM)

    def wait_stopped(self, seconds: float = STOP_SECONDS) -> int:
        """Return the exit status; a process that does not end in time is killed, and its status is -9."""
        if self.process is None:
            return 0
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        self.kill()
        return -9

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        try:
            lines = self.log.read_text("utf-8", "replace").splitlines()
        except OSError:
            return "(no log)"
        return "\n".join(lines[-LOG_TAIL_LINES:])


class LocalNode(LocalProcess):
    """One ``ledgerd`` process.

    Attributes:
        place: its files and addresses.
        client: asks it, with its own token.
    """

    def __init__(self, place: ClusterNode, arguments: Sequence[str] = (), *, program: Sequence[str] = LEDGERD) -> None:
        """Prepare; nothing runs yet.

        arguments: further options of ``ledgerd``. program: what Python runs instead of it.
        """
        command = [*program, "--config", str(place.config), *arguments]
        super().__init__(place.member_id, place.url, place.home / "ledgerd.log", command)
        self.place = place
        self.client = Client(place.url, place.token)

    def is_ready(self) -> bool:
        """Tell whether the API answers."""
        return self.client.is_ready()


class LocalAgent(LocalProcess):
    """One ``ledger-agent`` process.

    Attributes:
        place: its files and addresses.
    """

    def __init__(self, place: ClusterAgent) -> None:
        """Prepare; nothing runs yet."""
        super().__init__("agent", place.url, place.home / "ledger-agent.log", [*AGENT, "--config", str(place.config)])
        self.place = place
        self._client = Client(place.url)

    def is_ready(self) -> bool:
        """Tell whether the agent answers."""
        return self.health() is not None

    def health(self) -> dict[str, Any] | None:
        """Return what ``/healthz`` says while the agent is well, None where it is not, or does not answer."""
        try:
            found = self._client.get("/healthz")
        except LedgerError:
            return None
        return found if isinstance(found, dict) else None


def stop_all(nodes: Sequence[LocalProcess]) -> dict[str, int]:
    """Stop the processes that run, all at once; return the exit status of each."""
    running = [node for node in nodes if node.is_running]
    for node in running:
        node.terminate()
    return {node.name: node.wait_stopped() for node in running}
