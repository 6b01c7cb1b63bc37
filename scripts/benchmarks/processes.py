"""Processes of our own: started, watched and ended by id."""

from __future__ import annotations

import os


def pin_to_one_core() -> int:
    """Bind this process, and every thread it begins from now on, to one core; return which."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core
