"""Keeps the history tree at hand: the roots of its subtrees are rows of the store, written as blocks become final.

So a node that starts again answers for the history of years at once. Where many rows are missing, as in a directory of
an earlier version, they are computed in small steps; who asks meanwhile is told to come back.

Source: docs/audit.md, "Notes and tiles".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from audit.history import CHUNK_LEAVES, HistoryTree
from consensus.rows import read_final_point
from ledger.errors import StoreDamaged, StoreError
from node.api.parts import CONTEXT, Context
from node.intake import Overloaded
from node.logs import get_log

STEP_SUBTREES: Final = 4
"""Computed at a time, in 10 to 20 ms, with a rest behind them: what else the node does comes first."""
STEP_REST_S: Final = 0.02
WRITE_SUBTREES: Final = 256
"""Rows in one write: what a crash costs is computed again in a second."""
LOOK_S: Final = 30.0
"""How often to look for new final blocks: a subtree is complete after a thousand."""
MISSING_MAX: Final = 512
"""Subtrees that a question may wait for: two seconds, half a million blocks."""


async def check_gathered(context: Context, size: int) -> None:
    """Raise Overloaded where a question about the history of ``size`` blocks would take long."""
    missing = await asyncio.to_thread(context.reader.history.missing, size)
    if missing > MISSING_MAX:
        raise Overloaded(
            "the node still gathers the history of the chain",
            where="history",
            expected=f"{size} blocks",
            actual=f"{size - missing * CHUNK_LEAVES}",
            hint="Ask again in some seconds; it is gathered once, and kept",
        )


async def keep_history(app: web.Application) -> AsyncIterator[None]:
    """Gather the history while the application runs."""
    context = app[CONTEXT]
    task = asyncio.create_task(_run(context), name="history")
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    # A step may be under way in its thread, on a store that is about to be closed: this waits for it.
    await asyncio.to_thread(context.reader.history.missing, 0)


async def _run(context: Context) -> None:
    rows: list[tuple[bytes, bytes]] = []
    while True:
        try:
            found = await asyncio.to_thread(_step, context)
            rows += found
            if rows and (len(rows) >= WRITE_SUBTREES or len(found) < STEP_SUBTREES):
                await context.node.keep_rows(rows)
                rows = []
        except StoreDamaged as error:
            # Whoever asks is told the same; nothing here mends it.
            get_log("api").error("the history cannot be gathered", error=error.sentence())
            return
        except StoreError as error:
            get_log("api").warning("the history is not kept yet", error=error.sentence())
            found = []
        await asyncio.sleep(STEP_REST_S if len(found) == STEP_SUBTREES else LOOK_S)


def _step(context: Context) -> list[tuple[bytes, bytes]]:
    history: HistoryTree = context.reader.history
    point = read_final_point(context.node.store)
    return [] if point is None else history.gather(point.height, STEP_SUBTREES)
