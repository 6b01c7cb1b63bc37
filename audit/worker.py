"""A worker process: reads tasks from standard input and writes answers to standard output, until the input ends.

Every message is its length (4 bytes, big endian) and MessagePack. The first one is the genesis. A worker outlives
nobody: however the auditor ends, the input ends.
"""

from __future__ import annotations

import gc
import os
import struct
import sys
import threading
from queue import SimpleQueue
from typing import IO, Final

from audit.vouch import Task, Voucher
from ledger.codec import decode_loose, encode
from ledger.genesis import Genesis
from ledger.rules.ruleset import RuleSet

LENGTH: Final = struct.Struct(">I")


def read_message(file: IO[bytes]) -> bytes | None:
    """Return the next message, None where the stream ends or is cut."""
    head = file.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    length = LENGTH.unpack(head)[0]
    data = file.read(length)
    return data if len(data) == length else None


def write_message(file: IO[bytes], message: bytes) -> None:
    """Write a message. Raises OSError where nobody reads any more."""
    file.write(LENGTH.pack(len(message)))
    file.write(message)
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
    while (message := waiting.get()) is not None:
        write_message(answers, encode(voucher.answer(decode_loose(message, Task))))


def _read_all(tasks: IO[bytes], waiting: SimpleQueue[bytes | None]) -> None:
    message: bytes | None = b""
    while message is not None:
        message = read_message(tasks)
        waiting.put(message)


def main() -> None:
    """Serve the process that started this one, and end without a word."""
    gc.disable()
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
