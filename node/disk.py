"""How much room there is, how much the data directory takes, and how fast that grows: measured once a minute.

Source: docs/operations.md, "The disk is full".
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.clock import steady_ms

LOOK_S: Final = 60
SAMPLE_MS: Final = 10 * 60_000
"""Apart from one another at least: less tells more of compactions than of growth."""
SAMPLES_MAX: Final = 145
"""A day of them."""
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """The disk under a data directory.

    Attributes:
        free_bytes: room that this process may take.
        store_bytes: what the files of the data directory hold, the vault included.
        growth_bytes_per_day: by what it grew over ``grown_ms``, as of a day; None until that is ten minutes.
        grown_ms: how long that was watched, a day at most.
    """

    free_bytes: int
    store_bytes: int
    growth_bytes_per_day: int | None = None
    grown_ms: int = 0


class DiskWatch:
    """Measures one data directory.

    Attributes:
        usage: as of the last measurement.
    """

    def __init__(self, directory: Path) -> None:
        """Measure once. Raises nothing: a directory that cannot be read has no bytes, and no room."""
        self._directory = directory
        self._samples: deque[tuple[int, int]] = deque(maxlen=SAMPLES_MAX)
        self.usage = DiskUsage(0, 0)
        self.look(now_ms=steady_ms())

    def look(self, *, now_ms: int) -> None:
        """Measure; reads the sizes of all files, in the order of milliseconds."""
        store_bytes = size_of(self._directory)
        if not self._samples or now_ms - self._samples[-1][0] >= SAMPLE_MS:
            self._samples.append((now_ms, store_bytes))
        since_ms, before = self._samples[0]
        grown_ms = now_ms - since_ms
        is_known = grown_ms >= SAMPLE_MS
        growth = (store_bytes - before) * DAY_MS // grown_ms if is_known else None
        self.usage = DiskUsage(free_bytes(self._directory), store_bytes, growth, grown_ms)

    async def run(self) -> None:
        """Measure until cancelled, beside the event loop."""
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self.look, now_ms=steady_ms())


def free_bytes(directory: Path) -> int:
    """Return the room on the disk of a directory, 0 where it cannot be asked."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return 0


def size_of(directory: Path) -> int:
    """Return the bytes of all files below a directory; what goes away meanwhile does not count."""
    total, folders = 0, [str(directory)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += _size(entry)
        except OSError:
            continue
    return total


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
