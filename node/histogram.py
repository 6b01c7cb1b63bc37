"""The buckets of a node's histograms.

Source: docs/metrics.md.
"""

from __future__ import annotations

from typing import Final

FINALITY_S: Final = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Around the one to two slots that finality takes, and up to where records are said to wait."""
INGEST_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Around the 50 ms for which records are collected into a transaction."""
LAG_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""A turn checks for 20 ms; beyond a quarter of a slot blocks come late."""
BLOCK_RECORDS: Final = (0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 50_000.0, 200_000.0)
BLOCK_BYTES: Final = (0.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0, 64_000_000.0)
