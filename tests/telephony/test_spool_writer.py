"""Group commit: many who wait share one sync, and share its failure."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from ledger.errors import StoreError, StoreFull
from telephony import spool_writer
from telephony.adapters.base import Kind
from telephony.spool import Spool
from telephony.spool_writer import SpoolWriter


def documents(number: int) -> list[tuple[int, bytes]]:
    return [(Kind.KAMAILIO, b"%d" % number)]


async def test_those_who_wait_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, reserve_bytes=0)
    writer = SpoolWriter(spool, lambda: 7)
    syncs = []
    real_sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (syncs.append(fd), real_sync(fd)))
    await asyncio.gather(*(writer.append(documents(number)) for number in range(50)))
    frames = spool.read(spool.cursor, count_max=100).frames
    assert [(frame.document, frame.time_ms) for frame in frames] == [(b"%d" % number, 7) for number in range(50)]
    assert len(syncs) == 1
    assert writer.grown.is_set()
    await writer.close()
    spool.close()


async def test_a_failure_reaches_everybody_and_the_next_group_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, reserve_bytes=0)
    writer = SpoolWriter(spool, lambda: 7)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        found = await asyncio.gather(*(writer.append(documents(number)) for number in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [StoreFull] * 3
    assert (spool.backlog, writer.grown.is_set()) == (0, False)
    await writer.append(documents(9))
    assert [frame.document for frame in spool.read(spool.cursor, count_max=9).frames] == [b"9"]
    await writer.close()
    spool.close()


async def test_groups_are_bounded_and_one_who_left_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_writer, "GROUP_BYTES_MAX", 100)
    spool = Spool(tmp_path, reserve_bytes=0)
    writer = SpoolWriter(spool, lambda: 7)
    appends = [asyncio.create_task(writer.append(documents(number))) for number in range(10)]
    await asyncio.sleep(0)
    appends[3].cancel()
    await asyncio.wait(appends)
    assert [task.cancelled() for task in appends].index(True) == 3
    assert spool.backlog == 10
    await writer.close()
    spool.close()


async def test_a_slow_disk_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_writer, "WAITING_BYTES_MAX", 100)
    spool = Spool(tmp_path, reserve_bytes=0)
    writer = SpoolWriter(spool, lambda: 7)
    found = await asyncio.gather(*(writer.append(documents(number)) for number in range(4)), return_exceptions=True)
    assert [type(error) for error in found] == [type(None), type(None), StoreError, StoreError]
    await writer.append(documents(9))
    assert spool.backlog == 3
    await writer.close()
    spool.close()


async def test_senders_that_come_again_at_once_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_writer, "GATHER_S", 0.5)
    spool = Spool(tmp_path, reserve_bytes=0)
    writer = SpoolWriter(spool, lambda: 7)

    async def send(sender: int) -> None:
        for number in range(10):
            await writer.append(documents(100 * sender + number))

    await asyncio.gather(*(send(sender) for sender in range(8)))
    # Each goes along in ten groups; a busy machine may once let somebody come too late.
    assert 10 <= writer.groups <= 14
    assert spool.backlog == 80
    await writer.close()
    spool.close()


async def test_a_sender_alone_is_never_kept_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody comes again but itself: a wait of an hour would be seen."""
    monkeypatch.setattr(spool_writer, "GATHER_S", 3600.0)
    spool = Spool(tmp_path, reserve_bytes=0)
    writer = SpoolWriter(spool, lambda: 7)
    for number in range(20):
        await writer.append(documents(number))
    assert (writer.groups, spool.backlog) == (20, 20)
    await writer.close()
    spool.close()


async def test_who_does_not_come_again_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, reserve_bytes=0)
    writer = SpoolWriter(spool, lambda: 7)
    await asyncio.gather(*(writer.append(documents(number)) for number in range(30)))
    await writer.append(documents(30))
    monkeypatch.setattr(spool_writer, "GATHER_S", 3600.0)
    await writer.append(documents(31))
    assert spool.backlog == 32
    await writer.close()
    spool.close()
