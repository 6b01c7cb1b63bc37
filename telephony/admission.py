"""What a record must pass before it is signed: the rules in force, and the chain's record window.

Every node holds a transaction against the same; a record that fails takes its whole transaction with it.

Source: docs/protocol.md, "Transaction".
"""

from __future__ import annotations

from typing import Final

from ledger.cdr import CallRecord
from ledger.errors import UnusableTransaction
from ledger.genesis import Parameters
from ledger.validation import AHEAD_SLOTS, Rules

WINDOW_MARGIN_MS: Final = 600_000
"""Records this near the end of the chain's window are refused, or a tenth of it where it is short."""
EARLY_MS_MAX: Final = 300_000
"""A clock further ahead than this is a fault to be mended, not to be waited for."""


class OutsideWindow(UnusableTransaction):
    """The call ended before the chain's window, or far in the future: no block will hold it, if the clock is right."""


class NotYet(UnusableTransaction):
    """The call ends shortly after now: a clock is a little ahead, and the record will do when its time has come.

    Attributes:
        due_ms: when that is.
    """

    due_ms = 0


def check_admissible(record: CallRecord, *, rules: Rules, parameters: Parameters, now_ms: int) -> None:
    """Hold a record against the rules and the window, as every node will.

    now_ms: UTC, of the clock that the ledger goes by.
    Raises RuleViolation, OutsideWindow or NotYet, naming the field.
    """
    violation = rules.check_record(record)
    if violation is not None:
        raise violation.to_error(where="record")
    window_ms = parameters.record_window_ms
    # A record must still be inside when its block is sealed.
    oldest_ms = now_ms - window_ms + min(WINDOW_MARGIN_MS, window_ms // 10)
    if record.end_ms < oldest_ms:
        raise OutsideWindow(
            "the call ended before the chain's record window",
            where="record.end_ms",
            expected=f">= {oldest_ms}",
            actual=record.end_ms,
        )
    newest_ms = now_ms + AHEAD_SLOTS * parameters.slot_ms
    if record.end_ms > newest_ms:
        is_near = record.end_ms <= newest_ms + EARLY_MS_MAX
        error: UnusableTransaction = (NotYet if is_near else OutsideWindow)(
            "the call ends in the future",
            where="record.end_ms",
            expected=f"<= {newest_ms}",
            actual=record.end_ms,
            hint="Compare the clocks of the platform and of the ledger",
        )
        if isinstance(error, NotYet):
            error.due_ms = record.end_ms - AHEAD_SLOTS * parameters.slot_ms
        raise error
