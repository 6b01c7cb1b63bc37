"""Killed at every durable step, before it and behind it: each call is on the ledger once, each letter there once.

The steps are SQLite's commits, the syncs of spool, cursor, keys and dead letters, renames and deletions, and what is
asked of a node: the opening of an empty directory and the taking in among them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telephony.outbox import LIFETIME_MS
from tests.telephony.agent_kit import Crash, Faults, World, cdr, opened, spooled

CALLS = ("fsync", "fdatasync", "rename", "replace", "unlink")


async def story(world: World) -> None:
    """Hand in, be refused, lose an answer, expire; the sender hands in again what it had no answer for."""
    with opened(world) as parts:
        if parts.spool.end.sequence == 1 and not world.counted:
            spooled(parts.spool, *(cdr(n, sip_code="603" if n == 3 else "486") for n in range(6)), cdr(7, end_time="x"))
        await parts.step()
        if world.height < 2:
            world.pass_time(LIFETIME_MS // 1000)
        await parts.settle()
        parts.spool.retire()
        assert not any(path.stat().st_size for path in world.directory.glob("*.seg"))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Faults], None]:
    """Return what puts the points of given faults before and behind every durable step of the system."""
    real = {name: getattr(os, name) for name in CALLS}

    def watch(faults: Faults) -> None:
        for name, call in real.items():

            def step(*arguments: Any, call: Callable[..., Any] = call, **more: Any) -> Any:
                faults.point()
                result = call(*arguments, **more)
                faults.point()
                return result

            monkeypatch.setattr(os, name, step)

    return watch


async def killed_at(directory: Path, at: int, watched: Callable[[Faults], None]) -> tuple[World, bool]:
    """Play the story with a kill at the n-th point, then without; return the world and whether it came to the kill."""
    world = World(directory, refuse=lambda record: record.sip_code == 603, statuses=[200, 0], faults=Faults(at))
    watched(world.faults)
    is_killed = False
    try:
        await story(world)
    except Crash:
        is_killed = True
    world.faults.at = 0
    await story(world)
    return world, is_killed


@pytest.mark.slow
async def test_killed_at_any_step_each_call_is_on_the_ledger_once(
    tmp_path: Path, watched: Callable[[Faults], None]
) -> None:
    at, is_killed = 0, True
    while is_killed:
        at += 1
        world, is_killed = await killed_at(tmp_path / str(at), at, watched)
        assert sorted(world.counted.values()) == [1] * 5, at
        with opened(world) as parts:
            assert sorted(stage for stage, _ in parts.reasons()) == ["building", "delivery"], at
            assert (parts.backlog, len(parts.dead)) == (0, 2), at
    assert at > 60
