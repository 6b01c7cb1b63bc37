"""The programs of the lab: which are missing, on which ports they run, and that every one of them is ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
from pathlib import Path

from siplab.sip import LabError

MODULES = Path("/usr/lib/x86_64-linux-gnu/kamailio/modules")
NEEDED_PROGRAMS = {"kamailio": "kamailio", "rtpengine": "rtpengine-daemon"}
NEEDED_MODULES = {
    "acc_json.so": "kamailio-extra-modules",
    "http_client.so": "kamailio-utils-modules",
    "json.so": "kamailio-json-modules",
    "jansson.so": "kamailio-extra-modules",
}
"""What docs/kamailio/kamailio.cfg loads beyond Debian's plain kamailio package, and the package of each."""

STOP_GRACE_S = 5.0
PRIVATE_MIB = 32
"""Enough for full batches of CDRs; see docs/kamailio.md."""
PORT_SPAN = 200
"""RTP ports given to rtpengine: 4 a call."""


def missing_packages() -> list[str]:
    """Return the Debian packages that must be installed first, in order, each once."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [package for program, package in NEEDED_PROGRAMS.items() if not shutil.which(program, path=path)]
    if "kamailio" in missing:
        return sorted({*missing, *NEEDED_MODULES.values()})
    for folder in (MODULES, *Path("/usr/lib").glob("*/kamailio/modules")):
        if folder.is_dir():
            return sorted({*missing, *(p for m, p in NEEDED_MODULES.items() if not (folder / m).exists())})
    return sorted({*missing, *NEEDED_MODULES.values()})


def program(name: str) -> str:
    """Return the path of a program, also where /usr/sbin is not in PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise LabError(f"{name} is not installed")
    return found


def free_udp_port() -> int:
    """Return a UDP port of loopback that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_udp_range(span: int = PORT_SPAN) -> int:
    """Return the first of ``span`` free UDP ports, even, below what the kernel hands out by itself."""
    for _ in range(50):
        first = random.randrange(10_000, 32_000 - span, 2)  # noqa: S311 - a port, not a secret
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + span):
                probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                probe.bind(("127.0.0.1", port))
            return first
    raise LabError(f"no {span} free UDP ports in a row on 127.0.0.1")


class Program:
    """A child in its own session, its output in a file; ``stop`` ends it and whatever it forked."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @classmethod
    async def start(cls, name: str, arguments: list[str], log: Path) -> Program:
        """Start ``name`` with its output going to ``log``."""
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                program(name),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Its own process group: a Ctrl-C reaches the lab alone, which then ends its children in order.
                start_new_session=True,
            )
        return cls(name, process, log)

    def output(self) -> str:
        """Return what it has written so far."""
        return self.log.read_text("utf-8", "replace")

    def check_alive(self) -> None:
        """Raise LabError with the last lines of its output if it has ended."""
        if self.process.returncode is not None:
            tail = "\n".join(self.output().splitlines()[-12:])
            raise LabError(f"{self.name} ended with status {self.process.returncode}:\n{tail}")

    async def stop(self) -> None:
        """Ask it to end, wait, and insist; its whole process group is gone afterwards."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), STOP_GRACE_S)


async def start_rtpengine(folder: Path) -> tuple[Program, int]:
    """Start rtpengine in user space; return it and its control port once that answers."""
    control, media = free_udp_port(), free_udp_range()
    arguments = ["--foreground", "--log-stderr", "--log-level=5", "--table=-1", "--interface=127.0.0.1"]
    arguments += [f"--listen-ng=127.0.0.1:{control}", f"--pidfile={folder}/rtpengine.pid"]
    arguments += [f"--port-min={media}", f"--port-max={media + PORT_SPAN - 1}"]
    # Ports of an ended call are free at once: the lab has few of them.
    arguments += ["--config-file=none", "--num-threads=2", "--delete-delay=0"]
    started = await Program.start("rtpengine", arguments, folder / "rtpengine.log")
    return started, control


async def start_kamailio(
    folder: Path, config: Path, settings: dict[str, str], *, private_mib: int = PRIVATE_MIB
) -> Program:
    """Start Kamailio on a copy of ``config`` with ``settings`` as its kamailio-local.cfg.

    private_mib: memory that each of its processes has for itself.
    """
    local = folder / "kamailio-local.cfg"
    local.touch(mode=0o600)
    local.write_text("".join(f"#!define {name} {value}\n" for name, value in settings.items()))
    try:
        shutil.copyfile(config, folder / "kamailio.cfg")
    except OSError as error:
        raise LabError(f"{config} cannot be read: {error.strerror}") from None
    arguments = ["-DD", "-E", "-f", str(folder / "kamailio.cfg"), "-m", "64", "-M", str(private_mib)]
    arguments += ["-Y", str(folder), "-P", str(folder / "kamailio.pid")]
    return await Program.start("kamailio", arguments, folder / "kamailio.log")
