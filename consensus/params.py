"""How many producers make a quorum, and how many faults that bears.

Source: docs/consensus.md, "Quorum".
"""

from __future__ import annotations

FAULT_TOLERANT_MIN = 4
"""With fewer producers a chain runs but tolerates no fault."""


def faults_tolerated(producers: int) -> int:
    """Return ``f = (n - 1) // 3``: how many of ``producers`` may be faulty in any way."""
    return (producers - 1) // 3


def quorum_of(producers: int) -> int:
    """Return ``q = 2n // 3 + 1``: any two quorums share an honest producer while at most f are faulty."""
    return 2 * producers // 3 + 1
