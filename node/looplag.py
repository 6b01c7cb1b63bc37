"""How much later than it should the event loop does what is due: what keeps it busy delays blocks and votes.

Source: docs/metrics.md.
"""

from __future__ import annotations

import asyncio
from typing import Final

from telephony.histogram import Histogram

LOOK_S: Final = 1.0


async def watch_loop(lag_s: Histogram) -> None:
    """Sleep, and note by how much too long, until cancelled."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + LOOK_S
        await asyncio.sleep(LOOK_S)
        lag_s.observe(clock() - due)
