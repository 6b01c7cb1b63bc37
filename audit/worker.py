"""A worker process: reads tasks from standard input and writes answers to standard output, until the input ends.

Every message is its length (4 bytes, big endian) and MessagePack. The first one is the genesis, which READY answers. A
worker outlives nobody: however the auditor ends, the input ends.
"""

from __future__ import annotations

import gc
import os
import struct
import sys
import threading
from queue import SimpleQueue
from typing import IO, Final

from audit.vouch import Answer, Task, Voucher
from ledger.codec import decode_loose, encode
from ledger.genesis import Genesis
from ledger.rules.ruleset import RuleSet

LENGTH: Final = struct.Struct(">I")
READY: Final = b""
"""The answer to the genesis: tasks are read from now on."""
SWITCH_S: Final = 0.0005
"""How long the one thread keeps the other waiting: whoever sends a task waits until it is read."""


def read_message(file: IO[bytes]) -> bytes | None:
    """Return the next message, None where the stream ends or is cut."""
    head = _read(file, LENGTH.size)
    return None if head is None else _read(file, LENGTH.unpack(head)[0])


def _read(file: IO[bytes], length: int) -> bytes | None:
    pieces = []
    while length:
        piece = file.read(length)
        if not piece:
            return None
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def write_message(file: IO[bytes], message: bytes) -> None:
    """Write a message. Raises OSError where nobody reads any more."""
    left = memoryview(LENGTH.pack(len(message)) + message)
    while left:
        left = left[file.write(left) :]
    file.flush()


def serve(tasks: IO[bytes], answers: IO[bytes]) -> None:
    """Answer every task until the tasks end. Raises OSError where nobody takes an answer."""
    first = read_message(tasks)
    if first is None:
        return
    genesis = decode_loose(first, Genesis)
    voucher = Voucher(genesis, RuleSet(genesis.rules, carbon_basis=genesis.parameters.carbon_basis))
    waiting: SimpleQueue[bytes | None] = SimpleQueue()
    # The next task is read while this one is worked on: whoever sends it never waits for the work, so the two sides
    # can never wait for each other.
    threading.Thread(target=_read_all, args=(tasks, waiting), daemon=True).start()
    write_message(answers, READY)
    while (message := waiting.get()) is not None:
        write_message(answers, encode(Answer.of(voucher.check(decode_loose(message, Task)))))


def _read_all(tasks: IO[bytes], waiting: SimpleQueue[bytes | None]) -> None:
    message: bytes | None = b""
    while message is not None:
        message = read_message(tasks)
        waiting.put(message)


def main() -> None:
    """Serve the process that started this one, and end without a word."""
    gc.disable()
    sys.setswitchinterval(SWITCH_S)
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever else is printed goes where people read.
    os.dup2(2, 1)
    status = 0
    try:
        serve(sys.stdin.buffer, answers)
    except OSError:
        status = 1
    except Exception as error:  # noqa: BLE001 - a traceback is no answer; this line is what to report
        print(f"ledger-verify: a worker: {type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201
        status = 1
    # Neither the thread that reads nor buffers that nobody empties hold up the end.
    os._exit(status)


if __name__ == "__main__":
    main()
